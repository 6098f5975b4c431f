//! Nothing of what clients say gets out: ten thousand statements with secret tokens in every place, at the most
//! talkative log level, and none of the tokens in the log, the metrics or the console.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use support::cluster::{self, DATABASE, PASSWORD};
use support::pooler::Setup;
use support::{raw, skip};

/// What every token begins with: one search finds them all.
const TOKEN: &str = "zqxj5ecret";

/// Statements with `@` where a token goes: values only, since names of tables and columns, routes and application names
/// are shown on purpose. Some fail, with the value in the error's message or DETAIL.
const STATEMENTS: &[&str] = &[
    "SELECT '@'",
    "SELECT E'@\\n', U&'@', N'@', $$@$$, $tag$@$tag$",
    "SELECT 1 -- @",
    "SELECT /* @ /* nested @ */ */ 1",
    "SELECT 1 /*session_id='@',token='%2F@'*/",
    "SELECT * FROM leak_t WHERE name = '@' AND id IN (1, 2)",
    "INSERT INTO leak_t VALUES (1, '@')",
    "INSERT INTO leak_t VALUES (1, 'again @')",
    "INSERT INTO leak_t VALUES (NULL, '@')",
    "UPDATE leak_t SET name = '@' WHERE name LIKE '%@%'",
    "SELECT '@'::int",
    "SELECT '@",
    "SET TimeZone = '@'",
    "SET leak.x = '@'",
    "RESET leak.x",
    "SELECT set_config('leak.x', '@', false)",
    "DO $$ BEGIN RAISE NOTICE '@'; END $$",
    "DO $$ BEGIN RAISE EXCEPTION '@' USING DETAIL = '@', HINT = '@'; END $$",
    "ALTER ROLE postgres PASSWORD '@'",
    "CREATE ROLE nobody_may PASSWORD '@'",
    "COPY leak_t FROM '/@'",
    "NOTIFY leak, '@'",
    "PREPARE leak_q AS SELECT '@'; EXECUTE leak_q; DEALLOCATE leak_q",
    "SELECT 1; SELECT '@'; SELECT 1/0",
    "\\ '@' $1 \u{1}",
];

fn plant(client: &mut raw::Client, n: usize) {
    let token = format!("{TOKEN}{n}");
    let template = STATEMENTS[n % STATEMENTS.len()];
    let sql = template.replace('@', &token);
    match n / STATEMENTS.len() % 4 {
        0 => drop(client.simple(&sql)),
        1 => drop(client.extended(&sql, &[])),
        2 => {
            // As a parameter, right and wrong.
            let ask = if n.is_multiple_of(2) { "SELECT $1::text" } else { "SELECT $1::int" };
            let _ = client.extended(ask, &[Some(&token)]);
            let _ = client.extended("INSERT INTO leak_t VALUES (1, $1)", &[Some(&token)]);
        }
        _ => {
            // As a name, and in a message nobody can read.
            let name = format!("s_{token}");
            client.send(&[raw::parse(&name, &sql), raw::describe(b'S', &name), raw::bind("", &name, &[]), raw::execute("", 0), raw::close(b'S', &name), raw::sync()].concat()).unwrap();
            let _ = client.answer();
        }
    }
}

#[test]
fn no_token_gets_out() {
    cluster::shared().psql("CREATE TABLE leak_t (id int PRIMARY KEY, name text); GRANT ALL ON leak_t TO app");
    for format in ["text", "json"] {
        let mut pooler = Setup::url(cluster::shared(), "app")
            .env("PGSLUICE_POOL_SIZE", "4")
            .env("PGSLUICE_LOG_LEVEL", "debug")
            .env("PGSLUICE_LOG_FORMAT", format)
            .env("PGSLUICE_INSIGHT_SLOW_QUERY", "1ms")
            .start();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let pooler = &pooler;
                scope.spawn(move || {
                    for round in 0..25 {
                        // A unit of work each, so that findings are made.
                        let mut client = pooler.client("app");
                        for n in 0..50 {
                            plant(&mut client, thread * 10_000 + round * 50 + n);
                        }
                        client.terminate();
                    }
                });
            }
        });
        // An N+1 over tokens, which makes a finding and its log line.
        let mut client = pooler.client("app");
        for n in 0..60 {
            client.simple(&format!("SELECT id, name FROM leak_t WHERE name = '{TOKEN}{n}'")).unwrap();
        }
        client.terminate();
        // Logins.
        let _ = pooler.try_client("app", &format!("{TOKEN}pw"), DATABASE);
        let mut broken = raw::Client::connect(pooler.address()).unwrap();
        let _ = broken.login_with(PASSWORD, &[("user", "app"), ("database", DATABASE), ("options", &format!("-c work_mem={TOKEN}"))]);
        let mut broken = pooler.client("app");
        let _ = broken.send(&raw::frame(b'B', TOKEN.as_bytes()));
        let _ = broken.read_to_end();
        for path in ["/metrics", "/api/findings", "/api/fingerprints", "/"] {
            match support::pooler::http_get(pooler.http_address(), path) {
                Ok((_, body)) => {
                    let told: Vec<_> = body.lines().filter(|l| l.contains(TOKEN)).take(5).collect();
                    assert!(told.is_empty(), "{path} tells a token: {told:?}");
                }
                Err(e) => skip(&format!("{path} is not served: {e}")),
            }
        }
        match pooler.try_client("app", PASSWORD, "pgsluice") {
            Ok(mut console) => {
                for what in ["CLIENTS", "SERVERS", "POOLS", "FINGERPRINTS", "NPLUSONE", "STATS", "CONFIG"] {
                    match console.simple(&format!("SHOW {what}")) {
                        // What clients call themselves is shown on purpose.
                        Ok(rows) if what != "CLIENTS" && what != "SERVERS" => {
                            let text = raw::text(&rows);
                            let told: Vec<_> = text.lines().filter(|l| l.contains(TOKEN)).take(5).collect();
                            assert!(told.is_empty(), "SHOW {what} tells a token: {told:?}");
                        }
                        Ok(_) => {}
                        Err(e) if e.code().is_empty() => {
                            skip("the console does not answer");
                            break;
                        }
                        Err(_) => {}
                    }
                }
            }
            Err(e) => skip(&format!("there is no console: {e}")),
        }
        assert!(pooler.stop("TERM").code().is_some());
        let log = pooler.log();
        let told = log.lines().find(|l| l.contains(TOKEN) || l.contains("pw") && l.contains("zqxj"));
        assert!(told.is_none(), "the log tells a token: {told:?}");
        assert!(!log.contains("internal error"), "a session panicked:\n{}", log.lines().filter(|l| l.contains("internal error")).collect::<Vec<_>>().join("\n"));
        assert!(!log.contains(PASSWORD) || log.lines().all(|l| !l.contains(&format!("{PASSWORD}@"))), "the log tells the password");
    }
}
