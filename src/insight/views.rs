//! Plain copies of findings for the console, JSON and reports. Literal-free.

use std::sync::Arc;

use super::describe::Described;
use super::exact::{Exact, exact};
use super::findings::Finding;
use super::judge::{Confidence, Kind, Severity};
use super::sample::Sample;
use super::{Insight, lock, mend};
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
    /// The route is a task or a management command, not a view.
    pub job: bool,
    /// Repeated statements.
    pub fingerprints: Vec<Fingerprint>,
    /// Their literal-free texts, as far as known.
    pub texts: Vec<String>,
    /// The SELECT that explains the loop.
    pub parent: Option<Fingerprint>,
    /// Its literal-free text, if known.
    pub parent_text: Option<String>,
    /// Tables of the repeated statements.
    pub tables: Vec<String>,
    /// What the loop fetches (label value).
    pub relation: &'static str,
    /// What to change.
    pub advice: Arc<str>,
    /// The same as code; empty when there is none.
    pub mend: String,
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
    /// The costliest burst of the best confidence.
    pub sample: Option<Arc<Sample>>,
}

impl Insight {
    /// All findings, most severe first, then by what they cost. Words are made after the locks have been let go.
    pub fn findings(&self) -> Vec<FindingView> {
        let names = self.database_names();
        let findings: Vec<Finding> = lock(&self.findings).by_key.values().cloned().collect();
        let known: Vec<Known> = {
            let registry = lock(&self.registry);
            let known = |finding: &Finding| Known {
                route: registry.route_name(finding.route),
                job: registry.is_job(finding.route),
                texts: finding.fingerprints.iter().map(|fp| registry.get(*fp)).collect(),
                parent: finding.parent.and_then(|fp| registry.get(fp)),
            };
            findings.iter().map(known).collect()
        };
        let name = |id: u16| names.get(usize::from(id)).cloned().unwrap_or_else(|| Arc::from("other"));
        let mut views: Vec<_> = findings
            .into_iter()
            .zip(known)
            .map(|(finding, known)| {
                let database = name(finding.database);
                let exact = self.exact(&database, &finding, &known);
                let mut view = view(database, finding, known);
                if let Some(exact) = exact {
                    view.relation = exact.relation.name();
                    (view.advice, view.mend) = (exact.advice.into(), exact.mend);
                }
                view
            })
            .collect();
        views.sort_by(|a, b| {
            b.severity
                .cmp(&a.severity)
                .then(b.avoidable_seconds.total_cmp(&a.avoidable_seconds))
                .then_with(|| a.id.cmp(&b.id))
        });
        views
    }
}

impl Insight {
    /// Advice that the database's catalogue makes certain.
    fn exact(&self, database: &str, finding: &Finding, known: &Known) -> Option<Exact> {
        let catalog = self.catalog(database)?;
        let texts: Vec<_> = known.texts.iter().flatten().cloned().collect();
        exact(finding.kind, finding.relation, &texts, known.parent.as_deref(), &catalog)
    }
}

/// What the registry knows of a finding.
struct Known {
    route: Option<Arc<str>>,
    job: bool,
    texts: Vec<Option<Arc<Described>>>,
    parent: Option<Arc<Described>>,
}

fn view(database: Arc<str>, finding: Finding, known: Known) -> FindingView {
    let text =
        |known: &Option<Arc<Described>>| known.as_ref().map_or_else(String::new, |known| known.display.to_string());
    let child = known.texts.first().and_then(|text| text.as_deref());
    FindingView {
        id: format!("{:012x}", finding.key),
        kind: finding.kind,
        confidence: finding.confidence,
        severity: finding.severity,
        database,
        route: known.route,
        job: known.job,
        mend: mend::snippet(finding.kind, finding.relation, child, known.parent.as_deref()),
        texts: known.texts.iter().map(text).collect(),
        fingerprints: finding.fingerprints.into_iter().map(Fingerprint).collect(),
        parent: finding.parent.map(Fingerprint),
        parent_text: known.parent.map(|known| known.display.to_string()),
        tables: finding.tables.iter().map(|table| table.to_string()).collect(),
        relation: finding.relation.name(),
        advice: finding.advice,
        bursts: finding.bursts,
        queries: finding.queries,
        n: (finding.min_n, finding.max_n, finding.last_n),
        avoidable_seconds: finding.avoidable_us as f64 / 1e6,
        first_seen: finding.first_seen,
        last_seen: finding.last_seen,
        sample: finding.sample,
    }
}
