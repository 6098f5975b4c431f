//! Sequences that drivers send, found where their own suites differed from a direct connection.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::collections::BTreeSet;

use support::cluster::{self, DATABASE, PASSWORD};
use support::pooler::{Pooler, Setup};
use support::raw::{self, Client};
use support::wait_for;

fn pool(size: u32) -> Pooler {
    Setup::url(cluster::shared(), "postgres").env("PGSLUICE_POOL_SIZE", &size.to_string()).start()
}

/// Rows, or the SQLSTATE.
fn heard(client: &mut Client) -> String {
    client.answer().map_or_else(|e| e.code().to_owned(), |rows| raw::text(&rows))
}

fn prepare_unnamed(client: &mut Client, sql: &str) -> String {
    client.send(&[raw::parse("", sql), raw::sync()].concat()).unwrap();
    heard(client)
}

fn run_unnamed(client: &mut Client) -> String {
    client.send(&[raw::bind("", "", &[]), raw::execute("", 0), raw::sync()].concat()).unwrap();
    heard(client)
}

/// A statement with a text of about this many bytes.
fn long(value: &str, bytes: usize) -> String {
    format!("SELECT '{value}' /* {} */", "x".repeat(bytes))
}

/// How many clients keep their server.
fn tied(pooler: &Pooler) -> f64 {
    pooler.metric("pgsluice_pool_pinned_clients", &["user=\"postgres\""])
}

/// pg8000 syncs each Parse before it binds: a long list of parameters makes a long text.
#[test]
fn a_long_unnamed_statement_is_bound_after_a_sync() {
    let pooler = pool(3);
    for bytes in [20_000, 60_000, 65_530, 100_000, 1_000_000] {
        let (mut client, mut other) = (pooler.client("postgres"), pooler.client("postgres"));
        assert_eq!(prepare_unnamed(&mut client, &long("mine", bytes)), "");
        // The server that it was prepared at is taken, or has another's statement.
        let mut holder = pooler.client("postgres");
        holder.simple("BEGIN").unwrap();
        assert_eq!(prepare_unnamed(&mut other, "SELECT 'theirs'"), "");
        client.send(&[raw::describe(b'S', ""), raw::sync()].concat()).unwrap();
        assert_eq!(heard(&mut client), "", "{bytes}");
        for _ in 0..2 {
            assert_eq!(run_unnamed(&mut client), "mine", "{bytes}");
            assert_eq!(run_unnamed(&mut other), "theirs", "{bytes}");
        }
    }
}

#[test]
fn a_long_unnamed_statement_ties_until_it_is_replaced() {
    let pooler = pool(2);
    let (mut client, mut other) = (pooler.client("postgres"), pooler.client("postgres"));
    let ends: [(&str, &[u8]); 4] = [
        ("Parse", &raw::parse("", "SELECT 1")),
        ("failing Parse", &raw::parse("", &long("x' +", 100_000))),
        ("Close", &raw::close(b'S', "")),
        ("Query", &raw::query("SELECT 1")),
    ];
    for (what, end) in ends {
        assert_eq!(prepare_unnamed(&mut client, &long("mine", 100_000)), "");
        assert_eq!(tied(&pooler), 1.0, "before the {what}");
        client.send(end).unwrap();
        if what != "Query" {
            client.send(&raw::sync()).unwrap();
        }
        let _ = client.answer();
        wait_for("the client to be untied", || (tied(&pooler) == 0.0).then_some(()));
    }
    // One that is bound at once, as most drivers do, ties nothing.
    client
        .send(
            &[raw::parse("", &long("mine", 100_000)), raw::bind("", "", &[]), raw::execute("", 0), raw::sync()]
                .concat(),
        )
        .unwrap();
    assert_eq!(heard(&mut client), "mine");
    assert_eq!(tied(&pooler), 0.0);
    assert_eq!(other.value("SELECT 1"), "1");
}

