//! The task of each pool that decides how many servers exist: opens them for waiters (several at once; not in session
//! pooling), keeps `min_pool_size`, closes the old and the idle.
//!
//! It holds its pool weakly: a pool that nobody uses ends its keeper.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::checkout::Connecting;
use super::{Pool, Slot};
use crate::net::clock::now_us;
use crate::server::{ParamSet, connect};

/// How often servers are looked over when nothing happens.
const TICK: Duration = Duration::from_secs(1);

/// Starts the pool's keeper on the current worker unless it runs.
pub fn ensure(pool: &Arc<Pool>) {
    if !pool.keeper_runs.load(Ordering::Relaxed) && !pool.keeper_runs.swap(true, Ordering::AcqRel) {
        tokio::task::spawn_local(run(Arc::downgrade(pool)));
    }
}

async fn run(pool: Weak<Pool>) {
    loop {
        let Some(strong) = pool.upgrade() else { return };
        strong.retire();
        let pause = strong.open_wanted();
        let wanted = Arc::clone(&strong.wanted);
        drop(strong);
        // Woken by a need, or it is time to look again: the same to us.
        let _ = tokio::time::timeout(pause, wanted.notified()).await;
    }
}

impl Pool {
    /// Opens as many servers as waiters want and limits allow. Returns when to look again.
    fn open_wanted(self: &Arc<Self>) -> Duration {
        let session = self.session_mode();
        loop {
            let slot = {
                let book = self.book();
                let now = now_us();
                let wait = book.failure.as_ref().map_or(0, |f| f.retry_us.saturating_sub(now));
                let open = book.open - book.connecting.min(book.open);
                // Refused with a password that is known no more: nothing is opened for nobody until a client proves another.
                // The first server is tried all the same: readiness may wait for it, and clients for that.
                let futile =
                    book.failure.as_ref().is_some_and(|f| f.error.is_wrong_password()) && self.target.waits_for_proof();
                let least = if futile { 0 } else { self.settings.min_pool_size };
                let floor = least.max(usize::from(self.warming()));
                // In session pooling a waiting client opens its own: see `session`.
                let waiting = if session { 0 } else { book.waiting.len() };
                let wanted = waiting.max(floor.saturating_sub(open));
                if wanted == 0 {
                    return TICK;
                }
                if wait > 0 {
                    return Duration::from_micros(wait).min(TICK);
                }
                if book.connecting >= wanted.min(self.settings.max_connecting) {
                    return TICK;
                }
                drop(book);
                if session { self.reserve_with_place() } else { self.reserve() }
            };
            let Some(slot) = slot else { return TICK };
            self.open_in_background(slot);
        }
    }

    fn open_in_background(self: &Arc<Self>, slot: Slot) {
        let connecting = Connecting::new(self);
        let pool = Arc::clone(self);
        tokio::task::spawn_local(async move {
            let worker = crate::net::worker_id();
            let began = now_us();
            let startup = pool.startup();
            let tried = pool.target.only_learnt();
            let result = connect::connect(&pool.target, &startup, &pool.shared.auth, worker).await;
            drop(connecting);
            pool.count_connect(worker, began, result.as_ref().map(|_| ()));
            match result {
                Ok(server) => {
                    let pooled = pool.enroll(slot, server);
                    pool.put_idle(pooled, now_us());
                }
                Err(e) => {
                    drop(slot);
                    if e.is_callers_fault() && !startup.is_empty() {
                        // Taken from a client, and no longer accepted: without it next time.
                        pool.book().startup = Arc::default();
                    } else {
                        pool.note_failure(&e, tried.as_ref());
                    }
                }
            }
            pool.wanted.notify_one();
        });
    }

    /// What to open a server with: in session pooling as the last client had it, as the next one probably will.
    fn startup(&self) -> Arc<ParamSet> {
        let wanted = if self.session_mode() { (*self.book().startup).clone() } else { ParamSet::default() };
        self.shared.params.intern(wanted)
    }

    /// Closes idle servers that are too old, or idle for too long above `min_pool_size`.
    fn retire(self: &Arc<Self>) {
        let now = now_us();
        let idle_us = self.settings.server_idle_timeout.as_micros() as u64;
        let _alone = self.sift();
        let mut spare = self.book().open.saturating_sub(self.settings.min_pool_size);
        let mut kept = Vec::new();
        while let Ok(pooled) = self.idle.try_get() {
            let s = &pooled.server;
            let old = s.expires_us <= now || s.info.close_needed();
            let long_idle = idle_us > 0 && now.saturating_sub(s.idle_since_us) >= idle_us && spare > 0;
            if old || long_idle {
                spare = spare.saturating_sub(1);
                drop(deadpool::unmanaged::Object::take(pooled));
            } else {
                kept.push(pooled);
            }
        }
        // Dropping puts them back, still sifting; in reverse, so that the last used stays on top.
        kept.into_iter().rev().for_each(drop);
    }
}
