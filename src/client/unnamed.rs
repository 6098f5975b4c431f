//! The unnamed statement in transaction pooling: one that was prepared and synced before it was bound (libpq's PQprepare
//! with an empty name, asyncpg without a statement cache) is wanted again later, perhaps on another server.
//!
//! Its text is kept only then; a Parse whose Bind stands in the same sequence, which is what drivers do for every query,
//! costs a few stores. A text too long to be kept ties the client to its server until the statement is replaced.
//! Source: protocol-flow, "Extended Query": the unnamed statement lasts until the next Parse of it or the next simple Query.
//!
//! Who was told its columns by a Describe and does not ask again gets no others: where it is prepared anew, they are compared
//! before it is bound, and 0A000 is said in the server's place, as for named statements (`fresh`).

use std::ops::Range;

use super::fresh::{NO_STATEMENT, OUTDATED, described_next, shape};
use super::inbound::Taken;
use super::plan::Plan;
use super::session::Session;
use crate::net::clock::now_us;
use crate::server::Server;
use crate::server::shared::MAX_SHARED;
use crate::wire::names::{self, Bind, Parse};
use crate::wire::tag::{backend, frontend as tag};
use crate::wire::tracker::{Action, Entry, Request};
use crate::wire::{Frame, HEADER, frame};

/// Longest text kept: as that of a named statement.
const MAX_TEXT: usize = MAX_SHARED;

/// What an entry of its Describe has for a shared statement's number.
pub(super) const UNNAMED: u32 = u32::MAX;

/// A client's unnamed statement.
#[derive(Default)]
pub(super) struct Unnamed {
    /// Where its text (and types) stand in the batch that is being forwarded, while no Bind has followed; empty for none.
    unbound: (u32, u32),
    /// Its text, once a Sync has followed.
    text: Option<Box<[u8]>>,
    /// Place of its last Parse among the server's requests.
    place: u32,
    /// Place of that, or of what has ended it since.
    touched: u32,
    /// A text that is not kept.
    long: Long,
    /// Counts its Parses and ends: a server may still have an earlier one.
    version: u32,
    /// Hash of the parameters and columns that the client was told; 0 for none.
    told: u64,
    /// Hash of the parameters in the Describe that is being answered.
    parameters: u64,
    columns: Columns,
}

/// As it was before a Query, Close or Parse that the server may skip, behind a sequence without Sync.
pub(super) struct Saved {
    /// Place of that.
    end: u32,
    /// Which the server had.
    unnamed_of: u64,
    text: Option<Box<[u8]>>,
    place: u32,
    long: Long,
    version: u32,
    told: u64,
    columns: Columns,
}

/// Where it was prepared anew, its columns there.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Columns {
    /// Those that the client was told, or not to be compared.
    #[default]
    Same,
    /// A Describe is under way at this place.
    Asked(u32),
    Other,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Long {
    #[default]
    No,
    /// Sent, and not bound yet.
    Unbound,
    /// A Sync has followed before it was bound: its server is the only one that has it.
    Ties,
}

impl Unnamed {
    /// A Parse of it was forwarded; `rest` is where text and types stand in the batch.
    #[inline]
    pub(super) fn parsed(&mut self, rest: Range<usize>, client: u64, server: &mut Server) {
        let short = rest.len() <= MAX_TEXT;
        self.forget();
        self.unbound = if short { (rest.start as u32, rest.end as u32) } else { (0, 0) };
        self.long = if short { Long::No } else { Long::Unbound };
        self.place = server.tracker.last_place();
        self.touched = self.place;
        self.version = self.version.wrapping_add(1);
        server.unnamed_of = self.token(client);
    }

    /// Its text, when it was prepared in an earlier batch or sequence.
    pub(super) fn text(&self) -> Option<&[u8]> {
        self.text.as_deref()
    }

    /// What a server that has it is marked with.
    #[inline]
    fn token(&self, client: u64) -> u64 {
        client << 32 | u64::from(self.version)
    }

    /// A Parse of it was forwarded that is too long to be kept.
    pub(super) fn parsed_huge(&mut self, client: u64, server: &mut Server) {
        self.parsed(0..usize::MAX, client, server);
    }

    /// A Sync: who has not bound it yet may do so much later.
    #[inline]
    pub(super) fn synced(&mut self, data: &[u8]) {
        if self.long == Long::Unbound {
            self.long = Long::Ties;
        }
        self.keep(data);
    }

    /// The end of the batch, or a Sync: the text is still there to be kept.
    #[inline]
    pub(super) fn keep(&mut self, data: &[u8]) {
        if self.unbound.1 > 0 {
            let (from, to) = std::mem::take(&mut self.unbound);
            self.text = data.get(from as usize..to as usize).map(Into::into);
        }
    }

    /// A simple Query, or a Close of it, is forwarded as the request at `place`: it ends the statement.
    #[inline]
    pub(super) fn ended(&mut self, place: u32, server: &mut Server) {
        server.unnamed_of = 0;
        self.touched = place;
        self.version = self.version.wrapping_add(1);
        self.forget();
    }

    fn forget(&mut self) {
        self.unbound = (0, 0);
        self.text = None;
        self.long = Long::No;
        self.told = 0;
        self.columns = Columns::Same;
    }

    /// Whether it is bound later than it was prepared, and too long to be prepared anew elsewhere.
    #[inline]
    pub(super) fn ties(&self) -> bool {
        self.long == Long::Ties
    }

    /// A Parse failed or was skipped: what the server has instead is not known. Another may have been sent since.
    pub(super) fn dropped(&mut self, e: &Entry, server: &mut Server) {
        if e.place() != self.place {
            return;
        }
        server.unnamed_of = 0;
        // One put ahead is put ahead again.
        if e.action == Action::Forward {
            self.forget();
        }
    }
}

