//! Protocol-level prepared statements shared by clients: one text, one name, on every server that needs it.
//!
//! A client's name maps to a [`Statement`]; a server keeps which ones it has, and the least recently used goes when
//! it has too many. Bounds: `max_prepared_statements` per server; texts live as long as a client names them.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};

use super::ParamSet;

/// Longest Parse that is shared; longer ones stay with the server that got them.
pub const MAX_SHARED: usize = 64 * 1024;

/// One prepared statement, whoever prepared it.
pub struct Statement {
    /// Number, unique in the process; never reused.
    pub id: u32,
    /// Name at servers.
    pub name: Box<[u8]>,
    /// SQL text, its NUL, and parameter types, as in Parse.
    pub rest: Box<[u8]>,
    /// Values of [`READING`] it is prepared under.
    reading: [Box<str>; READING.len()],
}

/// Parameters that decide what a statement's literals mean when it is prepared.
const READING: [&str; 5] = ["client_encoding", "datestyle", "intervalstyle", "standard_conforming_strings", "timezone"];

/// All shared statements of the process, by text.
pub struct StatementCache {
    texts: DashMap<u64, Weak<Statement>, FixedState>,
    hasher: FixedState,
    next: AtomicU32,
}

impl Default for StatementCache {
    fn default() -> Self {
        StatementCache {
            texts: DashMap::with_hasher(FixedState::default()),
            hasher: FixedState::default(),
            next: AtomicU32::new(1),
        }
    }
}

impl StatementCache {
    /// The statement with this text and these types, as it is read under these parameters: literals of unknown type
    /// get their value when a statement is prepared (parse_coerce.c, coerce_type), under the TimeZone of that moment.
    pub fn intern(&self, rest: &[u8], params: &ParamSet) -> Arc<Statement> {
        let reading = READING.map(|name| params.get(name).unwrap_or_default());
        let hash = self.hasher.hash_one((rest, &reading));
        if let Some(known) = self.texts.get(&hash).and_then(|w| w.upgrade())
            && *known.rest == *rest
            && known.reading.iter().map(|v| &**v).eq(reading)
        {
            return known;
        }
        let id = self.next.fetch_add(1, Relaxed);
        let statement = Arc::new(Statement {
            id,
            name: format!("pgsluice_{id}").into_bytes().into(),
            rest: rest.into(),
            reading: reading.map(Box::from),
        });
        // Two texts of one hash take turns: each keeps its own name, only the sharing is lost.
        self.texts.insert(hash, Arc::downgrade(&statement));
        if self.texts.len() >= 4096 && self.texts.len().is_power_of_two() {
            self.texts.retain(|_, w| w.strong_count() > 0);
        }
        statement
    }

    /// Statements that some client names now.
    pub fn len(&self) -> usize {
        self.texts.iter().filter(|e| e.value().strong_count() > 0).count()
    }

    /// Whether no client names any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A statement that a server has.
#[derive(Clone, Copy)]
struct Used {
    /// When it was last used, by the statements' own clock.
    at: u32,
    /// Place of its Parse among the server's requests.
    place: u32,
}

/// Which shared statements a server has, with the time of their last use.
#[derive(Default)]
pub struct ServerStatements {
    used: HashMap<u32, Used, FixedState>,
    /// It had these; a DEALLOCATE ALL or DISCARD ALL under way may take them. Closed before they are prepared again.
    doubtful: HashSet<u32, FixedState>,
    /// Closes of these are under way and may yet be skipped.
    evicted: Vec<u32>,
    clock: u32,
}

impl ServerStatements {
    /// Whether the server has the statement; notes the use.
    pub fn has(&mut self, id: u32) -> bool {
        self.clock = self.clock.wrapping_add(1);
        match self.used.get_mut(&id) {
            Some(u) => {
                u.at = self.clock;
                true
            }
            None => false,
        }
    }

