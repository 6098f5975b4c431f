//! Users whom neither the configuration nor `auth_query` knows, let in by a real PostgreSQL with their own passwords
//! (`passthrough_auth`).
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use support::cluster::{Cluster, shared};
use support::pki::{Ca, client_config};
use support::pooler::{Pooler, Setup};
use support::proxy::{Direction, Fault, Proxy};
use support::{TempDir, raw, skip, wait_for};

/// What a password is; found in no other text.
const SECRET: &str = "pass-through-71";

const WRONG: &str = "FATAL 28P01 password authentication failed for user";

fn cluster() -> &'static Cluster {
    static READY: OnceLock<&Cluster> = OnceLock::new();
    READY.get_or_init(|| {
        let cluster = shared();
        cluster.psql(&format!(
            "CREATE ROLE jane LOGIN PASSWORD '{SECRET}'; CREATE ROLE joe LOGIN PASSWORD '{SECRET}';
             CREATE ROLE locked NOLOGIN PASSWORD '{SECRET}'; CREATE ROLE bare LOGIN;
             CREATE ROLE expired LOGIN PASSWORD '{SECRET}' VALID UNTIL '2020-01-01';"
        ));
        cluster
    })
}

/// `top` stands above all sections, `app` in that of the database.
fn toml(cluster: &Cluster, top: &str, app: &str) -> String {
    format!(
        "failed_login_delay = 0\npassthrough_auth = \"enabled\"\n{top}\n\
         [databases.app]\nhost = \"127.0.0.1\"\nport = {}\n{app}\n",
        cluster.port()
    )
}

/// A role of the test's own.
fn role(cluster: &Cluster, name: &str) {
    cluster.psql(&format!("CREATE ROLE {name} LOGIN PASSWORD '{SECRET}'"));
}

/// `ok`, or severity, SQLSTATE and message.
fn said<T>(login: Result<T, raw::Error>) -> String {
    match login {
        Err(raw::Error::Server { severity, code, message, .. }) => format!("{severity} {code} {message}"),
        Err(error) => panic!("{error}"),
        Ok(_) => "ok".to_owned(),
    }
}

fn told(pooler: &Pooler, user: &str, password: &str) -> String {
    said(pooler.try_client(user, password, "app"))
}

/// Logins that PostgreSQL has seen of a user, right or wrong.
fn attempts(cluster: &Cluster, user: &str) -> usize {
    let log = cluster.log();
    let right = log.matches(&format!("connection authorized: user={user} ")).count();
    right + log.matches(&format!("FATAL:  password authentication failed for user \"{user}\"")).count()
}

fn secret_free(pooler: &Pooler) {
    for secret in [SECRET, "guess-", "SCRAM-SHA-256$"] {
        assert!(!pooler.log().contains(secret), "{secret} in {}", pooler.log());
    }
}

#[test]
fn whom_postgresql_lets_in_is_let_in_as_herself() {
    let cluster = cluster();
    let pooler = Setup::toml(&toml(cluster, "admin_users = [\"jane\"]", "pool_size = 3")).start();
    for user in ["jane", "joe"] {
        let mut client = pooler.try_client(user, SECRET, "app").unwrap();
        assert_eq!(client.value("SELECT session_user"), user);
    }
    assert_eq!(told(&pooler, "jane", "guess-1"), format!("{WRONG} \"jane\""));
    assert_eq!(told(&pooler, "nobody_at_all", SECRET), format!("{WRONG} \"nobody_at_all\""));
    assert_eq!(told(&pooler, "bare", SECRET), format!("{WRONG} \"bare\""));
    assert_eq!(told(&pooler, "expired", SECRET), format!("{WRONG} \"expired\""));
    // In PostgreSQL's words, to who knows the password.
    assert_eq!(told(&pooler, "locked", SECRET), "FATAL 28000 role \"locked\" is not permitted to log in");
    assert_eq!(told(&pooler, "locked", "guess-1"), format!("{WRONG} \"locked\""));
    // An empty one, and one that is no text.
    assert_eq!(told(&pooler, "jane", ""), "FATAL 28P01 empty password returned by client");
    let mut client = raw::Client::connect(pooler.address()).unwrap();
    client.send_startup(&[("user", "jane"), ("database", "app")]).unwrap();
    assert_eq!(client.read().unwrap().body[..4], 3u32.to_be_bytes(), "in the clear");
    client.send_frame(b'p', b"\xff\xfe\0").unwrap();
    assert_eq!(said::<()>(Err(client.read().unwrap().to_error())), format!("{WRONG} \"jane\""));
    // The console is no database of PostgreSQL, nor is a name that is not configured.
    for database in ["pgsluice", "nowhere"] {
        assert_eq!(said(pooler.try_client("jane", SECRET, database)), format!("{WRONG} \"jane\""), "{database}");
    }
    secret_free(&pooler);
}

