//! All pools, by (database, user).

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Semaphore;

use super::period::{Key, Periods};
use super::{Pool, Shared};
use crate::auth::Secret;
use crate::config::{Config, Database};
use crate::server::{Printed, Target};

/// Pools that may exist at once: names come from clients where a wildcard admits any.
pub const MAX_POOLS: usize = 4096;

/// Passwords of clients tried at once at the servers of a section: each is a login that PostgreSQL may refuse.
const MAX_TRIES: usize = 4;

/// Where a password can be tried.
pub struct Trial {
    /// The server.
    pub target: Target,
    /// The pool, where it exists: it may know already.
    pub pool: Option<Arc<Pool>>,
    /// First come, first served.
    pub turns: Arc<Semaphore>,
}

/// Why there is no pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unknown {
    /// No such database.
    Database,
    /// [`MAX_POOLS`] are in use.
    TooMany,
}

/// All pools of the process.
pub struct Pools {
    shared: Arc<Shared>,
    config: Arc<Config>,
    /// Passwords of databases' sections: a reload brings others.
    passwords: ArcSwap<Passwords>,
    pools: Mutex<HashMap<Key, Arc<Pool>>>,
    /// Passwords that programs print, by database and user at the server.
    printed: Mutex<HashMap<(String, String), Arc<Printed>>>,
    /// Whose turn it is to try passwords, by section.
    tries: Mutex<HashMap<String, Arc<Semaphore>>>,
    /// What pools did in the last whole period, for averages.
    pub periods: Periods,
}

impl Pools {
    /// No pools yet.
    pub fn new(config: Arc<Config>, shared: Arc<Shared>) -> Self {
        let passwords = ArcSwap::from_pointee(passwords(&config));
        let (pools, printed, tries, periods) = Default::default();
        Pools { shared, config, passwords, pools, printed, tries, periods }
    }

    /// What pools share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Whether clients may name `database`.
    pub fn knows(&self, database: &str) -> bool {
        self.rule(database).is_some()
    }

    fn rule(&self, database: &str) -> Option<&Database> {
        self.config.databases.get(database).or_else(|| self.config.databases.get("*"))
    }

    /// The pool of (database, user), made when it is new.
    ///
    /// # Errors
    /// [`Unknown`].
    pub fn get(&self, database: &str, user: &str) -> Result<Arc<Pool>, Unknown> {
        let mut pools = self.pools.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(pool) = pools.get(&(Arc::from(database), Arc::from(user))) {
            return Ok(Arc::clone(pool));
        }
        let rule = self.rule(database).ok_or(Unknown::Database)?;
        if pools.len() >= MAX_POOLS {
            pools.retain(|_, p| !p.unused());
            if pools.len() >= MAX_POOLS {
                return Err(Unknown::TooMany);
            }
        }
        let pool =
            Pool::new(database, user, rule.pool.clone(), self.target(rule, database, user), Arc::clone(&self.shared));
        pools.insert((Arc::clone(&pool.database), Arc::clone(&pool.user)), Arc::clone(&pool));
        Ok(pool)
    }

    fn target(&self, rule: &Database, database: &str, user: &str) -> Target {
        let server_user = rule.user.as_deref().unwrap_or(user);
        let own = rule.password.is_none() && rule.password_command.is_none() && server_user == user;
        Target {
            host: rule.host.clone(),
            port: rule.port,
            dbname: rule.dbname.clone().unwrap_or_else(|| database.to_owned()),
            user: server_user.to_owned(),
            secret: Arc::new(ArcSwapOption::from(self.secret(database, server_user).map(Arc::new))),
            learnt: own.then(Arc::default),
            printed: self.printed(rule, database, server_user),
            tls: self.shared.tls.connector(&rule.pool.tls),
            aside: Arc::clone(&self.shared.aside),
            timeout: rule.pool.server_connect_timeout,
        }
    }

