//! What a unit of work remembers of its statements: the first few as they are, all of them as runs once a loop is
//! possible. Most requests are short; a thousand sessions that asked one thing each hold no memory beyond their units.

use super::paths::Paths;
use super::run::Event;
use super::runs::{Bonds, Runs};
use crate::sql::Operation;

/// Statements kept as they are; with one more, runs are made of them.
const EARLY: usize = 4;

/// The client took longer than its habit before a statement.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lull {
    None,
    /// Longer than usual, but not so long that another request must have begun.
    Hesitation,
    Pause,
}

/// What happened before a statement.
#[derive(Clone, Copy, Default)]
pub(crate) struct Marks {
    /// Pauses of the client.
    pub(crate) pauses: u32,
    /// Pauses and shorter hesitations.
    pub(crate) hesitations: u32,
    /// Transactions begun.
    transactions: u32,
    /// Number of the open transaction; 0 outside.
    pub(crate) transaction: u32,
}

/// A statement in few bytes.
#[derive(Clone, Copy)]
struct Brief {
    fingerprint: u64,
    literals: u64,
    started: u64,
    rows: u32,
    duration: u32,
    wait: u32,
    elapsed: u32,
    marks: Marks,
    max_list: u16,
    flags: u16,
    operation: Operation,
    pipelined: bool,
}

/// The statements of one unit.
pub(crate) struct Watch {
    early: [Option<Brief>; EARLY],
    len: u8,
    /// The early statements were put into the runs.
    full: bool,
    /// What came before the statement that is about to be observed.
    lull: Lull,
    /// It was a pause that counts.
    paused: bool,
    /// The statement observed last.
    last: u64,
    marks: Marks,
    runs: Option<Box<Runs>>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self {
            early: [None; EARLY],
            len: 0,
            full: false,
            lull: Lull::None,
            paused: false,
            last: 0,
            marks: Marks::default(),
            runs: None,
        }
    }

    /// Ready for the next unit.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.lull = Lull::None;
        self.paused = false;
        self.marks = Marks::default();
        if std::mem::take(&mut self.full)
            && let Some(runs) = &mut self.runs
        {
            runs.clear();
        }
    }

    /// Statements seen that are not transparent.
    pub(crate) fn count(&self) -> u32 {
        match self.runs() {
            Some(runs) => runs.count(),
            None => u32::from(self.len),
        }
    }

    /// Reads that repeat another with no write in between, and runs that had to make room.
    pub(crate) fn totals(&self) -> (u32, u32) {
        if let Some(runs) = self.runs() {
            return (runs.repeats, runs.evictions);
        }
        let mut repeats = 0;
        let early = &self.early[..usize::from(self.len)];
        for (at, one) in early.iter().flatten().enumerate() {
            let before = early[..at].iter().flatten().rev();
            let same = |other: &&Brief| other.fingerprint == one.fingerprint && other.literals == one.literals;
            let read = one.operation == Operation::Select;
            let no_write = |other: &&Brief| !super::runs::is_write(other.operation);
            repeats += u32::from(read && before.take_while(no_write).any(|other| same(&other)));
        }
        (repeats, 0)
    }

    /// The client paused or hesitated before the statement that comes next (or before one that is transparent, and
    /// comes before it).
    pub(crate) fn pending(&mut self, lull: Lull) {
        self.lull = self.lull.max(lull);
    }

    /// Counts what came before `fingerprint`: a pause where there is usually none is a hesitation only.
    pub(crate) fn arrive(&mut self, fingerprint: u64, paths: &mut Paths) {
        let lull = std::mem::replace(&mut self.lull, Lull::None);
        let last = std::mem::replace(&mut self.last, fingerprint);
        let noise = paths.follow(last, fingerprint, lull == Lull::Pause);
        self.paused = lull == Lull::Pause && !noise;
        self.marks.pauses += u32::from(self.paused);
        self.marks.hesitations += u32::from(lull != Lull::None);
    }

    /// A transaction began or ended.
    pub(crate) fn transaction(&mut self, open: bool) {
        if open {
            self.marks.transactions += 1;
        }
        self.marks.transaction = if open { self.marks.transactions } else { 0 };
    }

    /// Whether the first statement after a pause begins another request: it does not carry a running loop on.
    pub(crate) fn breaks(&mut self, fingerprint: u64) -> bool {
        if !std::mem::take(&mut self.paused) || !self.full {
            return false;
        }
        self.runs.as_mut().is_some_and(|runs| !runs.carries_on(fingerprint))
    }

    /// Takes in one completed statement that is not transparent.
    pub(crate) fn observe(&mut self, event: &Event, max_period: u32) {
        if self.full {
            if let Some(runs) = &mut self.runs {
                runs.observe(event, self.marks, max_period);
            }
        } else if let Some(place) = self.early.get_mut(usize::from(self.len)) {
            *place = Some(Brief::new(event, self.marks));
            self.len += 1;
        } else {
            let marks = self.marks;
            self.fill(max_period).observe(event, marks, max_period);
        }
        self.paused = false;
    }

    /// Ends the runs of a request that is probably over.
    pub(crate) fn end_segment(&mut self, max_period: u32, bonds: &Bonds<'_>) -> &mut Runs {
        let runs = self.fill(max_period);
        runs.end_segment(bonds);
        runs
    }

    /// Ends all runs.
    pub(crate) fn finish(&mut self, max_period: u32, bonds: &Bonds<'_>) -> &mut Runs {
        let runs = self.fill(max_period);
        runs.finish(bonds);
        runs
    }

    fn runs(&self) -> Option<&Runs> {
        self.runs.as_deref().filter(|_| self.full)
    }

    /// The runs, with the early statements in them.
    fn fill(&mut self, max_period: u32) -> &mut Runs {
        let runs = self.runs.get_or_insert_with(|| Box::new(Runs::new()));
        if !std::mem::replace(&mut self.full, true) {
            for brief in self.early[..usize::from(self.len)].iter().flatten() {
                runs.observe(&brief.event(), brief.marks, max_period);
            }
        }
        runs
    }
}

impl Brief {
    fn new(event: &Event, marks: Marks) -> Self {
        let short = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Self {
            fingerprint: event.fingerprint,
            literals: event.literals,
            started: event.started,
            rows: short(event.rows),
            duration: short(event.duration),
            wait: short(event.wait),
            elapsed: short(event.ended.saturating_sub(event.started)),
            marks,
            max_list: event.max_list,
            flags: event.flags,
            operation: event.operation,
            pipelined: event.pipelined,
        }
    }

    fn event(&self) -> Event {
        Event {
            fingerprint: self.fingerprint,
            literals: self.literals,
            operation: self.operation,
            flags: self.flags,
            max_list: self.max_list,
            rows: self.rows.into(),
            duration: self.duration.into(),
            wait: self.wait.into(),
            pipelined: self.pipelined,
            started: self.started,
            ended: self.started + u64::from(self.elapsed),
        }
    }
}
