//! SQL that names a statement prepared by protocol: `DEALLOCATE name`, `EXECUTE name (...)` (in other places of a text:
//! `executes`). The server knows it by
//! another name, which is put in the text; a name that this client has not prepared by protocol is left alone.
//!
//! A DEALLOCATE must not take the statement from others who share it. The server is given one of the same transaction
//! rules and the same command tag, of a statement made for the purpose; the client's name is freed when it succeeds.

use std::ops::Range;
use std::sync::Arc;

use super::inbound::{Event, Taken};
use super::plan::Plan;
use super::session::Session;
use super::statements::{Named, Naming, UnnamedCommand};
use super::texts::forgets_statements;
use crate::server::shared::Text;
use crate::server::{self, Server};
use crate::wire::names::{self, Parse};
use crate::wire::tag::frontend as tag;
use crate::wire::tracker::{Action, Entry, Request};
use crate::wire::{Frame, HEADER, TxStatus, error, frame};

/// The statement that a DEALLOCATE ends in a client's place.
const SCAPEGOAT: &[u8] = b"pgsluice_gone";
/// What it is, as in Parse.
const SCAPEGOAT_REST: &[u8] = b"SELECT\0\0\0";
/// How it is ended.
const DEALLOCATE: &[u8] = b"DEALLOCATE pgsluice_gone";
/// The same where no Parse can be put ahead: one failing would make the server skip the Query too.
const PREPARE_DEALLOCATE: &[u8] = b"PREPARE pgsluice_gone AS SELECT;DEALLOCATE pgsluice_gone";
/// Longest identifier (NAMEDATALEN - 1): PostgreSQL cuts longer ones, and then they name no such statement.
const MAX_IDENTIFIER: usize = 63;

/// A text that begins with DEALLOCATE or EXECUTE of one name.
#[derive(Clone)]
pub struct Command {
    deallocate: bool,
    /// Where the name stands, quotes included.
    at: Range<usize>,
    /// The name as PostgreSQL reads it.
    name: Vec<u8>,
    /// Nothing follows but white space and semicolons.
    alone: bool,
}

/// Whether a text may begin with DEALLOCATE or EXECUTE: the first byte decides nearly always.
pub(super) fn may_name(sql: &[u8]) -> bool {
    matches!(sql.first(), Some(b'd' | b'D' | b'e' | b'E' | b' ' | b'\n' | b'\t' | b'\r' | b'/' | b'-'))
}

impl Command {
    fn read(sql: &[u8]) -> Option<Command> {
        let (verb, after) = word(sql, space(sql, 0))?;
        let deallocate = verb.eq_ignore_ascii_case(b"deallocate");
        if !deallocate && !verb.eq_ignore_ascii_case(b"execute") {
            return None;
        }
        let mut from = space(sql, after);
        if deallocate
            && let Some((prepare, after)) = word(sql, from)
            && prepare.eq_ignore_ascii_case(b"prepare")
            && !matches!(sql.get(space(sql, after)), None | Some(b';'))
        {
            from = space(sql, after);
        }
        let (name, end) = identifier(sql, from)?;
        if deallocate && sql.get(from) != Some(&b'"') && name == b"all" {
            return None;
        }
        let mut rest = space(sql, end);
        while sql.get(rest) == Some(&b';') {
            rest = space(sql, rest + 1);
        }
        Some(Command { deallocate, at: from..end, name, alone: rest == sql.len() })
    }
}

/// Past white space and comments.
fn space(sql: &[u8], mut at: usize) -> usize {
    loop {
        let rest = sql.get(at..).unwrap_or_default();
        match rest {
            [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, ..] => at += 1,
            [b'-', b'-', ..] => at += memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len()),
            [b'/', b'*', inner @ ..] => match memchr::memmem::find(inner, b"*/") {
                // A nested comment is not worth following.
                Some(end) if memchr::memmem::find(&inner[..end], b"/*").is_none() => at += 2 + end + 2,
                _ => return at,
            },
            _ => return at,
        }
    }
}

