//! What drivers send, message for message, in their usual and their awkward modes: to PostgreSQL, and through a pool of two
//! in transaction mode where neighbours move the client between its transactions. Every answer is the same.
//!
//! Written from what is known of pgjdbc, pgx, Npgsql, sqlx, tokio-postgres, postgres.js, node-postgres, Postgrex, lib/pq,
//! psycopg 3, libpq and ruby-pg; not recorded from them.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::sync::Once;

use support::cluster;
use support::pooler::Setup;
use support::raw::{c_string, close, describe, execute, flush, frame, query, sync};
use support::sequences::{Write, same, same_when_tied};

/// The sequences, in the form that the file's head tells.
const SEQUENCES: &str = include_str!("driver_sequences.txt");

fn list(field: Option<&&str>) -> Vec<String> {
    field.filter(|f| !f.is_empty()).map(|f| f.split(',').map(str::to_owned).collect()).unwrap_or_default()
}

fn numbers(field: Option<&&str>, body: &mut Vec<u8>) {
    let all = list(field);
    body.extend((all.len() as u16).to_be_bytes());
    all.iter().for_each(|n| body.extend(n.parse::<u16>().unwrap().to_be_bytes()));
}

fn value(text: &str) -> Vec<u8> {
    let bytes = text.strip_prefix('=').map(|n| n.parse::<i32>().unwrap().to_be_bytes().to_vec());
    let bytes = bytes.unwrap_or_else(|| text.as_bytes().to_vec());
    [&(bytes.len() as u32).to_be_bytes()[..], &bytes].concat()
}

fn message(text: &str) -> Vec<u8> {
    let field: Vec<_> = text.split('|').collect();
    match field[0] {
        "P" => {
            let types = list(field.get(3));
            let mut body = [c_string(field[1]), c_string(field[2])].concat();
            body.extend((types.len() as u16).to_be_bytes());
            types.iter().for_each(|t| body.extend(t.parse::<u32>().unwrap().to_be_bytes()));
            frame(b'P', &body)
        }
        "B" => {
            let mut body = [c_string(field[1]), c_string(field[2])].concat();
            numbers(field.get(4), &mut body);
            let values = list(field.get(3));
            body.extend((values.len() as u16).to_be_bytes());
            values.iter().for_each(|v| body.extend(value(v)));
            numbers(field.get(5), &mut body);
            frame(b'B', &body)
        }
        "D" => describe(field[1].as_bytes()[0], field[2]),
        "C" => close(field[1].as_bytes()[0], field[2]),
        "E" => execute(field[1], field[2].parse().unwrap()),
        "Q" => query(field[1]),
        "F" => {
            let oid = field[1].parse::<u32>().unwrap().to_be_bytes();
            frame(b'F', &[&oid[..], &[0, 1, 0, 1, 0, 1], &value(field[2]), &[0, 1]].concat())
        }
        "d" => frame(b'd', format!("{}\n", field[1]).as_bytes()),
        "f" => frame(b'f', &c_string(field[1])),
        "c" => frame(b'c', b""),
        "H" => flush(),
        "S" => sync(),
        other => panic!("{other}"),
    }
}

fn write(line: &str) -> Write {
    Write::of(&line.split(" ~ ").map(message).collect::<Vec<_>>().concat())
}

/// Plays all sequences of a driver.
fn play(driver: &str) {
    static TABLE: Once = Once::new();
    let cluster = cluster::shared();
    TABLE.call_once(|| {
        cluster.psql("CREATE TABLE driver_rows (n int)");
    });
    let pooler = Setup::url(cluster, "postgres").env("PGSLUICE_POOL_SIZE", "2").start();
    let mut played = 0;
    for part in SEQUENCES.split("\n== ").skip(1) {
        let (title, lines) = part.split_once('\n').unwrap();
        let (whose, what) = title.split_once(" | ").unwrap();
        if whose == driver {
            let writes: Vec<_> = lines.lines().filter(|line| !line.is_empty()).map(write).collect();
            let same = if what.starts_with("[tied]") { same_when_tied } else { same };
            same(&pooler, title, &writes);
            played += 1;
        }
    }
    assert!(played > 0, "no sequences of {driver}");
}

#[test]
fn what_pgjdbc_sends() {
    play("pgjdbc");
}

#[test]
fn what_pgx_sends() {
    play("pgx");
}

#[test]
fn what_npgsql_sends() {
    play("Npgsql");
}

#[test]
fn what_sqlx_sends() {
    play("sqlx");
}

#[test]
fn what_tokio_postgres_sends() {
    play("tokio-postgres");
}

#[test]
fn what_postgres_js_sends() {
    play("postgres.js");
}

#[test]
fn what_node_postgres_sends() {
    play("node-postgres");
}

#[test]
fn what_postgrex_sends() {
    play("Postgrex");
}

#[test]
fn what_lib_pq_sends() {
    play("lib/pq");
}

#[test]
fn what_psycopg_3_sends() {
    play("psycopg 3");
}

#[test]
fn what_libpq_sends() {
    play("libpq");
}

#[test]
fn what_ruby_pg_sends() {
    play("ruby-pg");
}

#[test]
fn an_unnamed_statement_is_bound_again_on_another_server() {
    play("unnamed");
}

#[test]
fn a_statement_is_executed_by_its_name_wherever_in_a_text() {
    play("execute");
}
