//! How connections begin, wait and end: as on a direct connection, whatever the client or the server does meanwhile.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::cluster::{self, Cluster, DATABASE, PASSWORD};
use support::pooler::{Pooler, Setup};
use support::{raw, skip, wait_for};

fn setup(pool_size: usize) -> Setup {
    Setup::url(cluster::shared(), "app").env("PGSLUICE_POOL_SIZE", &pool_size.to_string())
}

/// A table of the test's own.
fn table(name: &str) {
    cluster::shared().psql(&format!("CREATE TABLE {name} (who text); GRANT ALL ON {name} TO app"));
}

/// A column of the pool's line in SHOW POOLS.
fn pools(console: &mut raw::Client, column: usize) -> usize {
    let rows = console.simple("SHOW POOLS").unwrap();
    let line = rows.iter().find(|r| r[0].as_deref() == Some(DATABASE)).expect("the pool's line");
    line[column].as_deref().unwrap().parse().unwrap()
}

const CL_WAITING: usize = 3;
const MAXWAIT: usize = 13;

fn console(pooler: &Pooler) -> raw::Client {
    pooler.try_client("app", PASSWORD, "pgsluice").unwrap()
}

/// Waits until `n` clients wait for a server.
fn waiting(console: &mut raw::Client, n: usize) {
    wait_for(&format!("{n} clients to wait"), || (pools(console, CL_WAITING) == n).then_some(()));
}

/// A login that must ask a server: its parameters are nobody else's.
fn unusual(number: usize) -> Vec<u8> {
    let options = format!("-c work_mem={}kB", 1000 + number);
    raw::startup(196_608, &[("user", "app"), ("database", DATABASE), ("options", &options)])
}

/// Statements of the extended protocol, without Sync.
fn execute(sql: &str) -> Vec<u8> {
    [raw::parse("", sql), raw::bind("", "", &[]), raw::execute("", 0)].concat()
}

fn terminate() -> Vec<u8> {
    raw::frame(b'X', b"")
}

/// What a client asks before it leaves, and the rows that stay of it.
fn farewells(table: &str) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let slow = |who: &str| format!("INSERT INTO {table} SELECT '{who}' FROM pg_sleep(0.2)");
    let copy = raw::query(&format!("COPY {table} FROM STDIN"));
    let row = raw::frame(b'd', b"copied\n");
    let done = raw::frame(b'c', b"");
    vec![
        ("a query", raw::query(&slow("a")), "a"),
        ("an extended query", [execute(&slow("a")), raw::sync()].concat(), "a"),
        ("two queries", [raw::query(&slow("a")), raw::query(&slow("b"))].concat(), "a,b"),
        ("a pipeline", [execute(&slow("a")), execute(&slow("b")), raw::sync()].concat(), "a,b"),
        ("a pipeline without Sync", [execute(&slow("a")), raw::flush()].concat(), ""),
        ("a query, then no Sync", [raw::query(&slow("a")), execute(&slow("b"))].concat(), "a"),
        ("a transaction", [raw::query("BEGIN"), raw::query(&slow("a"))].concat(), ""),
        ("a COPY", [copy.clone(), row.clone(), done.clone()].concat(), "copied"),
        ("a COPY without end", [copy, row.clone()].concat(), ""),
        (
            "an extended COPY",
            [execute(&format!("COPY {table} FROM STDIN")), raw::sync(), row, done, raw::sync()].concat(),
            "copied",
        ),
        ("an error", [raw::query(&slow("a")), raw::query("SELECT 1/0"), raw::query(&slow("c"))].concat(), "a,c"),
    ]
}

fn rows(client: &mut raw::Client, table: &str) -> String {
    client.value(&format!("SELECT coalesce(string_agg(who, ',' ORDER BY who), '') FROM {table}"))
}

#[test]
fn what_was_asked_before_terminate_is_done_and_the_server_reused() {
    table("farewell");
    for mode in ["transaction", "session"] {
        let pooler = setup(1).env("PGSLUICE_POOL_MODE", mode).start();
        let mut first = pooler.client("app");
        let pid = first.value("SELECT pg_backend_pid()");
        first.terminate();
        for (what, bytes, stays) in farewells("farewell") {
            for stays_open in [false, true] {
                let mut client = pooler.client("app");
                client.send(&[bytes.clone(), terminate()].concat()).unwrap();
                let kept = stays_open.then_some(client);
                let mut next = pooler.client("app");
                assert_eq!(rows(&mut next, "farewell"), stays, "{mode}: {what}, open: {stays_open}");
                assert_eq!(next.value("SELECT pg_backend_pid()"), pid, "{mode}: {what}: the same server");
                next.simple("TRUNCATE farewell").unwrap();
                next.terminate();
                drop(kept);
            }
        }
    }
}

