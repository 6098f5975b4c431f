//! TLS towards clients: every `sslmode` of libpq, TLS from the first byte, certificates of clients, channel binding,
//! certificates read again, and whether bytes stay what they were.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::process::Command;
use std::sync::Arc;

use support::cluster::{self, Cluster, DATABASE, PASSWORD};
use support::pki::{Ca, Pair, client_config};
use support::pooler::{Pooler, Setup};
use support::proxy::{Direction, Fault, Proxy};
use support::{Random, copy::copy_both_ways, raw, seed, skip, wait_for};

const ALPN: &[u8] = b"postgresql";

/// A pooler that shows `pair`.
fn pooler(cluster: &Cluster, pair: &Pair, mode: &str) -> Setup {
    Setup::url(cluster, "app")
        .env("PGSLUICE_CLIENT_TLS_CERT_FILE", &pair.cert.display().to_string())
        .env("PGSLUICE_CLIENT_TLS_KEY_FILE", &pair.key.display().to_string())
        .env("PGSLUICE_CLIENT_TLS_MODE", mode)
}

/// What psql says to one statement with these parameters of libpq: its output, or its complaint.
fn psql(cluster: &Cluster, address: std::net::SocketAddr, parameters: &str, sql: &str) -> Result<String, String> {
    let connection = format!(
        "host=localhost hostaddr=127.0.0.1 port={} user=app password={PASSWORD} dbname={DATABASE} {parameters}",
        address.port()
    );
    let output = Command::new(cluster.program("psql"))
        .args(["-XAtc", sql, &connection])
        .env("HOME", "/nonexistent")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// The `tls` column of the client that asks.
const OWN_TLS: &str = "SHOW CLIENTS";

fn own_tls(cluster: &Cluster, pooler: &Pooler, parameters: &str) -> String {
    let out = psql(cluster, pooler.address(), &format!("{parameters} dbname=pgsluice application_name=me"), OWN_TLS);
    let out = out.unwrap();
    let line = out.lines().find(|line| line.contains("|me|")).unwrap_or_else(|| panic!("{out}"));
    line.split('|').nth(17).unwrap().to_owned()
}

fn libpq_has_tls(cluster: &Cluster) -> bool {
    let able = cluster.has_tls();
    if !able {
        skip("this PostgreSQL's libpq was built without TLS");
    }
    able
}

#[test]
fn every_sslmode_of_libpq() {
    let cluster = cluster::shared();
    if !libpq_has_tls(cluster) {
        return;
    }
    let ca = Ca::new();
    let pair = ca.server(&["localhost"]);
    let offered = pooler(cluster, &pair, "prefer").start();
    let required = pooler(cluster, &pair, "require").start();
    let without = Setup::url(cluster, "app").start();
    let roots = format!("sslrootcert={}", ca.file().display());
    for mode in ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] {
        let parameters = format!("sslmode={mode} {roots}");
        let ask = |pooler: &Pooler| psql(cluster, pooler.address(), &parameters, "SELECT 42");
        assert_eq!(ask(&offered).as_deref(), Ok("42"), "{mode}");
        let encrypted = own_tls(cluster, &offered, &parameters);
        match mode {
            "disable" | "allow" => assert_eq!(encrypted, "", "{mode}"),
            _ => assert!(encrypted.starts_with("TLSv1.3/TLS_"), "{mode}: {encrypted}"),
        }
        match mode {
            "disable" => {
                let refused = ask(&required).unwrap_err();
                assert!(
                    refused.contains(
                        "no pg_hba.conf entry for host \"127.0.0.1\", user \"app\", database \"app\", no encryption"
                    ),
                    "{refused}"
                );
                assert!(refused.contains("sslmode=require"), "the mend: {refused}");
            }
            // allow: refused without, so libpq comes again with TLS.
            _ => assert_eq!(ask(&required).as_deref(), Ok("42"), "{mode}"),
        }
        match mode {
            "disable" | "allow" | "prefer" => assert_eq!(ask(&without).as_deref(), Ok("42"), "{mode}"),
            _ => assert!(ask(&without).unwrap_err().contains("server does not support SSL"), "{mode}"),
        }
    }
    let other = Ca::new();
    let unknown = format!("sslmode=verify-full sslrootcert={}", other.file().display());
    assert!(psql(cluster, offered.address(), &unknown, "SELECT 1").unwrap_err().contains("certificate verify failed"));
    let log = offered.wait_for_log("TLS with a client failed");
    assert!(log.contains("does not know the CA of our certificate") && log.contains("sslrootcert"), "{log}");
    let old = format!("sslmode=require ssl_max_protocol_version=TLSv1.2 {roots}");
    assert!(own_tls(cluster, &offered, &old).starts_with("TLSv1.2/TLS_ECDHE_"));
    let newer = pooler(cluster, &pair, "prefer").env("PGSLUICE_CLIENT_TLS_MIN_VERSION", "tlsv1.3").start();
    psql(cluster, newer.address(), &old, "SELECT 1").unwrap_err();
    newer.wait_for_log("no TLS version in common");
}

