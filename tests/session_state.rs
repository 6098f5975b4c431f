//! What a client leaves in its session follows it from server to server, or ties it to its server for as long as it is
//! there; either way the client sees what it would see on a direct connection, and its neighbour sees nothing.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use support::cluster::{self, DATABASE, PASSWORD};
use support::pooler::{Pooler, Setup};
use support::raw::{self, Client};
use support::wait_for;

fn pool(size: u32) -> Pooler {
    Setup::url(cluster::shared(), "postgres").env("PGSLUICE_POOL_SIZE", &size.to_string()).start()
}

fn open(address: std::net::SocketAddr, parameters: &[(&str, &str)]) -> Client {
    let mut client = Client::connect(address).unwrap();
    client.login_with(PASSWORD, &[&[("user", "postgres"), ("database", DATABASE)], parameters].concat()).unwrap();
    client
}

/// Rows, or the SQLSTATE of the error.
fn say(client: &mut Client, sql: &str) -> String {
    let answer = match sql.strip_prefix("extended: ") {
        Some(sql) => client.extended(sql, &[]),
        None => client.simple(sql),
    };
    match answer {
        Ok(rows) => raw::text(&rows),
        Err(e) => format!("{} {e}", e.code()),
    }
}

/// A role that may do nothing, and a table of the shared cluster's database.
fn prepare() {
    cluster::shared().psql(
        "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'weak') THEN CREATE ROLE weak; END IF; \
         EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$",
    );
}

/// Plays a script on a direct connection and through a pool of one, with a neighbour that looks in between.
fn same_as_direct(startup: &[(&str, &str)], script: &[&str]) {
    same_as_direct_in(&pool(1), startup, script);
}

/// The same in a pool of one that may have served others.
fn same_as_direct_in(pooler: &Pooler, startup: &[(&str, &str)], script: &[&str]) {
    prepare();
    let mut direct = open(cluster::shared().address(), startup);
    let mut client = open(pooler.address(), startup);
    let mut neighbour = open(pooler.address(), &[]);
    // Nothing that the client set; and the neighbour is served, so the client has let go of the only server.
    let look = "SELECT current_user, session_user, current_setting('work_mem'), current_setting('search_path'), \
                current_setting('statement_timeout'), current_setting('default_transaction_read_only'), \
                current_setting('TimeZone'), coalesce(nullif(current_setting('app.tenant', true), ''), 'none')";
    let plain = say(&mut neighbour, look);
    let mut open_transaction = false;
    for sql in script {
        let (expected, got) = (say(&mut direct, sql), say(&mut client, sql));
        assert_eq!(got, expected, "{sql}\nin {script:#?}");
        open_transaction = match sql.trim_end() {
            "BEGIN" => true,
            "COMMIT" | "ROLLBACK" => false,
            // The script's multi-statement texts fail inside their transaction, or end it.
            text if text.starts_with("BEGIN;") => text.ends_with("1/0"),
            _ => open_transaction,
        };
        if !open_transaction {
            assert_eq!(say(&mut neighbour, look), plain, "the neighbour, after {sql}\nin {script:#?}");
        }
    }
}

#[test]
fn a_parameter_that_servers_do_not_report_follows_its_client() {
    same_as_direct(
        &[],
        &[
            "SET work_mem = '77MB'",
            "SHOW work_mem",
            "SET SESSION work_mem TO '78MB'; SHOW work_mem",
            "SHOW work_mem",
            "RESET work_mem",
            "SHOW work_mem",
            "SET work_mem = 'nonsense'",
            "SET no_such_parameter = 1",
            "SET work_mem TO DEFAULT",
            "SET statement_timeout = 7000",
            "extended: SET work_mem = '79MB'",
            "extended: SHOW work_mem",
            "extended: RESET ALL",
            "SHOW statement_timeout",
        ],
    );
}

