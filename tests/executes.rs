//! Texts that execute statements prepared by protocol, in transaction pooling: put in another's place, a Query still does
//! what it would on a connection of its own.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use support::cluster::{self, PASSWORD};
use support::pooler::{Pooler, Setup};
use support::raw::{self, Client, Message, bind, execute, parse, query, sync};
use support::wait_for;

fn setup(size: u32) -> Pooler {
    Setup::url(cluster::shared(), "app").env("PGSLUICE_POOL_SIZE", &size.to_string()).start()
}

/// Holds the server that was used last.
fn occupy(pooler: &Pooler) -> Client {
    let mut client = pooler.client("app");
    client.simple("BEGIN").unwrap();
    client
}

fn prepare(client: &mut Client, name: &str, sql: &str) {
    client.send(&[parse(name, sql), sync()].concat()).unwrap();
    client.answer().unwrap();
}

/// What `count` answers say, errors by code and message.
fn heard(client: &mut Client, count: usize) -> Vec<String> {
    let field = |m: &Message, f| m.field(f).unwrap_or_default();
    let said = |m: &Message| match m.tag {
        b'E' => format!("E {} {}", field(m, b'C'), field(m, b'M')),
        b'D' => format!("D {:?}", m.to_row()),
        b'S' => String::new(),
        tag => (tag as char).to_string(),
    };
    let all: Vec<_> = (0..count).flat_map(|_| client.read_until(b'Z').unwrap()).collect();
    all.iter().map(said).filter(|s| !s.is_empty()).collect()
}

