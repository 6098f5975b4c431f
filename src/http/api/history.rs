//! `/history` and `/compare`: what was counted when, and whether a change has helped.

use std::collections::BTreeMap;

use super::endpoint::{Ask, Endpoint, Json, Refusal, cut, objects, page, unix, value};
use super::object::object;
use crate::client::Process;
use crate::insight::{Insight, Interval};
use crate::sql::Fingerprint;

/// Length of the compared windows when none is given, seconds.
const WINDOW: f64 = 3_600.0;
/// Statements and findings of a comparison.
const MAX_CHANGES: usize = 200;

object! {
    /// One interval (`history_interval`, a minute). The last one is still open.
    HistoryInterval {
        /// When it began.
        from_unix_seconds: f64,
        /// Its length.
        length_seconds: f64,
        /// Statements.
        calls: u64,
        /// Statements that failed.
        errors: u64,
        /// Rows.
        rows: u64,
        /// Time at the server.
        db_seconds: f64,
        /// Units of work (requests, jobs) that ended.
        requests: u64,
        /// Bursts of findings.
        bursts: u64,
        /// What batching would have saved at least.
        avoidable_floor_seconds: f64,
        /// With `detail=all` the 32 statements that took most time; with `fingerprint` that one, if it is among them.
        statements: Vec<HistoryStatement>,
        /// With `detail=all` the 16 findings that cost most.
        findings: Vec<HistoryFinding>,
    }
}

object! {
    /// One statement in one interval.
    HistoryStatement {
        /// 16 hex digits.
        fingerprint: String,
        /// Database as clients name it.
        database: String,
        /// Executions.
        calls: u64,
        /// Executions that failed.
        errors: u64,
        /// Rows.
        rows: u64,
        /// Time at the server.
        total_seconds: f64,
    }
}

object! {
    /// One finding in one interval.
    HistoryFinding {
        /// Its id.
        finding: String,
        /// Bursts.
        bursts: u64,
        /// What batching would have saved at least.
        avoidable_floor_seconds: f64,
    }
}

object! {
    /// Two windows side by side.
    Comparison {
        /// The window that ends at `from`.
        before: Side,
        /// The window that ends at `to`.
        after: Side,
        /// Statements that are among the costliest of an interval of either, greatest change of time first; 200 at most.
        statements: Vec<StatementChange>,
        /// Findings likewise.
        findings: Vec<FindingChange>,
    }
}

object! {
    /// One window.
    Side {
        /// Its beginning.
        from_unix_seconds: f64,
        /// Its end.
        to_unix_seconds: f64,
        /// How much of it the history knows. Everything by the hour is of this; 0: nothing is known.
        known_seconds: f64,
        /// Statements.
        calls_per_hour: f64,
        /// Statements that failed.
        errors_per_hour: f64,
        /// Units of work.
        requests_per_hour: f64,
        /// Statements of a unit of work.
        queries_per_request: f64,
        /// Time at the server of a unit of work.
        db_seconds_per_request: f64,
        /// Mean time of a statement.
        mean_seconds: f64,
        /// What batching would have saved at least.
        avoidable_floor_seconds_per_hour: f64,
    }
}

object! {
    /// One statement, before and after.
    StatementChange {
        /// 16 hex digits.
        fingerprint: String,
        /// Database as clients name it.
        database: String,
        /// Text without literals; null when it has not been seen since the start.
        text: Option<String>,
        /// Executions an hour; 0 when it was not among the costliest.
        before_calls_per_hour: f64,
        /// The same.
        after_calls_per_hour: f64,
        /// Mean time; null without executions.
        before_mean_seconds: Option<f64>,
        /// The same.
        after_mean_seconds: Option<f64>,
        /// Time at the server an hour, after less before: below 0 is better.
        change_seconds_per_hour: f64,
    }
}

object! {
    /// One finding, before and after.
    FindingChange {
        /// Its id.
        finding: String,
        /// Bursts an hour.
        before_bursts_per_hour: f64,
        /// The same.
        after_bursts_per_hour: f64,
        /// What batching would have saved at least, after less before: below 0 is better.
        change_seconds_per_hour: f64,
    }
}

