//! The hot loop: both directions of a session that holds a server.
//!
//! A wake-up reads each readable side once and sends once per read. The server is given back before the last answer
//! is sent to the client, so that the next waiter's query is on its way a `send` earlier.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::alarm::Reason;
use super::parameters::Setting;
use super::plan::Plan;
use super::registry::ClientState;
use super::session::{Session, Stop, canceled, farewell};
use crate::net::buffer::SIZE;
use crate::net::clock::now_us;
use crate::pool::Checkout;
use crate::server::{Replaying, Server};
use crate::wire::TxStatus;
use crate::wire::error::{ErrorFields, sqlstate};

/// Turns of the loop in one wake-up before others get theirs (PgBouncer's sbuf_loopcnt).
const TURNS: usize = 5;

impl Session {
    /// Relays until the server has been given back.
    pub(super) async fn linked(&mut self, mut server: Checkout) -> Result<(), Stop> {
        let now = self.server_us;
        if self.registration.slot.set(&server.key) {
            // Cancelled at the last moment of its wait: the server has not heard of it.
            self.registration.slot.clear();
            server.release(now_us());
            self.refuse(&canceled());
            return Ok(());
        }
        self.place.info.set_state(ClientState::Active, server.info.id, now);
        self.request_us = now;
        self.transaction_us = now;
        (self.server_fatal, self.held, self.setting) = (false, false, Setting::No);
        server.replay.state = Replaying::No;
        let first = self.forward_client(&mut server, now).and_then(|()| self.flush_fakes(&mut server));
        let first = self.unless_leaving(first, &mut server);
        self.set_alarm(&server, now);
        let mut slot = Some(server);
        let result = match first {
            Ok(()) => poll_fn(|cx| self.poll_linked(&mut slot, cx)).await,
            Err(stop) => Err(stop),
        };
        let elsewhere = matches!(result, Err(Stop::Elsewhere));
        let kept = elsewhere && self.registration.slot.leave();
        if let Some(server) = slot.take() {
            self.part(server, &result);
        }
        if elsewhere {
            self.place.info.set_state(ClientState::Idle, 0, now_us());
            if kept {
                self.refuse(&canceled());
            }
            return Ok(());
        }
        result
    }

    /// Gives the server up when the session ends while it holds one.
    fn part(&mut self, mut server: Checkout, result: &Result<(), Stop>) {
        self.registration.slot.clear();
        self.created_undone();
        self.publish_schema();
        self.cut_short = server.in_message.left > 0 && server.in_message.forward;
        server.dirty |= self.pins.leaves_state() || !self.follows_parameters();
        server.dirty |= std::mem::take(&mut self.unread);
        let half_a_message = self.in_message.left > 0 && self.in_message.forward;
        match result {
            Err(Stop::ServerLost(_) | Stop::Desync | Stop::Elsewhere) => server.close(),
            // Parameters could not be set, say; what it has said since may have been dropped.
            _ if server.tracker.tainted() => server.close(),
            _ if half_a_message => {
                self.stats().abandoned.add(1);
                server.close();
            }
            // Only a new backend is as one that never had temporary objects (PREPARE TRANSACTION tells them apart).
            _ if self.made_temp && !self.follows_parameters() => server.close(),
            Err(Stop::Terminate) | Ok(()) if server.releasable() => server.release(now_us()),
            _ => {
                self.stats().abandoned.add(1);
                server.abandon();
            }
        }
    }

