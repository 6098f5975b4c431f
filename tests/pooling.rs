//! The pool's rules: every client reads its own rows, whatever it shares; what a session set stays with the session;
//! deadlines and limits end what they should and nothing else.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::cluster::{self, Cluster, DATABASE, PASSWORD};
use support::pooler::{Pooler, Setup};
use support::{Random, raw, seed, wait_for};

fn setup(pool_size: usize) -> Setup {
    Setup::url(cluster::shared(), "app").env("PGSLUICE_POOL_SIZE", &pool_size.to_string())
}

fn open(pooler: &Pooler, parameters: &[(&str, &str)]) -> raw::Client {
    let mut client = raw::Client::connect(pooler.address()).unwrap();
    let all = [&[("user", "app"), ("database", DATABASE)], parameters].concat();
    client.login_with(PASSWORD, &all).unwrap();
    client
}

/// Waits until a query whose text holds `needle` runs at the server.
fn runs(cluster: &Cluster, needle: &str) -> i32 {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{needle}%' AND pid <> pg_backend_pid()"
    );
    wait_for("the query to run", || cluster.psql(&sql).parse().ok())
}

/// Waits until none does.
fn rests(cluster: &Cluster, needle: &str) {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{needle}%' AND pid <> pg_backend_pid()"
    );
    wait_for("the query to end", || (cluster.psql(&sql) == "0").then_some(()));
}

// === Whose rows ===

fn nonces(setup: &Setup, clients: u64, rounds: u64) {
    let pooler = setup.start();
    std::thread::scope(|scope| {
        for number in 0..clients {
            let pooler = &pooler;
            scope.spawn(move || {
                let mut random = Random::new(seed() ^ (number << 32));
                let mut client = pooler.client("app");
                client
                    .send(&[raw::parse("mine", &format!("SELECT '{number}:' || $1::text")), raw::sync()].concat())
                    .unwrap();
                client.answer().unwrap();
                for round in 0..rounds {
                    let nonce = format!("{number}/{round}/{}", random.next());
                    let rows = match random.below(4) {
                        0 => client.simple(&format!("SELECT '{nonce}'")),
                        1 => client.extended("SELECT $1::text", &[Some(&nonce)]),
                        2 => client.simple(&format!("BEGIN; SELECT '{nonce}'; COMMIT")),
                        _ => {
                            client
                                .send(
                                    &[raw::bind("", "mine", &[Some(&nonce)]), raw::execute("", 0), raw::sync()]
                                        .concat(),
                                )
                                .unwrap();
                            assert_eq!(
                                raw::text(&client.answer().unwrap()),
                                format!("{number}:{nonce}"),
                                "a row of somebody else"
                            );
                            continue;
                        }
                    };
                    assert_eq!(raw::text(&rows.unwrap()), nonce, "a row of somebody else");
                }
            });
        }
    });
}

#[test]
fn every_client_reads_its_own_rows_at_once_the_pool_size() {
    nonces(&setup(10), 10, 60);
}

#[test]
fn every_client_reads_its_own_rows_just_above_the_pool_size() {
    nonces(&setup(10), 11, 60);
}

#[test]
fn every_client_reads_its_own_rows_at_twice_the_pool_size_and_two_workers() {
    nonces(&setup(8).env("PGSLUICE_WORKERS", "2"), 16, 60);
}

#[test]
fn every_client_reads_its_own_rows_at_ten_times_the_pool_size() {
    nonces(&setup(3), 30, 30);
}

#[test]
fn every_client_reads_its_own_rows_in_session_pooling() {
    // More clients than servers: they come and go.
    let pooler = setup(3).env("PGSLUICE_POOL_MODE", "session").start();
    std::thread::scope(|scope| {
        for number in 0..9 {
            let pooler = &pooler;
            scope.spawn(move || {
                for round in 0..4 {
                    let mut client = pooler.client("app");
                    let nonce = format!("{number}/{round}");
                    assert_eq!(client.value(&format!("SELECT '{nonce}'")), nonce);
                    client.terminate();
                }
            });
        }
    });
}

