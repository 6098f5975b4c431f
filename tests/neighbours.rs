//! What one client did must not show to the next on the same server: each test makes state with one client and asks
//! with another, in a pool of one.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use support::cluster::{self, DATABASE, PASSWORD};
use support::pooler::{Pooler, Setup};
use support::{raw, wait_for};

fn pool_of_one() -> Pooler {
    Setup::url(cluster::shared(), "app").env("PGSLUICE_POOL_SIZE", "1").start()
}

fn open(pooler: &Pooler, parameters: &[(&str, &str)]) -> raw::Client {
    let mut client = raw::Client::connect(pooler.address()).unwrap();
    let all = [&[("user", "app"), ("database", DATABASE)], parameters].concat();
    client.login_with(PASSWORD, &all).unwrap();
    client
}

#[test]
fn a_reset_of_one_parameter_leaves_none_of_the_others_to_the_neighbour() {
    let pooler = pool_of_one();
    let mut german = open(&pooler, &[("datestyle", "German")]);
    let mut plain = open(&pooler, &[]);
    let default = plain.value("SHOW datestyle");
    for reset in
        ["RESET TimeZone", "SET TimeZone TO DEFAULT", "BEGIN; RESET TimeZone; ROLLBACK", "RESET ALL", "DISCARD ALL"]
    {
        german.simple(reset).unwrap();
        assert_eq!(plain.value("SHOW datestyle"), default, "after {reset}");
        assert_eq!(german.value("SHOW datestyle"), "German, DMY", "after {reset}");
    }
}

#[test]
fn a_set_whose_client_vanished_does_not_stay() {
    let pooler = pool_of_one();
    let mut plain = open(&pooler, &[]);
    let default = plain.value("SHOW datestyle");
    let mut leaving = open(&pooler, &[]);
    leaving.send(&raw::query("SET datestyle = 'SQL, DMY'")).unwrap();
    drop(leaving);
    assert_eq!(plain.value("SHOW datestyle"), default);

    // And one that a rollback takes back is not taken for set.
    let mut leaving = open(&pooler, &[]);
    leaving.simple("BEGIN; SET timezone = 'Asia/Tokyo'").unwrap();
    leaving.reset();
    assert_eq!(open(&pooler, &[("timezone", "Asia/Tokyo")]).value("SHOW timezone"), "Asia/Tokyo");
    assert_ne!(plain.value("SHOW timezone"), "Asia/Tokyo");
}

#[test]
fn what_stands_beyond_the_text_that_is_read_is_reset() {
    let pooler = pool_of_one();
    let mut plain = open(&pooler, &[]);
    let default = plain.value("SHOW work_mem");
    let numbers: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    let long = format!("SELECT 1 WHERE 1 IN ({}); SET work_mem = '77MB'", numbers.join(", "));
    assert!(long.len() > 64 * 1024);
    open(&pooler, &[]).simple(&long).unwrap();
    wait_for("the server to be reset", || (plain.value("SHOW work_mem") == default).then_some(()));
    assert_eq!(plain.value("SHOW work_mem"), default);
}

#[test]
fn a_prepared_literal_keeps_the_time_zone_it_was_prepared_under() {
    let pooler = pool_of_one();
    let sql = "SELECT '2020-01-01 00:00'::timestamptz AT TIME ZONE 'UTC'";
    let ask = |zone: &str| {
        let mut client = open(&pooler, &[("timezone", zone)]);
        let pipeline = [raw::parse("s", sql), raw::bind("", "s", &[]), raw::execute("", 0), raw::sync()];
        client.send(&pipeline.concat()).unwrap();
        raw::text(&client.answer().unwrap())
    };
    assert_eq!(ask("Asia/Tokyo"), "2019-12-31 15:00:00");
    assert_eq!(ask("UTC"), "2020-01-01 00:00:00");
}

#[test]
fn a_close_behind_a_sync_does_not_keep_the_server() {
    let pooler = pool_of_one();
    let mut first = pooler.client("app");
    first.send(&[raw::parse("s", "SELECT 1"), raw::sync(), raw::close(b'S', "s"), raw::flush()].concat()).unwrap();
    // ParseComplete, ReadyForQuery, CloseComplete: and the client stays, without another Sync.
    let tags: Vec<u8> = (0..3).map(|_| first.read().unwrap().tag).collect();
    assert_eq!(tags, b"1Z3");
    assert_eq!(pooler.client("app").value("SELECT 2"), "2");
}
