//! Features that meet: what one of them leaves to another is still what a direct connection would give.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use support::cluster::{self, Cluster, DATABASE, PASSWORD};
use support::pooler::{Pooler, Setup};
use support::proxy::Proxy;
use support::raw::{self, Client};
use support::wait_for;

fn pool(size: u32) -> Pooler {
    Setup::url(cluster::shared(), "postgres").env("PGSLUICE_POOL_SIZE", &size.to_string()).start()
}

fn open(pooler: &Pooler, parameters: &[(&str, &str)]) -> Client {
    let mut client = Client::connect(pooler.address()).unwrap();
    client.login_with(PASSWORD, &[&[("user", "postgres"), ("database", DATABASE)], parameters].concat()).unwrap();
    client
}

/// Rows, or the SQLSTATE.
fn heard(client: &mut Client) -> String {
    client.answer().map_or_else(|e| e.code().to_owned(), |rows| raw::text(&rows))
}

fn prepare_unnamed(client: &mut Client, sql: &str) {
    client.send(&[raw::parse("", sql), raw::sync()].concat()).unwrap();
    client.answer().unwrap();
}

fn run_unnamed(client: &mut Client) -> String {
    client.send(&[raw::bind("", "", &[]), raw::execute("", 0), raw::sync()].concat()).unwrap();
    heard(client)
}

#[test]
fn an_unnamed_statement_is_nobody_elses() {
    let pooler = pool(1);
    let (mut a, mut b) = (pooler.client("postgres"), pooler.client("postgres"));
    prepare_unnamed(&mut a, "SELECT 'a'");
    assert_eq!(run_unnamed(&mut b), "26000", "it has prepared none");
    assert_eq!(run_unnamed(&mut a), "a");
}

#[test]
fn a_huge_unnamed_statement_takes_the_place_of_the_one_before() {
    let pooler = pool(1);
    let (mut a, mut b) = (pooler.client("postgres"), pooler.client("postgres"));
    prepare_unnamed(&mut b, "SELECT 'old'");
    prepare_unnamed(&mut a, "SELECT 'a'");
    let huge = format!("SELECT 'huge' /* {} */", "x".repeat(100_000));
    b.send(&[raw::parse("", &huge), raw::bind("", "", &[]), raw::execute("", 0), raw::sync()].concat()).unwrap();
    assert_eq!(heard(&mut b), "huge");
    assert_eq!(run_unnamed(&mut a), "a");
}

#[test]
fn an_unnamed_statement_put_ahead_and_skipped_leaves_no_other() {
    let pooler = pool(1);
    let (mut a, mut b) = (pooler.client("postgres"), pooler.client("postgres"));
    prepare_unnamed(&mut b, "SELECT 'b'");
    prepare_unnamed(&mut a, "SELECT 'a'");
    let failing = [raw::bind("", "no_such", &[]), raw::bind("", "", &[]), raw::execute("", 0), raw::sync()];
    b.send(&failing.concat()).unwrap();
    assert_eq!(heard(&mut b), "26000");
    assert_eq!(run_unnamed(&mut b), "b");
}

#[test]
fn an_unnamed_statement_that_was_closed_stays_closed() {
    let pooler = pool(1);
    let (mut a, mut b) = (pooler.client("postgres"), pooler.client("postgres"));
    prepare_unnamed(&mut b, "SELECT 'b'");
    b.send(&[raw::close(b'S', ""), raw::sync()].concat()).unwrap();
    b.answer().unwrap();
    prepare_unnamed(&mut a, "SELECT 'a'");
    assert_eq!(run_unnamed(&mut b), "26000");
}

#[test]
fn a_reported_parameter_set_behind_reset_all_stays_set() {
    let pooler = pool(1);
    let (mut client, mut other) = (open(&pooler, &[("application_name", "resetting")]), pooler.client("postgres"));
    client.simple("RESET ALL; SET TIME ZONE 'Asia/Tokyo'").unwrap();
    other.simple("SELECT 1").unwrap();
    assert_eq!(client.value("SHOW TimeZone"), "Asia/Tokyo");
}

#[test]
fn a_client_whose_server_could_not_be_asked_is_sent_away_by_a_drain() {
    let mut pooler = pool(2);
    let mut client = pooler.client("postgres");
    // Too short for the question what is left.
    client.simple("DO $$ BEGIN PERFORM set_config('statement_timeout', '1', false); END $$").unwrap();
    let mut other = pooler.client("postgres");
    other.simple("SELECT 1").unwrap();
    pooler.signal("TERM");
    let e = client.answer().unwrap_err();
    assert_eq!(e.code(), "57P01", "{e}");
    pooler.wait();
}

