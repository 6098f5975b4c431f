//! Server to client: every message is held against what was asked; answers to injected requests are swallowed, and
//! what the pooler answers itself is put in its place.

use std::rc::Rc;
use std::sync::Arc;

use super::fresh::{OUTDATED, outdated_error};
use super::plan::Plan;
use super::probe::QUESTION;
use super::resets::Report;
use super::session::{Session, Stop, try_send_client};
use crate::config::PoolMode;
use crate::net::buffer::SIZE;
use crate::server::{InMessage, Replaying, Server};
use crate::wire::error::{self, ErrorFields, sqlstate};
use crate::wire::tag::backend as tag;
use crate::wire::tracker::{Action, Entry, Request};
use crate::wire::{Frame, HEADER, TxStatus, control, frame};

/// Scratch for a batch that is changed on its way.
#[derive(Default)]
pub struct Batch {
    /// Bytes of the batch.
    pub out: Vec<u8>,
}

impl Session {
    /// Holds what the server sent against what was asked, and plans what of it goes to the client. Returns the bytes
    /// used; what is left is the beginning of a message that must be seen as a whole.
    pub(super) fn digest_server(
        &mut self,
        server: &mut Server,
        data: &[u8],
        plan: &mut Plan<'_>,
        now: u64,
    ) -> Result<usize, Stop> {
        let mut at = 0;
        loop {
            if server.in_message.left > 0 {
                let n = server.in_message.left.min(data.len() - at);
                if server.in_message.forward {
                    plan.keep(data, at..at + n);
                }
                server.in_message.left -= n;
                at += n;
                if server.in_message.left > 0 {
                    return Ok(at);
                }
                continue;
            }
            if server.tracker.fake_ahead() {
                self.answer_fakes(server, plan, data);
            }
            let Some(f) = Frame::peek(&data[at..]).map_err(|_| Stop::Desync)? else { return Ok(at) };
            let have = f.len.min(data.len() - at);
            // Nearly all of what a server says: nothing is to be learnt from it.
            if f.tag == tag::DATA_ROW && server.tracker.in_rows() {
                self.answered += f.len as u64;
                plan.keep(data, at..at + have);
                at += have;
                server.in_message = InMessage { left: f.len - have, forward: true };
                continue;
            }
            let own = server.tracker.own_query();
            let about = server.tracker.about().copied();
            let about = about.filter(|_| may_be_about(f.tag));
            let whole = held_back(f.tag) || about.is_some() || own == Some(QUESTION);
            if have < f.len && f.len <= SIZE && whole {
                return Ok(at);
            }
            let body = &data[at + HEADER..(at + have).max(at + HEADER)];
            let mut forward = server.tracker.answer(f.tag, body).map_err(|_| Stop::Desync)?;
            let mut instead = None;
            if f.tag == tag::ERROR && have == f.len {
                (forward, instead) = self.error_of_statement(about.as_ref(), body, forward, server);
            } else if let Some(e) = about {
                forward = self.about_statement(&e, f, body, forward, server);
            } else if f.tag == tag::PARAMETER_STATUS && forward && self.resets.under_way() {
                match self.report_of_reset(body, server) {
                    Report::AsIs => {}
                    Report::Nothing => forward = false,
                    Report::Own(message) => (forward, instead) = (false, Some(message)),
                }
            } else if f.tag == tag::NOTIFICATION && have == f.len {
                instead = self.own_notification(body, server);
            }
            let failed_once = f.tag == tag::READY_FOR_QUERY && server.replay.state == Replaying::Failed;
            forward &= !failed_once;
            if let Some(which) = own {
                forward |= self.note_own(which, f.tag, body, server)?;
            }
            self.answered += f.len as u64;
            if interesting(f.tag) {
                self.note(f.tag, body, forward, server, now)?;
                if !self.resets.rare().reports.is_empty() {
                    plan.inject(data).append(&mut self.resets.take_reports());
                }
            }
            if failed_once {
                self.replay(server);
            }
            if let Some(message) = instead {
                plan.inject(data).extend_from_slice(&message);
            } else if forward {
                plan.keep(data, at..at + have);
            } else {
                plan.inject(data);
            }
            at += have;
            server.in_message.left = f.len - have;
            server.in_message.forward = forward;
        }
    }

