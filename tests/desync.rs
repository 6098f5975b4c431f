//! Transaction pooling under everything at once: many clients with random scripts over the raw protocol, cancels,
//! vanishing clients, killed servers, a wait limit. Every query carries a nonce, and every answer is held against what
//! PostgreSQL would say to exactly that client: nobody may ever get another's answer, or one out of order.
//!
//! The same scripts are played to PostgreSQL itself first: what it answers otherwise is a fault of the model.
//!
//! `DESYNC_SEED=n` plays another seed, `DESYNC_MINUTES=n` plays for longer, `DESYNC_CLIENTS=n` with more clients;
//! `make soak-desync` is the long form.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

#[path = "desync/checker.rs"]
mod checker;
#[path = "desync/conn.rs"]
mod conn;
#[path = "desync/ops.rs"]
mod ops;
#[path = "desync/player.rs"]
mod player;
#[path = "desync/script.rs"]
mod script;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use checker::Rules;
use ops::PARAMETERS;
use player::{Run, Tally};
use script::Mix;
use support::cluster::{Cluster, DATABASE, PASSWORD};
use support::pooler::{Pooler, Setup};
use support::{Random, raw, seed, wait_for, wait_or_tell};

/// Servers of the pool.
const SERVERS: usize = 3;
/// Clients of the short form.
const CLIENTS: u64 = 40;
/// Time of the short form.
const SHORT: Duration = Duration::from_secs(15);

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

fn the_seed() -> u64 {
    variable("DESYNC_SEED").unwrap_or_else(seed)
}

fn make_table(cluster: &Cluster) {
    cluster.psql(
        "CREATE TABLE desync (nonce bigint, n int); CREATE INDEX ON desync (nonce); ALTER TABLE desync OWNER TO app",
    );
}

/// What a server says of itself without any SET.
fn defaults(cluster: &Cluster) -> [String; 3] {
    let mut client = raw::Client::open(cluster.address(), "app", PASSWORD, DATABASE).unwrap();
    PARAMETERS.map(|name| client.value(&format!("SHOW {name}")))
}

/// Whether this server makes a block of what stands behind an Execute without Sync; see [`Rules::blocks`].
fn blocks(cluster: &Cluster) -> bool {
    let mut client = raw::Client::open(cluster.address(), "app", PASSWORD, DATABASE).unwrap();
    let sequence = [raw::parse("", "SELECT 1"), raw::bind("", "", &[]), raw::execute("", 0), raw::query("SELECT 2")];
    client.send(&sequence.concat()).unwrap();
    client.answer().unwrap();
    client.status == b'T'
}

fn rules(cluster: &Cluster, waits: bool) -> Rules {
    let signals = if cluster.version() < 18 { 2 } else { 1 };
    Rules { kills: true, waits, blocks: blocks(cluster), signals, defaults: defaults(cluster) }
}

/// Plays clients against `address`, with servers killed meanwhile if the rules permit.
fn play(cluster: &Cluster, run: Run) -> Tally {
    let run = Arc::new(run);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (stop, stopped) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        if run.rules.kills {
            let seed = run.seed;
            scope.spawn(move || kill_now_and_then(cluster, seed, &stopped));
        }
        runtime.block_on(async {
            let clients: Vec<_> = (0..run.clients).map(|n| tokio::spawn(player::client(Arc::clone(&run), n))).collect();
            for client in clients {
                client.await.expect("a client panicked");
            }
        });
        drop(stop);
    });
    let tally = std::mem::take(&mut *run.tally.lock().unwrap());
    if let Some(failure) = &tally.failure {
        let log = cluster.log();
        let crash: Vec<_> = log.lines().filter(|line| line.contains("terminated by signal")).take(5).collect();
        panic!("PostgreSQL {}: {failure}\n{}", cluster.version(), crash.join("\n"));
    }
    eprintln!(
        "DESYNC_SEED={}: {} sessions, {} batches, {} rows committed, {} not; {:?}",
        run.seed,
        tally.sessions,
        tally.batches,
        tally.present.len(),
        tally.absent.len(),
        tally.outcomes
    );
    tally
}

