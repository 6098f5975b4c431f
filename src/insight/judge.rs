//! What a run is: kind, confidence, cost and severity.

use super::run::{Parent, Run};
use super::runs::is_write;
use crate::config::InsightConfig;
use crate::sql::{Operation, flag};

/// What a finding is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// One SELECT repeated for each row of an earlier one.
    NPlusOne,
    /// Several SELECTs repeated together for each row of an earlier one.
    Chain,
    /// The same SELECT with the same values, no write in between.
    Duplicate,
    /// One INSERT, UPDATE or DELETE a row.
    WriteLoop,
}

impl Kind {
    /// All kinds, in the order of the metrics.
    pub const ALL: [Kind; 4] = [Kind::NPlusOne, Kind::Chain, Kind::Duplicate, Kind::WriteLoop];

    /// Label value.
    pub fn name(self) -> &'static str {
        ["n_plus_one", "chain", "duplicate", "write_loop"][self as usize]
    }
}

/// How sure the detector is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Confidence {
    /// A repeat that nothing explains.
    Low,
    /// A repeat inside one request, or one that an earlier SELECT may explain.
    Medium,
    /// A repeat whose count an earlier SELECT's rows explain.
    High,
}

impl Confidence {
    /// All levels, in the order of the metrics.
    pub const ALL: [Confidence; 3] = [Confidence::High, Confidence::Medium, Confidence::Low];

    /// Label value.
    pub fn name(self) -> &'static str {
        ["low", "medium", "high"][self as usize]
    }
}

/// How much it matters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Small, or uncertain.
    Info,
    /// 50 ms or 20 statements.
    Warning,
    /// 500 ms or 100 statements.
    Critical,
}

impl Severity {
    /// Label value.
    pub fn name(self) -> &'static str {
        ["info", "warning", "critical"][self as usize]
    }
}

/// A distance of counts up to this is exact.
const EXACT: f32 = 0.05;
/// A distance of counts up to this is a match: a quarter more or less.
pub(super) const MATCH: f32 = 0.223;
/// A distance up to this still links: the loop skips some rows.
pub(super) const LOOSE: f32 = 0.5;
/// So many turns are not by chance as many as a list has rows.
const LONG_LIST: u32 = 20;
/// A client that waits this long between two executions of the same statement polls: inside one request, and where
/// they may as well be requests.
const POLL_US: u64 = 25_000;
const POLL_UNSURE_US: u64 = 10_000;

/// What is known of the unit around a run.
pub(crate) struct Context<'a> {
    pub(crate) config: &'a InsightConfig,
    /// The unit began where a request begins beyond doubt.
    pub(crate) sure: bool,
    /// The client paused before the unit began: it rests between requests, so that one would be seen to end.
    pub(crate) rested: bool,
    /// A trace or an id says which request its statements belong to.
    pub(crate) tagged: bool,
    pub(crate) runs: &'a [Run],
}

/// The judgement of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) kind: Kind,
    pub(crate) confidence: Confidence,
}

/// Judges one run; `None` when it is nothing to report.
pub(crate) fn judge(run: &Run, context: &Context<'_>, is_registry: impl FnOnce() -> bool) -> Option<Verdict> {
    if run.flags & (flag::LOCK_QUEUE | flag::CATALOG) != 0 || run.piped * 5 > run.n || run.lists * 2 >= run.n {
        return None;
    }
    match run.operation {
        Operation::Select if run.several => loop_of_reads(run, context, is_registry),
        Operation::Select => duplicate(run, context),
        Operation::Insert | Operation::Update | Operation::Delete | Operation::Merge => loop_of_writes(run, context),
        _ => None,
    }
}

fn loop_of_reads(run: &Run, context: &Context<'_>, is_registry: impl FnOnce() -> bool) -> Option<Verdict> {
    let config = context.config;
    if run.n < config.min_count || is_scan(run) || run.flags & flag::FOR_UPDATE != 0 {
        return None;
    }
    let mut confidence = confidence(run, context);
    let explained = run.parent.is_some_and(|parent| parent.score <= EXACT);
    if confidence > Confidence::Low && !explained && is_registry() {
        confidence = Confidence::Low;
    }
    if confidence == Confidence::Low && run.n < config.min_count_low_confidence {
        return None;
    }
    Some(Verdict { kind: Kind::NPlusOne, confidence })
}

