//! Statements prepared by protocol, in transaction pooling, when the schema changes, servers change, and SQL names them:
//! what a driver sees must be what it sees on a connection of its own.
//!
//! Drivers differ in one thing that matters here: libpq asks for the columns with every execution (`asking`), asyncpg,
//! tokio-postgres and pgjdbc remember them (`trusting`) and count on an error when they change.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use support::cluster::{self, Cluster};
use support::pooler::{Pooler, Setup};
use support::raw::{self, Error, Message, bind, close, describe, execute, flush, parse, query, sync};

fn setup(size: usize) -> Setup {
    Setup::url(cluster::shared(), "app").env("PGSLUICE_POOL_SIZE", &size.to_string())
}

/// A table of one's own with one row.
fn table(name: &str) -> &'static Cluster {
    let cluster = cluster::shared();
    cluster.psql(&format!(
        "SET client_min_messages = error; DROP TABLE IF EXISTS {name} CASCADE; CREATE TABLE {name} (a int, b int); \
         INSERT INTO {name} VALUES (1, 2); ALTER TABLE {name} OWNER TO app"
    ));
    cluster
}

/// Prepares as a driver does that remembers what the statement gives.
fn prepare(client: &mut raw::Client, name: &str, sql: &str) -> Result<Vec<Message>, Error> {
    client.send(&[parse(name, sql), describe(b'S', name), sync()].concat())?;
    heard(client)
}

/// Executes as a driver does that remembers.
fn trusting(client: &mut raw::Client, name: &str) -> Result<String, Error> {
    client.send(&[bind("", name, &[]), execute("", 0), sync()].concat())?;
    client.answer().map(|rows| raw::text(&rows))
}

/// Executes as libpq does.
fn asking(client: &mut raw::Client, name: &str) -> Result<String, Error> {
    client.send(&[bind("", name, &[]), describe(b'P', ""), execute("", 0), sync()].concat())?;
    client.answer().map(|rows| raw::text(&rows))
}

/// All of an answer; the error when there is one.
fn heard(client: &mut raw::Client) -> Result<Vec<Message>, Error> {
    let all = client.read_until(b'Z')?;
    match all.iter().find(|m| m.tag == b'E') {
        Some(e) => Err(e.to_error()),
        None => Ok(all),
    }
}

fn error(result: Result<String, Error>) -> (String, String) {
    match result {
        Err(Error::Server { code, message, .. }) => (code, message),
        Err(e) => panic!("{e}"),
        Ok(rows) => panic!("no error, but {rows:?}"),
    }
}

const OUTDATED: (&str, &str) = ("0A000", "cached plan must not change result type");

fn outdated(result: Result<String, Error>) {
    let (code, message) = error(result);
    assert_eq!((&*code, &*message), OUTDATED);
}

/// Holds one server in a transaction for as long as it is there.
fn occupy(pooler: &Pooler) -> raw::Client {
    let mut client = pooler.client("app");
    client.simple("BEGIN").unwrap();
    client
}

// === The schema changes ===

#[test]
fn a_client_that_asks_gets_the_new_columns_without_an_error() {
    for outside in [true, false] {
        let cluster = table("prep_asking");
        let pooler = setup(2).start();
        let mut client = pooler.client("app");
        let mut other = pooler.client("app");
        client.send(&[parse("s", "SELECT * FROM prep_asking"), sync()].concat()).unwrap();
        heard(&mut client).unwrap();
        // On both servers.
        assert_eq!(asking(&mut client, "s").unwrap(), "1|2");
        let held = occupy(&pooler);
        assert_eq!(asking(&mut client, "s").unwrap(), "1|2");
        drop(held);
        let ddl = "ALTER TABLE prep_asking ADD COLUMN c int DEFAULT 3";
        if outside {
            cluster.psql(ddl);
        } else {
            other.simple(ddl).unwrap();
        }
        assert_eq!(asking(&mut client, "s").unwrap(), "1|2|3", "outside: {outside}");
        let _held = occupy(&pooler);
        assert_eq!(asking(&mut client, "s").unwrap(), "1|2|3", "outside: {outside}");
    }
}

