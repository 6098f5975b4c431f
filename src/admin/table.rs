//! Rows of an answer.

use crate::wire::control::{self, ColumnType};

/// The rows of one SHOW.
pub struct Table {
    columns: Vec<(&'static str, ColumnType)>,
    rows: Vec<Vec<Option<String>>>,
}

/// A value of a row.
pub enum Value {
    /// NULL.
    Null,
    /// Anything else, as text.
    Text(String),
}

macro_rules! values {
    ($($from:ty),*) => {
        $(impl From<$from> for Value {
            fn from(v: $from) -> Self {
                Value::Text(v.to_string())
            }
        })*
    };
}

values!(&str, String, u16, u32, u64, usize, i64);

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(v: Option<T>) -> Self {
        v.map_or(Value::Null, Into::into)
    }
}

/// A row of values of any of the types that [`Value`] takes.
macro_rules! row {
    ($($value:expr),* $(,)?) => {
        vec![$($crate::admin::table::Value::from($value)),*]
    };
}
pub(crate) use row;

impl Table {
    /// No rows yet. `columns`: names separated by blanks; `#name` is a `bigint`, others are `text`.
    pub fn new(columns: &'static str) -> Table {
        let column = |word: &'static str| match word.strip_prefix('#') {
            Some(name) => (name, ColumnType::Int8),
            None => (word, ColumnType::Text),
        };
        Table { columns: columns.split_ascii_whitespace().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row, which has a value for each column.
    pub fn push(&mut self, row: Vec<Value>) {
        debug_assert_eq!(row.len(), self.columns.len());
        let text = |v| match v {
            Value::Null => None,
            Value::Text(t) => Some(t),
        };
        self.rows.push(row.into_iter().map(text).collect());
    }

    /// Appends RowDescription, the rows and CommandComplete.
    pub fn write(&self, out: &mut Vec<u8>) {
        control::row_description(out, &self.columns);
        for row in &self.rows {
            control::data_row(out, row);
        }
        control::command_complete(out, "SHOW");
    }

    /// Names of the columns.
    #[cfg(test)]
    pub fn names(&self) -> Vec<&'static str> {
        self.columns.iter().map(|(name, _)| *name).collect()
    }

    /// The rows.
    #[cfg(test)]
    pub fn rows(&self) -> &[Vec<Option<String>>] {
        &self.rows
    }
}
