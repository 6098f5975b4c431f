//! One run: a statement's repeats inside a unit of work, and what its numbers say.

use super::judge::MATCH;
use super::watch::Marks;
use crate::sql::{Operation, flag};

/// A parent is looked for this many statements before the loop began.
const PARENT_REACH: u32 = 32;
/// How exact a multiple of the parent's rows must be.
const MULTIPLE: f32 = 0.05;
/// A list that one lap of several over it explains: a match, but a loose one.
const LAP_SCORE: f32 = 0.4;
/// Things that a list may be looped over for, each with literals of its own.
const LAP_KINDS: u64 = 4;
/// Statements that may stand between two turns though there were none before.
const LAP_SLACK: u32 = 8;
/// A loop that began after a stray execution has at least so many turns.
const LATE_LEAST: u32 = 4;
/// Spreads the bits of a hash (2^64 divided by the golden ratio).
pub(crate) const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// One completed statement as the detector sees it. Times in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) fingerprint: u64,
    pub(crate) literals: u64,
    pub(crate) operation: Operation,
    pub(crate) flags: u16,
    pub(crate) max_list: u16,
    pub(crate) rows: u64,
    pub(crate) duration: u64,
    pub(crate) wait: u64,
    pub(crate) pipelined: bool,
    pub(crate) started: u64,
    pub(crate) ended: u64,
}

/// The SELECT that explains a loop: it returned about as many rows as the loop has turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Parent {
    pub(crate) fingerprint: u64,
    pub(crate) rows: u64,
    pub(crate) n: u32,
    /// Number of its first execution among the unit's statements.
    pub(crate) first: u32,
    /// No SELECT explains how often it was executed itself: it begins a loop each time.
    pub(crate) outermost: bool,
    /// No pause of the client between it and the loop.
    pub(crate) adjacent: bool,
    /// Distance of the counts on a logarithmic scale; 0 is a perfect match.
    pub(crate) score: f32,
    /// It may be named: its rows hold the key that the loop looks up, or it has exactly as many as the loop turns.
    pub(crate) named: bool,
}

/// Where an execution stands in its unit.
#[derive(Clone, Copy)]
pub(super) struct Around {
    /// Its number among the unit's statements.
    pub(super) at: u32,
    pub(super) marks: Marks,
    /// Writes, and statements that took work off a queue, up to it.
    pub(super) writes: u32,
    pub(super) claims: u32,
    /// Statements since the last pause.
    pub(super) lead: u32,
    /// The client hesitated, or paused, before it.
    pub(super) hesitant: bool,
    /// It was read before with no write since.
    pub(super) dup: bool,
}

/// One statement's repeats.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) fingerprint: u64,
    pub(crate) operation: Operation,
    pub(crate) flags: u16,
    pub(crate) n: u32,
    /// Numbers of the first and last execution among the unit's statements.
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) rows: u64,
    /// Most rows of one execution.
    pub(crate) rows_max: u64,
    /// Number of the second execution: the first may have nothing to do with the loop (`request.user`).
    pub(crate) second: u32,
    /// Executions until one was an exact repeat or stood far from the one before: one lap over a list that is looped
    /// over more than once.
    lap: u32,
    lap_open: bool,
    /// Exact repeats with no write in between.
    pub(crate) dup: u32,
    /// Executions with a list longer than one.
    pub(crate) lists: u32,
    pub(crate) piped: u32,
    /// Executions at most the configured period after the one before.
    pub(crate) near: u32,
    /// Executions that a pause of the client parted from the one before.
    pub(crate) paused: u32,
    /// Number of the pause before the first and before the last execution.
    pub(crate) pause_first: u32,
    pub(crate) pause_seen: u32,
    /// Executions since the last pause, and most executions between two pauses.
    since_pause: u32,
    pub(crate) streak: u32,
    /// Executions that a write parted from the one before.
    pub(crate) written: u32,
    write_seen: u32,
    /// Executions that taking work off a queue (SKIP LOCKED, NOWAIT) parted from the one before.
    pub(crate) claimed: u32,
    claim_seen: u32,
    /// Executions that the client hesitated before, nothing else asked in between.
    pub(crate) headed: u32,
    /// Most executions in one transaction; in the one last seen; its number.
    pub(crate) held: u32,
    held_now: u32,
    transaction_seen: u32,
    /// Statements since the last pause when the run began.
    pub(crate) lead: u32,
    /// Executions that returned nothing.
    pub(crate) empty: u32,
    pub(crate) duration: u64,
    pub(crate) duration_max: u64,
    pub(crate) wait: u64,
    pub(crate) wait_max: u64,
    first_literals: u64,
    bitmap: u64,
    pub(crate) several: bool,
    pub(crate) started: u64,
    pub(crate) ended: u64,
    pub(crate) parent: Option<Parent>,
}