#[test]
fn the_login_that_was_tried_is_the_first_server_of_the_pool() {
    let cluster = cluster();
    role(cluster, "first");
    for mode in ["transaction", "session"] {
        let before = attempts(cluster, "first");
        let pooler = Setup::toml(&toml(cluster, "", &format!("pool_mode = \"{mode}\"\npool_size = 1"))).start();
        let mut client = pooler.try_client("first", SECRET, "app").unwrap();
        assert_eq!(client.value("SELECT 1"), "1");
        assert_eq!(attempts(cluster, "first"), before + 1, "{mode}: one login at PostgreSQL");
        drop(client);
        // The same password is known for a while.
        for _ in 0..3 {
            assert_eq!(pooler.try_client("first", SECRET, "app").unwrap().value("SELECT 1"), "1");
        }
        assert_eq!(attempts(cluster, "first"), before + 1, "{mode}: the same password is not tried again");
    }
}

#[test]
fn more_servers_are_opened_with_what_was_proved() {
    let cluster = cluster();
    // By SCRAM, MD5, and in the clear: the users of the cluster.
    for (user, password) in [("jane", SECRET), ("md5user", "secret"), ("plainuser", "secret")] {
        let pooler = Setup::toml(&toml(cluster, "", "pool_size = 3")).start();
        assert!(told(&pooler, user, "guess-1").starts_with(WRONG), "{user}");
        let mut held: Vec<raw::Client> = (0..3)
            .map(|_| {
                let mut client = pooler.try_client(user, password, "app").unwrap();
                client.simple("BEGIN").unwrap();
                client
            })
            .collect();
        for client in &mut held {
            assert_eq!(client.value("SELECT session_user"), user);
        }
        assert!(told(&pooler, user, "guess-1").starts_with(WRONG), "{user}");
        secret_free(&pooler);
    }
}

#[test]
fn a_server_that_asks_for_no_password_lets_nobody_in() {
    let cluster = cluster();
    let pooler = Setup::toml(&toml(cluster, "", "")).start();
    // `trust` in the cluster's pg_hba.conf: whatever is sent would do.
    for (user, password) in [("postgres", "guess-1"), ("trustuser", "guess-2")] {
        assert_eq!(told(&pooler, user, password), format!("{WRONG} \"{user}\""));
    }
    let line = pooler.wait_for_log("without a password");
    assert!(line.contains("login refused"), "{line}");
    assert!(!pooler.metrics().contains("user=\"postgres\""), "no pool comes of it");
}

#[test]
fn a_password_that_changes_at_the_server() {
    let cluster = cluster();
    role(cluster, "changing");
    let pooler = Setup::toml(&toml(cluster, "auth_query_ttl = \"1h\"", "")).start();
    let mut session = pooler.try_client("changing", SECRET, "app").unwrap();
    assert_eq!(session.value("SELECT 1"), "1");
    cluster.psql("ALTER ROLE changing PASSWORD 'guess-new'");
    // The new one works at once, and from then on the old one does not.
    assert_eq!(told(&pooler, "changing", "guess-new"), "ok");
    assert_eq!(told(&pooler, "changing", SECRET), format!("{WRONG} \"changing\""));
    assert_eq!(session.value("SELECT session_user"), "changing", "sessions stay");
    // The next servers are logged in to with the new one.
    cluster.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'changing'");
    // Who is given one that is just ending hears of it, and comes again.
    let again = || pooler.try_client("changing", "guess-new", "app").ok()?.simple("SELECT session_user").ok();
    assert_eq!(raw::text(&wait_for("a server", again)).trim(), "changing");
    secret_free(&pooler);
}

