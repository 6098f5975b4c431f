//! Networks and servers that fail. Whatever happens, a client reads its own rows or an error, and the pool recovers.
//!
//! Faults come from a seed that is printed; `PGSLUICE_SEED=n` repeats a run.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::time::Duration;

use support::cluster::{self, Cluster, DATABASE, PASSWORD};
use support::pooler::{Pooler, Setup};
use support::proxy::{Direction, Fault, Proxy};
use support::{Random, raw, seed, wait_for};

/// A pooler whose server is behind `proxy`.
fn behind(proxy: &Proxy) -> Setup {
    let url = format!("postgres://app:{PASSWORD}@{}/{DATABASE}", proxy.address());
    Setup::default().env("DATABASE_URL", &url).env("PGSLUICE_POOL_SIZE", "3")
}

/// Asks for a nonce in one of several ways. `Ok(false)` when the connection or query failed; a wrong row panics.
fn ask(client: &mut raw::Client, nonce: &str, way: u64) -> bool {
    let answer = match way % 3 {
        0 => client.simple(&format!("SELECT '{nonce}'")),
        1 => client.extended("SELECT $1::text", &[Some(nonce)]),
        _ => client.simple(&format!("BEGIN; SELECT '{nonce}'; COMMIT")),
    };
    match answer {
        Ok(rows) => {
            assert_eq!(raw::text(&rows), nonce, "a row of somebody else");
            true
        }
        Err(_) => false,
    }
}

/// Clients that ask for `rounds` nonces each, and log in again when they were cut off; how many answers were right.
fn load(pooler: &Pooler, clients: u64, rounds: u64) -> u64 {
    std::thread::scope(|scope| {
        let run = |number: u64| {
            let mut right = 0;
            let mut client = None;
            for round in 0..rounds {
                let mut open = match client.take() {
                    Some(open) => open,
                    None => match pooler.try_client("app", PASSWORD, DATABASE) {
                        Ok(open) => open,
                        Err(_) => continue,
                    },
                };
                if ask(&mut open, &format!("n{number}r{round}"), number + round) {
                    right += 1;
                    client = Some(open);
                }
            }
            right
        };
        let all: Vec<_> = (0..clients).map(|number| scope.spawn(move || run(number))).collect();
        all.into_iter().map(|client| client.join().expect("a client failed")).sum()
    })
}

fn recovers(pooler: &Pooler) {
    wait_for("the pool to recover", || {
        let mut client = pooler.try_client("app", PASSWORD, DATABASE).ok()?;
        ask(&mut client, "recovered", 0).then_some(())
    });
    assert_eq!(load(pooler, 4, 5), 20, "after recovery every query is answered");
}

#[test]
fn bytes_in_any_pieces_change_nothing() {
    let server_side = Proxy::start(cluster::shared().address(), seed());
    let pooler = behind(&server_side).start();
    let client_side = Proxy::start(pooler.address(), seed() + 1);
    for fault in [Fault::Split(1), Fault::Split(13), Fault::Delay(Duration::from_millis(3))] {
        for proxy in [&server_side, &client_side] {
            proxy.set(Direction::ToServer, fault);
            proxy.set(Direction::ToClient, fault);
        }
        std::thread::scope(|scope| {
            for number in 0..6u64 {
                let address = client_side.address();
                scope.spawn(move || {
                    let mut client = raw::Client::open(address, "app", PASSWORD, DATABASE).expect("login");
                    for round in 0..10 {
                        assert!(ask(&mut client, &format!("{fault:?} {number} {round}"), round), "{fault:?}");
                    }
                });
            }
        });
    }
}

#[test]
fn servers_that_are_reset_or_cut_never_cross_answers() {
    let proxy = Proxy::start(cluster::shared().address(), seed());
    let pooler = behind(&proxy).start();
    let mut random = Random::new(seed());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| load(&pooler, 6, 60));
        while !running.is_finished() {
            match random.below(3) {
                0 => proxy.reset_all(),
                1 => proxy.set(Direction::ToClient, Fault::CutAfter(random.below(4000))),
                _ => proxy.set(Direction::ToServer, Fault::CutAfter(random.below(4000))),
            }
            // Some traffic between faults: until more connections were made, or the load has ended.
            let before = proxy.accepted();
            wait_for("new connections", || (running.is_finished() || proxy.accepted() > before).then_some(()));
            proxy.heal();
        }
    });
    proxy.heal();
    recovers(&pooler);
}