#[test]
fn a_statement_left_behind_may_take_longer_than_a_server_is_cleaned() {
    table("patience");
    let pooler = setup(1).start();
    let mut client = pooler.client("app");
    client.send(&raw::query("INSERT INTO patience SELECT 'slow' FROM pg_sleep(5.5)")).unwrap();
    client.terminate();
    assert_eq!(rows(&mut pooler.client("app"), "patience"), "slow");
    assert_eq!(pooler.metric("pgsluice_pool_abandoned_total", &[]), 0.0);
    // It has the limit of every query.
    let pooler = setup(1).env("PGSLUICE_QUERY_TIMEOUT", "1s").start();
    let mut client = pooler.client("app");
    client.send(&raw::query("INSERT INTO patience SELECT 'too slow' FROM pg_sleep(100)")).unwrap();
    client.terminate();
    assert_eq!(rows(&mut pooler.client("app"), "patience"), "slow");
}

/// A client that says goodbye and goes on listening reads what PostgreSQL would have told it.
#[test]
fn answers_owed_at_terminate_still_come() {
    let pooler = setup(1).start();
    let hear = |mut client: raw::Client, bytes: &[u8]| {
        client.send(&[bytes, &terminate()].concat()).unwrap();
        let messages = client.read_to_end().unwrap();
        messages.into_iter().filter(|m| m.tag != b'E').collect::<Vec<_>>()
    };
    for bytes in [
        raw::query("SELECT 'answered'"),
        [execute("SELECT 'one'"), raw::sync(), raw::query("SELECT 'two' FROM pg_sleep(0.1)")].concat(),
        raw::query("SELECT repeat('x', 1000) FROM generate_series(1, 2000)"),
        raw::query("BEGIN; SELECT 1"),
    ] {
        let direct = raw::Client::open(cluster::shared().address(), "app", PASSWORD, DATABASE).unwrap();
        let expected = hear(direct, &bytes);
        assert!(expected.len() > 2);
        let heard = hear(pooler.client("app"), &bytes);
        assert!(heard == expected, "{heard:?}, directly {expected:?}");
    }
}

/// What was not committed is not committed for a client that vanished.
#[test]
fn a_pipeline_cut_off_before_its_sync_is_rolled_back() {
    table("unsynced");
    let pooler = setup(1).start();
    for round in 0..6 {
        let mut client = pooler.client("app");
        client.send(&[execute("INSERT INTO unsynced VALUES ('never')"), raw::flush()].concat()).unwrap();
        client.read_until(b'C').unwrap();
        match round % 3 {
            0 => drop(client),
            1 => client.reset(),
            _ => client.terminate(),
        }
        assert_eq!(rows(&mut pooler.client("app"), "unsynced"), "", "round {round}");
    }
}

// === Waiting ===

#[test]
fn whoever_leaves_while_it_waits_gives_up_its_place() {
    let pooler = setup(1).start();
    let mut console = console(&pooler);
    let mut holder = pooler.client("app");
    holder.simple("BEGIN").unwrap();
    let more = raw::query("SELECT 'more'");
    for (what, login, later) in [
        ("in its login", true, vec![]),
        ("in its login, having sent a query", true, more.clone()),
        ("with a query", false, vec![]),
        ("with a query, having sent more", false, more.clone()),
        ("with a query, having sent half a message", false, more[..7].to_vec()),
    ] {
        for reset in [false, true] {
            let mut leavers: Vec<_> = (0..5)
                .map(|number| {
                    if login {
                        let mut client = raw::Client::connect(pooler.address()).unwrap();
                        client.send(&unusual(number)).unwrap();
                        client.authenticate("app", PASSWORD).unwrap();
                        client
                    } else {
                        let mut client = pooler.client("app");
                        client.send(&raw::query("SELECT 'waits'")).unwrap();
                        client
                    }
                })
                .collect();
            waiting(&mut console, 5);
            for client in &mut leavers {
                client.send(&later).unwrap();
            }
            let since = Instant::now();
            for client in leavers {
                if reset { client.reset() } else { drop(client) }
            }
            waiting(&mut console, 0);
            assert!(since.elapsed() < Duration::from_secs(3), "{what}: noticed after {:?}", since.elapsed());
        }
    }
    let mut later = pooler.client("app");
    later.send(&raw::query("SELECT 'served'")).unwrap();
    waiting(&mut console, 1);
    holder.simple("COMMIT").unwrap();
    assert_eq!(later.answer().unwrap()[0][0].as_deref(), Some("served"));
    for result in ["error", "timeout", "refused", "auth"] {
        let label = format!("result=\"{result}\"");
        assert_eq!(pooler.metric("pgsluice_client_connects_total", &[&label]), 0.0, "{result}");
    }
    for reason in ["wait", "connect"] {
        let label = format!("reason=\"{reason}\"");
        assert_eq!(pooler.metric("pgsluice_pool_timeouts_total", &[&label]), 0.0, "{reason}");
    }
    assert_eq!(pooler.metric("pgsluice_client_connections", &[]), 3.0, "holder, console, later");
}

