//! What pgsluice itself asks of a server for a client (its parameters set anew) is not seen by the client, whatever
//! comes of it: a cancel, another client's time-out, parameters that cannot be set any more, a pipeline of SETs and RESETs.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::net::SocketAddr;

use support::cluster::{self, DATABASE, PASSWORD};
use support::pooler::{Pooler, Setup};
use support::raw::{self, Client, Message, bind, execute, frame, parse, query, sync};
use support::{Random, seed, unique, wait_for};

fn pool(size: u32) -> Pooler {
    Setup::url(cluster::shared(), "postgres").env("PGSLUICE_POOL_SIZE", &size.to_string()).start()
}

fn open(address: SocketAddr, parameters: &[(&str, &str)]) -> Client {
    let mut client = Client::connect(address).unwrap();
    client.login_with(PASSWORD, &[&[("user", "postgres"), ("database", DATABASE)], parameters].concat()).unwrap();
    client
}

/// An administrator who keeps `default_tablespace` from being set while this lives.
fn lock_tablespaces() -> Client {
    let mut admin = cluster::shared().connect();
    admin.simple("BEGIN; LOCK TABLE pg_catalog.pg_tablespace IN ACCESS EXCLUSIVE MODE").unwrap();
    admin
}

/// Waits until a backend of this application waits for that lock.
fn wait_for_lock(admin: &mut Client, what: &str) {
    let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'pg_catalog.pg_tablespace'::regclass";
    wait_for(what, || (admin.value(sql) == "1").then_some(()));
}

/// A client whose parameters have to be set anew, since another has had the only server.
fn displaced(pooler: &Pooler, neighbour: &mut Client) -> Client {
    let mut client = open(pooler.address(), &[]);
    client.simple("SET default_tablespace = 'pg_default'").unwrap();
    neighbour.simple("SELECT 1").unwrap();
    client
}

#[test]
fn a_cancel_while_parameters_are_set_cancels_the_clients_own_request() {
    let pooler = pool(1);
    let mut neighbour = open(pooler.address(), &[]);
    let mut client = displaced(&pooler, &mut neighbour);
    let mut admin = lock_tablespaces();
    client.send(&query("SELECT pg_sleep(60)")).unwrap();
    wait_for_lock(&mut admin, "the parameters to wait");
    let cancel = Client::connect(pooler.address()).unwrap();
    cancel.send_cancel(client.key.as_ref().unwrap()).unwrap();
    assert!(client.is_silent(std::time::Duration::from_millis(100)), "its request has not been answered yet");
    admin.simple("COMMIT").unwrap();
    let error = client.answer().unwrap_err();
    assert_eq!((error.code(), client.status), ("57014", b'I'), "{error}");
    assert_eq!(client.value("SHOW default_tablespace"), "pg_default");
    assert_eq!(neighbour.value("SHOW default_tablespace"), "");
}

#[test]
fn a_cancel_is_not_lost_on_a_request_that_waits_for_the_parameters() {
    let pooler = pool(1);
    let mut neighbour = open(pooler.address(), &[]);
    let mut client = displaced(&pooler, &mut neighbour);
    let mut admin = lock_tablespaces();
    // Sent only when the parameters are there.
    client.send(&query("ROLLBACK; SELECT pg_sleep(60)")).unwrap();
    wait_for_lock(&mut admin, "the parameters to wait");
    let cancel = Client::connect(pooler.address()).unwrap();
    cancel.send_cancel(client.key.as_ref().unwrap()).unwrap();
    admin.simple("COMMIT").unwrap();
    let error = client.answer().unwrap_err();
    assert_eq!((error.code(), client.status), ("57014", b'I'), "{error}");
}

#[test]
fn anothers_time_limits_do_not_end_a_client_whose_parameters_are_set() {
    let pooler = pool(1);
    let mut hasty = open(pooler.address(), &[]);
    for limit in ["statement_timeout", "lock_timeout"] {
        let mut client = displaced(&pooler, &mut hasty);
        client.simple(&format!("SET {limit} = '90s'")).unwrap();
        hasty.simple(&format!("SET {limit} = '1200ms'")).unwrap();
        let mut admin = lock_tablespaces();
        let ask = format!("SELECT current_setting('default_tablespace'), current_setting('{limit}')");
        client.send(&query(&ask)).unwrap();
        wait_for_lock(&mut admin, "the parameters to wait");
        let since = std::time::Instant::now();
        wait_for("longer than the other's limit", || (since.elapsed().as_millis() > 1500).then_some(()));
        admin.simple("COMMIT").unwrap();
        assert_eq!(raw::text(&client.answer().unwrap()), "pg_default|90s");
        assert_eq!(hasty.value(&format!("SHOW {limit}")), "1200ms");
        hasty.simple(&format!("RESET {limit}")).unwrap();
    }
}

