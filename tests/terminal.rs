//! `pgsluice report` and `pgsluice top` against a running pgsluice on a real PostgreSQL.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::process::{Command, Output};

use serde_json::Value;
use support::cluster;
use support::pooler::{Pooler, Setup};
use support::{TempDir, free_port, wait_for};

/// A value that must never come back.
const SECRET: &str = "zq82secretzq82";

fn pgsluice(pooler: &Pooler, arguments: &[&str]) -> Output {
    let url = format!("http://{}", pooler.http_address());
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
    command.args(arguments).args(["--url", &url]).env_remove("PGSLUICE_HTTP_TOKEN_FILE").output().unwrap()
}

/// Standard output of what must succeed.
fn said(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Requests of `^books/$`: with an N+1, or mended.
fn serve(pooler: &Pooler, table: &str, requests: usize, mended: bool) {
    let tag = "/*route='^books/$'*/";
    let mut client = pooler.client("app");
    for _ in 0..requests {
        // What begins a request.
        client.simple(&format!("SELECT 1 {tag}")).unwrap();
        let join = if mended {
            format!(r#" INNER JOIN "{table}_author" ON ("{table}_book"."author_id" = "{table}_author"."id")"#)
        } else {
            String::new()
        };
        client
            .simple(&format!(
                r#"SELECT "{table}_book"."id", "{table}_book"."author_id" FROM "{table}_book"{join} WHERE "{table}_book"."note" <> '{SECRET}' {tag}"#
            ))
            .unwrap();
        for id in 1..=30 * usize::from(!mended) {
            client
                .simple(&format!(
                    r#"SELECT "{table}_author"."id", "{table}_author"."name" FROM "{table}_author" WHERE "{table}_author"."id" = {id} LIMIT 21 {tag}"#
                ))
                .unwrap();
        }
    }
    client.terminate();
}

fn tables(pooler: &Pooler, table: &str) {
    let mut client = pooler.client("app");
    for sql in [
        format!("CREATE TABLE IF NOT EXISTS {table}_author (id int PRIMARY KEY, name text)"),
        format!("CREATE TABLE IF NOT EXISTS {table}_book (id int, author_id int, note text)"),
        format!("INSERT INTO {table}_author SELECT i, 'x' FROM generate_series(1, 30) i ON CONFLICT DO NOTHING"),
        format!("TRUNCATE {table}_book"),
        format!("INSERT INTO {table}_book SELECT i, i, 'x' FROM generate_series(1, 30) i"),
    ] {
        client.simple(&sql).unwrap();
    }
    client.terminate();
}

fn items(pooler: &Pooler, path: &str) -> Vec<Value> {
    let (status, body) = pooler.get(&format!("/api/v1/{path}"));
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str::<Value>(&body).unwrap()["items"].as_array().unwrap().clone()
}

/// A pooler that has served `requests` with an N+1.
fn busy(table: &str, requests: usize) -> Pooler {
    let pooler = Setup::url(cluster::shared(), "app").start();
    tables(&pooler, table);
    serve(&pooler, table, requests, false);
    wait_for("all bursts", || {
        items(&pooler, "findings?kind=n_plus_one").iter().any(|f| f["bursts"] == requests).then_some(())
    });
    pooler
}

#[test]
fn a_report_in_every_form() {
    let pooler = busy("term1", 2);
    let md = said(&pgsluice(&pooler, &["report"]));
    for word in [
        "# What the application asks of its database",
        "## What to change, most gain first",
        "Expected gain: at least",
        "```python\nBook.objects.select_related(\"author\")\n```",
        "| app/app | transaction |",
        "No client is pinned",
        "p99",
        "^books/",
    ] {
        assert!(md.contains(word), "{word} is missing:\n{md}");
    }
    let html = said(&pgsluice(&pooler, &["report", "--format", "html"]));
    assert!(html.contains("<svg") && html.contains("One burst as it ran") && html.contains("select_related"), "{html}");
    for word in ["<script", "http://", "https://", "<link", "url("] {
        let own = format!("at {}", pooler.http_address());
        assert!(!html.replace(&own, "").contains(word), "{word}: {html}");
    }
    let json: Value = serde_json::from_str(&said(&pgsluice(&pooler, &["report", "--format", "json"]))).unwrap();
    assert_eq!((&json["pgsluice_report"], &json["findings"][0]["bursts"]), (&1.into(), &2.into()));
    assert!(json["window"]["statements"].as_f64().unwrap() >= 64.0, "{}", json["window"]);
    let causes = json["causes"].as_array().unwrap();
    assert!(causes.iter().any(|cause| cause["kind"] == "n_plus_one"), "{causes:?}");
    for text in [md, html, json.to_string()] {
        assert!(!text.contains(SECRET));
    }
}

#[test]
fn a_mend_is_seen_beside_the_report_before_it() {
    let pooler = busy("term2", 5);
    let dir = TempDir::new("report");
    let file = dir.path().join("before.json");
    std::fs::write(&file, said(&pgsluice(&pooler, &["report", "--format", "json"]))).unwrap();
    let compare = |format: &str| {
        said(&pgsluice(&pooler, &["report", "--format", format, "--compare", &file.display().to_string()]))
    };
    // Nobody came: that is no mend.
    let json: Value = serde_json::from_str(&compare("json")).unwrap();
    assert_eq!(json["comparison"]["findings"][0]["verdict"], "no traffic");
    serve(&pooler, "term2", 5, true);
    let json: Value = wait_for("the requests to be over", || {
        let json: Value = serde_json::from_str(&compare("json")).unwrap();
        (json["comparison"]["after"]["requests"] == 5.0).then_some(json)
    });
    let comparison = &json["comparison"];
    assert_eq!(comparison["findings"][0]["verdict"], "gone", "{comparison}");
    assert!(comparison["saved_seconds_per_hour"].as_f64().unwrap() > 0.0, "{comparison}");
    let each = |side: &str| comparison[side]["queries_per_request"].as_f64().unwrap();
    assert!(each("before") > 5.0 * each("after"), "{comparison}");
    let md = compare("md");
    assert!(md.contains("| gone | n\\_plus\\_one in ^books/"), "{md}");
    assert!(compare("html").contains("Compared with the report of"));
}

#[test]
fn each_failure_has_its_exit_code() {
    let dir = TempDir::new("report");
    let (token, wrong, junk) = (dir.path().join("token"), dir.path().join("wrong"), dir.path().join("junk"));
    std::fs::write(&token, "token-of-the-terminal-tests\n").unwrap();
    std::fs::write(&wrong, "token-of-someone-else\n").unwrap();
    std::fs::write(&junk, "{}").unwrap();
    let pooler =
        Setup::url(cluster::shared(), "app").env("PGSLUICE_HTTP_TOKEN_FILE", &token.display().to_string()).start();
    let [token, wrong, junk] = [token, wrong, junk].map(|path| path.display().to_string());
    for command in [&["report"][..], &["top", "--once"]] {
        let run = |more: &[&str]| {
            let output = pgsluice(&pooler, &[command, more].concat());
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        assert_eq!(run(&["--token-file", &token]).0, Some(0));
        let (code, told) = run(&[]);
        assert!(code == Some(3) && told.contains("give --token-file"), "{told}");
        let (code, told) = run(&["--token-file", &wrong]);
        assert!(code == Some(3) && told.contains("refuses the token") && !told.contains("someone"), "{told}");
        let (code, told) = run(&["--token-file", "/does/not/exist"]);
        assert!(code == Some(5) && told.contains("/does/not/exist"), "{told}");
        let nobody = format!("http://127.0.0.1:{}", free_port());
        let output =
            Command::new(env!("CARGO_BIN_EXE_pgsluice")).args(command).args(["--url", &nobody]).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && told.contains("nothing listens there"), "{told}");
    }
    let output = pgsluice(&pooler, &["report", "--token-file", &token, "--compare", &junk]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(5) && told.contains("is no report"), "{told}");
}

/// A pgsluice before the API: every path of it is missing.
#[test]
fn an_older_pgsluice_is_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let old = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]).unwrap();
        stream.write_all(b"HTTP/1.0 404 Not Found\r\n\r\nnot found\n").unwrap();
    });
    let output = Command::new(env!("CARGO_BIN_EXE_pgsluice")).args(["report", "--url", &url]).output().unwrap();
    old.join().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(4) && told.contains("it is older"), "{told}");
}

