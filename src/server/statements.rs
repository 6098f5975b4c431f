//! Which shared statements a server has, and which of them goes when there are too many.
//!
//! Bounds: `max_prepared_statements` per server; of these, texts up to `KEPT_TEXT` live as long as the server has them,
//! so that a client that prepares and closes the same text again and again finds it there.

use std::sync::{Arc, Weak};

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};

use super::Statement;

/// Longest text kept for a server's sake when no client names it any more.
const KEPT_TEXT: usize = 4 * 1024;

/// What a server says of a statement, held against what clients have been told of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Shape {
    /// Not compared yet.
    #[default]
    Unknown,
    /// A Describe is under way at this place.
    Asked(u32),
    /// The same; should it change from now on, the server says so itself (0A000).
    Same,
    /// Something else: the schema has changed since.
    Other,
}

/// A statement that a server has.
struct Used {
    /// When it was last used, by the statements' own clock.
    at: u32,
    /// Place of its Parse among the server's requests.
    place: u32,
    shape: Shape,
    statement: Weak<Statement>,
    /// Keeps a short text alive.
    _kept: Option<Arc<Statement>>,
}

impl Used {
    /// When it goes: those that nobody would miss before the others, then the least recently used.
    fn rank(&self, clock: u32) -> (bool, u32) {
        let expendable = self.statement.upgrade().is_none_or(|s| s.expendable());
        (expendable, clock.wrapping_sub(self.at))
    }
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
    pub fn insert(&mut self, statement: &Arc<Statement>, max: usize) -> Option<u32> {
        self.clock = self.clock.wrapping_add(1);
        let kept = (statement.rest.len() <= KEPT_TEXT).then(|| Arc::clone(statement));
        let used =
            Used { at: self.clock, place: 0, shape: Shape::Unknown, statement: Arc::downgrade(statement), _kept: kept };
        self.used.insert(statement.id, used);
        if self.used.len() + self.doubtful.len() <= max.max(1) {
            return None;
        }
        if let Some(id) = self.doubtful.iter().next().copied() {
            self.doubtful.remove(&id);
            self.evicted.push(id);
            return Some(id);
        }
        let clock = self.clock;
        let others = self.used.iter().filter(|(id, _)| **id != statement.id);
        let oldest = others.max_by_key(|(_, u)| u.rank(clock)).map(|(id, _)| *id)?;
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

    /// The statement, while it is alive.
    pub fn get(&self, id: u32) -> Option<Arc<Statement>> {
        self.used.get(&id)?.statement.upgrade()
    }

    /// How its shape compares with what clients know; `None` when the server does not have it.
    pub fn shape(&self, id: u32) -> Option<Shape> {
        self.used.get(&id).map(|u| u.shape)
    }

    /// Notes how its shape compares.
    pub fn set_shape(&mut self, id: u32, shape: Shape) {
        if let Some(u) = self.used.get_mut(&id) {
            u.shape = shape;
        }
    }

    /// The Parse at `place` failed or was skipped. Another may have been sent since.
    pub fn parse_dropped(&mut self, id: u32, place: u32) {
        if self.place(id) == Some(place) {
            self.used.remove(&id);
        }
    }

    /// The server has said that it has none of this number.
    pub fn lost(&mut self, id: u32) {
        self.used.remove(&id);
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
    use super::super::{ParamSet, StatementCache, shared::Registered, shared::Text};
    use super::*;

    fn statements(n: usize) -> (StatementCache, Vec<Registered>) {
        let cache = StatementCache::default();
        let schema = cache.schema("a");
        let make = |i| {
            let rest = format!("SELECT {i}\0\0\0").into_bytes();
            let text = Text { rest: &rest, key: None, needs: None };
            Registered::new(cache.intern(text, &ParamSet::default(), &schema, schema.now()).unwrap())
        };
        let all = (0..n).map(make).collect();
        (cache, all)
    }

    #[test]
    fn the_least_recently_used_goes() {
        let (_cache, all) = statements(3);
        let mut s = ServerStatements::default();
        assert_eq!((s.insert(&all[0], 2), s.insert(&all[1], 2)), (None, None));
        assert!(s.has(all[0].id));
        assert_eq!(s.insert(&all[2], 2), Some(all[1].id));
        assert!(s.has(all[0].id) && s.has(all[2].id) && !s.has(all[1].id));
    }

    #[test]
    fn statements_seen_once_and_closed_go_before_those_in_use() {
        let (_cache, mut all) = statements(20);
        let mut s = ServerStatements::default();
        let hot: Vec<_> = all.drain(..4).collect();
        for h in &hot {
            assert_eq!(s.insert(h, 5), None);
        }
        let mut last = None;
        for once in all {
            assert_eq!(s.insert(&once, 5), last);
            last = Some(once.id);
        }
        assert!(hot.iter().all(|h| s.has(h.id)));
    }

    #[test]
    fn a_text_that_was_closed_is_found_again_while_a_server_has_it() {
        let (cache, mut all) = statements(1);
        let mut s = ServerStatements::default();
        s.insert(&all[0], 5);
        let id = all[0].id;
        all.clear();
        assert_eq!((cache.len(), s.get(id).map(|s| s.id)), (1, Some(id)));
        s.clear();
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
    }
}
