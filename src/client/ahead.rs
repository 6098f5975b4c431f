//! Named statements in transaction pooling: a client's Parse becomes the shared one, and a Parse goes ahead of what
//! needs it where the server lacks the statement.

use std::ops::Range;
use std::sync::Arc;

use super::fresh::{Chosen, NO_STATEMENT, OUTDATED, described_next};
use super::inbound::Taken;
use super::plan::Plan;
use super::session::{Session, Stop};
use super::statements::Named;
use super::texts::{discards, forgets_statements};
use crate::pool::Pin;
use crate::server::shared::Text;
use crate::server::{self, Server, Shape};
use crate::sql::{self, RawSql};
use crate::wire::names::{self, Bind, Parse};
use crate::wire::tag::frontend as tag;
use crate::wire::tracker::{Action, Entry, Request};
use crate::wire::{Frame, HEADER, TxStatus};

impl Session {
    /// Whether what the name means depends on answers that are on their way: the Parse or Close before may have been
    /// skipped, and this message will not be.
    pub(super) fn undecided(&mut self, name: &[u8], server: &Server) -> bool {
        let Some(names) = self.names.as_ref().filter(|_| !name.is_empty()) else { return false };
        let tracker = &server.tracker;
        // Behind an error, and no Sync sent since: this is skipped too, and no answer comes before the client's Sync.
        let skipped = tracker.failing() && tracker.wants_sync();
        // A DEALLOCATE ALL may be skipped, and what comes behind it not.
        let forgetting = self.forgetting.is_some_and(|place| !skipped && tracker.pending(place));
        let open = |n: &Named| tracker.undecided(n.place) || n.by_query && !skipped && tracker.pending(n.place);
        forgetting || self.shares_statements() && names.last(name).is_some_and(open)
    }

    /// A named statement in transaction pooling: one text, one name at servers.
    pub(super) fn parse_shared(&mut self, p: &Parse<'_>, server: &mut Server, plan: &mut Plan<'_>, data: &[u8]) {
        let taken = self.names().get(p.name).and_then(|n| Some((n.shared.as_deref().cloned()?, n.registration)));
        if let Some((taken, named)) = taken {
            // The name is taken: PostgreSQL says so itself (42P05) when the server's own name is prepared twice.
            self.ensure(&taken, server, plan, data);
            names::put_parse(plan.inject(data), &taken.name, p.rest);
            server.tracker.push(Entry { statement: taken.id, named, ..Entry::new(Request::Parse, Action::Forward) });
            return;
        }
        let shared = self.intern(p).filter(|s| !self.names().full(p.name.len() + s.bytes()));
        let Some((shared, registration)) =
            shared.and_then(|s| self.names().insert(p.name, Some(Arc::clone(&s))).map(|r| (s, r)))
        else {
            // Too much to remember: this one stays with its server, and the session too.
            self.pins.pin(Pin::Statement);
            server.tracker.push(Entry::new(Request::Parse, Action::Forward));
            names::put_parse(plan.inject(data), p.name, p.rest);
            return;
        };
        let entry = |action| Entry { statement: shared.id, registration, ..Entry::new(Request::Parse, action) };
        if !server.tracker.surely_not_failed() {
            // In a failed transaction PostgreSQL refuses it (25P02) unless it ends the transaction: let it decide.
            server.statements.doubt_one(shared.id);
        }
        if !has(shared.id, server) {
            self.send_parse(&shared, entry(Action::Forward), server, plan, data);
        } else {
            // The plan must know that something was left out.
            plan.inject(data);
            server.tracker.push(entry(Action::Fake));
        }
        self.names().placed(p.name, server.tracker.last_place());
    }

    /// Whether a text may end all prepared statements: it is DEALLOCATE ALL or DISCARD ALL, and not sure to be refused.
    #[inline]
    pub(super) fn may_forget(&self, sql: &[u8], server: &Server) -> bool {
        if !forgets_statements(sql) || !self.shares_statements() {
            return false;
        }
        // 25P02 in a failed transaction; DISCARD ALL is not for blocks (25001). Nothing has been ended then.
        let refused = match server.tracker.status() {
            TxStatus::Failed => true,
            TxStatus::Transaction => discards(sql),
            TxStatus::Idle => false,
        };
        !(refused && server.tracker.answered())
    }

    /// The shared statement that a Parse means. Comments do not count: a trace id in every text would share nothing.
    fn intern(&self, p: &Parse<'_>) -> Option<Arc<server::Statement>> {
        let mut key = self.w.key.borrow_mut();
        key.clear();
        let differs = sql::without_comments(RawSql(p.sql), self.lex, &mut key);
        key.extend_from_slice(&p.rest[p.sql.len()..]);
        let text = Text { rest: p.rest, key: differs.then_some(&**key), needs: None };
        self.pool.shared.statements.intern(text, &self.params, &self.pool.schema, self.schema_now())
    }

