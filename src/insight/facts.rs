//! Everything insight counted, copied at once, for the diagnosis. Literal-free.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::describe::Described;
use super::overview::RouteSums;
use super::queries::{Detail, Key};
use super::table::Counters;
use super::views::FindingView;
use super::{Insight, lock};

/// One statement.
pub(crate) struct StatementFacts {
    pub(crate) key: Key,
    pub(crate) database: Arc<str>,
    pub(crate) described: Arc<Described>,
    pub(crate) total: Counters,
    pub(crate) max_us: u64,
    pub(crate) detail: Detail,
    pub(crate) routes: Vec<Arc<str>>,
}

/// Everything.
pub(crate) struct Facts {
    pub(crate) statements: Vec<StatementFacts>,
    pub(crate) routes: BTreeMap<(u16, u32), RouteSums>,
    pub(crate) route_names: HashMap<u32, Arc<str>>,
    pub(crate) findings: Vec<FindingView>,
    /// Statements that read and that write a table.
    pub(crate) tables: HashMap<(u16, Box<str>), [u64; 2]>,
    /// Errors by database, in the order of `LOCK_STATES`.
    pub(crate) lock_errors: Vec<(u16, [u64; 4])>,
    pub(crate) databases: Vec<Arc<str>>,
}

impl Facts {
    /// The name behind a number.
    pub(crate) fn database(&self, id: u16) -> Arc<str> {
        self.databases.get(usize::from(id)).cloned().unwrap_or_else(|| Arc::from("other"))
    }
}

impl Insight {
    /// A copy of everything. Locks are held for the copying only.
    pub(crate) fn facts(&self) -> Facts {
        let databases = self.database_names();
        let booked = self.booked();
        let mut details = self.details();
        let routes = self.route_sums();
        let findings = self.findings();
        let mut tables: HashMap<(u16, Box<str>), [u64; 2]> = HashMap::new();
        for ((database, table, access), count) in &self.fold().tables {
            tables.entry((*database, table.clone())).or_default()[usize::from(*access)] += count;
        }
        let workers = self.tables();
        let lock_errors = (0..databases.len())
            .map(|id| {
                let stats = workers.iter().filter_map(|worker| worker.database_if_any(id));
                let sums = stats.fold([0; 4], |mut sums, stats| {
                    sums.iter_mut().zip(&stats.lock_errors).for_each(|(sum, n)| *sum += n.load(Relaxed));
                    sums
                });
                (id as u16, sums)
            })
            .collect();
        let registry = lock(&self.registry);
        let name = |route: &u32| Some((*route, registry.route_name(*route)?));
        let route_names: HashMap<u32, Arc<str>> = routes.keys().filter_map(|(_, route)| name(route)).collect();
        let statements = booked.into_iter().filter_map(|one| {
            let detail = details.remove(&one.key).unwrap_or_default();
            Some(StatementFacts {
                key: one.key,
                database: databases.get(usize::from(one.key.0)).cloned()?,
                described: registry.get(one.key.1)?,
                total: one.total,
                max_us: one.max_us,
                routes: detail.routes.iter().filter_map(|route| registry.route_name(*route)).collect(),
                detail,
            })
        });
        let statements = statements.collect();
        drop(registry);
        Facts { statements, routes, route_names, findings, tables, lock_errors, databases }
    }
}
