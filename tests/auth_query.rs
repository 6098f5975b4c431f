//! Users whom the configuration does not know: looked up in a real PostgreSQL, and logged in to it with what they proved.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use support::cluster::{Cluster, PASSWORD, shared};
use support::pooler::{Pooler, Setup};
use support::proxy::Proxy;
use support::secured::{secured, tls_mode};
use support::{raw, seed, wait_for};

/// Secret of the user who asks.
const ASKING: &str = "hush-hush-42";

/// What a test needs in a cluster: `asking`, who may call a function that counts who was asked for.
const ROLES: &str = "\
CREATE ROLE asking LOGIN PASSWORD 'hush-hush-42';
CREATE TABLE asked (name text, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION user_lookup(i text, OUT uname text, OUT secret text) VOLATILE SECURITY DEFINER LANGUAGE sql AS $$
  INSERT INTO asked VALUES (i);
  SELECT rolname::text, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END
    FROM pg_authid WHERE rolname = i AND rolcanlogin $$;
REVOKE EXECUTE ON FUNCTION user_lookup FROM public;
GRANT EXECUTE ON FUNCTION user_lookup TO asking;
CREATE ROLE jane LOGIN PASSWORD 'secret';
CREATE ROLE joe LOGIN PASSWORD 'secret';
CREATE ROLE expired LOGIN PASSWORD 'secret' VALID UNTIL '2020-01-01';
CREATE ROLE later LOGIN PASSWORD 'secret' VALID UNTIL '2120-01-01';
CREATE ROLE locked NOLOGIN PASSWORD 'secret';
CREATE ROLE bare LOGIN;
CREATE ROLE costly LOGIN PASSWORD '\
SCRAM-SHA-256$2000000:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=';
";

fn cluster() -> &'static Cluster {
    static READY: OnceLock<&Cluster> = OnceLock::new();
    READY.get_or_init(|| prepared(shared()))
}

fn prepared<T: std::ops::Deref<Target = Cluster>>(cluster: T) -> T {
    cluster.psql(ROLES);
    cluster
}

/// The function is asked by `asking`; `top` stands above all sections, `app` in that of the database.
fn toml(cluster: &Cluster, top: &str, app: &str) -> String {
    format!(
        "failed_login_delay = 0\nauth_user = \"asking\"\nauth_query = \"SELECT uname, secret FROM user_lookup($1)\"\n{top}\n\
         [users.asking]\npassword = \"{ASKING}\"\n\
         [databases.app]\nhost = \"127.0.0.1\"\nport = {}\n{app}\n",
        cluster.port()
    )
}

fn asked(cluster: &Cluster, name: &str) -> usize {
    cluster.psql(&format!("SELECT count(*) FROM asked WHERE name = '{name}'")).parse().unwrap()
}

/// SQLSTATE and message of a login that must fail.
fn refusal(pooler: &Pooler, user: &str, password: &str, database: &str) -> String {
    match pooler.try_client(user, password, database) {
        Err(raw::Error::Server { severity, code, message, .. }) => format!("{severity} {code} {message}"),
        Err(error) => panic!("{user}: {error}"),
        Ok(_) => panic!("{user} was let in"),
    }
}

/// The pooler must never write these.
fn assert_secret_free(pooler: &Pooler) {
    let log = pooler.log();
    for secret in [ASKING, PASSWORD, "SCRAM-SHA-256$", "fresh-one", "freshest"] {
        // Names of settings hold the word as well.
        let found = log
            .lines()
            .find(|line| line.contains(&format!("\"{secret}")) || secret != PASSWORD && line.contains(secret));
        assert_eq!(found, None, "{secret} in the log");
    }
}

