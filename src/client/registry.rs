//! Who is connected: for SHOW CLIENTS, metrics and `max_client_conn`.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::SystemTime;

use dashmap::DashMap;
use foldhash::fast::RandomState;

use crate::config::ListenAddr;
use crate::net::PeerAddr;
use crate::pool::{Histogram, Pin};

/// States of a client, by PgBouncer's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ClientState {
    /// Logged in, without a server.
    Idle = 0,
    /// Holds a server.
    Active = 1,
    /// Waits for one.
    Waiting = 2,
    /// Not logged in yet.
    Login = 3,
}

impl ClientState {
    /// The word of SHOW CLIENTS.
    pub fn word(self) -> &'static str {
        match self {
            ClientState::Idle => "idle",
            ClientState::Active => "active",
            ClientState::Waiting => "waiting",
            ClientState::Login => "login",
        }
    }
}

/// One client, written by its session, read by anyone.
pub struct ClientInfo {
    /// Serial number.
    pub id: u64,
    /// Where it connects from.
    pub peer: PeerAddr,
    /// The socket it came to.
    pub local: ListenAddr,
    /// Unix time of the connect, seconds.
    pub connected_unix: u64,
    state: AtomicU8,
    since_us: AtomicU64,
    server: AtomicU64,
    who: Mutex<Who>,
    /// Version and cipher; unset without TLS.
    tls: OnceLock<Box<str>>,
    /// A [`Pin`]'s bit, 0 for none; and since when.
    pinned: AtomicU8,
    pinned_us: AtomicU64,
    /// Number of the route that its statements name, 0 for none.
    route: AtomicU32,
}

/// Names a client gave.
#[derive(Clone, Default, Debug)]
pub struct Who {
    /// User.
    pub user: String,
    /// Database.
    pub database: String,
    /// `application_name`.
    pub application: String,
}

impl ClientInfo {
    /// State.
    pub fn state(&self) -> ClientState {
        [ClientState::Idle, ClientState::Active, ClientState::Waiting, ClientState::Login]
            [usize::from(self.state.load(Relaxed) & 3)]
    }

    /// Notes a change of state at `now_us`.
    pub fn set_state(&self, state: ClientState, server: u64, now_us: u64) {
        self.state.store(state as u8, Relaxed);
        self.server.store(server, Relaxed);
        self.since_us.store(now_us, Relaxed);
    }

    /// When the state last changed (monotonic microseconds).
    pub fn since_us(&self) -> u64 {
        self.since_us.load(Relaxed)
    }

    /// Number of the server it holds; 0 for none.
    pub fn server(&self) -> u64 {
        self.server.load(Relaxed)
    }

    /// Names it gave.
    pub fn who(&self) -> Who {
        self.who.lock().map(|w| w.clone()).unwrap_or_default()
    }

    /// Notes the names it gave.
    pub fn set_who(&self, who: Who) {
        if let Ok(mut w) = self.who.lock() {
            *w = who;
        }
    }

    /// TLS version and cipher; empty without TLS.
    pub fn tls(&self) -> &str {
        self.tls.get().map_or("", |tls| tls)
    }

    /// Notes TLS version and cipher.
    pub fn set_tls(&self, summary: String) {
        let _ = self.tls.set(summary.into());
    }

    /// Number of the route that its last statements named; 0 for none.
    pub fn route(&self) -> u32 {
        self.route.load(Relaxed)
    }

    /// Notes the route of its last statements.
    pub fn set_route(&self, number: u32) {
        self.route.store(number, Relaxed);
    }

    /// Why it keeps its server between transactions.
    pub fn pinned(&self) -> Option<Pin> {
        Pin::first(self.pinned.load(Relaxed))
    }

    /// Since when it keeps its server (monotonic microseconds); of no meaning while it does not.
    pub fn pinned_since_us(&self) -> u64 {
        self.pinned_us.load(Relaxed)
    }

    /// Notes why it keeps its server between transactions.
    pub fn set_pinned(&self, reason: Option<Pin>, now_us: u64) {
        if self.pinned.swap(reason.map_or(0, Pin::bit), Relaxed) == 0 {
            self.pinned_us.store(now_us, Relaxed);
        }
    }
}

