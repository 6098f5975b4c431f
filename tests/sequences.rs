//! Sequences of messages, sent to PostgreSQL and through a pool of two: the answers are the same, message for message, on
//! whichever server the next request comes to be. They were found by comparing random ones.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::net::SocketAddr;

use support::cluster::{self, DATABASE, PASSWORD};
use support::pooler::{Pooler, Setup};
use support::raw::{Client, Message, bind, close, describe, execute, flush, parse, query, sync};

/// One write, and how many ReadyForQuery answer it.
struct Write(Vec<u8>, usize);

/// What is sent at once: each Query and Sync is answered.
fn write(parts: &[Vec<u8>]) -> Write {
    Write(parts.concat(), parts.iter().filter(|p| matches!(p[0], b'Q' | b'S')).count())
}

/// What is sent at once, of which one Query is skipped.
fn skipping(parts: &[Vec<u8>]) -> Write {
    let Write(bytes, readies) = write(parts);
    Write(bytes, readies - 1)
}

fn open(address: SocketAddr) -> Client {
    let mut client = Client::connect(address).unwrap();
    let parameters = [("user", "postgres"), ("database", DATABASE), ("TimeZone", "Asia/Tokyo")];
    client.login_with(PASSWORD, &parameters).unwrap();
    client
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

/// What was heard up to this many ReadyForQuery. Of errors what a driver reads.
fn answers(client: &mut Client, readies: usize) -> Vec<String> {
    let all: Vec<Message> = (0..readies).flat_map(|_| client.read_until(b'Z').unwrap()).collect();
    let shown = |m: &Message| match m.tag {
        b'E' => format!("E({:?} {:?})", m.field(b'C'), m.field(b'M')),
        _ => format!("{m:?}"),
    };
    all.iter().map(shown).collect()
}

/// Sends all on a direct connection, and through the pool, where the client is moved to the other server between its writes:
/// before each, or each second one.
fn same(pooler: &Pooler, what: &str, writes: &[Write]) {
    let mut direct = open(cluster::shared().address());
    let mut expected = Vec::new();
    for Write(bytes, readies) in writes {
        direct.send(bytes).unwrap();
        expected.push(answers(&mut direct, *readies));
    }
    for every in [1, 2] {
        let mut client = open(pooler.address());
        let mut neighbours = [open(pooler.address()), open(pooler.address())];
        neighbours[0].simple("BEGIN").unwrap();
        for (i, (Write(bytes, readies), expected)) in writes.iter().zip(&expected).enumerate() {
            if i % every == 0 && client.status == b'I' {
                // The server that the client had is taken, and the other one is free then.
                neighbours[1].simple("BEGIN").unwrap();
                neighbours[1].extended("SELECT 'theirs'", &[]).unwrap();
                neighbours[0].simple("COMMIT").unwrap();
                neighbours.swap(0, 1);
            }
            client.send(bytes).unwrap();
            assert_eq!(&answers(&mut client, *readies), expected, "{what}, write {i}, moved before every {every}");
        }
    }
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
