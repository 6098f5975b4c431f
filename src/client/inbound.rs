//! Client to server: messages are stepped over by their headers and sent as they came; only Parse, Bind, Describe and
//! Close of named statements are written anew, with the shared name, and a Parse goes ahead where the server lacks one.
//!
//! One batch (what one `recv` brought) is one `send`. Nothing is looked at twice; what insight wants to see is noted
//! as ranges and read after the send.

use std::ops::Range;
use std::rc::Rc;

use super::parameters::{SETTING, Setting};
use super::plan::Plan;
use super::session::{Session, Stop};
use super::texts::about_databases;
use crate::net::Lent;
use crate::net::buffer::SIZE;
use crate::server::{self, Replaying, Server};
use crate::wire::error::{ErrorFields, sqlstate};
use crate::wire::names::{self, Bind, MAX_NAME, Parse};
use crate::wire::tag::frontend as tag;
use crate::wire::tracker::{Action, Entry, Request};
use crate::wire::{Frame, HEADER};

/// SQL text kept for insight when it does not fit a buffer; the lexer looks no further.
pub const MAX_GATHERED: usize = 64 * 1024;
/// Longest Describe, Close or Execute: a name and a few bytes.
const MAX_SHORT: usize = MAX_NAME + 64;

/// Scratch of a worker: warm after the first messages, then nothing is allocated.
#[derive(Default)]
pub struct Scratch {
    out: Vec<u8>,
    events: Vec<Event>,
}

/// Something insight wants to see, as ranges of the input buffer.
pub enum Event {
    /// A Query's text.
    Query(Range<usize>),
    /// A Query's text that did not come in one piece, or is longer than the buffer.
    Gathered(Vec<u8>),
    /// A Parse.
    Parse {
        /// Statement name.
        name: Range<usize>,
        /// SQL text.
        sql: Range<usize>,
    },
    /// A Bind.
    Bind {
        /// Portal name.
        portal: Range<usize>,
        /// Statement name.
        statement: Range<usize>,
        /// Parameters, as far as they are in the buffer.
        parameters: Range<usize>,
    },
    /// An Execute of this portal.
    Execute(Range<usize>),
    /// A Sync.
    Sync,
}

/// What became of one message.
pub(super) enum Taken {
    /// As much of it as is there; the rest is carried when it comes.
    Yes,
    /// It must be in the buffer as a whole (or this much of it) first.
    NeedsMore(usize),
    /// It depends on an answer that is on its way: the client is not read until it has come.
    Wait,
}

impl Session {
    /// Forwards what the client sent. Afterwards the input holds at most the beginning of a message.
    pub(super) fn forward_client(&mut self, server: &mut Server, now: u64) -> Result<(), Stop> {
        let Some(mut input) = self.input.take() else { return Ok(()) };
        let w = Rc::clone(&self.w);
        let mut scratch = w.scratch.borrow_mut();
        let Scratch { out, events } = &mut *scratch;
        events.clear();
        let tied = self.pins.reason();
        let mut plan = Plan::new(out);
        // What is sent again has been looked at before.
        let seen = server.replay.state == Replaying::Again && input.filled().len() == server.replay.bytes.len();
        self.sync_parameters(server, &mut plan);
        self.resets.awaited |= !self.resets.rare().names.is_empty() && !self.startup.is_empty();
        let (used, need, stop) = self.scan(input.filled(), server, &mut plan, events);
        self.unnamed.keep(input.filled(), &self.pool.shared.statements);
        self.tie_unnamed();
        let bytes = plan.bytes(input.filled());
        if !bytes.is_empty() {
            let sent = match server.socket.try_send(bytes) {
                Ok(n) => n,
                Err(e) => {
                    self.keep_input(input, used);
                    return Err(Stop::ServerLost(e.to_string()));
                }
            };
            if sent < bytes.len() {
                server.unsent.extend_from_slice(&bytes[sent..]);
            }
            server.info.set_tx(b'Q', now);
        }
        if self.setting != Setting::No && server.tracker.own_query() != Some(SETTING) {
            self.cancel_again();
        }
        if !events.is_empty() && !seen {
            self.observe(input.filled(), events, now);
        }
        if seen && used == input.filled().len() {
            // It is sent a second time once: what is as long and comes next is new.
            server.replay.bytes.clear();
        }
        input.consume(used);
        if need > 0 {
            input.grow(need);
        }
        self.keep_input(input, 0);
        self.pins_changed(tied)?;
        stop.map_or(Ok(()), Err)
    }

