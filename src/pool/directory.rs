//! Users whom the configuration does not know, looked up in a database (`auth_query`).
//!
//! Each place that can be asked has one connection of the pooler's own, held by a task while there are questions: one
//! question at a time, whatever strangers try. Answers are kept for `auth_query_ttl`, those of unknown users like those of
//! known ones; logins of one user that come together share one question.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::wild::{Limits, Wild};
use crate::auth::{AuthContext, Secret};
use crate::config::{AuthQuery, Config};
use crate::net::clock::now_us;
use crate::net::{Aside, TlsFiles};
use crate::server::{Asker, ConnectError, LookupError, Params, Target, lookup};

/// Answers kept for one place.
const MAX_KNOWN: usize = 8192;
/// Questions that may wait at one place.
const MAX_WAITING: usize = 1024;
/// Places asked by way of a wildcard that have not answered yet: the names of databases come from clients.
const MAX_SOURCES: usize = 256;
/// Places in all; beyond it those that have answered are forgotten like the others.
const MAX_PLACES: usize = 2048;
/// Connections opened at once, over all places: each costs PostgreSQL a process, and strangers may name databases.
const MAX_CONNECTING: usize = 8;
/// The connection is closed when nothing was asked for so long.
const IDLE: Duration = Duration::from_secs(30);
/// An answer younger than this is not doubted: whoever tries wrong passwords makes one question a second at most.
const MIN_AGE_US: u64 = 1_000_000;
/// Between two questions that are asked because of failed logins, whoever fails.
const DOUBT_GAP_US: u64 = 50_000;

/// What questions come to.
pub const QUERY_RESULTS: [&str; 3] = ["found", "unknown", "failed"];

/// What is known of a user by having asked.
#[derive(Clone, Debug)]
pub struct Found {
    /// `None`: there is no such user.
    pub secret: Option<Secret>,
    /// When (monotonic microseconds).
    asked_us: u64,
}

/// All places that can be asked.
pub struct Directory {
    config: Arc<Config>,
    /// Those of the configuration, among them who asks.
    users: Arc<ArcSwap<BTreeMap<String, Secret>>>,
    tls: Arc<TlsFiles>,
    auth: Arc<AuthContext>,
    aside: Arc<Aside>,
    sources: Mutex<HashMap<Key, Arc<Source>>>,
    connecting: Arc<Semaphore>,
    /// Of places whose names clients give.
    wild: Limits,
    /// Questions by place in [`QUERY_RESULTS`].
    pub asked: Arc<[AtomicU64; 3]>,
}

/// The section that says where, the database there, the user and her query.
type Key = (String, String, String, String);

/// One place.
pub struct Source {
    target: Target,
    query: String,
    ttl_us: u64,
    /// After a failed connect nobody tries again so long.
    retry_us: u64,
    auth: Arc<AuthContext>,
    params: Params,
    connecting: Arc<Semaphore>,
    /// A client gave its name.
    wild: Option<Wild>,
    asked: Arc<[AtomicU64; 3]>,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    users: HashMap<String, Entry>,
    /// Of the task that asks; `None`: there is none.
    queue: Option<mpsc::Sender<Question>>,
    /// Why the last connect failed, and until when that counts.
    failure: Option<(LookupError, u64)>,
    /// No answer is doubted before this.
    doubt_us: u64,
    /// Last used.
    used_us: u64,
}

#[derive(Default)]
struct Entry {
    found: Option<Arc<Found>>,
    /// A question under way.
    pending: Option<watch::Receiver<Option<Answer>>>,
}

/// A connection, and its place among those that are open.
struct Open {
    asker: Asker,
    _held: Option<OwnedSemaphorePermit>,
}

type Answer = Result<Arc<Found>, LookupError>;

struct Question {
    user: String,
    answer: watch::Sender<Option<Answer>>,
}

