//! What the console and the wait-timeout error may know of a server while a client holds it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// States of a server, by PgBouncer's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ServerState {
    /// In the pool.
    Idle = 0,
    /// Held by a client.
    Active = 1,
    /// Being cleaned, rolled back or drained.
    Tested = 2,
    /// Kept back until a cancel request has been delivered.
    BeingCanceled = 3,
}

impl ServerState {
    /// The word of SHOW SERVERS.
    pub fn word(self) -> &'static str {
        match self {
            ServerState::Idle => "idle",
            ServerState::Active => "active",
            ServerState::Tested => "tested",
            ServerState::BeingCanceled => "being_canceled",
        }
    }

    fn from_u8(n: u8) -> Self {
        [ServerState::Idle, ServerState::Active, ServerState::Tested, ServerState::BeingCanceled][usize::from(n & 3)]
    }
}

/// Written by whoever holds the server, read by anyone; relaxed, since each value stands alone.
#[derive(Default)]
pub struct ServerInfo {
    /// Serial number in this process.
    pub id: u64,
    /// Backend process id.
    pub pid: u32,
    /// Unix time of the connect, seconds.
    pub connected_unix: u64,
    /// TLS version and cipher; empty without TLS.
    pub tls: Box<str>,
    state: AtomicU8,
    tx: AtomicU8,
    tx_since_us: AtomicU64,
    begun_us: AtomicU64,
    client: AtomicU64,
    since_us: AtomicU64,
    statements: AtomicU32,
    close_needed: AtomicBool,
    application: Mutex<String>,
}

impl ServerInfo {
    /// A server just logged in.
    pub fn new(id: u64, pid: u32, connected_unix: u64) -> Self {
        ServerInfo { id, pid, connected_unix, tx: AtomicU8::new(b'I'), ..ServerInfo::default() }
    }

    /// With TLS, or without when it is empty.
    pub fn with_tls(self, tls: String) -> Self {
        ServerInfo { tls: tls.into(), ..self }
    }

    /// Notes a change of state at `now_us`.
    pub fn set_state(&self, state: ServerState, client: u64, now_us: u64) {
        self.state.store(state as u8, Relaxed);
        self.client.store(client, Relaxed);
        self.since_us.store(now_us, Relaxed);
        if state == ServerState::Idle {
            // A transaction that its client left was rolled back with nobody noting it.
            self.set_tx(b'I', now_us);
        }
    }

    /// Notes what it does for its client: `Q` a request is running, else the status byte of ReadyForQuery.
    pub fn set_tx(&self, status: u8, now_us: u64) {
        self.tx.store(status, Relaxed);
        self.tx_since_us.store(now_us, Relaxed);
        if status == b'I' {
            self.begun_us.store(0, Relaxed);
        } else if self.begun_us.load(Relaxed) == 0 {
            self.begun_us.store(now_us, Relaxed);
        }
    }

    /// State.
    pub fn state(&self) -> ServerState {
        ServerState::from_u8(self.state.load(Relaxed))
    }

    /// `Q` while a request is running, else the status byte of the last ReadyForQuery.
    pub fn tx(&self) -> u8 {
        self.tx.load(Relaxed)
    }

    /// Since when [`Self::tx`] (monotonic microseconds).
    pub fn tx_since_us(&self) -> u64 {
        self.tx_since_us.load(Relaxed)
    }

    /// When its transaction, or the statement that runs outside of one, began (monotonic microseconds).
    pub fn transaction_us(&self) -> Option<u64> {
        Some(self.begun_us.load(Relaxed)).filter(|us| *us > 0)
    }

    /// Number of the client that holds it; 0 for none.
    pub fn client(&self) -> u64 {
        self.client.load(Relaxed)
    }

    /// When the state last changed (monotonic microseconds).
    pub fn since_us(&self) -> u64 {
        self.since_us.load(Relaxed)
    }

    /// How many shared prepared statements it has.
    pub fn statements(&self) -> u32 {
        self.statements.load(Relaxed)
    }

    /// Notes how many shared prepared statements it has.
    pub fn set_statements(&self, n: u32) {
        self.statements.store(n, Relaxed);
    }

    /// Whether it is closed at its next release (RECONNECT, changed settings).
    pub fn close_needed(&self) -> bool {
        self.close_needed.load(Relaxed)
    }

    /// Asks for it to be closed at its next release.
    pub fn need_close(&self) {
        self.close_needed.store(true, Relaxed);
    }

    /// Application name it reported last.
    pub fn application(&self) -> String {
        self.application.lock().map(|a| a.clone()).unwrap_or_default()
    }

    /// Notes the application name it reported.
    pub fn set_application(&self, name: &[u8]) {
        if let Ok(mut a) = self.application.lock() {
            *a = String::from_utf8_lossy(name).into_owned();
        }
    }
}