#[test]
fn a_request_that_waits_for_parameters_goes_elsewhere_when_they_are_cancelled() {
    let pooler = pool(1);
    let mut neighbour = open(pooler.address(), &[]);
    for (limit, ask) in
        [("0", "ROLLBACK; SELECT current_setting('default_tablespace')"), ("500ms", "SHOW default_tablespace")]
    {
        let mut client = displaced(&pooler, &mut neighbour);
        let pid = neighbour.value(&format!("SET statement_timeout = '{limit}'; SELECT pg_backend_pid()"));
        let mut admin = lock_tablespaces();
        client.send(&query(ask)).unwrap();
        wait_for_lock(&mut admin, "the parameters to wait");
        assert_eq!(admin.value(&format!("SELECT pg_cancel_backend({pid})")), "t");
        admin.simple("COMMIT").unwrap();
        assert_eq!(raw::text(&client.answer().unwrap()), "pg_default", "{ask}");
        assert_ne!(client.value("SELECT pg_backend_pid()"), pid, "a server in doubt is closed");
        neighbour.simple("RESET statement_timeout").unwrap();
    }
}

#[test]
fn a_cancel_is_not_lost_on_a_request_that_goes_elsewhere() {
    let pooler = pool(1);
    let mut neighbour = open(pooler.address(), &[]);
    for ask in [query("ROLLBACK; SELECT 'done'"), [parse("", "ROLLBACK"), bind("", "", &[]), sync()].concat()] {
        let mut client = displaced(&pooler, &mut neighbour);
        let pid = neighbour.value("SELECT pg_backend_pid()");
        let mut admin = lock_tablespaces();
        client.send(&ask).unwrap();
        wait_for_lock(&mut admin, "the parameters to wait");
        Client::connect(pooler.address()).unwrap().send_cancel(client.key.as_ref().unwrap()).unwrap();
        assert_eq!(admin.value(&format!("SELECT pg_cancel_backend({pid})")), "t");
        admin.simple("COMMIT").unwrap();
        let error = client.answer().unwrap_err();
        assert_eq!((error.code(), client.status), ("57014", b'I'), "{error}");
        assert_eq!(client.value("SHOW default_tablespace"), "pg_default");
    }
}

#[test]
fn a_login_goes_on_when_the_server_ends_that_its_parameters_are_tried_at() {
    let pooler = pool(2);
    open(pooler.address(), &[]).simple("SELECT 1").unwrap();
    let mut admin = lock_tablespaces();
    let address = pooler.address();
    let login = std::thread::spawn(move || open(address, &[("options", "-c default_tablespace=pg_default")]));
    for _ in 0..2 {
        let waiting = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'pg_catalog.pg_tablespace'::regclass";
        let pid = wait_for("the parameters to wait", || admin.simple(waiting).unwrap().pop()?.pop()?);
        assert_eq!(admin.value(&format!("SELECT pg_terminate_backend({pid}, 10000)")), "t");
    }
    admin.simple("COMMIT").unwrap();
    assert_eq!(login.join().unwrap().value("SHOW default_tablespace"), "pg_default");
}

/// Texts that end a failed transaction and then do something, in every manner of writing it.
const LEAVING: &[&str] = &[
    "ROLLBACK; INSERT",
    "COMMIT; INSERT",
    "end; INSERT",
    "Abort Work; INSERT",
    "; ;\n rollback; INSERT",
    "/* a /* b */ c */ ROLLBACK; INSERT",
    "-- a\n-- b\nCOMMIT AND NO CHAIN; INSERT",
    "ROLLBACK AND CHAIN; INSERT; COMMIT",
    "PREPARE TRANSACTION 'never'; INSERT",
];

/// Requests of which each may get past the block in which parameters are set, all of them sent at once.
fn leaving(insert: &str) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = LEAVING.iter().map(|t| t.replace("INSERT", insert)).map(|t| (t.clone(), query(&t))).collect();
    let extended =
        |first: Vec<u8>, name: &str| [first, bind("", name, &[]), execute("", 0), sync(), query(insert)].concat();
    all.push(("unnamed".to_owned(), extended(parse("", "ROLLBACK"), "")));
    all.push(("behind a refused one".to_owned(), [query("SELECT 1"), query(&format!("ROLLBACK; {insert}"))].concat()));
    all.push(("named".to_owned(), extended(parse("r", "COMMIT"), "r")));
    all.push(("named before".to_owned(), extended(Vec::new(), "before")));
    all.push(("unnamed before".to_owned(), extended(Vec::new(), "")));
    all.push(("long".to_owned(), query(&format!("{}ROLLBACK; {insert}", " ".repeat(40_000)))));
    all
}

