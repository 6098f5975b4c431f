//! The PostgreSQL frontend/backend protocol, version 3, without I/O.
//!
//! Pure: no tokio, no sockets. [`frame`] steps over messages by their headers, [`tracker`] knows which answers a
//! server still owes, [`names`] reads the few names the relay rewrites, [`startup`] the first packet, and
//! [`control`] (the only user of `pgwire`) encodes and decodes whole control messages.
//!
//! Source: PostgreSQL documentation, chapter "Frontend/Backend Protocol" (protocol-flow, protocol-message-formats).

pub mod control;
pub mod cursor;
pub mod error;
pub mod frame;
pub mod names;
pub mod startup;
pub mod status;
pub mod tag;
pub mod tracker;

pub use error::{ErrorFields, Severity, sqlstate};
pub use frame::{Frame, FrameError, HEADER};
pub use status::TxStatus;
pub use tracker::{Action, Request, Tracker};
