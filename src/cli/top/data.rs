//! What `top` shows: the API's answers, as rows of four tables.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::cli::remote::{Failure, Remote};
use crate::cli::report::document::evidence;
use crate::cli::words::{clean, count, date, items, mean, names, number, route, seconds, text};

/// Rows that are fetched of each list: a screen and more, little over a slow line.
const ROWS: usize = 200;

/// The tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tab {
    Pools,
    Clients,
    Findings,
    Queries,
}

pub(super) const TABS: [Tab; 4] = [Tab::Pools, Tab::Clients, Tab::Findings, Tab::Queries];

/// A column: its title, its width (0: what is left), the field it is sorted by, and its cells.
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) width: u16,
    pub(super) field: &'static str,
    pub(super) cell: fn(&Value) -> String,
}

const fn column(title: &'static str, width: u16, field: &'static str, cell: fn(&Value) -> String) -> Column {
    Column { title, width, field, cell }
}

const POOLS: &[Column] = &[
    column("POOL", 0, "name", |v| clean(text(v, "name"))),
    column("MODE", 4, "mode", |v| match text(v, "mode") {
        "transaction" => "tx".to_owned(),
        mode => mode.chars().take(4).collect(),
    }),
    column("BUSY", 8, "servers_active", |v| format!("{}/{}", v["servers_active"], v["size"])),
    column("IDLE-TX", 7, "servers_idle_in_transaction", |v| whole(v, "servers_idle_in_transaction")),
    column("PINS", 5, "clients_pinned", |v| whole(v, "clients_pinned")),
    column("WAITING", 7, "clients_waiting", |v| whole(v, "clients_waiting")),
    column("LONGEST", 8, "longest_wait_seconds", |v| seconds(number(v, "longest_wait_seconds"))),
    column("WAIT-P95", 8, "wait_p95_seconds", |v| seconds(number(v, "wait_p95_seconds"))),
    column("QUERY/S", 8, "per_second", per_second),
];

const CLIENTS: &[Column] = &[
    column("CLIENT", 6, "client_id", |v| v["client_id"].to_string()),
    column("APPLICATION", 0, "application", |v| clean(text(v, "application"))),
    column("POOL", 12, "name", |v| clean(text(v, "name"))),
    column("PID", 7, "pid", |v| v["pid"].to_string()),
    column("STATE", 8, "state", |v| match text(v, "state") {
        "idle in transaction (aborted)" => "aborted".to_owned(),
        "idle in transaction" => "idle-tx".to_owned(),
        state => state.to_owned(),
    }),
    column("FOR", 8, "state_seconds", |v| seconds(number(v, "state_seconds"))),
    column("OPEN", 8, "transaction_seconds", |v| {
        v["transaction_seconds"].as_f64().map_or_else(|| "-".to_owned(), seconds)
    }),
    column("PINNED BY", 9, "pinned", |v| clean(text(v, "pinned"))),
];

const FINDINGS: &[Column] = &[
    column("KIND", 10, "kind", |v| text(v, "kind").to_owned()),
    column("SURE", 6, "confidence", |v| text(v, "confidence").to_owned()),
    column("ROUTE", 0, "route", route),
    column("TABLES", 18, "tables", |v| clean(&names(v, "tables"))),
    column("BURSTS", 8, "bursts", |v| whole(v, "bursts")),
    column("EACH", 6, "queries_per_burst", |v| count(number(v, "queries_per_burst"))),
    column("COST>=", 8, "avoidable_floor_seconds", |v| seconds(number(v, "avoidable_floor_seconds"))),
];

const QUERIES: &[Column] = &[
    column("STATEMENT", 0, "text", |v| match text(v, "text") {
        "" => text(v, "fingerprint").to_owned(),
        text => clean(text),
    }),
    column("CALLS", 9, "calls", |v| whole(v, "calls")),
    column("CALLS/S", 7, "per_second", per_second),
    column("TOTAL", 8, "total_seconds", |v| seconds(number(v, "total_seconds"))),
    column("P50", 8, "p50_seconds", |v| seconds(number(v, "p50_seconds"))),
    column("P95", 8, "p95_seconds", |v| seconds(number(v, "p95_seconds"))),
    column("P99", 8, "p99_seconds", |v| seconds(number(v, "p99_seconds"))),
];

