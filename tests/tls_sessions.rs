//! TLS on both sides and what else a session does: waiting, leaving, cancelling, session pooling, replication.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use support::cluster::{self, DATABASE, PASSWORD};
use support::pki::{Ca, client_config};
use support::pooler::{Pooler, Setup};
use support::secured::{Secured, both_sides, configuration, secured, secured_with};
use support::{TempDir, raw, wait_for};

/// A pooler, and how clients reach it.
struct Both {
    pg: Secured,
    pooler: Pooler,
    config: Arc<ClientConfig>,
}

impl Both {
    /// `None` where PostgreSQL was built without TLS.
    fn start(lines: &str, options: &[&str]) -> Option<Both> {
        let pg = if options.is_empty() {
            secured(|ca| ca.server(&["localhost"]))?
        } else {
            secured_with(|ca| ca.server(&["localhost"]), options)?
        };
        let (setup, config) = both_sides(&pg, lines);
        let pooler = setup.env("PGSLUICE_WORKERS", "2").start();
        Some(Both { pg, pooler, config })
    }

    fn address(&self) -> SocketAddr {
        self.pooler.address()
    }

    fn connect(&self) -> raw::Client {
        raw::Client::connect_tls(self.address(), &self.config, "localhost").unwrap()
    }

    fn client(&self) -> raw::Client {
        let mut client = self.connect();
        client.login("app", PASSWORD, DATABASE).unwrap();
        client
    }

    /// A client whose login waits for a server: its parameters are nobody else's.
    fn waits_in_login(&self, number: usize) -> raw::Client {
        let mut client = self.connect();
        let options = format!("-c work_mem={}kB", 1000 + number);
        client.send(&raw::startup(3 << 16, &[("user", "app"), ("database", DATABASE), ("options", &options)])).unwrap();
        client.authenticate("app", PASSWORD).unwrap();
        client
    }

    fn cancel(&self, key: &(i32, Vec<u8>)) {
        self.connect().send_cancel(key).unwrap();
    }

    /// Waits until `n` clients wait for a server.
    fn waiting(&self, n: usize) {
        let waiting = || self.pooler.metric("pgsluice_pool_waiting_clients", &[]) == n as f64;
        wait_for(&format!("{n} clients to wait"), || waiting().then_some(()));
    }
}

fn terminate() -> Vec<u8> {
    raw::frame(b'X', b"")
}

#[test]
fn whoever_leaves_while_it_waits_gives_up_its_place() {
    let Some(both) = Both::start("pool_size = 1", &[]) else { return };
    let mut holder = both.client();
    holder.simple("BEGIN").unwrap();
    // Over the room that is looked into while waiting.
    let much = raw::query(&format!("SELECT '{}'", "x".repeat(30_000)));
    for later in [&b""[..], &much[..7], &much] {
        for how in ["close_notify alone", "the end of the stream", "a reset", "half a record", "no TLS"] {
            for login in [true, false] {
                let mut leavers: Vec<_> = (0..2)
                    .map(|number| match login {
                        true => both.waits_in_login(number),
                        false => {
                            let mut client = both.client();
                            client.send(&raw::query("SELECT 'waits'")).unwrap();
                            client
                        }
                    })
                    .collect();
                both.waiting(2);
                for client in &mut leavers {
                    client.send(later).unwrap();
                }
                let since = Instant::now();
                let mut open = Vec::new();
                for mut client in leavers {
                    match how {
                        "close_notify alone" => {
                            client.close_notify().unwrap();
                            open.push(client);
                        }
                        "a reset" => client.reset(),
                        "half a record" => client.send_beneath(&[23, 3, 3, 0, 100, 1, 2, 3]).unwrap(),
                        "no TLS" => {
                            client.send_beneath(b"GET / HTTP/1.1\r\n\r\n").unwrap();
                            open.push(client);
                        }
                        _ => drop(client),
                    }
                }
                if later.len() > 1000 && !open.is_empty() {
                    // It stands behind more than is looked into: the end of the stream will tell.
                    drop(open);
                }
                both.waiting(0);
                assert!(since.elapsed() < Duration::from_secs(3), "{how}: noticed after {:?}", since.elapsed());
            }
        }
    }
    let mut later = both.client();
    later.send(&raw::query("SELECT 'served'")).unwrap();
    both.waiting(1);
    holder.simple("COMMIT").unwrap();
    assert_eq!(later.answer().unwrap()[0][0].as_deref(), Some("served"));
}

