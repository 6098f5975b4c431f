//! One list of causes: what a slow page has in the database, ranked by the seconds an hour that mending it gives back.
//!
//! | file | what it does |
//! |---|---|
//! | [`window`] | growth of all counters within the last half to whole hour |
//! | [`statements`] | causes seen in one statement: slow, without an index, too much read, idle after it |
//! | `indexes` | indexes that are missing by a plan |
//! | [`inspection`] | the catalogue and plans, asked of databases where that is configured |
//! | [`requests`] | causes seen in a route: loops, too many queries, savepoints |
//! | [`connections`] | logins, pool sizes, what replicas could take |
//! | `words` | the mends, in Django's words |
//!
//! Invariants: made when asked for, from copies of counters (and of what [`inspection`] learnt); nothing here is on the way of a query. No literal is in any
//! of it: texts are the literal-free ones of insight, numbers are counts and times.

pub mod connections;
mod indexes;
pub mod inspection;
pub mod requests;
pub mod statements;
pub mod window;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::sql::Fingerprint;

pub use window::{Diagnosis, Sources};

/// How the seconds were found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Basis {
    /// At least so many.
    Floor,
    /// About so many.
    Estimate,
}

impl Basis {
    /// The word for it.
    pub fn name(self) -> &'static str {
        ["floor", "estimate"][self as usize]
    }
}

/// Every kind of cause, with what it is.
pub const KINDS: &[(&str, &str)] = &[
    ("n_plus_one", "one SELECT for each row of an earlier one"),
    ("chain", "several such SELECTs that one loop makes"),
    ("duplicate", "the same SELECT with the same values again"),
    ("write_loop", "writes one row at a time"),
    ("slow_query", "a statement that takes long"),
    ("missing_index", "a look-up without an index: by its plan, or probably, when it is slow and returns few rows"),
    ("unbounded_read", "very many rows without LIMIT"),
    ("over_fetch", "many wide columns for each row"),
    ("deep_offset", "pages that are slow because they are far behind"),
    ("slow_count", "COUNT(*) that takes long, most often of a paginator"),
    ("idle_in_transaction", "long pauses in an open transaction, by the statement before them"),
    ("statement_cache_defeated", "prepared statements whose texts are ever new"),
    ("cache_candidate", "reads that repeat the same values of tables that hardly change"),
    ("many_queries", "very many statements in one request"),
    ("savepoint_storm", "very many savepoints in one transaction"),
    ("lock_wait", "a statement that locks rows and is quick, but for a few times when it waited"),
    ("lock_errors", "deadlocks, lock timeouts, serialization failures"),
    ("connection_overhead", "a new connection for nearly every request"),
    ("pool_too_small", "clients wait for server connections"),
    ("read_replica", "nearly all of the work could be done by a replica"),
];

/// One cause.
#[derive(Clone, Debug)]
pub struct Cause {
    /// One of [`KINDS`].
    pub kind: &'static str,
    /// Database name.
    pub database: Arc<str>,
    /// Routes it was seen in, as far as statements are tagged.
    pub routes: Vec<Arc<str>>,
    /// The pool's user, of causes of a pool.
    pub user: Option<Arc<str>>,
    /// The statement.
    pub fingerprint: Option<Fingerprint>,
    /// Its literal-free text.
    pub text: String,
    /// The finding that tells more.
    pub finding: Option<String>,
    /// Seconds an hour that mending it gives back.
    pub recoverable: f64,
    /// How these were found.
    pub basis: Basis,
    /// It is only probable that this is the cause.
    pub probable: bool,
    /// What was seen, in a sentence.
    pub evidence: String,
    /// The same in numbers, units in their names.
    pub numbers: BTreeMap<&'static str, f64>,
    /// What to change, in Django's words.
    pub mend: String,
    /// The same as code; empty when there is none.
    pub code: String,
}

impl Cause {
    /// A cause of which only kind and place are known yet.
    pub(crate) fn new(kind: &'static str, database: &Arc<str>) -> Self {
        debug_assert!(KINDS.iter().any(|(known, _)| *known == kind), "{kind}");
        Self {
            kind,
            database: Arc::clone(database),
            routes: Vec::new(),
            user: None,
            fingerprint: None,
            text: String::new(),
            finding: None,
            recoverable: 0.0,
            basis: Basis::Estimate,
            probable: false,
            evidence: String::new(),
            numbers: BTreeMap::new(),
            mend: String::new(),
            code: String::new(),
        }
    }

    /// 12 hex digits: the same cause has the same on every instance and after every restart.
    pub fn id(&self) -> String {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let placeless = self.fingerprint.is_none() && self.finding.is_none();
        let route = self.routes.first().filter(|_| placeless);
        let user = self.user.as_deref().filter(|_| placeless);
        let parts = [
            self.kind,
            &self.database,
            user.unwrap_or(""),
            route.map_or("", |route| route),
            self.finding.as_deref().unwrap_or(""),
            &self.fingerprint.filter(|_| self.finding.is_none()).map_or_else(String::new, |f| f.to_string()),
        ];
        // FNV-1a.
        for byte in parts.iter().flat_map(|part| part.bytes().chain([0xff])) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        format!("{:012x}", hash >> 16)
    }
}

#[cfg(test)]
mod tests;

/// Sorts by what can be got back; what costs nothing yet comes last, in the order of [`KINDS`].
pub(crate) fn rank(causes: &mut [Cause]) {
    let place = |kind: &str| KINDS.iter().position(|(known, _)| *known == kind);
    causes.sort_by(|a, b| {
        b.recoverable
            .total_cmp(&a.recoverable)
            .then_with(|| place(a.kind).cmp(&place(b.kind)))
            .then_with(|| a.id().cmp(&b.id()))
    });
}
