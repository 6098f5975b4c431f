//! What a template tells is what lexing tells.

use proptest::prelude::*;

use super::*;
use crate::sql::hash::Keyed;
use crate::sql::templates::Templates;

const KEY: [u64; 2] = [1, 2];

/// Analysed by one who knows nothing.
fn lexed(sql: &str, settings: LexSettings) -> Vec<(Statement, Vec<u8>)> {
    all(sql.as_bytes(), settings)
}

/// Analysed by one who has seen `before` often enough to know it.
fn knowing(before: &[&str], sql: &str, settings: LexSettings) -> Vec<(Statement, Vec<u8>)> {
    let mut analyzer = Analyzer::new(KEY);
    for text in before.iter().chain(before).chain(before) {
        analyzer.analyze(RawSql(text.as_bytes()), settings, |_, _| {});
    }
    let mut out = Vec::new();
    analyzer.analyze(RawSql(sql.as_bytes()), settings, |s, text| out.push((*s, text.0.to_vec())));
    out
}

/// Whether a template made of `before` tells `sql`; what it tells is right.
fn told(before: &str, sql: &str) -> bool {
    let (mut templates, keyed) = (Templates::default(), Keyed::new(KEY));
    for _ in 0..2 {
        assert!(templates.find(before.as_bytes(), ON, keyed).is_none(), "it was seen once");
        templates.lexed(before.as_bytes(), ON, keyed, &one(before));
    }
    let told = templates.find(sql.as_bytes(), ON, keyed);
    if let Some(told) = told {
        assert_eq!(told, one(sql), "{before} | {sql}");
    }
    told.is_some()
}

const DJANGO: &str = r#"SELECT "b"."id", "b"."title" FROM "b" INNER JOIN "a" ON ("b"."a_id" = "a"."id") WHERE ("b"."id" = 17 AND "b"."language" = 'en' AND NOT ("b"."title"::text LIKE 'Draft%') AND "b"."pages" IN (100, 101) AND "b"."x" IS NULL) ORDER BY "b"."title" DESC LIMIT 21"#;

#[test]
fn a_known_statement_with_other_values_is_told_by_its_template() {
    assert!(told(DJANGO, DJANGO));
    let other = DJANGO.replace("17", "98765432").replace("'en'", "'it''s /* -- */ 1'").replace("101", "7.5e3");
    assert!(told(DJANGO, &other));
    assert!(told(DJANGO, &format!("{DJANGO} ")) && told(DJANGO, &format!(" -- x\n{DJANGO}\n-- y")));
    let (one, two) = (format!("{DJANGO} /*route='a',traceparent='b'*/"), format!("{other} /*traceparent='cc'*/ "));
    assert!(told(&one, &two) && told(&format!("/*a='b'*/ {DJANGO};"), &format!(" /*c='d'*/{other};")));
    let insert = "INSERT INTO \"log_entry\" (\"a\", \"b\") VALUES (1, 'x'), (NULL, 'y') RETURNING \"log_entry\".\"id\"";
    assert!(told(insert, &insert.replace("'y'", "'a longer text than before'")));
    assert!(told("SELECT a FROM t WHERE b = $1 AND c = TRUE", "SELECT a FROM t WHERE b = $1 AND c = TRUE"));
}

#[test]
fn another_statement_is_told_by_no_template() {
    for (from, to) in [
        ("LIMIT 21", "LIMIT 1"),
        ("17", "-17"),
        ("17", "'17'"),
        ("17", "NULL"),
        ("17", ".5"),
        ("17", "17 OR 1"),
        ("(100, 101)", "(100, 101, 102)"),
        ("\"title\" DESC", "\"titl\" DESC"),
        ("'en'", "'en"),
        ("'en'", "E'en'"),
        ("LIMIT 21", "LIMIT 21; DELETE FROM t"),
        ("LIMIT 21", "LIMIT 21 /*a='b'*/"),
        ("LIMIT 21", "LIMIT 21 /* open"),
    ] {
        assert!(!told(DJANGO, &DJANGO.replace(from, to)), "{from} -> {to}");
    }
}

#[test]
fn a_value_that_decides_how_its_text_is_read_is_no_variable() {
    for (before, sql) in [
        ("SELECT a, b, c FROM t ORDER BY 12345", "SELECT a, b, c FROM t ORDER BY 1"),
        ("SELECT a, b, c FROM t ORDER BY a, 12345", "SELECT a, b, c FROM t ORDER BY a, 1"),
        ("SELECT a, b, c FROM t GROUP BY a, 12345 LIMIT 5", "SELECT a, b, c FROM t GROUP BY a, 1 LIMIT 5"),
        ("SELECT a, b, c FROM t LIMIT 20", "SELECT a, b, c FROM t LIMIT 21"),
        ("SELECT a, b, c::numeric(123456) FROM t", "SELECT a, b, c::numeric(10) FROM t"),
        ("SELECT a, b, c::int[123456] FROM t", "SELECT a, b, c::int[5] FROM t"),
        ("SELECT a, b, time(123456) 'x' FROM t", "SELECT a, b, time(3) 'x' FROM t"),
        ("SELECT a, CAST(b AS varchar(123456)) FROM t", "SELECT a, CAST(b AS varchar(10)) FROM t"),
        ("SELECT a, b, interval '1' second(123456) FROM t", "SELECT a, b, interval '1' second(3) FROM t"),
        ("SELECT a, b, U&\"d\" UESCAPE '!!' FROM t", "SELECT a, b, U&\"d\" UESCAPE '!' FROM t"),
        ("SELECT a, b, U&'d' UESCAPE '!!' FROM t", "SELECT a, b, U&'d' UESCAPE '!' FROM t"),
    ] {
        assert_eq!(knowing(&[before], sql, ON), lexed(sql, ON), "{before} | {sql}");
        assert!(!told(before, sql), "{before} | {sql}");
    }
}

