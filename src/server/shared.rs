//! Prepared statements shared by clients: one text, one name at every server of a pool that needs it.
//!
//! What a text means depends on more than itself: who asks (the pool), where names are looked for, how literals are
//! read, and the schema. A [`Statement`] is a text under one state of all of these. After a schema change the same
//! text is another statement with another name, so that a client that prepares anew gets a new plan, and one that does
//! not gets from the server what it would get on a connection of its own. Its *shape* is what clients have been told
//! of its parameters and columns: it tells a server on which the same text has come to mean something else.
//!
//! Bounds: [`MAX_BYTES`] of texts in the process. A text lives as long as a client names it or a server has it.

use std::hash::BuildHasher;
use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use dashmap::DashMap;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::ParamSet;

/// Longest Parse that is shared; longer ones stay with the server that got them.
pub const MAX_SHARED: usize = 64 * 1024;
/// Bytes of all shared texts of the process.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;
/// What a statement takes besides its text, about.
const OVERHEAD: usize = 256;

/// What the names of shared statements begin with at every server of this process: no client can guess them, so none meets
/// one by chance, or by its own counting.
pub struct Prefix(Box<[u8]>);

impl Prefix {
    /// The name of statement `id`.
    pub fn name(&self, id: u32) -> Vec<u8> {
        [&self.0[..], id.to_string().as_bytes()].concat()
    }

    /// Whether a client means such a name, which it may have read in pg_prepared_statements.
    #[inline]
    pub fn begins(&self, name: &[u8]) -> bool {
        name.starts_with(&self.0)
    }

    /// A name like this one that no statement has; [`Self::reveal`] brings the client's own back.
    pub fn hide(&self, name: &[u8]) -> Vec<u8> {
        [&self.0[..], HIDDEN, name.get(self.0.len()..).unwrap_or_default()].concat()
    }

    /// Where such a name stands in `text`, and the number behind it; an error, or a hidden one, has none.
    pub fn find(&self, text: &[u8]) -> Option<(Range<usize>, Option<u32>)> {
        let at = memchr::memmem::find(text, &self.0)?;
        let number = &text[at + self.0.len()..];
        let digits = number.iter().position(|b| !b.is_ascii_digit()).unwrap_or(number.len());
        let id = std::str::from_utf8(&number[..digits]).ok().and_then(|n| n.parse().ok());
        Some((at..at + self.0.len() + digits, id))
    }

    /// `text` with the client's name in place of a hidden one; `None` when there is none.
    pub fn reveal(&self, text: &[u8]) -> Option<Vec<u8>> {
        let (name, _) = self.find(text)?;
        let rest = text[name.end..].strip_prefix(HIDDEN)?;
        Some([&text[..name.end], rest].concat())
    }
}

impl Default for Prefix {
    fn default() -> Self {
        // Keyed by random numbers of the operating system.
        let random = std::hash::RandomState::new().hash_one(0);
        Prefix(format!("pgsluice_{:08x}_", random >> 32).into_bytes().into())
    }
}

/// Stands where a number would.
const HIDDEN: &[u8] = b"?";

/// Parameters that decide what a statement's names and literals mean when it is prepared.
const READING: [&str; 6] =
    ["client_encoding", "datestyle", "intervalstyle", "search_path", "standard_conforming_strings", "timezone"];

/// Values of [`READING`].
type Reading = [Box<str>; READING.len()];

/// One prepared statement, whoever prepared it.
pub struct Statement {
    /// Number, unique in the process; never reused.
    pub id: u32,
    /// Name at servers.
    pub name: Box<[u8]>,
    /// SQL text, its NUL, and parameter types, as in Parse.
    pub rest: Box<[u8]>,
    /// What its text names at the server: prepared there before it.
    pub needs: Option<Arc<Statement>>,
    /// The text it is found by, when comments were left out.
    key: Option<Box<[u8]>>,
    reading: Arc<Reading>,
    pool: u32,
    /// State of the schema when it was first prepared.
    epoch: u32,
    stale: AtomicBool,
    /// Parses of clients that meant it, and client names that mean it now.
    parses: AtomicU32,
    clients: AtomicU32,
    /// Hashes of what clients have been told; 0: nothing yet.
    parameters: AtomicU64,
    result: AtomicU64,
    hash: u64,
    home: Weak<Texts>,
}

impl Statement {
    /// Whether a Parse of its text would give the same, as far as is known.
    pub fn current(&self, epoch: u32) -> bool {
        self.epoch == epoch && !self.stale.load(Relaxed)
    }

