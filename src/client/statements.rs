//! What one client calls its prepared statements and portals.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::rename::Command;
use crate::insight::TagSet;
use crate::server;
use crate::sql::{self, effect};

/// Names a client may have prepared at once.
pub const MAX_NAMES: usize = 10_000;
/// Bytes of these names and of the texts behind them.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Named portals remembered for insight.
const MAX_PORTALS: usize = 64;

/// Effects of statements that reset parameters.
const RESETS: u16 = effect::RESET | effect::DISCARD_ALL;

/// What insight knows of a statement.
#[derive(Clone, Copy, Default)]
pub struct Meta {
    /// Its analysis; for a portal, with the parameters mixed in.
    pub statement: sql::Statement,
    /// Tags of its text.
    pub tags: TagSet,
    /// Whether the text has been analysed.
    pub known: bool,
}

/// One name.
pub struct Named {
    /// The shared statement; `None` where names are passed through.
    pub shared: Option<server::Registered>,
    /// Which Parse made this: answers refer to it.
    pub registration: u32,
    /// A Close is under way.
    pub closing: bool,
    /// It is a simple query's DEALLOCATE: its answer comes by itself.
    pub by_query: bool,
    /// Executed, it ends all names (DEALLOCATE ALL, DISCARD ALL).
    pub forgets: bool,
    /// It is a DEALLOCATE or EXECUTE of a name.
    pub command: Option<Box<Command>>,
    /// What is prepared in its place: the number of the statement that is named there, and the text with its name.
    pub instead: Option<(u32, server::Registered)>,
    /// Place of its last Parse or Close among the server's requests.
    pub place: u32,
    /// For insight.
    pub meta: Meta,
    /// Bytes it is charged with.
    cost: usize,
}

impl Named {
    /// Whether it means this statement, or is it at servers.
    pub fn is(&self, id: u32) -> bool {
        let instead = self.instead.as_ref().map(|(_, s)| s);
        self.shared.iter().chain(instead).any(|s| s.id == id)
    }

    /// What it is at servers.
    pub fn at_servers(&self) -> Option<Arc<server::Statement>> {
        let instead = self.instead.as_ref().map(|(_, s)| s);
        instead.or(self.shared.as_ref()).map(|s| Arc::clone(s))
    }

    fn new(shared: Option<server::Registered>, registration: u32, cost: usize) -> Self {
        Named {
            shared,
            registration,
            closing: false,
            by_query: false,
            forgets: false,
            command: None,
            instead: None,
            place: 0,
            meta: Meta::default(),
            cost,
        }
    }
}

/// An unnamed statement that names another.
pub struct UnnamedCommand {
    /// What it does.
    pub command: Command,
    /// Text and types, as in Parse.
    pub rest: Box<[u8]>,
    /// It has been made anew with another name in its text.
    pub changed: bool,
    /// Place of its Parse among the server's requests.
    pub place: u32,
    /// Place of what ends it: a Query, a Close.
    pub end: Option<u32>,
}

/// What executing a portal is about.
#[derive(Clone, Copy)]
pub struct Naming {
    /// The registration that is named.
    pub registration: u32,
    /// It ends with it.
    pub ends: bool,
    /// All end.
    pub all: bool,
}

/// Names of one client. Boxed on first use.
#[derive(Default)]
pub struct Names {
    /// By name, the latest last: the ones before are being closed, and come back when the server skips the Close.
    named: HashMap<Box<[u8]>, Vec<Named>, RandomState>,
    /// The unnamed statement.
    pub unnamed: Meta,
    portal: Meta,
    portals: Vec<(Box<[u8]>, Meta)>,
    next: u32,
    /// Bytes of names and texts.
    bytes: usize,
    /// The state of the schema inside a transaction that has changed it; 0 outside.
    pub moment: u32,
    /// The transaction has created something: what was prepared since may mean it, and it goes with a rollback.
    pub created: bool,
    /// The statement whose portal the next Describe is about, when its columns are to be compared; 0 for none.
    pub describing: u32,
    /// Hash of the parameters told last.
    pub told: u64,
    /// The unnamed statement when it is a DEALLOCATE or EXECUTE.
    pub unnamed_command: Option<Box<UnnamedCommand>>,
    /// Executed, the unnamed statement ends all names.
    pub unnamed_forgets: bool,
    /// There has been such a statement.
    pub commands: bool,
    /// There has been one that resets parameters.
    resets: bool,
    /// Portals of DEALLOCATE and EXECUTE.
    naming: Vec<(Box<[u8]>, Naming)>,
    /// The name that was to be ended last.
    pub ended: Box<[u8]>,
}

impl Names {
    /// Whether nothing has a name.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// The statement behind a name.
    pub fn get(&mut self, name: &[u8]) -> Option<&mut Named> {
        self.named.get_mut(name)?.last_mut().filter(|n| !n.closing)
    }

