//! From judged runs to findings and log lines, with a cool-down. Cold path, behind locks.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::advice::{self, Relation};
use super::describe::Described;
use super::event::{BurstEvent, evidence, log_burst};
use super::findings::{Burst, Finding, count, finding_key};
use super::judge::{self, Confidence, Context, Kind, Severity, Verdict};
use super::publish::MAX_FINDING_SERIES;
use super::run::{Parent, Run};
use super::sample::Sample;
use super::tags::Caller;
use super::{Insight, exact, lock, wording};
use crate::sql::Fingerprint;

/// Statements of a chain that are named; the rest is counted.
pub(crate) const MAX_CHAIN: usize = 8;

/// Where a unit came from.
pub(crate) struct Origin<'a> {
    pub(crate) database: u16,
    pub(crate) route: u32,
    pub(crate) application: Option<&'a str>,
    pub(crate) caller: Option<&'a Caller>,
    /// When the unit began, microseconds.
    pub(crate) started: u64,
    /// Upper bound of one round trip, microseconds.
    pub(crate) round_trip: u64,
    pub(crate) now: u64,
    /// Runs of the unit beside those that are judged.
    pub(crate) all: &'a [Run],
}

/// Runs that one loop made.
struct Group<'a> {
    verdict: Verdict,
    runs: Vec<&'a Run>,
}

impl Insight {
    /// Judges the runs of a unit that is over, and reports what is worth it.
    pub(crate) fn report(&self, context: &Context<'_>, origin: &Origin<'_>) {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for run in context.runs {
            let Some(verdict) = judge::judge(run, context, || self.is_registry(run.fingerprint)) else {
                continue;
            };
            match groups.iter_mut().find(|group| belongs(group, run, &verdict)) {
                Some(group) => {
                    group.verdict.kind = Kind::Chain;
                    group.verdict.confidence = group.verdict.confidence.max(verdict.confidence);
                    group.runs.push(run);
                }
                None => groups.push(Group { verdict, runs: vec![run] }),
            }
        }
        for group in &groups {
            self.report_group(group, context, origin);
        }
    }

    /// Whether a statement reads only what Django fills from the code.
    fn is_registry(&self, fingerprint: u64) -> bool {
        lock(&self.registry).get(fingerprint).is_some_and(|known| known.is_registry())
    }

    fn report_group(&self, group: &Group<'_>, context: &Context<'_>, origin: &Origin<'_>) {
        let database = self.database_name(origin.database);
        let Verdict { kind, confidence } = group.verdict;
        let parent = group.runs.iter().filter_map(|run| run.parent).find(|parent| judge::links(parent, confidence));
        let (texts, parent_text, route) = self.look_up(&group.runs, parent, origin.route);
        let fingerprints: Vec<u64> = group.runs.iter().map(|run| run.fingerprint).collect();
        let key = finding_key(&database, route.as_deref(), parent.map_or(0, |p| p.fingerprint), &fingerprints, kind);
        let most = group.runs.iter().map(|run| run.n).max().unwrap_or(0);
        // Requests asked back to back without a mark between them are as many bursts.
        let times = if context.sure || parent.is_none() { 1 } else { group.runs[0].requests(context.config.min_count) };
        let n = most.div_ceil(times);
        let avoidable_us: u64 = group.runs.iter().map(|run| judge::avoidable_us(run, kind, origin.round_trip)).sum();
        let severity = judge::severity(avoidable_us / u64::from(times), n, confidence, kind);
        let epoch = epoch_seconds();
        let along = self.along(group, context);
        let along: Vec<&Described> = along.iter().map(|text| &**text).collect();
        let first = texts.iter().flatten().next();
        let relation = first.map_or(Relation::Other, |text| advice::relation(text, parent_text.as_deref(), &along));
        let burst = Burst {
            key,
            kind,
            confidence,
            severity,
            n,
            times,
            queries: group.runs.iter().map(|run| u64::from(run.n)).sum(),
            avoidable_us,
            parent: parent.map(|parent| Parent { rows: parent.rows / u64::from(times), ..parent }),
            relation,
            epoch,
            now: origin.now,
        };
        let place = (&*database, route.as_deref());
        let relations: Vec<Relation> = texts
            .iter()
            .map(|text| text.as_ref().map_or(relation, |text| advice::relation(text, parent_text.as_deref(), &along)))
            .collect();
        self.announce(&burst, group, (&texts, &relations), context.sure, origin, place);
        let new = || {
            let known: Vec<_> = texts.iter().flatten().cloned().collect();
            let certain = self.catalog(&database).and_then(|catalog| {
                exact::exact(kind, relation, &known, parent_text.as_deref(), &catalog).map(|exact| exact.advice)
            });
            let texts: Vec<&Described> = texts.iter().flatten().map(|text| &**text).collect();
            let tables = texts.iter().filter_map(|text| text.tables.first().cloned()).take(MAX_CHAIN).collect();
            (
                tables,
                Arc::from(certain.unwrap_or_else(|| wording::advice(kind, relation, &texts, parent_text.as_deref()))),
            )
        };
        let sample = || Sample::new(&burst, &group.runs, context, origin);
        self.record(&burst, origin, (&*database, route.as_deref()), &fingerprints, new, sample);
    }