#[test]
fn users_of_the_database_log_in_as_themselves() {
    let cluster = cluster();
    // PgBouncer's query, by a superuser; nobody is known but by asking.
    let text = format!(
        "failed_login_delay = 0\nauth_user = \"postgres\"\nstats_users = [\"jane\"]\nauth_dbname = \"app\"\n\
         [databases.\"*\"]\nhost = \"127.0.0.1\"\nport = {}\n",
        cluster.port()
    );
    let pooler = Setup::toml(&text).start();
    for user in ["jane", "joe", "later", "app"] {
        assert_eq!(pooler.client(user).value("SELECT session_user"), user);
        let wrong = format!("FATAL 28P01 password authentication failed for user \"{user}\"");
        assert_eq!(refusal(&pooler, user, "wrong", "app"), wrong);
    }
    for user in ["expired", "locked", "bare", "nobody_at_all", "O'Neil \"x\"", &"long".repeat(40)] {
        let wrong = format!("FATAL 28P01 password authentication failed for user \"{user}\"");
        for password in ["secret", "wrong"] {
            assert_eq!(refusal(&pooler, user, password, "app"), wrong);
        }
    }
    // More iterations than are computed: what is kept of her password is not her password.
    let kept = kept(cluster, "costly");
    assert!(kept.starts_with("SCRAM-SHA-256$2000000:"), "{kept}");
    assert!(refusal(&pooler, "costly", &kept, "app").starts_with("FATAL 28P01 password authentication failed"));
    // The console knows them by `auth_dbname`; who may use it is said elsewhere.
    let mut console = pooler.try_client("jane", PASSWORD, "pgsluice").unwrap();
    assert!(!console.simple("SHOW VERSION").unwrap().is_empty());
    for what in ["CONFIG", "USERS", "POOLS", "CLIENTS", "SERVERS", "DATABASES"] {
        let shown = raw::text(&console.simple(&format!("SHOW {what}")).unwrap());
        assert!(shown.contains("jane") || what == "CONFIG" || what == "DATABASES", "{what}: {shown}");
        assert!(!shown.contains("SCRAM-SHA-256$"), "{what}: {shown}");
    }
    assert!(refusal(&pooler, "joe", PASSWORD, "pgsluice").contains("may not use the console"));
    // An unknown database shows after a right password only.
    assert!(refusal(&pooler, "jane", "wrong", "nowhere").contains("28P01"));
    assert!(refusal(&pooler, "jane", PASSWORD, "nowhere").contains("3D000"));
    assert_secret_free(&pooler);
}

/// The messages of a login up to its refusal, without the user's name and what is random.
fn exchange(pooler: &Pooler, user: &str) -> Vec<String> {
    let mut client = raw::Client::connect(pooler.address()).unwrap();
    client.send_startup(&[("user", user), ("database", "app")]).unwrap();
    let mut seen = Vec::new();
    loop {
        let message = client.read().unwrap();
        let code = (message.tag == b'R').then(|| u32::from_be_bytes(message.body[..4].try_into().unwrap()));
        match code {
            None => {
                let error = [b'S', b'V', b'C', b'M', b'D', b'H'].map(|field| message.field(field).unwrap_or_default());
                seen.push(error.join("|").replace(user, "USER"));
                assert!(client.read_to_end().unwrap().is_empty());
                return seen;
            }
            Some(11) => {
                let text = String::from_utf8(message.body[4..].to_vec()).unwrap();
                let parts: Vec<&str> = text.split(',').collect();
                let (salt, rounds) = (parts[1].strip_prefix("s=").unwrap(), parts[2]);
                seen.push(format!("continue {} {} {rounds}", parts[0].len(), salt.len()));
                let nonce = parts[0];
                let proof = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [7; 32]);
                client.send_frame(b'p', format!("c=biws,{nonce},p={proof}").as_bytes()).unwrap();
            }
            Some(10) => {
                seen.push(String::from_utf8_lossy(&message.body).into_owned());
                let first = "n,,n=,r=abcdefghijklmnop";
                let body = [&b"SCRAM-SHA-256\0"[..], &(first.len() as u32).to_be_bytes(), first.as_bytes()].concat();
                client.send_frame(b'p', &body).unwrap();
            }
            Some(code) => {
                seen.push(format!("request {code}"));
                client.send_frame(b'p', b"md5ffffffffffffffffffffffffffffffff\0").unwrap();
            }
        }
    }
}