/// Those who wait in session pooling are served in turn, also when all ask for the same.
#[test]
fn clients_with_equal_parameters_do_not_pass_a_session_server_round_for_ever() {
    let pooler = setup(1).env("PGSLUICE_POOL_MODE", "session").env("PGSLUICE_AUTH_TYPE", "trust").start();
    let holder = pooler.client("app");
    let mut waiters: Vec<_> = (0..4).map(|_| raw::Client::connect(pooler.address()).unwrap()).collect();
    for w in &mut waiters {
        w.send_startup(&[("user", "app"), ("database", DATABASE)]).unwrap();
        assert!(w.is_silent(Duration::from_millis(100)), "waits for the server");
    }
    holder.terminate();
    std::thread::scope(|scope| {
        for mut w in waiters {
            scope.spawn(move || {
                w.read_until(b'Z').unwrap();
                assert_eq!(w.value("SELECT 1"), "1");
                w.terminate();
            });
        }
    });
}

/// Clients of different parameters share two servers: whoever leaves, and however, the next in line gets on.
#[test]
fn clients_of_all_parameters_come_and_go_in_session_pooling() {
    let cluster = Cluster::start(&[]);
    let pooler = Setup::url(&cluster, "app")
        .env("PGSLUICE_POOL_SIZE", "2")
        .env("PGSLUICE_POOL_MODE", "session")
        .env("PGSLUICE_WORKERS", "2")
        .start();
    std::thread::scope(|scope| {
        for number in 0..8u64 {
            let (pooler, cluster) = (&pooler, &cluster);
            scope.spawn(move || {
                let mut random = Random::new(seed() ^ (number << 32));
                for round in 0..12 {
                    let mark = format!("{}", random.below(3));
                    let mut client = open(pooler, &[("options", &format!("-c pool.mark={mark}"))]);
                    assert_eq!(client.value("SHOW pool.mark"), mark, "{number}/{round}");
                    match random.below(5) {
                        // The server is closed instead of given back.
                        0 => {
                            let pid = client.value("SELECT pg_backend_pid()").parse().unwrap();
                            cluster.kill_backend(pid);
                            assert!(client.read_to_end().is_ok());
                        }
                        // It is drained and cleaned first.
                        1 => client.send(&raw::query("SELECT pg_sleep(5)")).unwrap(),
                        2 => client.reset(),
                        3 => drop(client),
                        _ => client.terminate(),
                    }
                }
            });
        }
    });
    let two = || (cluster.backends(DATABASE) <= 2).then_some(());
    wait_for("no more servers than pool_size", two);
    assert_eq!(open(&pooler, &[("options", "-c pool.mark=last")]).value("SHOW pool.mark"), "last");
}

/// A place that becomes free wakes who waits, who opens the server that it needs: none is opened that nobody can use.
#[test]
fn a_session_server_that_is_lost_makes_room_for_the_next_client() {
    let cluster = Cluster::start(&[]);
    let pooler =
        Setup::url(&cluster, "app").env("PGSLUICE_POOL_SIZE", "2").env("PGSLUICE_POOL_MODE", "session").start();
    let opened = || pooler.metric("pgsluice_server_connects_total", &["result=\"ok\""]);
    wait_for("the first server", || (opened() == 1.0).then_some(()));
    let with = |mark: &str| open(&pooler, &[("options", &format!("-c pool.mark={mark}"))]);
    let mut first = with("1");
    let second = with("2");
    assert_eq!(opened(), 3.0);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| with("3").value("SHOW pool.mark"));
        wait_for("a waiting client", || (pooler.metric("pgsluice_pool_waiting_clients", &[]) == 1.0).then_some(()));
        let pid = first.value("SELECT pg_backend_pid()").parse().unwrap();
        cluster.kill_backend(pid);
        assert_eq!(waiter.join().unwrap(), "3");
    });
    assert_eq!(opened(), 4.0, "the waiting client's alone");
    second.terminate();
}

