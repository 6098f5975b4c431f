//! The JSON API over HTTP, on a real PostgreSQL: what it tells, its pages, its limits, and that no literal is in it.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;
use support::cluster;
use support::pooler::{Pooler, Setup};
use support::wait_for;

/// A value that must never come back.
const SECRET: &str = "zq81secretzq81";

fn json(pooler: &Pooler, path: &str) -> Value {
    let (status, body) = pooler.get(path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}\n{body}"))
}

/// A client with an `application_name`.
fn named(pooler: &Pooler, name: &str) -> support::raw::Client {
    let mut client = pooler.client("app");
    client.simple(&format!("SET application_name = '{name}'")).unwrap();
    client
}

fn items(pooler: &Pooler, path: &str) -> Vec<Value> {
    json(pooler, path)["items"].as_array().unwrap().clone()
}

/// A list of 30 books with a look-up of the author for each, tagged, and a slow statement. Tables of its own.
fn busy(table: &str) -> Pooler {
    let pooler = Setup::url(cluster::shared(), "app").start();
    let mut client = pooler.client("app");
    client.simple(&format!("CREATE TABLE IF NOT EXISTS {table}_author (id int PRIMARY KEY, name text)")).unwrap();
    client.simple(&format!("CREATE TABLE IF NOT EXISTS {table}_book (id int, author_id int, note text)")).unwrap();
    client
        .simple(&format!(
            "INSERT INTO {table}_author SELECT i, '{SECRET}' FROM generate_series(1, 30) i ON CONFLICT DO NOTHING"
        ))
        .unwrap();
    client.simple(&format!("TRUNCATE {table}_book")).unwrap();
    client.simple(&format!("INSERT INTO {table}_book SELECT i, i, 'x' FROM generate_series(1, 30) i")).unwrap();
    client.simple("SELECT pg_sleep(0.2)").unwrap();
    client.terminate();
    let mut client = named(&pooler, "shop-web");
    let tag = "/*route='^books/$'*/";
    for _ in 0..2 {
        client.simple(&format!("SELECT 1 {tag}")).unwrap();
        client
            .simple(&format!(
                r#"SELECT "{table}_book"."id", "{table}_book"."author_id" FROM "{table}_book" WHERE "{table}_book"."note" <> '{SECRET}' {tag}"#
            ))
            .unwrap();
        for id in 1..=30 {
            client
                .simple(&format!(
                    r#"SELECT "{table}_author"."id", "{table}_author"."name" FROM "{table}_author" WHERE "{table}_author"."id" = {id} LIMIT 21 {tag}"#
                ))
                .unwrap();
        }
    }
    client.terminate();
    wait_for("both bursts of the finding", || {
        items(&pooler, "/api/v1/findings?kind=n_plus_one").iter().any(|f| f["bursts"] == 2).then_some(())
    });
    pooler
}