#[test]
fn bytes_sent_while_waiting_are_read_afterwards() {
    let Some(both) = Both::start("pool_size = 1", &[]) else { return };
    let (mut holder, mut client) = (both.client(), both.client());
    for round in 0..3 {
        holder.simple("BEGIN").unwrap();
        client.send(&raw::query("SELECT 'first'")).unwrap();
        both.waiting(1);
        for n in 0..20 {
            client.send(&raw::query(&format!("SELECT '{round}.{n}'"))).unwrap();
        }
        client.send(&raw::query(&format!("SELECT length('{}')", "x".repeat(100_000)))).unwrap();
        client.send(&raw::query("SELECT 'last'")).unwrap();
        holder.simple("COMMIT").unwrap();
        assert_eq!(client.answer().unwrap()[0][0].as_deref(), Some("first"));
        for n in 0..20 {
            assert_eq!(client.answer().unwrap()[0][0].as_deref(), Some(&*format!("{round}.{n}")));
        }
        assert_eq!(client.answer().unwrap()[0][0].as_deref(), Some("100000"));
        assert_eq!(client.answer().unwrap()[0][0].as_deref(), Some("last"));
    }
    // A login that has waited goes on with what was sent behind it.
    holder.simple("BEGIN").unwrap();
    let mut client = both.waits_in_login(7);
    both.waiting(1);
    client.send(&raw::query("SHOW work_mem")).unwrap();
    holder.simple("COMMIT").unwrap();
    client.read_until(b'Z').unwrap();
    assert_eq!(client.answer().unwrap()[0][0].as_deref(), Some("1007kB"));
}

#[test]
fn a_statement_whose_client_said_goodbye_in_the_queue_is_done() {
    let Some(both) = Both::start("pool_size = 1", &[]) else { return };
    both.pg.cluster.psql("CREATE TABLE queued (who text); GRANT ALL ON queued TO app");
    let mut holder = both.client();
    holder.simple("BEGIN").unwrap();
    let mut open = Vec::new();
    let ways = ["at once", "later", "later, close_notify alone"];
    for (number, way) in ways.iter().enumerate() {
        let mut client = both.client();
        let insert = raw::query(&format!("INSERT INTO queued VALUES ('{number}')"));
        if *way == "at once" {
            client.send(&[insert, terminate()].concat()).unwrap();
        } else {
            client.send(&insert).unwrap();
            both.waiting(number + 1);
            client.send(&terminate()).unwrap();
        }
        if way.ends_with("alone") {
            client.close_notify().unwrap();
            open.push(client);
        } else {
            drop(client);
        }
        both.waiting(number + 1);
    }
    let mut other = both.client();
    other.send(&raw::query("INSERT INTO queued VALUES ('no')")).unwrap();
    both.waiting(ways.len() + 1);
    drop(other);
    both.waiting(ways.len());
    holder.simple("COMMIT").unwrap();
    let rows = "SELECT string_agg(who, ',' ORDER BY who) FROM queued";
    wait_for("all to be done", || (holder.value(rows) == "0,1,2").then_some(()));
}

#[test]
fn cancels_reach_who_waits_and_who_runs_in_both_versions_of_the_protocol() {
    for mode in ["transaction", "session"] {
        let lines = format!("pool_size = 1\npool_mode = \"{mode}\"");
        let Some(both) = Both::start(&lines, &[]) else { return };
        let session = mode == "session";
        for version in [3 << 16, 3 << 16 | 2] {
            let mut client = both.connect();
            client.login_by(version, PASSWORD, &[("user", "app"), ("database", DATABASE)]).unwrap();
            let key = client.key.clone().unwrap();
            if !session {
                let mut holder = both.client();
                holder.simple("BEGIN").unwrap();
                client.send(&raw::query("SELECT 'waits'")).unwrap();
                both.waiting(1);
                both.cancel(&key);
                assert_eq!(client.answer().unwrap_err().code(), "57014");
                holder.simple("COMMIT").unwrap();
            }
            client.send(&raw::query("SELECT pg_sleep(60)")).unwrap();
            let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND state = 'active' AND pid <> pg_backend_pid()";
            wait_for("the query to run", || (both.pg.cluster.psql(running) == "1").then_some(()));
            both.cancel(&key);
            assert_eq!(client.answer().unwrap_err().code(), "57014", "{mode}");
            assert_eq!(client.value("SELECT 'goes on'"), "goes on");
            client.terminate();
        }
    }
}