/// Behind the Sync the Bind is not skipped together with its Parse.
#[test]
fn a_bind_pipelined_behind_a_skipped_parse_finds_no_one_elses() {
    let pooler = pool(1);
    let (mut client, mut other) = (pooler.client("postgres"), pooler.client("postgres"));
    for behind in [raw::bind("", "", &[]), [raw::describe(b'S', ""), raw::bind("", "", &[])].concat()] {
        assert_eq!(prepare_unnamed(&mut other, "SELECT 'theirs'"), "");
        let skipped = [raw::bind("", "no_such", &[]), raw::parse("", "SELECT 'mine'"), raw::sync()].concat();
        client.send(&[skipped, behind, raw::execute("", 0), raw::sync()].concat()).unwrap();
        assert_eq!((heard(&mut client), heard(&mut client)), ("26000".to_owned(), "26000".to_owned()));
        assert_eq!(run_unnamed(&mut other), "theirs");
    }
    // And one that was prepared is found.
    client
        .send(
            &[raw::parse("", "SELECT 'mine'"), raw::sync(), raw::bind("", "", &[]), raw::execute("", 0), raw::sync()]
                .concat(),
        )
        .unwrap();
    assert_eq!((heard(&mut client), heard(&mut client)), (String::new(), "mine".to_owned()));
}

/// The one before stays at the server where it was prepared; what ended it has happened at another.
#[test]
fn an_unnamed_statement_is_not_one_of_before() {
    let pooler = pool(2);
    // Of two servers these hold one each; what one lets go is the client's.
    let (mut client, mut first, mut second) =
        (pooler.client("postgres"), pooler.client("postgres"), pooler.client("postgres"));
    for holder in [&mut first, &mut second] {
        for (name, sql) in [("b", "BEGIN"), ("c", "COMMIT")] {
            holder.send(&[raw::parse(name, sql), raw::sync()].concat()).unwrap();
            holder.answer().unwrap();
        }
    }
    // A simple Query would end the statement itself.
    let run = |holder: &mut Client, name| {
        holder.send(&[raw::bind("", name, &[]), raw::execute("", 0), raw::sync()].concat()).unwrap();
        holder.answer().unwrap();
    };
    for (end, expected) in [("Parse", "new"), ("Query", "26000"), ("Close", "26000"), ("long Parse", "new")] {
        run(&mut first, "b");
        run(&mut second, "b");
        run(&mut first, "c");
        assert_eq!(prepare_unnamed(&mut client, "SELECT 'old'"), "");
        run(&mut first, "b");
        run(&mut second, "c");
        match end {
            "Parse" => assert_eq!(prepare_unnamed(&mut client, "SELECT 'new'"), ""),
            "long Parse" => assert_eq!(prepare_unnamed(&mut client, &long("new", 30_000)), ""),
            "Query" => drop(client.simple("SELECT 1").unwrap()),
            _ => {
                client.send(&[raw::close(b'S', ""), raw::sync()].concat()).unwrap();
                assert_eq!(heard(&mut client), "");
            }
        }
        run(&mut second, "b");
        run(&mut first, "c");
        assert_eq!(run_unnamed(&mut client), expected, "{end}");
        run(&mut second, "c");
    }
}

/// asyncpg without a statement cache and pg8000 describe the unnamed statement, sync, and then bind it without asking again.
#[test]
fn an_unnamed_statement_that_was_described_gives_no_other_columns() {
    let pooler = pool(2);
    let (mut client, mut first, mut second) =
        (pooler.client("postgres"), pooler.client("postgres"), pooler.client("postgres"));
    first.simple("CREATE TABLE drv_described (a int); INSERT INTO drv_described VALUES (1)").unwrap();
    let changes = [
        ("SELECT 1", "1"),
        ("ALTER TABLE drv_described ADD b text", "0A000"),
        ("ALTER TABLE drv_described DROP b", "0A000"),
        ("ALTER TABLE drv_described ALTER a TYPE text", "0A000"),
        ("DROP TABLE drv_described", "42P01"),
    ];
    for (change, expected) in changes {
        first.simple("BEGIN").unwrap();
        second.simple("BEGIN").unwrap();
        first.simple("COMMIT").unwrap();
        let prepared = [raw::parse("", "SELECT * FROM drv_described"), raw::describe(b'S', ""), raw::sync()];
        client.send(&prepared.concat()).unwrap();
        client.answer().unwrap();
        cluster::shared().psql(change);
        first.simple("BEGIN").unwrap();
        second.simple("COMMIT").unwrap();
        for _ in 0..2 {
            assert_eq!(run_unnamed(&mut client), expected, "{change}");
        }
        // Who asks with the Bind is told.
        if expected == "0A000" {
            let asks = [raw::bind("", "", &[]), raw::describe(b'P', ""), raw::execute("", 0), raw::sync()];
            client.send(&asks.concat()).unwrap();
            assert!(heard(&mut client).starts_with('1'), "{change}");
        }
        first.simple("COMMIT").unwrap();
    }
}