impl Run {
    /// A run that `event` begins, which is not counted yet.
    pub(super) fn start(event: &Event, around: &Around) -> Self {
        let Around { at, marks, writes, claims, lead, .. } = *around;
        Self {
            fingerprint: event.fingerprint,
            operation: event.operation,
            flags: event.flags,
            n: 0,
            first: at,
            last: at,
            rows: 0,
            rows_max: 0,
            second: at,
            lap: 0,
            lap_open: true,
            dup: 0,
            lists: 0,
            piped: 0,
            near: 0,
            paused: 0,
            pause_first: marks.pauses,
            pause_seen: marks.pauses,
            since_pause: 0,
            streak: 0,
            written: 0,
            write_seen: writes,
            claimed: 0,
            claim_seen: claims,
            headed: 0,
            held: 0,
            held_now: 0,
            transaction_seen: 0,
            lead,
            empty: 0,
            duration: 0,
            duration_max: 0,
            wait: 0,
            wait_max: 0,
            first_literals: event.literals,
            bitmap: 0,
            several: false,
            started: event.started,
            ended: event.ended,
            parent: None,
        }
    }

    /// Counts one execution.
    #[inline]
    pub(super) fn add(&mut self, event: &Event, around: &Around, max_period: u32) {
        let Around { at, marks, writes, claims, hesitant, dup, .. } = *around;
        self.lap_on(at, dup);
        self.near += u32::from(self.n > 0 && at - self.last <= max_period);
        if self.pause_seen != marks.pauses {
            self.paused += 1;
            self.since_pause = 0;
            self.pause_seen = marks.pauses;
        }
        self.since_pause += 1;
        self.streak = self.streak.max(self.since_pause);
        self.written += u32::from(self.write_seen != writes && self.n > 0);
        self.write_seen = writes;
        self.claimed += u32::from(self.claim_seen != claims && self.n > 0);
        self.claim_seen = claims;
        self.headed += u32::from(hesitant && self.n > 0);
        if marks.transaction != 0 {
            let same = self.transaction_seen == marks.transaction;
            self.held_now = if same { self.held_now + 1 } else { 1 };
            self.held = self.held.max(self.held_now);
        }
        self.transaction_seen = marks.transaction;
        self.n += 1;
        self.last = at;
        self.rows += event.rows;
        self.rows_max = self.rows_max.max(event.rows);
        self.dup += u32::from(dup);
        self.lists += u32::from(event.max_list > 1);
        self.piped += u32::from(event.pipelined);
        self.empty += u32::from(event.rows == 0);
        self.duration += event.duration;
        self.duration_max = self.duration_max.max(event.duration);
        self.wait += event.wait;
        self.wait_max = self.wait_max.max(event.wait);
        self.several |= event.literals != self.first_literals;
        self.bitmap |= 1 << (event.literals.wrapping_mul(SPREAD) >> 58);
        self.ended = event.ended;
    }

    /// Number of different sets of literals: exact for one, an estimate (linear counting) above.
    pub(crate) fn distinct(&self) -> u32 {
        if !self.several {
            return 1;
        }
        let zeros = self.bitmap.count_zeros();
        if zeros == 0 {
            return self.n;
        }
        let estimate = -64.0 * (f64::from(zeros) / 64.0).ln();
        (estimate.round() as u32).clamp(2, self.n.max(2))
    }

    /// A loop that turned without a pause, after at least one turn's worth of other statements since the client
    /// paused. Requests asked back to back fill all the time between two pauses.
    pub(crate) fn is_swift(&self) -> bool {
        let turns = (self.n - 1).max(1);
        self.paused * 8 <= turns && self.lead * turns >= self.last - self.first
    }

    /// Whether the client hesitated before most executions, as it does where a request begins.
    pub(crate) fn is_head(&self) -> bool {
        self.headed * 3 >= (self.n - 1) * 2
    }

    /// Work taken off a queue one piece at a time: fewer than `least` executions to a piece.
    pub(crate) fn is_claimed_work(&self, least: u32) -> bool {
        self.claimed > 0 && self.n < least * (self.claimed + 1)
    }

    /// The client's time between two executions, when nothing else is asked in between, in microseconds.
    pub(crate) fn pace(&self) -> u64 {
        let gaps = u64::from(self.n.saturating_sub(1).max(1));
        (self.ended - self.started).saturating_sub(self.duration + self.wait) / gaps
    }