#[test]
fn an_unknown_user_is_told_what_a_wrong_password_is_told() {
    let cluster = cluster();
    for (method, last) in [("scram-sha-256", "continue"), ("md5", "continue"), ("plain", "request 3")] {
        let pooler = Setup::toml(&toml(cluster, &format!("auth_type = \"{method}\""), "")).start();
        // The stranger comes first: nothing has been learnt of the others yet.
        let stranger = exchange(&pooler, "nobody_at_all");
        let known = exchange(&pooler, "jane");
        assert_eq!(stranger, known, "{method}");
        assert!(known.iter().any(|step| step.starts_with(last)), "{known:?}");
        assert!(known.last().unwrap().contains("28P01"));
        for user in ["expired", "locked", "bare"] {
            assert_eq!(exchange(&pooler, user), known, "{method} {user}");
        }
    }
}

/// The salt that whoever wants to be `user` is told.
fn salt(pooler: &Pooler, user: &str) -> String {
    let mut client = raw::Client::connect(pooler.address()).unwrap();
    client.send_startup(&[("user", user), ("database", "app")]).unwrap();
    assert_eq!(client.read().unwrap().body[..4], 10u32.to_be_bytes());
    let first = b"n,,n=,r=abcdefghijklmnop";
    let length = (first.len() as u32).to_be_bytes();
    client.send_frame(b'p', &[&b"SCRAM-SHA-256\0"[..], &length, first].concat()).unwrap();
    let challenge = String::from_utf8_lossy(&client.read().unwrap().body[4..]).into_owned();
    challenge.split(',').find_map(|part| part.strip_prefix("s=")).unwrap().to_owned()
}

#[test]
fn salts_of_strangers_stay_like_those_of_users_with_a_file_of_their_own() {
    let cluster = cluster();
    let dir = support::TempDir::new("salts");
    let file = dir.path().join("salts");
    let start = || {
        let top = format!("scram_salt_file = \"{}\"", file.display());
        let more = "[users.plain]\npassword = \"secret\"\n";
        Setup::toml(&format!("{}{more}", toml(cluster, &top, ""))).start()
    };
    std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
    let (one, two) = (start(), start());
    for user in ["jane", "plain", "nobody_at_all"] {
        assert_eq!(salt(&one, user), salt(&two, user), "{user}");
    }
    assert!(!one.log().contains("0123456789abcdef"));
    std::fs::write(&file, "another secret altogether").unwrap();
    let three = start();
    assert_eq!(salt(&one, "jane"), salt(&three, "jane"), "PostgreSQL's own");
    for user in ["plain", "nobody_at_all"] {
        assert_ne!(salt(&one, user), salt(&three, user), "{user}");
    }
    std::fs::write(&file, "short").unwrap();
    let top = format!("scram_salt_file = \"{}\"", file.display());
    let (_, said) = Setup::toml(&toml(cluster, &top, "")).fails();
    assert!(said.contains("fewer than 16 bytes") && !said.contains("short"), "{said}");
}

