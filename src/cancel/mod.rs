//! Cancel keys of clients, and the way from a key to the query it means.
//!
//! A client's slot names its server from checkout to release. A cancel takes the slot's lock, marks the server and
//! only then opens the cancel connection: the mark keeps the server from its next client until the cancel has been
//! delivered, so that it can never hit another client's query.

use std::sync::{Arc, Mutex};

use dashmap::DashMap;
use foldhash::fast::RandomState;

use crate::auth::AuthError;
use crate::server::ServerKey;
use crate::server::cancel::Mark;

/// A client's key, as BackendKeyData of protocol 3.0 carries it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CancelKey {
    /// Process id part.
    pub pid: u32,
    /// Secret part.
    pub secret: u32,
}

/// What a client runs on now.
#[derive(Default)]
pub struct CancelSlot {
    server: Mutex<Option<Arc<ServerKey>>>,
}

impl CancelSlot {
    /// The client has got this server.
    pub fn set(&self, key: &Arc<ServerKey>) {
        if let Ok(mut s) = self.server.lock() {
            *s = Some(Arc::clone(key));
        }
    }

    /// The client is about to give its server back.
    pub fn clear(&self) {
        if let Ok(mut s) = self.server.lock() {
            *s = None;
        }
    }

    /// Marks the server for a cancel, if the client has one. Deliver what is returned.
    fn mark(&self) -> Option<Mark> {
        Some(self.server.lock().ok()?.as_ref()?.mark())
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

impl Drop for Registration {
    fn drop(&mut self) {
        self.cancels.slots.remove(&self.key);
    }
}

impl Cancels {
    /// A new random key for a client. The process id part is `pid`, or random and positive, as clients expect.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub fn register(self: &Arc<Self>, pid: Option<u32>) -> Result<Registration, AuthError> {
        loop {
            let bytes: [u8; 8] = crate::auth::random()?;
            let [a, b, c, d, e, f, g, h] = bytes;
            let key = CancelKey {
                pid: pid.unwrap_or(u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff),
                secret: u32::from_be_bytes([e, f, g, h]),
            };
            let slot = Arc::new(CancelSlot::default());
            if let dashmap::Entry::Vacant(v) = self.slots.entry(key) {
                v.insert(Arc::clone(&slot));
                return Ok(Registration { cancels: Arc::clone(self), key, slot });
            }
        }
    }

    /// Cancels what the client with this key runs. Silent when there is nothing: PostgreSQL tells nothing either.
    pub async fn cancel(&self, pid: u32, secret: &[u8]) {
        let Ok(secret) = <[u8; 4]>::try_from(secret) else {
            return;
        };
        let key = CancelKey { pid, secret: u32::from_be_bytes(secret) };
        let server = self.slots.get(&key).and_then(|slot| slot.mark());
        if let Some(server) = server
            && let Err(e) = server.deliver().await
        {
            tracing::warn!(target: "pgsluice::cancel", error = %e, "a cancel request could not be delivered");
        }
    }
}