#[test]
fn custom_parameters_follow_too_with_any_value() {
    same_as_direct(
        &[],
        &[
            "SET app.tenant = '42'",
            "SHOW app.tenant",
            "SELECT set_config('app.tenant', E'it''s \\\\ a \"quoted\" value \u{e9}', false)",
            "SELECT current_setting('app.tenant')",
            "BEGIN",
            "SELECT set_config('app.tenant', 'local', true)",
            "SELECT current_setting('app.tenant'), 1",
            "COMMIT",
            "SELECT current_setting('app.tenant'), 2",
            "extended: SELECT set_config('App.Tenant', 'upper', false)",
            "SELECT current_setting('app.tenant'), 3",
            "DO $$ BEGIN PERFORM set_config('app.tenant', 'hidden', false); SET work_mem = '55MB'; END $$",
            "SELECT current_setting('app.tenant'), current_setting('work_mem')",
        ],
    );
}

#[test]
fn a_set_that_is_rolled_back_was_never_made() {
    same_as_direct(
        &[("options", "-c statement_timeout=9s")],
        &[
            "SET work_mem = '70MB'",
            "BEGIN",
            "SET work_mem = '71MB'",
            "SET app.tenant = 'x'",
            "ROLLBACK",
            "SHOW work_mem",
            "BEGIN",
            "SET work_mem = '72MB'",
            "SAVEPOINT s",
            "SET work_mem = '73MB'",
            "ROLLBACK TO s",
            "SHOW work_mem",
            "COMMIT",
            "SHOW work_mem",
            "BEGIN; RESET ALL; ROLLBACK; SHOW work_mem",
            "SHOW work_mem",
            "SHOW statement_timeout",
            "BEGIN; SET work_mem = '74MB'; SELECT 1/0",
            "ROLLBACK",
            "SHOW work_mem",
            "BEGIN; SET LOCAL work_mem = '75MB'; SHOW work_mem; COMMIT",
            "SHOW work_mem",
            "SET work_mem = '76MB'; SELECT 1/0",
            "SHOW work_mem",
        ],
    );
}

#[test]
fn resets_return_to_what_the_client_began_with() {
    same_as_direct(
        &[
            ("options", "-c statement_timeout=9s -c work_mem=66MB"),
            ("search_path", "pg_catalog"),
            ("app.tenant", "mine"),
        ],
        &[
            "SHOW statement_timeout",
            "SET statement_timeout = 0",
            "SET work_mem = '1MB'",
            "SET app.tenant = 'other'",
            "RESET statement_timeout",
            "SHOW statement_timeout",
            "BEGIN",
            "RESET ALL",
            "SHOW work_mem",
            "COMMIT",
            "SHOW work_mem",
            "SHOW app.tenant",
            "RESET app.tenant",
            "SHOW app.tenant",
            "SET app.tenant = ''",
            "SELECT current_setting('app.tenant') || '!'",
            "SET app.tenant = 'v'",
            "BEGIN; RESET app.tenant; ROLLBACK; SELECT current_setting('app.tenant') || '?'",
            "SELECT current_setting('app.tenant') || '?'",
            "RESET ALL",
            "SHOW app.tenant",
            "SET search_path = \"A b\", public",
            "SHOW search_path",
            "DISCARD ALL",
            "SHOW search_path",
            "SHOW work_mem",
            "SHOW statement_timeout",
        ],
    );
}

#[test]
fn lists_and_transaction_defaults_follow_unchanged() {
    same_as_direct(
        &[],
        &[
            "SET search_path = \"A b\", \"it's\", public",
            "SHOW search_path",
            "SET search_path = 'one, two'",
            "SHOW search_path",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SHOW default_transaction_read_only",
            "SHOW transaction_read_only",
            "RESET default_transaction_read_only",
            "SET TIME ZONE 'Asia/Tokyo'",
            "SHOW TimeZone",
            "SET XML OPTION DOCUMENT",
            "SHOW xmloption",
        ],
    );
}