    /// Tells each burst of a group to the log and the sink. `known` is text and relation of each, `place` database and
    /// route.
    fn announce(
        &self,
        burst: &Burst,
        group: &Group<'_>,
        known: (&[Option<Arc<Described>>], &[Relation]),
        sure: bool,
        origin: &Origin<'_>,
        place: (&str, Option<&str>),
    ) {
        let at = |us: u64| burst.epoch - origin.now.saturating_sub(us) as f64 / 1e6;
        for ((run, text), relation) in group.runs.iter().zip(known.0).zip(known.1) {
            let event = BurstEvent {
                kind: burst.kind,
                confidence: burst.confidence,
                severity: burst.severity,
                database: place.0,
                route: place.1,
                application: origin.application,
                n: run.n.div_ceil(burst.times),
                distinct: run.distinct(),
                parent_rows: burst.parent.map(|p| p.rows),
                fingerprint: Fingerprint(run.fingerprint),
                relation: relation.name(),
                parent: burst.parent.map(|p| Fingerprint(p.fingerprint)),
                sql: text.as_ref().map_or("<unknown>", |text| &text.display),
                avoidable_us: burst.avoidable_us,
                span_us: (run.started, run.ended),
                span: (at(run.started), at(run.ended)),
                finding: burst.key,
                evidence: evidence(run, sure),
            };
            log_burst(&event);
            self.emit(&event);
        }
    }

    /// Texts of what ran along with a group (`get_or_create` shows as a SELECT and an INSERT).
    fn along(&self, group: &Group<'_>, context: &Context<'_>) -> Vec<Arc<Described>> {
        let loop_run = group.runs[0];
        let registry = lock(&self.registry);
        context
            .runs
            .iter()
            .filter(|run| {
                run.fingerprint != loop_run.fingerprint && run.first <= loop_run.last && run.last >= loop_run.first
            })
            .filter_map(|run| registry.get(run.fingerprint))
            .collect()
    }

    /// Texts of the runs, of the parent, and the route's name.
    #[allow(clippy::type_complexity)]
    fn look_up(
        &self,
        runs: &[&Run],
        parent: Option<Parent>,
        route: u32,
    ) -> (Vec<Option<Arc<Described>>>, Option<Arc<Described>>, Option<Arc<str>>) {
        let registry = lock(&self.registry);
        let texts = runs.iter().map(|run| registry.get(run.fingerprint)).collect();
        (texts, parent.and_then(|parent| registry.get(parent.fingerprint)), registry.route_name(route))
    }