    /// A notification that the client sent itself, with the process id that it was told at its login: so it knows its
    /// own (who listens is tied, so nobody else spoke on this server since). Of others, it is their server's.
    #[cold]
    fn own_notification(&self, body: &[u8], server: &Server) -> Option<Vec<u8>> {
        let payload = body.strip_prefix(&server.key.pid().to_be_bytes())?;
        let mut message = Vec::with_capacity(HEADER + body.len());
        frame::put(&mut message, tag::NOTIFICATION, |b| {
            b.extend_from_slice(&self.registration.key.pid.to_be_bytes());
            b.extend_from_slice(payload);
        });
        Some(message)
    }

    /// A message of the answer to what names a shared statement: whether it is for the client.
    #[cold]
    fn about_statement(&mut self, e: &Entry, f: Frame, body: &[u8], forward: bool, server: &mut Server) -> bool {
        match (f.tag, e.request) {
            (tag::PARAMETER_DESCRIPTION | tag::ROW_DESCRIPTION | tag::NO_DATA, Request::Describe) => {
                self.note_shape(e, f.tag, body, f.len, server);
            }
            (tag::COMMAND_COMPLETE, Request::Query | Request::Execute) if e.registration != 0 => {
                return self.note_deallocated(e, body);
            }
            _ => {}
        }
        forward
    }

    /// An error: whether it is for the client, and what it hears instead. `about`: what names a shared statement.
    #[cold]
    fn error_of_statement(
        &mut self,
        about: Option<&Entry>,
        body: &[u8],
        forward: bool,
        server: &mut Server,
    ) -> (bool, Option<Vec<u8>>) {
        let with_name = |this: &mut Self| {
            let renamed = this.error_with_name(about.map_or(0, |e| e.named), body)?;
            let mut message = Vec::new();
            frame::put(&mut message, tag::ERROR, |b| b.extend_from_slice(&renamed));
            Some(message)
        };
        let Some(e) = about else { return (forward, with_name(self)) };
        // A text may name several, and others besides: the error says which one is meant.
        let statement = match e.request {
            Request::Query if e.statement != 0 => self.pool.schema.prefix().find(body).and_then(|f| f.1).unwrap_or(0),
            Request::Query => 0,
            _ => e.statement,
        };
        let meant = e.request != Request::Query || statement != 0;
        let unknown = meant && &error::code(body) == b"26000";
        if e.registration == OUTDATED && unknown {
            let mut message = Vec::new();
            outdated_error(&mut message);
            return (true, Some(message));
        }
        let known = server.statements.shape(statement).is_some();
        if unknown && known {
            // Somebody has read its name there and ended it.
            server.statements.lost(statement);
        }
        if self.note_outlived(e, body, server) && self.will_replay(e, server) {
            return (false, None);
        }
        if e.request == Request::Query {
            if e.registration != 0 {
                self.names().close_dropped(e.registration);
            } else if unknown && !known {
                // The Parse ahead has failed, and the client has been told why.
                return (false, None);
            }
        }
        (forward, with_name(self))
    }

    /// Puts the answers to requests that no server was told of where they belong.
    pub(super) fn answer_fakes(&mut self, server: &mut Server, plan: &mut Plan<'_>, data: &[u8]) {
        while let Some(e) = server.tracker.pop_fake() {
            let complete = if e.request == Request::Parse { tag::PARSE_COMPLETE } else { tag::CLOSE_COMPLETE };
            frame::put(plan.inject(data), complete, |_| {});
            if e.request == Request::Close {
                self.names().closed(e.registration);
            }
        }
    }

    /// An answer to a query of pgsluice's own: parameters set anew for this client, or the question what is left.
    /// Whether it is for the client after all.
    fn note_own(&mut self, which: u32, t: u8, body: &[u8], server: &mut Server) -> Result<bool, Stop> {
        if which == QUESTION {
            match t {
                tag::DATA_ROW => self.hear_row(body, server),
                tag::ERROR => self.hear_error(body),
                tag::READY_FOR_QUERY => self.hear_end(server)?,
                _ => {}
            }
            return Ok(false);
        }
        self.note_setting(t, body, server)
    }

