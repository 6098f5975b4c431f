//! What was counted in each of the last intervals (a day of minutes), so that two moments can be compared.
//!
//! Bounded: [`MAX_INTERVALS`] of at most [`MAX_STATEMENTS`] statements and [`MAX_FINDINGS`] findings, the costliest of
//! each interval; totals are of everything. Kept by one thread; readers copy under a lock of moments.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::queries::Key;
use super::table::Counters;
use super::{Insight, lock};

/// Intervals kept.
pub const MAX_INTERVALS: usize = 1_440;
/// Statements of an interval.
pub const MAX_STATEMENTS: usize = 32;
/// Findings of an interval.
pub const MAX_FINDINGS: usize = 16;

/// Sums of one interval over everything.
#[derive(Clone, Copy, Default, Debug, PartialEq, Serialize, Deserialize)]
pub struct IntervalTotals {
    /// Statements.
    pub calls: u64,
    /// Statements that failed.
    pub errors: u64,
    /// Rows.
    pub rows: u64,
    /// Time at the server, microseconds.
    pub time_us: u64,
    /// Units of work that ended.
    pub requests: u64,
    /// Bursts of findings.
    pub bursts: u64,
    /// What batching them would have saved at least, microseconds.
    pub avoidable_us: u64,
}

/// One statement in one interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatementPart {
    /// Fingerprint, 16 hex digits.
    #[serde(with = "hex")]
    pub fingerprint: u64,
    /// Database name.
    pub database: Arc<str>,
    /// Executions.
    pub calls: u64,
    /// Executions that failed.
    pub errors: u64,
    /// Rows.
    pub rows: u64,
    /// Time at the server, microseconds.
    pub time_us: u64,
}

/// One finding in one interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FindingPart {
    /// Its key, 12 hex digits as shown.
    #[serde(with = "hex")]
    pub key: u64,
    /// Bursts.
    pub bursts: u64,
    /// What batching would have saved at least, microseconds.
    pub avoidable_us: u64,
}

/// One interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// When it began, seconds since the epoch.
    pub from: f64,
    /// Its length, seconds.
    pub seconds: f64,
    /// Sums over everything.
    pub totals: IntervalTotals,
    /// The statements that took most time.
    pub statements: Vec<StatementPart>,
    /// The findings that cost most.
    pub findings: Vec<FindingPart>,
}

/// Numbers as hex strings: JSON's have 53 bits.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{number:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

/// The intervals, and what the counters were when the open one began.
#[derive(Default)]
pub(crate) struct History {
    ring: VecDeque<Interval>,
    began: Option<f64>,
    before: Reading,
}

/// A reading of the counters that are compared.
#[derive(Default)]
struct Reading {
    statements: HashMap<Key, Counters>,
    /// Bursts and microseconds by finding.
    findings: HashMap<u64, (u64, u64)>,
    requests: u64,
}

impl History {
    /// Takes in older intervals, in order of time.
    pub(crate) fn restore(&mut self, intervals: Vec<Interval>) {
        intervals.into_iter().for_each(|interval| self.push(interval));
    }

    fn push(&mut self, interval: Interval) {
        if self.ring.len() >= MAX_INTERVALS {
            self.ring.pop_front();
        }
        self.ring.push_back(interval);
    }

    /// Approximate memory held.
    pub(crate) fn bytes(&self) -> usize {
        let parts = |interval: &Interval| {
            interval.statements.len() * size_of::<StatementPart>() + interval.findings.len() * size_of::<FindingPart>()
        };
        self.ring.iter().map(|interval| size_of::<Interval>() + parts(interval)).sum::<usize>()
            + self.before.statements.len() * (size_of::<Key>() + size_of::<Counters>() + 8)
            + self.before.findings.len() * 32
    }
}

impl Insight {
    fn reading(&self) -> Reading {
        let booked = self.booked();
        let findings = lock(&self.findings);
        let findings = findings.by_key.values().map(|f| (f.key, (f.bursts, f.avoidable_us))).collect();
        Reading {
            statements: booked.iter().map(|one| (one.key, one.total)).collect(),
            findings,
            requests: self.route_sums().values().map(|sum| sum.requests).sum(),
        }
    }

