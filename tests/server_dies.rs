//! Servers that end, refuse or vanish: invisible where nothing was sent, one clear error where something was, and never
//! the same statement twice.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;

use support::cluster::{Cluster, DATABASE, PASSWORD};
use support::pooler::{Pooler, Setup};
use support::proxy::{Direction, Fault, Proxy};
use support::{raw, seed, wait_for};

fn direct(cluster: &Cluster) -> Result<raw::Client, raw::Error> {
    raw::Client::open(cluster.address(), "app", PASSWORD, DATABASE)
}

/// Ends a backend and waits until it is gone.
fn end(cluster: &Cluster, pid: i32) {
    cluster.kill_backend(pid);
    let there = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    wait_for("the backend to end", || (cluster.psql(&there) == "0").then_some(()));
}

fn pid(client: &mut raw::Client) -> i32 {
    client.value("SELECT pg_backend_pid()").parse().unwrap()
}

#[test]
fn servers_that_end_while_idle_are_replaced_unseen() {
    let cluster = Cluster::start(&[]);
    let pooler = Setup::url(&cluster, "app").env("PGSLUICE_POOL_SIZE", "3").start();
    let mut clients: Vec<_> = (0..6).map(|_| pooler.client("app")).collect();
    let all_at_once = |clients: &mut Vec<raw::Client>| {
        for client in clients.iter_mut() {
            client.send(&raw::query("SELECT 'unharmed' FROM pg_sleep(0.02)")).unwrap();
        }
        for client in clients {
            assert_eq!(client.answer().unwrap()[0][0].as_deref(), Some("unharmed"));
        }
    };
    all_at_once(&mut clients);
    for round in 0..4 {
        // Some, all, all at once by a restart.
        match round {
            0 => end(&cluster, pid(&mut clients[0])),
            3 => cluster.crash(),
            2 => cluster.stop(),
            _ => {
                cluster.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'");
                wait_for("all backends to end", || (cluster.backends(DATABASE) == 0).then_some(()));
            }
        }
        if round >= 2 {
            cluster.launch_again();
        }
        all_at_once(&mut clients);
    }
    assert_eq!(pooler.metric("pgsluice_pool_timeouts_total", &[]), 0.0);
}

/// What a client reads when its backend is terminated in a transaction is what it reads directly.
#[test]
fn a_backend_terminated_in_a_transaction_is_told_as_directly() {
    let cluster = Cluster::start(&[]);
    let pooler = Setup::url(&cluster, "app").env("PGSLUICE_POOL_SIZE", "1").start();
    let hear = |mut client: raw::Client, running: bool| {
        client.simple("BEGIN").unwrap();
        let pid = pid(&mut client);
        if running {
            client.send(&raw::query("SELECT 1; SELECT pg_sleep(60)")).unwrap();
            let state = format!("SELECT state FROM pg_stat_activity WHERE pid = {pid}");
            wait_for("it to run", || (cluster.psql(&state) == "active").then_some(()));
        }
        end(&cluster, pid);
        let messages = client.read_to_end().unwrap();
        messages.iter().map(|m| (m.tag as char, m.field(b'S'), m.field(b'C'))).collect::<Vec<_>>()
    };
    for running in [false, true] {
        let expected = hear(direct(&cluster).unwrap(), running);
        assert_eq!(expected.last().unwrap().2.as_deref(), Some("57P01"));
        assert_eq!(hear(pooler.client("app"), running), expected);
        assert_eq!(pooler.client("app").value("SELECT 'next'"), "next");
    }
}

