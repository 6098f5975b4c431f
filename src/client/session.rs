//! A logged-in session: idle without a server, waiting for one, or linked to one.
//!
//! One task owns everything, the borrowed server included. Partial reads and writes live here and in the server,
//! never in a future, so that any await may be dropped.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use super::alarm::{Alarm, Reason};
use super::parameters::Setting;
use super::pins::Pins;
use super::registry::{ClientState, Place};
use super::resets::Resets;
use super::statements::Names;
use super::unnamed::Unnamed;
use super::{Worker, observe};
use crate::cancel::Registration;
use crate::config::PoolMode;
use crate::insight::SessionInsight;
use crate::net::clock::now_us;
use crate::net::{Lent, Socket};
use crate::pool::{Checkout, CheckoutError, Pool, Stats};
use crate::server::{InMessage, ParamSet};
use crate::sql::LexSettings;
use crate::wire::control;
use crate::wire::error::{ErrorFields, sqlstate};

/// Why a session (or its link to a server) ends.
#[derive(Debug)]
pub enum Stop {
    /// The client said Terminate.
    Terminate,
    /// The client went away.
    ClientGone,
    /// The server went away.
    ServerLost(String),
    /// The server said what fits no request.
    Desync,
    /// The server is given up before anything of the request has reached it: another one is taken.
    Elsewhere,
    /// The client is told this, and the session ends.
    Protocol(ErrorFields),
}

impl Stop {
    /// A protocol violation of the client.
    pub fn protocol(message: impl Into<String>) -> Stop {
        Stop::Protocol(ErrorFields::fatal(sqlstate::PROTOCOL_VIOLATION, message))
    }
}

/// Time allowed to tell a client why its session ends.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(1);

/// A logged-in client.
pub struct Session {
    pub(super) w: Rc<Worker>,
    pub(super) socket: Socket,
    pub(super) place: Place,
    pub(super) pool: Arc<Pool>,
    pub(super) registration: Registration,
    /// Parameters of its startup packet.
    pub(super) startup: Arc<ParamSet>,
    /// Parameters it wants now (transaction pooling).
    pub(super) params: Arc<ParamSet>,
    /// Received and not yet forwarded.
    pub(super) input: Option<Lent>,
    /// The client's message of which a part has been forwarded (or dropped).
    pub(super) in_message: InMessage,
    /// For the client, not yet taken by its socket.
    pub(super) unsent: Vec<u8>,
    pub(super) names: Option<Box<Names>>,
    pub(super) unnamed: Unnamed,
    /// Text of a Query longer than the buffer, for insight.
    pub(super) gathered: Option<Vec<u8>>,
    pub(super) insight: SessionInsight,
    pub(super) alarm: Rc<Alarm>,
    /// What ties it to its server between transactions.
    pub(super) pins: Pins,
    pub(super) lex: LexSettings,
    /// A text longer than is read may have left anything in the server's session: it is reset before it is shared.
    pub(super) unread: bool,
    /// Made a temporary object: its backend keeps a temporary schema that DISCARD ALL does not undo.
    pub(super) made_temp: bool,
    /// Messages are dropped up to the next Sync: an error was answered without a server.
    pub(super) skip_to_sync: bool,
    /// A DEALLOCATE ALL or DISCARD ALL is under way: the client's names are free if it succeeds.
    pub(super) forgetting: Option<u32>,
    /// The next message waits for an answer of the server.
    pub(super) held: bool,
    /// Parameters are being set, and cancel requests kept for what follows.
    pub(super) setting: Setting,
    /// RESETs under way.
    pub(super) resets: Resets,
    /// After a RESET the startup values are being set anew; the client is told them.
    pub(super) restoring: bool,
    /// The client has got a part of a message whose rest is lost: nothing may stand behind it.
    pub(super) cut_short: bool,
    /// It said Terminate with answers owed: it is read no more, and the session ends when all is answered.
    pub(super) leaving: bool,
    /// The server announced its end (FATAL): the client has been told.
    pub(super) server_fatal: bool,
    /// Bytes answered to the statement that runs.
    pub(super) answered: u64,
    /// Statements forwarded and not yet answered: what comes now is pipelined when there are any.
    pub(super) begun: u32,
    /// When the client's bytes came, and when its server was there (monotonic microseconds).
    pub(super) received_us: u64,
    pub(super) server_us: u64,
    /// When the request and the transaction that run began (monotonic microseconds).
    pub(super) request_us: u64,
    pub(super) transaction_us: u64,
}