    fn keep_input(&mut self, mut input: Lent, used: usize) {
        input.consume(used);
        if input.is_empty() {
            self.w.buffers.give_back(input);
        } else {
            self.input = Some(input);
        }
    }

    /// Steps over the messages in `data`. Returns the bytes used, the room that the next message needs, and why to stop.
    fn scan(
        &mut self,
        data: &[u8],
        server: &mut Server,
        plan: &mut Plan<'_>,
        events: &mut Vec<Event>,
    ) -> (usize, usize, Option<Stop>) {
        let mut at = 0;
        let setting = server.tracker.own_query() == Some(SETTING);
        loop {
            if self.in_message.left > 0 {
                at = self.carry(data, at, plan, events);
                if self.in_message.left > 0 {
                    return (at, 0, None);
                }
            }
            if server.tracker.full() {
                return (at, 0, None);
            }
            let frame = match Frame::peek(&data[at..]) {
                Ok(Some(f)) => f,
                Ok(None) => return (at, 0, None),
                Err(e) => return (at, 0, Some(Stop::protocol(e.to_string()))),
            };
            if self.awaits_reset(frame.tag, server) {
                self.held = true;
                return (at, 0, None);
            }
            let have = frame.len.min(data.len() - at);
            if setting && self.waits_for_parameters(frame, &data[at..at + have]) {
                self.held = true;
                return (at, 0, None);
            }
            match self.message(frame, data, at..at + have, server, plan, events) {
                Ok(Taken::Yes) => {
                    at += have;
                    self.in_message.left = frame.len - have;
                    self.in_message.forward = true;
                }
                Ok(Taken::NeedsMore(total)) => return (at, total, None),
                Ok(Taken::Wait) => {
                    self.held = true;
                    return (at, 0, None);
                }
                Err(stop) => return (at, 0, Some(stop)),
            }
        }
    }

    /// The middle or end of a message that began in an earlier batch.
    fn carry(&mut self, data: &[u8], at: usize, plan: &mut Plan<'_>, events: &mut Vec<Event>) -> usize {
        let n = self.in_message.left.min(data.len() - at);
        if self.in_message.forward {
            plan.keep(data, at..at + n);
        }
        self.in_message.left -= n;
        if let Some(text) = &mut self.gathered {
            let room = MAX_GATHERED.saturating_sub(text.len());
            text.extend_from_slice(&data[at..at + n.min(room)]);
            if self.in_message.left == 0 {
                events.extend(self.gathered.take().map(Event::Gathered));
            }
        }
        at + n
    }