/// SQLAlchemy's tests create types and tables in a transaction, use them, roll back, and do so again with others.
#[test]
fn what_was_prepared_with_what_was_rolled_back_is_prepared_anew() {
    let pooler = pool(1);
    for end in ["ROLLBACK", "ROLLBACK TO s", "an error", "the client leaves"] {
        let mut client = pooler.client("postgres");
        for (kind, oid) in [("int", "23"), ("text", "25"), ("int", "23")] {
            client.simple("BEGIN; SAVEPOINT s").unwrap();
            client.simple("CREATE TYPE drv_enum AS ENUM ('a')").unwrap();
            client.simple(&format!("CREATE TABLE drv_rolled_back (a {kind}, e drv_enum)")).unwrap();
            let text = "SELECT a FROM drv_rolled_back WHERE e = $1::drv_enum";
            client.send(&[raw::parse("s", text), raw::describe(b'S', "s"), raw::sync()].concat()).unwrap();
            let told = client.read_until(b'Z').unwrap();
            assert_eq!(raw::tags(&told), "1tTZ", "{end}: {:?}", told.iter().find_map(|m| m.field(b'M')));
            let parameter = u32::from_be_bytes(told[1].body[2..6].try_into().unwrap());
            assert_eq!(client.value("SELECT 'drv_enum'::regtype::oid::text"), parameter.to_string(), "{end}");
            let column = u32::from_be_bytes(told[2].body[2 + 2 + 6..][..4].try_into().unwrap());
            assert_eq!(column.to_string(), oid, "{end}");
            client.send(&[raw::close(b'S', "s"), raw::sync()].concat()).unwrap();
            client.answer().unwrap();
            match end {
                "ROLLBACK" => drop(client.simple("ROLLBACK").unwrap()),
                "ROLLBACK TO s" => drop(client.simple("ROLLBACK TO s; COMMIT").unwrap()),
                "an error" => {
                    client.simple("SELECT 1/0").unwrap_err();
                    client.simple("COMMIT").unwrap();
                }
                _ => client = pooler.client("postgres"),
            }
        }
    }
}

/// SQLAlchemy's tests of temporary tables go before those of others on the same connection.
#[test]
fn a_table_dropped_after_a_temporary_one_counts() {
    let pooler = pool(2);
    let mut client = pooler.client("postgres");
    let prepare = |client: &mut Client| {
        let text = "SELECT * FROM drv_after_temp";
        client
            .send(&[raw::parse("s", text), raw::describe(b'S', "s"), raw::close(b'S', "s"), raw::sync()].concat())
            .unwrap();
        raw::tags(&client.read_until(b'Z').unwrap())
    };
    client.simple("CREATE TEMP TABLE drv_temp (a int)").unwrap();
    client.simple("DROP TABLE drv_temp").unwrap();
    for kind in ["int", "text"] {
        client.simple(&format!("CREATE TABLE drv_after_temp (a {kind})")).unwrap();
        assert_eq!(prepare(&mut client), "1tT3Z", "{kind}");
        client.simple("DROP TABLE drv_after_temp").unwrap();
    }
    // As long as there is one, it is taken to be what is dropped: nobody prepares anew for that.
    let parses = |pooler: &Pooler| pooler.metric("pgsluice_pool_server_parses_total", &["user=\"postgres\""]);
    client.simple("CREATE TABLE drv_after_temp (a int)").unwrap();
    prepare(&mut client);
    let before = parses(&pooler);
    for how in ["CREATE TEMP TABLE drv_temp (a int); DROP TABLE drv_temp", "CREATE TEMP TABLE drv_temp (a int)"] {
        client.simple(how).unwrap();
    }
    client.simple("DROP TABLE drv_temp").unwrap();
    prepare(&mut client);
    assert_eq!(parses(&pooler), before);
}

