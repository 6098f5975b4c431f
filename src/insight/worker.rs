//! The part of insight that one worker thread owns: its index, its units, its counters.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::describe::Described;
use super::judge::Context;
use super::paths::Paths;
use super::routes::{Done, RouteIndex, RouteStats};
use super::table::{Index, OTHER, WorkerTable, bump};
use super::tags::{Caller, ReadTags, application};
use super::unit::{Boundary, CursorStep, Unit};
use super::{Insight, TagSet, Text, lock};
use crate::sql::{self, Fingerprint, LexSettings, RawSql, Statement, flag};

/// Routes a worker remembers by the hash of their text.
const MAX_ROUTE_CACHE: usize = 4_096;
/// One call in this many is timed for `insight_seconds_total`. A prime, so that no rhythm of the client meets it.
const SAMPLE: u32 = 251;
/// Free units that keep their memory for the next session to use.
pub(crate) const WARM_UNITS: usize = 64;

/// One worker's insight. Every method that takes a session takes this too; nothing in it is shared but counters.
pub struct WorkerInsight {
    pub(crate) shared: Arc<Insight>,
    pub(crate) table: Arc<WorkerTable>,
    pub(crate) index: Index,
    route_index: RouteIndex,
    pub(crate) units: Vec<Unit>,
    /// Units not on loan; the first are lent first, so that the last can be given back.
    free: BinaryHeap<Reverse<u32>>,
    /// Numbers the loans.
    loans: u32,
    routes: HashMap<u64, u32, RandomState>,
    read_tags: ReadTags,
    key: RandomState,
    pub(crate) paths: Paths,
    /// Calls of begin and complete, for sampling.
    calls: u32,
    /// Fingerprints of ROLLBACK and ABORT.
    rollbacks: Vec<Fingerprint>,
    /// Fingerprint of SAVEPOINT.
    savepoint: Fingerprint,
    /// Fingerprint of CLOSE, and those of FETCH, with the name that Django's cursors share.
    close: Fingerprint,
    fetches: Vec<Fingerprint>,
}

