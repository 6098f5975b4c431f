//! One client session as insight sees it: a few words while idle, a [`Unit`] on loan while at work.

use std::sync::Arc;

use super::run::Event;
use super::runs::is_transparent;
use super::stats::{BYTES, LATENCY_US, ROWS, operation_index};
use super::table::{OTHER, bump};
use super::tags::Caller;
use super::unit::{Boundary, Pending, Unit, is_marker};
use super::worker::WorkerInsight;
use super::{DatabaseId, TagSet, Text, Times};
use crate::sql::{Operation, Statement, flag};

/// No unit on loan.
const NONE: u32 = u32::MAX;
/// New fingerprints a session may bring in a minute; more are counted under `other`.
const NEW_PER_MINUTE: u16 = 200;
/// Longest idle gap that a slow client earns.
const MAX_IDLE_GAP_US: u64 = 1_000_000;
/// A Django client's pause between two statements of a loop, until its own habit is known.
const HABIT_US: u32 = 1_000;
/// A pause inside a transaction that is noted with the statement before it.
const LONG_GAP_US: u64 = 100_000;
/// Savepoints of one transaction that are too many: PostgreSQL keeps track of 64 cheaply (PGPROC_MAX_CACHED_SUBXIDS).
const SAVEPOINT_STORM: u16 = 64;
/// Longest application name kept.
const MAX_APPLICATION: usize = 64;

/// A statement that was forwarded to a server.
#[derive(Clone, Copy)]
pub struct Begin<'a> {
    /// Its analysis; for a Bind, with the parameters mixed into `literals`.
    pub statement: Statement,
    /// Text of a simple Query, or of a Parse in the same message; `None` for a known prepared statement.
    pub text: Option<Text<'a>>,
    /// Tags read when the statement was parsed; used when there is no text.
    pub tags: TagSet,
    /// When it came and went.
    pub at: Times,
    /// The client sent it before it had the answer to the one before.
    pub pipelined: bool,
}

/// Insight's view of one client session. At most 64 bytes while the session idles.
pub struct SessionInsight {
    caller: Option<Arc<Caller>>,
    /// When the last ReadyForQuery passed; 0 before the first.
    last_ready: u64,
    transaction_started: u64,
    unit: u32,
    generation: u32,
    /// Number of Syncs and Queries sent, and of those answered.
    synced: u32,
    answered: u32,
    /// The client's usual pause between an answer and its next statement (a running median).
    habit: u32,
    /// Slot of the statement answered last.
    last_slot: u32,
    /// Savepoints of the open transaction.
    savepoints: u16,
    new_minute: u16,
    new_count: u16,
    database: DatabaseId,
    status: u8,
    flags: u8,
}

/// The session sits in a transaction with no statement running, and is counted so.
const IDLE_IN_TRANSACTION: u8 = 1;
/// The open transaction ran ROLLBACK.
const ROLLED_BACK: u8 = 2;
/// The open transaction failed.
const FAILED: u8 = 4;
/// The unit on loan does not know yet who the client is.
const RENAMED: u8 = 8;

const _: () = assert!(std::mem::size_of::<SessionInsight>() <= 64);

impl SessionInsight {
    /// A session of this database.
    pub fn new(database: DatabaseId) -> Self {
        Self {
            caller: None,
            last_ready: 0,
            transaction_started: 0,
            unit: NONE,
            generation: 0,
            synced: 0,
            answered: 0,
            habit: HABIT_US,
            last_slot: OTHER,
            savepoints: 0,
            new_minute: 0,
            new_count: 0,
            database,
            status: b'I',
            flags: 0,
        }
    }

    /// The client's `application_name`, for log lines and findings only (never a metric): printable ASCII, 64 bytes.
    pub fn set_application(&mut self, name: &str) {
        let user = self.caller.as_ref().map_or_else(Box::default, |caller| caller.user.clone());
        self.caller = Some(Arc::new(Caller { user, application: clean(name) }));
        self.flags |= RENAMED;
    }

    /// The client's user, for findings only.
    pub fn set_user(&mut self, name: &str) {
        let application = self.caller.as_ref().map_or_else(Box::default, |caller| caller.application.clone());
        self.caller = Some(Arc::new(Caller { user: clean(name), application }));
        self.flags |= RENAMED;
    }