    /// How many requests ran together in these executions, as far as the parent's own repeats tell.
    pub(crate) fn requests(&self, least: u32) -> u32 {
        self.parent
            .filter(|parent| parent.outermost && parent.n > 1 && self.n >= parent.n * least)
            .map_or(1, |parent| parent.n)
    }

    /// Notes where the first lap ends.
    #[inline]
    fn lap_on(&mut self, at: u32, dup: bool) {
        if self.n == 1 {
            self.second = at;
        }
        // Twice the usual distance and more: another loop, or the same once more.
        let far = self.n > 1 && (at - self.last) > 2 * (self.last - self.first) / (self.n - 1) + LAP_SLACK;
        self.lap_open &= !dup && !far;
        self.lap += u32::from(self.lap_open);
    }

    /// How far this run's count is from what the rows of `rows` would explain.
    pub(super) fn distance(n: u32, rows: u64) -> f32 {
        let ratio = n as f32 / rows as f32;
        if ratio < 1.0 {
            return -0.5 * ratio.ln();
        }
        // Several foreign keys to one table multiply the count; with few rows any count is near a multiple.
        let multiple = [2.0f32, 3.0].iter().map(|m| (ratio / m).ln().abs()).fold(f32::MAX, f32::min);
        let single = ratio.ln().abs();
        if rows >= 5 && multiple <= MULTIPLE { single.min(multiple) } else { single }
    }

    /// Whether `parent`'s rows may have been looped over by this run; the distance if so.
    pub(super) fn explained_by(&self, parent: &Run) -> Option<f32> {
        let outside = parent.n * 2 <= self.n;
        // A nested loop: the outer run's rows, summed, are the inner run's count.
        let nested = parent.rows.abs_diff(u64::from(self.n)) * 32 <= parent.rows;
        let apt = parent.is_list() && parent.rows * 5 >= u64::from(parent.n) * 6 && self.follows(parent, self.first);
        (apt && (outside || nested)).then(|| Self::distance(self.n, parent.rows))
    }

    /// The same for a list whose rows are known to hold the key that the run looks up: the first execution may have
    /// come before the list, and one lap of several may be what its rows explain.
    pub(super) fn explained_by_tied(&self, list: &Run) -> Option<f32> {
        if !list.is_list() || list.rows_max < 2 || list.fingerprint == self.fingerprint {
            return None;
        }
        // A loop may skip rows of its list; it turns more often only where it looks several keys of each row up.
        let plain = self.explained_by(list).filter(|score| *score <= MATCH && self.is_multiple(list.rows));
        let once = self.n > list.n && self.follows(list, self.first) && u64::from(self.n) == list.rows_max;
        let once = once.then_some(0.0);
        let late =
            list.first > self.first && list.n * 2 <= self.n && self.n > LATE_LEAST && self.follows(list, self.second);
        let late = late.then(|| Self::distance(self.n - 1, list.rows)).filter(|score| *score <= MATCH);
        let (rows, distinct) = (list.rows_max, u64::from(self.distinct()));
        // Over the same rows again and again, for each of a few things or not: all of them, many an exact repeat.
        let again = self.dup * 3 >= self.n
            && u64::from(self.n) >= 2 * rows
            && (rows * 3 <= distinct * 4 && distinct <= rows * LAP_KINDS);
        let lap = again || (self.lap < self.n && u64::from(self.lap) == rows);
        let lap = (lap && self.follows(list, self.first)).then_some(LAP_SCORE);
        [plain, once, late, lap].into_iter().flatten().min_by(f32::total_cmp)
    }

    /// Whether it turned about as often as there are rows, or exactly several times as often.
    pub(super) fn is_multiple(&self, rows: u64) -> bool {
        let n = u64::from(self.n);
        n * 4 <= rows * 5 || n.is_multiple_of(rows)
    }

    /// Whether it turned as often as the list has rows, in all or each time; the first execution may have come before.
    pub(super) fn is_as_often_as(&self, list: &Run) -> bool {
        let n = u64::from(self.n);
        let late = list.first > self.first && list.rows + 1 == n;
        late || n == list.rows_max || n.abs_diff(list.rows) * 20 <= list.rows
    }

    /// Whether it can be a list: rows of a SELECT, or of a cursor.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.operation, Operation::Select | Operation::Cursor)
            && self.flags & flag::NO_FROM == 0
            && self.rows >= 2
    }

    /// Whether `list` was read shortly before the loop began at `start`, or goes on.
    fn follows(&self, list: &Run, start: u32) -> bool {
        list.first < start && (start - list.first <= PARENT_REACH || list.last + PARENT_REACH >= start)
    }
}
