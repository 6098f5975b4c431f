//! Gathers pools, clients and the process for one scrape.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::families as f;
use super::page::Page;
use super::process::Resources;
use crate::client::login::CONSOLE;
use crate::client::registry::{LOGIN_RESULTS, Tally};
use crate::client::{Process, Refusal};
use crate::pool::Pin;
use crate::pool::directory::QUERY_RESULTS;
use crate::pool::stats::{CONNECT_RESULTS, Totals};
use crate::pool::{Pool, PoolView};
use crate::sql::FINGERPRINT_VERSION;

/// Pools with series of their own; the others are summed as `other`. Names may come from clients (`*` databases).
pub const MAX_POOLS: usize = 100;

/// Label of what is summed.
const OTHER: &str = "other";

/// Revision of the source, given at build time.
pub const REVISION: &str = match option_env!("PGSLUICE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Renders scrapes. Remembers which pools have series of their own: first come, and for ever, so that no counter ever
/// moves from one series to another.
#[derive(Default)]
pub struct Metrics {
    own: Mutex<HashSet<(Arc<str>, Arc<str>)>>,
}

/// What is shown of one pool, or of all others together.
#[derive(Default)]
struct Shown {
    view: PoolView,
    max: usize,
    in_transaction: usize,
    clients: Tally,
    totals: Totals,
}

impl Shown {
    fn add(&mut self, pool: &Pool, clients: Tally) {
        let v = pool.view();
        self.view.active += v.active;
        self.view.idle += v.idle;
        self.view.tested += v.tested;
        self.view.being_canceled += v.being_canceled;
        self.view.login += v.login;
        self.view.waiting += v.waiting;
        self.view.longest_wait_us = self.view.longest_wait_us.max(v.longest_wait_us);
        self.view.oldest_transaction_us = self.view.oldest_transaction_us.max(v.oldest_transaction_us);
        self.max += pool.settings.pool_size;
        self.in_transaction += pool.idle_in_transaction();
        self.clients.idle += clients.idle;
        self.clients.active += clients.active;
        self.clients.waiting += clients.waiting;
        self.clients.pinned += clients.pinned;
        self.totals.merge(&pool.totals());
    }
}

impl Metrics {
    /// The whole text of `/metrics`.
    pub fn render(&self, process: &Process) -> String {
        let mut page = Page::default();
        let (mut clients, login) = process.clients.tally();
        let console: Tally = clients.iter().filter(|((database, _), _)| CONSOLE.contains(&database.as_str())).fold(
            Tally::default(),
            |mut sum, (_, t)| {
                sum.active += t.active;
                sum
            },
        );
        let pools = self.pools(process, &mut clients);
        for ((database, user), shown) in &pools {
            pool(&mut page, &[database, user], shown);
        }
        databases(&mut page, &pools);
        page.gauge(&f::CLIENT_CONNECTIONS, &[CONSOLE[0], "active"], console.active as f64);
        page.gauge(&f::CLIENT_CONNECTIONS, &[OTHER, "login"], login as f64);
        self::process(&mut page, process);
        let mut out = page.finish();
        process.insight.render(&mut out);
        out
    }

    /// Pools by label values.
    fn pools(
        &self,
        process: &Process,
        clients: &mut HashMap<(String, String), Tally>,
    ) -> BTreeMap<(Arc<str>, Arc<str>), Shown> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shown: BTreeMap<_, Shown> = BTreeMap::new();
        for pool in process.pools.all() {
            let mut key = pool.key();
            let tally = clients.remove(&(key.0.to_string(), key.1.to_string())).unwrap_or_default();
            if !own.contains(&key) {
                if own.len() < MAX_POOLS {
                    own.insert(key.clone());
                } else {
                    key = (Arc::from(OTHER), Arc::from(OTHER));
                }
            }
            shown.entry(key).or_default().add(&pool, tally);
        }
        shown
    }
}

