//! Causes that would take long to provoke for real, and their innocent twins: with a clock that the test drives.

use super::*;
use crate::config::InsightConfig;
use crate::insight::{Begin, Insight, SessionInsight, TagSet, Text, Times, WorkerInsight};
use crate::sql::{Analyzer, LexSettings, RawSql};

const LEX: LexSettings = LexSettings { standard_conforming_strings: Some(true), safe_encoding: true };

struct Rig {
    insight: Arc<Insight>,
    worker: WorkerInsight,
    session: SessionInsight,
    analyzer: Analyzer,
    diagnosis: Diagnosis,
    plans: inspection::Plans,
    now: u64,
}

impl Rig {
    fn new() -> Self {
        let insight = Insight::new(&InsightConfig::default());
        Self {
            worker: insight.worker(),
            session: SessionInsight::new(insight.database("shop")),
            analyzer: Analyzer::new([1, 2]),
            diagnosis: Diagnosis::default(),
            plans: inspection::Plans::default(),
            now: 1_000_000,
            insight,
        }
    }

    /// One statement that takes `ms` and returns `rows`.
    fn query(&mut self, sql: &str, ms: u64, rows: u64) {
        self.now += 200_000;
        let at = Times { received_us: self.now, server_us: self.now, sent_us: self.now };
        let (session, worker) = (&mut self.session, &mut self.worker);
        self.analyzer.analyze(RawSql(sql.as_bytes()), LEX, |statement, sql| {
            let text = Some(Text { sql, lex: LEX });
            session
                .begin(worker, &Begin { statement: *statement, text, tags: TagSet::default(), at, pipelined: false });
        });
        session.synced();
        self.now += ms * 1_000;
        session.complete(worker, rows, rows * 40, self.now);
        session.ready(worker, b'I', self.now);
    }

    fn with<T>(&self, with: impl FnOnce(&Diagnosis, &Sources<'_>) -> T) -> T {
        let plans = &self.plans;
        with(&self.diagnosis, &Sources { insight: &self.insight, pools: &[], logins: (0, 0), plans })
    }

    fn kinds(&self) -> Vec<&'static str> {
        self.with(|diagnosis, sources| diagnosis.causes(sources)).1.iter().map(|cause| cause.kind).collect()
    }
}

const LOOK_UP: &str =
    r#"SELECT "t"."id" FROM "t" WHERE "t"."owner_id" = 7 AND "t"."state" = 'x' ORDER BY "t"."at" DESC LIMIT 5"#;

#[test]
fn an_index_has_the_compared_columns_first_and_then_the_order() {
    let mut rig = Rig::new();
    (0..30).for_each(|_| rig.query(LOOK_UP, 40, 3));
    let (_, causes) = rig.with(|diagnosis, sources| diagnosis.causes(sources));
    let [cause] = &causes[..] else { panic!("{causes:?}") };
    assert_eq!((cause.kind, cause.probable), ("missing_index", true));
    assert!(cause.code.contains(r#"fields=["owner", "state", "at"]"#), "{}", cause.code);
    // 30 times 38 ms, in a window that is taken for a minute at least.
    assert!((cause.recoverable - 30.0 * 0.038 * 60.0).abs() < 1.0, "{}", cause.recoverable);
    assert!(cause.text.contains("$1") && !cause.text.contains("'x'"));
}

#[test]
fn waits_for_locks_keys_and_aggregates_are_no_missing_index() {
    for (sql, rows) in [
        (r#"SELECT "t"."x" FROM "t" WHERE "t"."id" = 7 LIMIT 21"#, 1),
        (r#"SELECT SUM("t"."x") AS "s" FROM "t" WHERE "t"."owner_id" = 7"#, 1),
        (r#"SELECT "t"."x" FROM "t" WHERE "t"."owner_id" = 7"#, 400),
        (r#"SELECT "t"."x" FROM "t""#, 3),
    ] {
        let mut rig = Rig::new();
        (0..30).for_each(|_| rig.query(sql, 40, rows));
        assert_eq!(rig.kinds(), ["slow_query"], "{sql}");
    }
    // Quick but for two that waited.
    let mut rig = Rig::new();
    (0..30).for_each(|at| rig.query(LOOK_UP, if at % 15 == 0 { 900 } else { 1 }, 3));
    assert_eq!(rig.kinds(), ["slow_query"]);
    // Seldom, or quick.
    let mut rig = Rig::new();
    (0..19).for_each(|_| rig.query(LOOK_UP, 40, 3));
    (0..90).for_each(|_| rig.query(r#"SELECT "u"."id" FROM "u" WHERE "u"."a" = 1"#, 2, 3));
    assert!(rig.kinds().is_empty());
}

#[test]
fn a_replica_is_for_a_database_that_is_busy_with_reads() {
    let read = r#"SELECT "t"."x" FROM "t" WHERE "t"."id" = 7 LIMIT 21"#;
    let write = r#"UPDATE "t" SET "x" = 1 WHERE "t"."id" = 7"#;
    for (reads, writes, ms, wanted) in [(90, 10, 800, true), (50, 50, 800, false), (90, 10, 1, false)] {
        let mut rig = Rig::new();
        (0..reads).for_each(|_| rig.query(read, ms, 1));
        (0..writes).for_each(|_| rig.query(write, ms, 1));
        assert_eq!(rig.kinds().contains(&"read_replica"), wanted, "{reads} reads, {writes} writes of {ms} ms");
    }
}

#[test]
fn what_was_mended_leaves_the_list_and_ids_stay() {
    let mut rig = Rig::new();
    (0..30).for_each(|_| rig.query(LOOK_UP, 40, 3));
    let id = |rig: &Rig| rig.with(|diagnosis, sources| diagnosis.causes(sources)).1.first().map(Cause::id);
    let before = id(&rig);
    assert!(before.is_some());
    rig.with(|diagnosis, sources| diagnosis.forget(sources));
    (0..30).for_each(|_| rig.query(LOOK_UP, 1, 3));
    assert_eq!(id(&rig), None, "only the quick ones count now");
    (0..90).for_each(|_| rig.query(LOOK_UP, 60, 3));
    assert_eq!(id(&rig), before);
}

#[test]
fn every_kind_is_ranked_once() {
    let shop: Arc<str> = Arc::from("shop");
    let mut causes: Vec<_> = KINDS.iter().rev().map(|(kind, _)| Cause::new(kind, &shop)).collect();
    causes[3].recoverable = 2.0;
    causes[5].recoverable = 7.0;
    let first = (causes[5].kind, causes[3].kind);
    rank(&mut causes);
    assert_eq!((causes[0].kind, causes[1].kind), first);
    assert_eq!(causes[2].kind, KINDS[0].0, "the rest in the order of the table");
    let ids: std::collections::BTreeSet<_> = causes.iter().map(Cause::id).collect();
    assert_eq!(ids.len(), KINDS.len());
}
