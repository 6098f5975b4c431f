//! A non-blocking stream socket registered for readability only.
//!
//! - One `recv` per readiness: a short read means drained (epoll is edge-triggered, so later bytes make a new edge).
//! - `send` is tried at once; writability is asked for only after EAGAIN, on a duplicate of the descriptor, because
//!   on Unix sockets a standing interest in it costs a wake-up per read of the peer.
//!
//! - With TLS the same rules hold for records; what has been decrypted and not yet read counts as readable. Without it
//!   the cost is one branch.
//!
//! All methods are cancel safe: nothing is kept in a future.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::aside::Aside;
use super::tls::{TlsError, TlsInfo};
use super::tls_stream::{Received, Tls};

/// Plaintext that is decrypted ahead of its reader to see whether a close_notify stands behind it.
const AHEAD: usize = 4096;

/// Bytes of a stranger's whole handshake: a ClientHello and a chain of certificates are a few thousand.
const MAX_HANDSHAKE: usize = 64 * 1024;

/// A connected stream socket.
pub struct Socket {
    line: AsyncFd<Line>,
    /// Present only while a write is blocked.
    writable: Option<Box<AsyncFd<OwnedFd>>>,
}

/// The descriptor, and TLS on it.
struct Line {
    fd: OwnedFd,
    /// [`Socket::poll_closed`] took the reactor's word that bytes are there: ask the kernel instead.
    unread: bool,
    tls: Option<Box<Tls>>,
}

impl AsRawFd for Line {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.say_goodbye(&self.fd);
        }
    }
}

/// What owns an open descriptor and keeps it open, the same one, for as long as it lives.
trait Owner: AsRawFd {}
impl Owner for OwnedFd {}
impl Owner for Line {}

