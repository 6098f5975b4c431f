//! The questions of a snapshot, and what their answers say.
//!
//! They are asked in one REPEATABLE READ transaction with `search_path = pg_catalog`: who owns a database can put functions
//! and operators of her own before PostgreSQL's.

use std::collections::{HashMap, HashSet};

use super::{Catalog, Column, ForeignKey, Index, Table};

/// Tables that are looked at, the largest first.
const MAX_TABLES: usize = 2_000;
/// Rows taken of each answer.
pub const MAX_ROWS: usize = 40_000;

/// Asked before `search_path` is set: in which schemas bare names are looked for.
pub const PATH: &str = "SELECT pg_catalog.unnest(pg_catalog.current_schemas(false))";

/// What is read, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// oid, schema, name, rows, partition. No parameter.
    Tables,
    /// oid of the table, number, name, NOT NULL. `$1` is the array of oids, here and below.
    Columns,
    /// oid of the table, number of the column, oid and number of the referenced one.
    ForeignKeys,
    /// oid of the table, numbers of the key columns, unique, partial.
    Indexes,
}

/// The SQL of a question.
pub fn question(read: Read) -> String {
    match read {
        Read::Tables => format!(
            "SELECT c.oid, n.nspname, c.relname, c.reltuples::bigint, c.relispartition FROM pg_class c \
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' \
             AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' ORDER BY c.relpages DESC, c.oid LIMIT {MAX_TABLES}"
        ),
        Read::Columns => format!(
            "SELECT attrelid, attnum, attname, attnotnull FROM pg_attribute WHERE attrelid = ANY ($1::oid[]) \
             AND attnum > 0 AND NOT attisdropped ORDER BY attrelid, attnum LIMIT {MAX_ROWS}"
        ),
        Read::ForeignKeys => format!(
            "SELECT conrelid, conkey[1], confrelid, confkey[1] FROM pg_constraint WHERE conrelid = ANY ($1::oid[]) \
             AND contype = 'f' AND array_length(conkey, 1) = 1 ORDER BY conrelid, conname LIMIT {MAX_ROWS}"
        ),
        Read::Indexes => format!(
            "SELECT i.indrelid, array_to_string((i.indkey::int2[])[0:i.indnkeyatts - 1], ' '), i.indisunique, \
             i.indpred IS NOT NULL FROM pg_index i WHERE i.indrelid = ANY ($1::oid[]) AND i.indisvalid \
             ORDER BY i.indrelid, i.indexrelid LIMIT {MAX_ROWS}"
        ),
    }
}

type Row = Vec<Option<String>>;

fn text(row: &Row, at: usize) -> Option<&str> {
    row.get(at)?.as_deref()
}

fn number<T: std::str::FromStr>(row: &Row, at: usize) -> Option<T> {
    text(row, at)?.parse().ok()
}

fn yes(row: &Row, at: usize) -> bool {
    text(row, at) == Some("t")
}

/// Tables of an answer, with their oids.
pub struct Draft {
    tables: Vec<(u32, Table)>,
    path: Vec<Box<str>>,
}

impl Catalog {
    /// Begins with the answers to [`PATH`] and [`Read::Tables`].
    pub fn draft(path: &[Row], tables: &[Row]) -> Draft {
        let table = |row: &Row| {
            let table = Table {
                schema: text(row, 1)?.into(),
                name: text(row, 2)?.into(),
                rows: number::<i64>(row, 3).and_then(|rows| u64::try_from(rows).ok()),
                partition: yes(row, 4),
                ..Table::default()
            };
            Some((number(row, 0)?, table))
        };
        Draft {
            tables: tables.iter().filter_map(table).collect(),
            path: path.iter().filter_map(|row| Some(text(row, 0)?.into())).collect(),
        }
    }
}

impl Draft {
    /// The parameter of the other questions.
    pub fn oids(&self) -> String {
        let oids: Vec<String> = self.tables.iter().map(|(oid, _)| oid.to_string()).collect();
        format!("{{{}}}", oids.join(","))
    }

    /// Ends with the answers to the others.
    pub fn finish(mut self, columns: &[Row], keys: &[Row], indexes: &[Row]) -> Catalog {
        // Answers are sorted by table: of a full one the last table may be incomplete.
        let whole_below = [columns, keys, indexes]
            .iter()
            .filter(|rows| rows.len() >= MAX_ROWS)
            .filter_map(|rows| number::<u32>(rows.last()?, 0))
            .min();
        if let Some(end) = whole_below {
            self.tables.retain(|(oid, _)| *oid < end);
        }
        let places: HashMap<u32, usize> = self.tables.iter().enumerate().map(|(at, (oid, _))| (*oid, at)).collect();
        for row in columns {
            let (Some(at), Some(n), Some(name)) =
                (number(row, 0).and_then(|oid| places.get(&oid)), number(row, 1), text(row, 2))
            else {
                continue;
            };
            self.tables[*at].1.columns.push(Column { name: name.into(), not_null: yes(row, 3), number: n });
        }
        let mut tables: Vec<Table> = self.tables.into_iter().map(|(_, table)| table).collect();
        let name = |tables: &[Table], at: usize, n: i32| {
            tables[at].columns.iter().find(|column| column.number == n).map(|column| column.name.clone())
        };
        for row in keys {
            let key = (|| {
                let at = *places.get(&number(row, 0)?)?;
                let to = *places.get(&number(row, 2)?)?;
                let column = name(&tables, at, number(row, 1)?)?;
                Some((at, ForeignKey { column, to, to_column: name(&tables, to, number(row, 3)?)? }))
            })();
            if let Some((at, key)) = key {
                tables[at].foreign_keys.push(key);
            }
        }
        for row in indexes {
            let Some(at) = number(row, 0).and_then(|oid| places.get(&oid)).copied() else { continue };
            let numbers = text(row, 1).unwrap_or_default().split(' ').filter_map(|n| n.parse().ok());
            let columns = numbers.map(|n| name(&tables, at, n)).collect();
            tables[at].indexes.push(Index { columns, unique: yes(row, 2), partial: yes(row, 3) });
        }
        let mut by_name: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        let mut seen = HashSet::new();
        for (at, table) in tables.iter().enumerate() {
            if seen.insert((&table.schema, &table.name)) {
                by_name.entry(table.name.clone()).or_default().push(at);
            }
        }
        Catalog { by_name, path: self.path, tables }
    }
}