#[test]
fn a_template_is_not_used_under_other_settings() {
    let sql = r"SELECT a, b, c FROM t WHERE d = 'x\' AND e = ' OR f = 1 --'";
    for (one, other) in [(ON, OFF), (OFF, ON)] {
        let mut analyzer = Analyzer::new(KEY);
        (0..3).for_each(|_| analyzer.analyze(RawSql(sql.as_bytes()), one, |_, _| {}));
        let mut out = Vec::new();
        analyzer.analyze(RawSql(sql.as_bytes()), other, |s, text| out.push((*s, text.0.to_vec())));
        assert_eq!(out, lexed(sql, other));
    }
}

#[test]
fn statements_that_begin_alike_keep_their_templates() {
    let sql = |n: usize| format!("SELECT {} FROM t WHERE {} = 5", "a, ".repeat(30) + "a", "b".repeat(n + 1));
    let (mut templates, keyed) = (Templates::default(), Keyed::new(KEY));
    let known =
        |templates: &Templates| (0..40).filter(|n| templates.find(sql(*n).as_bytes(), ON, keyed).is_some()).count();
    for _ in 0..10 {
        for n in 0..40 {
            if templates.find(sql(n).as_bytes(), ON, keyed).is_none() {
                templates.lexed(sql(n).as_bytes(), ON, keyed, &one(&sql(n)));
            }
        }
    }
    assert_eq!(known(&templates), 16, "there is room for so many, and a full house is left in peace");
}

#[test]
fn lists_of_ever_new_lengths_leave_room_for_others() {
    let sql = |table: &str, n: usize| {
        format!("SELECT {} FROM {table} WHERE id IN ({}1)", "a, ".repeat(30) + "a", "1, ".repeat(n))
    };
    let (mut templates, keyed) = (Templates::default(), Keyed::new(KEY));
    let mut come = |text: String| {
        let told = templates.find(text.as_bytes(), ON, keyed).is_some();
        if !told {
            templates.lexed(text.as_bytes(), ON, keyed, &one(&text));
        }
        told
    };
    (1..100).for_each(|n| {
        come(sql("t", n));
    });
    assert!((1..100).any(|n| come(sql("t", n))), "some are known");
    (0..2).for_each(|_| {
        come(sql("other", 1));
    });
    assert!(come(sql("other", 1)), "another statement that begins alike has a place");
}

fn parts() -> impl Strategy<Value = Vec<&'static str>> {
    let begins = proptest::sample::select(
        &["SELECT a, b, c, d FROM", "INSERT INTO t(a, b) VALUES", "UPDATE ttt SET aa =", "DELETE FROM ttt WHERE a ="][..],
    );
    (begins, proptest::collection::vec(proptest::sample::select(super::properties::PARTS), 0..25))
        .prop_map(|(begin, parts)| [vec![begin], parts].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn whatever_was_seen_before_a_text_is_read_as_by_one_who_saw_nothing(
        parts in parts(), other in proptest::collection::vec((any::<bool>(), 0u32..10_000_000, "[ -~\n]{0,8}"), 30), glue in "[ \n]{0,1}",
        settings in proptest::sample::select(&[ON, OFF, LexSettings { standard_conforming_strings: None, safe_encoding: true }][..]),
    ) {
        // The same with other literals, as long or longer or shorter.
        let text = parts.join(&glue);
        let mut changed = Vec::new();
        for (part, (change, number, string)) in parts.iter().zip(&other) {
            changed.push(match *part {
                "1" | "-1" | "1." | ".5" if *change => number.to_string(),
                "(1)" | "(3)" if *change => format!("({number})"),
                "(1,2)" if *change => format!("({number},2)"),
                "varchar(10)" if *change => format!("varchar({number})"),
                "'x'" | "'!'" if *change => format!("'{string}'"),
                same => same.to_owned(),
            });
        }
        let changed = changed.join(&glue);
        for (seen, sql) in [(&text, &changed), (&changed, &text), (&text, &text)] {
            prop_assert_eq!(knowing(&[seen], sql, settings), lexed(sql, settings), "{} | {}", seen, sql);
        }
    }
}

#[test]
fn a_text_that_ends_with_a_minus_is_not_taken_for_one_whose_comment_begins_there() {
    for (seen, sql) in
        [("SELECT a FROM tab -", "SELECT a FROM tab --- c"), ("SELECT 1 FROM t -", "SELECT 2 FROM t --1")]
    {
        assert_eq!(knowing(&[seen], sql, ON), lexed(sql, ON), "{seen} | {sql}");
    }
}
