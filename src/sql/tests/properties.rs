//! Properties over generated SQL.

use proptest::prelude::*;

use super::*;

fn identifier() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9_]{0,14}_x".prop_map(|s| s)
}

/// Every way to write a literal whose content is `token` (letters and digits).
fn spellings(token: &str) -> Vec<String> {
    vec![
        format!("'{token}'"),
        format!("E'\\'{token}'"),
        format!("$${token}$$"),
        format!("$q${token}$q$"),
        format!("U&'{token}'"),
        format!("N'{token}'"),
        format!("B'{token}'"),
        format!("X'{token}'"),
        format!("'a'\n  '{token}'"),
        format!("'{token}'::varchar"),
        format!("date '{token}'"),
        format!("interval '{token}' day"),
        format!("timestamp with time zone '{token}'"),
        format!("'it''s {token}'"),
        format!("9{token}"),
        format!("-9{token}"),
        format!("0x{token}"),
        format!("1.5e{token}"),
    ]
}

const FRAMES: &[&str] = &[
    "SELECT a FROM t WHERE b = @",
    "SELECT a FROM t WHERE b IN (1, @, 3)",
    "SELECT a FROM t WHERE b = ANY(ARRAY[@])",
    "SELECT a, @ FROM t WHERE b < @ ORDER BY @ LIMIT @ OFFSET @",
    "SELECT a FROM t ORDER BY a, @",
    "INSERT INTO t (a, b) VALUES (@, 1), (2, @)",
    "UPDATE t SET a = @ WHERE b = f(@)",
    "SELECT CASE WHEN a = @ THEN @ ELSE @ END FROM t",
    "SET x.y = @",
    "SET LOCAL ROLE @",
    "SELECT set_config('a', @, true)",
    "CREATE ROLE r PASSWORD @",
    "COMMENT ON TABLE t IS @",
    "NOTIFY c, @",
    "EXECUTE p(@)",
    "COPY t FROM PROGRAM @",
    "DO @",
    "PREPARE p AS SELECT @",
    "/* @ */ SELECT a FROM t",
    "SELECT a FROM t -- @\n",
    "SELECT a FROM t /*controller='x',unknown='@'*/",
    "SELECT date /* @ */ 'x'",
    "SELECT a FROM t WHERE b = '/*route=' AND c = @ --*/",
    "SELECT a[@] FROM t WHERE b::varchar(10) = @",
    "SELECT a FROM t WHERE b = @ AND c = 'open @",
    "SELECT a FROM t WHERE b = 'x' 'y' @",
];

