//! `/findings`: what the detector found, with evidence.

use super::endpoint::{Ask, Endpoint, Json, Refusal, cut, objects, page, value};
use super::object::object;
use crate::client::Process;
use crate::insight::{Confidence, FindingView, Kind, Sample, Severity, Step};
use crate::sql::Fingerprint;

object! {
    /// One cause in one place, seen in one or more bursts.
    Finding {
        /// 12 hex digits, equal on every instance and after every restart.
        id: String,
        /// `n_plus_one`, `chain`, `duplicate` or `write_loop`.
        kind: &'static str,
        /// `high`, `medium` or `low`.
        confidence: &'static str,
        /// `critical`, `warning` or `info`.
        severity: &'static str,
        /// Database as clients name it.
        database: String,
        /// Route tag of the statements; null when they have none.
        route: Option<String>,
        /// Whether the route is a task or a management command (tagged as `job`), not a view.
        job: bool,
        /// User of the example's client.
        user: Option<String>,
        /// `application_name` of the example's client.
        application: Option<String>,
        /// What the loop fetches or writes: `fk`, `reverse_fk`, `m2m`, `count` and so on.
        relation: &'static str,
        /// Tables of the repeated statements.
        tables: Vec<String>,
        /// The repeated statements.
        statements: Vec<Text>,
        /// The SELECT whose rows are looped over; null when none explains the loop.
        parent: Option<Text>,
        /// Least executions of a burst.
        n_min: u32,
        /// Most executions of a burst.
        n_max: u32,
        /// Executions of the last burst.
        n_last: u32,
        /// Times seen.
        bursts: u64,
        /// Statements of all bursts.
        queries: u64,
        /// Mean number of statements of a burst.
        queries_per_burst: f64,
        /// Time that batching would have saved at least, over all bursts.
        avoidable_floor_seconds: f64,
        /// When it was seen first.
        first_seen_unix_seconds: f64,
        /// When it was seen last.
        last_seen_unix_seconds: f64,
        /// What to change, in a sentence.
        advice: String,
        /// What to write instead, as code; empty when the sentence says all. Names are guessed from tables and columns.
        mend: String,
        /// One burst in detail: the costliest of the best confidence.
        example: Option<Example>,
    }
}

object! {
    /// A normalised statement.
    Text {
        /// 16 hex digits.
        fingerprint: String,
        /// Its text without literals; empty when it has been pushed out.
        text: String,
    }
}

object! {
    /// One burst: evidence and timeline.
    Example {
        /// When its unit of work (request, job) began.
        at_unix_seconds: f64,
        /// Executions.
        n: u32,
        /// Different sets of values among them, estimated.
        distinct_values: u32,
        /// Rows of the parent.
        parent_rows: Option<u64>,
        /// Rows of all executions.
        rows: u64,
        /// Executions that repeat another with the same values and no write in between.
        exact_repeats: u32,
        /// Executions without a row.
        empty: u32,
        /// Distance between n and the parent's rows: 0 when they are equal, 0.22 when they differ by a quarter.
        count_distance: Option<f32>,
        /// Whether the unit of work began where a request begins beyond doubt.
        sure_boundary: bool,
        /// Executions that a pause of the client parted from the one before.
        after_pause: u32,
        /// Executions that a write parted from the one before.
        after_write: u32,
        /// Time that batching would have saved at least.
        avoidable_floor_seconds: f64,
        /// From the loop's first statement to its last answer.
        span_seconds: f64,
        /// What ran, in order of first execution: the parent, the loop, and their nearest neighbours.
        timeline: Vec<TimelineStep>,
    }
}

object! {
    /// All executions of one statement in a burst. Instants count from the beginning of the unit of work.
    TimelineStep {
        /// `parent`, `loop` or `beside`.
        role: &'static str,
        /// 16 hex digits; `/queries` has its text.
        fingerprint: String,
        /// Executions.
        executions: u32,
        /// Rows of all executions.
        rows: u32,
        /// First execution received.
        start_us: u32,
        /// Last execution answered.
        end_us: u32,
        /// Time at the server.
        server_us: u32,
        /// Longest execution.
        longest_us: u32,
    }
}

