//! The unnamed statement in transaction pooling, where what pgsluice puts before it fails, or asks behind it.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use support::cluster;
use support::pooler::{Pooler, Setup};
use support::raw::{self, Client, bind, describe, execute, parse, sync};

fn pool(size: u32) -> Pooler {
    Setup::url(cluster::shared(), "postgres").env("PGSLUICE_POOL_SIZE", &size.to_string()).start()
}

/// Rows, or the SQLSTATE.
fn heard(client: &mut Client) -> String {
    client.answer().map_or_else(|e| e.code().to_owned(), |rows| raw::text(&rows))
}

fn said(client: &mut Client, messages: &[Vec<u8>]) -> String {
    client.send(&messages.concat()).unwrap();
    heard(client)
}

fn run(name: &str) -> [Vec<u8>; 3] {
    [bind("", name, &[]), execute("", 0), sync()]
}

/// Holds servers without a simple Query, which would end the unnamed statement that they have.
struct Holder(Client);

impl Holder {
    fn new(pooler: &Pooler) -> Self {
        let mut client = pooler.client("postgres");
        let both = [parse("b", "BEGIN"), parse("c", "COMMIT"), bind("", "b", &[]), execute("", 0), sync()];
        assert_eq!(said(&mut client, &both), "");
        Holder(client)
    }

    /// What the server of this one has answered by then is far more than what that of another has.
    fn work(&mut self) {
        for _ in 0..200 {
            assert_eq!(said(&mut self.0, &[describe(b'S', "b"), sync()]), "");
        }
    }

    fn hold(&mut self) {
        assert_eq!(said(&mut self.0, &run("b")), "");
    }

    fn release(&mut self) {
        assert_eq!(said(&mut self.0, &run("c")), "");
    }
}

#[test]
fn columns_asked_of_one_server_in_vain_are_not_awaited_at_another() {
    let pooler = pool(2);
    let (mut client, mut first, mut second) = (pooler.client("postgres"), Holder::new(&pooler), Holder::new(&pooler));
    cluster::shared().psql("DROP TABLE IF EXISTS un_asked; CREATE TABLE un_asked (a int)");
    second.work();
    first.release();
    assert_eq!(said(&mut client, &[parse("s1", "SELECT 'named'"), sync()]), "");
    assert_eq!(said(&mut client, &[parse("", "SELECT * FROM un_asked"), describe(b'S', ""), sync()]), "");
    cluster::shared().psql("DROP TABLE un_asked");
    first.hold();
    second.release();
    assert_eq!(said(&mut client, &run("")), "42P01");
    cluster::shared().psql("CREATE TABLE un_asked (a int); INSERT INTO un_asked VALUES (7)");
    second.hold();
    first.release();
    let [bind_s1, execute_s1, _] = run("s1");
    let [bind_it, execute_it, end] = run("");
    assert_eq!(said(&mut client, &[bind_s1, execute_s1, bind_it, execute_it, end]), "named\n7");
}

#[test]
fn a_description_is_kept_though_another_server_had_answered_more() {
    let pooler = pool(2);
    let (mut client, mut first, mut second) = (pooler.client("postgres"), Holder::new(&pooler), Holder::new(&pooler));
    cluster::shared().psql("DROP TABLE IF EXISTS un_told; CREATE TABLE un_told (a int)");
    second.work();
    first.release();
    assert_eq!(said(&mut client, &[parse("", "SELECT * FROM un_told"), sync()]), "");
    first.hold();
    second.release();
    // Put ahead there, at a place far behind that of its first Parse.
    assert_eq!(said(&mut client, &run("")), "");
    second.hold();
    first.release();
    assert_eq!(said(&mut client, &[describe(b'S', ""), sync()]), "");
    cluster::shared().psql("ALTER TABLE un_told ADD b text");
    // Elsewhere it is prepared anew.
    second.0.simple("SELECT 1").unwrap();
    first.hold();
    second.release();
    assert_eq!(said(&mut client, &run("")), "0A000", "told one column, it gets two");
}

#[test]
fn a_question_does_not_end_the_long_statement_that_ties() {
    let pooler = pool(1);
    let mut client = pooler.client("postgres");
    let set = "SELECT set_config('application_name', chr(97) || chr(98), false)";
    assert_eq!(said(&mut client, &[parse("s0", set), sync()]), "");
    let long = format!("SELECT 'long' /* {} */", "x".repeat(100_000));
    let [bind_s0, execute_s0, end] = run("s0");
    let batch = [bind_s0, execute_s0, end, parse("", &long), describe(b'S', ""), sync()];
    client.send(&batch.concat()).unwrap();
    assert_eq!([heard(&mut client), heard(&mut client)], ["ab".to_owned(), String::new()]);
    for _ in 0..2 {
        assert_eq!(said(&mut client, &run("")), "long");
    }
    // The question was only put off.
    assert_eq!(said(&mut client, &[parse("", "SELECT 1"), sync()]), "");
    assert_eq!(raw::text(&pooler.client("postgres").simple("SHOW application_name").unwrap()), "");
    assert_eq!(raw::text(&client.simple("SHOW application_name").unwrap()), "ab");
}
