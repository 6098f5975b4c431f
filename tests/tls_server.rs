//! TLS towards PostgreSQL: every mode, checks of the certificate, who falls back and who does not, cancel requests,
//! channel binding, servers that wait in the pool.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};

use support::cluster::{self, DATABASE, PASSWORD};
use support::pki::{Ca, Pair, client_config};
use support::pooler::{Pooler, Setup};
use support::proxy::{Direction, Fault, Proxy};
use support::secured::{configuration, secured, tls_mode};
use support::{Random, copy::copy_both_ways, raw, seed, skip, wait_for};

/// Whether the session's server has TLS, or the error.
fn has_tls(pooler: &Pooler, user: &str, database: &str) -> Result<bool, String> {
    let text = |error: raw::Error| error.to_string();
    let mut client = pooler.try_client(user, PASSWORD, database).map_err(text)?;
    let rows = client.simple("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").map_err(text)?;
    Ok(rows[0][0].as_deref() == Some("t"))
}

#[test]
fn every_mode_and_what_it_checks() {
    let Some(pg) = secured(|ca| ca.server(&["localhost"])) else { return };
    let (cluster, ca) = (&pg.cluster, &pg.ca);
    let other = Ca::new();
    let databases = [
        ("prefer", "localhost", tls_mode("prefer", None)),
        ("require", "localhost", tls_mode("require", None)),
        ("address", "127.0.0.1", tls_mode("require", None)),
        ("ca", "127.0.0.1", tls_mode("verify-ca", Some(ca))),
        ("full", "localhost", tls_mode("verify-full", Some(ca))),
        ("wrong_host", "127.0.0.1", tls_mode("verify-full", Some(ca))),
        ("wrong_ca", "localhost", tls_mode("verify-ca", Some(&other))),
        ("require_wrong_ca", "localhost", tls_mode("require", Some(&other))),
    ];
    let pooler = Setup::toml(&configuration(cluster.port(), &databases)).start();
    for database in ["prefer", "require", "address", "ca", "full"] {
        assert_eq!(has_tls(&pooler, "app", database), Ok(true), "{database}");
    }
    for (database, words) in [
        ("wrong_host", "the certificate does not name the host"),
        ("wrong_ca", "the certificate is signed by an unknown CA"),
        // As in libpq: where a CA is given it is looked at.
        ("require_wrong_ca", "the certificate is signed by an unknown CA"),
    ] {
        let error = has_tls(&pooler, "app", database).unwrap_err();
        assert!(error.contains(words), "{database}: {error}");
        let log = pooler.wait_for_log(words);
        assert!(log.contains("mend="), "what to do: {log}");
    }
}

#[test]
fn who_falls_back_and_who_does_not() {
    let Some(pg) = secured(|ca| ca.server(&["localhost"])) else { return };
    let cluster = &pg.cluster;
    let modes = ["disable", "allow", "prefer", "require"];
    let databases: Vec<_> = modes.iter().map(|mode| (*mode, "localhost", tls_mode(mode, None))).collect();
    let pooler = Setup::toml(&configuration(cluster.port(), &databases)).start();
    // hostssl: only with TLS.
    assert!(has_tls(&pooler, "app", "disable").unwrap_err().contains("no encryption"));
    for mode in ["allow", "prefer", "require"] {
        assert_eq!(has_tls(&pooler, "app", mode), Ok(true), "{mode}");
    }
    // hostnossl: only without.
    for mode in ["disable", "allow", "prefer"] {
        assert_eq!(has_tls(&pooler, "plainuser", mode), Ok(false), "{mode}");
    }
    let error = has_tls(&pooler, "plainuser", "require").unwrap_err();
    assert!(error.contains("SSL encryption"), "the server's own words: {error}");
}

#[test]
fn a_server_without_tls() {
    let cluster = cluster::shared();
    let modes = ["allow", "prefer", "require"];
    let databases: Vec<_> = modes.iter().map(|mode| (*mode, "127.0.0.1", tls_mode(mode, None))).collect();
    let bound = "server_channel_binding = \"require\"".to_owned();
    let mut databases = databases;
    databases.push(("bound", "127.0.0.1", bound));
    databases.push(("unix", cluster.socket_dir().to_str().unwrap(), tls_mode("require", None)));
    let pooler = Setup::toml(&configuration(cluster.port(), &databases)).start();
    for database in ["allow", "prefer", "unix"] {
        assert_eq!(has_tls(&pooler, "app", database), Ok(false), "{database}");
    }
    let error = has_tls(&pooler, "app", "require").unwrap_err();
    assert!(error.contains("server does not support SSL, but SSL was required"), "{error}");
    let error = has_tls(&pooler, "app", "bound").unwrap_err();
    assert!(error.contains("the connection has no TLS"), "{error}");
}

