//! Every way in times every way on: methods of clients, methods of servers, TLS and certificates of either side, and
//! drivers of different makes. What a driver cannot do is said in the output.
//!
//! By default each way in is tried with a few of the ways on; `PGSLUICE_MATRIX=full` (`make auth-matrix`) tries all pairs.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

#[path = "support/tokio_tls.rs"]
mod tokio_tls;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::cluster::{self, Cluster, PASSWORD};
use support::pki::{Ca, Pair};
use support::pooler::{Pooler, Setup};
use support::{TempDir, skip};

/// TLS of one side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tls {
    None,
    Yes,
    /// And a certificate of whoever asks.
    Certificate,
}

const TLS: [Tls; 3] = [Tls::None, Tls::Yes, Tls::Certificate];

/// Methods that can be had with this TLS. `peer` is a matter of Unix sockets.
fn methods(tls: Tls, certificates: bool) -> Vec<&'static str> {
    let mut all = vec!["trust", "password", "md5", "scram"];
    if tls != Tls::None {
        all.push("scram-plus");
    }
    if tls == Tls::Certificate && certificates {
        all.push("cert");
    }
    all
}

/// How `pg_hba.conf` calls it.
fn in_rules(method: &str) -> &str {
    if method.starts_with("scram") { "scram-sha-256" } else { method }
}

/// The name of a way: a user of it on either side, and on the server's side a database.
fn name(side: &str, method: &str, tls: Tls) -> String {
    let tls = match tls {
        Tls::None => "none",
        Tls::Yes => "tls",
        Tls::Certificate => "both",
    };
    format!("{side}_{}_{tls}", method.replace('-', "_"))
}

fn rule(side: &str, method: &str, tls: Tls) -> String {
    let connection = if tls == Tls::None { "hostnossl" } else { "hostssl" };
    // `cert` checks more, and the pooler's own mode asks for certificates.
    let option = if side == "s" && tls == Tls::Certificate && method != "cert" { "clientcert=verify-ca" } else { "" };
    format!("{connection} all {} all {} {option}\n", name(side, method, tls), in_rules(method))
}

/// A place in the matrix where a driver logs in.
#[derive(Clone)]
struct Case {
    method: &'static str,
    tls: Tls,
    database: String,
    password: &'static str,
    /// What the server says of the pooler's login, or words of the refusal.
    expected: Result<String, &'static str>,
}

struct Field {
    cluster: Cluster,
    /// The one asks clients for certificates, the other does not.
    plain: Pooler,
    strict: Pooler,
    ca: Ca,
    certificates: bool,
    socket: TempDir,
    dir: TempDir,
}

/// Who asks, and how the server's end of the connection looks.
const SQL: &str = "SELECT current_user || ' ' || s.ssl || ' ' || (s.client_dn IS NOT NULL) FROM pg_stat_ssl s WHERE pid = pg_backend_pid()";

fn ways_on() -> Vec<(String, String)> {
    let ways = TLS.iter().flat_map(|&tls| methods(tls, true).into_iter().map(move |method| (method, tls)));
    ways.map(|(method, tls)| {
        let user = name("s", method, tls);
        let says = format!("{user} {} {}", tls != Tls::None, tls == Tls::Certificate);
        (user, says)
    })
    .collect()
}

fn postgresql(ca: &Ca, dir: &Path) -> Cluster {
    let (mut hba, mut roles) = ("local all postgres trust\nhost all postgres all trust\n".to_owned(), Vec::new());
    for tls in TLS {
        for method in methods(tls, true) {
            hba.push_str(&rule("s", method, tls));
            let kind = if method == "md5" { "md5" } else { "scram-sha-256" };
            roles.push(format!(
                "SET password_encryption = '{kind}'; CREATE ROLE {} LOGIN PASSWORD '{PASSWORD}'",
                name("s", method, tls)
            ));
        }
    }
    let file = dir.join("server_hba.conf");
    fs::write(&file, hba).unwrap();
    let mut options = ca.server(&["localhost"]).options().to_vec();
    options.push(format!("hba_file={}", file.display()));
    options.push(format!("ssl_ca_file={}", ca.file().display()));
    let cluster = Cluster::start(&options.iter().map(String::as_str).collect::<Vec<_>>());
    roles.iter().for_each(|sql| drop(cluster.psql(sql)));
    cluster
}

