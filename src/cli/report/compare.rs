//! A report beside one that was saved earlier: which findings are gone, and what that saved.
//!
//! A finding is judged by its cost per request of its route, so that less traffic does not look like a mend. Where the
//! process is the same, only what came after the earlier report counts as "after".

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::cli::words::{items, number, text};

/// Below this part of the earlier cost a finding has shrunk, above its inverse it has grown.
const CHANGED: f64 = 0.8;

/// Requests, statements, seconds at the server.
#[derive(Clone, Copy, Default)]
struct Work {
    requests: f64,
    queries: f64,
    seconds: f64,
}

type Place = (String, Option<String>);

/// One report's counts, and over how long they are.
struct Side {
    seconds: f64,
    work: BTreeMap<Place, Work>,
}

fn place(value: &Value) -> Place {
    (text(value, "database").to_owned(), value.get("route").and_then(Value::as_str).map(str::to_owned))
}

fn uptime(report: &Value) -> f64 {
    number(&report["status"], "at_unix_seconds") - number(&report["status"], "started_unix_seconds")
}

impl Side {
    fn of(report: &Value) -> Self {
        let mut work = BTreeMap::new();
        for route in items(report, "routes") {
            let sum: &mut Work = work.entry(place(route)).or_default();
            sum.requests += number(route, "requests");
            sum.queries += number(route, "queries");
            sum.seconds += number(route, "db_seconds");
        }
        Self { seconds: uptime(report).max(0.0), work }
    }

    /// Only what came after `earlier`, of the same process.
    fn since(mut self, earlier: &Side) -> Self {
        self.seconds = (self.seconds - earlier.seconds).max(0.0);
        for (place, work) in &mut self.work {
            let before = earlier.work.get(place).copied().unwrap_or_default();
            work.requests = (work.requests - before.requests).max(0.0);
            work.queries = (work.queries - before.queries).max(0.0);
            work.seconds = (work.seconds - before.seconds).max(0.0);
        }
        self
    }

    fn total(&self) -> Work {
        self.work.values().fold(Work::default(), |sum, work| Work {
            requests: sum.requests + work.requests,
            queries: sum.queries + work.queries,
            seconds: sum.seconds + work.seconds,
        })
    }

    fn requests(&self, place: &Place) -> f64 {
        self.work.get(place).map_or(0.0, |work| work.requests)
    }

    fn told(&self) -> Value {
        let total = self.total();
        let requests = total.requests.max(1.0);
        json!({
            "seconds": self.seconds,
            "requests": total.requests,
            "statements": total.queries,
            "db_seconds": total.seconds,
            "queries_per_request": total.queries / requests,
            "db_seconds_per_request": total.seconds / requests,
        })
    }
}

/// Bursts and least avoidable seconds of a finding.
fn cost(finding: Option<&Value>) -> (f64, f64) {
    finding.map_or((0.0, 0.0), |f| (number(f, "bursts"), number(f, "avoidable_floor_seconds")))
}

/// The comparison, as it stands in the report under `comparison`.
pub(super) fn compare(before: &Value, after: &Value) -> Value {
    let same = before["status"]["started_unix_seconds"] == after["status"]["started_unix_seconds"]
        && before["url"] == after["url"];
    let then = Side::of(before);
    let now = if same { Side::of(after).since(&then) } else { Side::of(after) };
    let find = |report: &Value, id: &str| items(report, "findings").iter().find(|f| text(f, "id") == id).cloned();
    let mut known: BTreeMap<String, Value> = BTreeMap::new();
    for finding in items(before, "findings").iter().chain(items(after, "findings")) {
        known.insert(text(finding, "id").to_owned(), finding.clone());
    }
    let mut changes: Vec<_> = known
        .into_iter()
        .map(|(id, finding)| {
            let (old, new) = (find(before, &id), find(after, &id));
            let (bursts, avoidable) = cost(new.as_ref());
            let earlier = cost(old.as_ref());
            let later = if same { (bursts - earlier.0, avoidable - earlier.1) } else { (bursts, avoidable) };
            change(&finding, earlier, (later.0.max(0.0), later.1.max(0.0)), &then, &now)
        })
        .collect();
    changes.sort_by(|a, b| {
        let saved = |value: &Value| number(value, "saved_seconds_per_hour").abs();
        saved(b).partial_cmp(&saved(a)).unwrap_or(Ordering::Equal)
    });
    let saved: f64 = changes.iter().map(|change| number(change, "saved_seconds_per_hour")).sum();
    json!({
        "same_process": same,
        "comparable": before["status"]["fingerprint_version"] == after["status"]["fingerprint_version"],
        "before_created_unix_seconds": number(before, "created_unix_seconds"),
        "before": then.told(),
        "after": now.told(),
        "saved_seconds_per_hour": saved,
        "findings": changes,
    })
}

