//! The console as psql, drivers and PgBouncer's tools use it.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::process::Command;

use support::cluster::{self, Cluster, DATABASE, PASSWORD};
use support::pooler::{Pooler, Setup};
use support::raw::{self, Client, Rows};
use support::wait_for;

/// `postgres` may do everything, `app` may look, `plainuser` may neither.
fn start(cluster: &Cluster) -> Pooler {
    let port = cluster.port();
    let mut toml = format!(
        "admin_users = [\"postgres\"]\nstats_users = [\"app\"]\n\
         [databases.{DATABASE}]\nhost = \"127.0.0.1\"\nport = {port}\npool_size = 3\n\
         [databases.wrong]\nhost = \"127.0.0.1\"\nport = {port}\ndbname = \"no_such_database\"\n"
    );
    for user in ["postgres", "app", "plainuser"] {
        toml += &format!("[users.{user}]\npassword = \"{PASSWORD}\"\n");
    }
    Setup::toml(&toml).start()
}

fn console(pooler: &Pooler, user: &str) -> Client {
    pooler.try_client(user, PASSWORD, "pgsluice").unwrap()
}

/// Rows by column name.
struct Table {
    names: Vec<String>,
    rows: Rows,
}

impl Table {
    fn get(&self, row: usize, name: &str) -> String {
        let at = self.names.iter().position(|n| n == name);
        let at = at.unwrap_or_else(|| panic!("no column {name} in {:?}", self.names));
        self.rows[row][at].clone().unwrap_or_default()
    }

    /// The row whose columns have these values.
    fn find(&self, wanted: &[(&str, &str)]) -> Option<usize> {
        (0..self.rows.len()).find(|&row| wanted.iter().all(|(name, value)| self.get(row, name) == *value))
    }
}

fn ask(client: &mut Client, sql: &str) -> Table {
    client.send(&raw::query(sql)).unwrap();
    let messages = client.read_until(b'Z').unwrap();
    let mut table = Table { names: Vec::new(), rows: Rows::default() };
    for message in &messages {
        match message.tag {
            b'T' => table.names = columns(&message.body),
            b'D' => table.rows.push(message.to_row()),
            b'E' => panic!("{sql}: {}", message.to_error()),
            _ => {}
        }
    }
    table
}

/// Names in a RowDescription: each ends with NUL and 18 bytes follow.
fn columns(body: &[u8]) -> Vec<String> {
    let mut rest = &body[2..];
    let mut names = Vec::new();
    while let Some(end) = rest.iter().position(|b| *b == 0) {
        names.push(String::from_utf8(rest[..end].to_vec()).unwrap());
        rest = &rest[end + 19..];
    }
    names
}

/// Columns of PgBouncer 1.24 and later, as its tools read them by name.
const PGBOUNCER: [(&str, &str); 14] = [
    (
        "POOLS",
        "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode load_balance_hosts",
    ),
    (
        "STATS",
        "database total_server_assignment_count total_xact_count total_query_count total_received total_sent total_xact_time total_query_time total_wait_time total_client_parse_count total_server_parse_count total_bind_count avg_server_assignment_count avg_xact_count avg_query_count avg_recv avg_sent avg_xact_time avg_query_time avg_wait_time avg_client_parse_count avg_server_parse_count avg_bind_count",
    ),
    (
        "STATS_TOTALS",
        "database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time wait_time client_parse_count server_parse_count bind_count",
    ),
    (
        "STATS_AVERAGES",
        "database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time wait_time client_parse_count server_parse_count bind_count",
    ),
    (
        "CLIENTS",
        "type user database replication state addr port local_addr local_port connect_time request_time wait wait_us close_needed ptr link remote_pid tls application_name prepared_statements id",
    ),
    (
        "SERVERS",
        "type user database replication state addr port local_addr local_port connect_time request_time wait wait_us close_needed ptr link remote_pid tls application_name prepared_statements id",
    ),
    (
        "DATABASES",
        "name host port database force_user pool_size min_pool_size reserve_pool_size server_lifetime pool_mode load_balance_hosts max_connections current_connections max_client_connections current_client_connections paused disabled",
    ),
    ("CONFIG", "key value default changeable"),
    ("LISTS", "list items"),
    (
        "USERS",
        "name pool_size reserve_pool_size pool_mode max_user_connections current_connections max_user_client_connections current_client_connections",
    ),
    ("STATE", "key value"),
    ("VERSION", "version"),
    ("TOTALS", "name value"),
    ("MEM", "name size used free memtotal"),
];

