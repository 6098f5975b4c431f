//! What is shipped for Prometheus and Grafana: rules by promtool, dashboards by the metrics that exist, and every query of
//! them on a real Prometheus that scraped a real run.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::cluster;
use support::pooler::{Pooler, Setup};
use support::{TempDir, free_port, skip};

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

/// Runs promtool; `None` (skipped) where there is none.
fn promtool(arguments: &[&str], file: &Path) -> Option<()> {
    let Ok(output) = Command::new("promtool").args(arguments).arg(file).output() else {
        skip("promtool is not installed (Debian: prometheus)");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("SUCCESS"), "{said}");
    Some(())
}

#[test]
fn rules_are_sound_and_fire_when_they_should() {
    promtool(&["check", "rules"], &deploy("prometheus/pgsluice.rules.yml"));
    promtool(&["test", "rules"], &deploy("prometheus/pgsluice.rules.test.yml"));
}

#[test]
fn dashboards_are_as_their_table_says() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/dashboards.py");
    let Ok(output) = Command::new("python3").arg(script).arg("--check").output() else {
        return skip("python3 is not installed");
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Queries of all panels: dashboard and title, query.
fn panels() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(deploy("grafana")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let board: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let title = format!("{name}: {}", panel["title"].as_str().unwrap());
                found.push((title, target["expr"].as_str().unwrap().to_owned()));
            }
        }
        names.insert(name);
    }
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["fleet", "nplusone", "overview", "pool", "queries"]);
    found
}

/// Names and expressions of the rules: every `expr:` of the file, be it one line or several.
fn rules() -> Vec<(String, String)> {
    let text = fs::read_to_string(deploy("prometheus/pgsluice.rules.yml")).unwrap();
    let mut found: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let bare = line.trim();
        if let Some(name) = bare.strip_prefix("- record: ").or_else(|| bare.strip_prefix("- alert: ")) {
            found.push((name.to_owned(), String::new()));
        }
        if let Some(expr) = bare.strip_prefix("expr:") {
            inside = expr.trim() == "|";
            found.last_mut().unwrap().1 = expr.trim().trim_start_matches('|').to_owned();
        } else if inside && line.starts_with("          ") {
            let expr = &mut found.last_mut().unwrap().1;
            expr.push(' ');
            expr.push_str(bare);
        } else {
            inside = false;
        }
    }
    found
}

/// Labels of each family, by docs/metrics.md.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let row = |line: &str| {
        let cells: Vec<_> = line.strip_prefix("| `")?.splitn(4, " | ").collect();
        let labels = cells[2].split(", ").map(|label| label.trim_matches('`').to_owned());
        Some((cells[0].trim_end_matches('`').to_owned(), labels.filter(|label| !label.is_empty()).collect()))
    };
    text.lines().filter_map(row).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).filter(|word| !word.is_empty())
}

/// Labels of an expression: before `=` and `!=` in braces, and in the lists of `by`, `on` and `group_left`.
fn labels(expr: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in expr.split('{').skip(1) {
        let matchers = part.split('}').next().unwrap();
        // No value of ours holds a quote.
        for text in matchers.split('"').step_by(2) {
            found.extend(words(text).map(str::to_owned));
        }
    }
    for word in ["by (", "on (", "group_left ("] {
        for part in expr.split(word).skip(1) {
            found.extend(words(part.split(')').next().unwrap()).map(str::to_owned));
        }
    }
    found
}

