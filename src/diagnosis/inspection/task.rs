//! The one task that asks databases, one question at a time: which is due, who fails, how much may be asked.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Plans, ask};
use crate::catalog::{Catalog, Text};
use crate::config::InsightConfig;
use crate::insight::{Insight, MAX_DATABASES};
use crate::pool::Pools;
use crate::server::{InspectError, Inspector};

/// How often it looks what is due.
const PERIOD: Duration = Duration::from_secs(1);
/// How often the costliest statements are looked for, which copies all counters.
const LOOK: Duration = Duration::from_secs(5);
/// A connection is closed after this long even while there is more to ask: whoever is connected keeps a database from
/// being dropped, for which PostgreSQL waits five seconds (CountOtherDBBackends, procarray.c).
const STAY: Duration = Duration::from_secs(1);
/// After a failure the database is left alone, twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(15);
const LONGEST_PAUSE: Duration = Duration::from_secs(900);

/// A statement whose plan is worth knowing.
pub struct Wish {
    pub(crate) database: Arc<str>,
    pub(crate) fingerprint: u64,
    pub(crate) text: Text,
    /// Column that the rows are sorted by before a LIMIT.
    pub(crate) order: Option<String>,
}

/// What the task needs.
pub struct Watch<'a> {
    /// Where clients' databases are.
    pub pools: &'a Pools,
    /// Where catalogues go.
    pub insight: &'a Insight,
    /// Where plans go.
    pub plans: &'a Plans,
    /// Settings.
    pub config: &'a InsightConfig,
    /// The costliest reads, first the costliest.
    pub wishes: &'a dyn Fn() -> Vec<Wish>,
}

/// One database.
#[derive(Default)]
struct Place {
    server: Option<Inspector>,
    catalog: Option<Arc<Catalog>>,
    read: Option<Instant>,
    /// How it was in use when it was read.
    used: Use,
    failures: u32,
    /// Left alone until then.
    paused: Option<Instant>,
}

/// How much a database is in use through the pooler.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Use {
    checkouts: u64,
    /// A client has a server: what it runs may change the catalogue after it was read.
    busy: bool,
}

/// What may be asked: so many a minute.
struct Budget {
    per_minute: f64,
    left: f64,
    counted: Instant,
}

impl Budget {
    fn new(per_minute: u32) -> Self {
        let per_minute = f64::from(per_minute);
        Self { per_minute, left: per_minute, counted: Instant::now() }
    }

    fn is_left(&mut self) -> bool {
        let gone = std::mem::replace(&mut self.counted, Instant::now()).elapsed();
        self.refill(gone);
        self.left >= 1.0
    }

    fn take(&mut self) -> bool {
        let enough = self.is_left();
        self.left -= if enough { 1.0 } else { 0.0 };
        enough
    }

    fn refill(&mut self, gone: Duration) {
        self.left = (self.left + gone.as_secs_f64() * self.per_minute / 60.0).min(self.per_minute);
    }
}

/// Runs for ever.
pub async fn run(watch: &Watch<'_>) {
    let mut task = Task {
        watch,
        places: HashMap::new(),
        queue: VecDeque::new(),
        looked: None,
        budget: Budget::new(watch.config.explain_per_minute),
    };
    loop {
        tokio::time::sleep(PERIOD).await;
        if watch.insight.enabled() {
            task.round().await;
        }
    }
}

struct Task<'a> {
    watch: &'a Watch<'a>,
    places: HashMap<Arc<str>, Place>,
    queue: VecDeque<Wish>,
    looked: Option<Instant>,
    budget: Budget,
}

impl Task<'_> {
    async fn round(&mut self) {
        let mut used: BTreeMap<Arc<str>, Use> = BTreeMap::new();
        for pool in self.watch.pools.all() {
            let used = used.entry(Arc::clone(&pool.database)).or_default();
            // In this order: a checkout in between is seen as busy now or as a checkout the next time.
            used.checkouts += pool.totals().assignments;
            used.busy |= pool.view().active > 0;
        }
        self.places.retain(|name, _| used.contains_key(name));
        for (name, used) in used.into_iter().filter(|(_, used)| used.checkouts > 0) {
            if self.places.len() >= MAX_DATABASES && !self.places.contains_key(&name) {
                continue;
            }
            let place = self.places.entry(Arc::clone(&name)).or_default();
            if place.is_due(used, self.watch.config.catalog_interval) {
                place.used = used;
                place.refresh(&name, self.watch).await;
                place.leave().await;
            }
        }
        if self.watch.config.explain {
            self.explain().await;
        }
    }

    async fn explain(&mut self) {
        let began = Instant::now();
        if !self.budget.is_left() {
            return;
        }
        if self.queue.is_empty() && self.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            self.queue = (self.watch.wishes)().into();
        }
        while let Some(wish) = self.queue.pop_front() {
            let Some(place) = self.places.get(&wish.database).filter(|place| !place.is_paused()) else { continue };
            let Some(catalog) = place.catalog.clone() else { continue };
            if !self.watch.plans.is_due(&wish.database, wish.fingerprint, &catalog) {
                continue;
            }
            if began.elapsed() >= STAY || !self.budget.take() {
                self.queue.push_front(wish);
                break;
            }
            self.leave_all_but(Some(&wish.database)).await;
            let Some(place) = self.places.get_mut(&wish.database) else { continue };
            let asked = match place.server(&wish.database, self.watch).await {
                Ok(server) => ask::explain(server, &catalog, &wish.text, wish.order.as_deref()).await,
                Err(e) => Err(e),
            };
            match asked {
                Ok(explained) => {
                    place.works();
                    self.watch.plans.put(&wish.database, wish.fingerprint, explained);
                }
                Err(e) => place.fails(&wish.database, &e),
            }
        }
        self.leave_all_but(None).await;
    }

    /// One connection at a time.
    async fn leave_all_but(&mut self, name: Option<&Arc<str>>) {
        for (_, place) in self.places.iter_mut().filter(|(other, _)| Some(*other) != name) {
            place.leave().await;
        }
    }
}