    /// Registers a Parse. `None` when the name is in use (42P05) or there are too many names.
    pub fn insert(&mut self, name: &[u8], shared: Option<Arc<server::Statement>>) -> Option<u32> {
        let cost = name.len() + shared.as_ref().map_or(0, |s| s.bytes());
        if self.get(name).is_some() || self.full(cost) {
            return None;
        }
        self.next = self.next.wrapping_add(1).max(1);
        self.bytes += cost;
        let named = Named::new(shared.map(server::Registered::new), self.next, cost);
        self.named.entry_ref(name).or_default().push(named);
        Some(self.next)
    }

    /// Replaces whatever the name meant (names passed through: the server decides).
    pub fn replace(&mut self, name: &[u8]) {
        if !self.full(name.len()) {
            self.bytes += name.len();
            let mut new = Named::new(None, 0, name.len());
            // The server may keep the one before: see `learn`.
            new.meta = self.meta(name);
            let old = self.named.insert(name.into(), vec![new]);
            self.bytes -= old.iter().flatten().map(|n| n.cost).sum::<usize>();
        }
    }

    /// The name means this statement from now on.
    pub fn renew(&mut self, name: &[u8], statement: &Arc<server::Statement>) {
        let Some(n) = self.get(name) else { return };
        let new = server::Registered::new(Arc::clone(statement));
        match &mut n.instead {
            Some((_, instead)) => *instead = new,
            None => n.shared = Some(new),
        }
    }

    /// All names, those that are being closed too.
    pub fn all(&mut self) -> impl Iterator<Item = (&[u8], &mut Named)> {
        self.named.iter_mut().flat_map(|(name, all)| all.iter_mut().map(|n| (&**name, n)))
    }

    /// The latest that was said of a name: it may be being closed.
    pub fn last(&self, name: &[u8]) -> Option<&Named> {
        self.named.get(name)?.last()
    }

    /// Notes the place of the Parse or Close of a name just pushed.
    pub fn placed(&mut self, name: &[u8], place: u32) {
        if let Some(n) = self.named.get_mut(name).and_then(|all| all.last_mut()) {
            n.place = place;
        }
    }

    /// A Close was seen: the name is free again once it is answered. Returns its registration.
    pub fn close(&mut self, name: &[u8]) -> u32 {
        self.named.get_mut(name).and_then(|all| all.last_mut()).map_or(0, |n| {
            n.closing = true;
            n.registration
        })
    }

    /// A DEALLOCATE at `place` is about to be sent that ends a registration if it succeeds.
    pub fn end(&mut self, registration: u32, place: u32, by_query: bool) {
        if let Some(n) = self.named.values_mut().flatten().find(|n| n.registration == registration) {
            (n.closing, n.place, n.by_query) = (true, place, by_query);
        }
    }

    /// The DEALLOCATE or EXECUTE that a statement is.
    pub fn command(&mut self, statement: &[u8]) -> Option<Command> {
        match statement {
            _ if !self.commands => None,
            [] => self.unnamed_command.as_ref().map(|c| c.command.clone()),
            name => self.get(name).and_then(|n| n.command.as_deref().cloned()),
        }
    }

    /// What executing a statement that names none is about: all names, or nothing.
    pub fn naming_of_all(&mut self, statement: &[u8]) -> Option<Naming> {
        let forgets = match statement {
            [] => self.unnamed_forgets,
            name => self.get(name).is_some_and(|n| n.forgets),
        };
        forgets.then_some(Naming { registration: 0, ends: false, all: true })
    }

    /// What ends the unnamed statement has been sent.
    pub fn end_unnamed(&mut self, place: u32) {
        if let Some(c) = &mut self.unnamed_command {
            c.end.get_or_insert(place);
        }
    }

    /// What made or ended the unnamed statement was skipped.
    pub fn unnamed_dropped(&mut self, place: u32) {
        if let Some(c) = &mut self.unnamed_command {
            c.end = c.end.filter(|end| *end != place);
        }
        if self.unnamed_command.as_ref().is_some_and(|c| c.place == place) {
            self.unnamed_command = None;
        }
    }

    /// A Bind: executing the portal is about this registration.
    pub fn bind_naming(&mut self, portal: &[u8], naming: Option<Naming>) {
        self.naming.retain(|(p, _)| **p != *portal);
        if let Some(naming) = naming.filter(|_| self.naming.len() < MAX_PORTALS) {
            self.naming.push((portal.into(), naming));
        }
    }

    /// An Execute: what it is about.
    pub fn naming(&self, portal: &[u8]) -> Option<Naming> {
        self.naming.iter().find(|(p, _)| **p == *portal).map(|(_, n)| *n)
    }

    fn keep(&mut self, keep: impl Fn(&Named) -> bool) {
        let bytes = &mut self.bytes;
        self.named.retain(|_, all| {
            all.retain(|n| {
                let kept = keep(n);
                *bytes -= if kept { 0 } else { n.cost };
                kept
            });
            !all.is_empty()
        });
    }

    /// A Close was answered.
    pub fn closed(&mut self, registration: u32) {
        self.keep(|n| n.registration != registration || !n.closing);
    }

