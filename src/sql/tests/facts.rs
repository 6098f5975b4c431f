//! Operations, flags and effects.

use super::*;

#[test]
fn operations() {
    use Operation::*;
    for (sql, expected) in [
        ("(SELECT 1) UNION (SELECT 2)", Select),
        ("VALUES (1)", Select),
        ("TABLE t", Select),
        ("WITH x AS (SELECT 1) SELECT * FROM x", Select),
        ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", Delete),
        ("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", Insert),
        ("SELECT a FROM t FOR UPDATE", Select),
        ("SELECT set_config('TimeZone', 'UTC', false)", Session),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", Transaction),
        ("START TRANSACTION", Transaction),
        ("COPY t FROM STDIN", Copy),
        ("CREATE TABLE t (a int)", Ddl),
        ("EXPLAIN SELECT 1", Other),
        ("VACUUM", Other),
        ("FETCH FORWARD 1 FROM c", Cursor),
        ("DECLARE c CURSOR FOR SELECT 1", Cursor),
        ("SHOW x", Session),
        ("MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE", Merge),
        ("\"select\" 1", Other),
    ] {
        assert_eq!(one(sql).operation, expected, "{sql}");
    }
}

#[test]
fn effects() {
    use effect::*;
    for (sql, expected) in [
        ("SELECT 1", 0),
        ("SET work_mem = 1", SET),
        ("SET SESSION work_mem TO 1", SET),
        ("SET LOCAL work_mem = 1", 0),
        ("SET TRANSACTION READ ONLY", 0),
        ("SET CONSTRAINTS ALL DEFERRED", 0),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", SET),
        ("SET default_transaction_isolation TO DEFAULT", RESET),
        ("SET app.tenant TO DEFAULT", RESET),
        ("SET SESSION \"a\".b.c = default", RESET),
        ("SET app.tenant TO \"default\"", SET),
        ("SET TIME ZONE DEFAULT", RESET),
        ("SET TIME ZONE LOCAL", RESET),
        ("SET NAMES DEFAULT", RESET),
        ("SET NAMES 'LATIN1'", SET),
        ("SET TIME ZONE 'UTC'", SET),
        ("SET ROLE 'x'", ROLE),
        ("SET SESSION AUTHORIZATION x", ROLE),
        ("SET LOCAL ROLE x", 0),
        ("RESET ROLE", ROLE | RESET),
        ("RESET SESSION AUTHORIZATION", ROLE | RESET),
        ("RESET ALL", RESET),
        ("SELECT set_config('TimeZone', 'UTC', false)", SET),
        ("SELECT pg_catalog.\"set_config\"('search_path', '', $1)", SET),
        ("SELECT set_config('a', 'b', true)", 0),
        ("SELECT set_config('a', 'b', true), set_config('a', 'b', false)", SET),
        ("LISTEN c", LISTEN),
        ("UNLISTEN *", UNDO),
        ("SELECT a, pg_advisory_lock(1) FROM t", ADVISORY_LOCK),
        ("SELECT pg_try_advisory_lock_shared($1)", ADVISORY_LOCK),
        ("SELECT pg_advisory_xact_lock(1)", 0),
        ("SELECT pg_advisory_unlock_all()", UNDO),
        ("CREATE TEMP TABLE t (a int)", TEMP),
        ("CREATE OR REPLACE TEMPORARY VIEW t AS SELECT 1", TEMP),
        ("CREATE LOCAL TEMP SEQUENCE s", TEMP),
        ("CREATE TEMP TABLE t (a int) ON COMMIT DROP", 0),
        ("CREATE TABLE t (temp int)", 0),
        ("CREATE TABLE pg_temp.t (a int)", TEMP),
        ("CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", TEMP | LOAD),
        ("SELECT a INTO TEMP x FROM t", TEMP),
        ("SELECT a INTO LOCAL TEMPORARY TABLE x FROM t", TEMP),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", HOLD_CURSOR),
        ("DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1", 0),
        ("DECLARE c CURSOR FOR SELECT a FROM t WITH HOLD", 0),
        ("CLOSE c", UNDO),
        ("PREPARE p AS SELECT 1", PREPARE),
        ("PREPARE TRANSACTION 'x'", 0),
        ("EXECUTE p", EXECUTE),
        ("DEALLOCATE ALL", DEALLOCATE_ALL),
        ("DEALLOCATE PREPARE ALL", DEALLOCATE_ALL),
        ("DEALLOCATE \"all\"", DEALLOCATE),
        ("DEALLOCATE p", DEALLOCATE),
        ("DISCARD ALL", DISCARD_ALL),
        ("DISCARD TEMP", UNDO),
        ("LOAD 'auto_explain'", LOAD),
        ("SELECT \"set\", \"listen\" FROM \"temp\"", 0),
        ("SELECT 'SET x = 1; LISTEN c'", 0),
        ("/* SET */ SELECT 1 -- LISTEN", 0),
        ("UPDATE t SET listen = 1", 0),
    ] {
        assert_eq!(one(sql).effects, expected, "{sql}");
    }
}