#[test]
fn bytes_sent_while_waiting_are_read_afterwards() {
    let pooler = setup(1).start();
    let mut console = console(&pooler);
    let mut holder = pooler.client("app");
    let mut client = pooler.client("app");
    for round in 0..3 {
        holder.simple("BEGIN").unwrap();
        client.send(&raw::query("SELECT 'first'")).unwrap();
        waiting(&mut console, 1);
        // One by one: each wakes the session, which must not lose any.
        for n in 0..20 {
            client.send(&raw::query(&format!("SELECT '{round}.{n}'"))).unwrap();
        }
        client.send(&raw::query(&format!("SELECT length('{}')", "x".repeat(50_000)))).unwrap();
        holder.simple("COMMIT").unwrap();
        assert_eq!(client.answer().unwrap()[0][0].as_deref(), Some("first"));
        for n in 0..20 {
            assert_eq!(client.answer().unwrap()[0][0].as_deref(), Some(&*format!("{round}.{n}")));
        }
        assert_eq!(client.answer().unwrap()[0][0].as_deref(), Some("50000"));
    }
}

#[test]
fn a_statement_whose_client_said_goodbye_in_the_queue_is_done() {
    table("queued");
    let pooler = setup(1).start();
    let mut console = console(&pooler);
    let mut holder = pooler.client("app");
    holder.simple("BEGIN").unwrap();
    for (number, at_once) in [true, false].into_iter().enumerate() {
        let mut client = pooler.client("app");
        let insert = raw::query(&format!("INSERT INTO queued VALUES ('{number}')"));
        if at_once {
            client.send(&[insert, terminate()].concat()).unwrap();
        } else {
            client.send(&insert).unwrap();
            waiting(&mut console, number + 1);
            client.send(&terminate()).unwrap();
        }
        drop(client);
        waiting(&mut console, number + 1);
    }
    // Others leave without a goodbye meanwhile.
    let mut other = pooler.client("app");
    other.send(&raw::query("INSERT INTO queued VALUES ('no')")).unwrap();
    waiting(&mut console, 3);
    drop(other);
    waiting(&mut console, 2);
    holder.simple("COMMIT").unwrap();
    wait_for("both to be done", || (rows(&mut holder, "queued") == "0,1").then_some(()));
}

#[test]
fn a_login_may_wait_for_a_server_longer_than_it_may_take() {
    let pooler = setup(1).env("PGSLUICE_CLIENT_LOGIN_TIMEOUT", "1s").start();
    let mut console = console(&pooler);
    let mut holder = pooler.client("app");
    holder.simple("BEGIN").unwrap();
    std::thread::scope(|scope| {
        let login = scope.spawn(|| {
            let mut client = raw::Client::connect(pooler.address()).unwrap();
            let parameters = [("user", "app"), ("database", DATABASE), ("options", "-c work_mem=7MB")];
            client.login_with(PASSWORD, &parameters).map(|()| client.value("SHOW work_mem"))
        });
        waiting(&mut console, 1);
        wait_for("it to have waited", || (pools(&mut console, MAXWAIT) >= 2).then_some(()));
        holder.simple("COMMIT").unwrap();
        assert_eq!(login.join().unwrap().unwrap(), "7MB");
    });
}

// === Cancel ===

fn cancel(pooler: &Pooler, key: &(i32, Vec<u8>)) {
    raw::Client::connect(pooler.address()).unwrap().send_cancel(key).unwrap();
}