#[test]
fn nothing_is_done_when_the_parameters_could_not_be_set() {
    let cluster = cluster::shared();
    cluster.psql(
        "CREATE SCHEMA IF NOT EXISTS tenant_a; CREATE TABLE IF NOT EXISTS tenant_a.orders (n int); \
         DROP ROLE IF EXISTS temporary_role; CREATE ROLE temporary_role",
    );
    let pooler = pool(1);
    let (mut a, mut b) = (pooler.client("postgres"), pooler.client("postgres"));
    b.simple("SET ROLE temporary_role").unwrap();
    a.simple("SET search_path = tenant_a").unwrap();
    cluster.psql("DROP ROLE temporary_role");
    let e = b.simple("INSERT INTO orders VALUES (1)").unwrap_err();
    assert_ne!(e.code(), "42P01", "{e}");
    assert_eq!(a.value("SELECT count(*) FROM tenant_a.orders"), "0", "done under the role and path of another");
}

#[test]
fn a_function_call_ties_as_a_query_does() {
    let cluster = cluster::shared();
    let pooler = pool(1);
    let mut client = pooler.client("postgres");
    // pg_advisory_lock(bigint), pg_proc.dat.
    let mut body = 2880u32.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 1, 0, 1, 0, 0, 0, 8]);
    body.extend(4_711_815u64.to_be_bytes());
    body.extend([0, 1]);
    client.send_frame(b'F', &body).unwrap();
    client.answer().unwrap();
    let held = || cluster.psql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711815");
    assert_eq!(held().trim(), "1");
    client.terminate();
    wait_for("the lock to go with its client", || (held().trim() == "0").then_some(()));
}

#[test]
fn what_is_sent_behind_a_replay_is_looked_at_too() {
    let cluster = cluster::shared();
    cluster.psql(
        "DROP TABLE IF EXISTS behind_replay; CREATE TABLE behind_replay (a int); INSERT INTO behind_replay VALUES (1)",
    );
    let pooler = pool(1);
    let (mut client, mut other) = (pooler.client("postgres"), pooler.client("postgres"));
    let plain = other.value("SHOW work_mem");
    client
        .send(
            &[
                raw::parse("r", "SELECT *, pg_sleep(0.4)::text FROM behind_replay"),
                raw::parse("s", "SET work_mem = '77MB'"),
                raw::sync(),
            ]
            .concat(),
        )
        .unwrap();
    client.answer().unwrap();
    let asking =
        |name: &str| [raw::bind("", name, &[]), raw::describe(b'P', ""), raw::execute("", 0), raw::sync()].concat();
    client.send(&asking("r")).unwrap();
    client.answer().unwrap();
    cluster.psql("ALTER TABLE behind_replay ADD b int");
    client.send(&asking("r")).unwrap();
    wait_for("the second time", || {
        (cluster
            .psql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%behind_replay%'")
            .trim()
            == "1")
            .then_some(())
    });
    client.send(&asking("s")).unwrap();
    client.answer().unwrap();
    client.answer().unwrap();
    assert_eq!(other.value("SHOW work_mem"), plain);
}

#[test]
fn an_unnamed_execute_is_bound_at_another_server() {
    let pooler = pool(1);
    let (mut client, mut other) = (pooler.client("postgres"), pooler.client("postgres"));
    client.send(&[raw::parse("s", "SELECT 'mine'"), raw::sync()].concat()).unwrap();
    client.answer().unwrap();
    prepare_unnamed(&mut client, "EXECUTE s");
    prepare_unnamed(&mut other, "SELECT 'theirs'");
    assert_eq!(run_unnamed(&mut client), "mine");
}

#[test]
fn a_deallocate_of_a_neighbour_does_not_lose_the_unnamed_statement() {
    let pooler = pool(1);
    let (mut client, mut other) = (pooler.client("postgres"), pooler.client("postgres"));
    other.send(&[raw::parse("s", "SELECT 'theirs'"), raw::sync()].concat()).unwrap();
    other.answer().unwrap();
    prepare_unnamed(&mut client, "SELECT 'mine'");
    other.simple("DEALLOCATE s").unwrap();
    assert_eq!(run_unnamed(&mut client), "mine");
}

#[test]
fn a_parse_that_failed_takes_nothing_from_the_one_pipelined_behind_it() {
    let pooler = pool(1);
    let mut client = pooler.client("postgres");
    client
        .send(
            &[raw::parse("", "SELECT pg_sleep(0.2), 1/0"), raw::bind("", "", &[]), raw::execute("", 0), raw::sync()]
                .concat(),
        )
        .unwrap();
    client.send(&raw::parse("", "SELEC")).unwrap();
    client.send(&raw::sync()).unwrap();
    client.send(&raw::parse("", "SELECT 'good'")).unwrap();
    client.answer().unwrap_err();
    client.answer().unwrap_err();
    assert_eq!(run_unnamed(&mut client), "good");
}