/// The client gets its next message from the other of two servers: `holders.0` has one of them in a transaction.
fn move_client(holders: &mut (Client, Client)) {
    holders.1.simple("BEGIN").unwrap();
    holders.0.simple("COMMIT").unwrap();
    std::mem::swap(&mut holders.0, &mut holders.1);
}

/// After an error the server skips a Query too, up to the Sync. Nothing behind a DEALLOCATE is answered before that.
#[test]
fn a_skipped_deallocate_keeps_nobody_waiting() {
    let pooler = pool(1);
    let mut client = pooler.client("postgres");
    let run = || [raw::bind("", "b", &[]), raw::execute("", 0)].concat();
    for (failing, deallocate) in [
        (raw::parse("c", "SELEC"), "DEALLOCATE b"),
        (raw::bind("", "none", &[]), "DEALLOCATE b"),
        (raw::bind("", "none", &[]), "DEALLOCATE ALL"),
    ] {
        client.send(&[raw::parse("b", "SELECT 'b'"), raw::sync()].concat()).unwrap();
        assert_eq!(raw::tags(&client.read_until(b'Z').unwrap()), "1Z");
        for behind in [run(), [raw::parse("b", "SELECT 'new'"), run()].concat(), raw::describe(b'S', "b")] {
            let skipped = [failing.clone(), raw::query(deallocate), behind, raw::sync()].concat();
            client.send(&[skipped, run(), raw::sync()].concat()).unwrap();
            assert_eq!(raw::tags(&client.read_until(b'Z').unwrap()), "EZ", "{deallocate}");
            assert_eq!(raw::tags(&client.read_until(b'Z').unwrap()), "2DCZ", "{deallocate}");
        }
        client.send(&[raw::close(b'S', "b"), raw::sync()].concat()).unwrap();
        client.read_until(b'Z').unwrap();
    }
}

/// What stands before the Query is not synced: it is part of the Query's transaction.
#[test]
fn an_execute_behind_an_open_sequence_finds_its_statement_at_any_server() {
    let pooler = pool(2);
    let mut client = pooler.client("postgres");
    let mut holders = (pooler.client("postgres"), pooler.client("postgres"));
    holders.0.simple("BEGIN").unwrap();
    client.send(&[raw::parse("b", "SELECT 'at the other'"), raw::sync()].concat()).unwrap();
    client.read_until(b'Z').unwrap();
    move_client(&mut holders);
    client.send(&[raw::parse("x", "SELECT 8"), raw::query("EXECUTE b"), raw::sync()].concat()).unwrap();
    assert_eq!(raw::tags(&client.read_until(b'Z').unwrap()), "1TDCZ");
    assert_eq!(raw::tags(&client.read_until(b'Z').unwrap()), "Z");
    // Where it cannot be prepared the client is told, and nothing is left unanswered.
    client.send(&[raw::parse("late", "SELECT 'late'"), raw::sync()].concat()).unwrap();
    client.read_until(b'Z').unwrap();
    move_client(&mut holders);
    client.simple("BEGIN").unwrap();
    client.simple("SELECT 1/0").unwrap_err();
    let rollback = [raw::parse("", "ROLLBACK"), raw::bind("", "", &[]), raw::execute("", 0)].concat();
    client.send(&[rollback, raw::query("EXECUTE late"), raw::sync()].concat()).unwrap();
    let told = client.read_until(b'Z').unwrap();
    assert_eq!(raw::tags(&told), "12CEZ");
    assert_eq!(told[3].field(b'M').unwrap(), "prepared statement \"late\" does not exist");
    client.read_until(b'Z').unwrap();
    assert_eq!(client.value("EXECUTE late"), "late");
}

