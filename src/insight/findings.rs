//! Findings: bursts of one cause gathered under one key. Bounded; the least severe goes first.

use std::collections::HashMap;
use std::sync::Arc;

use super::advice::Relation;
use super::judge::{Confidence, Kind, Severity};
use super::report::Origin;
use super::run::Parent;
use super::sample::Sample;
use super::stats::BURST;

/// One cause, seen in one or more bursts.
#[derive(Clone)]
pub(crate) struct Finding {
    pub(crate) key: u64,
    pub(crate) kind: Kind,
    pub(crate) confidence: Confidence,
    pub(crate) severity: Severity,
    pub(crate) database: u16,
    pub(crate) route: u32,
    pub(crate) fingerprints: Vec<u64>,
    pub(crate) parent: Option<u64>,
    pub(crate) relation: Relation,
    pub(crate) tables: Vec<Box<str>>,
    pub(crate) advice: Arc<str>,
    pub(crate) bursts: u64,
    pub(crate) queries: u64,
    pub(crate) max_n: u32,
    pub(crate) min_n: u32,
    pub(crate) last_n: u32,
    pub(crate) last_parent_rows: u64,
    pub(crate) avoidable_us: u64,
    /// Bursts whose count followed the parent's rows when these changed.
    pub(crate) tracked: u32,
    pub(crate) first_seen: f64,
    pub(crate) last_seen: f64,
    /// Has series of its own.
    pub(crate) shown: bool,
    /// The costliest burst of the best confidence.
    pub(crate) sample: Option<Arc<Sample>>,
    pub(crate) logged: Option<u64>,
    pub(crate) logged_severity: Severity,
}

/// Cold counters of bursts by database, kind and confidence.
#[derive(Default, Clone)]
pub(crate) struct BurstCounts {
    pub(crate) bursts: [[u64; 3]; 4],
    pub(crate) queries: [u64; 4],
    pub(crate) avoidable_us: [[u64; 3]; 4],
    pub(crate) sizes: [u64; BURST.len() + 1],
    pub(crate) size_sum: u64,
}

/// All findings, bounded.
pub(crate) struct Findings {
    pub(crate) by_key: HashMap<u64, Finding>,
    pub(crate) limit: usize,
    pub(crate) counts: HashMap<u16, BurstCounts>,
    /// Findings that have series of their own, and what the others counted (bursts, microseconds).
    pub(crate) shown: usize,
    pub(crate) other: (u64, u64),
}

impl Findings {
    pub(crate) fn new(limit: usize) -> Self {
        Self { by_key: HashMap::new(), limit: limit.max(1), counts: HashMap::new(), shown: 0, other: (0, 0) }
    }

    /// Approximate memory held.
    pub(crate) fn bytes(&self) -> usize {
        let one = |finding: &Finding| {
            std::mem::size_of::<Finding>()
                + 64
                + finding.advice.len()
                + finding.fingerprints.len() * 8
                + finding.tables.iter().map(|table| table.len() + 16).sum::<usize>()
                + finding.sample.as_ref().map_or(0, |sample| sample.bytes())
        };
        self.by_key.values().map(one).sum()
    }

    /// Makes room by dropping the least severe, then oldest finding.
    pub(crate) fn make_room(&mut self) {
        if self.by_key.len() < self.limit {
            return;
        }
        let victim = self
            .by_key
            .values()
            .filter(|finding| !finding.shown)
            .min_by(|a, b| a.severity.cmp(&b.severity).then(a.last_seen.total_cmp(&b.last_seen)))
            .map(|finding| finding.key);
        if let Some(key) = victim {
            self.by_key.remove(&key);
        }
    }
}

/// One burst on its way into a finding.
pub(crate) struct Burst {
    pub(crate) key: u64,
    pub(crate) kind: Kind,
    pub(crate) confidence: Confidence,
    pub(crate) severity: Severity,
    /// Executions in one request.
    pub(crate) n: u32,
    /// Requests that ran together; `queries` and `avoidable_us` are of all.
    pub(crate) times: u32,
    pub(crate) queries: u64,
    pub(crate) avoidable_us: u64,
    pub(crate) parent: Option<Parent>,
    pub(crate) relation: Relation,
    pub(crate) epoch: f64,
    pub(crate) now: u64,
}

impl Finding {
    pub(crate) fn new(
        burst: &Burst,
        origin: &Origin<'_>,
        fingerprints: &[u64],
        tables: Vec<Box<str>>,
        advice: Arc<str>,
    ) -> Self {
        Self {
            key: burst.key,
            kind: burst.kind,
            confidence: burst.confidence,
            severity: burst.severity,
            database: origin.database,
            route: origin.route,
            fingerprints: fingerprints.to_vec(),
            parent: burst.parent.map(|parent| parent.fingerprint),
            relation: burst.relation,
            tables,
            advice,
            bursts: 0,
            queries: 0,
            max_n: 0,
            min_n: u32::MAX,
            last_n: 0,
            last_parent_rows: 0,
            avoidable_us: 0,
            tracked: 0,
            first_seen: burst.epoch,
            last_seen: burst.epoch,
            shown: false,
            sample: None,
            logged: None,
            logged_severity: Severity::Info,
        }
    }

    pub(crate) fn take_in(&mut self, burst: &Burst) {
        let rows = burst.parent.map_or(0, |parent| parent.rows);
        // n over rows stays the same while both change: the loop depends on the data.
        let (now, before) = (u64::from(burst.n) * self.last_parent_rows, u64::from(self.last_n) * rows);
        let moved = self.last_parent_rows != rows && self.last_n != burst.n;
        if now != 0 && moved && now.abs_diff(before) * 10 <= now {
            self.tracked += 1;
        }
        self.bursts += u64::from(burst.times);
        self.queries += burst.queries;
        self.max_n = self.max_n.max(burst.n);
        self.min_n = self.min_n.min(burst.n);
        self.last_n = burst.n;
        self.last_parent_rows = rows;
        self.avoidable_us += burst.avoidable_us;
        self.confidence = self.confidence.max(burst.confidence);
        // Three bursts whose count followed the parent's rows settle it.
        if self.tracked >= 3 {
            self.confidence = Confidence::High;
        }
        self.severity = self.severity.max(burst.severity);
        self.last_seen = burst.epoch;
    }
}

/// Adds a burst to the counters of its database.
pub(crate) fn count(counts: &mut BurstCounts, burst: &Burst) {
    let (kind, confidence) = (burst.kind as usize, burst.confidence as usize);
    counts.bursts[kind][confidence] += u64::from(burst.times);
    counts.queries[kind] += burst.queries;
    counts.avoidable_us[kind][confidence] += burst.avoidable_us;
    let bucket = BURST.iter().position(|bound| u64::from(burst.n) <= *bound).unwrap_or(BURST.len());
    counts.sizes[bucket] += u64::from(burst.times);
    counts.size_sum += u64::from(burst.n) * u64::from(burst.times);
}

/// The same on every instance and after every restart: FNV-1a over names and fingerprints.
pub(crate) fn finding_key(database: &str, route: Option<&str>, parent: u64, children: &[u64], kind: Kind) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    eat(database.as_bytes());
    eat(route.unwrap_or("").as_bytes());
    eat(&parent.to_le_bytes());
    let mut children = children.to_vec();
    children.sort_unstable();
    for child in children {
        eat(&child.to_le_bytes());
    }
    eat(kind.name().as_bytes());
    // Shown as 12 hex digits.
    hash >> 16
}
