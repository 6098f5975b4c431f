//! Sockets and buffers: readiness I/O that makes no system call it need not make.
//!
//! [`socket`] is the one file with `unsafe` (registering a descriptor with the reactor). TCP and Unix sockets are
//! the same thing here: a non-blocking descriptor.

pub mod buffer;
pub mod clock;
pub mod dial;
pub mod host;
pub mod listener;
pub mod socket;

pub use buffer::{BufPool, Lent};
pub use listener::{Listener, PeerAddr};
pub use socket::Socket;

std::thread_local! {
    static WORKER: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Number of the worker whose thread this is; 0 outside workers.
pub fn worker_id() -> usize {
    WORKER.get()
}

/// Makes this thread worker `id`. Called once, when the worker starts.
pub fn set_worker_id(id: usize) {
    WORKER.set(id);
}
