//! Everything has a limit: what is large streams through in constant memory at the pace of the slower side, what
//! must be held is bounded, and a drain ends when it should.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::cluster::{self, Cluster, DATABASE, PASSWORD};
use support::pooler::{Pooler, Setup};
use support::proxy::{Direction, Fault, Proxy};
use support::{raw, seed, wait_for};

const MB: usize = 1024 * 1024;

fn setup(pool_size: usize) -> Setup {
    Setup::url(cluster::shared(), "app").env("PGSLUICE_POOL_SIZE", &pool_size.to_string())
}

/// A value of /proc/PID/status in bytes.
fn memory(pooler: &Pooler, name: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pooler.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Runs `work` and says by how much the pooler's peak memory grew.
fn growth(pooler: &Pooler, work: impl FnOnce()) -> usize {
    // The peak counts from here (proc_pid_clear_refs).
    let _ = std::fs::write(format!("/proc/{}/clear_refs", pooler.pid()), "5");
    let before = memory(pooler, "VmHWM");
    work();
    memory(pooler, "VmHWM").saturating_sub(before)
}

/// Reads a result of any size, slowly at first; bytes of DataRow and CopyData bodies.
fn drink(client: &mut raw::Client) -> usize {
    let mut bytes = 0;
    loop {
        let message = client.read().unwrap();
        match message.tag {
            b'D' | b'd' => bytes += message.body.len(),
            b'E' => panic!("{}", message.to_error()),
            b'Z' => return bytes,
            _ => {}
        }
    }
}

#[test]
fn large_results_and_copies_stream_in_constant_memory() {
    let pooler = setup(2).start();
    let mut client = pooler.client("app");
    client.simple("CREATE TEMP TABLE big (line text)").unwrap();
    client.simple("SELECT repeat('w', 1000000)").unwrap();
    let grown = growth(&pooler, || {
        // Many rows; then rows of 20 MB each.
        client.send(&raw::query("SELECT repeat('r', 10000) FROM generate_series(1, 10000)")).unwrap();
        assert!(drink(&mut client) > 100_000_000);
        client.send(&raw::query("SELECT repeat('r', 20000000) FROM generate_series(1, 5)")).unwrap();
        assert!(drink(&mut client) > 100_000_000);
        client.send(&raw::query("COPY (SELECT repeat('c', 10000) FROM generate_series(1, 20000)) TO STDOUT")).unwrap();
        assert!(drink(&mut client) > 200_000_000);
    });
    assert!(grown < 4 * MB, "grew by {grown} bytes while rows streamed");
    let grown = growth(&pooler, || {
        client.send(&raw::query("COPY big FROM STDIN")).unwrap();
        assert_eq!(client.read().unwrap().tag, b'G');
        let mut lines = "x".repeat(999).into_bytes();
        lines.push(b'\n');
        let chunk = raw::frame(b'd', &lines.repeat(64));
        for _ in 0..200 * MB / chunk.len() {
            client.send(&chunk).unwrap();
        }
        // One CopyData of 40 MB.
        client.send(&raw::frame(b'd', &lines.repeat(40_000))).unwrap();
        client.send(&raw::frame(b'c', b"")).unwrap();
        client.read_until(b'Z').unwrap();
    });
    assert!(grown < 4 * MB, "grew by {grown} bytes while COPY came in");
}

#[test]
fn large_messages_of_a_client_stream_in_constant_memory() {
    let pooler = setup(2).start();
    let mut client = pooler.client("app");
    assert_eq!(client.value("SELECT 1"), "1");
    let long = "q".repeat(48 * MB);
    let grown = growth(&pooler, || {
        assert_eq!(client.value(&format!("SELECT length('{long}')")), long.len().to_string(), "Query");
        assert_eq!(
            raw::text(&client.extended("SELECT length($1::text)", &[Some(&long)]).unwrap()),
            long.len().to_string(),
            "Bind"
        );
        assert_eq!(
            raw::text(&client.extended(&format!("SELECT length('{long}')"), &[]).unwrap()),
            long.len().to_string(),
            "Parse"
        );
        // A named one stays with its server, and so does the session.
        client
            .send(&[raw::parse("huge", &format!("SELECT length('{long}') + $1::int")), raw::sync()].concat())
            .unwrap();
        client.answer().unwrap();
        for n in 0..3 {
            client
                .send(&[raw::bind("", "huge", &[Some(&n.to_string())]), raw::execute("", 0), raw::sync()].concat())
                .unwrap();
            assert_eq!(raw::text(&client.answer().unwrap()), (long.len() + n).to_string());
        }
        // Closed, the name is free.
        client
            .send(
                &[
                    raw::close(b'S', "huge"),
                    raw::parse("huge", &format!("SELECT 7 + length('{long}')")),
                    raw::bind("", "huge", &[]),
                    raw::execute("", 0),
                    raw::sync(),
                ]
                .concat(),
            )
            .unwrap();
        assert_eq!(raw::text(&client.answer().unwrap()), (long.len() + 7).to_string());
    });
    assert!(grown < 4 * MB, "grew by {grown} bytes");
}

#[test]
fn a_client_that_does_not_read_slows_its_server_and_nobody_else() {
    let pooler = setup(2).start();
    let mut slow = pooler.client("app");
    let mut other = pooler.client("app");
    assert_eq!(other.value("SELECT 1"), "1");
    let grown = growth(&pooler, || {
        slow.send(&raw::query("SELECT repeat('s', 10000) FROM generate_series(1, 8000)")).unwrap();
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite' AND query LIKE '%repeat(''s''%' AND pid <> pg_backend_pid()";
        wait_for("the server to wait for its client", || (cluster::shared().psql(waits) == "1").then_some(()));
        for n in 0..50 {
            assert_eq!(other.value(&format!("SELECT {n}")), n.to_string());
        }
        assert_eq!(cluster::shared().psql(waits), "1", "still waits");
        assert!(drink(&mut slow) > 80_000_000);
    });
    assert!(grown < 4 * MB, "grew by {grown} bytes");
}

/// Answers that pgsluice gives itself queue up behind what the client has not read: in order, and bounded.
#[test]
fn closes_of_a_client_that_does_not_read_are_answered_in_order_and_bounded() {
    let pooler = setup(1).start();
    let mut client = pooler.client("app");
    client.send(&[raw::parse("c", "SELECT 1"), raw::sync()].concat()).unwrap();
    client.answer().unwrap();
    let grown = growth(&pooler, || {
        let mut bytes = raw::query("SELECT repeat('o', 1000) FROM generate_series(1, 30000)");
        for _ in 0..2_000 {
            bytes.extend([raw::close(b'S', "c"), raw::parse("c", "SELECT 1"), raw::close(b'S', "d")].concat());
        }
        bytes.extend([raw::bind("", "c", &[]), raw::execute("", 0), raw::sync()].concat());
        client.send(&bytes).unwrap();
        let first = client.read_until(b'Z').unwrap();
        assert_eq!(first.len(), 30_003);
        let second = client.read_until(b'Z').unwrap();
        assert_eq!(raw::tags(&second), format!("{}2DCZ", "313".repeat(2_000)));
        // Closes without end, never read.
        let storm = raw::close(b'S', "nothing").repeat(10_000);
        let sent = flood(&mut client, &storm, 64 * MB);
        assert!(sent < 64 * MB, "it stops reading a client that does not read: {sent}");
    });
    assert!(grown < 8 * MB, "grew by {grown} bytes");
    // The server comes back.
    drop(client);
    assert_eq!(pooler.client("app").value("SELECT 2"), "2");
}

/// Sends until nothing is taken for a second; bytes taken.
fn flood(client: &mut raw::Client, bytes: &[u8], most: usize) -> usize {
    client.set_write_timeout(Duration::from_secs(1)).unwrap();
    let mut sent = 0;
    while sent < most && client.send(bytes).is_ok() {
        sent += bytes.len();
    }
    sent
}

#[test]
fn more_prepared_statements_than_are_kept_still_work() {
    let pooler = setup(1).env("PGSLUICE_MAX_PREPARED_STATEMENTS", "50").start();
    let mut client = pooler.client("app");
    for batch in 0..103 {
        let mut bytes = Vec::new();
        for n in batch * 100..batch * 100 + 100 {
            bytes.extend(raw::parse(&format!("many_{n}"), &format!("SELECT {n}")));
        }
        bytes.extend(raw::sync());
        client.send(&bytes).unwrap();
        let messages = client.read_until(b'Z').unwrap();
        assert_eq!(raw::tags(&messages), format!("{}Z", "1".repeat(100)));
    }
    for n in [0, 1, 9_998, 9_999, 10_000, 10_001, 10_299] {
        client.send(&[raw::bind("", &format!("many_{n}"), &[]), raw::execute("", 0), raw::sync()].concat()).unwrap();
        assert_eq!(raw::text(&client.answer().unwrap()), n.to_string());
    }
    client.terminate();
    assert_eq!(pooler.client("app").value("SELECT 1"), "1");
}

// === The end ===

#[test]
fn sigterm_drains_between_transactions() {
    let mut pooler = setup(3).start();
    let mut idle = pooler.client("app");
    assert_eq!(idle.value("SELECT 1"), "1");
    let mut busy = pooler.client("app");
    busy.simple("BEGIN").unwrap();
    pooler.signal("TERM");
    let messages = idle.read_to_end().unwrap();
    assert_eq!(messages[0].field(b'C').unwrap(), "57P01");
    for n in 0..3 {
        assert_eq!(busy.value(&format!("SELECT {n}")), n.to_string(), "a transaction goes on");
    }
    assert!(TcpStream::connect(pooler.address()).is_err(), "nobody new comes in");
    busy.simple("COMMIT").unwrap();
    assert_eq!(busy.read_to_end().unwrap()[0].field(b'C').unwrap(), "57P01");
    assert_eq!(pooler.wait().code(), Some(0), "{}", pooler.log());
}

#[test]
fn a_drain_ends_at_its_deadline_or_with_a_second_signal() {
    for (timeout, second) in [("500ms", false), ("60s", true)] {
        let mut pooler = setup(1).env("PGSLUICE_SHUTDOWN_TIMEOUT", timeout).start();
        let mut busy = pooler.client("app");
        busy.simple("BEGIN").unwrap();
        let since = Instant::now();
        pooler.signal("TERM");
        pooler.wait_for_log("draining");
        if second {
            pooler.signal("INT");
        }
        assert_eq!(pooler.wait().code(), Some(3), "cut off; {}", pooler.log());
        assert!(since.elapsed() < Duration::from_secs(20));
        assert!(busy.simple("SELECT 1").is_err());
    }
}

#[test]
fn an_address_in_use_is_exit_status_1() {
    let pooler = setup(1).start();
    let (status, log) = setup(1).env("PGSLUICE_LISTEN", &pooler.address().to_string()).fails();
    assert_eq!(status.code(), Some(1), "{log}");
}

// === What ends in the middle ===

#[test]
fn a_client_that_leaves_in_the_middle_of_anything_frees_its_server() {
    let cluster = cluster::shared();
    cluster.psql("CREATE TABLE middle (n int); GRANT ALL ON middle TO app");
    let pooler = setup(1).env("PGSLUICE_QUERY_WAIT_TIMEOUT", "20s").start();
    let leave: [(&str, Vec<u8>); 7] = [
        ("a query", raw::query("SELECT pg_sleep(100), 'left behind'")),
        ("a pipeline without Sync", [raw::parse("", "SELECT 1"), raw::bind("", "", &[]), raw::execute("", 0)].concat()),
        ("a pipeline with Flush", [raw::parse("", "SELECT 1"), raw::flush()].concat()),
        ("COPY in", [raw::query("COPY middle FROM STDIN"), raw::frame(b'd', b"1\n")].concat()),
        ("COPY out", raw::query("COPY (SELECT repeat('x', 10000) FROM generate_series(1, 100000)) TO STDOUT")),
        ("half a query", raw::query("SELECT 1")[..8].to_vec()),
        (
            "half a CopyData",
            [raw::query("COPY middle FROM STDIN"), raw::frame(b'd', &[b'1'; 100])[..50].to_vec()].concat(),
        ),
    ];
    for reset in [false, true] {
        for (what, bytes) in &leave {
            let mut client = pooler.client("app");
            client.send(bytes).unwrap();
            if *what == "a query" {
                let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%left behind%' AND pid <> pg_backend_pid()";
                wait_for("the query to run", || (cluster.psql(running) == "1").then_some(()));
            }
            if reset {
                client.reset()
            } else {
                drop(client)
            }
            let since = Instant::now();
            let mut next = pooler.client("app");
            assert_eq!(next.value("SELECT count(*) FROM middle"), "0", "after {what}");
            assert!(since.elapsed() < Duration::from_secs(3), "after {what}: {:?}", since.elapsed());
            next.terminate();
        }
    }
    wait_for("the query to be cancelled", || {
        (cluster.psql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%left behind%' AND state = 'active' AND pid <> pg_backend_pid()") == "0").then_some(())
    });
}

/// An error put behind half a row would be read as the rest of the row.
#[test]
fn nothing_stands_behind_a_row_that_was_cut() {
    let proxy = Proxy::start(cluster::shared().address(), seed());
    let url = format!("postgres://app:{PASSWORD}@{}/{DATABASE}", proxy.address());
    let pooler = Setup::default().env("DATABASE_URL", &url).env("PGSLUICE_POOL_SIZE", "1").start();
    // RowDescription is 32 bytes, the row 20,011; an ErrorResponse would fill what is missing.
    for cut in (19_600..20_040).step_by(40) {
        let mut client = wait_for("service", || {
            let mut client = pooler.try_client("app", PASSWORD, DATABASE).ok()?;
            client.simple("SELECT 1").ok().map(|_| client)
        });
        proxy.set(Direction::ToClient, Fault::CutAfter(cut));
        client.send(&raw::query("SELECT repeat('x', 20000)")).unwrap();
        loop {
            match client.read() {
                Ok(m) if m.tag == b'T' => {}
                Ok(m) => panic!("a message made of two: {} of {} bytes", m.tag as char, m.body.len()),
                Err(_) => break,
            }
        }
        proxy.heal();
    }
}

#[test]
fn a_server_that_is_killed_gives_one_clear_error() {
    let cluster = Cluster::start(&[]);
    let pooler = Setup::url(&cluster, "app").env("PGSLUICE_POOL_SIZE", "1").start();
    for extended in [false, true] {
        let mut client = pooler.client("app");
        let pid = client.value("SELECT pg_backend_pid()").parse().unwrap();
        let sql = "SELECT pg_sleep(100), 'to be killed'";
        let bytes = if extended {
            [raw::parse("", sql), raw::bind("", "", &[]), raw::execute("", 0), raw::sync()].concat()
        } else {
            raw::query(sql)
        };
        client.send(&bytes).unwrap();
        wait_for("the query to run", || {
            (cluster.psql(&format!("SELECT state FROM pg_stat_activity WHERE pid = {pid}")) == "active").then_some(())
        });
        cluster.kill_backend(pid);
        let messages = client.read_to_end().unwrap();
        let errors: Vec<_> = messages.iter().filter(|m| m.tag == b'E').collect();
        assert_eq!(errors.len(), 1, "{messages:?}");
        assert_eq!(errors[0].field(b'C').unwrap(), "57P01");
        assert!(!messages.iter().any(|m| m.tag == b'Z'), "no ReadyForQuery of our own");
        assert_eq!(pooler.client("app").value("SELECT 1"), "1");
    }
    // Without a word.
    let mut client = pooler.client("app");
    client.simple("BEGIN").unwrap();
    let pid: u32 = client.value("SELECT pg_backend_pid()").parse().unwrap();
    client.send(&raw::query("SELECT pg_sleep(100)")).unwrap();
    wait_for("the query to run", || {
        (cluster.psql(&format!("SELECT state FROM pg_stat_activity WHERE pid = {pid}")) == "active").then_some(())
    });
    cluster.crash();
    let messages = client.read_to_end().unwrap();
    assert_eq!(messages.iter().filter(|m| m.tag == b'E').count(), 1, "{messages:?}");
    cluster.launch_again();
    let since = Instant::now();
    wait_for("service", || pooler.try_client("app", PASSWORD, DATABASE).ok()?.simple("SELECT 1").ok());
    assert!(since.elapsed() < Duration::from_secs(3), "{:?} after the database's return", since.elapsed());
}
