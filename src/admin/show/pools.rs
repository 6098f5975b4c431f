//! SHOW POOLS, DATABASES, USERS, LISTS.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::admin::table::{Table, row};
use crate::client::Process;
use crate::config::Database;
use crate::pool::{Pool, PoolView};

/// Limits that do not exist are shown as PgBouncer shows unlimited ones.
const UNLIMITED: u64 = 0;

pub(super) fn pools(process: &Process) -> Table {
    let mut table = Table::new(
        "database user #cl_active #cl_waiting #cl_active_cancel_req #cl_waiting_cancel_req #sv_active \
         #sv_active_cancel #sv_being_canceled #sv_idle #sv_used #sv_tested #sv_login #maxwait #maxwait_us pool_mode \
         load_balance_hosts #cl_pinned",
    );
    let (mut clients, _) = process.clients.tally();
    for pool in process.pools.all() {
        let (database, user) = (pool.database.to_string(), pool.user.to_string());
        let c = clients.remove(&(database.clone(), user.clone())).unwrap_or_default();
        let v = pool.view();
        table.push(row![
            database,
            user,
            // PgBouncer counts every client that does not wait.
            c.active + c.idle,
            v.waiting,
            0_u64,
            0_u64,
            v.active,
            0_u64,
            v.being_canceled,
            v.idle,
            0_u64,
            v.tested,
            v.login,
            v.longest_wait_us / 1_000_000,
            v.longest_wait_us % 1_000_000,
            pool.settings.pool_mode.to_string(),
            None::<&str>,
            c.pinned,
        ]);
    }
    table
}

/// The sections of the configuration, and the databases that clients reached through `*`.
fn known(process: &Process) -> BTreeMap<String, &Database> {
    let config = &process.config;
    let mut known: BTreeMap<_, _> = config.databases.iter().map(|(name, d)| (name.clone(), d)).collect();
    for pool in process.pools.all() {
        if let Some(d) = config.database(&pool.database) {
            known.entry(pool.database.to_string()).or_insert(d);
        }
    }
    known
}

/// Server connections, open or being opened.
fn open(v: &PoolView) -> usize {
    v.active + v.idle + v.tested + v.being_canceled + v.login
}

/// The same over all pools that match.
fn servers(pools: &[Arc<Pool>], of: impl Fn(&Pool) -> bool) -> usize {
    pools.iter().filter(|p| of(p)).map(|p| open(&p.view())).sum()
}

pub(super) fn databases(process: &Process) -> Table {
    let mut table = Table::new(
        "name host #port database force_user #pool_size #min_pool_size #reserve_pool_size #server_lifetime pool_mode \
         load_balance_hosts #max_connections #current_connections #max_client_connections \
         #current_client_connections #paused #disabled",
    );
    let all = process.pools.all();
    let (clients, _) = process.clients.tally();
    for (name, d) in known(process) {
        let connected: usize = clients
            .iter()
            .filter(|((database, _), _)| *database == name)
            .map(|(_, t)| t.active + t.idle + t.waiting)
            .sum();
        table.push(row![
            name.as_str(),
            d.host.as_str(),
            d.port,
            d.dbname.as_deref().unwrap_or(&name),
            d.user.as_deref(),
            d.pool.pool_size,
            d.pool.min_pool_size,
            UNLIMITED,
            d.pool.server_lifetime.as_secs(),
            d.pool.pool_mode.to_string(),
            None::<&str>,
            UNLIMITED,
            servers(&all, |p| *p.database == *name),
            UNLIMITED,
            connected,
            0_u64,
            0_u64,
        ]);
    }
    table
}

/// Users of the configuration and of pools.
fn user_names(process: &Process) -> BTreeSet<String> {
    let known = process.pools.shared().users.load_full();
    let configured = known.keys().cloned();
    let pooled = process.pools.all().into_iter().map(|p| p.user.to_string());
    configured.chain(pooled).collect()
}

pub(super) fn users(process: &Process) -> Table {
    let mut table = Table::new(
        "name #pool_size #reserve_pool_size pool_mode #max_user_connections #current_connections \
         #max_user_client_connections #current_client_connections",
    );
    let all = process.pools.all();
    let (clients, _) = process.clients.tally();
    for name in user_names(process) {
        let open = servers(&all, |p| *p.user == *name);
        let connected: usize =
            clients.iter().filter(|((_, user), _)| *user == name).map(|(_, t)| t.active + t.idle + t.waiting).sum();
        table.push(row![name, None::<u64>, None::<u64>, None::<&str>, UNLIMITED, open, UNLIMITED, connected,]);
    }
    table
}

pub(super) fn lists(process: &Process) -> Table {
    let mut table = Table::new("list #items");
    let pools = process.pools.all();
    let (clients, login) = process.clients.tally();
    let used: usize = clients.values().map(|t| t.active + t.idle + t.waiting).sum();
    let (mut free_servers, mut used_servers) = (0, 0);
    for pool in &pools {
        let v = pool.view();
        free_servers += v.idle;
        used_servers += open(&v) - v.idle;
    }
    for (list, items) in [
        ("databases", known(process).len()),
        ("users", user_names(process).len()),
        ("peers", 0),
        ("pools", pools.len()),
        ("peer_pools", 0),
        ("free_clients", 0),
        ("used_clients", used),
        ("login_clients", login),
        ("free_servers", free_servers),
        ("used_servers", used_servers),
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
    ] {
        table.push(row![list, items]);
    }
    table
}
