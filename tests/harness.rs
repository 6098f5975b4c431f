//! The harness itself, proved against PostgreSQL without the pooler: when another test fails, it is not this.

mod support;

use std::time::{Duration, Instant};

use support::cluster::{self, Cluster, DATABASE, PASSWORD};
use support::proxy::{Direction, Fault, Proxy};
use support::{pooler, raw, seed, wait_for};

#[test]
fn every_user_logs_in_by_its_method() {
    let cluster = cluster::shared();
    for user in ["app", "md5user", "plainuser", "trustuser", "postgres"] {
        let mut client = raw::Client::open(cluster.address(), user, PASSWORD, DATABASE).expect(user);
        assert_eq!(client.value("SELECT current_user"), user);
        assert_eq!(client.status, b'I');
        assert!(client.key.is_some());
        assert_eq!(client.parameter("client_encoding"), Some("UTF8"));
    }
}

#[test]
fn a_wrong_password_is_refused() {
    let cluster = cluster::shared();
    for user in ["app", "md5user", "plainuser"] {
        let error = raw::Client::open(cluster.address(), user, "wrong", DATABASE).err().expect(user);
        assert_eq!(error.code(), "28P01", "{user}: {error}");
    }
}

#[test]
fn psql_gives_rows_as_text() {
    let cluster = cluster::shared();
    assert_eq!(cluster.psql("SELECT 1, NULL, 'x' UNION ALL SELECT 2, 'b', 'y' ORDER BY 1"), "1||x\n2|b|y");
    assert!(cluster.version() >= 13);
}

#[test]
fn extended_protocol_and_errors() {
    let mut client = raw::Client::open(cluster::shared().address(), "app", PASSWORD, DATABASE).unwrap();
    assert_eq!(raw::text(&client.extended("SELECT $1::int + 1, $2::text", &[Some("41"), None]).unwrap()), "42|");
    assert_eq!(client.simple("SELECT * FROM no_such_table").unwrap_err().code(), "42P01");
    assert_eq!(client.value("SELECT 'still here'"), "still here");
    client.send(&raw::query("BEGIN")).unwrap();
    assert_eq!(raw::tags(&client.read_until(b'Z').unwrap()), "CZ");
    assert_eq!(client.status, b'T');
}

#[test]
fn a_cancel_request_ends_a_query() {
    let cluster = cluster::shared();
    let mut client = raw::Client::open(cluster.address(), "app", PASSWORD, DATABASE).unwrap();
    client.send(&raw::query("SELECT pg_sleep(60)")).unwrap();
    let pid = client.key.clone().unwrap().0;
    let active = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state = 'active'");
    wait_for("the query to run", || (cluster.psql(&active) == "1").then_some(()));
    raw::Client::connect(cluster.address()).unwrap().send_cancel(client.key.as_ref().unwrap()).unwrap();
    assert_eq!(client.answer().unwrap_err().code(), "57014");
}

#[test]
fn a_killed_backend_tells_its_client() {
    let cluster = cluster::shared();
    let mut client = raw::Client::open(cluster.address(), "app", PASSWORD, DATABASE).unwrap();
    cluster.kill_backend(client.key.as_ref().unwrap().0);
    assert_eq!(client.read().unwrap().field(b'C').as_deref(), Some("57P01"));
    assert!(client.read().is_err());
}

#[test]
fn a_cluster_restarts_and_crashes_with_its_data() {
    let cluster = Cluster::start(&["max_connections=20"]);
    assert_eq!(cluster.psql("SHOW max_connections"), "20");
    cluster.psql("CREATE TABLE kept (n int)");
    let mut client = cluster.connect();
    cluster.restart();
    assert_eq!(client.read().unwrap().field(b'C').as_deref(), Some("57P01"));
    let port = cluster.port();
    cluster.psql("INSERT INTO kept VALUES (1)");
    cluster.psql("CHECKPOINT"); // commits are not flushed here
    cluster.crash();
    assert!(raw::Client::connect(cluster.address()).is_err(), "nobody listens");
    cluster.launch_again();
    assert_eq!((cluster.port(), cluster.psql("SELECT n FROM kept").as_str()), (port, "1"));
}