impl Session {
    /// Serves the client until it leaves. `server`: the one it has got at login (session pooling).
    pub async fn run(mut self: Box<Self>, server: Option<Checkout>) {
        self.pool.clients.fetch_add(1, Relaxed);
        let stop = self.serve(server).await;
        // Rare and large: boxed, so that it is no part of every idle session.
        Box::pin(self.end(stop)).await;
    }

    async fn serve(&mut self, server: Option<Checkout>) -> Stop {
        if let Some(server) = server
            && let Err(stop) = self.linked(server).await
        {
            return stop;
        }
        loop {
            if let Err(stop) = self.idle().await {
                return stop;
            }
            match self.obtain().await {
                Ok(Some(server)) => {
                    if let Err(stop) = self.linked(server).await {
                        return stop;
                    }
                }
                Ok(None) => {}
                Err(stop) => return stop,
            }
        }
    }

    async fn end(&mut self, stop: Stop) {
        self.insight.end(&mut self.w.lens.borrow_mut(), now_us());
        self.pool.clients.fetch_sub(1, Relaxed);
        // As it was counted: a tie noted as its server was lost never was.
        if self.place.info.pinned().is_some() {
            self.pool.pinned.leave();
        }
        let fields = match stop {
            Stop::Terminate | Stop::ClientGone | Stop::Elsewhere => None,
            Stop::ServerLost(_) if self.server_fatal => None,
            Stop::ServerLost(why) => {
                tracing::warn!(target: "pgsluice::server", database = %self.pool.database, error = %why, "a server connection was lost while a client used it");
                Some(
                    ErrorFields::fatal(sqlstate::CONNECTION_FAILURE, "server closed the connection unexpectedly")
                        .detail(
                            "An open transaction is lost; a statement that ran outside of one may have been completed.",
                        )
                        .hint("Connect again; pgsluice opens new server connections by itself."),
                )
            }
            Stop::Desync => {
                tracing::error!(target: "pgsluice::server", database = %self.pool.database, "a server answered what was not asked; its connection is closed");
                Some(ErrorFields::fatal(sqlstate::PROTOCOL_VIOLATION, "lost synchronization with server"))
            }
            Stop::Protocol(fields) => Some(fields),
        };
        // Behind half a message an error would be taken for the rest of it: a wrong answer. The end must do.
        if let Some(fields) = fields.filter(|_| !self.cut_short) {
            let mut out = Vec::new();
            control::error(&mut out, &fields);
            self.unsent.extend_from_slice(&out);
        }
        if !self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            let _ = tokio::time::timeout(FAREWELL, self.socket.send_all(&unsent)).await;
        }
        if let Some(input) = self.input.take() {
            self.w.buffers.give_back(input);
        }
    }

    pub(super) fn stats(&self) -> &Stats {
        &self.pool.stats[self.w.id]
    }

    pub(super) fn names(&mut self) -> &mut Names {
        self.names.get_or_insert_default()
    }

    /// Whether named statements are shared between servers.
    pub(super) fn shares_statements(&self) -> bool {
        self.follows_parameters() && self.pool.settings.max_prepared_statements > 0
    }

    /// Whether parameters go with the client from server to server.
    pub(super) fn follows_parameters(&self) -> bool {
        self.pool.settings.pool_mode != PoolMode::Session
    }

    /// A parameter that changes how SQL text is read, or that we show.
    pub(super) fn heard_parameter(&mut self, name: &str, value: &str) {
        match name {
            "standard_conforming_strings" => self.lex.standard_conforming_strings = Some(value == "on"),
            "client_encoding" => self.lex.safe_encoding = observe::safe_encoding(value),
            "application_name" => {
                self.insight.set_application(value);
                let mut who = self.place.info.who();
                who.application = value.to_owned();
                self.place.info.set_who(who);
            }
            _ => {}
        }
    }

    /// Waits until the client sends something that needs a server.
    async fn idle(&mut self) -> Result<(), Stop> {
        loop {
            if self.leaving {
                return Err(Stop::Terminate);
            }
            if self.needs_server()? {
                return Ok(());
            }
            let idle = self.w.process.config.timeouts.client_idle_timeout.as_micros() as u64;
            if idle > 0 {
                self.alarm.set(Reason::Idle, now_us(), idle);
            } else {
                self.alarm.clear();
            }
            poll_fn(|cx| self.poll_idle(cx)).await?;
        }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        self.alarm.listen(cx);
        if self.poll_flush_client(cx)?.is_pending() {
            // A client that does not read is not read either; its deadline still counts.
            return self.check_idle_alarm();
        }
        match self.poll_recv_client(cx) {
            Poll::Ready(r) => Poll::Ready(r),
            Poll::Pending => self.check_idle_alarm(),
        }
    }

    fn check_idle_alarm(&mut self) -> Poll<Result<(), Stop>> {
        let mid_message = self.in_message.left > 0 || self.input.is_some() || self.skip_to_sync;
        if self.alarm.draining() && !mid_message {
            return Poll::Ready(Err(Stop::Protocol(farewell())));
        }
        if self.alarm.rang().is_some() {
            return Poll::Ready(Err(Stop::Protocol(ErrorFields::fatal(sqlstate::IDLE_SESSION, "client_idle_timeout"))));
        }
        Poll::Pending
    }

    /// One `recv` into the session's input, lending a buffer only when there is something to read.
    pub(super) fn poll_recv_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        ready!(self.socket.poll_readable(cx)).map_err(|_| Stop::ClientGone)?;
        let mut input = match self.input.take() {
            Some(input) => input.expand(&self.w.buffers),
            None => self.w.buffers.lend(),
        };
        debug_assert!(!input.spare().is_empty(), "a full buffer holds a message that can be worked on");
        let received = self.socket.poll_recv_readable(cx, input.spare());
        let result = match received {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(n)) if n > 0 => {
                input.received(n);
                self.received_us = now_us();
                self.server_us = self.received_us;
                self.stats().received.add(n as u64);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(_) => Poll::Ready(Err(Stop::ClientGone)),
        };
        if input.is_empty() {
            self.w.buffers.give_back(input);
        } else {
            self.input = Some(input);
        }
        result
    }

    /// Sends what the client's socket did not take before.
    #[inline]
    pub(super) fn poll_flush_client(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Stop> {
        if self.unsent.is_empty() { Ok(Poll::Ready(())) } else { self.poll_flush_rest(cx) }
    }

    #[cold]
    fn poll_flush_rest(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Stop> {
        while !self.unsent.is_empty() {
            match self.socket.poll_writable(cx) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Err(_)) => return Err(Stop::ClientGone),
                Poll::Ready(Ok(())) => {}
            }
            let n = try_send_client(&mut self.socket, &self.unsent, self.leaving)?;
            self.unsent.drain(..n);
            if self.unsent.is_empty() {
                self.socket.written();
                self.unsent.shrink_to(1024);
            }
        }
        Ok(Poll::Ready(()))
    }

    /// A server: at once when one is idle, else after waiting in line. `None` when the client has been refused.
    async fn obtain(&mut self) -> Result<Option<Checkout>, Stop> {
        let client = self.place.info.id;
        if self.follows_parameters() {
            let pool = Arc::clone(&self.pool);
            let worker = self.w.id;
            // A server is asked for when bytes have just come.
            let now = self.received_us;
            if let Some(c) = poll_fn(|cx| Poll::Ready(pool.try_checkout(cx, worker, client, now))).await {
                self.stats().wait.record(0);
                return Ok(Some(c));
            }
        }
        Box::pin(self.wait_for_server()).await
    }

    async fn wait_for_server(&mut self) -> Result<Option<Checkout>, Stop> {
        let since = now_us();
        if self.pool.many_wait() {
            self.input = self.input.take().map(|i| i.shrink(&self.w.buffers));
        }
        self.place.info.set_state(ClientState::Waiting, 0, since);
        self.alarm.set(Reason::Wait, since, self.pool.settings.query_wait_timeout.as_micros() as u64);
        let pool = Arc::clone(&self.pool);
        let startup = Arc::clone(&self.startup);
        let mut gone = false;
        // A wait that ends any other way leaves the line here.
        let got = {
            let mut checkout = std::pin::pin!(pool.checkout(self.w.id, self.place.info.id, &startup));
            poll_fn(|cx| {
                self.alarm.listen(cx);
                if self.registration.slot.wait(cx) {
                    return Poll::Ready(Ok(Waited::Canceled));
                }
                if let Poll::Ready(r) = checkout.as_mut().poll(cx) {
                    return Poll::Ready(Ok(Waited::Server(r)));
                }
                // The answer to a request refused before this one.
                let _ = self.poll_flush_client(cx)?;
                if !gone && self.socket.poll_closed(cx).is_ready() {
                    // What it asked for before its goodbye is done without it.
                    gone = self.said_terminate();
                    if !gone {
                        return Poll::Ready(Err(Stop::ClientGone));
                    }
                    self.unsent.clear();
                }
                match self.alarm.rang() {
                    Some(_) => Poll::Ready(Ok(Waited::InVain)),
                    None => Poll::Pending,
                }
            })
            .await?
        };
        if !matches!(got, Waited::Server(Ok(_))) {
            self.registration.slot.clear();
        }
        let now = match &got {
            Waited::Server(Ok(server)) => server.taken_us,
            _ => now_us(),
        };
        self.alarm.clear();
        self.place.info.set_state(ClientState::Idle, 0, now);
        self.stats().wait.record(now - since);
        self.stats().wait_us.add(now - since);
        self.server_us = now;
        self.input = self.input.take().map(|i| i.expand(&self.w.buffers));
        match got {
            Waited::Server(Ok(c)) => Ok(Some(c)),
            Waited::Server(Err(CheckoutError::Failed(fields))) => {
                self.stats().connect_failures.add(1);
                self.refuse_failed(fields)?;
                Ok(None)
            }
            Waited::Canceled => {
                self.refuse(&canceled());
                Ok(None)
            }
            Waited::InVain => {
                self.stats().wait_timeouts.add(1);
                self.refuse(&self.wait_timed_out(now - since));
                Ok(None)
            }
        }
    }

    fn wait_timed_out(&self, waited_us: u64) -> ErrorFields {
        let (detail, hint) = self.pool.holders();
        tracing::warn!(target: "pgsluice::pool", database = %self.pool.database, user = %self.pool.user, waited_ms = waited_us / 1000, holders = %detail, "query_wait_timeout");
        ErrorFields::error(sqlstate::TOO_MANY_CONNECTIONS, "query_wait_timeout")
            .detail(format!("Waited {:.1} s for a server connection. {detail}", waited_us as f64 / 1e6))
            .hint(hint)
    }
}

