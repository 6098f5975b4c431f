//! Fixed-bucket histograms and counters of one database, written by one worker.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use super::table::bump;
use crate::sql::Operation;

/// Upper bounds of latency buckets in microseconds (a superset of OpenTelemetry's advice for database clients).
pub(crate) const LATENCY_US: [u64; 13] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 10_000_000];
/// OpenTelemetry's row buckets.
pub(crate) const ROWS: [u64; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];
/// Response sizes, powers of four from 1 KiB.
pub(crate) const BYTES: [u64; 9] = [1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26];
/// Statements per unit of work.
pub(crate) const UNIT: [u64; 10] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000];
/// Executions per burst.
pub(crate) const BURST: [u64; 8] = [5, 10, 20, 50, 100, 200, 500, 1_000];

/// Values of the `operation` label, in the order of [`operation_index`].
pub(crate) const OPERATIONS: [&str; 8] = ["select", "insert", "update", "delete", "ddl", "tx", "copy", "other"];
/// Values of the `boundary` label: what began a unit of work.
pub(crate) const BOUNDARIES: [&str; 6] = ["connection", "trace", "tag", "marker", "gap", "cap"];
/// SQLSTATE classes of PostgreSQL's appendix A; anything else counts as the last.
pub(crate) const CLASSES: [&str; 42] = [
    "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "20", "21", "22", "23", "24", "25", "26",
    "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "44", "53", "54", "55", "57", "58",
    "F0", "HV", "P0", "XX",
];
/// SQLSTATEs of lock trouble that have a series each.
pub(crate) const LOCK_STATES: [&str; 4] = ["55P03", "40P01", "40001", "57014"];
/// Values of the `outcome` label of transactions.
pub(crate) const TX_OUTCOMES: [&str; 4] = ["commit", "rollback", "implicit", "aborted"];

/// Index into [`OPERATIONS`].
#[inline]
pub(crate) fn operation_index(operation: Operation) -> usize {
    match operation {
        Operation::Select => 0,
        Operation::Insert => 1,
        Operation::Update => 2,
        Operation::Delete => 3,
        Operation::Ddl => 4,
        Operation::Transaction => 5,
        Operation::Copy => 6,
        _ => 7,
    }
}

/// A histogram with `N` slots: the buckets and one for the rest. Bounds are given at each use.
pub(crate) struct Histogram<const N: usize> {
    buckets: [AtomicU64; N],
    sum: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

impl<const N: usize> Histogram<N> {
    /// Counts one value; `bounds` has `N - 1` upper bounds.
    #[inline]
    pub(crate) fn observe(&self, bounds: &[u64], value: u64) {
        let at = bounds.iter().position(|bound| value <= *bound).unwrap_or(N - 1);
        bump(&self.buckets[at], 1);
        bump(&self.sum, value);
    }

    /// Adds this histogram to a reading (`N` buckets and the sum at the end).
    pub(crate) fn add_to(&self, into: &mut Reading) {
        into.buckets.resize(N, 0);
        for (sum, bucket) in into.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Relaxed);
        }
        into.sum += self.sum.load(Relaxed);
    }
}

/// Sum of one histogram over all workers.
#[derive(Default, Clone)]
pub(crate) struct Reading {
    pub(crate) buckets: Vec<u64>,
    pub(crate) sum: u64,
}

impl Reading {
    /// The value below which this share lies, interpolated; `most` is the highest there can be. 0 without any.
    pub(crate) fn quantile(&self, share: f64, bounds: &[u64], most: u64) -> f64 {
        let wanted = share * self.buckets.iter().sum::<u64>() as f64;
        let (mut before, mut low) = (0.0, 0.0);
        for (at, count) in self.buckets.iter().enumerate() {
            let high = bounds.get(at).copied().unwrap_or(u64::MAX).min(most) as f64;
            let count = *count as f64;
            if count > 0.0 && before + count >= wanted {
                return low + (high - low).max(0.0) * ((wanted - before) / count).clamp(0.0, 1.0);
            }
            (before, low) = (before + count, high);
        }
        0.0
    }
}

/// All that a worker counts for one database.
pub(crate) struct DbStats {
    /// By operation and outcome (ok, error).
    pub(crate) duration: [[Histogram<14>; 2]; 8],
    pub(crate) rows: Histogram<14>,
    pub(crate) bytes: Histogram<10>,
    pub(crate) slow: AtomicU64,
    pub(crate) errors: [AtomicU64; CLASSES.len()],
    pub(crate) lock_errors: [AtomicU64; LOCK_STATES.len()],
    /// By boundary.
    pub(crate) unit_queries: [Histogram<11>; BOUNDARIES.len()],
    pub(crate) unit_db: Histogram<14>,
    pub(crate) repeated_reads: AtomicU64,
    pub(crate) transactions: [AtomicU64; TX_OUTCOMES.len()],
    pub(crate) transaction_duration: Histogram<14>,
    pub(crate) transaction_idle_us: AtomicU64,
    /// Clients now in a transaction with no statement running.
    pub(crate) idle_in_transaction: AtomicI64,
}

impl Default for DbStats {
    fn default() -> Self {
        Self {
            duration: Default::default(),
            rows: Histogram::default(),
            bytes: Histogram::default(),
            slow: AtomicU64::new(0),
            errors: std::array::from_fn(|_| AtomicU64::new(0)),
            lock_errors: Default::default(),
            unit_queries: Default::default(),
            unit_db: Histogram::default(),
            repeated_reads: AtomicU64::new(0),
            transactions: Default::default(),
            transaction_duration: Histogram::default(),
            transaction_idle_us: AtomicU64::new(0),
            idle_in_transaction: AtomicI64::new(0),
        }
    }
}

impl DbStats {
    /// Counts a failed statement by its SQLSTATE.
    pub(crate) fn error(&self, sqlstate: [u8; 5]) {
        let class = CLASSES.iter().position(|class| class.as_bytes() == &sqlstate[..2]).unwrap_or(CLASSES.len() - 1);
        bump(&self.errors[class], 1);
        if let Some(at) = LOCK_STATES.iter().position(|state| state.as_bytes() == sqlstate) {
            bump(&self.lock_errors[at], 1);
        }
    }

    /// One client more (or less) sits in a transaction without a statement.
    pub(crate) fn idle_change(&self, by: i64) {
        self.idle_in_transaction.store(self.idle_in_transaction.load(Relaxed) + by, Relaxed);
    }
}