/// A run with a finding, a client that lets its transaction idle, and one that is pinned.
fn all_at_once(table: &str) -> (Pooler, [support::raw::Client; 2]) {
    let pooler = busy(table, 2);
    let named = |name: &str, sql: &str| {
        let mut client = pooler.client("app");
        client.simple(&format!("SET application_name = '{name}'")).unwrap();
        client.simple(sql).unwrap();
        client
    };
    let clients = [named("holder", "BEGIN"), named("listener", "LISTEN news")];
    wait_for("both to hold a server", || {
        let pools = items(&pooler, "pools");
        (pools[0]["clients_pinned"] == 1 && pools[0]["servers_idle_in_transaction"] == 1).then_some(())
    });
    (pooler, clients)
}

#[test]
fn top_prints_all_once_for_a_pipe() {
    let (pooler, _clients) = all_at_once("term3");
    // Without --once, too: standard output is no terminal.
    for arguments in [&["top", "--once"][..], &["top"]] {
        let text = said(&pgsluice(&pooler, arguments));
        for word in [
            "Pools\n",
            "app/app",
            "Clients\n",
            "holder",
            "idle-tx",
            "listener",
            "LISTEN",
            "Findings\n",
            "n_plus_one",
            "^books/$",
            "Queries\n",
        ] {
            assert!(text.contains(word), "{word} is missing:\n{text}");
        }
        assert!(!text.contains(SECRET) && !text.contains('\u{1b}'), "{text}");
    }
}

/// The answers that the units of `top` draw are of a real run; `UPDATE_ANSWERS=1` writes them anew.
#[test]
fn the_answers_of_the_units_are_those_of_today() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/top/answers.json");
    let (pooler, _clients) = all_at_once("term4");
    let mut answers = serde_json::Map::new();
    answers.insert("status".to_owned(), serde_json::from_str(&pooler.get("/api/v1/status").1).unwrap());
    answers["status"]["settings"] = Value::Object(serde_json::Map::new());
    for list in ["pools", "pins", "findings", "queries"] {
        answers.insert(list.to_owned(), items(&pooler, &format!("{list}?limit=12")).into());
    }
    let answers = Value::Object(answers);
    if std::env::var_os("UPDATE_ANSWERS").is_some() {
        std::fs::write(path, format!("{answers:#}\n")).unwrap();
    }
    let written: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for list in ["pools", "pins", "findings", "queries"] {
        let keys = |value: &Value| value[list][0].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let (old, new) = (keys(&written), keys(&answers));
        // Fields are only added.
        let lost: Vec<_> = old.iter().filter(|key| !new.contains(key)).collect();
        assert!(lost.is_empty(), "{list}: {lost:?}");
    }
}