    /// The server skipped the Close: the name stays.
    pub fn close_dropped(&mut self, registration: u32) {
        if let Some(n) = self.named.values_mut().flatten().find(|n| n.registration == registration) {
            (n.closing, n.by_query) = (false, false);
        }
    }

    /// The Parse failed or was skipped: the name was never made.
    pub fn parse_dropped(&mut self, registration: u32) {
        self.keep(|n| n.registration != registration);
    }

    /// DEALLOCATE ALL or DISCARD ALL succeeded: only the registrations behind it are left.
    pub fn clear_but(&mut self, later: &[u32]) {
        self.keep(|n| later.contains(&n.registration));
    }

    /// A DEALLOCATE ALL or DISCARD ALL is about to be sent: names are free, if it succeeds.
    pub fn close_all(&mut self) {
        self.named.values_mut().flatten().for_each(|n| n.closing = true);
    }

    /// It failed.
    pub fn reopen_all(&mut self) {
        self.named.values_mut().flatten().for_each(|n| n.closing = false);
    }

    /// Whether the name is one that no server but the client's own knows.
    pub fn is_shared(&self, name: &[u8]) -> bool {
        self.named.get(name).and_then(|all| all.last()).is_some_and(|n| n.shared.is_some())
    }

    /// Whether there is no room for another name that costs this.
    pub fn full(&self, cost: usize) -> bool {
        self.named.len() >= MAX_NAMES || self.bytes + cost > MAX_BYTES
    }

    /// What is known of a statement by name.
    pub fn meta(&self, name: &[u8]) -> Meta {
        if name.is_empty() {
            self.unnamed
        } else {
            self.named.get(name).and_then(|all| all.last()).map(|n| n.meta).unwrap_or_default()
        }
    }

    /// Whether executing a statement resets parameters.
    #[inline]
    pub fn resets(&self, statement: &[u8]) -> bool {
        self.resets && self.meta(statement).statement.effects & RESETS != 0
    }

    /// Learns the analysis of a statement. Of a second text by a name that is taken (42P05) nothing: the first one stays, and
    /// what it leaves at a server must be seen when it is executed. Who knows which one it is has the effects of both.
    pub fn learn(&mut self, name: &[u8], mut meta: Meta) {
        self.resets |= meta.statement.effects & RESETS != 0;
        if name.is_empty() {
            self.unnamed = meta;
        } else if let Some(n) = self.named.get_mut(name).and_then(|all| all.last_mut()) {
            if n.shared.is_some() && n.meta.known {
                return;
            }
            meta.statement.effects |= n.meta.statement.effects;
            n.meta = meta;
        }
    }

    /// A Bind made a portal.
    pub fn bind(&mut self, portal: &[u8], meta: Meta) {
        if portal.is_empty() {
            self.portal = meta;
        } else if let Some((_, m)) = self.portals.iter_mut().find(|(n, _)| **n == *portal) {
            *m = meta;
        } else {
            if self.portals.len() >= MAX_PORTALS {
                self.portals.remove(0);
            }
            self.portals.push((portal.into(), meta));
        }
    }

    /// What a portal executes.
    pub fn portal(&self, portal: &[u8]) -> Meta {
        if portal.is_empty() {
            self.portal
        } else {
            self.portals.iter().find(|(n, _)| **n == *portal).map(|(_, m)| *m).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_until_its_close() {
        let mut n = Names::default();
        let first = n.insert(b"s", None).unwrap();
        assert!(n.insert(b"s", None).is_none());
        assert_eq!(n.close(b"s"), first);
        assert!(n.get(b"s").is_none(), "a Bind after Close finds nothing");
        let second = n.insert(b"s", None).unwrap();
        n.closed(first);
        assert_eq!(n.get(b"s").map(|n| n.registration), Some(second));
    }

    #[test]
    fn a_name_that_was_to_be_replaced_comes_back_when_the_server_skips_all() {
        let mut n = Names::default();
        let first = n.insert(b"s", None).unwrap();
        n.close(b"s");
        let second = n.insert(b"s", None).unwrap();
        n.close_dropped(first);
        n.parse_dropped(second);
        assert_eq!(n.get(b"s").map(|n| n.registration), Some(first));
    }

    #[test]
    fn there_are_only_so_many_bytes_of_names() {
        let mut n = Names::default();
        let long = |i: u32| format!("{i:01000}").into_bytes();
        let fits = (0..).take_while(|i| n.insert(&long(*i), None).is_some()).count();
        assert_eq!(fits, MAX_BYTES / 1000);
        let first = n.get(&long(0)).unwrap().registration;
        n.close(&long(0));
        n.closed(first);
        assert!(n.insert(b"again", None).is_some(), "what is closed makes room");
        n.clear_but(&[]);
        assert_eq!(n.bytes, 0);
    }

    #[test]
    fn what_the_server_skipped_is_undone() {
        let mut n = Names::default();
        let r = n.insert(b"s", None).unwrap();
        n.close(b"s");
        n.close_dropped(r);
        assert!(n.get(b"s").is_some());
        n.parse_dropped(r);
        assert!(n.get(b"s").is_none());
    }
}