#[test]
fn channel_binding_is_there_for_who_requires_it() {
    let cluster = cluster::shared();
    if !libpq_has_tls(cluster) {
        return;
    }
    let ca = Ca::new();
    let pooler = pooler(cluster, &ca.server(&["localhost"]), "prefer").start();
    for version in ["TLSv1.2", "TLSv1.3"] {
        let bound = format!("sslmode=require channel_binding=require ssl_max_protocol_version={version}");
        assert_eq!(psql(cluster, pooler.address(), &bound, "SELECT 1").as_deref(), Ok("1"), "{version}");
    }
    let unbound = "sslmode=require channel_binding=disable";
    assert_eq!(psql(cluster, pooler.address(), unbound, "SELECT 1").as_deref(), Ok("1"));
    let plain = psql(cluster, pooler.address(), "sslmode=disable channel_binding=require", "SELECT 1").unwrap_err();
    assert!(plain.contains("channel binding required"), "{plain}");
}

#[test]
fn a_flag_that_says_the_offer_was_taken_away_is_refused() {
    let ca = Ca::new();
    let pooler = pooler(cluster::shared(), &ca.server(&["localhost"]), "prefer").start();
    let config = client_config(Some(&ca.file()), None, &[]);
    let mut client = raw::Client::connect_tls(pooler.address(), &config, "localhost").unwrap();
    client.send_startup(&[("user", "app"), ("database", DATABASE)]).unwrap();
    let offer = client.read().unwrap();
    assert_eq!(&offer.body[4..], b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
    let first = "y,,n=,r=abcdefghijklmnop";
    let body = [&b"SCRAM-SHA-256\0"[..], &(first.len() as u32).to_be_bytes(), first.as_bytes()].concat();
    client.send_frame(b'p', &body).unwrap();
    let answer = client.read().unwrap();
    assert_eq!(answer.field(b'C').as_deref(), Some("28000"));
    assert_eq!(answer.field(b'M').as_deref(), Some("SCRAM channel binding negotiation error"));
}

#[test]
fn tls_from_the_first_byte_names_its_protocol() {
    let ca = Ca::new();
    let pooler = pooler(cluster::shared(), &ca.server(&["localhost"]), "require").start();
    let direct = |alpn: &[&[u8]]| {
        let config = client_config(Some(&ca.file()), None, alpn);
        raw::Client::connect(pooler.address()).unwrap().encrypt(&config, "localhost")
    };
    let mut client = direct(&[ALPN]).unwrap();
    client.login("app", PASSWORD, DATABASE).unwrap();
    assert_eq!(client.value("SELECT 7"), "7");
    // Once TLS runs nothing more can be asked for.
    let mut twice = direct(&[ALPN]).unwrap();
    twice.send(&[8u32.to_be_bytes(), 80_877_103u32.to_be_bytes()].concat()).unwrap();
    assert_eq!(twice.read().unwrap().field(b'C').as_deref(), Some("08P01"));
    let refused = direct(&[b"http/1.1"]).err().expect("another protocol");
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    // A client that names none has its handshake, and then nothing.
    let unnamed = direct(&[]).and_then(|mut client| {
        client.send_startup(&[("user", "app"), ("database", DATABASE)])?;
        client.read()
    });
    assert!(unnamed.is_err(), "{unnamed:?}");
    pooler.wait_for_log("does not offer the protocol");
    // After an SSLRequest no name is asked for: older drivers send none.
    let config = client_config(Some(&ca.file()), None, &[]);
    let mut client = raw::Client::connect_tls(pooler.address(), &config, "localhost").unwrap();
    client.login("app", PASSWORD, DATABASE).unwrap();
}

/// CVE-2021-23214.
#[test]
fn bytes_behind_a_request_for_tls_are_refused() {
    let ca = Ca::new();
    let pooler = pooler(cluster::shared(), &ca.server(&["localhost"]), "prefer").start();
    let mut client = raw::Client::connect(pooler.address()).unwrap();
    let request = [8u32.to_be_bytes(), 80_877_103u32.to_be_bytes()].concat();
    client.send(&[request, raw::startup(196_608, &[("user", "app")])].concat()).unwrap();
    let answer = client.read().unwrap();
    assert_eq!(answer.tag, b'E', "no S before it");
    assert!(answer.field(b'M').unwrap().contains("received unencrypted data"), "{answer:?}");
}

#[test]
fn what_is_not_tls_harms_nobody() {
    let ca = Ca::new();
    let pooler = pooler(cluster::shared(), &ca.server(&["localhost"]), "prefer").start();
    let mut random = Random::new(seed());
    for round in 0..60 {
        let mut client = raw::Client::connect(pooler.address()).unwrap();
        if round % 2 == 0 {
            assert_eq!(client.ask_tls().unwrap(), b'S');
        }
        let mut noise: Vec<u8> = (0..random.below(400)).map(|_| random.next() as u8).collect();
        noise.insert(0, 0x16);
        let _ = client.send(&noise);
        let _ = client.half_close();
        let _ = client.read_to_end();
    }
    assert_eq!(pooler.client("app").value("SELECT 1"), "1");
    assert!(!pooler.log().contains("internal error"), "no panic");
}

#[test]
fn certificates_of_clients() {
    let cluster = cluster::shared();
    let (ca, other) = (Ca::new(), Ca::new());
    let pair = ca.server(&["localhost"]);
    for mode in ["verify-ca", "verify-full"] {
        let pooler =
            pooler(cluster, &pair, mode).env("PGSLUICE_CLIENT_TLS_CA_FILE", &ca.file().display().to_string()).start();
        let login = |own: Option<&Pair>| {
            let config = client_config(Some(&ca.file()), own, &[ALPN]);
            let mut client = raw::Client::connect_tls(pooler.address(), &config, "localhost")?;
            client.login("app", PASSWORD, DATABASE)?;
            Ok::<_, raw::Error>(client.value("SELECT 1"))
        };
        assert_eq!(login(Some(&ca.client("app"))).unwrap(), "1");
        login(None).unwrap_err();
        let log = pooler.wait_for_log("showed no certificate");
        assert!(log.contains("sslcert"), "the mend: {log}");
        login(Some(&other.client("app"))).unwrap_err();
        pooler.wait_for_log("signed by an unknown CA");
        login(Some(&ca.server(&["app"]))).unwrap_err();
        pooler.wait_for_log("not made for this side");
    }
}

#[test]
fn configurations_that_cannot_work_are_refused_at_start() {
    let cluster = cluster::shared();
    let ca = Ca::new();
    let (pair, other) = (ca.server(&["localhost"]), ca.server(&["localhost"]));
    let missing = Pair { cert: "/does/not/exist.pem".into(), key: pair.key.clone() };
    let mixed = Pair { cert: pair.cert.clone(), key: other.key };
    let swapped = Pair { cert: pair.key.clone(), key: pair.cert.clone() };
    for (setup, words) in [
        (pooler(cluster, &missing, "prefer"), "/does/not/exist.pem: cannot be read"),
        (pooler(cluster, &mixed, "prefer"), "the key does not belong to the certificate"),
        (pooler(cluster, &swapped, "prefer"), "no certificate in it"),
        (pooler(cluster, &pair, "verify-ca"), "needs `client_tls_ca_file`"),
        (Setup::url(cluster, "app").env("PGSLUICE_CLIENT_TLS_MODE", "require"), "needs `client_tls_cert_file`"),
        (Setup::url(cluster, "app").env("PGSLUICE_SERVER_TLS_MODE", "verify-full"), "needs `server_tls_ca_file`"),
    ] {
        let (status, log) = setup.fails();
        assert_eq!(status.code(), Some(78), "{log}");
        assert!(log.contains(words), "{words}: {log}");
    }
}

#[test]
fn unix_sockets_have_no_tls_and_need_none() {
    let ca = Ca::new();
    let dir = support::TempDir::new("unix");
    let listen = format!("127.0.0.1:{{port}},{}", dir.path().display());
    let setup = pooler(cluster::shared(), &ca.server(&["localhost"]), "require").env("PGSLUICE_LISTEN", &listen);
    let pooler = setup.start();
    // The file is there before anybody listens.
    let mut client = wait_for("the Unix socket", || {
        let file = std::fs::read_dir(dir.path()).unwrap().next()?.unwrap();
        raw::Client::connect_unix(&file.path()).ok()
    });
    assert_eq!(client.ask_tls().unwrap(), b'N');
    client.login("app", PASSWORD, DATABASE).unwrap();
    assert_eq!(client.value("SELECT 1"), "1");
    drop(pooler);
}

#[test]
fn certificates_are_read_again_without_dropping_anybody() {
    let (ca, other) = (Ca::new(), Ca::new());
    let pair = ca.server(&["localhost"]);
    let pooler = pooler(cluster::shared(), &pair, "require").start();
    let open = |ca: &Ca| {
        let config = client_config(Some(&ca.file()), None, &[ALPN]);
        let mut client = raw::Client::connect_tls(pooler.address(), &config, "localhost")?;
        client.login("app", PASSWORD, DATABASE)?;
        Ok::<_, raw::Error>(client)
    };
    let mut before = open(&ca).unwrap();
    pair.replace_by(&other.server(&["localhost"]));
    assert!(open(&ca).is_ok(), "nothing changes by itself");
    pooler.signal("HUP");
    pooler.wait_for_log("were read again");
    assert!(open(&ca).is_err(), "the old CA does not know the new certificate");
    let mut after = open(&other).unwrap();
    std::fs::write(&pair.key, "not a key").unwrap();
    pooler.signal("HUP");
    pooler.wait_for_log("cannot be used; the old ones stay in force");
    assert!(open(&other).is_ok());
    assert_eq!((before.value("SELECT 1"), after.value("SELECT 2")), ("1".to_owned(), "2".to_owned()));
}

#[test]
fn fifty_megabytes_pass_both_ways_unharmed() {
    let cluster = cluster::shared();
    let ca = Ca::new();
    let pooler = pooler(cluster, &ca.server(&["localhost"]), "require").start();
    let proxy = Proxy::start(pooler.address(), seed());
    proxy.set(Direction::ToServer, Fault::Split(40_000));
    proxy.set(Direction::ToClient, Fault::Split(40_000));
    let config = client_config(Some(&ca.file()), None, &[ALPN]);
    let mut client = raw::Client::connect_tls(proxy.address(), &config, "localhost").unwrap();
    client.login("app", PASSWORD, DATABASE).unwrap();
    copy_both_ways(&mut client, 50_000);
}

#[test]
fn a_client_that_leaves_the_line_is_noticed() {
    let ca = Ca::new();
    let setup = pooler(cluster::shared(), &ca.server(&["localhost"]), "require").env("PGSLUICE_POOL_SIZE", "1");
    let pooler = setup.start();
    let config = client_config(Some(&ca.file()), None, &[ALPN]);
    let open = || {
        let mut client = raw::Client::connect_tls(pooler.address(), &config, "localhost").unwrap();
        client.login("app", PASSWORD, DATABASE).unwrap();
        client
    };
    let (mut holder, mut waiting) = (open(), open());
    holder.simple("BEGIN").unwrap();
    waiting.send(&raw::query("SELECT 1")).unwrap();
    let in_line = |n: f64| {
        wait_for(&format!("{n} clients in line"), || {
            (pooler.metric("pgsluice_pool_waiting_clients", &[]) == n).then_some(())
        });
    };
    in_line(1.0);
    drop(waiting);
    in_line(0.0);
    holder.simple("COMMIT").unwrap();
}

#[test]
fn messages_cut_into_single_bytes() {
    let cluster = cluster::shared();
    let ca = Ca::new();
    let pooler = pooler(cluster, &ca.server(&["localhost"]), "require").start();
    let proxy = Proxy::start(pooler.address(), seed());
    proxy.set(Direction::ToServer, Fault::Split(3));
    proxy.set(Direction::ToClient, Fault::Split(3));
    let config = client_config(Some(&ca.file()), None, &[ALPN]);
    let mut client = raw::Client::connect_tls(proxy.address(), &config, "localhost").unwrap();
    client.login("app", PASSWORD, DATABASE).unwrap();
    for n in 0..20 {
        let text = format!("nonce-{n}");
        let rows = client.extended("SELECT $1::text, repeat('x', 100)", &[Some(&text)]).unwrap();
        assert_eq!(rows[0][0].as_deref(), Some(text.as_str()));
    }
}

/// Everybody gets the answers to their own questions, with and without TLS, over few servers and two workers.
#[test]
fn a_storm_of_queries_keeps_answers_apart() {
    let cluster = cluster::shared();
    let ca = Ca::new();
    let pooler = pooler(cluster, &ca.server(&["localhost"]), "prefer")
        .env("PGSLUICE_POOL_SIZE", "4")
        .env("PGSLUICE_WORKERS", "2")
        .start();
    let config = client_config(Some(&ca.file()), None, &[ALPN]);
    std::thread::scope(|scope| {
        for thread in 0..12u64 {
            let (pooler, config) = (&pooler, &config);
            scope.spawn(move || {
                let mut client = match thread % 3 {
                    0 => raw::Client::connect(pooler.address()).unwrap(),
                    1 => raw::Client::connect(pooler.address()).unwrap().encrypt(config, "localhost").unwrap(),
                    _ => raw::Client::connect_tls(pooler.address(), config, "localhost").unwrap(),
                };
                client.login("app", PASSWORD, DATABASE).unwrap();
                let mut random = Random::new(seed() ^ thread);
                for n in 0..150 {
                    let nonce = format!("{thread}/{n}/{}", random.next());
                    let size = random.below(40_000);
                    let sql = "SELECT $1::text, repeat('z', $2::int)";
                    let rows = client.extended(sql, &[Some(&nonce), Some(&size.to_string())]).unwrap();
                    assert_eq!(rows[0][0].as_deref(), Some(nonce.as_str()));
                    assert_eq!(rows[0][1].as_ref().unwrap().len() as u64, size);
                    // Several requests in one record, answers in several.
                    let both = [raw::query(&format!("SELECT '{nonce}a'")), raw::query(&format!("SELECT '{nonce}b'"))];
                    client.send(&both.concat()).unwrap();
                    for end in ["a", "b"] {
                        let rows = client.answer().unwrap();
                        assert_eq!(rows[0][0].as_deref(), Some(format!("{nonce}{end}").as_str()));
                    }
                }
            });
        }
    });
}

/// A client that does not read holds its server back, and the pooler's memory stays what it was.
#[test]
fn a_client_that_does_not_read_costs_no_memory() {
    let ca = Ca::new();
    let pooler = pooler(cluster::shared(), &ca.server(&["localhost"]), "require").start();
    let config = client_config(Some(&ca.file()), None, &[ALPN]);
    let mut client = raw::Client::connect_tls(pooler.address(), &config, "localhost").unwrap();
    client.login("app", PASSWORD, DATABASE).unwrap();
    assert_eq!(client.value("SELECT 1"), "1");
    let before = resident(&pooler);
    client.send(&raw::query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)")).unwrap();
    let sent = || pooler.metric("pgsluice_pool_sent_bytes_total", &[]);
    let (mut last, mut still) = (sent(), 0);
    wait_for("the pooler to be held back", || {
        let now = sent();
        still = if now > last { 0 } else { still + 1 };
        last = now;
        (now > 100_000.0 && still > 20).then_some(())
    });
    assert!(last < 50_000_000.0, "{last} bytes went to a client that does not read");
    let grown = resident(&pooler).saturating_sub(before);
    assert!(grown < 8 << 20, "grew by {grown} bytes while 100 MB wait");
    assert_eq!(client.answer().unwrap().len(), 100_000);
}

/// Resident bytes of the pooler.
fn resident(pooler: &Pooler) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pooler.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn an_idle_client_with_tls_costs_a_few_kilobytes() {
    const CLIENTS: usize = 200;
    let ca = Ca::new();
    let setup = pooler(cluster::shared(), &ca.server(&["localhost"]), "prefer");
    let pooler = setup.env("PGSLUICE_AUTH_TYPE", "trust").start();
    let config = client_config(Some(&ca.file()), None, &[ALPN]);
    let open = |tls: bool| {
        let mut client = match tls {
            true => raw::Client::connect(pooler.address()).unwrap().encrypt(&config, "localhost").unwrap(),
            false => raw::Client::connect(pooler.address()).unwrap(),
        };
        client.login("app", PASSWORD, DATABASE).unwrap();
        assert_eq!(client.value("SELECT 1"), "1");
        client
    };
    let grows = |tls: bool| {
        // What the first ones take is there for all.
        let first: Vec<_> = (0..20).map(|_| open(tls)).collect();
        let before = resident(&pooler);
        let clients: Vec<_> = (0..CLIENTS).map(|_| open(tls)).collect();
        let grown = resident(&pooler).saturating_sub(before) / CLIENTS;
        drop((first, clients));
        grown
    };
    let plain = grows(false);
    let tls = grows(true);
    println!("an idle client: {plain} bytes without TLS, {tls} with");
    assert!(tls < 12 << 10, "{tls} bytes a client");
}

/// The pooler says goodbye by TLS: a client can tell an end from a cut.
#[test]
fn the_end_is_said() {
    let ca = Ca::new();
    let mut pooler = pooler(cluster::shared(), &ca.server(&["localhost"]), "prefer").start();
    let config: Arc<_> = client_config(Some(&ca.file()), None, &[ALPN]);
    let mut client = raw::Client::connect_tls(pooler.address(), &config, "localhost").unwrap();
    client.login("app", PASSWORD, DATABASE).unwrap();
    pooler.signal("TERM");
    assert_eq!(client.read().unwrap().field(b'C').as_deref(), Some("57P01"));
    let end = client.read().unwrap_err().to_string();
    assert!(!end.contains("close_notify"), "rustls complains of a missing one: {end}");
    assert!(pooler.wait().success());
}