    fn message(
        &mut self,
        frame: Frame,
        data: &[u8],
        range: Range<usize>,
        server: &mut Server,
        plan: &mut Plan<'_>,
        events: &mut Vec<Event>,
    ) -> Result<Taken, Stop> {
        let whole = range.len() == frame.len;
        let request = match frame.tag {
            tag::QUERY => {
                if let Some(taken) = self.rename_query(frame, data, &range, server, plan, events) {
                    return Ok(taken);
                }
                self.begin_query(data, &range, whole, server, events);
                Some(Request::Query)
            }
            tag::SYNC => {
                events.push(Event::Sync);
                self.unnamed.synced();
                self.resets.awaited |= std::mem::take(&mut self.resets.parsed);
                Some(Request::Sync)
            }
            tag::PARSE => return self.parse(frame, data, range, server, plan, events),
            tag::BIND => return self.bind(frame, data, range, server, plan, events),
            tag::DESCRIBE | tag::CLOSE => return self.describe_or_close(frame, data, range, server, plan),
            tag::EXECUTE => {
                if !whole {
                    return needs_short(frame);
                }
                let Some(end) = memchr::memchr(0, &data[range.start + HEADER..range.end]) else {
                    return Ok(malformed(Request::Execute, data, range, server, plan));
                };
                events.push(Event::Execute(range.start + HEADER..range.start + HEADER + end));
                let portal = &data[range.start + HEADER..range.start + HEADER + end];
                if let Some(naming) = self.names.as_ref().and_then(|n| n.naming(portal)) {
                    self.execute_naming(naming, data, range, server, plan);
                    return Ok(Taken::Yes);
                }
                Some(Request::Execute)
            }
            tag::FUNCTION_CALL => {
                if self.follows_parameters() && !large_object(&data[range.start + HEADER..range.end]) {
                    self.pins.saw_opaque();
                }
                Some(Request::Function)
            }
            tag::COPY_DONE | tag::COPY_FAIL => Some(Request::CopyEnd),
            tag::FLUSH | tag::COPY_DATA => None,
            tag::TERMINATE => return Err(Stop::Terminate),
            other => return Err(Stop::protocol(format!("invalid frontend message type {other}"))),
        };
        if let Some(request) = request {
            server.tracker.push(Entry::new(request, Action::Forward));
            if request == Request::Query {
                self.behind_query(server);
            }
        }
        plan.keep(data, range);
        Ok(Taken::Yes)
    }

    fn begin_query(
        &mut self,
        data: &[u8],
        range: &Range<usize>,
        whole: bool,
        server: &mut Server,
        events: &mut Vec<Event>,
    ) {
        let text = range.start + HEADER..range.end;
        self.before_query(data.get(text.clone()), server, data);
        if whole {
            let nul = usize::from(data[text.clone()].last() == Some(&0));
            events.push(Event::Query(text.start..text.end - nul));
        } else {
            let text = data.get(text).unwrap_or_default();
            self.gathered = Some(text.to_vec());
        }
    }

    /// Before a Query takes its place, whatever is sent in its stead: what its text may end or reset. `sql` is `None` when
    /// nothing of it has come yet.
    pub(super) fn before_query(&mut self, sql: Option<&[u8]>, server: &mut Server, data: &[u8]) {
        self.stats().queries.add(1);
        self.end_unnamed_by_query(server, data);
        let Some(sql) = sql else { return };
        if about_databases(sql) {
            self.w.process.pools.make_way(sql);
        }
        self.resets.awaited |= self.may_reset(sql);
        if self.may_forget(sql, server) {
            server.statements.doubt();
            self.names().close_all();
            // Its place is the next.
            self.forgetting = Some(server.tracker.last_place().wrapping_add(1));
        }
    }

    /// A Query has taken its place.
    #[inline]
    pub(super) fn behind_query(&mut self, server: &Server) {
        if let Some(names) = &mut self.names {
            names.end_unnamed(server.tracker.last_place());
        }
    }

    fn parse(
        &mut self,
        frame: Frame,
        data: &[u8],
        range: Range<usize>,
        server: &mut Server,
        plan: &mut Plan<'_>,
        events: &mut Vec<Event>,
    ) -> Result<Taken, Stop> {
        if range.len() < frame.len && frame.len <= server::shared::MAX_SHARED {
            return Ok(Taken::NeedsMore(frame.len));
        }
        self.stats().client_parses.add(1);
        if range.len() < frame.len {
            return self.parse_huge(data, range, server, plan);
        }
        let body = range.start + HEADER;
        let Ok(p) = Parse::read(&data[body..range.end]) else {
            return Ok(malformed(Request::Parse, data, range, server, plan));
        };
        if p.name.len() > MAX_NAME {
            return Err(Stop::protocol("prepared statement name is too long"));
        }
        if self.undecided(p.name, server) {
            return Ok(Taken::Wait);
        }
        let forgets = self.may_forget(p.sql, server);
        if p.name.is_empty() || !self.shares_statements() {
            if !p.name.is_empty() {
                self.names().replace(p.name);
            } else {
                self.replace_unnamed(server, data);
            }
            server.tracker.push(Entry::new(Request::Parse, Action::Forward));
            self.stats().server_parses.add(1);
            plan.keep(data, range.clone());
            if p.name.is_empty() {
                self.unnamed.parsed(body + 1..range.end, self.place.info.id, server);
            }
        } else {
            self.parse_shared(&p, server, plan, data);
        }
        self.note_command(&p, server);
        if forgets {
            server.statements.doubt();
        }
        self.resets.parsed |= self.may_reset(p.sql);
        if about_databases(p.sql) {
            self.w.process.pools.make_way(p.sql);
        }
        let sql = body + p.name.len() + 1;
        events.push(Event::Parse { name: body..body + p.name.len(), sql: sql..sql + p.sql.len() });
        Ok(Taken::Yes)
    }