    /// Its text means something else by now: whoever prepares it anew gets another statement.
    pub fn outlive(&self) {
        self.stale.store(true, Relaxed);
    }

    /// Whether clients have been told its parameters or columns.
    pub fn described(&self) -> bool {
        self.parameters.load(Relaxed) | self.result.load(Relaxed) != 0
    }

    /// Whether these parameters are what clients know; the first ones are.
    pub fn takes(&self, hash: u64) -> bool {
        agree(&self.parameters, hash)
    }

    /// Whether these columns are what clients know; the first ones are.
    pub fn gives(&self, hash: u64) -> bool {
        agree(&self.result, hash)
    }

    /// Whether nobody would miss it at a server: prepared once, and no client names it; or its text means something
    /// else by now.
    pub fn expendable(&self) -> bool {
        self.stale.load(Relaxed) || self.parses.load(Relaxed) <= 1 && self.clients.load(Relaxed) == 0
    }

    /// Bytes it is charged with.
    pub fn bytes(&self) -> usize {
        OVERHEAD + self.rest.len() + self.key.as_ref().map_or(0, |k| k.len())
    }

    fn key(&self) -> &[u8] {
        self.key.as_deref().unwrap_or(&self.rest)
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.bytes.fetch_sub(self.bytes(), Relaxed);
            home.by_hash.remove_if(&self.hash, |_, known| known.strong_count() == 0);
        }
    }
}

fn agree(known: &AtomicU64, hash: u64) -> bool {
    let hash = hash.max(1);
    match known.compare_exchange(0, hash, Relaxed, Relaxed) {
        Ok(_) => true,
        Err(known) => known == hash,
    }
}

/// A client's name for a statement, as far as the statement knows.
pub struct Registered(Arc<Statement>);

impl Registered {
    /// Counts one more name.
    pub fn new(statement: Arc<Statement>) -> Self {
        statement.clients.fetch_add(1, Relaxed);
        Registered(statement)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Relaxed);
    }
}

impl Deref for Registered {
    type Target = Arc<Statement>;
    fn deref(&self) -> &Arc<Statement> {
        &self.0
    }
}

/// Where statements of one pool are prepared, and the state of the schema there.
#[derive(Clone)]
pub struct Schema {
    pool: u32,
    /// Of the database: all its pools share it.
    epoch: Arc<AtomicU32>,
    texts: Arc<Texts>,
}

impl Schema {
    /// What names at servers begin with.
    pub fn prefix(&self) -> &Prefix {
        &self.texts.prefix
    }

    /// The state of the schema.
    pub fn now(&self) -> u32 {
        self.epoch.load(Relaxed)
    }

    /// A state that nobody else is in: that of a transaction that changes the schema.
    pub fn moment(&self) -> u32 {
        self.texts.moment()
    }

    /// The schema has changed.
    pub fn changed(&self) {
        self.epoch.store(self.moment(), Relaxed);
    }
}

/// A text to be prepared.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    /// SQL text, its NUL, and parameter types, as in Parse.
    pub rest: &'a [u8],
    /// The same without comments, when that is known to mean the same.
    pub key: Option<&'a [u8]>,
    /// What it names.
    pub needs: Option<&'a Arc<Statement>>,
}

#[derive(Default)]
struct Texts {
    by_hash: DashMap<u64, Weak<Statement>, FixedState>,
    hasher: FixedState,
    prefix: Prefix,
    bytes: AtomicUsize,
    /// Last number of a statement, of a state of a schema, of a pool.
    ids: AtomicU32,
    moments: AtomicU32,
    pools: AtomicU32,
    epochs: Mutex<HashMap<Box<str>, Weak<AtomicU32>>>,
}

impl Texts {
    fn moment(&self) -> u32 {
        self.moments.fetch_add(1, Relaxed) + 1
    }
}

/// Bytes counted with those of shared statements, until it is dropped.
pub struct Charge {
    home: Arc<Texts>,
    bytes: usize,
}