#[test]
fn a_request_that_waits_is_cancelled_and_its_session_lives() {
    let pooler = setup(1).start();
    let mut console = console(&pooler);
    let mut holder = pooler.client("app");
    holder.simple("BEGIN").unwrap();
    let mut client = pooler.client("app");
    let key = client.key.clone().unwrap();
    for bytes in [raw::query("SELECT 'first'"), [execute("SELECT 'first'"), raw::sync()].concat()] {
        client.send(&[bytes, raw::query("SELECT 'second'")].concat()).unwrap();
        waiting(&mut console, 1);
        cancel(&pooler, &key);
        let messages = client.read_until(b'Z').unwrap();
        assert_eq!(raw::tags(&messages), "EZ");
        assert_eq!(messages[0].field(b'C').unwrap(), "57014");
        assert_eq!(messages[0].field(b'S').unwrap(), "ERROR");
        assert_eq!(messages[0].field(b'M').unwrap(), "canceling statement due to user request");
        assert_eq!(messages[1].body, b"I");
        // The next one waits in its turn.
        waiting(&mut console, 1);
        assert!(client.is_silent(Duration::from_millis(50)));
        holder.simple("COMMIT").unwrap();
        assert_eq!(client.answer().unwrap()[0][0].as_deref(), Some("second"));
        holder.simple("BEGIN").unwrap();
    }
    holder.simple("COMMIT").unwrap();
    // Old cancels mean nothing new.
    cancel(&pooler, &key);
    assert_eq!(client.value("SELECT 'undisturbed' FROM pg_sleep(0.1)"), "undisturbed");
}

/// Many clients take turns on one server, all of them cancelling what they ask; some never do, and are never hit.
#[test]
fn cancels_on_a_server_that_goes_from_hand_to_hand_hit_nobody_else() {
    // Its own, for its log.
    let cluster = Cluster::start(&[]);
    let pooler = Setup::url(&cluster, "app").env("PGSLUICE_POOL_SIZE", "1").start();
    let stop = AtomicBool::new(false);
    let (asked, hits) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (pooler, stop, asked) = (&pooler, &stop, &asked);
            scope.spawn(move || {
                let mut client = pooler.client("app");
                while !stop.load(Ordering::Relaxed) {
                    let nonce = format!("v{number}.{}", asked.fetch_add(1, Ordering::Relaxed));
                    assert_eq!(client.value(&format!("SELECT '{nonce}' FROM pg_sleep(0.0003)")), nonce);
                }
            });
        }
        let attackers: Vec<_> = (0..4)
            .map(|number| {
                let (pooler, hits) = (&pooler, &hits);
                scope.spawn(move || {
                    let mut client = pooler.client("app");
                    let key = client.key.clone().unwrap();
                    for round in 0..150 {
                        let nonce = format!("a{number}.{round}");
                        // Some are cancelled at the server, some while they wait, some too late.
                        let seconds = if round % 3 == 0 { 0.01 } else { 0.0003 };
                        client.send(&raw::query(&format!("SELECT '{nonce}' FROM pg_sleep({seconds})"))).unwrap();
                        if round % 3 == 0 {
                            let _ = client.is_silent(Duration::from_millis(1 + round % 9));
                        }
                        cancel(pooler, &key);
                        match client.answer() {
                            Ok(rows) => assert_eq!(raw::text(&rows), nonce),
                            Err(e) => {
                                assert_eq!(e.code(), "57014", "{e}");
                                hits.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                })
            })
            .collect();
        let failed = attackers.into_iter().map(|a| a.join()).filter(Result::is_err).count();
        stop.store(true, Ordering::Relaxed);
        assert_eq!(failed, 0);
    });
    let (asked, hits) = (asked.into_inner(), hits.into_inner());
    let log = cluster.log();
    let at_server = log.matches("canceling statement due to user request").count();
    eprintln!("{hits} of 600 cancels hit, {at_server} of them at the server; {asked} queries beside them");
    assert!(hits > at_server && at_server > 0 && asked > 0, "nothing was proved: {hits}, {at_server}, {asked}");
}

