//! Units of work: the statements of one request, job or script, and where one ends and the next begins.

use std::collections::VecDeque;
use std::sync::Arc;

use super::tags::{Caller, TagSet};
use super::watch::{Lull, Watch};
use crate::sql::{Operation, Statement, effect, flag};

/// A unit never lasts longer than this.
const MAX_UNIT_US: u64 = 300_000_000;
/// A unit never has more statements than this.
const MAX_STATEMENTS: u32 = 10_000;
/// A pause inside a transaction that ends a unit all the same.
const MAX_TRANSACTION_GAP_US: u64 = 60_000_000;
/// Statements in flight that are told apart; beyond, they are only counted.
const MAX_PENDING: usize = 256;
/// A pause this many times the client's habit, and at least [`PAUSE_MIN_US`], is noted in the runs.
const PAUSE_FACTOR: u64 = 8;
const PAUSE_MIN_US: u64 = 5_000;
/// The same for a hesitation, which alone ends nothing.
const HESITATION_FACTOR: u64 = 3;
const HESITATION_MIN_US: u64 = 500;
/// Silence that ends a unit whatever its client's habit.
const STALE_US: u64 = 1_000_000;

/// What began a unit of work. The order is that of [`super::stats::BOUNDARIES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Boundary {
    Connection,
    Trace,
    Tag,
    Marker,
    Gap,
    Cap,
}

/// A statement sent and not yet answered.
#[derive(Clone, Copy)]
pub(crate) struct Pending {
    pub(crate) slot: u32,
    pub(crate) statement: Statement,
    pub(crate) received: u64,
    pub(crate) wait: u32,
    pub(crate) sent: u64,
    pub(crate) pipelined: bool,
    /// Number of the Sync that covers it.
    pub(crate) batch: u32,
}

/// Statements in flight, oldest first. Bounded: what does not fit is counted and matched by number only.
#[derive(Default)]
pub(crate) struct InFlight {
    /// The oldest, in place: one at a time is the rule.
    first: Option<Pending>,
    queue: VecDeque<Pending>,
    overflow: u32,
}

impl InFlight {
    pub(crate) fn push(&mut self, pending: Pending) {
        if self.overflow > 0 || self.queue.len() + 1 >= MAX_PENDING {
            self.overflow = self.overflow.saturating_add(1);
        } else if self.first.is_none() {
            self.first = Some(pending);
        } else {
            self.queue.push_back(pending);
        }
    }

    /// The oldest statement; `None` when it was one that did not fit.
    pub(crate) fn pop(&mut self) -> Option<Pending> {
        let front = self.first.take();
        if front.is_some() {
            self.first = self.queue.pop_front();
        } else {
            self.overflow = self.overflow.saturating_sub(1);
        }
        front
    }

    /// Forgets what the Sync numbered `batch` leaves unanswered.
    pub(crate) fn settle(&mut self, batch: u32) {
        while self.first.is_some_and(|front| front.batch.wrapping_sub(batch) as i32 <= 0) {
            self.first = self.queue.pop_front();
        }
        if self.first.is_none() {
            self.overflow = 0;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none() && self.overflow == 0
    }

    fn clear(&mut self) {
        self.first = None;
        self.queue.clear();
        self.queue.shrink_to(16);
        self.overflow = 0;
    }
}

/// What a statement does to a cursor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum CursorStep {
    Declare,
    Fetch,
    Close,
}

/// The query behind the cursor that is open. With several open nobody knows which one a FETCH reads.
#[derive(Default)]
pub(crate) struct Cursor {
    query: u64,
    open: u32,
}

impl Cursor {
    /// Follows one statement; the query whose rows it returned, if it is known.
    pub(crate) fn follow(&mut self, step: CursorStep, fingerprint: u64) -> Option<u64> {
        match step {
            CursorStep::Declare => {
                self.open += 1;
                self.query = fingerprint;
            }
            CursorStep::Close => self.open = self.open.saturating_sub(1),
            CursorStep::Fetch => return (self.open == 1).then_some(self.query),
        }
        None
    }
}

/// What the detector holds for a session that is at work.
pub(crate) struct Unit {
    /// Number of the loan; a session whose number differs has lost it.
    pub(crate) generation: u32,
    pub(crate) in_use: bool,
    /// It is the first of its connection.
    pub(crate) connected: bool,
    pub(crate) database: u16,
    pub(crate) caller: Option<Arc<Caller>>,
    pub(crate) boundary: Boundary,
    pub(crate) tags: TagSet,
    /// The route of the transaction that is open, or of the last statement outside of one; 0 while none said so.
    pub(crate) running: u32,
    pub(crate) statements: u32,
    pub(crate) started: u64,
    /// Last ReadyForQuery, or last statement sent.
    pub(crate) last: u64,
    pub(crate) server_us: u64,
    pub(crate) in_transaction: bool,
    /// Shortest pause between answer and next statement: an upper bound of the round trip.
    pub(crate) shortest_gap: u64,
    pub(crate) in_flight: InFlight,
    pub(crate) watch: Watch,
    pub(crate) cursor: Cursor,
    /// The client paused before it began.
    pub(crate) rested: bool,
    /// Pause that ends it.
    pub(crate) idle_gap: u64,
    /// A pause that would have ended it came before a statement that carries no tags of its own (BEGIN, SET): the next
    /// one tells whether the tagged request goes on.
    parted: bool,
}

impl Unit {
    pub(crate) fn new() -> Self {
        Self {
            generation: 0,
            in_use: false,
            connected: false,
            database: 0,
            caller: None,
            boundary: Boundary::Connection,
            tags: TagSet::default(),
            running: 0,
            statements: 0,
            started: 0,
            last: 0,
            server_us: 0,
            in_transaction: false,
            shortest_gap: u64::MAX,
            in_flight: InFlight::default(),
            watch: Watch::new(),
            cursor: Cursor::default(),
            rested: false,
            idle_gap: STALE_US,
            parted: false,
        }
    }