#[test]
fn expired_self_signed_and_named_by_common_name_only() {
    for (pair, works) in [
        ((|ca: &Ca| ca.expired(&["localhost"])) as fn(&Ca) -> Pair, Err("the certificate has expired")),
        (|ca| ca.common_name("localhost"), Ok(true)),
        (|ca| ca.common_name("elsewhere"), Err("the certificate does not name the host")),
    ] {
        let Some(pg) = secured(pair) else { return };
        let (cluster, ca) = (&pg.cluster, &pg.ca);
        let databases = [("full", "localhost", tls_mode("verify-full", Some(ca)))];
        let pooler = Setup::toml(&configuration(cluster.port(), &databases)).start();
        match (has_tls(&pooler, "app", "full"), works) {
            (got, Ok(works)) => assert_eq!(got, Ok(works)),
            (got, Err(words)) => assert!(got.as_ref().is_err_and(|e| e.contains(words)), "{words}: {got:?}"),
        }
    }
    // PostgreSQL's documentation makes server certificates that sign themselves; they are given as their own CA.
    let own = Mutex::new(None);
    let Some(pg) = secured(|ca| {
        let pair = ca.self_signed(&["localhost"]);
        *own.lock().unwrap() = Some(pair.clone());
        pair
    }) else {
        return;
    };
    let file = own.lock().unwrap().take().unwrap().cert;
    let cluster = &pg.cluster;
    let mode = format!("server_tls_mode = \"verify-full\"\nserver_tls_ca_file = \"{}\"", file.display());
    let pooler = Setup::toml(&configuration(cluster.port(), &[("full", "localhost", mode)])).start();
    assert_eq!(has_tls(&pooler, "app", "full"), Ok(true));
}

#[test]
fn the_url_says_it_as_libpq_does() {
    let Some(pg) = secured(|ca| ca.server(&["localhost"])) else { return };
    let (cluster, ca) = (&pg.cluster, &pg.ca);
    let client = ca.client("md5user");
    let url = |user: &str, parameters: &str| {
        let address = format!("postgres://{user}:{PASSWORD}@localhost:{}/{DATABASE}?{parameters}", cluster.port());
        Setup::default().env("DATABASE_URL", &address)
    };
    let roots = format!("sslrootcert={}", ca.file().display());
    let full = url("app", &format!("sslmode=verify-full&{roots}&channel_binding=require")).start();
    assert_eq!(has_tls(&full, "app", DATABASE), Ok(true), "with SCRAM-SHA-256-PLUS");
    assert!(has_tls(&url("app", "sslmode=disable").start(), "app", DATABASE).is_err());
    let own = format!("sslmode=require&sslcert={}&sslkey={}", client.cert.display(), client.key.display());
    assert_eq!(has_tls(&url("md5user", &own).start(), "md5user", DATABASE), Ok(true), "clientcert=verify-ca");
    let without = has_tls(&url("md5user", "sslmode=require").start(), "md5user", DATABASE).unwrap_err();
    assert!(without.contains("valid client certificate"), "{without}");
    let (status, log) = url("app", "sslmode=require&sslrootcert=system").fails();
    assert_eq!(status.code(), Some(78));
    assert!(log.contains("must be verify-full"), "{log}");
}

/// Passes on everything and keeps the first bytes that each connection sends to the server.
fn record(upstream: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let firsts: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let seen = Arc::clone(&firsts);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(upstream).unwrap();
            let seen = Arc::clone(&seen);
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let mut first = [0; 8];
                if from.read_exact(&mut first).is_ok() {
                    seen.lock().unwrap().push(first.to_vec());
                    let _ = to.write_all(&first);
                    let _ = std::io::copy(&mut from, &mut to);
                }
                let _ = to.shutdown(std::net::Shutdown::Write);
            });
            let (mut from, mut to) = (server, client);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    (address, firsts)
}

