//! Everything has a limit, and sums stay exact whatever is shown, hidden or evicted.

use super::*;

/// Sum of one family's samples in a scrape.
fn sum(page: &str, family: &str) -> f64 {
    page.lines()
        .filter(|line| line.starts_with(family) && line.as_bytes().get(family.len()) == Some(&b'{'))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

fn scrape(client: &Client) -> String {
    let mut page = String::new();
    client.insight.render(&mut page);
    page
}

#[test]
fn minted_fingerprints_are_bounded_and_counted() {
    let mut client = Client::new();
    let mut last = 0.0;
    for round in 0..40 {
        for number in 0..150 {
            client.query(&format!("SELECT x FROM t{round}_{number}"), 1);
        }
        client.wait_ms(61_000);
        client.insight.sweep();
        let calls = sum(&scrape(&client), "pgsluice_fingerprint_calls_total");
        assert!(calls > last, "sums only rise");
        last = calls;
    }
    assert_eq!(last, 6_000.0, "each execution is counted exactly once");
    assert!(client.worker.table.len() <= 502);
    let known = client.insight.fingerprints(FingerprintOrder::Calls, usize::MAX).len();
    assert!((300..=502).contains(&known), "{known}");
    assert!(scrape(&client).len() < 400_000);
}

#[test]
fn one_client_cannot_mint_without_end() {
    let mut client = Client::new();
    (0..400).for_each(|number| client.query(&format!("SELECT x FROM t_{number}"), 1));
    assert_eq!(client.insight.fingerprints(FingerprintOrder::Calls, usize::MAX).len(), 200);
    assert_eq!(sum(&scrape(&client), "pgsluice_fingerprint_calls_total"), 400.0);
}

#[test]
fn findings_are_bounded_and_the_rest_is_other() {
    let mut client = Client::new();
    for number in 0..80 {
        if number % 40 == 0 {
            client.wait_ms(61_000);
        }
        client.query(&format!(r#"SELECT "a{number}"."id" FROM "a{number}""#), 6);
        (0..6).for_each(|id| {
            client.query(&format!(r#"SELECT "b{number}"."id" FROM "b{number}" WHERE "b{number}"."a_id" = {id}"#), 1)
        });
        client.wait_ms(200);
    }
    client.finish();
    assert!(client.insight.findings().len() <= 50);
    let page = scrape(&client);
    assert_eq!(sum(&page, "pgsluice_nplusone_finding_bursts_total"), 80.0);
    assert_eq!(sum(&page, "pgsluice_nplusone_bursts_total"), 80.0);
}

#[test]
fn databases_are_bounded() {
    let insight = Insight::new(&config());
    let ids: Vec<_> = (0..200).map(|number| insight.database(&format!("db{number}"))).collect();
    assert_eq!(ids[0], insight.database("db0"));
    assert_eq!(ids[150], ids[199]);
    assert!(usize::from(ids[199].0) < MAX_DATABASES);
    assert_eq!(&*insight.database_name(ids[199].0), "other");
}

#[test]
fn ten_thousand_idle_sessions_hold_no_unit() {
    let mut client = Client::new();
    let database = client.insight.database("shop");
    let mut sessions: Vec<_> = (0..10_000).map(|_| SessionInsight::new(database)).collect();
    let statement = crate::sql::Statement { operation: crate::sql::Operation::Select, ..Default::default() };
    for (number, session) in sessions.iter_mut().enumerate() {
        let now = number as u64 * 2_000;
        let at = Times { received_us: now, server_us: now, sent_us: now };
        session
            .begin(&mut client.worker, &Begin { statement, text: None, tags: TagSet::default(), at, pipelined: false });
        session.complete(&mut client.worker, 1, 1, now + 100);
        session.ready(&mut client.worker, b'I', now + 100);
        if number % 100 == 0 {
            client.worker.tick(now);
        }
    }
    assert!(client.worker.units.len() < 700, "{}", client.worker.units.len());
    assert!(std::mem::size_of::<SessionInsight>() <= 64);
    assert!(runs::Runs::size() < 24_000, "{}", runs::Runs::size());
}

#[test]
fn exposure_starts_at_zero_and_sums_stay_exact() {
    let mut client = Client::new();
    (0..10).for_each(|_| client.query("SELECT a FROM t", 1));
    client.insight.sweep();
    (0..5).for_each(|_| client.query("SELECT a FROM t", 1));
    let page = scrape(&client);
    let line =
        page.lines().find(|line| line.starts_with("pgsluice_fingerprint_calls_total") && !line.contains("other"));
    assert!(line.is_some_and(|line| line.ends_with(" 5")), "{page}");
    assert_eq!(sum(&page, "pgsluice_fingerprint_calls_total"), 15.0);
    assert!(page.contains(r#"pgsluice_table_statements_total{database="shop",table="t",access="read"} 15"#), "{page}");
}

#[test]
fn the_scrape_is_well_formed() {
    let mut client = Client::new();
    client.insight.database("odd \"name\"\\\n");
    client.query("SELECT a FROM t", 1);
    client.query("SELECT b.id FROM b", 6);
    (0..6).for_each(|id| client.query(&format!("SELECT c.id FROM c WHERE c.b_id = {id}"), 1));
    client.finish();
    client.insight.sweep();
    let page = scrape(&client);
    let mut typed: Vec<&str> = Vec::new();
    let mut samples = std::collections::HashSet::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap();
            assert!(name.starts_with("pgsluice_") && !typed.contains(&name), "{line}");
            typed.push(name);
        } else if !line.starts_with("# HELP ") {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|tail| name.strip_suffix(tail))
                .filter(|family| typed.contains(family))
                .unwrap_or(name);
            assert_eq!(typed.last(), Some(&family), "a family's samples stand together: {line}");
            let (key, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
            assert!(samples.insert(key), "twice: {key}");
        }
    }
    assert!(page.contains(r#"database="odd \"name\"\\\n""#));
    assert!(page.contains("pgsluice_nplusone_finding_info{"), "{page}");
    assert!(page.contains(r#"shape="reverse_fk""#), "{page}");
}

#[test]
fn minted_routes_and_statements_hold_bounded_memory() {
    let config = InsightConfig { max_fingerprints: 5_000, ..InsightConfig::default() };
    let mut client = Client::with(&config);
    for number in 0..3_000 {
        client.query(&format!("SELECT 1 /*route='r{number}x'*/"), 1);
        client.query(&format!("SELECT x FROM t{number} WHERE a IN (1, 2) /*route='r{number}x'*/"), 2_000);
        if number % 90 == 0 {
            client.wait_ms(61_000);
            client.insight.sweep();
        }
        if number % 20 == 0 {
            client.insight.close_interval(f64::from(number) * 60.0);
        }
    }
    client.finish();
    let routes = client.insight.routes();
    assert!(routes.len() <= 1_024, "{}", routes.len());
    assert_eq!(routes.iter().map(|route| route.requests).sum::<u64>(), 3_000, "each unit is counted once");
    assert!(client.insight.intervals().len() <= MAX_INTERVALS);
    let memory: usize = client.insight.health().memory.iter().map(|(_, bytes)| bytes).sum();
    assert!(memory < 11 << 20, "{memory} bytes: {:?}", client.insight.health().memory);
}

#[test]
fn an_evicted_slot_begins_anew_for_its_next_owner() {
    let mut client = Client::new();
    for number in 0..150 {
        client.query(&format!("SELECT x FROM slow_{number}"), 2_000);
    }
    // All of them are pushed out by newer ones.
    for round in 0..30 {
        client.wait_ms(61_000);
        (0..150).for_each(|number| client.query(&format!("SELECT x FROM t{round}_{number}"), 1));
        client.insight.sweep();
    }
    let all = client.insight.fingerprints(FingerprintOrder::Calls, usize::MAX);
    let (old, young): (Vec<_>, Vec<_>) = all.iter().partition(|view| view.text.contains("FROM slow_"));
    assert!(old.len() < 140 && young.len() > 100, "{} {}", old.len(), young.len());
    assert!(young.iter().all(|view| view.large == 0 && view.p99_seconds < 0.001), "nothing of who was there before");
    assert!(old.iter().all(|view| view.large == 1));
}

/// Whoever reads holds locks while others read: all must take them in the same order, or two of them wait for each other for
/// ever, and workers behind them.
#[test]
fn readers_do_not_lock_each_other_out() {
    let client = Client::new();
    let (done, all) = std::sync::mpsc::channel();
    let readers: [fn(&Insight); 2] = [|insight| drop(insight.health()), |insight| drop(insight.findings())];
    for read in readers {
        let (insight, done) = (Arc::clone(&client.insight), done.clone());
        std::thread::spawn(move || {
            (0..30_000).for_each(|_| read(&insight));
            let _ = done.send(());
        });
    }
    for _ in readers {
        all.recv_timeout(std::time::Duration::from_secs(60)).expect("two readers wait for each other");
    }
}