    /// Where a password that `user` gives for `database` can be tried (`passthrough_auth`): no pool comes of it yet. `None`: nowhere,
    /// since there is no such database, or it is not this user that its servers are logged in to as.
    pub fn trial(&self, database: &str, user: &str) -> Option<Trial> {
        let section = if self.config.databases.contains_key(database) { database } else { "*" };
        let target = self.target(self.config.databases.get(section)?, database, user);
        target.learnt.as_ref()?;
        let turns = {
            let mut tries = self.tries.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            Arc::clone(tries.entry(section.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(MAX_TRIES))))
        };
        let pools = self.pools.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let pool = pools.get(&(Arc::from(database), Arc::from(user))).cloned();
        Some(Trial { target, pool, turns })
    }

    /// As whom the pooler itself looks at `database`: its `insight_user`, else as the busiest pool's servers do.
    pub fn own_target(&self, database: &str) -> Option<Target> {
        let rule = self.rule(database)?;
        let Some(user) = &rule.insight_user else {
            let pools = self.all().into_iter().filter(|pool| *pool.database == *database);
            return pools.max_by_key(|pool| pool.totals().assignments).map(|pool| pool.target.clone());
        };
        let as_rule = self.target(rule, database, user);
        if rule.user.as_ref() == Some(user) {
            return Some(as_rule);
        }
        // The section's password is that of another user.
        let secret = self.shared.users.load().get(user).cloned().map(Arc::new);
        Some(Target {
            user: user.clone(),
            secret: Arc::new(ArcSwapOption::from(secret)),
            learnt: None,
            printed: None,
            ..as_rule
        })
    }

    /// With what to log in at the server of `database`.
    fn secret(&self, database: &str, server_user: &str) -> Option<Secret> {
        let passwords = self.passwords.load();
        let own = passwords.get(database).or_else(|| passwords.get("*")).cloned().flatten();
        own.or_else(|| self.shared.users.load().get(server_user).cloned())
    }

    /// Takes users and passwords of a configuration that was read again, nothing else of it. How many users differ.
    pub fn renew(&self, fresh: &Config) -> usize {
        let old = self.shared.users.swap(Arc::new(fresh.auth.users.clone()));
        let (new, names) = (&fresh.auth.users, old.keys().chain(fresh.auth.users.keys()));
        let changed = names.filter(|name| old.get(*name) != new.get(*name)).collect::<BTreeSet<_>>().len();
        self.passwords.store(Arc::new(self.passwords_of(fresh)));
        for pool in self.all() {
            pool.renew(self.secret(&pool.database, &pool.target.user));
            // As with answers of `auth_query`: a reload is what to do when something has changed.
            if let Some(learnt) = &pool.target.learnt {
                learnt.doubt();
            }
        }
        self.shared.directory.forget();
        changed
    }

    /// The program that prints the passwords of this user at this database; pools that have both in common share it.
    fn printed(&self, rule: &Database, database: &str, server_user: &str) -> Option<Arc<Printed>> {
        let command = rule.password_command.as_ref()?;
        let mut printed = self.printed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if printed.len() >= MAX_POOLS {
            // Who has one keeps it.
            printed.clear();
        }
        let key = (database.to_owned(), server_user.to_owned());
        Some(Arc::clone(printed.entry(key).or_insert_with(|| Arc::new(Printed::new(command.clone())))))
    }

    /// Of the sections that are in force. One that leads elsewhere by now, or to another user, waits for a restart with all
    /// that it says: its new password is not for the old server.
    fn passwords_of(&self, fresh: &Config) -> Passwords {
        let old = self.passwords.load();
        let place = |d: &Database| (d.host.clone(), d.port, d.user.clone(), d.password_command.clone());
        let of = |(name, now): (&String, &Database)| {
            let same = fresh.databases.get(name).filter(|fresh| place(fresh) == place(now));
            let password = match same {
                Some(fresh) => fresh.password.clone(),
                None => old.get(name).cloned().flatten(),
            };
            (name.clone(), password)
        };
        self.config.databases.iter().map(of).collect()
    }

    /// A configured database, when all of them are of one server.
    pub fn only_server(&self) -> Option<&str> {
        let mut named = self.config.databases.iter().filter(|(name, _)| *name != "*");
        let (name, first) = named.next()?;
        let one = self.config.databases.values().all(|d| (&d.host, d.port) == (&first.host, first.port));
        one.then_some(name.as_str())
    }

    /// Looks at the clock; at the end of a period notes what every pool did in it.
    pub fn tick(&self, now_us: u64) {
        if self.periods.is_over(now_us) {
            self.periods.end(now_us, self.all().iter().map(|p| (p.key(), p.totals())));
        }
    }

    /// Opens servers before the first client comes, where it is known for whom: every named database, when there is
    /// one user. Call it on a worker.
    pub fn warm(&self) {
        // Who asks for others is not the one who will come.
        if self.config.asks() {
            return;
        }
        let users = self.shared.users.load_full();
        let mut names = users.keys();
        let (Some(user), None) = (names.next(), names.next()) else { return };
        for database in self.config.databases.keys().filter(|d| *d != "*") {
            // With a verifier alone it takes a client's login.
            if let Ok(pool) = self.get(database, user)
                && !matches!(pool.target.secret.load().as_deref(), Some(Secret::Scram(_)))
            {
                pool.warm();
            }
        }
    }

    /// Makes way for DROP DATABASE and its kin, which PostgreSQL refuses while anybody is connected: closes the idle
    /// servers of every database that `sql` mentions. PostgreSQL waits a few seconds for those that are going
    /// (CountOtherDBBackends, procarray.c).
    pub fn make_way(&self, sql: &[u8]) {
        for pool in self.all() {
            if names(sql, pool.target.dbname.as_bytes()) {
                tracing::debug!(target: "pgsluice::pool", database = %pool.database, "closing idle servers: a statement drops, renames or copies their database");
                pool.reconnect();
            }
        }
    }

    /// Every pool there is, in order of name.
    pub fn all(&self) -> Vec<Arc<Pool>> {
        let mut all: Vec<_> =
            self.pools.lock().unwrap_or_else(std::sync::PoisonError::into_inner).values().cloned().collect();
        all.sort_by(|a, b| (&a.database, &a.user).cmp(&(&b.database, &b.user)));
        all
    }
}

/// By name of the section.
type Passwords = HashMap<String, Option<Secret>>;

fn passwords(config: &Config) -> Passwords {
    config.databases.iter().map(|(name, database)| (name.clone(), database.password.clone())).collect()
}

/// Whether `name` stands in `sql` as a word of its own.
fn names(sql: &[u8], name: &[u8]) -> bool {
    let word = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80);
    memchr::memmem::find_iter(sql, name)
        .any(|at| !word(at.checked_sub(1).and_then(|i| sql.get(i))) && !word(sql.get(at + name.len())))
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_database_is_named_by_a_whole_word() {
        assert!(names(b"DROP DATABASE app", b"app") && names(b"DROP DATABASE \"app\" WITH (FORCE)", b"app"));
        assert!(!names(b"DROP DATABASE test_app", b"app") && !names(b"DROP DATABASE apple", b"app"));
    }
}
