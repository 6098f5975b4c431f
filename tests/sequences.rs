//! Awkward sequences of messages, whose answers must be the same directly and through a pool of two, on whichever server the
//! next request comes to be. They were found by comparing random ones.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use support::cluster;
use support::pooler::{Pooler, Setup};
use support::raw::{bind, close, describe, execute, flush, frame, parse, query, sync};
use support::sequences::{Write, same, same_for};

/// What is sent at once: each Query and Sync is answered.
fn write(parts: &[Vec<u8>]) -> Write {
    Write::of(&parts.concat())
}

/// What is sent at once, of which one Query is skipped.
fn skipping(parts: &[Vec<u8>]) -> Write {
    write(parts).skipping()
}

fn pool() -> Pooler {
    Setup::url(cluster::shared(), "postgres").env("PGSLUICE_POOL_SIZE", "2").start()
}

/// Bind and Execute.
fn run(statement: &str) -> Vec<u8> {
    [bind("", statement, &[]), execute("", 0)].concat()
}

/// A message that fails.
fn fails() -> Vec<u8> {
    bind("", "never", &[])
}

/// DEALLOCATE ALL and DISCARD ALL as Npgsql, pgx and PDO's kin execute them, with the names prepared anew at once.
#[test]
fn names_prepared_again_behind_an_executed_deallocate_all_are_there() {
    let pooler = pool();
    for sql in ["DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE PREPARE ALL"] {
        let prepared = || write(&[parse("a", "SELECT 1"), parse("all", sql), sync()]);
        let look = || write(&[run("a"), sync()]);
        let unnamed = || [parse("", sql), run("")].concat();
        let sequences: [(&str, Vec<Write>); 11] = [
            ("unnamed", vec![write(&[unnamed(), parse("a", "SELECT 3"), run("a"), sync()]), look()]),
            ("named", vec![write(&[run("all"), parse("a", "SELECT 3"), run("a"), sync()]), look()]),
            ("the same text", vec![write(&[run("all"), parse("a", "SELECT 1"), run("a"), sync()]), look()]),
            ("a sequence before", vec![write(&[run("all"), sync(), parse("a", "SELECT 3"), run("a"), sync()]), look()]),
            (
                "twice",
                vec![write(&[unnamed(), parse("a", "SELECT 3"), unnamed(), parse("a", "SELECT 4"), sync()]), look()],
            ),
            ("bound behind", vec![write(&[run("all"), run("a"), sync()]), look()]),
            ("bound in the next", vec![write(&[run("all"), sync(), run("a"), sync()]), look()]),
            ("described behind", vec![write(&[run("all"), describe(b'S', "a"), sync()]), look()]),
            ("itself again", vec![write(&[run("all"), run("all"), sync()]), look()]),
            ("a portal with a name", {
                let portal = [bind("p", "all", &[]), execute("p", 0)].concat();
                vec![write(&[portal, parse("a", "SELECT 4"), sync()]), look()]
            }),
            (
                "by Query",
                vec![write(&[run("a"), sync(), query(sql), parse("a", "SELECT 5"), run("a"), sync()]), look()],
            ),
        ];
        for (what, writes) in sequences {
            let all: Vec<_> = [prepared()].into_iter().chain(writes).collect();
            same(&pooler, &format!("{sql}, {what}"), &all);
        }
    }
}

#[test]
fn names_stay_when_an_executed_deallocate_all_fails_or_is_skipped() {
    let pooler = pool();
    for sql in ["DEALLOCATE ALL", "DISCARD ALL"] {
        let prepared = || write(&[parse("a", "SELECT 1"), parse("all", sql), sync()]);
        let look = || write(&[run("a"), sync()]);
        let begin = || write(&[query("BEGIN")]);
        let sequences: [(&str, Vec<Write>); 5] = [
            ("skipped", vec![write(&[fails(), run("all"), parse("a", "SELECT 3"), sync(), run("a"), sync()]), look()]),
            (
                "in a block",
                vec![
                    begin(),
                    write(&[run("all"), parse("a", "SELECT 3"), sync()]),
                    write(&[query("ROLLBACK")]),
                    look(),
                ],
            ),
            (
                "in a failed block",
                vec![
                    begin(),
                    write(&[fails(), sync()]),
                    write(&[run("all"), sync(), query("ROLLBACK"), run("a"), sync()]),
                    look(),
                ],
            ),
            (
                "behind a failure to come",
                vec![
                    write(&[
                        query("BEGIN"),
                        query("SELECT 1/0"),
                        run("all"),
                        sync(),
                        query("ROLLBACK"),
                        run("a"),
                        sync(),
                    ]),
                    look(),
                ],
            ),
            (
                "closed meanwhile",
                vec![write(&[run("all"), close(b'S', "a"), flush(), parse("a", "SELECT 3"), sync()]), look()],
            ),
        ];
        for (what, writes) in sequences {
            let all: Vec<_> = [prepared()].into_iter().chain(writes).collect();
            same(&pooler, &format!("{sql}, {what}"), &all);
        }
    }
}

