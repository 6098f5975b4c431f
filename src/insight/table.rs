//! Counters of each fingerprint, one table per worker.
//!
//! Single writer: only the owning worker adds, with relaxed load and store (no locked instruction); the scraper
//! reads whenever it likes. Counters are never set back, not even when a slot gets a new owner: the publisher adds
//! differences, so sums over all series stay exact.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::*};
use std::sync::{Mutex, atomic::AtomicUsize};

use hashbrown::HashTable;

use super::stats::DbStats;
use super::{MAX_DATABASES, lock};
use crate::sql::{Fingerprint, Operation};

/// Slots are allocated in chunks of this many, so that a small application costs little.
const CHUNK: usize = 128;

/// Slot number of statements that have none (table full, minting client): counted under `other`.
pub(crate) const OTHER: u32 = 0;

const LIVE: u8 = 0;
const RETIRED: u8 = 1;

/// Adds to a counter that only this thread writes.
#[inline]
pub(crate) fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

/// The counters of one (database, fingerprint). Times in microseconds.
#[derive(Default)]
pub(crate) struct Entry {
    pub(crate) fingerprint: AtomicU64,
    pub(crate) database: AtomicU32,
    pub(crate) operation: AtomicU8,
    state: AtomicU8,
    pub(crate) calls: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) time_us: AtomicU64,
    pub(crate) max_us: AtomicU64,
}

/// A reading of an [`Entry`].
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counters {
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) time_us: u64,
}

impl Counters {
    pub(crate) fn minus(self, old: Self) -> Self {
        Self {
            calls: self.calls.wrapping_sub(old.calls),
            errors: self.errors.wrapping_sub(old.errors),
            rows: self.rows.wrapping_sub(old.rows),
            bytes: self.bytes.wrapping_sub(old.bytes),
            time_us: self.time_us.wrapping_sub(old.time_us),
        }
    }

    pub(crate) fn add(&mut self, more: Self) {
        self.calls += more.calls;
        self.errors += more.errors;
        self.rows += more.rows;
        self.bytes += more.bytes;
        self.time_us += more.time_us;
    }
}

impl Entry {
    pub(crate) fn read(&self) -> Counters {
        Counters {
            calls: self.calls.load(Relaxed),
            errors: self.errors.load(Relaxed),
            rows: self.rows.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            time_us: self.time_us.load(Relaxed),
        }
    }
}

type Chunk = Box<[Entry]>;

/// What one worker counts, shared with the scraper.
pub(crate) struct WorkerTable {
    chunks: Box<[OnceLock<Chunk>]>,
    /// Slots in use, slot [`OTHER`] included.
    len: AtomicUsize,
    limit: usize,
    databases: Box<[OnceLock<Box<DbStats>>]>,
    /// Slots that the sweep retired, for the worker to take again.
    free: Mutex<Vec<u32>>,
    pub(crate) itself: SelfStats,
}

/// What insight knows of itself.
#[derive(Default)]
pub(crate) struct SelfStats {
    pub(crate) lexed: AtomicU64,
    pub(crate) cached: AtomicU64,
    pub(crate) truncated: AtomicU64,
    pub(crate) unlexed: AtomicU64,
    pub(crate) disabled: AtomicU64,
    pub(crate) nanos: AtomicU64,
    pub(crate) slot_evictions: AtomicU64,
    /// Units of work that this worker ever needed at once.
    pub(crate) units_allocated: AtomicU64,
    pub(crate) overflow: AtomicU64,
}

impl WorkerTable {
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.max(1) + 1;
        let table = Self {
            chunks: (0..limit.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect(),
            len: AtomicUsize::new(1),
            limit,
            databases: (0..MAX_DATABASES).map(|_| OnceLock::new()).collect(),
            free: Mutex::new(Vec::new()),
            itself: SelfStats::default(),
        };
        table.chunk(0);
        table
    }

    fn chunk(&self, number: usize) -> &[Entry] {
        let number = number.min(self.chunks.len() - 1);
        self.chunks[number].get_or_init(|| (0..CHUNK).map(|_| Entry::default()).collect())
    }