    /// A Parse was seen: makes the text known before its first execution, and reads its tags.
    pub fn register(
        &mut self,
        worker: &mut WorkerInsight,
        statement: &Statement,
        text: Text<'_>,
        now_us: u64,
    ) -> TagSet {
        if !worker.enabled() {
            return TagSet::default();
        }
        let slot = worker.slot(self.database.0, statement, Some(text), || self.may_add(now_us));
        let tags = if statement.flags & flag::COMMENT != 0 { worker.tags(text) } else { TagSet::default() };
        // What makes texts of one fingerprint differ: literals left in them, lengths of lists, traces in comments.
        let differs = statement.literals ^ u64::from(statement.max_list).rotate_left(48) ^ tags.trace;
        worker.table.entry(slot).parsed(differs);
        tags
    }

    /// A statement was forwarded. Answers are matched to statements in order.
    pub fn begin(&mut self, worker: &mut WorkerInsight, begin: &Begin<'_>) {
        let timer = worker.timer();
        self.begun(worker, begin);
        worker.timed(timer);
    }

    fn begun(&mut self, worker: &mut WorkerInsight, begin: &Begin<'_>) {
        self.leave_idle(worker, begin.at.received_us);
        if !worker.enabled() {
            bump(&worker.table.itself.disabled, 1);
            return;
        }
        let statement = begin.statement;
        let tags = match begin.text {
            Some(text) if statement.flags & flag::COMMENT != 0 => worker.tags(text),
            _ => begin.tags,
        };
        worker.count_reading(&statement, begin.text.is_some());
        let database = self.database.0;
        let slot = worker.slot(database, &statement, begin.text, || self.may_add(begin.at.received_us));
        let at = self.unit_for(worker, &statement, &tags, begin.at.received_us);
        let idle_gap = self.idle_gap(worker);
        let unit = &mut worker.units[at as usize];
        unit.idle_gap = idle_gap;
        if self.flags & RENAMED != 0 {
            self.flags &= !RENAMED;
            unit.caller.clone_from(&self.caller);
        }
        unit.inherit(&tags);
        if tags.route != 0 || self.status == b'I' {
            unit.running = tags.route;
        }
        if unit.in_flight.is_empty() && self.last_ready != 0 {
            let gap = begin.at.received_us.saturating_sub(self.last_ready);
            if unit.statements > 0 {
                unit.turnaround(gap, u64::from(self.habit));
            }
            self.learn(gap);
        }
        unit.statements += 1;
        unit.last = begin.at.sent_us.max(begin.at.received_us);
        unit.in_flight.push(Pending {
            slot,
            statement,
            received: begin.at.received_us,
            wait: begin.at.server_us.saturating_sub(begin.at.received_us).min(u64::from(u32::MAX)) as u32,
            sent: begin.at.sent_us,
            pipelined: begin.pipelined,
            batch: self.synced,
        });
    }

    /// Number of the route that runs, 0 when no statement named it: of the open transaction, or of the last statement.
    pub fn route(&self, worker: &WorkerInsight) -> u32 {
        self.current(worker).map_or(0, |at| worker.units[at as usize].running)
    }

    /// A Sync (or the end of a Query message) was forwarded: what was begun so far belongs to it.
    pub fn synced(&mut self) {
        self.synced = self.synced.wrapping_add(1);
    }

    /// The oldest statement in flight was answered: CommandComplete, EmptyQueryResponse or PortalSuspended.
    pub fn complete(&mut self, worker: &mut WorkerInsight, rows: u64, bytes: u64, now_us: u64) {
        let timer = worker.timer();
        self.completed(worker, rows, bytes, now_us);
        worker.timed(timer);
    }