#[test]
fn a_replay_executes_once_and_keeps_what_is_pipelined_in_it() {
    let cluster = table("prep_once");
    let pooler = setup(1).start();
    let mut client = pooler.client("app");
    let sql = "INSERT INTO prep_once (a, b) SELECT max(a) + 1, 0 FROM prep_once RETURNING *";
    client.send(&[parse("s", sql), sync()].concat()).unwrap();
    heard(&mut client).unwrap();
    assert_eq!(asking(&mut client, "s").unwrap(), "2|0");
    cluster.psql("ALTER TABLE prep_once ADD COLUMN c int DEFAULT 9");
    let twice = [bind("", "s", &[]), describe(b'P', ""), execute("", 0)].concat();
    client.send(&[twice.clone(), twice, sync()].concat()).unwrap();
    let all = heard(&mut client).unwrap();
    assert_eq!(raw::tags(&all), "2TDC2TDCZ");
    assert_eq!(client.value("SELECT string_agg(a || ':' || c, ',' ORDER BY a) FROM prep_once"), "1:9,2:9,3:9,4:9");
    // And what came at once behind a replayed sequence comes behind it.
    cluster.psql("ALTER TABLE prep_once ADD COLUMN d int DEFAULT 8");
    let once = [bind("", "s", &[]), describe(b'P', ""), execute("", 0), sync()].concat();
    client.send(&once).unwrap();
    assert_eq!(raw::text(&client.answer().unwrap()), "5|0|9|8");
}

#[test]
fn in_a_transaction_the_error_is_the_clients_and_preparing_anew_helps_at_once() {
    let cluster = table("prep_block");
    let pooler = setup(1).start();
    let mut client = pooler.client("app");
    prepare(&mut client, "s", "SELECT * FROM prep_block").unwrap();
    assert_eq!(asking(&mut client, "s").unwrap(), "1|2");
    client.simple("BEGIN").unwrap();
    cluster.psql("ALTER TABLE prep_block ADD COLUMN c int");
    outdated(asking(&mut client, "s"));
    assert_eq!(client.status, b'E');
    client.simple("ROLLBACK").unwrap();
    // As asyncpg does: another name, the same text.
    prepare(&mut client, "s2", "SELECT * FROM prep_block").unwrap();
    assert_eq!(trusting(&mut client, "s2").unwrap(), "1|2|");
    // As psycopg does.
    client.simple("DEALLOCATE s").unwrap();
    prepare(&mut client, "s", "SELECT * FROM prep_block").unwrap();
    assert_eq!(trusting(&mut client, "s").unwrap(), "1|2|");
}

#[test]
fn a_client_that_remembers_columns_hears_that_they_changed_wherever_it_is() {
    for outside in [true, false] {
        let cluster = table("prep_trusting");
        let pooler = setup(3).start();
        let sql = "SELECT * FROM prep_trusting";
        let mut knows = pooler.client("app");
        let mut other = pooler.client("app");
        prepare(&mut knows, "s", sql).unwrap();
        assert_eq!(trusting(&mut knows, "s").unwrap(), "1|2");
        let ddl = "ALTER TABLE prep_trusting ALTER COLUMN b SET DATA TYPE text";
        if outside {
            cluster.psql(ddl);
        } else {
            other.simple(ddl).unwrap();
        }
        // The server it knows says so itself; one that meets the text only now would not.
        let first = occupy(&pooler);
        outdated(trusting(&mut knows, "s"));
        let second = occupy(&pooler);
        outdated(trusting(&mut knows, "s"));
        drop((first, second));
        outdated(trusting(&mut knows, "s"));
        // A client that comes now prepares what is true now, at every server.
        let mut fresh = pooler.client("app");
        prepare(&mut fresh, "s", sql).unwrap();
        assert_eq!(trusting(&mut fresh, "s").unwrap(), "1|2");
        let _held = occupy(&pooler);
        assert_eq!(trusting(&mut fresh, "s").unwrap(), "1|2");
        // And so does the first, however it does it.
        knows.send(&[close(b'S', "s"), parse("s", sql), describe(b'S', "s"), sync()].concat()).unwrap();
        heard(&mut knows).unwrap();
        assert_eq!(trusting(&mut knows, "s").unwrap(), "1|2");
    }
}