#[test]
fn the_proxy_passes_bytes_in_any_pieces() {
    let cluster = cluster::shared();
    let proxy = Proxy::start(cluster.address(), seed());
    for fault in [Fault::None, Fault::Split(1), Fault::Split(7), Fault::Delay(Duration::from_millis(2))] {
        proxy.set(Direction::ToServer, fault);
        proxy.set(Direction::ToClient, fault);
        let mut client = raw::Client::open(proxy.address(), "app", PASSWORD, DATABASE).unwrap();
        let long = "x".repeat(5000);
        assert_eq!(client.value(&format!("SELECT '{long}'")), long, "{fault:?}");
    }
    assert_eq!(proxy.accepted(), 4);
    wait_for("the connections to end", || (proxy.open() == 0).then_some(()));
}

#[test]
fn the_proxy_stalls_until_healed() {
    let cluster = cluster::shared();
    let proxy = Proxy::start(cluster.address(), seed());
    let mut client = raw::Client::open(proxy.address(), "app", PASSWORD, DATABASE).unwrap();
    proxy.set(Direction::ToClient, Fault::Stall);
    client.send(&raw::query("SELECT 1")).unwrap();
    assert!(client.is_silent(Duration::from_millis(100)));
    proxy.heal();
    assert_eq!(raw::text(&client.answer().unwrap()), "1");
}

#[test]
fn the_proxy_resets_and_cuts() {
    let cluster = cluster::shared();
    let proxy = Proxy::start(cluster.address(), seed());
    let open = || raw::Client::open(proxy.address(), "app", PASSWORD, DATABASE).unwrap();

    let mut client = open();
    proxy.reset_all();
    let kind = client.read().unwrap_err().kind();
    assert_eq!(kind, std::io::ErrorKind::ConnectionReset);

    let mut client = open();
    // RowDescription of one column "?column?" is 33 bytes: the cut falls into it.
    proxy.set(Direction::ToClient, Fault::CutAfter(10));
    client.send(&raw::query("SELECT 1")).unwrap();
    assert_eq!(client.read().unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    proxy.heal();

    let mut client = open();
    proxy.set(Direction::ToServer, Fault::HalfClose);
    // The server sees the end of input, ends the session, and its end comes back.
    assert!(client.read_to_end().unwrap().is_empty());
    proxy.heal();

    proxy.set(Direction::ToServer, Fault::Reset);
    assert!(raw::Client::open(proxy.address(), "app", PASSWORD, DATABASE).is_err());
}

#[test]
fn metrics_are_added_up() {
    let text =
        "# HELP a_total x\na_total{db=\"x\",kind=\"n\"} 2\na_total{db=\"y\",kind=\"n\"} 3 1234\na_total_more 7\nb 4\n";
    assert_eq!(pooler::sum(text, "a_total", &[]), 5.0);
    assert_eq!(pooler::sum(text, "a_total", &["db=\"y\"", "kind=\"n\""]), 3.0);
    assert_eq!(pooler::sum(text, "b", &[]), 4.0);
    assert_eq!(pooler::sum(text, "c", &[]), 0.0);
}

#[test]
fn a_second_cluster_starts_fast() {
    cluster::shared(); // the template is there
    let start = Instant::now();
    let cluster = Cluster::start(&[]);
    // Not a measure of speed, but of the template being used: initdb alone takes a second on a busy machine.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(cluster.backends(DATABASE), 0);
}

#[test]
fn a_directory_that_a_killed_run_left_is_passed_over() {
    let next = support::unique() + 1;
    let left = std::env::temp_dir().join(format!("pgsluice-left-{}-{next}", std::process::id()));
    std::fs::create_dir(&left).unwrap();
    let dir = support::TempDir::new("left");
    assert_ne!(dir.path(), left);
    std::fs::remove_dir(&left).unwrap();
}
