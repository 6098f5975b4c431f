//! Plays recorded Django statements through the detector with a simulated clock, and writes what it reports.
//!
//! ```text
//! replay_corpus OUT_DIR FILE.jsonl[.gz]... [--gap-ms 20] [--gap-us-in-unit 60] [--query-us 250]
//!               [--strip-sessions] [--strip-transactions] [--own-jobs] [--tags] [--low] [--noise-percent 10] [--noise-ms 3]
//! ```
//!
//! A file holds one unit (request or job) a line: `{unit_id, session, route, queries: [{sql, rows, in_tx, error}]}`.
//! Without files, those in `$PGSLUICE_SHARED/corpus`. `OUT_DIR/findings.jsonl` gets medium and high confidence N+1
//! findings, `OUT_DIR/bursts.jsonl` everything with its evidence, `OUT_DIR/units.jsonl` when each unit ran,
//! `OUT_DIR/advice.jsonl` the findings with their advice, `OUT_DIR/fingerprints.jsonl` one recorded text of each fingerprint (to join the log of a live run with).
//! `--strip-sessions` leaves out session look-ups (an application that uses tokens), `--strip-transactions` BEGIN and
//! COMMIT (one without ATOMIC_REQUESTS), `--own-jobs` gives each job a connection of its own (a management command is a
//! process), `--tags` adds a route and a
//! trace to each statement, `--low` also writes low confidence. `--noise-percent` of the client's pauses are longer, by
//! `--noise-ms` on average: a machine that is kept busy by other work.

use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use pgsluice::config::InsightConfig;
use pgsluice::insight::{Begin, BurstEvent, Confidence, Insight, Kind, SessionInsight, TagSet, Text, Times};
use pgsluice::sql::{Analyzer, Fingerprint, LexSettings, Operation, RawSql, Statement, flag};
use serde_json::{Value, json};

type Fallible<T> = Result<T, Box<dyn Error>>;

struct Options {
    out: String,
    files: Vec<String>,
    gap_us: u64,
    inner_us: u64,
    query_us: u64,
    strip: bool,
    autocommit: bool,
    own_jobs: bool,
    tags: bool,
    low: bool,
    noise: f64,
    noise_us: f64,
}

fn options() -> Fallible<Options> {
    let mut options = Options {
        out: String::new(),
        files: vec![],
        gap_us: 20_000,
        inner_us: 60,
        query_us: 250,
        strip: false,
        autocommit: false,
        own_jobs: false,
        tags: false,
        low: false,
        noise: 0.0,
        noise_us: 3_000.0,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().ok_or("a number is missing").map(|text| text.parse::<f64>());
        match arg.as_str() {
            "--gap-ms" => options.gap_us = (number()?? * 1e3) as u64,
            "--gap-us-in-unit" => options.inner_us = number()?? as u64,
            "--query-us" => options.query_us = number()?? as u64,
            "--noise-percent" => options.noise = number()?? / 100.0,
            "--noise-ms" => options.noise_us = number()?? * 1e3,
            "--strip-sessions" => options.strip = true,
            "--strip-transactions" => options.autocommit = true,
            "--own-jobs" => options.own_jobs = true,
            "--tags" => options.tags = true,
            "--low" => options.low = true,
            _ if options.out.is_empty() => options.out = arg,
            _ => options.files.push(arg),
        }
    }
    if options.out.is_empty() {
        return Err("replay_corpus OUT_DIR FILE.jsonl[.gz]...".into());
    }
    if options.files.is_empty() {
        let shared = std::env::var("PGSLUICE_SHARED")?;
        for entry in std::fs::read_dir(format!("{shared}/corpus"))? {
            let path = entry?.path().display().to_string();
            if path.ends_with(".jsonl.gz") {
                options.files.push(path);
            }
        }
        options.files.sort();
    }
    Ok(options)
}

fn open(path: &str) -> Fallible<Box<dyn Read>> {
    if !path.ends_with(".gz") {
        return Ok(Box::new(File::open(path)?));
    }
    let child = Command::new("gzip").args(["-dc", path]).stdout(Stdio::piped()).spawn()?;
    Ok(Box::new(child.stdout.ok_or("gzip has no output")?))
}

