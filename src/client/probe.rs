//! Asking the server what a client's statements have left in its session: one query of pgsluice's own, sent when a
//! transaction with suspicious statements has ended, before the server may be given back.
//!
//! The server is the only one who knows: a SET may have been rolled back to a savepoint, a lock not been granted, a
//! table been dropped by a cascade. Parameters that the client has set go with it to its next server; other state keeps
//! the client at this one ([`super::pins`]).
//!
//! Source: the views pg_settings, pg_locks, pg_prepared_statements, pg_cursors and the functions
//! pg_listening_channels, pg_my_temp_schema; guc.c for `source`.

use std::sync::Arc;

use super::pins::{Ties, Touched};
use super::session::{Session, Stop};
use crate::pool::Pin;
use crate::server::{ParamSet, Server, params};
use crate::wire::cursor::Cursor;
use crate::wire::error::{self, ErrorFields, sqlstate};
use crate::wire::names;
use crate::wire::tracker::{Action, Entry, Request};

/// Marks the question among pgsluice's own queries (`Entry::statement`; parameters set anew have 0).
pub(super) const QUESTION: u32 = 1;
/// Longest value that goes with a client to other servers.
const MAX_VALUE: usize = 8 * 1024;
/// Times that a question is asked which is cancelled.
const TRIES: u8 = 3;

/// A question under way.
#[derive(Default)]
pub(super) struct Question {
    kinds: u8,
    touched: Touched,
    /// Kinds that are there.
    there: u8,
    /// Open cursors WITH HOLD.
    cursors: usize,
    /// Parameters that the session has set.
    values: Vec<(Box<str>, Box<str>)>,
    /// A value cannot be carried to another server.
    unreadable: bool,
    /// The SQLSTATE it failed with.
    failed: Option<[u8; 5]>,
}

/// Rows of the answer that tell of a kind of state: their name, and the count.
const KINDS: [(Pin, &str, &str); 5] = [
    (Pin::Cursor, "!cursor", "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_cursors WHERE is_holdable)"),
    (Pin::Listen, "!listen", "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_listening_channels())"),
    (
        Pin::AdvisoryLock,
        "!advisory_lock",
        "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' \
         AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())",
    ),
    (
        Pin::Temp,
        "!temp",
        "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_depend WHERE \
         refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass \
         AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())",
    ),
    (Pin::Prepared, "!prepare", "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_statements WHERE from_sql)"),
];

impl Question {
    /// The query. `known`: custom parameters of these are asked for too when any may have changed.
    fn sql(&self, known: &ParamSet, out: &mut Vec<u8>) {
        // Custom parameters are not in pg_settings; role and session_authorization neither.
        let listed = |name: &str| !name.contains('.') && !matches!(name, "role" | "session_authorization");
        out.extend_from_slice(b"SELECT n, v FROM (VALUES (NULL::pg_catalog.text, NULL::pg_catalog.text)");
        for (pin, name, count) in KINDS.iter().filter(|(pin, ..)| self.kinds & pin.bit() != 0) {
            debug_assert!(super::pins::ASKABLE & pin.bit() != 0);
            out.extend_from_slice(format!(", ('{name}', {count}::pg_catalog.text)").as_bytes());
        }
        let mut single = |name: &str| {
            out.extend_from_slice(b", (");
            params::literal(out, name);
            out.extend_from_slice(b", pg_catalog.current_setting(");
            params::literal(out, name);
            out.extend_from_slice(b", true))");
        };
        self.touched.names.iter().filter(|(n, _)| !listed(n)).for_each(|(n, _)| single(n));
        if self.touched.all {
            for name in ["role", "session_authorization"].into_iter().chain(known.iter().map(|(n, _)| n)) {
                if !listed(name) && !self.touched.has(name) {
                    single(name);
                }
            }
        }
        out.extend_from_slice(b") s(n, v)");
        if self.touched.all || self.touched.names.iter().any(|(n, _)| listed(n)) {
            out.extend_from_slice(
                b" UNION ALL SELECT pg_catalog.lower(name), setting FROM pg_catalog.pg_settings \
                  WHERE source OPERATOR(pg_catalog.=) 'session'",
            );
        }
        if !self.touched.all && self.touched.names.iter().any(|(n, _)| listed(n)) {
            out.extend_from_slice(b" AND pg_catalog.lower(name) OPERATOR(pg_catalog.=) ANY (ARRAY[''");
            for (name, _) in self.touched.names.iter().filter(|(n, _)| listed(n)) {
                out.push(b',');
                params::literal(out, name);
            }
            out.extend_from_slice(b"]::pg_catalog.text[])");
        }
    }