#[test]
fn a_cancel_that_comes_too_late_ties_nobody() {
    // Its own: what the server is asked waits for a lock on a catalog.
    let cluster = Cluster::start(&[]);
    let pooler = Setup::url(&cluster, "postgres").env("PGSLUICE_POOL_SIZE", "1").start();
    let (mut client, mut other) = (pooler.client("postgres"), pooler.client("postgres"));
    // Two: a transaction sees pg_stat_activity as it first was.
    let (mut locker, mut watcher) = (cluster.connect(), cluster.connect());
    locker.simple("BEGIN; LOCK TABLE pg_catalog.pg_depend IN ACCESS EXCLUSIVE MODE").unwrap();
    client.simple("DO $$ BEGIN PERFORM 1; END $$").unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%pg_my_temp_schema%' \
                 AND pid <> pg_backend_pid()";
    wait_for("the question", || (watcher.value(waits) == "1").then_some(()));
    Client::connect(pooler.address()).unwrap().send_cancel(client.key.as_ref().unwrap()).unwrap();
    wait_for("the cancel", || cluster.log().contains("canceling statement due to user request").then_some(()));
    locker.simple("ROLLBACK").unwrap();
    assert_eq!(other.value("SELECT 'served'"), "served");
    assert_eq!(client.value("SELECT 'lives'"), "lives");
}

#[test]
fn a_server_lost_as_its_client_is_tied_does_not_upset_the_count() {
    let proxy = Proxy::start(cluster::shared().address(), 1);
    let url = format!("postgres://postgres:{PASSWORD}@{}/{DATABASE}", proxy.address());
    let pooler = Setup::default().env("DATABASE_URL", &url).env("PGSLUICE_POOL_SIZE", "2").start();
    let mut client = pooler.client("postgres");
    // Not read: nor is the server then, so its end is first seen by what is sent to it.
    client.send(&raw::query("BEGIN; SELECT repeat('x', 50000000)")).unwrap();
    let writes = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'";
    wait_for("the answer to fill the way", || (cluster::shared().psql(writes).trim() == "1").then_some(()));
    proxy.reset_all();
    wait_for("the reset", || (proxy.open() == 0).then_some(()));
    // A name with a text too long to be shared ties.
    client.send(&raw::parse("huge", &format!("SELECT 1 /* {} */", "x".repeat(70_000)))).unwrap();
    // Its session ends: with a reset where bytes of the Parse had not been read yet, else in order.
    let _ = client.read_to_end();
    let mut other = pooler.client("postgres");
    other.simple("LISTEN here").unwrap();
    assert_eq!(other.value("SELECT 'lives'"), "lives");
}

#[test]
fn a_prepared_declare_ties_beside_another_cursor() {
    let pooler = pool(2);
    let mut client = pooler.client("postgres");
    client.send(&[raw::parse("d", "DECLARE a CURSOR WITH HOLD FOR SELECT 'a'"), raw::sync()].concat()).unwrap();
    client.answer().unwrap();
    for before in ["DECLARE c CURSOR WITH HOLD FOR SELECT 'c'; CLOSE c", "DECLARE b CURSOR WITH HOLD FOR SELECT 'b'"] {
        client.simple(before).unwrap();
        client.send(&[raw::bind("", "d", &[]), raw::execute("", 0), raw::sync()].concat()).unwrap();
        client.answer().unwrap();
        let close = if before.contains("CLOSE") { "CLOSE a" } else { "CLOSE b" };
        client.simple(close).unwrap();
    }
    // Takes the server, if it was let go.
    let mut other = pooler.client("postgres");
    other.simple("BEGIN").unwrap();
    assert_eq!(client.value("FETCH a"), "a");
}

/// The server skips the Query and answers nothing: who left behind it, politely or not, must not keep the server.
#[test]
fn a_query_behind_a_failed_pipeline_does_not_keep_the_server_of_who_left() {
    let pooler = pool(1);
    for polite in [true, false] {
        let mut leaver = open(&pooler, &[]);
        leaver.send(&[raw::parse("", "SELEC"), raw::flush()].concat()).unwrap();
        assert_eq!(leaver.read().unwrap().tag, b'E');
        leaver.send(&raw::query("SELECT 1")).unwrap();
        let began = std::time::Instant::now();
        if polite {
            leaver.terminate()
        } else {
            leaver.reset()
        }
        assert_eq!(open(&pooler, &[]).value("SELECT 2"), "2", "polite: {polite}");
        assert!(began.elapsed() < std::time::Duration::from_secs(4), "it waited for the server to be given up");
    }
}