impl Charge {
    /// Counts this many instead. `false`: there are too many bytes in all, and nothing has changed.
    pub fn change(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 && self.home.bytes.fetch_add(more, Relaxed) + more > MAX_BYTES {
            self.home.bytes.fetch_sub(more, Relaxed);
            return false;
        }
        self.home.bytes.fetch_sub(self.bytes.saturating_sub(bytes), Relaxed);
        self.bytes = bytes;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.home.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

/// All shared statements of the process, by text.
#[derive(Default)]
pub struct StatementCache(Arc<Texts>);

impl StatementCache {
    /// A new pool on `database` (host, port and name).
    pub fn schema(&self, database: &str) -> Schema {
        let mut epochs = self.0.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let known = epochs.get(database).and_then(Weak::upgrade);
        let epoch = known.unwrap_or_else(|| {
            epochs.retain(|_, e| e.strong_count() > 0);
            let epoch = Arc::new(AtomicU32::new(self.0.moment()));
            epochs.insert(database.into(), Arc::downgrade(&epoch));
            epoch
        });
        let pool = self.0.pools.fetch_add(1, Relaxed);
        Schema { pool, epoch, texts: Arc::clone(&self.0) }
    }

    /// The statement with this text and these types, as it is read under these parameters (literals of unknown type
    /// get their value when a statement is prepared, parse_coerce.c, coerce_type) in this state of the schema.
    /// `None` when there are too many bytes of them.
    pub fn intern(&self, text: Text<'_>, params: &ParamSet, schema: &Schema, epoch: u32) -> Option<Arc<Statement>> {
        self.find(text, READING.map(|name| params.get(name).unwrap_or_default()), schema, epoch, None)
    }

    /// What a Parse of the same text would give now.
    pub fn again(&self, old: &Statement, schema: &Schema, epoch: u32) -> Option<Arc<Statement>> {
        let reading = std::array::from_fn(|i| &*old.reading[i]);
        let text = Text { rest: &old.rest, key: old.key.as_deref(), needs: old.needs.as_ref() };
        self.find(text, reading, schema, epoch, Some(&old.reading))
    }

    fn find(
        &self,
        text: Text<'_>,
        reading: [&str; READING.len()],
        schema: &Schema,
        epoch: u32,
        owned: Option<&Arc<Reading>>,
    ) -> Option<Arc<Statement>> {
        let key = text.key.unwrap_or(text.rest);
        let hash = self.0.hasher.hash_one((key, &reading, schema.pool));
        // No guard of the map may be held where a statement can be dropped.
        let known = self.0.by_hash.get(&hash).and_then(|w| w.upgrade());
        let known = known.filter(|s| {
            s.current(epoch) && s.pool == schema.pool && s.key() == key && s.reading.iter().map(|v| &**v).eq(reading)
        });
        if let Some(known) = known {
            known.parses.fetch_add(1, Relaxed);
            return Some(known);
        }
        let id = self.0.ids.fetch_add(1, Relaxed) + 1;
        let statement = Arc::new(Statement {
            id,
            name: self.0.prefix.name(id).into(),
            rest: text.rest.into(),
            needs: text.needs.cloned(),
            key: text.key.filter(|k| *k != text.rest).map(Box::from),
            reading: owned.map_or_else(|| Arc::new(reading.map(Box::from)), Arc::clone),
            pool: schema.pool,
            epoch,
            stale: AtomicBool::new(false),
            parses: AtomicU32::new(1),
            clients: AtomicU32::new(0),
            parameters: AtomicU64::new(0),
            result: AtomicU64::new(0),
            hash,
            home: Arc::downgrade(&self.0),
        });
        if self.0.bytes.fetch_add(statement.bytes(), Relaxed) + statement.bytes() > MAX_BYTES {
            return None;
        }
        // Two texts of one hash take turns: each keeps its own name, only the sharing is lost.
        self.0.by_hash.insert(hash, Arc::downgrade(&statement));
        Some(statement)
    }

    /// Room for a text that one client keeps: counted with all others.
    pub fn charge(&self) -> Charge {
        Charge { home: Arc::clone(&self.0), bytes: 0 }
    }

    /// Statements that some client names or some server has now.
    pub fn len(&self) -> usize {
        self.0.by_hash.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(rest: &[u8]) -> Text<'_> {
        Text { rest, key: None, needs: None }
    }

    #[test]
    fn one_text_is_one_statement_while_someone_has_it() {
        let cache = StatementCache::default();
        let (schema, none) = (cache.schema("a"), ParamSet::default());
        let find = |rest: &[u8], params: &ParamSet| cache.intern(text(rest), params, &schema, schema.now()).unwrap();
        let a = find(b"SELECT 1\0\0\0", &none);
        assert!(Arc::ptr_eq(&a, &find(b"SELECT 1\0\0\0", &none)));
        assert!(!Arc::ptr_eq(&a, &find(b"SELECT 1\0\0\x01\0\0\0\x17", &none)), "types count");
        let tokyo = ParamSet::from_pairs([("TimeZone", "Asia/Tokyo")]);
        assert!(!Arc::ptr_eq(&a, &find(b"SELECT 1\0\0\0", &tokyo)), "the time zone of its literals counts");
        let path = ParamSet::from_pairs([("search_path", "tenant_1")]);
        assert!(!Arc::ptr_eq(&a, &find(b"SELECT 1\0\0\0", &path)), "where its names are looked for counts");
        let id = a.id;
        drop(a);
        assert_eq!((cache.len(), cache.bytes()), (0, 0), "nothing is kept that nobody has");
        assert_ne!(find(b"SELECT 1\0\0\0", &none).id, id, "a number is never reused");
    }

    #[test]
    fn comments_left_out_of_the_key_share_a_statement_with_the_first_text() {
        let cache = StatementCache::default();
        let (schema, none) = (cache.schema("a"), ParamSet::default());
        let find = |rest: &[u8]| {
            let text = Text { rest, key: Some(b"SELECT 1\0\0\0"), needs: None };
            cache.intern(text, &none, &schema, schema.now()).unwrap()
        };
        let a = find(b"SELECT 1 /* a */\0\0\0");
        assert!(Arc::ptr_eq(&a, &find(b"SELECT 1 /* b */\0\0\0")));
        assert_eq!(&*a.rest, b"SELECT 1 /* a */\0\0\0");
    }

    #[test]
    fn a_changed_schema_makes_another_statement_in_every_pool_of_the_database() {
        let cache = StatementCache::default();
        let (one, two, other) = (cache.schema("a"), cache.schema("a"), cache.schema("b"));
        let none = ParamSet::default();
        let find = |s: &Schema| cache.intern(text(b"SELECT 1\0\0\0"), &none, s, s.now()).unwrap();
        let old = [&one, &two, &other].map(find);
        one.changed();
        let new = [&one, &two, &other].map(find);
        assert_eq!([0, 1, 2].map(|i| Arc::ptr_eq(&old[i], &new[i])), [false, false, true]);
        new[2].outlive();
        assert!(!Arc::ptr_eq(&new[2], &find(&other)), "an error told that it is stale");
    }

    #[test]
    fn a_name_at_servers_is_found_and_hidden() {
        let prefix = Prefix::default();
        let name = prefix.name(17);
        assert!(prefix.begins(&name) && !prefix.begins(b"pgsluice_17"));
        let text = [b"statement \"", &name[..], b"\" is not there"].concat();
        let (at, id) = prefix.find(&text).unwrap();
        assert_eq!((&text[at], id), (&name[..], Some(17)));
        assert!(prefix.reveal(&text).is_none());
        let hidden = prefix.hide(&name);
        assert_eq!(prefix.find(&hidden).unwrap().1, None);
        assert_eq!(prefix.reveal(&hidden).unwrap(), name);
        assert_eq!(prefix.reveal(&prefix.hide(&hidden)).unwrap(), hidden);
    }

    #[test]
    fn there_are_only_so_many_bytes_of_texts() {
        let cache = StatementCache::default();
        let (schema, none) = (cache.schema("a"), ParamSet::default());
        let mut kept = Vec::new();
        for i in 0..2 * MAX_BYTES / MAX_SHARED {
            let rest = [i.to_string().as_bytes(), &[b' '; MAX_SHARED - 8]].concat();
            match cache.intern(text(&rest), &none, &schema, schema.now()) {
                Some(s) => kept.push(s),
                None => break,
            }
        }
        assert!(kept.len() < MAX_BYTES / MAX_SHARED + 1);
        assert!(cache.bytes() <= MAX_BYTES, "what was refused is not counted");
        drop(kept);
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
    }

    #[test]
    fn a_charge_counts_until_it_is_dropped() {
        let cache = StatementCache::default();
        let (mut a, mut b) = (cache.charge(), cache.charge());
        assert!(a.change(MAX_BYTES - 10) && b.change(10) && cache.bytes() == MAX_BYTES);
        assert!(!b.change(11) && cache.bytes() == MAX_BYTES, "refused, and nothing has changed");
        assert!(a.change(10) && b.change(11) && cache.bytes() == 21);
        drop((a, b));
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn what_clients_were_told_first_is_what_counts() {
        let cache = StatementCache::default();
        let schema = cache.schema("a");
        let s = cache.intern(text(b"SELECT 1\0\0\0"), &ParamSet::default(), &schema, schema.now()).unwrap();
        assert!(!s.described());
        assert!(s.gives(5) && s.gives(5) && !s.gives(6) && s.described());
        assert!(s.takes(0) && s.takes(0) && !s.takes(2));
    }
}