#[test]
fn session_pooling_opens_with_the_clients_parameters() {
    let Some(both) = Both::start("pool_size = 2\npool_mode = \"session\"", &[]) else { return };
    for (memory, count) in [("7MB", 1), ("8MB", 2), ("7MB", 2)] {
        let mut client = both.connect();
        let options = format!("-c work_mem={memory}");
        client.login_with(PASSWORD, &[("user", "app"), ("database", DATABASE), ("options", &options)]).unwrap();
        assert_eq!(client.value("SHOW work_mem"), memory);
        let pid = client.key.as_ref().unwrap().0.to_string();
        let own = "SELECT pg_backend_pid() || ' ' || ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        assert_eq!(client.value(own), format!("{pid} true"));
        client.simple("CREATE TEMP TABLE scratch (n int)").unwrap();
        client.terminate();
        wait_for("its server to be free", || {
            (both.pooler.metric("pgsluice_pool_connections", &["state=\"active\""]) == 0.0).then_some(())
        });
        assert!(both.pg.cluster.backends(DATABASE) <= count, "{memory}");
    }
}

/// The state that is asked of a server, and what follows a client from one to another.
#[test]
fn state_follows_and_ties() {
    let Some(both) = Both::start("pool_size = 2", &[]) else { return };
    let (mut one, mut two) = (both.client(), both.client());
    one.simple("SET work_mem = '3MB'").unwrap();
    two.simple("BEGIN").unwrap();
    assert_eq!(one.value("SHOW work_mem"), "3MB");
    two.simple("COMMIT").unwrap();
    for client in [&mut one, &mut two] {
        client.simple("BEGIN; CREATE TEMP TABLE tied (n int); SELECT pg_advisory_lock(1); ROLLBACK").unwrap();
        client.simple("SELECT pg_advisory_unlock_all()").unwrap();
        client.send(&[raw::parse("named", "SELECT $1::int + 1"), raw::sync()].concat()).unwrap();
        client.answer().unwrap();
    }
    for n in 0..10 {
        for client in [&mut one, &mut two] {
            let text = n.to_string();
            let message = [raw::bind("", "named", &[Some(&text)]), raw::execute("", 0), raw::sync()].concat();
            client.send(&message).unwrap();
            assert_eq!(client.answer().unwrap()[0][0], Some((n + 1).to_string()));
        }
    }
}

