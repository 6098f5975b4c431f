//! Prometheus text of what insight counts. Bounded label sets start at 0, so that `increase()` sees the first event.

use std::fmt::Write;

use super::findings::BurstCounts;
use super::judge::{Confidence, Kind};
use super::page::{MICRO, Page, escape};
use super::publish::{MAX_FINDING_SERIES, Publisher};

use super::stats::{BURST, OPERATIONS, Reading};
use super::table::Counters;
use super::{Insight, lock};
use crate::sql::FINGERPRINT_VERSION;

impl Insight {
    /// Appends insight's families to a scrape (text exposition format 0.0.4).
    pub fn render(&self, out: &mut String) {
        let mut page = Page { out, databases: self.database_names(), workers: self.tables() };
        page.queries();
        page.transactions();
        page.units();
        let books = self.fold();
        self.fingerprint_families(&mut page, &books);
        self.table_family(&mut page, &books);
        let overflow = books.overflow;
        drop(books);
        self.finding_families(&mut page);
        page.itself(self, overflow);
    }

    fn fingerprint_families(&self, page: &mut Page<'_>, books: &Publisher) {
        type Field = (&'static str, &'static str, fn(&Counters) -> f64);
        let fields: [Field; 5] = [
            ("fingerprint_calls_total", "Executions of one normalised statement.", |c| c.calls as f64),
            ("fingerprint_seconds_total", "Server time of one normalised statement.", |c| c.time_us as f64 * MICRO),
            ("fingerprint_rows_total", "Rows returned or changed by one normalised statement.", |c| c.rows as f64),
            ("fingerprint_response_bytes_total", "Response bytes of one normalised statement.", |c| c.bytes as f64),
            ("fingerprint_errors_total", "Failed executions of one normalised statement.", |c| c.errors as f64),
        ];
        let mut exposed: Vec<_> = books.series.iter().filter(|(_, series)| series.exposed).collect();
        exposed.sort_unstable_by_key(|(key, _)| **key);
        for (name, help, value) in fields {
            page.family(name, "counter", help);
            for ((database, fingerprint), series) in &exposed {
                let labels = format!("fingerprint=\"{fingerprint:016x}\"");
                page.line(name, *database, &labels, value(&series.shown));
            }
            for database in 0..page.databases.len() as u16 {
                let other = books.other.get(&database).copied().unwrap_or_default();
                page.line(name, database, "fingerprint=\"other\"", value(&other));
            }
        }
        page.family(
            "fingerprint_info",
            "gauge",
            "Description of a fingerprint: identifiers, never literals or SQL text.",
        );
        let registry = lock(&self.registry);
        for ((database, fingerprint), series) in &exposed {
            let Some(known) = registry.get(*fingerprint) else {
                continue;
            };
            let labels = format!(
                "fingerprint=\"{fingerprint:016x}\",operation=\"{}\",tables=\"{}\",summary=\"{}\",shape=\"{}\"",
                OPERATIONS[usize::from(series.operation).min(OPERATIONS.len() - 1)],
                escape(&known.tables_label()),
                escape(&known.summary),
                known.shape_label(),
            );
            page.line("fingerprint_info", *database, &labels, 1.0);
        }
    }

    fn table_family(&self, page: &mut Page<'_>, books: &Publisher) {
        page.family("table_statements_total", "counter", "Statements that read or write a table.");
        let mut order: Vec<_> = books.tables.iter().collect();
        order.sort_unstable();
        for ((database, table, access), count) in order {
            let labels = format!("table=\"{}\",access=\"{}\"", escape(table), ["read", "write"][usize::from(*access)]);
            page.line("table_statements_total", *database, &labels, *count as f64);
        }
    }

    fn finding_families(&self, page: &mut Page<'_>) {
        let findings = lock(&self.findings);
        let counts: Vec<BurstCounts> = (0..page.databases.len() as u16)
            .map(|database| findings.counts.get(&database).cloned().unwrap_or_default())
            .collect();
        page.bursts(&counts);
        let mut shown: Vec<_> = findings.by_key.values().filter(|finding| finding.shown).collect();
        shown.sort_unstable_by_key(|finding| finding.key);
        shown.truncate(MAX_FINDING_SERIES);
        let (other_bursts, other_us) = findings.other;
        page.family("nplusone_finding_bursts_total", "counter", "Bursts of one finding.");
        for finding in &shown {
            let _ = writeln!(
                page.out,
                "pgsluice_nplusone_finding_bursts_total{{finding=\"{:012x}\"}} {}",
                finding.key, finding.bursts
            );
        }
        let _ = writeln!(page.out, "pgsluice_nplusone_finding_bursts_total{{finding=\"other\"}} {other_bursts}");
        let name = "nplusone_finding_avoidable_seconds_total";
        page.family(name, "counter", "Estimated time that batching would have saved, of one finding.");
        for finding in &shown {
            let seconds = finding.avoidable_us as f64 * MICRO;
            let _ = writeln!(page.out, "pgsluice_{name}{{finding=\"{:012x}\"}} {seconds}", finding.key);
        }
        let _ = writeln!(page.out, "pgsluice_{name}{{finding=\"other\"}} {}", other_us as f64 * MICRO);
        page.family("nplusone_finding_info", "gauge", "Description of a finding.");
        let registry = lock(&self.registry);
        for finding in &shown {
            let labels = format!(
                "finding=\"{:012x}\",kind=\"{}\",fingerprint=\"{:016x}\",parent_fingerprint=\"{}\",relation=\"{}\",table=\"{}\",route=\"{}\"",
                finding.key,
                finding.kind.name(),
                finding.fingerprints.first().copied().unwrap_or(0),
                finding.parent.map_or_else(String::new, |parent| format!("{parent:016x}")),
                finding.relation.name(),
                escape(finding.tables.first().map_or("", |table| table)),
                escape(&registry.route_name(finding.route).unwrap_or_default()),
            );
            page.line("nplusone_finding_info", finding.database, &labels, 1.0);
        }
    }
}

