//! What is known of each fingerprint, read from the workers' tables. Literal-free. Sorting and words are made after
//! every lock has been let go: whoever asks waits, and nobody else.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::latency::Spread;
use super::stats::OPERATIONS;
use super::table::Counters;
use super::{Insight, lock};
use crate::sql::Fingerprint;

/// One fingerprint of one database.
#[derive(Clone, Debug)]
pub struct FingerprintView {
    /// The fingerprint.
    pub fingerprint: Fingerprint,
    /// Database name.
    pub database: Arc<str>,
    /// `select`, `insert` and the like: the label of the metrics.
    pub operation: &'static str,
    /// Literal-free text.
    pub text: String,
    /// `SELECT shop_book` and the like.
    pub summary: String,
    /// Tables.
    pub tables: Vec<String>,
    /// The first few routes it ran in, and whether there were more.
    pub routes: Vec<Arc<str>>,
    /// There were more routes.
    pub more_routes: bool,
    /// Executions.
    pub calls: u64,
    /// Executions that failed.
    pub errors: u64,
    /// Rows returned or changed.
    pub rows: u64,
    /// Response bytes.
    pub bytes: u64,
    /// Seconds at the server.
    pub seconds: f64,
    /// Half of the executions took at most this, seconds.
    pub p50_seconds: f64,
    /// 95 of 100 took at most this, seconds.
    pub p95_seconds: f64,
    /// 99 of 100 took at most this, seconds.
    pub p99_seconds: f64,
    /// Slowest execution, seconds.
    pub max_seconds: f64,
    /// Its part of all time at the server in its database, from 0 to 1.
    pub share: f64,
    /// Long pauses of clients in a transaction right after it: seconds, how many, the longest in seconds.
    pub idle_after: (f64, u64, f64),
    /// Executions with 1,000 rows or 1 MiB.
    pub large: u64,
    /// Parse messages, and estimated different texts among them (64 and more are not told apart).
    pub parses: (u64, u32),
    /// Part of the executions whose values had been asked for before, from 0 to 1; known of statements asked often.
    pub repeat_ratio: Option<f64>,
}

/// How a list of fingerprints is sorted, highest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FingerprintOrder {
    /// Total time.
    Total,
    /// Executions.
    Calls,
    /// Mean time.
    Mean,
    /// 95th percentile.
    P95,
    /// Rows.
    Rows,
    /// Bytes.
    Bytes,
}

impl FingerprintOrder {
    /// The order that a word asks for.
    pub fn named(word: &str) -> Option<Self> {
        Some(match word {
            "total" => Self::Total,
            "calls" => Self::Calls,
            "mean" => Self::Mean,
            "p95" => Self::P95,
            "rows" => Self::Rows,
            "bytes" => Self::Bytes,
            _ => return None,
        })
    }
}

/// Which fingerprints are wanted.
#[derive(Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Of this database.
    pub database: Option<&'a str>,
    /// That ran in this route.
    pub route: Option<&'a str>,
    /// This one.
    pub fingerprint: Option<u64>,
    /// Leaving out so many.
    pub offset: usize,
    /// So many at most.
    pub limit: usize,
}

/// Database and fingerprint.
pub(crate) type Key = (u16, u64);

/// What the entries of all workers say of one fingerprint.
#[derive(Clone, Default)]
pub(crate) struct Detail {
    pub(crate) spread: Spread,
    pub(crate) routes: Vec<u32>,
    pub(crate) more_routes: bool,
    pub(crate) idle_us: u64,
    pub(crate) idle_count: u64,
    pub(crate) idle_max_ms: u32,
    pub(crate) large: u64,
    pub(crate) parses: u64,
    texts: u64,
    /// Calls seen by the sketches, and distinct literals.
    sketched: (u64, f64),
}

impl Detail {
    /// Estimated different texts that were parsed.
    pub(crate) fn texts(&self) -> u32 {
        match self.texts.count_zeros() {
            64 => 0,
            0 => 64,
            zeros => (-64.0 * (f64::from(zeros) / 64.0).ln()).round().min(64.0) as u32,
        }
    }

    /// Part of the executions whose values had been asked for before.
    pub(crate) fn repeat_ratio(&self) -> Option<f64> {
        let (calls, distinct) = self.sketched;
        (calls > 0).then(|| (1.0 - distinct / calls as f64).clamp(0.0, 1.0))
    }

    fn add(&mut self, entry: &super::table::Entry) {
        entry.latency.add_to(&mut self.spread);
        for route in entry.routes() {
            if !self.routes.contains(&route) {
                self.routes.push(route);
            }
        }
        self.more_routes |= entry.more_routes.load(Relaxed) != 0;
        self.idle_us += entry.idle_us.load(Relaxed);
        self.idle_count += u64::from(entry.idle_count.load(Relaxed));
        self.idle_max_ms = self.idle_max_ms.max(entry.idle_max_ms.load(Relaxed));
        self.large += u64::from(entry.large.load(Relaxed));
        self.parses += u64::from(entry.parses.load(Relaxed));
        self.texts |= entry.texts.load(Relaxed);
        if let Some(sketch) = entry.sketch.get() {
            let (calls, distinct) = sketch.read();
            // Each worker sees a part of the clients: what it has not seen another may have. So a floor.
            self.sketched = (self.sketched.0 + calls, self.sketched.1 + distinct);
        }
    }
}

/// One fingerprint as the books know it.
#[derive(Clone, Copy)]
pub(crate) struct Booked {
    pub(crate) key: Key,
    pub(crate) total: Counters,
    pub(crate) max_us: u64,
    pub(crate) operation: u8,
}