#[test]
fn clients_of_protocol_3_2_get_long_cancel_keys() {
    let pooler = setup(1).start();
    let open = |version: u32| {
        let mut client = raw::Client::connect(pooler.address()).unwrap();
        client.login_by(version, PASSWORD, &[("user", "app"), ("database", DATABASE)]).unwrap();
        client
    };
    assert_eq!(open(3 << 16).key.unwrap().1.len(), 4);
    assert_eq!(open(3 << 16 | 99).key.unwrap().1.len(), 32, "negotiated down to 3.2");
    let mut client = open(3 << 16 | 2);
    let (pid, secret) = client.key.clone().unwrap();
    assert_eq!(secret.len(), 32);
    client.send(&raw::query("SELECT 'long', pg_sleep(30)")).unwrap();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT ''long''%' AND state = 'active'";
    wait_for("the query to run", || (cluster::shared().psql(running) == "1").then_some(()));
    let mut wrong = secret.clone();
    wrong[31] ^= 1;
    for secret in [&secret[..4], &secret[..31], &wrong, &[&secret[..], b"x"].concat()] {
        cancel(&pooler, &(pid, secret.to_vec()));
    }
    assert!(client.is_silent(Duration::from_millis(100)), "a part of the key is no key");
    cancel(&pooler, &(pid, secret));
    assert_eq!(client.answer().unwrap_err().code(), "57014");
}

#[test]
fn libpq_18_speaks_protocol_3_2() {
    if cluster::shared().version() < 18 {
        return skip("psql is older than 18: max_protocol_version is not known to it");
    }
    let pooler = setup(1).start();
    for version in ["3.0", "3.2", "latest"] {
        let mut psql = Command::new(cluster::shared().program("psql"));
        psql.env_clear().env("PGPASSWORD", PASSWORD).env("LC_ALL", "C").stdin(Stdio::null()).arg("-AtX");
        psql.args(["-c", "\\conninfo", "-c", "SELECT 'answered'"]).arg(format!(
            "host=127.0.0.1 port={} user=app dbname={DATABASE} min_protocol_version={version} max_protocol_version={version}",
            pooler.port()
        ));
        let output = psql.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let spoken = if version == "3.0" { "Protocol Version|3.0" } else { "Protocol Version|3.2" };
        assert!(output.status.success() && text.contains(spoken) && text.contains("answered"), "{version}: {output:?}");
    }
}

// === What is said at login ===

/// NoticeResponses of a login (severity, code, text), and the name of the application as it is reported.
fn notices(address: std::net::SocketAddr, parameters: &[(&str, &str)]) -> (Vec<String>, String) {
    let mut client = raw::Client::connect(address).unwrap();
    client.send_startup(&[&[("user", "app"), ("database", DATABASE)], parameters].concat()).unwrap();
    client.authenticate("app", PASSWORD).unwrap();
    let messages = client.read_until(b'Z').unwrap();
    let name = client.parameter("application_name").unwrap_or_default().to_owned();
    assert_eq!(client.value("SHOW application_name"), name, "and nothing more with the first query");
    let tell = |m: &raw::Message| [b'S', b'C', b'M'].map(|f| m.field(f).unwrap()).join(" ");
    (messages.iter().filter(|m| m.tag == b'N').map(tell).collect(), name)
}

#[test]
fn notices_of_the_login_are_the_servers() {
    let cluster = Cluster::start(&[]);
    // What a server says by itself at every login: the collation of its database has another version.
    let talkative = cluster.version() >= 15;
    if talkative {
        cluster.psql("UPDATE pg_database SET datcollversion = 'old' WHERE datname = 'app'");
    }
    let long = "n".repeat(65);
    let accents = "\u{e9}".repeat(33);
    let sets: [&[(&str, &str)]; 8] = [
        &[],
        &[("application_name", &long)],
        &[("application_name", &accents)],
        &[("application_name", "caf\u{e9}\tau lait")],
        &[("application_name", &long[..63])],
        &[("application_name", &long), ("options", "-c client_min_messages=warning")],
        &[("application_name", &long), ("options", "-c client_min_messages=error")],
        &[("application_name", &long), ("options", "-c work_mem=5MB -c client_min_messages=notice")],
    ];
    for mode in ["transaction", "session"] {
        let pooler = Setup::url(&cluster, "app").env("PGSLUICE_POOL_MODE", mode).start();
        let mut said = 0;
        for parameters in sets {
            // By what is asked of a server, and by what is known.
            for _ in 0..2 {
                let direct = notices(cluster.address(), parameters);
                said += direct.0.len();
                assert_eq!(notices(pooler.address(), parameters), direct, "{mode} {parameters:?}");
            }
        }
        assert!(said > 0);
    }
}
