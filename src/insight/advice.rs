//! What to change, in Django's words.

use super::describe::Described;
use super::judge::Kind;
use super::runs::Run;

/// What the repeated statement fetches, as seen from the loop.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Relation {
    /// Anything else.
    Other,
}

impl Relation {
    /// Label value.
    pub fn name(self) -> &'static str {
        "other"
    }
}

/// Reads the relation from the shapes of the statements.
pub(crate) fn relation(_kind: Kind, _run: &Run, _child: Option<&Described>, _parent: Option<&Described>) -> Relation {
    Relation::Other
}

/// The advice for a relation.
pub(crate) fn advice(_relation: Relation, _texts: &[&Described], _parent: Option<&Described>) -> String {
    String::new()
}