#[test]
fn a_role_follows_its_client_and_no_other() {
    same_as_direct(
        &[],
        &[
            "SET log_min_messages = 'error'",
            "SET ROLE weak",
            "SELECT current_user",
            "SET work_mem = '33MB'",
            "SELECT current_user, session_user",
            "SHOW log_min_messages",
            "SET log_min_messages = 'warning'",
            "RESET ROLE",
            "SELECT current_user, 1",
            "SHOW log_min_messages",
            "BEGIN",
            "SET ROLE weak; SELECT 2",
            "ROLLBACK",
            "SELECT current_user, 2",
            "SET SESSION AUTHORIZATION weak",
            "SELECT current_user, session_user, 3",
            "SET SESSION AUTHORIZATION DEFAULT",
            "SELECT current_user, session_user, 4",
            "SET ROLE nobody_knows",
            "SELECT current_user, session_user, 5",
        ],
    );
}

#[test]
fn a_session_authorization_drops_the_role() {
    let pooler = pool(1);
    let role = "SELECT current_user, session_user, current_setting('role')";
    let drops = [
        "SET SESSION AUTHORIZATION weak",
        "RESET SESSION AUTHORIZATION",
        "SELECT set_config('session_authorization', 'weak', false)",
    ];
    for drop in drops {
        same_as_direct(
            &[],
            &["SET ROLE weak", role, drop, role, "BEGIN", drop, "ROLLBACK", role, "RESET SESSION AUTHORIZATION", role],
        );
    }
    for undo in ["RESET ROLE", "RESET ALL", "DISCARD ALL", "SET ROLE postgres", "RESET SESSION AUTHORIZATION"] {
        let script = [role, "SET ROLE NONE", role, undo, role, "SET ROLE weak", role, undo, role];
        same_as_direct_in(&pooler, &[("role", "weak")], &script);
        same_as_direct_in(&pooler, &[("work_mem", "7MB")], &script);
    }
}

#[test]
fn a_reset_in_a_transaction_is_not_undone_by_what_the_client_began_with() {
    let pooler = pool(1);
    for (set, reset, show) in [
        ("SET work_mem = '7MB'", "RESET work_mem", "SHOW work_mem"),
        ("SET work_mem = '7MB'", "RESET ALL", "SHOW work_mem"),
        ("SET TimeZone = 'Asia/Tokyo'", "RESET TimeZone", "SHOW TimeZone"),
        ("SET app.tenant = '7'", "RESET app.tenant", "SELECT current_setting('app.tenant', true)"),
        ("SET SESSION AUTHORIZATION weak", "RESET SESSION AUTHORIZATION", "SELECT current_user, session_user"),
        ("SET ROLE weak", "RESET ROLE", "SELECT current_user, session_user"),
        ("SET ROLE weak", "RESET ALL", "SELECT current_user, session_user"),
        ("SET ROLE weak", "RESET SESSION AUTHORIZATION", "SELECT current_user, session_user"),
    ] {
        for end in ["ROLLBACK", "COMMIT"] {
            let undone = ["SAVEPOINT a", reset, show, "ROLLBACK TO a", show, show];
            let script =
                [&[set, "BEGIN", reset, show, show, end, show, set, "BEGIN"], &undone[..], &[end, show]].concat();
            same_as_direct_in(&pooler, &[("application_name", "x"), ("statement_timeout", "70s")], &script);
            same_as_direct_in(&pooler, &[], &script);
        }
    }
}

/// What ties the client whose application is `name`, in the console's words; empty for nothing.
fn pinned(pooler: &Pooler, name: &str) -> String {
    let mut console = pooler.try_client("postgres", PASSWORD, "pgsluice").unwrap();
    let rows = console.simple("SHOW PINS").unwrap();
    let row = rows.into_iter().find(|r| r.iter().flatten().any(|v| v == name));
    row.and_then(|r| r[5].clone()).unwrap_or_default()
}

