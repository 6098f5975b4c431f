//! Sockets and buffers: readiness I/O that makes no system call it need not make.
//!
//! [`socket`] is the one file with `unsafe` (registering a descriptor with the reactor). TCP and Unix sockets are
//! the same thing here: a non-blocking descriptor.

pub mod buffer;
pub mod dial;
pub mod listener;
pub mod socket;

pub use buffer::{BufPool, Lent};
pub use listener::{Listener, PeerAddr};
pub use socket::Socket;
