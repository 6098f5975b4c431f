//! The names that pgsluice gives to shared prepared statements at servers are nobody's to use: a client that says one
//! hears what it would hear of any name that it has not prepared, and the statement stays for those who have it.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use support::cluster::{self, PASSWORD};
use support::pooler::{Pooler, Setup};
use support::raw::{Client, bind, close, describe, execute, parse, query, sync};

fn start() -> Pooler {
    Setup::url(cluster::shared(), "app").env("PGSLUICE_POOL_SIZE", "1").start()
}

fn owner(pooler: &Pooler) -> Client {
    let mut owner = pooler.client("app");
    owner.send(&[parse("mine", "SELECT 'theirs'::text, $1::int"), sync()].concat()).unwrap();
    owner.answer().unwrap();
    used(&mut owner);
    owner
}

fn used(owner: &mut Client) {
    owner.send(&[bind("", "mine", &[Some("7")]), execute("", 0), sync()].concat()).unwrap();
    let rows = owner.answer().unwrap_or_else(|e| panic!("the owner's statement is gone: {e}"));
    assert_eq!(rows[0][0].as_deref(), Some("theirs"));
}

/// The names at the server.
fn names(client: &mut Client) -> Vec<String> {
    let rows = client.simple("SELECT name FROM pg_prepared_statements WHERE name LIKE 'pgsluice%'").unwrap();
    rows.into_iter().map(|row| row[0].clone().unwrap()).collect()
}

/// What a client may say about a name it does not have.
fn sayings(name: &str) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("Bind", [bind("", name, &[Some("7")]), execute("", 0), sync()].concat()),
        ("Describe", [describe(b'S', name), sync()].concat()),
        ("Close", [close(b'S', name), sync()].concat()),
        ("DEALLOCATE", query(&format!("DEALLOCATE {name}"))),
        ("DEALLOCATE PREPARE", query(&format!("/* x */ DEALLOCATE PREPARE \"{name}\";"))),
        ("EXECUTE", query(&format!("EXECUTE {name} (7)"))),
    ]
}

fn heard(client: &mut Client) -> Vec<String> {
    let all = client.read_until(b'Z').unwrap();
    let field = |m: &support::raw::Message, f| m.field(f).unwrap_or_default();
    all.iter()
        .map(|m| match m.tag {
            b'E' => format!("E {} {}", field(m, b'C'), field(m, b'M')),
            _ => format!("{m:?}"),
        })
        .collect()
}

/// Says everything about `name`, in a transaction and outside of one, and compares with a direct connection.
fn says_all(pooler: &Pooler, owner: &mut Client, name: &str, prelude: &[&str]) {
    let mut direct = Client::open(cluster::shared().address(), "app", PASSWORD, "app").unwrap();
    let mut client = pooler.client("app");
    for sql in prelude {
        direct.simple(sql).unwrap();
        client.simple(sql).unwrap();
    }
    for (what, bytes) in sayings(name) {
        for block in [false, true] {
            for c in [&mut direct, &mut client] {
                if block {
                    c.simple("BEGIN").unwrap();
                }
                c.send(&bytes).unwrap();
            }
            let expected = heard(&mut direct);
            assert_eq!(heard(&mut client), expected, "{what} of {name}, in a block: {block}");
            if block {
                direct.simple("ROLLBACK").unwrap();
                client.simple("ROLLBACK").unwrap();
            }
            if prelude.is_empty() {
                used(owner);
            }
        }
    }
    client.terminate();
    used(owner);
}

#[test]
fn a_name_at_the_server_is_no_name_of_a_client() {
    let pooler = start();
    let mut owner = owner(&pooler);
    let there = names(&mut owner);
    assert_eq!(there.len(), 1, "{there:?}");
    // What it is, and what one might take it for.
    for name in [&*there[0], "pgsluice_1", "pgsluice_2"] {
        says_all(&pooler, &mut owner, name, &[]);
    }
}

#[test]
fn nor_is_it_one_of_a_client_that_keeps_its_server() {
    let pooler = start();
    let mut owner = owner(&pooler);
    let there = names(&mut owner);
    says_all(&pooler, &mut owner, &there[0], &["PREPARE kept AS SELECT 1"]);
}

#[test]
fn it_cannot_be_guessed() {
    let (one, two) = (start(), start());
    let mut all = names(&mut owner(&one));
    all.extend(names(&mut owner(&two)));
    assert_ne!(all[0], all[1], "the same in every process");
    // A text that only begins otherwise reaches the server as it is.
    let mut client = one.client("app");
    for sql in ["SELECT 1; DEALLOCATE pgsluice_1", "DO $$ BEGIN EXECUTE 'DEALLOCATE pgsluice_1'; END $$"] {
        assert_eq!(client.simple(sql).unwrap_err().code(), "26000", "{sql}");
    }
    // And a client may take such a name for its own.
    client.simple("PREPARE pgsluice_1 AS SELECT 5").unwrap();
    assert_eq!(client.value("EXECUTE pgsluice_1"), "5");
    client.simple("DEALLOCATE pgsluice_1").unwrap();
}

#[test]
fn a_statement_that_somebody_took_away_is_made_anew() {
    let pooler = start();
    let mut owner = owner(&pooler);
    let there = names(&mut owner);
    let mut other = pooler.client("app");
    // Read from the view, and in a text that is not looked at.
    other.simple(&format!("SELECT 1; DEALLOCATE {}", there[0])).unwrap();
    owner.send(&[bind("", "mine", &[Some("7")]), execute("", 0), sync()].concat()).unwrap();
    if let Err(error) = owner.answer() {
        assert_eq!(error.code(), "26000", "{error}");
    }
    used(&mut owner);
    other.simple(&format!("SELECT 1; DEALLOCATE {}", there[0])).unwrap();
    match owner.simple("EXECUTE mine (7)") {
        Ok(rows) => assert_eq!(rows[0][0].as_deref(), Some("theirs")),
        Err(error) => assert!(error.code() == "26000" && error.to_string().contains("mine"), "{error}"),
    }
    used(&mut owner);
}

#[test]
fn statements_stay_where_ending_them_all_is_refused() {
    let pooler = start();
    let mut direct = Client::open(cluster::shared().address(), "app", PASSWORD, "app").unwrap();
    let mut client = pooler.client("app");
    let prepare =
        [parse("s", "DEALLOCATE PREPARE never"), parse("all", "DISCARD ALL"), parse("n", "SET x.y = 1"), sync()];
    for c in [&mut direct, &mut client] {
        c.send(&prepare.concat()).unwrap();
        c.answer().unwrap();
    }
    for (case, refused) in [
        vec![query("BEGIN"), query("DISCARD ALL")],
        vec![query("BEGIN"), query("SELECT 1/0"), query("DEALLOCATE ALL")],
        vec![query("BEGIN"), query("SELECT 1/0"), query(" discard all; SELECT 1")],
        vec![query("BEGIN"), [bind("", "all", &[]), execute("", 0), sync()].concat()],
        vec![query("BEGIN"), query("SELECT 1/0"), [parse("x", "DISCARD ALL"), sync()].concat()],
    ]
    .into_iter()
    .enumerate()
    {
        for bytes in refused.into_iter().chain([[describe(b'S', "n"), sync()].concat(), query("ROLLBACK")]) {
            direct.send(&bytes).unwrap();
            client.send(&bytes).unwrap();
            let shown = String::from_utf8_lossy(&bytes).into_owned();
            assert_eq!(heard(&mut client), heard(&mut direct), "case {case}: {shown}");
        }
    }
}