/// Ends a server of the pool at random times, as an administrator would.
fn kill_now_and_then(cluster: &Cluster, seed: u64, stopped: &mpsc::Receiver<()>) {
    let mut admin = cluster.connect();
    let mut random = Random::new(seed);
    while let Err(mpsc::RecvTimeoutError::Timeout) =
        stopped.recv_timeout(Duration::from_millis(100 + random.below(1200)))
    {
        // And waits until it is gone: one that dies only when all clients have left would end who looks then.
        let sql = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'app' \
                   ORDER BY random() LIMIT 1";
        if let Err(error) = admin.simple(sql) {
            let log = cluster.log();
            let crash: Vec<_> = log.lines().skip_while(|line| !line.contains("terminated by signal")).take(5).collect();
            panic!("the administrator's connection: {error}\n{}", crash.join("\n"));
        }
    }
}

/// Committed rows are there, as many as were said; others are not.
fn check_rows(cluster: &Cluster, tally: &Tally) {
    let rows = cluster.connect().simple("SELECT nonce, count(*) FROM desync GROUP BY nonce").unwrap();
    let number = |value: &Option<String>| value.as_deref().unwrap().parse::<u64>().unwrap();
    let there: HashMap<u64, u64> = rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect();
    for (nonce, count) in &tally.present {
        let found = there.get(nonce).copied().unwrap_or_default();
        assert_eq!(found, *count, "rows of nonce {nonce}, which were committed");
    }
    for nonce in &tally.absent {
        assert!(!there.contains_key(nonce), "nonce {nonce} was rolled back, and is there");
    }
}

#[test]
fn the_model_answers_as_postgresql() {
    let cluster = Cluster::start(&[]);
    make_table(&cluster);
    let run = Run {
        address: cluster.address(),
        seed: the_seed(),
        clients: 12,
        end: Instant::now() + SHORT / 3,
        mix: Mix { leaves: true, cancels: true, think: Duration::from_millis(2) },
        rules: rules(&cluster, false),
        failed: AtomicBool::new(false),
        tally: Mutex::default(),
    };
    let tally = play(&cluster, run);
    assert!(tally.batches > 100);
    wait_for("clients to be gone", || (cluster.backends(DATABASE) == 0).then_some(()));
    check_rows(&cluster, &tally);
}

#[test]
fn no_client_ever_gets_anothers_answer() {
    let seed = the_seed();
    let cluster = Cluster::start(&[]);
    make_table(&cluster);
    let pooler = start(&cluster, seed);
    let before = Resources::of(&pooler);
    let minutes = variable::<f64>("DESYNC_MINUTES");
    let time = minutes.map_or(SHORT, |minutes| Duration::from_secs_f64(minutes * 60.0));
    let run = Run {
        address: pooler.address(),
        seed,
        clients: variable("DESYNC_CLIENTS").unwrap_or(CLIENTS),
        end: Instant::now() + time,
        mix: Mix { leaves: true, cancels: true, think: Duration::from_millis(20) },
        rules: rules(&cluster, true),
        failed: AtomicBool::new(false),
        tally: Mutex::default(),
    };
    let tally = play(&cluster, run);
    assert!(tally.batches > 100, "{} batches only", tally.batches);
    rest(&cluster, &pooler);
    check_rows(&cluster, &tally);
    nothing_leaks(&cluster, &pooler);
    before.have_not_grown(&pooler);
}

/// Workers and the size of the statement cache come from the seed.
fn start(cluster: &Cluster, seed: u64) -> Pooler {
    let mut random = Random::new(seed);
    let (workers, statements) = (1 + random.below(2), [2, 10, 200][random.below(3) as usize]);
    eprintln!("{workers} workers, {statements} prepared statements a server");
    let toml = format!(
        "workers = {workers}\nstats_users = [\"app\"]\n\
         [databases.{DATABASE}]\nhost = \"127.0.0.1\"\nport = {}\npool_size = {SERVERS}\n\
         query_wait_timeout = \"400ms\"\nmax_prepared_statements = {statements}\n\
         [users.app]\npassword = \"{PASSWORD}\"\n",
        cluster.port()
    );
    let pooler = Setup::toml(&toml).start();
    // The first login of all needs a server, and on a busy machine more time than a client may wait here.
    let first = wait_for("the first login", || pooler.try_client("app", PASSWORD, DATABASE).ok());
    first.terminate();
    pooler
}

