//! Replication through the pooler, with PostgreSQL's own tools.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use support::cluster::{Cluster, DATABASE, PASSWORD};
use support::pooler::{Pooler, Setup};
use support::{TempDir, raw, signal, wait_for};

/// A cluster that replicates, and user `app` may.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = Cluster::start(&["wal_level=logical", "max_wal_senders=10", "max_replication_slots=10"]);
        cluster.psql("ALTER ROLE app REPLICATION");
        cluster
    })
}

fn start() -> Pooler {
    Setup::url(cluster(), "app").env("PGSLUICE_POOL_SIZE", "1").start()
}

/// One of PostgreSQL's programs, told to go through the pooler.
fn program(name: &str, pooler: &Pooler) -> Command {
    let mut command = Command::new(cluster().program(name));
    command.env_clear().env("PGPASSWORD", PASSWORD).env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    command.env("PGHOST", "127.0.0.1").env("PGPORT", pooler.port().to_string()).env("PGUSER", "app");
    command
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

fn open(address: std::net::SocketAddr, replication: &str) -> Result<raw::Client, raw::Error> {
    let mut client = raw::Client::connect(address)?;
    let database = [("user", "app"), ("database", DATABASE), ("application_name", "replica")];
    client.login_with(PASSWORD, &[&database[..], &[("replication", replication)]].concat())?;
    Ok(client)
}

/// Lines of SHOW CLIENTS or SHOW SERVERS whose column `replication` says `kind`.
fn shown(pooler: &Pooler, what: &str, kind: &str) -> usize {
    let mut console = pooler.try_client("app", PASSWORD, "pgsluice").unwrap();
    let rows = console.simple(&format!("SHOW {what}")).unwrap();
    rows.iter().filter(|r| r[3].as_deref() == Some(kind)).count()
}

#[test]
fn replication_commands_and_sql_work_beside_the_pool() {
    let pooler = start();
    let mut ordinary = pooler.client("app");
    ordinary.simple("BEGIN").unwrap();
    let text = output(program("psql", &pooler).args([
        "-AtX",
        &format!("dbname={DATABASE} replication=database"),
        "-c",
        "IDENTIFY_SYSTEM",
        "-c",
        "SELECT current_database()",
    ]));
    let expected = cluster().psql("SELECT system_identifier FROM pg_control_system()");
    assert!(text.starts_with(&expected) && text.ends_with(&format!("{DATABASE}\n")), "{text}");
    let name = "SELECT application_name FROM pg_stat_activity WHERE backend_type = 'walsender'";
    wait_for("psql's server to go", || (cluster().psql(name).is_empty()).then_some(()));
    for (value, kind) in [("true", "physical"), ("1", "physical"), ("database", "logical")] {
        let mut client = open(pooler.address(), value).unwrap();
        assert_eq!(client.simple("IDENTIFY_SYSTEM").unwrap()[0][0].as_deref(), Some(&*expected));
        assert_eq!(client.parameter("application_name"), Some("replica"));
        assert_eq!((shown(&pooler, "CLIENTS", kind), shown(&pooler, "SERVERS", kind)), (1, 1));
        assert_eq!(cluster().psql(name), "replica");
        client.terminate();
        wait_for("its server to go", || (cluster().psql(name).is_empty()).then_some(()));
        wait_for("it to be gone", || (shown(&pooler, "SERVERS", kind) == 0).then_some(()));
    }
    ordinary.simple("COMMIT").unwrap();
    assert_eq!(pooler.metric("pgsluice_pool_connections", &[]), 1.0, "the pool's own");
}

#[test]
fn a_base_backup_is_taken() {
    let pooler = start();
    let dir = TempDir::new("backup");
    let target = dir.path().join("data");
    output(program("pg_basebackup", &pooler).args(["-X", "stream", "-c", "fast", "-D"]).arg(&target));
    output(program("pg_verifybackup", &pooler).arg(&target));
}

#[test]
fn changes_stream_as_they_are_made() {
    let pooler = start();
    let mut client = pooler.client("app");
    client.simple("CREATE TABLE streamed (n int)").unwrap();
    let recvlogical = |more: &[&str]| {
        let mut command = program("pg_recvlogical", &pooler);
        command.args(["-d", DATABASE, "--slot", "stream_test"]).args(more);
        command
    };
    output(&mut recvlogical(&["--create-slot", "-P", "test_decoding"]));
    let mut receiver = recvlogical(&["--start", "-n", "-f", "-", "-F", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(receiver.stdout.take().unwrap()).lines().map(Result::unwrap);
    for n in 0..5 {
        client.simple(&format!("INSERT INTO streamed SELECT {n} FROM generate_series(1, 300)")).unwrap();
        let wanted = format!("table public.streamed: INSERT: n[integer]:{n}");
        assert_eq!(lines.by_ref().filter(|l| *l == wanted).take(300).count(), 300);
    }
    signal(receiver.id(), "INT");
    assert!(receiver.wait().unwrap().success());
    wait_for("the slot to be free", || {
        let active = "SELECT active FROM pg_replication_slots WHERE slot_name = 'stream_test'";
        (cluster().psql(active) == "f").then_some(())
    });
    output(&mut recvlogical(&["--drop-slot"]));
}

#[test]
fn errors_are_the_servers_own() {
    let pooler = start();
    cluster().psql("CREATE ROLE plain LOGIN PASSWORD 'secret'");
    let toml = format!(
        "[databases.{DATABASE}]\nhost = \"127.0.0.1\"\nport = {}\n[users.plain]\npassword = \"{PASSWORD}\"\n",
        cluster().port()
    );
    let other = Setup::toml(&toml).start();
    for replication in ["true", "database"] {
        let fails = |address| {
            let mut client = raw::Client::connect(address).unwrap();
            let who = [("user", "plain"), ("database", DATABASE), ("replication", replication)];
            client.login_with(PASSWORD, &who).unwrap_err()
        };
        let (direct, pooled) = (fails(cluster().address()), fails(other.address()));
        assert_eq!(pooled.to_string(), direct.to_string());
        // It says nothing about the pool.
        assert_eq!(other.client("plain").value("SELECT 1"), "1");
    }
    let (direct, pooled) = (open(cluster().address(), "perhaps"), open(pooler.address(), "perhaps"));
    assert_eq!(pooled.err().unwrap().to_string(), direct.err().unwrap().to_string());
    let mut client = open(pooler.address(), "database").unwrap();
    assert_eq!(client.simple("START_REPLICATION SLOT nowhere LOGICAL 0/0").unwrap_err().code(), "42704");
    assert_eq!(client.value("SELECT 'goes on'"), "goes on");
    // A cancel finds it; its backend's end is its own.
    client.send(&raw::query("SELECT pg_sleep(60)")).unwrap();
    let running = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender' AND query LIKE '%pg_sleep(60)%'";
    let pid: i32 = wait_for("it to run", || cluster().psql(running).parse().ok());
    let key = client.key.clone().unwrap();
    assert_eq!(key.0, pid);
    raw::Client::connect(pooler.address()).unwrap().send_cancel(&key).unwrap();
    assert_eq!(client.answer().unwrap_err().code(), "57014");
    cluster().kill_backend(pid);
    let messages = client.read_to_end().unwrap();
    assert_eq!(messages[0].field(b'C').unwrap(), "57P01");
    assert_eq!(messages.len(), 1);
}

#[test]
fn a_drain_ends_streams_and_lets_backups_finish() {
    let mut pooler = start();
    let mut stream = open(pooler.address(), "true").unwrap();
    let position = cluster().psql("SELECT pg_current_wal_flush_lsn()");
    stream.send(&raw::query(&format!("START_REPLICATION {position}"))).unwrap();
    assert_eq!(stream.read().unwrap().tag, b'W');
    let mut idle = open(pooler.address(), "database").unwrap();
    let mut busy = open(pooler.address(), "database").unwrap();
    busy.send(&raw::query("SELECT pg_sleep(1)")).unwrap();
    let running = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'walsender' AND query LIKE '%pg_sleep(1)%'";
    wait_for("it to run", || (cluster().psql(running) == "1").then_some(()));
    pooler.signal("TERM");
    for client in [&mut stream, &mut idle] {
        let messages = client.read_to_end().unwrap();
        assert_eq!(messages.last().unwrap().field(b'C').unwrap(), "57P01");
    }
    assert_eq!(raw::tags(&busy.read_until(b'Z').unwrap()), "TDCZ", "what runs is finished");
    assert_eq!(busy.read_to_end().unwrap()[0].field(b'C').unwrap(), "57P01");
    assert_eq!(pooler.wait().code(), Some(0));
}