/// The connection to the server breaks without a word: one error, and what was sent is not sent again.
#[test]
fn a_connection_that_breaks_is_one_clear_error_and_no_second_try() {
    let cluster = Cluster::start(&[]);
    cluster.psql("CREATE TABLE once (n int); GRANT ALL ON once TO app");
    let proxy = Proxy::start(cluster.address(), seed());
    let url = format!("postgres://app:{PASSWORD}@{}/{DATABASE}", proxy.address());
    let pooler = Setup::default().env("DATABASE_URL", &url).env("PGSLUICE_POOL_SIZE", "1").start();
    let login = || wait_for("a login", || pooler.try_client("app", PASSWORD, DATABASE).ok());
    let hear = |mut client: raw::Client, what: &str| {
        let messages = client.read_to_end().unwrap_or_else(|e| panic!("{what}: {e}"));
        let told: Vec<_> = messages.iter().map(|m| m.to_error().to_string()).collect();
        assert_eq!(told, ["FATAL 08006: server closed the connection unexpectedly"], "{what}");
    };
    let mut done = 0;
    for (n, (direction, passes, in_transaction)) in [
        (Direction::ToServer, 0, false),
        (Direction::ToServer, 3, false),
        (Direction::ToServer, 0, true),
        (Direction::ToClient, 0, false),
        (Direction::ToClient, 3, false),
        (Direction::ToClient, 0, true),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = login();
        client.simple(if in_transaction { "BEGIN" } else { "SELECT 1" }).unwrap();
        proxy.set(direction, Fault::CutAfter(passes));
        client.send(&raw::query(&format!("INSERT INTO once VALUES ({n})"))).unwrap();
        hear(client, &format!("{direction:?}, {passes} bytes, in a transaction: {in_transaction}"));
        proxy.heal();
        // Sent once, it may have been done once.
        done += usize::from(matches!(direction, Direction::ToClient) && !in_transaction);
        let counts = "SELECT count(*) || '/' || count(DISTINCT n) FROM once";
        wait_for("what was done", || (cluster.psql(counts) == format!("{done}/{done}")).then_some(()));
    }
    assert_eq!(done, 2);
    // While the client thinks.
    let mut client = login();
    client.simple("BEGIN").unwrap();
    proxy.reset_all();
    hear(client, "idle in a transaction");
}

/// Takes all places that ordinary users have.
fn occupy(cluster: &Cluster) -> Vec<raw::Client> {
    let mut taken = Vec::new();
    while let Ok(client) = direct(cluster) {
        taken.push(client);
    }
    assert!(taken.len() < 20);
    taken
}

#[test]
fn too_many_connections_is_the_servers_own_error_and_sessions_survive_it() {
    let cluster = Cluster::start(&["max_connections=6", "superuser_reserved_connections=3"]);
    // At login: as directly.
    let mut taken = occupy(&cluster);
    let pooler = Setup::url(&cluster, "app").env("PGSLUICE_POOL_SIZE", "2").start();
    let expected = direct(&cluster).err().unwrap().to_string();
    assert!(expected.contains("FATAL 53300"), "{expected}");
    assert_eq!(pooler.try_client("app", PASSWORD, DATABASE).err().unwrap().to_string(), expected);
    assert_eq!(pooler.metric("pgsluice_pool_timeouts_total", &["reason=\"connect\""]), 1.0);
    taken.pop();
    let mut client = wait_for("a login", || pooler.try_client("app", PASSWORD, DATABASE).ok());
    let gone = pid(&mut client);
    end(&cluster, gone);
    // Logged in, without a server: an error for each request, and the session lives.
    taken = [taken, occupy(&cluster)].into_iter().flatten().collect();
    let one = [raw::parse("", "SELECT 1"), raw::bind("", "", &[]), raw::execute("", 0), raw::sync()].concat();
    client.send(&[one.clone(), raw::query("SELECT 2"), one].concat()).unwrap();
    for _ in 0..3 {
        let messages = client.read_until(b'Z').unwrap();
        assert_eq!(raw::tags(&messages), "EZ");
        assert_eq!(messages[0].to_error().to_string(), expected.replace("FATAL", "ERROR"));
        assert_eq!(messages[1].body, b"I");
    }
    taken.pop();
    wait_for("a server again", || client.simple("SELECT 1").ok());
    // One server is open: whoever waits gets it in turn, whatever becomes of a second.
    taken = [taken, occupy(&cluster)].into_iter().flatten().collect();
    client.simple("BEGIN").unwrap();
    let mut waiter = pooler.client("app");
    waiter.send(&raw::query("SELECT 'in turn'")).unwrap();
    let refused = "cannot open a server connection";
    let before = pooler.log().matches(refused).count();
    wait_for("a second server to be refused", || (pooler.log().matches(refused).count() > before).then_some(()));
    client.simple("COMMIT").unwrap();
    assert_eq!(waiter.answer().unwrap()[0][0].as_deref(), Some("in turn"));
    drop(taken);
}