#[test]
fn nothing_is_done_where_parameters_could_not_be_set() {
    let cluster = cluster::shared();
    let pooler = pool(1);
    let mut neighbour = open(pooler.address(), &[]);
    cluster.psql("CREATE TABLE done_as (who text, what text)");
    let count = leaving("").len();
    for at in 0..count {
        let role = format!("passing_{}", unique());
        cluster.psql(&format!("CREATE ROLE {role} SUPERUSER"));
        let mut client = open(pooler.address(), &[]);
        client.simple(&format!("SET ROLE {role}")).unwrap();
        client.send(&[parse("before", "ROLLBACK"), parse("", "COMMIT"), sync()].concat()).unwrap();
        client.answer().unwrap();
        neighbour.simple("SELECT 1").unwrap();
        cluster.psql(&format!("DROP ROLE {role}"));
        let (what, bytes) = leaving(&format!("INSERT INTO done_as VALUES (current_user, '{at}')")).swap_remove(at);
        client.send(&bytes).unwrap();
        let mut end = Vec::new();
        // What it sent and nobody read may end it with a reset.
        while let Ok(message) = client.read() {
            end.push(message);
        }
        assert!(what == "long" || end.last().is_some_and(|m| m.tag == b'E'), "{what}: it is told why: {end:?}");
        neighbour.simple("SELECT 1").unwrap();
        let done = cluster.psql(&format!("SELECT who FROM done_as WHERE what = '{at}'"));
        assert_eq!(done, "", "{what}: was done by another role than its client's");
    }
}

/// All messages up to the `n`th ReadyForQuery, without what differs from one connection to another.
fn answers(client: &mut Client, n: usize) -> Vec<String> {
    let mut all: Vec<Message> = Vec::new();
    for _ in 0..n {
        all.extend(client.read_until(b'Z').unwrap());
    }
    all.iter().map(|m| format!("{m:?}")).collect()
}

#[test]
fn the_end_of_a_transaction_that_is_none_is_answered_as_by_postgresql() {
    let pooler = pool(1);
    let mut direct = open(cluster::shared().address(), &[]);
    let mut client = open(pooler.address(), &[]);
    let mut neighbour = open(pooler.address(), &[]);
    for c in [&mut direct, &mut client] {
        c.simple("SET app.tenant = 'mine'; SET default_tablespace = 'pg_default'").unwrap();
    }
    let look = "SELECT current_setting('app.tenant'), current_user, 1";
    for (what, bytes) in leaving(look) {
        // What leaves something, and what was prepared before.
        if what.starts_with("PREPARE") || what.contains("before") {
            continue;
        }
        let n = if ["unnamed", "named", "behind a refused one"].contains(&&*what) { 2 } else { 1 };
        direct.send(&bytes).unwrap();
        let expected = answers(&mut direct, n);
        neighbour.simple("SELECT 1").unwrap();
        client.send(&bytes).unwrap();
        assert_eq!(answers(&mut client, n), expected, "{what}");
        assert_eq!(client.value("SELECT current_setting('app.tenant')"), "mine", "{what}");
        assert_eq!(direct.value("SELECT current_setting('app.tenant')"), "mine", "{what}");
    }
}

/// What a session shows of its parameters.
const LOOK: &str = "SELECT current_setting('TimeZone'), current_setting('work_mem'), current_setting('statement_timeout'), \
    current_setting('DateStyle'), current_setting('application_name'), current_setting('search_path'), \
    coalesce(nullif(current_setting('app.tenant', true), ''), 'none'), current_user";

/// What clients begin with.
const OPTIONS: [&[(&str, &str)]; 3] = [
    &[],
    &[("TimeZone", "Europe/Berlin"), ("options", "-c statement_timeout=71s -c work_mem=9MB")],
    &[("options", "-c app.tenant=first"), ("application_name", "start")],
];