#[test]
fn queries_name_only_what_exists() {
    let known = documented();
    let rules = rules();
    let recorded: BTreeSet<_> = rules.iter().map(|(name, _)| name.clone()).filter(|name| name.contains(':')).collect();
    assert!(recorded.len() >= 5 && rules.iter().all(|(_, expr)| !expr.is_empty()), "{rules:?}");
    let panels = panels();
    assert!(panels.len() > 50, "{} queries", panels.len());
    for (title, expr) in panels.iter().chain(&rules) {
        let mut allowed: BTreeSet<String> = ["job", "instance", "le"].map(str::to_owned).into();
        let mut families = 0;
        for word in words(expr).filter(|word| word.starts_with("pgsluice") || word.starts_with("process_")) {
            if word == "pgsluice" || recorded.contains(word) {
                continue;
            }
            let family = ["_sum", "_count", "_bucket"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
            let own = known.get(word).or_else(|| known.get(family));
            allowed.extend(own.unwrap_or_else(|| panic!("{title}: no metric {word}")).iter().cloned());
            families += 1;
        }
        assert!(families > 0 || expr.contains("pgsluice:") || expr.starts_with("up{"), "{title}: {expr}");
        let unknown: Vec<_> = labels(expr).into_iter().filter(|label| !allowed.contains(label)).collect();
        assert!(unknown.is_empty(), "{title}: no labels {unknown:?} in {expr}");
    }
}

/// Prometheus that scrapes a pooler each second; ends with the test.
struct Prometheus {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    fn start(pooler: &Pooler) -> Option<Self> {
        let (dir, port) = (TempDir::new("prometheus"), free_port());
        let config = dir.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n\
             - {{job_name: pgsluice, static_configs: [{{targets: ['{}']}}]}}\n",
            deploy("prometheus/pgsluice.rules.yml").display(),
            pooler.http_address()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let Ok(child) = child else {
            skip("prometheus is not installed (Debian: prometheus)");
            return None;
        };
        Some(Self { child, port, _dir: dir })
    }

    /// Number of series that a query gives; `None` while it does not answer.
    fn series(&self, query: &str) -> Option<usize> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(stream, "GET /api/v1/query?query={encoded} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let body = answer.split_once("\r\n\r\n")?.1;
        let value: Value = serde_json::from_str(body).ok()?;
        assert_eq!(value["status"], "success", "{query}: {body}");
        let result = value["data"]["result"].as_array().unwrap();
        // 0/0 is no value.
        Some(result.iter().filter(|series| series["value"][1] != "NaN").count())
    }
}

/// Some of everything that is counted.
fn traffic(pooler: &Pooler) {
    let mut client = pooler.client("app");
    client.simple("CREATE TABLE IF NOT EXISTS dash (id int PRIMARY KEY, label text)").unwrap();
    client.simple("INSERT INTO dash SELECT i, i::text FROM generate_series(1, 30) i ON CONFLICT DO NOTHING").unwrap();
    for _ in 0..2 {
        client.simple("SELECT id FROM dash").unwrap();
        for i in 1..=30 {
            client.extended("SELECT label FROM dash WHERE id = $1", &[Some(&i.to_string())]).unwrap();
        }
    }
    client.simple("SELECT 1/0").unwrap_err();
    client.simple("BEGIN").unwrap();
    client.simple("UPDATE dash SET label = 'x' WHERE id = 1").unwrap();
    client.simple("COMMIT").unwrap();
    client.simple("LISTEN dash").unwrap();
    client.simple("UNLISTEN *").unwrap();
    client.terminate();
}

#[allow(clippy::disallowed_methods)] // no worker here
fn pause() {
    std::thread::sleep(Duration::from_millis(200));
}

#[test]
fn no_panel_is_empty_on_a_real_run() {
    let pooler = Setup::url(cluster::shared(), "app").start();
    traffic(&pooler);
    let Some(prometheus) = Prometheus::start(&pooler) else { return };
    let fill = |expr: &str| expr.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$database", ".*");
    let recorded = rules().into_iter().filter(|(name, _)| name.contains(':')).map(|(name, _)| (name.clone(), name));
    let mut left: Vec<_> = panels().into_iter().chain(recorded).map(|(title, expr)| (title, fill(&expr))).collect();
    // A rate needs two looks with something in between.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !left.is_empty() {
        assert!(Instant::now() < deadline, "these are empty: {left:#?}");
        traffic(&pooler);
        left.retain(|(_, query)| prometheus.series(query).unwrap_or(0) == 0);
        // Scraped once a second.
        pause();
    }
}
