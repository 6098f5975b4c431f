//! The report as headings, sentences, tables, code and plots; Markdown and HTML are written from it.

use serde_json::Value;

use super::gather::recent;
use crate::cli::words::{clean, count, date, items, mean, names, number, route, seconds, text};

/// Causes that are told in full.
const MOST: usize = 20;
/// Rows of a table.
const ROWS: usize = 20;

/// A part of the document. All text is as it came: who writes it escapes it.
pub(super) enum Block {
    Heading(u8, String),
    Text(String),
    Code(&'static str, String),
    Table(&'static [&'static str], Vec<Vec<String>>),
    /// Title; label, what stands at the bar, value. Plots repeat what tables say, so Markdown leaves them out.
    Bars(&'static str, Vec<(String, String, f64)>),
    /// Title; instants and values.
    Line(&'static str, Vec<(f64, f64)>),
    /// A burst as it ran: role, executions, start and end in microseconds.
    Burst(Vec<(String, u64, f64, f64)>),
}

/// All of it.
pub(super) fn document(report: &Value) -> Vec<Block> {
    let mut out = Vec::new();
    measured(report, &mut out);
    if let Some(comparison) = report.get("comparison").filter(|c| c.is_object()) {
        compared(comparison, &mut out);
    }
    causes(report, &mut out);
    pools(report, &mut out);
    queries(report, &mut out);
    routes(report, &mut out);
    out
}

fn measured(report: &Value, out: &mut Vec<Block>) {
    let (window, status) = (&report["window"], &report["status"]);
    out.push(Block::Heading(1, "What the application asks of its database".to_owned()));
    let basis = match text(window, "basis") {
        "history" => "",
        _ => " (everything since pgsluice was started: this version keeps no history)",
    };
    let of = |field| number(window, field);
    out.push(Block::Text(format!(
        "Measured by pgsluice {} at {} from {} to {}, {}{basis}.",
        text(status, "version"),
        clean(text(report, "url")),
        date(of("from_unix_seconds")),
        date(of("to_unix_seconds")),
        seconds(of("seconds")),
    )));
    out.push(Block::Text(format!(
        "{} requests (units of work that are over), {} statements, {} a request. {} in the database. Batching would have \
         saved at least {}, round trips included.",
        count(of("requests")),
        count(of("statements")),
        mean(of("statements") / of("requests").max(1.0)),
        seconds(of("db_seconds")),
        seconds(of("avoidable_floor_seconds")),
    )));
    if status["insight"]["enabled"] == Value::Bool(false) {
        out.push(Block::Text("Insight is switched off: nothing is looked for.".to_owned()));
    }
    let points = items(report, "history");
    if points.len() > 1 {
        let point = |i: &Value| (number(i, "from_unix_seconds"), number(i, "db_seconds"));
        out.push(Block::Line("Seconds in the database, by interval", points.iter().map(point).collect()));
    }
}

fn compared(comparison: &Value, out: &mut Vec<Block>) {
    let at = date(number(comparison, "before_created_unix_seconds"));
    out.push(Block::Heading(2, format!("Compared with the report of {at}")));
    if comparison["comparable"] == Value::Bool(false) {
        out.push(Block::Text(
            "Their fingerprints are of different versions: findings of one cannot be recognised in the other."
                .to_owned(),
        ));
    }
    let saved = number(comparison, "saved_seconds_per_hour");
    let word = if saved >= 0.0 { "saved" } else { "lost" };
    out.push(Block::Text(format!(
        "At least {} an hour {word} at the later traffic, findings counted by what they cost each request of their route.",
        seconds(saved.abs())
    )));
    let row = |name: &str, write: &dyn Fn(&Value) -> String| {
        vec![name.to_owned(), write(&comparison["before"]), write(&comparison["after"])]
    };
    out.push(Block::Table(
        &["", "Before", "After"],
        vec![
            row("Measured", &|side| seconds(number(side, "seconds"))),
            row("Requests", &|side| count(number(side, "requests"))),
            row("Statements a request", &|side| mean(number(side, "queries_per_request"))),
            row("Database time a request", &|side| seconds(number(side, "db_seconds_per_request"))),
        ],
    ));
    let rows = items(comparison, "findings").iter().take(ROWS).map(|c| {
        let saved = number(c, "saved_seconds_per_hour");
        vec![
            text(c, "verdict").to_owned(),
            format!("{} in {}: {}", text(c, "kind"), route(c), names(c, "tables")),
            format!("{} in {}", count(number(c, "before_bursts")), count(number(c, "before_requests"))),
            format!("{} in {}", count(number(c, "after_bursts")), count(number(c, "after_requests"))),
            format!("{}{}", if saved < 0.0 { "-" } else { "" }, seconds(saved.abs())),
        ]
    });
    out.push(Block::Table(&["Now", "Finding", "Bursts in requests, before", "After", "Saved an hour"], rows.collect()));
}

fn causes(report: &Value, out: &mut Vec<Block>) {
    out.push(Block::Heading(2, "What to change, most gain first".to_owned()));
    let ranked = items(report, "causes");
    let findings: Vec<_> = recent(report).collect();
    if report["causes"].is_array() {
        let bar = |c: &Value| {
            let gain = number(c, "recoverable_seconds_per_hour");
            (format!("{} {}", text(c, "kind"), names(c, "routes")), seconds(gain), gain)
        };
        out.push(Block::Bars("Seconds an hour to be had back", ranked.iter().take(MOST).map(bar).collect()));
        for (at, cause) in ranked.iter().take(MOST).enumerate() {
            let of = |f: &&Value| text(cause, "finding") == text(f, "id");
            self::cause(at + 1, cause, items(report, "findings").iter().find(of), out);
        }
        rest(ranked.len(), out);
        if ranked.is_empty() {
            out.push(Block::Text("No cause worth a change was found in this window.".to_owned()));
        }
        return;
    }
    out.push(Block::Text(
        "This pgsluice has no /api/v1/causes: only N+1 queries and their like are listed, at what they cost in all."
            .to_owned(),
    ));
    let mut findings = findings;
    let cost = |f: &Value| number(f, "avoidable_floor_seconds");
    findings.sort_by(|a, b| cost(b).total_cmp(&cost(a)));
    let bar = |f: &&Value| (format!("{} {}", text(f, "kind"), route(f)), seconds(cost(f)), cost(f));
    out.push(Block::Bars("Avoidable time, at least", findings.iter().take(MOST).map(bar).collect()));
    for (at, finding) in findings.iter().take(MOST).enumerate() {
        self::finding(at + 1, finding, out);
    }
    rest(findings.len(), out);
    if findings.is_empty() {
        out.push(Block::Text("Nothing was found in this window.".to_owned()));
    }
}

fn rest(all: usize, out: &mut Vec<Block>) {
    if all > MOST {
        out.push(Block::Text(format!("{} more are in the report's JSON form.", all - MOST)));
    }
}

fn cause(at: usize, cause: &Value, finding: Option<&Value>, out: &mut Vec<Block>) {
    let place = match names(cause, "routes") {
        routes if routes.is_empty() => format!("database {}", text(cause, "database")),
        routes => routes,
    };
    out.push(Block::Heading(3, format!("{at}. {} in {place}", text(cause, "kind"))));
    let basis = if text(cause, "basis") == "floor" { "at least" } else { "an estimate:" };
    let sure = if cause["probable"] == Value::Bool(true) { " Only probable: look at it before you act." } else { "" };
    out.push(Block::Text(format!(
        "Expected gain: {basis} {} an hour.{sure}",
        seconds(number(cause, "recoverable_seconds_per_hour"))
    )));
    out.push(Block::Text(format!("Evidence: {}", text(cause, "evidence"))));
    out.push(Block::Text(format!("Change: {}", text(cause, "mend"))));
    code("python", text(cause, "code"), out);
    match finding {
        Some(finding) => statements(finding, out),
        None => code("sql", text(cause, "text"), out),
    }
}

fn finding(at: usize, finding: &Value, out: &mut Vec<Block>) {
    out.push(Block::Heading(
        3,
        format!("{at}. {} in {}: {}", text(finding, "kind"), route(finding), names(finding, "tables")),
    ));
    out.push(Block::Text(format!(
        "Expected gain: at least {} of the time measured. Confidence: {}.",
        seconds(number(finding, "avoidable_floor_seconds")),
        text(finding, "confidence"),
    )));
    out.push(Block::Text(format!("Evidence: {}", evidence(finding))));
    out.push(Block::Text(format!("Change: {}", text(finding, "advice"))));
    code("python", text(finding, "mend"), out);
    statements(finding, out);
}

/// What was seen of a finding, in sentences.
pub(in crate::cli) fn evidence(finding: &Value) -> String {
    let of = |field| count(number(finding, field));
    let mut told = format!("seen {} times, {} statements", of("bursts"), of("queries"));
    let (least, most) = (of("n_min"), of("n_max"));
    told += &if least == most { format!(", {most} at a time") } else { format!(", {least} to {most} at a time") };
    let example = &finding["example"];
    if example.is_object() {
        if let Some(rows) = example["parent_rows"].as_u64() {
            told += &format!(". In the example the first query gave {rows} rows and {} more followed", example["n"]);
        }
        told += &format!(
            ", with {} different values, over {}",
            example["distinct_values"],
            seconds(number(example, "span_seconds"))
        );
    }
    told + "."
}

fn statements(finding: &Value, out: &mut Vec<Block>) {
    let parent = text(&finding["parent"], "text");
    if !parent.is_empty() {
        code("sql", &format!("-- once\n{parent}"), out);
    }
    for statement in items(finding, "statements") {
        code("sql", &format!("-- again and again\n{}", text(statement, "text")), out);
    }
    let step = |step: &Value| {
        let executions = step["executions"].as_u64().unwrap_or(0);
        (text(step, "role").to_owned(), executions, number(step, "start_us"), number(step, "end_us"))
    };
    let steps: Vec<_> = items(&finding["example"], "timeline").iter().map(step).collect();
    if !steps.is_empty() {
        out.push(Block::Burst(steps));
    }
}

fn code(language: &'static str, text: &str, out: &mut Vec<Block>) {
    if !text.is_empty() {
        out.push(Block::Code(language, text.to_owned()));
    }
}

fn pools(report: &Value, out: &mut Vec<Block>) {
    out.push(Block::Heading(2, "Pools, waits, pins".to_owned()));
    let row = |p: &Value| {
        let n = |field| count(number(p, field));
        vec![
            format!("{}/{}", text(p, "database"), text(p, "user")),
            text(p, "mode").to_owned(),
            format!("{} of {}", n("servers_active"), n("size")),
            n("clients_waiting"),
            seconds(number(p, "wait_p50_seconds")),
            seconds(number(p, "wait_p95_seconds")),
            seconds(number(p, "wait_p99_seconds")),
            n("wait_timeouts"),
            n("servers_idle_in_transaction"),
            n("clients_pinned"),
        ]
    };
    out.push(Block::Table(
        &["Pool", "Mode", "Busy", "Waiting", "Wait p50", "p95", "p99", "Timed out", "Idle in transaction", "Pinned"],
        items(report, "pools").iter().take(ROWS).map(row).collect(),
    ));
    let pins = items(report, "pins");
    if pins.is_empty() {
        out.push(Block::Text("No client is pinned to its server connection now.".to_owned()));
        return;
    }
    let row = |p: &Value| {
        let name = format!("{} ({})", text(p, "application"), text(p, "user"));
        vec![name, text(p, "reason").to_owned(), seconds(number(p, "pinned_seconds")), text(p, "mend").to_owned()]
    };
    out.push(Block::Table(&["Pinned client", "Why", "For", "What ends it"], pins.iter().take(ROWS).map(row).collect()));
}

fn queries(report: &Value, out: &mut Vec<Block>) {
    out.push(Block::Heading(2, "Statements that take most time, since the start of pgsluice".to_owned()));
    let all = items(report, "queries");
    let bar =
        |q: &Value| (text(q, "summary").to_owned(), seconds(number(q, "total_seconds")), number(q, "total_seconds"));
    out.push(Block::Bars("Time at the server", all.iter().take(10).map(bar).collect()));
    let row = |q: &Value| {
        let time = |field| seconds(number(q, field));
        vec![
            text(q, "fingerprint").to_owned(),
            text(q, "text").chars().take(100).collect(),
            count(number(q, "calls")),
            time("total_seconds"),
            format!("{:.0} %", number(q, "share") * 100.0),
            time("p50_seconds"),
            time("p95_seconds"),
            time("p99_seconds"),
            mean(number(q, "rows_per_call")),
        ]
    };
    out.push(Block::Table(
        &["Fingerprint", "Statement", "Calls", "Total", "Share", "p50", "p95", "p99", "Rows a call"],
        all.iter().take(ROWS).map(row).collect(),
    ));
}

fn routes(report: &Value, out: &mut Vec<Block>) {
    out.push(Block::Heading(2, "Routes, since the start of pgsluice".to_owned()));
    let row = |r: &Value| {
        vec![
            route(r),
            count(number(r, "requests")),
            mean(number(r, "queries_per_request")),
            count(number(r, "max_queries")),
            seconds(number(r, "db_seconds")),
            seconds(number(r, "p95_db_seconds")),
            seconds(number(r, "avoidable_floor_seconds")),
        ]
    };
    out.push(Block::Table(
        &["Route", "Requests", "Statements each", "Most", "Database time", "p95", "Avoidable at least"],
        items(report, "routes").iter().take(ROWS).map(row).collect(),
    ));
}
