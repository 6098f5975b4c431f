//! dev
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex};

use pgsluice::insight::*;
use pgsluice::sql::*;

fn op(n: u64) -> Operation {
    use Operation::*;
    [Select, Insert, Update, Delete, Merge, Ddl, Transaction, Copy, Session, Cursor, Empty, Other][n as usize]
}

fn main() {
    let config = pgsluice::config::InsightConfig {
        enabled: true,
        min_count: 5,
        min_count_low_confidence: std::env::var("LOW").ok().and_then(|s| s.parse().ok()).unwrap_or(20),
        max_period: 8,
        idle_gap: std::time::Duration::from_millis(100),
        write_loop_min: 20,
        cooldown: std::time::Duration::from_secs(600),
        slow_query: std::time::Duration::from_millis(500),
        max_fingerprints: 5000,
        top_fingerprints: 100,
        max_findings: 1000,
        id_tags: vec![],
    };
    let gap: u64 = std::env::var("GAP_US").ok().and_then(|s| s.parse().ok()).unwrap_or(20_000);
    let texts: Arc<Mutex<HashMap<u64, String>>> = Arc::default();
    let insight = Insight::new(&config);
    let out = Mutex::new(std::fs::File::create("/tmp/findings.jsonl").unwrap());
    let all = Mutex::new(std::fs::File::create("/tmp/bursts.jsonl").unwrap());
    let t2 = texts.clone();
    insight.set_burst_sink(Box::new(move |b| {
        let t = t2.lock().unwrap();
        let line = serde_json::json!({"session": b.application, "sql": t.get(&b.fingerprint.0), "count": b.n,
            "t_start": b.span_us.0 as f64/1e6, "t_end": b.span_us.1 as f64/1e6, "kind": b.kind.name(), "confidence": b.confidence.name(),
            "parent_rows": b.parent_rows, "parent": b.parent.and_then(|p| t.get(&p.0)), "distinct": b.distinct, "evidence": format!("{:?}", b.evidence)});
        writeln!(all.lock().unwrap(), "{line}").unwrap();
        if matches!(b.kind, Kind::NPlusOne | Kind::Chain) && b.confidence >= Confidence::Medium {
            writeln!(out.lock().unwrap(), "{line}").unwrap();
        }
    }));
    let mut w = insight.worker();
    let db = insight.database("app");
    let mut sessions: HashMap<String, (SessionInsight, u64)> = HashMap::new();
    let mut units = std::fs::File::create("/tmp/units.jsonl").unwrap();
    for line in std::io::BufReader::new(std::fs::File::open(std::env::args().nth(1).unwrap()).unwrap()).lines() {
        let u: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        let name = u["session"].as_str().unwrap();
        let (s, now) = sessions.entry(name.into()).or_insert_with(|| {
            let mut s = SessionInsight::new(db);
            s.set_application(name);
            (s, 1_000_000)
        });
        *now += gap;
        let start = *now;
        let mut tx = false;
        for q in u["queries"].as_array().unwrap() {
            let fp: u64 = q[0].as_str().unwrap().parse().unwrap();
            texts.lock().unwrap().entry(fp).or_insert_with(|| q[7].as_str().unwrap().into());
            let st = Statement {
                fingerprint: Fingerprint(fp),
                literals: q[1].as_str().unwrap().parse().unwrap(),
                operation: op(q[2].as_u64().unwrap()),
                flags: q[3].as_u64().unwrap() as u16,
                effects: 0,
                max_list: q[4].as_u64().unwrap() as u16,
            };
            let at = Times { received_us: *now, server_us: *now + 5, sent_us: *now + 10 };
            s.begin(&mut w, &Begin { statement: st, text: Some(Text { sql: RawSql(b""), lex: LexSettings { standard_conforming_strings: Some(true), safe_encoding: true } }), tags: TagSet::default(), at, pipelined: false });
            s.synced();
            *now += 250;
            if q[8] == 1 {
                s.failed(&mut w, *b"22000", *now);
            } else {
                s.complete(&mut w, q[5].as_u64().unwrap(), 100, *now);
            }
            tx = q[6] == 1;
            s.ready(&mut w, if tx { b'T' } else { b'I' }, *now);
            *now += 60;
        }
        if tx {
            s.ready(&mut w, b'I', *now);
        }
        writeln!(units, "{}", serde_json::json!({"unit_id": u["unit_id"], "session": name, "t_start": start as f64/1e6, "t_end": *now as f64/1e6})).unwrap();
    }
    for (s, now) in sessions.values_mut() {
        s.end(&mut w, *now + 1000);
    }
}