/// Sections of databases, one for each way on.
fn databases(cluster: &Cluster, ca: &Ca) -> String {
    let mut text = String::new();
    for tls in TLS {
        for method in methods(tls, true) {
            let user = name("s", method, tls);
            writeln!(text, "[databases.{user}]\nhost = \"localhost\"\nport = {}\ndbname = \"app\"", cluster.port())
                .unwrap();
            writeln!(text, "user = \"{user}\"\npassword = \"{PASSWORD}\"").unwrap();
            match tls {
                Tls::None => writeln!(text, "server_tls_mode = \"disable\"").unwrap(),
                _ => writeln!(
                    text,
                    "server_tls_mode = \"verify-full\"\nserver_tls_ca_file = \"{}\"",
                    ca.file().display()
                )
                .unwrap(),
            }
            if tls == Tls::Certificate {
                let own = ca.client(&user);
                writeln!(text, "server_tls_cert_file = \"{}\"", own.cert.display()).unwrap();
                writeln!(text, "server_tls_key_file = \"{}\"", own.key.display()).unwrap();
            }
            if method == "scram-plus" {
                writeln!(text, "server_channel_binding = \"require\"").unwrap();
            }
        }
    }
    text
}

/// The configuration, with rules for `cert` or without.
fn configuration(dir: &Path, ca: &Ca, pair: &Pair, databases: &str, certificates: bool) -> String {
    let mut hba = "local all c_peer peer map=matrix\n".to_owned();
    let mut users = String::new();
    for tls in TLS {
        for method in methods(tls, certificates) {
            hba.push_str(&rule("c", method, tls));
            writeln!(users, "[users.{}]\npassword = \"{PASSWORD}\"", name("c", method, tls)).unwrap();
        }
    }
    users.push_str("[users.c_peer]\n");
    fs::write(dir.join("hba.conf"), hba).unwrap();
    let user = Command::new("id").arg("-un").output().unwrap();
    let user = String::from_utf8(user.stdout).unwrap();
    fs::write(dir.join("ident.conf"), format!("matrix {} c_peer\n", user.trim())).unwrap();
    format!(
        "auth_type = \"hba\"\nauth_hba_file = \"{0}/hba.conf\"\nauth_ident_file = \"{0}/ident.conf\"\nfailed_login_delay = 0\n\
         client_tls_cert_file = \"{1}\"\nclient_tls_key_file = \"{2}\"\nclient_tls_ca_file = \"{3}\"\n\
         [pool]\npool_size = 2\nserver_idle_timeout = \"5s\"\n{users}{databases}",
        dir.display(),
        pair.cert.display(),
        pair.key.display(),
        ca.file().display()
    )
}

impl Field {
    fn new() -> Option<Field> {
        if !cluster::shared().has_tls() {
            skip("this PostgreSQL was built without TLS");
            return None;
        }
        let (ca, dir, socket) = (Ca::new(), TempDir::new("matrix"), TempDir::new("socket"));
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let cluster = postgresql(&ca, dir.path());
        let databases = databases(&cluster, &ca);
        let pair = ca.server(&["localhost"]);
        let mut certificates = true;
        let mut toml = configuration(dir.path(), &ca, &pair, &databases, certificates);
        let trial = dir.path().join("trial.toml");
        fs::write(&trial, &toml).unwrap();
        let check = Command::new(env!("CARGO_BIN_EXE_pgsluice"))
            .args(["check".as_ref(), "--config".as_ref(), trial.as_os_str()])
            // Of the run of all tests, no settings.
            .env_remove("PGSLUICE_CACHE")
            .env_remove("PGSLUICE_SKIPS")
            .output()
            .unwrap();
        if !check.status.success() {
            let why = String::from_utf8_lossy(&check.stderr).into_owned();
            assert!(why.contains("certificates"), "{why}");
            skip("no logins of clients by certificate alone (cert): not built");
            certificates = false;
            toml = configuration(dir.path(), &ca, &pair, &databases, certificates);
        }
        let setup = Setup::toml(&toml).unix(socket.path());
        let plain = setup.clone().start();
        let strict = setup.env("PGSLUICE_CLIENT_TLS_MODE", "verify-ca").start();
        Some(Field { cluster, plain, strict, ca, certificates, socket, dir })
    }