fn word(sql: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = sql.get(at..)?;
    let n = rest
        .iter()
        .position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$') || *b >= 0x80))
        .unwrap_or(rest.len());
    (n > 0 && !rest[0].is_ascii_digit()).then(|| (&rest[..n], at + n))
}

/// An identifier as PostgreSQL folds it, and its end.
pub(super) fn identifier(sql: &[u8], at: usize) -> Option<(Vec<u8>, usize)> {
    if sql.get(at) != Some(&b'"') {
        let (name, end) = word(sql, at)?;
        // A string's prefix (`U&"..."`) is no name.
        let fits = name.len() <= MAX_IDENTIFIER && !matches!(sql.get(end), Some(b'"' | b'\'' | b'&' | b'.'));
        return fits.then(|| (name.to_ascii_lowercase(), end));
    }
    let (mut name, mut at) = (Vec::new(), at + 1);
    loop {
        let end = at + memchr::memchr(b'"', sql.get(at..)?)?;
        name.extend_from_slice(&sql[at..end]);
        if sql.get(end + 1) != Some(&b'"') {
            return (!name.is_empty() && name.len() <= MAX_IDENTIFIER).then_some((name, end + 1));
        }
        name.push(b'"');
        at = end + 2;
    }
}

impl Session {
    /// A simple Query. `None` when it names no statement of this client's.
    pub(super) fn rename_query(
        &mut self,
        frame: Frame,
        data: &[u8],
        range: &Range<usize>,
        server: &mut Server,
        plan: &mut Plan<'_>,
        events: &mut Vec<Event>,
    ) -> Option<Taken> {
        let begin = data.get(range.start + HEADER..range.end)?;
        let any = self.names.as_ref().is_some_and(|n| !n.is_empty());
        if !may_name(begin) && !any && (!begin.is_empty() || self.names.is_none()) {
            return None;
        }
        if range.len() < frame.len {
            let wanted = self.names.is_some() && frame.len <= crate::net::buffer::SIZE;
            return wanted.then_some(Taken::NeedsMore(frame.len));
        }
        let text = range.start + HEADER..range.end;
        let sql = data[text.clone()].strip_suffix(&[0])?;
        let command = Command::read(sql).filter(|c| self.shares_statements() && (c.alone || !c.deallocate));
        let command = match command {
            // One alone, or behind the name there are its parameters and no other statement.
            Some(c) if c.alone || memchr::memchr(b';', sql).is_none() => c,
            _ if any => return self.rename_executes(&(text.start..text.end - 1), server, plan, data, events),
            other => other?,
        };
        if self.undecided(&command.name, server) {
            return Some(Taken::Wait);
        }
        let named = self.names.as_mut().and_then(|n| n.get(&command.name));
        let Some((mut shared, registration)) = named.and_then(|n| Some((n.at_servers()?, n.registration))) else {
            let hidden = self.hidden(&command.name)?;
            let quoted = [b"\"", &*String::from_utf8_lossy(&hidden).replace('"', "\"\"").into_bytes(), b"\""].concat();
            names::put_query(plan.inject(data), &renamed(sql, &command.at, &quoted));
            let entry = Entry::new(Request::Query, Action::Forward);
            self.query_taken(entry, text.start..text.end - 1, data, server, events);
            return Some(Taken::Yes);
        };
        let entry = if command.deallocate {
            let out = plan.inject(data);
            names::put_statement(out, tag::CLOSE, SCAPEGOAT);
            names::put_query(out, PREPARE_DEALLOCATE);
            server.tracker.push(Entry::new(Request::Close, Action::Skip));
            // Its place is the next.
            self.names().end(registration, server.tracker.last_place().wrapping_add(1), true);
            Entry { registration, ..Entry::new(Request::Query, Action::Forward) }
        } else {
            let now = self.schema_now();
            // The client is told the columns.
            if !shared.current(now)
                && let Some(new) = self.pool.shared.statements.again(&shared, &self.pool.schema, now)
            {
                self.names().renew(&command.name, &new);
                shared = new;
            }
            let mut there = super::ahead::has(shared.id, server);
            if !there {
                let open = server.tracker.wants_sync();
                if !open && !server.tracker.answered() {
                    // No answer comes before the end of a COPY that is not here: the server refuses the Query itself.
                    return server.tracker.will_answer().then_some(Taken::Wait);
                }
                if server.tracker.status() != TxStatus::Failed {
                    self.ensure(&shared, server, plan, data);
                    there = true;
                }
                if there && !open {
                    // Should it fail, the Query must not be skipped together with it. (What is open is a transaction: a
                    // Sync would end it.)
                    frame::put(plan.inject(data), tag::SYNC, |_| {});
                    server.tracker.push(Entry::new(Request::Sync, Action::Skip));
                }
            }
            names::put_query(plan.inject(data), &renamed(sql, &command.at, &shared.name));
            Entry {
                statement: if there { shared.id } else { 0 },
                named: registration,
                ..Entry::new(Request::Query, Action::Forward)
            }
        };
        self.query_taken(entry, text.start..text.end - 1, data, server, events);
        Some(Taken::Yes)
    }

