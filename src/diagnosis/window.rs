//! Growth of all counters within a window: two old readings are kept, the older one half an hour to an hour old, and the
//! newest is compared with it. So a mended cause leaves the list within the hour.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::inspection::{Plans, Wish};
use super::{Cause, connections, indexes, rank, requests, statements};
use crate::insight::{Facts, Insight};
use crate::pool::Pool;

/// Time between two readings that are kept.
const KEEP: Duration = Duration::from_secs(1_800);
/// Rates are not extrapolated from less than this: a minute's burst is not an hour's.
const LEAST: Duration = Duration::from_secs(60);

/// Where the counters are.
pub struct Sources<'a> {
    /// Insight.
    pub insight: &'a Insight,
    /// All pools.
    pub pools: &'a [Arc<Pool>],
    /// Logins that succeeded, and their time in microseconds.
    pub logins: (u64, u64),
    /// What is known of plans.
    pub plans: &'a Plans,
}

/// Counters of one statement that are compared.
#[derive(Clone, Copy, Default)]
pub(crate) struct StatementSums {
    pub(crate) calls: u64,
    pub(crate) time_us: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) idle_us: u64,
    pub(crate) idle_count: u64,
    pub(crate) large: u64,
    pub(crate) parses: u64,
    /// Executions of 100 ms and more.
    pub(crate) long: u64,
}

/// Counters of one route that are compared.
#[derive(Clone, Copy, Default)]
pub(crate) struct RouteGrowth {
    pub(crate) requests: u64,
    pub(crate) queries: u64,
    pub(crate) server_us: u64,
    pub(crate) elapsed_us: u64,
    pub(crate) connections: u64,
    pub(crate) storms: u64,
}

/// Counters of one pool that are compared.
#[derive(Clone, Copy, Default)]
pub(crate) struct PoolSums {
    pub(crate) assignments: u64,
    pub(crate) wait_us: u64,
    pub(crate) held_us: u64,
    pub(crate) wait_buckets: [u64; crate::pool::stats::BUCKETS_US.len() + 1],
}

/// (database, user).
pub(crate) type PoolKey = (Arc<str>, Arc<str>);

/// One reading of everything.
#[derive(Default)]
pub(crate) struct Moment {
    at: Option<Instant>,
    pub(crate) statements: HashMap<(u16, u64), StatementSums>,
    pub(crate) routes: HashMap<(u16, u32), RouteGrowth>,
    pub(crate) findings: HashMap<String, f64>,
    pub(crate) pools: HashMap<PoolKey, PoolSums>,
    pub(crate) lock_errors: HashMap<u16, [u64; 4]>,
    pub(crate) logins: (u64, u64),
}

/// What is known now, and what was known then.
pub(crate) struct Window<'a> {
    pub(crate) facts: &'a Facts,
    pub(crate) insight: &'a Insight,
    pub(crate) plans: &'a Plans,
    pub(crate) pools: &'a [Arc<Pool>],
    pub(crate) now: Moment,
    pub(crate) then: &'a Moment,
    /// Length of the window in hours.
    pub(crate) hours: f64,
}

impl Window<'_> {
    /// Growth of a statement.
    pub(crate) fn statement(&self, key: (u16, u64)) -> StatementSums {
        let now = self.now.statements.get(&key).copied().unwrap_or_default();
        let then = self.then.statements.get(&key).copied().unwrap_or_default();
        // One that was pushed out and came back began anew.
        if now.calls < then.calls || now.idle_count < then.idle_count || now.parses < then.parses {
            return now;
        }
        StatementSums {
            calls: now.calls - then.calls,
            time_us: now.time_us.saturating_sub(then.time_us),
            rows: now.rows.saturating_sub(then.rows),
            bytes: now.bytes.saturating_sub(then.bytes),
            idle_us: now.idle_us.saturating_sub(then.idle_us),
            idle_count: now.idle_count - then.idle_count,
            large: now.large.saturating_sub(then.large),
            parses: now.parses - then.parses,
            long: now.long.saturating_sub(then.long),
        }
    }

    /// Growth of a route.
    pub(crate) fn route(&self, key: (u16, u32)) -> RouteGrowth {
        let now = self.now.routes.get(&key).copied().unwrap_or_default();
        let then = self.then.routes.get(&key).copied().unwrap_or_default();
        RouteGrowth {
            requests: now.requests.saturating_sub(then.requests),
            queries: now.queries.saturating_sub(then.queries),
            server_us: now.server_us.saturating_sub(then.server_us),
            elapsed_us: now.elapsed_us.saturating_sub(then.elapsed_us),
            connections: now.connections.saturating_sub(then.connections),
            storms: now.storms.saturating_sub(then.storms),
        }
    }

    /// Growth of a pool.
    pub(crate) fn pool(&self, key: &PoolKey) -> PoolSums {
        let now = self.now.pools.get(key).copied().unwrap_or_default();
        let then = self.then.pools.get(key).copied().unwrap_or_default();
        let mut buckets = now.wait_buckets;
        for (count, old) in buckets.iter_mut().zip(then.wait_buckets) {
            *count = count.saturating_sub(old);
        }
        PoolSums {
            assignments: now.assignments.saturating_sub(then.assignments),
            wait_us: now.wait_us.saturating_sub(then.wait_us),
            held_us: now.held_us.saturating_sub(then.held_us),
            wait_buckets: buckets,
        }
    }

    /// Microseconds of the window as seconds an hour.
    pub(crate) fn hourly(&self, us: u64) -> f64 {
        us as f64 / 1e6 / self.hours
    }

    /// A count of the window as a count an hour.
    pub(crate) fn count(&self, n: u64) -> f64 {
        n as f64 / self.hours
    }
}

