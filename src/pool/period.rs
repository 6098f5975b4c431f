//! Averages over the last whole period, as PgBouncer computes them (`src/stats.c`, `stats_period` 60 s).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::stats::Totals;

/// Length of a period, microseconds (PgBouncer's default `stats_period`).
pub const PERIOD_US: u64 = 60_000_000;

/// Database and user of a pool.
pub type Key = (Arc<str>, Arc<str>);

/// What pools did in the last whole period.
#[derive(Default)]
pub struct Periods(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// End of the last period (monotonic microseconds).
    at_us: u64,
    /// Its length, microseconds; 0 before the first has ended.
    length_us: u64,
    /// Totals at its end.
    totals: HashMap<Key, Totals>,
    /// Growth of the plain counters within it.
    growth: HashMap<Key, Totals>,
}

impl Periods {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the running period ends by `now_us`.
    pub fn is_over(&self, now_us: u64) -> bool {
        now_us.saturating_sub(self.inner().at_us) >= PERIOD_US
    }

    /// Ends the running period with these totals.
    pub fn end(&self, now_us: u64, totals: impl Iterator<Item = (Key, Totals)>) {
        let totals: HashMap<Key, Totals> = totals.collect();
        let mut inner = self.inner();
        let growth = totals
            .iter()
            .map(|(k, t)| (k.clone(), inner.totals.get(k).map_or_else(|| t.clone(), |old| t.since(old))))
            .collect();
        let length_us = now_us.saturating_sub(inner.at_us);
        *inner = Inner { at_us: now_us, length_us, totals, growth };
    }

    /// Length of the last whole period in seconds (0: none has ended yet) and the growth of each pool's plain counters
    /// in it.
    pub fn last(&self) -> (f64, HashMap<Key, Totals>) {
        let inner = self.inner();
        (inner.length_us as f64 / 1e6, inner.growth.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(queries: u64) -> impl Iterator<Item = (Key, Totals)> {
        let totals = Totals { queries, ..Totals::default() };
        std::iter::once(((Arc::from("d"), Arc::from("u")), totals))
    }

    #[test]
    fn growth_is_of_the_last_period_only() {
        let key: Key = (Arc::from("d"), Arc::from("u"));
        let p = Periods::default();
        assert!(!p.is_over(PERIOD_US - 1));
        assert_eq!(p.last().0, 0.0);
        p.end(PERIOD_US, one(10));
        assert_eq!(p.last().1[&key].queries, 10);
        assert!(!p.is_over(2 * PERIOD_US - 1) && p.is_over(2 * PERIOD_US));
        p.end(PERIOD_US * 5 / 2, one(25));
        let (seconds, growth) = p.last();
        assert_eq!((seconds, growth[&key].queries), (90.0, 15));
        // A pool that was made anew.
        p.end(4 * PERIOD_US, one(3));
        assert_eq!(p.last().1[&key].queries, 0);
    }
}
