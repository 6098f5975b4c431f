//! Work of logins that takes long (a signature of TLS, a derivation of SCRAM's keys), on threads beside the workers: what
//! a worker relays goes on meanwhile. Few at once, first come first served, so that a storm of logins leaves processors
//! to those who are logged in.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// The right to compute, for the whole process: one for clients' logins, one for those at servers.
pub struct Aside {
    seats: Arc<Semaphore>,
}

impl Aside {
    /// As many computations at once as half of the processors, one at least.
    pub fn new() -> Aside {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Aside { seats: Arc::new(Semaphore::new((processors / 2).max(1))) }
    }

    /// Computes when it is its turn; `None` when the computation panicked, or the runtime ends. Cancel safe: what waits is
    /// not begun, and what has begun keeps its seat to its end, unheard.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let seat = Arc::clone(&self.seats).acquire_owned().await.ok()?;
        let seated = move || {
            let _seat = seat;
            work()
        };
        tokio::task::spawn_blocking(seated).await.ok()
    }
}

/// As [`Aside::new`].
impl Default for Aside {
    fn default() -> Aside {
        Aside::new()
    }
}
