//! Counters of one pool on one worker: written by that worker alone with plain relaxed stores, read at scrape.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Pin;

/// Upper bounds of the latency buckets, microseconds (the OpenTelemetry buckets and a few more).
pub const BUCKETS_US: [u64; 13] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 10_000_000];

/// A counter with one writer.
#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`. One thread only: others' additions would be lost.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Adds `n` from any thread: for rare events with many writers. Never mixed with [`Self::add`].
    pub fn add_shared(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A latency histogram with one writer.
#[derive(Default)]
pub struct Histogram {
    buckets: [Count; BUCKETS_US.len() + 1],
    sum_us: Count,
}

impl Histogram {
    /// Records a duration.
    #[inline]
    pub fn record(&self, us: u64) {
        let i = BUCKETS_US.iter().position(|b| us <= *b).unwrap_or(BUCKETS_US.len());
        self.buckets[i].add(1);
        self.sum_us.add(us);
    }

    /// Records a duration from any thread: for rare events with many writers.
    pub fn record_shared(&self, us: u64) {
        let i = BUCKETS_US.iter().position(|b| us <= *b).unwrap_or(BUCKETS_US.len());
        self.buckets[i].add_shared(1);
        self.sum_us.add_shared(us);
    }

    /// What it counted so far.
    pub fn totals(&self) -> HistogramTotals {
        let mut t = HistogramTotals::default();
        t.add(self);
        t
    }
}

/// Results of an attempt to open a server connection, for metrics ([`crate::server::ConnectError::label`]).
pub const CONNECT_RESULTS: [&str; 5] = ["ok", "auth", "refused", "timeout", "error"];

/// Counters of one pool on one worker.
#[derive(Default)]
#[repr(align(128))]
pub struct Stats {
    /// Servers assigned to clients.
    pub assignments: Count,
    /// Transactions (a statement outside one is one).
    pub transactions: Count,
    /// Queries: Query and Execute requests.
    pub queries: Count,
    /// Bytes from clients.
    pub received: Count,
    /// Bytes to clients.
    pub sent: Count,
    /// Microseconds servers spent in transactions, idle time inside them included.
    pub transaction_us: Count,
    /// Microseconds servers spent on queries.
    pub query_us: Count,
    /// Microseconds clients waited for a server.
    pub wait_us: Count,
    /// Parse messages of clients.
    pub client_parses: Count,
    /// Parse messages sent to servers.
    pub server_parses: Count,
    /// Bind messages.
    pub binds: Count,
    /// Clients failed because they waited too long.
    pub wait_timeouts: Count,
    /// Clients failed because no server could be reached.
    pub connect_failures: Count,
    /// Clients failed because a query took too long.
    pub query_timeouts: Count,
    /// Clients failed because they idled in a transaction.
    pub idle_timeouts: Count,
    /// Clients that went away in the middle of something.
    pub abandoned: Count,
    /// Sessions pinned to their server, by place in [`Pin::ALL`].
    pub pins: [Count; Pin::ALL.len()],
    /// Time clients waited (0 recorded when served at once).
    pub wait: Histogram,
    /// Time servers were assigned.
    pub checkout: Histogram,
    /// Attempts to open a server connection, by place in [`CONNECT_RESULTS`].
    pub connects: [Count; CONNECT_RESULTS.len()],
    /// Time to open a server connection, of those that succeeded.
    pub connect: Histogram,
}

/// Sums over workers.
#[derive(Clone, Default, Debug)]
pub struct Totals {
    /// See [`Stats`].
    pub assignments: u64,
    /// See [`Stats`].
    pub transactions: u64,
    /// See [`Stats`].
    pub queries: u64,
    /// See [`Stats`].
    pub received: u64,
    /// See [`Stats`].
    pub sent: u64,
    /// See [`Stats`].
    pub transaction_us: u64,
    /// See [`Stats`].
    pub query_us: u64,
    /// See [`Stats`].
    pub wait_us: u64,
    /// See [`Stats`].
    pub client_parses: u64,
    /// See [`Stats`].
    pub server_parses: u64,
    /// See [`Stats`].
    pub binds: u64,
    /// See [`Stats`].
    pub wait_timeouts: u64,
    /// See [`Stats`].
    pub connect_failures: u64,
    /// See [`Stats`].
    pub query_timeouts: u64,
    /// See [`Stats`].
    pub idle_timeouts: u64,
    /// See [`Stats`].
    pub abandoned: u64,
    /// See [`Stats`].
    pub pins: [u64; Pin::ALL.len()],
    /// Bucket counts, not cumulative; the last is above every bound.
    pub wait: HistogramTotals,
    /// Bucket counts, not cumulative; the last is above every bound.
    pub checkout: HistogramTotals,
    /// See [`Stats`].
    pub connects: [u64; CONNECT_RESULTS.len()],
    /// Bucket counts, not cumulative; the last is above every bound.
    pub connect: HistogramTotals,
}

/// A histogram summed over workers.
#[derive(Clone, Default, Debug)]
pub struct HistogramTotals {
    /// Counts per bucket of [`BUCKETS_US`], and above.
    pub buckets: [u64; BUCKETS_US.len() + 1],
    /// Sum of all values, microseconds.
    pub sum_us: u64,
}

impl HistogramTotals {
    /// The value below which this share of them lies, in seconds, interpolated; 10 s stands for all above. 0 without any.
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = share * self.buckets.iter().sum::<u64>() as f64;
        let (mut before, mut low) = (0.0, 0.0);
        for (at, count) in self.buckets.iter().enumerate() {
            let high = BUCKETS_US.get(at).map_or(low, |bound| *bound as f64 / 1e6);
            let count = *count as f64;
            if count > 0.0 && before + count >= wanted {
                return low + (high - low) * ((wanted - before) / count).clamp(0.0, 1.0);
            }
            (before, low) = (before + count, high);
        }
        0.0
    }

    /// The same of waits: most are none at all, so nothing is made up below the first bound.
    pub fn wait_quantile(&self, share: f64) -> f64 {
        let seconds = self.quantile(share);
        if seconds * 1e6 <= BUCKETS_US[0] as f64 { 0.0 } else { seconds }
    }

    fn add(&mut self, h: &Histogram) {
        for (t, b) in self.buckets.iter_mut().zip(&h.buckets) {
            *t += b.get();
        }
        self.sum_us += h.sum_us.get();
    }

    fn merge(&mut self, other: &HistogramTotals) {
        for (t, b) in self.buckets.iter_mut().zip(other.buckets) {
            *t += b;
        }
        self.sum_us += other.sum_us;
    }
}