/// Servers opened ahead of need are of use to clients like the last one.
#[test]
fn min_pool_size_keeps_session_servers_as_clients_want_them() {
    let cluster = Cluster::start(&[]);
    let toml = format!(
        "[pool]\npool_mode = \"session\"\npool_size = 3\nmin_pool_size = 2\n\
         [databases.app]\nhost = \"127.0.0.1\"\nport = {}\n[users.app]\npassword = \"{PASSWORD}\"\n",
        cluster.port()
    );
    let pooler = Setup::toml(&toml).start();
    let opened = || pooler.metric("pgsluice_server_connects_total", &["result=\"ok\""]);
    wait_for("min_pool_size", || (opened() == 2.0).then_some(()));
    let like_it = [("options", "-c pool.mark=1")];
    let mut client = open(&pooler, &like_it);
    // Makes the pool close its servers; PostgreSQL refuses it.
    client.simple("DROP DATABASE app").unwrap_err();
    client.terminate();
    wait_for("min_pool_size again", || (cluster.backends(DATABASE) == 2 && opened() == 5.0).then_some(()));
    let (mut one, mut two) = (open(&pooler, &like_it), open(&pooler, &like_it));
    assert_eq!((one.value("SHOW pool.mark"), two.value("SHOW pool.mark")), ("1".to_owned(), "1".to_owned()));
    assert_eq!(opened(), 5.0);
}

// === Waiting in vain ===

#[test]
fn pipelines_that_wait_in_vain_get_one_ready_for_each_sync() {
    let pooler = setup(1).env("PGSLUICE_QUERY_WAIT_TIMEOUT", "300ms").start();
    let mut holder = pooler.client("app");
    let mut client = pooler.client("app");
    holder.simple("BEGIN").unwrap();
    let part = |n: u32| {
        [raw::parse("", &format!("SELECT {n}")), raw::bind("", "", &[]), raw::execute("", 0), raw::sync()].concat()
    };
    client.send(&[part(1), part(2), raw::query("SELECT 3"), part(4)[..].to_vec()].concat()).unwrap();
    for n in 1..=4 {
        let messages = client.read_until(b'Z').unwrap();
        assert_eq!(raw::tags(&messages), "EZ", "request {n}");
        assert_eq!(messages[0].field(b'C').unwrap(), "53300");
        assert_eq!(messages[0].field(b'S').unwrap(), "ERROR");
        assert!(messages[0].field(b'D').unwrap().contains("idle in transaction"), "who holds the pool");
    }
    holder.simple("COMMIT").unwrap();
    client.send(&[part(5), part(6)].concat()).unwrap();
    assert_eq!(raw::text(&client.answer().unwrap()), "5");
    assert_eq!(raw::text(&client.answer().unwrap()), "6");
}

#[test]
fn pipelines_through_one_server_keep_every_value() {
    let pooler = setup(1).env("PGSLUICE_QUERY_WAIT_TIMEOUT", "50ms").start();
    // From here on a login needs no server.
    wait_for("the first server", || pooler.try_client("app", PASSWORD, DATABASE).ok());
    let refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for number in 0..6u64 {
            let (pooler, refused) = (&pooler, &refused);
            scope.spawn(move || {
                let mut client = pooler.client("app");
                for round in 0..40 {
                    let mut bytes = Vec::new();
                    for part in 0..5 {
                        let value = format!("{number}.{round}.{part}");
                        bytes.extend(
                            [
                                raw::parse("", "SELECT $1::text, pg_sleep(0.001)"),
                                raw::bind("", "", &[Some(&value)]),
                                raw::execute("", 0),
                                raw::sync(),
                            ]
                            .concat(),
                        );
                    }
                    client.send(&bytes).unwrap();
                    for part in 0..5 {
                        match client.answer() {
                            Ok(rows) => assert_eq!(rows[0][0].as_deref(), Some(&*format!("{number}.{round}.{part}"))),
                            Err(e) => {
                                assert_eq!(e.code(), "53300", "{e}");
                                refused.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        assert_eq!(client.status, b'I');
                    }
                }
            });
        }
    });
    eprintln!("{} of 1200 waited in vain", refused.load(Ordering::Relaxed));
}

// === Cancel ===