    fn pooler(&self, tls: Tls) -> &Pooler {
        if tls == Tls::Certificate { &self.strict } else { &self.plain }
    }

    /// Every way in, each with some ways on or all of them; and wrong passwords.
    fn cases(&self) -> Vec<Case> {
        let on = ways_on();
        let full = std::env::var("PGSLUICE_MATRIX").is_ok_and(|mode| mode == "full");
        let mut ways: Vec<(&'static str, Tls)> = TLS
            .iter()
            .flat_map(|&tls| methods(tls, self.certificates).into_iter().map(move |method| (method, tls)))
            .collect();
        ways.push(("peer", Tls::None));
        let mut cases = Vec::new();
        for (i, &(method, tls)) in ways.iter().enumerate() {
            for (j, (database, says)) in on.iter().enumerate() {
                // Each way on is met by several ways in.
                if full || (i + j) % on.len() == 0 || (i + j) % on.len() == on.len() / 2 {
                    let expected = Ok(says.clone());
                    cases.push(Case { method, tls, database: database.clone(), password: PASSWORD, expected });
                }
            }
            if !matches!(method, "trust" | "peer" | "cert") {
                let expected = Err("password authentication failed");
                cases.push(Case { method, tls, database: on[0].0.clone(), password: "wrong", expected });
            }
        }
        cases
    }

    fn describe(&self, case: &Case) -> Value {
        let peer = case.method == "peer";
        let user = if peer { "c_peer".to_owned() } else { name("c", case.method, case.tls) };
        let ca = if case.tls == Tls::None { PathBuf::new() } else { self.ca.file() };
        let own = (case.tls == Tls::Certificate).then(|| self.ca.client(&user));
        let file = |f: fn(&Pair) -> &PathBuf| own.as_ref().map(|own| f(own).display().to_string()).unwrap_or_default();
        json!({
            "user": user, "password": case.password, "dbname": case.database, "sql": SQL,
            "port": self.pooler(case.tls).port(), "plus": case.method == "scram-plus",
            "socket": if peer { self.socket.path().display().to_string() } else { String::new() },
            "ca": ca.display().to_string(), "cert": file(|own| &own.cert), "key": file(|own| &own.key),
        })
    }
}

type Answer = Result<String, String>;

fn text<'a>(case: &'a Value, name: &str) -> &'a str {
    case[name].as_str().unwrap()
}

fn by_psql(field: &Field, cases: &[Value]) -> Vec<Answer> {
    let one = |case: &Value| {
        let mut connection = format!(
            "port={} user={} password={} dbname={} channel_binding={}",
            case["port"],
            text(case, "user"),
            text(case, "password"),
            text(case, "dbname"),
            if case["plus"] == true { "require" } else { "disable" }
        );
        match text(case, "socket") {
            "" => connection.push_str(" host=localhost hostaddr=127.0.0.1"),
            socket => write!(connection, " host={socket}").unwrap(),
        }
        match text(case, "ca") {
            "" => connection.push_str(" sslmode=disable"),
            ca => write!(connection, " sslmode=verify-full sslrootcert={ca}").unwrap(),
        }
        if !text(case, "cert").is_empty() {
            write!(connection, " sslcert={} sslkey={}", text(case, "cert"), text(case, "key")).unwrap();
        }
        let output = Command::new(field.cluster.program("psql"))
            .args(["-XAtc", SQL, &connection])
            .env("HOME", "/nonexistent")
            .output()
            .unwrap();
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
    };
    cases.iter().map(one).collect()
}

fn by_tokio_postgres(cases: &[Value]) -> Vec<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let one = |case: &Value| runtime.block_on(tokio_tls::ask(case, SQL));
    cases.iter().map(one).collect()
}

/// The interpreter that has the drivers of Python.
fn python() -> Option<PathBuf> {
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/python_env.py");
    let made = Command::new("python3")
        .args([tool, "drivers", "psycopg[binary]>=3.2", "asyncpg>=0.30", "pg8000>=1.31"])
        .output()
        .ok()?;
    let path = String::from_utf8(made.stdout).ok()?;
    made.status.success().then(|| PathBuf::from(path.trim()))
}