#[test]
fn effects_in_doubt_are_those_of_both_readings() {
    let unknown = LexSettings { standard_conforming_strings: None, safe_encoding: true };
    // One reading ends the first string at the backslash, the other two quotes later.
    let got = all(b"SELECT 'a\\'; SET x = 1; SELECT ' '", unknown);
    assert!(got.iter().any(|(s, _)| s.effects & effect::SET != 0));
    let got = all(b"SELECT 'a\\', '; SET x = 1; SELECT ' '", unknown);
    assert!(got.iter().any(|(s, _)| s.effects & effect::SET != 0));
    assert!(got.iter().all(|(s, _)| s.flags & flag::UNLEXED != 0));
}

#[test]
fn flags() {
    use flag::*;
    for (sql, expected) in [
        ("SELECT 1", NO_FROM | PING),
        ("SELECT 'x'", NO_FROM | PING),
        ("SELECT nextval('s')", NO_FROM),
        ("SELECT a FROM t", 0),
        ("SELECT a FROM t ORDER BY a", ORDER_BY),
        ("SELECT a, row_number() OVER (ORDER BY b) FROM t", 0),
        ("SELECT a FROM t WHERE b > 1", RANGE),
        ("SELECT a FROM t WHERE b >= $1", RANGE),
        ("SELECT a FROM t WHERE b BETWEEN 1 AND 2", RANGE),
        ("SELECT a > 1 FROM t", 0),
        ("SELECT a FROM t WHERE b > c", 0),
        ("SELECT a FROM t FOR UPDATE", FOR_UPDATE),
        ("SELECT a FROM t FOR NO KEY UPDATE NOWAIT", FOR_UPDATE | LOCK_QUEUE),
        ("SELECT a FROM t FOR UPDATE OF t SKIP LOCKED", FOR_UPDATE | LOCK_QUEUE),
        ("SELECT relname FROM pg_class, \"pg_catalog\".pg_namespace n", CATALOG),
        ("SELECT a FROM pg_class JOIN t ON true", 0),
        ("SELECT \"django_migrations\".\"id\" FROM \"django_migrations\"", CATALOG),
        ("SELECT a FROM django_session WHERE session_key = 'x'", DJANGO_SESSION),
        ("SELECT extract(year FROM pg_x) FROM t", 0),
        ("SELECT a FROM t WHERE a IS DISTINCT FROM pg_x", 0),
        ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", ON_CONFLICT),
        ("/* a */ SELECT a FROM t", COMMENT),
        ("SELECT a FROM t -- x", 0),
        ("SELECT '/* x */' FROM t", 0),
    ] {
        assert_eq!(one(sql).flags, expected, "{sql}");
    }
}

#[test]
fn lists_are_measured() {
    for (sql, expected) in [
        ("SELECT 1", 1),
        ("SELECT a FROM t WHERE b IN (1,2,3)", 3),
        ("SELECT a FROM t WHERE b IN ((1),(2),(3))", 3),
        ("SELECT a FROM t WHERE (b,c) IN ((1,2),(3,4))", 2),
        ("SELECT a FROM t WHERE b = ANY(ARRAY[1,2])", 2),
        ("INSERT INTO t VALUES (1,2),(3,4),(5,6)", 3),
        ("SELECT f(1,2,3)", 1),
    ] {
        assert_eq!(one(sql).max_list, expected, "{sql}");
    }
}

#[test]
fn literals_tell_values_apart() {
    let lits = |sql: &str| one(sql).literals;
    assert_eq!(lits("SELECT a FROM t WHERE b = 1"), lits("select  a from t where b=1"));
    assert_ne!(lits("SELECT a FROM t WHERE b = 1"), lits("SELECT a FROM t WHERE b = 2"));
    assert_ne!(lits("SELECT f('a','bc')"), lits("SELECT f('ab','c')"));
    assert_ne!(lits("SET search_path = tenant1"), lits("SET search_path = tenant2"));
    assert_ne!(lits("SELECT a FROM t WHERE b IN (1,2)"), lits("SELECT a FROM t WHERE b IN (1,2,3)"));
    let (a, b) = (Analyzer::new([1, 2]), Analyzer::new([3, 4]));
    assert_ne!(a.hash_literals(b"x"), b.hash_literals(b"x"));
    assert_ne!(a.combine(1, 2), a.combine(2, 1));
}

#[test]
fn setting_conforming_strings_stops_the_rest() {
    let got = all(b"SET standard_conforming_strings = off; SELECT 'x'", ON);
    assert_eq!((got[0].0.flags & flag::UNLEXED, got[1].0.flags & flag::UNLEXED), (0, flag::UNLEXED));
    assert_eq!(got[1].0.operation, Operation::Select);
}

#[test]
fn set_targets() {
    let of = |sql: &str| set_target(RawSql(sql.as_bytes()), ON);
    for (sql, expected) in [
        ("SET Work_Mem = 1", Some("work_mem")),
        ("SET SESSION \"Search_Path\" TO x", Some("search_path")),
        ("SET LOCAL app.jwt = 'x'", Some("app.jwt")),
        ("SET TIME ZONE 'UTC'", Some("timezone")),
        ("SET ROLE x", Some("role")),
        ("SET SESSION AUTHORIZATION x", Some("session authorization")),
        ("RESET ALL", Some("all")),
        ("RESET app.x", Some("app.x")),
        ("SET TRANSACTION READ ONLY", None),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", None),
        ("SELECT 1", None),
    ] {
        assert_eq!(of(sql).as_deref(), expected, "{sql}");
    }
}