#[test]
fn answers_are_kept_and_questions_shared() {
    let cluster = cluster();
    let pooler = Setup::toml(&toml(cluster, "", "")).start();
    let before = (asked(cluster, "jane"), asked(cluster, "stranger"));
    let together = || {
        let threads: Vec<_> = (0..20)
            .map(|_| {
                let address = pooler.address();
                std::thread::spawn(move || raw::Client::open(address, "jane", PASSWORD, "app").map(drop))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
    };
    together();
    together();
    assert_eq!(asked(cluster, "jane") - before.0, 1, "one question for forty logins");
    let counted = |result: &str| pooler.metric("pgsluice_auth_queries_total", &[&format!("result=\"{result}\"")]);
    assert_eq!((counted("found"), counted("unknown"), counted("failed")), (1.0, 0.0, 0.0));
    for _ in 0..5 {
        refusal(&pooler, "stranger", PASSWORD, "app");
    }
    // What failed is asked for anew, once in a while: see the next test.
    assert!((1..=3).contains(&(asked(cluster, "stranger") - before.1)), "that there is no such user is kept as well");
    assert!(counted("unknown") >= 1.0);
    // One connection of the pooler's own did it.
    let own = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgsluice auth_query'";
    assert_eq!(cluster.psql(own), "1");

    let pooler = Setup::toml(&toml(cluster, "auth_query_ttl = 0", "")).start();
    let before = asked(cluster, "joe");
    (0..3).for_each(|_| drop(pooler.client("joe")));
    assert_eq!(asked(cluster, "joe") - before, 3, "without a time to keep them every login asks");
}

#[test]
fn a_storm_of_wrong_passwords_does_not_reach_the_database() {
    let cluster = cluster();
    let pooler = Setup::toml(&toml(cluster, "", "")).start();
    drop(pooler.client("joe"));
    let (before, began) = (asked(cluster, "joe"), std::time::Instant::now());
    for _ in 0..60 {
        assert!(refusal(&pooler, "joe", "wrong", "app").contains("28P01"));
    }
    let allowed = 1 + began.elapsed().as_secs() as usize + 1;
    let questions = asked(cluster, "joe") - before;
    assert!(questions <= allowed, "{questions} questions in {:?}", began.elapsed());
    assert_eq!(pooler.client("joe").value("SELECT 1"), "1");
}

#[test]
fn a_changed_password_is_learnt_from_the_login_that_fails() {
    let cluster = cluster();
    cluster.psql("CREATE ROLE turncoat LOGIN PASSWORD 'secret'; CREATE ROLE hasty LOGIN PASSWORD 'secret'");
    let pooler = Setup::toml(&toml(cluster, "", "min_pool_size = 1")).start();
    let plain = Setup::toml(&toml(cluster, "auth_type = \"plain\"", "")).start();
    let mut old = pooler.client("turncoat");
    drop(plain.client("hasty"));
    cluster.psql("ALTER ROLE turncoat PASSWORD 'fresh-one'; ALTER ROLE hasty PASSWORD 'fresh-one'");
    // SCRAM: the login that fails has it asked anew, the next one succeeds.
    wait_for("the new password to be learnt", || pooler.try_client("turncoat", "fresh-one", "app").ok());
    assert!(refusal(&pooler, "turncoat", PASSWORD, "app").contains("28P01"), "the old one is gone");
    // A session that stands goes on, with servers that are opened with the newest key.
    let mine = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'turncoat'";
    cluster.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'turncoat'");
    wait_for("its servers to end", || (cluster.psql(mine) == "0").then_some(()));
    assert_eq!(old.value("SELECT session_user"), "turncoat");
    assert_eq!(
        cluster.psql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'asking'"),
        "2",
        "no pool of its own"
    );
    // Servers refuse what is known: the next login asks anew by itself, and readiness is not one user's matter.
    cluster.psql("ALTER ROLE turncoat PASSWORD 'freshest'");
    cluster.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'turncoat'");
    wait_for("its servers to end", || (cluster.psql(mine) == "0").then_some(()));
    assert_eq!(old.simple("SELECT 1").unwrap_err().code(), "28000", "another verifier than the server's");
    assert_eq!(pooler.get("/readyz").0, 200);
    assert_eq!(pooler.try_client("turncoat", "freshest", "app").unwrap().value("SELECT 1"), "1");
    assert_eq!(old.value("SELECT session_user"), "turncoat");
    cluster.psql("ALTER ROLE turncoat PASSWORD 'fresh-one'");
    // In the clear the same answer is held against the new secret: no login fails.
    wait_for("an answer old enough to be doubted", || {
        let first = plain.try_client("hasty", "fresh-one", "app");
        first.ok()
    });
    assert!(refusal(&plain, "hasty", PASSWORD, "app").contains("28P01"));
    assert_secret_free(&pooler);
}

#[test]
fn without_the_database_what_is_known_serves_and_the_rest_is_told() {
    let cluster = prepared(Box::new(Cluster::start(&[])));
    let pooler = Setup::toml(&toml(&cluster, "", "server_connect_timeout = \"2s\"")).start();
    let mut jane = pooler.client("jane");
    assert_eq!(jane.value("SELECT 1"), "1");
    cluster.stop();
    let away = refusal(&pooler, "joe", PASSWORD, "app");
    assert_eq!(away, "FATAL 57P03 pgsluice cannot reach the database that it asks for users");
    assert!(!away.contains("127.0.0.1"), "no address for who has proven nothing");
    // Known, and as the pool has told what servers report, let in; a wrong password is still a wrong one.
    let known = pooler.try_client("jane", PASSWORD, "app");
    assert!(known.is_ok(), "{:?}", known.err());
    assert!(refusal(&pooler, "jane", "wrong", "app").contains("28P01"));
    pooler.wait_for_log("auth_query has no answer");
    cluster.launch_again();
    wait_for("the database to be asked again", || pooler.try_client("joe", PASSWORD, "app").ok());
    wait_for("jane to be served again", || jane.simple("SELECT 1").ok());
}

#[test]
fn each_database_may_ask_in_its_own_way() {
    let cluster = cluster();
    cluster.psql("CREATE ROLE other_asking LOGIN PASSWORD 'hush-hush-43'");
    cluster.psql("GRANT EXECUTE ON FUNCTION user_lookup TO other_asking");
    let more = format!(
        "[users.other_asking]\npassword = \"hush-hush-43\"\n\
         [databases.own]\nhost = \"127.0.0.1\"\nport = {port}\ndbname = \"app\"\nauth_user = \"other_asking\"\n\
         auth_query = \"SELECT uname, secret FROM user_lookup($1) WHERE uname <> 'jane'\"\n\
         [databases.elsewhere]\nhost = \"127.0.0.1\"\nport = {port}\ndbname = \"postgres\"\nauth_dbname = \"app\"\n\
         [databases.closed]\nhost = \"127.0.0.1\"\nport = {port}\ndbname = \"app\"\nauth_user = \"\"\n",
        port = cluster.port()
    );
    let pooler = Setup::toml(&toml(cluster, "", &more)).start();
    let open =
        |user, database| pooler.try_client(user, PASSWORD, database).map(|mut c| c.value("SELECT current_database()"));
    assert_eq!(open("joe", "own").unwrap(), "app");
    assert_eq!(open("joe", "elsewhere").unwrap(), "postgres");
    assert_eq!(open("jane", "app").unwrap(), "app");
    assert!(refusal(&pooler, "jane", PASSWORD, "own").contains("28P01"));
    for (user, database) in [("jane", "closed"), ("jane", "pgsluice"), ("jane", "unknown")] {
        assert!(refusal(&pooler, user, PASSWORD, database).contains("28P01"), "{database}: nobody is asked");
    }
    let (status, log) = Setup::toml(&toml(cluster, "auth_dbname = \"gone\"", "")).fails();
    assert!(!status.success() && log.contains("there is no section [databases.gone]"), "{log}");
}

#[test]
fn strangers_do_not_learn_which_databases_there_are() {
    let cluster = cluster();
    let text = toml(cluster, "", "").replace("[databases.app]", "[databases.\"*\"]");
    let pooler = Setup::toml(&text).start();
    assert_eq!(pooler.client("jane").value("SELECT session_user"), "jane");
    let wrong = "FATAL 28P01 password authentication failed for user \"jane\"";
    for (database, password) in [("app", "wrong"), ("nowhere", "wrong"), ("nowhere", PASSWORD)] {
        assert_eq!(refusal(&pooler, "jane", password, database), wrong, "{database}");
    }
    assert!(pooler.wait_for_log("auth_query has no answer").contains("\"nowhere\" does not exist"));
    // Nor does it help to name very many.
    for n in 0..300 {
        refusal(&pooler, "jane", PASSWORD, &format!("nowhere{n}"));
    }
    assert_eq!(pooler.try_client("joe", PASSWORD, "app").unwrap().value("SELECT session_user"), "joe");
}

/// Each name costs PostgreSQL a process before any password is proved.
#[test]
fn names_that_do_not_exist_are_tried_slowly_and_delay_nobody_who_is_known() {
    const STRANGERS: usize = 64;
    let cluster = cluster();
    let proxy = Proxy::start(cluster.address(), seed());
    let port = proxy.address().port();
    let text = toml(cluster, "", "").replace("[databases.app]", "[databases.\"*\"]");
    let pooler = Setup::toml(&text.replace(&format!("port = {}", cluster.port()), &format!("port = {port}"))).start();
    assert_eq!(pooler.client("jane").value("SELECT session_user"), "jane");
    let (began, before, left) = (Instant::now(), proxy.accepted(), AtomicUsize::new(STRANGERS));
    thread::scope(|scope| {
        for n in 0..STRANGERS {
            let (pooler, left) = (&pooler, &left);
            scope.spawn(move || {
                refusal(pooler, "jane", PASSWORD, &format!("strange{n}"));
                left.fetch_sub(1, Relaxed);
            });
        }
        wait_for("the first of them", || (left.load(Relaxed) < STRANGERS).then_some(()));
        // A question of its own, at a place that has answered.
        assert_eq!(pooler.client("joe").value("SELECT session_user"), "joe");
        assert!(left.load(Relaxed) > 0, "it came after all of them");
        wait_for("the last of them", || {
            let dialled = proxy.accepted() - before;
            // Four at once, each for a quarter of a second, and what joe needs.
            let allowed = 12 + (began.elapsed().as_millis() / 60) as usize;
            assert!(dialled <= allowed, "{dialled} connections after {:?}", began.elapsed());
            (left.load(Relaxed) == 0).then_some(())
        });
    });
}

#[test]
fn few_connections_stay_open_for_databases_that_strangers_name() {
    let cluster = prepared(Box::new(Cluster::start(&[])));
    let text = format!(
        "failed_login_delay = 0\nauth_user = \"postgres\"\n[databases.\"*\"]\nhost = \"127.0.0.1\"\nport = {}\n",
        cluster.port()
    );
    let pooler = Setup::toml(&text).start();
    for n in 0..24 {
        cluster.psql(&format!("CREATE DATABASE real{n}"));
        assert!(refusal(&pooler, "jane", "wrong", &format!("real{n}")).contains("28P01"));
    }
    let open = || -> usize {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgsluice auth_query'";
        cluster.psql(sql).parse().unwrap()
    };
    assert!(open() >= 8, "they are kept as far as they may be");
    // Well before they would be closed because nobody asks.
    let deadline = Instant::now() + Duration::from_secs(5);
    while open() > 16 {
        assert!(Instant::now() < deadline, "{} connections stay open", open());
    }
    assert_eq!(pooler.try_client("jane", PASSWORD, "real0").unwrap().value("SELECT current_database()"), "real0");
}

#[test]
fn replication_clients_are_looked_up_as_well() {
    let cluster = prepared(Box::new(Cluster::start(&["wal_level=logical", "max_wal_senders=4"])));
    cluster.psql("CREATE ROLE rep LOGIN REPLICATION PASSWORD 'secret'");
    let pooler = Setup::toml(&toml(&cluster, "", "")).start();
    for parameters in [
        &[("user", "rep"), ("database", "app"), ("replication", "database")][..],
        &[("user", "rep"), ("replication", "true")],
    ] {
        let open = |password| {
            let mut client = raw::Client::connect(pooler.address()).unwrap();
            client.login_with(password, parameters).map(|()| client)
        };
        assert_eq!(open("wrong").err().unwrap().code(), "28P01");
        assert_eq!(open(PASSWORD).unwrap().simple("IDENTIFY_SYSTEM").unwrap().len(), 1, "{parameters:?}");
    }
}

#[test]
fn what_is_wrong_with_the_question_is_logged_and_hinted() {
    let cluster = cluster();
    let query = "\"SELECT uname, secret FROM user_lookup($1)\"";
    for (wrong, why) in [
        ("\"SELECT nonsense($1)\"", "function nonsense(unknown) does not exist"),
        ("\"SELECT 1\"", "bind message supplies 1 parameters"),
        ("\"SELECT $1::text\"", "it must answer with two columns"),
        ("\"SELECT $1, 'a' UNION ALL SELECT $1, 'b'\"", "more than one row"),
        ("\"SELECT 'postgres', $1\"", "another user's name"),
    ] {
        let pooler = Setup::toml(&toml(cluster, "", "").replace(query, wrong)).start();
        assert_eq!(refusal(&pooler, "jane", PASSWORD, "app"), "FATAL XX000 auth_query failed", "{wrong}");
        assert!(pooler.wait_for_log("auth_query has no answer").contains(why), "{wrong}: {}", pooler.log());
    }
    let pooler = Setup::toml(&toml(cluster, "", "").replace(ASKING, "not-it")).start();
    let told = refusal(&pooler, "jane", PASSWORD, "app");
    assert_eq!(told, "FATAL XX000 pgsluice cannot log in to the database that it asks for users");
    assert!(
        pooler.wait_for_log("auth_query has no answer").contains("password authentication failed"),
        "{}",
        pooler.log()
    );
    assert!(!pooler.log().contains("not-it"));
    // A table that answers with a password in the clear, and users who are asked for nothing.
    let plain =
        toml(cluster, "auth_type = \"trust\"", "").replace(query, "\"SELECT $1, 'secret' WHERE $1 <> 'nobody'\"");
    let pooler = Setup::toml(&plain).start();
    assert_eq!(pooler.client("jane").value("SELECT session_user"), "jane");
    assert_eq!(refusal(&pooler, "nobody", "", "app"), "FATAL 28000 user \"nobody\" is not known to pgsluice");
}

#[test]
fn the_example_of_our_documentation_works() {
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md")).unwrap();
    let block = |kind: &str, with: &str| {
        let fence = format!("```{kind}\n");
        let mut blocks = docs.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap());
        blocks.find(|block| block.contains(with)).unwrap().to_owned()
    };
    let cluster = prepared(Box::new(Cluster::start(&[])));
    cluster.psql("DROP FUNCTION user_lookup");
    cluster.psql(&block("sql", "user_lookup").replace("'...'", &format!("'{ASKING}'")));
    let text = block("toml", "user_lookup")
        .replace("password_file = \"/run/secrets/pooler_auth\"", &format!("password = \"{ASKING}\""))
        .replace("\"db.internal\"", &format!("\"127.0.0.1\"\nport = {}", cluster.port()));
    let pooler = Setup::toml(&text).start();
    assert_eq!(pooler.client("jane").value("SELECT session_user"), "jane");
    for user in ["locked", "expired", "nobody_at_all", "postgres"] {
        assert!(refusal(&pooler, user, PASSWORD, "app").contains("28P01"), "{user}");
    }
    assert!(!pooler.log().contains("no answer"), "{}", pooler.log());
}

#[test]
fn keys_are_bound_to_tls_on_both_sides() {
    let Some(pg) = secured(|ca| ca.server(&["localhost"])) else { return };
    let text = format!(
        "[users.app]\npassword = \"{}\"\n\
         [databases.app]\nhost = \"localhost\"\nport = {}\nserver_channel_binding = \"require\"\n{}\n",
        kept(&pg.cluster, "app"),
        pg.cluster.port(),
        tls_mode("verify-full", Some(&pg.ca))
    );
    let own = pg.ca.server(&["localhost"]);
    let pooler = Setup::toml(&text)
        .env("PGSLUICE_CLIENT_TLS_CERT_FILE", &own.cert.display().to_string())
        .env("PGSLUICE_CLIENT_TLS_KEY_FILE", &own.key.display().to_string())
        .start();
    let url = format!(
        "host=localhost port={} user=app dbname=app sslmode=verify-full channel_binding=require sslrootcert={}",
        pooler.port(),
        pg.ca.file().display()
    );
    let mut psql = std::process::Command::new(pg.cluster.program("psql"));
    psql.args(["-wXAtc", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &url]).env("PGPASSWORD", PASSWORD);
    let output = psql.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "t\n", "{}", String::from_utf8_lossy(&output.stderr));
}