#[test]
fn cancels_hit_only_their_own_client() {
    let pooler = setup(2).start();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Victims share the servers and never ask for a cancel.
        let victims: Vec<_> = (0..3)
            .map(|number| {
                let (pooler, stop) = (&pooler, &stop);
                scope.spawn(move || {
                    let mut client = pooler.client("app");
                    let mut asked = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let nonce = format!("v{number}.{asked}");
                        assert_eq!(client.value(&format!("SELECT '{nonce}', pg_sleep(0.0005)")), nonce);
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        let attackers: Vec<_> = (0..2)
            .map(|_| {
                let pooler = &pooler;
                scope.spawn(move || {
                    let mut client = pooler.client("app");
                    let key = client.key.clone().unwrap();
                    let mut hits = 0;
                    for _ in 0..400 {
                        client.send(&raw::query("SELECT 'mine', pg_sleep(0.0005)")).unwrap();
                        raw::Client::connect(pooler.address()).unwrap().send_cancel(&key).unwrap();
                        match client.answer() {
                            Ok(_) => {}
                            Err(e) => {
                                assert_eq!(e.code(), "57014", "{e}");
                                hits += 1;
                            }
                        }
                    }
                    hits
                })
            })
            .collect();
        let hits: usize = attackers.into_iter().map(|a| a.join().unwrap()).sum();
        stop.store(true, Ordering::Relaxed);
        let asked: usize = victims.into_iter().map(|v| v.join().unwrap()).sum();
        eprintln!("{hits} of 800 cancels hit, {asked} queries beside them");
    });
}

#[test]
fn a_cancel_for_an_idle_client_or_a_wrong_key_does_nothing() {
    let pooler = setup(1).start();
    let idle = pooler.client("app");
    let mut busy = pooler.client("app");
    assert_eq!(busy.value("SELECT 1"), "1");
    busy.send(&raw::query("SELECT pg_sleep(0.5), 'undisturbed'")).unwrap();
    runs(cluster::shared(), "undisturbed");
    let (pid, mut secret) = idle.key.clone().unwrap();
    raw::Client::connect(pooler.address()).unwrap().send_cancel(&(pid, secret.clone())).unwrap();
    secret[0] ^= 1;
    raw::Client::connect(pooler.address()).unwrap().send_cancel(&(pid, secret)).unwrap();
    assert_eq!(busy.answer().unwrap()[0][1].as_deref(), Some("undisturbed"));
}

// === What a session set ===

#[test]
fn startup_parameters_hold_on_every_server_and_never_leak() {
    let pooler = setup(3).start();
    let sets: [&[(&str, &str)]; 4] = [
        &[("application_name", "one"), ("search_path", "pg_catalog"), ("DateStyle", "SQL, DMY")],
        &[("application_name", "Two's \\ \"x\""), ("options", "-c statement_timeout=7s -c search_path=a,public")],
        &[("TimeZone", "Asia/Tokyo"), ("options", "--work-mem=5MB")],
        &[],
    ];
    let expected = [
        "one|pg_catalog|SQL, DMY|0|Etc/UTC|4MB",
        "Two's \\ \"x\"|a,public|ISO, MDY|7s|Etc/UTC|4MB",
        "|\"$user\", public|ISO, MDY|0|Asia/Tokyo|5MB",
        "|\"$user\", public|ISO, MDY|0|Etc/UTC|4MB",
    ];
    let mut direct = raw::Client::open(cluster::shared().address(), "app", PASSWORD, DATABASE).unwrap();
    let zone = direct.value("SHOW TimeZone");
    const ALL: &str = "SELECT current_setting('application_name') || '|' || current_setting('search_path') || '|' || current_setting('DateStyle') || '|' || \
        current_setting('statement_timeout') || '|' || current_setting('TimeZone') || '|' || current_setting('work_mem')";
    let moved = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (pooler, zone, moved) = (&pooler, &zone, &moved);
            scope.spawn(move || {
                let mut client = open(pooler, sets[number % 4]);
                let want = expected[number % 4].replace("Etc/UTC", zone);
                let mut servers = HashSet::new();
                for round in 0..40 {
                    let got =
                        if round % 2 == 0 { client.value(ALL) } else { raw::text(&client.extended(ALL, &[]).unwrap()) };
                    assert_eq!(got, want, "client {number}, round {round}");
                    servers.insert(client.value("SELECT pg_backend_pid()"));
                }
                moved.fetch_or(servers.len() > 1, Ordering::Relaxed);
            });
        }
    });
    assert!(moved.load(Ordering::Relaxed), "every client had one server all the time: nothing was proved");
}