/// The books are counts and copies: a panic elsewhere leaves them as good as they were.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Directory {
    /// Nobody has been asked yet.
    pub fn new(
        config: Arc<Config>,
        users: Arc<ArcSwap<BTreeMap<String, Secret>>>,
        tls: Arc<TlsFiles>,
        auth: Arc<AuthContext>,
        aside: Arc<Aside>,
    ) -> Directory {
        if config.asks() {
            auth.expect_looked_up();
        }
        let connecting = Arc::new(Semaphore::new(MAX_CONNECTING));
        let (sources, asked) = Default::default();
        Directory { config, users, tls, auth, aside, sources, connecting, wild: Limits::new(), asked }
    }

    /// Secrets were read again, perhaps those of who asks: everything is asked anew, with the new ones.
    pub fn forget(&self) {
        lock(&self.sources).clear();
    }

    /// Whom to ask for users of `database`, the console when it is none. `None`: nobody.
    ///
    /// # Errors
    /// Too many places are in use.
    pub fn source(&self, database: Option<&str>) -> Result<Option<Arc<Source>>, LookupError> {
        let rule = database.and_then(|name| self.config.database(name));
        let query = match rule {
            Some(rule) => rule.auth_query.as_ref(),
            None => self.config.auth.query.default.as_ref(),
        };
        let Some(query) = query else { return Ok(None) };
        let Some(name) = query.dbname.as_deref().or(database.filter(|_| rule.is_some())) else { return Ok(None) };
        let section = if self.config.databases.contains_key(name) { name } else { "*" };
        let Some(at) = self.config.databases.get(section) else { return Ok(None) };
        let dbname = at.dbname.as_deref().unwrap_or(name);
        let key = (section.to_owned(), dbname.to_owned(), query.user.clone(), query.query.clone());
        let mut sources = lock(&self.sources);
        if let Some(source) = sources.get(&key) {
            return Ok(Some(Arc::clone(source)));
        }
        // Sections are as many as they are; a stranger who names very many databases must shut out neither them nor those
        // that exist.
        if section == "*" && sources.len() >= MAX_SOURCES {
            let now = now_us();
            sources.retain(|_, source| source.proven() || !source.is_stale(now));
            if sources.len() >= MAX_PLACES {
                sources.retain(|_, source| !source.is_stale(now));
            }
            let strange = sources.values().filter(|source| !source.proven()).count();
            if strange >= MAX_SOURCES || sources.len() >= MAX_PLACES {
                return Err(LookupError::Busy);
            }
        }
        let wild = (section == "*").then(|| self.wild.place());
        let source = Arc::new(self.open(at, dbname, query, wild));
        sources.insert(key, Arc::clone(&source));
        Ok(Some(source))
    }

    fn open(&self, at: &crate::config::Database, dbname: &str, query: &AuthQuery, wild: Option<Wild>) -> Source {
        Source {
            target: Target {
                host: at.host.clone(),
                port: at.port,
                dbname: dbname.to_owned(),
                user: query.user.clone(),
                secret: Arc::new(ArcSwapOption::from(self.users.load().get(&query.user).cloned().map(Arc::new))),
                learnt: None,
                printed: None,
                tls: self.tls.connector(&at.pool.tls),
                aside: Arc::clone(&self.aside),
                timeout: at.pool.server_connect_timeout,
            },
            query: query.query.clone(),
            ttl_us: self.config.auth.query.ttl.as_micros() as u64,
            retry_us: at.pool.server_login_retry.as_micros() as u64,
            auth: Arc::clone(&self.auth),
            params: Params::default(),
            connecting: Arc::clone(&self.connecting),
            wild,
            asked: Arc::clone(&self.asked),
            book: Mutex::new(Book { used_us: now_us(), ..Book::default() }),
        }
    }

    /// A server did not take what is known of this user, with whom a client was let in: the next login asks anew.
    pub fn distrust(&self, database: &str, user: &str) {
        if let Ok(Some(source)) = self.source(Some(database))
            && let Some(entry) = lock(&source.book).users.get_mut(user)
        {
            entry.found = None;
        }
    }
}

