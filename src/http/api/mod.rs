//! The JSON API: `/api/v1/...`, read only, made from the same snapshots as `/metrics`. No literal is in any of it.
//!
//! | file | what it does |
//! |---|---|
//! | [`endpoint`] | paths, parameters, pages, errors |
//! | [`object`] | objects that know their own documentation |
//! | [`findings`], [`queries`], [`routes`] | what insight found and counts |
//! | [`causes`] | the ranked list of what to mend |
//! | [`pools`] | pools, who holds what, who is pinned |
//! | [`history`] | what was counted when |
//! | [`status`] | the process and insight itself |
//! | [`docs`] | `docs/api.md` |
//!
//! Within one version fields are only added. Times are seconds (`_seconds`) or microseconds (`_us`), sizes bytes.

pub mod causes;
pub mod docs;
pub mod endpoint;
pub mod findings;
pub mod history;
pub mod object;
pub mod pools;
pub mod queries;
pub mod routes;
pub mod status;

pub use endpoint::{PREFIX, answer};
