//! Counters of each route: units of work (requests, jobs), their statements and time. One table a worker, one writer.

use std::hash::BuildHasher;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::*};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::stats::{Histogram, LATENCY_US, UNIT};
use super::table::bump;

/// (database, route) pairs counted apart; the rest is counted under the first slot, as `other` of the first database.
const MAX_SLOTS: usize = 1_024;

/// What units of one (database, route) did. Times in microseconds.
#[derive(Default)]
pub(crate) struct RouteStats {
    pub(crate) database: AtomicU32,
    /// Number in the registry; 0 for untagged units.
    pub(crate) route: AtomicU32,
    pub(crate) queries: AtomicU64,
    pub(crate) server_us: AtomicU64,
    /// From the first statement to the last answer.
    pub(crate) elapsed_us: AtomicU64,
    /// Reads that repeat another of their unit with no write in between.
    pub(crate) repeats: AtomicU64,
    /// Units that began with a new connection.
    pub(crate) connections: AtomicU64,
    pub(crate) most_queries: AtomicU64,
    /// Transactions with very many savepoints, and most savepoints of one.
    pub(crate) savepoint_storms: AtomicU64,
    pub(crate) most_savepoints: AtomicU64,
    pub(crate) unit_queries: Histogram<11>,
    pub(crate) unit_db: Histogram<14>,
}

/// One unit that is over.
pub(crate) struct Done {
    pub(crate) queries: u32,
    pub(crate) server_us: u64,
    pub(crate) elapsed_us: u64,
    pub(crate) repeats: u32,
    pub(crate) connected: bool,
}

impl RouteStats {
    pub(crate) fn count(&self, done: &Done) {
        bump(&self.queries, done.queries.into());
        bump(&self.server_us, done.server_us);
        bump(&self.elapsed_us, done.elapsed_us);
        bump(&self.repeats, done.repeats.into());
        bump(&self.connections, done.connected.into());
        raise(&self.most_queries, done.queries.into());
        self.unit_queries.observe(&UNIT, done.queries.into());
        self.unit_db.observe(&LATENCY_US, done.server_us);
    }

    /// A transaction ended that had very many savepoints.
    pub(crate) fn stormed(&self, savepoints: u64) {
        bump(&self.savepoint_storms, 1);
        raise(&self.most_savepoints, savepoints);
    }
}

fn raise(most: &AtomicU64, to: u64) {
    most.store(most.load(Relaxed).max(to), Relaxed);
}

/// All routes of one worker.
pub(crate) struct RouteTable {
    slots: Box<[OnceLock<Box<RouteStats>>]>,
    len: AtomicUsize,
}

impl RouteTable {
    pub(crate) fn new() -> Self {
        Self { slots: (0..MAX_SLOTS).map(|_| OnceLock::new()).collect(), len: AtomicUsize::new(1) }
    }

    /// The counters of a slot.
    pub(crate) fn slot(&self, slot: u32) -> &RouteStats {
        self.slots[slot as usize % MAX_SLOTS].get_or_init(Box::default)
    }

    /// All slots that were ever used.
    pub(crate) fn all(&self) -> impl Iterator<Item = &RouteStats> {
        self.slots[..self.len.load(Acquire)].iter().filter_map(|slot| slot.get()).map(|stats| &**stats)
    }

    /// Approximate memory held.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<OnceLock<Box<RouteStats>>>() + self.len.load(Relaxed) * size_of::<RouteStats>()
    }
}

/// The worker's index into its table.
pub(crate) struct RouteIndex {
    map: HashTable<((u16, u32), u32)>,
    hasher: RandomState,
}

impl RouteIndex {
    pub(crate) fn new() -> Self {
        Self { map: HashTable::new(), hasher: RandomState::default() }
    }

    /// The slot of a route; a new one when it was never seen and there is room.
    pub(crate) fn slot(&mut self, table: &RouteTable, database: u16, route: u32) -> u32 {
        let key = (database, route);
        let hash = self.hasher.hash_one(key);
        if let Some((_, slot)) = self.map.find(hash, |(known, _)| *known == key) {
            return *slot;
        }
        let next = table.len.load(Relaxed);
        if next >= MAX_SLOTS {
            table.slot(0).route.store(super::registry::OTHER_ROUTE, Relaxed);
            return 0;
        }
        let stats = table.slot(next as u32);
        stats.database.store(database.into(), Relaxed);
        stats.route.store(route, Relaxed);
        table.len.store(next + 1, Release);
        let hasher = &self.hasher;
        self.map.insert_unique(hash, (key, next as u32), |(key, _)| hasher.hash_one(key));
        next as u32
    }
}
