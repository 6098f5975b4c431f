//! Connections that have not logged in yet: how many there may be, and who goes when another one comes.
//!
//! The limit is looked at before anything is read: a stranger beyond it costs an accept and an error, no TLS, no task.
//! Whoever fills all places with connections that say nothing keeps nobody out: the one that has been here longest makes
//! room for the next, unless it has only just come.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::net::clock::now_us;
use crate::net::listener;
use crate::wire::control;
use crate::wire::error::{ErrorFields, sqlstate};

/// Who has been here for longer makes room; in this time an honest login is over, or well on its way.
const PATIENCE_US: u64 = 1_000_000;
/// Between two lines of the log about it.
const TELL_US: u64 = 10_000_000;
/// Strangers admitted when `max_client_conn` clients are logged in: one of them may be an administrator.
const CONSOLE_ROOM: usize = 32;

/// Why a connection was refused or closed before its login, for metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// `max_client_conn` clients are logged in.
    Full,
    /// `max_unauthenticated_conn` others have not logged in yet, all of them only just come.
    Crowd,
    /// It had not logged in for a while, and another one came.
    MadeRoom,
}

impl Refusal {
    /// All, by number.
    pub const ALL: [Refusal; 3] = [Refusal::Full, Refusal::Crowd, Refusal::MadeRoom];

    /// Label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Refusal::Full => "max_client_conn",
            Refusal::Crowd => "max_unauthenticated_conn",
            Refusal::MadeRoom => "made_room",
        }
    }

    /// What the client is told.
    pub fn fields(self) -> ErrorFields {
        let (setting, hint) = match self {
            Refusal::Full => ("max_client_conn", "Raise max_client_conn, or close idle connections."),
            Refusal::Crowd | Refusal::MadeRoom => {
                ("max_unauthenticated_conn", "Too many connections are logging in at once: try again.")
            }
        };
        let message = format!("no more connections allowed ({setting})");
        ErrorFields::fatal(sqlstate::TOO_MANY_CONNECTIONS, message).hint(hint)
    }
}

/// All connections that have not logged in yet.
pub struct Strangers {
    limit: usize,
    inside: Mutex<Inside>,
    refused: [AtomicU64; 3],
    /// When the log was last told.
    told_us: AtomicU64,
}

#[derive(Default)]
struct Inside {
    next: u64,
    /// In order of arrival.
    all: BTreeMap<u64, Guest>,
}

struct Guest {
    since_us: u64,
    leave: Arc<Notify>,
}

/// A connection's place among them; given back when it is dropped.
pub struct Stranger {
    strangers: Arc<Strangers>,
    number: u64,
    leave: Arc<Notify>,
}

impl Strangers {
    /// None yet, and `limit` at most.
    pub fn new(limit: usize) -> Strangers {
        Strangers { limit, inside: Mutex::default(), refused: Default::default(), told_us: AtomicU64::new(0) }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.inside().all.len()
    }

    /// A place for one that comes now. `full`: no client is admitted but to the console.
    ///
    /// # Errors
    /// There is none.
    pub fn enter(self: &Arc<Self>, full: bool, now_us: u64) -> Result<Stranger, Refusal> {
        let limit = if full { CONSOLE_ROOM.min(self.limit) } else { self.limit };
        let mut inside = self.inside();
        if inside.all.len() >= limit {
            let Some(oldest) =
                inside.all.first_entry().filter(|g| now_us.saturating_sub(g.get().since_us) >= PATIENCE_US)
            else {
                return Err(if full { Refusal::Full } else { Refusal::Crowd });
            };
            oldest.remove().leave.notify_one();
        }
        let number = inside.next;
        inside.next += 1;
        let leave = Arc::new(Notify::new());
        inside.all.insert(number, Guest { since_us: now_us, leave: Arc::clone(&leave) });
        drop(inside);
        Ok(Stranger { strangers: Arc::clone(self), number, leave })
    }

    /// Counts a connection that was refused, or closed. The log hears of it now and then.
    pub fn count_refusal(&self, refusal: Refusal) {
        let total = self.refused[refusal as usize].fetch_add(1, Relaxed) + 1;
        let (now, told) = (now_us(), self.told_us.load(Relaxed));
        let due = told == 0 || now.saturating_sub(told) > TELL_US;
        if due && self.told_us.compare_exchange(told, now, Relaxed, Relaxed).is_ok() {
            let reason = refusal.label();
            tracing::warn!(target: "pgsluice::login", reason, total, "a connection was refused or closed before its login");
        }
    }

    /// How many were refused or closed so far, in the order of [`Refusal::ALL`].
    pub fn refusals(&self) -> [u64; 3] {
        std::array::from_fn(|i| self.refused[i].load(Relaxed))
    }

    /// Refuses a connection of which nothing has been read.
    pub fn turn_away(&self, fd: &OwnedFd, refusal: Refusal) {
        self.count_refusal(refusal);
        let mut out = Vec::new();
        control::error(&mut out, &refusal.fields());
        listener::turn_away(fd, &out);
    }
}

impl Stranger {
    /// Waits until it must make room. Cancel safe.
    pub async fn must_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.strangers.inside().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_when_it_has_had_its_time() {
        let strangers = Arc::new(Strangers::new(2));
        let first = strangers.enter(false, 0).unwrap();
        let second = strangers.enter(false, 500_000).unwrap();
        assert_eq!(strangers.enter(false, 999_999).err(), Some(Refusal::Crowd), "both have only just come");
        let third = strangers.enter(false, 1_000_000).unwrap();
        let ready = |s: &Stranger| {
            let mut waits = std::pin::pin!(s.must_leave());
            waits.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
        };
        assert!(ready(&first) && !ready(&second) && !ready(&third));
        drop(first);
        assert_eq!(strangers.count(), 2, "its place is taken already");
        drop((second, third));
        assert_eq!(strangers.count(), 0);
        // Two workers look at the clock and come here in the other order.
        let _others = [strangers.enter(false, 10).unwrap(), strangers.enter(false, 10).unwrap()];
        assert_eq!(strangers.enter(false, 9).err(), Some(Refusal::Crowd));
    }

    #[test]
    fn a_full_house_admits_a_few_for_the_console() {
        let strangers = Arc::new(Strangers::new(1000));
        let inside: Vec<_> = (0..CONSOLE_ROOM).map(|_| strangers.enter(true, 0).unwrap()).collect();
        assert_eq!(strangers.enter(true, 0).err(), Some(Refusal::Full));
        assert!(strangers.enter(false, 0).is_ok());
        drop(inside);
    }
}
