//! The unnamed statement in transaction pooling: one that was prepared before is bound again without another Parse, perhaps
//! on another server, which gets it first.
//!
//! Its text is kept until the next Parse of it or simple Query: copied once for each batch, into memory that stays, however
//! many statements the batch has. A text that is not kept (too long, or too many bytes in all) ties the client to its server
//! if a Sync came before its first Bind; bound at once, as drivers do, it is seldom wanted again, and does not.
//! Source: protocol-flow, "Extended Query": the unnamed statement lasts until the next Parse of it or the next simple Query.
//!
//! What replaces it may be skipped behind an error, and the one before it is still there then: in a sequence of several, each
//! is remembered until the answers have come.
//!
//! Who was told its columns by a Describe and does not ask again gets no others: where it is prepared anew, they are compared
//! before it is bound, and 0A000 is said in the server's place, as for named statements (`fresh`).

mod state;

use std::ops::Range;

use super::fresh::{NO_STATEMENT, OUTDATED, described_next, shape};
use super::inbound::Taken;
use super::plan::Plan;
use super::session::Session;
use crate::net::clock::now_us;
use crate::server::Server;
use crate::server::shared::{MAX_SHARED, StatementCache};
use crate::wire::names::{self, Bind, Parse};
use crate::wire::tag::{backend, frontend as tag};
use crate::wire::tracker::{Action, Entry, Request};
use crate::wire::{Frame, HEADER, frame};
use state::{Columns, Kept, Long, MAX_REPLACED, MAX_REPLACED_BYTES, Replaced, State};

/// Longest text kept: as that of a named statement.
const MAX_TEXT: usize = MAX_SHARED;

/// What an entry of its Describe has for a shared statement's number.
pub(super) const UNNAMED: u32 = u32::MAX;

/// A client's unnamed statement.
#[derive(Default)]
pub(super) struct Unnamed {
    state: State,
    /// Where its text (and types) stand in the batch that is being forwarded; empty for none.
    batch: (u32, u32),
    /// No Sync has followed what made or ended it yet.
    open: bool,
    /// It has been bound.
    bound: bool,
    /// Hash of the parameters in the Describe that is being answered: half of one, so that an idle session stays small.
    parameters: u32,
    /// Boxed on first use: an idle session stays small.
    kept: Option<Box<Kept>>,
}

impl Unnamed {
    /// A Parse of it was forwarded; `rest` is where text and types stand in the batch.
    #[inline]
    pub(super) fn parsed(&mut self, rest: Range<usize>, client: u64, server: &mut Server) {
        let short = rest.len() <= MAX_TEXT;
        self.forget();
        self.batch = if short { (rest.start as u32, rest.end as u32) } else { (0, 0) };
        self.state.long = if short { Long::No } else { Long::Unbound };
        (self.open, self.bound) = (true, false);
        (self.state.place, self.state.server) = (server.tracker.last_place(), server.info.id as u32);
        self.state.touched = self.state.place;
        self.state.decided = false;
        self.state.version = self.state.version.wrapping_add(1);
        server.unnamed_of = self.token(client);
    }

    /// Its text, when it was prepared in an earlier batch.
    pub(super) fn text(&self) -> Option<&[u8]> {
        self.kept.as_ref().filter(|_| self.state.kept).map(|k| &*k.text)
    }

    /// What a server that has it is marked with.
    #[inline]
    fn token(&self, client: u64) -> u64 {
        self.state.token(client)
    }

    /// A Parse of it was forwarded that is too long to be kept.
    pub(super) fn parsed_huge(&mut self, client: u64, server: &mut Server) {
        self.parsed(0..usize::MAX, client, server);
    }

    /// A Sync: who has not bound it yet may do so much later.
    #[inline]
    pub(super) fn synced(&mut self) {
        self.open = false;
        if self.state.long == Long::Unbound {
            self.state.long = Long::Ties;
        }
    }

    /// The end of the batch: the text is still there to be kept.
    #[inline]
    pub(super) fn keep(&mut self, data: &[u8], cache: &StatementCache) {
        if self.batch.1 > 0 {
            self.keep_text(data, cache);
        }
    }

