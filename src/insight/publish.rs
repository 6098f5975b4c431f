//! Ranking and series: which fingerprints have a series of their own, and what each series has counted.
//!
//! Accounting is by differences at the moment they are folded: while a fingerprint is not exposed its differences go
//! to `other`; once exposed they go to its own series, which starts at 0. So every series only rises, and sums over
//! the label are exact.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use super::table::{Counters, OTHER};
use super::{Insight, lock};
use crate::config::InsightConfig;

/// A rank this good for [`ENTER_SECS`] seconds earns a series (times the number exposed at most).
const ENTER_SECS: u64 = 300;
const LEAVE_SECS: u64 = 1_800;
/// Seconds between rankings.
const RANK_SECS: u64 = 60;
/// New series allowed an hour after the first fill.
const SERIES_PER_HOUR: f64 = 20.0;
/// Reads of the same statement that make it worth watching which values it is asked with.
const OFTEN: u64 = 50;
/// Seconds after which that begins anew.
const RENEW_SECS: u64 = 3_600;
/// Half-life of the ranking's averages.
const HALF_LIFE_SECS: f64 = 600.0;
/// Findings that have series of their own; the first ones seen keep them.
pub(crate) const MAX_FINDING_SERIES: usize = 50;
/// Tables that have series of their own.
const MAX_TABLES: usize = 256;
/// Share of fingerprints freed at once when the registry is full.
const EVICT_SHARE: usize = 20;

/// One fingerprint of one database.
#[derive(Default, Clone)]
pub(crate) struct Series {
    /// All that was ever counted.
    pub(crate) total: Counters,
    /// What was counted while exposed.
    pub(crate) shown: Counters,
    pub(crate) max_us: u64,
    /// Index into [`super::stats::OPERATIONS`].
    pub(crate) operation: u8,
    tables: Option<Vec<Box<str>>>,
    pub(crate) exposed: bool,
    /// Average calls, microseconds and errors a second.
    rate: [f64; 3],
    pending: Counters,
    good_since: Option<u64>,
    bad_since: Option<u64>,
    last_used: u64,
}

/// The scraper's books.
pub(crate) struct Publisher {
    pub(crate) series: HashMap<(u16, u64), Series>,
    /// By database.
    pub(crate) other: HashMap<u16, Counters>,
    /// What each slot of each worker had when last folded.
    folded: Vec<Vec<Counters>>,
    started: Instant,
    last_rank: u64,
    last_renewal: u64,
    top: usize,
    limit: usize,
    budget: f64,
    pub(crate) evictions: u64,
    pub(crate) overflow: u64,
    /// Statements by database, table and access (0 read, 1 write).
    pub(crate) tables: BTreeMap<(u16, Box<str>, u8), u64>,
}

impl Publisher {
    pub(crate) fn new(config: &InsightConfig) -> Self {
        Self {
            series: HashMap::new(),
            other: HashMap::new(),
            folded: Vec::new(),
            started: Instant::now(),
            last_rank: 0,
            last_renewal: 0,
            top: config.top_fingerprints,
            limit: config.max_fingerprints.max(1),
            budget: config.top_fingerprints as f64,
            evictions: 0,
            overflow: 0,
            tables: BTreeMap::new(),
        }
    }

    fn seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// SELECTs executed often, and whether watching their values begins anew.
    fn often_read(&mut self) -> (HashSet<(u16, u64)>, bool) {
        let renew = self.seconds() >= self.last_renewal + RENEW_SECS;
        if renew {
            self.last_renewal = self.seconds();
        }
        let reads = self.series.iter().filter(|(_, series)| series.operation == 0 && series.total.calls >= OFTEN);
        let mut reads: Vec<_> = reads.map(|(key, series)| (series.total.calls, *key)).collect();
        reads.sort_unstable();
        (reads.into_iter().rev().take(super::sketch::MAX_SKETCHES).map(|(_, key)| key).collect(), renew)
    }

    /// Number of fingerprints with a series.
    pub(crate) fn exposed(&self) -> usize {
        self.series.values().filter(|series| series.exposed).count()
    }

