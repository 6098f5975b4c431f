//! Each cause provoked on a real PostgreSQL and found, its innocent twin not.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use serde_json::Value;
use support::cluster::{self, Cluster};
use support::pooler::{Pooler, Setup};
use support::{raw, wait_for};

fn start() -> Pooler {
    Setup::url(cluster::shared(), "app").start()
}

fn causes(pooler: &Pooler) -> Vec<Value> {
    let (status, body) = pooler.get("/api/v1/causes?limit=1000");
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    let items = answer["items"].as_array().unwrap().clone();
    let seconds: Vec<_> = items.iter().map(|cause| cause["recoverable_seconds_per_hour"].as_f64().unwrap()).collect();
    assert!(seconds.is_sorted_by(|a, b| a >= b), "not ranked: {seconds:?}");
    items
}

/// The causes of this kind; `about` stands in their text, evidence or routes.
fn of<'c>(causes: &'c [Value], kind: &str, about: &str) -> Vec<&'c Value> {
    let all = causes.iter().filter(|cause| cause["kind"] == kind);
    all.filter(|cause| cause.to_string().contains(about)).collect()
}

/// Waits for the one cause of this kind that is about something.
fn found(pooler: &Pooler, kind: &str, about: &str) -> Value {
    wait_for(&format!("{kind} about {about}"), || {
        let causes = causes(pooler);
        let found = of(&causes, kind, about);
        assert!(found.len() < 2, "{found:?}");
        found.first().map(|cause| (*cause).clone())
    })
}

/// That no cause is about something, once `calls` executions of a statement with it are known.
fn innocent(pooler: &Pooler, about: &str) {
    let causes = causes(pooler);
    let guilty: Vec<_> = causes.iter().filter(|cause| cause.to_string().contains(about)).collect();
    assert!(guilty.is_empty(), "{guilty:?}");
}

