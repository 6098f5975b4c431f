//! What a fingerprint looks like: literal-free text, tables, shape. Made once, when it is first seen.

use super::Text;
use super::advice;
use crate::sql::{self, Shape, Statement};

/// Longest text kept.
const MAX_TEXT: usize = 2_048;
/// Tables kept of one statement.
const MAX_TABLES: usize = 8;

/// The literal-free description of one fingerprint.
#[derive(Debug, Default)]
pub(crate) struct Described {
    /// Display form: valid SQL with `$1` for literals.
    pub(crate) display: Box<str>,
    /// `SELECT shop_book` and the like.
    pub(crate) summary: Box<str>,
    /// Tables, first the one that the statement is about.
    pub(crate) tables: Vec<Box<str>>,
    /// Columns, joins, conditions.
    pub(crate) shape: Shape,
}

impl Described {
    /// Describes a statement from its text.
    pub(crate) fn new(_statement: &Statement, text: Text<'_>) -> Self {
        let shape = sql::shape(text.sql, text.lex);
        let mut tables: Vec<Box<str>> = Vec::new();
        for table in shape.tables.iter().take(MAX_TABLES) {
            if !tables.iter().any(|known| **known == *table.name) {
                tables.push(table.name.as_str().into());
            }
        }
        Self {
            display: sql::display(text.sql, text.lex, MAX_TEXT).as_str().into(),
            summary: sql::summary(&shape).into(),
            tables,
            shape,
        }
    }

    /// The table that the statement is about; empty when unknown.
    pub(crate) fn table(&self) -> &str {
        self.tables.first().map_or("", |table| table)
    }

    /// A table that Django fills from the code: its rows are as many as the models, so a loop over them is not a loop
    /// over data. A look-up by primary key (generic relations) is not meant.
    pub(crate) fn is_registry(&self) -> bool {
        let by_key = self.shape.equals.iter().any(|column| column.name == "id");
        !by_key
            && self
                .tables
                .iter()
                .all(|table| matches!(&**table, "django_content_type" | "auth_permission" | "django_migrations"))
            && !self.tables.is_empty()
    }

    /// At most three tables, at most 96 bytes.
    pub(crate) fn tables_label(&self) -> String {
        let mut label = self.tables.iter().take(3).map(|table| &**table).collect::<Vec<_>>().join(",");
        let cut = (0..=label.len().min(96)).rev().find(|at| label.is_char_boundary(*at)).unwrap_or(0);
        label.truncate(cut);
        label
    }

    /// What the statement is by itself (label value).
    pub(crate) fn shape_label(&self) -> &'static str {
        advice::relation_alone(self).name()
    }

    pub(crate) fn bytes(&self) -> usize {
        let columns = self.shape.columns.len() + self.shape.equals.len() + self.shape.order_by.len();
        self.display.len()
            + self.summary.len()
            + self.tables.iter().map(|table| table.len() + 16).sum::<usize>()
            + columns * (std::mem::size_of::<sql::Column>() + 32)
            + std::mem::size_of::<Self>()
    }
}