    /// A Query of the whole `text`, in whose place another has been put.
    pub(super) fn query_taken(
        &mut self,
        entry: Entry,
        text: Range<usize>,
        data: &[u8],
        server: &mut Server,
        events: &mut Vec<Event>,
    ) {
        self.before_query(data.get(text.clone()), server, data);
        server.tracker.push(entry);
        self.behind_query(server);
        events.push(Event::Query(text));
    }

    /// What a server is asked for in the place of a shared statement's name there, which is none of the client's.
    #[inline]
    pub(super) fn hidden(&self, name: &[u8]) -> Option<Vec<u8>> {
        let prefix = self.pool.schema.prefix();
        (self.shares_statements() && prefix.begins(name)).then(|| prefix.hide(name))
    }

    /// After a Parse: whether its text names another statement. Which one that is, is seen when it is bound.
    pub(super) fn note_command(&mut self, p: &Parse<'_>, server: &Server) {
        let command = (may_name(p.sql) && self.shares_statements()).then(|| Command::read(p.sql)).flatten();
        let command = command.filter(|c| c.alone || !c.deallocate);
        let forgets = self.shares_statements() && forgets_statements(p.sql);
        if command.is_none() && !forgets && (self.names.is_none() || !p.name.is_empty()) {
            return;
        }
        let names = self.names();
        names.commands |= command.is_some() || forgets;
        if p.name.is_empty() {
            names.unnamed_forgets = forgets;
            let place = server.tracker.last_place();
            let made = |command| UnnamedCommand { command, rest: p.rest.into(), changed: false, place, end: None };
            names.unnamed_command = command.map(|c| Box::new(made(c)));
        } else if let Some(named) = names.get(p.name).filter(|n| n.place == server.tracker.last_place()) {
            // Not one that had the name before.
            named.command = command.map(Box::new);
            named.forgets = forgets;
        }
    }