fn number(cause: &Value, name: &str) -> f64 {
    cause["numbers"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {cause}"))
}

fn seconds(cause: &Value) -> f64 {
    cause["recoverable_seconds_per_hour"].as_f64().unwrap()
}

fn times(client: &mut raw::Client, n: usize, sql: impl Fn(usize) -> String) {
    (0..n).for_each(|i| drop(client.simple(&sql(i)).unwrap()));
}

#[test]
fn a_slow_look_up_lacks_an_index_and_a_quick_one_does_not() {
    let pooler = start();
    let mut client = pooler.client("app");
    // A function that takes its time row by row stands for a table that would have to be very large.
    for sql in [
        "CREATE TABLE ix_slow (id int, email text)",
        "CREATE TABLE ix_quick (id int, email text)",
        "INSERT INTO ix_slow SELECT i, i || '@example.org' FROM generate_series(1, 600000) i",
        "INSERT INTO ix_quick SELECT i, i || '@example.org' FROM generate_series(1, 600000) i",
        "CREATE INDEX ON ix_quick (email)",
        "ANALYZE",
    ] {
        client.simple(sql).unwrap();
    }
    client.simple("SET max_parallel_workers_per_gather = 0").unwrap();
    for table in ["ix_slow", "ix_quick"] {
        times(&mut client, 25, |i| {
            format!(r#"SELECT "{table}"."id" FROM "{table}" WHERE "{table}"."email" = '{i}@example.org' LIMIT 21"#)
        });
    }
    let cause = found(&pooler, "missing_index", "ix_slow");
    assert_eq!((&cause["probable"], &cause["basis"]), (&true.into(), &"estimate".into()));
    assert!(cause["code"].as_str().unwrap().contains("models.Index(fields=[\"email\"]"), "{cause}");
    assert!(cause["mend"].as_str().unwrap().contains("AddIndexConcurrently"), "{cause}");
    assert!(number(&cause, "mean_seconds") >= 0.02 && seconds(&cause) > 1.0, "{cause}");
    innocent(&pooler, "FROM \\\"ix_quick\\\" WHERE");
    // One by its id.
    let (status, body) = pooler.get(&format!("/api/v1/causes/{}", cause["id"].as_str().unwrap()));
    assert!(status == 200 && body.contains("missing_index"), "{body}");
}

#[test]
fn what_is_slow_without_a_look_up_is_slow_and_counting_is_counting() {
    let pooler = start();
    let mut client = pooler.client("app");
    client.simple("CREATE TABLE sl_few (id int)").unwrap();
    client.simple("CREATE FUNCTION sl_wait() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM pg_sleep(0.025)'").unwrap();
    client.simple("INSERT INTO sl_few SELECT generate_series(1, 30)").unwrap();
    times(&mut client, 22, |_| "SELECT sl_wait() AS slow_one".into());
    times(&mut client, 22, |_| "SELECT COUNT(*) AS \"__count\" FROM sl_few, sl_wait() w WHERE w > 0".into());
    times(&mut client, 22, |_| "SELECT COUNT(*) AS \"__count\" FROM sl_few".into());
    times(&mut client, 22, |i| format!("SELECT sl_wait(), id FROM sl_few ORDER BY id LIMIT 1 OFFSET {}", i % 2));
    times(&mut client, 22, |i| format!("SELECT id FROM sl_few ORDER BY id LIMIT 10 OFFSET {}", i % 2 * 10));
    let slow = found(&pooler, "slow_query", "slow_one");
    assert!((0.02..0.2).contains(&number(&slow, "p50_seconds")), "{slow}");
    // 22 times at least 23 ms, in a window that is taken for a minute at least.
    assert!(seconds(&slow) > 22.0 * 0.023, "{slow}");
    let counted = found(&pooler, "slow_count", "sl_few");
    assert!(counted["mend"].as_str().unwrap().contains("Paginator"), "{counted}");
    let paged = found(&pooler, "deep_offset", "sl_few");
    assert!(paged["code"].as_str().unwrap().contains("pk__gt"), "{paged}");
    // The quick ones.
    let all = causes(&pooler);
    assert_eq!((of(&all, "slow_count", "sl_few").len(), of(&all, "deep_offset", "sl_few").len()), (1, 1), "{all:?}");
}

#[test]
fn reading_everything_is_found_and_reading_a_page_is_not() {
    let pooler = start();
    let mut client = pooler.client("app");
    client.simple("CREATE TABLE ur_all (id int, note text)").unwrap();
    client.simple("INSERT INTO ur_all SELECT i, 'x' FROM generate_series(1, 3000) i").unwrap();
    let columns: Vec<_> = (0..24).map(|i| format!("c{i} text DEFAULT repeat('y', 120)")).collect();
    client.simple(&format!("CREATE TABLE ur_wide (id int, {})", columns.join(", "))).unwrap();
    client.simple("INSERT INTO ur_wide (id) SELECT generate_series(1, 20)").unwrap();
    let wide: Vec<_> = (0..24).map(|i| format!("ur_wide.c{i}")).collect();
    times(&mut client, 5, |_| "SELECT ur_all.id, ur_all.note FROM ur_all".into());
    times(&mut client, 5, |i| format!("SELECT ur_all.id FROM ur_all ORDER BY ur_all.id LIMIT {}", 10 + i));
    times(&mut client, 25, |_| format!("SELECT {} FROM ur_wide", wide.join(", ")));
    times(&mut client, 25, |_| "SELECT ur_wide.id, ur_wide.c1 FROM ur_wide".into());
    let all = found(&pooler, "unbounded_read", "ur_all");
    assert_eq!(number(&all, "rows_per_call"), 3_000.0);
    assert!(all["mend"].as_str().unwrap().contains("iterator"), "{all}");
    let wide = found(&pooler, "over_fetch", "ur_wide");
    assert!(wide["code"].as_str().unwrap().contains(".only("), "{wide}");
    let causes = causes(&pooler);
    assert_eq!(causes.iter().filter(|cause| cause.to_string().contains("LIMIT")).count(), 1, "{causes:?}");
    assert_eq!(of(&causes, "over_fetch", "ur_wide").len(), 1);
}

#[test]
fn a_pause_in_a_transaction_is_named_by_the_statement_before_it() {
    let pooler = Setup::url(cluster::shared(), "app").env("PGSLUICE_POOL_SIZE", "1").start();
    let mut client = pooler.client("app");
    client.simple("CREATE TABLE it_order (id int, state text)").unwrap();
    client.simple("INSERT INTO it_order VALUES (1, 'new')").unwrap();
    // Without a pause.
    client.simple("BEGIN").unwrap();
    client.simple("SELECT id FROM it_order").unwrap();
    client.simple("COMMIT").unwrap();
    client.simple("BEGIN").unwrap();
    client.simple("UPDATE it_order SET state = 'paid' WHERE id = 1").unwrap();
    let address = pooler.address();
    let waiting = std::thread::spawn(move || {
        let mut other = raw::Client::open(address, "app", cluster::PASSWORD, cluster::DATABASE).unwrap();
        other.simple("SELECT 'waited'").unwrap();
    });
    wait_for("somebody who waits for long", || {
        let (_, body) = pooler.get("/api/v1/pools");
        let pools: Value = serde_json::from_str(&body).unwrap();
        (pools["items"][0]["longest_wait_seconds"].as_f64()? > 1.1).then_some(())
    });
    client.simple("COMMIT").unwrap();
    waiting.join().unwrap();
    let cause = found(&pooler, "idle_in_transaction", "UPDATE it_order");
    assert!(number(&cause, "longest_pause_seconds") > 1.0 && seconds(&cause) > 1.0, "{cause}");
    assert!(cause["mend"].as_str().unwrap().contains("on_commit"), "{cause}");
    assert_eq!(of(&causes(&pooler), "idle_in_transaction", "").len(), 1);
}

#[test]
fn logins_for_every_request_are_found_and_kept_connections_are_not() {
    let pooler = start();
    for _ in 0..30 {
        let mut client = pooler.client("app");
        client.simple("SELECT 1 AS a FROM pg_class LIMIT 1").unwrap();
        client.terminate();
    }
    let cause = found(&pooler, "connection_overhead", "app");
    assert_eq!(cause["basis"], "floor");
    assert!(cause["code"].as_str().unwrap().contains("CONN_MAX_AGE"), "{cause}");
    assert!(number(&cause, "connections_per_request") > 0.9, "{cause}");
    assert!(number(&cause, "login_seconds") > 0.0 && seconds(&cause) > 0.0, "{cause}");

    let kept = start();
    let mut client = kept.client("app");
    times(&mut client, 120, |i| format!("SELECT 1 AS a FROM pg_class WHERE relpages = {i} /*route='r{}'*/", i % 2));
    client.terminate();
    wait_for("the requests", || {
        let (_, body) = kept.get("/api/v1/routes?route=r1");
        (serde_json::from_str::<Value>(&body).unwrap()["items"][0]["requests"].as_u64()? >= 59).then_some(())
    });
    assert!(of(&causes(&kept), "connection_overhead", "").is_empty());
}

#[test]
fn a_pool_that_clients_wait_for_is_too_small() {
    let small = Setup::url(cluster::shared(), "app").env("PGSLUICE_POOL_SIZE", "1").start();
    let enough = Setup::url(cluster::shared(), "app").env("PGSLUICE_POOL_SIZE", "4").start();
    for pooler in [&small, &enough] {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                // So many that the waits for the first logins do not count.
                scope.spawn(|| times(&mut pooler.client("app"), 30, |_| "SELECT pg_sleep(0.03)".into()));
            }
        });
    }
    let cause = found(&small, "pool_too_small", "app");
    assert_eq!((number(&cause, "pool_size"), &cause["user"]), (1.0, &"app".into()));
    assert!(cause["code"].as_str().unwrap().contains("pool_size = "), "{cause}");
    assert!(number(&cause, "mean_wanted_servers") > number(&cause, "mean_busy_servers"), "{cause}");
    assert!(of(&causes(&enough), "pool_too_small", "").is_empty());
}