fn change(finding: &Value, earlier: (f64, f64), later: (f64, f64), then: &Side, now: &Side) -> Value {
    let place = place(finding);
    let (requests_then, requests_now) = (then.requests(&place), now.requests(&place));
    let each = |cost: f64, requests: f64| if requests > 0.0 { cost / requests } else { 0.0 };
    let (cost_then, cost_now) = (each(earlier.1, requests_then), each(later.1, requests_now));
    let verdict = match (earlier.0 > 0.0, later.0 > 0.0) {
        (true, false) if requests_now > 0.0 => "gone",
        (true, false) => "no traffic",
        (false, _) => "new",
        _ if cost_now < cost_then * CHANGED => "smaller",
        _ if cost_now > cost_then / CHANGED => "larger",
        _ => "as before",
    };
    // At the traffic of the later report.
    let hours = now.seconds / 3_600.0;
    let saved = if hours > 0.0 { (cost_then - cost_now) * requests_now / hours } else { 0.0 };
    json!({
        "id": finding["id"],
        "kind": finding["kind"],
        "database": finding["database"],
        "route": finding["route"],
        "tables": finding["tables"],
        "verdict": verdict,
        "before_bursts": earlier.0,
        "after_bursts": later.0,
        "before_requests": requests_then,
        "after_requests": requests_now,
        "before_avoidable_seconds_per_request": cost_then,
        "after_avoidable_seconds_per_request": cost_now,
        "saved_seconds_per_hour": saved,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(started: u64, at: u64, requests: u64, findings: &[(&str, &str, u64, f64)]) -> Value {
        let findings: Vec<_> = findings
            .iter()
            .map(|(id, route, bursts, avoidable)| {
                json!({"id": id, "kind": "n_plus_one", "database": "app", "route": route, "tables": ["book"],
                       "bursts": bursts, "avoidable_floor_seconds": avoidable})
            })
            .collect();
        let routes = json!([{"database": "app", "route": "books", "requests": requests, "queries": requests * 10,
                             "db_seconds": requests as f64}]);
        json!({"url": "x", "status": {"started_unix_seconds": started, "at_unix_seconds": at, "fingerprint_version": 1},
               "routes": routes, "findings": findings})
    }

    fn verdicts(comparison: &Value) -> Vec<(&str, &str)> {
        let mut all: Vec<_> =
            items(comparison, "findings").iter().map(|c| (text(c, "id"), text(c, "verdict"))).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn a_mend_is_told_from_a_route_without_traffic() {
        let before = report(0, 3_600, 100, &[("a", "books", 100, 50.0), ("b", "quiet", 3, 1.0)]);
        let after = report(5_000, 8_600, 200, &[("c", "books", 200, 20.0)]);
        let comparison = compare(&before, &after);
        assert_eq!(verdicts(&comparison), [("a", "gone"), ("b", "no traffic"), ("c", "new")]);
        // 0.5 s a request saved, 0.1 s new, 200 requests in the hour.
        assert!((number(&comparison, "saved_seconds_per_hour") - 80.0).abs() < 1e-6, "{comparison}");
    }

    #[test]
    fn of_the_same_process_only_what_came_later_counts() {
        let before = report(0, 3_600, 100, &[("a", "books", 100, 50.0), ("b", "books", 100, 10.0)]);
        let after = report(0, 7_200, 200, &[("a", "books", 100, 50.0), ("b", "books", 200, 40.0)]);
        let comparison = compare(&before, &after);
        assert_eq!(verdicts(&comparison), [("a", "gone"), ("b", "larger")]);
        assert_eq!(number(&comparison["after"], "requests"), 100.0);
        assert!((number(&comparison, "saved_seconds_per_hour") - 30.0).abs() < 1e-6, "{comparison}");
    }
}
