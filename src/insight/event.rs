//! One burst as the log and a sink see it. Everything in it is literal-free.

use super::judge::{Confidence, Kind, Severity};
use super::run::Run;
use crate::sql::Fingerprint;

/// One burst, as handed to the log (target `pgsluice::burst`) and to a sink. Holds no literal.
#[derive(Debug)]
pub struct BurstEvent<'a> {
    /// What it is.
    pub kind: Kind,
    /// How sure.
    pub confidence: Confidence,
    /// How much it matters.
    pub severity: Severity,
    /// Database name.
    pub database: &'a str,
    /// Route tag, when statements are tagged.
    pub route: Option<&'a str>,
    /// `application_name` of the client, sanitised.
    pub application: Option<&'a str>,
    /// Executions.
    pub n: u32,
    /// Different sets of literals, estimated.
    pub distinct: u32,
    /// Rows of the SELECT that explains the loop.
    pub parent_rows: Option<u64>,
    /// The repeated statement.
    pub fingerprint: Fingerprint,
    /// What the repeated statement fetches (label value).
    pub relation: &'static str,
    /// The SELECT that explains the loop.
    pub parent: Option<Fingerprint>,
    /// Literal-free text.
    pub sql: &'a str,
    /// Estimated time that batching would have saved, microseconds.
    pub avoidable_us: u64,
    /// First and last instant on the worker's clock, microseconds.
    pub span_us: (u64, u64),
    /// The same as seconds since the epoch.
    pub span: (f64, f64),
    /// Key of the finding that it belongs to.
    pub finding: u64,
    /// Evidence, for tuning and tests.
    pub evidence: Evidence,
}

/// What the detector saw of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence {
    /// The unit began where a request begins beyond doubt.
    pub sure: bool,
    /// Distance between count and parent rows.
    pub score: Option<f32>,
    /// Rows and executions of the SELECT nearest to explaining the run, and whether no pause lies between.
    pub nearest: Option<(u64, u32, bool)>,
    /// Executions parted by a pause of the client.
    pub paused: u32,
    /// Most executions between two pauses.
    pub streak: u32,
    /// Executions parted by a write.
    pub written: u32,
    /// Executions without a row.
    pub empty: u32,
    /// Rows in all.
    pub rows: u64,
    /// Exact repeats.
    pub repeats: u32,
    /// First and last execution among the unit's statements.
    pub place: (u32, u32),
    /// Executions that the client hesitated before.
    pub headed: u32,
    /// Most executions in one transaction.
    pub held: u32,
    /// Statements between the last pause and the first execution.
    pub lead: u32,
}

/// What is known of a run, copied.
pub(crate) fn evidence(run: &Run, sure: bool) -> Evidence {
    Evidence {
        sure,
        score: run.parent.map(|parent| parent.score),
        nearest: run.parent.map(|parent| (parent.rows, parent.n, parent.adjacent)),
        paused: run.paused,
        streak: run.streak,
        written: run.written,
        empty: run.empty,
        rows: run.rows,
        repeats: run.dup,
        place: (run.first, run.last),
        headed: run.headed,
        held: run.held,
        lead: run.lead,
    }
}

/// Writes a burst to the log (target `pgsluice::burst`, debug).
pub(crate) fn log_burst(event: &BurstEvent<'_>) {
    tracing::debug!(
        target: "pgsluice::burst",
        kind = event.kind.name(),
        confidence = event.confidence.name(),
        database = event.database,
        route = event.route.unwrap_or(""),
        application = event.application.unwrap_or(""),
        n = event.n,
        parent_rows = event.parent_rows.unwrap_or(0),
        parent = %event.parent.unwrap_or(Fingerprint(0)),
        relation = event.relation,
        fingerprint = %event.fingerprint,
        finding = %format_args!("{:012x}", event.finding),
        t_start = event.span.0,
        t_end = event.span.1,
        sql = event.sql,
        evidence = ?event.evidence,
        "burst"
    );
}