impl Source {
    /// What is known of `user`; asked when it is not known or too old. Call it on a worker. Cancel safe: a question that is
    /// under way goes on for others.
    ///
    /// # Errors
    /// There is no answer to be had.
    pub async fn ask(self: &Arc<Self>, user: &str) -> Answer {
        let now = now_us();
        self.fetch(user, now, |found| now.saturating_sub(found.asked_us) < self.ttl_us).await
    }

    /// The same after a login that failed with `known`: asked anew, unless that was done a moment ago. Without an answer
    /// it stays with what was known.
    pub async fn doubt(self: &Arc<Self>, user: &str, known: &Arc<Found>) -> Arc<Found> {
        let now = now_us();
        {
            let mut book = lock(&self.book);
            let newer =
                book.users.get(user).and_then(|entry| entry.found.as_ref()).filter(|f| f.asked_us > known.asked_us);
            if let Some(newer) = newer {
                return Arc::clone(newer);
            }
            if now.saturating_sub(known.asked_us) < MIN_AGE_US || now < book.doubt_us {
                return Arc::clone(known);
            }
            book.doubt_us = now + DOUBT_GAP_US;
        }
        let fresh = self.fetch(user, now, |found| found.asked_us > known.asked_us).await;
        fresh.unwrap_or_else(|_| Arc::clone(known))
    }

