//! The table of pairs that must be equal or differ: one entry for each row of the design's test table.

use super::*;

/// (row, frame, first, same as it, different from it); `@` in the frame stands for the text.
type Row = (u8, &'static str, &'static str, &'static [&'static str], &'static [&'static str]);

const W: &str = "SELECT a FROM t WHERE @";
const S: &str = "SELECT @ FROM t";
const X: &str = "@";

const ROWS: &[Row] = &[
    (1, W, "b=1", &["b=2", "b=-1", "b =  -1", "b=+1"], &["b<1", "c=1"]),
    (1, W, "b<1", &["b<  -5", "b < 5", "b<-5"], &["b<=1"]),
    (1, S, "substring(c FROM 1 FOR 2)", &["substring(c FROM -1 FOR 2)"], &[]),
    (2, W, "b=1", &["b=1e5", "b=3000000000", "b=$1"], &[]),
    (3, W, "b=1", &["b=0x1F", "b=1_000", "b=.5", "b=1.", "b=0o17", "b=0b101", "b=1E-5", "b=1.5e+10"], &[]),
    (
        4,
        W,
        "c='x'",
        &[
            "c='x'::text",
            "c=E'x'",
            "c=$$x$$",
            "c=$q$a'$$b$q$",
            "c=U&'d\\0061'",
            "c=U&'d!0061' UESCAPE '!'",
            "c=N'x'",
            "c=B'101'",
            "c=X'1F'",
            "c=e'it\\'s'",
            "c='it''s'",
        ],
        &[],
    ),
    (5, W, "c='a'\n'b'", &["c='z'", "c='a' -- no\n  'b'", "c='a'\r\n'b'\n'c'"], &[]),
    (6, W, "c='C:\\' AND d='y'", &["c='x' AND d='z'"], &[]),
    (8, W, "c = ANY('{1,2}'::int2[])", &["c = ANY('{70000}'::int4[])", "c = ANY($1)"], &[]),
    (9, W, "d = date '2024-01-01'", &["d = '2024-01-01'::date", "d = DATE'2024-01-01'", "d = '2024-01-01'"], &[]),
    (9, W, "d = timestamp with time zone '2024-01-01'", &["d = 'x'::timestamptz", "d = timestamp(3) '2024'"], &[]),
    (
        10,
        W,
        "d > now() - interval '1 day'",
        &["d > now() - interval '2 h'", "d > now() - interval(3) '1' day to second"],
        &[],
    ),
    (11, W, "b IN (1)", &["b IN (1,2)", "b IN (1,2,3)", "b IN ($1,$2)", "b in ( 1 , -2 )"], &["b NOT IN (1)"]),
    (12, W, "b IN ((1),(2))", &["b IN (1)", "b IN ((1))"], &[]),
    (13, W, "(a,b) IN ((1,2),(3,4))", &["(a,b) IN ((1,2))"], &["(a,b) IN ((1,2,3))"]),
    (14, W, "b IN (1,2)", &[], &["b = ANY(ARRAY[1,2])", "b = 1"]),
    (15, W, "b IN (SELECT x FROM y)", &[], &["b IN (1)"]),
    (16, W, "b IN (1, lower('x'))", &[], &["b IN (1,2)"]),
    (17, "INSERT INTO t (a,b) @", "VALUES (1,'x')", &["VALUES (1,'x'),(2,'y'),(3,NULL)"], &["VALUES (1,2,3)"]),
    (18, "INSERT INTO t (a,b) @", "VALUES (1,DEFAULT)", &["VALUES (1,'x')", "VALUES (1,2),(3,DEFAULT)"], &[]),
    (19, "INSERT INTO t (a,b) @", "VALUES (1, now())", &["VALUES (1, now()), (2, now())"], &["VALUES (1,'x')"]),
    (20, S, "ARRAY[1,2]", &["ARRAY[1,2,3]", "ARRAY['a','b']::text[]", "ARRAY[[1,2],[3,4]]"], &["ARRAY[a, 1]"]),
    (
        21,
        "INSERT INTO t (a, b) SELECT * FROM @",
        "UNNEST((ARRAY[1,2])::int[], (ARRAY['a','b'])::varchar[])",
        &["UNNEST((ARRAY[1,2,3])::int[], (ARRAY['a','b','c'])::varchar[])", "UNNEST(($1)::int[], ($2)::varchar[])"],
        &["UNNEST((ARRAY[1,2])::int[])"],
    ),
    (22, W, "e = true", &["e = false", "e = 5", "e = NULL"], &[]),
    (23, W, "b IS NULL", &[], &["b = NULL", "b IS NOT NULL", "b IS TRUE"]),
    (24, "SELECT a FROM t @", "LIMIT 1", &["LIMIT 21"], &["", "LIMIT 1 OFFSET 5"]),
    (25, "SELECT a FROM t @", "FETCH FIRST 5 ROWS ONLY", &["FETCH FIRST 9 ROWS ONLY"], &[""]),
    (26, "SELECT a, b FROM t @", "ORDER BY 1", &[], &["ORDER BY 2", "ORDER BY 1, 2", "ORDER BY a"]),
    (26, "SELECT a, b FROM t @", "GROUP BY 1,2", &[], &["GROUP BY 2,1"]),
    (27, S, "a,b", &[], &["b,a"]),
    (27, W, "a=1 AND b=2", &[], &["b=2 AND a=1"]),
    (28, S, "extract(year from d)", &[], &["extract(month from d)"]),
    (29, X, "SELECT \"a\" FROM \"t\"", &["SELECT a FROM t", "SELECT A FROM T"], &["SELECT \"A\" FROM t"]),
    (
        30,
        X,
        "select\na  from t /* x */ ;",
        &["SELECT a FROM t", "SELECT a -- c\nFROM t", "/* a /* b */ c */ SELECT a FROM t", "SELECT a FROM t;"],
        &[],
    ),
    (31, S, "a AS x", &["a x"], &["a AS y"]),
    (32, "SELECT a FROM @", "t", &[], &["public.t"]),
    (33, W, "j ? 'k'", &["j ? 'other'"], &["j ?| 'k'", "j ?& 'k'"]),
    (33, W, "j ?| ARRAY['a']", &["j ?| ARRAY['b','c']"], &[]),
    (33, W, "j ?& ARRAY['a','b']", &["j ?& ARRAY['a']"], &[]),
    (33, W, "j @? '$.a'", &["j @? '$.b'"], &["j @@ '$.a'"]),
    (33, W, "j->'k' = '1'", &["j->'l' = '1'"], &["j->>'k' = '1'"]),
    (33, W, "j#>>'{a,b}' = '1'", &["j#>>'{c}' = '1'"], &[]),
    (34, S, "b-1", &["b-2", "b - 1"], &["b+1", "b - -1"]),
    (34, S, "b + 1", &["b + -1"], &[]),
    (35, W, "a<-5", &["a < 5"], &["a <- 5 + 1"]),
    (35, W, "a=-5", &["a = 5"], &[]),
    (35, W, "a@-5", &["a @- 5"], &["a @ 5"]),
    (36, S, "c::text", &[], &["c", "CAST(c AS text)"]),
    (36, S, "c::varchar(40)", &["c::VARCHAR( 40 )"], &["c::varchar(41)"]),
    (37, X, "SAVEPOINT s1_x1", &["SAVEPOINT \"s140_x9\""], &["RELEASE SAVEPOINT s1_x1", "ROLLBACK TO SAVEPOINT s1_x1"]),
    (37, X, "RELEASE SAVEPOINT s1_x1", &["RELEASE SAVEPOINT \"s140_x9\""], &[]),
    (
        37,
        X,
        "ROLLBACK TO SAVEPOINT s1_x1",
        &["ROLLBACK TO SAVEPOINT \"key\"", "ROLLBACK TO SAVEPOINT key"],
        &["ROLLBACK"],
    ),
    (
        38,
        X,
        "DECLARE \"_django_curs_1_sync_1\" NO SCROLL CURSOR WITH HOLD FOR SELECT a FROM t",
        &["DECLARE x NO SCROLL CURSOR WITH HOLD FOR SELECT a FROM t"],
        &["SELECT a FROM t"],
    ),
    (39, X, "FETCH FORWARD 100 FROM c1", &["FETCH FORWARD 1 FROM c2", "FETCH ALL FROM c3"], &["MOVE 1 FROM c1"]),
    (40, X, "CLOSE c1", &["CLOSE \"c2\""], &["CLOSE ALL"]),
    (40, X, "PREPARE p1 AS SELECT a FROM t", &["PREPARE p2 AS SELECT a FROM t"], &["PREPARE p1 AS SELECT b FROM t"]),
    (40, X, "DEALLOCATE p1", &["DEALLOCATE \"p2\""], &["DEALLOCATE ALL"]),
    (40, X, "EXECUTE p1(1)", &["EXECUTE p2(2)"], &[]),
    (41, X, "SET work_mem='1MB'", &["SET work_mem TO '2MB'", "SET SESSION work_mem = 64"], &["SET other = '1MB'"]),
    (41, X, "SET LOCAL x TO 'y'", &["SET LOCAL x = z, w"], &["SET x TO 'y'"]),
    (41, X, "SELECT set_config('a','b',true)", &["SELECT set_config('c','d',false)"], &[]),
    (
        42,
        S,
        "CASE WHEN a=1 THEN 2 WHEN a=3 THEN 4 ELSE NULL END",
        &["CASE WHEN a=1 THEN 2 WHEN a=3 THEN 4 WHEN a=9 THEN 5 ELSE 1 END", "CASE WHEN a=1 THEN 2 ELSE NULL END"],
        &["CASE WHEN a=1 THEN 2 END", "CASE WHEN b=1 THEN 2 ELSE NULL END"],
    ),
    (43, X, "UPDATE t SET b=1", &["UPDATE t SET b='x'"], &["UPDATE t SET b=1,c=2", "UPDATE t SET b=DEFAULT"]),
    (
        46,
        X,
        "SELECT a FROM t /*controller='a',route='x%2Fy',traceparent='00-\u{2026}'*/",
        &["SELECT a FROM t", "/*dddbs='s'*/ SELECT a FROM t"],
        &[],
    ),
    (47, X, "SELECT '/* not a comment */', '-- x'", &["SELECT 'a','b'"], &[]),
    (48, X, "SELECT /*+ SeqScan(t) */ a FROM t", &["SELECT a FROM t"], &[]),
    (49, X, "SELECT a$1 FROM t", &["SELECT \"a$1\" FROM t"], &["SELECT a FROM t"]),
    (55, X, "SELECT a FROM t_20240101", &[], &["SELECT a FROM t_20240102"]),
    (
        56,
        "INSERT INTO t (a) VALUES (1) @",
        "ON CONFLICT (\"id\") DO UPDATE SET a = 1",
        &["ON CONFLICT (id) DO UPDATE SET a = 2"],
        &["ON CONFLICT DO NOTHING", ""],
    ),
    (57, "SELECT a FROM t @", "FOR UPDATE", &[], &["FOR UPDATE SKIP LOCKED", "FOR NO KEY UPDATE", ""]),
    (57, "SELECT a FROM t @", "FOR UPDATE SKIP LOCKED", &[], &["FOR NO KEY UPDATE"]),
    (59, W, "u = '6ba7b810-9dad-11d1-80b4-00c04fd430c8'::uuid", &["u = '6ba7b8109dad11d180b400c04fd430c8'::uuid"], &[]),
    (60, W, "c LIKE '%50\\%%'", &["c LIKE  E'\u{2026}\\\\%'"], &[]),
];

