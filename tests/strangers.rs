//! Who has not logged in yet: how many of them there may be, what they may send, and that those who are logged in hardly
//! notice them.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use support::cluster::{self, DATABASE, PASSWORD};
use support::pki::{Ca, client_config};
use support::pooler::{Pooler, Setup};
use support::{raw, wait_for};

fn setup() -> Setup {
    Setup::url(cluster::shared(), "app")
}

fn with_tls(ca: &Ca, setup: Setup) -> Setup {
    let pair = ca.server(&["localhost"]);
    setup
        .env("PGSLUICE_CLIENT_TLS_CERT_FILE", &pair.cert.display().to_string())
        .env("PGSLUICE_CLIENT_TLS_KEY_FILE", &pair.key.display().to_string())
}

fn strangers(pooler: &Pooler) -> f64 {
    pooler.metric("pgsluice_client_unauthenticated_connections", &[])
}

fn refusals(pooler: &Pooler, reason: &str) -> f64 {
    pooler.metric("pgsluice_client_refusals_total", &[&format!("reason=\"{reason}\"")])
}

/// A connection that says nothing, once the pooler has it.
fn silent(pooler: &Pooler) -> raw::Client {
    let before = strangers(pooler);
    let client = raw::Client::connect(pooler.address()).unwrap();
    wait_for("the pooler to have it", || (strangers(pooler) > before).then_some(()));
    client
}

/// None is left of the start's own looking.
fn quiet(pooler: &Pooler) {
    wait_for("no stranger", || (strangers(pooler) == 0.0).then_some(()));
}

#[test]
fn beyond_the_limit_the_newcomer_is_refused_and_later_the_oldest_makes_room() {
    let pooler = setup().env("PGSLUICE_MAX_UNAUTHENTICATED_CONN", "40").start();
    quiet(&pooler);
    let mut crowd: Vec<_> = (0..40).map(|_| raw::Client::connect(pooler.address()).unwrap()).collect();
    // Nothing has been read of it: it is told at once. (On a slow machine the first of the crowd may have had its second.)
    let mut refused = raw::Client::connect(pooler.address()).unwrap();
    if let Ok(message) = refused.read() {
        assert_eq!(message.field(b'C').as_deref(), Some("53300"), "{message:?}");
        assert_eq!(message.field(b'M').unwrap(), "no more connections allowed (max_unauthenticated_conn)");
    }
    wait_for("a count", || (refusals(&pooler, "max_unauthenticated_conn") >= 1.0).then_some(()));
    assert!(strangers(&pooler) <= 40.0);
    // After a second the crowd is no wall.
    let mut client = wait_for("a login", || pooler.try_client("app", PASSWORD, DATABASE).ok());
    assert_eq!(client.value("SELECT 1"), "1");
    let left = crowd[0].read_to_end().unwrap();
    assert_eq!(left[0].field(b'C').as_deref(), Some("53300"));
    assert!(refusals(&pooler, "made_room") >= 1.0);
    // Who is logged in holds no place.
    drop(crowd);
    quiet(&pooler);
    assert_eq!(client.value("SELECT 2"), "2");
}

#[test]
fn a_stranger_beyond_the_limit_gets_no_tls() {
    let ca = Ca::new();
    let pooler = with_tls(&ca, setup().env("PGSLUICE_MAX_UNAUTHENTICATED_CONN", "1")).start();
    quiet(&pooler);
    let refused = wait_for("a refusal", || {
        let _first = raw::Client::connect(pooler.address()).unwrap();
        let answer = raw::Client::connect(pooler.address()).unwrap().ask_tls();
        (refusals(&pooler, "max_unauthenticated_conn") >= 1.0).then_some(answer)
    });
    assert_ne!(refused.unwrap_or(b'E'), b'S');
}

#[test]
fn strangers_take_no_place_of_a_client_and_the_console_is_reached_when_all_are_taken() {
    let toml = format!(
        "max_client_conn = 2\nadmin_users = [\"app\"]\n[users.app]\npassword = \"{PASSWORD}\"\n[databases.app]\nhost = \"127.0.0.1\"\nport = {}\n",
        cluster::shared().port()
    );
    let pooler = Setup::toml(&toml).start();
    quiet(&pooler);
    let _strangers: Vec<_> = (0..5).map(|_| silent(&pooler)).collect();
    let mut clients = [pooler.client("app"), pooler.client("app")];
    let error = pooler.try_client("app", PASSWORD, DATABASE).err().unwrap();
    assert_eq!(error.code(), "53300", "{error}");
    assert!(refusals(&pooler, "max_client_conn") >= 1.0);
    let mut console = pooler.try_client("app", PASSWORD, "pgsluice").unwrap();
    console.simple("SHOW VERSION").unwrap();
    // Full, so that hardly anybody is let as far as TLS.
    let crowd: Vec<_> = (0..60).map(|_| raw::Client::connect(pooler.address()).unwrap()).collect();
    wait_for("the crowd to be cut", || (refusals(&pooler, "max_client_conn") > 20.0).then_some(()));
    assert!(strangers(&pooler) <= 32.0);
    drop(crowd);
    for client in &mut clients {
        assert_eq!(client.value("SELECT 1"), "1");
    }
}

