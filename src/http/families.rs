//! The table of metric families that pools, logins and the process have. It drives what is rendered, `# HELP`, and
//! `docs/metrics.md`, so none can differ from another. Insight's families are its own ([`crate::insight`]).

/// Kind of a family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

impl Kind {
    /// The word of `# TYPE`.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// One metric family.
#[derive(PartialEq, Eq, Debug)]
pub struct Family {
    /// Full name.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Names of its labels, in order (`le` of histograms aside).
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
}

const POOL: &[&str] = &["database", "user"];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Histogram, labels, help }
}

macro_rules! families {
    ($($constant:ident = $make:ident($name:literal, $labels:expr, $help:literal);)*) => {
        $(#[doc = $help] pub const $constant: Family = $make($name, $labels, $help);)*
        /// Every family of this table, in the order of the documentation.
        pub const ALL: &[Family] = &[$($constant),*];
    };
}

#[rustfmt::skip]
families! {
    POOL_CONNECTIONS = gauge("pgsluice_pool_connections", &["database", "user", "state"],
        "Server connections by state: active, idle, tested (being cleaned), being_canceled, login.");
    POOL_CONNECTIONS_MAX = gauge("pgsluice_pool_connections_max", POOL,
        "Server connections that the pool may open (pool_size).");
    POOL_WAITING_CLIENTS = gauge("pgsluice_pool_waiting_clients", POOL,
        "Clients waiting for a server connection now.");
    POOL_LONGEST_WAIT_START = gauge("pgsluice_pool_longest_wait_start_timestamp_seconds", POOL,
        "Unix time at which the longest waiting client began to wait; 0 if none waits.");
    POOL_PINNED_CLIENTS = gauge("pgsluice_pool_pinned_clients", POOL,
        "Clients that keep their server connection between transactions; SHOW CLIENTS tells why.");
    POOL_WAIT = histogram("pgsluice_pool_wait_seconds", POOL,
        "Time clients waited for a server connection; 0 is observed when one was free at once.");
    POOL_CHECKOUT = histogram("pgsluice_pool_checkout_seconds", POOL,
        "Time a server connection stayed assigned to one client; the rate of its sum is the mean number of busy connections.");
    POOL_TIMEOUTS = counter("pgsluice_pool_timeouts_total", &["database", "user", "reason"],
        "Clients failed by the pool: wait (query_wait_timeout), connect (no server to be reached), query (query_timeout), idle_tx (idle_transaction_timeout).");
    POOL_ASSIGNMENTS = counter("pgsluice_pool_assignments_total", POOL,
        "Server connections assigned to clients.");
    POOL_TRANSACTIONS = counter("pgsluice_pool_transactions_total", POOL,
        "Transactions; a statement outside one counts as one.");
    POOL_QUERIES = counter("pgsluice_pool_queries_total", POOL,
        "Queries: simple Query and Execute requests.");
    POOL_TRANSACTION_SECONDS = counter("pgsluice_pool_transaction_seconds_total", POOL,
        "Time server connections spent in transactions, idle time inside them included.");
    POOL_QUERY_SECONDS = counter("pgsluice_pool_query_seconds_total", POOL,
        "Time server connections spent on queries.");
    POOL_RECEIVED = counter("pgsluice_pool_received_bytes_total", POOL,
        "Bytes received from clients.");
    POOL_SENT = counter("pgsluice_pool_sent_bytes_total", POOL,
        "Bytes sent to clients.");
    POOL_CLIENT_PARSES = counter("pgsluice_pool_client_parses_total", POOL,
        "Statements that clients asked to prepare (Parse messages).");
    POOL_SERVER_PARSES = counter("pgsluice_pool_server_parses_total", POOL,
        "Statements prepared at servers; the rest of the clients' were there already.");
    POOL_BINDS = counter("pgsluice_pool_binds_total", POOL,
        "Bind messages of clients.");
    POOL_PINS = counter("pgsluice_pool_pins_total", &["database", "user", "reason"],
        "Times a session was pinned to its server connection, by what tied it.");
    POOL_ABANDONED = counter("pgsluice_pool_abandoned_total", POOL,
        "Clients that went away in the middle of a request or a transaction.");
    SERVER_CONNECTS = counter("pgsluice_server_connects_total", &["database", "result"],
        "Attempts to open a server connection: ok, auth, refused, timeout, error.");
    SERVER_CONNECT = histogram("pgsluice_server_connect_seconds", &["database"],
        "Time to open and authenticate a server connection.");
    OLDEST_TRANSACTION_START = gauge("pgsluice_oldest_transaction_start_timestamp_seconds", &["database"],
        "Unix time at which the oldest open transaction (or statement outside of one) began; 0 if none is open.");
    CLIENT_CONNECTIONS = gauge("pgsluice_client_connections", &["database", "state"],
        "Client connections: idle, active (a query runs), in_transaction (idle in one), waiting, login (database unproven: other).");
    CLIENT_CONNECTIONS_MAX = gauge("pgsluice_client_connections_max", &[],
        "Clients that may be logged in (max_client_conn).");
    CLIENT_CONNECTS = counter("pgsluice_client_connects_total", &["result"],
        "Client logins: ok, auth, refused, timeout, error.");
    CLIENT_REFUSALS = counter("pgsluice_client_refusals_total", &["reason"],
        "Connections refused or closed before their login by a limit: max_client_conn, max_unauthenticated_conn, made_room (closed for a newer one).");
    CLIENT_UNAUTHENTICATED = gauge("pgsluice_client_unauthenticated_connections", &[],
        "Connections that have not logged in yet; max_unauthenticated_conn limits them.");
    CLIENT_LOGIN_DELAYS = counter("pgsluice_client_login_delays_total", &["password"],
        "Answers to logins that were delayed because of wrong passwords from the same address (failed_login_delay): wrong, right.");
    CLIENT_LOGIN = histogram("pgsluice_client_login_seconds", &[],
        "Time from accepting a client to its first ReadyForQuery, of logins that succeeded.");
    AUTH_QUERIES = counter("pgsluice_auth_queries_total", &["result"],
        "Users looked up in a database (auth_query): found, unknown, failed. Answers that were kept are not counted.");
    DRAINING = gauge("pgsluice_draining", &[],
        "1 after SIGTERM: clients end between transactions and none is accepted.");
    BUILD_INFO = gauge("pgsluice_build_info", &["version", "revision", "fingerprint_version"],
        "Always 1; the labels tell the build.");
    PROCESS_START = gauge("process_start_time_seconds", &[],
        "Unix time at which the process started.");
    PROCESS_CPU = counter("process_cpu_seconds_total", &[],
        "CPU time the process has spent, user and system.");
    PROCESS_RESIDENT = gauge("process_resident_memory_bytes", &[],
        "Resident memory.");
    PROCESS_OPEN_FDS = gauge("process_open_fds", &[],
        "Open file descriptors.");
    PROCESS_MAX_FDS = gauge("process_max_fds", &[],
        "File descriptors that may be open.");
}