#[test]
fn columns_are_pgbouncers_with_ours_behind() {
    let pooler = start(cluster::shared());
    let mut client = console(&pooler, "app");
    for (show, names) in PGBOUNCER {
        let table = ask(&mut client, &format!("sHoW {show};"));
        let names: Vec<_> = names.split(' ').collect();
        assert_eq!(table.names[..names.len().min(table.names.len())], names, "{show}");
        // SELECT is SHOW.
        assert_eq!(ask(&mut client, &format!("SELECT {}", show.to_lowercase())).names, table.names);
    }
    let lists = ask(&mut client, "SHOW LISTS");
    let names: Vec<_> = (0..lists.rows.len()).map(|i| lists.get(i, "list")).collect();
    assert_eq!(
        names.join(" "),
        "databases users peers pools peer_pools free_clients used_clients login_clients free_servers used_servers \
         dns_names dns_zones dns_queries dns_pending"
    );
}

#[test]
fn pools_clients_and_servers_are_what_they_are() {
    let cluster = Cluster::start(&[]);
    let pooler = start(&cluster);
    let mut console = console(&pooler, "app");
    let mut client = pooler.client("app");
    client.simple("BEGIN").unwrap();
    let backend = client.value("SELECT pg_backend_pid()");
    let pools = ask(&mut console, "SHOW POOLS");
    let row = pools.find(&[("database", DATABASE), ("user", "app")]).unwrap();
    for (name, value) in
        [("cl_active", "1"), ("cl_waiting", "0"), ("sv_active", "1"), ("maxwait", "0"), ("pool_mode", "transaction")]
    {
        assert_eq!(pools.get(row, name), value, "{name}");
    }
    let servers = ask(&mut console, "SHOW SERVERS");
    let server = servers.find(&[("remote_pid", &backend)]).unwrap();
    assert_eq!(servers.get(server, "state"), "active");
    assert_eq!(servers.get(server, "transaction"), "idle in transaction");
    let clients = ask(&mut console, "SHOW CLIENTS");
    let holder = clients.find(&[("ptr", &servers.get(server, "link"))]).unwrap();
    assert_eq!(clients.get(holder, "link"), servers.get(server, "ptr"));
    assert_eq!(clients.get(holder, "database"), DATABASE);
    assert!(clients.find(&[("database", "pgsluice"), ("user", "app")]).is_some());
    client.simple("COMMIT").unwrap();
    let databases = ask(&mut console, "SHOW DATABASES");
    let row = databases.find(&[("name", DATABASE)]).unwrap();
    assert_eq!(databases.get(row, "pool_size"), "3");
    assert_eq!(databases.get(row, "current_client_connections"), "1");
    assert!(databases.get(row, "current_connections").parse::<u32>().unwrap() >= 1);
    let stats = ask(&mut console, "SHOW STATS");
    let row = stats.find(&[("database", DATABASE)]).unwrap();
    assert_eq!(stats.get(row, "total_xact_count"), "1");
    assert_eq!(stats.get(row, "total_query_count"), "3");
}

#[test]
fn a_waiting_client_and_a_pinned_one_are_seen() {
    let pooler = start(cluster::shared());
    let mut console = console(&pooler, "app");
    let mut holders: Vec<Client> = (0..3).map(|_| pooler.client("app")).collect();
    for holder in &mut holders {
        holder.simple("BEGIN").unwrap();
    }
    let mut waiter = pooler.client("app");
    waiter.send(&raw::query("SELECT 1")).unwrap();
    wait_for("a waiting client", || {
        let pools = ask(&mut console, "SHOW POOLS");
        let row = pools.find(&[("user", "app"), ("cl_waiting", "1")])?;
        let waits = pools.get(row, "maxwait").parse::<u64>().unwrap() * 1_000_000
            + pools.get(row, "maxwait_us").parse::<u64>().unwrap();
        (waits > 0).then_some(())
    });
    assert!(ask(&mut console, "SHOW CLIENTS").find(&[("state", "waiting")]).is_some());
    holders[0].simple("LISTEN news; COMMIT").unwrap();
    drop(holders.remove(1));
    waiter.answer().unwrap();
    wait_for("a pinned client", || {
        let clients = ask(&mut console, "SHOW CLIENTS");
        (0..clients.rows.len()).find(|&i| clients.get(i, "pinned").contains("LISTEN"))
    });
    wait_for("its server", || {
        let servers = ask(&mut console, "SHOW SERVERS");
        (0..servers.rows.len()).find(|&i| servers.get(i, "pinned").contains("LISTEN"))
    });
}

