//! Units of work: what ends one, what does not; matching of answers; the cool-down.

use super::*;

fn get(id: u64) -> String {
    format!(r#"SELECT "shop_author"."id" FROM "shop_author" WHERE "shop_author"."id" = {id} LIMIT 21"#)
}

const LIST: &str = r#"SELECT "shop_book"."id", "shop_book"."author_id" FROM "shop_book""#;
const HEALTH: &str = "SELECT 1";

/// Units counted in the scrape for one boundary.
fn units(client: &Client, boundary: &str) -> u64 {
    let mut page = String::new();
    client.insight.render(&mut page);
    let name = format!(r#"pgsluice_unit_queries_count{{database="shop",boundary="{boundary}"}} "#);
    page.lines().find_map(|line| line.strip_prefix(&name)).and_then(|count| count.parse().ok()).unwrap_or(u64::MAX)
}

fn loop_of(client: &mut Client, tag: &str) {
    client.query(&format!("{LIST} {tag}"), 6);
    (0..6).for_each(|id| client.query(&format!("{} {tag}", get(id)), 1));
}

#[test]
fn health_check_and_session_begin_one_unit() {
    let mut client = Client::new();
    for _ in 0..3 {
        client.query(HEALTH, 1);
        client.query(r#"SELECT "django_session"."session_key" FROM "django_session" WHERE "django_session"."session_key" = 'k' LIMIT 21"#, 1);
        client.query(LIST, 2);
    }
    client.finish();
    assert_eq!((units(&client, "marker"), units(&client, "gap")), (3, 0));
}

#[test]
fn the_pool_check_of_psycopg_is_a_marker() {
    let mut client = Client::new();
    for _ in 0..3 {
        client.query("", 0);
        client.query(LIST, 2);
    }
    client.finish();
    assert_eq!(units(&client, "marker"), 3);
}

#[test]
fn idle_time_ends_a_unit_outside_a_transaction_only() {
    let mut client = Client::new();
    client.query(LIST, 2);
    client.wait_ms(150);
    client.query("BEGIN", 0);
    client.wait_ms(150);
    client.query(LIST, 2);
    client.query("COMMIT", 0);
    client.finish();
    assert_eq!((units(&client, "connection"), units(&client, "gap")), (1, 1));
}

#[test]
fn a_minute_inside_a_transaction_ends_a_unit() {
    let mut client = Client::new();
    client.query("BEGIN", 0);
    client.wait_ms(61_000);
    client.query(LIST, 2);
    client.finish();
    assert_eq!(units(&client, "cap"), 1);
}

#[test]
fn a_slow_client_earns_a_longer_gap() {
    let mut client = Client::new();
    client.pause = 12_000;
    (0..200).for_each(|id| client.query(&format!(r#"SELECT "t"."id" FROM "t{}""#, id % 60), 1));
    client.wait_ms(120);
    client.query(LIST, 1);
    client.finish();
    assert_eq!((units(&client, "connection"), units(&client, "gap")), (1, 0));
}

#[test]
fn a_new_trace_ends_a_unit_and_the_same_trace_never_does() {
    let mut client = Client::new();
    let tag = |n: u32| format!("/*traceparent='00-{n:032x}-00000000000000aa-01'*/");
    client.query(&format!("{LIST} {}", tag(7)), 2);
    client.wait_ms(5_000);
    client.query(&format!("{LIST} {}", tag(7)), 2);
    client.query(&format!("{LIST} {}", tag(8)), 2);
    client.finish();
    assert_eq!((units(&client, "connection"), units(&client, "trace"), units(&client, "gap")), (1, 1, 0));
}

#[test]
fn routes_part_units_and_name_findings() {
    let mut client = Client::new();
    loop_of(&mut client, "/*route='books%2F12345'*/");
    // BEGIN and COMMIT carry no comment: they inherit.
    client.query("BEGIN", 0);
    client.query("COMMIT", 0);
    loop_of(&mut client, "/*route='authors'*/");
    let seen = client.finish();
    assert_eq!(units(&client, "tag"), 1);
    let routes: Vec<_> = seen.iter().map(|burst| burst.route.clone().unwrap_or_default()).collect();
    assert_eq!(routes, ["books/#", "authors"]);
    assert_eq!(client.insight.findings().len(), 2);
}

#[test]
fn a_configured_id_tag_parts_units() {
    let mut client = Client::new();
    for job in ["a", "b"] {
        client.query(&format!("{LIST} /*tenant_job='{job}'*/"), 2);
    }
    client.finish();
    assert_eq!(units(&client, "tag"), 1);
}

#[test]
fn units_are_capped() {
    let mut client = Client::new();
    (0..10_001).for_each(|id| client.query(&get(id), 1));
    client.finish();
    assert_eq!(units(&client, "cap"), 1);
}

#[test]
fn the_tick_ends_idle_units_and_the_session_goes_on() {
    let mut client = Client::new();
    loop_of(&mut client, "");
    client.worker.tick(client.now + 50_000);
    assert!(client.bursts().is_empty());
    client.worker.tick(client.now + 250_000);
    assert_eq!(client.bursts().len(), 1);
    client.wait_ms(3_000);
    loop_of(&mut client, "");
    assert_eq!(client.finish().len(), 2);
    assert_eq!(client.worker.units.len(), 1, "the unit was not used again");
}

#[test]
fn a_finding_cools_down_and_speaks_again_when_it_gets_worse() {
    let lines = secrecy::capture(|| {
        let mut client = Client::new();
        for n in [6, 7, 30, 8] {
            client.query(LIST, n);
            (0..n).for_each(|id| client.query(&get(id), 1));
            client.wait_ms(1_500);
        }
        client.wait_ms(601_000);
        loop_of(&mut client, "");
        assert_eq!(client.finish().len(), 5);
        let findings = client.insight.findings();
        assert_eq!((findings.len(), findings[0].bursts, findings[0].n), (1, 5, (6, 30, 6)));
    });
    let findings = lines.lines().filter(|line| line.contains("pgsluice::finding")).count();
    let bursts = lines.lines().filter(|line| line.contains("pgsluice::burst")).count();
    assert_eq!((findings, bursts), (3, 5), "{lines}");
}

#[test]
fn answers_are_matched_in_order_and_leftovers_forgotten() {
    let mut client = Client::new();
    let statement =
        |literals| crate::sql::Statement { literals, operation: crate::sql::Operation::Select, ..Default::default() };
    let at = Times { received_us: 1, server_us: 2, sent_us: 3 };
    let (session, worker) = (&mut client.session, &mut client.worker);
    for literals in 0..3 {
        session.begin(
            worker,
            &Begin { statement: statement(literals), text: None, tags: TagSet::default(), at, pipelined: literals > 0 },
        );
    }
    session.synced();
    session.begin(worker, &Begin { statement: statement(9), text: None, tags: TagSet::default(), at, pipelined: true });
    session.synced();
    session.complete(worker, 1, 1, 10);
    session.failed(worker, *b"23505", 20);
    session.ready(worker, b'I', 30);
    // The third statement of the first batch was skipped; the second batch is still awaited.
    session.complete(worker, 1, 1, 40);
    session.ready(worker, b'I', 50);
    session.complete(worker, 1, 1, 60);
    let entry = worker.table.entry(0).read();
    assert_eq!((entry.calls, entry.errors), (3, 1));
}

#[test]
fn more_in_flight_than_the_queue_holds() {
    let mut client = Client::new();
    let at = Times::default();
    let (session, worker) = (&mut client.session, &mut client.worker);
    for _ in 0..1_000 {
        let statement = crate::sql::Statement::default();
        session.begin(worker, &Begin { statement, text: None, tags: TagSet::default(), at, pipelined: true });
    }
    session.synced();
    (0..1_000).for_each(|_| session.complete(worker, 1, 1, 10));
    session.ready(worker, b'I', 11);
    assert_eq!(worker.table.entry(0).read().calls, 256);
    session.begin(
        worker,
        &Begin { statement: Default::default(), text: None, tags: TagSet::default(), at, pipelined: false },
    );
    session.complete(worker, 1, 1, 10);
    assert_eq!(worker.table.entry(0).read().calls, 257);
}

#[test]
fn transactions_and_idle_clients_are_counted() {
    let mut client = Client::new();
    client.query(LIST, 1);
    client.query("BEGIN", 0);
    client.query(LIST, 1);
    client.query("ROLLBACK", 0);
    client.query("BEGIN", 0);
    client.query("COMMIT", 0);
    client.query("BEGIN", 0);
    let mut page = String::new();
    client.insight.render(&mut page);
    for line in [
        r#"pgsluice_transactions_total{database="shop",outcome="implicit"} 1"#,
        r#"pgsluice_transactions_total{database="shop",outcome="rollback"} 1"#,
        r#"pgsluice_transactions_total{database="shop",outcome="commit"} 1"#,
        r#"pgsluice_clients_idle_in_transaction{database="shop"} 1"#,
    ] {
        assert!(page.lines().any(|known| known == line), "{line}\n{page}");
    }
    client.finish();
    page.clear();
    client.insight.render(&mut page);
    assert!(page.contains(r#"pgsluice_clients_idle_in_transaction{database="shop"} 0"#));
}

#[test]
fn switched_off_it_sees_nothing() {
    let mut client = Client::new();
    client.insight.set_enabled(false);
    loop_of(&mut client, "");
    client.insight.set_enabled(true);
    assert!(client.finish().is_empty());
    assert!(client.insight.fingerprints(FingerprintOrder::Calls, 10).is_empty());
}

/// django-pgsluice's comment, on a connection where the driver does not prepare.
fn asked_by(request: &str) -> String {
    format!("/*controller='book',request_id='{request}',route='books'*/")
}

#[test]
fn a_request_with_an_id_goes_on_after_a_pause() {
    let mut client = Client::new();
    client.query(&format!("{LIST} {}", asked_by("1f-1")), 8);
    for id in 0..8 {
        // An HTTP call in every turn; the driver's own BEGIN carries no comment.
        client.wait_ms(300);
        client.query("BEGIN", 0);
        client.query(&format!("{} {}", get(id), asked_by("1f-1")), 1);
        client.query("COMMIT", 0);
        client.worker.tick(client.now + 500_000);
    }
    let seen = client.finish();
    assert_eq!((units(&client, "connection"), units(&client, "gap"), units(&client, "tag")), (1, 0, 0));
    assert!(sure(&seen).iter().any(|burst| burst.n == 8 && burst.parent_rows == Some(8)), "{seen:#?}");
}

#[test]
fn a_pause_after_a_request_with_an_id_ends_it_for_whoever_does_not_carry_the_id() {
    for next in [LIST.to_owned(), format!("{LIST} {}", asked_by("1f-2"))] {
        for begin in [false, true] {
            let mut client = Client::new();
            client.query(&format!("{LIST} {}", asked_by("1f-1")), 8);
            client.wait_ms(300);
            if begin {
                client.query("BEGIN", 0);
            }
            client.query(&next, 8);
            client.finish();
            let ended = units(&client, "gap") + units(&client, "tag");
            assert_eq!((units(&client, "connection"), ended), (1, 1), "{next}, transaction: {begin}");
        }
    }
}

#[test]
fn a_unit_taken_over_does_not_bring_its_former_clients_route() {
    let mut client = Client::new();
    client.query(&format!("{LIST} {}", asked_by("1f-1")), 2);
    client.session = SessionInsight::new(client.insight.database("shop"));
    client.query("BEGIN", 0);
    client.query(LIST, 2);
    client.wait_ms(70_000);
    client.worker.tick(client.now);
    // Both units are free now, and the transaction is still open.
    client.query(LIST, 2);
    assert_eq!(client.session.route(&client.worker), 0);
}

#[test]
fn a_view_is_not_hidden_by_a_job_of_its_name() {
    let mut client = Client::new();
    let is_job = |client: &Client, name: &str| {
        let registry = client.insight.registry.lock().unwrap();
        registry.route_number(name).map(|number| registry.is_job(number))
    };
    client.query("SELECT 1 /*job='books'*/", 1);
    client.query("SELECT 1 /*job='nightly'*/", 1);
    assert_eq!(is_job(&client, "books"), Some(true));
    client.query("SELECT 1 /*route='books'*/", 1);
    client.query("SELECT 1 /*job='books'*/", 1);
    assert_eq!((is_job(&client, "books"), is_job(&client, "nightly")), (Some(false), Some(true)));
}

#[test]
fn the_route_that_runs_is_known_while_it_runs() {
    let mut client = Client::new();
    let route =
        |client: &Client| client.insight.route_name(client.session.route(&client.worker)).map(|name| name.to_string());
    assert_eq!(route(&client), None);
    client.query("BEGIN", 0);
    client.query(&format!("{LIST} {}", asked_by("1f-1")), 2);
    client.query(LIST, 2);
    assert_eq!(route(&client).as_deref(), Some("books"), "a statement in the same transaction");
    client.query("COMMIT", 0);
    client.query("BEGIN", 0);
    assert_eq!(route(&client), None, "another transaction: nothing has named it yet");
}

#[test]
fn a_job_is_told_from_a_view() {
    let mut client = Client::new();
    loop_of(&mut client, "/*job='rebuild_index'*/");
    loop_of(&mut client, "/*controller='book',route='books'*/");
    client.finish();
    let mut told: Vec<_> = client.insight.findings().into_iter().map(|f| (f.route, f.job)).collect();
    told.sort_unstable();
    assert_eq!(told, [(Some("books".into()), false), (Some("rebuild_index".into()), true)]);
    assert_eq!(client.insight.routes().iter().filter(|route| route.job).count(), 1);
}
