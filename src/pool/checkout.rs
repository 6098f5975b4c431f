//! Taking a server and giving it back.

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::task::{Context, Poll};

use deadpool::unmanaged::Object;

use super::{Pool, Pooled, keeper};
use crate::net::clock::now_us;
use crate::server::{ParamSet, Server, ServerState, clean};
use crate::wire::ErrorFields;

/// Idle servers looked at for one of this worker's own before one of another worker's is taken.
const LOCAL_TRIES: usize = 4;

/// Why no server was given.
#[derive(Debug)]
pub enum CheckoutError {
    /// No server can be opened; what to tell the client.
    Failed(ErrorFields),
}

/// A server in a client's hands.
pub struct Checkout {
    /// `None` only while being released or dropped.
    pooled: Option<Box<Pooled>>,
    pool: Arc<Pool>,
    /// When it was taken (monotonic microseconds).
    pub taken_us: u64,
}

impl Deref for Checkout {
    type Target = Server;
    fn deref(&self) -> &Server {
        &self.pooled.as_ref().expect("a checkout holds its server until it is released").server
    }
}

impl DerefMut for Checkout {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.pooled.as_mut().expect("a checkout holds its server until it is released").server
    }
}

impl Checkout {
    /// Gives the server back at `now` (monotonic microseconds). One that is not releasable, has expired or is dirty does not go straight to the next
    /// client: it is cleaned in the background or closed.
    pub fn release(mut self, now: u64) {
        let Some(pooled) = self.pooled.take() else { return };
        let server = &pooled.server;
        self.pool.stats[server.worker].checkout.record(now.saturating_sub(self.taken_us));
        if !server.releasable() || server.dirty || server.key.being_canceled() || server.key.in_doubt() {
            self.pool.clean(pooled);
        } else if server.expires_us <= now || server.info.close_needed() {
            drop(pooled);
        } else {
            self.pool.put_idle(pooled, now);
        }
    }

    /// The client has gone: whatever runs is cancelled, drained and rolled back before the server is used again.
    pub fn abandon(mut self) {
        if let Some(pooled) = self.pooled.take() {
            self.pool.clean(pooled);
        }
    }

    /// Closes the connection: the server is in doubt.
    pub fn close(mut self) {
        drop(self.pooled.take());
    }

    /// Runs one simple Query of ours on it, within `server_connect_timeout`; see [`clean::apply`]. Not cancel safe: the
    /// server is closed then.
    ///
    /// # Errors
    /// The connection failed, or was too slow; it is closed.
    pub async fn apply(mut self, sql: &[u8]) -> Result<(Checkout, Option<ErrorFields>), clean::CleanError> {
        let Some(pooled) = self.pooled.take() else { return Err(clean::CleanError::Partial) };
        let Pooled { server, slot } = *pooled;
        let limit = self.pool.target.timeout;
        let applied = tokio::time::timeout(limit, clean::apply(server, sql)).await;
        let (server, error) = applied.unwrap_or(Err(clean::CleanError::Timeout))?;
        self.pooled = Some(Box::new(Pooled { server, slot }));
        Ok((self, error))
    }

    /// The place that its client has got (session pooling).
    pub(super) fn set_place(&mut self, place: Option<tokio::sync::OwnedSemaphorePermit>) {
        if let Some(pooled) = &mut self.pooled {
            pooled.slot.place = place;
        }
    }

    /// The pool it came from.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

/// Takes a waiting client off the list, however its wait ends.
struct Waiting<'a> {
    pool: &'a Pool,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut book = self.pool.book();
        if let Ok(at) = book.waiting.binary_search_by_key(&self.id, |(id, _)| *id) {
            book.waiting.remove(at);
        }
    }
}

impl Pool {
    /// A server for `client` without waiting, when an idle one is there. Not in session pooling, where not any will do.
    /// `now`: monotonic microseconds.
    pub fn try_checkout(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        worker: usize,
        client: u64,
        now: u64,
    ) -> Option<Checkout> {
        let mut foreign: [Option<Object<Box<Pooled>>>; LOCAL_TRIES] = [const { None }; LOCAL_TRIES];
        let mut looked = 0;
        loop {
            let Ok(object) = self.idle.try_get() else { break };
            if object.server.worker != worker && looked < LOCAL_TRIES {
                foreign[looked] = Some(object);
                looked += 1;
                continue;
            }
            if let Some(c) = self.accept(cx, Object::take(object), worker, client, now) {
                return Some(c);
            }
        }
        // None of our own: the first other one, moved to this worker's reactor. The rest go back as they drop.
        foreign.into_iter().rev().flatten().find_map(|o| self.accept(cx, Object::take(o), worker, client, now))
    }

    /// Checks an idle server's health and gives it to `client`; a dead one is closed.
    pub(super) fn accept(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        mut pooled: Box<Pooled>,
        worker: usize,
        client: u64,
        now: u64,
    ) -> Option<Checkout> {
        if pooled.server.info.close_needed() || pooled.server.expires_us <= now {
            return None;
        }
        // What another worker's reactor has heard is lost with the move: ask the socket itself.
        if pooled.server.worker != worker && pooled.server.socket.peer_closed() {
            return None;
        }
        let mut pooled = if pooled.server.worker == worker { pooled } else { rehome(pooled, worker)? };
        // Registers this task's waker. An idle server has nothing to say: it was terminated, or it reports a change
        // that we would lose.
        if pooled.server.socket.has_input(cx) {
            return None;
        }
        pooled.server.worker = worker;
        Some(self.hand_over(pooled, client, now))
    }