impl Totals {
    /// Sums `stats`.
    pub fn sum(stats: &[Stats]) -> Totals {
        let mut t = Totals::default();
        for s in stats {
            t.assignments += s.assignments.get();
            t.transactions += s.transactions.get();
            t.queries += s.queries.get();
            t.received += s.received.get();
            t.sent += s.sent.get();
            t.transaction_us += s.transaction_us.get();
            t.query_us += s.query_us.get();
            t.wait_us += s.wait_us.get();
            t.client_parses += s.client_parses.get();
            t.server_parses += s.server_parses.get();
            t.binds += s.binds.get();
            t.wait_timeouts += s.wait_timeouts.get();
            t.connect_failures += s.connect_failures.get();
            t.query_timeouts += s.query_timeouts.get();
            t.idle_timeouts += s.idle_timeouts.get();
            t.abandoned += s.abandoned.get();
            for (t, n) in t.pins.iter_mut().zip(&s.pins) {
                *t += n.get();
            }
            t.wait.add(&s.wait);
            t.checkout.add(&s.checkout);
            for (t, n) in t.connects.iter_mut().zip(&s.connects) {
                *t += n.get();
            }
            t.connect.add(&s.connect);
        }
        t
    }

    /// Every plain counter, for arithmetic on all of them.
    fn counters(&mut self) -> [&mut u64; 16] {
        [
            &mut self.assignments,
            &mut self.transactions,
            &mut self.queries,
            &mut self.received,
            &mut self.sent,
            &mut self.transaction_us,
            &mut self.query_us,
            &mut self.wait_us,
            &mut self.client_parses,
            &mut self.server_parses,
            &mut self.binds,
            &mut self.wait_timeouts,
            &mut self.connect_failures,
            &mut self.query_timeouts,
            &mut self.idle_timeouts,
            &mut self.abandoned,
        ]
    }

    /// Adds another pool's totals.
    pub fn merge(&mut self, other: &Totals) {
        let mut other = other.clone();
        for (t, n) in self.counters().into_iter().zip(other.counters()) {
            *t += *n;
        }
        for (t, n) in self.connects.iter_mut().zip(other.connects) {
            *t += n;
        }
        for (t, n) in self.pins.iter_mut().zip(other.pins) {
            *t += n;
        }
        self.wait.merge(&other.wait);
        self.checkout.merge(&other.checkout);
        self.connect.merge(&other.connect);
    }

    /// The plain counters' growth since `earlier`; histograms and connects are left as they are. Never below zero: a
    /// pool that was dropped and made anew starts over.
    pub fn since(&self, earlier: &Totals) -> Totals {
        let mut diff = self.clone();
        let mut earlier = earlier.clone();
        for (t, n) in diff.counters().into_iter().zip(earlier.counters()) {
            *t = t.saturating_sub(*n);
        }
        diff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_sums_over_workers() {
        let s = [Stats::default(), Stats::default()];
        s[0].queries.add(2);
        s[1].queries.add(3);
        s[0].wait.record(0);
        s[1].wait.record(700);
        s[1].wait.record(60_000_000);
        let t = Totals::sum(&s);
        assert_eq!(t.queries, 5);
        assert_eq!((t.wait.buckets[0], t.wait.buckets[1], t.wait.buckets[13], t.wait.sum_us), (1, 1, 1, 60_000_700));
    }
}