/// The error that a stranger gets for these bytes; `None` when the connection just ends.
fn error_for(pooler: &Pooler, packets: &[Vec<u8>]) -> Option<(String, String)> {
    let mut client = raw::Client::connect(pooler.address()).unwrap();
    for packet in packets {
        // It may be over already.
        let _ = client.send(packet);
    }
    loop {
        let message = client.read().ok()?;
        if message.tag == b'E' {
            return Some((message.field(b'C').unwrap(), message.field(b'M').unwrap()));
        }
    }
}

#[test]
fn what_a_stranger_sends_is_bounded() {
    let pooler = setup().start();
    let startup = || raw::startup(196_608, &[("user", "app"), ("database", DATABASE)]);
    let header = |length: u32| [&b"p"[..], &length.to_be_bytes()].concat();
    let violation = |message: &str| Some(("08P01".to_owned(), message.to_owned()));
    // Seen in the length: nothing of the body is waited for.
    assert_eq!(
        error_for(&pooler, &[10_001u32.to_be_bytes().to_vec()]),
        violation("invalid length of startup packet"),
        "startup"
    );
    assert_eq!(error_for(&pooler, &[startup(), header(1025 + 4)]), violation("password message is too long"), "SASL");
    let plain = setup().env("PGSLUICE_AUTH_TYPE", "plain").start();
    assert_eq!(
        error_for(&plain, &[startup(), header(65_536 + 4)]),
        violation("password message is too long"),
        "password"
    );
    // A token of a cloud may be long.
    let long = raw::frame(b'p', &[&[b'x'; 60_000][..], b"\0"].concat());
    assert_eq!(error_for(&plain, &[startup(), long]).unwrap().0, "28P01");
}

#[test]
fn a_handshake_without_end_is_ended() {
    let ca = Ca::new();
    let pooler = with_tls(&ca, setup()).start();
    // Records of a ClientHello of 16 MB, as its header says.
    let mut stream = TcpStream::connect(pooler.address()).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    let record = |body: &[u8]| [&[22, 3, 1][..], &(body.len() as u16).to_be_bytes(), body].concat();
    let mut sent = 0;
    let mut next = [&[1, 0xff, 0xff, 0xff][..], &[0; 1000]].concat();
    while sent < 4_000_000 && stream.write_all(&record(&next)).is_ok() {
        sent += next.len();
        next = vec![0; 1000];
    }
    let mut end = Vec::new();
    // In order or by a reset; what was sent may lie in buffers unread.
    let hung_up = match stream.read_to_end(&mut end) {
        Ok(_) => true,
        Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    };
    assert!(hung_up, "the pooler hung up after {sent} bytes");
    quiet(&pooler);
    assert_eq!(pooler.client("app").value("SELECT 1"), "1");
}

/// A ClientHello that names the protocol, so that it may come first.
fn hello(ca: &Ca) -> Vec<u8> {
    let config = client_config(Some(&ca.file()), None, &[b"postgresql"]);
    let mut connection = rustls::ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_storm_of_handshakes_leaves_the_worker_to_who_is_logged_in() {
    const STORM: usize = 200;
    let ca = Ca::new();
    let pooler = with_tls(&ca, setup().env("PGSLUICE_CLIENT_LOGIN_TIMEOUT", "60s")).start();
    let mut client = pooler.client("app");
    client.value("SELECT 1");
    let hello = hello(&ca);
    let mut crowd: Vec<_> = (0..STORM).map(|_| TcpStream::connect(pooler.address()).unwrap()).collect();
    wait_for("the pooler to have them", || (strangers(&pooler) >= STORM as f64).then_some(()));
    let over = Arc::new(AtomicBool::new(false));
    let (began, begins) = mpsc::channel();
    let storm = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            for stranger in &mut crowd {
                stranger.set_read_timeout(Some(support::DEADLINE)).unwrap();
                stranger.write_all(&hello).unwrap();
            }
            began.send(()).unwrap();
            let answers = crowd.iter_mut().map(|s| s.read(&mut [0; 64]).unwrap()).filter(|n| *n > 0).count();
            over.store(true, Ordering::Relaxed);
            answers
        }
    });
    begins.recv().unwrap();
    let mut queries = 0;
    while !over.load(Ordering::Relaxed) {
        assert_eq!(client.value("SELECT 1"), "1");
        queries += 1;
    }
    assert_eq!(storm.join().unwrap(), STORM);
    // When the worker itself shook hands, some sixty of them came between a query and its answer.
    assert!(queries > STORM / 10, "{queries} queries while {STORM} shook hands");
}