    /// One row of the answer: name and value, both text. `ascii`: values must be, since the client's encoding is not
    /// the server's.
    fn row(&mut self, body: &[u8], ascii: bool) {
        let Some([name, value]) = columns(body) else {
            self.unreadable = true;
            return;
        };
        let (Some(name), Some(value)) = (name, value) else { return };
        if let Some((pin, ..)) = KINDS.iter().find(|(_, n, _)| n.as_bytes() == name) {
            let count = std::str::from_utf8(value).ok().and_then(|v| v.parse::<usize>().ok()).unwrap_or(1);
            self.there |= if count > 0 { pin.bit() } else { 0 };
            if *pin == Pin::Cursor {
                self.cursors = count;
            }
            return;
        }
        match (std::str::from_utf8(name), std::str::from_utf8(value)) {
            (Ok(name), Ok(value)) if value.len() <= MAX_VALUE && (value.is_ascii() || !ascii) => {
                self.values.push((name.into(), value.into()));
            }
            _ => self.unreadable = true,
        }
    }
}

/// The two columns of a DataRow; `None` when the row is not whole or not ours.
fn columns(body: &[u8]) -> Option<[Option<&[u8]>; 2]> {
    let mut c = Cursor::new(body);
    (c.u16().ok()? == 2).then_some(())?;
    let mut column = || {
        let len = c.u32().ok()?;
        if len == u32::MAX { Some(None) } else { c.bytes(len as usize).ok().map(Some) }
    };
    Some([column()?, column()?])
}

impl Session {
    /// Asks the server when something must be asked and the transaction is over. The server is not releasable until the
    /// answer has come.
    pub(super) fn ask_what_is_left(&mut self, server: &mut Server) -> Result<(), Stop> {
        if !self.pins.must_ask() || !server.releasable() || self.in_message.left > 0 {
            return Ok(());
        }
        // What the client says next may go on with it; but not before its parameters are known, where they are to be set,
        // and not while it waits for what a RESET has left.
        if self.input.is_some() && !self.resets.awaited && Arc::ptr_eq(&server.params, &self.params) {
            return Ok(());
        }
        // The question would end an unnamed statement that nothing can bring back; its server is kept until that is replaced.
        if self.unnamed.ties() && !self.resets.awaited {
            return Ok(());
        }
        let kinds = self.pins.take_suspect();
        let ties: &mut Ties = self.pins.ties();
        let question = Question { kinds, touched: std::mem::take(&mut ties.touched), ..Question::default() };
        let mut sql = Vec::with_capacity(512);
        question.sql(&self.params, &mut sql);
        ties.question = Some(question);
        let mut out = Vec::with_capacity(sql.len() + 6);
        names::put_query(&mut out, &sql);
        server.unnamed_of = 0;
        server.tracker.push(Entry { statement: QUESTION, ..Entry::new(Request::Query, Action::Skip) });
        let sent = server.socket.try_send(&out).map_err(|e| Stop::ServerLost(e.to_string()))?;
        server.unsent.extend_from_slice(&out[sent..]);
        Ok(())
    }

    /// A row of the answer.
    pub(super) fn hear_row(&mut self, body: &[u8], server: &Server) {
        let ascii = server.reported(b"client_encoding") != server.reported(b"server_encoding");
        if let Some(question) = &mut self.pins.ties().question {
            question.row(body, ascii);
        }
    }

    /// The server could not answer.
    pub(super) fn hear_error(&mut self, body: &[u8]) {
        if let Some(question) = &mut self.pins.ties().question {
            question.failed = Some(error::code(body));
        }
    }

    /// A cancel that came too late for the client's own statement is no reason to keep the server: it is asked again.
    /// Of a server that still does not answer (the client has set a very short time-out, say) nothing is known.
    fn ask_again(&mut self, question: Question) -> Result<(), Stop> {
        let ties = self.pins.ties();
        if question.failed.as_ref() != Some(b"57014") || ties.tries >= TRIES {
            ties.tries = 0;
            return self.pin(Pin::Unreadable);
        }
        ties.tries += 1;
        ties.suspect |= question.kinds;
        ties.touched = question.touched;
        Ok(())
    }

    /// The answer is complete.
    pub(super) fn hear_end(&mut self, server: &mut Server) -> Result<(), Stop> {
        let Some(question) = self.pins.ties().question.take() else { return Ok(()) };
        if question.failed.is_some() {
            return self.ask_again(question);
        }
        self.pins.ties().tries = 0;
        let before = self.pins.reason();
        self.pins.learn(question.kinds, question.there, question.cursors);
        let followed = self.follow_touched(&question, server);
        if question.unreadable || !followed {
            self.pins.pin(Pin::Unreadable);
        }
        self.pins_changed(before)
    }

