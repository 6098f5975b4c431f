//! Peers that do not keep to the protocol: the process stays up, others are not harmed, nothing is leaked.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use support::cluster::{self, DATABASE, PASSWORD};
use support::pooler::{Pooler, Setup};
use support::{DEADLINE, Random, raw, seed, wait_for};

fn start() -> Pooler {
    Setup::url(cluster::shared(), "app")
        .env("PGSLUICE_POOL_SIZE", "3")
        .env("PGSLUICE_CLIENT_LOGIN_TIMEOUT", "5s")
        .start()
}

/// Sends bytes as the first packet, ends its side, and reads what comes until the end.
fn shout(pooler: &Pooler, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(pooler.address()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_be_bytes()[..], &code.to_be_bytes(), body].concat()
}

fn has(answer: &[u8], text: &str) -> bool {
    answer.windows(text.len()).any(|w| w == text.as_bytes())
}

fn descriptors(pooler: &Pooler) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", pooler.pid())).unwrap().count()
}

const SSL: u32 = 80_877_103;
const GSSENC: u32 = 80_877_104;

#[test]
fn encryption_is_refused_and_nothing_may_stand_behind_the_request() {
    let pooler = start();
    let mut client = raw::Client::connect(pooler.address()).unwrap();
    for code in [GSSENC, SSL] {
        client.send(&packet(code, b"")).unwrap();
        let mut answer = [0];
        client.read_raw(&mut answer).unwrap();
        assert_eq!(&answer, b"N");
    }
    client.login("app", PASSWORD, DATABASE).unwrap();
    assert_eq!(client.value("SELECT 1"), "1");
    for code in [SSL, GSSENC] {
        // As CVE-2021-23214: bytes sent before the answer was known.
        let startup = raw::startup(196_608, &[("user", "app"), ("database", DATABASE)]);
        let answer = shout(&pooler, &[packet(code, b""), startup].concat());
        assert!(has(&answer, "08P01") && !has(&answer, "SCRAM"), "{}", answer.escape_ascii());
        let answer = shout(&pooler, &packet(code, b"x"));
        assert!(has(&answer, "08P01"), "{}", answer.escape_ascii());
    }
}

#[test]
fn newer_protocols_and_unknown_options_are_negotiated() {
    let pooler = start();
    for (version, options, spoken) in [
        (196_611, vec![], 196_610u32),
        (196_608, vec![("_pq_.unheard_of", "1")], 196_608),
        (196_610, vec![("_pq_.unheard_of", "1")], 196_610),
        (196_708, vec![("_pq_.unheard_of", "1")], 196_610),
    ] {
        let named = !options.is_empty();
        let mut client = raw::Client::connect(pooler.address()).unwrap();
        let parameters = [vec![("user", "app"), ("database", DATABASE)], options].concat();
        client.send(&raw::startup(version, &parameters)).unwrap();
        let message = client.read().unwrap();
        assert_eq!(message.tag, b'v', "NegotiateProtocolVersion first");
        // PostgreSQL answers with the whole number, libpq's older documentation with the minor part.
        assert!(message.body.starts_with(&spoken.to_be_bytes()), "{message:?}");
        assert_eq!(has(&message.body, "_pq_.unheard_of"), named);
        if cluster::shared().version() >= 18 {
            let mut direct = raw::Client::connect(cluster::shared().address()).unwrap();
            direct.send(&raw::startup(version, &parameters)).unwrap();
            assert_eq!(message, direct.read().unwrap(), "as PostgreSQL 18 answers");
        }
        assert_eq!(client.read().unwrap().tag, b'R', "and it goes on");
    }
}

#[test]
fn first_packets_that_are_none_are_refused() {
    let pooler = start();
    let startup = |body: &[u8]| packet(196_608, body);
    let cases: [(&str, Vec<u8>, &str); 8] = [
        ("protocol 2", packet(131_072, b"\0\0"), "unsupported frontend protocol 2.0"),
        ("protocol 9", packet(9 << 16, b"\0\0"), "unsupported frontend protocol 9.0"),
        ("no terminator", startup(b"user\0app\0"), "08P01"),
        ("bytes behind the terminator", startup(b"user\0app\0\0more"), "08P01"),
        ("no user", startup(b"database\0app\0\0"), "08P01"),
        ("too long", [&20_000u32.to_be_bytes()[..], &[0; 20_000]].concat(), "08P01"),
        ("too short", vec![0, 0, 0, 3], "08P01"),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "08P01"),
    ];
    for (what, bytes, text) in cases {
        let answer = shout(&pooler, &bytes);
        assert!(answer.first() == Some(&b'E') && has(&answer, text), "{what}: {}", answer.escape_ascii());
    }
    for half in [&b""[..], b"\0\0", b"\0\0\0\x20\0\x03\0\0user"] {
        assert_eq!(shout(&pooler, half), b"", "nothing to say to half a packet");
    }
}