    fn completed(&mut self, worker: &mut WorkerInsight, rows: u64, bytes: u64, now_us: u64) {
        let Some(at) = self.current(worker) else {
            return;
        };
        let Some(pending) = worker.units[at as usize].in_flight.pop() else {
            return;
        };
        let statement = pending.statement;
        let duration = now_us.saturating_sub(pending.sent);
        let table = &worker.table;
        let route = worker.units[at as usize].tags.route;
        table.entry(pending.slot).completed(duration, rows, bytes, route, statement.literals);
        self.last_slot = pending.slot;
        let stats = table.database(self.database.0);
        stats.duration[operation_index(statement.operation)][0].observe(&LATENCY_US, duration);
        stats.bytes.observe(&BYTES, bytes);
        if statement.operation == Operation::Select {
            stats.rows.observe(&ROWS, rows);
        }
        if duration > worker.shared.config.slow_query.as_micros() as u64 {
            bump(&stats.slow, 1);
        }
        if statement.operation == Operation::Transaction {
            if worker.is_rollback(&statement) {
                self.flags |= ROLLED_BACK;
            } else if worker.is_savepoint(&statement) {
                self.savepoints = self.savepoints.saturating_add(1);
            }
        }
        let cursor = statement.operation == Operation::Cursor;
        let step = cursor.then(|| worker.cursor_step(&statement, rows));
        let unit = &mut worker.units[at as usize];
        unit.server_us += duration;
        // What a cursor returns counts as rows of its query; the rest about cursors takes no part in patterns.
        let fetched = step.and_then(|step| unit.cursor.follow(step, statement.fingerprint.0)).filter(|_| rows > 0);
        if fetched.is_some() || !is_transparent(statement.operation, statement.flags) {
            let event = Event {
                fingerprint: fetched.unwrap_or(statement.fingerprint.0),
                literals: statement.literals,
                operation: statement.operation,
                flags: statement.flags,
                max_list: statement.max_list,
                rows,
                duration,
                wait: u64::from(pending.wait),
                pipelined: pending.pipelined,
                started: pending.received,
                ended: now_us,
            };
            if !cursor {
                unit.watch.arrive(event.fingerprint, &mut worker.paths);
            }
            if !unit.is_tagged() && unit.watch.breaks(event.fingerprint) {
                worker.judge(at, now_us, true);
            }
            worker.units[at as usize].watch.observe(&event, worker.shared.config.max_period);
        }
    }

    /// The oldest statement in flight failed.
    pub fn failed(&mut self, worker: &mut WorkerInsight, sqlstate: [u8; 5], now_us: u64) {
        if self.status == b'T' {
            self.flags |= FAILED;
        }
        let Some(at) = self.current(worker) else {
            return;
        };
        let Some(pending) = worker.units[at as usize].in_flight.pop() else {
            return;
        };
        self.last_slot = pending.slot;
        let duration = now_us.saturating_sub(pending.sent);
        let entry = worker.table.entry(pending.slot);
        bump(&entry.calls, 1);
        bump(&entry.errors, 1);
        bump(&entry.time_us, duration);
        let stats = worker.table.database(self.database.0);
        stats.duration[operation_index(pending.statement.operation)][1].observe(&LATENCY_US, duration);
        stats.error(sqlstate);
        worker.units[at as usize].server_us += duration;
    }

    /// ReadyForQuery passed with this transaction status (`I`, `T`, `E`).
    pub fn ready(&mut self, worker: &mut WorkerInsight, status: u8, now_us: u64) {
        self.answered = self.answered.wrapping_add(1);
        self.last_ready = now_us;
        self.transaction(worker, status, now_us);
        self.status = status;
        let mut idle = true;
        if let Some(at) = self.current(worker) {
            let unit = &mut worker.units[at as usize];
            unit.in_flight.settle(self.answered.wrapping_sub(1));
            unit.last = now_us;
            if unit.in_transaction != (status != b'I') {
                unit.in_transaction = status != b'I';
                unit.watch.transaction(unit.in_transaction);
            }
            idle = unit.in_flight.is_empty();
        }
        if status != b'I' && idle && self.flags & IDLE_IN_TRANSACTION == 0 {
            self.flags |= IDLE_IN_TRANSACTION;
            worker.table.database(self.database.0).idle_change(1);
        }
    }

    /// The client is gone.
    pub fn end(&mut self, worker: &mut WorkerInsight, now_us: u64) {
        self.leave_idle(worker, now_us);
        if let Some(at) = self.current(worker) {
            worker.finish(at, now_us);
            worker.release(at);
        }
        self.unit = NONE;
    }