/// The verifier or hash that PostgreSQL keeps.
fn kept(cluster: &Cluster, role: &str) -> String {
    cluster.psql(&format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'"))
}

#[test]
fn a_verifier_in_the_configuration_is_enough_where_clients_prove_themselves() {
    let cluster = cluster();
    let text = |method: &str, verifier: &str| {
        format!(
            "auth_type = \"{method}\"\n[users.jane]\npassword = \"{verifier}\"\n\
             [databases.app]\nhost = \"127.0.0.1\"\nport = {}\nmin_pool_size = 2\n",
            cluster.port()
        )
    };
    for method in ["scram-sha-256", "md5", "plain"] {
        let pooler = Setup::toml(&text(method, &kept(cluster, "jane"))).start();
        let mut jane = pooler.client("jane");
        assert_eq!(jane.value("SELECT session_user"), "jane", "{method}");
        // The pool fills itself with the key that was learnt.
        let mine = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'jane'";
        wait_for("a server opened in the background", || (cluster.psql(mine) == "2").then_some(()));
        cluster.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'jane'");
        // Whoever sent a query just then lost her session with the server.
        let again = || pooler.try_client("jane", PASSWORD, "app").ok()?.simple("SELECT 1").ok();
        wait_for("servers opened again", again);
        assert!(refusal(&pooler, "jane", "wrong", "app").contains("28P01"));
        assert_secret_free(&pooler);
    }
    // The same password under another salt: a verifier of PostgreSQL's for somebody else.
    let pooler = Setup::toml(&text("scram-sha-256", &kept(cluster, "joe"))).start();
    let told = refusal(&pooler, "jane", PASSWORD, "app");
    assert!(told.contains("28000") && told.contains("another SCRAM verifier of user \"jane\""), "{told}");
    // Nobody has proved anything.
    let pooler = Setup::toml(&text("trust", &kept(cluster, "jane"))).start();
    let told = refusal(&pooler, "jane", "", "app");
    assert!(told.contains("no client of hers has logged in with a password"), "{told}");
    pooler
        .wait_for_log("a SCRAM verifier is all that is known of \"jane\", and auth_type = \"trust\" asks for no proof");
}

#[test]
fn an_md5_hash_that_was_looked_up_answers_the_server() {
    let cluster = cluster();
    let pooler = Setup::toml(&toml(cluster, "auth_type = \"md5\"", "")).start();
    assert!(kept(cluster, "md5user").starts_with("md5"));
    assert_eq!(pooler.client("md5user").value("SELECT session_user"), "md5user");
    assert_eq!(pooler.client("jane").value("SELECT session_user"), "jane", "SCRAM where there is a verifier");
    assert!(refusal(&pooler, "md5user", "wrong", "app").contains("28P01"));
    let scram = Setup::toml(&toml(cluster, "", "")).start();
    assert!(refusal(&scram, "md5user", PASSWORD, "app").contains("28P01"), "no SCRAM with an MD5 hash");
}