/// All clients have gone: every server is idle or closed, in no transaction, without a lock.
fn rest(cluster: &Cluster, pooler: &Pooler) {
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'";
    let all = "SELECT pid, state, wait_event, left(query, 300) FROM pg_stat_activity WHERE usename = 'app'";
    let tell = || {
        eprintln!("PostgreSQL:\n{}", cluster.psql(all));
        let mut console = pooler.try_client("app", PASSWORD, "pgsluice").unwrap();
        for show in ["SHOW CLIENTS", "SHOW SERVERS"] {
            eprintln!("{show}:\n{}", raw::text(&console.simple(show).unwrap()));
        }
    };
    wait_or_tell("servers to be idle", tell, || (cluster.psql(busy) == "0").then_some(()));
    let mut console = pooler.try_client("app", PASSWORD, "pgsluice").unwrap();
    wait_for("the pool to rest", || {
        let pools = console.simple("SHOW POOLS").unwrap();
        let pool = pools.iter().find(|row| row[0].as_deref() == Some(DATABASE))?;
        // cl_active, cl_waiting, two of cancels; sv_active, sv_active_cancel, sv_being_canceled; sv_tested; sv_login.
        let number = |at: usize| pool[at].as_deref().unwrap().parse::<usize>().unwrap();
        let busy: usize = [2, 3, 4, 5, 6, 7, 8, 11, 12].into_iter().map(number).sum();
        (busy == 0 && number(9) + number(10) <= SERVERS).then_some(())
    });
    let held = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE usename = 'app'";
    assert_eq!(cluster.psql(held), "0", "locks left");
    // One whose connection pgsluice has closed may take its time to notice.
    wait_for("closed servers to be gone", || (cluster.backends(DATABASE) <= SERVERS).then_some(()));
    let log = pooler.log();
    for word in ["panicked", "answered what was not asked"] {
        assert!(!log.contains(word), "the log tells of a fault");
    }
}

/// All servers can be had at once, and none shows what its clients have set.
fn nothing_leaks(cluster: &Cluster, pooler: &Pooler) {
    let all = "SELECT name, setting FROM pg_settings WHERE name NOT LIKE 'transaction%' ORDER BY 1";
    let look = |address: SocketAddr| {
        let mut client = raw::Client::open(address, "app", PASSWORD, DATABASE).unwrap();
        client.simple("BEGIN").unwrap();
        let settings = raw::text(&client.simple(all).unwrap());
        let left = "SELECT (SELECT count(*) FROM pg_cursors), (SELECT count(*) FROM pg_listening_channels()), \
                    (SELECT count(*) FROM pg_prepared_statements WHERE name NOT LIKE 'pgsluice_%'), \
                    (SELECT count(*) FROM pg_class WHERE relname LIKE 'tied_%' AND pg_table_is_visible(oid)), \
                    (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory')";
        let left = raw::text(&client.simple(left).unwrap());
        (settings, left, client)
    };
    let (settings, nothing, _client) = look(cluster.address());
    let mut held = Vec::new();
    for number in 0..SERVERS {
        let (own, left, client) = look(pooler.address());
        let differs: Vec<_> = own.lines().zip(settings.lines()).filter(|(a, b)| a != b).collect();
        assert!(differs.is_empty(), "server {number} has other settings: {differs:?}");
        assert_eq!(left, nothing, "server {number} keeps cursors, channels, statements, tables or locks");
        held.push(client);
    }
    for mut client in held {
        client.simple("COMMIT").unwrap();
    }
}

/// Memory in KiB and descriptors of the process.
struct Resources {
    memory: u64,
    descriptors: usize,
}

/// What may be added in all.
const GROWTH: u64 = 64 * 1024;

impl Resources {
    fn of(pooler: &Pooler) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pooler.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let memory = line.trim().trim_end_matches(" kB").parse().unwrap();
        Resources { memory, descriptors: descriptors(pooler) }
    }

    fn have_not_grown(&self, pooler: &Pooler) {
        let most = self.descriptors + SERVERS;
        wait_for("descriptors to be closed", || (descriptors(pooler) <= most).then_some(()));
        let now = Resources::of(pooler);
        eprintln!("memory {} KiB, then {} KiB", self.memory, now.memory);
        assert!(now.memory < self.memory + GROWTH, "memory has grown from {} to {} KiB", self.memory, now.memory);
    }
}

fn descriptors(pooler: &Pooler) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", pooler.pid())).unwrap().count()
}
