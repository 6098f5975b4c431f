//! pgsluice: a PostgreSQL connection pooler that names the N+1 queries of every client session.
//!
//! The map of the program; imports point downward only (`tests/tidy.rs` checks it):
//!
//! | layer | modules | what they are |
//! |---|---|---|
//! | 7 | `main`, [`cli`] | arguments and subcommands |
//! | 6 | [`app`] | wires everything: workers, signals, drain |
//! | 5 | [`admin`], [`http`] | the psql console; `/metrics` and health |
//! | 4 | [`client`] | one client session: login, relay, states |
//! | 3 | [`pool`], [`cancel`], [`diagnosis`] | checkout, waiting, keeper; cancel keys; one list of causes |
//! | 2 | [`server`] | one PostgreSQL connection |
//! | 1 | [`net`], [`auth`], [`insight`], [`config`] | sockets and buffers; secrets; detectors; typed configuration |
//! | 0 | [`wire`], [`sql`], [`catalog`] | pure: frames and messages; lexer and fingerprints; what a database says of itself |
pub mod admin;
pub mod app;
pub mod auth;
pub mod cancel;
pub mod catalog;
pub mod cli;
pub mod client;
pub mod config;
pub mod diagnosis;
pub mod http;
pub mod insight;
pub mod net;
pub mod pool;
pub mod server;
pub mod sql;
pub mod wire;