impl Insight {
    /// The books' copy of every fingerprint that was executed.
    pub(crate) fn booked(&self) -> Vec<Booked> {
        let books = self.fold();
        let used = books.series.iter().filter(|(_, series)| series.total.calls > 0);
        used.map(|(key, series)| Booked {
            key: *key,
            total: series.total,
            max_us: series.max_us,
            operation: series.operation,
        })
        .collect()
    }

    /// What the workers' entries say, by fingerprint. Takes no lock.
    pub(crate) fn details(&self) -> HashMap<Key, Detail> {
        self.details_of(|_| true)
    }

    /// Of these fingerprints alone: a detail is large.
    fn details_of(&self, wanted: impl Fn(&Key) -> bool) -> HashMap<Key, Detail> {
        let mut details: HashMap<Key, Detail> = HashMap::new();
        for table in self.tables() {
            for slot in 1..table.len() as u32 {
                let entry = table.entry(slot);
                if !table.is_retired(slot) && wanted(&entry.key()) {
                    details.entry(entry.key()).or_default().add(entry);
                }
            }
        }
        details
    }

    /// The first `limit` fingerprints in this order.
    pub fn fingerprints(&self, order: FingerprintOrder, limit: usize) -> Vec<FingerprintView> {
        self.select_fingerprints(order, &Wanted { limit, ..Wanted::default() }).1
    }

    /// How many fingerprints are wanted, and those of them that fit, in this order.
    pub fn select_fingerprints(&self, order: FingerprintOrder, wanted: &Wanted<'_>) -> (usize, Vec<FingerprintView>) {
        let names = self.database_names();
        let mut all = self.booked();
        let by_detail = matches!(order, FingerprintOrder::P95) || wanted.route.is_some();
        let mut details = if by_detail { self.details() } else { HashMap::new() };
        let mut sums: HashMap<u16, u64> = HashMap::new();
        for one in &all {
            *sums.entry(one.key.0).or_default() += one.total.time_us;
        }
        let database = wanted.database.map(|name| names.iter().position(|known| **known == *name));
        let route = wanted.route.map(|name| lock(&self.registry).route_number(name));
        all.retain(|one| {
            database.is_none_or(|number| number == Some(usize::from(one.key.0)))
                && wanted.fingerprint.is_none_or(|fingerprint| fingerprint == one.key.1)
                && route.is_none_or(|number| {
                    number.is_some_and(|n| details.get(&one.key).is_some_and(|detail| detail.routes.contains(&n)))
                })
        });
        let value = |one: &Booked| match order {
            FingerprintOrder::Total => one.total.time_us as f64,
            FingerprintOrder::Calls => one.total.calls as f64,
            FingerprintOrder::Mean => one.total.time_us as f64 / one.total.calls as f64,
            FingerprintOrder::P95 => details.get(&one.key).map_or(0.0, |d| d.spread.quantile(0.95, one.max_us)),
            FingerprintOrder::Rows => one.total.rows as f64,
            FingerprintOrder::Bytes => one.total.bytes as f64,
        };
        all.sort_by_cached_key(|one| (std::cmp::Reverse(Sortable(value(one))), one.key));
        let total = all.len();
        let chosen: Vec<Booked> = all.into_iter().skip(wanted.offset).take(wanted.limit).collect();
        if !by_detail {
            let keys: HashSet<Key> = chosen.iter().map(|one| one.key).collect();
            details = self.details_of(|key| keys.contains(key));
        }
        let views = chosen
            .into_iter()
            .map(|one| {
                let detail = details.remove(&one.key).unwrap_or_default();
                let sum = sums.get(&one.key.0).copied().unwrap_or(0);
                self.view(&one, &detail, sum, &names)
            })
            .collect();
        (total, views)
    }

    fn view(&self, one: &Booked, detail: &Detail, sum_us: u64, names: &[Arc<str>]) -> FingerprintView {
        let (database, fingerprint) = one.key;
        let (known, routes) = {
            let registry = lock(&self.registry);
            let routes = detail.routes.iter().filter_map(|route| registry.route_name(*route)).collect();
            (registry.get(fingerprint), routes)
        };
        let known = known.as_deref();
        let at = |share| detail.spread.quantile(share, one.max_us);
        FingerprintView {
            fingerprint: Fingerprint(fingerprint),
            database: names.get(usize::from(database)).cloned().unwrap_or_else(|| Arc::from("other")),
            operation: OPERATIONS[usize::from(one.operation).min(OPERATIONS.len() - 1)],
            text: known.map_or_else(String::new, |known| known.display.to_string()),
            summary: known.map_or_else(String::new, |known| known.summary.to_string()),
            tables: known.map_or_else(Vec::new, |known| known.tables.iter().map(|t| t.to_string()).collect()),
            routes,
            more_routes: detail.more_routes,
            calls: one.total.calls,
            errors: one.total.errors,
            rows: one.total.rows,
            bytes: one.total.bytes,
            seconds: one.total.time_us as f64 / 1e6,
            p50_seconds: at(0.5),
            p95_seconds: at(0.95),
            p99_seconds: at(0.99),
            max_seconds: one.max_us as f64 / 1e6,
            share: one.total.time_us as f64 / sum_us.max(1) as f64,
            idle_after: (detail.idle_us as f64 / 1e6, detail.idle_count, f64::from(detail.idle_max_ms) / 1e3),
            large: detail.large,
            parses: (detail.parses, detail.texts()),
            repeat_ratio: detail.repeat_ratio(),
        }
    }
}

/// A number with a total order.
#[derive(PartialEq)]
pub(crate) struct Sortable(pub(crate) f64);

impl Eq for Sortable {}

impl Ord for Sortable {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Sortable {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
