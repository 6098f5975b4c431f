//! Runs: repeats of one statement inside a unit of work, kept in a fixed set of slots.
//!
//! A run survives other statements in between (a loop's body may have many), is closed when its slot is needed,
//! and remembers the SELECT whose row count explains it best.

use super::stats;
use super::watch::Marks;
use crate::sql::{Operation, flag};

/// Runs watched at once in a unit.
pub(crate) const SLOTS: usize = 48;
/// Closed runs kept until the unit is judged.
const MAX_CLOSED: usize = 64;
/// A parent is looked for this many statements before the loop began.
const PARENT_REACH: u32 = 32;
/// Runs of three or more that are worth judging are kept when their slot is taken.
const KEEP: u32 = 3;
/// Statements before a pause that may be the parent of a loop after it.
const LEAD: u32 = 3;
/// Spreads the bits of a hash (2^64 divided by the golden ratio).
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
/// How exact a multiple of the parent's rows must be.
const MULTIPLE: f32 = 0.05;

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
    /// Executions that the client hesitated before, or before another statement since the one before.
    pub(crate) hesitant: u32,
    hesitation_seen: u32,
    /// Most executions in one transaction; in the one last seen; its number.
    pub(crate) held: u32,
    held_now: u32,
    transaction_seen: u32,
    /// Statements since the last pause when the run began.
    lead: u32,
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
    fn start(event: &Event, at: u32, marks: Marks, writes: u32, claims: u32, lead: u32) -> Self {
        Self {
            fingerprint: event.fingerprint,
            operation: event.operation,
            flags: event.flags,
            n: 0,
            first: at,
            last: at,
            rows: 0,
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
            hesitant: 0,
            hesitation_seen: marks.hesitations,
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

    /// A loop that turned without hesitation, after at least one turn's worth of other statements since the client
    /// paused. Requests asked back to back begin with a hesitation each, or fill all the time between two pauses.
    pub(crate) fn is_swift(&self) -> bool {
        let turns = (self.n - 1).max(1);
        self.hesitant * 4 <= turns && self.paused == 0 && self.lead * turns >= self.last - self.first
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

    /// How far this run's count is from what the rows of `rows` would explain.
    fn distance(n: u32, rows: u64) -> f32 {
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
    fn explained_by(&self, parent: &Run) -> Option<f32> {
        let outside = parent.n * 2 <= self.n;
        // A nested loop: the outer run's rows, summed, are the inner run's count.
        let nested = parent.rows.abs_diff(u64::from(self.n)) * 32 <= parent.rows;
        let apt = parent.operation == Operation::Select
            && parent.flags & flag::NO_FROM == 0
            && parent.rows >= 2
            && parent.rows * 5 >= u64::from(parent.n) * 6
            && parent.first < self.first
            && (self.first - parent.first <= PARENT_REACH || parent.last + PARENT_REACH >= self.first);
        (apt && (outside || nested)).then(|| Self::distance(self.n, parent.rows))
    }
}

/// The runs of one unit of work.
pub(crate) struct Runs {
    fingerprints: [u64; SLOTS],
    runs: Vec<Run>,
    /// The last execution of each run, close together: the one that makes room is looked for here.
    lasts: [u32; SLOTS],
    /// Where a fingerprint probably is.
    hints: [u8; 128],
    dup_tags: [u32; 128],
    closed: Vec<Run>,
    /// Statements seen that are not transparent.
    count: u32,
    writes: u32,
    /// Statements that took work off a queue.
    claims: u32,
    /// Number of the last pause, and of the first statement after it.
    pauses: u32,
    segment: u32,
    pub(crate) repeats: u32,
    pub(crate) evictions: u32,
}

impl Runs {
    pub(crate) const fn new() -> Self {
        Self {
            fingerprints: [0; SLOTS],
            runs: Vec::new(),
            lasts: [0; SLOTS],
            hints: [0; 128],
            dup_tags: [0; 128],
            closed: Vec::new(),
            count: 0,
            writes: 0,
            claims: 0,
            pauses: 0,
            segment: 0,
            repeats: 0,
            evictions: 0,
        }
    }

    /// Bytes held by one unit's runs.
    pub(crate) const fn size() -> usize {
        std::mem::size_of::<Self>() + SLOTS * std::mem::size_of::<Run>()
    }

    /// Ready for the next unit.
    pub(crate) fn clear(&mut self) {
        self.runs.clear();
        self.closed.clear();
        self.dup_tags = [0; 128];
        (self.count, self.writes, self.claims) = (0, 0, 0);
        (self.pauses, self.segment) = (0, 0);
        (self.repeats, self.evictions) = (0, 0);
    }

    /// Statements seen.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Whether a statement carries a running loop on.
    pub(crate) fn carries_on(&mut self, fingerprint: u64) -> bool {
        let at = self.count;
        self.find(fingerprint).is_some_and(|slot| {
            let run = &self.runs[slot];
            run.n >= KEEP && at - run.last <= 2 * (run.last - run.first) / (run.n - 1) + 2
        })
    }

    /// Ends the runs of a request that is probably over. The last statements stay: one may be the parent of a loop
    /// that a pause parts from it (rendering begins).
    pub(crate) fn end_segment(&mut self) {
        let at = self.count;
        self.link_all();
        for slot in (0..self.runs.len()).rev() {
            let run = &self.runs[slot];
            if run.n >= KEEP || run.last + LEAD < at {
                self.keep(slot);
                self.runs.swap_remove(slot);
                self.fingerprints[slot] = self.fingerprints[self.runs.len()];
                self.lasts[slot] = self.lasts[self.runs.len()];
            }
        }
        self.closed.sort_unstable_by_key(|run| run.first);
    }

    /// Runs that ended and are worth judging, in order of first execution.
    pub(crate) fn ended(&self) -> &[Run] {
        &self.closed
    }

    /// Forgets the runs that were judged.
    pub(crate) fn judged(&mut self) {
        self.closed.clear();
    }

    /// Takes in one completed statement that is not transparent.
    pub(crate) fn observe(&mut self, event: &Event, marks: Marks, max_period: u32) {
        let at = self.count;
        self.count += 1;
        if self.pauses != marks.pauses {
            self.pauses = marks.pauses;
            self.segment = at;
        }
        if is_write(event.operation) {
            self.writes += 1;
        }
        if event.flags & flag::LOCK_QUEUE != 0 {
            self.claims += 1;
        }
        let dup = self.repeated(event);
        let slot = match self.find(event.fingerprint) {
            Some(slot) => slot,
            None => self.open(event, at, marks),
        };
        let (pauses, writes, claims) = (marks.pauses, self.writes, self.claims);
        let run = &mut self.runs[slot];
        run.near += u32::from(run.n > 0 && at - run.last <= max_period);
        if run.pause_seen != pauses {
            run.paused += 1;
            run.since_pause = 0;
            run.pause_seen = pauses;
        }
        run.since_pause += 1;
        run.streak = run.streak.max(run.since_pause);
        run.written += u32::from(run.write_seen != writes && run.n > 0);
        run.write_seen = writes;
        run.claimed += u32::from(run.claim_seen != claims && run.n > 0);
        run.claim_seen = claims;
        run.hesitant += u32::from(run.hesitation_seen != marks.hesitations && run.n > 0);
        run.hesitation_seen = marks.hesitations;
        if marks.transaction != 0 {
            let same = run.transaction_seen == marks.transaction;
            run.held_now = if same { run.held_now + 1 } else { 1 };
            run.held = run.held.max(run.held_now);
        }
        run.transaction_seen = marks.transaction;
        run.n += 1;
        run.last = at;
        self.lasts[slot] = at;
        run.rows += event.rows;
        run.dup += u32::from(dup);
        run.lists += u32::from(event.max_list > 1);
        run.piped += u32::from(event.pipelined);
        run.empty += u32::from(event.rows == 0);
        run.duration += event.duration;
        run.duration_max = run.duration_max.max(event.duration);
        run.wait += event.wait;
        run.wait_max = run.wait_max.max(event.wait);
        run.several |= event.literals != run.first_literals;
        run.bitmap |= 1 << (event.literals.wrapping_mul(SPREAD) >> 58);
        run.ended = event.ended;
        if run.n >= 4 && run.n.is_power_of_two() {
            self.link(slot);
        }
    }

    /// Whether this very statement was read before with no write since. May miss, never invents one in practice.
    fn repeated(&mut self, event: &Event) -> bool {
        if event.operation != Operation::Select {
            return false;
        }
        let mixed = (event.fingerprint ^ event.literals.rotate_left(17) ^ u64::from(self.writes)).wrapping_mul(SPREAD);
        let cell = &mut self.dup_tags[(mixed >> 57) as usize];
        let tag = (mixed as u32) | 1;
        let dup = *cell == tag;
        *cell = tag;
        self.repeats += u32::from(dup);
        dup
    }

    #[inline]
    fn find(&mut self, fingerprint: u64) -> Option<usize> {
        let hint = &mut self.hints[(fingerprint & 127) as usize];
        let guess = usize::from(*hint);
        if guess < self.runs.len() && self.fingerprints[guess] == fingerprint {
            return Some(guess);
        }
        let slot = self.fingerprints[..self.runs.len()].iter().position(|known| *known == fingerprint)?;
        *hint = slot as u8;
        Some(slot)
    }

    fn open(&mut self, event: &Event, at: u32, marks: Marks) -> usize {
        let run = Run::start(event, at, marks, self.writes, self.claims, at - self.segment);
        let slot = if self.runs.len() < SLOTS {
            self.runs.push(run);
            self.runs.len() - 1
        } else {
            let oldest = self.lasts.iter().enumerate().min_by_key(|(_, last)| **last).map_or(0, |(slot, _)| slot);
            if self.runs[oldest].n >= KEEP {
                self.link(oldest);
                self.keep(oldest);
            }
            self.evictions += 1;
            self.runs[oldest] = run;
            oldest
        };
        self.fingerprints[slot] = event.fingerprint;
        self.hints[(event.fingerprint & 127) as usize] = slot as u8;
        slot
    }

    /// Looks for the parent of a run and keeps it if it explains the run better than the one known.
    fn link(&mut self, slot: usize) {
        let child = self.runs[slot];
        let mut best = child.parent.map(|known| Parent { score: Run::distance(child.n, known.rows), ..known });
        let mut best_first = 0;
        for (at, run) in self.runs.iter().enumerate() {
            let Some(score) = (at != slot).then(|| child.explained_by(run)).flatten() else {
                continue;
            };
            let nearer = best.is_none_or(|known| {
                score < known.score - 0.05 || (score < known.score + 0.05 && run.first >= best_first)
            });
            if nearer {
                // Nothing but a pause may lie between a list and the loop over it (rendering begins).
                let adjacent = run.pause_seen >= child.pause_first
                    || (run.pause_seen + 1 >= child.pause_first && run.last + LEAD >= child.first);
                best = Some(Parent {
                    fingerprint: run.fingerprint,
                    rows: run.rows,
                    n: run.n,
                    first: run.first,
                    outermost: true,
                    adjacent,
                    score,
                });
                best_first = run.first;
            }
        }
        if let Some(parent) = best.as_mut().filter(|parent| parent.n > 1) {
            parent.outermost = !self.find(parent.fingerprint).is_some_and(|at| {
                let run = &self.runs[at];
                self.runs.iter().any(|outer| run.explained_by(outer).is_some_and(|score| score < 0.5))
            });
        }
        self.runs[slot].parent = best;
    }

    /// Last look for parents, while all runs are still there.
    fn link_all(&mut self) {
        for slot in 0..self.runs.len() {
            if self.runs[slot].n >= KEEP {
                self.link(slot);
            }
        }
    }

    fn keep(&mut self, slot: usize) {
        if self.runs[slot].n >= KEEP && self.closed.len() < MAX_CLOSED {
            self.closed.push(self.runs[slot]);
        }
    }

    /// Ends all runs.
    pub(crate) fn finish(&mut self) {
        self.link_all();
        for slot in 0..self.runs.len() {
            self.keep(slot);
        }
        self.closed.sort_unstable_by_key(|run| run.first);
    }
}

/// Whether an operation changes data.
pub(crate) fn is_write(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::Insert | Operation::Update | Operation::Delete | Operation::Merge | Operation::Copy | Operation::Ddl
    )
}

/// Whether a statement takes no part in patterns: transaction control, session settings, cursors, bare SELECTs.
pub(crate) fn is_transparent(operation: Operation, flags: u16) -> bool {
    match operation {
        Operation::Transaction | Operation::Session | Operation::Cursor | Operation::Empty => true,
        Operation::Select => flags & (flag::PING | flag::NO_FROM | flag::UNLEXED) != 0,
        _ => flags & flag::UNLEXED != 0,
    }
}

const _: () = assert!(SLOTS < 256 && stats::UNIT.len() == 10);
