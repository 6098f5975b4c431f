//! `/pools` and `/pins`: server connections, who waits for them, who holds them.

use std::collections::HashMap;
use std::sync::Arc;

use super::endpoint::{Ask, Endpoint, Json, Refusal, cut, objects, page};
use super::object::object;
use crate::client::registry::Tally;
use crate::client::{ClientInfo, Process};
use crate::insight::Insight;
use crate::net::clock::now_us;
use crate::pool::{Pin, Pool};
use crate::server::{ServerInfo, ServerState};

object! {
    /// One pool: the server connections of a database and user.
    PoolNow {
        /// Database as clients name it.
        database: String,
        /// User as clients name it.
        user: String,
        /// `transaction`, `session` or `statement`.
        mode: String,
        /// Server connections at most.
        size: usize,
        /// Clients that hold a server connection.
        clients_active: usize,
        /// Clients that wait for one.
        clients_waiting: usize,
        /// Clients without one.
        clients_idle: usize,
        /// Clients that keep theirs between transactions; `/pins` tells why.
        clients_pinned: usize,
        /// Server connections that a client holds.
        servers_active: usize,
        /// Server connections free to be used.
        servers_idle: usize,
        /// Server connections being cleaned or kept back for a cancel request.
        servers_cleaning: usize,
        /// Server connections being opened.
        servers_opening: usize,
        /// Servers whose client lets a transaction idle.
        servers_idle_in_transaction: usize,
        /// How long the client that waits longest has waited.
        longest_wait_seconds: f64,
        /// Times a client was given a server connection.
        assignments: u64,
        /// Time that clients waited, all assignments together.
        wait_total_seconds: f64,
        /// Median wait, from buckets; 0 is counted when a server was free at once.
        wait_p50_seconds: f64,
        /// 95th percentile of the wait.
        wait_p95_seconds: f64,
        /// 99th percentile of the wait.
        wait_p99_seconds: f64,
        /// Time that server connections were held by clients: its growth by second is the mean number of busy ones.
        held_total_seconds: f64,
        /// 95th percentile of the time a client held one.
        held_p95_seconds: f64,
        /// Queries.
        queries: u64,
        /// Transactions; a statement outside one counts as one.
        transactions: u64,
        /// Clients failed after `query_wait_timeout`.
        wait_timeouts: u64,
        /// Server connections opened.
        server_connects: u64,
        /// Median time of opening one, from buckets.
        server_connect_p50_seconds: f64,
        /// Who holds the server connections now, longest in its transaction first.
        holders: Vec<Holder>,
    }
}

object! {
    /// A server connection that a client holds.
    Holder {
        /// Number of the server connection, as in SHOW SERVERS.
        server_id: u64,
        /// PostgreSQL's process id.
        pid: u32,
        /// Number of the client, as in SHOW CLIENTS.
        client_id: u64,
        /// The client's `application_name`.
        application: Option<String>,
        /// Route tag of what it runs, or ran last in its transaction; null when its statements have none.
        route: Option<String>,
        /// `running`, `idle in transaction`, `idle in transaction (aborted)` or `idle` (kept by a pinned client or a session).
        state: &'static str,
        /// How long it has been so.
        state_seconds: f64,
        /// How long its transaction, or the statement outside of one, has been open.
        transaction_seconds: Option<f64>,
        /// Why the client keeps it between transactions.
        pinned: Option<&'static str>,
    }
}

object! {
    /// A client that keeps its server connection between transactions.
    PinNow {
        /// Number of the client, as in SHOW CLIENTS.
        client_id: u64,
        /// Number of the server connection, as in SHOW SERVERS.
        server_id: u64,
        /// Database as clients name it.
        database: String,
        /// User.
        user: String,
        /// `application_name`.
        application: String,
        /// `cursor`, `listen`, `advisory_lock`, `temp`, `prepare`, `load`, `statement` or `unreadable`.
        kind: &'static str,
        /// The same in words.
        reason: &'static str,
        /// For how long.
        pinned_seconds: f64,
        /// What ends it, and what avoids it.
        mend: &'static str,
    }
}

/// Pools.
pub const ENDPOINT: Endpoint = Endpoint {
    path: "pools",
    about: "Pools: clients, servers, waits, and who holds what now.",
    id: None,
    list: true,
    parameters: &[("database", "of this database"), ("user", "of this user")],
    objects: objects::<PoolNow>(),
    answer: pools,
};

/// Pinned clients.
pub const PINS: Endpoint = Endpoint {
    path: "pins",
    about: "Clients that keep their server connection between transactions, the longest first.",
    id: None,
    list: true,
    parameters: &[("database", "of this database")],
    objects: objects::<PinNow>(),
    answer: pins,
};

