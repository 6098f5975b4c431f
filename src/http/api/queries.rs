//! `/queries` and `/tables`: statements by fingerprint, and the tables they touch.

use std::collections::HashMap;

use super::endpoint::{Ask, Endpoint, Json, Refusal, cut, objects, page, value};
use super::object::object;
use crate::client::Process;
use crate::insight::{FingerprintOrder, FingerprintView, Wanted};

object! {
    /// One normalised statement of one database, since the start of the process.
    Query {
        /// 16 hex digits, equal on every instance and after every restart.
        fingerprint: String,
        /// Database as clients name it.
        database: String,
        /// `select`, `insert`, `update`, `delete`, `ddl`, `tx`, `copy` or `other`.
        operation: &'static str,
        /// `read` (select), `write` (insert, update, delete, ddl, copy) or `none`.
        access: &'static str,
        /// Text without literals, up to 2 KiB; empty when it has been pushed out.
        text: String,
        /// Verb and tables.
        summary: String,
        /// Tables, the one it is about first.
        tables: Vec<String>,
        /// The first four routes it ran in.
        routes: Vec<String>,
        /// It ran in more routes than these.
        more_routes: bool,
        /// Ids of the findings that it is part of.
        findings: Vec<String>,
        /// Executions.
        calls: u64,
        /// Executions that failed.
        errors: u64,
        /// Rows returned or changed.
        rows: u64,
        /// Bytes of the answers.
        response_bytes: u64,
        /// Time at the server.
        total_seconds: f64,
        /// Mean time of an execution.
        mean_seconds: f64,
        /// Median; like the other percentiles from buckets a half to a third of an octave wide (an octave above 1 s).
        p50_seconds: f64,
        /// 95th percentile.
        p95_seconds: f64,
        /// 99th percentile.
        p99_seconds: f64,
        /// Longest execution.
        max_seconds: f64,
        /// Its part of all time at the server in its database, from 0 to 1.
        share: f64,
        /// Mean rows of an execution.
        rows_per_call: f64,
        /// Mean bytes of an answer.
        response_bytes_per_call: f64,
        /// Executions with 1,000 rows and more, or 1 MiB and more.
        large_results: u64,
        /// Pauses of 100 ms and more that clients made right after it in an open transaction.
        idle_after_count: u64,
        /// The sum of these pauses.
        idle_after_seconds: f64,
        /// The longest of them.
        idle_after_max_seconds: f64,
        /// Parse messages (prepared statements).
        parses: u64,
        /// Different texts among them, estimated; 64 means 64 or more.
        distinct_texts: u32,
        /// Part of the executions, from 0 to 1, whose values had been asked for before within the hour, at least; null
        /// when it is not asked often enough to be watched.
        repeat_ratio: Option<f64>,
    }
}

object! {
    /// Statements that touch one table.
    Table {
        /// Database as clients name it.
        database: String,
        /// Name without its schema; `other` sums those beyond the limit.
        table: String,
        /// Statements that read it.
        reads: u64,
        /// Statements that write it.
        writes: u64,
        /// Reads for each write; null without writes.
        reads_per_write: Option<f64>,
    }
}

/// Statements.
pub const ENDPOINT: Endpoint = Endpoint {
    path: "queries",
    about: "Statements by fingerprint, costliest first.",
    id: Some("a fingerprint (of several databases, the costliest)"),
    list: true,
    parameters: &[
        ("order", "`total` (time, the default), `calls`, `mean`, `p95`, `rows` or `bytes`"),
        ("database", "of this database"),
        ("route", "that ran in this route"),
    ],
    objects: objects::<Query>(),
    answer,
};

/// Tables.
pub const TABLES: Endpoint = Endpoint {
    path: "tables",
    about: "Reads and writes of each table, the busiest first.",
    id: None,
    list: true,
    parameters: &[("database", "of this database")],
    objects: objects::<Table>(),
    answer: tables,
};

fn answer(process: &Process, ask: &Ask) -> Result<Json, Refusal> {
    let order = ask.word("order", FingerprintOrder::named)?.unwrap_or(FingerprintOrder::Total);
    let (offset, limit) = ask.page()?;
    let missing = || Refusal::missing("no such fingerprint");
    let one = ask.id.as_deref().map(|id| u64::from_str_radix(id, 16).map_err(|_| missing())).transpose()?;
    let wanted = Wanted { database: ask.get("database"), route: ask.get("route"), fingerprint: one, offset, limit };
    let (total, views) = process.insight.select_fingerprints(order, &wanted);
    let mut findings: HashMap<(String, String), Vec<String>> = HashMap::new();
    for finding in process.insight.findings() {
        for fingerprint in finding.fingerprints.iter().chain(&finding.parent) {
            let key = (finding.database.to_string(), fingerprint.to_string());
            findings.entry(key).or_default().push(finding.id.clone());
        }
    }
    let queries: Vec<_> = views.into_iter().map(|view| query(view, &mut findings)).collect();
    if one.is_some() {
        return value(queries.first().ok_or_else(missing)?);
    }
    page(ask, total, &queries)
}

fn query(f: FingerprintView, findings: &mut HashMap<(String, String), Vec<String>>) -> Query {
    let calls = f.calls.max(1) as f64;
    let (idle_after_seconds, idle_after_count, idle_after_max_seconds) = f.idle_after;
    let key = (f.database.to_string(), f.fingerprint.to_string());
    Query {
        findings: findings.remove(&key).unwrap_or_default(),
        fingerprint: key.1,
        database: key.0,
        operation: f.operation,
        access: match f.operation {
            "select" => "read",
            "tx" | "other" => "none",
            _ => "write",
        },
        text: f.text,
        summary: f.summary,
        tables: f.tables,
        routes: f.routes.iter().map(|route| route.to_string()).collect(),
        more_routes: f.more_routes,
        calls: f.calls,
        errors: f.errors,
        rows: f.rows,
        response_bytes: f.bytes,
        total_seconds: f.seconds,
        mean_seconds: f.seconds / calls,
        p50_seconds: f.p50_seconds,
        p95_seconds: f.p95_seconds,
        p99_seconds: f.p99_seconds,
        max_seconds: f.max_seconds,
        share: f.share,
        rows_per_call: f.rows as f64 / calls,
        response_bytes_per_call: f.bytes as f64 / calls,
        large_results: f.large,
        idle_after_count,
        idle_after_seconds,
        idle_after_max_seconds,
        parses: f.parses.0,
        distinct_texts: f.parses.1,
        repeat_ratio: f.repeat_ratio,
    }
}

fn tables(process: &Process, ask: &Ask) -> Result<Json, Refusal> {
    let mut all = process.insight.touched_tables();
    all.retain(|view| ask.get("database").is_none_or(|name| *name == *view.database));
    let (total, chosen) = cut(ask, all)?;
    let table = |view: crate::insight::TableView| Table {
        database: view.database.to_string(),
        table: view.table,
        reads: view.reads,
        writes: view.writes,
        reads_per_write: (view.writes > 0).then(|| view.reads as f64 / view.writes as f64),
    };
    page(ask, total, &chosen.into_iter().map(table).collect::<Vec<_>>())
}