#[test]
fn cancel_requests_have_tls_when_the_session_has() {
    let Some(pg) = secured(|ca| ca.server(&["localhost"])) else { return };
    let (cluster, ca) = (&pg.cluster, &pg.ca);
    let (address, firsts) = record(cluster.address());
    let databases = [("app", "localhost", tls_mode("verify-full", Some(ca)))];
    let pair = Ca::new();
    let server = pair.server(&["localhost"]);
    let pooler = Setup::toml(&configuration(address.port(), &databases))
        .env("PGSLUICE_CLIENT_TLS_CERT_FILE", &server.cert.display().to_string())
        .env("PGSLUICE_CLIENT_TLS_KEY_FILE", &server.key.display().to_string())
        .start();
    let config = client_config(Some(&pair.file()), None, &[b"postgresql"]);
    let connect = || raw::Client::connect_tls(pooler.address(), &config, "localhost").unwrap();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND state = 'active' AND pid <> pg_backend_pid()";
    let mut before = 0;
    for (version, length) in [(3 << 16, 4), (3 << 16 | 2, 32)] {
        let mut client = connect();
        client.login_by(version, PASSWORD, &[("user", "app"), ("database", "app")]).unwrap();
        let key = client.key.clone().unwrap();
        assert_eq!(key.1.len(), length);
        client.send(&raw::query("SELECT pg_sleep(60)")).unwrap();
        wait_for("the query to run", || (cluster.psql(running) == "1").then_some(()));
        before = firsts.lock().unwrap().len();
        connect().send_cancel(&key).unwrap();
        match client.answer() {
            Err(error) => assert_eq!(error.code(), "57014"),
            Ok(rows) => panic!("not cancelled: {rows:?}"),
        }
        assert_eq!(client.value("SELECT 1"), "1");
    }
    let firsts = firsts.lock().unwrap();
    assert!(firsts.len() > before, "a connection for the cancel request");
    let request = [8u32.to_be_bytes(), 80_877_103u32.to_be_bytes()].concat();
    assert!(firsts.iter().all(|first| *first == request), "each begins with an SSLRequest");
}

#[test]
fn servers_wait_in_the_pool_and_their_end_is_seen() {
    let Some(pg) = secured(|ca| ca.server(&["localhost"])) else { return };
    let (cluster, ca) = (&pg.cluster, &pg.ca);
    let databases = [("app", "localhost", tls_mode("verify-full", Some(ca)))];
    let text = format!("admin_users = [\"plainuser\"]\n{}", configuration(cluster.port(), &databases));
    let pooler = Setup::toml(&text).start();
    let pid = || pooler.try_client("app", PASSWORD, "app").unwrap().value("SELECT pg_backend_pid()");
    let first = pid();
    // Session tickets came behind the handshake: the server is not taken for dead because of them.
    for _ in 0..20 {
        assert_eq!(pid(), first);
    }
    let mut console = pooler.try_client("plainuser", PASSWORD, "pgsluice").unwrap();
    let servers = console.simple("SHOW SERVERS").unwrap();
    assert!(servers[0][17].as_deref().unwrap().starts_with("TLSv1.3/TLS_"), "{servers:?}");
    cluster.kill_backend(first.parse().unwrap());
    wait_for("the backend to go", || (cluster.backends(DATABASE) == 0).then_some(()));
    assert_ne!(pid(), first, "no error in between");
    cluster.restart();
    assert_eq!(pooler.try_client("app", PASSWORD, "app").unwrap().value("SELECT 1"), "1");
}

#[test]
fn a_storm_with_tls_on_both_sides() {
    let Some(pg) = secured(|ca| ca.server(&["localhost"])) else { return };
    let (cluster, ca) = (&pg.cluster, &pg.ca);
    let databases = [("app", "localhost", format!("{}\npool_size = 3", tls_mode("verify-full", Some(ca))))];
    let own = ca.server(&["localhost"]);
    let pooler = Setup::toml(&configuration(cluster.port(), &databases))
        .env("PGSLUICE_CLIENT_TLS_CERT_FILE", &own.cert.display().to_string())
        .env("PGSLUICE_CLIENT_TLS_KEY_FILE", &own.key.display().to_string())
        .env("PGSLUICE_CLIENT_TLS_MODE", "require")
        .env("PGSLUICE_WORKERS", "2")
        .start();
    let config = client_config(Some(&ca.file()), None, &[b"postgresql"]);
    std::thread::scope(|scope| {
        for thread in 0..10u64 {
            let (pooler, config) = (&pooler, &config);
            scope.spawn(move || {
                let mut client = raw::Client::connect_tls(pooler.address(), config, "localhost").unwrap();
                client.login("app", PASSWORD, "app").unwrap();
                let mut random = Random::new(seed() ^ thread);
                for n in 0..150 {
                    let nonce = format!("{thread}/{n}/{}", "n".repeat(random.below(30_000) as usize));
                    let rows = client.extended("SELECT $1::text, repeat('z', 20000)", &[Some(&nonce)]).unwrap();
                    assert_eq!(rows[0][0].as_deref(), Some(nonce.as_str()));
                }
            });
        }
    });
}