    /// The few messages that mean something to us.
    fn note(&mut self, t: u8, body: &[u8], forward: bool, server: &mut Server, now: u64) -> Result<(), Stop> {
        match t {
            tag::COMMAND_COMPLETE | tag::EMPTY_QUERY | tag::PORTAL_SUSPENDED if forward => {
                let rows = if t == tag::COMMAND_COMPLETE { control::rows(body) } else { 0 };
                let bytes = std::mem::take(&mut self.answered);
                self.begun = self.begun.saturating_sub(1);
                self.insight.complete(&mut self.w.lens.borrow_mut(), rows, bytes, now);
                if t == tag::COMMAND_COMPLETE {
                    self.note_close(body)?;
                    self.note_reset(body, server);
                    self.note_schema(body);
                }
            }
            // A question that failed has undone nothing.
            tag::ERROR if server.tracker.own_query() == Some(QUESTION) => {}
            tag::ERROR => {
                self.pins.undone();
                self.resets.undone();
                self.created_undone();
                if forward {
                    self.insight.failed(&mut self.w.lens.borrow_mut(), error::code(body), now);
                }
                self.server_fatal |= error::is_fatal(body);
            }
            tag::READY_FOR_QUERY => self.note_ready(forward, server, now)?,
            tag::PARAMETER_STATUS => self.note_parameter(body, forward, server),
            _ => {}
        }
        Ok(())
    }

    fn note_ready(&mut self, forward: bool, server: &mut Server, now: u64) -> Result<(), Stop> {
        let status = server.tracker.status();
        if server.tracker.has_dropped() {
            self.undo_dropped(server);
            let before = self.pins.reason();
            self.tie_unnamed();
            self.pins_changed(before)?;
        }
        self.unnamed_settled(server);
        if forward && self.resets.done.contains(&true) {
            self.follow_resets(server);
        }
        if self.resets.follows() {
            self.follow_block(server);
        }
        if status == TxStatus::Idle {
            self.publish_schema();
        }
        if self.forgetting.take_if(|place| !server.tracker.pending(*place)).is_some() {
            // Answered, and it has not succeeded.
            self.names().reopen_all();
        }
        if server.tracker.answered() {
            if server.replay.state != Replaying::Failed {
                server.replay.state = Replaying::No;
            }
            self.resets.clear();
            server.statements.settled();
        }
        if forward {
            self.answered = 0;
            self.insight.ready(&mut self.w.lens.borrow_mut(), status.byte(), now);
            self.stats().query_us.add(now.saturating_sub(self.request_us));
            self.request_us = now;
            if status == TxStatus::Idle {
                self.stats().transactions.add(1);
                self.stats().transaction_us.add(now.saturating_sub(self.transaction_us));
                self.transaction_us = now;
            }
        }
        if server.tracker.answered() {
            self.begun = 0;
            self.pins.settled();
            server.info.set_tx(status.byte(), now);
        }
        if self.pool.settings.pool_mode == PoolMode::Statement && status != TxStatus::Idle {
            return Err(Stop::Protocol(ErrorFields::fatal(
                sqlstate::NOT_SUPPORTED,
                "transaction blocks not allowed in statement pooling mode",
            )));
        }
        Ok(())
    }

    /// Requests the server skipped because of an error never happened.
    fn undo_dropped(&mut self, server: &mut Server) {
        let dropped: Vec<Entry> = server.tracker.take_dropped().collect();
        // The one that failed; those behind it were skipped.
        let first = dropped.first().map_or(0, Entry::place);
        // The last first: a Close and the Parse behind it.
        for e in dropped.into_iter().rev() {
            match (e.request, e.action) {
                (Request::Parse, action) => {
                    if action != Action::Fake && e.statement != 0 {
                        server.statements.parse_dropped(e.statement, e.place);
                    }
                    if e.registration == 0 && e.statement == 0 {
                        self.unnamed.dropped(&e, self.place.info.id, server);
                    }
                    if e.registration != 0 {
                        self.names().parse_dropped(e.registration);
                    } else if let Some(names) = &mut self.names {
                        names.unnamed_dropped(e.place());
                    }
                    self.unnamed_not_ended(e.place(), e.place() == first, server);
                }
                (Request::Describe, Action::Skip) if e.statement == super::unnamed::UNNAMED => {
                    self.unnamed.not_described(e.place())
                }
                (Request::Close, Action::Skip) => {
                    server.statements.not_closed(e.statement);
                }
                (Request::Close, Action::Fake) => self.names().close_dropped(e.registration),
                (Request::Query | Request::Execute, _) if e.registration != 0 => {
                    self.names().close_dropped(e.registration);
                }
                (Request::Query | Request::Close, _) => {
                    self.unnamed_not_ended(e.place(), false, server);
                    if let Some(names) = &mut self.names {
                        names.unnamed_dropped(e.place());
                    }
                }
                _ => {}
            }
        }
    }

