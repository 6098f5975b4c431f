//! Protocol-level prepared statements shared by clients: one text, one name, on every server that needs it.
//!
//! A client's name maps to a [`Statement`]; a server keeps which ones it has, and the least recently used goes when
//! it has too many. Bounds: `max_prepared_statements` per server; texts live as long as a client names them.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

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
}

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
    /// The statement with this text and these types.
    pub fn intern(&self, rest: &[u8]) -> Arc<Statement> {
        let hash = self.hasher.hash_one(rest);
        if let Some(known) = self.texts.get(&hash).and_then(|w| w.upgrade())
            && *known.rest == *rest
        {
            return known;
        }
        let id = self.next.fetch_add(1, Relaxed);
        let statement = Arc::new(Statement {
            id,
            name: format!("pgsluice_{id}").into_bytes().into(),
            rest: rest.into(),
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
        self.texts
            .iter()
            .filter(|e| e.value().strong_count() > 0)
            .count()
    }

    /// Whether no client names any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Which shared statements a server has, with the time of their last use.
#[derive(Default)]
pub struct ServerStatements {
    used: HashMap<u32, u32, FixedState>,
    clock: u32,
}

impl ServerStatements {
    /// Whether the server has the statement; notes the use.
    pub fn has(&mut self, id: u32) -> bool {
        self.clock = self.clock.wrapping_add(1);
        match self.used.get_mut(&id) {
            Some(t) => {
                *t = self.clock;
                true
            }
            None => false,
        }
    }

    /// Notes a Parse sent to the server. Returns the statement to close when there are more than `max`.
    pub fn insert(&mut self, id: u32, max: usize) -> Option<u32> {
        self.clock = self.clock.wrapping_add(1);
        self.used.insert(id, self.clock);
        if self.used.len() <= max.max(1) {
            return None;
        }
        let clock = self.clock;
        let oldest = self
            .used
            .iter()
            .max_by_key(|(_, t)| clock.wrapping_sub(**t))
            .map(|(id, _)| *id)?;
        self.used.remove(&oldest);
        Some(oldest)
    }

    /// The server does not have it after all (its Parse failed, or was skipped).
    pub fn remove(&mut self, id: u32) {
        self.used.remove(&id);
    }

    /// DISCARD ALL, DEALLOCATE ALL.
    pub fn clear(&mut self) {
        self.used.clear();
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
        let a = cache.intern(b"SELECT 1\0\0\0");
        assert!(Arc::ptr_eq(&a, &cache.intern(b"SELECT 1\0\0\0")));
        assert!(
            !Arc::ptr_eq(&a, &cache.intern(b"SELECT 1\0\0\x01\0\0\0\x17")),
            "types count"
        );
        let id = a.id;
        drop(a);
        assert_ne!(
            cache.intern(b"SELECT 1\0\0\0").id,
            id,
            "a number is never reused"
        );
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
