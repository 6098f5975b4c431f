//! A statement that insight knows allocates nothing: counted by the allocator itself.
#![allow(unsafe_code)] // A counting allocator cannot be written without.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pgsluice::config::InsightConfig;
use pgsluice::insight::{Begin, Insight, SessionInsight, TagSet, Text, Times};
use pgsluice::sql::{Analyzer, LexSettings, RawSql};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: passes every call on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_known_statement_allocates_nothing() {
    let lex = LexSettings { standard_conforming_strings: Some(true), safe_encoding: true };
    let insight = Insight::new(&InsightConfig::default());
    let mut worker = insight.worker();
    let mut session = SessionInsight::new(insight.database("shop"));
    session.set_application("counted");
    let mut analyzer = Analyzer::new([1, 2]);
    // A request each: health check, tagged look-ups, a write in a transaction. Texts are made before counting.
    let tag = "/*route='books',traceparent='00-00000000000000000000000000000abc-00000000000000aa-01'*/";
    let texts = [
        "SELECT 1".to_owned(),
        format!(r#"SELECT "a"."id" FROM "a" WHERE "a"."id" = 17 LIMIT 21 {tag}"#),
        "BEGIN".to_owned(),
        format!(r#"UPDATE "a" SET "b" = 'x' WHERE "a"."id" = 17 {tag}"#),
        "COMMIT".to_owned(),
        format!(r#"SELECT "c"."id" FROM "c" WHERE "c"."id" = 3 LIMIT 21 {tag}"#),
        // No template fits it, and none is made again and again; its tags are the same each time.
        r#"SELECT "c"."id" FROM "c" WHERE date("c"."day") = date('2024-01-01') /*route='days'*/"#.to_owned(),
    ];
    let mut now = 1_000_000;
    let mut request = |gap: u64| {
        now += gap;
        for text in &texts {
            now += 700;
            let at = Times { received_us: now, server_us: now + 5, sent_us: now + 9 };
            analyzer.analyze(RawSql(text.as_bytes()), lex, |statement, sql| {
                let text = Some(Text { sql, lex });
                session.begin(
                    &mut worker,
                    &Begin { statement: *statement, text, tags: TagSet::default(), at, pipelined: false },
                );
            });
            session.synced();
            now += 200;
            session.complete(&mut worker, 1, 80, now);
            session.ready(&mut worker, if text == "BEGIN" || text.starts_with("UPDATE") { b'T' } else { b'I' }, now);
        }
        worker.tick(now);
    };
    let gap = |round: u64| {
        if round.is_multiple_of(3) { 2_000_000 } else { 5_000 }
    };
    // Warm: buffers have grown to what this traffic needs.
    (0..100).for_each(|round| request(gap(round)));
    // From now on the values of what is asked often are watched as well.
    insight.sweep();
    let before = ALLOCATIONS.load(Relaxed);
    (0..1_000).for_each(|round| request(gap(round)));
    assert_eq!(ALLOCATIONS.load(Relaxed) - before, 0);
}
