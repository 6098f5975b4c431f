//! Cancel keys of clients, and the way from a key to the query it means.
//!
//! A client's slot names its server from checkout to release. A cancel takes the slot's lock, marks the server and
//! only then opens the cancel connection: the mark keeps the server from its next client until the cancel has been
//! delivered, so that it can never hit another client's query. A client that waits for a server is told itself.

use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use dashmap::DashMap;
use foldhash::fast::RandomState;

use crate::auth::AuthError;
use crate::server::ServerKey;
use crate::server::cancel::Mark;

/// Bytes of the secret in protocol 3.2 (MAX_CANCEL_KEY_LENGTH, procsignal.h); the first four are all of it in 3.0.
pub const LONG_SECRET: usize = 32;

/// By what a client's slot is found: its key as BackendKeyData of protocol 3.0 carries it, or the beginning of a longer
/// one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CancelKey {
    /// Process id part.
    pub pid: u32,
    /// Secret part, as far as protocol 3.0 knows it.
    pub secret: u32,
}

/// What a client runs on now.
#[derive(Default)]
pub struct CancelSlot {
    /// The rest of the secret, for clients of protocol 3.2.
    rest: Box<[u8]>,
    runs: Mutex<Runs>,
}

/// What a cancel would hit.
#[derive(Default)]
enum Runs {
    /// Nothing.
    #[default]
    Nothing,
    /// A request that waits for a server.
    Waits { waker: Waker, canceled: bool },
    /// Whatever this server does.
    On(Arc<ServerKey>),
    /// A query of pgsluice's own runs on this server for the client: a cancel is kept for the client's request behind it.
    Held { server: Arc<ServerKey>, canceled: bool },
}

impl CancelSlot {
    /// The client has got this server. Whether it was cancelled while it waited: then nothing may be sent.
    #[must_use]
    pub fn set(&self, key: &Arc<ServerKey>) -> bool {
        let Ok(mut runs) = self.runs.lock() else { return false };
        matches!(std::mem::replace(&mut *runs, Runs::On(Arc::clone(key))), Runs::Waits { canceled: true, .. })
    }

    /// What the server does now is not the client's request: a cancel is kept until [`Self::resume`].
    pub fn hold(&self) {
        if let Ok(mut runs) = self.runs.lock()
            && let Runs::On(server) = &*runs
        {
            *runs = Runs::Held { server: Arc::clone(server), canceled: false };
        }
    }

    /// The client's request is what runs from now on: deliver what is returned, which came before.
    #[must_use]
    pub fn resume(&self) -> Option<Mark> {
        let mut runs = self.runs.lock().ok()?;
        let Runs::Held { server, canceled } = &*runs else { return None };
        let mark = canceled.then(|| server.mark());
        *runs = Runs::On(Arc::clone(server));
        mark
    }

    /// The client leaves its server before its request was sent. Whether a cancel was kept for that: then it must not be
    /// sent at all.
    #[must_use]
    pub fn leave(&self) -> bool {
        let Ok(mut runs) = self.runs.lock() else { return false };
        matches!(std::mem::take(&mut *runs), Runs::Held { canceled: true, .. })
    }

    /// The client is about to give its server back.
    pub fn clear(&self) {
        if let Ok(mut runs) = self.runs.lock() {
            *runs = Runs::Nothing;
        }
    }

    /// The client's task waits for a server and is woken by a cancel. Whether there was one already. Until
    /// [`Self::set`] or [`Self::clear`].
    pub fn wait(&self, cx: &Context<'_>) -> bool {
        let Ok(mut runs) = self.runs.lock() else { return false };
        match &mut *runs {
            Runs::Waits { waker, canceled } => {
                waker.clone_from(cx.waker());
                *canceled
            }
            other => {
                *other = Runs::Waits { waker: cx.waker().clone(), canceled: false };
                false
            }
        }
    }

    /// Marks the server for a cancel, if the client has one: deliver what is returned. A waiting client is woken.
    fn mark(&self) -> Option<Mark> {
        match &mut *self.runs.lock().ok()? {
            Runs::Nothing => None,
            Runs::Waits { waker, canceled } => {
                *canceled = true;
                waker.wake_by_ref();
                None
            }
            Runs::On(server) => Some(server.mark()),
            Runs::Held { canceled, .. } => {
                *canceled = true;
                None
            }
        }
    }

    /// Compares all bytes, whatever they are: the time it takes tells nothing of the secret.
    fn has_rest(&self, rest: &[u8]) -> bool {
        rest.len() == self.rest.len() && rest.iter().zip(&self.rest).fold(0, |d, (a, b)| d | (a ^ b)) == 0
    }
}

/// All clients' keys.
#[derive(Default)]
pub struct Cancels {
    slots: DashMap<CancelKey, Arc<CancelSlot>, RandomState>,
}