#[test]
fn an_old_password_counts_until_its_time_is_over_or_a_server_refuses_it() {
    let cluster = cluster();
    role(cluster, "dropped");
    role(cluster, "always");
    let pooler = Setup::toml(&toml(cluster, "auth_query_ttl = \"1h\"", "")).start();
    assert_eq!(told(&pooler, "dropped", SECRET), "ok");
    cluster.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'dropped'");
    cluster.psql("DROP ROLE dropped");
    // Believed until a server of the pool is refused, and not after that.
    let wrong = format!("{WRONG} \"dropped\"");
    wait_for("the refusal of a server", || {
        if let Ok(mut client) = pooler.try_client("dropped", SECRET, "app") {
            let _ = client.simple("SELECT 1");
        }
        pooler.log().contains("cannot open a server connection").then_some(())
    });
    assert_eq!(told(&pooler, "dropped", SECRET), wrong);
    assert_eq!(told(&pooler, "dropped", SECRET), wrong);
    // Without a time every login is one at PostgreSQL.
    let pooler = Setup::toml(&toml(cluster, "auth_query_ttl = 0", "")).start();
    for n in 1..=3 {
        assert_eq!(told(&pooler, "always", SECRET), "ok");
        assert_eq!(attempts(cluster, "always"), n);
    }
}

#[test]
fn a_reload_has_everything_tried_again_and_makes_users_known() {
    let cluster = cluster();
    role(cluster, "reloaded");
    let dir = TempDir::new("passthrough");
    let list = dir.path().join("userlist.txt");
    fs::write(&list, "").unwrap();
    let top = format!("auth_query_ttl = \"1h\"\nauth_file = \"{}\"", list.display());
    let pooler = Setup::toml(&toml(cluster, &top, "")).start();
    let reload = |text: &str| {
        let count = || pooler.log().matches("users were read again").count();
        // By SIGHUP, or because the file has changed: whichever is first.
        fs::write(&list, text).unwrap();
        let before = count();
        pooler.signal("HUP");
        wait_for("the reload", || (count() > before).then_some(()));
    };
    assert_eq!(told(&pooler, "reloaded", SECRET), "ok");
    assert_eq!(attempts(cluster, "reloaded"), 1);
    cluster.psql("ALTER ROLE reloaded PASSWORD 'guess-new'");
    reload("\"other\" \"x\"\n");
    assert_eq!(told(&pooler, "reloaded", SECRET), format!("{WRONG} \"reloaded\""));
    // Known from now on: what PostgreSQL says counts no more.
    reload("\"reloaded\" \"known-by-now\"\n");
    assert_eq!(told(&pooler, "reloaded", "guess-new"), format!("{WRONG} \"reloaded\""));
    reload("\"third\" \"x\"\n");
    assert_eq!(told(&pooler, "reloaded", "guess-new"), "ok");
}

/// This machine's address beyond the loopback. No packet is sent.
fn own_address() -> Option<std::net::IpAddr> {
    let own = UdpSocket::bind("0.0.0.0:0").and_then(|s| s.connect("192.0.2.1:9").and_then(|()| s.local_addr()));
    own.ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback())
}