impl WorkerInsight {
    pub(crate) fn new(shared: Arc<Insight>, table: Arc<WorkerTable>) -> Self {
        Self {
            shared,
            table,
            index: Index::new(),
            route_index: RouteIndex::new(),
            units: Vec::new(),
            free: BinaryHeap::new(),
            loans: 0,
            routes: HashMap::default(),
            read_tags: ReadTags::new(),
            key: RandomState::default(),
            paths: Paths::new(),
            calls: 0,
            rollbacks: fingerprints(&["ROLLBACK", "ROLLBACK WORK", "ROLLBACK TRANSACTION", "ABORT"]),
            close: fingerprints(&[r#"CLOSE "_django_curs_1_sync_1""#]).first().copied().unwrap_or_default(),
            fetches: fingerprints(&[
                r#"FETCH FORWARD 1 FROM "_django_curs_1_sync_1""#,
                r#"FETCH ALL FROM "_django_curs_1_sync_1""#,
            ]),
            savepoint: fingerprints(&["SAVEPOINT x"]).first().copied().unwrap_or_default(),
        }
    }

    /// The process-wide part.
    pub fn insight(&self) -> Arc<Insight> {
        Arc::clone(&self.shared)
    }

    /// Starts a clock for one call in [`SAMPLE`]: reading it each time would cost more than what it measures.
    #[inline]
    pub(crate) fn timer(&mut self) -> Option<Instant> {
        self.calls = self.calls.wrapping_add(1);
        self.calls.is_multiple_of(SAMPLE).then(Instant::now)
    }

    #[inline]
    pub(crate) fn timed(&self, timer: Option<Instant>) {
        if let Some(start) = timer {
            bump(&self.table.itself.nanos, start.elapsed().as_nanos() as u64 * u64::from(SAMPLE));
        }
    }

    /// Whether statements are looked at; the relay may skip lexing when not.
    pub fn enabled(&self) -> bool {
        self.shared.enabled()
    }

    /// Literals of a Bind: mixes the raw parameter bytes into the statement's literal hash (keyed, never exported).
    pub fn bind_literals(&self, literals: u64, parameters: &[u8]) -> u64 {
        literals.rotate_left(5) ^ self.key.hash_one(parameters)
    }

    /// Ends the units of sessions that fell idle. Called by the worker about once a second.
    pub fn tick(&mut self, now_us: u64) {
        for at in 0..self.units.len() as u32 {
            if self.units[at as usize].is_stale(now_us) {
                self.finish(at, now_us);
                self.release(at);
            }
        }
        self.shrink();
    }

    /// Gives memory back when most units are free.
    fn shrink(&mut self) {
        let used = self.units.iter().rposition(|unit| unit.in_use);
        let keep = used.map_or(0, |at| at + 1).max(WARM_UNITS);
        if keep * 2 >= self.units.len() {
            return;
        }
        self.units.truncate(keep);
        self.units.shrink_to_fit();
        self.free.retain(|at| at.0 < keep as u32);
        self.free.shrink_to(keep);
        self.free.reserve(keep - self.free.len());
        self.count_units();
    }

    fn count_units(&self) {
        let units = self.units.len() as u64;
        self.table.itself.units_allocated.store(units, Relaxed);
    }

    /// A unit for a session that begins to work.
    pub(crate) fn acquire(&mut self, database: u16, boundary: Boundary, caller: Option<Arc<Caller>>, now: u64) -> u32 {
        let at = self.free.pop().map_or_else(
            || {
                self.units.push(Unit::new());
                self.count_units();
                // Giving a unit back allocates nothing.
                self.free.reserve(self.units.len());
                (self.units.len() - 1) as u32
            },
            |Reverse(at)| at,
        );
        self.loans = self.loans.wrapping_add(1);
        let unit = &mut self.units[at as usize];
        unit.generation = self.loans;
        unit.in_use = true;
        unit.in_transaction = false;
        unit.database = database;
        unit.caller = caller;
        // Here and not in `restart`: within a transaction the route goes on.
        unit.running = 0;
        unit.restart(boundary, now);
        at
    }

    /// Takes a unit back.
    pub(crate) fn release(&mut self, at: u32) {
        self.units[at as usize].release(self.free.len() >= WARM_UNITS);
        self.free.push(Reverse(at));
    }

    /// Judges a unit that is over and counts it. The unit can be used again afterwards.
    pub(crate) fn finish(&mut self, at: u32, now: u64) {
        let unit = &self.units[at as usize];
        if unit.statements == 0 {
            return;
        }
        let stats = self.table.database(unit.database);
        stats.unit_queries[unit.boundary as usize].observe(&super::stats::UNIT, u64::from(unit.statements));
        stats.unit_db.observe(&super::stats::LATENCY_US, unit.server_us);
        let (repeats, evictions) = unit.watch.totals();
        bump(&stats.repeated_reads, u64::from(repeats));
        bump(&self.table.itself.slot_evictions, u64::from(evictions));
        let done = Done {
            queries: unit.statements,
            server_us: unit.server_us,
            elapsed_us: unit.last.saturating_sub(unit.started),
            repeats,
            connected: unit.connected,
        };
        let (database, route, watched) = (unit.database, unit.tags.route, unit.watch.count());
        self.route(database, route).count(&done);
        if watched >= self.shared.config.min_count {
            self.judge(at, now, false);
        }
    }

    /// Judges the runs of a unit: all of them, or those of a segment that a pause ended.
    pub(crate) fn judge(&mut self, at: u32, now: u64, segment: bool) {
        let Self { shared, units, .. } = self;
        let unit = &mut units[at as usize];
        let (sure, rested, tagged) = (unit.is_sure(), unit.rested, unit.is_tagged());
        unit.rested |= segment;
        let round_trip = if unit.shortest_gap == u64::MAX { 0 } else { unit.shortest_gap };
        let origin = super::report::Origin {
            database: unit.database,
            route: unit.tags.route,
            caller: unit.caller.as_deref(),
            application: application(&unit.caller),
            started: unit.started,
            round_trip,
            now,
            all: &[],
        };
        // Locked only when there is a loop.
        let registry = std::cell::OnceCell::new();
        let bond = |child, list| registry.get_or_init(|| lock(&shared.registry)).bond(child, list);
        let runs = if segment {
            unit.watch.end_segment(shared.config.max_period, &bond)
        } else {
            unit.watch.finish(shared.config.max_period, &bond)
        };
        drop(registry);
        let origin = super::report::Origin { all: runs.all(), ..origin };
        shared.report(&Context { config: &shared.config, sure, rested, tagged, runs: runs.ended() }, &origin);
        runs.judged();
    }

    /// The slot of a statement; registers it when it is new and its text is at hand.
    pub(crate) fn slot(
        &mut self,
        database: u16,
        statement: &Statement,
        text: Option<Text<'_>>,
        allowed: impl FnOnce() -> bool,
    ) -> u32 {
        if let Some(slot) = self.index.find(&self.table, database, statement.fingerprint) {
            return slot;
        }
        let Some(text) = text.filter(|_| statement.flags & flag::UNLEXED == 0 && allowed()) else {
            bump(&self.table.itself.overflow, 1);
            return OTHER;
        };
        let known = lock(&self.shared.registry).contains(statement.fingerprint);
        if !known {
            // Describing takes microseconds; not under the lock.
            let described = Described::new(statement, text);
            if !lock(&self.shared.registry).insert(statement.fingerprint, described) {
                bump(&self.table.itself.overflow, 1);
                return OTHER;
            }
        }
        self.index.insert(&self.table, database, statement.fingerprint, statement.operation).unwrap_or_else(|| {
            bump(&self.table.itself.overflow, 1);
            OTHER
        })
    }

    /// Counts how a statement was read.
    pub(crate) fn count_reading(&self, statement: &Statement, lexed: bool) {
        let itself = &self.table.itself;
        let counter = if statement.flags & flag::UNLEXED != 0 {
            &itself.unlexed
        } else if statement.flags & flag::TRUNCATED != 0 {
            &itself.truncated
        } else if lexed {
            &itself.lexed
        } else {
            &itself.cached
        };
        bump(counter, 1);
    }

    /// The tags in a statement's comments, as numbers.
    pub(crate) fn tags(&mut self, text: Text<'_>) -> TagSet {
        let bodies = sql::comment_bodies(text.sql);
        let hash = self.key.hash_one(bodies);
        if let Some(tags) = self.read_tags.find(hash, &bodies) {
            return tags;
        }
        let tags = self.new_tags(&bodies);
        self.read_tags.learn(hash, &bodies, tags);
        tags
    }

    fn new_tags(&mut self, bodies: &sql::CommentBodies<'_>) -> TagSet {
        let Some(found) = bodies.tags(&self.shared.config.id_tags) else {
            return TagSet::default();
        };
        let trace = found.trace_id.map_or(0, |id| self.key.hash_one(id) | 1);
        let view = found.route.or(found.controller);
        let route = view.or(found.job).map_or(0, |value| {
            let job = view.is_none();
            // The registry hears of a name once as a job and once as a view.
            let hash = value.hash() ^ u64::from(job);
            self.routes.get(&hash).copied().unwrap_or_else(|| self.new_route(hash, value, job))
        });
        TagSet { trace, id: found.id, route }
    }

    fn new_route(&mut self, hash: u64, value: sql::TagValue<'_>, job: bool) -> u32 {
        let mut buffer = [0; sql::VALUE_CAP];
        let number = lock(&self.shared.registry).route(value.write(&mut buffer), job);
        if self.routes.len() < MAX_ROUTE_CACHE {
            self.routes.insert(hash, number);
        }
        number
    }

    /// Whether a statement of transaction control is a SAVEPOINT.
    pub(crate) fn is_savepoint(&self, statement: &Statement) -> bool {
        self.savepoint == statement.fingerprint
    }

    /// What a statement did to a cursor. Only FETCH (and MOVE, which Django does not send) answers with rows.
    pub(crate) fn cursor_step(&self, statement: &Statement, rows: u64) -> CursorStep {
        if rows > 0 || self.fetches.contains(&statement.fingerprint) {
            CursorStep::Fetch
        } else if self.close == statement.fingerprint {
            CursorStep::Close
        } else {
            CursorStep::Declare
        }
    }

    /// The counters of a route.
    pub(crate) fn route(&mut self, database: u16, route: u32) -> &RouteStats {
        let slot = self.route_index.slot(&self.table.routes, database, route);
        self.table.routes.slot(slot)
    }

    /// Whether a statement of transaction control is a ROLLBACK.
    pub(crate) fn is_rollback(&self, statement: &Statement) -> bool {
        self.rollbacks.contains(&statement.fingerprint)
    }
}

/// Fingerprints of these texts.
fn fingerprints(texts: &[&str]) -> Vec<Fingerprint> {
    let settings = LexSettings { standard_conforming_strings: Some(true), safe_encoding: true };
    let mut analyzer = sql::Analyzer::new([0; 2]);
    let mut found = Vec::new();
    for text in texts {
        analyzer.analyze(RawSql(text.as_bytes()), settings, |statement, _| found.push(statement.fingerprint));
    }
    found
}