/// A client's key while it is connected.
pub struct Registration {
    cancels: Arc<Cancels>,
    /// The key.
    pub key: CancelKey,
    /// Its slot.
    pub slot: Arc<CancelSlot>,
}

impl Registration {
    /// The secret as the client is told it.
    pub fn secret(&self) -> Vec<u8> {
        [&self.key.secret.to_be_bytes(), &*self.slot.rest].concat()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.cancels.slots.remove(&self.key);
    }
}

impl Cancels {
    /// A new random key for a client. The process id part is `pid`, or random and positive, as clients expect. `long`:
    /// for a client that speaks protocol 3.2.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub fn register(self: &Arc<Self>, pid: Option<u32>, long: bool) -> Result<Registration, AuthError> {
        loop {
            let bytes: [u8; 8] = crate::auth::random()?;
            let [a, b, c, d, e, f, g, h] = bytes;
            let key = CancelKey {
                pid: pid.unwrap_or(u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff),
                secret: u32::from_be_bytes([e, f, g, h]),
            };
            let rest: Box<[u8]> =
                if long { crate::auth::random::<{ LONG_SECRET - 4 }>()?.into() } else { Box::default() };
            let slot = Arc::new(CancelSlot { rest, runs: Mutex::default() });
            if let dashmap::Entry::Vacant(v) = self.slots.entry(key) {
                v.insert(Arc::clone(&slot));
                return Ok(Registration { cancels: Arc::clone(self), key, slot });
            }
        }
    }

    /// Cancels what the client with this key runs. Silent when there is nothing: PostgreSQL tells nothing either.
    pub async fn cancel(&self, pid: u32, secret: &[u8]) {
        let Some((first, rest)) = secret.split_first_chunk::<4>() else { return };
        let key = CancelKey { pid, secret: u32::from_be_bytes(*first) };
        let server = self.slots.get(&key).filter(|slot| slot.has_rest(rest)).and_then(|slot| slot.mark());
        if let Some(server) = server
            && let Err(e) = server.deliver().await
        {
            tracing::warn!(target: "pgsluice::cancel", error = %e, "a cancel request could not be delivered");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::dial::Reached;

    fn server() -> Arc<ServerKey> {
        Arc::new(ServerKey::new(Reached::Unix("/nowhere".into()), 1, vec![0; 4], None))
    }

    #[test]
    fn a_cancel_while_waiting_is_told_once_and_to_its_own_wait() {
        let cx = Context::from_waker(Waker::noop());
        let slot = CancelSlot::default();
        assert!(slot.mark().is_none(), "idle: nothing to cancel");
        assert!(!slot.wait(&cx));
        assert!(slot.mark().is_none(), "no server to tell");
        assert!(slot.wait(&cx));
        slot.clear();
        assert!(!slot.wait(&cx), "the next wait knows nothing of it");
        // Between the last look and the server.
        assert!(slot.mark().is_none());
        let key = server();
        assert!(slot.set(&key));
        slot.clear();
        assert!(!slot.set(&key));
        let mark = slot.mark().unwrap();
        assert!(key.being_canceled());
        drop(mark);
        assert!(!key.being_canceled());
    }

    #[test]
    fn a_cancel_is_kept_while_the_servers_query_is_not_the_clients() {
        let (slot, key) = (CancelSlot::default(), server());
        assert!(!slot.set(&key));
        for canceled in [false, true] {
            slot.hold();
            if canceled {
                assert!(slot.mark().is_none() && slot.mark().is_none() && !key.being_canceled());
            }
            assert_eq!(slot.resume().is_some(), canceled);
            assert!(slot.resume().is_none() && slot.mark().is_some(), "told once; a later one goes at once");
            slot.hold();
            assert!(!canceled || slot.mark().is_none());
            assert_eq!((slot.leave(), slot.leave()), (canceled, false), "nor is it lost with the server");
            assert!(!slot.set(&key));
        }
    }

    #[test]
    fn a_long_key_is_known_by_all_of_it() {
        let cancels = Arc::new(Cancels::default());
        for (long, bytes) in [(false, 4), (true, LONG_SECRET)] {
            let registration = cancels.register(Some(7), long).unwrap();
            let secret = registration.secret();
            assert_eq!(secret.len(), bytes);
            let slot = cancels.slots.get(&registration.key).unwrap();
            assert!(slot.has_rest(&secret[4..]));
            for i in 4..bytes {
                let mut wrong = secret.clone();
                wrong[i] ^= 0x80;
                assert!(!slot.has_rest(&wrong[4..]), "byte {i}");
            }
            assert!(!slot.has_rest(&[&secret[4..], b"x"].concat()) && (!long || !slot.has_rest(&[])));
        }
    }
}