/// pgjdbc closes a connection that is told of another encoding or date style, though the next message mends it.
#[test]
fn a_reset_tells_what_the_client_began_with_and_no_default_of_the_server() {
    let parameters = [
        ("user", "postgres"),
        ("database", DATABASE),
        ("client_encoding", "latin1"),
        ("DateStyle", "German"),
        ("TimeZone", "Asia/Tokyo"),
        ("application_name", "begun"),
        ("app.tenant", "mine"),
    ];
    let pooler = pool(2);
    let mut holders = (pooler.client("postgres"), pooler.client("postgres"));
    holders.0.simple("BEGIN").unwrap();
    let (mut pooled, mut direct) =
        (Client::connect(pooler.address()).unwrap(), Client::connect(cluster::shared().address()).unwrap());
    for client in [&mut pooled, &mut direct] {
        client.login_with(PASSWORD, &parameters).unwrap();
    }
    for sql in [
        "RESET ALL",
        "SELECT 1",
        "SET TimeZone = 'UTC'",
        "RESET app.tenant",
        "SELECT 1",
        "RESET TimeZone",
        "SELECT 1",
        "SET DateStyle = 'SQL'; SET client_encoding = 'UTF8'",
        "SET DateStyle TO DEFAULT",
        "SELECT 1",
        "SET client_encoding = 'UTF8'",
        "BEGIN; RESET client_encoding; ROLLBACK",
        "RESET client_encoding; SELECT 1/0",
        "SELECT 1",
        "SET application_name = 'other'",
        "BEGIN; RESET ALL",
        "SELECT 1",
        "ROLLBACK",
        "SELECT 1",
        "SET DateStyle = 'Postgres'",
        "DISCARD ALL",
        "SELECT 1",
        "RESET TimeZone; SET TimeZone = 'Europe/Rome'",
        "SELECT 1",
    ] {
        if pooled.status != b'T' {
            move_client(&mut holders);
        }
        let [told, expected] = [&mut pooled, &mut direct].map(|client| {
            client.send(&raw::query(sql)).unwrap();
            let told = client.read_until(b'Z').unwrap();
            let reports = told.iter().filter(|m| m.tag == b'S');
            reports.map(|m| String::from_utf8_lossy(&m.body).replace('\0', " ")).collect::<BTreeSet<_>>()
        });
        assert_eq!(told, expected, "{sql}");
    }
}

/// A client that has lost count prepares by a name that it has taken (42P05), and then runs what it finds.
#[test]
fn a_name_prepared_twice_means_what_it_first_did() {
    for limit in ["200", "0"] {
        let setup = Setup::url(cluster::shared(), "postgres").env("PGSLUICE_POOL_SIZE", "1");
        let pooler = setup.env("PGSLUICE_MAX_PREPARED_STATEMENTS", limit).start();
        for (first, look) in [
            ("CREATE TEMP TABLE drv_twice (a int)", "SELECT to_regclass('drv_twice') IS NULL"),
            ("SELECT set_config('work_mem', '6MB', false)", "SELECT current_setting('work_mem') <> '6MB'"),
        ] {
            let (mut client, mut other) = (pooler.client("postgres"), pooler.client("postgres"));
            for (text, expected) in [(first, ""), ("SELECT 1", "42P05")] {
                client.send(&[raw::parse("s", text), raw::sync()].concat()).unwrap();
                assert_eq!(heard(&mut client), expected, "{text}");
            }
            client.send(&[raw::bind("", "s", &[]), raw::execute("", 0), raw::sync()].concat()).unwrap();
            client.answer().unwrap();
            assert_eq!(client.value(look), "f", "{first}");
            client.terminate();
            assert_eq!(other.value(look), "t", "{first}");
        }
    }
}

