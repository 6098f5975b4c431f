//! `/metrics` and the health pages over HTTP.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use support::cluster::{self, Cluster, DATABASE};
use support::pooler::{Pooler, Setup};
use support::{DEADLINE, TempDir, raw, skip, wait_for};

/// A pooler with some traffic behind it: queries, an error, a transaction, a loop, a failed login.
fn busy() -> Pooler {
    let pooler = Setup::url(cluster::shared(), "app").start();
    let mut client = pooler.client("app");
    client.simple("CREATE TABLE IF NOT EXISTS shelf (id int PRIMARY KEY, label text)").unwrap();
    client.simple("INSERT INTO shelf SELECT i, i::text FROM generate_series(1, 30) i ON CONFLICT DO NOTHING").unwrap();
    client.simple("SELECT id FROM shelf").unwrap();
    for i in 1..=30 {
        client.extended("SELECT label FROM shelf WHERE id = $1", &[Some(&i.to_string())]).unwrap();
    }
    client.simple("BEGIN").unwrap();
    client.simple("SELECT 1/0").unwrap_err();
    client.simple("ROLLBACK").unwrap();
    pooler.try_client("app", "wrong", DATABASE).err().unwrap();
    client.terminate();
    wait_for("the findings", || (pooler.metric("pgsluice_fingerprint_calls_total", &[]) > 30.0).then_some(()));
    pooler
}

#[test]
fn promtool_finds_nothing_wrong() {
    let pooler = busy();
    let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        return skip("promtool is not installed (Debian: prometheus)");
    };
    promtool.stdin.take().unwrap().write_all(pooler.metrics().as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// A family of the exposition, or of the document.
#[derive(Default, PartialEq, Debug)]
struct Family {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

/// Families as exposed; fails when the samples of one do not stand together.
fn exposed(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines().filter(|l| !l.is_empty()) {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (what, name, value) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            name.clone_into(&mut current);
            let family = families.entry(name.to_owned()).or_default();
            let slot = if what == "HELP" { &mut family.help } else { &mut family.kind };
            assert!(slot.is_empty(), "{name} has {what} twice");
            value.clone_into(slot);
            continue;
        }
        let name = line.split(['{', ' ']).next().unwrap();
        let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{name} stands under {current}"));
        assert!(["", "_bucket", "_sum", "_count"].contains(&suffix), "{name} stands under {current}");
        let value = line.rsplit(' ').next().unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let Some((_, labels)) = line.split_once('{') else {
            continue;
        };
        // No label value of this test holds a quote.
        let names = labels.split('"').step_by(2).filter_map(|l| l.trim_start_matches(',').strip_suffix('='));
        let family = families.get_mut(&current).unwrap();
        family.labels.extend(names.filter(|n| *n != "le").map(str::to_owned));
    }
    families
}

fn documented() -> BTreeMap<String, Family> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let row = |line: &str| {
        let cells: Vec<_> = line.strip_prefix("| `")?.strip_suffix(" |")?.splitn(4, " | ").collect();
        let labels = cells[2].split(", ").map(|l| l.trim_matches('`').to_owned());
        let family = Family {
            kind: cells[1].to_owned(),
            help: cells[3].to_owned(),
            labels: labels.filter(|l| !l.is_empty()).collect(),
        };
        Some((cells[0].trim_end_matches('`').to_owned(), family))
    };
    text.lines().filter_map(row).collect()
}

#[test]
fn what_is_exposed_is_what_is_documented() {
    let pooler = busy();
    let (exposed, documented) = (exposed(&pooler.metrics()), documented());
    for (name, mut family) in exposed {
        let known = documented.get(&name).unwrap_or_else(|| panic!("{name} is not in docs/metrics.md"));
        if family.labels.is_empty() {
            // No series yet.
            family.labels.clone_from(&known.labels);
        }
        assert_eq!(&family, known, "{name}");
    }
    let families = self::exposed(&pooler.metrics());
    let missing: Vec<_> = documented.keys().filter(|n| !families.contains_key(*n)).collect();
    assert!(missing.is_empty(), "documented, but not exposed: {missing:?}");
}

#[test]
fn the_oldest_transaction_is_told() {
    let cluster = Cluster::start(&[]);
    let pooler = Setup::url(&cluster, "app").env("PGSLUICE_POOL_SIZE", "3").start();
    let oldest = || pooler.metric("pgsluice_oldest_transaction_start_timestamp_seconds", &["database=\"app\""]);
    let unix = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    let becomes = |what: &str, is: &dyn Fn(f64) -> bool| wait_for(what, || is(oldest()).then_some(oldest()));
    let (mut first, mut second) = (pooler.client("app"), pooler.client("app"));
    first.simple("SELECT 1").unwrap();
    becomes("none", &|at| at == 0.0);
    let before = unix();
    first.simple("BEGIN").unwrap();
    let between = unix();
    second.simple("BEGIN").unwrap();
    first.simple("SELECT 1").unwrap();
    // The clocks that are compared round differently.
    let slack = 0.01;
    becomes("the first", &|at| at >= before - slack && at <= between + slack);
    first.simple("COMMIT").unwrap();
    becomes("the second", &|at| at >= between - slack && at <= unix() + slack);
    // A client that vanishes is rolled back, and its server is as good as new.
    drop(second);
    becomes("none again", &|at| at == 0.0);
    first.simple("SELECT 1").unwrap();
    becomes("none still", &|at| at == 0.0);
}