/// As many as a startup packet holds, more than PostgreSQL can be told in one SELECT: none is dropped.
#[test]
fn every_startup_parameter_of_a_full_packet_is_kept() {
    let letters = || ('a'..='z').chain(['_']);
    let short = letters().flat_map(|a| letters().map(move |b| format!("{a}.{b}")));
    let long = letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| format!("{a}{c}.{b}"))));
    let names: Vec<_> = short.chain(long).take(1_700).collect();
    let mut parameters: Vec<_> = names.iter().map(|n| (n.as_str(), "")).collect();
    for i in [64, 65, 1_699] {
        parameters[i].1 = "x";
    }
    let login = [&[("user", "app"), ("database", DATABASE)], &parameters[..]].concat();
    let direct = raw::startup(0x3_0000, &login).len();
    assert!(direct < 10_000, "{direct}");
    let cluster = cluster::shared();
    for mode in ["transaction", "session"] {
        let pooler = setup(1).env("PGSLUICE_POOL_MODE", mode).start();
        for _ in 0..2 {
            let addresses = [pooler.address(), cluster.address()];
            for address in addresses {
                let mut client = raw::Client::connect(address).unwrap();
                client.login_with(PASSWORD, &login).unwrap();
                let of = |i: usize| format!("current_setting('{}')", names[i]);
                let sql = format!("SELECT {} || {} || {}", of(64), of(65), of(1_699));
                assert_eq!(client.value(&sql), "xxx", "{mode}");
                client.simple("RESET ALL").unwrap();
                assert_eq!(client.value(&sql), "xxx", "{mode}");
                client.terminate();
            }
            let mut other = pooler.client("app");
            assert_ne!(other.value(&format!("SELECT current_setting('{}', true)", names[1_699])), "x", "{mode}");
            other.terminate();
        }
    }
}

#[test]
fn a_reported_parameter_follows_its_client() {
    let pooler = setup(2).start();
    let mut tokyo = pooler.client("app");
    let mut other = pooler.client("app");
    let zone = other.value("SHOW TimeZone");
    tokyo.simple("SET TimeZone = 'Asia/Tokyo'").unwrap();
    assert_eq!(tokyo.parameter("TimeZone"), Some("Asia/Tokyo"));
    for _ in 0..5 {
        // Both servers are taken in turn.
        other.simple("BEGIN").unwrap();
        assert_eq!(tokyo.value("SHOW TimeZone"), "Asia/Tokyo");
        assert_eq!(other.value("SHOW TimeZone"), zone);
        other.simple("COMMIT").unwrap();
        assert_eq!(tokyo.value("SHOW TimeZone"), "Asia/Tokyo");
        assert_eq!(other.value("SHOW TimeZone"), zone);
    }
    tokyo.simple("BEGIN; SET TimeZone = 'Asia/Kolkata'; ROLLBACK").unwrap();
    assert_eq!(tokyo.value("SHOW TimeZone"), "Asia/Tokyo", "a SET that was rolled back");
}

#[test]
fn reset_returns_to_the_startup_value_in_both_modes() {
    for mode in ["transaction", "session"] {
        let pooler = setup(2).env("PGSLUICE_POOL_MODE", mode).start();
        for reset in ["RESET ALL", "DISCARD ALL", "RESET application_name; RESET statement_timeout"] {
            let mut client = open(&pooler, &[("application_name", "web"), ("options", "-c statement_timeout=70s")]);
            client.simple("SET application_name = 'other'").unwrap();
            client.simple("SET statement_timeout = '60s'").unwrap();
            assert_eq!(client.value("SHOW application_name"), "other");
            client.simple(reset).unwrap();
            assert_eq!(client.value("SHOW application_name"), "web", "{mode}, {reset}");
            assert_eq!(client.value("SHOW statement_timeout"), "70s", "{mode}, {reset}");
            assert_eq!(client.parameter("application_name"), Some("web"), "{mode}, {reset}: told");
            client.terminate();
        }
    }
}

/// Session state: what makes it, what asks for it, the answer with it and the answer without.
type State = (&'static str, &'static str, &'static str, &'static str);

/// What ties a client to its server.
const PINNING: [State; 5] = [
    (
        "CREATE TEMP TABLE pin_temp AS SELECT 5 AS n",
        "SELECT count(*) FROM pg_class WHERE relname = 'pin_temp'",
        "1",
        "0",
    ),
    ("LISTEN pin_ch", "SELECT count(*) FROM pg_listening_channels()", "1", "0"),
    (
        "SELECT pg_advisory_lock(4711)",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711",
        "1",
        "0",
    ),
    ("DECLARE pin_c CURSOR WITH HOLD FOR SELECT 1", "SELECT count(*) FROM pg_cursors WHERE name = 'pin_c'", "1", "0"),
    ("PREPARE pin_q AS SELECT 1", "SELECT count(*) FROM pg_prepared_statements WHERE name = 'pin_q'", "1", "0"),
];