#[test]
fn a_finding_says_everything() {
    let pooler = busy("api1");
    let findings = items(&pooler, "/api/v1/findings?kind=n_plus_one&route=%5Ebooks%2F%24");
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    for (field, value) in [
        ("kind", "n_plus_one"),
        ("confidence", "high"),
        ("database", "app"),
        ("route", "^books/$"),
        ("user", "app"),
        ("application", "shop-web"),
        ("relation", "fk"),
        ("mend", "Book.objects.select_related(\"author\")"),
    ] {
        assert_eq!(finding[field], value, "{field}");
    }
    assert_eq!((&finding["n_min"], &finding["n_max"], &finding["bursts"]), (&30.into(), &30.into(), &2.into()));
    assert_eq!((finding["queries"].as_u64(), finding["queries_per_burst"].as_f64()), (Some(60), Some(30.0)));
    assert!(finding["avoidable_floor_seconds"].as_f64().unwrap() > 0.0);
    assert!(finding["last_seen_unix_seconds"].as_f64() > finding["first_seen_unix_seconds"].as_f64());
    assert!(finding["advice"].as_str().unwrap().contains("select_related"), "{finding}");
    let author = &finding["statements"][0];
    assert!(author["text"].as_str().unwrap().contains("LIMIT $"), "{author}");
    assert!(finding["parent"]["text"].as_str().unwrap().contains("api1_book"));
    // Evidence and timeline of one burst.
    let example = &finding["example"];
    assert_eq!((&example["n"], &example["parent_rows"], &example["rows"]), (&30.into(), &30.into(), &30.into()));
    assert!(example["distinct_values"].as_u64().unwrap() > 20);
    let timeline = example["timeline"].as_array().unwrap();
    let roles: Vec<_> = timeline.iter().map(|step| step["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["parent", "loop"], "{timeline:?}");
    let (parent, repeated) = (&timeline[0], &timeline[1]);
    assert_eq!(
        (&parent["fingerprint"], &repeated["fingerprint"]),
        (&finding["parent"]["fingerprint"], &author["fingerprint"])
    );
    assert_eq!((&parent["rows"], &repeated["executions"]), (&30.into(), &30.into()));
    assert!(parent["end_us"].as_u64() <= repeated["start_us"].as_u64());
    // One by its id; none by another.
    let id = finding["id"].as_str().unwrap();
    assert_eq!(json(&pooler, &format!("/api/v1/findings/{id}"))["id"], id);
    assert_eq!(pooler.get("/api/v1/findings/000000000000").0, 404);
    assert!(items(&pooler, "/api/v1/findings?route=other").is_empty());
    assert!(items(&pooler, "/api/v1/findings?database=nothing").is_empty());
}

#[test]
fn statements_have_percentiles_shares_and_links() {
    let pooler = busy("api2");
    let queries = items(&pooler, "/api/v1/queries?database=app&limit=100");
    let find = |word: &str| {
        let has = |query: &&Value| query["text"].as_str().unwrap().contains(word);
        queries.iter().find(has).unwrap_or_else(|| panic!("no {word} in {queries:?}"))
    };
    let seconds = |query: &Value, field: &str| query[field].as_f64().unwrap();
    let slow = find("pg_sleep");
    for field in ["p50_seconds", "p95_seconds", "p99_seconds", "max_seconds", "mean_seconds", "total_seconds"] {
        let value = seconds(slow, field);
        assert!((0.19..1.0).contains(&value), "{field}: {value}");
    }
    let author = find("api2_author\".\"id\" =");
    assert_eq!((author["calls"].as_u64(), author["rows"].as_u64()), (Some(60), Some(60)));
    let order = ["p50_seconds", "p95_seconds", "p99_seconds", "max_seconds"].map(|field| seconds(author, field));
    assert!(order.is_sorted() && order[0] > 0.0, "{order:?}");
    assert_eq!(author["routes"], serde_json::json!(["^books/$"]));
    assert_eq!((&author["access"], &author["operation"]), (&"read".into(), &"select".into()));
    assert_eq!(find("TRUNCATE")["access"], "write");
    assert_eq!(author["findings"].as_array().unwrap().len(), 1, "{author}");
    let shares: f64 = queries.iter().map(|query| seconds(query, "share")).sum();
    assert!((shares - 1.0).abs() < 0.01, "{shares}");
    let totals: Vec<_> = queries.iter().map(|query| seconds(query, "total_seconds")).collect();
    assert!(totals.is_sorted_by(|a, b| a >= b), "costliest first");
    // Other orders, one by its id, only those of a route.
    let calls = items(&pooler, "/api/v1/queries?order=calls&limit=1");
    assert_eq!(calls[0]["fingerprint"], author["fingerprint"]);
    let path = format!("/api/v1/queries/{}", author["fingerprint"].as_str().unwrap());
    assert_eq!(json(&pooler, &path)["calls"], 60);
    let of_route = items(&pooler, "/api/v1/queries?route=%5Ebooks%2F%24");
    assert_eq!(of_route.len(), 3, "{of_route:?}");
    let tables = items(&pooler, "/api/v1/tables?database=app&limit=1000");
    let table = tables.iter().find(|table| table["table"] == "api2_author").unwrap();
    assert!(table["reads"].as_u64() >= Some(60) && table["writes"].as_u64() >= Some(1), "{table}");
}

#[test]
fn requests_are_counted_by_route() {
    let pooler = busy("api3");
    let routes = items(&pooler, "/api/v1/routes?route=%5Ebooks%2F%24");
    let [route] = &routes[..] else { panic!("{routes:?}") };
    // 32 each, and what named the application before the first.
    assert_eq!((route["requests"].as_u64(), route["queries"].as_u64()), (Some(2), Some(65)), "{route}");
    assert_eq!((route["queries_per_request"].as_f64(), route["max_queries"].as_u64()), (Some(32.5), Some(33)));
    assert_eq!(route["findings"].as_array().unwrap().len(), 1);
    assert!(route["db_seconds"].as_f64().unwrap() > 0.0);
    assert!(route["elapsed_seconds"].as_f64() >= route["db_seconds"].as_f64());
    let untagged = items(&pooler, "/api/v1/routes?route=");
    assert!(untagged.iter().any(|route| route["route"].is_null() && route["database"] == "app"), "{untagged:?}");
}

#[test]
fn pools_tell_who_holds_what_and_pins_why() {
    let pooler = Setup::url(cluster::shared(), "app").env("PGSLUICE_POOL_SIZE", "2").start();
    let mut holder = named(&pooler, "holder");
    holder.simple("BEGIN").unwrap();
    let mut listener = named(&pooler, "listener");
    listener.simple("LISTEN news").unwrap();
    let pool = wait_for("the listener to be pinned", || {
        let pools = items(&pooler, "/api/v1/pools?database=app&user=app");
        (pools[0]["clients_pinned"] == 1).then(|| pools[0].clone())
    });
    assert_eq!((&pool["mode"], &pool["size"]), (&"transaction".into(), &2.into()));
    assert_eq!((&pool["servers_active"], &pool["servers_idle_in_transaction"]), (&2.into(), &1.into()));
    let holders = pool["holders"].as_array().unwrap();
    let by = |name: &str| holders.iter().find(|held| held["application"] == name).unwrap_or_else(|| panic!("{pool}"));
    assert_eq!(by("holder")["state"], "idle in transaction");
    assert!(by("holder")["transaction_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(by("listener")["pinned"], "LISTEN");
    let pins = items(&pooler, "/api/v1/pins");
    let [pin] = &pins[..] else { panic!("{pins:?}") };
    assert_eq!(
        (&pin["kind"], &pin["application"], &pin["user"]),
        (&"listen".into(), &"listener".into(), &"app".into())
    );
    assert!(pin["mend"].as_str().unwrap().contains("UNLISTEN"));
    // A third client waits, and then its wait is in the percentiles.
    let address = pooler.address();
    let waiting = std::thread::spawn(move || {
        let mut client = support::raw::Client::open(address, "app", cluster::PASSWORD, cluster::DATABASE).unwrap();
        client.simple("SELECT 1").unwrap();
    });
    wait_for("a client to wait", || {
        let pools = items(&pooler, "/api/v1/pools");
        (pools[0]["clients_waiting"] == 1 && pools[0]["longest_wait_seconds"].as_f64()? > 0.1).then_some(())
    });
    holder.simple("COMMIT").unwrap();
    waiting.join().unwrap();
    let pools = items(&pooler, "/api/v1/pools");
    assert!(pools[0]["wait_p99_seconds"].as_f64().unwrap() > 0.05, "{}", pools[0]);
    assert!(pools[0]["wait_total_seconds"].as_f64().unwrap() > 0.1);
    listener.simple("UNLISTEN *").unwrap();
    wait_for("the pin to end", || items(&pooler, "/api/v1/pins").is_empty().then_some(()));
}

#[test]
fn the_status_names_version_settings_and_what_was_left_out() {
    let token = "token-of-the-api-tests";
    let pooler = Setup::url(cluster::shared(), "app").env("PGSLUICE_HTTP_TOKEN", token).start();
    let mut client = pooler.client("app");
    (0..260).for_each(|number| drop(client.simple(&format!("SELECT {number} AS c{number}")).unwrap()));
    let (head, body) = get(&pooler, "/api/v1/status", Some(token));
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/json"), "{head}");
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["settings"]["pool_mode"], "transaction");
    assert_eq!(status["settings"]["http_token"], "(set)");
    assert!(!body.contains(token) && !body.contains(cluster::PASSWORD));
    assert_eq!(status["clients"], 1);
    assert!(status["insight"]["statements"]["lexed"].as_u64().unwrap() >= 260, "{status}");
    assert!(status["insight"]["statements_without_fingerprint"].as_u64().unwrap() >= 60, "{status}");
    assert!(status["insight"]["memory_bytes"]["series"].as_u64().unwrap() > 0);
    // Nothing without the token.
    for path in ["/api/v1/status", "/api/v1/findings", "/api/v1/nothing"] {
        assert!(get(&pooler, path, None).0.starts_with("HTTP/1.1 401"), "{path}");
        assert!(get(&pooler, path, Some("another-token-16-characters")).0.starts_with("HTTP/1.1 401"), "{path}");
    }
}

/// GET with a token: head and body.
fn get(pooler: &Pooler, path: &str, token: Option<&str>) -> (String, String) {
    let mut stream = TcpStream::connect(pooler.http_address()).unwrap();
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{authorization}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[test]
fn pages_do_not_overlap_and_errors_are_json() {
    let pooler = Setup::url(cluster::shared(), "app").start();
    let mut client = pooler.client("app");
    (0..40).for_each(|number| drop(client.simple(&format!("SELECT {number} AS c{number}")).unwrap()));
    let path = "/api/v1/queries?order=calls&database=app";
    let total = json(&pooler, path)["total"].as_u64().unwrap();
    assert!(total >= 40, "{total}");
    let mut seen = BTreeSet::new();
    for offset in (0..total + 7).step_by(7) {
        let page = items(&pooler, &format!("{path}&limit=7&offset={offset}"));
        assert!(page.len() <= 7);
        for query in page {
            assert!(seen.insert(query["fingerprint"].as_str().unwrap().to_owned()), "{query} is on two pages");
        }
    }
    assert_eq!(seen.len() as u64, total);
    for (path, status) in [
        ("/api/v1/queries?limit=1001", 400),
        ("/api/v1/queries?limit=x", 400),
        ("/api/v1/queries?order=name", 400),
        ("/api/v1/queries?ordre=calls", 400),
        ("/api/v1/queries?database=%zz", 400),
        ("/api/v1/findings?min_severity=terrible", 400),
        ("/api/v1/queries/xyz", 404),
        ("/api/v1/queries/0000000000000000", 404),
        ("/api/v1/status/1", 404),
        ("/api/v1/", 404),
        ("/api/v2/status", 404),
    ] {
        let (found, body) = pooler.get(path);
        assert_eq!(found, status, "{path}: {body}");
        if path.starts_with("/api/v1/") {
            assert!(serde_json::from_str::<Value>(&body).unwrap()["error"].is_string(), "{body}");
        }
    }
}

#[test]
fn another_sites_page_is_not_answered() {
    let pooler = Setup::url(cluster::shared(), "app").start();
    let mut stream = TcpStream::connect(pooler.http_address()).unwrap();
    write!(stream, "GET /api/v1/queries HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("http_token"), "{answer}");
}

/// Paths of the document's headings.
fn documented() -> Vec<String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md")).unwrap();
    text.lines().filter_map(|line| line.strip_prefix("## GET ")).map(str::to_owned).collect()
}

#[test]
fn what_is_documented_answers_and_holds_no_literal() {
    let pooler = busy("api4");
    let paths = documented();
    assert!(paths.len() >= 7, "{paths:?}");
    for path in paths {
        let path = if path.ends_with("/compare") { format!("{path}?from=1") } else { path };
        let (status, body) = pooler.get(&path);
        assert_eq!(status, 200, "{path}: {body}");
        assert!(!body.contains(SECRET), "{path} shows a literal");
    }
}

#[test]
fn the_history_tells_when_and_survives_a_restart() {
    let dir = support::TempDir::new("history");
    let file = dir.path().join("history");
    let setup = Setup::url(cluster::shared(), "app")
        .env("PGSLUICE_INSIGHT_HISTORY_INTERVAL", "1s")
        .env("PGSLUICE_INSIGHT_HISTORY_FILE", file.to_str().unwrap());
    let mut pooler = setup.start();
    let mut client = pooler.client("app");
    let sleep = |client: &mut support::raw::Client, n: usize, seconds: f64| {
        (0..n).for_each(|_| drop(client.simple(&format!("SELECT pg_sleep({seconds}) AS {SECRET}_name")).unwrap()));
    };
    sleep(&mut client, 10, 0.05);
    // Until both are in closed intervals.
    let closed = |pooler: &Pooler, least: f64| {
        let all = items(pooler, "/api/v1/history?limit=1000");
        let closed = &all[..all.len().saturating_sub(1)];
        let calls: f64 = closed.iter().map(|interval| interval["calls"].as_f64().unwrap()).sum();
        (calls >= least).then(|| all.clone())
    };
    let all = wait_for("ten calls in closed intervals", || closed(&pooler, 10.0));
    let ends: Vec<_> =
        all.iter().map(|i| (i["from_unix_seconds"].as_f64().unwrap(), i["length_seconds"].as_f64().unwrap())).collect();
    assert!(ends.windows(2).all(|pair| (pair[0].0 + pair[0].1 - pair[1].0).abs() < 0.01), "no gaps: {ends:?}");
    let seconds: f64 = all.iter().map(|interval| interval["db_seconds"].as_f64().unwrap()).sum();
    assert!((0.5..3.0).contains(&seconds), "{seconds}");
    let detailed = items(&pooler, "/api/v1/history?detail=all&limit=1000");
    let parts: Vec<_> = detailed.iter().flat_map(|i| i["statements"].as_array().unwrap()).collect();
    let fingerprint = parts[0]["fingerprint"].as_str().unwrap().to_owned();
    let of_one = items(&pooler, &format!("/api/v1/history?fingerprint={fingerprint}&limit=1000"));
    let calls: u64 =
        of_one.iter().flat_map(|i| i["statements"].as_array().unwrap()).map(|p| p["calls"].as_u64().unwrap()).sum();
    assert_eq!(calls, 10);
    assert!(items(&pooler, "/api/v1/history?to=1000").is_empty());
    // The mend: the same statement, quicker.
    let middle = wait_for("an interval without a call", || {
        let all = items(&pooler, "/api/v1/history?limit=1000");
        let (open, before) = (all.last()?, all.get(all.len().checked_sub(2)?)?);
        (before["calls"] == 0 && open["calls"] == 0).then(|| before["from_unix_seconds"].as_f64().unwrap())
    });
    sleep(&mut client, 10, 0.001);
    wait_for("twenty calls in closed intervals", || closed(&pooler, 20.0));
    let compared = json(&pooler, &format!("/api/v1/compare?from={middle}&window_seconds=30"));
    let (before, after) = (&compared["before"], &compared["after"]);
    assert!(
        before["known_seconds"].as_f64().unwrap() > 0.9 && after["known_seconds"].as_f64().unwrap() > 0.9,
        "{compared}"
    );
    let change = &compared["statements"].as_array().unwrap().iter().find(|c| c["fingerprint"] == *fingerprint).unwrap();
    assert!(
        change["before_mean_seconds"].as_f64() > Some(0.045) && change["after_mean_seconds"].as_f64() < Some(0.045)
    );
    assert!(change["change_seconds_per_hour"].as_f64() < Some(0.0), "{compared}");
    assert!(change["text"].as_str().unwrap().contains("pg_sleep"));
    for wrong in
        ["compare", "compare?from=x", "compare?from=5&to=4", "compare?from=5&window_seconds=0", "history?from=nan"]
    {
        assert_eq!(pooler.get(&format!("/api/v1/{wrong}")).0, 400, "{wrong}");
    }
    // After a restart it is still known.
    client.terminate();
    pooler.stop("TERM");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(&fingerprint) && !text.contains(SECRET), "{text}");
    let pooler = setup.start();
    let calls = wait_for("the intervals of before", || {
        let of_one = items(&pooler, &format!("/api/v1/history?fingerprint={fingerprint}&limit=1000"));
        let parts = of_one.iter().flat_map(|i| i["statements"].as_array().unwrap());
        Some(parts.map(|p| p["calls"].as_u64().unwrap()).sum::<u64>()).filter(|calls| *calls > 0)
    });
    assert_eq!(calls, 20);
}