/// PostgreSQL drops the old unnamed statement when it meets a new Parse, a Close or a Query, not when it skips one.
#[test]
fn a_skipped_parse_leaves_the_unnamed_statement_before_it() {
    let pooler = pool();
    let prepared = |sql: &str| write(&[parse("", sql), sync()]);
    let look = || write(&[describe(b'P', ""), bind("", "", &[]), describe(b'P', ""), execute("", 0), sync()]);
    let run = || write(&[run(""), sync()]);
    let named = || write(&[parse("n", "SELECT 'named'"), sync()]);
    let sequences: [(&str, Vec<Write>); 14] = [
        ("a Parse", vec![prepared("SELECT 1"), write(&[fails(), parse("", "SELECT 2"), sync()]), run(), look(), run()]),
        (
            "in one write",
            vec![write(&[parse("", "SELECT 1"), sync(), fails(), parse("", "SELECT 2"), sync()]), run(), run()],
        ),
        ("a Close", vec![prepared("SELECT 1"), write(&[fails(), close(b'S', ""), sync()]), run(), run()]),
        (
            "two",
            vec![
                prepared("SELECT 1"),
                write(&[fails(), parse("", "SELECT 2"), parse("", "SELECT 3"), sync()]),
                run(),
                run(),
            ],
        ),
        ("a Parse that failed", vec![prepared("SELECT 1"), write(&[parse("", "SELEC"), sync()]), run(), run()]),
        (
            "a Parse behind it",
            vec![
                prepared("SELECT 1"),
                write(&[fails(), parse("", "SELECT 2"), sync(), parse("", "SELECT 3"), sync()]),
                run(),
                run(),
            ],
        ),
        (
            "a Close, and a Parse behind it",
            vec![
                prepared("SELECT 1"),
                write(&[fails(), close(b'S', ""), sync(), parse("", "SELECT 3"), sync()]),
                run(),
                run(),
            ],
        ),
        (
            "a Query, and a Parse behind it",
            vec![
                prepared("SELECT 1"),
                skipping(&[fails(), query("SELECT 2"), sync(), parse("", "SELECT 3"), sync()]),
                run(),
                run(),
            ],
        ),
        (
            "a Query and a Parse",
            vec![
                prepared("SELECT 1"),
                skipping(&[fails(), query("SELECT 2"), parse("", "SELECT 3"), sync()]),
                run(),
                run(),
            ],
        ),
        (
            "a Query, and a Query behind it",
            vec![
                prepared("SELECT 1"),
                skipping(&[fails(), query("SELECT 2"), sync(), query("SELECT 3")]),
                run(),
                run(),
            ],
        ),
        (
            "what it leaves is seen",
            vec![
                prepared("SET work_mem = '7MB'"),
                write(&[fails(), parse("", "SELECT 2"), sync()]),
                run(),
                write(&[query("SHOW work_mem")]),
                write(&[query("SHOW work_mem")]),
            ],
        ),
        (
            "an EXECUTE",
            vec![named(), prepared("EXECUTE n"), write(&[fails(), parse("", "SELECT 2"), sync()]), run(), run()],
        ),
        (
            "a DEALLOCATE",
            vec![named(), prepared("DEALLOCATE n"), write(&[fails(), parse("", "SELECT 2"), sync()]), run(), run()],
        ),
        (
            "in a failed block",
            vec![
                prepared("SELECT 1"),
                write(&[query("BEGIN")]),
                write(&[fails(), parse("", "ROLLBACK"), sync()]),
                run(),
                write(&[parse("", "ROLLBACK"), sync()]),
                run(),
                run(),
            ],
        ),
    ];
    for (what, writes) in sequences {
        same(&pooler, what, &writes);
    }
}