    fn keep_text(&mut self, data: &[u8], cache: &StatementCache) {
        let (from, to) = std::mem::take(&mut self.batch);
        let Some(text) = data.get(from as usize..to as usize) else { return };
        self.state.kept = self.kept.get_or_insert_with(|| Kept::new(cache)).take(text);
        if !self.state.kept {
            self.state.long = match (self.bound, self.open) {
                (true, _) => Long::No,
                (false, true) => Long::Unbound,
                (false, false) => Long::Ties,
            };
        }
    }

    /// Whether there may be one.
    #[inline]
    fn exists(&self) -> bool {
        self.batch.1 > 0 || self.state.kept || self.state.long != Long::No
    }

    /// Whether one may come back.
    #[inline]
    fn comes_back(&self) -> bool {
        self.kept.as_ref().is_some_and(|k| !k.replaced.is_empty())
    }

    /// A simple Query, or a Close of it, is forwarded as the request at `place`: it ends the statement.
    #[inline]
    pub(super) fn ended(&mut self, place: u32, server: &mut Server) {
        server.unnamed_of = 0;
        self.open = true;
        self.state.touched = place;
        self.state.decided = false;
        self.state.version = self.state.version.wrapping_add(1);
        self.forget();
    }

    #[inline]
    fn forget(&mut self) {
        self.batch = (0, 0);
        self.state.forget();
    }

    /// Whether it is bound later than it was prepared, and too long to be prepared anew elsewhere.
    #[inline]
    pub(super) fn ties(&self) -> bool {
        self.state.long == Long::Ties
    }

    /// A Describe put ahead was skipped, or failed: it tells nothing.
    pub(super) fn not_described(&mut self, place: u32) {
        for state in self.kept.iter_mut().flat_map(|k| &mut k.replaced).map(|r| &mut r.state).chain([&mut self.state]) {
            if state.columns == Columns::Asked(place) {
                state.columns = Columns::Same;
            }
        }
    }

    /// A Parse failed or was skipped: what the server has instead is not known. Others may have been sent since.
    pub(super) fn dropped(&mut self, e: &Entry, client: u64, server: &mut Server) {
        if self.state.dropped(e, client, &mut server.unnamed_of) {
            self.batch = (0, 0);
        }
        for r in self.kept.iter_mut().flat_map(|k| &mut k.replaced) {
            r.state.dropped(e, client, &mut r.unnamed_of);
        }
    }
}

impl Session {
    /// A simple Query is about to be forwarded: it ends the unnamed statement, unless it is skipped.
    #[inline]
    pub(super) fn end_unnamed_by_query(&mut self, server: &mut Server, data: &[u8]) {
        self.replace_unnamed(server, data);
        self.unnamed.ended(server.tracker.last_place().wrapping_add(1), server);
    }

    /// A Parse, Close or Query is about to be forwarded that ends the statement: skipped, it leaves it.
    #[inline]
    pub(super) fn replace_unnamed(&mut self, server: &Server, data: &[u8]) {
        // Behind a Query that may be skipped too.
        if self.unnamed.exists() && server.tracker.wants_sync() || self.unnamed.comes_back() {
            self.save_unnamed(server, data);
        }
    }

    #[cold]
    fn save_unnamed(&mut self, server: &Server, data: &[u8]) {
        self.unnamed.keep(data, &self.pool.shared.statements);
        let unnamed = &mut self.unnamed;
        let cache = &self.pool.shared.statements;
        let kept = unnamed.kept.get_or_insert_with(|| Kept::new(cache));
        let end = server.tracker.last_place().wrapping_add(1);
        let text: &[u8] = if unnamed.state.kept { &kept.text } else { &[] };
        if kept.replaced.len() < MAX_REPLACED && kept.replaced_bytes + text.len() <= MAX_REPLACED_BYTES {
            let text: Box<[u8]> = text.into();
            kept.replaced_bytes += text.len();
            kept.replaced.push(Replaced { end, unnamed_of: server.unnamed_of, state: unnamed.state, text });
        }
    }