#[test]
fn many_statements_in_a_request_are_many() {
    let pooler = start();
    let mut client = pooler.client("app");
    client.simple("CREATE TABLE mq_t (id int)").unwrap();
    for request in 0..8 {
        // The marker begins a request. Statements of many kinds: no loop.
        client.simple("SELECT 1 /*route='mq_many'*/").unwrap();
        times(&mut client, 120, |i| format!("SELECT id AS a{} FROM mq_t /*route='mq_many'*/", (i + request) % 30));
        client.simple("SELECT 1 /*route='mq_few'*/").unwrap();
        times(&mut client, 12, |i| format!("SELECT id AS b{i} FROM mq_t /*route='mq_few'*/"));
    }
    client.terminate();
    let cause = found(&pooler, "many_queries", "mq_many");
    assert!(number(&cause, "queries_per_request") > 100.0, "{cause}");
    assert!(cause["evidence"].as_str().unwrap().contains("SELECT mq_t"), "{cause}");
    assert!(of(&causes(&pooler), "many_queries", "mq_few").is_empty());
}

#[test]
fn savepoints_by_the_row_are_a_storm() {
    let pooler = start();
    let mut client = pooler.client("app");
    for (route, count) in [("sp_many", 70), ("sp_few", 5)] {
        client.simple(&format!("SELECT 1 /*route='{route}'*/")).unwrap();
        client.simple("BEGIN").unwrap();
        for i in 0..count {
            client.simple(&format!("SAVEPOINT s1_x{i}")).unwrap();
            client.simple(&format!("SELECT {i} /*route='{route}'*/")).unwrap();
            client.simple(&format!("RELEASE SAVEPOINT s1_x{i}")).unwrap();
        }
        client.simple("COMMIT").unwrap();
    }
    client.terminate();
    let cause = found(&pooler, "savepoint_storm", "sp_many");
    assert_eq!(number(&cause, "max_savepoints"), 70.0);
    assert!(cause["code"].as_str().unwrap().contains("savepoint=False"), "{cause}");
    assert!(of(&causes(&pooler), "savepoint_storm", "sp_few").is_empty());
}

