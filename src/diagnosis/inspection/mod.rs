//! What databases are asked, beside the traffic: their catalogue, and the plans of the costliest reads. Off unless
//! configured.
//!
//! | file | what it does |
//! |---|---|
//! | [`task`] | the one task: which database is due, back-off, the budget |
//! | `ask` | a snapshot; a plan, and whether a hypothetical index mends it |
//!
//! Invariants: a connection of its own for each database, open only while it is asked; read only, with time
//! limits, rolled back; texts without literals, never executed; nothing waits for any of it. What fails is told once.

mod ask;
pub mod task;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use task::{Watch, Wish};

use crate::catalog::Catalog;
use crate::catalog::candidate::{BIG_TABLE, Candidate, lacks_index};
use crate::catalog::plan::{Plan, Scan};

/// Plans kept; the oldest goes first.
const MAX_PLANS: usize = 1_024;
/// A plan, or that there is none, counts for so long.
const FRESH: Duration = Duration::from_secs(86_400);
/// What is left of the cost when an index is worth it (Dexter's `min_cost_savings_pct`).
const WORTH: f64 = 0.5;

/// What was asked about one statement.
#[derive(Debug)]
pub(crate) struct Explained {
    asked: Instant,
    /// `None`: PostgreSQL has no plan for its text.
    pub(crate) plan: Option<Plan>,
    pub(crate) lack: Option<Lack>,
    /// Of the tables that are read from end to end, when it was asked.
    indexes: u64,
}

/// The index that its plan lacks.
#[derive(Debug)]
pub(crate) struct Lack {
    /// Place in [`Plan::scans`].
    scan: usize,
    pub(crate) index: Candidate,
    /// With HypoPG: the plan's cost with that index, and whether it was used.
    pub(crate) hypothetical: Option<(f64, bool)>,
}

impl Lack {
    /// Whether HypoPG says that the index would not help.
    fn is_refuted(&self, cost: f64) -> bool {
        self.hypothetical.is_some_and(|(with, used)| !used || with > cost * WORTH)
    }
}

impl Explained {
    fn new(plan: Option<Plan>, catalog: &Catalog) -> Self {
        let indexes = plan.as_ref().map_or(0, |plan| indexes(plan, catalog));
        Self { asked: Instant::now(), plan, lack: None, indexes }
    }

    /// The index that is still lacking: scan, index, rows of the table.
    pub(crate) fn lacks<'e>(&'e self, catalog: &Catalog) -> Option<(&'e Scan, &'e Lack, u64)> {
        let (plan, lack) = (self.plan.as_ref()?, self.lack.as_ref()?);
        let scan = plan.scans.get(lack.scan)?;
        let (_, rows) = lacks_index(catalog, scan).filter(|_| !lack.is_refuted(plan.cost))?;
        Some((scan, lack, rows))
    }

    /// Why no index is missing, when the plan shows that.
    pub(crate) fn refutes(&self, catalog: &Catalog) -> Option<String> {
        let plan = self.plan.as_ref()?;
        if let Some(lack) = self.lack.as_ref().filter(|lack| lack.is_refuted(plan.cost)) {
            let columns = lack.index.columns.join(", ");
            return Some(format!(
                "with a hypothetical index on {} ({columns}) its plan costs as much",
                lack.index.table
            ));
        }
        let big = |scan: &&Scan| {
            let table = catalog.table(scan.schema.as_deref(), &scan.table);
            table.is_none_or(|table| table.rows.is_none_or(|rows| rows >= BIG_TABLE))
        };
        if plan.scans.iter().any(|scan| big(&scan)) {
            return None;
        }
        Some(match plan.indexes.first() {
            Some(index) => format!("its plan uses the index {index} and reads no big table from end to end"),
            None => "its plan reads no big table from end to end".to_owned(),
        })
    }
}

/// A number that changes with the indexes of the tables that a plan reads from end to end.
fn indexes(plan: &Plan, catalog: &Catalog) -> u64 {
    let of = |scan: &Scan| catalog.table(scan.schema.as_deref(), &scan.table).map_or(0, |table| table.indexes_hash());
    plan.scans.iter().map(of).fold(0, |sum, hash| sum.rotate_left(1) ^ hash)
}

/// By database and fingerprint.
type Book = HashMap<(Arc<str>, u64), Arc<Explained>>;

/// What is known of plans.
#[derive(Default)]
pub struct Plans(Mutex<Book>);

impl Plans {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, database: &Arc<str>, fingerprint: u64) -> Option<Arc<Explained>> {
        self.book().get(&(Arc::clone(database), fingerprint)).cloned()
    }

    fn put(&self, database: &Arc<str>, fingerprint: u64, explained: Explained) {
        let mut book = self.book();
        if book.len() >= MAX_PLANS {
            let oldest = book.iter().min_by_key(|(_, one)| one.asked).map(|(key, _)| key.clone());
            oldest.and_then(|key| book.remove(&key));
        }
        book.insert((Arc::clone(database), fingerprint), Arc::new(explained));
    }

    /// Whether it is time to ask about a statement.
    fn is_due(&self, database: &Arc<str>, fingerprint: u64, catalog: &Catalog) -> bool {
        self.get(database, fingerprint).is_none_or(|known| {
            let moved = known.plan.as_ref().is_some_and(|plan| indexes(plan, catalog) != known.indexes);
            moved || known.asked.elapsed() >= FRESH
        })
    }
}