#[test]
fn a_fresh_client_is_not_blamed_for_what_another_was_told() {
    let cluster = table("prep_fresh");
    let pooler = setup(2).start();
    let sql = "SELECT * FROM prep_fresh";
    let mut knows = pooler.client("app");
    prepare(&mut knows, "s", sql).unwrap();
    cluster.psql("ALTER TABLE prep_fresh ADD COLUMN c int");
    let mut fresh = pooler.client("app");
    // At the other server, where nobody has heard an error yet.
    let held = occupy(&pooler);
    prepare(&mut fresh, "s", sql).unwrap();
    assert_eq!(trusting(&mut fresh, "s").unwrap(), "1|2|");
    outdated(trusting(&mut knows, "s"));
    drop(held);
    outdated(trusting(&mut knows, "s"));
    assert_eq!(trusting(&mut fresh, "s").unwrap(), "1|2|");
}

#[test]
fn the_error_in_the_servers_place_fails_a_transaction_as_the_servers_own() {
    let cluster = table("prep_fails");
    let pooler = setup(2).start();
    let mut knows = pooler.client("app");
    prepare(&mut knows, "s", "SELECT * FROM prep_fails").unwrap();
    let _first = occupy(&pooler);
    knows.simple("BEGIN").unwrap();
    cluster.psql("ALTER TABLE prep_fails ADD COLUMN c int");
    let pipeline =
        [bind("", "s", &[]), execute("", 0), parse("", "SELECT 1"), bind("", "", &[]), execute("", 0), sync()];
    knows.send(&pipeline.concat()).unwrap();
    let all = knows.read_until(b'Z').unwrap();
    assert_eq!(raw::tags(&all), "EZ");
    assert_eq!(all[0].field(b'R').as_deref(), Some("RevalidateCachedQuery"), "what pgjdbc looks for");
    assert_eq!(knows.status, b'E');
    let (code, _) = error(knows.extended("SELECT 1", &[]).map(|r| raw::text(&r)));
    assert_eq!(code, "25P02");
    knows.simple("ROLLBACK").unwrap();
    assert_eq!(knows.value("SELECT 1"), "1");
}

#[test]
fn a_pipeline_that_has_failed_before_is_not_waited_for() {
    table("prep_before");
    let pooler = setup(2).start();
    let mut client = pooler.client("app");
    prepare(&mut client, "s", "SELECT * FROM prep_before").unwrap();
    let _first = occupy(&pooler);
    // At the other server the statement must be asked for, behind an error.
    let pipeline = [parse("", "SELEC"), bind("", "s", &[]), execute("", 0), sync(), bind("", "s", &[]), execute("", 0)];
    client.send(&[pipeline.concat(), sync()].concat()).unwrap();
    assert_eq!(raw::tags(&client.read_until(b'Z').unwrap()), "EZ");
    assert_eq!(raw::text(&client.answer().unwrap()), "1|2");
}

#[test]
fn a_change_in_a_transaction_counts_for_others_from_its_commit() {
    table("prep_commit");
    let pooler = setup(3).start();
    let sql = "SELECT * FROM prep_commit";
    let mut ddl = pooler.client("app");
    let mut other = pooler.client("app");
    ddl.simple("BEGIN").unwrap();
    prepare(&mut ddl, "old", sql).unwrap();
    ddl.simple("ALTER TABLE prep_commit ADD COLUMN c int DEFAULT 3").unwrap();
    // Inside, what is prepared anew is new, as on a direct connection.
    prepare(&mut ddl, "new", sql).unwrap();
    assert_eq!(trusting(&mut ddl, "new").unwrap(), "1|2|3");
    ddl.simple("ROLLBACK").unwrap();
    prepare(&mut other, "s", sql).unwrap();
    assert_eq!(trusting(&mut other, "s").unwrap(), "1|2");
    outdated(trusting(&mut ddl, "new"));
    assert_eq!(asking(&mut ddl, "new").unwrap(), "1|2");
    ddl.simple("BEGIN; ALTER TABLE prep_commit ADD COLUMN d int DEFAULT 4; COMMIT").unwrap();
    let held = occupy(&pooler);
    prepare(&mut other, "s2", sql).unwrap();
    assert_eq!(trusting(&mut other, "s2").unwrap(), "1|2|4");
    outdated(trusting(&mut other, "s"));
    drop(held);
}