#[test]
fn state_that_cannot_follow_ties_until_it_is_undone() {
    let pooler = pool(2);
    let mut other = open(pooler.address(), &[]);
    for (name, make, reason, undo) in [
        ("listen", vec!["LISTEN news"], "LISTEN", vec!["UNLISTEN *"]),
        ("listen2", vec!["LISTEN a; LISTEN b"], "LISTEN", vec!["UNLISTEN a", "UNLISTEN b"]),
        (
            "lock",
            vec!["SELECT pg_advisory_lock(7)"],
            "a session-level advisory lock",
            vec!["SELECT pg_advisory_unlock(7)"],
        ),
        (
            "lock2",
            vec!["BEGIN; SELECT pg_try_advisory_lock(8); ROLLBACK"],
            "a session-level advisory lock",
            vec!["SELECT pg_advisory_unlock_all()"],
        ),
        ("temp", vec!["CREATE TEMP TABLE t (a int)"], "a temporary table", vec!["DROP TABLE t"]),
        ("temp2", vec!["BEGIN; CREATE TEMP TABLE t (a int); COMMIT"], "a temporary table", vec!["DISCARD TEMP"]),
        ("temp3", vec!["SELECT 1 AS a INTO TEMP t"], "a temporary table", vec!["DISCARD ALL"]),
        ("prepare", vec!["PREPARE p AS SELECT 1"], "SQL-level PREPARE", vec!["DEALLOCATE p"]),
        ("cursor", vec!["DECLARE c CURSOR WITH HOLD FOR SELECT 1"], "a cursor WITH HOLD", vec!["CLOSE c"]),
        (
            "cursors",
            vec![
                "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
                "BEGIN; DECLARE d CURSOR WITH HOLD FOR SELECT 1; ROLLBACK",
            ],
            "a cursor WITH HOLD",
            vec!["CLOSE c"],
        ),
    ] {
        let mut client = open(pooler.address(), &[("application_name", name)]);
        for sql in make {
            assert!(client.simple(sql).is_ok(), "{sql}");
        }
        wait_for("the client to be pinned", || (pinned(&pooler, name) == reason).then_some(()));
        // Others go on with the other server.
        assert_eq!(other.value("SELECT 1"), "1");
        let pid = client.value("SELECT pg_backend_pid()");
        assert_eq!(client.value("SELECT pg_backend_pid()"), pid);
        for sql in undo {
            assert!(client.simple(sql).is_ok(), "{sql}");
        }
        wait_for("the client to be free", || pinned(&pooler, name).is_empty().then_some(()));
    }
}

#[test]
fn what_was_rolled_back_or_failed_ties_nobody() {
    let pooler = pool(1);
    let mut client = open(pooler.address(), &[]);
    let mut neighbour = open(pooler.address(), &[]);
    for sql in [
        "BEGIN; LISTEN news; ROLLBACK",
        "BEGIN; CREATE TEMP TABLE t (a int); ROLLBACK",
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; ROLLBACK",
        "CREATE TEMP TABLE t (a int) ON COMMIT DROP",
        "BEGIN; SELECT pg_advisory_lock(9); SELECT pg_advisory_unlock(9); COMMIT",
        "BEGIN; SELECT pg_advisory_xact_lock(10); COMMIT",
        "PREPARE p AS SELECT nonsense",
        "CREATE TEMP TABLE t (a int); DROP TABLE t",
        "DO $$ BEGIN NULL; END $$",
    ] {
        let _either_way = client.simple(sql);
        assert_eq!(neighbour.value("SELECT 1"), "1", "after {sql}");
    }
}

#[test]
fn a_client_that_leaves_its_state_behind_leaves_nothing_to_the_next() {
    let pooler = pool(1);
    for (make, look) in [
        ("LISTEN news", "SELECT count(*) FROM pg_listening_channels()"),
        (
            "SELECT pg_advisory_lock(11)",
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
        ),
        ("CREATE TEMP TABLE t (a int)", "SELECT count(*) FROM pg_class WHERE relname = 't'"),
        ("PREPARE p AS SELECT 1", "SELECT count(*) FROM pg_prepared_statements"),
        ("SET app.tenant = 'x'", "SELECT count(nullif(current_setting('app.tenant', true), ''))"),
    ] {
        open(pooler.address(), &[]).simple(make).unwrap();
        assert_eq!(open(pooler.address(), &[]).value(look), "0", "after {make}");
        // And one that is gone before the server could be asked.
        let mut hasty = open(pooler.address(), &[]);
        hasty.send(&raw::query(make)).unwrap();
        hasty.reset();
        assert_eq!(open(pooler.address(), &[]).value(look), "0", "after {make}, in haste");
    }
}