#[test]
fn without_tls_no_password_is_asked_for_beyond_the_loopback() {
    let cluster = cluster();
    let Some(own) = own_address() else { return skip("this machine has no address but the loopback") };
    let (ca, sockets) = (Ca::new(), TempDir::new("passthrough"));
    let pair = ca.server(&["localhost"]);
    let start = |mode: &str| {
        let own = format!("passthrough_auth = \"{mode}\"\n[users.other]\npassword = \"other\"");
        let text = toml(cluster, "", &own);
        Setup::toml(&text)
            .env("PGSLUICE_CLIENT_TLS_CERT_FILE", &pair.cert.display().to_string())
            .env("PGSLUICE_CLIENT_TLS_KEY_FILE", &pair.key.display().to_string())
            .env("PGSLUICE_LISTEN", &format!("0.0.0.0:{{port}},{}", sockets.path().display()))
            .start()
    };
    // What a client from there is asked for: 3 is the password, 10 is SCRAM.
    let asked = |client: &mut raw::Client| {
        client.send_startup(&[("user", "jane"), ("database", "app")]).unwrap();
        let message = client.read().unwrap();
        (message.tag, u32::from_be_bytes(message.body[..4].try_into().unwrap()))
    };
    let pooler = start("enabled");
    let from_there = SocketAddr::new(own, pooler.port());
    assert_eq!(asked(&mut raw::Client::connect(from_there).unwrap()), (b'R', 10));
    assert_eq!(said(raw::Client::open(from_there, "jane", SECRET, "app")), format!("{WRONG} \"jane\""));
    pooler.wait_for_log("takes passwords only with TLS");
    let config = client_config(Some(&ca.file()), None, &[b"postgresql"]);
    let mut client = raw::Client::connect_tls(from_there, &config, "localhost").unwrap();
    client.login("jane", SECRET, "app").unwrap();
    assert_eq!(client.value("SELECT session_user"), "jane");
    assert_eq!(told(&pooler, "jane", SECRET), "ok", "the loopback");
    let unix = sockets.path().join(format!(".s.PGSQL.{}", pooler.port()));
    raw::Client::connect_unix(&unix).unwrap().login("jane", SECRET, "app").unwrap();
    drop(pooler);
    let pooler = start("enabled_plain");
    let from_there = SocketAddr::new(own, pooler.port());
    assert_eq!(asked(&mut raw::Client::connect(from_there).unwrap()), (b'R', 3));
    assert_eq!(said(raw::Client::open(from_there, "jane", SECRET, "app")), "ok");
    pooler.wait_for_log("passthrough_auth = \"enabled_plain\"");
    let pooler = start("disabled");
    assert_eq!(asked(&mut raw::Client::connect(pooler.address()).unwrap()), (b'R', 10));
    assert_eq!(told(&pooler, "jane", SECRET), format!("{WRONG} \"jane\""));
}

#[test]
fn known_users_are_never_passed_through() {
    let cluster = cluster();
    role(cluster, "known");
    cluster.psql("CREATE ROLE asks SUPERUSER LOGIN PASSWORD 'secret'; ALTER ROLE joe PASSWORD 'pass-through-71'");
    for method in ["scram-sha-256", "md5", "plain"] {
        let top = format!("auth_type = \"{method}\"");
        let users = "[users.known]\npassword = \"of-the-pooler\"\n[users.expired]\n";
        let pooler = Setup::toml(&toml(cluster, &top, users)).start();
        // PostgreSQL would take this one.
        assert_eq!(told(&pooler, "known", SECRET), format!("{WRONG} \"known\""), "{method}");
        assert_eq!(told(&pooler, "expired", SECRET), format!("{WRONG} \"expired\""), "{method}");
        assert_eq!(told(&pooler, "joe", SECRET), "ok", "{method}");
    }
    assert_eq!(attempts(cluster, "known"), 0);
    // With auth_query: who is found is asked for SCRAM; who has expired is known.
    let top = "auth_user = \"asks\"";
    let pooler = Setup::toml(&toml(cluster, top, "[users.asks]\npassword = \"secret\"\n")).start();
    let mut client = raw::Client::connect(pooler.address()).unwrap();
    client.send_startup(&[("user", "joe"), ("database", "app")]).unwrap();
    assert_eq!(client.read().unwrap().body[..4], 10u32.to_be_bytes());
    assert_eq!(told(&pooler, "joe", SECRET), "ok");
    // NOLOGIN: not found, and PostgreSQL says itself why not.
    assert_eq!(told(&pooler, "locked", SECRET), "FATAL 28000 role \"locked\" is not permitted to log in");
}

#[test]
fn rules_decide_first() {
    let cluster = cluster();
    let dir = TempDir::new("passthrough");
    let rules = dir.path().join("hba.conf");
    let text = "host app jane all reject\nhost app joe all password\nhost app md5user all scram-sha-256\n\
                host app plainuser all md5\nhost app trustuser all trust\n";
    fs::write(&rules, text).unwrap();
    let top = format!("auth_type = \"hba\"\nauth_hba_file = \"{}\"", rules.display());
    let pooler = Setup::toml(&toml(cluster, &top, "")).start();
    assert!(told(&pooler, "jane", SECRET).starts_with("FATAL 28000 pg_hba.conf rejects connection"));
    assert_eq!(told(&pooler, "joe", SECRET), "ok");
    assert_eq!(told(&pooler, "joe", "guess-1"), format!("{WRONG} \"joe\""));
    // These lines promise that no password is sent in the clear; PostgreSQL would take them.
    for user in ["md5user", "plainuser"] {
        assert_eq!(told(&pooler, user, "secret"), format!("{WRONG} \"{user}\""), "{user}");
    }
    assert!(told(&pooler, "trustuser", "").contains("is not known to pgsluice"));
    assert!(told(&pooler, "bare", SECRET).starts_with("FATAL 28000 no pg_hba.conf entry"));
}