#[test]
fn reads_that_repeat_are_for_a_cache_and_those_that_differ_or_change_are_not() {
    let pooler = start();
    let mut client = pooler.client("app");
    for table in ["ca_same", "ca_vary", "ca_move"] {
        client.simple(&format!("CREATE TABLE {table} (id int, v int)")).unwrap();
        client.simple(&format!("INSERT INTO {table} SELECT i, i FROM generate_series(1, 3) i")).unwrap();
    }
    let read = |table: &str, id: usize| format!("SELECT {table}.v FROM {table} WHERE {table}.v = {id}");
    let watched = |client: &mut raw::Client, table: &str| {
        times(client, 60, |i| read(table, i % 3));
        wait_for("its values to be watched", || {
            let (_, body) = pooler.get("/api/v1/queries?limit=1000");
            let queries: Value = serde_json::from_str(&body).unwrap();
            client.simple(&read(table, 1)).unwrap();
            let has =
                |query: &&Value| query["text"].as_str().is_some_and(|text| text.contains(&format!("{table}.v =")));
            queries["items"].as_array()?.iter().find(has)?["repeat_ratio"].as_f64().map(|_| ())
        });
    };
    watched(&mut client, "ca_same");
    times(&mut client, 400, |i| read("ca_same", i % 3));
    watched(&mut client, "ca_vary");
    times(&mut client, 1_500, |i| read("ca_vary", i));
    watched(&mut client, "ca_move");
    times(&mut client, 400, |i| if i % 5 == 0 { "UPDATE ca_move SET v = v".into() } else { read("ca_move", i % 3) });
    let cause = found(&pooler, "cache_candidate", "ca_same");
    assert!(number(&cause, "repeat_ratio") > 0.9, "{cause}");
    assert!(cause["code"].as_str().unwrap().contains("get_or_set"), "{cause}");
    let all = causes(&pooler);
    assert!(of(&all, "cache_candidate", "ca_vary").is_empty() && of(&all, "cache_candidate", "ca_move").is_empty());
}

#[test]
fn ever_new_texts_defeat_the_statement_cache_and_one_text_does_not() {
    let pooler = start();
    let mut client = pooler.client("app");
    client.simple("CREATE TABLE tx_new (id int)").unwrap();
    client.simple("CREATE TABLE tx_one (id int)").unwrap();
    for i in 0..240 {
        // As many parameters as values.
        let list: Vec<_> = (1..=i % 120 + 2).map(|at| format!("${at}")).collect();
        let values: Vec<_> = list.iter().map(|_| Some("1")).collect();
        client.extended(&format!("SELECT id FROM tx_new WHERE id IN ({})", list.join(", ")), &values).unwrap();
        client.extended("SELECT id FROM tx_one WHERE id = ANY($1)", &[Some("{1,2}")]).unwrap();
    }
    let cause = found(&pooler, "statement_cache_defeated", "tx_new");
    assert!(cause["mend"].as_str().unwrap().contains("ANY(%s)"), "{cause}");
    assert!(of(&causes(&pooler), "statement_cache_defeated", "tx_one").is_empty());
}

#[test]
fn lock_trouble_is_counted_by_what_it_was() {
    let cluster = Cluster::start(&[]);
    let pooler = Setup::url(&cluster, "app").start();
    let (mut holder, mut other) = (pooler.client("app"), pooler.client("app"));
    holder.simple("CREATE TABLE lk (id int)").unwrap();
    holder.simple("INSERT INTO lk VALUES (1)").unwrap();
    holder.simple("BEGIN").unwrap();
    holder.simple("SELECT id FROM lk FOR UPDATE").unwrap();
    for _ in 0..2 {
        other.simple("SELECT id FROM lk FOR UPDATE NOWAIT").unwrap_err();
    }
    assert!(of(&causes(&pooler), "lock_errors", "").is_empty(), "two are none yet");
    other.simple("SELECT id FROM lk FOR UPDATE NOWAIT").unwrap_err();
    let cause = found(&pooler, "lock_errors", "55P03");
    assert!(cause["evidence"].as_str().unwrap().contains("3 lock timeouts"), "{cause}");
}