#[test]
fn who_listens_knows_its_own_notifications_by_the_process_id_of_its_login() {
    let pooler = pool(2);
    let mut listener = open(pooler.address(), &[("application_name", "own")]);
    let mut other = open(pooler.address(), &[]);
    let own = listener.key.as_ref().expect("a process id").0.to_be_bytes();
    listener.simple("LISTEN own_news").unwrap();
    listener.send(&raw::query("NOTIFY own_news, 'mine'")).unwrap();
    let answer = listener.read_until(b'Z').unwrap();
    let mine = answer.iter().find(|m| m.tag == b'A').expect("it hears itself");
    assert_eq!(mine.body, [&own[..], &b"own_news\0mine\0"[..]].concat());
    // Between requests too, and whoever else speaks is somebody else.
    other.simple("NOTIFY own_news, 'theirs'").unwrap();
    let theirs = listener.read().unwrap();
    assert_eq!((theirs.tag, &theirs.body[4..]), (b'A', &b"own_news\0theirs\0"[..]));
    assert_ne!(theirs.body[..4], own[..]);
}

#[test]
fn pinned_clients_never_take_the_whole_pool() {
    let pooler = pool(2);
    let mut first = open(pooler.address(), &[("application_name", "first")]);
    let mut second = open(pooler.address(), &[]);
    let mut third = open(pooler.address(), &[]);
    first.simple("LISTEN news").unwrap();
    // Its server is asked behind the answer; who is asked later is the second.
    wait_for("the first to be pinned", || (pinned(&pooler, "first") == "LISTEN").then_some(()));
    second.simple("LISTEN news").unwrap();
    let end = second.read_to_end().unwrap();
    let error = end.first().expect("it is told why").to_error();
    assert_eq!(error.code(), "53400", "{error}");
    assert!(error.to_string().contains("LISTEN"), "{error}");
    assert_eq!(third.value("SELECT count(*) FROM pg_listening_channels()"), "0");
    third.simple("NOTIFY news").unwrap();
    assert_eq!(first.read().unwrap().tag, b'A', "the first still listens");
    assert_eq!(pooler.metric("pgsluice_pool_pins_total", &["reason=\"listen\""]), 2.0);
}

#[test]
fn pinning_can_be_forbidden() {
    let pooler = Setup::url(cluster::shared(), "postgres").env("PGSLUICE_MAX_PINNED", "0").start();
    let mut client = open(pooler.address(), &[]);
    client.simple("SET work_mem = '9MB'").unwrap();
    client.simple("CREATE TEMP TABLE t (a int)").unwrap();
    assert_eq!(client.read_to_end().unwrap().first().unwrap().to_error().code(), "53400");
    assert_eq!(open(pooler.address(), &[]).value("SELECT count(*) FROM pg_class WHERE relname = 't'"), "0");
}

#[test]
fn a_prepared_set_config_counts_each_time_it_is_executed() {
    let pooler = pool(1);
    let mut client = open(pooler.address(), &[]);
    let mut neighbour = open(pooler.address(), &[]);
    client.send(&[raw::parse("s", "SELECT set_config('app.tenant', $1, false)"), raw::sync()].concat()).unwrap();
    client.answer().unwrap();
    for value in ["one", "two", "one"] {
        client.send(&[raw::bind("", "s", &[Some(value)]), raw::execute("", 0), raw::sync()].concat()).unwrap();
        client.answer().unwrap();
        assert_eq!(neighbour.value("SELECT coalesce(nullif(current_setting('app.tenant', true), ''), 'none')"), "none");
        assert_eq!(client.value("SHOW app.tenant"), value);
    }
}