#[test]
fn numbers_are_what_happened() {
    let cluster = Cluster::start(&[]);
    let pooler = Setup::url(&cluster, "app").env("PGSLUICE_POOL_SIZE", "1").start();
    let of = |name: &str, labels: &[&str]| pooler.metric(&format!("pgsluice_{name}"), labels);
    // The answer may reach the client a moment before all of its counters move.
    let becomes = |name: &str, labels: &[&str], value: f64| {
        wait_for(&format!("{name}{labels:?} to be {value}"), || (of(name, labels) == value).then_some(()));
    };
    let pool = "database=\"app\",user=\"app\"";
    let mut client = pooler.client("app");
    client.simple("BEGIN").unwrap();
    client.simple("SELECT 1").unwrap();
    becomes("pool_connections", &[pool, "state=\"active\""], 1.0);
    becomes("client_connections", &["database=\"app\"", "state=\"in_transaction\""], 1.0);
    let mut waiter = pooler.client("app");
    waiter.send(&raw::query("SELECT 2")).unwrap();
    wait_for("a waiting client", || (of("pool_waiting_clients", &[pool]) == 1.0).then_some(()));
    becomes("client_connections", &["database=\"app\"", "state=\"waiting\""], 1.0);
    let since = of("pool_longest_wait_start_timestamp_seconds", &[pool]);
    let started = pooler.metric("process_start_time_seconds", &[]);
    assert!(since >= started && since < started + 3600.0, "{since} {started}");
    client.simple("COMMIT").unwrap();
    waiter.answer().unwrap();
    becomes("pool_longest_wait_start_timestamp_seconds", &[pool], 0.0);
    becomes("pool_transactions_total", &[pool], 2.0);
    becomes("pool_queries_total", &[pool], 4.0);
    becomes("pool_connections_max", &[pool], 1.0);
    becomes("server_connects_total", &["database=\"app\"", "result=\"ok\""], 1.0);
    becomes("server_connect_seconds_count", &["database=\"app\""], 1.0);
    becomes("client_connects_total", &["result=\"ok\""], 2.0);
    becomes("client_login_seconds_count", &[], 2.0);
    assert!(of("pool_wait_seconds_sum", &[pool]) > 0.0);
    pooler.try_client("app", "wrong", DATABASE).err().unwrap();
    becomes("client_connects_total", &["result=\"auth\""], 1.0);
    for name in ["process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"] {
        assert!(pooler.metric(name, &[]) > 0.0, "{name}");
    }
}