    fn transaction(&mut self, worker: &mut WorkerInsight, status: u8, now_us: u64) {
        if status == b'I' && self.savepoints >= SAVEPOINT_STORM {
            let route = self.current(worker).map_or(0, |at| worker.units[at as usize].tags.route);
            worker.route(self.database.0, route).stormed(self.savepoints.into());
            self.savepoints = 0;
        }
        let stats = worker.table.database(self.database.0);
        match (self.status, status) {
            (b'I', b'I') => bump(&stats.transactions[2], 1),
            (b'I', _) => {
                self.transaction_started = now_us;
                self.savepoints = 0;
                self.flags &= !(ROLLED_BACK | FAILED);
            }
            (_, b'I') => {
                let outcome = if self.flags & FAILED != 0 || self.status == b'E' {
                    3
                } else {
                    usize::from(self.flags & ROLLED_BACK != 0)
                };
                bump(&stats.transactions[outcome], 1);
                stats.transaction_duration.observe(&LATENCY_US, now_us.saturating_sub(self.transaction_started));
            }
            _ => {}
        }
    }

    /// The client spoke again (or left): it no longer idles in its transaction.
    fn leave_idle(&mut self, worker: &WorkerInsight, now_us: u64) {
        if self.flags & IDLE_IN_TRANSACTION != 0 {
            self.flags &= !IDLE_IN_TRANSACTION;
            let stats = worker.table.database(self.database.0);
            stats.idle_change(-1);
            let gap = now_us.saturating_sub(self.last_ready);
            bump(&stats.transaction_idle_us, gap);
            if gap >= LONG_GAP_US {
                worker.table.entry(self.last_slot).idled(gap);
            }
        }
    }

    /// The unit on loan, unless the sweep took it back.
    fn current(&self, worker: &WorkerInsight) -> Option<u32> {
        let unit: &Unit = worker.units.get(self.unit as usize)?;
        (unit.generation == self.generation && unit.in_use).then_some(self.unit)
    }

    /// The unit that a statement belongs to; ends the old one at a boundary.
    fn unit_for(&mut self, worker: &mut WorkerInsight, statement: &Statement, tags: &TagSet, received: u64) -> u32 {
        let marker = is_marker(statement);
        let gap = if self.last_ready == 0 { 0 } else { received.saturating_sub(self.last_ready) };
        let Some(at) = self.current(worker) else {
            let boundary = if marker {
                Boundary::Marker
            } else if self.last_ready == 0 {
                Boundary::Connection
            } else {
                Boundary::Gap
            };
            let at = worker.acquire(self.database.0, boundary, self.caller.clone(), received);
            worker.units[at as usize].begins_after(gap, u64::from(self.habit));
            self.unit = at;
            self.generation = worker.units[at as usize].generation;
            worker.units[at as usize].connected = self.last_ready == 0;
            return at;
        };
        let idle_gap = self.idle_gap(worker);
        let unit = &mut worker.units[at as usize];
        if let Some(boundary) = unit.ends_before(statement, tags, received, idle_gap) {
            worker.finish(at, received);
            let unit = &mut worker.units[at as usize];
            unit.restart(if marker { Boundary::Marker } else { boundary }, received);
            unit.begins_after(gap, u64::from(self.habit));
        } else if marker && unit.watch.count() == 0 && !unit.in_transaction {
            unit.boundary = Boundary::Marker;
        }
        at
    }

    /// Longest pause that still belongs to the unit: the configured one, longer for a client that is slow by habit.
    fn idle_gap(&self, worker: &WorkerInsight) -> u64 {
        let configured = worker.shared.config.idle_gap.as_micros() as u64;
        configured.max((20 * u64::from(self.habit)).min(MAX_IDLE_GAP_US))
    }

    /// A running median of pauses: moves by a sixteenth towards each one.
    fn learn(&mut self, gap: u64) {
        let step = self.habit / 16 + 1;
        if gap > u64::from(self.habit) {
            self.habit = self.habit.saturating_add(step).min(50_000);
        } else {
            self.habit = self.habit.saturating_sub(step).max(1);
        }
    }

    /// Whether this session may bring one more new fingerprint.
    fn may_add(&mut self, now_us: u64) -> bool {
        let minute = (now_us / 60_000_000) as u16;
        if minute != self.new_minute {
            self.new_minute = minute;
            self.new_count = 0;
        }
        self.new_count = self.new_count.saturating_add(1);
        self.new_count <= NEW_PER_MINUTE
    }
}

/// A name without anything that could break a line: printable ASCII, 64 bytes.
fn clean(name: &str) -> Box<str> {
    let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    name.chars().take(MAX_APPLICATION).map(printable).collect::<String>().into()
}