#[test]
fn replication_has_tls_on_both_sides() {
    let options = ["wal_level=logical", "max_wal_senders=5", "max_replication_slots=5"];
    let Some(both) = Both::start("pool_size = 1", &options) else { return };
    let cluster = &both.pg.cluster;
    cluster.psql("ALTER ROLE app REPLICATION");
    // A client without TLS is refused here too.
    let mut plain = raw::Client::connect(both.address()).unwrap();
    let who = [("user", "app"), ("database", DATABASE), ("replication", "true")];
    assert_eq!(plain.login_with(PASSWORD, &who).unwrap_err().code(), "28000");
    let mut client = both.connect();
    client
        .login_by(3 << 16 | 2, PASSWORD, &[("user", "app"), ("database", DATABASE), ("replication", "database")])
        .unwrap();
    let own = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(client.value(own), "t");
    client.send(&raw::query("SELECT pg_sleep(60)")).unwrap();
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender' AND query LIKE '%pg_sleep(60)'";
    wait_for("it to run", || (cluster.psql(running) == "1").then_some(()));
    both.cancel(client.key.as_ref().unwrap());
    assert_eq!(client.answer().unwrap_err().code(), "57014");
    assert_eq!(client.value("SELECT 'goes on'"), "goes on");
    // Two connections: the files, and the log that is written meanwhile, with answers of the receiver.
    let dir = TempDir::new("backup");
    let target = dir.path().join("data");
    let run = |name: &str, arguments: &[&str]| {
        let output = Command::new(cluster.program(name))
            .env_clear()
            .envs([("PGPASSWORD", PASSWORD), ("PGUSER", "app"), ("PGHOST", "localhost"), ("PGHOSTADDR", "127.0.0.1")])
            .envs([("LC_ALL", "C"), ("HOME", "/nonexistent"), ("PGSSLMODE", "verify-full")])
            .env("PGSSLROOTCERT", both.pg.ca.file())
            .env("PGPORT", both.pooler.port().to_string())
            .args(arguments)
            .arg(&target)
            .current_dir("/")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run("pg_basebackup", &["-X", "stream", "-c", "fast", "-D"]);
    run("pg_verifybackup", &[]);
}

/// A stream of the log to a client that reads slowly, cut into pieces, is what it is without TLS.
#[test]
fn a_drain_ends_a_stream_between_two_messages() {
    let options = ["wal_level=logical", "max_wal_senders=5", "max_replication_slots=5"];
    let Some(mut both) = Both::start("pool_size = 1", &options) else { return };
    both.pg.cluster.psql("ALTER ROLE app REPLICATION");
    both.pg.cluster.psql("CREATE TABLE filler (line text)");
    let position = both.pg.cluster.psql("SELECT pg_current_wal_flush_lsn()");
    let mut stream = both.connect();
    stream.login_with(PASSWORD, &[("user", "app"), ("database", DATABASE), ("replication", "true")]).unwrap();
    stream.send(&raw::query(&format!("START_REPLICATION {position}"))).unwrap();
    assert_eq!(stream.read().unwrap().tag, b'W');
    both.pg.cluster.psql("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 20000)");
    let end = both.pg.cluster.psql("SELECT pg_current_wal_flush_lsn()");
    let lsn = |text: &str| {
        let (high, low) = text.split_once('/').unwrap();
        u64::from_str_radix(high, 16).unwrap() << 32 | u64::from_str_radix(low, 16).unwrap()
    };
    let mut at = lsn(&position) & !0x1fff;
    while at < lsn(&end) {
        let message = stream.read().unwrap();
        assert_eq!(message.tag, b'd');
        if message.body[0] == b'w' {
            let start = u64::from_be_bytes(message.body[1..9].try_into().unwrap());
            assert!(start <= at || at < lsn(&position), "nothing is left out: {start:x} after {at:x}");
            at = start + message.body.len() as u64 - 25;
        }
    }
    both.pooler.signal("TERM");
    let messages = stream.read_to_end().unwrap();
    assert_eq!(messages.last().unwrap().field(b'C').unwrap(), "57P01");
    assert_eq!(both.pooler.wait().code(), Some(0));
}

#[test]
fn rules_tell_clients_with_tls_from_those_without() {
    let ca = Ca::new();
    let own = ca.server(&["localhost"]);
    let dir = TempDir::new("rules");
    let rules = dir.path().join("rules");
    std::fs::write(&rules, "hostssl all app all scram-sha-256\nhostnossl all plainuser all scram-sha-256\n").unwrap();
    let setup = Setup::toml(&configuration(cluster::shared().port(), &[(DATABASE, "127.0.0.1", String::new())]));
    let pooler = setup
        .env("PGSLUICE_CLIENT_TLS_CERT_FILE", &own.cert.display().to_string())
        .env("PGSLUICE_CLIENT_TLS_KEY_FILE", &own.key.display().to_string())
        .env("PGSLUICE_AUTH_TYPE", "hba")
        .env("PGSLUICE_AUTH_HBA_FILE", &rules.display().to_string())
        .start();
    let config = client_config(Some(&ca.file()), None, &[b"postgresql"]);
    for (user, tls, words) in [
        ("app", true, None),
        ("app", false, Some("no encryption")),
        ("plainuser", false, None),
        ("plainuser", true, Some("SSL encryption")),
    ] {
        let mut client = match tls {
            true => raw::Client::connect_tls(pooler.address(), &config, "localhost").unwrap(),
            false => raw::Client::connect(pooler.address()).unwrap(),
        };
        match (client.login(user, PASSWORD, DATABASE), words) {
            (Ok(()), None) => assert_eq!(client.value("SELECT 1"), "1"),
            (Err(error), Some(words)) => {
                assert!(error.code() == "28000" && error.to_string().contains(words), "{user}: {error}");
            }
            (other, _) => panic!("{user} with TLS {tls}: {other:?}"),
        }
    }
}