#[test]
fn waits_for_locks_are_told_from_slow_statements_and_the_holder_is_named() {
    let pooler = start();
    let (mut holder, mut other) = (pooler.client("app"), pooler.client("app"));
    holder.simple("CREATE TABLE lw_stock (id int PRIMARY KEY, n int)").unwrap();
    holder.simple("CREATE TABLE lw_slow (id int)").unwrap();
    holder.simple("INSERT INTO lw_stock SELECT i, 0 FROM generate_series(1, 3) i").unwrap();
    times(&mut other, 40, |_| "UPDATE lw_stock SET n = n + 1 WHERE id = 1".into());
    // Slow each time, without a wait.
    holder.simple("INSERT INTO lw_slow VALUES (1)").unwrap();
    times(&mut other, 22, |_| "UPDATE lw_slow SET id = 1 FROM pg_sleep(0.025)".into());
    for _ in 0..3 {
        holder.simple("BEGIN").unwrap();
        holder.simple("UPDATE lw_stock SET n = 0 WHERE id = 1").unwrap();
        let address = pooler.address();
        let waiting = std::thread::spawn(move || {
            let mut client = raw::Client::open(address, "app", cluster::PASSWORD, cluster::DATABASE).unwrap();
            client.simple("UPDATE lw_stock SET n = n + 1 WHERE id = 1").unwrap();
        });
        wait_for("the holder to have idled for long", || {
            let (_, body) = pooler.get("/api/v1/pools");
            let pools: Value = serde_json::from_str(&body).unwrap();
            let holders = pools["items"][0]["holders"].as_array()?;
            let idle = holders.iter().find(|held| held["state"] == "idle in transaction")?;
            let waits = holders.iter().find(|held| held["state"] == "running")?;
            (idle["state_seconds"].as_f64()? > 1.0 && waits["state_seconds"].as_f64()? > 0.4).then_some(())
        });
        holder.simple("COMMIT").unwrap();
        waiting.join().unwrap();
    }
    let cause = found(&pooler, "lock_wait", "lw_stock");
    assert_eq!((&cause["probable"], number(&cause, "waits")), (&true.into(), 3.0), "{cause}");
    let evidence = cause["evidence"].as_str().unwrap();
    assert!(evidence.contains("idled after UPDATE lw_stock"), "{evidence}");
    assert!(seconds(&cause) > 1.0, "{cause}");
    let slow = found(&pooler, "slow_query", "lw_slow");
    assert!(number(&slow, "mean_seconds") > 0.02);
    assert!(of(&causes(&pooler), "lock_wait", "lw_slow").is_empty());
}

#[test]
fn a_loop_is_a_cause_with_its_finding_and_the_console_shows_the_list() {
    let pooler = Setup::url(cluster::shared(), "app").env("PGSLUICE_ADMIN_USERS", "app").start();
    let mut client = pooler.client("app");
    client.simple("CREATE TABLE np_author (id int PRIMARY KEY)").unwrap();
    client.simple("CREATE TABLE np_book (id int, author_id int)").unwrap();
    client.simple("INSERT INTO np_author SELECT generate_series(1, 40)").unwrap();
    client.simple("INSERT INTO np_book SELECT i, i FROM generate_series(1, 40) i").unwrap();
    client.simple("SELECT 1 /*route='np'*/").unwrap();
    client.simple(r#"SELECT "np_book"."id", "np_book"."author_id" FROM "np_book" /*route='np'*/"#).unwrap();
    times(&mut client, 40, |i| {
        format!(
            r#"SELECT "np_author"."id" FROM "np_author" WHERE "np_author"."id" = {} LIMIT 21 /*route='np'*/"#,
            i + 1
        )
    });
    client.terminate();
    let cause = found(&pooler, "n_plus_one", "np_author");
    assert_eq!((&cause["basis"], &cause["probable"]), (&"floor".into(), &false.into()));
    assert_eq!(cause["routes"], serde_json::json!(["np"]));
    assert!(cause["code"].as_str().unwrap().contains("select_related"), "{cause}");
    let finding = format!("/api/v1/findings/{}", cause["finding"].as_str().unwrap());
    assert_eq!(pooler.get(&finding).0, 200);
    // Only of its kind, its route, its basis.
    for (query, any) in [("kind=n_plus_one", true), ("route=np&basis=floor", true), ("kind=chain", false)] {
        let (_, body) = pooler.get(&format!("/api/v1/causes?{query}"));
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["total"].as_u64().unwrap() > 0, any, "{query}: {body}");
    }
    let mut console = pooler.try_client("app", cluster::PASSWORD, "pgsluice").unwrap();
    let rows = format!("{:?}", console.simple("SHOW CAUSES LIMIT 5").unwrap());
    assert!(rows.contains("n_plus_one") && rows.contains("select_related"), "{rows}");
    console.simple("SHOW CAUSES BY name").unwrap_err();
}