/// Intervals.
pub const HISTORY: Endpoint = Endpoint {
    path: "history",
    about: "What was counted in each of the last 1,440 intervals (a day of minutes), oldest first. With `history_file` set it \
            goes back beyond the start of the process.",
    id: None,
    list: true,
    parameters: &[
        ("from", "since this time (Unix seconds)"),
        ("to", "before this time"),
        ("fingerprint", "in `statements`: this one"),
        ("detail", "`all`: with the statements and findings of each"),
    ],
    objects: objects::<HistoryInterval>(),
    answer: history,
};

/// Two windows.
pub const COMPARE: Endpoint = Endpoint {
    path: "compare",
    about: "The window that ends at `from` (a deployment, say) beside the one that ends at `to`: whether a mend has helped.",
    id: None,
    list: false,
    parameters: &[
        ("from", "compared: the window that ends here (Unix seconds); must be given"),
        ("to", "compared with it: the window that ends here; default: now"),
        ("window_seconds", "length of both; default 3600"),
    ],
    objects: objects::<Comparison>(),
    answer: compare,
};

fn time(ask: &Ask, name: &str) -> Result<Option<f64>, Refusal> {
    let wrong = || Refusal::bad(format!("{name} is a number of seconds"));
    let read = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    ask.get(name).map(|text| read(text).ok_or_else(wrong)).transpose()
}

fn history(process: &Process, ask: &Ask) -> Result<Json, Refusal> {
    let from = time(ask, "from")?.unwrap_or(f64::MIN);
    let to = time(ask, "to")?.unwrap_or(f64::MAX);
    let all = ask.word("detail", |word| ["none", "all"].into_iter().find(|known| *known == word))? == Some("all");
    let one = ask.word("fingerprint", |id| u64::from_str_radix(id, 16).ok())?;
    let (total, chosen) = cut(ask, process.insight.history(from, to, unix()))?;
    let shown = chosen.into_iter().map(|interval| {
        let totals = interval.totals;
        let wanted = |fingerprint| if one.is_some() { one == Some(fingerprint) } else { all };
        let statements = interval.statements.iter().filter(|part| wanted(part.fingerprint));
        let findings = interval.findings.iter().filter(|_| all);
        HistoryInterval {
            from_unix_seconds: interval.from,
            length_seconds: interval.seconds,
            calls: totals.calls,
            errors: totals.errors,
            rows: totals.rows,
            db_seconds: seconds(totals.time_us),
            requests: totals.requests,
            bursts: totals.bursts,
            avoidable_floor_seconds: seconds(totals.avoidable_us),
            statements: statements
                .map(|part| HistoryStatement {
                    fingerprint: Fingerprint(part.fingerprint).to_string(),
                    database: part.database.to_string(),
                    calls: part.calls,
                    errors: part.errors,
                    rows: part.rows,
                    total_seconds: seconds(part.time_us),
                })
                .collect(),
            findings: findings
                .map(|part| HistoryFinding {
                    finding: format!("{:012x}", part.key),
                    bursts: part.bursts,
                    avoidable_floor_seconds: seconds(part.avoidable_us),
                })
                .collect(),
        }
    });
    page(ask, total, &shown.collect::<Vec<_>>())
}

/// Sums of one window.
#[derive(Default)]
struct Sums {
    seconds: f64,
    totals: crate::insight::IntervalTotals,
    /// Calls and microseconds.
    statements: BTreeMap<(u64, String), (u64, u64)>,
    /// Bursts and microseconds.
    findings: BTreeMap<u64, (u64, u64)>,
}

impl Sums {
    fn of(intervals: &[Interval]) -> Self {
        let mut sums = Sums::default();
        for interval in intervals {
            sums.seconds += interval.seconds;
            let (sum, more) = (&mut sums.totals, &interval.totals);
            sum.calls += more.calls;
            sum.errors += more.errors;
            sum.time_us += more.time_us;
            sum.requests += more.requests;
            sum.avoidable_us += more.avoidable_us;
            for part in &interval.statements {
                let sum = sums.statements.entry((part.fingerprint, part.database.to_string())).or_default();
                *sum = (sum.0 + part.calls, sum.1 + part.time_us);
            }
            for part in &interval.findings {
                let sum = sums.findings.entry(part.key).or_default();
                *sum = (sum.0 + part.bursts, sum.1 + part.avoidable_us);
            }
        }
        sums
    }