/// What goes from server to server with its client, though PostgreSQL does not report it.
const FOLLOWING: [State; 2] = [
    ("SET work_mem = '7MB'", "SHOW work_mem", "7MB", "4MB"),
    ("SELECT set_config('pin.x', 'set', false)", "SELECT current_setting('pin.x', true)", "set", ""),
];

/// A client that has made the state, by the simple or the extended protocol.
fn with_state(pooler: &Pooler, make: &str, extended: bool) -> raw::Client {
    let mut client = pooler.client("app");
    if extended {
        client.extended(make, &[]).unwrap();
    } else {
        client.simple(make).unwrap();
    }
    client
}

/// Neither of the pool's two servers has the state: both are asked, by holding both.
fn assert_no_server_has(pooler: &Pooler, (make, ask, _, gone): State) {
    let (mut a, mut b) = (pooler.client("app"), pooler.client("app"));
    a.simple("BEGIN").unwrap();
    b.simple("BEGIN").unwrap();
    assert_eq!((a.value(ask).as_str(), b.value(ask).as_str()), (gone, gone), "{make} leaked");
}

#[test]
fn what_cannot_be_followed_pins_and_is_cleaned() {
    let pooler = setup(2).start();
    for extended in [false, true] {
        for state in PINNING {
            let (make, ask, there, _) = state;
            let mut client = with_state(&pooler, make, extended);
            let pid = client.value("SELECT pg_backend_pid()");
            for _ in 0..3 {
                // Somebody else takes turns.
                assert_eq!(pooler.client("app").value("SELECT 1"), "1");
                assert_eq!(client.value("SELECT pg_backend_pid()"), pid, "{make}: pinned");
                assert_eq!(client.value(ask), there, "{make}");
            }
            client.terminate();
            assert_no_server_has(&pooler, state);
        }
    }
}

#[test]
fn what_can_be_followed_pins_nothing_and_is_on_every_server() {
    let pooler = setup(2).start();
    for extended in [false, true] {
        for state in FOLLOWING {
            let (make, ask, there, _) = state;
            let mut client = with_state(&pooler, make, extended);
            // Two others hold the servers; each lets its own go once, and the client can only get that one.
            let mut others = [pooler.client("app"), pooler.client("app")];
            for other in &mut others {
                other.simple("BEGIN").unwrap();
            }
            let mut servers = HashSet::new();
            for other in &mut others {
                other.simple("COMMIT").unwrap();
                servers.insert(client.value("SELECT pg_backend_pid()"));
                assert_eq!(client.value(ask), there, "{make}");
                other.simple("BEGIN").unwrap();
            }
            assert_eq!(servers.len(), 2, "{make}: the client was on both servers");
            for mut other in others {
                other.simple("COMMIT").unwrap();
                other.terminate();
            }
            client.terminate();
            assert_no_server_has(&pooler, state);
        }
    }
}

#[test]
fn session_pooling_gives_a_clean_server_with_its_process_id() {
    let pooler = setup(1).env("PGSLUICE_POOL_MODE", "session").start();
    let mut pids = HashSet::new();
    for _ in 0..4 {
        let mut client = pooler.client("app");
        let pid = client.value("SELECT pg_backend_pid()");
        assert_eq!(client.key.as_ref().unwrap().0.to_string(), pid, "BackendKeyData names the backend");
        assert_eq!(client.value("SHOW work_mem"), "4MB");
        assert_eq!(client.value("SELECT count(*) FROM pg_prepared_statements"), "0");
        client.simple("SET work_mem = '9MB'; PREPARE behind AS SELECT 1; LISTEN behind").unwrap();
        pids.insert(pid);
        client.terminate();
    }
    assert_eq!(pids.len(), 1, "the server is used again");
    let mut other = open(&pooler, &[("options", "-c work_mem=6MB")]);
    assert_eq!(other.value("SHOW work_mem"), "6MB");
    assert_eq!(other.value("RESET work_mem; SHOW work_mem"), "6MB");
    other.terminate();
    assert_eq!(pooler.client("app").value("SHOW work_mem"), "4MB");
}