    /// Notes a Parse sent to the server. Returns the statement to close when there are more than `max`.
    pub fn insert(&mut self, id: u32, max: usize) -> Option<u32> {
        self.clock = self.clock.wrapping_add(1);
        self.used.insert(id, Used { at: self.clock, place: 0 });
        if self.used.len() + self.doubtful.len() <= max.max(1) {
            return None;
        }
        if let Some(id) = self.doubtful.iter().next().copied() {
            self.doubtful.remove(&id);
            self.evicted.push(id);
            return Some(id);
        }
        let clock = self.clock;
        let oldest = self.used.iter().max_by_key(|(_, u)| clock.wrapping_sub(u.at)).map(|(id, _)| *id)?;
        self.used.remove(&oldest);
        self.evicted.push(oldest);
        Some(oldest)
    }

    /// Notes the place of the Parse just sent.
    pub fn placed(&mut self, id: u32, place: u32) {
        if let Some(u) = self.used.get_mut(&id) {
            u.place = place;
        }
    }

    /// Where its Parse stands among the server's requests.
    pub fn place(&self, id: u32) -> Option<u32> {
        self.used.get(&id).map(|u| u.place)
    }

    /// The Parse at `place` failed or was skipped. Another may have been sent since.
    pub fn parse_dropped(&mut self, id: u32, place: u32) {
        if self.place(id) == Some(place) {
            self.used.remove(&id);
        }
    }

    /// The server has been reset.
    pub fn clear(&mut self) {
        self.used.clear();
        self.doubtful.clear();
        self.evicted.clear();
    }

    /// A DEALLOCATE ALL or DISCARD ALL is about to be sent: whether it succeeds is not known yet.
    pub fn doubt(&mut self) {
        self.doubtful.extend(self.used.drain().map(|(id, _)| id));
    }

    /// The same of one statement.
    pub fn doubt_one(&mut self, id: u32) {
        if self.used.remove(&id).is_some() {
            self.doubtful.insert(id);
        }
    }

    /// A Close of the statement was skipped: the server may have it, unless it has been prepared since.
    pub fn not_closed(&mut self, id: u32) {
        if !self.used.contains_key(&id) {
            self.doubtful.insert(id);
        }
    }

    /// Whether the statement must be closed before it is prepared (again). The doubt ends with this.
    pub fn close_first(&mut self, id: u32) -> bool {
        let before = self.evicted.len();
        self.evicted.retain(|e| *e != id);
        self.doubtful.remove(&id) || self.evicted.len() < before
    }

    /// Everything asked of the server has been answered: Closes too.
    pub fn settled(&mut self) {
        self.evicted.clear();
    }

    /// DEALLOCATE ALL or DISCARD ALL succeeded: only what was sent behind it is left.
    pub fn clear_but(&mut self, later: &[u32]) {
        self.used.retain(|id, _| later.contains(id));
        self.doubtful.clear();
    }

    /// How many it has.
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_is_one_statement_while_someone_names_it() {
        let cache = StatementCache::default();
        let none = ParamSet::default();
        let a = cache.intern(b"SELECT 1\0\0\0", &none);
        assert!(Arc::ptr_eq(&a, &cache.intern(b"SELECT 1\0\0\0", &none)));
        assert!(!Arc::ptr_eq(&a, &cache.intern(b"SELECT 1\0\0\x01\0\0\0\x17", &none)), "types count");
        let tokyo = ParamSet::from_pairs([("TimeZone", "Asia/Tokyo")]);
        assert!(!Arc::ptr_eq(&a, &cache.intern(b"SELECT 1\0\0\0", &tokyo)), "the time zone of its literals counts");
        let id = a.id;
        drop(a);
        assert_ne!(cache.intern(b"SELECT 1\0\0\0", &none).id, id, "a number is never reused");
    }

    #[test]
    fn the_least_recently_used_goes() {
        let mut s = ServerStatements::default();
        assert_eq!((s.insert(1, 2), s.insert(2, 2)), (None, None));
        assert!(s.has(1));
        assert_eq!(s.insert(3, 2), Some(2));
        assert!(s.has(1) && s.has(3) && !s.has(2));
    }
}