    /// The Parse, Close or Query at `end` was skipped, or (`failed`) was a Parse that failed: PostgreSQL drops the one before
    /// it first.
    pub(super) fn unnamed_not_ended(&mut self, end: u32, failed: bool, server: &mut Server) {
        let Some(kept) = &mut self.unnamed.kept else { return };
        let Some(at) = kept.replaced.iter().position(|r| r.end == end) else { return };
        let mut r = kept.replaced.remove(at);
        if failed {
            return;
        }
        if self.unnamed.state.touched != end {
            // Others have been sent behind the Sync, and may be skipped too.
            if let Some(next) = kept.replaced[at..].iter_mut().find(|n| n.state.touched == end) {
                r.end = next.end;
                *next = r;
            }
            return;
        }
        server.unnamed_of = r.unnamed_of;
        self.unnamed.state = r.state;
        self.unnamed.batch = (0, 0);
        (self.unnamed.open, self.unnamed.bound) = (false, true);
        if r.state.kept {
            self.unnamed.state.kept = kept.take(&r.text);
            self.relearn_unnamed(&r.text, server);
        }
    }

    /// What is known of its text: that of a skipped one has been learnt since.
    fn relearn_unnamed(&mut self, rest: &[u8], server: &Server) {
        let sql = &rest[..memchr::memchr(0, rest).unwrap_or(rest.len())];
        self.observe_parse(b"", sql, now_us());
        self.note_command(&Parse { name: b"", sql, rest }, server);
        let place = self.unnamed.state.place;
        if let Some(c) = &mut self.names().unnamed_command {
            // The server may have it with another name in it.
            (c.place, c.changed) = (place, true);
        }
    }

    /// A ReadyForQuery: what was answered has not been skipped.
    #[inline]
    pub(super) fn unnamed_settled(&mut self, server: &Server) {
        if !self.unnamed.state.decided {
            self.unnamed.state.decided = !server.tracker.pending(self.unnamed.state.touched);
        }
        if let Some(k) = &mut self.unnamed.kept
            && !k.replaced.is_empty()
        {
            k.replaced.retain(|r| server.tracker.pending(r.end));
            k.replaced_bytes = k.replaced.iter().map(|r| r.text.len()).sum();
            if k.replaced.is_empty() {
                k.replaced = Vec::new();
            }
        }
    }

    /// A Bind or Describe of the unnamed statement comes: where the server has another's, it gets this client's first, or
    /// loses the other's.
    #[inline]
    pub(super) fn ensure_unnamed(&mut self, server: &mut Server, plan: &mut Plan<'_>, data: &[u8]) {
        if server.unnamed_of != self.unnamed.token(self.place.info.id) {
            self.put_own_unnamed(server, plan, data);
        }
    }

    /// A Bind of the unnamed statement.
    pub(super) fn bind_unnamed(
        &mut self,
        frame: Frame,
        b: &Bind<'_>,
        data: &[u8],
        range: &Range<usize>,
        server: &mut Server,
        plan: &mut Plan<'_>,
    ) -> Taken {
        let here = server.unnamed_of == self.unnamed.token(self.place.info.id);
        if !here || self.unnamed.state.columns != Columns::Same {
            let told = range.len() == frame.len && described_next(data, range.end, b.portal);
            match self.compare_columns(here, told, server, plan, data) {
                Columns::Same => {}
                Columns::Asked(_) => return Taken::Wait,
                Columns::Other => {
                    names::put_bind_prefix(plan.inject(data), b, frame.body_len(), NO_STATEMENT);
                    plan.keep(data, range.start + HEADER + b.prefix..range.end);
                    server.tracker.push(Entry { registration: OUTDATED, ..Entry::new(Request::Bind, Action::Forward) });
                    return Taken::Yes;
                }
            }
        }
        self.unnamed.bound = true;
        if self.unnamed.state.long == Long::Unbound {
            self.unnamed.state.long = Long::No;
        }
        plan.keep(data, range.clone());
        server.tracker.push(Entry::new(Request::Bind, Action::Forward));
        Taken::Yes
    }