/// Frames of a logged-in client that PostgreSQL would refuse end the session with an error, and the server is kept.
#[test]
fn frames_that_are_none_end_the_session_alone() {
    let pooler = start();
    let mut other = pooler.client("app");
    for bytes in [
        vec![b'Q', 0, 0, 0, 0],
        vec![b'Q', 0, 0, 0, 3],
        vec![b'Q', 0xff, 0xff, 0xff, 0xff],
        vec![b'Q', 0x7f, 0xff, 0xff, 0xff],
        vec![b'?', 0, 0, 0, 4],
        vec![0, 0, 0, 0, 0],
        raw::frame(b'p', b"password"),
        raw::frame(b'B', b"no terminators"),
        raw::frame(b'D', b"X\0"),
        raw::frame(b'E', b"no terminator"),
        raw::frame(b'P', b"name\0SELECT 1\0\0\x05"),
    ] {
        for in_transaction in [false, true] {
            let mut client = pooler.client("app");
            if in_transaction {
                client.simple("BEGIN").unwrap();
            }
            client.send(&bytes).unwrap();
            client.half_close().unwrap();
            let messages = client.read_to_end().unwrap_or_default();
            assert!(messages.iter().filter(|m| m.tag == b'E').count() <= 1);
            assert!(
                messages.iter().all(|m| m.tag != b'E' || m.field(b'C').unwrap().starts_with("08")),
                "{}: {messages:?}",
                bytes.escape_ascii()
            );
        }
        assert_eq!(other.value("SELECT 'unharmed'"), "unharmed");
    }
}

#[test]
fn garbage_storms_harm_nobody_and_leak_nothing() {
    let mut pooler = start();
    let mut witness = pooler.client("app");
    assert_eq!(witness.value("SELECT 1"), "1");
    let before = descriptors(&pooler);
    std::thread::scope(|scope| {
        for number in 0..4u64 {
            let pooler = &pooler;
            scope.spawn(move || {
                let mut random = Random::new(seed() ^ number);
                for round in 0..120 {
                    let mut bytes: Vec<u8> = (0..random.below(400)).map(|_| random.next() as u8).collect();
                    match round % 4 {
                        // Random first packets, with a possible length half of the time.
                        0 | 1 => {
                            if round % 4 == 1 && bytes.len() > 8 {
                                let len = bytes.len() as u32;
                                bytes[..4].copy_from_slice(&len.to_be_bytes());
                                bytes[4..8].copy_from_slice(&196_608u32.to_be_bytes());
                            }
                            let mut stream = TcpStream::connect(pooler.address()).unwrap();
                            let _ = stream.write_all(&bytes);
                        }
                        // Random frames of a logged-in client: right lengths, any contents.
                        2 => {
                            let mut client = pooler.client("app");
                            for _ in 0..1 + random.below(6) {
                                let tag = b"QPBDECHSFdcf"[random.below(12) as usize];
                                let body: Vec<u8> = (0..random.below(60))
                                    .map(|_| if random.below(3) == 0 { 0 } else { random.next() as u8 })
                                    .collect();
                                let _ = client.send(&raw::frame(tag, &body));
                            }
                            let _ = client.send(&raw::sync());
                            if random.below(2) == 0 {
                                let _ = client.half_close();
                                let _ = client.read_to_end();
                            }
                        }
                        // Any bytes.
                        _ => {
                            let mut client = pooler.client("app");
                            let _ = client.send(&bytes);
                        }
                    }
                }
            });
        }
        for n in 0..100 {
            assert_eq!(witness.value(&format!("SELECT {n}")), n.to_string());
        }
    });
    assert!(pooler.running());
    assert!(
        !pooler.log().contains("pgsluice::panic") && !pooler.log().contains("internal error"),
        "a session panicked"
    );
    settles(&pooler, before);
    assert_eq!(pooler.client("app").value("SELECT 2"), "2");
}

/// Until as many descriptors are open as before, but for pooled servers.
fn settles(pooler: &Pooler, before: usize) {
    let mut now = 0;
    wait_for("descriptors to be closed", || {
        now = descriptors(pooler);
        (now <= before + 3).then_some(())
    });
}

#[test]
fn thousands_of_connects_that_never_log_in_leave_nothing() {
    let pooler = start();
    let mut witness = pooler.client("app");
    let before = descriptors(&pooler);
    let first = resident(&pooler);
    for round in 0..20 {
        let all: Vec<_> = (0..150)
            .map(|n| {
                let mut s = TcpStream::connect(pooler.address()).unwrap();
                if n % 2 == 0 {
                    let _ = s.write_all(&[0, 0]);
                }
                s
            })
            .collect();
        assert_eq!(witness.value(&format!("SELECT {round}")), round.to_string());
        drop(all);
    }
    settles(&pooler, before);
    assert!(resident(&pooler) < first + 8 * 1024 * 1024, "memory: {first} to {}", resident(&pooler));
}

fn resident(pooler: &Pooler) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{}/statm", pooler.pid())).unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Messages that do not end hold no server: the pool is not for those who send five bytes and wait.
#[test]
fn half_a_query_holds_no_server() {
    let pooler = Setup::url(cluster::shared(), "app")
        .env("PGSLUICE_POOL_SIZE", "1")
        .env("PGSLUICE_QUERY_WAIT_TIMEOUT", "5s")
        .start();
    let mut half = pooler.client("app");
    let query = raw::query("SELECT 'whole'");
    half.send(&query[..10]).unwrap();
    assert!(half.is_silent(Duration::from_millis(200)));
    assert_eq!(pooler.client("app").value("SELECT 1"), "1");
    half.send(&query[10..]).unwrap();
    assert_eq!(raw::text(&half.answer().unwrap()), "whole");
}
