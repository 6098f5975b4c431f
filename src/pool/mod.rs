//! Pools of server connections, one per (database, user): checkout, waiting, release.
//!
//! `deadpool::unmanaged` is the idle list (last in, first out) and the FIFO of waiters; how many servers exist is
//! decided here and by the [`keeper`]. A [`Checkout`] owns its server: dropping one without [`Checkout::release`]
//! closes the connection, so that a panic or a forgotten path can never pool a server in doubt. Session pooling has
//! rules of its own, in `session.rs`.

pub mod checkout;
pub mod directory;
pub mod holders;
pub mod keeper;
pub mod period;
pub mod pin;
pub mod registry;
pub mod replication;
mod session;
pub mod stats;
pub mod welcome;
mod wild;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use arc_swap::ArcSwap;
use deadpool::unmanaged;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

pub use checkout::{Checkout, CheckoutError};
pub use directory::{Directory, Found, Source};
pub use pin::Pin;
pub use registry::{Pools, Trial, Unknown};
pub use stats::{Histogram, Stats};

use crate::auth::{AuthContext, Secret};
use crate::config::{PoolMode, PoolSettings};
use crate::net::clock::now_us;
use crate::net::{Aside, TlsFiles};
use crate::server::{ConnectError, ParamSet, Params, Proof, Schema, Server, ServerInfo, StatementCache, Target};

/// What pools share.
pub struct Shared {
    /// How servers are asked for TLS.
    pub tls: Arc<TlsFiles>,
    /// Keys of the process and derived secrets.
    pub auth: Arc<AuthContext>,
    /// Where logins at servers derive keys: not where clients' do, so that neither waits for a crowd of the other.
    pub aside: Arc<Aside>,
    /// Users that are known, and their secrets: a reload brings others.
    pub users: Arc<ArcSwap<BTreeMap<String, Secret>>>,
    /// Users that are looked up in databases.
    pub directory: Directory,
    /// Interned parameter sets.
    pub params: Params,
    /// Shared prepared statements.
    pub statements: StatementCache,
    /// Number of workers, for the shape of [`Stats`].
    pub workers: usize,
}

/// One pool.
pub struct Pool {
    /// Database name as clients say it.
    pub database: Arc<str>,
    /// User name as clients say it.
    pub user: Arc<str>,
    /// Settings.
    pub settings: PoolSettings,
    /// Where its servers are.
    pub target: Target,
    /// What pools share.
    pub shared: Arc<Shared>,
    /// Per-worker counters; the worker writes its own.
    pub stats: Box<[Stats]>,
    /// Under what its prepared statements are shared, and the state of its database's schema.
    pub schema: Schema,
    /// Values that servers report, by startup parameters.
    pub welcomes: welcome::Welcomes,
    /// Clients logged in to it.
    pub clients: AtomicUsize,
    /// Clients that keep their server between transactions.
    pub pinned: pin::Pinned,
    idle: unmanaged::Pool<Box<Pooled>>,
    book: Mutex<Book>,
    /// Session pooling: one permit for each server that may be other than idle; see [`session`].
    places: Arc<Semaphore>,
    /// Held while idle servers are looked through, and are out of the list for moments.
    sifting: Mutex<()>,
    /// Wakes the keeper.
    wanted: Arc<Notify>,
    /// Wakes waiters to look at a failure.
    failure: Notify,
    keeper_runs: AtomicBool,
    /// Asked to open a server before any client needs one, and none has been opened yet.
    warming: AtomicBool,
}

/// A server and its place in the count.
pub(crate) struct Pooled {
    pub(crate) server: Server,
    /// Dropped after the server's socket: the count falls when the connection is gone.
    slot: Slot,
}

/// One place in `pool_size`, held while a server is open or being opened.
pub(crate) struct Slot {
    pool: Weak<Pool>,
    info: Option<Arc<ServerInfo>>,
    /// Session pooling: given up when the server is idle, or (the last field) no longer counted.
    place: Option<OwnedSemaphorePermit>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            let mut book = pool.book();
            book.open = book.open.saturating_sub(1);
            if let Some(info) = &self.info {
                book.servers.retain(|s| !Arc::ptr_eq(s, info));
            }
            drop(book);
            pool.wanted.notify_one();
        }
    }
}