/// PostgreSQL swallows the Sync before the COPY's data: a RESET in that sequence is answered with the one behind them.
#[test]
fn a_copy_behind_a_reset_in_one_sequence_ends() {
    let pooler = pool(1);
    let mut client = open(&pooler, &[("TimeZone", "Asia/Tokyo")]);
    client.simple("CREATE TEMP TABLE copied (a int)").unwrap();
    client.simple("SET TimeZone = 'Europe/Paris'").unwrap();
    let run = |sql: &str| [raw::parse("", sql), raw::bind("", "", &[]), raw::execute("", 0)].concat();
    client.send(&[run("RESET TimeZone"), run("COPY copied FROM STDIN"), raw::sync()].concat()).unwrap();
    client.read_until(b'G').unwrap();
    client.send(&[raw::frame(b'd', b"1\n"), raw::frame(b'c', b""), raw::sync()].concat()).unwrap();
    client.read_until(b'Z').unwrap();
    assert_eq!(client.value("SHOW TimeZone"), "Asia/Tokyo");
    assert_eq!(client.value("SELECT a FROM copied"), "1");
    // The same in one write.
    let data = [raw::frame(b'd', b"2\n"), raw::frame(b'c', b""), raw::sync(), raw::query("SHOW TimeZone")].concat();
    client.simple("SET TimeZone = 'Europe/Paris'").unwrap();
    client.send(&[run("RESET TimeZone"), run("COPY copied FROM STDIN"), raw::sync(), data].concat()).unwrap();
    client.read_until(b'Z').unwrap();
    assert_eq!(heard(&mut client), "Asia/Tokyo");
    // Not its data, but something else: an error, and no wait for what it does not send.
    client.send(&[run("RESET TimeZone"), run("COPY copied FROM STDIN"), raw::sync()].concat()).unwrap();
    client.read_until(b'G').unwrap();
    client.send(&[raw::query("SELECT 1"), raw::sync()].concat()).unwrap();
    assert_eq!(heard(&mut client), "08P01");
}

/// Once it is answered, a DEALLOCATE ALL that was refused makes nothing wait for the end of another sequence.
#[test]
fn a_refused_deallocate_all_is_over_when_it_is_answered() {
    let pooler = pool(1);
    let (mut client, mut direct) = (open(&pooler, &[]), cluster::shared().connect());
    for c in [&mut client, &mut direct] {
        c.send(&[raw::parse("kept", "SELECT 'kept'"), raw::sync()].concat()).unwrap();
        c.answer().unwrap();
        c.simple("BEGIN").unwrap();
        let end = [raw::parse("", "ROLLBACK"), raw::bind("", "", &[]), raw::execute("", 0)].concat();
        let refused = [raw::query("SELECT 1/0"), raw::query("DEALLOCATE ALL")].concat();
        c.send(&[refused, end, raw::parse("late", "SELECT 'late'"), raw::sync()].concat()).unwrap();
    }
    for _ in 0..3 {
        assert_eq!(heard(&mut client), heard(&mut direct));
    }
    for name in ["kept", "late"] {
        let run = [raw::bind("", name, &[]), raw::execute("", 0), raw::sync()].concat();
        for c in [&mut client, &mut direct] {
            c.send(&run).unwrap();
            assert_eq!(heard(c), name);
        }
    }
}

/// The postmaster tells that it has signalled a backend by closing the connection of the request. Without that the signal
/// may come at any time, and the next client's query must not be there.
#[test]
fn a_server_that_a_cancel_may_still_come_to_is_not_handed_on() {
    let proxy = Proxy::start(cluster::shared().address(), 1);
    let url = format!("postgres://postgres:{PASSWORD}@{}/{DATABASE}", proxy.address());
    let pooler = Setup::default().env("DATABASE_URL", &url).env("PGSLUICE_POOL_SIZE", "1").start();
    let mut client = open(&pooler, &[]);
    let pid = client.value("SELECT pg_backend_pid()");
    for heard in [true, false] {
        client.send(&raw::query(&format!("SELECT pg_sleep(1) /* doubt {heard} */"))).unwrap();
        let running = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'");
        wait_for("it to run", || (cluster::shared().psql(&running).trim() == "1").then_some(()));
        let postmaster = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        proxy.redirect(postmaster.local_addr().unwrap());
        let key = client.key.clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| Client::connect(pooler.address()).unwrap().send_cancel(&key).unwrap());
            let mut request = postmaster.accept().unwrap().0;
            // Closed with a part unread the connection is reset.
            let mut packet = vec![0; if heard { 16 } else { 8 }];
            std::io::Read::read_exact(&mut request, &mut packet).unwrap();
        });
        proxy.redirect(cluster::shared().address());
        assert_eq!(crate::heard(&mut client), "", "nobody was signalled");
        assert_eq!(client.value("SELECT pg_backend_pid()") == pid, heard, "the end was heard: {heard}");
    }
}