    /// A reported parameter changed: it is the client's wish from now on, and the server has it.
    fn note_parameter(&mut self, body: &[u8], forward: bool, server: &mut Server) {
        let Ok((name, value)) = control::read_parameter_status(body) else { return };
        server.report(name, value);
        if name == b"application_name" {
            server.info.set_application(value);
        }
        let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else { return };
        if forward {
            self.heard_parameter(name, value);
            if self.follows_parameters() && !crate::server::params::fixed(name) {
                // Not the whole set: of others, what the server has may not be what the client wants.
                let shared = &self.pool.shared.params;
                let same = Arc::ptr_eq(&self.params, &server.params);
                self.params = shared.intern(self.params.with(name, value));
                let known =
                    if same { Arc::clone(&self.params) } else { shared.intern(server.params.with(name, value)) };
                server.params = known;
            }
        }
    }

    /// A cursor was closed (the last one WITH HOLD unties the client), or all that ties may have been undone.
    fn note_close(&mut self, body: &[u8]) -> Result<(), Stop> {
        let before = self.pins.reason();
        match body {
            b"CLOSE CURSOR\0" => self.pins.closed(),
            b"CLOSE CURSOR ALL\0" => self.pins.closed_all(),
            b"ROLLBACK\0" => {
                self.pins.undone();
                self.resets.undone();
            }
            b"DISCARD ALL\0" => self.pins.discarded(),
            _ => return Ok(()),
        }
        self.pins_changed(before)
    }

    /// Statements or parameters were reset: at the server to *its* defaults, not to what this client began with.
    fn note_reset(&mut self, body: &[u8], server: &mut Server) {
        let discard = body == b"DISCARD ALL\0";
        if discard || body == b"DEALLOCATE ALL\0" {
            // What was pipelined behind it is not touched by it.
            let (mut statements, mut registrations) = (Vec::new(), Vec::new());
            for e in server.tracker.unanswered().filter(|e| e.request == Request::Parse) {
                registrations.push(e.registration);
                if e.action != Action::Fake {
                    statements.push(e.statement);
                }
            }
            server.statements.clear_but(&statements);
            self.names().clear_but(&registrations);
            self.forgetting = None;
        }
        if discard {
            self.resets.note("session_authorization", false);
            self.resets.note("all", false);
            self.resets.answered(false);
        } else if matches!(body, b"RESET\0" | b"SET\0") {
            self.resets.answered(body == b"SET\0");
        }
    }

    /// Sends a digested batch to the client; what it does not take now is kept.
    pub(super) fn send_client(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.stats().sent.add(bytes.len() as u64);
        if !self.unsent.is_empty() {
            // Behind what the client has not taken yet.
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = try_send_client(&mut self.socket, bytes, self.leaving)?;
        if sent < bytes.len() {
            self.unsent.extend_from_slice(&bytes[sent..]);
        }
        Ok(())
    }

    /// After the client's batch: a lone Close or known Parse has no server answer to wait for.
    pub(super) fn flush_fakes(&mut self, server: &mut Server) -> Result<(), Stop> {
        if server.in_message.left > 0 || !server.tracker.fake_ahead() {
            return Ok(());
        }
        let w = Rc::clone(&self.w);
        let mut batch = w.batch.borrow_mut();
        let mut plan = Plan::new(&mut batch.out);
        self.answer_fakes(server, &mut plan, &[]);
        let bytes = plan.bytes(&[]);
        self.send_client(bytes)
    }
}

/// Messages that are looked at as a whole; they are short, or at most a buffer long.
fn held_back(t: u8) -> bool {
    !matches!(
        t,
        tag::DATA_ROW | tag::COPY_DATA | tag::ROW_DESCRIPTION | tag::PARAMETER_DESCRIPTION | tag::FUNCTION_RESULT
    )
}

/// Messages that are looked at when they answer what names a shared statement.
fn may_be_about(t: u8) -> bool {
    matches!(t, tag::ROW_DESCRIPTION | tag::NO_DATA | tag::PARAMETER_DESCRIPTION | tag::COMMAND_COMPLETE | tag::ERROR)
}

fn interesting(t: u8) -> bool {
    matches!(
        t,
        tag::COMMAND_COMPLETE
            | tag::READY_FOR_QUERY
            | tag::ERROR
            | tag::PARAMETER_STATUS
            | tag::EMPTY_QUERY
            | tag::PORTAL_SUSPENDED
    )
}