/// An unnamed statement lives until the next Parse of it or simple Query, whether it has been bound or not, and is what
/// remains when those behind it are skipped.
#[test]
fn an_unnamed_statement_that_was_bound_is_bound_again() {
    let pooler = pool();
    let first = |sql: &str| write(&[parse("", sql), run(""), sync()]);
    let again = || write(&[run(""), sync()]);
    let nope = || execute("nope", 0);
    let long = |n: usize| format!("SELECT length('{}')", "x".repeat(n));
    let sequences: [(&str, Vec<Write>); 17] = [
        ("one", vec![first("SELECT 1"), again(), again(), write(&[describe(b'S', ""), sync()]), again()]),
        ("a long one", vec![first(&long(60_000)), again(), first("SELECT 1"), again(), first(&long(3_000)), again()]),
        ("of several", vec![write(&[parse("", "SELECT 1"), run(""), parse("", "SELECT 2"), run(""), sync()]), again()]),
        ("one that fails", vec![first("SELECT 1 / (x - 1) FROM generate_series(1, 2) x"), again(), again()]),
        (
            "told its columns",
            vec![write(&[parse("", "SELECT 1"), describe(b'S', ""), run(""), sync()]), again(), again()],
        ),
        ("ended by Close", vec![first("SELECT 1"), write(&[close(b'S', ""), sync()]), again()]),
        ("ended by Query", vec![first("SELECT 1"), write(&[query("SELECT 2")]), again()]),
        ("ended by a Parse that fails", vec![first("SELECT 1"), write(&[parse("", "SELEC"), sync()]), again()]),
        ("BEGIN", vec![first("BEGIN"), write(&[query("COMMIT")]), first("BEGIN"), again(), write(&[query("COMMIT")])]),
        ("SET", vec![first("SET work_mem = '7MB'"), write(&[parse("s", "SHOW work_mem"), run("s"), sync()]), again()]),
        (
            "a skipped one behind it",
            vec![write(&[parse("", "SELECT 1"), run(""), nope(), parse("", "SELECT 2"), sync()]), again(), again()],
        ),
        (
            "two of three carried out",
            vec![
                write(&[parse("", "SELECT 1"), parse("", "SELECT 2"), run(""), nope(), parse("", "SELECT 3"), sync()]),
                again(),
                again(),
            ],
        ),
        (
            "one that fails and one skipped behind it",
            vec![write(&[parse("", "SELECT 1"), parse("", "SELEC"), parse("", "SELECT 3"), sync()]), again(), again()],
        ),
        (
            "skipped in two sequences of one write",
            vec![
                first("SELECT 1"),
                write(&[nope(), parse("", "SELECT 2"), sync(), nope(), parse("", "SELECT 3"), sync()]),
                again(),
                again(),
            ],
        ),
        (
            "one carried out in the first of two",
            vec![
                first("SELECT 1"),
                write(&[parse("", "SELECT 2"), nope(), parse("", "SELECT 4"), sync()]),
                write(&[nope(), parse("", "SELECT 3"), sync()]),
                again(),
                again(),
            ],
        ),
        (
            "the same in one write",
            vec![
                first("SELECT 1"),
                write(&[
                    parse("", "SELECT 2"),
                    nope(),
                    parse("", "SELECT 4"),
                    sync(),
                    nope(),
                    parse("", "SELECT 3"),
                    sync(),
                ]),
                again(),
                again(),
            ],
        ),
        (
            "a skipped Query or Close",
            vec![
                first("SELECT 1"),
                skipping(&[nope(), query("SELECT 2"), sync()]),
                again(),
                write(&[nope(), close(b'S', ""), sync()]),
                again(),
            ],
        ),
    ];
    for (what, writes) in sequences {
        same(&pooler, what, &writes);
    }
    let all = || [fails(), close(b'S', ""), sync(), run(""), sync()];
    same(&pooler, "a skipped Close and a Bind in one write", &[first("SELECT 1"), write(&all()), again()]);
    let all = || [describe(b'S', ""), parse("", "SELECT 'text'"), run(""), sync(), run(""), sync()];
    same(&pooler, "a Describe of the one before", &[first("SELECT 1"), write(&all()), again(), again()]);
    let all = || [parse("s", "SELECT 3"), fails(), parse("", "EXECUTE s"), run(""), sync()];
    same(&pooler, "a skipped EXECUTE", &[write(&all()), again(), write(&[describe(b'S', ""), sync()])]);
    let all = || [parse("", "SELECT 2"), fails(), close(b'S', ""), parse("", "SELECT 3"), sync(), run(""), sync()];
    same(&pooler, "a skipped Close and Parse and a Bind in one write", &[first("SELECT 1"), write(&all()), again()]);
}