/// One text of a pipeline of SETs and RESETs.
fn text(random: &mut Random) -> String {
    let (name, values) = [
        ("TimeZone", ["'Asia/Tokyo'", "'Europe/Paris'"]),
        ("work_mem", ["'11MB'", "'12MB'"]),
        ("statement_timeout", ["'81s'", "'82s'"]),
        ("DateStyle", ["'SQL, DMY'", "'German, DMY'"]),
        ("application_name", ["'one'", "'two'"]),
        ("search_path", ["pg_catalog", "public"]),
        ("app.tenant", ["'t1'", "'t2'"]),
    ][random.below(7) as usize];
    let value = values[random.below(2) as usize];
    match random.below(20) {
        0..=6 => format!("SET {name} = {value}"),
        7..=10 => format!("RESET {name}"),
        11 if name == "TimeZone" => "SET TIME ZONE LOCAL".to_owned(),
        11 => format!("SET {name} TO DEFAULT"),
        12 => "RESET ALL".to_owned(),
        13 => format!("SET LOCAL {name} = {value}"),
        14 => "SELECT 1/0".to_owned(),
        15 | 16 => "BEGIN".to_owned(),
        17 => "ROLLBACK".to_owned(),
        18 => "COMMIT".to_owned(),
        _ => "SAVEPOINT a; ROLLBACK TO a".to_owned(),
    }
}

/// Several texts as one write, and the number of its ReadyForQuery.
fn pipeline(random: &mut Random, shown: &mut String) -> (Vec<u8>, usize) {
    let (mut bytes, mut ready, mut open) = (Vec::new(), 0, false);
    for _ in 0..1 + random.below(5) {
        let sql = text(random);
        if random.below(2) == 0 {
            // Behind a sequence without Sync a Query is another thing in each version of PostgreSQL.
            if std::mem::take(&mut open) {
                *shown += "  S\n";
                bytes.extend(sync());
                ready += 1;
            }
            *shown += &format!("  Q {sql}\n");
            bytes.extend(query(&sql));
            ready += 1;
            continue;
        }
        let sql = sql.split(';').next().unwrap().to_owned();
        *shown += &format!("  P {sql}");
        bytes.extend([parse("", &sql), bind("", "", &[]), execute("", 0)].concat());
        open = random.below(3) == 0;
        if !open {
            *shown += " S";
            bytes.extend(sync());
            ready += 1;
        }
        shown.push('\n');
    }
    *shown += "  S\n";
    bytes.extend(sync());
    (bytes, ready + 1)
}

#[test]
fn sets_and_resets_in_one_pipeline_leave_what_they_leave_directly() {
    let pooler = pool(1);
    let count: u64 = std::env::var("PGSLUICE_SEQUENCES").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    // Those who want what servers begin with, and those who want just what this client began with.
    let mut neighbours = OPTIONS.map(|options| open(pooler.address(), options));
    let plain = neighbours.each_mut().map(|n| raw::text(&n.simple(LOOK).unwrap()));
    for number in 0..count {
        let seed = seed().wrapping_add(number);
        let mut random = Random::new(seed);
        let options = OPTIONS[number as usize % 3];
        let mut direct = open(cluster::shared().address(), options);
        let mut client = open(pooler.address(), options);
        let mut shown = String::new();
        for _ in 0..3 {
            let (bytes, ready) = pipeline(&mut random, &mut shown);
            for c in [&mut direct, &mut client] {
                c.send(&bytes).unwrap();
                // A Query behind a sequence that failed is skipped, and not answered.
                c.send(&query("marker no statement")).unwrap();
                hear_marker(c, ready + 1);
            }
            assert_eq!(client.status, direct.status, "PGSLUICE_SEED={seed}\n{shown}");
            for c in [&mut direct, &mut client] {
                let _either_way = c.simple("ROLLBACK");
            }
            shown += "  -- ROLLBACK, and a look\n";
            let [expected, got] = [&mut direct, &mut client].map(|c| raw::text(&c.simple(LOOK).unwrap()));
            assert_eq!(got, expected, "PGSLUICE_SEED={seed}\n{options:?}\n{shown}");
            // The first of them meets the server as this client has left it.
            for at in (0..3).map(|n| (random.below(3) as usize + n) % 3) {
                let seen = raw::text(&neighbours[at].simple(LOOK).unwrap());
                assert_eq!(seen, plain[at], "neighbour {at}, PGSLUICE_SEED={seed}\n{options:?}\n{shown}");
            }
        }
    }
}

#[test]
fn a_set_behind_a_reset_in_one_write_leaves_no_record_of_what_is_not_there() {
    let pooler = pool(1);
    let options = &[("options", "-c statement_timeout=71s"), ("application_name", "start")];
    let mut direct = open(cluster::shared().address(), options);
    let mut client = open(pooler.address(), options);
    let mut same = open(pooler.address(), options);
    for texts in [
        ["RESET ALL", "SET TimeZone = 'Asia/Tokyo'"],
        ["RESET statement_timeout", "SET application_name = 'other'"],
        ["RESET statement_timeout", "BEGIN; SET TimeZone = 'Europe/Paris'; COMMIT"],
    ] {
        for c in [&mut direct, &mut client] {
            c.send(&texts.map(query).concat()).unwrap();
            c.answer().unwrap();
            c.answer().unwrap();
        }
        assert_eq!(same.value("SHOW statement_timeout"), "71s", "the neighbour, after {texts:?}");
        let [expected, got] = [&mut direct, &mut client].map(|c| raw::text(&c.simple(LOOK).unwrap()));
        assert_eq!(got, expected, "{texts:?}");
    }
}

