//! No secret is where it can be read: after a run with passwords of every kind and from every source, right ones and wrong
//! ones, neither log (at level debug), errors, console, `/metrics` nor `check` hold any of them, in any spelling.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use base64::{Engine, engine::general_purpose::STANDARD};
use md5::{Digest, Md5};
use pgsluice::config::{Config, Environment};
use support::cluster::{Cluster, DATABASE};
use support::pki::{Ca, client_config};
use support::pooler::{Pooler, Setup};
use support::{TempDir, raw};

/// Verifier of nobody's password; its parts are canaries themselves.
const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
const STORED: &str = "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=";
const SERVER: &str = "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
const MD5: &str = "md50123456789abcdef0123456789abcdef";
const TOKEN: &str = "canary-token-of-http-8f2a";

/// Words that may be nowhere. Each is found in no other text.
const CANARIES: [&str; 17] = [
    "canary-users",
    "canary-userlist",
    "canary-file",
    "canary-environment",
    "canary-database",
    "canary-url",
    "canary-wrong",
    "canary-startup",
    "canary-literal",
    "canary-parameter",
    "canary-broken",
    "canary-passed",
    SALT,
    STORED,
    SERVER,
    "0123456789abcdef0123456789abcdef",
    TOKEN,
];

/// What a secret may look like.
fn spellings(word: &str) -> Vec<String> {
    let hex: String = word.bytes().map(|b| format!("{b:02x}")).collect();
    // Behind any number of bytes, less what the neighbours change.
    let base64 = (0..3).map(|shift| {
        let text = STANDARD.encode([&b"xxx"[..shift], word.as_bytes()].concat());
        text[4..text.len() - 4].to_owned()
    });
    let bytes = format!("{:?}", word.as_bytes());
    let percent = word.replace('-', "%2D");
    [word.to_owned(), word.to_uppercase(), percent, hex.to_uppercase(), hex, bytes[1..bytes.len() - 1].to_owned()]
        .into_iter()
        .chain(base64)
        .collect()
}

fn scan(what: &str, text: &str) {
    for word in CANARIES {
        for spelling in spellings(word) {
            assert!(!text.contains(&spelling), "{what} holds {word} as {spelling}:\n{text}");
        }
    }
}