fn pool(page: &mut Page, labels: &[&str; 2], shown: &Shown) {
    let [database, user] = *labels;
    let (v, t) = (&shown.view, &shown.totals);
    for (state, n) in [
        ("active", v.active),
        ("idle", v.idle),
        ("tested", v.tested),
        ("being_canceled", v.being_canceled),
        ("login", v.login),
    ] {
        page.gauge(&f::POOL_CONNECTIONS, &[database, user, state], n as f64);
    }
    page.gauge(&f::POOL_CONNECTIONS_MAX, labels, shown.max as f64);
    page.gauge(&f::POOL_WAITING_CLIENTS, labels, v.waiting as f64);
    page.gauge(&f::POOL_LONGEST_WAIT_START, labels, began((v.waiting > 0).then_some(v.longest_wait_us)));
    page.gauge(&f::POOL_PINNED_CLIENTS, labels, shown.clients.pinned as f64);
    page.histogram(&f::POOL_WAIT, labels, &t.wait);
    page.histogram(&f::POOL_CHECKOUT, labels, &t.checkout);
    for (reason, n) in [
        ("wait", t.wait_timeouts),
        ("connect", t.connect_failures),
        ("query", t.query_timeouts),
        ("idle_tx", t.idle_timeouts),
    ] {
        page.counter(&f::POOL_TIMEOUTS, &[database, user, reason], n);
    }
    for (pin, n) in Pin::ALL.into_iter().zip(t.pins) {
        page.counter(&f::POOL_PINS, &[database, user, pin.label()], n);
    }
    for (family, n) in [
        (&f::POOL_ASSIGNMENTS, t.assignments),
        (&f::POOL_TRANSACTIONS, t.transactions),
        (&f::POOL_QUERIES, t.queries),
        (&f::POOL_RECEIVED, t.received),
        (&f::POOL_SENT, t.sent),
        (&f::POOL_CLIENT_PARSES, t.client_parses),
        (&f::POOL_SERVER_PARSES, t.server_parses),
        (&f::POOL_BINDS, t.binds),
        (&f::POOL_ABANDONED, t.abandoned),
    ] {
        page.counter(family, labels, n);
    }
    page.seconds(&f::POOL_TRANSACTION_SECONDS, labels, t.transaction_us);
    page.seconds(&f::POOL_QUERY_SECONDS, labels, t.query_us);
}

/// Families that are told by database only.
fn databases(page: &mut Page, pools: &BTreeMap<(Arc<str>, Arc<str>), Shown>) {
    let mut databases: BTreeMap<&str, Shown> = BTreeMap::new();
    for ((database, _), shown) in pools {
        let sum = databases.entry(database).or_default();
        sum.totals.merge(&shown.totals);
        sum.in_transaction += shown.in_transaction;
        sum.view.oldest_transaction_us = sum.view.oldest_transaction_us.max(shown.view.oldest_transaction_us);
        sum.clients.idle += shown.clients.idle;
        sum.clients.active += shown.clients.active;
        sum.clients.waiting += shown.clients.waiting;
    }
    for (database, shown) in &databases {
        for (result, n) in CONNECT_RESULTS.iter().zip(shown.totals.connects) {
            page.counter(&f::SERVER_CONNECTS, &[database, result], n);
        }
        page.histogram(&f::SERVER_CONNECT, &[database], &shown.totals.connect);
        page.gauge(&f::OLDEST_TRANSACTION_START, &[database], began(shown.view.oldest_transaction_us));
        let c = shown.clients;
        // Looked at one after the other: a client may have moved in between.
        let in_transaction = shown.in_transaction.min(c.active);
        for (state, n) in [
            ("idle", c.idle),
            ("active", c.active - in_transaction),
            ("in_transaction", in_transaction),
            ("waiting", c.waiting),
        ] {
            page.gauge(&f::CLIENT_CONNECTIONS, &[database, state], n as f64);
        }
    }
}

fn process(page: &mut Page, process: &Process) {
    for (result, n) in LOGIN_RESULTS.iter().zip(&process.clients.logins) {
        page.counter(&f::CLIENT_CONNECTS, &[result], n.load(Relaxed));
    }
    for (refusal, n) in Refusal::ALL.into_iter().zip(process.strangers.refusals()) {
        page.counter(&f::CLIENT_REFUSALS, &[refusal.label()], n);
    }
    page.gauge(&f::CLIENT_UNAUTHENTICATED, &[], process.strangers.count() as f64);
    for (password, n) in ["wrong", "right"].into_iter().zip(process.backoff.delayed()) {
        page.counter(&f::CLIENT_LOGIN_DELAYS, &[password], n);
    }
    let directory = &process.pools.shared().directory;
    for (result, n) in QUERY_RESULTS.iter().zip(directory.asked.iter()) {
        page.counter(&f::AUTH_QUERIES, &[result], n.load(Relaxed));
    }
    page.histogram(&f::CLIENT_LOGIN, &[], &process.clients.login_time.totals());
    page.gauge(&f::CLIENT_CONNECTIONS_MAX, &[], process.config.max_client_conn as f64);
    let draining = process.draining.load(Relaxed);
    page.gauge(&f::DRAINING, &[], f64::from(u8::from(draining)));
    let version = [env!("CARGO_PKG_VERSION"), REVISION, &FINGERPRINT_VERSION.to_string()];
    page.gauge(&f::BUILD_INFO, &version, 1.0);
    let r = Resources::now();
    page.gauge(&f::PROCESS_START, &[], process.started_unix as f64);
    page.seconds(&f::PROCESS_CPU, &[], r.cpu_us);
    for (family, n) in
        [(&f::PROCESS_RESIDENT, r.resident), (&f::PROCESS_OPEN_FDS, r.open_fds), (&f::PROCESS_MAX_FDS, r.max_fds)]
    {
        if let Some(n) = n {
            page.gauge(family, &[], n as f64);
        }
    }
}

/// Unix time of what began this many microseconds ago; 0 for nothing.
fn began(ago_us: Option<u64>) -> f64 {
    ago_us.map_or(0.0, |us| unix() - us as f64 / 1e6)
}

/// Seconds since the epoch.
fn unix() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