fn line(burst: &BurstEvent<'_>, texts: &Texts) -> String {
    let recorded = texts.lock().ok().and_then(|texts| texts.get(&burst.fingerprint).cloned());
    json!({
        "session": burst.application, "sql": recorded, "display": burst.sql, "fingerprint": burst.fingerprint.to_string(), "count": burst.n,
        "t_start": burst.span_us.0 as f64 / 1e6, "t_end": burst.span_us.1 as f64 / 1e6,
        "kind": burst.kind.name(), "confidence": burst.confidence.name(), "distinct": burst.distinct,
        "relation": burst.relation, "parent_rows": burst.parent_rows, "parent": burst.parent.map(|fp| fp.to_string()),
        "evidence": format!("{:?}", burst.evidence),
    })
    .to_string()
}

/// One recorded text of each fingerprint: the scorer normalises in its own way, so it needs the original spelling.
type Texts = Arc<Mutex<HashMap<Fingerprint, String>>>;

struct Player {
    texts: Texts,
    insight: Arc<Insight>,
    worker: pgsluice::insight::WorkerInsight,
    analyzer: Analyzer,
    sessions: HashMap<String, (SessionInsight, u64)>,
    noise: Noise,
}

/// Longer pauses now and then, the same in each run.
struct Noise(u64);

impl Noise {
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Microseconds added to one pause.
    fn delay(&mut self, options: &Options) -> u64 {
        if self.fraction() < options.noise { (-self.fraction().max(1e-9).ln() * options.noise_us) as u64 } else { 0 }
    }
}

impl Player {
    /// Plays one unit and tells when it began and ended.
    fn unit(&mut self, unit: &Value, options: &Options) -> Fallible<(u64, u64)> {
        let name = unit["session"].as_str().ok_or("no session")?.to_owned();
        let database = self.insight.database("app");
        let (mut session, mut now) = self.sessions.remove(&name).unwrap_or_else(|| {
            let mut session = SessionInsight::new(database);
            session.set_application(&name);
            (session, 1_000_000)
        });
        now += options.gap_us;
        let start = now;
        let mut open = false;
        for query in unit["queries"].as_array().into_iter().flatten() {
            let text = query["sql"].as_str().ok_or("no sql")?;
            let text = if options.tags { tagged(text, unit) } else { text.to_owned() };
            let lex = LexSettings { standard_conforming_strings: Some(true), safe_encoding: true };
            let mut begun = Vec::new();
            self.analyzer.analyze(RawSql(text.as_bytes()), lex, |statement, sql| begun.push((*statement, sql)));
            if options.strip && begun.iter().any(|(statement, _)| statement.flags & flag::DJANGO_SESSION != 0) {
                continue;
            }
            if let Ok(mut texts) = self.texts.lock() {
                for (statement, sql) in &begun {
                    texts.entry(statement.fingerprint).or_insert_with(|| String::from_utf8_lossy(sql.0).into_owned());
                }
            }
            let control = |statement: &Statement| statement.operation == Operation::Transaction;
            if options.autocommit && begun.iter().any(|(statement, _)| control(statement)) {
                continue;
            }
            let rows = query["rows"].as_i64().unwrap_or(0).max(0) as u64;
            self.statement(&mut session, &begun, lex, now, query["error"].is_string(), rows, options.query_us);
            now += options.query_us;
            open = !options.autocommit && query["in_tx"].as_bool().unwrap_or(false);
            session.ready(&mut self.worker, if open { b'T' } else { b'I' }, now);
            now += options.inner_us + self.noise.delay(options);
        }
        if open {
            session.ready(&mut self.worker, b'I', now);
        }
        if options.own_jobs && unit["kind"] == "job" {
            session.end(&mut self.worker, now);
            session = SessionInsight::new(database);
            session.set_application(&name);
        }
        self.sessions.insert(name, (session, now));
        Ok((start, now))
    }
}