#[test]
fn rules_of_postgresql_are_told_to_the_log_only_and_limits_to_all() {
    let dir = TempDir::new("passthrough");
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let rules = dir.path().join("pg_hba.conf");
    fs::write(&rules, "local all postgres trust\nhost all postgres all trust\nhost all late all scram-sha-256\n")
        .unwrap();
    let own = Cluster::start(&[&format!("hba_file={}", rules.display())]);
    own.psql(&format!(
        "CREATE ROLE jane LOGIN PASSWORD '{SECRET}'; CREATE ROLE late LOGIN PASSWORD '{SECRET}' CONNECTION LIMIT 0"
    ));
    let pooler = Setup::toml(&toml(&own, "", "")).start();
    // Before a password is sent PostgreSQL speaks of pgsluice's address.
    assert_eq!(told(&pooler, "jane", SECRET), format!("{WRONG} \"jane\""));
    assert!(pooler.wait_for_log("login refused").contains("no pg_hba.conf entry"));
    assert_eq!(told(&pooler, "late", SECRET), "FATAL 53300 too many connections for role \"late\"");
    own.stop();
    let away = told(&pooler, "jane", SECRET);
    assert!(away.starts_with("FATAL 57P03 pgsluice cannot reach the database"), "{away}");
    assert!(!away.contains("127.0.0.1"), "{away}");
}

#[test]
fn guesses_are_tried_at_postgresql_and_delayed() {
    let cluster = cluster();
    role(cluster, "guessed");
    let text = toml(cluster, "", "").replace("failed_login_delay = 0", "failed_login_delay = \"300ms\"");
    let pooler = Setup::toml(&text).start();
    thread::scope(|scope| {
        for thread in 0..12 {
            let pooler = &pooler;
            scope.spawn(move || {
                assert_eq!(told(pooler, "guessed", &format!("guess-{thread}")), format!("{WRONG} \"guessed\""));
            });
        }
    });
    assert_eq!(attempts(cluster, "guessed"), 12, "each guess is one login at PostgreSQL");
    let delayed = pooler.metric("pgsluice_client_login_delays_total", &["password=\"wrong\""]);
    assert_eq!(delayed, 7.0, "all but the free ones");
    assert!(!pooler.metrics().contains("user=\"guessed\""), "no pool comes of guesses");
    assert_eq!(told(&pooler, "guessed", SECRET), "ok");
    secret_free(&pooler);
}

#[test]
fn only_a_few_passwords_are_tried_at_once() {
    // A server that takes connections and says nothing, until it is told to hang up on all of them.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let held: Arc<Mutex<Option<Vec<TcpStream>>>> = Arc::new(Mutex::new(Some(Vec::new())));
    let accepted = Arc::clone(&held);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if let Some(held) = accepted.lock().unwrap().as_mut() {
                held.push(stream);
            }
        }
    });
    let count = || held.lock().unwrap().as_ref().map_or(0, Vec::len);
    // With one known user a server would be opened for her at the start.
    let text = format!(
        "passthrough_auth = \"enabled\"\nadmin_users = [\"known\"]\n[users.known]\npassword = \"known\"\n\
         [users.other]\npassword = \"other\"\n\
         [databases.app]\nhost = \"127.0.0.1\"\nport = {port}\nserver_connect_timeout = \"1min\"\n"
    );
    let pooler = Setup::toml(&text).start();
    let mut clients: Vec<raw::Client> = (0..12)
        .map(|n| {
            let mut client = raw::Client::connect(pooler.address()).unwrap();
            client.send_startup(&[("user", &format!("user{n}")), ("database", "app")]).unwrap();
            assert_eq!(client.read().unwrap().body[..4], 3u32.to_be_bytes());
            client.send_frame(b'p', b"guess\0").unwrap();
            client
        })
        .collect();
    wait_for("the first of them", || (count() >= 4).then_some(()));
    // The worker has read all that was sent before this, and done what came of it.
    for _ in 0..3 {
        let mut console = pooler.try_client("known", "known", "pgsluice").unwrap();
        assert!(!console.simple("SHOW VERSION").unwrap().is_empty());
    }
    assert_eq!(count(), 4);
    // The others have their turn then.
    drop(held.lock().unwrap().take());
    for client in &mut clients {
        assert_eq!(client.read().unwrap().to_error().code(), "57P03");
    }
}

