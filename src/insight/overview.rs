//! Routes, tables, and insight itself, as they are read. Literal-free.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::runs::Runs;
use super::stats::{LATENCY_US, Reading, UNIT};
use super::table::WorkerTable;
use super::unit::Unit;
use super::worker::WARM_UNITS;
use super::{Insight, lock};

/// Units of work (requests, jobs) of one route in one database.
#[derive(Clone, Debug)]
pub struct RouteView {
    /// Database name.
    pub database: Arc<str>,
    /// Route tag; `None`: statements without one.
    pub route: Option<Arc<str>>,
    /// It is a task or a management command, not a view.
    pub job: bool,
    /// Units of work.
    pub requests: u64,
    /// Statements.
    pub queries: u64,
    /// Half of the units had at most so many statements.
    pub p50_queries: f64,
    /// 95 of 100 had at most so many.
    pub p95_queries: f64,
    /// Most statements of a unit.
    pub max_queries: u64,
    /// Seconds at the server.
    pub seconds: f64,
    /// 95 of 100 units took at most so many seconds at the server.
    pub p95_seconds: f64,
    /// Seconds from the first statement to the last answer, of all units.
    pub elapsed_seconds: f64,
    /// Reads that repeat another of their unit with no write in between.
    pub duplicates: u64,
    /// Units that began with a new connection.
    pub connections: u64,
    /// Transactions with 64 savepoints and more, and most savepoints of one.
    pub savepoints: (u64, u64),
    /// Ids of its findings, and what they cost at least, seconds.
    pub findings: (Vec<String>, f64),
}

/// Statements that touch a table.
#[derive(Clone, Debug)]
pub struct TableView {
    /// Database name.
    pub database: Arc<str>,
    /// Table.
    pub table: String,
    /// Statements that read it.
    pub reads: u64,
    /// Statements that write it.
    pub writes: u64,
}