#[test]
fn a_type_made_anew_is_found_after_its_error() {
    let cluster = cluster::shared();
    let make =
        "SET client_min_messages = error; DROP TYPE IF EXISTS prep_mood; CREATE TYPE prep_mood AS ENUM ('a', 'b')";
    cluster.psql(make);
    let pooler = setup(1).start();
    let mut client = pooler.client("app");
    let sql = "SELECT $1::prep_mood";
    let run = |client: &mut raw::Client, name| {
        client.send(&[bind("", name, &[Some("a")]), execute("", 0), sync()].concat()).unwrap();
        client.answer().map(|rows| raw::text(&rows))
    };
    prepare(&mut client, "s", sql).unwrap();
    assert_eq!(run(&mut client, "s").unwrap(), "a");
    cluster.psql(make);
    let (code, message) = error(run(&mut client, "s"));
    assert_eq!(code, "XX000", "{message}");
    prepare(&mut client, "s2", sql).unwrap();
    assert_eq!(run(&mut client, "s2").unwrap(), "a");
}

#[test]
fn another_search_path_is_another_statement() {
    let cluster = cluster::shared();
    cluster.psql(
        "SET client_min_messages = error; DROP SCHEMA IF EXISTS prep_a, prep_b CASCADE; CREATE SCHEMA prep_a; CREATE SCHEMA prep_b; \
         GRANT USAGE ON SCHEMA prep_a, prep_b TO app; CREATE TABLE prep_a.tenant AS SELECT 1 AS a; \
         CREATE TABLE prep_b.tenant AS SELECT 'two' AS b; GRANT SELECT ON prep_a.tenant, prep_b.tenant TO app",
    );
    let pooler = setup(1).start();
    let open = |path: &str| {
        let mut client = raw::Client::connect(pooler.address()).unwrap();
        let all = [("user", "app"), ("database", cluster::DATABASE), ("options", path)];
        client.login_with(cluster::PASSWORD, &all).unwrap();
        client
    };
    let (mut a, mut b) = (open("-c search_path=prep_a"), open("-c search_path=prep_b"));
    prepare(&mut a, "s", "SELECT * FROM tenant").unwrap();
    prepare(&mut b, "s", "SELECT * FROM tenant").unwrap();
    for _ in 0..2 {
        assert_eq!(trusting(&mut a, "s").unwrap(), "1");
        assert_eq!(trusting(&mut b, "s").unwrap(), "two");
    }
}

// === SQL that names what was prepared by protocol ===

#[test]
fn deallocate_frees_the_clients_name_and_nobody_elses() {
    let pooler = setup(1).start();
    let (mut one, mut two) = (pooler.client("app"), pooler.client("app"));
    for client in [&mut one, &mut two] {
        prepare(client, "_pg3_0", "SELECT 'shared'").unwrap();
    }
    one.send(&query("DEALLOCATE _pg3_0")).unwrap();
    let all = one.read_until(b'Z').unwrap();
    assert_eq!((raw::tags(&all), all[0].command()), ("CZ".to_owned(), "DEALLOCATE".to_owned()));
    let (code, message) = error(trusting(&mut one, "_pg3_0"));
    assert_eq!((&*code, &*message), ("26000", "prepared statement \"_pg3_0\" does not exist"));
    assert_eq!(trusting(&mut two, "_pg3_0").unwrap(), "shared");
    // The name is free for something else, at once and pipelined.
    let pipeline = [query("DEALLOCATE PREPARE \"_pg3_0\";"), parse("_pg3_0", "SELECT 'again'"), sync()].concat();
    prepare(&mut one, "_pg3_0", "SELECT 'new'").unwrap();
    assert_eq!(trusting(&mut one, "_pg3_0").unwrap(), "new");
    one.send(&pipeline).unwrap();
    assert_eq!(raw::tags(&one.read_until(b'Z').unwrap()), "CZ");
    assert_eq!(raw::tags(&one.read_until(b'Z').unwrap()), "1Z");
    assert_eq!(trusting(&mut one, "_pg3_0").unwrap(), "again");
    // And a name that nobody prepared is PostgreSQL's to refuse.
    let (code, message) = error(one.simple("DEALLOCATE nothing").map(|r| raw::text(&r)));
    assert_eq!((&*code, &*message), ("26000", "prepared statement \"nothing\" does not exist"));
    assert_eq!(one.value("SELECT count(*) FROM pg_prepared_statements WHERE name = 'pgsluice_gone'"), "0");
}

