//! The index that a sequential scan lacks: columns compared for equality, the most telling first, then one range or order.

use super::plan::Scan;
use super::{Catalog, Table};

/// Rows from which a table is big: below it reading all of it is as quick.
pub const BIG_TABLE: u64 = 10_000;
/// Part of the rows that a condition may leave: more are in nearly every page, and as quickly read from end to end.
const SELECTIVE: f64 = 0.02;
/// Rows at which further columns make no difference (PgHero).
const FEW_ROWS: f64 = 50.0;
/// Columns of an index at most.
const MAX_COLUMNS: usize = 3;

/// An index to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Schema.
    pub schema: Box<str>,
    /// Table.
    pub table: Box<str>,
    /// Columns in order.
    pub columns: Vec<Box<str>>,
}

impl Candidate {
    /// As SQL, for HypoPG.
    pub fn sql(&self) -> String {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let columns: Vec<String> = self.columns.iter().map(|name| quoted(name)).collect();
        format!("CREATE INDEX ON {}.{} ({})", quoted(&self.schema), quoted(&self.table), columns.join(", "))
    }
}

/// What is known of how many different values a column has: `pg_stats.n_distinct`, negative as a part of the rows.
pub type Distinct<'a> = &'a dyn Fn(&str) -> Option<f64>;

/// Whether a scan reads a big table for a small part of it, and no index begins with what it compares.
pub fn lacks_index<'c>(catalog: &'c Catalog, scan: &Scan) -> Option<(&'c Table, u64)> {
    let table = catalog.table(scan.schema.as_deref(), &scan.table)?;
    let rows = table.rows.filter(|rows| *rows >= BIG_TABLE)?;
    let compared = scan.equals.iter().chain(&scan.ranges).all(|name| table.column(name).is_some());
    let selective = scan.rows <= rows as f64 * SELECTIVE;
    let any = !scan.equals.is_empty() || !scan.ranges.is_empty();
    // An index that begins so and was not chosen would not be chosen when it is there twice.
    let first = if scan.equals.is_empty() { &scan.ranges } else { &scan.equals };
    (any && compared && selective && !table.partition && !table.has_index_on(first)).then_some((table, rows))
}

/// The index for a scan; `order` is what the rows are sorted by before a LIMIT.
pub fn candidate(catalog: &Catalog, scan: &Scan, distinct: Distinct<'_>, order: Option<&str>) -> Option<Candidate> {
    let (table, rows) = lacks_index(catalog, scan)?;
    let different = |name: &str| match distinct(name) {
        Some(n) if n < 0.0 => -n * rows as f64,
        Some(n) => n,
        None => 0.0,
    };
    let mut equals: Vec<&Box<str>> = scan.equals.iter().collect();
    // Stable: what nothing is known of keeps its place.
    equals.sort_by(|a, b| different(b).total_cmp(&different(a)));
    let mut left = rows as f64;
    let mut columns: Vec<Box<str>> = Vec::new();
    for name in equals {
        if columns.len() < MAX_COLUMNS && left > FEW_ROWS {
            columns.push(name.clone());
            left /= different(name).max(1.0);
        }
    }
    if columns.len() < MAX_COLUMNS && left > FEW_ROWS {
        let ordered = order.filter(|name| table.column(name).is_some()).map(Into::into);
        columns.extend(scan.ranges.first().cloned().or(ordered).filter(|name| !columns.contains(name)));
    }
    Some(Candidate { schema: table.schema.clone(), table: table.name.clone(), columns })
}
