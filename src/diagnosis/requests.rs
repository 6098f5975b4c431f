//! Causes seen in requests: loops, too many statements, savepoints, lock trouble.

use super::window::Window;
use super::{Basis, Cause, words};
use crate::insight::{Confidence, FindingView, Kind};

/// Statements of a request that are too many on average (GitLab's limit).
const MANY_QUERIES: u64 = 100;
/// What is left after the mend.
const FEW_QUERIES: f64 = 50.0;
/// Requests that a judgement needs.
const MIN_REQUESTS: u64 = 5;
/// Statements that a route's evidence names.
const NAMED: usize = 3;

/// SQLSTATEs of lock trouble, as insight counts them, and what they are. 57014 has other reasons.
const LOCKS: [(&str, usize); 3] =
    [("lock timeouts (55P03)", 0), ("deadlocks (40P01)", 1), ("serialization failures (40001)", 2)];
/// Such errors that are worth a line.
const MIN_LOCK_ERRORS: u64 = 3;

/// Causes of all routes.
pub(crate) fn causes(window: &Window<'_>) -> Vec<Cause> {
    let findings = window.facts.findings.iter().filter(|finding| finding.confidence > Confidence::Low);
    let mut found: Vec<Cause> = findings.filter_map(|finding| repeated(window, finding)).collect();
    for key in window.facts.routes.keys() {
        found.extend(many_queries(window, *key, &found));
        found.extend(savepoints(window, *key));
    }
    found.extend(window.facts.lock_errors.iter().filter_map(|(id, errors)| locks(window, *id, errors)));
    found
}

fn repeated(window: &Window<'_>, finding: &FindingView) -> Option<Cause> {
    let before = window.then.findings.get(&finding.id).copied().unwrap_or(0.0);
    let grown = finding.avoidable_seconds - before;
    if grown <= 0.0 {
        return None;
    }
    let table = finding.tables.first().map_or("", |table| table);
    let (least, most, _) = finding.n;
    let n = if least == most { most.to_string() } else { format!("{least} to {most}") };
    let what = match finding.kind {
        Kind::Duplicate => "the same read",
        Kind::WriteLoop => "one write at a time",
        _ => "one read at a time",
    };
    Some(Cause {
        routes: finding.route.iter().cloned().collect(),
        user: finding
            .sample
            .as_ref()
            .map(|sample| sample.user.as_ref().into())
            .filter(|u: &std::sync::Arc<str>| !u.is_empty()),
        fingerprint: finding.fingerprints.first().copied(),
        text: finding.texts.first().cloned().unwrap_or_default(),
        finding: Some(finding.id.clone()),
        recoverable: grown / window.hours,
        basis: Basis::Floor,
        probable: finding.confidence < Confidence::High,
        evidence: format!("{n} statements on {table}, {what}, {} times since the start", finding.bursts),
        numbers: [
            ("bursts", finding.bursts as f64),
            ("queries_per_burst", finding.queries as f64 / finding.bursts.max(1) as f64),
            ("avoidable_floor_seconds", finding.avoidable_seconds),
        ]
        .into(),
        mend: finding.advice.to_string(),
        code: finding.mend.clone(),
        ..Cause::new(finding.kind.name(), &finding.database)
    })
}

/// A tagged route whose requests ask very much. What its findings explain is theirs.
fn many_queries(window: &Window<'_>, key: (u16, u32), known: &[Cause]) -> Option<Cause> {
    let grown = window.route(key);
    let name = window.facts.route_names.get(&key.1)?;
    let mean = grown.queries as f64 / grown.requests.max(1) as f64;
    if grown.requests < MIN_REQUESTS || grown.queries < grown.requests * MANY_QUERIES {
        return None;
    }
    let database = window.facts.database(key.0);
    let explained: f64 = known
        .iter()
        .filter(|cause| cause.basis == Basis::Floor && cause.database == database && cause.routes.contains(name))
        .map(|cause| cause.recoverable)
        .sum();
    let mut parts: Vec<_> = window
        .facts
        .statements
        .iter()
        .filter(|one| one.key.0 == key.0 && one.routes.contains(name))
        .map(|one| (window.statement(one.key).calls, &one.described.summary))
        .collect();
    parts.sort_unstable_by(|a, b| b.cmp(a));
    let named: Vec<_> = parts.iter().take(NAMED).map(|(calls, what)| format!("{calls} x {what}")).collect();
    let seconds = window.hourly(grown.server_us) * (1.0 - FEW_QUERIES / mean);
    Some(Cause {
        routes: vec![name.clone()],
        recoverable: (seconds - explained).max(0.0),
        evidence: format!("{mean:.0} statements a request; most often {}", named.join(", ")),
        numbers: [
            ("queries_per_request", mean),
            ("requests_per_hour", window.count(grown.requests)),
            ("db_seconds_per_request", grown.server_us as f64 / 1e6 / grown.requests as f64),
        ]
        .into(),
        mend: words::MANY.to_owned(),
        ..Cause::new("many_queries", &database)
    })
}

/// Transactions with so many savepoints that PostgreSQL loses track of them cheaply.
fn savepoints(window: &Window<'_>, key: (u16, u32)) -> Option<Cause> {
    let grown = window.route(key);
    if grown.storms == 0 {
        return None;
    }
    let spent: u64 = window
        .facts
        .statements
        .iter()
        .filter(|one| one.key.0 == key.0)
        .filter(|one| ["SAVEPOINT", "RELEASE"].iter().any(|verb| one.described.display.starts_with(verb)))
        .map(|one| window.statement(one.key).time_us)
        .sum();
    let most = window.facts.routes.get(&key).map_or(0, |sum| sum.most_savepoints);
    Some(Cause {
        routes: window.facts.route_names.get(&key.1).cloned().into_iter().collect(),
        recoverable: window.hourly(spent),
        evidence: format!("{} transactions with 64 savepoints and more, {most} at most", grown.storms),
        numbers: [("transactions_per_hour", window.count(grown.storms)), ("max_savepoints", most as f64)].into(),
        mend: words::SAVEPOINTS.to_owned(),
        code: words::SAVEPOINTS_CODE.to_owned(),
        ..Cause::new("savepoint_storm", &window.facts.database(key.0))
    })
}

fn locks(window: &Window<'_>, id: u16, errors: &[u64; 4]) -> Option<Cause> {
    let before = window.then.lock_errors.get(&id).copied().unwrap_or_default();
    let counts = LOCKS.map(|(what, at)| (what, errors[at].saturating_sub(before[at])));
    let sum: u64 = counts.iter().map(|(_, count)| count).sum();
    if sum < MIN_LOCK_ERRORS {
        return None;
    }
    let seen: Vec<_> =
        counts.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{count} {what}")).collect();
    Some(Cause {
        evidence: seen.join(", "),
        numbers: [("errors_per_hour", window.count(sum))].into(),
        mend: words::LOCKS.to_owned(),
        code: words::LOCKS_CODE.to_owned(),
        ..Cause::new("lock_errors", &window.facts.database(id))
    })
}