#[test]
fn deallocate_in_a_failed_transaction_is_refused_and_the_name_stays() {
    let pooler = setup(1).start();
    let mut client = pooler.client("app");
    prepare(&mut client, "s", "SELECT 'still'").unwrap();
    client.simple("BEGIN").unwrap();
    let _ = client.simple("SELECT 1/0");
    let (code, _) = error(client.simple("DEALLOCATE s").map(|r| raw::text(&r)));
    assert_eq!(code, "25P02");
    client.simple("ROLLBACK").unwrap();
    assert_eq!(trusting(&mut client, "s").unwrap(), "still");
}

#[test]
fn deallocate_by_the_extended_protocol_works_when_it_is_executed() {
    let pooler = setup(1).start();
    let mut client = pooler.client("app");
    prepare(&mut client, "s", "SELECT 'still'").unwrap();
    let deallocate = [parse("", "DEALLOCATE s"), bind("", "", &[]), describe(b'P', "")].concat();
    client.send(&[deallocate.clone(), sync()].concat()).unwrap();
    assert_eq!(raw::tags(&heard(&mut client).unwrap()), "12nZ");
    assert_eq!(trusting(&mut client, "s").unwrap(), "still");
    // Skipped.
    let failing = [parse("", "SELEC"), parse("", "DEALLOCATE s"), bind("", "", &[]), execute("", 0), sync()].concat();
    client.send(&failing).unwrap();
    assert_eq!(raw::tags(&client.read_until(b'Z').unwrap()), "EZ");
    assert_eq!(trusting(&mut client, "s").unwrap(), "still");
    client.send(&[deallocate, execute("", 0), sync()].concat()).unwrap();
    let all = heard(&mut client).unwrap();
    assert_eq!((raw::tags(&all), all[3].command()), ("12nCZ".to_owned(), "DEALLOCATE".to_owned()));
    assert_eq!(error(trusting(&mut client, "s")).0, "26000");
}

#[test]
fn execute_of_a_protocol_level_name_works_on_every_server() {
    let cluster = table("prep_execute");
    let pooler = setup(2).start();
    let mut client = pooler.client("app");
    prepare(&mut client, "foobar", "SELECT a, $1::text FROM prep_execute").unwrap();
    // As asyncpg does: itself prepared under a name.
    let own = "__asyncpg_stmt_1__";
    prepare(&mut client, own, "EXECUTE foobar('x')").unwrap();
    for held in [false, true] {
        let _held = held.then(|| occupy(&pooler));
        assert_eq!(raw::text(&client.simple("EXECUTE foobar('it''s')").unwrap()), "1|it's");
        assert_eq!(raw::text(&client.extended("EXECUTE FooBar('y')", &[]).unwrap()), "1|y");
        assert_eq!(trusting(&mut client, own).unwrap(), "1|x");
        let both = raw::text(&client.simple("EXECUTE foobar('a'); SELECT 'b'").unwrap());
        assert_eq!(both, "1|a\nb");
    }
    // A text too long to be read takes the unnamed statement's place as any other.
    client.send(&[parse("", "EXECUTE foobar('y')"), sync()].concat()).unwrap();
    heard(&mut client).unwrap();
    let long = format!("SELECT length('{}')", "x".repeat(70_000));
    client.send(&[parse("", &long), bind("", "", &[]), execute("", 0), sync()].concat()).unwrap();
    assert_eq!(raw::text(&client.answer().unwrap()), "70000");
    // What the name means is looked up when it is executed.
    client.send(&[close(b'S', "foobar"), sync()].concat()).unwrap();
    heard(&mut client).unwrap();
    assert_eq!(error(trusting(&mut client, own)).0, "26000");
    prepare(&mut client, "foobar", "SELECT 'another', $1::text").unwrap();
    assert_eq!(trusting(&mut client, own).unwrap(), "another|x");
    let (code, message) = error(prepare(&mut client, "foobar", "SELECT 1").map(|_| String::new()));
    assert_eq!((&*code, &*message), ("42P05", "prepared statement \"foobar\" already exists"));
    assert_eq!(error(client.simple("EXECUTE nobody").map(|r| raw::text(&r))).0, "26000");
    // SQL's own statements are as they were.
    client.simple("PREPARE sql AS SELECT 'sql'").unwrap();
    assert_eq!(raw::text(&client.simple("EXECUTE sql").unwrap()), "sql");
    client.simple("DEALLOCATE sql").unwrap();
    drop(client);
    // One error when it cannot be prepared at the server any more.
    let mut late = pooler.client("app");
    prepare(&mut late, "gone", "SELECT b FROM prep_execute").unwrap();
    cluster.psql("ALTER TABLE prep_execute DROP COLUMN b");
    for size in 0..2 {
        let _held = (size > 0).then(|| occupy(&pooler));
        late.send(&query("EXECUTE gone")).unwrap();
        let all = late.read_until(b'Z').unwrap();
        assert_eq!((raw::tags(&all), all[0].field(b'C').unwrap()), ("EZ".to_owned(), "42703".to_owned()));
    }
    late.simple("BEGIN").unwrap();
    assert_eq!(error(late.simple("EXECUTE gone").map(|r| raw::text(&r))).0, "42703");
    assert_eq!(error(late.simple("EXECUTE gone").map(|r| raw::text(&r))).0, "25P02");
}

