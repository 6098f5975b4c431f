//! Work of logins that takes long (a signature of TLS, a derivation of SCRAM's keys), on threads beside the workers: what
//! a worker relays goes on meanwhile. Few at once, first come first served, so that a storm of logins leaves processors
//! to those who are logged in.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// Few threads that compute, for the whole process: some for clients' logins, some for those at servers.
pub struct Aside {
    /// Nothing runs on it but its threads for blocking work: they begin when there is some, and end when there is none.
    /// `None` at its very end.
    threads: Option<Runtime>,
}

impl Aside {
    /// As many threads as half of the processors, one at least.
    ///
    /// # Errors
    /// The operating system's, on beginning.
    pub fn new() -> io::Result<Aside> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = Builder::new_current_thread().max_blocking_threads((processors / 2).max(1)).build()?;
        Ok(Aside { threads: Some(threads) })
    }

    /// Computes when it is its turn; `None` when the computation panicked, or the process ends. Cancel safe: what waits is
    /// not begun, and what has begun goes on to its end, unheard.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (say, heard) = oneshot::channel();
        self.threads.as_ref()?.spawn_blocking(move || {
            if !say.is_closed() {
                let _ = say.send(work());
            }
        });
        heard.await.ok()
    }
}

impl Drop for Aside {
    /// Waits for nothing: a runtime that is dropped waits for its threads, which a worker must not.
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}
