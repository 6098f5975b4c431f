//! Causes around connections: logins, pool sizes, what replicas could take.

use std::collections::BTreeMap;

use super::window::Window;
use super::{Basis, Cause, words};
use crate::pool::Pool;
use crate::pool::stats::BUCKETS_US;
use crate::sql::Operation;

/// New connections that a judgement needs, and their share of requests that is too much.
const MIN_CONNECTIONS: u64 = 20;
const CONNECTIONS_PER_REQUEST: f64 = 0.5;
/// Part of the requests' time that logins must take to be worth a line.
const LOGIN_SHARE: f64 = 0.05;
/// A wait from which a pool is too small, at the 95th percentile, and so many waits.
const WAIT_US: u64 = 50_000;
const MIN_WAITS: u64 = 20;
/// Part of the work that must be reads, and mean busy servers, for replicas to be worth a thought.
const READ_SHARE: f64 = 0.8;
const BUSY_SERVERS: f64 = 1.0;

/// Causes of all databases and pools.
pub(crate) fn causes(window: &Window<'_>) -> Vec<Cause> {
    let mut found = logins(window);
    found.extend(window.pools.iter().filter_map(|pool| small(window, pool)));
    found.extend((0..window.facts.databases.len() as u16).filter_map(|id| readable(window, id)));
    found
}

/// A new connection for nearly every request.
fn logins(window: &Window<'_>) -> Vec<Cause> {
    // By database: connections, requests, microseconds of requests.
    let mut sums: BTreeMap<u16, (u64, u64, u64)> = BTreeMap::new();
    for key in window.facts.routes.keys() {
        let grown = window.route(*key);
        let sum = sums.entry(key.0).or_default();
        *sum = (sum.0 + grown.connections, sum.1 + grown.requests, sum.2 + grown.elapsed_us);
    }
    let count = window.now.logins.0.saturating_sub(window.then.logins.0);
    let mean_us = window.now.logins.1.saturating_sub(window.then.logins.1) as f64 / count.max(1) as f64;
    let judge = |(id, (connections, requests, elapsed_us)): (u16, (u64, u64, u64))| {
        let ratio = connections as f64 / requests.max(1) as f64;
        let spent_us = connections as f64 * mean_us;
        let heavy = spent_us >= LOGIN_SHARE * elapsed_us as f64;
        if connections < MIN_CONNECTIONS || ratio <= CONNECTIONS_PER_REQUEST || !heavy {
            return None;
        }
        Some(Cause {
            recoverable: window.hourly(spent_us as u64) * (1.0 - 1.0 / connections as f64),
            basis: Basis::Floor,
            evidence: format!(
                "{connections} new connections for {requests} requests, {:.1} ms each until the first query",
                mean_us / 1e3
            ),
            numbers: [
                ("connections_per_request", ratio),
                ("connections_per_hour", window.count(connections)),
                ("login_seconds", mean_us / 1e6),
            ]
            .into(),
            mend: words::PERSISTENT.to_owned(),
            code: words::PERSISTENT_CODE.to_owned(),
            ..Cause::new("connection_overhead", &window.facts.database(id))
        })
    };
    sums.into_iter().filter_map(judge).collect()
}

/// Clients wait for server connections.
fn small(window: &Window<'_>, pool: &Pool) -> Option<Cause> {
    let grown = window.pool(&pool.key());
    let (mut waits, mut long) = (0, 0);
    for (at, count) in grown.wait_buckets.iter().enumerate() {
        waits += count;
        long += if at > 0 && BUCKETS_US[at - 1] >= WAIT_US { *count } else { 0 };
    }
    if waits < MIN_WAITS || long * 20 < waits {
        return None;
    }
    // Little's law: the mean number of busy servers is the time they were held over the time there was.
    let busy = window.hourly(grown.held_us) / 3_600.0;
    let wanted = busy + window.hourly(grown.wait_us) / 3_600.0;
    let size = pool.settings.pool_size;
    let enough = ((wanted * 2.0).ceil() as usize).max(size + 1);
    Some(Cause {
        user: Some(pool.user.clone()),
        recoverable: window.hourly(grown.wait_us),
        evidence: format!(
            "{long} of {waits} waits took 50 ms and more; {busy:.1} of {size} servers are busy on average, with those who \
             wait it would be {wanted:.1}"
        ),
        numbers: [
            ("pool_size", size as f64),
            ("mean_busy_servers", busy),
            ("mean_wanted_servers", wanted),
            ("waited_seconds_per_hour", window.hourly(grown.wait_us)),
        ]
        .into(),
        mend: words::pool_size(enough),
        code: format!("[pool]\npool_size = {enough}"),
        ..Cause::new("pool_too_small", &pool.database)
    })
}

/// Nearly all of the work is reads, and there is much of it.
fn readable(window: &Window<'_>, id: u16) -> Option<Cause> {
    let (mut read, mut all) = (0, 0);
    for one in window.facts.statements.iter().filter(|one| one.key.0 == id) {
        let spent = window.statement(one.key).time_us;
        all += spent;
        let shape = &one.described.shape;
        if shape.operation == Operation::Select && !shape.for_update {
            read += spent;
        }
    }
    let (share, busy) = (read as f64 / all.max(1) as f64, window.hourly(all) / 3_600.0);
    (share >= READ_SHARE && busy >= BUSY_SERVERS).then(|| Cause {
        // Moved, not saved.
        recoverable: 0.0,
        evidence: format!(
            "{:.0} % of the time at the server is reads, {busy:.1} servers busy on average",
            share * 100.0
        ),
        numbers: [
            ("read_share", share),
            ("movable_seconds_per_hour", window.hourly(read)),
            ("mean_busy_servers", busy),
        ]
        .into(),
        mend: words::REPLICA.to_owned(),
        code: words::REPLICA_CODE.to_owned(),
        ..Cause::new("read_replica", &window.facts.database(id))
    })
}