// === What is shared, and for how long ===

fn server_parses(pooler: &Pooler) -> f64 {
    pooler.metric("pgsluice_pool_server_parses_total", &[])
}

#[test]
fn comments_do_not_defeat_sharing() {
    let pooler = setup(1).start();
    for i in 0..10 {
        let mut client = pooler.client("app");
        let sql = format!("SELECT 'trace /* {} */' /* traceparent='00-{i}' */", 1);
        prepare(&mut client, "s", &sql).unwrap();
        assert_eq!(trusting(&mut client, "s").unwrap(), "trace /* 1 */");
    }
    assert_eq!(server_parses(&pooler), 1.0);
    let mut client = pooler.client("app");
    prepare(&mut client, "s", "SELECT 'trace /* 2 */' /* traceparent='00-1' */").unwrap();
    assert_eq!(trusting(&mut client, "s").unwrap(), "trace /* 2 */", "what stands in a literal counts");
}

#[test]
fn statements_seen_once_do_not_push_out_those_in_use() {
    let pooler = setup(1).env("PGSLUICE_MAX_PREPARED_STATEMENTS", "4").start();
    let mut hot = pooler.client("app");
    for i in 0..3 {
        prepare(&mut hot, &format!("hot{i}"), &format!("SELECT 'hot', {i}")).unwrap();
    }
    let mut once = pooler.client("app");
    for i in 0..20 {
        let sql = format!("SELECT 'once', {i}");
        let all = [parse("x", &sql), bind("", "x", &[]), execute("", 0), close(b'S', "x"), sync()].concat();
        once.send(&all).unwrap();
        assert_eq!(raw::text(&once.answer().unwrap()), format!("once|{i}"));
    }
    assert_eq!(server_parses(&pooler), 23.0);
    for i in 0..3 {
        assert_eq!(trusting(&mut hot, &format!("hot{i}")).unwrap(), format!("hot|{i}"));
    }
    assert_eq!(server_parses(&pooler), 23.0, "they are still there");
    // One that is prepared and closed again and again is in use.
    for _ in 0..5 {
        let all = [parse("x", "SELECT 'pdo'"), bind("", "x", &[]), execute("", 0), close(b'S', "x"), sync()].concat();
        once.send(&all).unwrap();
        assert_eq!(raw::text(&once.answer().unwrap()), "pdo");
    }
    assert_eq!(server_parses(&pooler), 24.0);
}

#[test]
fn a_client_with_more_than_is_kept_stays_with_its_server() {
    let pooler = setup(1).start();
    let mut client = pooler.client("app");
    let padding = "x".repeat(60_000);
    let mut n = 0;
    while pooler.metric("pgsluice_pool_pins_total", &[]) == 0.0 {
        client.send(&[parse(&format!("s{n}"), &format!("SELECT {n}, '{padding}'")), sync()].concat()).unwrap();
        heard(&mut client).unwrap();
        n += 1;
        assert!(n < 1000, "eight megabytes are enough");
    }
    for i in [0, n / 2, n - 1] {
        assert_eq!(trusting(&mut client, &format!("s{i}")).unwrap(), format!("{i}|{padding}"));
    }
    client.send(&[close(b'S', &format!("s{}", n - 1)), flush()].concat()).unwrap();
    assert_eq!(client.read().unwrap().tag, b'3');
    drop(client);
    // Nothing of it is left.
    assert_eq!(pooler.client("app").value("SELECT count(*) FROM pg_prepared_statements"), "0");
}