fn pools(process: &Process, ask: &Ask) -> Result<Json, Refusal> {
    let mut all = process.pools.all();
    all.retain(|pool| {
        ask.get("database").is_none_or(|name| *name == *pool.database)
            && ask.get("user").is_none_or(|name| *name == *pool.user)
    });
    let (total, chosen) = cut(ask, all)?;
    let (tallies, _) = process.clients.tally();
    let clients: HashMap<u64, Arc<ClientInfo>> = process.clients.all().into_iter().map(|c| (c.id, c)).collect();
    let one = |p: &Arc<Pool>| {
        let tally = tallies.get(&(p.database.to_string(), p.user.to_string())).copied().unwrap_or_default();
        pool(p, tally, &clients, &process.insight)
    };
    page(ask, total, &chosen.iter().map(one).collect::<Vec<_>>())
}

fn pool(pool: &Pool, tally: Tally, clients: &HashMap<u64, Arc<ClientInfo>>, insight: &Insight) -> PoolNow {
    let (view, totals) = (pool.view(), pool.totals());
    let now = now_us();
    let mut holders: Vec<_> = pool
        .servers()
        .iter()
        .filter(|server| server.state() == ServerState::Active)
        .map(|server| holder(server, clients.get(&server.client()).map(|c| &**c), insight, now))
        .collect();
    holders.sort_by(|a, b| b.transaction_seconds.unwrap_or(0.0).total_cmp(&a.transaction_seconds.unwrap_or(0.0)));
    PoolNow {
        database: pool.database.to_string(),
        user: pool.user.to_string(),
        mode: pool.settings.pool_mode.to_string(),
        size: pool.settings.pool_size,
        clients_active: tally.active,
        clients_waiting: tally.waiting,
        clients_idle: tally.idle,
        clients_pinned: tally.pinned,
        servers_active: view.active,
        servers_idle: view.idle,
        servers_cleaning: view.tested + view.being_canceled,
        servers_opening: view.login,
        servers_idle_in_transaction: pool.idle_in_transaction(),
        longest_wait_seconds: seconds(view.longest_wait_us),
        assignments: totals.assignments,
        wait_total_seconds: seconds(totals.wait.sum_us),
        wait_p50_seconds: totals.wait.wait_quantile(0.5),
        wait_p95_seconds: totals.wait.wait_quantile(0.95),
        wait_p99_seconds: totals.wait.wait_quantile(0.99),
        held_total_seconds: seconds(totals.checkout.sum_us),
        held_p95_seconds: totals.checkout.quantile(0.95),
        queries: totals.queries,
        transactions: totals.transactions,
        wait_timeouts: totals.wait_timeouts,
        server_connects: totals.connects[0],
        server_connect_p50_seconds: totals.connect.quantile(0.5),
        holders,
    }
}

fn holder(server: &ServerInfo, client: Option<&ClientInfo>, insight: &Insight, now: u64) -> Holder {
    let application = client.map(|c| c.who().application).filter(|name| !name.is_empty());
    Holder {
        server_id: server.id,
        pid: server.pid,
        client_id: server.client(),
        application,
        route: client.and_then(|c| insight.route_name(c.route())).map(|route| route.to_string()),
        state: match server.tx() {
            b'Q' => "running",
            b'T' => "idle in transaction",
            b'E' => "idle in transaction (aborted)",
            _ => "idle",
        },
        state_seconds: seconds(now.saturating_sub(server.tx_since_us())),
        transaction_seconds: server.transaction_us().map(|began| seconds(now.saturating_sub(began))),
        pinned: client.and_then(ClientInfo::pinned).map(Pin::reason),
    }
}

fn pins(process: &Process, ask: &Ask) -> Result<Json, Refusal> {
    let now = now_us();
    let pinned = process.clients.all().into_iter().filter_map(|c| {
        let pin = c.pinned()?;
        let who = c.who();
        Some(PinNow {
            client_id: c.id,
            server_id: c.server(),
            database: who.database,
            user: who.user,
            application: who.application,
            kind: pin.label(),
            reason: pin.reason(),
            pinned_seconds: seconds(now.saturating_sub(c.pinned_since_us())),
            mend: pin.hint(),
        })
    });
    let mut all: Vec<_> = pinned.filter(|pin| ask.get("database").is_none_or(|name| *name == *pin.database)).collect();
    all.sort_by(|a, b| b.pinned_seconds.total_cmp(&a.pinned_seconds));
    let (total, chosen) = cut(ask, all)?;
    page(ask, total, &chosen)
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