/// A request as written; the whole answer.
fn exchange(pooler: &Pooler, request: &str) -> String {
    let mut stream = TcpStream::connect_timeout(&pooler.http_address(), DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let _ = stream.write_all(request.as_bytes());
    let mut answer = String::new();
    // A server that hangs up in the middle of a hostile request may reset the connection.
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn pages_methods_and_limits() {
    let pooler = Setup::url(cluster::shared(), "app").start();
    let ask = |line: &str| exchange(&pooler, &format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    let metrics = ask("GET /metrics?x=1");
    assert!(metrics.starts_with("HTTP/1.1 200 "), "{metrics}");
    assert!(metrics.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{metrics}");
    let head = ask("HEAD /metrics");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    for (line, status) in [
        ("GET /", 200),
        ("GET /livez", 200),
        ("GET /startupz", 200),
        ("GET /nothing", 404),
        ("POST /metrics", 405),
        ("DELETE /", 405),
    ] {
        assert!(ask(line).starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {}", ask(line));
    }
    assert!(ask("POST /").contains("allow: GET, HEAD\r\n"));
    let long = exchange(&pooler, &format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(64 * 1024)));
    assert!(long.is_empty() || long.starts_with("HTTP/1.1 431 "), "{long}");
    assert!(exchange(&pooler, "\0\0 nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    // Idle connections up to the limit do not keep others out for long: each is given up.
    let idle: Vec<_> = (0..64).map(|_| TcpStream::connect_timeout(&pooler.http_address(), DEADLINE).unwrap()).collect();
    assert!(ask("GET /healthz").starts_with("HTTP/1.1 200 "));
    drop(idle);
}

#[test]
fn a_token_guards_everything_but_the_health_pages() {
    let dir = TempDir::new("token");
    let file = dir.path().join("token");
    std::fs::write(&file, "the-first-token-of-all\n").unwrap();
    let pooler =
        Setup::url(cluster::shared(), "app").env("PGSLUICE_HTTP_TOKEN_FILE", &file.display().to_string()).start();
    let ask = |path: &str, header: &str| {
        exchange(&pooler, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n"))
    };
    for page in ["/healthz", "/livez", "/readyz", "/startupz"] {
        // Not ready yet, perhaps; but told.
        let told = ask(page, "");
        assert!(told.starts_with("HTTP/1.1 200 ") || told.starts_with("HTTP/1.1 503 "), "{page}: {told}");
    }
    for page in ["/", "/metrics", "/nothing"] {
        for header in ["", "Authorization: Bearer the-first-token-of-al\r\n", "Authorization: Basic OjE=\r\n"] {
            let told = ask(page, header);
            assert!(told.starts_with("HTTP/1.1 401 ") && !told.contains("pgsluice_"), "{page} {header}: {told}");
        }
    }
    assert!(ask("/metrics", "").contains("www-authenticate: Bearer"));
    let (first, second) =
        ("Authorization: Bearer the-first-token-of-all\r\n", "Authorization: Bearer another-token-of-them\r\n");
    assert!(ask("/metrics", first).starts_with("HTTP/1.1 200 "));
    // Exchanged, as mounted secrets are; what is no token changes nothing.
    std::fs::write(&file, "short").unwrap();
    assert!(ask("/metrics", first).starts_with("HTTP/1.1 200 "));
    std::fs::write(&file, "another-token-of-them").unwrap();
    assert!(ask("/metrics", second).starts_with("HTTP/1.1 200 "));
    assert!(ask("/metrics", first).starts_with("HTTP/1.1 401 "));
    let log = pooler.log();
    assert!(log.contains("http_token_file has changed and is not used") && !log.contains("token-of"), "{log}");
}

#[test]
fn readiness_tells_of_the_database_and_comes_back() {
    let cluster = Cluster::start(&[]);
    let pooler = Setup::url(&cluster, "app").start();
    // The first server is opened at the start, before any client asks.
    wait_for("/readyz", || (pooler.get("/readyz") == (200, "ok\n".to_owned())).then_some(()));
    cluster.stop();
    pooler.try_client("app", cluster::PASSWORD, DATABASE).err().unwrap();
    let (status, why) = pooler.get("/readyz");
    assert_eq!((status, why.lines().count()), (503, 1), "{why}");
    assert!(why.contains("\"app\""), "{why}");
    assert_eq!(pooler.get("/healthz").0, 200);
    assert!(pooler.metric("pgsluice_server_connects_total", &["result=\"refused\""]) >= 1.0);
    cluster.launch_again();
    wait_for("the database again", || pooler.try_client("app", cluster::PASSWORD, DATABASE).ok());
    assert_eq!(pooler.get("/readyz").0, 200);
}

#[test]
fn a_name_that_a_client_made_up_takes_no_readiness_away() {
    let cluster = cluster::shared();
    let server = format!("host = \"127.0.0.1\"\nport = {}\n", cluster.port());
    let users = format!("[users.app]\npassword = \"{}\"\n", cluster::PASSWORD);
    let pooler = Setup::toml(&format!("[databases.\"*\"]\n{server}{users}")).start();
    let refused = |pooler: &Pooler, database| pooler.try_client("app", cluster::PASSWORD, database).err().unwrap();
    assert_eq!(refused(&pooler, "made_up").code(), "3D000");
    assert_eq!(pooler.get("/readyz").0, 200);
    // One of the configuration that is not there is another matter: such a pod should get no traffic, ever.
    let pooler = Setup::toml(&format!("[databases.named]\n{server}{users}")).start();
    assert_eq!(pooler.get("/readyz").0, 503);
    assert_eq!(refused(&pooler, "named").code(), "3D000");
    assert_eq!(pooler.get("/readyz").0, 503);
}

#[test]
fn draining_is_not_ready() {
    let mut pooler = Setup::url(cluster::shared(), "app").start();
    let mut client = pooler.client("app");
    client.simple("BEGIN").unwrap();
    pooler.signal("TERM");
    wait_for("not ready", || (pooler.get("/readyz") == (503, "draining\n".to_owned())).then_some(()));
    assert_eq!(pooler.metric("pgsluice_draining", &[]), 1.0);
    assert_eq!(pooler.get("/healthz").0, 200);
    client.simple("COMMIT").unwrap();
    assert!(pooler.wait().success());
}

#[test]
fn names_from_clients_make_no_series_without_bound() {
    let cluster = cluster::shared();
    let toml = format!(
        "auth_type = \"any\"\n[databases.\"*\"]\nhost = \"127.0.0.1\"\nport = {}\ndbname = \"app\"\nuser = \"app\"\npassword = \"{}\"\nserver_idle_timeout = \"1s\"\n",
        cluster.port(),
        cluster::PASSWORD
    );
    let pooler = Setup::toml(&toml).start();
    for i in 0..120 {
        let mut client = pooler.try_client(&format!("u{i}"), "", "odd\"\\name").unwrap();
        client.simple("SELECT 1").unwrap();
    }
    let text = pooler.metrics();
    let own = text.lines().filter(|l| l.starts_with("pgsluice_pool_queries_total{")).count();
    assert_eq!(own, 101);
    assert_eq!(pooler.metric("pgsluice_pool_queries_total", &["user=\"other\""]), 20.0);
    assert_eq!(pooler.metric("pgsluice_pool_queries_total", &["database=\"odd\\\"\\\\name\""]), 100.0);
}