#[test]
fn statement_pooling_refuses_transactions() {
    let pooler = setup(1).env("PGSLUICE_POOL_MODE", "statement").start();
    let mut client = pooler.client("app");
    assert_eq!(client.value("SELECT 1"), "1");
    let error = client.simple("BEGIN").unwrap_err();
    assert_eq!(error.code(), "0A000", "{error}");
    assert!(client.read().is_err(), "the session is over");
    assert_eq!(pooler.client("app").value("SELECT 2"), "2", "the server is not lost");
}

// === Servers ===

#[test]
fn servers_are_kept_renewed_and_closed_as_configured() {
    let cluster = Cluster::start(&[]);
    let pooler = Setup::url(&cluster, "app")
        .env("PGSLUICE_POOL_SIZE", "4")
        .env("PGSLUICE_MIN_POOL_SIZE", "2")
        .env("PGSLUICE_SERVER_LIFETIME", "1500ms")
        .env("PGSLUICE_SERVER_IDLE_TIMEOUT", "1s")
        .start();
    let mut clients: Vec<_> = (0..4).map(|_| pooler.client("app")).collect();
    for c in &mut clients {
        c.simple("BEGIN").unwrap();
    }
    assert_eq!(cluster.backends(DATABASE), 4);
    let pid = clients[0].value("SELECT pg_backend_pid()");
    for c in &mut clients {
        c.simple("COMMIT").unwrap();
    }
    wait_for("idle servers above min_pool_size to close", || (cluster.backends(DATABASE) == 2).then_some(()));
    wait_for("an old server to be renewed", || (clients[0].value("SELECT pg_backend_pid()") != pid).then_some(()));
    wait_for("min_pool_size to be held", || (cluster.backends(DATABASE) == 2).then_some(()));
}

// === Limits and deadlines ===

#[test]
fn too_many_clients_are_refused_and_the_rest_served() {
    let pooler = setup(2).env("PGSLUICE_MAX_CLIENT_CONN", "5").start();
    let mut clients: Vec<_> = (0..5).map(|_| pooler.client("app")).collect();
    let error = pooler.try_client("app", PASSWORD, DATABASE).err().unwrap();
    assert_eq!(error.code(), "53300", "{error}");
    for c in &mut clients {
        assert_eq!(c.value("SELECT 1"), "1");
    }
    clients.pop().unwrap().terminate();
    wait_for("a place to be free", || pooler.try_client("app", PASSWORD, DATABASE).ok().map(drop));
}

#[test]
fn a_client_that_does_not_log_in_is_sent_away() {
    let pooler = setup(1).env("PGSLUICE_CLIENT_LOGIN_TIMEOUT", "300ms").start();
    let mut silent = raw::Client::connect(pooler.address()).unwrap();
    let messages = silent.read_to_end().unwrap();
    assert_eq!(messages[0].field(b'M').unwrap(), "client_login_timeout");
    let mut half = raw::Client::connect(pooler.address()).unwrap();
    half.send_startup(&[("user", "app"), ("database", DATABASE)]).unwrap();
    half.read().unwrap();
    assert_eq!(half.read_to_end().unwrap()[0].field(b'M').unwrap(), "client_login_timeout");
}

#[test]
fn a_single_query_is_cut_off_by_query_timeout() {
    let cluster = cluster::shared();
    let pooler = setup(1).env("PGSLUICE_QUERY_TIMEOUT", "500ms").start();
    for sql in ["SELECT pg_sleep(90), 'first of its link'", "BEGIN; SELECT pg_sleep(90), 'first of its link'"] {
        let mut client = pooler.client("app");
        let since = Instant::now();
        let error = client.simple(sql).unwrap_err();
        assert_eq!(error.code(), "57014", "{error}");
        assert!(since.elapsed() < Duration::from_secs(10));
        rests(cluster, "first of its link");
        assert_eq!(pooler.client("app").value("SELECT 1"), "1", "the server is back");
    }
    // Waiting between queries is not running one.
    let mut client = pooler.client("app");
    client.simple("BEGIN").unwrap();
    assert!(client.is_silent(Duration::from_secs(1)));
    client.simple("COMMIT").unwrap();
}

#[test]
fn an_idle_client_is_sent_away_but_not_one_whose_query_runs() {
    let pooler = setup(1).env("PGSLUICE_CLIENT_IDLE_TIMEOUT", "500ms").start();
    let mut busy = pooler.client("app");
    assert_eq!(
        busy.value("SELECT pg_sleep(1.5)::text || 'done'"),
        "done",
        "its query took longer than client_idle_timeout"
    );
    let messages = busy.read_to_end().unwrap();
    assert_eq!(messages[0].field(b'C').unwrap(), "57P05");
}

