//! The page, `/metrics`, the JSON API, `/healthz`, `/readyz` on a thread of their own, so that a scrape never delays a query.
//!
//! | file | what it does |
//! |---|---|
//! | [`server`] | the thread, its limits and routes |
//! | [`access`] | who may read |
//! | [`api`] | JSON: findings, queries, routes, pools |
//! | [`health`] | alive, started, ready |
//! | [`metrics`] | gathers one scrape |
//! | [`families`] | the table of metric families |
//! | [`page`] | Prometheus text |
//! | [`process`] | memory, CPU, descriptors |
//! | [`ui`] | the web page, made of the API alone |
//! | [`docs`] | `docs/metrics.md` |

pub mod access;
pub mod api;
pub mod docs;
pub mod families;
pub mod health;
pub mod metrics;
pub mod page;
pub mod process;
pub mod server;
pub mod ui;

pub use server::start;
