//! Plain copies of findings and fingerprints for the console, JSON and reports. Literal-free.

use std::sync::Arc;

use super::judge::{Confidence, Kind, Severity};
use super::{Insight, lock};
use crate::sql::Fingerprint;

/// One finding.
#[derive(Clone, Debug)]
pub struct FindingView {
    /// 12 hex digits, equal on every instance.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// How sure.
    pub confidence: Confidence,
    /// How much it matters.
    pub severity: Severity,
    /// Database name.
    pub database: Arc<str>,
    /// Route tag, when statements are tagged.
    pub route: Option<Arc<str>>,
    /// Repeated statements.
    pub fingerprints: Vec<Fingerprint>,
    /// Their literal-free texts, as far as known.
    pub texts: Vec<String>,
    /// The SELECT that explains the loop.
    pub parent: Option<Fingerprint>,
    /// Tables of the repeated statements.
    pub tables: Vec<String>,
    /// What the loop fetches (label value).
    pub relation: &'static str,
    /// What to change.
    pub advice: Arc<str>,
    /// Times seen.
    pub bursts: u64,
    /// Statements in all bursts.
    pub queries: u64,
    /// Smallest, largest and last number of executions in a burst.
    pub n: (u32, u32, u32),
    /// Estimated seconds that batching would have saved.
    pub avoidable_seconds: f64,
    /// Seconds since the epoch.
    pub first_seen: f64,
    /// Seconds since the epoch.
    pub last_seen: f64,
}

/// One fingerprint of one database.
#[derive(Clone, Debug)]
pub struct FingerprintView {
    /// The fingerprint.
    pub fingerprint: Fingerprint,
    /// Database name.
    pub database: Arc<str>,
    /// Literal-free text.
    pub text: String,
    /// `SELECT shop_book` and the like.
    pub summary: String,
    /// Tables.
    pub tables: Vec<String>,
    /// Executions.
    pub calls: u64,
    /// Executions that failed.
    pub errors: u64,
    /// Rows returned or changed.
    pub rows: u64,
    /// Response bytes.
    pub bytes: u64,
    /// Seconds at the server.
    pub seconds: f64,
    /// Slowest execution, seconds.
    pub max_seconds: f64,
}

/// How a list of fingerprints is sorted, highest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FingerprintOrder {
    /// Total time.
    Total,
    /// Executions.
    Calls,
    /// Mean time.
    Mean,
    /// Rows.
    Rows,
    /// Bytes.
    Bytes,
}

impl Insight {
    /// All findings, most severe first, then by what they cost.
    pub fn findings(&self) -> Vec<FindingView> {
        let names = self.database_names();
        let mut views: Vec<FindingView> = {
            let findings = lock(&self.findings);
            let registry = lock(&self.registry);
            let text = |fp: &u64| registry.get(*fp).map_or_else(String::new, |known| known.display.to_string());
            findings
                .by_key
                .values()
                .map(|finding| FindingView {
                    id: format!("{:012x}", finding.key),
                    kind: finding.kind,
                    confidence: finding.confidence,
                    severity: finding.severity,
                    database: names.get(usize::from(finding.database)).cloned().unwrap_or_else(|| Arc::from("other")),
                    route: registry.route_name(finding.route),
                    fingerprints: finding.fingerprints.iter().map(|fp| Fingerprint(*fp)).collect(),
                    texts: finding.fingerprints.iter().map(text).collect(),
                    parent: finding.parent.map(Fingerprint),
                    tables: finding.tables.iter().map(|table| table.to_string()).collect(),
                    relation: finding.relation.name(),
                    advice: Arc::clone(&finding.advice),
                    bursts: finding.bursts,
                    queries: finding.queries,
                    n: (finding.min_n, finding.max_n, finding.last_n),
                    avoidable_seconds: finding.avoidable_us as f64 / 1e6,
                    first_seen: finding.first_seen,
                    last_seen: finding.last_seen,
                })
                .collect()
        };
        views.sort_by(|a, b| b.severity.cmp(&a.severity).then(b.avoidable_seconds.total_cmp(&a.avoidable_seconds)));
        views
    }

    /// The first `limit` fingerprints in this order.
    pub fn fingerprints(&self, order: FingerprintOrder, limit: usize) -> Vec<FingerprintView> {
        let names = self.database_names();
        let books = self.fold();
        let mut keys: Vec<_> = books.series.iter().filter(|(_, series)| series.total.calls > 0).collect();
        keys.sort_by(|(_, a), (_, b)| {
            let value = |total: &super::table::Counters| match order {
                FingerprintOrder::Total => total.time_us as f64,
                FingerprintOrder::Calls => total.calls as f64,
                FingerprintOrder::Mean => total.time_us as f64 / total.calls as f64,
                FingerprintOrder::Rows => total.rows as f64,
                FingerprintOrder::Bytes => total.bytes as f64,
            };
            value(&b.total).total_cmp(&value(&a.total))
        });
        let registry = lock(&self.registry);
        keys.into_iter()
            .take(limit)
            .map(|((database, fingerprint), series)| {
                let known = registry.get(*fingerprint);
                let known = known.as_deref();
                FingerprintView {
                    fingerprint: Fingerprint(*fingerprint),
                    database: names.get(usize::from(*database)).cloned().unwrap_or_else(|| Arc::from("other")),
                    text: known.map_or_else(String::new, |known| known.display.to_string()),
                    summary: known.map_or_else(String::new, |known| known.summary.to_string()),
                    tables: known
                        .map_or_else(Vec::new, |known| known.tables.iter().map(|table| table.to_string()).collect()),
                    calls: series.total.calls,
                    errors: series.total.errors,
                    rows: series.total.rows,
                    bytes: series.total.bytes,
                    seconds: series.total.time_us as f64 / 1e6,
                    max_seconds: series.max_us as f64 / 1e6,
                }
            })
            .collect()
    }
}
