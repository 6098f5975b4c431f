//! `/status`: the process, its settings, and what insight had to leave out.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use super::endpoint::{Ask, Endpoint, Json, Refusal, objects, unix, value};
use super::object::object;
use crate::client::Process;
use crate::client::registry::LOGIN_RESULTS;
use crate::http::metrics::REVISION;
use crate::http::process::Resources;
use crate::sql::FINGERPRINT_VERSION;

object! {
    /// The process.
    Status {
        /// Version.
        version: &'static str,
        /// Revision of the source, when it was given at build time.
        revision: &'static str,
        /// Version of the fingerprints: ids of different versions cannot be compared.
        fingerprint_version: u32,
        /// Now.
        at_unix_seconds: f64,
        /// Start of the process.
        started_unix_seconds: u64,
        /// Time since then.
        uptime_seconds: f64,
        /// SIGTERM was seen: clients end between transactions.
        draining: bool,
        /// Threads that move data.
        workers: usize,
        /// Addresses listened at for clients.
        listening: Vec<String>,
        /// Clients connected.
        clients: usize,
        /// Logins by result: `ok`, `auth`, `refused`, `timeout`, `error`.
        logins: BTreeMap<String, u64>,
        /// Median time of a login that succeeded, from buckets.
        login_p50_seconds: f64,
        /// Time of all logins that succeeded.
        login_total_seconds: f64,
        /// CPU time of the process.
        cpu_seconds: f64,
        /// Resident memory.
        resident_bytes: Option<u64>,
        /// Databases that have a section in the configuration.
        databases: Vec<String>,
        /// Settings as in SHOW CONFIG; secrets appear as `(set)`.
        settings: BTreeMap<String, String>,
        /// Insight itself.
        insight: InsightStatus,
    }
}

object! {
    /// What insight keeps, costs, and had to leave out.
    InsightStatus {
        /// Whether statements are looked at.
        enabled: bool,
        /// Statements by how they were read: `lexed`, `cached` (prepared before), `truncated`, `unlexed`, `disabled`.
        statements: BTreeMap<String, u64>,
        /// Time in the detector, sampled.
        cpu_seconds: f64,
        /// Memory by part: `units`, `registry`, `findings`, `history`, `series`.
        memory_bytes: BTreeMap<String, usize>,
        /// Fingerprints remembered.
        fingerprints: usize,
        /// Fingerprints remembered at most.
        max_fingerprints: usize,
        /// Fingerprints dropped for lack of room.
        dropped_fingerprints: u64,
        /// Statements counted as `other`, for lack of room or from a client that brings ever-new ones.
        statements_without_fingerprint: u64,
        /// Runs dropped from a unit of work with very many different statements.
        dropped_runs: u64,
        /// Findings remembered.
        findings: usize,
        /// Findings remembered at most.
        max_findings: usize,
    }
}

/// The endpoint.
pub const ENDPOINT: Endpoint = Endpoint {
    path: "status",
    about: "The process, its settings, and insight itself.",
    id: None,
    list: false,
    parameters: &[],
    objects: objects::<Status>(),
    answer,
};

fn answer(process: &Process, _: &Ask) -> Result<Json, Refusal> {
    let config = &process.config;
    let logins = LOGIN_RESULTS.iter().zip(&process.clients.logins);
    let login_time = process.clients.login_time.totals();
    let resources = Resources::now();
    let now = unix();
    value(&Status {
        version: env!("CARGO_PKG_VERSION"),
        revision: REVISION,
        fingerprint_version: FINGERPRINT_VERSION.into(),
        at_unix_seconds: now,
        started_unix_seconds: process.started_unix,
        uptime_seconds: (now - process.started_unix as f64).max(0.0),
        draining: process.draining.load(Relaxed),
        workers: config.workers,
        listening: process
            .listening
            .lock()
            .map_or_else(|_| Vec::new(), |l| l.iter().map(ToString::to_string).collect()),
        clients: process.clients.count(),
        logins: logins.map(|(name, count)| ((*name).to_owned(), count.load(Relaxed))).collect(),
        login_p50_seconds: login_time.quantile(0.5),
        login_total_seconds: login_time.sum_us as f64 / 1e6,
        cpu_seconds: resources.cpu_us as f64 / 1e6,
        resident_bytes: resources.resident,
        databases: config.databases.keys().cloned().collect(),
        settings: config.entries().into_iter().map(|entry| (entry.key, entry.value)).collect(),
        insight: insight(process),
    })
}

fn insight(process: &Process) -> InsightStatus {
    let health = process.insight.health();
    let config = &process.config.insight;
    InsightStatus {
        enabled: process.insight.enabled(),
        statements: health.statements.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
        cpu_seconds: health.seconds,
        memory_bytes: health.memory.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect(),
        fingerprints: health.fingerprints,
        max_fingerprints: config.max_fingerprints,
        dropped_fingerprints: health.fingerprint_evictions,
        statements_without_fingerprint: health.overflow,
        dropped_runs: health.slot_evictions,
        findings: health.findings,
        max_findings: config.max_findings,
    }
}