/// A postmaster that cannot fork says so in a form that is no message of the protocol.
#[test]
fn a_server_that_cannot_fork_is_quoted() {
    let text = "could not fork new process for connection: Cannot allocate memory";
    // Who insists on TLS does not repeat what anybody may have said.
    let unsaid = "answers a request for TLS with an error";
    for (pieces, mode, expected) in [
        (1, "disable", text),
        (7, "disable", text),
        (1000, "disable", text),
        (1, "prefer", text),
        (1000, "prefer", text),
        (1000, "require", unsaid),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("postgres://app:{PASSWORD}@{}/{DATABASE}?sslmode={mode}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                let _ = stream.read(&mut [0; 1000]);
                for piece in format!("E{text}\n\0").as_bytes().chunks(pieces) {
                    let _ = stream.write_all(piece);
                }
            }
        });
        let pooler: Pooler = Setup::default().env("DATABASE_URL", &url).start();
        let error = pooler.try_client("app", PASSWORD, DATABASE).err().unwrap();
        assert_eq!(error.code(), if expected == text { "53000" } else { "57P03" });
        assert!(
            error.to_string().contains(expected) && (expected == text || !error.to_string().contains(text)),
            "{error}"
        );
    }
}

/// Logs anyone in, begins a transaction, and ends it with FATAL; closes when `done` does.
fn dies_slowly(listener: TcpListener, done: std::sync::mpsc::Receiver<()>) {
    let done = std::sync::Arc::new(std::sync::Mutex::new(done));
    for stream in listener.incoming() {
        let (mut stream, done) = (stream.unwrap(), done.clone());
        std::thread::spawn(move || {
            assert!(stream.read(&mut [0; 1000]).unwrap() > 0);
            let mut welcome = raw::frame(b'R', &[0; 4]);
            for (name, value) in [("server_version", "15.0"), ("client_encoding", "UTF8"), ("TimeZone", "UTC")] {
                welcome.extend(raw::frame(b'S', format!("{name}\0{value}\0").as_bytes()));
            }
            welcome.extend([raw::frame(b'K', &[1; 8]), raw::frame(b'Z', b"I")].concat());
            stream.write_all(&welcome).unwrap();
            if stream.read(&mut [0; 1000]).unwrap_or(0) > 0 {
                let last = b"SFATAL\0VFATAL\0C57P01\0Mthe end\0\0";
                let begun = [raw::frame(b'C', b"BEGIN\0"), raw::frame(b'Z', b"T"), raw::frame(b'E', last)].concat();
                stream.write_all(&begun).unwrap();
                let _ = done.lock().unwrap().recv();
            }
        });
    }
}

#[test]
fn nothing_is_answered_behind_the_last_word_of_a_server() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("postgres://app:{PASSWORD}@{}/{DATABASE}?sslmode=disable", listener.local_addr().unwrap());
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || dies_slowly(listener, wait));
    let pooler: Pooler = Setup::default().env("DATABASE_URL", &url).start();
    let mut client = pooler.client("app");
    client.send(&raw::query("BEGIN")).unwrap();
    assert_eq!(raw::tags(&client.read_until(b'E').unwrap()), "CZE");
    // A Close is answered without the server, as a rule.
    client.send(&[raw::close(b'S', "s"), raw::sync()].concat()).unwrap();
    assert!(client.is_silent(std::time::Duration::from_millis(200)));
    drop(done);
    // A reset is an end too: what the client sent has not been read.
    assert_eq!(client.read_to_end().unwrap_or_default(), []);
}