/// How sure it is that a repeated SELECT is a loop over rows that one statement could have read.
fn confidence(run: &Run, context: &Context<'_>) -> Confidence {
    let parent =
        run.parent.filter(|parent| context.sure || (parent.adjacent && !is_request_cycle(run, parent, context)));
    let score = parent.map_or(f32::MAX, |parent| parent.score);
    // Once a request each, however many requests.
    if run.streak < context.config.min_count && run.streak * 2 <= run.n && !context.tagged {
        return Confidence::Low;
    }
    if is_poll(run, context) && score > EXACT {
        return Confidence::Low;
    }
    // Work is taken off a queue one piece at a time, and read for that piece.
    if run.is_claimed_work(context.config.min_count) {
        return Confidence::Low;
    }
    // Each turn changes data before the next read: a queue, an import, a guard. Only an exact parent makes it a loop over rows.
    if run.written * 10 >= (run.n - 1) * 9 {
        return if score <= EXACT { Confidence::High } else { Confidence::Low };
    }
    let held = run.held >= context.config.min_count;
    if !context.rested && !context.tagged && !held && is_mixed(run, parent) {
        return Confidence::Low;
    }
    // The client hesitates in most turns, as it does before a request. A mark at the unit's beginning proves little then:
    // not every request may have one.
    let shared = parent.is_some_and(|parent| shares_rows(run, &parent, context));
    let listed = (score <= EXACT || shared) && parent.is_some_and(|parent| parent.n * 5 <= run.n);
    if !context.tagged && !held && !listed && is_spread(run, context) {
        return Confidence::Low;
    }
    // Buckets of time, polls, pages: nothing ties them to rows unless the counts do.
    if run.flags & flag::RANGE != 0 && score > MATCH {
        return Confidence::Low;
    }
    if score <= MATCH {
        Confidence::High
    } else if score <= LOOSE || context.sure || held || (run.is_swift() && !has_begun_before(run, context)) || shared {
        Confidence::Medium
    } else {
        Confidence::Low
    }
}

/// Whether some statement along with it, or it itself, begins a request each time, too few executions in each.
fn is_spread(run: &Run, context: &Context<'_>) -> bool {
    let along = |other: &&Run| other.first <= run.last && other.last >= run.first;
    run.is_head()
        || context.runs.iter().filter(along).any(|other| other.is_head() && run.n < context.config.min_count * other.n)
}

/// Whether some turns wrote and some did not, as requests of several kinds do that nothing parts; a loop's turns mostly
/// all write, or none. One list that explains the count outweighs it.
fn is_mixed(run: &Run, parent: Option<Parent>) -> bool {
    let listed = parent.is_some_and(|parent| parent.score <= EXACT && parent.n == 1);
    !listed && run.written * 4 >= run.n - 1
}

/// Whether several look-ups by key share a parent's rows among them (a generic foreign key: one table for each type).
fn shares_rows(run: &Run, parent: &Parent, context: &Context<'_>) -> bool {
    if run.flags & flag::LIMIT_GET == 0 {
        return false;
    }
    let alike = |other: &&Run| {
        other.flags & flag::LIMIT_GET != 0
            && other.parent.is_some_and(|theirs| theirs.fingerprint == parent.fingerprint)
            && other.first <= run.last
            && other.last >= run.first
    };
    let sum: u64 = context.runs.iter().filter(alike).map(|other| u64::from(other.n)).sum();
    sum.abs_diff(parent.rows) * 10 <= parent.rows
}

/// Whether a parent explains a run well enough to be named.
pub(crate) fn links(parent: &Parent, confidence: Confidence) -> bool {
    confidence > Confidence::Low && parent.named && parent.score <= LOOSE
}

/// Whether a statement that began before the parent repeats along with the loop: then the turns are requests, not rows.
/// Not where each turn writes and there are exactly as many as one long list has rows: a purge, an import.
fn is_request_cycle(run: &Run, parent: &Parent, context: &Context<'_>) -> bool {
    let writes = run.written * 10 >= (run.n - 1) * 9;
    if writes && parent.n == 1 && run.n >= LONG_LIST && u64::from(run.n) == parent.rows {
        return false;
    }
    context.runs.iter().any(|other| {
        other.fingerprint != run.fingerprint
            && other.fingerprint != parent.fingerprint
            && other.first < parent.first
            && other.last > run.first
            && other.n * 2 > run.n
            && other.n > 2 * parent.n
            && other.operation == Operation::Select
    })
}

