//! The catalogue and plans, asked of a real PostgreSQL: what is found, what is not, and what the connection may never do.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use serde_json::Value;
use support::cluster::{self, Cluster};
use support::pooler::{Pooler, Setup};
use support::{raw, wait_for};

/// A second between snapshots, plans at once.
fn setup() -> Setup {
    on(cluster::shared())
}

fn on(cluster: &Cluster) -> Setup {
    Setup::url(cluster, "app")
        .env("PGSLUICE_INSIGHT_EXPLAIN", "true")
        .env("PGSLUICE_INSIGHT_CATALOG_INTERVAL", "1s")
        .env("PGSLUICE_INSIGHT_EXPLAIN_PER_MINUTE", "600")
}

fn items(pooler: &Pooler, path: &str) -> Vec<Value> {
    let (status, body) = pooler.get(path);
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["items"].as_array().unwrap().clone()
}

fn causes(pooler: &Pooler) -> Vec<Value> {
    items(pooler, "/api/v1/causes?limit=1000")
}

/// The cause about a table, once there is one for which `done` holds.
fn cause(pooler: &Pooler, about: &str, done: impl Fn(&Value) -> bool) -> Value {
    wait_for(&format!("a cause about {about}"), || {
        causes(pooler)
            .into_iter()
            .find(|cause| cause["text"].as_str().is_some_and(|text| text.contains(about)) && done(cause))
    })
}

fn is_proved(cause: &Value) -> bool {
    cause["kind"] == "missing_index" && cause["probable"] == false
}

fn times(client: &mut raw::Client, n: usize, sql: impl Fn(usize) -> String) {
    (0..n).for_each(|i| drop(client.simple(&sql(i)).unwrap()));
}

fn fill(client: &mut raw::Client, table: &str, rows: usize) {
    for sql in [
        format!("CREATE TABLE {table} (id int PRIMARY KEY, email text, active bool, city int)"),
        format!("INSERT INTO {table} SELECT i, i || '@example.org', true, i % 100 FROM generate_series(1, {rows}) i"),
        format!("ANALYZE {table}"),
    ] {
        client.simple(&sql).unwrap();
    }
}