    async fn fetch(self: &Arc<Self>, user: &str, now: u64, will_do: impl Fn(&Found) -> bool) -> Answer {
        if user.len() > lookup::MAX_USER || user.is_empty() {
            return Ok(Arc::new(Found { secret: None, asked_us: now }));
        }
        let mut answer = {
            let mut book = lock(&self.book);
            book.used_us = now;
            let entry = book.users.get(user);
            if let Some(found) = entry.and_then(|entry| entry.found.as_ref()).filter(|found| will_do(found)) {
                return Ok(Arc::clone(found));
            }
            // One whose asker is gone has no answer to wait for.
            match entry.and_then(|entry| entry.pending.clone()).filter(|pending| pending.has_changed().is_ok()) {
                Some(pending) => pending,
                None => self.put_question(&mut book, user, now)?,
            }
        };
        match answer.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone().unwrap_or(Err(LookupError::Busy)),
            // The task that asked is gone, with the worker's runtime.
            Err(_) => Err(LookupError::Answer("the question was interrupted")),
        }
    }

    /// Puts a question into the line, and sees to it that somebody asks.
    fn put_question(
        self: &Arc<Self>,
        book: &mut Book,
        user: &str,
        now: u64,
    ) -> Result<watch::Receiver<Option<Answer>>, LookupError> {
        if let Some((error, _)) = book.failure.as_ref().filter(|(_, until)| now < *until) {
            return Err(error.clone());
        }
        let (sender, receiver) = watch::channel(None);
        let queue = book.queue.get_or_insert_with(|| {
            let (queue, questions) = mpsc::channel(MAX_WAITING);
            tokio::task::spawn_local(Arc::clone(self).serve(questions));
            queue
        });
        let question = Question { user: user.to_owned(), answer: sender };
        if let Err(error) = queue.try_send(question) {
            if matches!(error, mpsc::error::TrySendError::Closed(_)) {
                book.queue = None;
            }
            return Err(LookupError::Busy);
        }
        book.make_room(now, self.ttl_us);
        book.users.entry(user.to_owned()).or_default().pending = Some(receiver.clone());
        Ok(receiver)
    }

    /// Asks, one question after the other, until there are none for a while.
    async fn serve(self: Arc<Self>, mut questions: mpsc::Receiver<Question>) {
        let mut asker = None;
        loop {
            // Without a connection there is nothing to stay for.
            let stay = asker.is_some() && self.wild.as_ref().is_none_or(Wild::may_idle);
            let idle = if stay { IDLE } else { Duration::ZERO };
            let next = tokio::time::timeout(idle, questions.recv()).await;
            let Ok(Some(question)) = next else {
                let mut book = lock(&self.book);
                // Put in line while the clock ran out; nothing is, once the line is gone.
                if questions.is_empty() {
                    book.queue = None;
                    return;
                }
                continue;
            };
            let answer = self.ask_server(&mut asker, &question.user).await;
            let result = answer.as_ref().map_or(2, |found| usize::from(found.secret.is_none()));
            self.asked[result].fetch_add(1, Relaxed);
            self.settle(question, &answer);
            if let Err(LookupError::Connect(_)) = answer {
                // Each of the others would wait as long for the same.
                while let Ok(question) = questions.try_recv() {
                    self.settle(question, &answer);
                }
            }
        }
    }

    /// One question to the server. A connection that has died since the last one is replaced.
    async fn ask_server(&self, asker: &mut Option<Open>, user: &str) -> Answer {
        let mut reused = asker.is_some();
        loop {
            let mut open = match asker.take() {
                Some(open) => open,
                None => self.connect().await?,
            };
            let asked_us = now_us();
            let answer = tokio::time::timeout(self.target.timeout, open.asker.ask(&self.query, user)).await;
            match answer.unwrap_or(Err(LookupError::Connect(ConnectError::Timeout))) {
                Ok(secret) => {
                    *asker = Some(open);
                    return Ok(Arc::new(Found { secret, asked_us }));
                }
                Err(LookupError::Query(fields)) => {
                    *asker = Some(open);
                    return Err(LookupError::Query(fields));
                }
                Err(LookupError::Connect(error)) if reused && !matches!(error, ConnectError::Timeout) => reused = false,
                Err(error) => return Err(error),
            }
        }
    }

    async fn connect(&self) -> Result<Open, LookupError> {
        let contact = match &self.wild {
            Some(wild) => Some((wild, wild.contact().await)),
            None => None,
        };
        let opened = {
            // Never closed.
            let _permit = self.connecting.acquire().await;
            Asker::connect(&self.target, &self.params, &self.auth).await
        };
        let held = contact.and_then(|(wild, contact)| wild.made(contact, opened.as_ref().err()));
        Ok(Open { asker: opened?, _held: held })
    }

    /// Whether it is known to exist.
    fn proven(&self) -> bool {
        self.wild.as_ref().is_none_or(Wild::proven)
    }

    /// Notes the answer and tells who waits.
    fn settle(&self, question: Question, answer: &Answer) {
        let now = now_us();
        let mut book = lock(&self.book);
        match answer {
            Ok(found) => {
                if let Some(secret) = &found.secret {
                    self.auth.learn_looked_up(secret);
                }
                book.failure = None;
                let entry = book.users.entry(question.user).or_default();
                *entry = Entry { found: Some(Arc::clone(found)), pending: None };
            }
            Err(error) => {
                if matches!(error, LookupError::Connect(_)) && !book.failing(now) {
                    book.failure = Some((error.clone(), now + self.retry_us));
                    self.warn(error);
                } else if !matches!(error, LookupError::Connect(_)) {
                    self.warn(error);
                }
                // What was known counts on, as long as it may.
                match book.users.get_mut(&question.user) {
                    Some(entry) if entry.found.is_some() => entry.pending = None,
                    _ => drop(book.users.remove(&question.user)),
                }
            }
        }
        drop(book);
        question.answer.send_replace(Some(answer.clone()));
    }

    fn warn(&self, error: &LookupError) {
        let Target { host, port, dbname, user, .. } = &self.target;
        tracing::warn!(target: "pgsluice::login", server = %format_args!("{host}:{port}"), database = %dbname.escape_debug(),
            // A function's own words may have the name in them that a stranger gave: it must not begin a line.
            auth_user = %user, error = %error.to_string().replace(char::is_control, " "), "auth_query has no answer");
    }

    fn is_stale(&self, now: u64) -> bool {
        let book = lock(&self.book);
        book.queue.is_none() && (book.users.is_empty() || now.saturating_sub(book.used_us) > self.ttl_us)
    }
}