/// The readings that are kept: the older one first.
pub struct Diagnosis(Mutex<[Moment; 2]>);

impl Default for Diagnosis {
    fn default() -> Self {
        // The process begins with every counter at 0.
        let began = || Moment { at: Some(Instant::now()), ..Moment::default() };
        Self(Mutex::new([began(), began()]))
    }
}

impl Diagnosis {
    fn kept(&self) -> MutexGuard<'_, [Moment; 2]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called now and then: keeps a reading when the last one is old enough.
    pub fn tick(&self, sources: &Sources<'_>) {
        let due = self.kept()[1].at.is_none_or(|at| at.elapsed() >= KEEP);
        if due {
            let new = moment(sources, &sources.insight.facts());
            let mut kept = self.kept();
            kept.swap(0, 1);
            kept[1] = new;
        }
    }

    /// Makes everything that was counted so far old.
    #[cfg(test)]
    pub(crate) fn forget(&self, sources: &Sources<'_>) {
        let facts = sources.insight.facts();
        *self.kept() = [moment(sources, &facts), moment(sources, &facts)];
    }

    /// All causes, ranked, and the length of the window they were seen in.
    pub fn causes(&self, sources: &Sources<'_>) -> (Duration, Vec<Cause>) {
        self.with_window(sources, |window, length| {
            let mut causes = requests::causes(window);
            causes.extend(statements::causes(window));
            causes.extend(connections::causes(window));
            rank(&mut causes);
            (length, causes)
        })
    }

    /// The costliest reads, whose plans are worth asking for.
    pub fn wishes(&self, sources: &Sources<'_>) -> Vec<Wish> {
        self.with_window(sources, |window, _| indexes::wishes(window))
    }

    fn with_window<T>(&self, sources: &Sources<'_>, with: impl FnOnce(&Window<'_>, Duration) -> T) -> T {
        let facts = sources.insight.facts();
        let now = moment(sources, &facts);
        let kept = self.kept();
        let then = &kept[0];
        let length = then.at.map_or(LEAST, |at| at.elapsed());
        let hours = length.max(LEAST).as_secs_f64() / 3_600.0;
        let (pools, insight, plans) = (sources.pools, sources.insight, sources.plans);
        with(&Window { facts: &facts, insight, plans, pools, now, then, hours }, length)
    }
}

fn moment(sources: &Sources<'_>, facts: &Facts) -> Moment {
    let statements = facts.statements.iter().map(|one| {
        let (total, detail) = (one.total, &one.detail);
        let sums = StatementSums {
            calls: total.calls,
            time_us: total.time_us,
            rows: total.rows,
            bytes: total.bytes,
            idle_us: detail.idle_us,
            idle_count: detail.idle_count,
            large: detail.large,
            parses: detail.parses,
            long: detail.spread.above(super::statements::LOCK_WAIT_US, one.max_us).0,
        };
        (one.key, sums)
    });
    let routes = facts.routes.iter().map(|(key, sum)| {
        let growth = RouteGrowth {
            requests: sum.requests,
            queries: sum.queries,
            server_us: sum.server_us,
            elapsed_us: sum.elapsed_us,
            connections: sum.connections,
            storms: sum.storms,
        };
        (*key, growth)
    });
    let pools = sources.pools.iter().map(|pool| {
        let totals = pool.totals();
        let sums = PoolSums {
            assignments: totals.assignments,
            wait_us: totals.wait.sum_us,
            held_us: totals.checkout.sum_us,
            wait_buckets: totals.wait.buckets,
        };
        (pool.key(), sums)
    });
    Moment {
        at: Some(Instant::now()),
        statements: statements.collect(),
        routes: routes.collect(),
        findings: facts.findings.iter().map(|f| (f.id.clone(), f.avoidable_seconds)).collect(),
        pools: pools.collect(),
        lock_errors: facts.lock_errors.iter().copied().collect(),
        logins: sources.logins,
    }
}