/// The endpoint.
pub const ENDPOINT: Endpoint = Endpoint {
    path: "findings",
    about: "What the detector found, most severe first, then by cost.",
    id: Some("a finding's id"),
    list: true,
    parameters: &[
        ("database", "of this database"),
        ("route", "of this route; empty: without one"),
        ("kind", "of this kind"),
        ("min_confidence", "`low`, `medium` or `high`"),
        ("min_severity", "`info`, `warning` or `critical`"),
    ],
    objects: objects::<Finding>(),
    answer,
};

fn answer(process: &Process, ask: &Ask) -> Result<Json, Refusal> {
    let kind = ask.word("kind", |word| Kind::ALL.into_iter().find(|kind| kind.name() == word))?;
    let confidence = ask.word("min_confidence", |word| Confidence::ALL.into_iter().find(|c| c.name() == word))?;
    let severity = ask.word("min_severity", |word| {
        [Severity::Info, Severity::Warning, Severity::Critical].into_iter().find(|s| s.name() == word)
    })?;
    let mut all = process.insight.findings();
    if let Some(id) = &ask.id {
        let found = all.into_iter().find(|finding| finding.id == *id);
        return value(&finding(found.ok_or_else(|| Refusal::missing("no such finding"))?));
    }
    all.retain(|finding| {
        ask.get("database").is_none_or(|name| *name == *finding.database)
            && ask.get("route").is_none_or(|name| name == finding.route.as_deref().unwrap_or(""))
            && kind.is_none_or(|kind| kind == finding.kind)
            && confidence.is_none_or(|least| finding.confidence >= least)
            && severity.is_none_or(|least| finding.severity >= least)
    });
    let (total, chosen) = cut(ask, all)?;
    page(ask, total, &chosen.into_iter().map(finding).collect::<Vec<_>>())
}

fn finding(f: FindingView) -> Finding {
    let text = |fingerprint: Fingerprint, text: String| Text { fingerprint: fingerprint.to_string(), text };
    let name = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
    let (n_min, n_max, n_last) = f.n;
    Finding {
        id: f.id,
        kind: f.kind.name(),
        confidence: f.confidence.name(),
        severity: f.severity.name(),
        database: f.database.to_string(),
        route: f.route.map(|route| route.to_string()),
        job: f.job,
        user: f.sample.as_ref().and_then(|sample| name(&sample.user)),
        application: f.sample.as_ref().and_then(|sample| name(&sample.application)),
        relation: f.relation,
        tables: f.tables,
        statements: f.fingerprints.into_iter().zip(f.texts).map(|(id, sql)| text(id, sql)).collect(),
        parent: f.parent.map(|id| text(id, f.parent_text.unwrap_or_default())),
        n_min,
        n_max,
        n_last,
        bursts: f.bursts,
        queries: f.queries,
        queries_per_burst: f.queries as f64 / f.bursts.max(1) as f64,
        avoidable_floor_seconds: f.avoidable_seconds,
        first_seen_unix_seconds: f.first_seen,
        last_seen_unix_seconds: f.last_seen,
        advice: f.advice.to_string(),
        mend: f.mend,
        example: f.sample.as_deref().map(example),
    }
}

fn example(sample: &Sample) -> Example {
    let evidence = sample.evidence;
    Example {
        at_unix_seconds: sample.at,
        n: sample.n,
        distinct_values: sample.distinct,
        parent_rows: sample.parent_rows,
        rows: evidence.rows,
        exact_repeats: evidence.repeats,
        empty: evidence.empty,
        count_distance: evidence.score.filter(|_| sample.parent_rows.is_some()),
        sure_boundary: evidence.sure,
        after_pause: evidence.paused,
        after_write: evidence.written,
        avoidable_floor_seconds: sample.avoidable_us as f64 / 1e6,
        span_seconds: sample.span_us as f64 / 1e6,
        timeline: sample.timeline.iter().map(step).collect(),
    }
}

fn step(step: &Step) -> TimelineStep {
    TimelineStep {
        role: step.role.name(),
        fingerprint: Fingerprint(step.fingerprint).to_string(),
        executions: step.executions,
        rows: step.rows,
        start_us: step.start_us,
        end_us: step.end_us,
        server_us: step.server_us,
        longest_us: step.longest_us,
    }
}