/// Through a proxy that tells how many logins are under way.
fn proxied(top: &str, app: &str) -> (Proxy, String) {
    let proxy = Proxy::start(cluster().address(), 1);
    let text = format!(
        "passthrough_auth = \"enabled\"\nadmin_users = [\"known\"]\n{top}\n\
         [users.known]\npassword = \"known\"\n[users.other]\npassword = \"other\"\n\
         [databases.app]\nhost = \"127.0.0.1\"\nport = {}\nserver_connect_timeout = \"1min\"\n{app}\n",
        proxy.address().port()
    );
    (proxy, text)
}

/// One that has sent a password and waits.
fn asking(mut client: raw::Client, user: &str, password: &str) -> raw::Client {
    client.send_startup(&[("user", user), ("database", "app")]).unwrap();
    assert_eq!(client.read().unwrap().body[..4], 3u32.to_be_bytes());
    client.send_frame(b'p', format!("{password}\0").as_bytes()).unwrap();
    client
}

#[test]
fn who_hangs_up_leaves_the_turn_to_others() {
    let (proxy, text) = proxied("failed_login_delay = 0\nworkers = 1", "");
    let pooler = Setup::toml(&text).start();
    proxy.set(Direction::ToClient, Fault::Stall);
    let mut clients: Vec<raw::Client> =
        (0..8).map(|_| asking(raw::Client::connect(pooler.address()).unwrap(), "jane", "guess-n")).collect();
    wait_for("the first of them", || (proxy.accepted() >= 4).then_some(()));
    // Those that wait; the worker has seen it when it has answered a login that came after.
    clients.truncate(4);
    drop(pooler.try_client("known", "known", "pgsluice").unwrap());
    drop(clients);
    let mut next = asking(raw::Client::connect(pooler.address()).unwrap(), "jane", SECRET);
    wait_for("a turn", || (proxy.accepted() > 4).then_some(()));
    proxy.heal();
    assert_eq!(next.read().unwrap().body[..4], 0u32.to_be_bytes(), "let in");
    assert_eq!(proxy.accepted(), 5, "those that left cost PostgreSQL nothing");
}

#[test]
fn an_address_that_guesses_has_one_turn() {
    let (proxy, text) = proxied("failed_login_delay = \"300ms\"\nworkers = 1", "");
    let pooler = Setup::toml(&text).start();
    let from = |n: u8| {
        let source = SocketAddr::from(([127, 0, 0, n], 0));
        asking(raw::Client::connect_from(source, pooler.address()).unwrap(), "jane", "guess-n")
    };
    for _ in 0..6 {
        for n in [1, 2] {
            assert_eq!(from(n).read().unwrap().to_error().code(), "28P01");
        }
    }
    wait_for("those logins to be over", || (proxy.open() == 0).then_some(()));
    proxy.set(Direction::ToClient, Fault::Stall);
    let before = proxy.accepted();
    let guessing: Vec<raw::Client> = (0..6).map(|_| from(1)).collect();
    // It waits as long, from later on: by then all of those have waited.
    let other = from(2);
    wait_for("the other's turn", || (proxy.accepted() >= before + 2).then_some(()));
    assert_eq!(proxy.accepted(), before + 2, "one of them, and the other");
    proxy.heal();
    for mut client in guessing.into_iter().chain([other]) {
        assert_eq!(client.read().unwrap().to_error().code(), "28P01");
    }
    assert_eq!(proxy.accepted(), before + 7);
}