/// 26000 may be about another name than the one that was put in the text.
#[test]
fn an_execute_of_a_statement_that_executes_what_is_not_there_says_so() {
    let pooler = pool();
    let named = || write(&[parse("a", "EXECUTE b"), parse("c", "SELECT 7"), sync()]);
    let execute = || write(&[query("EXECUTE a")]);
    same(&pooler, "nested", &[named(), execute(), execute(), execute(), execute()]);
    let two = || write(&[query("EXECUTE b; EXECUTE c")]);
    same(
        &pooler,
        "the other one",
        &[named(), two(), two(), write(&[parse("d", "SELECT 7"), run("d"), run("c"), sync()])],
    );
}

/// PostgreSQL refuses what it cannot read (08P01), skips to the Sync, and the session goes on.
#[test]
fn a_malformed_message_is_an_error_and_not_the_end() {
    let pooler = pool();
    let (count, types): (&[u8], &[u8]) = (b"a\0\0SELECT 1\0", b"\0SELECT $1\0\0\x02\0\0\0\x17");
    let bodies: [(u8, &[u8]); 26] = [
        (b'D', b"Xa\0"),
        (b'D', b""),
        (b'D', b"S"),
        (b'D', b"Sa"),
        (b'D', b"Sa\0x"),
        (b'D', b"P\0x"),
        (b'C', b"Xa\0"),
        (b'C', b""),
        (b'C', b"Sa"),
        (b'C', b"Sa\0x"),
        (b'C', b"S\0x"),
        (b'E', b""),
        (b'E', b"p"),
        (b'E', b"\0"),
        (b'E', b"\0\0\0\0\0x"),
        (b'P', b""),
        (b'P', b"b"),
        (b'P', b"b\0"),
        (b'P', b"b\0SELECT 1"),
        (b'P', count),
        (b'P', types),
        (b'P', b"\0SELECT 2\0\0\0x"),
        (b'B', b""),
        (b'B', b"\0"),
        (b'B', b"\0a"),
        (b'B', b"\0a\0"),
    ];
    let look = || write(&[run("a"), run(""), sync()]);
    for (tag, body) in bodies {
        let bad = || frame(tag, body);
        let name = format!("{}({})", tag as char, body.escape_ascii());
        let prepared = || write(&[parse("a", "SELECT 1"), parse("", "SELECT 'unnamed'"), sync()]);
        let begin = || write(&[query("BEGIN")]);
        let rollback = || write(&[query("ROLLBACK")]);
        same(&pooler, &name, &[prepared(), write(&[bad(), sync()]), look(), look()]);
        let around = || write(&[run("a"), bad(), run("a"), parse("b", "SELECT 2"), sync()]);
        same(&pooler, &format!("{name} in a sequence"), &[prepared(), around(), look(), write(&[run("b"), sync()])]);
        same(
            &pooler,
            &format!("{name} in a block"),
            &[begin(), write(&[bad(), sync()]), rollback(), prepared(), look()],
        );
        let failed = write(&[query("SELECT 1/0")]);
        same(&pooler, &format!("{name} in a failed block"), &[begin(), failed, write(&[bad(), sync()]), rollback()]);
        same(&pooler, &format!("{name}, skipped"), &[prepared(), write(&[fails(), bad(), sync()]), look()]);
    }
}

/// DISCARD ALL brings back what the client began with, of parameters that no report tells too.
#[test]
fn discard_all_forgets_what_the_client_has_set() {
    let pooler = pool();
    for set in ["SET work_mem = '7MB'", "SET client_min_messages TO 'warning'", "SELECT set_config('a.b', 'c', false)"]
    {
        for all in [query("DISCARD ALL"), [parse("", "DISCARD ALL"), run(""), sync()].concat()] {
            let show = "SELECT current_setting('work_mem'), current_setting('client_min_messages'), current_setting('a.b', true)";
            let look = || write(&[query(show)]);
            let writes = [write(&[query(set)]), look(), write(&[all]), look(), look()];
            same(&pooler, set, &writes);
            same_for(&pooler, &[], set, &writes);
        }
    }
}
