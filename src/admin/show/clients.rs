//! SHOW CLIENTS and SHOW SERVERS: one list of columns, as in PgBouncer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::admin::table::{Table, Value, row};
use crate::client::{ClientInfo, ClientState, Process};
use crate::config::ListenAddr;
use crate::net::PeerAddr;
use crate::net::clock::{now_us, utc};
use crate::pool::{Pin, Pool};
use crate::server::{ServerInfo, ServerState};

/// PgBouncer's columns, then ours.
macro_rules! columns {
    ($ours:literal) => {
        concat!(
            "type user database replication state addr #port local_addr #local_port connect_time request_time #wait ",
            "#wait_us #close_needed ptr link #remote_pid tls application_name #prepared_statements #id ",
            $ours
        )
    };
}

/// What a moment of the monotonic clock is on the wall.
struct Now {
    us: u64,
    unix_us: u64,
}

impl Now {
    fn read() -> Now {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Now { us: now_us(), unix_us: unix.map_or(0, |d| d.as_micros() as u64) }
    }

    fn at(&self, us: u64) -> String {
        utc(self.unix_us.saturating_sub(self.us.saturating_sub(us)) / 1_000_000)
    }
}

/// The word for a connection that does not replicate.
const NONE: &str = "none";

fn client_ptr(id: u64) -> String {
    format!("c{id}")
}

fn server_ptr(id: u64) -> String {
    format!("s{id}")
}

/// Address and port; a Unix socket is `unix`.
fn address(peer: &PeerAddr) -> (String, u16) {
    match peer {
        PeerAddr::Tcp(a) => (a.ip().to_string(), a.port()),
        PeerAddr::Unix => ("unix".to_owned(), 0),
    }
}

fn local(addr: &ListenAddr) -> (String, u16) {
    match addr {
        ListenAddr::Tcp(a) => (a.ip().to_string(), a.port()),
        ListenAddr::Unix(_) => ("unix".to_owned(), 0),
    }
}

pub(super) fn clients(process: &Process) -> Table {
    let mut table = Table::new(columns!("pinned"));
    let now = Now::read();
    let replicate: HashMap<u64, &str> =
        process.pools.all().iter().flat_map(|p| p.replication()).map(|(s, kind)| (s.client(), kind)).collect();
    for c in process.clients.all() {
        table.push(client(&c, replicate.get(&c.id).copied().unwrap_or(NONE), &now));
    }
    table
}

/// Who keeps a server between transactions, why and for how long, and what ends or avoids it.
pub(super) fn pins(process: &Process) -> Table {
    let mut table = Table::new("#id user database application_name link reason #seconds hint");
    let now = now_us();
    for c in process.clients.all() {
        let Some(pin) = c.pinned() else { continue };
        let who = c.who();
        table.push(row![
            c.id,
            who.user,
            who.database,
            who.application,
            server_ptr(c.server()),
            pin.reason(),
            now.saturating_sub(c.pinned_since_us()) / 1_000_000,
            pin.hint(),
        ]);
    }
    table
}

fn client(c: &ClientInfo, replication: &str, now: &Now) -> Vec<Value> {
    let state = c.state();
    let who = c.who();
    // Before its password is proven, a name is only a claim.
    let proven = state != ClientState::Login;
    let waited = if state == ClientState::Waiting { now.us.saturating_sub(c.since_us()) } else { 0 };
    let (addr, port) = address(&c.peer);
    let (local_addr, local_port) = local(&c.local);
    let link = c.server();
    row![
        "C",
        proven.then_some(who.user),
        proven.then_some(who.database),
        replication,
        state.word(),
        addr,
        port,
        local_addr,
        local_port,
        utc(c.connected_unix),
        now.at(c.since_us()),
        waited / 1_000_000,
        waited % 1_000_000,
        0_u64,
        client_ptr(c.id),
        if link == 0 { String::new() } else { server_ptr(link) },
        0_u64,
        c.tls(),
        proven.then_some(who.application),
        None::<u64>,
        c.id,
        c.pinned().map(Pin::reason),
    ]
}

pub(super) fn servers(process: &Process) -> Table {
    let mut table = Table::new(columns!("pinned transaction #transaction_us"));
    let now = Now::read();
    let clients: HashMap<u64, Arc<ClientInfo>> = process.clients.all().into_iter().map(|c| (c.id, c)).collect();
    for pool in process.pools.all() {
        let own = pool.servers().into_iter().map(|s| (s, NONE));
        for (s, replication) in own.chain(pool.replication()) {
            let holder = clients.get(&s.client()).map(|c| &**c);
            table.push(server(&pool, &s, replication, holder, &now));
        }
    }
    table
}

fn server(pool: &Pool, s: &ServerInfo, replication: &str, holder: Option<&ClientInfo>, now: &Now) -> Vec<Value> {
    let active = s.state() == ServerState::Active;
    let transaction = match s.tx() {
        _ if !active => None,
        b'Q' => Some("running"),
        b'T' => Some("idle in transaction"),
        b'E' => Some("idle in transaction (aborted)"),
        _ => Some("idle"),
    };
    row![
        "S",
        &*pool.user,
        &*pool.database,
        replication,
        s.state().word(),
        pool.target.host.as_str(),
        pool.target.port,
        "",
        0_u64,
        utc(s.connected_unix),
        now.at(s.since_us()),
        0_u64,
        0_u64,
        u64::from(s.close_needed()),
        server_ptr(s.id),
        holder.map(|c| client_ptr(c.id)).unwrap_or_default(),
        s.pid,
        &*s.tls,
        s.application(),
        s.statements(),
        s.id,
        holder.and_then(ClientInfo::pinned).map(Pin::reason),
        transaction,
        transaction.map(|_| now.us.saturating_sub(s.tx_since_us())),
    ]
}