    /// Counts a burst under its finding, and logs unless the finding is cooling down.
    fn record(
        &self,
        burst: &Burst,
        origin: &Origin<'_>,
        (database, route): (&str, Option<&str>),
        fingerprints: &[u64],
        new: impl FnOnce() -> (Vec<Box<str>>, Arc<str>),
        sample: impl FnOnce() -> Sample,
    ) {
        let mut findings = lock(&self.findings);
        count(findings.counts.entry(origin.database).or_default(), burst);
        if !findings.by_key.contains_key(&burst.key) {
            findings.make_room();
            let (tables, advice) = new();
            let mut finding = Finding::new(burst, origin, fingerprints, tables, advice);
            finding.shown = findings.shown < findings.limit.div_ceil(2).min(MAX_FINDING_SERIES)
                && burst.confidence > Confidence::Low;
            findings.shown += usize::from(finding.shown);
            findings.by_key.insert(burst.key, finding);
        }
        if !findings.by_key.get(&burst.key).is_some_and(|finding| finding.shown) {
            findings.other.0 += u64::from(burst.times);
            findings.other.1 += burst.avoidable_us;
        }
        let Some(finding) = findings.by_key.get_mut(&burst.key) else {
            return;
        };
        if finding.sample.as_ref().is_none_or(|known| known.gives_way_to(burst)) {
            finding.sample = Some(Arc::new(sample()));
        }
        finding.take_in(burst);
        let due =
            finding.logged.is_none_or(|at| burst.now.saturating_sub(at) >= self.config.cooldown.as_micros() as u64)
                || burst.severity > finding.logged_severity;
        if due && burst.confidence > Confidence::Low {
            finding.logged = Some(burst.now);
            finding.logged_severity = burst.severity;
            log_finding(finding, burst, origin, database, route);
        }
    }
}

/// Now, as seconds since the epoch.
fn epoch_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Whether a run is part of the same loop as a group: same parent, about the same span.
fn belongs(group: &Group<'_>, run: &Run, verdict: &Verdict) -> bool {
    let other = group.runs[0];
    let same_parent = match (run.parent, other.parent) {
        (Some(a), Some(b)) => a.fingerprint == b.fingerprint,
        _ => false,
    };
    let overlap = run.last.min(other.last).saturating_sub(run.first.max(other.first));
    let span = (run.last - run.first).max(other.last - other.first).max(1);
    let chainable = matches!(group.verdict.kind, Kind::NPlusOne | Kind::Chain) && verdict.kind == Kind::NPlusOne;
    let level = (verdict.confidence == Confidence::Low) == (group.verdict.confidence == Confidence::Low);
    chainable && level && same_parent && overlap * 5 >= span * 4 && group.runs.len() < MAX_CHAIN
}

fn log_finding(finding: &Finding, burst: &Burst, origin: &Origin<'_>, database: &str, route: Option<&str>) {
    let fingerprints = hex_list(&finding.fingerprints);
    let tables = finding.tables.join(",");
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: "pgsluice::finding",
                finding = %format_args!("{:012x}", finding.key),
                kind = burst.kind.name(),
                confidence = burst.confidence.name(),
                severity = burst.severity.name(),
                database,
                route = route.unwrap_or(""),
                application = origin.application.unwrap_or(""),
                n = burst.n,
                parent_rows = burst.parent.map_or(0, |parent| parent.rows),
                fingerprints = %fingerprints,
                parent = %Fingerprint(finding.parent.unwrap_or(0)),
                tables = %tables,
                relation = finding.relation.name(),
                avoidable_ms = burst.avoidable_us as f64 / 1e3 / f64::from(burst.times),
                advice = %finding.advice,
                "{} queries that one could replace",
                burst.queries / u64::from(burst.times)
            )
        };
    }
    if burst.severity >= Severity::Warning { line!(warn) } else { line!(info) }
}

/// Fingerprints as they are shown, separated by commas.
pub(crate) fn hex_list(fingerprints: &[u64]) -> String {
    fingerprints.iter().map(|fp| format!("{fp:016x}")).collect::<Vec<_>>().join(",")
}
