//! Counters of each fingerprint, one table per worker.
//!
//! Single writer: only the owning worker adds, with relaxed load and store (no locked instruction); the scraper
//! reads whenever it likes. Counters are never set back, not even when a slot gets a new owner: the publisher adds
//! differences, so sums over all series stay exact.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::*};
use std::sync::{Mutex, atomic::AtomicUsize};

use hashbrown::HashTable;

use super::latency::Latency;
use super::routes::RouteTable;
use super::sketch::Sketch;
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

/// Rows of one execution that are many, and bytes.
pub(crate) const MANY_ROWS: u64 = 1_000;
pub(crate) const MANY_BYTES: u64 = 1 << 20;
/// Routes remembered of one statement.
pub(crate) const ROUTES: usize = 4;

/// The same for a small one. Stays at its end.
#[inline]
pub(crate) fn bump32(counter: &AtomicU32, by: u32) {
    counter.store(counter.load(Relaxed).saturating_add(by), Relaxed);
}

/// The counters of one (database, fingerprint). Times in microseconds.
///
/// Those up to `max_us` are never set back ([`Counters`] are folded by differences); the others begin anew with a new
/// owner, and are read as they are.
#[derive(Default)]
pub(crate) struct Entry {
    pub(crate) fingerprint: AtomicU64,
    pub(crate) database: AtomicU32,
    pub(crate) operation: AtomicU8,
    state: AtomicU8,
    /// More routes than [`Entry::routes`] has room for.
    pub(crate) more_routes: AtomicU8,
    pub(crate) calls: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) time_us: AtomicU64,
    pub(crate) max_us: AtomicU64,
    pub(crate) latency: Latency,
    /// The first routes it ran in: 16 bits each, 0 for none.
    routes: AtomicU64,
    /// Long pauses of the client inside a transaction with this as its last statement.
    pub(crate) idle_us: AtomicU64,
    pub(crate) idle_count: AtomicU32,
    pub(crate) idle_max_ms: AtomicU32,
    /// Executions with [`MANY_ROWS`] or [`MANY_BYTES`].
    pub(crate) large: AtomicU32,
    /// Parse messages, and different texts among them (linear counting).
    pub(crate) parses: AtomicU32,
    pub(crate) texts: AtomicU64,
    /// Which literals it is asked with; made by the sweep for statements asked often.
    pub(crate) sketch: OnceLock<Box<Sketch>>,
}

/// Memory of a fingerprint on each worker: what the limit of fingerprints bounds.
const _: () = assert!(std::mem::size_of::<Entry>() <= 256);

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
    /// Counts one answered execution.
    #[inline]
    pub(crate) fn completed(&self, us: u64, rows: u64, bytes: u64, route: u32, literals: u64) {
        bump(&self.calls, 1);
        bump(&self.time_us, us);
        bump(&self.rows, rows);
        bump(&self.bytes, bytes);
        if us > self.max_us.load(Relaxed) {
            self.max_us.store(us, Relaxed);
        }
        self.latency.observe(us);
        if rows >= MANY_ROWS || bytes >= MANY_BYTES {
            bump32(&self.large, 1);
        }
        if route != 0 {
            self.note_route(route as u16);
        }
        if let Some(sketch) = self.sketch.get() {
            sketch.observe(literals);
        }
    }

    /// Remembers the first few routes.
    #[inline]
    fn note_route(&self, route: u16) {
        let seen = self.routes.load(Relaxed);
        for lane in 0..ROUTES {
            match (seen >> (16 * lane)) as u16 {
                known if known == route => return,
                0 => return self.routes.store(seen | u64::from(route) << (16 * lane), Relaxed),
                _ => {}
            }
        }
        self.more_routes.store(1, Relaxed);
    }

    /// The routes it ran in, as far as remembered.
    pub(crate) fn routes(&self) -> impl Iterator<Item = u32> {
        let seen = self.routes.load(Relaxed);
        (0..ROUTES).map(move |lane| u32::from((seen >> (16 * lane)) as u16)).filter(|route| *route != 0)
    }

    /// The client let a transaction idle for long after this.
    pub(crate) fn idled(&self, us: u64) {
        bump(&self.idle_us, us);
        bump32(&self.idle_count, 1);
        let ms = u32::try_from(us / 1_000).unwrap_or(u32::MAX);
        self.idle_max_ms.store(self.idle_max_ms.load(Relaxed).max(ms), Relaxed);
    }

    /// A Parse of this statement; `text` is a hash of what its text has besides the fingerprint.
    #[inline]
    pub(crate) fn parsed(&self, text: u64) {
        bump32(&self.parses, 1);
        let bit = 1 << (text.wrapping_mul(super::run::SPREAD) >> 58);
        let texts = self.texts.load(Relaxed);
        if texts & bit == 0 {
            self.texts.store(texts | bit, Relaxed);
        }
    }

    /// A new owner: all that is not folded by differences begins anew. By the worker only.
    fn begin_anew(&self) {
        self.max_us.store(0, Relaxed);
        self.latency.clear();
        self.more_routes.store(0, Relaxed);
        for counter in [&self.routes, &self.idle_us, &self.texts] {
            counter.store(0, Relaxed);
        }
        for counter in [&self.idle_count, &self.idle_max_ms, &self.large, &self.parses] {
            counter.store(0, Relaxed);
        }
        if let Some(sketch) = self.sketch.get() {
            sketch.clear();
        }
    }

    /// Whose entry it is.
    pub(crate) fn key(&self) -> (u16, u64) {
        (self.database.load(Relaxed) as u16, self.fingerprint.load(Relaxed))
    }

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
    /// Units of work by route.
    pub(crate) routes: RouteTable,
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
            routes: RouteTable::new(),
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

    /// Approximate memory held.
    pub(crate) fn bytes(&self) -> usize {
        let entries = self.chunks.iter().filter(|chunk| chunk.get().is_some()).count() * CHUNK;
        let databases = self.databases.iter().filter(|cell| cell.get().is_some()).count();
        let sketches = (0..self.len() as u32).filter(|slot| self.entry(*slot).sketch.get().is_some()).count();
        entries * size_of::<Entry>()
            + databases * size_of::<DbStats>()
            + sketches * size_of::<Sketch>()
            + self.routes.bytes()
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
        entry.begin_anew();
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