#[test]
fn rights() {
    let pooler = start(cluster::shared());
    let error = pooler.try_client("plainuser", PASSWORD, "pgbouncer").err().unwrap();
    assert_eq!(error.code(), "28000");
    for action in ["PAUSE", "resume", "KILL app", "SET query_timeout = 3", "SHUTDOWN"] {
        let error = console(&pooler, "app").simple(action).unwrap_err();
        assert_eq!(error.code(), "42501", "{action}");
        assert!(error.to_string().contains("admin access needed"), "{error}");
        let error = console(&pooler, "postgres").simple(action).unwrap_err();
        assert_eq!(error.code(), "0A000", "{action}: {error}");
    }
    assert_eq!(console(&pooler, "app").simple("RELOAD").unwrap_err().code(), "42501");
    // Nothing was done: clients are still served.
    assert_eq!(pooler.client("app").value("SELECT 7"), "7");
}

#[test]
fn errors_name_what_there_is_and_repeat_no_literal() {
    let pooler = start(cluster::shared());
    let mut client = console(&pooler, "app");
    client.send(&raw::query("SHOW NONSENSE WHERE name = 's3cret'")).unwrap();
    let messages = client.read_until(b'Z').unwrap();
    assert_eq!(raw::tags(&messages), "EZ");
    let error = &messages[0];
    assert_eq!(error.field(b'M').unwrap(), "invalid command 'SHOW NONSENSE', use SHOW HELP;");
    assert!(error.field(b'H').unwrap().contains("POOLS"));
    assert!(!format!("{error:?}").contains("s3cret"));
    for wrong in [
        "SELECT 'x'",
        "SELECT 1",
        "VACUUM",
        "SHOW",
        "SHOW POOLS EXTRA",
        "SHOW FINGERPRINTS BY name",
        "SHOW FINGERPRINT x!",
        "'",
    ] {
        assert_eq!(client.simple(wrong).unwrap_err().code(), "42601", "{wrong}");
    }
    // The session lives on, and the error stopped the statements behind it.
    client.send(&raw::query("SHOW VERSION; nonsense; SHOW VERSION")).unwrap();
    assert_eq!(raw::tags(&client.read_until(b'Z').unwrap()), "TDCEZ");
    client.send(&raw::query("SHOW VERSION; SHOW STATE")).unwrap();
    assert_eq!(raw::tags(&client.read_until(b'Z').unwrap()), "TDCTDDDDCZ");
}

#[test]
fn what_drivers_say_by_themselves() {
    let pooler = start(cluster::shared());
    let mut client = console(&pooler, "app");
    // lib/pq pings with ";", psycopg begins before it asks.
    client.send(&raw::query(";")).unwrap();
    assert_eq!(raw::tags(&client.read_until(b'Z').unwrap()), "IZ");
    client.simple("BEGIN").unwrap();
    assert_eq!(client.status, b'T');
    assert_eq!(client.value("SHOW client_encoding"), "UTF8");
    assert_eq!(client.value("show DateStyle"), "ISO, MDY");
    client.simple("ROLLBACK").unwrap();
    assert_eq!(client.status, b'I');
    for set in [
        "SET client_encoding TO 'UTF8'",
        "set session datestyle = ISO",
        "SET TIME ZONE 'UTC'",
        "SET extra_float_digits=3",
    ] {
        client.simple(set).unwrap();
    }
    assert_eq!(client.simple("SET pool_size = 9").unwrap_err().code(), "42501");
}