    /// Before a statement that names another is bound to a portal, or described: what it is at servers. Whether what it
    /// names is known; the client waits when not.
    pub(super) fn put_command(
        &mut self,
        statement: &[u8],
        portal: Option<&[u8]>,
        server: &mut Server,
        plan: &mut Plan<'_>,
        data: &[u8],
    ) -> bool {
        if statement.is_empty()
            && let Some(names) = &mut self.names
            && let Some(c) = &names.unnamed_command
        {
            let undecided = |place: u32| server.tracker.undecided(place);
            if undecided(c.place) || c.end.is_some_and(undecided) {
                return false;
            }
            if c.end.is_some() {
                names.unnamed_command = None;
            }
        }
        let Some(command) = self.names.as_mut().and_then(|n| n.command(statement)) else {
            if let (Some(portal), Some(names)) = (portal, &mut self.names) {
                let all = names.naming_of_all(statement);
                names.bind_naming(portal, all);
            }
            return true;
        };
        if self.undecided(&command.name, server) {
            return false;
        }
        let names = self.names();
        let named = names.get(&command.name).and_then(|n| Some((n.at_servers()?, n.registration)));
        if let Some(portal) = portal {
            let ends = command.deallocate;
            names.bind_naming(portal, named.as_ref().map(|n| Naming { registration: n.1, ends, all: false }));
        }
        let target = named.map(|n| n.0);
        if command.deallocate {
            names.ended = (&*command.name).into();
            self.put_scapegoat(target.is_some(), server, plan, data);
        }
        match (statement, target) {
            ([], target) => self.put_unnamed(&command, target, server, plan, data),
            (name, None) => self.names().get(name).into_iter().for_each(|n| n.instead = None),
            (name, Some(target)) => self.put_instead(name, &command, &target),
        }
        true
    }

    /// An Execute of a portal that is about another statement, or all: what is said of names behind it waits for the answer,
    /// and no Sync may be there to bring it.
    pub(super) fn execute_naming(
        &mut self,
        naming: Naming,
        data: &[u8],
        range: Range<usize>,
        server: &mut Server,
        plan: &mut Plan<'_>,
    ) {
        plan.keep(data, range);
        let Naming { registration, ends, all } = naming;
        if all {
            server.tracker.push(Entry::new(Request::Execute, Action::Forward));
            frame::put(plan.inject(data), tag::FLUSH, |_| {});
            self.names().close_all();
            self.forgetting = Some(server.tracker.last_place());
            return;
        }
        let execute = Entry { named: registration, ..Entry::new(Request::Execute, Action::Forward) };
        server.tracker.push(Entry { registration: if ends { registration } else { 0 }, ..execute });
        if ends {
            self.names().end(registration, server.tracker.last_place(), false);
        }
    }

    /// What a DEALLOCATE ends at the server, when what the client means is `there`.
    fn put_scapegoat(&mut self, there: bool, server: &mut Server, plan: &mut Plan<'_>, data: &[u8]) {
        names::put_statement(plan.inject(data), tag::CLOSE, SCAPEGOAT);
        server.tracker.push(Entry::new(Request::Close, Action::Skip));
        if there {
            names::put_parse(plan.inject(data), SCAPEGOAT, SCAPEGOAT_REST);
            server.tracker.push(Entry::new(Request::Parse, Action::Skip));
        }
    }

    /// The unnamed statement is made anew with the name that the server knows, or as it was.
    fn put_unnamed(
        &mut self,
        command: &Command,
        target: Option<Arc<server::Statement>>,
        server: &mut Server,
        plan: &mut Plan<'_>,
        data: &[u8],
    ) {
        if let Some(target) = target.as_ref().filter(|_| !command.deallocate) {
            self.ensure(target, server, plan, data);
        }
        let Some(unnamed) = self.names().unnamed_command.as_deref_mut() else { return };
        if target.is_none() && !unnamed.changed {
            return;
        }
        unnamed.changed = target.is_some();
        let raw = &unnamed.rest;
        let rest = target.as_ref().map_or_else(|| raw.to_vec(), |t| command.rest(raw, &t.name));
        names::put_parse(plan.inject(data), b"", &rest);
        self.push_unnamed(server);
    }

    /// A named statement gets a text with the name that servers know.
    fn put_instead(&mut self, name: &[u8], command: &Command, target: &Arc<server::Statement>) {
        let Some(named) = self.names().get(name) else { return };
        let Some(raw) = named.shared.as_deref().cloned() else { return };
        if named.instead.as_ref().is_some_and(|(id, _)| *id == target.id) {
            return;
        }
        let rest = command.rest(&raw.rest, &target.name);
        let text = Text { rest: &rest, key: None, needs: (!command.deallocate).then_some(target) };
        let now = self.schema_now();
        let new = self.pool.shared.statements.intern(text, &self.params, &self.pool.schema, now);
        if let Some(named) = self.names().get(name) {
            named.instead = new.map(|s| (target.id, server::Registered::new(s)));
        }
    }

