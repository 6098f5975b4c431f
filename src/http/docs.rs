//! `docs/metrics.md`, from the table of families and from what insight renders.

use std::fmt::Write;

use super::families::ALL;
use crate::config::Config;
use crate::insight::Insight;

/// Labels of insight's families, which render themselves; a test compares both.
#[rustfmt::skip]
const INSIGHT_LABELS: &[(&str, &[&str])] = &[
    ("pgsluice_query_duration_seconds", &["database", "operation", "outcome"]),
    ("pgsluice_query_rows", &["database"]),
    ("pgsluice_query_response_bytes", &["database"]),
    ("pgsluice_slow_queries_total", &["database"]),
    ("pgsluice_query_errors_total", &["database", "sqlstate_class"]),
    ("pgsluice_lock_errors_total", &["database", "sqlstate"]),
    ("pgsluice_transactions_total", &["database", "outcome"]),
    ("pgsluice_transaction_duration_seconds", &["database"]),
    ("pgsluice_transaction_idle_seconds_total", &["database"]),
    ("pgsluice_clients_idle_in_transaction", &["database"]),
    ("pgsluice_unit_queries", &["database", "boundary"]),
    ("pgsluice_unit_db_seconds", &["database"]),
    ("pgsluice_repeated_reads_total", &["database"]),
    ("pgsluice_fingerprint_calls_total", &["database", "fingerprint"]),
    ("pgsluice_fingerprint_seconds_total", &["database", "fingerprint"]),
    ("pgsluice_fingerprint_rows_total", &["database", "fingerprint"]),
    ("pgsluice_fingerprint_response_bytes_total", &["database", "fingerprint"]),
    ("pgsluice_fingerprint_errors_total", &["database", "fingerprint"]),
    ("pgsluice_fingerprint_info", &["database", "fingerprint", "operation", "tables", "summary", "shape"]),
    ("pgsluice_table_statements_total", &["database", "table", "access"]),
    ("pgsluice_nplusone_bursts_total", &["database", "kind", "confidence"]),
    ("pgsluice_nplusone_queries_total", &["database", "kind"]),
    ("pgsluice_nplusone_avoidable_seconds_total", &["database", "kind", "confidence"]),
    ("pgsluice_nplusone_burst_size", &["database"]),
    ("pgsluice_nplusone_finding_bursts_total", &["finding"]),
    ("pgsluice_nplusone_finding_avoidable_seconds_total", &["finding"]),
    ("pgsluice_nplusone_finding_info", &["database", "finding", "kind", "fingerprint", "parent_fingerprint", "relation", "table", "route"]),
    ("pgsluice_insight_statements_total", &["result"]),
    ("pgsluice_insight_seconds_total", &[]),
    ("pgsluice_insight_memory_bytes", &["part"]),
    ("pgsluice_insight_fingerprints", &[]),
    ("pgsluice_insight_fingerprint_evictions_total", &[]),
    ("pgsluice_insight_slot_evictions_total", &[]),
    ("pgsluice_insight_series_overflow_total", &["family"]),
    ("pgsluice_insight_sample_ratio", &[]),
    ("pgsluice_insight_fingerprint_version", &[]),
];

const INTRODUCTION: &str = "\
# Metrics

<!-- Written from src/http/families.rs and insight's own families by `UPDATE_DOCS=1 cargo test`. -->

`GET /metrics` at `http_listen` (default `127.0.0.1:9127`) answers in Prometheus' text format 0.0.4. Times are seconds,
sizes are bytes. Totals count from the start of the process. Latency buckets: 0.5 ms to 10 s.

No label has values without a limit. The first 100 pools have series of their own; all others are summed under
`database=\"other\", user=\"other\"`. Statements appear by fingerprint, the costliest `top_fingerprints` of them, the others
summed as `fingerprint=\"other\"`; a fingerprint is the same on every instance. No metric holds a literal, a parameter or
SQL text: `SHOW FINGERPRINT id` on the console shows the literal-free text of one.

Other pages: `/healthz` (200 while the process is alive), `/readyz` (200 when clients should be sent here: every
address is listened at, no drain has begun, and no pool failed to open a server connection within the last 15 seconds; else 503
and the reason in one line), `/startupz` (200 once every address is listened at).
";

/// A family as documented.
struct Row {
    name: String,
    kind: String,
    labels: Vec<String>,
    help: String,
}

/// The whole document.
pub fn markdown() -> String {
    let mut out = INTRODUCTION.to_owned();
    let own = ALL.iter().map(|f| Row {
        name: f.name.to_owned(),
        kind: f.kind.word().to_owned(),
        labels: f.labels.iter().map(|l| (*l).to_owned()).collect(),
        help: f.help.to_owned(),
    });
    table(&mut out, "Pools, servers, clients, process", own);
    table(&mut out, "Queries and insight", insight().into_iter());
    out
}

fn table(out: &mut String, title: &str, rows: impl Iterator<Item = Row>) {
    let _ = write!(out, "\n## {title}\n\n| Name | Type | Labels | What it tells |\n|---|---|---|---|\n");
    for row in rows {
        let labels: Vec<_> = row.labels.iter().map(|l| format!("`{l}`")).collect();
        let (name, kind, help) = (row.name, row.kind, row.help);
        let _ = writeln!(out, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
    }
}

/// Insight's families, as an insight without traffic renders them.
fn insight() -> Vec<Row> {
    let insight = Insight::new(&Config::default().insight);
    let mut text = String::new();
    insight.render(&mut text);
    let mut rows: Vec<Row> = Vec::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            let labels = INSIGHT_LABELS.iter().find(|(known, _)| *known == name);
            rows.push(Row {
                name: name.to_owned(),
                kind: String::new(),
                labels: labels.map_or_else(Vec::new, |(_, l)| l.iter().map(|l| (*l).to_owned()).collect()),
                help: help.to_owned(),
            });
        } else if let Some((_, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
            && let Some(row) = rows.last_mut()
        {
            kind.clone_into(&mut row.kind);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_document_is_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, markdown()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == markdown(), "docs/metrics.md is old: run UPDATE_DOCS=1 cargo test");
    }

    #[test]
    fn labels_of_insight_are_known() {
        let rendered: Vec<_> = insight().into_iter().map(|r| r.name).collect();
        let known: Vec<_> = INSIGHT_LABELS.iter().map(|(name, _)| *name).collect();
        let missing: Vec<_> = rendered.iter().filter(|n| !known.contains(&n.as_str())).collect();
        let gone: Vec<_> = known.iter().filter(|n| !rendered.iter().any(|r| r == *n)).collect();
        assert!(missing.is_empty(), "add to INSIGHT_LABELS: {missing:?}");
        assert!(gone.is_empty(), "no longer rendered: {gone:?}");
    }

    #[test]
    fn names_are_unique_and_helped() {
        let mut names: Vec<_> = ALL.iter().map(|f| f.name).collect();
        names.extend(INSIGHT_LABELS.iter().map(|(name, _)| *name));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(ALL.iter().all(|f| f.help.ends_with('.')));
    }
}