#[test]
fn what_is_set_in_a_block_behind_a_reset_stays_set_in_the_block() {
    let pooler = pool(1);
    let options = &[("TimeZone", "Asia/Tokyo"), ("application_name", "start"), ("work_mem", "9MB")];
    let mut direct = open(cluster::shared().address(), options);
    let mut client = open(pooler.address(), options);
    let mut neighbour = open(pooler.address(), &[]);
    let plain = raw::text(&neighbour.simple(LOOK).unwrap());
    let default = neighbour.value("SHOW TimeZone");
    // The last word may be what it was before, or the server's own default: then no report, or one that looks like the
    // RESET's, is all there is. Of work_mem there is never one.
    let cases = [
        ("TimeZone", "UTC", "Europe/Rome"),
        ("TimeZone", "Europe/Rome", "Europe/Rome"),
        ("TimeZone", "Europe/Rome", &*default),
        ("TimeZone", &*default, &*default),
        ("work_mem", "7MB", "8MB"),
        ("work_mem", "8MB", "8MB"),
    ];
    let resets = ["RESET {}", "RESET ALL", "SET {} TO DEFAULT"];
    for ((name, before, then), reset) in cases.iter().flat_map(|case| resets.map(|reset| (case, reset))) {
        for end in ["COMMIT", "ROLLBACK"] {
            let text = format!("{}; BEGIN; SET {name} = '{then}'", reset.replace("{}", name));
            let (before, show) = (format!("SET {name} = '{before}'"), format!("SHOW {name}"));
            for sql in [&*before, &*text, &*show, &*show, end, &*show] {
                let [expected, got] = [&mut direct, &mut client].map(|c| {
                    c.send(&query(sql)).unwrap();
                    answers(c, 1)
                });
                assert_eq!(got, expected, "{sql} of {text}; {end}");
            }
            assert_eq!(raw::text(&neighbour.simple(LOOK).unwrap()), plain, "the neighbour, after {text}; {end}");
        }
    }
}

#[test]
fn a_prepared_reset_is_not_taken_for_a_set_to_default() {
    let pooler = pool(1);
    let options = &[("TimeZone", "Asia/Tokyo")];
    let run = |name: &str| [bind("", name, &[]), execute("", 0), sync()].concat();
    let set = [query("SET TimeZone = 'Europe/Rome'"), run("reset"), query("SHOW TimeZone")].concat();
    let other = [query("SET DateStyle = 'German'"), run("reset"), query("SHOW TimeZone")].concat();
    let mut direct = open(cluster::shared().address(), options);
    let mut client = open(pooler.address(), options);
    let mut neighbour = open(pooler.address(), &[]);
    for (step, n) in [
        ([parse("reset", "RESET TimeZone"), sync()].concat(), 1),
        (query("BEGIN; SET TimeZone = 'UTC'"), 1),
        (set, 3),
        (query("ROLLBACK"), 1),
        (query("SET TimeZone = 'UTC'"), 1),
        (other, 3),
    ] {
        let [expected, got] = [&mut direct, &mut client].map(|c| {
            c.send(&step).unwrap();
            answers(c, n)
        });
        assert_eq!(got, expected, "{}", String::from_utf8_lossy(&step));
    }
    neighbour.simple("SELECT 1").unwrap();
    assert_eq!(client.value("SHOW TimeZone"), "Asia/Tokyo");
}

/// Reads to the answer of the marker.
fn hear_marker(client: &mut Client, most: usize) {
    for _ in 0..most {
        let answer = client.read_until(b'Z').unwrap();
        let about = |m: &Message| m.tag == b'E' && m.body.windows(6).any(|w| w == b"marker");
        if answer.iter().any(about) {
            return;
        }
    }
    panic!("no answer to the marker");
}

#[test]
fn a_goodbye_behind_parameters_is_one() {
    let pooler = pool(1);
    let mut neighbour = open(pooler.address(), &[]);
    let mut client = displaced(&pooler, &mut neighbour);
    client.send(&[query("ROLLBACK; SELECT 1"), frame(b'X', b"")].concat()).unwrap();
    assert_eq!(raw::text(&client.answer().unwrap()), "1");
    assert_eq!(neighbour.value("SHOW default_tablespace"), "");
}