#[test]
fn an_idle_transaction_is_ended_and_rolled_back() {
    let cluster = cluster::shared();
    cluster.psql("CREATE TABLE idle_tx (n int); INSERT INTO idle_tx VALUES (0); GRANT ALL ON idle_tx TO app");
    let pooler = setup(1).env("PGSLUICE_IDLE_TRANSACTION_TIMEOUT", "400ms").start();
    let mut client = pooler.client("app");
    assert_eq!(client.value("SELECT pg_sleep(1)::text || 'x'"), "x");
    client.simple("BEGIN; UPDATE idle_tx SET n = 9").unwrap();
    let messages = client.read_to_end().unwrap();
    assert_eq!(messages[0].field(b'C').unwrap(), "25P03");
    assert_eq!(pooler.client("app").value("SELECT n FROM idle_tx"), "0");
}

// === Who may come in ===

#[test]
fn wrong_logins_get_postgresqls_codes() {
    let pooler = setup(1).start();
    for (user, password, database, code) in [
        ("app", "wrong", DATABASE, "28P01"),
        ("nobody", PASSWORD, DATABASE, "28P01"),
        ("app", PASSWORD, "no_such_db", "3D000"),
    ] {
        let error = pooler.try_client(user, password, database).err().unwrap();
        assert_eq!(error.code(), code, "{user} {database}: {error}");
    }
}

/// A login that fails for every client alike is told at once, and is not tried again without a pause.
#[test]
fn a_login_that_no_client_can_mend_backs_off() {
    let cluster = Cluster::start(&[]);
    cluster.psql("REVOKE CONNECT ON DATABASE app FROM PUBLIC, app");
    let pooler = Setup::url(&cluster, "app").start();
    let began = Instant::now();
    let error = pooler.try_client("app", PASSWORD, DATABASE).err().unwrap();
    assert_eq!(error.code(), "42501", "{error}");
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(pooler.metric("pgsluice_server_connects_total", &["result=\"error\""]) < 20.0);
}

/// What stands in the startup packet to the server is not for clients to write, by whatever way.
#[test]
fn nobody_becomes_somebody_else_by_a_startup_parameter() {
    let cluster = cluster::shared();
    for mode in ["session", "transaction"] {
        let pooler = setup(2).env("PGSLUICE_POOL_MODE", mode).start();
        for (name, value) in [
            ("options", "-c user=postgres"),
            ("options", "--USER=postgres"),
            ("USER", "postgres"),
            ("Database", "postgres"),
            ("options", "-c database=postgres"),
            ("options", "-c replication=database"),
            ("Replication", "database"),
            ("options", "-c options=x"),
        ] {
            let login = |address| {
                let mut client = raw::Client::connect(address).unwrap();
                let all = [("user", "app"), ("database", DATABASE), (name, value)];
                match client.login_with(PASSWORD, &all) {
                    Ok(()) => panic!("logged in as {} with {name}={value}", client.value("SELECT current_user")),
                    Err(e) => e.to_string(),
                }
            };
            assert_eq!(login(pooler.address()), login(cluster.address()), "{mode}: {name}={value}");
        }
    }
}

#[test]
fn every_method_on_both_sides_and_a_unix_socket_to_the_server() {
    let cluster = cluster::shared();
    for (number, method) in ["scram-sha-256", "md5", "plain", "trust"].into_iter().enumerate() {
        for user in ["app", "md5user", "plainuser"] {
            let host =
                if number % 2 == 0 { cluster.socket_dir().display().to_string() } else { "127.0.0.1".to_owned() };
            let toml = format!(
                "auth_type = \"{method}\"\n[databases.{DATABASE}]\nhost = \"{host}\"\nport = {}\n[users.{user}]\npassword = \"{PASSWORD}\"\n",
                cluster.port()
            );
            let pooler = Setup::toml(&toml).start();
            let mut client = pooler.client(user);
            assert_eq!(client.value("SELECT current_user"), user, "{method}");
            if method != "trust" {
                assert_eq!(
                    pooler.try_client(user, "wrong", DATABASE).err().unwrap().code(),
                    "28P01",
                    "{method} {user}"
                );
            }
        }
    }
}