    /// Approximate memory held.
    pub(crate) fn bytes(&self) -> usize {
        self.series.len() * (std::mem::size_of::<Series>() + 32)
            + self.folded.iter().map(|slots| slots.len() * std::mem::size_of::<Counters>()).sum::<usize>()
    }

    fn add(&mut self, database: u16, fingerprint: u64, delta: Counters, now: u64) -> &mut Series {
        let series = self.series.entry((database, fingerprint)).or_default();
        series.total.add(delta);
        series.pending.add(delta);
        series.last_used = now;
        if series.exposed {
            series.shown.add(delta);
        } else {
            self.other.entry(database).or_default().add(delta);
        }
        series
    }

    /// Counts the tables that a statement touches.
    fn count_tables(&mut self, database: u16, fingerprint: u64, calls: u64) {
        let Some(series) = self.series.get(&(database, fingerprint)) else {
            return;
        };
        let access = u8::from(matches!(series.operation, 1..=4 | 6));
        let Some(tables) = &series.tables else { return };
        for table in tables {
            let key = (database, table.clone(), access);
            let key = if self.tables.len() >= MAX_TABLES && !self.tables.contains_key(&key) {
                (database, "other".into(), access)
            } else {
                key
            };
            *self.tables.entry(key).or_default() += calls;
        }
    }

    /// Ranks by time (four fifths of the places), calls and errors; exposes and hides with hysteresis.
    fn rank(&mut self, pinned: &dyn Fn(u16, u64) -> bool) {
        let now = self.seconds();
        let elapsed = now.saturating_sub(self.last_rank).max(1) as f64;
        self.last_rank = now;
        let keep = 0.5f64.powf(elapsed / HALF_LIFE_SECS);
        for series in self.series.values_mut() {
            let fresh = [series.pending.time_us as f64, series.pending.calls as f64, series.pending.errors as f64];
            for (rate, fresh) in series.rate.iter_mut().zip(fresh) {
                *rate = *rate * keep + fresh / elapsed * (1.0 - keep);
            }
            series.pending = Counters::default();
        }
        self.budget = (self.budget + elapsed * SERIES_PER_HOUR / 3_600.0).min(self.top as f64);
        let shares = [(0, self.top * 4 / 5), (1, self.top * 3 / 20), (2, self.top / 20)];
        let good = self.best(&shares, 1);
        let fair = self.best(&shares, 2);
        self.apply(now, &good, &fair, pinned);
    }

    fn best(&self, shares: &[(usize, usize)], times: usize) -> HashSet<(u16, u64)> {
        let mut chosen = HashSet::new();
        for (by, share) in shares {
            let mut order: Vec<_> = self.series.iter().filter(|(_, series)| series.rate[*by] > 0.0).collect();
            order.sort_by(|a, b| b.1.rate[*by].total_cmp(&a.1.rate[*by]));
            chosen.extend(order.iter().take(share * times).map(|(key, _)| **key));
        }
        chosen
    }

    fn apply(
        &mut self,
        now: u64,
        good: &HashSet<(u16, u64)>,
        fair: &HashSet<(u16, u64)>,
        pinned: &dyn Fn(u16, u64) -> bool,
    ) {
        let mut exposed = self.exposed();
        for (key, series) in &mut self.series {
            let pinned = pinned(key.0, key.1);
            if series.exposed {
                let stays = pinned || fair.contains(key);
                let since = *series.bad_since.get_or_insert(now);
                if stays {
                    series.bad_since = None;
                } else if now.saturating_sub(since) >= LEAVE_SECS {
                    (series.exposed, series.bad_since) = (false, None);
                    exposed -= 1;
                }
            } else if pinned || good.contains(key) {
                let since = *series.good_since.get_or_insert(now);
                // The first places are filled at once: hysteresis is against flapping, not against showing anything.
                let due = pinned || exposed < self.top / 2 || now.saturating_sub(since) >= ENTER_SECS;
                if due && exposed < self.top && self.budget >= 1.0 {
                    (series.exposed, series.good_since) = (true, None);
                    self.budget -= 1.0;
                    exposed += 1;
                } else if due {
                    self.overflow += 1;
                }
            } else {
                series.good_since = None;
            }
        }
    }
}

