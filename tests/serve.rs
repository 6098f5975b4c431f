//! The pooler as it is deployed: by `DATABASE_URL` alone, asked over the wire, watched over HTTP, ended by SIGTERM.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::collections::BTreeSet;
use std::sync::Mutex;

use support::cluster::{self, PASSWORD};
use support::pooler::Setup;
use support::{raw, wait_for};

#[test]
fn runs_by_database_url_alone() {
    let mut pooler = Setup::url(cluster::shared(), "app").start();
    let mut client = pooler.client("app");
    assert_eq!(client.value("SELECT current_user"), "app");
    assert_eq!(raw::text(&client.extended("SELECT $1::int * 2", &[Some("21")]).unwrap()), "42");
    let ready = || (pooler.get("/readyz").0 == 200).then_some(());
    wait_for("/readyz", ready);
    assert_eq!(pooler.get("/healthz").0, 200);
    assert!(pooler.metrics().contains("pgsluice_build_info"));
    client.terminate();
    assert!(pooler.stop("TERM").success(), "{}", pooler.log());
}

#[test]
fn a_wrong_password_is_refused_and_not_logged() {
    let pooler = Setup::url(cluster::shared(), "app").start();
    let error = pooler.try_client("app", "wr0ng-passw0rd", "app").err().expect("refused");
    assert_eq!(error.code(), "28P01", "{error}");
    assert!(!pooler.log().contains("wr0ng-passw0rd"));
    assert!(!pooler.log().contains(PASSWORD));
}

#[test]
fn errors_and_transactions_are_the_servers_own() {
    let pooler = Setup::url(cluster::shared(), "app").start();
    let mut client = pooler.client("app");
    assert_eq!(client.simple("SELECT * FROM no_such_table").unwrap_err().code(), "42P01");
    assert_eq!(client.status, b'I');
    client.simple("BEGIN").unwrap();
    assert_eq!(client.status, b'T');
    assert_eq!(client.simple("SELECT 1/0").unwrap_err().code(), "22012");
    assert_eq!(client.status, b'E');
    assert_eq!(client.simple("SELECT 1").unwrap_err().code(), "25P02");
    client.simple("ROLLBACK").unwrap();
    assert_eq!(client.value("SELECT 'again'"), "again");
}

#[test]
fn many_clients_share_few_servers_and_read_their_own_rows() {
    let pooler = Setup::url(cluster::shared(), "app").env("PGSLUICE_POOL_SIZE", "3").start();
    let servers = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for number in 0..12 {
            let (pooler, servers) = (&pooler, &servers);
            scope.spawn(move || {
                let mut client = pooler.client("app");
                for round in 0..40 {
                    let nonce = format!("client {number} round {round}");
                    assert_eq!(client.value(&format!("SELECT '{nonce}'")), nonce);
                    assert_eq!(raw::text(&client.extended("SELECT $1::text", &[Some(&nonce)]).unwrap()), nonce);
                    servers.lock().unwrap().insert(client.value("SELECT pg_backend_pid()"));
                }
                client.simple("BEGIN").unwrap();
                let inside = client.value("SELECT pg_backend_pid()");
                assert_eq!(client.value("SELECT pg_backend_pid()"), inside, "one server for a transaction");
                client.simple("COMMIT").unwrap();
            });
        }
    });
    let servers = servers.into_inner().unwrap();
    assert!((1..=3).contains(&servers.len()), "{servers:?}");
}

#[test]
fn a_cancel_request_reaches_the_query() {
    let cluster = cluster::shared();
    let pooler = Setup::url(cluster, "app").start();
    let mut client = pooler.client("app");
    client.send(&raw::query("SELECT pg_sleep(60), 'cancel me'")).unwrap();
    let active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%cancel me%' AND pid <> pg_backend_pid()";
    wait_for("the query to run", || (cluster.psql(active) == "1").then_some(()));
    raw::Client::connect(pooler.address()).unwrap().send_cancel(client.key.as_ref().expect("a key")).unwrap();
    assert_eq!(client.answer().unwrap_err().code(), "57014");
    assert_eq!(client.value("SELECT 'unharmed'"), "unharmed");
}

#[test]
fn an_n_plus_one_is_found_logged_and_counted() {
    let pooler = Setup::url(cluster::shared(), "app").env("PGSLUICE_LOG_FORMAT", "json").start();
    let mut client = pooler.client("app");
    client.simple("CREATE TABLE np_author (id int, name text); CREATE TABLE np_book (id int, author_id int)").unwrap();
    client
        .simple(
            "INSERT INTO np_author SELECT n, 'secret name ' || n FROM generate_series(1, 50) n; \
             INSERT INTO np_book SELECT n, n FROM generate_series(1, 50) n",
        )
        .unwrap();
    client.terminate();
    // A connection of its own is a unit of work: CONN_MAX_AGE = 0.
    let mut client = pooler.client("app");
    let rows = client.simple(r#"SELECT "np_book"."id", "np_book"."author_id" FROM "np_book" LIMIT 30"#).unwrap();
    for row in &rows {
        let author = row[1].as_deref().unwrap();
        let sql = format!(
            r#"SELECT "np_author"."id", "np_author"."name" FROM "np_author" WHERE "np_author"."id" = {author} LIMIT 21"#
        );
        assert_eq!(client.simple(&sql).unwrap().len(), 1);
    }
    client.terminate();
    let labels = [r#"kind="n_plus_one""#, r#"confidence="high""#];
    wait_for("the burst in /metrics", || {
        (pooler.metric("pgsluice_nplusone_bursts_total", &labels) == 1.0).then_some(())
    });
    let line = pooler.wait_for_log("\"finding\":");
    assert!(line.contains("np_author"), "{line}");
    assert!(!pooler.log().contains("secret name"), "no value of a row in a log");
    assert!(!pooler.metrics().contains("secret name"));
}

#[test]
fn djangos_iterator_ties_a_server_only_while_its_cursor_is_open() {
    let cluster = cluster::shared();
    let pooler =
        Setup::url(cluster, "app").env("PGSLUICE_POOL_SIZE", "1").env("PGSLUICE_QUERY_WAIT_TIMEOUT", "500ms").start();
    let mut a = pooler.client("app");
    let mut b = pooler.client("app");
    let declare = "DECLARE \"_django_curs_1_sync_1\" NO SCROLL CURSOR WITH HOLD FOR SELECT generate_series(1, 5)";
    a.simple(declare).unwrap();
    // The cursor lives in one server: the neighbour waits in vain, the owner reads on.
    assert!(b.simple("SELECT 1").is_err());
    assert_eq!(a.simple("FETCH FORWARD 2 FROM \"_django_curs_1_sync_1\"").unwrap().len(), 2);
    a.simple("CLOSE \"_django_curs_1_sync_1\"").unwrap();
    assert!(b.simple("SELECT 1").is_ok(), "the server is shared again");
}