    /// A Bind of a shared statement; `None` when it is not one.
    pub(super) fn bind_shared(
        &mut self,
        frame: Frame,
        b: &Bind<'_>,
        data: &[u8],
        range: &Range<usize>,
        server: &mut Server,
        plan: &mut Plan<'_>,
    ) -> Option<Taken> {
        let names = self.names.as_mut()?;
        names.describing = 0;
        if names.commands && !self.put_command(b.statement, Some(b.portal), server, plan, data) {
            return Some(Taken::Wait);
        }
        if b.statement.is_empty() || !self.shares_statements() {
            return None;
        }
        let told = range.len() == frame.len && described_next(data, range.end, b.portal);
        let kept = told && self.keep_sequence(data, range.start, server);
        let (chosen, named) = self.choose(b.statement, told, server, plan, data)?;
        let parameters = range.start + HEADER + b.prefix..range.end;
        let (shared, registration) = match chosen {
            Chosen::Wait => return Some(Taken::Wait),
            Chosen::Use(shared) => {
                self.ensure(&shared, server, plan, data);
                names::put_bind_prefix(plan.inject(data), b, frame.body_len(), &shared.name);
                (shared, 0)
            }
            Chosen::Outdated(shared) => {
                names::put_bind_prefix(plan.inject(data), b, frame.body_len(), NO_STATEMENT);
                (shared, OUTDATED)
            }
        };
        plan.keep(data, parameters);
        let entry = Entry { statement: shared.id, registration, named, ..Entry::new(Request::Bind, Action::Forward) };
        server.tracker.push(entry);
        if kept {
            server.replay.place = server.tracker.last_place();
        }
        if told && server.statements.shape(shared.id) != Some(Shape::Same) {
            self.names().describing = shared.id;
        }
        Some(Taken::Yes)
    }

    /// A Parse too long to be kept: it goes through, and a named one ties the session to its server.
    pub(super) fn parse_huge(
        &mut self,
        data: &[u8],
        range: Range<usize>,
        server: &mut Server,
        plan: &mut Plan<'_>,
    ) -> Result<Taken, Stop> {
        let body = &data[range.start + HEADER..range.end];
        let end = memchr::memchr(0, body).ok_or_else(|| Stop::protocol("prepared statement name is too long"))?;
        if end > 0 && self.shares_statements() {
            self.pins.pin(Pin::Statement);
        } else if let Some(names) = &mut self.names {
            names.unnamed_command = None;
        }
        self.unread = true;
        server.tracker.push(Entry::new(Request::Parse, Action::Forward));
        if end == 0 {
            self.unnamed.parsed_huge(self.place.info.id, server);
        }
        plan.keep(data, range);
        Ok(Taken::Yes)
    }

    /// Sends a Parse ahead when the server lacks the statement, or one that it names.
    pub(super) fn ensure(
        &mut self,
        shared: &Arc<server::Statement>,
        server: &mut Server,
        plan: &mut Plan<'_>,
        data: &[u8],
    ) {
        if let Some(needs) = &shared.needs {
            self.ensure(needs, server, plan, data);
        }
        if !has(shared.id, server) {
            let entry = Entry { statement: shared.id, ..Entry::new(Request::Parse, Action::Skip) };
            self.send_parse(shared, entry, server, plan, data);
        }
    }

    fn send_parse(
        &mut self,
        shared: &Arc<server::Statement>,
        entry: Entry,
        server: &mut Server,
        plan: &mut Plan<'_>,
        data: &[u8],
    ) {
        let out = plan.inject(data);
        if server.statements.close_first(shared.id) {
            names::put_statement(out, tag::CLOSE, &shared.name);
            server.tracker.push(Entry { statement: shared.id, ..Entry::new(Request::Close, Action::Skip) });
        }
        if let Some(old) = server.statements.insert(shared, self.pool.settings.max_prepared_statements) {
            names::put_statement(out, tag::CLOSE, &self.pool.schema.prefix().name(old));
            server.tracker.push(Entry { statement: old, ..Entry::new(Request::Close, Action::Skip) });
        }
        names::put_parse(out, &shared.name, &shared.rest);
        server.tracker.push(entry);
        server.statements.placed(shared.id, server.tracker.last_place());
        self.stats().server_parses.add(1);
    }
}

/// Whether the server has the statement for sure: a Parse whose fate is open is closed and sent again.
pub(super) fn has(id: u32, server: &mut Server) -> bool {
    if server.statements.place(id).is_some_and(|place| server.tracker.undecided(place)) {
        server.statements.doubt_one(id);
    }
    server.statements.has(id)
}