/// Npgsql sends DISCARD ALL in front of the next user's first query, in one write.
#[test]
fn what_is_pipelined_behind_a_reset_finds_what_the_client_began_with() {
    let parameters =
        [("user", "postgres"), ("database", DATABASE), ("options", "-c work_mem=5MB"), ("TimeZone", "Asia/Tokyo")];
    let pooler = pool(1);
    let mut client = Client::connect(pooler.address()).unwrap();
    client.login_with(PASSWORD, &parameters).unwrap();
    let run = |name| [raw::bind("", name, &[]), raw::execute("", 0), raw::sync()].concat();
    let extended = |sql| [raw::parse("", sql), run("")].concat();
    client.send(&[raw::parse("discard", "DISCARD ALL"), raw::sync()].concat()).unwrap();
    assert_eq!(heard(&mut client), "");
    let (begun, show) = ("5MB", "SHOW work_mem");
    for reset in [
        run("discard"),
        raw::query("RESET ALL"),
        raw::query("discard all"),
        raw::query("/* a */ RESET work_mem"),
        raw::query("SET work_mem TO DEFAULT"),
        extended("RESET ALL"),
        extended("DISCARD ALL"),
    ] {
        client.simple("SET work_mem = '6MB'").unwrap();
        client.send(&[reset.clone(), raw::query("BEGIN"), raw::query(show), extended(show)].concat()).unwrap();
        let told: Vec<_> = (0..4).map(|_| heard(&mut client)).collect();
        assert_eq!(told, ["", "", begun, begun], "{}", String::from_utf8_lossy(&reset));
        client.simple("ROLLBACK").unwrap();
        assert_eq!(client.value(show), begun);
    }
    // What it did not begin with is gone, and a RESET that is undone has reset nothing, though a Sync comes behind them.
    for (reset, expected) in [("RESET lock_timeout", "0"), ("RESET lock_timeout; SELECT 1/0", "7s")] {
        client.simple("SET lock_timeout = '7s'").unwrap();
        client.send(&[raw::query(reset), raw::sync(), raw::query("SHOW lock_timeout")].concat()).unwrap();
        let told: Vec<_> = (0..3).map(|_| heard(&mut client)).collect();
        assert_eq!(told[2], expected, "{reset}");
    }
    // Behind an error it is skipped: nothing waits for its answer.
    client.simple("SET work_mem = '6MB'").unwrap();
    let skipped = [raw::parse("", "SELEC"), raw::query("RESET ALL"), extended(show), raw::query(show)].concat();
    client.send(&skipped).unwrap();
    assert_eq!((heard(&mut client), heard(&mut client)), ("42601".to_owned(), "6MB".to_owned()));
    // The client speaks in its COPY.
    client.simple("CREATE TABLE drv_copied (a int)").unwrap();
    let copy = raw::query("RESET ALL; COPY drv_copied FROM stdin");
    client.send(&[copy, raw::frame(b'd', b"1\n"), raw::frame(b'c', b""), raw::query(show)].concat()).unwrap();
    client.read_until(b'Z').unwrap();
    assert_eq!(heard(&mut client), begun);
}

/// A block that begins before the startup values are set anew takes them with it when it is rolled back.
#[test]
fn startup_values_set_anew_in_a_block_outlive_it() {
    let parameters =
        [("user", "postgres"), ("database", DATABASE), ("options", "-c work_mem=5MB"), ("TimeZone", "Asia/Tokyo")];
    let pooler = pool(1);
    let mut client = Client::connect(pooler.address()).unwrap();
    client.login_with(PASSWORD, &parameters).unwrap();
    client.send(&[raw::parse("r", "RESET ALL"), raw::sync()].concat()).unwrap();
    assert_eq!(heard(&mut client), "");
    for end in ["ROLLBACK", "SELECT 1/0", "COMMIT"] {
        client.send(&[raw::query("EXECUTE r"), raw::query("BEGIN; SAVEPOINT s")].concat()).unwrap();
        assert_eq!((heard(&mut client), heard(&mut client)), (String::new(), String::new()));
        assert_eq!(client.value("SHOW work_mem"), "5MB");
        client.simple("ROLLBACK TO s").unwrap();
        assert_eq!(client.value("SHOW work_mem"), "5MB", "after the savepoint");
        let _ = client.simple(end);
        client.simple("ROLLBACK").unwrap();
        assert_eq!(client.value("SHOW work_mem"), "5MB", "{end}");
        assert_eq!(client.value("SHOW TimeZone"), "Asia/Tokyo", "{end}");
        assert_eq!(client.parameter("TimeZone"), Some("Asia/Tokyo"), "{end}");
    }
}