    fn poll_linked(&mut self, slot: &mut Option<Checkout>, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        self.alarm.listen(cx);
        for _ in 0..TURNS {
            if self.may_release(slot) {
                self.release(slot, now_us());
                return Poll::Ready(Ok(()));
            }
            let Some(server) = slot.as_mut() else { return Poll::Ready(Ok(())) };
            if self.leaving && server.tracker.answered() && server.unsent.is_empty() {
                return Poll::Ready(Err(Stop::Terminate));
            }
            self.ask_what_is_left(server)?;
            let mut moved = poll_flush_server(server, cx)?;
            let client_takes = self.poll_flush_client(cx)?.is_ready();
            if client_takes {
                match self.poll_server(slot, cx)? {
                    Poll::Ready(()) => moved = true,
                    Poll::Pending => {}
                }
            }
            let Some(server) = slot.as_mut() else { return Poll::Ready(Ok(())) };
            // What pgsluice answers itself waits in `unsent`: bounded, because then the client is not read.
            // What the client says next may need parameters that depend on what is being asked.
            // Behind a server's last word nothing is answered any more.
            let waits = self.held
                || self.pins.asking()
                || self.leaving
                || self.server_fatal
                || server.replay.state == Replaying::Failed;
            if server.unsent.is_empty() && !server.tracker.full() && self.unsent.len() < SIZE && !waits {
                moved |= self.poll_client(server, cx)?;
            }
            if !moved {
                if self.held && !self.leaving && self.socket.poll_closed(cx).is_ready() && !self.said_terminate() {
                    // It is not read, and its end would not be seen before the answer.
                    return Poll::Ready(Err(Stop::ClientGone));
                }
                return self.check_alarm(slot);
            }
        }
        // The turns are used up; who is never at rest has deadlines too.
        let late = self.check_alarm(slot);
        if late.is_pending() {
            cx.waker().wake_by_ref();
        }
        late
    }