#[test]
fn a_client_that_vanishes_in_a_transaction_leaves_no_lock() {
    let cluster = cluster::shared();
    let pooler = Setup::url(cluster, "app").env("PGSLUICE_POOL_SIZE", "2").start();
    let mut client = pooler.client("app");
    client.simple("CREATE TABLE vanish (id int PRIMARY KEY, n int); INSERT INTO vanish VALUES (1, 0)").unwrap();
    for (number, goodbye) in ["terminate", "close", "reset", "in a query"].into_iter().enumerate() {
        let mut leaver = pooler.client("app");
        leaver.simple("BEGIN; UPDATE vanish SET n = n + 100").unwrap();
        match goodbye {
            "terminate" => leaver.terminate(),
            "close" => drop(leaver),
            "reset" => leaver.reset(),
            _ => {
                leaver.send(&raw::query("SELECT pg_sleep(120)")).unwrap();
                drop(leaver);
            }
        }
        // Waits for the lock if it is held; statement_timeout would end it with an error.
        client.simple("SET statement_timeout = '20s'").unwrap();
        client.simple("UPDATE vanish SET n = n + 1").unwrap_or_else(|error| panic!("after {goodbye}: {error}"));
        assert_eq!(client.value("SELECT n FROM vanish"), (number + 1).to_string(), "after {goodbye}: rolled back");
    }
}

#[test]
fn a_database_that_restarts_is_reached_again() {
    let cluster = Cluster::start(&[]);
    let pooler = Setup::url(&cluster, "app").start();
    let mut client = pooler.client("app");
    assert_eq!(client.value("SELECT 1"), "1");
    cluster.restart();
    recovers(&pooler);
    cluster.crash();
    cluster.launch_again();
    recovers(&pooler);
}

#[test]
fn a_backend_that_is_killed_costs_one_error_at_most() {
    let cluster = cluster::shared();
    let pooler = Setup::url(cluster, "app").env("PGSLUICE_POOL_SIZE", "1").start();
    let mut client = pooler.client("app");
    // Idle: nobody waits for it, nobody should notice.
    let pid = client.value("SELECT pg_backend_pid()").parse().unwrap();
    cluster.kill_backend(pid);
    wait_for("the backend to end", || {
        (cluster.psql(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")) == "0").then_some(())
    });
    assert_ne!(client.value("SELECT pg_backend_pid()").parse::<i32>().unwrap(), pid);
    // Busy: its client is told, with the server's own code.
    client.simple("BEGIN").unwrap();
    let pid = client.value("SELECT pg_backend_pid()").parse().unwrap();
    cluster.kill_backend(pid);
    let error = client.simple("SELECT 1").unwrap_err();
    assert!(["57P01", "08006", ""].contains(&error.code()), "{error}");
    recovers(&pooler);
}

#[test]
fn a_pool_in_use_tells_who_waits_in_vain() {
    let pooler = Setup::url(cluster::shared(), "app")
        .env("PGSLUICE_POOL_SIZE", "1")
        .env("PGSLUICE_QUERY_WAIT_TIMEOUT", "300ms")
        .start();
    let mut holder = pooler.client("app");
    holder.simple("BEGIN").unwrap();
    let mut waiter = pooler.client("app");
    assert_eq!(waiter.simple("SELECT 1").unwrap_err().code(), "53300");
    holder.simple("COMMIT").unwrap();
    recovers(&pooler);
}

#[test]
fn what_was_not_synced_when_its_client_vanished_is_not_committed() {
    let cluster = cluster::shared();
    let pooler = Setup::url(cluster, "app").env("PGSLUICE_POOL_SIZE", "1").start();
    pooler.client("app").simple("CREATE TABLE unsynced (n int)").unwrap();
    for (address, who) in [(cluster.address(), "PostgreSQL"), (pooler.address(), "pgsluice")] {
        for answered in [true, false] {
            let mut leaver = raw::Client::open(address, "app", PASSWORD, DATABASE).unwrap();
            let insert =
                [raw::parse("", "INSERT INTO unsynced VALUES (1)"), raw::bind("", "", &[]), raw::execute("", 0)];
            leaver.send(&[insert.concat(), raw::flush()].concat()).unwrap();
            if answered {
                leaver.read_until(b'C').unwrap();
            }
            drop(leaver);
            // The pool's only server again, or the next one; and none of the leaver's own.
            assert_eq!(pooler.client("app").value("SELECT 2"), "2");
            wait_for("the leaver's server to end", || (cluster.backends(DATABASE) <= 1).then_some(()));
            assert_eq!(cluster.psql("SELECT count(*) FROM unsynced"), "0", "{who}, answered {answered}");
        }
    }
}