    fn bind(
        &mut self,
        frame: Frame,
        data: &[u8],
        range: Range<usize>,
        server: &mut Server,
        plan: &mut Plan<'_>,
        events: &mut Vec<Event>,
    ) -> Result<Taken, Stop> {
        let body = range.start + HEADER;
        let Some(b) = Bind::peek(data.get(body..range.end).unwrap_or_default()) else {
            if range.len() == frame.len {
                return Ok(malformed(Request::Bind, data, range, server, plan));
            }
            if range.len() >= SIZE {
                return Err(Stop::protocol("prepared statement or portal name is too long"));
            }
            return Ok(Taken::NeedsMore(frame.len.min(SIZE)));
        };
        if b.portal.len() > MAX_NAME || b.statement.len() > MAX_NAME {
            return Err(Stop::protocol("prepared statement or portal name is too long"));
        }
        if self.undecided(b.statement, server) || b.statement.is_empty() && self.unnamed_undecided(server) {
            return Ok(Taken::Wait);
        }
        match self.bind_shared(frame, &b, data, &range, server, plan) {
            Some(Taken::Yes) => {}
            Some(other) => return Ok(other),
            None if b.statement.is_empty() => match self.bind_unnamed(frame, &b, data, &range, server, plan) {
                Taken::Yes => {}
                other => return Ok(other),
            },
            // Unknown names go as they are: PostgreSQL answers 26000 itself.
            None => {
                if let Some(hidden) = self.hidden(b.statement) {
                    names::put_bind_prefix(plan.inject(data), &b, frame.body_len(), &hidden);
                    plan.keep(data, body + b.prefix..range.end);
                } else {
                    plan.keep(data, range.clone());
                }
                server.tracker.push(Entry::new(Request::Bind, Action::Forward));
            }
        }
        self.resets.parsed |= self.names.as_ref().is_some_and(|n| n.resets(b.statement)) && !self.startup.is_empty();
        self.stats().binds.add(1);
        let portal = body..body + b.portal.len();
        let statement = portal.end + 1..portal.end + 1 + b.statement.len();
        events.push(Event::Bind { portal, statement, parameters: body + b.prefix..range.end });
        Ok(Taken::Yes)
    }
}

/// Whether a FunctionCall is one of those that drivers make, of large objects: they leave nothing behind their
/// transaction. Oids of pg_proc.dat (lo_open .. lo_tell, lo_unlink, lo_create, lo_truncate, and those of 64 bits).
fn large_object(body: &[u8]) -> bool {
    let oid = body.first_chunk().map(|oid| u32::from_be_bytes(*oid));
    matches!(oid, Some(952..=958 | 964 | 715 | 1004 | 3170..=3172))
}

/// A message that PostgreSQL refuses (08P01) before it has done anything, and skips to the Sync: it says so itself.
#[cold]
pub(super) fn malformed(
    request: Request,
    data: &[u8],
    range: Range<usize>,
    server: &mut Server,
    plan: &mut Plan<'_>,
) -> Taken {
    plan.keep(data, range);
    server.tracker.push(Entry::new(request, Action::Forward));
    Taken::Yes
}

pub(super) fn needs_short(frame: Frame) -> Result<Taken, Stop> {
    if frame.len > MAX_SHORT {
        return Err(Stop::Protocol(ErrorFields::fatal(
            sqlstate::PROTOCOL_VIOLATION,
            "message is too long for its type",
        )));
    }
    Ok(Taken::NeedsMore(frame.len))
}