fn register<T: Owner>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: an `Owner` keeps its descriptor open until the `AsyncFd` that holds it is dropped, which is what
    // `register_with_interest` asks of its caller.
    unsafe { AsyncFd::register_with_interest(owner, interest) }.map_err(io::Error::from)
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
        Socket::on(Line { fd, unread: false, tls: None })
    }

    fn on(line: Line) -> io::Result<Self> {
        Ok(Socket { line: register(line, Interest::READABLE)?, writable: None })
    }

    /// Registers with the current runtime instead of the one it was made on (two `epoll_ctl`).
    ///
    /// # Errors
    /// Those of the reactor; the socket is closed then.
    pub fn rehome(self) -> io::Result<Self> {
        let mut line = self.line.into_inner();
        // The new registration tells of what is there.
        line.unread = false;
        Socket::on(line)
    }

    /// Reads once into `buf`, which must not be empty. `Ok(0)` is the end of the stream.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.line.get_ref().tls.is_some() {
            return self.poll_recv_tls(cx, buf);
        }
        if self.line.get_ref().unread
            && let Some(received) = self.recv_unread(buf)
        {
            return Poll::Ready(received);
        }
        loop {
            let mut guard = ready!(self.line.poll_read_ready(cx))?;
            match rustix::net::recv(&guard.get_inner().fd, &mut *buf, RecvFlags::empty()) {
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

    /// [`Self::poll_recv`] for who has just been told by [`Self::poll_readable`]: the reactor is not asked again.
    pub fn poll_recv_readable(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let line = self.line.get_ref();
        if line.tls.is_some() || line.unread {
            return self.poll_recv(cx, buf);
        }
        let mut received = None;
        let drained = || io::Error::from(io::ErrorKind::WouldBlock);
        // An error of this kind clears the readiness: a short read means drained, as in `poll_recv`.
        let _ = self.line.try_io(Interest::READABLE, |line| {
            match rustix::net::recv(&line.fd, &mut *buf, RecvFlags::empty()) {
                Ok((_, n)) => {
                    received = Some(Ok(n));
                    if n > 0 && n < buf.len() { Err(drained()) } else { Ok(()) }
                }
                Err(rustix::io::Errno::AGAIN) => Err(drained()),
                Err(rustix::io::Errno::INTR) => Ok(()),
                Err(e) => {
                    received = Some(Err(e.into()));
                    Ok(())
                }
            }
        });
        received.map_or_else(|| self.poll_recv(cx, buf), Poll::Ready)
    }

    /// Reads what [`Self::poll_closed`] passed over; `None` when it was nothing, and the reactor will tell.
    #[cold]
    fn recv_unread(&mut self, buf: &mut [u8]) -> Option<io::Result<usize>> {
        loop {
            match rustix::net::recv(&self.line.get_ref().fd, &mut *buf, RecvFlags::empty()) {
                Ok((_, n)) => {
                    self.line.get_mut().unread = n == buf.len();
                    return Some(Ok(n));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    self.line.get_mut().unread = false;
                    return None;
                }
                Err(e) => return Some(Err(e.into())),
            }
        }
    }

    fn poll_recv_tls(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if let Some(tls) = &mut self.line.get_mut().tls
                && let Some(read) = tls.read(buf)
            {
                return Poll::Ready(read);
            }
            let n = ready!(self.poll_pull(cx, buf))?;
            if n > 0 {
                return Poll::Ready(Ok(n));
            }
        }
    }

    /// Receives and decrypts once, when the reactor (or [`Line::unread`]) says that there is something.
    fn poll_pull(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let received = ready!(self.poll_receive(cx))?;
        let line = self.line.get_mut();
        Poll::Ready(Ok(line.tls.as_mut().map_or(0, |tls| tls.take(&line.fd, &received, buf))))
    }

    /// The first half of it: the bytes are where [`Tls::take`] and [`Tls::keep`] look for them. Only with TLS.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Received>> {
        let line = self.line.get_mut();
        if line.unread
            && let Some(tls) = &line.tls
        {
            let received = tls.receive(&line.fd)?;
            line.unread = !received.drained;
            return Poll::Ready(Ok(received));
        }
        let mut guard = ready!(self.line.poll_read_ready(cx))?;
        let line = guard.get_inner();
        let Some(tls) = &line.tls else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let received = tls.receive(&line.fd)?;
        if received.drained {
            guard.clear_ready();
        }
        Poll::Ready(Ok(received))
    }

    /// Receives and decrypts once without asking the reactor: the bytes in `buf`, and whether the kernel has no more.
    fn pull(&mut self, buf: &mut [u8]) -> io::Result<(usize, bool)> {
        let line = self.line.get_mut();
        let Some(tls) = &mut line.tls else { return Ok((0, true)) };
        let received = tls.receive(&line.fd)?;
        Ok((tls.take(&line.fd, &received, buf), received.drained))
    }

    /// Waits until the peer has closed its side or is gone, whatever bytes are still to be read before that.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.line.get_ref().tls.as_ref().is_some_and(|tls| tls.ended()) {
                return Poll::Ready(());
            }
            let Ok(mut guard) = ready!(self.line.poll_read_ready(cx)) else { return Poll::Ready(()) };
            if guard.ready().is_read_closed() || guard.ready().is_error() {
                return Poll::Ready(());
            }
            // Only an edge wakes the task, and there is none while the reactor holds this one for news.
            guard.clear_ready();
            self.line.get_mut().unread = true;
            if self.line.get_ref().tls.is_some() && self.look(AHEAD).is_err() {
                return Poll::Ready(());
            }
        }
    }

    /// With TLS: decrypts until `enough` bytes wait for the reader, or nothing has come.
    fn look(&mut self, enough: usize) -> io::Result<()> {
        while self.line.get_ref().tls.as_ref().is_some_and(|tls| tls.waiting().len() < enough && !tls.ended()) {
            let (_, drained) = self.pull(&mut [])?;
            if drained {
                self.line.get_mut().unread = false;
                break;
            }
        }
        Ok(())
    }

    /// As [`Self::poll_closed`].
    pub async fn closed(&mut self) {
        std::future::poll_fn(|cx| self.poll_closed(cx)).await
    }

    /// Copies bytes that are there without taking them; how many.
    pub fn peek(&mut self, buf: &mut [u8]) -> usize {
        if self.line.get_ref().tls.is_some() {
            // What was decrypted before an error counts.
            let _ = self.look(buf.len());
        }
        let line = self.line.get_ref();
        if let Some(tls) = &line.tls {
            let n = tls.waiting().len().min(buf.len());
            buf[..n].copy_from_slice(&tls.waiting()[..n]);
            return n;
        }
        rustix::net::recv(&line.fd, &mut *buf, RecvFlags::PEEK | RecvFlags::DONTWAIT).map_or(0, |(_, n)| n)
    }

    /// Whether bytes, an error or the end of the stream are waiting, as far as the reactor has heard; when it says
    /// so, one peek makes sure. For idle servers, which have nothing to say.
    /// Records that carry nothing (a session ticket) are taken and do not count.
    pub fn has_input(&mut self, cx: &mut Context<'_>) -> bool {
        if self.line.get_ref().tls.is_some() {
            return self.has_input_tls(cx);
        }
        let Poll::Ready(guard) = self.line.poll_read_ready(cx) else {
            return false;
        };
        let Ok(mut guard) = guard else { return true };
        let mut byte = [0u8; 1];
        match rustix::net::recv(&guard.get_inner().fd, &mut byte, RecvFlags::PEEK) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                guard.clear_ready();
                false
            }
            _ => true,
        }
    }

    fn has_input_tls(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            if self.line.get_ref().tls.as_ref().is_some_and(|tls| tls.has_plain()) {
                return true;
            }
            match self.poll_pull(cx, &mut []) {
                Poll::Pending => return false,
                Poll::Ready(Err(_)) => return true,
                Poll::Ready(Ok(_)) => {}
            }
        }
    }

    /// Whether the peer has closed its side, without taking bytes. `false` while data is still to be read.
    pub fn peer_closed(&mut self) -> bool {
        let line = self.line.get_mut();
        if let Some(tls) = &mut line.tls {
            // What is received is kept for the reader; the reactor goes on saying that there is something.
            while !tls.has_plain() {
                let Ok(received) = tls.receive(&line.fd) else { return true };
                tls.take(&line.fd, &received, &mut []);
                if received.drained && !tls.has_plain() {
                    return false;
                }
            }
            return tls.waiting().is_empty();
        }
        let mut byte = [0u8; 1];
        match rustix::net::recv(&line.fd, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, n)) => n == 0,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
            Err(_) => true,
        }
    }

    /// Waits until something can be read (or the stream has ended), without reading it.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let line = self.line.get_ref();
        if line.unread || line.tls.as_ref().is_some_and(|tls| tls.has_plain()) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.line.poll_read_ready(cx))?.retain_ready();
        Poll::Ready(Ok(()))
    }

    /// Sends what the kernel takes now; 0 when it takes nothing (wait with [`Self::poll_writable`]).
    ///
    /// # Errors
    /// Any error of `send` but EAGAIN: the connection is lost.
    pub fn try_send(&mut self, buf: &[u8]) -> io::Result<usize> {
        let line = self.line.get_mut();
        if let Some(tls) = &mut line.tls {
            return tls.try_send(&line.fd, buf);
        }
        let mut sent = 0;
        while sent < buf.len() {
            match rustix::net::send(&line.fd, &buf[sent..], SendFlags::NOSIGNAL) {
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
            let dup = self.line.get_ref().fd.try_clone()?;
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
    pub async fn recv(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_recv(cx, buf)).await
    }

    /// Encrypts everything from now on: runs the handshake. `early` has been received already. Cancel safe, but the
    /// connection is of no use when it was not run to its end.
    ///
    /// # Errors
    /// The handshake failed (the peer has been told), or the connection did.
    pub async fn secure(&mut self, tls: Tls, mut early: Vec<u8>) -> Result<(), TlsError> {
        self.line.get_mut().tls = Some(Box::new(tls));
        std::future::poll_fn(|cx| self.poll_shake(cx, &mut early)).await
    }

    /// The same for a stranger: what takes long is done aside, and a handshake has a limit. Not cancel safe: nothing may be
    /// sent on the connection when it was not run to its end.
    ///
    /// # Errors
    /// As of [`Self::secure`].
    pub async fn secure_stranger(&mut self, tls: Tls, early: &[u8], aside: &Aside) -> Result<(), TlsError> {
        let mut tls = Box::new(tls);
        let mut came = tls.begin(early);
        let mut total = came;
        self.line.get_mut().tls = Some(tls);
        loop {
            if total > MAX_HANDSHAKE {
                return Err(TlsError::Tls(rustls::Error::PeerSentOversizedRecord));
            }
            if came > 0
                && let Some(mut tls) = self.line.get_mut().tls.take()
            {
                let worked = aside.run(move || {
                    tls.work();
                    tls
                });
                let gone = || TlsError::Io(io::ErrorKind::Other.into());
                self.line.get_mut().tls = Some(worked.await.ok_or_else(gone)?);
            }
            if let Poll::Ready(shaken) = self.shaken() {
                return shaken;
            }
            came = 0;
            if self.line.get_ref().tls.as_ref().is_some_and(|tls| tls.blocked()) {
                std::future::poll_fn(|cx| self.poll_writable(cx)).await?;
            } else {
                let received = std::future::poll_fn(|cx| self.poll_receive(cx)).await?;
                came = self.line.get_mut().tls.as_mut().map_or(0, |tls| tls.keep(&received));
                total += came;
            }
        }
    }

    /// Sends what is due of the handshake and looks whether it is over.
    fn shaken(&mut self) -> Poll<Result<(), TlsError>> {
        let line = self.line.get_mut();
        let Some(tls) = &mut line.tls else { return Poll::Ready(Ok(())) };
        if tls.shake(&line.fd, &mut Vec::new())? {
            self.written();
            return Poll::Ready(Ok(()));
        }
        if tls.ended() {
            return Poll::Ready(Err(TlsError::Io(io::ErrorKind::UnexpectedEof.into())));
        }
        Poll::Pending
    }

    fn poll_shake(&mut self, cx: &mut Context<'_>, early: &mut Vec<u8>) -> Poll<Result<(), TlsError>> {
        loop {
            let line = self.line.get_mut();
            let Some(tls) = &mut line.tls else { return Poll::Ready(Ok(())) };
            if tls.shake(&line.fd, early)? {
                self.written();
                return Poll::Ready(Ok(()));
            }
            if tls.ended() {
                return Poll::Ready(Err(TlsError::Io(io::ErrorKind::UnexpectedEof.into())));
            }
            if tls.blocked() {
                ready!(self.poll_writable(cx))?;
            } else {
                ready!(self.poll_pull(cx, &mut []))?;
            }
        }
    }

    /// What is known of TLS on it; `None` without.
    pub fn tls(&self) -> Option<TlsInfo<'_>> {
        self.line.get_ref().tls.as_ref().map(|tls| TlsInfo { state: tls.state() })
    }

    /// The descriptor, for socket options.
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.line.get_ref().fd.as_fd()
    }
}
