//! One burst of a finding, kept as evidence: when, by whom, what the detector saw, and what ran in which order.

use super::event::{Evidence, evidence};
use super::findings::Burst;
use super::judge::{Confidence, Context};
use super::report::Origin;
use super::run::Run;

/// Statements of a timeline.
const MAX_STEPS: usize = 12;

/// What a statement is in a burst.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Its rows are looped over.
    Parent,
    /// It is repeated.
    Loop,
    /// It ran in the same unit of work.
    Beside,
}

impl Role {
    /// The word for it.
    pub fn name(self) -> &'static str {
        ["parent", "loop", "beside"][self as usize]
    }
}

/// All executions of one statement in a burst. Times in microseconds; instants count from the unit's beginning.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Its fingerprint.
    pub fingerprint: u64,
    /// What it is in the burst.
    pub role: Role,
    /// Executions.
    pub executions: u32,
    /// Rows of all executions.
    pub rows: u32,
    /// First execution received.
    pub start_us: u32,
    /// Last execution answered.
    pub end_us: u32,
    /// Time at the server.
    pub server_us: u32,
    /// Longest execution.
    pub longest_us: u32,
}

/// One burst. Literal-free.
#[derive(Clone, Debug)]
pub struct Sample {
    confidence: Confidence,
    /// When the unit of work began, seconds since the epoch.
    pub at: f64,
    /// The client's user.
    pub user: Box<str>,
    /// The client's `application_name`.
    pub application: Box<str>,
    /// Executions.
    pub n: u32,
    /// Different sets of literals, estimated.
    pub distinct: u32,
    /// Rows of the SELECT that explains the loop.
    pub parent_rows: Option<u64>,
    /// Time that batching would have saved at least, microseconds.
    pub avoidable_us: u64,
    /// From the loop's first statement to its last answer, microseconds.
    pub span_us: u64,
    /// What the detector saw.
    pub evidence: Evidence,
    /// What ran, in order of first execution.
    pub timeline: Box<[Step]>,
}

impl Sample {
    /// Of a burst whose repeated statements are `runs`.
    pub(crate) fn new(burst: &Burst, runs: &[&Run], context: &Context<'_>, origin: &Origin<'_>) -> Self {
        let first = runs[0];
        let caller = origin.caller;
        Self {
            confidence: burst.confidence,
            at: burst.epoch - origin.now.saturating_sub(origin.started) as f64 / 1e6,
            user: caller.map_or_else(Box::default, |caller| caller.user.clone()),
            application: caller.map_or_else(Box::default, |caller| caller.application.clone()),
            n: burst.n,
            distinct: runs.iter().map(|run| run.distinct()).max().unwrap_or(0),
            parent_rows: burst.parent.map(|parent| parent.rows),
            avoidable_us: burst.avoidable_us,
            span_us: runs.iter().map(|run| run.ended).max().unwrap_or(0).saturating_sub(first.started),
            evidence: evidence(first, context.sure),
            timeline: timeline(burst, runs, context, origin),
        }
    }

    /// Whether a burst is better evidence.
    pub(crate) fn gives_way_to(&self, burst: &Burst) -> bool {
        let (own, other) = (self.confidence, burst.confidence);
        other > own || (other == own && burst.avoidable_us > self.avoidable_us)
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.timeline.len() * size_of::<Step>() + self.user.len() + self.application.len()
    }
}

/// Parent, loop, and what ran between the parent and the loop's end, as far as there is room.
fn timeline(burst: &Burst, runs: &[&Run], context: &Context<'_>, origin: &Origin<'_>) -> Box<[Step]> {
    let parent = burst.parent.map_or(0, |parent| parent.fingerprint);
    let role = |run: &Run| {
        if runs.iter().any(|own| own.fingerprint == run.fingerprint) {
            Role::Loop
        } else if run.fingerprint == parent {
            Role::Parent
        } else {
            Role::Beside
        }
    };
    let mut seen: Vec<&Run> = Vec::new();
    for run in context.runs.iter().chain(origin.all) {
        let known = seen.iter().any(|other| other.fingerprint == run.fingerprint && other.first == run.first);
        if !known {
            seen.push(run);
        }
    }
    let last = runs.iter().map(|run| run.last).max().unwrap_or(0);
    seen.retain(|run| run.first <= last);
    // Least to be missed last; of the others those nearest to the loop.
    seen.sort_by_key(|run| (role(run) == Role::Beside, last - run.first));
    seen.truncate(MAX_STEPS);
    seen.sort_by_key(|run| run.first);
    let since = |us: u64| short(us.saturating_sub(origin.started));
    seen.iter()
        .map(|run| Step {
            fingerprint: run.fingerprint,
            role: role(run),
            executions: run.n,
            rows: short(run.rows),
            start_us: since(run.started),
            end_us: since(run.ended),
            server_us: short(run.duration),
            longest_us: short(run.duration_max),
        })
        .collect()
}

fn short(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
