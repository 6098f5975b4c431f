//! What a database says of itself: tables, columns, foreign keys, indexes, and plans. Pure: rows and JSON in, facts out.
//!
//! | file | what it does |
//! |---|---|
//! | `snapshot` | the questions of a snapshot, and what their answers say |
//! | [`plan`] | EXPLAIN's JSON: which tables are read from end to end, and by what |
//! | [`candidate`] | the index that such a scan lacks |
//! | `text` | which texts may be explained |
//!
//! Invariants: bounded in tables and rows; a table of which not everything was read is left out, so that "has no index"
//! is never said of half a list. Conditions of plans may hold literals of the schema (views, policies): only names of
//! columns are taken from them.

pub mod candidate;
pub mod plan;
mod snapshot;
mod text;

use std::collections::HashMap;

pub use snapshot::{MAX_ROWS, PATH, Read, question};
pub use text::{Text, readable};

/// One database's schema.
#[derive(Debug, Default)]
pub struct Catalog {
    tables: Vec<Table>,
    by_name: HashMap<Box<str>, Vec<usize>>,
    /// Schemas that a bare name is looked for in, first to last.
    path: Vec<Box<str>>,
}

/// A table, or the parent of partitions.
#[derive(Debug, Default)]
pub struct Table {
    /// Schema.
    pub schema: Box<str>,
    /// Name.
    pub name: Box<str>,
    /// Rows, as the planner estimates them; `None`: never counted (ANALYZE).
    pub rows: Option<u64>,
    /// It is a partition of another.
    pub partition: bool,
    /// Columns.
    pub columns: Vec<Column>,
    /// Foreign keys of one column.
    pub foreign_keys: Vec<ForeignKey>,
    /// Valid indexes.
    pub indexes: Vec<Index>,
}

/// A column.
#[derive(Debug)]
pub struct Column {
    /// Name.
    pub name: Box<str>,
    /// NOT NULL.
    pub not_null: bool,
    number: i32,
}

/// A foreign key of one column.
#[derive(Debug)]
pub struct ForeignKey {
    /// The column.
    pub column: Box<str>,
    /// Place of the table that it references, for [`Catalog::at`].
    pub to: usize,
    /// The column there.
    pub to_column: Box<str>,
}

/// An index.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Index {
    /// Its key columns; `None` for an expression.
    pub columns: Vec<Option<Box<str>>>,
    /// No two rows have the same values.
    pub unique: bool,
    /// Of some of the rows only.
    pub partial: bool,
}

impl Catalog {
    /// The table behind a name, as PostgreSQL would find it.
    pub fn table(&self, schema: Option<&str>, name: &str) -> Option<&Table> {
        self.place(schema, name).map(|at| &self.tables[at])
    }

    /// Its place.
    pub fn place(&self, schema: Option<&str>, name: &str) -> Option<usize> {
        let found = self.by_name.get(name)?;
        let of = |schema: &str| found.iter().copied().find(|at| *self.tables[*at].schema == *schema);
        match schema {
            Some(schema) => of(schema),
            None => self.path.iter().find_map(|schema| of(schema)),
        }
    }

    /// The table at a place.
    pub fn at(&self, place: usize) -> &Table {
        &self.tables[place]
    }

    /// How many tables there are.
    pub fn len(&self) -> usize {
        self.tables.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }
}

impl Table {
    /// A column by name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| *column.name == *name)
    }

    /// The foreign key of a column.
    pub fn foreign_key(&self, column: &str) -> Option<&ForeignKey> {
        self.foreign_keys.iter().find(|key| *key.column == *column)
    }

    /// Whether no two rows have the same value in this column.
    pub fn is_unique(&self, column: &str) -> bool {
        self.indexes.iter().any(|index| {
            index.unique && !index.partial && matches!(&index.columns[..], [Some(one)] if **one == *column)
        })
    }

    /// Whether a whole index begins with one of these columns.
    pub fn has_index_on(&self, columns: &[Box<str>]) -> bool {
        self.indexes.iter().any(|index| {
            !index.partial
                && index.columns.first().is_some_and(|one| one.as_ref().is_some_and(|one| columns.contains(one)))
        })
    }

    /// A number that changes with the indexes.
    pub fn indexes_hash(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.indexes.hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests;