impl Page<'_> {
    fn bursts(&mut self, counts: &[BurstCounts]) {
        self.family("nplusone_bursts_total", "counter", "Detected bursts.");
        for (database, counts) in counts.iter().enumerate() {
            for (kind, confidence) in levels() {
                let labels = format!("kind=\"{}\",confidence=\"{}\"", kind.name(), confidence.name());
                self.line(
                    "nplusone_bursts_total",
                    database as u16,
                    &labels,
                    counts.bursts[kind as usize][confidence as usize] as f64,
                );
            }
        }
        self.family("nplusone_queries_total", "counter", "Statements inside detected bursts.");
        for (database, counts) in counts.iter().enumerate() {
            for kind in Kind::ALL {
                let labels = format!("kind=\"{}\"", kind.name());
                self.line("nplusone_queries_total", database as u16, &labels, counts.queries[kind as usize] as f64);
            }
        }
        let name = "nplusone_avoidable_seconds_total";
        self.family(name, "counter", "Estimated time that batching would have saved (lower bound).");
        for (database, counts) in counts.iter().enumerate() {
            for (kind, confidence) in levels() {
                let labels = format!("kind=\"{}\",confidence=\"{}\"", kind.name(), confidence.name());
                let seconds = counts.avoidable_us[kind as usize][confidence as usize] as f64 * MICRO;
                self.line(name, database as u16, &labels, seconds);
            }
        }
        self.family("nplusone_burst_size", "histogram", "Executions per burst.");
        for (database, counts) in counts.iter().enumerate() {
            let reading = Reading { buckets: counts.sizes.to_vec(), sum: counts.size_sum };
            self.buckets("nplusone_burst_size", database as u16, "", &BURST, 1.0, &reading);
        }
    }

    fn itself(&mut self, insight: &Insight, overflow: u64) {
        let health = insight.health();
        self.family("insight_statements_total", "counter", "How statements were fingerprinted.");
        for (result, count) in health.statements {
            let _ = writeln!(self.out, "pgsluice_insight_statements_total{{result=\"{result}\"}} {count}");
        }
        self.single("insight_seconds_total", "counter", "Time spent in the detector, sampled.", health.seconds);
        self.family("insight_memory_bytes", "gauge", "Memory held by insight.");
        for (part, bytes) in health.memory {
            let _ = writeln!(self.out, "pgsluice_insight_memory_bytes{{part=\"{part}\"}} {bytes}");
        }
        let evictions = health.fingerprint_evictions as f64;
        self.single("insight_fingerprints", "gauge", "Fingerprints remembered.", health.fingerprints as f64);
        self.single("insight_fingerprint_evictions_total", "counter", "Fingerprints evicted.", evictions);
        let help = "Runs dropped from a unit for lack of slots.";
        self.single("insight_slot_evictions_total", "counter", help, health.slot_evictions as f64);
        self.family("insight_series_overflow_total", "counter", "Observations accounted to other for lack of room.");
        let overflow = health.overflow + overflow;
        let _ = writeln!(self.out, "pgsluice_insight_series_overflow_total{{family=\"fingerprint\"}} {overflow}");
        let on = f64::from(u8::from(insight.enabled()));
        self.single("insight_sample_ratio", "gauge", "Share of units inspected (1 = all, 0 = switched off).", on);
        let version = f64::from(FINGERPRINT_VERSION);
        self.single("insight_fingerprint_version", "gauge", "Version of the fingerprint's hash form.", version);
    }
}

fn levels() -> impl Iterator<Item = (Kind, Confidence)> {
    Kind::ALL.into_iter().flat_map(|kind| Confidence::ALL.into_iter().map(move |confidence| (kind, confidence)))
}