impl Insight {
    /// Carries what the workers counted into the books. Returns with the books locked.
    pub(crate) fn fold(&self) -> std::sync::MutexGuard<'_, Publisher> {
        use std::sync::atomic::Ordering::Relaxed;
        let tables = self.tables();
        // Order of locks: publisher before registry.
        let mut books = lock(&self.publisher);
        let now = books.seconds();
        for (worker, table) in tables.iter().enumerate() {
            if books.folded.len() <= worker {
                books.folded.push(Vec::new());
            }
            let len = table.len();
            books.folded[worker].resize(len, Counters::default());
            for slot in 0..len {
                let entry = table.entry(slot as u32);
                let reading = entry.read();
                let delta = reading.minus(books.folded[worker][slot]);
                books.folded[worker][slot] = reading;
                if slot as u32 == OTHER {
                    // Statements without a slot: the database is not known per entry.
                    if delta.calls > 0 {
                        books.other.entry(0).or_default().add(delta);
                    }
                    continue;
                }
                let (database, fingerprint) = (entry.database.load(Relaxed) as u16, entry.fingerprint.load(Relaxed));
                let known = books.series.contains_key(&(database, fingerprint));
                if delta.calls > 0 || (!known && !table.is_retired(slot as u32)) {
                    let operation = entry.operation.load(Relaxed);
                    let max = entry.max_us.load(Relaxed);
                    let series = books.add(database, fingerprint, delta, now);
                    series.operation = operation;
                    series.max_us = series.max_us.max(max);
                    if series.tables.is_none() {
                        series.tables = lock(&self.registry).get(fingerprint).map(|known| known.tables.clone());
                    }
                    if delta.calls > 0 {
                        books.count_tables(database, fingerprint, delta.calls);
                    }
                }
            }
        }
        books
    }

    /// Called about once a second: folds, ranks once a minute, makes room when the registry is nearly full.
    pub fn sweep(&self) {
        let pins = self.pinned();
        let mut books = self.fold();
        let first = books.exposed() < books.top / 2;
        if first || books.seconds().saturating_sub(books.last_rank) >= RANK_SECS {
            books.rank(&|database, fingerprint| pins.contains(&(database, fingerprint)));
            let (often, renew) = books.often_read();
            self.watch_values(&often, renew);
        }
        if books.series.len() * 20 < books.limit * 19 {
            return;
        }
        let mut order: Vec<_> = books
            .series
            .iter()
            .filter(|(key, series)| !series.exposed && !pins.contains(key))
            .map(|(key, series)| (series.last_used, *key))
            .collect();
        order.sort_unstable();
        let gone: HashSet<_> = order.into_iter().take((books.limit / EVICT_SHARE).max(1)).map(|(_, key)| key).collect();
        books.evictions += gone.len() as u64;
        books.series.retain(|key, _| !gone.contains(key));
        drop(books);
        self.forget(&gone);
    }

    /// Fingerprints that a finding names.
    fn pinned(&self) -> HashSet<(u16, u64)> {
        let findings = lock(&self.findings);
        findings
            .by_key
            .values()
            .flat_map(|finding| finding.fingerprints.iter().chain(&finding.parent).map(|fp| (finding.database, *fp)))
            .collect()
    }

    /// Drops texts and slots of evicted fingerprints.
    fn forget(&self, gone: &HashSet<(u16, u64)>) {
        use std::sync::atomic::Ordering::Relaxed;
        for table in self.tables() {
            for slot in 1..table.len() as u32 {
                let entry = table.entry(slot);
                if gone.contains(&(entry.database.load(Relaxed) as u16, entry.fingerprint.load(Relaxed))) {
                    table.retire(slot);
                }
            }
        }
        let mut registry = lock(&self.registry);
        for (_, fingerprint) in gone {
            registry.remove(*fingerprint);
        }
    }
}
