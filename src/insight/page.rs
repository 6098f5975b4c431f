//! A page of Prometheus text, and the families that are sums over the workers' tables.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::stats::*;
use super::table::WorkerTable;

/// Times are counted in microseconds and shown in seconds.
pub(crate) const MICRO: f64 = 1e-6;

/// A scrape under way.
pub(crate) struct Page<'a> {
    pub(crate) out: &'a mut String,
    pub(crate) databases: Vec<Arc<str>>,
    pub(crate) workers: Vec<Arc<WorkerTable>>,
}

impl Page<'_> {
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.out, "# HELP pgsluice_{name} {help}\n# TYPE pgsluice_{name} {kind}");
    }

    pub(crate) fn line(&mut self, name: &str, database: u16, labels: &str, value: f64) {
        let database = self.databases.get(usize::from(database)).map_or("other", |name| name);
        let comma = if labels.is_empty() { "" } else { "," };
        let _ = writeln!(self.out, "pgsluice_{name}{{database=\"{}\"{comma}{labels}}} {value}", escape(database));
    }

    /// Sum of one counter over all workers, for each database.
    pub(crate) fn counter(&mut self, name: &str, labels: &str, scale: f64, pick: impl Fn(&DbStats) -> &AtomicU64) {
        for database in 0..self.databases.len() {
            let sum: u64 = self
                .workers
                .iter()
                .filter_map(|worker| worker.database_if_any(database))
                .map(|stats| pick(stats).load(Relaxed))
                .sum();
            self.line(name, database as u16, labels, sum as f64 * scale);
        }
    }

    pub(crate) fn histogram<const N: usize>(
        &mut self,
        name: &str,
        labels: &str,
        bounds: &[u64],
        scale: f64,
        pick: impl Fn(&DbStats) -> &Histogram<N>,
    ) {
        for database in 0..self.databases.len() {
            let mut reading = Reading::default();
            for stats in self.workers.iter().filter_map(|worker| worker.database_if_any(database)) {
                pick(stats).add_to(&mut reading);
            }
            reading.buckets.resize(N, 0);
            self.buckets(name, database as u16, labels, bounds, scale, &reading);
        }
    }

    pub(crate) fn buckets(
        &mut self,
        name: &str,
        database: u16,
        labels: &str,
        bounds: &[u64],
        scale: f64,
        reading: &Reading,
    ) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        let bucket = format!("{name}_bucket");
        for (bound, count) in bounds.iter().zip(&reading.buckets) {
            total += count;
            self.line(&bucket, database, &format!("{labels}{comma}le=\"{}\"", *bound as f64 * scale), total as f64);
        }
        total += reading.buckets.get(bounds.len()).copied().unwrap_or(0);
        self.line(&bucket, database, &format!("{labels}{comma}le=\"+Inf\""), total as f64);
        self.line(&format!("{name}_sum"), database, labels, reading.sum as f64 * scale);
        self.line(&format!("{name}_count"), database, labels, total as f64);
    }

    pub(crate) fn queries(&mut self) {
        let name = "query_duration_seconds";
        self.family(name, "histogram", "Server time of a statement as seen by the pooler.");
        for (operation, label) in OPERATIONS.iter().enumerate() {
            for (outcome, result) in ["ok", "error"].iter().enumerate() {
                let labels = format!("operation=\"{label}\",outcome=\"{result}\"");
                self.histogram(name, &labels, &LATENCY_US, MICRO, |stats| &stats.duration[operation][outcome]);
            }
        }
        self.family("query_rows", "histogram", "Rows returned per SELECT.");
        self.histogram("query_rows", "", &ROWS, 1.0, |stats| &stats.rows);
        self.family("query_response_bytes", "histogram", "Response bytes per statement.");
        self.histogram("query_response_bytes", "", &BYTES, 1.0, |stats| &stats.bytes);
        self.family("slow_queries_total", "counter", "Statements slower than the slow_query setting.");
        self.counter("slow_queries_total", "", 1.0, |stats| &stats.slow);
        self.family("query_errors_total", "counter", "Failed statements by SQLSTATE class.");
        for (class, label) in CLASSES.iter().enumerate() {
            self.counter("query_errors_total", &format!("sqlstate_class=\"{label}\""), 1.0, |stats| {
                &stats.errors[class]
            });
        }
        self.family("lock_errors_total", "counter", "Lock timeouts, deadlocks, serialization failures and cancels.");
        for (state, label) in LOCK_STATES.iter().enumerate() {
            self.counter("lock_errors_total", &format!("sqlstate=\"{label}\""), 1.0, |stats| &stats.lock_errors[state]);
        }
    }

    pub(crate) fn transactions(&mut self) {
        self.family("transactions_total", "counter", "Transactions by how they ended.");
        for (outcome, label) in TX_OUTCOMES.iter().enumerate() {
            self.counter("transactions_total", &format!("outcome=\"{label}\""), 1.0, |stats| {
                &stats.transactions[outcome]
            });
        }
        self.family(
            "transaction_duration_seconds",
            "histogram",
            "Explicit transactions, from first to last status change.",
        );
        self.histogram("transaction_duration_seconds", "", &LATENCY_US, MICRO, |stats| &stats.transaction_duration);
        self.family(
            "transaction_idle_seconds_total",
            "counter",
            "Time inside transactions spent waiting for the client.",
        );
        self.counter("transaction_idle_seconds_total", "", MICRO, |stats| &stats.transaction_idle_us);
        self.family("clients_idle_in_transaction", "gauge", "Clients now in a transaction with no statement running.");
        for database in 0..self.databases.len() {
            let sum: i64 = self
                .workers
                .iter()
                .filter_map(|worker| worker.database_if_any(database))
                .map(|stats| stats.idle_in_transaction.load(Relaxed))
                .sum();
            self.line("clients_idle_in_transaction", database as u16, "", sum as f64);
        }
    }

    pub(crate) fn units(&mut self) {
        self.family("unit_queries", "histogram", "Statements per unit of work, by what began it.");
        for (boundary, label) in BOUNDARIES.iter().enumerate() {
            self.histogram("unit_queries", &format!("boundary=\"{label}\""), &UNIT, 1.0, |stats| {
                &stats.unit_queries[boundary]
            });
        }
        self.family("unit_db_seconds", "histogram", "Server time per unit of work.");
        self.histogram("unit_db_seconds", "", &LATENCY_US, MICRO, |stats| &stats.unit_db);
        self.family("repeated_reads_total", "counter", "Exact repeats of a read in one unit with no write between.");
        self.counter("repeated_reads_total", "", 1.0, |stats| &stats.repeated_reads);
    }

    pub(crate) fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        let _ = writeln!(self.out, "pgsluice_{name} {value}");
    }
}

/// A label value: backslash, quote and newline escaped.
pub(crate) fn escape(raw: &str) -> String {
    raw.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
