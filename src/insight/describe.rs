//! What a fingerprint looks like: literal-free text, tables, shape. Made once, when it is first seen.

use super::Text;
use crate::sql::{self, Statement};

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
    pub(crate) fn new(_statement: &Statement, text: Text<'_>) -> Self {
        let display = sql::display(text.sql, text.lex, MAX_TEXT);
        Self { display: display.as_str().into(), summary: "".into(), tables: Vec::new() }
    }

    /// At most three tables, at most 96 bytes.
    pub(crate) fn tables_label(&self) -> String {
        let mut label = self.tables.iter().take(3).map(|table| &**table).collect::<Vec<_>>().join(",");
        let cut = (0..=label.len().min(96)).rev().find(|at| label.is_char_boundary(*at)).unwrap_or(0);
        label.truncate(cut);
        label
    }

    /// What the statement is by itself.
    pub(crate) fn shape_label(&self) -> &'static str {
        "other"
    }

    pub(crate) fn bytes(&self) -> usize {
        self.display.len() + self.summary.len() + self.tables.iter().map(|table| table.len() + 16).sum::<usize>() + 64
    }
}