impl Place {
    /// Closes the connection.
    async fn leave(&mut self) {
        if let Some(server) = self.server.take() {
            server.close().await;
        }
    }

    fn is_paused(&self) -> bool {
        self.paused.is_some_and(|until| Instant::now() < until)
    }

    /// Whether the catalogue is to be read: the database is in use, and what is known of it is old.
    fn is_due(&self, used: Use, interval: Duration) -> bool {
        let interval = interval.max(Duration::from_secs(1));
        let used_since = self.used.busy || self.used.checkouts != used.checkouts;
        let old = self.read.is_none_or(|at| at.elapsed() >= interval && used_since);
        old && !self.is_paused()
    }

    async fn refresh(&mut self, name: &Arc<str>, watch: &Watch<'_>) {
        let read = match self.server(name, watch).await {
            Ok(server) => ask::snapshot(server).await,
            Err(e) => Err(e),
        };
        match read {
            Ok(catalog) => {
                if self.read.is_none() {
                    tracing::info!(target: "pgsluice::insight", database = %name.escape_debug(), tables = catalog.len(), "the catalogue was read");
                }
                self.works();
                self.read = Some(Instant::now());
                let catalog = Arc::new(catalog);
                watch.insight.set_catalog(name, Arc::clone(&catalog));
                self.catalog = Some(catalog);
            }
            Err(e) => self.fails(name, &e),
        }
    }

    /// The connection, opened when there is none.
    async fn server(&mut self, name: &str, watch: &Watch<'_>) -> Result<&mut Inspector, InspectError> {
        let server = match self.server.take() {
            Some(server) => server,
            None => {
                let shared = watch.pools.shared();
                let gone = crate::server::ConnectError::Protocol("the pool is gone");
                Inspector::connect(&watch.pools.own_target(name).ok_or(gone)?, &shared.params, &shared.auth).await?
            }
        };
        Ok(self.server.insert(server))
    }

    fn works(&mut self) {
        self.failures = 0;
        self.paused = None;
    }

    /// Told once for all failures in a row.
    fn fails(&mut self, name: &str, error: &InspectError) {
        // In doubt: whatever state it is in.
        self.server = None;
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.paused = Some(Instant::now() + pause);
        self.failures += 1;
        if self.failures == 1 {
            tracing::warn!(target: "pgsluice::insight", database = %name.escape_debug(),
                error = %error.text().replace(char::is_control, " "),
                "the catalogue and plans of a database cannot be read; tried again in a while, traffic is not touched");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_so_many_a_minute() {
        let mut budget = Budget::new(6);
        assert_eq!((0..20).filter(|_| budget.take()).count(), 6);
        budget.refill(Duration::from_secs(10));
        assert!(budget.take() && !budget.take());
        budget.refill(Duration::from_secs(6_000));
        assert_eq!((0..20).filter(|_| budget.take()).count(), 6);
    }

    #[test]
    fn failures_are_left_alone_ever_longer() {
        let mut place = Place::default();
        let error = InspectError::Connect(crate::server::ConnectError::Timeout);
        let used = Use { checkouts: 1, busy: false };
        assert!(place.is_due(used, Duration::ZERO));
        for _ in 0..40 {
            place.fails("app", &error);
            let left = place.paused.unwrap() - Instant::now();
            assert!(left <= LONGEST_PAUSE && !place.is_due(used, Duration::ZERO));
        }
        place.works();
        assert!(place.is_due(used, Duration::ZERO) && place.failures == 0);
    }

    #[test]
    fn a_catalogue_read_while_a_statement_ran_is_read_again() {
        let read = Instant::now().checked_sub(Duration::from_secs(5));
        let quiet = Use { checkouts: 7, busy: false };
        let mut place = Place { read, used: quiet, ..Place::default() };
        assert!(!place.is_due(quiet, Duration::ZERO));
        assert!(place.is_due(Use { checkouts: 8, busy: false }, Duration::ZERO));
        place.used.busy = true;
        assert!(place.is_due(quiet, Duration::ZERO), "what ran then may have been CREATE INDEX");
    }
}