proptest! {
    #[test]
    fn no_literal_leaks(token in "[A-Z]{4}[0-9A-F]{12}", frame in 0..FRAMES.len(), spelling in 0usize..18) {
        let sql = FRAMES[frame].replace('@', &spellings(&token)[spelling]);
        for settings in [ON, OFF, LexSettings { standard_conforming_strings: None, safe_encoding: true }] {
            let raw = RawSql(sql.as_bytes());
            let text = display(raw, settings, 2048).to_string();
            let seen = format!("{text}{:?}", shape(raw, settings)).to_ascii_uppercase();
            prop_assert!(!seen.contains(&token), "{sql} -> {seen}");
            if let Some(found) = tags(raw) {
                let mut buffer = [0; VALUE_CAP];
                for value in [found.route, found.controller, found.action, found.application, found.job].into_iter().flatten() {
                    prop_assert!(!value.write(&mut buffer).contains(&token[..4]), "{sql}");
                }
            }
        }
        fuzz_lexer(sql.as_bytes());
        fuzz_tags(sql.as_bytes());
    }

    #[test]
    fn literals_white_space_case_comments_and_length_do_not_count(
        table in identifier(), a in any::<i64>(), s in "[ -~]{0,30}", n in 1usize..50, gap in "[ \t\n]{1,4}", comment in "[ a-z]{0,20}",
    ) {
        let list = (0..n).map(|i| format!("{}", a.wrapping_add(i as i64))).collect::<Vec<_>>().join(",");
        let one_way = format!("SELECT a FROM {table} WHERE b = 1 AND c = 'x' AND d IN (1)");
        let quoted = s.replace('\'', "''");
        let other = format!("select{gap}a /*{comment}*/ from{gap}{} where b={a}{gap}and c = '{quoted}' and{gap}d in ({list}) -- {comment}\n", table.to_ascii_uppercase());
        prop_assert_eq!(fp(&one_way), fp(&other), "{} | {}", shown(&one_way), shown(&other));
    }

    #[test]
    fn another_identifier_is_another_statement(a in identifier(), b in identifier()) {
        prop_assume!(a != b);
        let of = |x: &str| fp(&format!(r#"SELECT "t"."{x}" FROM "t" WHERE "t"."id" = 1"#));
        prop_assert_ne!(of(&a), of(&b));
    }

    #[test]
    fn any_bytes_hold(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz_lexer(&data);
        fuzz_tags(&data);
    }

    #[test]
    fn any_mix_of_tokens_holds(parts in proptest::collection::vec(proptest::sample::select(PARTS), 0..40)) {
        let sql = parts.join(" ");
        fuzz_lexer(sql.as_bytes());
        fuzz_lexer(parts.concat().as_bytes());
    }
}

pub(super) const PARTS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "a",
    "\"b\"",
    "t.c",
    "(",
    ")",
    ",",
    "IN",
    "(1,2)",
    "ARRAY[",
    ".",
    "[",
    "]",
    "1",
    "-1",
    "'x'",
    "E'\\''",
    "$1",
    "$$y$$",
    "::int",
    "::text[]",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "UNION",
    "ALL",
    "AND",
    "OR",
    "NOT",
    "=",
    "<",
    "-",
    "+",
    "--c\n",
    "/*c*/",
    "VALUES",
    "ORDER",
    "BY",
    "LIMIT",
    "DATE",
    "INTERVAL",
    "timestamp",
    "with",
    "time",
    "zone",
    "NULL",
    "TRUE",
    "DEFAULT",
    "AS",
    "SET",
    "UPDATE",
    "INSERT",
    "INTO",
    "DELETE",
    "SAVEPOINT",
    "DECLARE",
    "FETCH",
    "CURRENT",
    "OF",
    "FOR",
    "CAST",
    "(1)",
    "*",
    ":",
    ";",
    "BEGIN",
    "ATOMIC",
    "EXECUTE",
    "PREPARE",
    "U&\"d\"",
    "UESCAPE",
    "'!'",
    "set_config",
    "key",
    "\"select\"",
    "day",
    "to",
    "second",
    "double",
    "precision",
    "(3)",
    "INNER",
    "JOIN",
    "LEFT",
    "OUTER",
    "ROLLBACK",
    "TO",
    "RELEASE",
    "CLOSE",
    "PERSISTENT",
    "varchar(10)",
    "1..2",
    ".5",
    "1.",
    "?",
    "@-",
    "<>",
    "!=",
];

/// Of this thread: other processes do not count.
fn cpu_time() -> std::time::Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    std::time::Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

#[test]
fn time_is_linear() {
    // Shapes that tempt a lexer into going back: time for 8 times the text may not be 64 times as long.
    for unit in [
        "$a",
        "/* ",
        "'a'\n",
        "((",
        "U&\"a\" ",
        "timestamp ",
        "interval day to ",
        "CASE WHEN ",
        "'x'::a.",
        "\"\"",
        "[1",
        "E'\\",
        "-- x\n",
    ] {
        let time = |n: usize| {
            let sql = unit.repeat(n / unit.len());
            (0..3)
                .map(|_| {
                    let start = cpu_time();
                    let _ = all(sql.as_bytes(), ON);
                    cpu_time() - start
                })
                .min()
                .expect("three runs")
        };
        let (small, large) = (time(8_000), time(60_000));
        assert!(large < small * 40 + std::time::Duration::from_millis(20), "{unit}: {small:?} then {large:?}");
    }
}

#[test]
fn published_fingerprints_do_not_move() {
    // A change here is a new FINGERPRINT_VERSION.
    for (sql, id) in [
        ("SELECT 1", "7253c474523d8334"),
        (
            r#"SELECT "shop_author"."id" FROM "shop_author" WHERE "shop_author"."id" = 4217 LIMIT 21"#,
            "31a914c9a129a371",
        ),
        (r#"INSERT INTO "shop_tag" ("label") VALUES ('a'), ('b') RETURNING "shop_tag"."id""#, "445aecd2f72d5fcd"),
        (
            r#"SELECT "t"."a" FROM "t" WHERE ("t"."b" IN (1, 2) AND "t"."c"::text LIKE 'x%') ORDER BY 1 ASC"#,
            "4831b578e57f873d",
        ),
        ("BEGIN", "50ea928fb8e35b91"),
    ] {
        assert_eq!(fp(sql).to_string(), id, "{sql}");
    }
}

proptest! {
    /// A text that comes again is what it was, whatever came between and however it is to be read.
    #[test]
    fn a_text_seen_before_is_what_it_was(
        texts in proptest::collection::vec((0usize..6, any::<bool>()), 1..60),
    ) {
        let all: [&[u8]; 6] = [
            b"SELECT * FROM t WHERE id = $1",
            b"  SELECT 'it\\'s' FROM t; -- done",
            b"SELECT 1; SELECT 2",
            b"/* a='b' */ UPDATE t SET a = $1 WHERE id = $2;",
            b"",
            b"SELECT '\\' || x FROM t",
        ];
        let mut again = Analyzer::new([1, 2]);
        for (which, scs) in texts {
            let settings = LexSettings { standard_conforming_strings: Some(scs), safe_encoding: true };
            let read = |analyzer: &mut Analyzer, kept: bool| {
                let mut out = Vec::new();
                let each = |s: &Statement, sql: RawSql<'static>| out.push((format!("{s:?}"), sql.0.as_ptr(), sql.0.len()));
                if kept { analyzer.analyze_again(RawSql(all[which]), settings, each) } else { analyzer.analyze(RawSql(all[which]), settings, each) }
                out
            };
            let new = read(&mut Analyzer::new([1, 2]), false);
            prop_assert_eq!(read(&mut again, true), new);
        }
    }
}
