//! `/routes`: what each view, job or command asks of the database.

use super::endpoint::{Ask, Endpoint, Json, Refusal, cut, objects, page};
use super::object::object;
use crate::client::Process;
use crate::insight::RouteView;

object! {
    /// Units of work (requests, jobs) of one route in one database, since the start of the process.
    Route {
        /// Database as clients name it.
        database: String,
        /// Route tag; null sums the statements without one. `other` sums routes beyond the limit of 1,024.
        route: Option<String>,
        /// Whether it is a task or a management command (tagged as `job`), not a view.
        job: bool,
        /// Units of work.
        requests: u64,
        /// Statements.
        queries: u64,
        /// Mean number of statements of a unit.
        queries_per_request: f64,
        /// Median of the statements of a unit, from buckets.
        p50_queries: f64,
        /// 95th percentile of the statements of a unit, from buckets.
        p95_queries: f64,
        /// Most statements of a unit.
        max_queries: u64,
        /// Time at the server.
        db_seconds: f64,
        /// Mean time at the server of a unit.
        db_seconds_per_request: f64,
        /// 95th percentile of a unit's time at the server, from buckets.
        p95_db_seconds: f64,
        /// From the first statement to the last answer, all units: what is not time at the server is the application's.
        elapsed_seconds: f64,
        /// Reads that repeat another of their unit with no write in between.
        duplicates: u64,
        /// Units that began with a new connection.
        new_connections: u64,
        /// Transactions with 64 savepoints and more.
        savepoint_storms: u64,
        /// Most savepoints of one of these.
        max_savepoints: u64,
        /// Ids of the findings in it.
        findings: Vec<String>,
        /// What these cost at least.
        avoidable_floor_seconds: f64,
    }
}

/// The endpoint.
pub const ENDPOINT: Endpoint = Endpoint {
    path: "routes",
    about: "Requests and jobs by route tag, most time at the server first. A unit of work is counted when it is over.",
    id: None,
    list: true,
    parameters: &[("database", "of this database"), ("route", "this route; empty: without one")],
    objects: objects::<Route>(),
    answer,
};

fn answer(process: &Process, ask: &Ask) -> Result<Json, Refusal> {
    let mut all = process.insight.routes();
    all.retain(|view| {
        ask.get("database").is_none_or(|name| *name == *view.database)
            && ask.get("route").is_none_or(|name| name == view.route.as_deref().unwrap_or(""))
    });
    let (total, chosen) = cut(ask, all)?;
    page(ask, total, &chosen.into_iter().map(route).collect::<Vec<_>>())
}

fn route(view: RouteView) -> Route {
    let requests = view.requests.max(1) as f64;
    Route {
        database: view.database.to_string(),
        route: view.route.map(|route| route.to_string()),
        job: view.job,
        requests: view.requests,
        queries: view.queries,
        queries_per_request: view.queries as f64 / requests,
        p50_queries: view.p50_queries,
        p95_queries: view.p95_queries,
        max_queries: view.max_queries,
        db_seconds: view.seconds,
        db_seconds_per_request: view.seconds / requests,
        p95_db_seconds: view.p95_seconds,
        elapsed_seconds: view.elapsed_seconds,
        duplicates: view.duplicates,
        new_connections: view.connections,
        savepoint_storms: view.savepoints.0,
        max_savepoints: view.savepoints.1,
        findings: view.findings.0,
        avoidable_floor_seconds: view.findings.1,
    }
}