#[test]
fn a_copy_with_tls_on_both_sides_in_pieces() {
    let Some(pg) = secured(|ca| ca.server(&["localhost"])) else { return };
    let (cluster, ca) = (&pg.cluster, &pg.ca);
    let proxy = Proxy::start(cluster.address(), seed());
    let databases = [("app", "localhost", tls_mode("verify-full", Some(ca)))];
    let own = ca.server(&["localhost"]);
    let pooler = Setup::toml(&configuration(proxy.address().port(), &databases))
        .env("PGSLUICE_CLIENT_TLS_CERT_FILE", &own.cert.display().to_string())
        .env("PGSLUICE_CLIENT_TLS_KEY_FILE", &own.key.display().to_string())
        .start();
    let config = client_config(Some(&ca.file()), None, &[b"postgresql"]);
    let mut client = raw::Client::connect_tls(pooler.address(), &config, "localhost").unwrap();
    client.login("app", PASSWORD, "app").unwrap();
    proxy.set(Direction::ToServer, Fault::Split(3_000));
    proxy.set(Direction::ToClient, Fault::Split(3_000));
    copy_both_ways(&mut client, 5_000);
}

/// A server that answers a request for TLS with these bytes; what it is sent behind them.
fn fake(answer: &'static [u8]) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
    let all = Arc::clone(&heard);
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 8];
            if client.read_exact(&mut request).is_err() {
                continue;
            }
            let _ = client.write_all(answer);
            let mut rest = Vec::new();
            let _ = client.set_read_timeout(Some(support::DEADLINE));
            let _ = client.read_to_end(&mut rest);
            all.lock().unwrap().extend(rest);
        }
    });
    (address, heard)
}

#[test]
fn an_attacker_between_gets_nothing() {
    let ca = Ca::new();
    for (answer, words) in [
        (&b"N"[..], "server does not support SSL, but SSL was required"),
        (b"X", "neither S nor N"),
        (b"E\0\0\0\x0cSFATAL\0\0", "answers a request for TLS with an error"),
        // CVE-2021-23222: an answer to the startup packet, put in before TLS begins.
        (b"SR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I", "what the peer sent is not TLS"),
    ] {
        let (address, heard) = fake(answer);
        let databases = [("app", "127.0.0.1", tls_mode("verify-full", Some(&ca)))];
        let pooler = Setup::toml(&configuration(address.port(), &databases)).start();
        let error = has_tls(&pooler, "app", "app").unwrap_err();
        assert!(error.contains(words), "{words}: {error}");
        let heard = heard.lock().unwrap();
        assert!(!heard.windows(4).any(|w| w == b"user"), "no startup packet in the clear: {heard:?}");
    }
}

/// A server that said N and then refuses the user is not asked again in the same way.
#[test]
fn without_tls_there_is_no_second_attempt_without_tls() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let firsts: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let seen = Arc::clone(&firsts);
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut first = [0; 8];
            client.read_exact(&mut first).unwrap();
            seen.lock().unwrap().push(first.to_vec());
            let _ = client.write_all(b"N");
            let _ = client.read(&mut [0; 1024]);
            let _ = client.write_all(b"E\0\0\0\x16SFATAL\0C28000\0Mno\0\0");
        }
    });
    let pooler = Setup::toml(&configuration(port, &[("app", "127.0.0.1", tls_mode("prefer", None))])).start();
    assert!(has_tls(&pooler, "app", "app").unwrap_err().contains("28000"));
    let request = [8u32.to_be_bytes(), 80_877_103u32.to_be_bytes()].concat();
    assert!(firsts.lock().unwrap().iter().all(|first| *first == request), "{firsts:?}");
}

