//! What the detector adds to a statement: nanoseconds for begin, complete and ready together.
//!
//! `lexing` is the analysis alone, to set the rest against. `cargo bench --bench detector`

use divan::{Bencher, black_box};
use pgsluice::config::InsightConfig;
use pgsluice::insight::{Begin, Insight, SessionInsight, TagSet, Text, Times, WorkerInsight};
use pgsluice::sql::{Analyzer, LexSettings, RawSql, Statement};

const LEX: LexSettings = LexSettings { standard_conforming_strings: Some(true), safe_encoding: true };

fn main() {
    divan::main();
}

struct Rig {
    worker: WorkerInsight,
    session: SessionInsight,
    statements: Vec<(String, Statement)>,
    now: u64,
    next: usize,
}

fn text(number: usize, id: usize) -> String {
    format!(
        r#"SELECT "shop_t{number}"."id", "shop_t{number}"."name", "shop_t{number}"."owner_id" FROM "shop_t{number}" WHERE "shop_t{number}"."id" = {id} LIMIT 21"#
    )
}

/// A client that cycles through `kinds` statements, one literal each time.
fn rig(kinds: usize) -> Rig {
    let insight = Insight::new(&InsightConfig::default());
    let mut analyzer = Analyzer::new([1, 2]);
    let mut statements = Vec::new();
    for id in 0..64 {
        let text = text(id % kinds, id);
        analyzer.analyze(RawSql(text.as_bytes()), LEX, |statement, _| statements.push((text.clone(), *statement)));
    }
    let session = SessionInsight::new(insight.database("shop"));
    let mut rig = Rig { worker: insight.worker(), session, statements, now: 1, next: 0 };
    (0..128).for_each(|_| rig.statement());
    rig
}

impl Rig {
    fn statement(&mut self) {
        self.next = (self.next + 1) % self.statements.len();
        let (text, statement) = &self.statements[self.next];
        self.now += 500;
        let at = Times { received_us: self.now, server_us: self.now + 5, sent_us: self.now + 10 };
        let text = Some(Text { sql: RawSql(text.as_bytes()), lex: LEX });
        self.session.begin(
            &mut self.worker,
            &Begin { statement: *statement, text, tags: TagSet::default(), at, pipelined: false },
        );
        self.session.synced();
        self.now += 300;
        self.session.complete(&mut self.worker, 1, 120, self.now);
        self.session.ready(&mut self.worker, b'I', self.now);
    }
}

#[divan::bench(args = [1, 4, 32, 64])]
fn known_statement(bencher: Bencher<'_, '_>, kinds: usize) {
    let mut rig = rig(kinds);
    bencher.bench_local(|| rig.statement());
}

#[divan::bench]
fn switched_off(bencher: Bencher<'_, '_>) {
    let mut rig = rig(4);
    let insight = rig.worker.insight();
    insight.set_enabled(false);
    bencher.bench_local(|| rig.statement());
}

#[divan::bench]
fn lexing(bencher: Bencher<'_, '_>) {
    // The `;` keeps it from being known.
    let text = format!(";{}", text(3, 12_345));
    let mut analyzer = Analyzer::new([1, 2]);
    bencher.bench_local(|| {
        analyzer.analyze(black_box(RawSql(text.as_bytes())), LEX, |statement, _| {
            black_box(statement.fingerprint);
        })
    });
}