impl Session {
    /// A simple Query is about to be forwarded: it ends the unnamed statement, unless it is skipped.
    #[inline]
    pub(super) fn end_unnamed_by_query(&mut self, server: &mut Server) {
        if server.tracker.wants_sync() {
            self.save_unnamed(server);
        }
        self.unnamed.ended(server.tracker.last_place().wrapping_add(1), server);
    }

    /// A Parse or Close of it is about to be forwarded: skipped, it leaves the one that was prepared and synced before.
    #[inline]
    pub(super) fn replace_unnamed(&mut self, server: &Server) {
        if self.unnamed.text.is_some() && server.tracker.wants_sync() {
            self.save_unnamed(server);
        }
    }

    #[cold]
    fn save_unnamed(&mut self, server: &Server) {
        if self.names().saved.is_some() {
            return;
        }
        let unnamed = &mut self.unnamed;
        let saved = Saved {
            end: server.tracker.last_place().wrapping_add(1),
            unnamed_of: server.unnamed_of,
            text: unnamed.text.take(),
            place: unnamed.place,
            long: unnamed.long,
            version: unnamed.version,
            told: unnamed.told,
            columns: unnamed.columns,
        };
        self.names().saved = Some(Box::new(saved));
    }

    /// What has the place `end` was skipped, with all up to `last`.
    pub(super) fn unnamed_not_ended(&mut self, end: u32, last: u32, server: &mut Server) {
        let Some(s) = self.names.as_mut().and_then(|n| n.saved.take_if(|s| s.end == end)) else { return };
        if self.unnamed.touched.wrapping_sub(last).cast_signed() > 0 {
            // Another has been sent behind the Sync.
            return;
        }
        server.unnamed_of = s.unnamed_of;
        let u = &mut self.unnamed;
        (u.text, u.place, u.long, u.version) = (s.text, s.place, s.long, s.version);
        (u.told, u.columns, u.unbound) = (s.told, s.columns, (0, 0));
        self.relearn_unnamed(server);
    }

    /// What is known of its text: that of a skipped one has been learnt since.
    fn relearn_unnamed(&mut self, server: &Server) {
        let Some(rest) = self.unnamed.text.take() else { return };
        let sql = &rest[..memchr::memchr(0, &rest).unwrap_or(rest.len())];
        self.observe_parse(b"", sql, now_us());
        self.note_command(&Parse { name: b"", sql, rest: &rest }, server);
        let place = self.unnamed.place;
        if let Some(c) = &mut self.names().unnamed_command {
            // The server may have it with another name in it.
            (c.place, c.changed) = (place, true);
        }
        self.unnamed.text = Some(rest);
    }

    /// A ReadyForQuery: what was answered has not been skipped.
    #[inline]
    pub(super) fn unnamed_settled(&mut self, server: &Server) {
        if let Some(names) = &mut self.names {
            names.saved.take_if(|s| !server.tracker.pending(s.end));
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
        if !here || self.unnamed.columns != Columns::Same {
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
        self.unnamed.unbound = (0, 0);
        if self.unnamed.long == Long::Unbound {
            self.unnamed.long = Long::No;
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
            self.unnamed.columns = Columns::Same;
            if told || self.unnamed.told == 0 || server.tracker.failing() {
                return Columns::Same;
            }
            names::put_statement(plan.inject(data), tag::DESCRIBE, b"");
            frame::put(plan.inject(data), tag::FLUSH, |_| {});
            server.tracker.push(Entry { statement: UNNAMED, ..Entry::new(Request::Describe, Action::Skip) });
            self.unnamed.columns = Columns::Asked(server.tracker.last_place());
        }
        match self.unnamed.columns {
            // What is skipped anyway needs no look; and while it is skipped, nothing is answered.
            _ if told || server.tracker.failing() => Columns::Same,
            Columns::Asked(place) if !server.tracker.pending(place) => Columns::Same,
            columns => columns,
        }
    }

    /// A message of the answer to a Describe of it.
    pub(super) fn note_unnamed(&mut self, e: &Entry, t: u8, body: &[u8], len: usize) {
        let hash = shape(t, body, len);
        if t == backend::PARAMETER_DESCRIPTION {
            self.unnamed.parameters = hash;
            return;
        }
        let told = (self.unnamed.parameters.rotate_left(1) ^ hash).max(1);
        if e.action == Action::Forward {
            self.unnamed.told = told;
            self.unnamed.columns = Columns::Same;
        } else {
            self.unnamed.columns = if told == self.unnamed.told { Columns::Same } else { Columns::Other };
        }
    }

    /// Whether it is not known yet if the server has taken its Parse or skipped it, though a Sync behind it has been
    /// sent: a Bind sent now would not be skipped with it, and find what another client has left.
    #[inline]
    pub(super) fn unnamed_undecided(&self, server: &Server) -> bool {
        self.unnamed.unbound.1 == 0
            && server.tracker.undecided(self.unnamed.place)
            && server.unnamed_of == self.unnamed.token(self.place.info.id)
    }

    /// Ties the client to its server, or unties it, as its unnamed statement wants it.
    #[inline]
    pub(super) fn tie_unnamed(&mut self) {
        self.pins.unnamed(self.unnamed.ties() && self.follows_parameters());
    }

    #[cold]
    fn put_own_unnamed(&mut self, server: &mut Server, plan: &mut Plan<'_>, data: &[u8]) {
        let Some(text) = &self.unnamed.text else {
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
        self.unnamed.place = server.tracker.last_place();
        server.unnamed_of = self.unnamed.token(self.place.info.id);
    }
}