#[test]
fn no_name_forges_a_line_of_the_log() {
    let cluster = cluster();
    let pooler = Setup::toml(&toml(cluster, "", "")).start();
    let name = "x\nforged line";
    assert_eq!(told(&pooler, name, "guess-1"), format!("{WRONG} \"{name}\""));
    let line = "login refused: PostgreSQL: password authentication failed for user \"x forged line\"";
    wait_for("the line of the log", || pooler.log().contains(line).then_some(()));
    assert!(!pooler.log().lines().any(|line| line.starts_with("forged")), "{}", pooler.log());
}

#[test]
fn a_proof_that_was_refused_is_not_tried_for_ever() {
    let cluster = cluster();
    role(cluster, "leaver");
    let pooler =
        Setup::toml(&toml(cluster, "auth_query_ttl = \"1h\"", "min_pool_size = 1\nserver_login_retry = \"50ms\""))
            .start();
    let mut session = pooler.try_client("leaver", SECRET, "app").unwrap();
    cluster.psql("ALTER ROLE leaver PASSWORD 'guess-new'");
    cluster.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'leaver'");
    let refused = || pooler.metric("pgsluice_server_connects_total", &["result=\"auth\""]);
    let error = wait_for("the refusal", || session.simple("SELECT 1").err().filter(|_| refused() > 0.0));
    assert!(error.to_string().contains("password"), "{error}");
    let tries = refused();
    // Ten times as long as it would wait to try again.
    cluster.psql("SELECT pg_sleep(0.5)");
    assert_eq!(refused(), tries);
    let error = session.simple("SELECT 1").unwrap_err();
    assert!(error.to_string().contains("password"), "{error}");
    assert_eq!(told(&pooler, "leaver", "guess-new"), "ok");
    wait_for("a server", || session.simple("SELECT 1").ok());
}

#[test]
fn a_right_password_is_right_where_the_role_has_no_room() {
    let cluster = cluster();
    cluster.psql(&format!("CREATE ROLE crowded LOGIN PASSWORD '{SECRET}' CONNECTION LIMIT 1"));
    let pooler = Setup::toml(&toml(cluster, "auth_query_ttl = 0", "pool_size = 1")).start();
    let mut first = pooler.try_client("crowded", SECRET, "app").unwrap();
    assert_eq!(first.value("SELECT 1"), "1");
    // The one server serves both.
    let mut second = pooler.try_client("crowded", SECRET, "app").unwrap();
    assert_eq!(second.value("SELECT 2"), "2");
    assert_eq!(told(&pooler, "crowded", "guess-1"), format!("{WRONG} \"crowded\""));
}

#[test]
fn replication_of_a_database_is_let_in_too() {
    let cluster = Cluster::start(&["wal_level=logical", "max_wal_senders=4"]);
    cluster.psql(&format!("CREATE ROLE streams REPLICATION LOGIN PASSWORD '{SECRET}'"));
    let pooler = Setup::toml(&toml(&cluster, "", "")).start();
    let login = |password: &str, kind: &str| {
        let mut client = raw::Client::connect(pooler.address()).unwrap();
        let parameters = [("user", "streams"), ("database", "app"), ("replication", kind)];
        client.login_with(password, &parameters).map(|()| client)
    };
    let mut client = login(SECRET, "database").unwrap();
    assert!(raw::text(&client.simple("IDENTIFY_SYSTEM").unwrap()).contains("app"));
    assert_eq!(said(login("guess-1", "database")), format!("{WRONG} \"streams\""));
    assert_eq!(said(login(SECRET, "true")), format!("{WRONG} \"streams\""));
}

#[test]
fn what_cannot_be_meant_is_warned_of() {
    let cluster = cluster();
    let log = |top: &str, app: &str, warning: &str| {
        let pooler = Setup::toml(&toml(cluster, top, app)).start();
        pooler.wait_for_log(warning);
        pooler
    };
    let pooler = log("", "user = \"app\"\npassword = \"secret\"", "passthrough_auth is not used for \"app\"");
    assert_eq!(told(&pooler, "jane", SECRET), format!("{WRONG} \"jane\""), "not to act as another user");
    log("auth_type = \"trust\"", "", "passthrough_auth is not used");
    let (_, said) = Setup::toml(&toml(cluster, "", "passthrough_auth = \"yes\"")).fails();
    assert!(said.contains("enabled_plain"), "{said}");
}
