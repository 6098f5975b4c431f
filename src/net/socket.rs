//! A non-blocking stream socket registered for readability only.
//!
//! - One `recv` per readiness: a short read means drained (epoll is edge-triggered, so later bytes make a new edge).
//! - `send` is tried at once; writability is asked for only after EAGAIN, on a duplicate of the descriptor, because
//!   on Unix sockets a standing interest in it costs a wake-up per read of the peer.
//!
//! All methods are cancel safe: nothing is kept in a future.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A connected stream socket.
pub struct Socket {
    fd: AsyncFd<OwnedFd>,
    /// Present only while a write is blocked.
    writable: Option<Box<AsyncFd<OwnedFd>>>,
    /// [`Self::poll_closed`] took the reactor's word that bytes are there: ask the kernel instead.
    unread: AtomicBool,
}

fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` owns an open descriptor and keeps it open until the `AsyncFd` that holds it is dropped,
    // which is what `register_with_interest` asks of its caller.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}

/// Registers a listening descriptor for readability.
///
/// # Errors
/// Those of the reactor.
pub fn register_listener(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register(fd, Interest::READABLE)
}

impl Socket {
    /// Takes a connected descriptor, makes it non-blocking and registers it with the current runtime.
    ///
    /// # Errors
    /// Those of `fcntl` and the reactor.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Socket { fd: register(fd, Interest::READABLE)?, writable: None, unread: AtomicBool::new(false) })
    }

    /// Registers with the current runtime instead of the one it was made on (two `epoll_ctl`).
    ///
    /// # Errors
    /// Those of the reactor; the socket is closed then.
    pub fn rehome(self) -> io::Result<Self> {
        Socket::new(self.fd.into_inner())
    }

    /// Reads once into `buf`, which must not be empty. `Ok(0)` is the end of the stream.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.unread.load(Relaxed)
            && let Some(received) = self.recv_unread(buf)
        {
            return Poll::Ready(received);
        }
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match rustix::net::recv(self.fd.get_ref(), &mut *buf, RecvFlags::empty()) {
                Ok((_, n)) => {
                    if n > 0 && n < buf.len() {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Poll::Ready(Err(e.into())),
            }
        }
    }

    /// Reads what [`Self::poll_closed`] passed over; `None` when it was nothing, and the reactor will tell.
    #[cold]
    fn recv_unread(&self, buf: &mut [u8]) -> Option<io::Result<usize>> {
        loop {
            match rustix::net::recv(self.fd.get_ref(), &mut *buf, RecvFlags::empty()) {
                Ok((_, n)) => {
                    self.unread.store(n == buf.len(), Relaxed);
                    return Some(Ok(n));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    self.unread.store(false, Relaxed);
                    return None;
                }
                Err(e) => return Some(Err(e.into())),
            }
        }
    }

    /// Waits until the peer has closed its side or is gone, whatever bytes are still to be read before that.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Ok(mut guard) = ready!(self.fd.poll_read_ready(cx)) else { return Poll::Ready(()) };
            if guard.ready().is_read_closed() || guard.ready().is_error() {
                return Poll::Ready(());
            }
            // Only an edge wakes the task, and there is none while the reactor holds this one for news.
            guard.clear_ready();
            self.unread.store(true, Relaxed);
        }
    }

    /// As [`Self::poll_closed`].
    pub async fn closed(&self) {
        std::future::poll_fn(|cx| self.poll_closed(cx)).await
    }

    /// Copies bytes that are there without taking them; how many.
    pub fn peek(&self, buf: &mut [u8]) -> usize {
        rustix::net::recv(self.fd.get_ref(), &mut *buf, RecvFlags::PEEK | RecvFlags::DONTWAIT).map_or(0, |(_, n)| n)
    }

    /// Whether bytes, an error or the end of the stream are waiting, as far as the reactor has heard; when it says
    /// so, one peek makes sure. For idle servers, which have nothing to say.
    pub fn has_input(&self, cx: &mut Context<'_>) -> bool {
        let Poll::Ready(guard) = self.fd.poll_read_ready(cx) else {
            return false;
        };
        let Ok(mut guard) = guard else { return true };
        let mut byte = [0u8; 1];
        match rustix::net::recv(self.fd.get_ref(), &mut byte, RecvFlags::PEEK) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                guard.clear_ready();
                false
            }
            _ => true,
        }
    }

    /// Whether the peer has closed its side, without taking bytes. `false` while data is still to be read.
    pub fn peer_closed(&self) -> bool {
        let mut byte = [0u8; 1];
        match rustix::net::recv(self.fd.get_ref(), &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, n)) => n == 0,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
            Err(_) => true,
        }
    }

    /// Waits until something can be read (or the stream has ended), without reading it.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unread.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.fd.poll_read_ready(cx))?.retain_ready();
        Poll::Ready(Ok(()))
    }

    /// Sends what the kernel takes now; 0 when it takes nothing (wait with [`Self::poll_writable`]).
    ///
    /// # Errors
    /// Any error of `send` but EAGAIN: the connection is lost.
    pub fn try_send(&self, buf: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < buf.len() {
            match rustix::net::send(self.fd.get_ref(), &buf[sent..], SendFlags::NOSIGNAL) {
                Ok(n) => sent += n,
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(sent)
    }

    /// Waits until the kernel takes bytes again. Forget it with [`Self::written`] once drained.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writable.is_none() {
            let dup = self.fd.get_ref().try_clone()?;
            self.writable = Some(Box::new(register(dup, Interest::WRITABLE)?));
        }
        let Some(w) = &self.writable else {
            return Poll::Ready(Ok(()));
        };
        let mut guard = ready!(w.poll_write_ready(cx))?;
        // The caller sends next: if that blocks, readiness must come from a new edge.
        guard.clear_ready();
        Poll::Ready(Ok(()))
    }

    /// All that was pending has been sent: interest in writability ends.
    pub fn written(&mut self) {
        self.writable = None;
    }

    /// Sends all of `buf`. Not cancel safe: how much was sent is lost with the future.
    ///
    /// # Errors
    /// Those of `send`.
    pub async fn send_all(&mut self, mut buf: &[u8]) -> io::Result<()> {
        loop {
            let n = self.try_send(buf)?;
            buf = &buf[n..];
            if buf.is_empty() {
                self.written();
                return Ok(());
            }
            std::future::poll_fn(|cx| self.poll_writable(cx)).await?;
        }
    }

    /// Reads at least one byte. Cancel safe.
    ///
    /// # Errors
    /// Those of `recv`.
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_recv(cx, buf)).await
    }

    /// The descriptor, for socket options.
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }
}