    /// Starts the next unit of the same session; statements in flight stay.
    pub(crate) fn restart(&mut self, boundary: Boundary, now: u64) {
        self.boundary = boundary;
        self.connected = false;
        self.tags = TagSet::default();
        self.statements = 0;
        self.started = now;
        self.last = now;
        self.server_us = 0;
        self.shortest_gap = u64::MAX;
        self.parted = false;
        self.watch.clear();
        self.watch.transaction(self.in_transaction);
    }

    /// Gives everything back for the next session; with `lean`, the memory as well.
    pub(crate) fn release(&mut self, lean: bool) {
        self.in_use = false;
        self.cursor = Cursor::default();
        self.caller = None;
        self.in_flight.clear();
        if lean {
            self.in_flight = InFlight::default();
            self.watch = Watch::new();
        } else {
            self.watch.clear();
        }
    }

    /// Whether a statement received now belongs to the next unit, and why.
    pub(crate) fn ends_before(
        &mut self,
        statement: &Statement,
        tags: &TagSet,
        received: u64,
        idle_gap: u64,
    ) -> Option<Boundary> {
        if self.statements == 0 {
            return None;
        }
        let gap = received.saturating_sub(self.last);
        if tags.trace != 0 && self.tags.trace != 0 && tags.trace != self.tags.trace {
            return Some(Boundary::Trace);
        }
        if tags.id != 0 && self.tags.id != 0 && tags.id != self.tags.id {
            return Some(Boundary::Tag);
        }
        if received.saturating_sub(self.started) > MAX_UNIT_US || self.statements >= MAX_STATEMENTS {
            return Some(Boundary::Cap);
        }
        if statement.effects & effect::DISCARD_ALL != 0 {
            return Some(Boundary::Connection);
        }
        let same = |ours: u64, theirs: u64| theirs != 0 && theirs == ours;
        // What carries the same trace or id is the same request, however long the client thought in between.
        let goes_on = same(self.tags.trace, tags.trace) || same(self.tags.id, tags.id);
        let parted = std::mem::take(&mut self.parted);
        if !goes_on {
            if !self.in_transaction && is_marker(statement) && self.watch.count() > 0 {
                return Some(Boundary::Marker);
            }
            let rested = !self.in_transaction && gap > idle_gap && self.in_flight.is_empty();
            if (parted || rested) && self.is_tagged() && is_tagless(statement) {
                self.parted = true;
            } else if parted || rested {
                return Some(Boundary::Gap);
            }
        }
        if tags.route != 0 && self.tags.route != 0 && tags.route != self.tags.route {
            return Some(Boundary::Tag);
        }
        (self.in_transaction && gap > MAX_TRANSACTION_GAP_US).then_some(Boundary::Cap)
    }

    /// Takes over what a statement's tags say; untagged statements inherit.
    pub(crate) fn inherit(&mut self, tags: &TagSet) {
        if tags.trace != 0 {
            self.tags.trace = tags.trace;
        }
        if tags.id != 0 {
            self.tags.id = tags.id;
        }
        if tags.route != 0 {
            self.tags.route = tags.route;
        }
    }

    /// Notes whether the client paused before the unit began; `gap` is 0 when it is its first.
    pub(crate) fn begins_after(&mut self, gap: u64, habit: u64) {
        self.rested = gap > PAUSE_MIN_US.max(PAUSE_FACTOR * habit);
    }

    /// Notes the client's pause before a statement, given its habit. No request begins inside a transaction.
    pub(crate) fn turnaround(&mut self, gap: u64, habit: u64) {
        self.shortest_gap = self.shortest_gap.min(gap);
        if self.in_transaction {
            return;
        }
        if gap > PAUSE_MIN_US.max(PAUSE_FACTOR * habit) {
            self.watch.pending(Lull::Pause);
        } else if gap > HESITATION_MIN_US.max(HESITATION_FACTOR * habit) {
            self.watch.pending(Lull::Hesitation);
        }
    }

    /// Whether the sweep may end this unit: nothing in flight, no transaction, idle for long enough.
    pub(crate) fn is_stale(&self, now: u64) -> bool {
        let idle = now.saturating_sub(self.last);
        self.in_use
            && self.in_flight.is_empty()
            && (if self.in_transaction {
                idle > MAX_TRANSACTION_GAP_US
            } else if self.is_tagged() {
                // The same trace or request may go on after a pause.
                idle > STALE_US
            } else {
                idle > self.idle_gap
            })
    }

    /// Whether the unit began where a request begins beyond doubt.
    pub(crate) fn is_sure(&self) -> bool {
        matches!(self.boundary, Boundary::Trace | Boundary::Tag | Boundary::Marker)
            || self.tags.route != 0
            || self.is_tagged()
    }

    /// Whether a trace or an id says which request its statements belong to.
    pub(crate) fn is_tagged(&self) -> bool {
        self.tags.trace != 0 || self.tags.id != 0
    }
}

/// Whether a statement is one that drivers send by themselves, without the comment of the request it belongs to.
fn is_tagless(statement: &Statement) -> bool {
    matches!(statement.operation, Operation::Transaction | Operation::Session)
}

/// Whether a statement is what Django (or psycopg's pool) sends first in a request.
pub(crate) fn is_marker(statement: &Statement) -> bool {
    match statement.operation {
        Operation::Empty => true,
        Operation::Select => statement.flags & (flag::PING | flag::DJANGO_SESSION) != 0,
        _ => false,
    }
}
