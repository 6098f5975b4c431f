//! What the ORM does to the database: units of work, runs, findings, advice, and the bounded registry behind them.
//!
//! ```text
//!  client session ── begin / complete / ready ──> SessionInsight ─┐
//!                                                                  ├─> WorkerInsight (one per thread, no locks)
//!  unit.rs   which statements belong together (boundaries)         │      table.rs  counters per fingerprint
//!  watch.rs, runs.rs, run.rs   repeats inside a unit               │      stats.rs  histograms per database
//!  judge.rs  what a run is: kind, confidence, cost, severity  <────┘
//!  report.rs cool-down, the log line; findings.rs, event.rs; advice.rs and wording.rs Django's words
//!  publish.rs ranking, top-K series; render.rs and page.rs Prometheus text; views.rs what the console and JSON show
//! ```
//!
//! Invariants: nothing here holds or shows a literal (texts come from [`crate::sql`]'s literal-free form only);
//! every table, queue and label set has a limit; a known statement allocates nothing and takes no lock; the
//! detector only reads what passes by, so a fault in it costs an observation, never an answer.

mod advice;
mod bond;
mod describe;
mod event;
mod exact;
mod facts;
mod findings;
mod history;
mod judge;
mod latency;
mod mend;
mod names;
mod overview;
mod page;
mod paths;
mod publish;
mod queries;
mod reach;
mod registry;
mod render;
mod report;
mod routes;
mod run;
mod runs;
mod sample;
mod seen;
mod session;
mod sketch;
mod stats;
mod table;
mod tags;
mod unit;
mod views;
mod watch;
mod wording;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::config::InsightConfig;
use crate::sql::{LexSettings, RawSql};

pub use advice::Relation;
pub(crate) use advice::bare;
pub(crate) use describe::Described;
pub use event::{BurstEvent, Evidence};
pub(crate) use facts::{Facts, StatementFacts};
pub use history::{FindingPart, Interval, IntervalTotals, MAX_INTERVALS, StatementPart};
pub use judge::{Confidence, Kind, Severity};
pub(crate) use names::{field, model};
pub use overview::{Health, RouteView, TableView};
pub use queries::{FingerprintOrder, FingerprintView, Wanted};
pub use sample::{Role, Sample, Step};
pub use session::{Begin, SessionInsight};
pub use tags::TagSet;
pub use views::FindingView;
pub use worker::WorkerInsight;

/// Databases that have series of their own; later names share the last id, shown as `other`.
pub const MAX_DATABASES: usize = 64;

/// A database's number inside insight. Names are interned once; the number is what the hot path carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DatabaseId(pub(crate) u16);

/// Instants of one statement, microseconds of one monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// The client's message was complete.
    pub received_us: u64,
    /// The session had a server connection.
    pub server_us: u64,
    /// The message was written to the server.
    pub sent_us: u64,
}

/// SQL text together with how to read it. Like [`RawSql`] it has no `Debug`.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    /// As the client sent it.
    pub sql: RawSql<'a>,
    /// How the session's settings make it to be read.
    pub lex: LexSettings,
}

/// Called with every burst, whatever the cool-down (tests, evaluation, event streams).
pub type BurstSink = Box<dyn Fn(&BurstEvent<'_>) + Send + Sync>;

/// The process-wide part of insight: names, texts, findings, series. Shared by all workers and the scraper.
pub struct Insight {
    pub(crate) config: InsightConfig,
    enabled: AtomicBool,
    databases: RwLock<Vec<Arc<str>>>,
    workers: Mutex<Vec<Arc<table::WorkerTable>>>,
    pub(crate) registry: Mutex<registry::Registry>,
    pub(crate) findings: Mutex<findings::Findings>,
    publisher: Mutex<publish::Publisher>,
    pub(crate) history: Mutex<history::History>,
    sink: RwLock<Option<BurstSink>>,
    catalogs: exact::Catalogs,
}

/// Locks without poisoning: a panic in one session must not silence insight for the others.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Insight {
    /// Insight with these settings; workers are added by [`Insight::worker`].
    pub fn new(config: &InsightConfig) -> Arc<Self> {
        Arc::new(Self {
            config: config.clone(),
            enabled: AtomicBool::new(config.enabled),
            databases: RwLock::new(Vec::new()),
            workers: Mutex::new(Vec::new()),
            registry: Mutex::new(registry::Registry::new(config.max_fingerprints)),
            findings: Mutex::new(findings::Findings::new(config.max_findings)),
            publisher: Mutex::new(publish::Publisher::new(config)),
            history: Mutex::default(),
            sink: RwLock::new(None),
            catalogs: exact::Catalogs::default(),
        })
    }

    /// The part of insight that one worker thread owns.
    pub fn worker(self: &Arc<Self>) -> WorkerInsight {
        let table = Arc::new(table::WorkerTable::new(self.config.max_fingerprints));
        lock(&self.workers).push(Arc::clone(&table));
        WorkerInsight::new(Arc::clone(self), table)
    }

    /// Whether statements are looked at. When off, begin and complete return at once.
    pub fn enabled(&self) -> bool {
        self.enabled.load(Relaxed)
    }

    /// Switches insight on or off while traffic runs.
    pub fn set_enabled(&self, on: bool) {
        self.enabled.store(on, Relaxed);
    }

    /// The id of a database name. Beyond [`MAX_DATABASES`] names all share `other`.
    pub fn database(&self, name: &str) -> DatabaseId {
        let mut names = self.databases.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = names.iter().position(|known| &**known == name) {
            return DatabaseId(at as u16);
        }
        if names.len() + 1 < MAX_DATABASES {
            names.push(Arc::from(name));
        } else if names.len() < MAX_DATABASES {
            names.push(Arc::from("other"));
        }
        DatabaseId((names.len() - 1) as u16)
    }

    /// The name behind an id.
    pub(crate) fn database_name(&self, id: u16) -> Arc<str> {
        let names = self.databases.read().unwrap_or_else(PoisonError::into_inner);
        names.get(usize::from(id)).cloned().unwrap_or_else(|| Arc::from("other"))
    }

    /// The name of a route by its number in [`SessionInsight::route`].
    pub fn route_name(&self, number: u32) -> Option<Arc<str>> {
        lock(&self.registry).route_name(number)
    }

    /// All database names in the order of their ids.
    pub(crate) fn database_names(&self) -> Vec<Arc<str>> {
        self.databases.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls `sink` with every burst from now on, on the thread of the worker that saw it.
    pub fn set_burst_sink(&self, sink: BurstSink) {
        *self.sink.write().unwrap_or_else(PoisonError::into_inner) = Some(sink);
    }

    /// The tables of all workers.
    pub(crate) fn tables(&self) -> Vec<Arc<table::WorkerTable>> {
        lock(&self.workers).clone()
    }

    pub(crate) fn emit(&self, burst: &BurstEvent<'_>) {
        if let Some(sink) = &*self.sink.read().unwrap_or_else(PoisonError::into_inner) {
            sink(burst);
        }
    }
}

#[cfg(test)]
mod tests;