/// An md5 answer holds no word, but the hash that was kept would do as well as a password.
fn kept_hash(user: &str, password: &str) -> String {
    Md5::digest(format!("{password}{user}")).iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn the_scan_finds_what_it_looks_for() {
    for (text, found) in [
        ("nothing", false),
        ("a canary-url b", true),
        ("Y2FuYXJ5LXVzZXJsaXN0", true),
        ("63616e6172792d75726c", true),
        ("[99, 97, 110, 97, 114, 121, 45, 117, 114, 108]", true),
    ] {
        assert_eq!(std::panic::catch_unwind(|| scan("text", text)).is_err(), found, "{text}");
    }
}

fn configuration(dir: &Path, port: u16, ca: &Ca) -> String {
    let pair = ca.server(&["localhost"]);
    fs::write(dir.join("userlist.txt"), format!("\"listed\" \"canary-userlist\"\n\"hashed\" \"{MD5}\"\n")).unwrap();
    fs::write(dir.join("secret"), "canary-file\n").unwrap();
    fs::write(dir.join("token"), TOKEN).unwrap();
    format!(
        "auth_file = \"{0}/userlist.txt\"\nhttp_token_file = \"{0}/token\"\nfailed_login_delay = 0\n\
         passthrough_auth = \"enabled\"\nadmin_users = [\"app\"]\nclient_tls_cert_file = \"{1}\"\nclient_tls_key_file = \"{2}\"\n\
         [log]\nlevel = \"debug\"\n\
         [users.app]\npassword = \"canary-users\"\n[users.filed]\npassword_file = \"{0}/secret\"\n\
         [users.environed]\npassword_env = \"CANARY\"\n\
         [users.verified]\npassword = \"SCRAM-SHA-256$4096:{SALT}${STORED}:{SERVER}\"\n\
         [databases.app]\nhost = \"127.0.0.1\"\nport = {port}\n\
         [databases.fixed]\nhost = \"127.0.0.1\"\nport = {port}\ndbname = \"app\"\nuser = \"app\"\npassword = \"canary-database\"\n\
         [databases.linked]\nurl = \"postgres://app:canary-url@127.0.0.1:{port}/app\"\n\
         [databases.away]\nurl = \"postgres://app:canary-url@127.0.0.1:1/app\"\n",
        dir.display(),
        pair.cert.display(),
        pair.key.display()
    )
}

/// Logs in (or not) and says what the client was told.
fn told(pooler: &Pooler, user: &str, password: &str, database: &str) -> String {
    match pooler.try_client(user, password, database) {
        Ok(mut client) => {
            let mut said = client.simple("SELECT 'canary-literal'::int").err().map(|e| e.to_string());
            // PostgreSQL quotes the value to the client that sent it: that is hers to know.
            said.take_if(|text| text.contains("canary-literal"));
            let _ = client.extended("SELECT $1::text, 1/0", &[Some("canary-parameter")]);
            // A line at level debug.
            let _ = client.simple("LISTEN quiet");
            said.unwrap_or_default()
        }
        Err(error) => error.to_string(),
    }
}

fn http(pooler: &Pooler, path: &str, token: &str) -> String {
    let mut stream = TcpStream::connect(pooler.http_address()).unwrap();
    let authorization = format!("Authorization: Bearer {token}\r\n");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n{authorization}Connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Everything that a stranger, a client or an operator can do with a secret.
fn exercise(pooler: &Pooler, ca: &Ca) {
    for database in [DATABASE, "fixed", "linked", "away", "missing"] {
        for (user, password) in [
            ("app", "canary-users"),
            ("app", "canary-wrong"),
            ("listed", "canary-userlist"),
            ("hashed", "canary-wrong"),
            ("filed", "canary-file"),
            ("environed", "canary-environment"),
            ("verified", "canary-wrong"),
            ("nobody", "canary-wrong"),
            ("passed", "canary-passed"),
            ("passed", "canary-wrong"),
            ("plainuser", "canary-passed"),
        ] {
            scan("what a client was told", &told(pooler, user, password, database));
        }
    }
    // Passwords where none belong.
    let address = pooler.address();
    let raw_login = |parameters: &[(&str, &str)]| {
        let mut client = raw::Client::connect(address).unwrap();
        let said = client.login_with("canary-users", parameters);
        scan("what a client was told", &said.err().map_or_else(String::new, |e| e.to_string()));
    };
    raw_login(&[("user", "app"), ("database", DATABASE), ("password", "canary-startup")]);
    raw_login(&[("user", "app"), ("database", DATABASE), ("application_name", "x"), ("my.secret", "canary-startup")]);
    let mut client = raw::Client::connect(address).unwrap();
    client.send_startup(&[("user", "app"), ("database", DATABASE)]).unwrap();
    client.send(&[&raw::frame(b'p', b"canary-wrong\0")[..], b"canary-wrong canary-wrong"].concat()).unwrap();
    let _ = client.read_to_end();
    let mut client = raw::Client::connect(address).unwrap();
    client.send(b"canary-wrong canary-wrong canary-wrong\r\n").unwrap();
    let _ = client.read_to_end();
    let config = client_config(Some(&ca.file()), None, &[]);
    let mut client = raw::Client::connect_tls(address, &config, "localhost").unwrap();
    let _ = client.login("app", "canary-users", DATABASE);
}

fn look(pooler: &Pooler) {
    for (path, token) in
        [("/metrics", TOKEN), ("/", TOKEN), ("/readyz", ""), ("/metrics", "canary-wrong"), ("/canary", TOKEN)]
    {
        let answer = http(pooler, path, token);
        scan(path, &answer);
        assert_eq!(answer.starts_with("HTTP/1.1 200"), token == TOKEN && path != "/canary", "{path}: {answer}");
    }
    for list in ["causes", "findings", "history", "pins", "pools", "queries", "routes", "status", "tables"] {
        let answer = http(pooler, &format!("/api/v1/{list}"), TOKEN);
        assert!(answer.starts_with("HTTP/1.1 200"), "{list}: {answer}");
        scan(list, &answer);
    }
    let mut console = pooler.try_client("app", "canary-users", "pgsluice").unwrap();
    assert!(raw::text(&console.simple("SHOW POOLS").unwrap()).contains("passed"), "nobody was passed through");
    let lists = [
        "CLIENTS",
        "CONFIG",
        "DATABASES",
        "LISTS",
        "MEM",
        "PINS",
        "POOLS",
        "SERVERS",
        "STATE",
        "STATS",
        "STATS_TOTALS",
        "USERS",
        "NPLUSONE",
        "FINGERPRINTS",
        "HELP",
    ];
    for list in lists {
        let rows = console.simple(&format!("SHOW {list}")).unwrap();
        scan(list, &raw::text(&rows));
    }
    for wrong in ["SET password = 'canary-wrong'", "SHOW 'canary-wrong'", "canary-wrong"] {
        scan("the console's error", &console.simple(wrong).unwrap_err().to_string());
    }
    let _ = console.simple("RELOAD");
}

#[test]
fn secrets_are_in_no_log_error_list_or_metric() {
    let cluster = Cluster::start(&[]);
    for user in ["listed", "hashed", "filed", "environed", "verified"] {
        cluster.psql(&format!("CREATE ROLE {user} LOGIN PASSWORD 'canary-server'"));
    }
    // One is right at the server, the others are refused there.
    // Known to it alone: asked for SCRAM, and in the clear.
    cluster.psql("CREATE ROLE passed LOGIN PASSWORD 'canary-passed'; ALTER ROLE plainuser PASSWORD 'canary-passed'");
    cluster.psql("ALTER ROLE app PASSWORD 'canary-users'; ALTER ROLE environed PASSWORD 'canary-environment'");
    let (ca, dir) = (Ca::new(), TempDir::new("secrets"));
    let toml = configuration(dir.path(), cluster.port(), &ca);
    for (method, format) in [("scram-sha-256", "text"), ("md5", "json"), ("plain", "text")] {
        let pooler = Setup::toml(&toml)
            .env("CANARY", "canary-environment")
            .env("PGSLUICE_AUTH_TYPE", method)
            .env("PGSLUICE_LOG_FORMAT", format)
            .start();
        exercise(&pooler, &ca);
        look(&pooler);
        // A reload of what is broken, in a line with a secret.
        let list = dir.path().join("userlist.txt");
        let good = fs::read_to_string(&list).unwrap();
        fs::write(&list, format!("{good}\"app\" canary-broken\n")).unwrap();
        pooler.signal("HUP");
        pooler.wait_for_log("the users cannot be used");
        fs::write(&list, good).unwrap();
        let log = pooler.log();
        for line in ["DEBUG", "login refused", "cannot open a server"] {
            assert!(log.contains(line), "no {line} in {log}");
        }
        scan("the log", &log);
        for (user, password) in [("app", "canary-users"), ("environed", "canary-environment"), ("app", "canary-wrong")]
        {
            assert!(!log.contains(&kept_hash(user, password)), "the log holds a hash of {user}'s");
        }
    }
}

#[test]
fn neither_check_nor_a_refusal_to_start_shows_secrets() {
    let (ca, dir) = (Ca::new(), TempDir::new("secrets"));
    let toml = configuration(dir.path(), 5432, &ca);
    let check = |text: &str, environment: &[(&str, &str)]| {
        let path = dir.path().join("check.toml");
        fs::write(&path, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
        command.arg("check").arg("--config").arg(&path).env_clear().envs(environment.iter().copied());
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let environment = [("CANARY", "canary-environment")];
    let (good, said) = check(&toml, &environment);
    assert!(good, "{said}");
    scan("check", &said);
    let broken = [
        toml.replace("password = \"canary-users\"", "password = canary-users"),
        toml.replace("password = \"canary-users\"", "password = [\"canary-users\"]"),
        toml.replace("password = \"canary-users\"", "pasword = \"canary-users\""),
        toml.replace("password = \"canary-users\"", "password_file = \"canary-users\""),
        toml.replace("password = \"canary-users\"", "password = \"canary-users"),
        toml.replace("postgres://app:canary-url@", "postgres//app:canary-url@"),
        toml.replace("127.0.0.1:1/app", "127.0.0.1:canary-url/app"),
        toml.replace("userlist.txt\"", "secret\""),
        format!("pool_size = 3\nhttp_token = \"{TOKEN}\"\n{toml}"),
    ];
    for text in broken {
        let (good, said) = check(&text, &environment);
        assert!(!good, "{text}");
        scan("check", &said);
    }
    for (name, value) in [
        ("DATABASE_URL", "postgres://app:canary-url@host:notaport/app"),
        ("DATABASE_URL", "canary-url"),
        ("PGSLUICE_HTTP_TOKEN", "canary wrong"),
        ("PGSLUICE_PASSWORD", "canary-url"),
        ("PGSLUICE_POOL_SIZE", "canary-url"),
        ("PGSLUICE_AUTH_TYPE", "canary-url"),
    ] {
        let (good, said) = check(&toml, &[environment[0], (name, value)]);
        assert!(!good, "{name}: {said}");
        if !matches!(name, "PGSLUICE_POOL_SIZE" | "PGSLUICE_AUTH_TYPE") {
            // A value of a setting that is no secret may be shown.
            scan(name, &said);
        }
    }
    // What a developer may print.
    let environment: Environment = environment.into_iter().collect();
    let path = dir.path().join("broken.toml");
    fs::write(&path, toml.replace("password = \"canary-users\"", "password = canary-users")).unwrap();
    let error = Config::load(Some(&path), &environment).unwrap_err();
    scan("an error", &format!("{error:?} {error}"));
    let path = dir.path().join("good.toml");
    fs::write(&path, &toml).unwrap();
    let config = Config::load(Some(&path), &environment).unwrap();
    scan("Debug", &format!("{config:?} {config:#?} {environment:?} {:?}", config.entries()));
}