    /// An answer to a DEALLOCATE in a client's place: whether it is for the client.
    pub(super) fn note_deallocated(&mut self, e: &Entry, body: &[u8]) -> bool {
        match body {
            b"PREPARE\0" => false,
            b"DEALLOCATE\0" => {
                self.names().closed(e.registration);
                true
            }
            _ => true,
        }
    }

    /// An error about a statement by the server's name for it, with the client's: `None` when there is none in it.
    pub(super) fn error_with_name(&mut self, asked: u32, body: &[u8]) -> Option<Vec<u8>> {
        // Of what is undefined, taken, or given the wrong number of parameters.
        if !matches!(&error::code(body), b"26000" | b"42P05" | b"42601" | b"08P01") {
            return None;
        }
        let prefix = self.pool.schema.prefix();
        if let Some(revealed) = prefix.reveal(body) {
            return Some(revealed);
        }
        let names = self.names.as_mut()?;
        let (name, at) = if let Some(at) = memchr::memmem::find(body, SCAPEGOAT) {
            (&*names.ended, at..at + SCAPEGOAT.len())
        } else {
            let (at, id) = prefix.find(body)?;
            let id = id?;
            // One text may have several names: the one that was used, if it is known, or the one in its text.
            let meant = |n: &Named| if asked == 0 { n.is(id) } else { n.registration == asked };
            let (name, named) = names.all().find(|(_, n)| meant(n))?;
            let of_text = matches!(&error::code(body), b"26000" | b"42601");
            let other = named.command.as_deref().filter(|c| of_text && !c.deallocate && !named.is(id));
            let other = other.map(|c| &*c.name);
            (other.unwrap_or(name), at)
        };
        Some([&body[..at.start], name, &body[at.end..]].concat())
    }
}

impl Command {
    /// Text and types as in Parse, with the name that servers know.
    fn rest(&self, rest: &[u8], name: &[u8]) -> Vec<u8> {
        let sql = memchr::memchr(0, rest).unwrap_or(rest.len());
        let new = if self.deallocate { DEALLOCATE.to_vec() } else { renamed(&rest[..sql], &self.at, name) };
        [&new[..], &rest[sql..]].concat()
    }
}

/// The text with another name.
pub(super) fn renamed(sql: &[u8], at: &Range<usize>, name: &[u8]) -> Vec<u8> {
    [&sql[..at.start], name, &sql[at.end..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> Option<(bool, String, bool)> {
        let c = Command::read(sql.as_bytes())?;
        Some((c.deallocate, String::from_utf8(c.name).unwrap(), c.alone))
    }

    #[test]
    fn the_name_is_read_as_postgresql_reads_it() {
        for (sql, deallocate, name, alone) in [
            ("DEALLOCATE _pg3_0", true, "_pg3_0", true),
            ("deallocate PREPARE Foo ;; ", true, "foo", true),
            ("/* a */ -- b\n DEALLOCATE \"A\"\"b\"", true, "A\"b", true),
            ("DEALLOCATE prepare;", true, "prepare", true),
            ("DEALLOCATE \"all\"", true, "all", true),
            ("DEALLOCATE a; SELECT 1", true, "a", false),
            ("EXECUTE foobar(1, 'x')", false, "foobar", false),
            ("execute foobar", false, "foobar", true),
        ] {
            assert_eq!(read(sql), Some((deallocate, name.to_owned(), alone)), "{sql}");
        }
        let long = format!("DEALLOCATE {}", "x".repeat(64));
        for sql in
            ["DEALLOCATE ALL", "DEALLOCATE", "DELETE FROM t", "EXECUTE", "DEALLOCATE U&\"x\"", &long, "EXECUTE 1"]
        {
            assert_eq!(read(sql), None, "{sql}");
        }
    }
}