/// The same statement again and again at leisure, next to nothing in between.
fn is_poll(run: &Run, context: &Context<'_>) -> bool {
    let leisure = if context.sure { POLL_US } else { POLL_UNSURE_US };
    run.last - run.first < 2 * run.n && run.pace() > leisure
}

/// Whether a statement that repeats along, always with the same literals, was there a turn or more before the run
/// began: a look-up that begins each request, this one's and those before.
fn has_begun_before(run: &Run, context: &Context<'_>) -> bool {
    let turn = (run.last - run.first) / (run.n - 1).max(1);
    context.runs.iter().any(|other| {
        !other.several
            && other.fingerprint != run.fingerprint
            && other.first + turn < run.first
            && other.last > run.first
            && other.n * 2 > run.n
    })
}

/// Pages read one after the other: each statement is already a set.
fn is_scan(run: &Run) -> bool {
    let paged = flag::LIMIT | flag::ORDER_BY;
    run.flags & paged == paged && run.flags & (flag::OFFSET | flag::RANGE) != 0 && run.rows > u64::from(run.n)
}

fn duplicate(run: &Run, context: &Context<'_>) -> Option<Verdict> {
    let config = context.config;
    // A write now and then in between is another table's, mostly: the rest are repeats all the same.
    if run.dup + 1 < config.min_count || run.dup * 4 < (run.n - 1) * 3 {
        return None;
    }
    let turns = run.last - run.first;
    let explained = run.parent.is_some_and(|parent| parent.score <= MATCH);
    let confidence = if run.streak < config.min_count || run.is_claimed_work(config.min_count) || is_poll(run, context)
    {
        // Asked now and then, or once a request.
        Confidence::Low
    } else if context.sure {
        Confidence::High
    } else if turns * 4 <= run.n * 5 || (turns <= 2 * run.n && explained) {
        Confidence::Medium
    } else {
        // Along with other statements: as likely requests as turns of a loop.
        Confidence::Low
    };
    let enough = confidence > Confidence::Low || run.n >= config.min_count_low_confidence;
    (enough && (context.sure || turns <= 2 * run.n)).then_some(Verdict { kind: Kind::Duplicate, confidence })
}

fn loop_of_writes(run: &Run, context: &Context<'_>) -> Option<Verdict> {
    let linked = run
        .parent
        .is_some_and(|parent| parent.score <= MATCH && (context.sure || !is_request_cycle(run, &parent, context)));
    let single = run.rows < 2 * u64::from(run.n);
    let enough = run.n >= context.config.write_loop_min || (linked && run.n >= context.config.min_count);
    let claimed = run.is_claimed_work(context.config.min_count);
    (single && enough && !claimed).then_some(Verdict {
        kind: Kind::WriteLoop,
        confidence: if run.streak < context.config.min_count
            || (!linked && (is_poll(run, context) || is_item_by_item(run, context)))
        {
            Confidence::Low
        } else if linked {
            Confidence::High
        } else {
            Confidence::Medium
        },
    })
}

/// Whether every turn is a transaction of its own that writes something else as well: an import, a worker, a payment. Written
/// in one batch they would succeed or fail together.
fn is_item_by_item(run: &Run, context: &Context<'_>) -> bool {
    let once = |run: &Run| run.held == 1;
    let along = |other: &Run| {
        other.fingerprint != run.fingerprint && is_write(other.operation) && once(other) && other.n * 5 >= run.n * 4
    };
    once(run) && context.runs.iter().any(along)
}

/// Time that batching would have saved, microseconds: the batch is charged twice the worst single statement.
pub(crate) fn avoidable_us(run: &Run, kind: Kind, round_trip: u64) -> u64 {
    let after = u64::from(!matches!(kind, Kind::NPlusOne | Kind::Chain | Kind::Duplicate));
    let turns = u64::from(run.n).saturating_sub(after.max(1));
    run.duration.saturating_sub(2 * run.duration_max) + run.wait.saturating_sub(run.wait_max) + turns * round_trip
}

/// How much a burst matters.
pub(crate) fn severity(avoidable_us: u64, n: u32, confidence: Confidence, kind: Kind) -> Severity {
    let level = if avoidable_us >= 500_000 || n >= 100 {
        Severity::Critical
    } else if avoidable_us >= 50_000 || n >= 20 {
        Severity::Warning
    } else {
        Severity::Info
    };
    let lower = usize::from(confidence == Confidence::Low) + usize::from(kind == Kind::WriteLoop);
    [Severity::Info, Severity::Warning, Severity::Critical][(level as usize).saturating_sub(lower)]
}