/// Everybody connected.
#[derive(Default)]
pub struct Clients {
    all: DashMap<u64, Arc<ClientInfo>, RandomState>,
    next: AtomicU64,
    count: AtomicUsize,
    /// Those of them who have logged in.
    admitted: AtomicUsize,
    /// Logins by result: ok, auth, refused, timeout, error.
    pub logins: [AtomicU64; 5],
    /// Time from accept to the first ReadyForQuery, of logins that succeeded.
    pub login_time: Histogram,
}

/// Clients of one (database, user) by state.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Without a server.
    pub idle: usize,
    /// With a server.
    pub active: usize,
    /// Waiting for one.
    pub waiting: usize,
    /// Of all these, pinned to their server.
    pub pinned: usize,
}

/// Results of a login, for metrics.
pub const LOGIN_RESULTS: [&str; 5] = ["ok", "auth", "refused", "timeout", "error"];

/// A client's place while it is connected.
pub struct Place {
    clients: Arc<Clients>,
    /// What others may know.
    pub info: Arc<ClientInfo>,
    admitted: Cell<bool>,
}

impl Place {
    /// Makes one who has proven who she is a client among at most `limit`. Whether there was room.
    pub fn admit(&self, limit: usize) -> bool {
        let admitted = self.clients.admitted.fetch_update(Relaxed, Relaxed, |n| (n < limit).then_some(n + 1)).is_ok();
        self.admitted.set(admitted);
        admitted
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.admitted.get() {
            self.clients.admitted.fetch_sub(1, Relaxed);
        }
        self.clients.all.remove(&self.info.id);
        self.clients.count.fetch_sub(1, Relaxed);
    }
}

impl Clients {
    /// Connected clients.
    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Those who have logged in.
    pub fn admitted(&self) -> usize {
        self.admitted.load(Relaxed)
    }

    /// A place for a new client.
    pub fn enter(self: &Arc<Self>, peer: PeerAddr, local: ListenAddr, now_us: u64) -> Place {
        let id = self.next.fetch_add(1, Relaxed) + 1;
        let connected_unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let info = Arc::new(ClientInfo {
            id,
            peer,
            local,
            connected_unix,
            state: AtomicU8::new(ClientState::Login as u8),
            since_us: AtomicU64::new(now_us),
            server: AtomicU64::new(0),
            who: Mutex::default(),
            tls: OnceLock::new(),
            pinned: AtomicU8::new(0),
            pinned_us: AtomicU64::new(0),
            route: AtomicU32::new(0),
        });
        self.count.fetch_add(1, Relaxed);
        self.all.insert(id, Arc::clone(&info));
        Place { clients: Arc::clone(self), info, admitted: Cell::new(false) }
    }

    /// Everybody, in order of arrival.
    pub fn all(&self) -> Vec<Arc<ClientInfo>> {
        let mut all: Vec<_> = self.all.iter().map(|e| Arc::clone(e.value())).collect();
        all.sort_by_key(|c| c.id);
        all
    }

    /// Logged-in clients by (database, user), and how many are still logging in (whose names are not proven).
    pub fn tally(&self) -> (HashMap<(String, String), Tally>, usize) {
        let mut tallies: HashMap<(String, String), Tally> = HashMap::new();
        let mut login = 0;
        for c in self.all() {
            let state = c.state();
            if state == ClientState::Login {
                login += 1;
                continue;
            }
            let Who { user, database, .. } = c.who();
            let t = tallies.entry((database, user)).or_default();
            match state {
                ClientState::Active => t.active += 1,
                ClientState::Waiting => t.waiting += 1,
                ClientState::Idle | ClientState::Login => t.idle += 1,
            }
            t.pinned += usize::from(c.pinned().is_some());
        }
        (tallies, login)
    }

    /// Counts a login by its place in [`LOGIN_RESULTS`].
    pub fn count_login(&self, result: usize, took_us: u64) {
        if let Some(n) = self.logins.get(result) {
            n.fetch_add(1, Relaxed);
        }
        if result == 0 {
            self.login_time.record_shared(took_us);
        }
    }
}