    /// The growth from one reading to another.
    fn interval(&self, before: &Reading, now: &Reading, from: f64, seconds: f64) -> Interval {
        let mut totals =
            IntervalTotals { requests: now.requests.saturating_sub(before.requests), ..Default::default() };
        let names = self.database_names();
        let mut statements = Vec::new();
        for (key, counters) in &now.statements {
            // One that was pushed out and came back began anew.
            let old = before.statements.get(key).copied().filter(|old| old.calls <= counters.calls);
            let grown = counters.minus(old.unwrap_or_default());
            if grown.calls == 0 {
                continue;
            }
            totals.calls += grown.calls;
            totals.errors += grown.errors;
            totals.rows += grown.rows;
            totals.time_us += grown.time_us;
            statements.push(StatementPart {
                fingerprint: key.1,
                database: names.get(usize::from(key.0)).cloned().unwrap_or_else(|| Arc::from("other")),
                calls: grown.calls,
                errors: grown.errors,
                rows: grown.rows,
                time_us: grown.time_us,
            });
        }
        let mut findings = Vec::new();
        for (key, (bursts, avoidable_us)) in &now.findings {
            let old = before.findings.get(key).copied().filter(|old| old.0 <= *bursts).unwrap_or_default();
            let part =
                FindingPart { key: *key, bursts: bursts - old.0, avoidable_us: avoidable_us.saturating_sub(old.1) };
            totals.bursts += part.bursts;
            totals.avoidable_us += part.avoidable_us;
            findings.extend(Some(part).filter(|part| part.bursts > 0));
        }
        statements.sort_unstable_by_key(|part| (std::cmp::Reverse(part.time_us), part.fingerprint));
        statements.truncate(MAX_STATEMENTS);
        statements.shrink_to_fit();
        findings.sort_unstable_by_key(|part| (std::cmp::Reverse(part.avoidable_us), part.key));
        findings.truncate(MAX_FINDINGS);
        findings.shrink_to_fit();
        Interval { from, seconds, totals, statements, findings }
    }

    /// Called about once a second with the time (seconds since the epoch): closes the interval when it is over.
    pub fn close_interval(&self, now: f64) -> Option<Interval> {
        let length = self.config.history_interval.as_secs_f64().max(1.0);
        let began = *lock(&self.history).began.get_or_insert(now);
        // A clock that was set back begins anew.
        if now >= began && now - began < length {
            return None;
        }
        let reading = self.reading();
        let mut history = lock(&self.history);
        let interval = self.interval(&history.before, &reading, began, (now - began).max(0.0));
        history.before = reading;
        history.began = Some(now);
        if now < began {
            return None;
        }
        history.push(interval.clone());
        Some(interval)
    }

    /// Takes in what a file remembers of before the start.
    pub fn restore(&self, intervals: Vec<Interval>) {
        lock(&self.history).restore(intervals);
    }

    /// The intervals whose middle lies between two times, oldest first; the open one last.
    pub fn history(&self, from: f64, to: f64, now: f64) -> Vec<Interval> {
        let reading = self.reading();
        let history = lock(&self.history);
        let open = history.began.map(|began| self.interval(&history.before, &reading, began, (now - began).max(0.0)));
        let within = |interval: &&Interval| (from..to).contains(&(interval.from + interval.seconds / 2.0));
        history.ring.iter().chain(&open).filter(within).cloned().collect()
    }

    /// All closed intervals, oldest first.
    pub fn intervals(&self) -> Vec<Interval> {
        lock(&self.history).ring.iter().cloned().collect()
    }

    /// The literal-free text of a fingerprint, if it is known.
    pub fn text(&self, fingerprint: u64) -> Option<String> {
        lock(&self.registry).get(fingerprint).map(|known| known.display.to_string())
    }
}
