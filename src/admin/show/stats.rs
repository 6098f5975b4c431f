//! SHOW STATS, STATS_TOTALS, STATS_AVERAGES, TOTALS: totals since the start, averages over the last whole period.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::admin::table::{Table, Value, row};
use crate::client::Process;
use crate::pool::stats::Totals;

/// What is counted of each database, in PgBouncer's order: name in STATS_TOTALS and STATS_AVERAGES, name in STATS
/// behind `total_`, and behind `avg_`.
const COUNTS: [(&str, &str, &str); 11] = [
    ("server_assignment_count", "server_assignment_count", "server_assignment_count"),
    ("xact_count", "xact_count", "xact_count"),
    ("query_count", "query_count", "query_count"),
    ("bytes_received", "received", "recv"),
    ("bytes_sent", "sent", "sent"),
    ("xact_time", "xact_time", "xact_time"),
    ("query_time", "query_time", "query_time"),
    ("wait_time", "wait_time", "wait_time"),
    ("client_parse_count", "client_parse_count", "client_parse_count"),
    ("server_parse_count", "server_parse_count", "server_parse_count"),
    ("bind_count", "bind_count", "bind_count"),
];

/// Values in the order of [`COUNTS`].
type Counts = [u64; COUNTS.len()];

fn counts(t: &Totals) -> Counts {
    [
        t.assignments,
        t.transactions,
        t.queries,
        t.received,
        t.sent,
        t.transaction_us,
        t.query_us,
        t.wait_us,
        t.client_parses,
        t.server_parses,
        t.binds,
    ]
}

/// Averages as PgBouncer's `calc_average` (stats.c): times of transactions and queries for each of them, all else for
/// each second.
fn average(growth: &Totals, seconds: f64) -> Counts {
    let per_second = |n: u64| {
        if seconds > 0.0 { (n as f64 / seconds) as u64 } else { 0 }
    };
    let mut averages = counts(growth).map(per_second);
    averages[5] = growth.transaction_us.checked_div(growth.transactions).unwrap_or(0);
    averages[6] = growth.query_us.checked_div(growth.queries).unwrap_or(0);
    averages
}

/// Totals and averages by database.
fn by_database(process: &Process) -> BTreeMap<Arc<str>, (Counts, Counts)> {
    let (seconds, mut growths) = process.pools.periods.last();
    let mut sums: BTreeMap<Arc<str>, (Totals, Totals)> = BTreeMap::new();
    for pool in process.pools.all() {
        let (total, growth) = sums.entry(Arc::clone(&pool.database)).or_default();
        total.merge(&pool.totals());
        if let Some(g) = growths.remove(&pool.key()) {
            growth.merge(&g);
        }
    }
    sums.into_iter().map(|(name, (total, growth))| (name, (counts(&total), average(&growth, seconds)))).collect()
}

pub(super) fn stats(process: &Process) -> Table {
    let mut table = Table::new(
        "database #total_server_assignment_count #total_xact_count #total_query_count #total_received #total_sent \
         #total_xact_time #total_query_time #total_wait_time #total_client_parse_count #total_server_parse_count \
         #total_bind_count #avg_server_assignment_count #avg_xact_count #avg_query_count #avg_recv #avg_sent \
         #avg_xact_time #avg_query_time #avg_wait_time #avg_client_parse_count #avg_server_parse_count \
         #avg_bind_count",
    );
    for (database, (total, average)) in by_database(process) {
        table.push(line(&database, total.into_iter().chain(average)));
    }
    table
}

/// Columns of STATS_TOTALS and STATS_AVERAGES.
const SHORT: &str = "database #server_assignment_count #xact_count #query_count #bytes_received #bytes_sent #xact_time \
    #query_time #wait_time #client_parse_count #server_parse_count #bind_count";

pub(super) fn totals(process: &Process) -> Table {
    let mut table = Table::new(SHORT);
    for (database, (total, _)) in by_database(process) {
        table.push(line(&database, total.into_iter()));
    }
    table
}

pub(super) fn averages(process: &Process) -> Table {
    let mut table = Table::new(SHORT);
    for (database, (_, average)) in by_database(process) {
        table.push(line(&database, average.into_iter()));
    }
    table
}

fn line(database: &str, values: impl Iterator<Item = u64>) -> Vec<Value> {
    let mut row = row![database];
    row.extend(values.map(Value::from));
    row
}

/// SHOW TOTALS: sums over all databases, one a row.
pub(super) fn sums(process: &Process) -> Table {
    let (seconds, growths) = process.pools.periods.last();
    let (mut total, mut growth) = (Totals::default(), Totals::default());
    for pool in process.pools.all() {
        total.merge(&pool.totals());
    }
    growths.values().for_each(|g| growth.merge(g));
    let mut table = Table::new("name #value");
    for ((_, name, _), value) in COUNTS.iter().zip(counts(&total)) {
        table.push(row![format!("total_{name}"), value]);
    }
    for ((_, _, name), value) in COUNTS.iter().zip(average(&growth, seconds)) {
        table.push(row![format!("avg_{name}"), value]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_pgbouncers() {
        let growth = Totals {
            transactions: 4,
            transaction_us: 10_000,
            queries: 0,
            query_us: 5,
            sent: 121,
            wait_us: 60,
            ..Totals::default()
        };
        let a = average(&growth, 60.0);
        assert_eq!(a, [0, 0, 0, 0, 2, 2500, 0, 1, 0, 0, 0]);
        assert_eq!(average(&growth, 0.0)[4], 0);
    }
}
