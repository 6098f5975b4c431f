//! Runs: repeats of one statement inside a unit of work, kept in a fixed set of slots.
//!
//! A run survives other statements in between (a loop's body may have many), is closed when its slot is needed,
//! and remembers the SELECT whose row count explains it best.

use super::bond::Bond;
use super::judge::{LOOSE, MATCH};
use super::run::{Around, Event, Parent, Run};
use super::seen::Seen;
use super::stats;
use super::watch::Marks;
use crate::sql::{Operation, flag};

/// Runs watched at once in a unit.
pub(crate) const SLOTS: usize = 48;
/// Closed runs kept until the unit is judged.
const MAX_CLOSED: usize = 64;
/// Lists kept when their slots are taken.
const MAX_GONE: usize = 16;
/// Runs of three or more that are worth judging are kept when their slot is taken.
const KEEP: u32 = 3;
/// Statements before a pause that may be the parent of a loop after it.
const LEAD: u32 = 3;

/// Whether the rows of the second statement hold the key that the first looks up.
pub(crate) type Bonds<'a> = dyn Fn(u64, u64) -> Bond + 'a;

/// The runs of one unit of work.
pub(crate) struct Runs {
    fingerprints: [u64; SLOTS],
    runs: Vec<Run>,
    /// The last execution of each run, close together: the one that makes room is looked for here.
    lasts: [u32; SLOTS],
    /// Where a fingerprint probably is.
    hints: [u8; 128],
    seen: Seen,
    closed: Vec<Run>,
    /// Lists that had to make room, the latest ones: a loop may run over them yet.
    gone: Vec<Run>,
    next_gone: usize,
    /// Statements seen that are not transparent.
    count: u32,
    writes: u32,
    /// Statements that took work off a queue.
    claims: u32,
    /// Number of the last pause, and of the first statement after it.
    pauses: u32,
    segment: u32,
    /// Number of the last hesitation.
    hesitations: u32,
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
            seen: Seen::new(),
            closed: Vec::new(),
            gone: Vec::new(),
            next_gone: 0,
            count: 0,
            writes: 0,
            claims: 0,
            pauses: 0,
            segment: 0,
            hesitations: 0,
            repeats: 0,
            evictions: 0,
        }
    }

    /// Bytes held by one unit's runs.
    pub(crate) const fn size() -> usize {
        std::mem::size_of::<Self>() + (SLOTS + MAX_GONE) * std::mem::size_of::<Run>()
    }

    /// Ready for the next unit.
    pub(crate) fn clear(&mut self) {
        self.runs.clear();
        self.closed.clear();
        self.gone.clear();
        self.next_gone = 0;
        self.seen.clear();
        (self.count, self.writes, self.claims) = (0, 0, 0);
        (self.pauses, self.segment, self.hesitations) = (0, 0, 0);
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
    pub(crate) fn end_segment(&mut self, bonds: &Bonds<'_>) {
        let at = self.count;
        self.link_all(bonds);
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

    /// The runs that are still watched, in no order: also those not worth judging.
    pub(crate) fn all(&self) -> &[Run] {
        &self.runs
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
        let hesitant = std::mem::replace(&mut self.hesitations, marks.hesitations) != marks.hesitations;
        let lead = at - self.segment;
        let around = Around { at, marks, writes: self.writes, claims: self.claims, lead, hesitant, dup };
        let slot = match self.find(event.fingerprint) {
            Some(slot) => slot,
            None => self.open(event, &around),
        };
        let run = &mut self.runs[slot];
        run.add(event, &around, max_period);
        self.lasts[slot] = at;
        if run.n >= 4 && run.n.is_power_of_two() {
            self.link(slot, None);
        }
    }

    /// Whether this very statement was read before with no write since, exactly as far as [`Seen`] remembers.
    fn repeated(&mut self, event: &Event) -> bool {
        if event.operation != Operation::Select {
            return false;
        }
        let dup = self.seen.meet(event.fingerprint ^ event.literals.rotate_left(17) ^ u64::from(self.writes));
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

    fn open(&mut self, event: &Event, around: &Around) -> usize {
        let run = Run::start(event, around);
        let slot = if self.runs.len() < SLOTS {
            self.runs.push(run);
            self.runs.len() - 1
        } else {
            let oldest = self.lasts.iter().enumerate().min_by_key(|(_, last)| **last).map_or(0, |(slot, _)| slot);
            if self.runs[oldest].n >= KEEP {
                self.link(oldest, None);
                self.keep(oldest);
            }
            self.remember(self.runs[oldest]);
            self.evictions += 1;
            self.runs[oldest] = run;
            oldest
        };
        self.fingerprints[slot] = event.fingerprint;
        self.hints[(event.fingerprint & 127) as usize] = slot as u8;
        slot
    }

    /// Keeps a list that makes room.
    fn remember(&mut self, run: Run) {
        if !run.is_list() {
            return;
        }
        if self.gone.len() < MAX_GONE {
            self.gone.push(run);
        } else {
            self.gone[self.next_gone] = run;
        }
        self.next_gone = (self.next_gone + 1) % MAX_GONE;
    }

    /// Looks for the parent of a run and keeps it if it explains the run better than the one known.
    fn link(&mut self, slot: usize, bonds: Option<&Bonds<'_>>) {
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
                best = Some(parent_of(run, &child, score));
                best_first = run.first;
            }
        }
        if let Some(bonds) = bonds {
            best = self.tie(&child, best, bonds);
        }
        if let Some(parent) = best.as_mut().filter(|parent| parent.n > 1) {
            parent.outermost = !self.find(parent.fingerprint).is_some_and(|at| {
                let run = &self.runs[at];
                self.runs.iter().any(|outer| run.explained_by(outer).is_some_and(|score| score < 0.5))
            });
        }
        self.runs[slot].parent = best;
    }

    /// The list whose rows hold what the run looks up, if there is one: rather than one that only has as many rows.
    fn tie(&self, child: &Run, best: Option<Parent>, bonds: &Bonds<'_>) -> Option<Parent> {
        let mut found: Option<(Bond, Parent)> = None;
        for run in self.runs.iter().chain(&self.gone) {
            let Some(score) = child.explained_by_tied(run).filter(|score| *score <= LOOSE) else {
                continue;
            };
            let bond = bonds(child.fingerprint, run.fingerprint);
            let nearer = found.is_none_or(|(known_bond, known)| {
                let near = score < known.score - 0.05 || (score < known.score + 0.05 && run.first >= known.first);
                bond > known_bond || (bond == known_bond && near)
            });
            if nearer && (bond == Bond::Tied || (bond == Bond::Maybe && child.is_as_often_as(run))) {
                found = Some((bond, parent_of(run, child, score)));
            }
        }
        let least = best.map_or(f32::MAX, |best| best.score);
        match (found, best) {
            (Some((_, found)), _) => Some(Parent { score: found.score.min(least), named: true, ..found }),
            (None, Some(best)) => {
                let named = match bonds(child.fingerprint, best.fingerprint) {
                    Bond::Tied => best.score <= MATCH && child.is_multiple(best.rows),
                    Bond::Maybe => best.rows.abs_diff(u64::from(child.n)) * 20 <= best.rows,
                    Bond::None => false,
                };
                Some(Parent { named, ..best })
            }
            (None, None) => None,
        }
    }

    /// Last look for parents, while all runs are still there.
    fn link_all(&mut self, bonds: &Bonds<'_>) {
        for slot in 0..self.runs.len() {
            if self.runs[slot].n >= KEEP {
                self.link(slot, Some(bonds));
            }
        }
    }

    fn keep(&mut self, slot: usize) {
        if self.runs[slot].n >= KEEP && self.closed.len() < MAX_CLOSED {
            self.closed.push(self.runs[slot]);
        }
    }

    /// Ends all runs.
    pub(crate) fn finish(&mut self, bonds: &Bonds<'_>) {
        self.link_all(bonds);
        for slot in 0..self.runs.len() {
            self.keep(slot);
        }
        self.closed.sort_unstable_by_key(|run| run.first);
    }
}

/// `list` as the parent of `child`.
fn parent_of(list: &Run, child: &Run, score: f32) -> Parent {
    // Nothing but a pause may lie between a list and the loop over it (rendering begins).
    let adjacent = list.pause_seen >= child.pause_first
        || (list.pause_seen + 1 >= child.pause_first && list.last + LEAD >= child.first);
    let Run { fingerprint, rows, n, first, .. } = *list;
    Parent { fingerprint, rows, n, first, outermost: true, adjacent, score, named: false }
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