fn whole(value: &Value, field: &str) -> String {
    count(number(value, field))
}

fn per_second(value: &Value) -> String {
    value["per_second"].as_f64().map_or_else(|| "-".to_owned(), mean)
}

impl Tab {
    pub(super) fn name(self) -> &'static str {
        match self {
            Tab::Pools => "Pools",
            Tab::Clients => "Clients",
            Tab::Findings => "Findings",
            Tab::Queries => "Queries",
        }
    }

    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Tab::Pools => POOLS,
            Tab::Clients => CLIENTS,
            Tab::Findings => FINDINGS,
            Tab::Queries => QUERIES,
        }
    }

    /// The column it is sorted by at first: the API's order, but that of clients and pools tells what hurts.
    pub(super) fn first_order(self) -> usize {
        match self {
            Tab::Pools => 5,
            Tab::Clients => 6,
            Tab::Findings => 6,
            Tab::Queries => 3,
        }
    }

    /// What to say where a table is empty.
    pub(super) fn nothing(self) -> &'static str {
        match self {
            Tab::Pools => "No pool yet: no client has logged in.",
            Tab::Clients => "No client holds a server connection now.",
            Tab::Findings => "Nothing found yet. A finding appears when its request is over.",
            Tab::Queries => "No statement yet, or insight is switched off.",
        }
    }
}

/// One look.
#[derive(Clone, Default)]
pub(super) struct Data {
    pub(super) status: Value,
    pools: Vec<Value>,
    clients: Vec<Value>,
    findings: Vec<Value>,
    queries: Vec<Value>,
}

impl Data {
    /// Asks for all; `before` is the look before it, for what happened in between.
    pub(super) fn fetch(remote: &Remote, before: Option<&Data>) -> Result<Data, Failure> {
        let status = remote.get("status")?;
        let pins = remote.list("pins", ROWS)?;
        let (pools, queries) = (remote.list("pools", ROWS)?, remote.list("queries", ROWS)?);
        let findings = remote.list("findings", ROWS)?;
        Ok(Data::of(status, [pools, pins, findings, queries], before))
    }

    /// From the API's answers.
    pub(super) fn of(status: Value, lists: [Vec<Value>; 4], before: Option<&Data>) -> Data {
        let [mut pools, pins, findings, mut queries] = lists;
        for pool in &mut pools {
            pool["name"] = json!(format!("{}/{}", text(pool, "database"), text(pool, "user")));
        }
        // A process that was started again counts anew.
        let before = before.filter(|old| old.status["started_unix_seconds"] == status["started_unix_seconds"]);
        let span =
            before.map_or(0.0, |old| number(&status, "at_unix_seconds") - number(&old.status, "at_unix_seconds"));
        if let Some(old) = before.filter(|_| span > 0.0) {
            rates(&mut pools, &old.pools, "queries", span, |v| text(v, "name").to_owned());
            rates(&mut queries, &old.queries, "calls", span, |v| {
                format!("{} {}", text(v, "database"), text(v, "fingerprint"))
            });
        }
        let mends: HashMap<u64, &str> =
            pins.iter().filter_map(|pin| Some((pin["client_id"].as_u64()?, text(pin, "mend")))).collect();
        let mut clients = Vec::new();
        for pool in &pools {
            for holder in items(pool, "holders") {
                let mut client = holder.clone();
                client["name"] = pool["name"].clone();
                let mend = client["client_id"].as_u64().and_then(|id| mends.get(&id));
                client["mend"] = json!(mend);
                clients.push(client);
            }
        }
        Data { status, pools, clients, findings, queries }
    }

    /// Rows of a table.
    pub(super) fn rows(&self, tab: Tab) -> &[Value] {
        match tab {
            Tab::Pools => &self.pools,
            Tab::Clients => &self.clients,
            Tab::Findings => &self.findings,
            Tab::Queries => &self.queries,
        }
    }

