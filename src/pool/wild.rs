//! What databases cost PostgreSQL whose names come from strangers (`auth_query` by way of a wildcard): each is a process there
//! before any password is proved.
//!
//! A place that has answered once is not delayed by the others: only first contacts stand in line, and a contact that fails
//! keeps its place in it for a while. So names that do not exist are tried slowly, and those that do at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::server::{ConnectError, LookupError};
use crate::wire::error::sqlstate;

/// First contacts under way at once.
const FIRST: usize = 4;
/// How long one that failed keeps its place: 16 of them a second at most, over all names.
const PENALTY: Duration = Duration::from_millis(250);
/// Connections open at once, over all names.
const MAX_OPEN: usize = 32;
/// Of them kept while nobody asks.
const MAX_IDLE: usize = 16;

/// The limits of all such places together.
#[derive(Clone)]
pub(super) struct Limits {
    first: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

/// A place under these limits; one that a section names has none.
pub(super) struct Wild {
    limits: Limits,
    /// It has answered, and the server has not said since that there is no such database.
    proven: AtomicBool,
}

/// The right to one contact.
pub(super) struct Contact {
    first: Option<OwnedSemaphorePermit>,
    open: Option<OwnedSemaphorePermit>,
}

fn says_there_is_none(error: &LookupError) -> bool {
    matches!(error, LookupError::Connect(ConnectError::Refused(fields)) if fields.code == sqlstate::NO_SUCH_DATABASE)
}

impl Limits {
    pub(super) fn new() -> Limits {
        Limits { first: Arc::new(Semaphore::new(FIRST)), open: Arc::new(Semaphore::new(MAX_OPEN)) }
    }

    pub(super) fn place(&self) -> Wild {
        Wild { limits: self.clone(), proven: AtomicBool::new(false) }
    }
}

impl Wild {
    pub(super) fn proven(&self) -> bool {
        self.proven.load(Relaxed)
    }

    /// Waits for its turn, first come first served. Cancel safe.
    pub(super) async fn contact(&self) -> Contact {
        // Neither is ever closed.
        let first = match self.proven() {
            true => None,
            false => Arc::clone(&self.limits.first).acquire_owned().await.ok(),
        };
        Contact { first, open: Arc::clone(&self.limits.open).acquire_owned().await.ok() }
    }

    /// How a contact went: what is to be held as long as the connection is open. A server that is away says nothing of the
    /// name. Call it on a worker.
    pub(super) fn made(&self, contact: Contact, failed: Option<&LookupError>) -> Option<OwnedSemaphorePermit> {
        let well = failed.is_none();
        if well || failed.is_some_and(says_there_is_none) {
            self.proven.store(well, Relaxed);
        }
        if let Some(first) = contact.first.filter(|_| !well) {
            tokio::task::spawn_local(async move {
                tokio::time::sleep(PENALTY).await;
                drop(first);
            });
        }
        contact.open.filter(|_| well)
    }

    /// Whether a connection may stay open for the next question.
    pub(super) fn may_idle(&self) -> bool {
        MAX_OPEN - self.limits.open.available_permits() <= MAX_IDLE
    }
}

#[cfg(test)]
impl Contact {
    /// Under no limit.
    pub(super) fn free() -> Contact {
        Contact { first: None, open: None }
    }
}