    pub(super) fn hand_over(self: &Arc<Self>, pooled: Box<Pooled>, client: u64, now: u64) -> Checkout {
        pooled.server.info.set_state(ServerState::Active, client, now);
        self.stats[pooled.server.worker].assignments.add(1);
        Checkout { pooled: Some(pooled), pool: Arc::clone(self), taken_us: now }
    }

    /// A server for `client`, after waiting in line if need be. The time-out is the caller's. Cancel safe: a
    /// dropped wait gives up its place.
    ///
    /// # Errors
    /// No server can be opened, and none is open.
    pub async fn checkout(
        self: &Arc<Self>,
        worker: usize,
        client: u64,
        startup: &Arc<ParamSet>,
    ) -> Result<Checkout, CheckoutError> {
        keeper::ensure(self);
        if self.session_mode() {
            return self.checkout_session(worker, client, startup).await;
        }
        loop {
            let object = self.wait_in_line(self.idle.get()).await?;
            let (mut taken, now) = (Some(Object::take(object)), now_us());
            let accepted =
                poll_fn(|cx| Poll::Ready(taken.take().and_then(|p| self.accept(cx, p, worker, client, now)))).await;
            if let Some(c) = accepted {
                return Ok(c);
            }
        }
    }

    /// What `get` gives (first come, first served), unless servers cannot be opened. Counted as waiting meanwhile.
    pub(super) async fn wait_in_line<T, E>(
        self: &Arc<Self>,
        get: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CheckoutError> {
        let (_waiting, room) = self.enlist(now_us());
        // Without room the keeper has nothing to do for it; it hears of every place that falls free.
        if room {
            self.wanted.notify_one();
        }
        let mut get = std::pin::pin!(async {
            match get.await {
                Ok(got) => got,
                // Closed, which neither the idle list nor the places ever are.
                Err(_) => std::future::pending().await,
            }
        });
        loop {
            let mut failed = std::pin::pin!(self.failure.notified());
            failed.as_mut().enable();
            // Asked after listening: a failure between the two would be missed until the next one.
            if let Some(e) = self.failing() {
                return Err(CheckoutError::Failed(e.fields(&self.target)));
            }
            let got = poll_fn(|cx| {
                if let Poll::Ready(got) = get.as_mut().poll(cx) {
                    return Poll::Ready(Some(got));
                }
                failed.as_mut().poll(cx).map(|()| None)
            })
            .await;
            if let Some(got) = got {
                return Ok(got);
            }
        }
    }

    /// Notes that a client waits since `now`; also whether there is room for one more server.
    fn enlist(&self, now: u64) -> (Waiting<'_>, bool) {
        let mut book = self.book();
        book.last_waiter += 1;
        let id = book.last_waiter;
        book.waiting.push_back((id, now));
        (Waiting { pool: self, id }, book.open < self.settings.pool_size)
    }

    /// Brings a server back in the background: waits for cancels, drains, rolls back, resets; or closes it.
    fn clean(self: &Arc<Self>, pooled: Box<Pooled>) {
        let pool = Arc::clone(self);
        pooled.server.info.set_state(ServerState::Tested, 0, now_us());
        tokio::task::spawn_local(async move {
            if pooled.server.key.being_canceled() && pooled.server.tracker.answered() {
                pooled.server.info.set_state(ServerState::BeingCanceled, 0, now_us());
                pooled.server.key.settled().await;
                pooled.server.info.set_state(ServerState::Tested, 0, now_us());
            }
            let Pooled { server, slot } = *pooled;
            match clean::reclaim(server, &pool.settings.server_reset_query).await {
                Ok(server) if !server.info.close_needed() && server.expires_us > now_us() => {
                    pool.put_idle(Box::new(Pooled { server, slot }), now_us())
                }
                Ok(_) => drop(slot),
                Err(e) => {
                    tracing::debug!(target: "pgsluice::pool", database = %pool.database, reason = %e, "closing a server that could not be cleaned");
                    drop(slot);
                }
            }
        });
    }
}

/// Counts a connection attempt while it runs.
pub(super) struct Connecting(std::sync::Weak<Pool>);

impl Connecting {
    pub(super) fn new(pool: &Arc<Pool>) -> Self {
        pool.book().connecting += 1;
        Connecting(Arc::downgrade(pool))
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            let mut book = pool.book();
            book.connecting = book.connecting.saturating_sub(1);
        }
    }
}

fn rehome(pooled: Box<Pooled>, worker: usize) -> Option<Box<Pooled>> {
    let Pooled { server, slot } = *pooled;
    let Server { socket, .. } = server;
    let socket = socket.rehome().ok()?;
    Some(Box::new(Pooled { server: Server { socket, worker, ..server }, slot }))
}