    #[inline]
    pub(crate) fn entry(&self, slot: u32) -> &Entry {
        let slot = slot as usize;
        &self.chunk(slot / CHUNK)[slot % CHUNK]
    }

    /// The histograms of a database.
    #[inline]
    pub(crate) fn database(&self, id: u16) -> &DbStats {
        let id = usize::from(id).min(MAX_DATABASES - 1);
        self.databases[id].get_or_init(|| Box::new(DbStats::default()))
    }

    /// The histograms of a database, if this worker ever served it.
    pub(crate) fn database_if_any(&self, id: usize) -> Option<&DbStats> {
        self.databases.get(id).and_then(|cell| cell.get()).map(|stats| &**stats)
    }

    /// Number of slots in use, [`OTHER`] included.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Acquire)
    }

    /// Takes a slot back from its owner (scraper's side). The worker may still revive it by using it.
    pub(crate) fn retire(&self, slot: u32) {
        if slot == OTHER || self.entry(slot).state.swap(RETIRED, Relaxed) == RETIRED {
            return;
        }
        lock(&self.free).push(slot);
    }

    pub(crate) fn is_retired(&self, slot: u32) -> bool {
        self.entry(slot).state.load(Relaxed) == RETIRED
    }
}

/// The worker's own index into its table: not shared, so no locks.
pub(crate) struct Index {
    /// (hash key, slot)
    map: HashTable<(u64, u32)>,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self { map: HashTable::with_capacity(256) }
    }

    #[inline]
    fn key(database: u16, fingerprint: Fingerprint) -> u64 {
        // The fingerprint is a hash already; the database only has to move it.
        fingerprint.0 ^ u64::from(database).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    /// The slot of a known statement. Reviving a retired slot is the only write.
    #[inline]
    pub(crate) fn find(&self, table: &WorkerTable, database: u16, fingerprint: Fingerprint) -> Option<u32> {
        let key = Self::key(database, fingerprint);
        let slot = self.map.find(key, |entry| entry.0 == key)?.1;
        let state = &table.entry(slot).state;
        if state.load(Relaxed) != LIVE {
            state.store(LIVE, Relaxed);
        }
        Some(slot)
    }

    /// A slot for a statement never seen before, or `None` when the table is full. Cold: may lock and allocate.
    pub(crate) fn insert(
        &mut self,
        table: &WorkerTable,
        database: u16,
        fingerprint: Fingerprint,
        operation: Operation,
    ) -> Option<u32> {
        let slot = match self.reuse(table) {
            Some(slot) => slot,
            None => {
                let next = table.len.load(Relaxed);
                if next >= table.limit {
                    return None;
                }
                table.chunk(next / CHUNK);
                next as u32
            }
        };
        let entry = table.entry(slot);
        entry.fingerprint.store(fingerprint.0, Relaxed);
        entry.database.store(u32::from(database), Relaxed);
        entry.operation.store(super::stats::operation_index(operation) as u8, Relaxed);
        entry.max_us.store(0, Relaxed);
        entry.state.store(LIVE, Relaxed);
        let key = Self::key(database, fingerprint);
        self.map.insert_unique(key, (key, slot), |entry| entry.0);
        if slot as usize >= table.len.load(Relaxed) {
            table.len.store(slot as usize + 1, Release);
        }
        Some(slot)
    }

    /// A retired slot that nobody used since, taken out of the index.
    fn reuse(&mut self, table: &WorkerTable) -> Option<u32> {
        let mut free = lock(&table.free);
        while let Some(slot) = free.pop() {
            let entry = table.entry(slot);
            if entry.state.load(Relaxed) != RETIRED {
                continue;
            }
            let key = Self::key(entry.database.load(Relaxed) as u16, Fingerprint(entry.fingerprint.load(Relaxed)));
            if let Ok(found) = self.map.find_entry(key, |entry| entry.0 == key) {
                found.remove();
            }
            return Some(slot);
        }
        None
    }
}