fn look_up(table: &str, column: &str, value: impl std::fmt::Display) -> String {
    format!(r#"SELECT "{table}"."id" FROM "{table}" WHERE "{table}"."{column}" = '{value}' LIMIT 21"#)
}

/// A look-up that is slow for another reason than how it finds its rows.
fn slow(table: &str, condition: impl std::fmt::Display) -> String {
    format!(
        r#"SELECT "{table}"."id", (SELECT COUNT(*) FROM generate_series(1::int, 400000::int)) AS "w" FROM "{table}" WHERE {condition} LIMIT 21"#
    )
}

/// What the connection of the pooler's own has said to a cluster with [`LOGGED`].
fn said(cluster: &Cluster) -> Vec<String> {
    cluster.log().lines().filter(|line| line.starts_with("pgsluice insight ")).map(str::to_owned).collect()
}

/// Everything is in the log, with the application that it is of.
const LOGGED: [&str; 2] = ["log_statement=all", "log_line_prefix=%a "];

#[test]
fn a_plan_proves_the_index_that_is_missing_until_it_is_there() {
    let pooler = setup().start();
    let mut client = pooler.client("app");
    fill(&mut client, "ins_bare", 400_000);
    // However quick the machine is, too slow for anybody.
    times(&mut client, 25, |i| slow("ins_bare", format!(r#""ins_bare"."email" = '{}@example.org'"#, i + 1)));
    let found = cause(&pooler, "FROM \"ins_bare\"", is_proved);
    let text = |name: &str| found[name].as_str().unwrap().to_owned();
    assert_eq!(text("basis"), "estimate");
    assert!(
        text("evidence").contains("reads ins_bare from end to end (Seq Scan), about 400000 rows, for 1 of them"),
        "{found}"
    );
    for part in [
        "class Bare(models.Model)",
        r#"indexes = [models.Index(fields=["email"], name="bare_email_idx")]"#,
        "atomic = False",
        "AddIndexConcurrently(\n            model_name=\"bare\",",
    ] {
        assert!(text("code").contains(part), "{found}");
    }
    assert_eq!(found["numbers"]["table_rows"], 400_000.0);
    assert!(found["numbers"]["plan_cost"].as_f64().unwrap() > 1_000.0, "{found}");
    // Written, it is no cause any more, though the window remembers the slow executions.
    client.simple("CREATE INDEX ON ins_bare (email)").unwrap();
    let after = wait_for("the plan with the index", || {
        client.simple("SELECT 1").unwrap();
        causes(&pooler).into_iter().find(|cause| cause["text"] == found["text"] && cause["kind"] == "slow_query")
    });
    assert!(after["evidence"].as_str().unwrap().contains("its plan uses the index ins_bare_email_idx"), "{after}");
}

#[test]
fn innocent_twins_are_cleared_by_their_plans() {
    let pooler = setup().start();
    let mut client = pooler.client("app");
    fill(&mut client, "tw_keyed", 100_000);
    client.simple("CREATE INDEX ON tw_keyed (email)").unwrap();
    fill(&mut client, "tw_small", 3_000);
    fill(&mut client, "tw_other", 100_000);
    fill(&mut client, "tw_most", 100_000);
    let twins = [
        ("tw_keyed", r#""tw_keyed"."email" = '7@example.org'"#),
        ("tw_small", r#""tw_small"."email" = '7@example.org'"#),
        // The primary key tells more than enough.
        ("tw_other", r#""tw_other"."email" = '7@example.org' AND "tw_other"."id" = 7"#),
        // Half of the rows.
        ("tw_most", r#""tw_most"."active" = true"#),
    ];
    for (table, condition) in twins {
        times(&mut client, 25, |_| slow(table, condition));
    }
    for (table, _) in twins {
        let about = format!("FROM \"{table}\"");
        // Before its plan was seen it was probably one.
        let cleared = |cause: &Value| cause["evidence"].as_str().unwrap().contains("its plan");
        let plain = |cause: &Value| table == "tw_most" && cause["kind"] != "missing_index";
        let found = wait_for(&format!("what becomes of {table}"), || {
            let all = causes(&pooler);
            assert!(!all.iter().any(is_proved), "{all:#?}");
            all.into_iter().find(|cause| {
                cause["text"].as_str().is_some_and(|t| t.contains(&about)) && (cleared(cause) || plain(cause))
            })
        });
        assert_eq!(found["kind"], "slow_query", "{found}");
    }
}

#[test]
fn a_hypothetical_index_proves_or_refutes() {
    let cluster = Cluster::start(&[]);
    let available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'hypopg'";
    if cluster.psql(available) == "0" {
        return support::skip("HypoPG is not installed beside this PostgreSQL (Debian: postgresql-15-hypopg)");
    }
    cluster.psql("CREATE SCHEMA \"Hypo x\"");
    cluster.psql("GRANT USAGE ON SCHEMA \"Hypo x\" TO app");
    cluster.psql("CREATE EXTENSION hypopg SCHEMA \"Hypo x\"");
    let of = |pooler: &Pooler, table: &str| {
        let mut client = pooler.client("app");
        fill(&mut client, table, 300_000);
        times(&mut client, 25, |i| slow(table, format!(r#""{table}"."email" = '{}@example.org'"#, i + 1)));
    };
    let pooler = on(&cluster).start();
    of(&pooler, "hy_yes");
    let found = cause(&pooler, "FROM \"hy_yes\"", is_proved);
    let (without, with) = (&found["numbers"]["plan_cost"], &found["numbers"]["plan_cost_with_index"]);
    assert!(with.as_f64().unwrap() * 100.0 < without.as_f64().unwrap(), "{found}");
    assert!(found["evidence"].as_str().unwrap().contains("with a hypothetical index its cost falls from"), "{found}");
    assert_eq!(
        cluster.psql("SELECT count(*) FROM pg_indexes WHERE tablename = 'hy_yes'"),
        "1",
        "nothing was really made"
    );
    // A server that would not use it.
    cluster.psql("ALTER DATABASE app SET enable_indexscan = off; ALTER DATABASE app SET enable_bitmapscan = off; ALTER DATABASE app SET enable_indexonlyscan = off");
    of(&pooler, "hy_no");
    let found = cause(&pooler, "FROM \"hy_no\"", |cause| cause["evidence"].as_str().unwrap().contains("hypothetical"));
    assert_eq!(found["kind"], "slow_query", "{found}");
}

#[test]
fn without_being_told_no_connection_is_made() {
    let cluster = Cluster::start(&LOGGED);
    let pooler = Setup::url(&cluster, "app").start();
    let mut client = pooler.client("app");
    fill(&mut client, "of_t", 100_000);
    times(&mut client, 40, |_| slow("of_t", r#""of_t"."email" = 'a'"#));
    cause(&pooler, "FROM \"of_t\"", |_| true);
    assert_eq!(cluster.backends("app"), 1, "the pool's alone");
    assert!(said(&cluster).is_empty());
}

#[test]
fn what_it_says_is_read_only_and_holds_no_literal_and_it_leaves() {
    let cluster = Cluster::start(&LOGGED);
    let pooler = on(&cluster).start();
    let mut client = pooler.client("app");
    fill(&mut client, "sa_t", 100_000);
    client.simple("CREATE TABLE sa_written (n int)").unwrap();
    // Told to be immutable, so that planning runs it; one in a view, where no text shows it.
    for (name, kind, body) in [
        ("sa_writes", "VOLATILE", "INSERT INTO sa_written VALUES (1)"),
        ("sa_evil", "IMMUTABLE", "PERFORM sa_writes()"),
    ] {
        let function =
            format!("CREATE FUNCTION {name}() RETURNS int {kind} LANGUAGE plpgsql AS $$BEGIN {body}; RETURN 1; END$$");
        client.simple(&function).unwrap();
    }
    client.simple("CREATE VIEW sa_view AS SELECT *, sa_evil() AS evil FROM sa_t").unwrap();
    let where_email = |table: &str| format!(r#""{table}"."email" = 'LITERAL-7'"#);
    times(&mut client, 25, |_| slow("sa_t", where_email("sa_t")));
    times(&mut client, 25, |_| slow("sa_view", format!("{} AND evil = 1", where_email("sa_view"))));
    times(&mut client, 25, |_| slow("sa_t", format!("{} AND sa_evil() = 1", where_email("sa_t"))));
    times(&mut client, 25, |_| slow("sa_t", format!("{} AND pg_advisory_lock_shared(1) IS NULL", where_email("sa_t"))));
    let long: Vec<_> = (0..120).map(|n| format!(r#""sa_t"."email" AS "a_rather_long_name_{n}""#)).collect();
    times(&mut client, 25, |_| {
        format!(
            r#"SELECT {}, (SELECT COUNT(*) FROM generate_series(1::int, 400000::int)) FROM "sa_t" WHERE "sa_t"."email" = 'LITERAL-8'"#,
            long.join(", ")
        )
    });
    let written = client.value("SELECT count(*) FROM sa_written");
    // Of the five one has a plan, and it is asked for again by nobody.
    cause(&pooler, "FROM \"sa_t\"", is_proved);
    wait_for("the view to be refused", || {
        said(&cluster)
            .iter()
            .any(|line| line.contains("cannot execute INSERT in a read-only transaction"))
            .then_some(())
    });
    wait_for("it to leave", || {
        let open = cluster.psql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgsluice insight'");
        (open == "0").then_some(())
    });
    let said = said(&cluster);
    let statements: Vec<_> =
        said.iter().filter(|line| line.contains("LOG:  statement: ") || line.contains("LOG:  execute ")).collect();
    assert!(statements.len() > 10, "{said:#?}");
    for line in &statements {
        assert!(!line.contains("LITERAL") && !line.contains("ANALYZE"), "{line}");
        assert!(!line.contains("sa_evil") && !line.contains("pg_advisory"), "{line}");
        // `LOG:  statement: BEGIN`, `LOG:  execute <unnamed>: SELECT`.
        let sql = line.splitn(3, ": ").last().unwrap();
        let begins = [
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            "SET LOCAL",
            "SHOW",
            "SELECT",
            "PREPARE pgsluice_plan AS SELECT",
            "EXPLAIN (FORMAT JSON, VERBOSE",
            "DEALLOCATE",
            "ROLLBACK",
        ];
        assert!(begins.iter().any(|begin| sql.starts_with(begin)), "{line}");
    }
    assert_eq!(client.value("SELECT count(*) FROM sa_written"), written, "planning wrote");
    // Nor in what the pooler itself says.
    assert!(!pooler.log().contains("LITERAL"), "{}", pooler.log());
    for path in ["/api/v1/causes?limit=1000", "/api/v1/queries?limit=1000", "/metrics"] {
        assert!(!pooler.get(path).1.contains("LITERAL"), "{path}");
    }
}

#[test]
fn what_it_waits_for_it_does_not_wait_for_long() {
    let cluster = Cluster::start(&LOGGED);
    let pooler = on(&cluster).start();
    let mut client = pooler.client("app");
    fill(&mut client, "lo_t", 50_000);
    fill(&mut client, "lo_sleeps", 50_000);
    client
        .simple("CREATE FUNCTION lo_wait() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(CASE current_setting('application_name') WHEN 'pgsluice insight' THEN 60 ELSE 0 END); RETURN 1; END$$")
        .unwrap();
    client.simple("CREATE VIEW lo_view AS SELECT * FROM lo_sleeps WHERE lo_wait() = 1").unwrap();
    times(&mut client, 25, |_| slow("lo_view", r#""lo_view"."email" = 'a'"#));
    client.simple("BEGIN").unwrap();
    client.simple("LOCK TABLE lo_t IN ACCESS EXCLUSIVE MODE").unwrap();
    times(&mut client, 25, |_| slow("lo_t", r#""lo_t"."email" = 'a'"#));
    for why in ["due to lock timeout", "due to statement timeout"] {
        wait_for(why, || said(&cluster).iter().any(|line| line.contains(why)).then_some(()));
    }
    client.simple("COMMIT").unwrap();
    assert!(!pooler.log().contains("cannot be read"), "a statement without a plan is no failure of the connection");
}

#[test]
fn who_cannot_log_in_is_told_once_and_clients_do_not_notice() {
    let cluster = Cluster::start(&[]);
    let toml = format!(
        "[databases.app]\nhost = \"127.0.0.1\"\nport = {}\ninsight_user = \"md5user\"\n[users.app]\npassword = \"secret\"\n\
         [users.md5user]\npassword = \"wrong\"\n[insight]\nexplain = true\ncatalog_interval = \"1s\"\n",
        cluster.port()
    );
    let pooler = Setup::toml(&toml).start();
    let mut client = pooler.client("app");
    fill(&mut client, "lg_t", 20_000);
    pooler.wait_for_log("the catalogue and plans of a database cannot be read");
    times(&mut client, 60, |_| slow("lg_t", r#""lg_t"."email" = 'a'"#));
    cause(&pooler, "FROM \"lg_t\"", |_| true);
    assert_eq!(pooler.log().matches("cannot be read").count(), 1, "{}", pooler.log());
    assert!(!pooler.log().contains("wrong"), "{}", pooler.log());
    assert_eq!(cluster.log().matches("password authentication failed").count(), 1, "it backs off");
}

#[test]
fn a_user_of_its_own_needs_no_right_but_to_read() {
    let cluster = Cluster::start(&[]);
    cluster.psql("CREATE ROLE looker LOGIN PASSWORD 'secret'");
    let toml = format!(
        "[databases.app]\nhost = \"127.0.0.1\"\nport = {}\ninsight_user = \"looker\"\n[users.app]\npassword = \"secret\"\n\
         [users.looker]\npassword = \"secret\"\n[insight]\nexplain = true\ncatalog_interval = \"1s\"\nexplain_per_minute = 600\n",
        cluster.port()
    );
    for granted in [false, true] {
        if granted {
            // As docs/security.md has it.
            for grant in [
                "GRANT USAGE ON SCHEMA public TO looker",
                "GRANT SELECT ON ALL TABLES IN SCHEMA public TO looker",
                "ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA public GRANT SELECT ON TABLES TO looker",
            ] {
                cluster.psql(grant);
            }
        }
        let pooler = Setup::toml(&toml).start();
        let mut client = pooler.client("app");
        let table = format!("gr_{granted}");
        fill(&mut client, &table, 200_000);
        times(&mut client, 25, |i| look_up(&table, "email", format!("{i}@example.org")));
        if granted {
            cause(&pooler, &table, is_proved);
        } else {
            wait_for("a refusal", || cluster.log().contains("permission denied for table gr_false").then_some(()));
            let found = cause(&pooler, &table, |_| true);
            assert!(!is_proved(&found), "{found}");
        }
    }
}

#[test]
fn a_database_in_use_can_be_dropped() {
    let cluster = Cluster::start(&[]);
    cluster.psql("ALTER ROLE app CREATEDB");
    let toml = format!(
        "[databases.\"*\"]\nhost = \"127.0.0.1\"\nport = {}\n[users.app]\npassword = \"secret\"\n\
         [insight]\nexplain = true\ncatalog_interval = \"1s\"\nexplain_per_minute = 1\n",
        cluster.port()
    );
    let pooler = Setup::toml(&toml).start();
    let mut client = pooler.client("app");
    for name in ["drop_a", "drop_b"] {
        client.simple(&format!("CREATE DATABASE {name}")).unwrap();
        let mut other = pooler.try_client("app", cluster::PASSWORD, name).unwrap();
        fill(&mut other, "dr_t", 20_000);
        // More to ask than may be asked.
        for column in ["email", "city", "active"] {
            times(&mut other, 25, |_| slow("dr_t", format!(r#""dr_t"."{column}"::text = '7@example.org'"#)));
        }
        pooler.wait_for_log(&format!("the catalogue was read database={name}"));
        other.terminate();
        client.simple(&format!("DROP DATABASE {name}")).unwrap();
    }
}