#[test]
fn the_extended_protocol_is_refused_up_to_sync() {
    let pooler = start(cluster::shared());
    let mut client = console(&pooler, "app");
    let bytes = [
        raw::parse("", "SHOW POOLS"),
        raw::bind("", "", &[]),
        raw::query("SHOW VERSION"),
        raw::execute("", 0),
        raw::sync(),
        raw::query("SHOW VERSION"),
    ]
    .concat();
    client.send(&bytes).unwrap();
    let refused = client.read_until(b'Z').unwrap();
    assert_eq!(raw::tags(&refused), "EZ");
    assert_eq!(refused[0].field(b'M').unwrap(), "extended query protocol not supported by admin console");
    assert_eq!(raw::tags(&client.read_until(b'Z').unwrap()), "TDCZ");
}

#[test]
fn a_message_that_is_too_long_is_skipped() {
    let pooler = start(cluster::shared());
    let mut client = console(&pooler, "app");
    let long = format!("SHOW {}", "x".repeat(1 << 20));
    assert_eq!(client.simple(&long).unwrap_err().code(), "54000");
    assert!(client.value("SHOW VERSION").starts_with("pgsluice "));
    // Garbage ends the session and nothing else.
    client.send(&[b'Q', 0, 0, 0, 1]).unwrap();
    let rest = client.read_to_end().unwrap();
    assert_eq!(rest[0].field(b'C').unwrap(), "08P01");
    assert!(console(&pooler, "app").value("SHOW VERSION").starts_with("pgsluice "));
}

#[test]
fn statements_are_shown_without_literals() {
    let pooler = start(cluster::shared());
    let mut client = pooler.client("app");
    for i in 0..10 {
        client.simple(&format!("SELECT relname FROM pg_class WHERE relname = 'h1dden{i}'")).unwrap();
    }
    let mut console = console(&pooler, "app");
    let table = wait_for("the fingerprint", || {
        let table = ask(&mut console, "SHOW FINGERPRINTS BY calls LIMIT 1");
        table.find(&[("calls", "10")])?;
        Some(table)
    });
    assert_eq!(table.rows.len(), 1);
    assert!(table.get(0, "statement").contains("pg_class"));
    let id = table.get(0, "fingerprint");
    let one = ask(&mut console, &format!("SHOW FINGERPRINT {id}"));
    assert_eq!((one.rows.len(), one.get(0, "fingerprint")), (1, id));
    let found = ask(&mut console, "SHOW NPLUSONE LIMIT 5");
    for table in [&table, &one, &found] {
        assert!(!raw::text(&table.rows).contains("h1dden"));
    }
    assert!(ask(&mut console, "SHOW FINGERPRINT 0").rows.is_empty());
}

#[test]
fn psql_works() {
    let cluster = cluster::shared();
    let pooler = start(cluster);
    let psql = |arguments: &[&str]| {
        let output = Command::new(cluster.program("psql"))
            .args(["-X", "-h", "127.0.0.1", "-p", &pooler.port().to_string(), "-U", "app", "pgsluice"])
            .args(arguments)
            .env("PGPASSWORD", PASSWORD)
            .env("PGSSLMODE", "prefer")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout) + &text(&output.stderr)
    };
    assert!(psql(&["-c", "SHOW POOLS"]).contains("maxwait_us"));
    assert!(psql(&["-c", "SHOW VERSION;", "-c", "\\conninfo"]).contains("pgsluice"));
    let help = psql(&["-c", "SHOW HELP"]);
    assert!(help.contains("NOTICE:  Console usage") && help.contains("SHOW FINGERPRINTS"), "{help}");
    assert_eq!(psql(&["-Atc", "SHOW STATE; SHOW VERSION"]).lines().count(), 5);
}

#[test]
fn a_console_client_ends_with_the_drain() {
    let mut pooler = start(cluster::shared());
    let mut client = console(&pooler, "app");
    client.value("SHOW VERSION");
    pooler.signal("TERM");
    let last = client.read_to_end().unwrap();
    assert_eq!(last[0].field(b'C').unwrap(), "57P01");
    assert!(pooler.wait().success(), "{}", pooler.log());
}
