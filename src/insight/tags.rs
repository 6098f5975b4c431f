//! What SQL comments say about the origin of a statement, reduced to numbers.

use std::sync::Arc;

use crate::sql::CommentBodies;

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

/// Comments whose tags are remembered; by the hash of their text each has one place.
const CELLS: usize = 64;

#[derive(Default)]
struct Cell {
    /// Bytes of the comment that opens the text and of the one that ends it, in one.
    text: Vec<u8>,
    /// How many each has, if it is there.
    lengths: Option<(Option<usize>, Option<usize>)>,
    tags: TagSet,
}

/// Tags of comments read lately: a view's statements have all the same. Those with an id or a trace are ever new, and
/// not kept.
pub(crate) struct ReadTags(Box<[Cell]>);

impl ReadTags {
    pub(crate) fn new() -> Self {
        Self((0..CELLS).map(|_| Cell::default()).collect())
    }

    /// The tags in these comments, if they are remembered. `hash` is theirs.
    #[inline]
    pub(crate) fn find(&self, hash: u64, bodies: &CommentBodies<'_>) -> Option<TagSet> {
        let cell = &self.0[hash as usize % CELLS];
        let (leading, trailing) = (bodies.leading.unwrap_or_default(), bodies.trailing.unwrap_or_default());
        let same =
            cell.lengths == Some(lengths(bodies)) && cell.text.starts_with(leading) && cell.text.ends_with(trailing);
        same.then_some(cell.tags)
    }

    /// Remembers the tags in these comments.
    pub(crate) fn learn(&mut self, hash: u64, bodies: &CommentBodies<'_>, tags: TagSet) {
        if tags.trace != 0 || tags.id != 0 {
            return;
        }
        let cell = &mut self.0[hash as usize % CELLS];
        cell.text.clear();
        cell.text.extend_from_slice(bodies.leading.unwrap_or_default());
        cell.text.extend_from_slice(bodies.trailing.unwrap_or_default());
        (cell.lengths, cell.tags) = (Some(lengths(bodies)), tags);
    }
}

fn lengths(bodies: &CommentBodies<'_>) -> (Option<usize>, Option<usize>) {
    (bodies.leading.map(<[u8]>::len), bodies.trailing.map(<[u8]>::len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_remembered_of_the_same_comments_only() {
        let mut known = ReadTags::new();
        let bodies = |leading, trailing| CommentBodies { leading, trailing };
        let (a, b): (Option<&[u8]>, Option<&[u8]>) = (Some(b"route='a'"), Some(b"job='b'"));
        let tags = TagSet { route: 7, ..TagSet::default() };
        known.learn(5, &bodies(a, b), tags);
        assert_eq!(known.find(5, &bodies(a, b)), Some(tags));
        for other in [bodies(b, a), bodies(a, None), bodies(None, b), bodies(Some(b"route='a'j"), Some(b"ob='b'"))] {
            assert_eq!(known.find(5, &other), None);
        }
        known.learn(5, &bodies(None, a), TagSet { trace: 1, ..tags });
        assert_eq!(known.find(5, &bodies(None, a)), None, "no trace comes again");
        known.learn(5, &bodies(None, a), TagSet::default());
        assert_eq!(known.find(5, &bodies(None, a)), Some(TagSet::default()));
        assert_eq!(known.find(5, &bodies(a, b)), None);
        assert_eq!(known.find(5, &bodies(a, None)), None);
    }
}