/// pgsluice in front of pgsluice: TLS from the first byte on both.
#[test]
fn direct_tls_to_a_server_that_takes_it() {
    let cluster = cluster::shared();
    let ca = Ca::new();
    let own = ca.server(&["localhost"]);
    let behind = Setup::url(cluster, "app")
        .env("PGSLUICE_CLIENT_TLS_CERT_FILE", &own.cert.display().to_string())
        .env("PGSLUICE_CLIENT_TLS_KEY_FILE", &own.key.display().to_string())
        .env("PGSLUICE_CLIENT_TLS_MODE", "require")
        .start();
    let (address, firsts) = record(behind.address());
    let direct = format!(
        "{}\nserver_tls_direct = true\nserver_channel_binding = \"require\"",
        tls_mode("verify-full", Some(&ca))
    );
    let databases = [("app", "localhost", direct)];
    let pooler = Setup::toml(&configuration(address.port(), &databases)).start();
    let mut client = pooler.try_client("app", PASSWORD, "app").unwrap();
    assert_eq!(client.value("SELECT 42"), "42");
    assert!(firsts.lock().unwrap().iter().all(|first| first[0] == 0x16), "a handshake, not a request for one");
}

#[test]
fn the_files_for_servers_are_read_again() {
    let cluster = cluster::shared();
    let (ca, other) = (Ca::new(), Ca::new());
    let own = ca.server(&["localhost"]);
    let behind = Setup::url(cluster, "app")
        .env("PGSLUICE_CLIENT_TLS_CERT_FILE", &own.cert.display().to_string())
        .env("PGSLUICE_CLIENT_TLS_KEY_FILE", &own.key.display().to_string())
        .start();
    let databases = [("app", "localhost", tls_mode("verify-full", Some(&other)))];
    let pooler = Setup::toml(&configuration(behind.port(), &databases)).start();
    pooler.try_client("app", PASSWORD, "app").err().expect("the CA is not known");
    fs::copy(ca.file(), other.file()).unwrap();
    pooler.signal("HUP");
    pooler.wait_for_log("were read again");
    wait_for("a login", || pooler.try_client("app", PASSWORD, "app").ok());
}

/// A server at every address of this machine that asks for a password by `request`, and refuses it; how many logins it saw.
fn asking(request: &'static [u8]) -> (u16, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let logins = Arc::new(Mutex::new(0));
    let count = Arc::clone(&logins);
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut chunk = [0; 1024];
            // SSLRequest: no. Startup: the password, please. Password: wrong.
            for answer in [&b"N"[..], request, b"E\0\0\0\x16SFATAL\0C28P01\0Mno\0\0"] {
                if client.read(&mut chunk).unwrap_or(0) == 0 {
                    break;
                }
                let _ = client.write_all(answer);
            }
            *count.lock().unwrap() += 1;
        }
    });
    (port, logins)
}

#[test]
fn a_password_in_the_clear_or_hashed_over_a_network_is_told_once() {
    // No packet is sent: the kernel says which address of this machine it would send from.
    let own = UdpSocket::bind("0.0.0.0:0").and_then(|s| s.connect("192.0.2.1:9").and_then(|()| s.local_addr()));
    let Some(own) = own.ok().map(|a| a.ip()).filter(|ip| !ip.is_loopback()) else {
        return skip("this machine has no address but the loopback");
    };
    for (request, words) in [
        (&b"R\0\0\0\x08\0\0\0\x03"[..], "THE PASSWORD IS SENT IN THE CLEAR"),
        (b"R\0\0\0\x0c\0\0\0\x05salt", "THE PASSWORD IS SENT AS AN MD5 HASH"),
    ] {
        let (port, logins) = asking(request);
        let databases = [("app", own.to_string().leak() as &str, String::new())];
        let pooler = Setup::toml(&configuration(port, &databases)).start();
        pooler.try_client("app", PASSWORD, "app").err().expect("the server refuses");
        let line = pooler.wait_for_log(words);
        assert!(line.contains("server_tls_mode"), "{line}");
        wait_for("another attempt", || {
            let _ = pooler.try_client("app", PASSWORD, "app");
            (*logins.lock().unwrap() > 1).then_some(())
        });
        assert_eq!(pooler.log().matches("THE PASSWORD").count(), 1);
        assert!(!pooler.log().contains(PASSWORD));
        // On the machine itself nobody listens.
        let pooler = Setup::toml(&configuration(port, &[("app", "127.0.0.1", String::new())])).start();
        pooler.try_client("app", PASSWORD, "app").err().expect("the server refuses");
        assert!(!pooler.log().contains("THE PASSWORD"), "{}", pooler.log());
    }
}