    fn hourly(&self, n: u64) -> f64 {
        if self.seconds > 0.0 { n as f64 * 3_600.0 / self.seconds } else { 0.0 }
    }

    fn side(&self, from: f64, to: f64) -> Side {
        let totals = &self.totals;
        let requests = totals.requests.max(1) as f64;
        Side {
            from_unix_seconds: from,
            to_unix_seconds: to,
            known_seconds: self.seconds,
            calls_per_hour: self.hourly(totals.calls),
            errors_per_hour: self.hourly(totals.errors),
            requests_per_hour: self.hourly(totals.requests),
            queries_per_request: totals.calls as f64 / requests,
            db_seconds_per_request: seconds(totals.time_us) / requests,
            mean_seconds: seconds(totals.time_us) / totals.calls.max(1) as f64,
            avoidable_floor_seconds_per_hour: self.hourly(totals.avoidable_us) / 1e6,
        }
    }
}

fn compare(process: &Process, ask: &Ask) -> Result<Json, Refusal> {
    let from = time(ask, "from")?.ok_or_else(|| Refusal::bad("from must be given: Unix seconds"))?;
    let now = unix();
    let to = time(ask, "to")?.unwrap_or(now);
    let window = time(ask, "window_seconds")?.unwrap_or(WINDOW);
    if window <= 0.0 || from > to {
        return Err(Refusal::bad("window_seconds is above 0, and from is not after to"));
    }
    // Both from one reading, and no interval in both.
    let start = (to - window).max(from);
    let sums = |from, to| Sums::of(&process.insight.history(from, to, now));
    let (before, after) = (sums(from - window, from), sums(start, to));
    value(&Comparison {
        statements: statements(&process.insight, &before, &after),
        findings: findings(&before, &after),
        before: before.side(from - window, from),
        after: after.side(start, to),
    })
}

fn statements(insight: &Insight, before: &Sums, after: &Sums) -> Vec<StatementChange> {
    let keys: std::collections::BTreeSet<_> = before.statements.keys().chain(after.statements.keys()).collect();
    let mean = |(calls, us): (u64, u64)| (calls > 0).then(|| seconds(us) / calls as f64);
    let change = |key: &(u64, String)| {
        let then = before.statements.get(key).copied().unwrap_or_default();
        let now = after.statements.get(key).copied().unwrap_or_default();
        StatementChange {
            fingerprint: Fingerprint(key.0).to_string(),
            database: key.1.clone(),
            text: insight.text(key.0),
            before_calls_per_hour: before.hourly(then.0),
            after_calls_per_hour: after.hourly(now.0),
            before_mean_seconds: mean(then),
            after_mean_seconds: mean(now),
            change_seconds_per_hour: (after.hourly(now.1) - before.hourly(then.1)) / 1e6,
        }
    };
    let mut changes: Vec<_> = keys.into_iter().map(change).collect();
    changes.sort_by(|a, b| b.change_seconds_per_hour.abs().total_cmp(&a.change_seconds_per_hour.abs()));
    changes.truncate(MAX_CHANGES);
    changes
}

fn findings(before: &Sums, after: &Sums) -> Vec<FindingChange> {
    let keys: std::collections::BTreeSet<_> = before.findings.keys().chain(after.findings.keys()).collect();
    let change = |key: &u64| {
        let then = before.findings.get(key).copied().unwrap_or_default();
        let now = after.findings.get(key).copied().unwrap_or_default();
        FindingChange {
            finding: format!("{key:012x}"),
            before_bursts_per_hour: before.hourly(then.0),
            after_bursts_per_hour: after.hourly(now.0),
            change_seconds_per_hour: (after.hourly(now.1) - before.hourly(then.1)) / 1e6,
        }
    };
    let mut changes: Vec<_> = keys.into_iter().map(change).collect();
    changes.sort_by(|a, b| b.change_seconds_per_hour.abs().total_cmp(&a.change_seconds_per_hour.abs()));
    changes.truncate(MAX_CHANGES);
    changes
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