    /// What the session has set of the touched parameters is the client's wish from now on; what it has not set is as
    /// the client began. False when there are too many to carry.
    fn follow_touched(&mut self, question: &Question, server: &mut Server) -> bool {
        if question.touched.is_empty() {
            return true;
        }
        let mut asked: Vec<&str> = question.touched.names.iter().map(|(n, _)| &**n).collect();
        let known: Vec<Box<str>> = self.params.iter().map(|(n, _)| n.into()).collect();
        if question.touched.all {
            asked.extend(question.values.iter().map(|(n, _)| &**n));
            asked.extend(known.iter().map(|n| &**n));
        }
        let (mut wish, mut there) = ((*self.params).clone(), (*server.params).clone());
        for name in asked.into_iter().filter(|n| !params::fixed(n) || *n == "session_authorization") {
            let value = question.values.iter().find(|(n, _)| **n == *name).map(|(_, v)| &**v);
            // Not set: no role, the role of the login, a custom parameter that a RESET or a rollback has left empty.
            let value = value.filter(|v| match name {
                // To have none is the wish of a client that began with one (RESET ALL leaves the role alone).
                "role" => *v != "none" || self.startup.get(name).is_some() && !question.touched.was_reset_by_name(name),
                "session_authorization" => *v != self.pool.target.user,
                _ if v.is_empty() && name.contains('.') => {
                    wish.get(name).is_some() && !question.touched.was_reset(name)
                }
                _ => true,
            });
            match value.or(self.startup.get(name)) {
                Some(v) => wish = wish.with(name, v),
                None => wish = wish.without(name),
            }
            there = value.map_or_else(|| there.without(name), |v| there.with(name, v));
            if value.is_some() && there.get(name) != value {
                return false;
            }
        }
        self.params = self.pool.shared.params.intern(wish);
        server.params = self.pool.shared.params.intern(there);
        true
    }

    /// Keeps the server until the client leaves.
    ///
    /// # Errors
    /// The pool has as many such clients as it may.
    pub(super) fn pin(&mut self, pin: Pin) -> Result<(), Stop> {
        if !self.follows_parameters() {
            return Ok(());
        }
        let before = self.pins.reason();
        self.pins.pin(pin);
        self.pins_changed(before)
    }

    /// Notes, counts and limits what ties the client.
    ///
    /// # Errors
    /// As [`Self::pin`].
    pub(super) fn pins_changed(&mut self, before: Option<Pin>) -> Result<(), Stop> {
        let now = self.pins.reason();
        if now == before {
            return Ok(());
        }
        self.place.info.set_pinned(now, crate::net::clock::now_us());
        let Some(pin) = now else {
            self.pool.pinned.leave();
            tracing::debug!(target: "pgsluice::client", client = self.place.info.id, "no longer pinned");
            return Ok(());
        };
        self.stats().pins[pin as usize].add(1);
        tracing::debug!(target: "pgsluice::client", client = self.place.info.id, reason = pin.reason(), "pinned to its server");
        let others = if before.is_none() { self.pool.pinned.enter() } else { self.pool.pinned.count() - 1 };
        let limit = self.pool.settings.pin_limit();
        // A cursor of .iterator() is there for a moment, and ending the loop would be worse than waiting.
        if pin == Pin::Cursor || others < limit {
            return Ok(());
        }
        tracing::warn!(target: "pgsluice::pool", database = %self.pool.database, user = %self.pool.user, reason = pin.reason(), max_pinned = limit, "a session that would keep its server connection is ended");
        Err(Stop::Protocol(
            ErrorFields::fatal(
                sqlstate::CONFIGURATION_LIMIT,
                format!("this session would keep a server connection for itself ({}), and max_pinned does not allow another", pin.reason()),
            )
            .detail(format!("{others} other clients of this pool keep theirs; at most {limit} may."))
            .hint(pin.hint()),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: &[Option<&[u8]>]) -> Vec<u8> {
        let mut body = (columns.len() as u16).to_be_bytes().to_vec();
        for c in columns {
            body.extend_from_slice(&c.map_or(u32::MAX, |c| c.len() as u32).to_be_bytes());
            body.extend_from_slice(c.unwrap_or_default());
        }
        body
    }

    #[test]
    fn rows_tell_kinds_and_values() {
        let mut q = Question { kinds: Pin::Listen.bit() | Pin::Cursor.bit(), ..Question::default() };
        q.row(&row(&[None, None]), false);
        q.row(&row(&[Some(b"!listen"), Some(b"2")]), false);
        q.row(&row(&[Some(b"!cursor"), Some(b"0")]), false);
        q.row(&row(&[Some(b"app.x"), Some(b"5")]), false);
        q.row(&row(&[Some(b"app.y"), None]), false);
        assert_eq!((q.there, q.cursors, q.unreadable), (Pin::Listen.bit(), 0, false));
        assert_eq!(q.values, [("app.x".into(), "5".into())]);
    }

    #[test]
    fn a_value_that_cannot_be_carried_is_said_so() {
        for (body, ascii) in [
            (row(&[Some(b"app.x"), Some(&[0xff])]), false),
            (row(&[Some(b"app.x"), Some("\u{e9}".as_bytes())]), true),
            (row(&[Some(b"app.x"), Some(&[b'x'; MAX_VALUE + 1])]), false),
            (vec![0, 2, 0, 0], false),
        ] {
            let mut q = Question::default();
            q.row(&body, ascii);
            assert!(q.unreadable);
        }
    }
}
