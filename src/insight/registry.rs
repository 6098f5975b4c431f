//! Names behind numbers: literal-free texts of fingerprints, routes. Cold: locked only when something new appears.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::advice::bare;
use super::bond::{self, Bond};
use super::describe::Described;
use crate::sql::Fingerprint;

/// Routes remembered; later ones share [`OTHER_ROUTE`].
const MAX_ROUTES: usize = 1_024;
/// Names of models remembered.
const MAX_MODELS: usize = 1_024;
/// Number of the route `other`.
pub(crate) const OTHER_ROUTE: u32 = 1;

/// Texts and routes.
pub(crate) struct Registry {
    texts: HashMap<u64, Arc<Described>>,
    limit: usize,
    routes: Vec<Arc<str>>,
    /// Those that are no views: tasks and management commands.
    jobs: HashSet<u32>,
    /// By name: with ever-new tags every statement asks.
    numbers: HashMap<Arc<str>, u32>,
    /// What the tables seen so far are called by foreign keys to them.
    models: HashSet<Box<str>>,
    bytes: usize,
}

impl Registry {
    pub(crate) fn new(limit: usize) -> Self {
        // Number 0 means "no route".
        Self {
            texts: HashMap::new(),
            limit: limit.max(1),
            routes: vec![Arc::from(""), Arc::from("other")],
            jobs: HashSet::new(),
            numbers: HashMap::from([(Arc::from("other"), OTHER_ROUTE)]),
            models: HashSet::new(),
            bytes: 0,
        }
    }

    /// Keeps what a new fingerprint looks like. `false`: no room, the sweep makes some.
    pub(crate) fn insert(&mut self, fingerprint: Fingerprint, described: Described) -> bool {
        if self.texts.len() >= self.limit && !self.texts.contains_key(&fingerprint.0) {
            return false;
        }
        self.bytes += described.bytes();
        for table in &described.tables {
            if self.models.len() < MAX_MODELS && !self.models.contains(bare(table)) {
                self.models.insert(bare(table).into());
            }
        }
        if let Some(old) = self.texts.insert(fingerprint.0, Arc::new(described)) {
            self.bytes -= old.bytes();
        }
        true
    }

    pub(crate) fn get(&self, fingerprint: u64) -> Option<Arc<Described>> {
        self.texts.get(&fingerprint).cloned()
    }

    /// Whether the rows of `list` hold the key that `child` looks up, as far as names tell.
    pub(crate) fn bond(&self, child: u64, list: u64) -> Bond {
        match (self.texts.get(&child), self.texts.get(&list)) {
            (Some(child), Some(list)) => bond::bond(child, list, |name| self.models.contains(name)),
            _ => Bond::None,
        }
    }

    pub(crate) fn contains(&self, fingerprint: Fingerprint) -> bool {
        self.texts.contains_key(&fingerprint.0)
    }

    pub(crate) fn remove(&mut self, fingerprint: u64) {
        if let Some(old) = self.texts.remove(&fingerprint) {
            self.bytes -= old.bytes();
        }
    }

    /// Approximate memory held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
            + self.models.iter().map(|name| name.len() + 24).sum::<usize>()
            + self.texts.len() * 64
            + self.routes.iter().map(|route| route.len() + 72).sum::<usize>()
    }

    /// The number of a route, which [`crate::sql::TagValue::write`] has cleaned. It is a job's until a view has its name:
    /// any client can send a tag, and a view must not be hidden by one.
    pub(crate) fn route(&mut self, clean: &str, job: bool) -> u32 {
        if clean.is_empty() {
            return 0;
        }
        if let Some(number) = self.numbers.get(clean) {
            if !job {
                self.jobs.remove(number);
            }
            return *number;
        }
        if self.routes.len() >= MAX_ROUTES {
            return OTHER_ROUTE;
        }
        let (name, number): (Arc<str>, u32) = (Arc::from(clean), self.routes.len() as u32);
        self.routes.push(Arc::clone(&name));
        self.numbers.insert(name, number);
        if job {
            self.jobs.insert(number);
        }
        number
    }

    /// Whether a route is a task or a management command, not a view.
    pub(crate) fn is_job(&self, number: u32) -> bool {
        self.jobs.contains(&number)
    }

    /// The number of a route that is known.
    pub(crate) fn route_number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// The route behind a number; `None` for 0.
    pub(crate) fn route_name(&self, number: u32) -> Option<Arc<str>> {
        (number != 0).then(|| self.routes.get(number as usize).cloned()).flatten()
    }
}