/// PQprepare with an empty name, or asyncpg without a statement cache: prepared in one transaction, bound in later ones.
#[test]
fn an_unnamed_statement_is_bound_after_its_server_went_to_others() {
    let pooler = Setup::url(cluster::shared(), "app").env("PGSLUICE_POOL_SIZE", "1").start();
    let mut client = pooler.client("app");
    let mut neighbour = pooler.client("app");
    let prepare = |sql: &str| [raw::parse("", sql), raw::describe(b'S', ""), raw::sync()].concat();
    let run = |value: &str| [raw::bind("", "", &[Some(value)]), raw::execute("", 0), raw::sync()].concat();
    client.send(&prepare("SELECT 'mine ' || $1::text")).unwrap();
    client.answer().unwrap();
    for (between, value) in [("SELECT 1", "a"), ("extended", "b"), ("nothing", "c"), ("described", "d")] {
        match between {
            "extended" => drop(neighbour.extended("SELECT 'theirs'", &[]).unwrap()),
            "nothing" => {}
            "described" => {
                neighbour.simple("SELECT 2").unwrap();
                client.send(&[raw::describe(b'S', ""), raw::sync()].concat()).unwrap();
                client.answer().unwrap();
                neighbour.simple("SELECT 2").unwrap();
            }
            sql => drop(neighbour.simple(sql).unwrap()),
        }
        client.send(&run(value)).unwrap();
        assert_eq!(raw::text(&client.answer().unwrap()), format!("mine {value}"), "after {between}");
    }
    // What ends it directly ends it here: a simple Query, and a Parse that fails.
    client.simple("SELECT 1").unwrap();
    client.send(&run("x")).unwrap();
    assert_eq!(client.answer().unwrap_err().code(), "26000");
    client.send(&prepare("SELECT $1::text")).unwrap();
    client.answer().unwrap();
    client.send(&prepare("SELEC")).unwrap();
    assert_eq!(client.answer().unwrap_err().code(), "42601");
    neighbour.simple("SELECT 1").unwrap();
    client.send(&run("x")).unwrap();
    assert_eq!(client.answer().unwrap_err().code(), "26000");
}

#[test]
fn an_unnamed_statement_stays_when_the_query_behind_it_is_skipped() {
    let cluster = cluster::shared();
    let pooler = Setup::url(cluster, "app").env("PGSLUICE_POOL_SIZE", "1").start();
    let mut direct = raw::Client::open(cluster.address(), "app", "secret", "app").unwrap();
    let (mut client, mut neighbour) = (pooler.client("app"), pooler.client("app"));
    let run = [raw::bind("", "", &[Some("x")]), raw::execute("", 0), raw::sync()].concat();
    let prepare = [raw::parse("", "SELECT 'mine ' || $1::text"), raw::sync()].concat();
    let fails = raw::bind("", "never", &[]);
    for (what, bytes, readies) in [
        ("one", [&fails[..], &raw::query("SELECT 1"), &raw::sync()].concat(), 1),
        ("two", [&fails[..], &raw::query("SELECT 1"), &raw::query("SELECT 2"), &raw::sync()].concat(), 1),
        ("another Parse", [&fails[..], &raw::query("SELECT 1"), &raw::parse("", "SELECT 2"), &raw::sync()].concat(), 1),
        (
            "not skipped",
            [raw::parse("n", "SELECT 3"), raw::query("SELECT 1"), raw::close(b'S', "n"), raw::sync()].concat(),
            2,
        ),
    ] {
        for away in [false, true] {
            let mut heard = Vec::new();
            for (c, pooled) in [(&mut direct, false), (&mut client, true)] {
                c.send(&prepare).unwrap();
                c.answer().unwrap();
                c.send(&bytes).unwrap();
                for _ in 0..readies {
                    let _either_way = c.answer();
                }
                if pooled && away {
                    neighbour.extended("SELECT 'theirs'", &[]).unwrap();
                }
                c.send(&run).unwrap();
                heard.push(c.answer().map(|rows| raw::text(&rows)).map_err(|e| e.code().to_owned()));
            }
            assert_eq!(heard[1], heard[0], "{what}, another client between: {away}");
        }
    }
}
