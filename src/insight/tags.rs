//! What SQL comments say about the origin of a statement, reduced to numbers.

use std::sync::Arc;

/// Who a session belongs to, for findings: names only.
#[derive(PartialEq, Eq, Debug, Default)]
pub(crate) struct Caller {
    pub(crate) user: Box<str>,
    /// `application_name`: printable ASCII, 64 bytes; empty when not given.
    pub(crate) application: Box<str>,
}

/// The application of a caller, if it gave one.
pub(crate) fn application(caller: &Option<Arc<Caller>>) -> Option<&str> {
    caller.as_deref().map(|caller| &*caller.application).filter(|name| !name.is_empty())
}

/// Tags of one statement: numbers only, so that a prepared statement can keep them. Zero means absent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TagSet {
    /// Hash of the W3C trace-id.
    pub(crate) trace: u64,
    /// Hash of the first configured id tag (request, job, task).
    pub(crate) id: u64,
    /// Number of the route in the registry.
    pub(crate) route: u32,
}