    /// Reads the server once and sends what it said to the client; gives it back in between when that is the end.
    fn poll_server(&mut self, slot: &mut Option<Checkout>, cx: &mut Context<'_>) -> Result<Poll<()>, Stop> {
        let Some(server) = slot.as_mut() else { return Ok(Poll::Pending) };
        match server.socket.poll_readable(cx) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(r) => r.map_err(|e| Stop::ServerLost(e.to_string()))?,
        }
        let mut input = server.input.take().unwrap_or_else(|| self.w.buffers.lend());
        let n = match server.socket.poll_recv_readable(cx, input.spare()) {
            Poll::Pending => {
                if input.is_empty() {
                    self.w.buffers.give_back(input);
                } else {
                    server.input = Some(input);
                }
                return Ok(Poll::Pending);
            }
            Poll::Ready(Ok(0)) => return Err(Stop::ServerLost("server closed the connection unexpectedly".to_owned())),
            Poll::Ready(Ok(n)) => n,
            Poll::Ready(Err(e)) => return Err(Stop::ServerLost(e.to_string())),
        };
        input.received(n);
        self.held = false;
        let now = now_us();
        let w = Rc::clone(&self.w);
        let mut batch = w.batch.borrow_mut();
        let mut plan = Plan::new(&mut batch.out);
        let used = match self.digest_server(server, input.filled(), &mut plan, now) {
            Ok(used) => used,
            Err(stop) => {
                // What came before the trouble is the client's.
                let sent = self.send_client(plan.bytes(input.filled()));
                w.buffers.give_back(input);
                return Err(sent.err().unwrap_or(stop));
            }
        };
        if used == input.filled().len() && self.may_release(slot) {
            self.release(slot, now);
        } else if let Some(server) = slot.as_mut() {
            self.ask_what_is_left(server)?;
            self.set_alarm(server, now);
            if self.leaving {
                self.finish_for(server)?;
            }
        }
        let sent = self.send_client(plan.bytes(input.filled()));
        input.consume(used);
        if input.is_empty() {
            w.buffers.give_back(input);
        } else if let Some(server) = slot.as_mut() {
            server.input = Some(input);
        }
        sent.map(Poll::Ready)
    }

    /// Reads the client once and forwards what it said. Whether anything moved.
    fn poll_client(&mut self, server: &mut Server, cx: &mut Context<'_>) -> Result<bool, Stop> {
        // What came before the server was taken, or while it could take no more.
        if self.input.is_none() || !self.has_whole_message() {
            match self.poll_recv_client(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(r) => r?,
            }
        }
        let now = self.received_us;
        if server.tracker.answered() {
            self.request_us = now;
            if server.tracker.status() == TxStatus::Idle {
                self.transaction_us = now;
            }
        }
        let forwarded = self.forward_client(server, now);
        self.unless_leaving(forwarded, server)?;
        self.flush_fakes(server)?;
        self.set_alarm(server, now);
        Ok(true)
    }

    /// Whether the input can be worked on without reading more: it was left because the server was behind.
    fn has_whole_message(&self) -> bool {
        let Some(input) = &self.input else { return false };
        match crate::wire::Frame::peek(input.filled()) {
            // A long one waits with its beginning when that depended on an answer.
            Ok(Some(f)) => input.filled().len() >= f.len || input.is_full(),
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// The release rule, the client's side: no part of a message is here, and nothing ties it to the server.
    fn may_release(&self, slot: &Option<Checkout>) -> bool {
        self.pins.reason().is_none()
            && !self.pins.must_ask()
            && self.follows_parameters()
            && self.in_message.left == 0
            && self.input.is_none()
            && slot.as_ref().is_some_and(|s| s.releasable())
    }

    fn release(&mut self, slot: &mut Option<Checkout>, now: u64) {
        if let Some(mut server) = slot.take() {
            self.registration.slot.clear();
            self.place.info.set_state(ClientState::Idle, 0, now);
            server.info.set_statements(server.statements.len() as u32);
            server.dirty |= std::mem::take(&mut self.unread);
            server.release(now);
        }
    }

    /// The deadline that fits what the session does now.
    fn set_alarm(&mut self, server: &Server, now: u64) {
        let t = &self.w.process.config.timeouts;
        if !server.tracker.answered() {
            // From the request on, however much its answer moves.
            self.alarm.set(Reason::Query, self.request_us, t.query_timeout.as_micros() as u64);
        } else if server.tracker.status() != TxStatus::Idle {
            self.alarm.set(Reason::IdleTransaction, now, t.idle_transaction_timeout.as_micros() as u64);
        } else {
            self.alarm.set(Reason::Idle, now, t.client_idle_timeout.as_micros() as u64);
        }
    }

    fn check_alarm(&mut self, slot: &Option<Checkout>) -> Poll<Result<(), Stop>> {
        let between =
            slot.as_ref().is_some_and(|s| s.releasable()) && self.in_message.left == 0 && self.input.is_none();
        if self.alarm.draining() && between {
            return Poll::Ready(Err(Stop::Protocol(farewell())));
        }
        let Some(reason) = self.alarm.rang() else { return Poll::Pending };
        let fields = match reason {
            Reason::Query => {
                self.stats().query_timeouts.add(1);
                ErrorFields::fatal(sqlstate::QUERY_CANCELED, "query_timeout")
                    .hint("The query was cancelled at the server; raise query_timeout if it needs longer.")
            }
            Reason::IdleTransaction => {
                self.stats().idle_timeouts.add(1);
                ErrorFields::fatal(sqlstate::IDLE_IN_TRANSACTION, "idle transaction timeout").hint("The transaction was rolled back; end transactions before slow work, or raise idle_transaction_timeout.")
            }
            Reason::Idle | Reason::Wait => ErrorFields::fatal(sqlstate::IDLE_SESSION, "client_idle_timeout"),
        };
        Poll::Ready(Err(Stop::Protocol(fields)))
    }
}

/// Sends what the server's socket did not take before. Whether anything moved.
fn poll_flush_server(server: &mut Server, cx: &mut Context<'_>) -> Result<bool, Stop> {
    let lost = |e: std::io::Error| Stop::ServerLost(e.to_string());
    let mut moved = false;
    while !server.unsent.is_empty() {
        match server.socket.poll_writable(cx) {
            Poll::Pending => break,
            Poll::Ready(r) => r.map_err(lost)?,
        }
        let n = server.socket.try_send(&server.unsent).map_err(lost)?;
        server.unsent.drain(..n);
        moved |= n > 0;
        if server.unsent.is_empty() {
            server.socket.written();
        }
    }
    Ok(moved)
}