/// What insight knows of itself.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Statements by how they were read: lexed, cached, truncated, unlexed, disabled.
    pub statements: [(&'static str, u64); 5],
    /// Time spent in the detector, sampled, seconds.
    pub seconds: f64,
    /// Memory by part.
    pub memory: Vec<(&'static str, usize)>,
    /// Fingerprints remembered.
    pub fingerprints: usize,
    /// Fingerprints dropped for lack of room.
    pub fingerprint_evictions: u64,
    /// Statements counted without a fingerprint of their own, for lack of room.
    pub overflow: u64,
    /// Runs dropped from a unit of work for lack of room.
    pub slot_evictions: u64,
    /// Findings remembered.
    pub findings: usize,
}

/// Sums of one route over all workers.
#[derive(Default)]
pub(crate) struct RouteSums {
    pub(crate) requests: u64,
    pub(crate) queries: u64,
    pub(crate) server_us: u64,
    pub(crate) elapsed_us: u64,
    pub(crate) repeats: u64,
    pub(crate) connections: u64,
    pub(crate) most_queries: u64,
    pub(crate) storms: u64,
    pub(crate) most_savepoints: u64,
    pub(crate) unit_queries: Reading,
    pub(crate) unit_db: Reading,
}

impl Insight {
    /// Routes by (database, route number).
    pub(crate) fn route_sums(&self) -> BTreeMap<(u16, u32), RouteSums> {
        let mut sums: BTreeMap<(u16, u32), RouteSums> = BTreeMap::new();
        for table in self.tables() {
            for stats in table.routes.all() {
                let key = (stats.database.load(Relaxed) as u16, stats.route.load(Relaxed));
                let sum = sums.entry(key).or_default();
                sum.queries += stats.queries.load(Relaxed);
                sum.server_us += stats.server_us.load(Relaxed);
                sum.elapsed_us += stats.elapsed_us.load(Relaxed);
                sum.repeats += stats.repeats.load(Relaxed);
                sum.connections += stats.connections.load(Relaxed);
                sum.most_queries = sum.most_queries.max(stats.most_queries.load(Relaxed));
                sum.storms += stats.savepoint_storms.load(Relaxed);
                sum.most_savepoints = sum.most_savepoints.max(stats.most_savepoints.load(Relaxed));
                stats.unit_queries.add_to(&mut sum.unit_queries);
                stats.unit_db.add_to(&mut sum.unit_db);
                sum.requests = sum.unit_queries.buckets.iter().sum();
            }
        }
        sums
    }

    /// All routes, the one with most time at the server first.
    pub fn routes(&self) -> Vec<RouteView> {
        let names = self.database_names();
        let name = |id: u16| names.get(usize::from(id)).cloned().unwrap_or_else(|| Arc::from("other"));
        let mut findings: HashMap<(u16, u32), (Vec<String>, u64)> = HashMap::new();
        for finding in lock(&self.findings).by_key.values() {
            let of_route = findings.entry((finding.database, finding.route)).or_default();
            of_route.0.push(format!("{:012x}", finding.key));
            of_route.1 += finding.avoidable_us;
        }
        let mut sums: Vec<_> = self.route_sums().into_iter().filter(|(_, sum)| sum.requests > 0).collect();
        sums.sort_by_key(|(key, sum)| (std::cmp::Reverse(sum.server_us), *key));
        let registry = lock(&self.registry);
        sums.into_iter()
            .map(|(key, sum)| {
                let (mut ids, cost_us) = findings.remove(&key).unwrap_or_default();
                ids.sort_unstable();
                RouteView {
                    database: name(key.0),
                    route: registry.route_name(key.1),
                    job: registry.is_job(key.1),
                    requests: sum.requests,
                    queries: sum.queries,
                    p50_queries: sum.unit_queries.quantile(0.5, &UNIT, sum.most_queries),
                    p95_queries: sum.unit_queries.quantile(0.95, &UNIT, sum.most_queries),
                    max_queries: sum.most_queries,
                    seconds: sum.server_us as f64 / 1e6,
                    p95_seconds: sum.unit_db.quantile(0.95, &LATENCY_US, sum.server_us) / 1e6,
                    elapsed_seconds: sum.elapsed_us as f64 / 1e6,
                    duplicates: sum.repeats,
                    connections: sum.connections,
                    savepoints: (sum.storms, sum.most_savepoints),
                    findings: (ids, cost_us as f64 / 1e6),
                }
            })
            .collect()
    }

    /// Tables by the number of statements that touch them.
    pub fn touched_tables(&self) -> Vec<TableView> {
        let names = self.database_names();
        let counts: Vec<_> = self.fold().tables.iter().map(|(key, count)| (key.clone(), *count)).collect();
        let mut tables: BTreeMap<(u16, Box<str>), [u64; 2]> = BTreeMap::new();
        for ((database, table, access), count) in counts {
            tables.entry((database, table)).or_default()[usize::from(access)] += count;
        }
        let mut views: Vec<_> = tables
            .into_iter()
            .map(|((database, table), [reads, writes])| TableView {
                database: names.get(usize::from(database)).cloned().unwrap_or_else(|| Arc::from("other")),
                table: table.into(),
                reads,
                writes,
            })
            .collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.reads + view.writes));
        views
    }

    /// What insight knows of itself.
    pub fn health(&self) -> Health {
        let (fingerprints, series_bytes, fingerprint_evictions) = {
            let books = self.fold();
            (books.series.len(), books.bytes(), books.evictions)
        };
        let workers = self.tables();
        let sum = |pick: fn(&WorkerTable) -> &AtomicU64| -> u64 {
            workers.iter().map(|worker| pick(worker).load(Relaxed)).sum()
        };
        let units = sum(|w| &w.itself.units_allocated) as usize;
        // One after the other: others hold the second while they take the first.
        let registry = lock(&self.registry).bytes();
        let (findings, finding_bytes) = {
            let findings = lock(&self.findings);
            (findings.by_key.len(), findings.bytes())
        };
        Health {
            statements: [
                ("lexed", sum(|w| &w.itself.lexed)),
                ("cached", sum(|w| &w.itself.cached)),
                ("truncated", sum(|w| &w.itself.truncated)),
                ("unlexed", sum(|w| &w.itself.unlexed)),
                ("disabled", sum(|w| &w.itself.disabled)),
            ],
            seconds: sum(|w| &w.itself.nanos) as f64 / 1e9,
            memory: vec![
                ("units", units * size_of::<Unit>() + units.min(WARM_UNITS) * Runs::size()),
                ("registry", registry),
                ("findings", finding_bytes),
                ("history", lock(&self.history).bytes()),
                ("series", series_bytes + workers.iter().map(|worker| worker.bytes()).sum::<usize>()),
            ],
            fingerprints,
            fingerprint_evictions,
            overflow: sum(|w| &w.itself.overflow),
            slot_evictions: sum(|w| &w.itself.slot_evictions),
            findings,
        }
    }
}