#[test]
fn the_table() {
    let mut failures = Vec::new();
    for (row, frame, first, same, different) in ROWS {
        let a = frame.replace('@', first);
        for b in *same {
            let b = frame.replace('@', b);
            if fp(&a) != fp(&b) {
                failures.push(format!("row {row}: must be equal: {a} | {b}\n   {}\n   {}", shown(&a), shown(&b)));
            }
        }
        for b in *different {
            let b = frame.replace('@', b);
            if fp(&a) == fp(&b) {
                failures.push(format!("row {row}: must differ: {a} | {b}\n   {}", shown(&a)));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn row_7_backslashes_when_conforming_strings_are_off() {
    let get = |sql: &str, s| all(sql.as_bytes(), s)[0].0;
    let a = "SELECT a FROM t WHERE c='it\\'s' AND d=1";
    assert_eq!(get(a, OFF).fingerprint, get("SELECT a FROM t WHERE c='x' AND d=2", OFF).fingerprint);
    // With the setting on, the same bytes end the string at \' and leave one open: nothing of it may show.
    assert_ne!(get(a, ON).flags & flag::TRUNCATED, 0);
    assert!(!shown(a).contains("AND"), "{}", shown(a));
    let unknown = LexSettings { standard_conforming_strings: None, safe_encoding: true };
    assert_ne!(get(a, unknown).flags & flag::UNLEXED, 0);
    assert_eq!(display(RawSql(a.as_bytes()), unknown, 2048).to_string(), "SELECT <unlexed>");
    // Where both readings agree there is no doubt.
    let b = get("SELECT a FROM t WHERE c='C:\\\\' AND d=1", unknown);
    assert_eq!(
        (b.flags & flag::UNLEXED, b.fingerprint),
        (0, get("SELECT a FROM t WHERE c='x' AND d=2", ON).fingerprint)
    );
}

#[test]
fn row_10_display_of_type_literals() {
    assert_eq!(shown("SELECT now() - interval '1 day'"), "SELECT now() - $1::interval");
    assert_eq!(shown("SELECT date '2024-01-01'"), "SELECT $1::date");
    assert_eq!(
        shown("SELECT timestamp(3) with time zone '2024-01-01', interval '1' day to second"),
        "SELECT $1::timestamp(3) with time zone, $2::interval day to second"
    );
}

#[test]
fn row_24_limit_is_a_hint() {
    let flags = |sql: &str| one(sql).flags & (flag::LIMIT | flag::LIMIT_ONE | flag::LIMIT_GET | flag::OFFSET);
    assert_eq!(flags("SELECT a FROM t LIMIT 1"), flag::LIMIT | flag::LIMIT_ONE);
    assert_eq!(flags("SELECT a FROM t LIMIT 21"), flag::LIMIT | flag::LIMIT_GET);
    assert_eq!(flags("SELECT a FROM t LIMIT 10 OFFSET 5"), flag::LIMIT | flag::OFFSET);
    assert_eq!(flags("SELECT a FROM t FETCH FIRST 5 ROWS ONLY"), flag::LIMIT);
    assert_eq!(flags("SELECT a FROM (SELECT b FROM t LIMIT 1) x"), 0);
}

#[test]
fn rows_44_and_45_splitting() {
    let texts = |sql: &str| {
        all(sql.as_bytes(), ON).iter().map(|(_, t)| String::from_utf8_lossy(t).trim().to_string()).collect::<Vec<_>>()
    };
    let two = all(b"SELECT 1; SELECT 2", ON);
    assert_eq!(two.len(), 2);
    assert_eq!(two[0].0.fingerprint, two[1].0.fingerprint);
    assert_ne!(two[0].0.literals, two[1].0.literals);
    assert_eq!(texts("SELECT 1; SELECT 2;/* tag */"), ["SELECT 1", "SELECT 2;/* tag */"]);
    assert_eq!(texts("SELECT 1;;SELECT 2;"), ["SELECT 1", "SELECT 2;"]);
    for sql in [
        "SELECT ';'",
        "SELECT $$;$$",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END",
        "CREATE RULE r AS ON INSERT TO t DO (INSERT INTO u VALUES (1); DELETE FROM v)",
    ] {
        assert_eq!(all(sql.as_bytes(), ON).len(), 1, "{sql}");
    }
}

#[test]
fn row_50_any_bytes() {
    assert_eq!(
        display(RawSql(b"SELECT \xff\xfe FROM t WHERE a = '\xff\xfe'"), ON, 2048).to_string(),
        "SELECT \\xFF\\xFE FROM t WHERE a = $1"
    );
}

#[test]
fn row_51_unterminated_text_shows_nothing() {
    for sql in ["SELECT 'abc", "SELECT $$abc", "SELECT \"abc", "SELECT E'abc\\", "SELECT $q$abc$$"] {
        assert_eq!(shown(sql), "SELECT $1", "{sql}");
        assert_ne!(one(sql).flags & flag::TRUNCATED, 0, "{sql}");
    }
    assert_eq!(shown("SELECT /* abc"), "SELECT");
    assert_ne!(one("SELECT /* abc").flags & flag::TRUNCATED, 0);
    assert_eq!(shown("SELECT $1$x$1$ FROM t"), "SELECT $1 $2");
}

#[test]
fn row_52_a_huge_insert_is_a_small_one() {
    let mut big = String::from("INSERT INTO \"shop_tag\" (\"a\", \"label\") VALUES ");
    let small = format!("{big}(1, 'x'), (2, 'y')");
    for i in 0..400_000 {
        big.push_str(&format!("({i}, 'x{i}'), "));
    }
    big.push_str("(1, 'z')");
    let got = one(&big);
    assert_eq!(got.fingerprint, fp(&small));
    assert_ne!(got.flags & flag::TRUNCATED, 0);
    assert!(got.max_list > 1000);
    // What lies behind the cap still tells two texts apart.
    let other = format!("{}(1, 'q')", &big[..big.len() - 8]);
    assert_ne!(one(&other).literals, got.literals);
}

#[test]
fn row_53_ten_thousand_parentheses() {
    let sql = format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000));
    let _ = (one(&sql), shown(&sql));
    let sql = format!("SELECT {}", "(CASE WHEN ".repeat(10_000));
    let _ = (one(&sql), shown(&sql));
}

#[test]
fn row_54_empty() {
    for sql in ["", ";", "-- ping", "/* ping */", " ; ; "] {
        assert_eq!(one(sql).operation, Operation::Empty, "{sql:?}");
    }
}

#[test]
fn row_58_utility_statements_are_masked() {
    for sql in [
        "CREATE ROLE x PASSWORD 'p4ss'",
        "ALTER USER x PASSWORD 'p4ss'",
        "CREATE SUBSCRIPTION s CONNECTION 'password=p4ss' PUBLICATION p",
        "CREATE USER MAPPING FOR u SERVER s OPTIONS (password 'p4ss')",
        "COPY t FROM PROGRAM 'p4ss'",
        "DO $$ p4ss $$",
        "COMMENT ON TABLE t IS 'p4ss'",
        "SET app.jwt = p4ss",
        "NOTIFY c, 'p4ss'",
        "EXECUTE p4ss(1)",
    ] {
        assert!(!shown(sql).contains("p4ss"), "{}", shown(sql));
    }
}