/// Sends what the client's socket takes. A client that said goodbye may have closed it: to it, all is sent.
pub(super) fn try_send_client(socket: &mut Socket, bytes: &[u8], leaving: bool) -> Result<usize, Stop> {
    match socket.try_send(bytes) {
        Ok(n) => Ok(n),
        Err(_) if leaving => Ok(bytes.len()),
        Err(_) => Err(Stop::ClientGone),
    }
}

/// How the wait for a server ended.
enum Waited {
    Server(Result<Checkout, CheckoutError>),
    /// `query_wait_timeout`.
    InVain,
    /// The client sent a cancel request.
    Canceled,
}

/// As PostgreSQL says it (postgres.c, ProcessInterrupts), when a request is cancelled before a server was there.
pub(super) fn canceled() -> ErrorFields {
    ErrorFields::error(sqlstate::QUERY_CANCELED, "canceling statement due to user request")
}

/// What clients are told when pgsluice ends.
pub fn farewell() -> ErrorFields {
    ErrorFields::fatal(sqlstate::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An idle client's task: what it costs is in every one of ten thousand.
    #[test]
    fn an_idle_session_stays_small() {
        println!("Session {} B", size_of::<Session>());
        assert!(size_of::<Session>() <= 448, "Session has grown to {} bytes", size_of::<Session>());
        let future = |s: Box<Session>| s.run(None);
        println!("run future {} B", size_of_ret(future));
        assert!(size_of_ret(future) <= 512, "the session's future has grown to {} bytes", size_of_ret(future));
    }

    fn size_of_ret<A, R>(_: impl Fn(A) -> R) -> usize {
        size_of::<R>()
    }
}