/// What a client hears that began with `startup` and prepared `s1` and `s2`, of each batch and its number of answers:
/// directly, and where its server has gone to another.
fn same_as_direct(startup: &[(&str, &str)], batches: &[(Vec<u8>, usize)]) {
    let pooler = setup(2);
    let open = |address| {
        let mut client = Client::connect(address).unwrap();
        let who = [("user", "app"), ("database", "app")];
        client.login_with(PASSWORD, &[&who, startup].concat()).unwrap();
        prepare(&mut client, "s1", "SELECT 'prepared'::text");
        prepare(&mut client, "s2", "SELECT 'another'::text");
        client
    };
    let mut direct = open(cluster::shared().address());
    let mut client = open(pooler.address());
    let _other = occupy(&pooler);
    for (bytes, answers) in batches {
        direct.send(bytes).unwrap();
        client.send(bytes).unwrap();
        let expected = heard(&mut direct, *answers);
        assert_eq!(heard(&mut client, *answers), expected, "{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn in_a_copy_it_is_refused_and_who_leaves_then_keeps_no_server() {
    cluster::shared().psql("DROP TABLE IF EXISTS copied; CREATE TABLE copied (a int); ALTER TABLE copied OWNER TO app");
    for sql in ["EXECUTE s1", "SELECT 1; EXECUTE s1"] {
        let pooler = setup(2);
        let mut client = pooler.client("app");
        prepare(&mut client, "s1", "SELECT 1");
        let other = occupy(&pooler);
        client.send(&query("COPY copied FROM STDIN")).unwrap();
        client.read_until(b'G').unwrap();
        client.send(&query(sql)).unwrap();
        let mut direct = Client::open(cluster::shared().address(), "app", PASSWORD, "app").unwrap();
        direct.send(&query("COPY copied FROM STDIN")).unwrap();
        direct.read_until(b'G').unwrap();
        direct.send(&query(sql)).unwrap();
        let said = |client: &mut Client| {
            let all = client.read_to_end().unwrap();
            let e = all.iter().find(|m| m.tag == b'E').unwrap();
            (e.field(b'C'), e.field(b'M'))
        };
        assert_eq!(said(&mut client), said(&mut direct), "{sql}");
        let mut client = pooler.client("app");
        prepare(&mut client, "s1", "SELECT 1");
        client.send(&[query("COPY copied FROM STDIN"), query(sql)].concat()).unwrap();
        client.reset();
        drop(other);
        wait_for("the servers to be free", || {
            let (mut a, mut b) = (pooler.client("app"), pooler.client("app"));
            (a.simple("BEGIN").is_ok() && b.simple("BEGIN").is_ok()).then_some(())
        });
    }
}

#[test]
fn who_leaves_while_an_answer_is_awaited_is_seen() {
    let pooler = setup(2);
    let mut client = pooler.client("app");
    prepare(&mut client, "s1", "SELECT 1");
    let _other = occupy(&pooler);
    // What is to be prepared ahead of the second waits for the first.
    client.send(&[query("SELECT pg_sleep(600)"), query("EXECUTE s1")].concat()).unwrap();
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()";
    wait_for("the first to run", || (cluster::shared().psql(sleeps).trim() == "1").then_some(()));
    client.reset();
    wait_for("the first to be cancelled", || (cluster::shared().psql(sleeps).trim() == "0").then_some(()));
}

#[test]
fn what_stands_before_it_in_the_text_counts() {
    let all = |sql: &str| {
        let bound = [parse("late", "SELECT 'another'::text"), bind("", "late", &[]), execute("", 0), sync()].concat();
        vec![([query(sql), bound].concat(), 2), (query("EXECUTE late"), 1)]
    };
    for sql in [
        "DEALLOCATE ALL; EXECUTE s1",
        "DEALLOCATE ALL; PREPARE s1 AS SELECT 2; EXECUTE s1",
        "DEALLOCATE PREPARE ALL; PREPARE s1 AS SELECT 2; EXECUTE \"s1\"",
        "DISCARD PLANS; EXECUTE s1",
        "SELECT 1; DISCARD ALL; EXECUTE s1",
        "PREPARE own AS SELECT 3; EXECUTE own; EXECUTE s1; EXECUTE s2",
    ] {
        same_as_direct(&[], &all(sql));
    }
}

#[test]
fn a_reset_before_it_is_awaited() {
    let shows = [query("RESET TimeZone; EXECUTE s1"), query("SHOW TimeZone")].concat();
    same_as_direct(&[("TimeZone", "Asia/Tokyo")], &[(shows, 2)]);
}

#[test]
fn the_unnamed_statement_stays_when_it_is_skipped() {
    let run = [bind("", "", &[]), execute("", 0), sync()].concat();
    let skipped = [parse("", "SELECT 'mine'"), bind("", "never", &[]), query("EXECUTE s1"), sync()].concat();
    let second = [parse("", "SELECT 'mine'"), bind("", "never", &[]), query("SELECT 1; EXECUTE s1"), sync()].concat();
    same_as_direct(&[], &[(skipped, 1), (run.clone(), 1), (second, 1), (run, 1)]);
}

#[test]
fn strings_are_read_as_a_set_on_its_way_says() {
    let set = query("SET standard_conforming_strings = off");
    // One text or another, by how the backslash is read.
    let text = query(r"SELECT 'a\'; EXECUTE s1; --'; EXECUTE s1");
    same_as_direct(&[], &[(query("EXECUTE s1"), 1), ([set, text].concat(), 2)]);
}

#[test]
fn each_of_several_is_made_anew_when_somebody_took_it_away() {
    let pooler = setup(1);
    let mut client = pooler.client("app");
    prepare(&mut client, "s1", "SELECT 'one'::text");
    prepare(&mut client, "s2", "SELECT 'two'::text");
    let both = "EXECUTE s1; EXECUTE s2";
    assert_eq!(raw::text(&client.simple(both).unwrap()), "one\ntwo");
    let name =
        client.value("SELECT name FROM pg_prepared_statements WHERE statement LIKE '%two%' AND name ~ '^pgsluice'");
    client.simple(&format!("DO $$ BEGIN EXECUTE 'DEALLOCATE \"{name}\"'; END $$")).unwrap();
    assert_eq!(client.simple(both).unwrap_err().code(), "26000");
    assert_eq!(raw::text(&client.simple(both).unwrap()), "one\ntwo");
}