/// Who is there. Locked for moments, never across a wait.
#[derive(Default)]
struct Book {
    /// Servers open or being opened.
    open: usize,
    /// Of these, being opened.
    connecting: usize,
    /// Open servers.
    servers: Vec<Arc<ServerInfo>>,
    /// Servers of replication clients, which are beside these, with the word for their kind.
    replication: Vec<(Arc<ServerInfo>, &'static str)>,
    /// Waiting clients in the order of their numbers: number, since (monotonic microseconds).
    waiting: VecDeque<(u64, u64)>,
    /// Number of the last client that had to wait.
    last_waiter: u64,
    /// The last attempt failed.
    failure: Option<Failure>,
    /// Session pooling: what the last server given to a client was opened with.
    startup: Arc<ParamSet>,
}

/// A failed attempt to connect.
#[derive(Clone)]
struct Failure {
    error: ConnectError,
    /// No attempt before this (monotonic microseconds).
    retry_us: u64,
    /// Pause that led to `retry_us`, microseconds.
    pause_us: u64,
}

/// First pause after a failed connect.
const FIRST_PAUSE_US: u64 = 100_000;

/// From here on waiting clients give their buffers back (1 MiB of them until then).
const MANY: usize = 64;

/// A look at a pool for SHOW and metrics.
#[derive(Clone, Debug, Default)]
pub struct PoolView {
    /// Servers by state word.
    pub active: usize,
    /// Idle servers.
    pub idle: usize,
    /// Servers being cleaned.
    pub tested: usize,
    /// Servers held back for a cancel.
    pub being_canceled: usize,
    /// Servers being opened.
    pub login: usize,
    /// Clients waiting for a server.
    pub waiting: usize,
    /// How long the longest of them has waited, microseconds.
    pub longest_wait_us: u64,
    /// How long the oldest transaction has been open, microseconds; `None` without any.
    pub oldest_transaction_us: Option<u64>,
}

impl Pool {
    /// A pool without servers. Its keeper starts with the first need ([`keeper::ensure`]).
    pub fn new(database: &str, user: &str, settings: PoolSettings, target: Target, shared: Arc<Shared>) -> Arc<Pool> {
        let schema = shared.statements.schema(&format!("{}:{}/{}", target.host, target.port, target.dbname));
        Arc::new(Pool {
            database: database.into(),
            user: user.into(),
            idle: unmanaged::Pool::new(settings.pool_size.max(1)),
            places: Arc::new(Semaphore::new(settings.pool_size.max(1))),
            sifting: Mutex::default(),
            settings,
            target,
            stats: (0..shared.workers).map(|_| Stats::default()).collect(),
            shared,
            schema,
            welcomes: welcome::Welcomes::default(),
            clients: AtomicUsize::new(0),
            pinned: pin::Pinned::default(),
            book: Mutex::default(),
            wanted: Arc::default(),
            failure: Notify::new(),
            keeper_runs: AtomicBool::new(false),
            warming: AtomicBool::new(false),
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing panics while it is held; if something did, counts are still the best there is.
        self.book.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Nobody else looks through the idle servers while it is held.
    fn sift(&self) -> MutexGuard<'_, ()> {
        self.sifting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Room in `pool_size` for a new server, when there is any.
    fn reserve(self: &Arc<Self>) -> Option<Slot> {
        let mut book = self.book();
        if book.open >= self.settings.pool_size {
            return None;
        }
        book.open += 1;
        Some(Slot { pool: Arc::downgrade(self), info: None, place: None })
    }

    /// A place and a connection become a pooled server.
    fn enroll(&self, mut slot: Slot, mut server: Server) -> Box<Pooled> {
        let now = now_us();
        let mut book = self.book();
        server.expires_us = self.expiry(now, server.info.id);
        server.idle_since_us = now;
        if let Some(name) = server.reported(b"application_name") {
            server.info.set_application(name);
        }
        self.welcomes.opened(&server);
        book.servers.push(Arc::clone(&server.info));
        book.failure = None;
        self.warming.store(false, Relaxed);
        slot.info = Some(Arc::clone(&server.info));
        Box::new(Pooled { server, slot })
    }

    /// Lifetimes are spread over a quarter, so that servers opened together do not all close together.
    fn expiry(&self, now: u64, id: u64) -> u64 {
        let life = self.settings.server_lifetime.as_micros() as u64;
        if life == 0 {
            return u64::MAX;
        }
        let spread = life / 4;
        let share = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        now + life - (u128::from(spread) * u128::from(share) / u128::from(u32::MAX)) as u64
    }

    /// Opens a first server (or `min_pool_size`) now, and tries until that has worked. Call it on a worker.
    pub fn warm(self: &Arc<Self>) {
        self.warming.store(true, Relaxed);
        keeper::ensure(self);
        self.wanted.notify_one();
    }

    /// Whether [`Self::warm`] was called and the database has not been reached since.
    pub fn warming(&self) -> bool {
        self.warming.load(Relaxed)
    }

    /// Notes a failed connect and tells waiters, unless open servers may still serve them. `tried`: what a client had proved,
    /// where that was all there was to log in with.
    fn note_failure(&self, error: &ConnectError, tried: Option<&Arc<Proof>>) {
        let longest = (self.settings.server_login_retry.as_micros() as u64).max(FIRST_PAUSE_US);
        let mut book = self.book();
        let pause_us = book.failure.as_ref().map_or(FIRST_PAUSE_US, |f| (f.pause_us * 2).min(longest));
        book.failure = Some(Failure { error: error.clone(), retry_us: now_us() + pause_us, pause_us });
        drop(book);
        if let Some(learnt) = self.target.learnt.as_ref().filter(|_| error.label() == "auth") {
            learnt.doubt();
            if let Some(tried) = tried.filter(|_| error.is_wrong_password()) {
                learnt.refused(tried);
            }
            self.shared.directory.distrust(&self.database, &self.user);
        }
        self.failure.notify_waiters();
        let fields = error.fields(&self.target);
        let mend = fields.hint.filter(|_| matches!(error, ConnectError::Tls { .. })).unwrap_or_default();
        tracing::warn!(target: "pgsluice::server", database = %self.database.escape_debug(), user = %self.user.escape_debug(),
            error = %fields.message.replace(char::is_control, " "), mend,
            retry_ms = pause_us / 1000, "cannot open a server connection");
    }

    /// A reload has brought this secret for logins at the server; sessions and servers that are there stay.
    pub fn renew(&self, secret: Option<Secret>) {
        if self.target.secret.load().as_deref() == secret.as_ref() {
            return;
        }
        self.target.secret.store(secret.map(Arc::new));
        // What clients proved, they proved of the old one.
        if let Some(learnt) = &self.target.learnt {
            learnt.forget();
        }
        self.try_anew();
    }

    /// A client has proved to be this pool's user: servers are logged in to with the newest proof from now on.
    pub fn learn(&self, proof: Proof) {
        if self.target.learnt.as_ref().is_some_and(|learnt| learnt.learn(proof)) {
            self.try_anew();
        }
    }

    /// Takes a server that was opened to try a password, as if the keeper had opened it; where there is no room it is closed.
    /// Call it on the worker that opened it.
    pub fn adopt(self: &Arc<Self>, server: Server) {
        let slot = if self.session_mode() { self.reserve_with_place() } else { self.reserve() };
        let Some(slot) = slot else { return };
        keeper::ensure(self);
        self.put_idle(self.enroll(slot, server), now_us());
    }

    /// There is something else to log in with: a failure with what there was says nothing of it.
    fn try_anew(&self) {
        self.book().failure.take_if(|failure| failure.error.label() == "auth");
        self.wanted.notify_one();
    }

    /// Counts an attempt of this worker to open a server, begun at `began_us`. On `worker`'s own thread only.
    fn count_connect(&self, worker: usize, began_us: u64, result: Result<(), &ConnectError>) {
        let Some(stats) = self.stats.get(worker) else {
            return;
        };
        let label = result.map_or_else(ConnectError::label, |()| "ok");
        let i = stats::CONNECT_RESULTS.iter().position(|r| *r == label).unwrap_or(stats::CONNECT_RESULTS.len() - 1);
        stats.connects[i].add(1);
        if result.is_ok() {
            stats.connect.record(now_us().saturating_sub(began_us));
        }
    }

    /// Why the last attempt to open a server failed (a label of [`stats::CONNECT_RESULTS`]), if it did so within the
    /// last `within_us`. Older failures say nothing: nobody may have tried since.
    pub fn failed_within(&self, within_us: u64) -> Option<&'static str> {
        let book = self.book();
        let f = book.failure.as_ref()?;
        let age = (now_us() + f.pause_us).saturating_sub(f.retry_us);
        (age <= within_us).then(|| f.error.label())
    }

    /// The error to fail with at once: the last attempt failed, no server is open, and the back-off has not passed.
    fn failing(&self) -> Option<ConnectError> {
        let book = self.book();
        let f = book.failure.as_ref()?;
        let open = book.open - book.connecting.min(book.open);
        (open == 0 && now_us() < f.retry_us && !starting_up(&f.error)).then(|| f.error.clone())
    }

    /// Puts a clean server into the idle list; the oldest waiter gets it.
    fn put_idle(&self, mut pooled: Box<Pooled>, now: u64) {
        pooled.server.idle_since_us = now;
        pooled.server.info.set_state(crate::server::ServerState::Idle, 0, now);
        // Given up at the end: whoever gets it finds the server.
        let _place = pooled.slot.place.take();
        if self.idle.try_add(pooled).is_err() {
            // Closed, or shrunk by a reload: the connection goes.
            tracing::debug!(target: "pgsluice::pool", database = %self.database, "no room for a server in its pool");
        }
    }

    /// Counts for SHOW POOLS and metrics.
    pub fn view(&self) -> PoolView {
        use crate::server::ServerState as S;
        let now = now_us();
        let book = self.book();
        let count = |state| book.servers.iter().filter(|s| s.state() == state).count();
        PoolView {
            active: count(S::Active) + book.replication.len(),
            idle: count(S::Idle),
            tested: count(S::Tested),
            being_canceled: count(S::BeingCanceled),
            login: book.connecting,
            waiting: book.waiting.len(),
            longest_wait_us: book.waiting.front().map_or(0, |(_, since)| now.saturating_sub(*since)),
            oldest_transaction_us: book
                .servers
                .iter()
                .filter_map(|s| s.transaction_us())
                .min()
                .map(|began| now.saturating_sub(began)),
        }
    }

    /// Servers whose client is in a transaction and lets it idle.
    pub fn idle_in_transaction(&self) -> usize {
        let idle =
            |s: &&Arc<ServerInfo>| s.state() == crate::server::ServerState::Active && matches!(s.tx(), b'T' | b'E');
        self.book().servers.iter().filter(idle).count()
    }

    /// Whether so many clients wait that what they hold meanwhile counts.
    pub fn many_wait(&self) -> bool {
        self.book().waiting.len() >= MANY
    }

    fn session_mode(&self) -> bool {
        self.settings.pool_mode == PoolMode::Session
    }

    /// Its open servers.
    pub fn servers(&self) -> Vec<Arc<ServerInfo>> {
        self.book().servers.clone()
    }

    /// Database and user.
    pub fn key(&self) -> period::Key {
        (Arc::clone(&self.database), Arc::clone(&self.user))
    }

    /// Totals over workers.
    pub fn totals(&self) -> stats::Totals {
        stats::Totals::sum(&self.stats)
    }

    /// Whether nothing would be lost with it.
    pub fn unused(&self) -> bool {
        self.clients.load(Relaxed) == 0 && self.book().open == 0
    }

    /// Closes idle servers at once, and the others as they come back. Clients go on: new servers are opened for them.
    pub fn reconnect(&self) {
        for s in self.servers() {
            s.need_close();
        }
        let _alone = self.sift();
        while let Ok(idle) = self.idle.try_remove() {
            drop(idle);
        }
    }
}

/// A server that is starting up will be there soon: clients wait for it (57P03, postmaster.c).
fn starting_up(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Refused(e) if e.code == crate::wire::sqlstate::CANNOT_CONNECT_NOW)
}
