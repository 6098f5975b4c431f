//! Session pooling: a client's server was opened with exactly that client's startup parameters, so that RESET returns
//! to them and nothing of another client shows.
//!
//! There are `pool_size` places, given in order of asking. Every server that is not idle holds one: a client's, one that
//! is being opened, one that is being cleaned. So whoever has got a place finds, beside it, an idle server or room for
//! one more. Clients open their servers themselves; the keeper cannot know with which parameters.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use deadpool::unmanaged::Object;
use tokio::sync::OwnedSemaphorePermit;

use super::checkout::Connecting;
use super::{Checkout, CheckoutError, Pool, Pooled, Slot};
use crate::net::clock::now_us;
use crate::server::{ParamSet, connect};

/// What the holder of a place found.
enum Found {
    /// An idle server that was opened with the parameters wanted.
    Server(Checkout),
    /// Room to open one.
    Room(Slot),
}

impl Pool {
    /// See [`Pool::checkout`].
    pub(super) async fn checkout_session(
        self: &Arc<Self>,
        worker: usize,
        client: u64,
        startup: &Arc<ParamSet>,
    ) -> Result<Checkout, CheckoutError> {
        loop {
            let mut place = Some(self.place().await?);
            let found = poll_fn(|cx| Poll::Ready(self.find(cx, &mut place, worker, client, startup))).await;
            match found {
                Some(Found::Server(checkout)) => return Ok(checkout),
                Some(Found::Room(slot)) => return self.open_for(slot, worker, client, startup).await,
                None => {
                    debug_assert!(false, "a place without a server or room for one");
                    drop(place);
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// The right to have one server that is not idle. First come, first served.
    async fn place(self: &Arc<Self>) -> Result<OwnedSemaphorePermit, CheckoutError> {
        match self.free_place() {
            Some(place) => Ok(place),
            None => self.wait_in_line(Arc::clone(&self.places).acquire_owned()).await,
        }
    }

    /// A place that nobody has or waits for.
    fn free_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Room for a server of the keeper's, which takes a place until it is idle.
    pub(super) fn reserve_with_place(self: &Arc<Self>) -> Option<Slot> {
        let place = self.free_place()?;
        let mut slot = self.reserve()?;
        slot.place = Some(place);
        Some(slot)
    }

    /// A server or room for one; `place` goes with it.
    fn find(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        place: &mut Option<OwnedSemaphorePermit>,
        worker: usize,
        client: u64,
        startup: &Arc<ParamSet>,
    ) -> Option<Found> {
        let _alone = self.sift();
        if let Some(mut checkout) = self.idle_with(cx, worker, client, startup) {
            checkout.set_place(place.take());
            self.book().startup = Arc::clone(startup);
            return Some(Found::Server(checkout));
        }
        // Without room left an idle server with other parameters makes it.
        let mut slot = match self.reserve() {
            Some(slot) => slot,
            None => self.vacate(*self.idle.try_remove().ok()?),
        };
        slot.place = place.take();
        Some(Found::Room(slot))
    }

    /// An idle server that was opened with `startup`.
    fn idle_with(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        worker: usize,
        client: u64,
        startup: &Arc<ParamSet>,
    ) -> Option<Checkout> {
        let mut others = Vec::new();
        let mut found = None;
        while found.is_none() {
            let Ok(object) = self.idle.try_get() else { break };
            if Arc::ptr_eq(&object.server.startup, startup) {
                found = self.accept(cx, Object::take(object), worker, client, now_us());
            } else {
                others.push(object);
            }
        }
        // In the order they came, so that the last used stays on top.
        others.into_iter().rev().for_each(drop);
        found
    }

    /// Closes a server and keeps its room.
    fn vacate(&self, Pooled { server, mut slot }: Pooled) -> Slot {
        if let Some(info) = slot.info.take() {
            self.book().servers.retain(|s| !Arc::ptr_eq(s, &info));
        }
        drop(server);
        slot
    }

    async fn open_for(
        self: &Arc<Self>,
        slot: Slot,
        worker: usize,
        client: u64,
        startup: &Arc<ParamSet>,
    ) -> Result<Checkout, CheckoutError> {
        let connecting = Connecting::new(self);
        // Asked once this attempt counts as one, not as an open server.
        if let Some(e) = self.failing() {
            return Err(CheckoutError::Failed(e.fields(&self.target)));
        }
        let began = now_us();
        let tried = self.target.only_learnt();
        let result = connect::connect(&self.target, startup, &self.shared.auth, worker).await;
        drop(connecting);
        self.count_connect(worker, began, result.as_ref().map(|_| ()));
        match result {
            Ok(server) => {
                let pooled = self.enroll(slot, server);
                self.book().startup = Arc::clone(startup);
                Ok(self.hand_over(pooled, client, now_us()))
            }
            Err(e) => {
                drop(slot);
                // What lies in this client's parameters is no reason to fail others.
                if !e.is_callers_fault() {
                    self.note_failure(&e, tried.as_ref());
                }
                Err(CheckoutError::Failed(e.fields(&self.target)))
            }
        }
    }
}
