//! Sockets and buffers: readiness I/O that makes no system call it need not make.
//!
//! [`socket`] is the one file with `unsafe` (registering a descriptor with the reactor). TCP and Unix sockets are
//! the same thing here: a non-blocking descriptor. TLS is a state of a [`Socket`] ([`tls_stream`]); what it is made from is
//! in [`tls`].

mod aside;
pub mod buffer;
pub mod certificate;
pub mod clock;
pub mod dial;
pub mod host;
pub mod listener;
pub mod socket;
pub mod subject;
pub mod tls;
pub mod tls_stream;
#[cfg(test)]
mod tls_tests;
mod tls_verify;
mod tls_words;

pub use aside::Aside;
pub use buffer::{BufPool, Lent};
pub use listener::{Listener, PeerAddr};
pub use socket::Socket;
pub use subject::Subject;
pub use tls::{Acceptor, Connector, TlsError, TlsFiles};

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