    /// Puts it ahead where the server lacks it (not `here`). Whether it gives there what the client was told; `told`: the
    /// client is told anew before it sees a row.
    #[cold]
    fn compare_columns(
        &mut self,
        here: bool,
        told: bool,
        server: &mut Server,
        plan: &mut Plan<'_>,
        data: &[u8],
    ) -> Columns {
        if !here {
            self.put_own_unnamed(server, plan, data);
            self.unnamed.state.columns = Columns::Same;
            if told || self.unnamed.state.told == 0 || server.tracker.failing() {
                return Columns::Same;
            }
            names::put_statement(plan.inject(data), tag::DESCRIBE, b"");
            frame::put(plan.inject(data), tag::FLUSH, |_| {});
            server.tracker.push(Entry { statement: UNNAMED, ..Entry::new(Request::Describe, Action::Skip) });
            self.unnamed.state.columns = Columns::Asked(server.tracker.last_place());
        }
        match self.unnamed.state.columns {
            // What is skipped anyway needs no look; and while it is skipped, nothing is answered.
            _ if told || server.tracker.failing() => Columns::Same,
            Columns::Asked(place) if !server.tracker.pending(place) => Columns::Same,
            columns => columns,
        }
    }

    /// A message of the answer to a Describe of it.
    pub(super) fn note_unnamed(&mut self, e: &Entry, t: u8, body: &[u8], len: usize, server: &Server) {
        let here = self.unnamed.state.server == server.info.id as u32;
        if here && e.place().wrapping_sub(self.unnamed.state.place).cast_signed() < 0 {
            // Of one that another Parse has replaced since.
            return;
        }
        let hash = shape(t, body, len);
        if t == backend::PARAMETER_DESCRIPTION {
            self.unnamed.parameters = hash as u32;
            return;
        }
        let told = (u64::from(self.unnamed.parameters).rotate_left(1) ^ hash).max(1);
        if e.action == Action::Forward {
            self.unnamed.state.told = told;
            self.unnamed.state.columns = Columns::Same;
        } else {
            self.unnamed.state.columns = if told == self.unnamed.state.told { Columns::Same } else { Columns::Other };
        }
    }

    /// Whether it is not known yet if the server has taken its Parse, or what has ended it, or skipped it, though a Sync behind
    /// it has been sent: a Bind sent now would not be skipped with it, and find what another client has left.
    #[inline]
    pub(super) fn unnamed_undecided(&self, server: &Server) -> bool {
        let (unnamed, tracker) = (&self.unnamed, &server.tracker);
        !unnamed.open
            && (tracker.undecided(unnamed.state.place) && server.unnamed_of == unnamed.token(self.place.info.id)
                || unnamed.comes_back() && tracker.undecided(unnamed.state.touched))
            && tracker.answer_comes()
    }

    /// Ties the client to its server, or unties it, as its unnamed statement wants it.
    #[inline]
    pub(super) fn tie_unnamed(&mut self) {
        self.pins.unnamed(self.unnamed.ties() && self.follows_parameters());
    }

    #[cold]
    fn put_own_unnamed(&mut self, server: &mut Server, plan: &mut Plan<'_>, data: &[u8]) {
        self.unnamed.keep(data, &self.pool.shared.statements);
        let Some(text) = self.unnamed.text() else {
            // PostgreSQL says itself that there is none.
            names::put_statement(plan.inject(data), tag::CLOSE, b"");
            server.tracker.push(Entry::new(Request::Close, Action::Skip));
            server.unnamed_of = 0;
            return;
        };
        names::put_parse(plan.inject(data), b"", text);
        self.push_unnamed(server);
    }

    /// Notes a Parse of the client's unnamed statement put ahead.
    pub(super) fn push_unnamed(&mut self, server: &mut Server) {
        server.tracker.push(Entry::new(Request::Parse, Action::Skip));
        (self.unnamed.state.place, self.unnamed.state.server) = (server.tracker.last_place(), server.info.id as u32);
        server.unnamed_of = self.unnamed.token(self.place.info.id);
    }
}