    /// The line above the tables.
    pub(super) fn headline(&self) -> String {
        let waiting: f64 = self.pools.iter().map(|pool| number(pool, "clients_waiting")).sum();
        let draining = if self.status["draining"] == Value::Bool(true) { ", DRAINING" } else { "" };
        format!(
            "{}, up {}: clients {}, waiting {}, findings {}{draining}",
            text(&self.status, "version"),
            seconds(number(&self.status, "uptime_seconds")),
            count(number(&self.status, "clients")),
            count(waiting),
            count(number(&self.status["insight"], "findings")),
        )
    }
}

/// Growth of a counter by second since the look before.
fn rates(now: &mut [Value], before: &[Value], field: &str, span: f64, key: impl Fn(&Value) -> String) {
    let old: HashMap<String, f64> = before.iter().map(|value| (key(value), number(value, field))).collect();
    for value in now {
        let grown = old.get(&key(value)).map(|old| number(value, field) - old);
        value["per_second"] = json!(grown.map(|grown| grown.max(0.0) / span));
    }
}

/// All that is known of a row.
pub(super) fn detail(tab: Tab, row: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let mut part = |title: &str, told: &str| {
        if !told.is_empty() {
            out.push(format!("{title}:"));
            out.extend(told.lines().map(|line| format!("  {}", clean(line))));
            out.push(String::new());
        }
    };
    match tab {
        Tab::Findings => {
            part("Change", text(row, "advice"));
            part("Write", text(row, "mend"));
            part("Where", &format!("{}, database {}", route(row), text(row, "database")));
            part("Cost, at least", &seconds(number(row, "avoidable_floor_seconds")));
            part("Evidence", &evidence(row));
            part("Last seen", &date(number(row, "last_seen_unix_seconds")));
            part("Once", text(&row["parent"], "text"));
            for statement in items(row, "statements") {
                part("Again and again", text(statement, "text"));
            }
        }
        Tab::Queries => {
            let time = |field| seconds(number(row, field));
            let percentiles = format!(
                "p50 {}, p95 {}, p99 {}, at most {}",
                time("p50_seconds"),
                time("p95_seconds"),
                time("p99_seconds"),
                time("max_seconds")
            );
            part("Statement", text(row, "text"));
            part("Fingerprint", text(row, "fingerprint"));
            part("Time of a call", &percentiles);
            part("Share of the database's time", &format!("{:.1} %", number(row, "share") * 100.0));
            part("Rows of a call", &mean(number(row, "rows_per_call")));
            part("Errors", &count(number(row, "errors")));
            part("Routes", &names(row, "routes"));
            part("Findings", &names(row, "findings"));
        }
        Tab::Pools => {
            let n = |field| count(number(row, field));
            let time = |field| seconds(number(row, field));
            part(
                "Clients",
                &format!(
                    "{} active, {} waiting, {} idle",
                    n("clients_active"),
                    n("clients_waiting"),
                    n("clients_idle")
                ),
            );
            part(
                "Servers",
                &format!(
                    "{} active, {} idle, {} opening, {} at most",
                    n("servers_active"),
                    n("servers_idle"),
                    n("servers_opening"),
                    n("size")
                ),
            );
            part(
                "Wait",
                &format!(
                    "p50 {}, p95 {}, p99 {}, {} timed out",
                    time("wait_p50_seconds"),
                    time("wait_p95_seconds"),
                    time("wait_p99_seconds"),
                    n("wait_timeouts")
                ),
            );
            part("Done", &format!("{} queries, {} transactions", n("queries"), n("transactions")));
            let held = |h: &Value| {
                format!(
                    "client {} ({}): {} for {}",
                    h["client_id"],
                    text(h, "application"),
                    text(h, "state"),
                    seconds(number(h, "state_seconds"))
                )
            };
            part("Held by", &items(row, "holders").iter().map(held).collect::<Vec<_>>().join("\n"));
        }
        Tab::Clients => {
            part("Client", &format!("{} ({}), pool {}", row["client_id"], text(row, "application"), text(row, "name")));
            part("State", &format!("{} for {}", text(row, "state"), seconds(number(row, "state_seconds"))));
            part("Pinned by", text(row, "pinned"));
            part("What ends the pin", text(row, "mend"));
        }
    }
    out
}