impl Book {
    fn failing(&self, now: u64) -> bool {
        self.failure.as_ref().is_some_and(|(_, until)| now < *until)
    }

    /// Keeps to [`MAX_KNOWN`]: what is too old goes, then who does not exist, then all but the questions under way.
    fn make_room(&mut self, now: u64, ttl_us: u64) {
        type Keep = fn(&Found, bool) -> bool;
        let keeps: [Keep; 3] = [|_, fresh| fresh, |found, fresh| fresh && found.secret.is_some(), |_, _| false];
        for keep in keeps {
            if self.users.len() < MAX_KNOWN {
                return;
            }
            self.users.retain(|_, entry| {
                let found = entry.found.as_ref();
                entry.pending.is_some()
                    || found.is_some_and(|found| keep(found, now.saturating_sub(found.asked_us) < ttl_us))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wild::Contact;
    use super::*;

    fn entry(secret: Option<&str>, asked_us: u64) -> Entry {
        let secret = secret.map(|text| Secret::Plain(text.into()));
        Entry { found: Some(Arc::new(Found { secret, asked_us })), pending: None }
    }

    #[test]
    fn strangers_do_not_shut_out_a_section() {
        let toml = "auth_user = \"asking\"\n[databases.app]\nhost = \"h\"\n[databases.\"*\"]\nhost = \"h\"\n";
        let config = Arc::new(Config::from_toml(toml, std::path::Path::new("x.toml")).unwrap());
        let (tls, auth) = (TlsFiles::load(&config).unwrap(), AuthContext::new().unwrap());
        let directory =
            Directory::new(config, Arc::default(), Arc::new(tls), Arc::new(auth), Arc::new(Aside::new().unwrap()));
        let source = |name: &str| directory.source(Some(name));
        for n in 0..MAX_SOURCES {
            let busy = source(&format!("nowhere{n}")).unwrap().unwrap();
            lock(&busy.book).users.insert("someone".into(), entry(None, 0));
        }
        assert!(matches!(source("one_more"), Err(LookupError::Busy)));
        assert!(source("nowhere0").unwrap().is_some() && source("app").unwrap().is_some());
        // One that has answered leaves its place to the next, and keeps its own however long it is not used.
        let old = source("nowhere0").unwrap().unwrap();
        old.wild.as_ref().unwrap().made(Contact::free(), None);
        lock(&old.book).users.clear();
        let one_more = source("one_more").unwrap().unwrap();
        lock(&one_more.book).users.insert("someone".into(), entry(None, 0));
        assert!(matches!(source("and_more"), Err(LookupError::Busy)));
        assert!(Arc::ptr_eq(&old, &source("nowhere0").unwrap().unwrap()));
    }

    #[test]
    fn strangers_do_not_push_out_who_exists() {
        let mut book = Book::default();
        let ttl = 1_000;
        for i in 0..MAX_KNOWN {
            let known = if i % 2 == 0 { None } else { Some("secret") };
            book.users.insert(format!("user{i}"), entry(known, 10_000));
        }
        book.users.insert("old".into(), entry(Some("secret"), 0));
        book.make_room(10_100, ttl);
        assert_eq!(book.users.len(), MAX_KNOWN / 2);
        assert!(book.users.values().all(|e| e.found.as_ref().is_some_and(|f| f.secret.is_some())));
        for i in 0..MAX_KNOWN {
            book.users.insert(format!("more{i}"), entry(Some("secret"), 10_000));
        }
        let (_sender, pending) = watch::channel(None);
        book.users.insert("asked".into(), Entry { found: None, pending: Some(pending) });
        book.make_room(10_100, ttl);
        assert_eq!(book.users.len(), 1, "the question under way");
    }
}
