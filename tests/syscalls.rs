//! What a transaction costs in system calls. Times differ from machine to machine; these figures do not.
//!
//! Floor: 2 receives, 2 sends, 2 waits with one client; fewer waits when several clients are served at once.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use support::cluster;
use support::pooler::{Pooler, Setup};
use support::{TempDir, raw, signal, skip};

const TRANSACTIONS: usize = 400;

/// System calls of the pooler during `work`, by name; `None` when they cannot be counted here.
fn count(pooler: &Pooler, work: impl FnOnce()) -> Option<BTreeMap<String, f64>> {
    let dir = TempDir::new("strace");
    let report = dir.path().join("report");
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-p", &pooler.pid().to_string(), "-o"])
        .arg(&report)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| skip(&format!("strace: {error}")))
        .ok()?;
    let mut said = String::new();
    BufReader::new(strace.stderr.take().expect("piped")).read_line(&mut said).unwrap();
    if !said.contains("attached") {
        skip(&format!("strace: {}", said.trim()));
        let _ = strace.wait();
        return None;
    }
    work();
    signal(strace.id(), "INT");
    strace.wait().unwrap();
    let mut counts = BTreeMap::new();
    for line in fs::read_to_string(report).unwrap().lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if let (Some(Ok(calls)), Some(name)) = (words.get(3).map(|word| word.parse::<f64>()), words.last())
            && *name != "total"
        {
            counts.insert((*name).to_owned(), calls / TRANSACTIONS as f64);
        }
    }
    Some(counts)
}

fn check(name: &str, sql: impl Fn(&mut raw::Client), limit: f64) {
    let pooler =
        Setup::url(cluster::shared(), "app").env("PGSLUICE_POOL_SIZE", "4").env("PGSLUICE_HTTP_LISTEN", "off").start();
    let mut client = pooler.client("app");
    for _ in 0..20 {
        sql(&mut client); // the server is connected, its statements are prepared
    }
    // strace has been seen to say "attached" and then count nothing: such a count says nothing of the pooler.
    let mut counts = BTreeMap::new();
    for _ in 0..3 {
        let counted = count(&pooler, || (0..TRANSACTIONS).for_each(|_| sql(&mut client)));
        let Some(counted) = counted else { return };
        counts = counted;
        if counts.values().sum::<f64>() > 3.0 {
            break;
        }
    }
    let all: f64 = counts.values().sum();
    println!("{name}: {all:.2} a transaction: {counts:.2?}");
    // A little above the floor: the coarse timer and the sweeps of a second or two of strace's slowness.
    assert!(all <= limit, "{name}: {all:.2} system calls a transaction, at most {limit}: {counts:.2?}");
    assert!(all > 3.0, "the count cannot be right: {counts:.2?}");
}

#[test]
fn a_simple_query_costs_six() {
    check("simple query", |client| drop(client.simple("SELECT 1").unwrap()), 6.15);
}

#[test]
fn an_extended_query_costs_six() {
    check("extended query", |client| drop(client.extended("SELECT $1::int", &[Some("7")]).unwrap()), 6.15);
}
