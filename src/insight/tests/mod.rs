//! The detector against streams of real Django statements, with a clock that the test drives.

mod advice;
mod bounds;
mod exact;
mod foreign;
mod parents;
mod requests;
mod scenarios;
mod secrecy;
mod units;

use std::sync::{Arc, Mutex};

use super::*;
use crate::sql::{Analyzer, LexSettings, RawSql};

pub(super) const LEX: LexSettings = LexSettings { standard_conforming_strings: Some(true), safe_encoding: true };

pub(super) fn config() -> InsightConfig {
    InsightConfig {
        max_fingerprints: 500,
        max_findings: 50,
        id_tags: vec!["tenant_job".into()],
        ..InsightConfig::default()
    }
}

/// A burst, copied.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) kind: Kind,
    pub(super) confidence: Confidence,
    pub(super) n: u32,
    pub(super) parent_rows: Option<u64>,
    pub(super) route: Option<String>,
    pub(super) all: String,
}

/// One client on one worker.
pub(super) struct Client {
    pub(super) insight: Arc<Insight>,
    pub(super) worker: WorkerInsight,
    pub(super) session: SessionInsight,
    pub(super) now: u64,
    /// Pause between an answer and the next statement.
    pub(super) pause: u64,
    analyzer: Analyzer,
    status: u8,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Client {
    pub(super) fn new() -> Self {
        Self::with(&config())
    }

    pub(super) fn with(config: &InsightConfig) -> Self {
        let insight = Insight::new(config);
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let sink = Arc::clone(&seen);
        insight.set_burst_sink(Box::new(move |burst| {
            sink.lock().unwrap().push(Seen {
                kind: burst.kind,
                confidence: burst.confidence,
                n: burst.n,
                parent_rows: burst.parent_rows,
                route: burst.route.map(str::to_owned),
                all: format!("{burst:?}"),
            });
        }));
        let mut session = SessionInsight::new(insight.database("shop"));
        session.set_application("tests");
        Self {
            worker: insight.worker(),
            insight,
            session,
            now: 1_000_000,
            pause: 1_200,
            analyzer: Analyzer::new([3, 4]),
            status: b'I',
            seen,
        }
    }

    /// Sends one simple Query and has it answered.
    pub(super) fn query(&mut self, sql: &str, rows: u64) {
        self.query_as(sql, rows, false);
    }

    pub(super) fn query_as(&mut self, sql: &str, rows: u64, pipelined: bool) {
        self.now += self.pause;
        let at = Times { received_us: self.now, server_us: self.now + 20, sent_us: self.now + 40 };
        let (session, worker) = (&mut self.session, &mut self.worker);
        let status = &mut self.status;
        self.analyzer.analyze(RawSql(sql.as_bytes()), LEX, |statement, text| {
            let text = Some(Text { sql: text, lex: LEX });
            session.begin(worker, &Begin { statement: *statement, text, tags: TagSet::default(), at, pipelined });
        });
        let upper = sql.trim_start().to_ascii_uppercase();
        if upper.starts_with("BEGIN") {
            *status = b'T';
        } else if upper.starts_with("COMMIT") || upper.starts_with("ROLLBACK;") || upper == "ROLLBACK" {
            *status = b'I';
        }
        session.synced();
        self.now += 300;
        session.complete(worker, rows, rows * 50, self.now);
        session.ready(worker, *status, self.now);
    }

    /// Waits between two statements.
    pub(super) fn wait_ms(&mut self, ms: u64) {
        self.now += ms * 1_000;
    }

    /// Ends the session and tells what was seen.
    pub(super) fn finish(&mut self) -> Vec<Seen> {
        self.session.end(&mut self.worker, self.now);
        self.bursts()
    }

    /// What was seen so far.
    pub(super) fn bursts(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// Only what is reported as N+1 with at least medium confidence.
pub(super) fn sure(seen: &[Seen]) -> Vec<&Seen> {
    seen.iter()
        .filter(|burst| matches!(burst.kind, Kind::NPlusOne | Kind::Chain) && burst.confidence > Confidence::Low)
        .collect()
}