impl Player {
    /// Sends one message with its statements and answers it.
    #[allow(clippy::too_many_arguments)]
    fn statement(
        &mut self,
        session: &mut SessionInsight,
        begun: &[(Statement, RawSql<'_>)],
        lex: LexSettings,
        now: u64,
        fails: bool,
        rows: u64,
        query_us: u64,
    ) {
        let at = Times { received_us: now, server_us: now + 5, sent_us: now + 10 };
        for (statement, sql) in begun {
            let text = Some(Text { sql: *sql, lex });
            let begin = Begin { statement: *statement, text, tags: TagSet::default(), at, pipelined: false };
            session.begin(&mut self.worker, &begin);
        }
        session.synced();
        for _ in begun {
            if fails {
                session.failed(&mut self.worker, *b"XX000", now + query_us);
            } else {
                session.complete(&mut self.worker, rows, 100, now + query_us);
            }
        }
    }
}

fn tagged(sql: &str, unit: &Value) -> String {
    let route: String = unit["route"].as_str().unwrap_or("unknown").bytes().map(|b| format!("%{b:02X}")).collect();
    let trace = unit["unit_id"]
        .as_str()
        .unwrap_or("")
        .bytes()
        .fold(1u128, |hash, b| hash.wrapping_mul(1_000_003) ^ u128::from(b));
    format!(
        "{} /*route='{route}',traceparent='00-{trace:032x}-00000000000000aa-01'*/",
        sql.trim_end().trim_end_matches(';')
    )
}

/// One recorded text of each fingerprint, and the findings with their advice.
fn write_tables(player: &Player, options: &Options) -> Fallible<()> {
    let create = |name: &str| File::create(format!("{}/{name}", options.out)).map(BufWriter::new);
    let mut fingerprints = create("fingerprints.jsonl")?;
    if let Ok(texts) = player.texts.lock() {
        for (fingerprint, sql) in texts.iter() {
            writeln!(fingerprints, "{}", json!({"fingerprint": fingerprint.to_string(), "sql": sql}))?;
        }
    }
    let mut advice = create("advice.jsonl")?;
    for view in player.insight.findings() {
        let line = json!({"id": view.id, "kind": view.kind.name(), "confidence": view.confidence.name(), "severity": view.severity.name(),
            "relation": view.relation, "tables": view.tables, "n": view.n, "bursts": view.bursts, "advice": &*view.advice, "texts": view.texts});
        writeln!(advice, "{line}")?;
    }
    Ok(())
}

fn main() -> Fallible<()> {
    let options = options()?;
    std::fs::create_dir_all(&options.out)?;
    let create = |name: &str| File::create(format!("{}/{name}", options.out)).map(BufWriter::new);
    let (findings, bursts, mut units) =
        (Mutex::new(create("findings.jsonl")?), Mutex::new(create("bursts.jsonl")?), create("units.jsonl")?);
    let least = if options.low { Confidence::Low } else { Confidence::Medium };
    let mut config = InsightConfig::default();
    if options.low {
        config.min_count_low_confidence = config.min_count;
    }
    let insight = Insight::new(&config);
    let texts = Texts::default();
    let known = Arc::clone(&texts);
    insight.set_burst_sink(Box::new(move |burst| {
        let line = line(burst, &known);
        let write = |file: &Mutex<BufWriter<File>>| {
            if let Ok(mut file) = file.lock() {
                let _ = writeln!(file, "{line}");
                let _ = file.flush();
            }
        };
        write(&bursts);
        if matches!(burst.kind, Kind::NPlusOne | Kind::Chain) && burst.confidence >= least {
            write(&findings);
        }
    }));
    let worker = insight.worker();
    let mut player =
        Player { texts, insight, worker, analyzer: Analyzer::new([1, 2]), sessions: HashMap::new(), noise: Noise(1) };
    for path in &options.files {
        for text in BufReader::new(open(path)?).lines() {
            let unit: Value = serde_json::from_str(&text?)?;
            let (start, end) = player.unit(&unit, &options)?;
            let range = json!({"unit_id": unit["unit_id"], "session": unit["session"], "t_start": start as f64 / 1e6, "t_end": end as f64 / 1e6});
            writeln!(units, "{range}")?;
        }
    }
    let sessions: Vec<_> = player.sessions.drain().map(|(_, session)| session).collect();
    for (mut session, now) in sessions {
        session.end(&mut player.worker, now + 1_000);
    }
    write_tables(&player, &options)?;
    println!(
        "{} findings, {} fingerprints",
        player.insight.findings().len(),
        player.insight.fingerprints(pgsluice::insight::FingerprintOrder::Calls, usize::MAX).len()
    );
    Ok(())
}
