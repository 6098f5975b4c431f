//! What SQL comments say about the origin of a statement, reduced to numbers.

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