fn by_python(python: &Path, driver: &str, cases: &[Value]) -> Vec<Answer> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/auth_driver.py");
    let mut child = Command::new(python)
        .args([script, driver])
        .env("HOME", "/nonexistent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines: String = cases.iter().map(|case| format!("{case}\n")).collect();
    let feeder = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    let answers: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), cases.len(), "{driver}");
    let answer = |a: &Value| match a["ok"].as_str() {
        Some(ok) => Ok(ok.to_owned()),
        None => Err(a["error"].as_str().unwrap().to_owned()),
    };
    answers.iter().map(answer).collect()
}

/// What a driver cannot do.
fn cannot(driver: &str, case: &Case) -> Option<&'static str> {
    match (driver, case.method) {
        ("asyncpg", "scram-plus") => Some("asyncpg knows no SCRAM-SHA-256-PLUS"),
        _ => None,
    }
}

fn judge(field: &Field, driver: &str, run: impl Fn(&[Value]) -> Vec<Answer>) {
    let (able, unable): (Vec<Case>, Vec<Case>) = field.cases().into_iter().partition(|c| cannot(driver, c).is_none());
    let answers = run(&able.iter().map(|case| field.describe(case)).collect::<Vec<_>>());
    let mut wrong = String::new();
    for (case, answer) in able.iter().zip(&answers) {
        let right = match (&case.expected, answer) {
            (Ok(says), Ok(said)) => says == said,
            (Err(words), Err(said)) => said.contains(words),
            _ => false,
        };
        if !right {
            let (method, tls, on) = (case.method, case.tls, &case.database);
            writeln!(wrong, "{driver}: {method}, {tls:?} -> {on}: expected {:?}, got {answer:?}", case.expected)
                .unwrap();
        }
    }
    println!("{driver}: {} logins", able.len());
    let mut why: Vec<_> = unable.iter().filter_map(|case| cannot(driver, case)).collect();
    why.dedup();
    if !why.is_empty() {
        println!("{driver} cannot: {} ({} logins left out)", why.join("; "), unable.len());
    }
    assert!(wrong.is_empty(), "\n{wrong}\n{}\n{}", field.plain.log(), field.strict.log());
}

#[test]
fn libpq_and_tokio_postgres_by_every_way() {
    let Some(field) = Field::new() else { return };
    judge(&field, "psql", |cases| by_psql(&field, cases));
    judge(&field, "tokio-postgres", by_tokio_postgres);
    drop(field.dir);
}

#[test]
fn drivers_of_python_by_every_way() {
    let Some(field) = Field::new() else { return };
    let Some(python) = python() else { return skip("psycopg, asyncpg and pg8000 cannot be had") };
    for driver in ["psycopg", "asyncpg", "pg8000"] {
        judge(&field, driver, |cases| by_python(&python, driver, cases));
    }
    println!("pg8000 binds SCRAM to TLS when it is offered, and cannot insist");
}

/// Certificates that are not good, and none where one is needed.
#[test]
fn certificates_of_clients_that_are_refused() {
    let Some(field) = Field::new() else { return };
    let on = &ways_on()[0].0;
    let case = Case {
        method: "scram",
        tls: Tls::Certificate,
        database: on.clone(),
        password: PASSWORD,
        expected: Err("certificate"),
    };
    let user = name("c", "scram", Tls::Certificate);
    let stranger = Ca::new();
    let bad = [
        ("expired", Some(field.ca.expired_client(&user))),
        ("of another CA", Some(stranger.client(&user))),
        ("of a server", Some(field.ca.server(&["localhost"]))),
        ("none", None),
    ];
    for (what, own) in bad {
        let mut described = field.describe(&case);
        described["cert"] = json!(own.as_ref().map_or(String::new(), |own| own.cert.display().to_string()));
        described["key"] = json!(own.as_ref().map_or(String::new(), |own| own.key.display().to_string()));
        for answer in [by_psql(&field, &[described.clone()]), by_tokio_postgres(&[described.clone()])] {
            let said = answer[0].as_ref().expect_err(what);
            assert!(!said.contains("password"), "{what}: {said}");
        }
    }
    // The log is written after the client has been told.
    support::wait_for("all of them in the log", || {
        (field.strict.log().matches("TLS with a client failed").count() >= 8).then_some(())
    });
}
