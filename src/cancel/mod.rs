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
}

impl CancelSlot {
    /// The client has got this server. Whether it was cancelled while it waited: then nothing may be sent.
    #[must_use]
    pub fn set(&self, key: &Arc<ServerKey>) -> bool {
        let Ok(mut runs) = self.runs.lock() else { return false };
        matches!(std::mem::replace(&mut *runs, Runs::On(Arc::clone(key))), Runs::Waits { canceled: true, .. })
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
