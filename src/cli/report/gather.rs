//! What the report is made of: the API's answers as they are, in one JSON document with a head.

use serde_json::{Value, json};

use crate::cli::remote::{Failure, Remote};
use crate::cli::words::{items, now, number, text};

/// Version of the document; a reader refuses others.
pub(super) const FORMAT: u64 = 1;
/// Most of each list that is fetched.
const MOST: usize = 5_000;
/// Statements that are kept.
const STATEMENTS: usize = 50;

/// Asks for everything. The counts of the API begin with the process; `history`, where there is one, tells the window.
pub(super) fn gather(remote: &Remote, since: f64) -> Result<Value, Failure> {
    let status = remote.get("status")?;
    let at = number(&status, "at_unix_seconds").max(1.0);
    let started = number(&status, "started_unix_seconds");
    let from = (at - since).max(0.0);
    let routes = remote.list("routes", MOST)?;
    let history = remote.try_list(&format!("history?from={from:.0}&detail=all"), MOST)?;
    let history = history.filter(|intervals| !intervals.is_empty());
    let window = match &history {
        Some(intervals) => window_of_history(intervals, at),
        None => window_of_process(&routes, started, at),
    };
    Ok(json!({
        "pgsluice_report": FORMAT,
        "url": remote.name(),
        "created_unix_seconds": now(),
        "asked_since_seconds": since,
        "window": window,
        "status": status,
        "causes": remote.try_list("causes", MOST)?,
        "findings": remote.list("findings", MOST)?,
        "routes": routes,
        "pools": remote.list("pools", MOST)?,
        "pins": remote.list("pins", MOST)?,
        "queries": remote.list("queries", STATEMENTS)?,
        "history": history,
    }))
}

/// Sums of the intervals.
fn window_of_history(intervals: &[Value], at: f64) -> Value {
    let sum = |field| intervals.iter().map(|interval| number(interval, field)).sum::<f64>();
    let from = intervals.iter().map(|interval| number(interval, "from_unix_seconds")).fold(at, f64::min);
    json!({
        "basis": "history",
        "from_unix_seconds": from,
        "to_unix_seconds": at,
        "seconds": sum("length_seconds"),
        "requests": sum("requests"),
        "statements": sum("calls"),
        "errors": sum("errors"),
        "db_seconds": sum("db_seconds"),
        "avoidable_floor_seconds": sum("avoidable_floor_seconds"),
    })
}

/// All since the start, from the routes: units of work that are over.
fn window_of_process(routes: &[Value], started: f64, at: f64) -> Value {
    let sum = |field| routes.iter().map(|route| number(route, field)).sum::<f64>();
    json!({
        "basis": "process",
        "from_unix_seconds": started,
        "to_unix_seconds": at,
        "seconds": (at - started).max(0.0),
        "requests": sum("requests"),
        "statements": sum("queries"),
        "db_seconds": sum("db_seconds"),
        "avoidable_floor_seconds": sum("avoidable_floor_seconds"),
    })
}

/// Findings that were seen since the beginning of what was asked for.
pub(super) fn recent(report: &Value) -> impl Iterator<Item = &Value> {
    let from = number(&report["window"], "to_unix_seconds") - number(report, "asked_since_seconds");
    items(report, "findings").iter().filter(move |finding| number(finding, "last_seen_unix_seconds") >= from)
}

/// A report that was saved earlier.
pub(super) fn load(path: &std::path::Path) -> Result<Value, Failure> {
    let name = path.display();
    let wrong = |why: &str| Failure::File(format!("{name}: {why}"));
    let read = std::fs::read_to_string(path).map_err(|error| wrong(&error.to_string()))?;
    let report: Value = serde_json::from_str(&read).map_err(|error| {
        wrong(&format!("is not JSON ({error}); --compare wants what `pgsluice report --format json` wrote"))
    })?;
    match report.get("pgsluice_report").and_then(Value::as_u64) {
        Some(FORMAT) => {}
        Some(_) => return Err(wrong("was written by another version of this program")),
        None => return Err(wrong("is no report; --compare wants what `pgsluice report --format json` wrote")),
    }
    if text(&report["status"], "version").is_empty() {
        return Err(wrong("is not complete"));
    }
    Ok(report)
}
