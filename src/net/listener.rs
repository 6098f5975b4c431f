//! Listening sockets, TCP and Unix.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use tokio::io::unix::AsyncFd;

use super::socket::register_listener;
use crate::config::ListenAddr;

/// Where a client connects from, and the port it connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAddr {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix,
}

impl std::fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PeerAddr::Tcp(a) => a.fmt(f),
            PeerAddr::Unix => f.write_str("unix"),
        }
    }
}

/// A listening socket. A Unix socket's file is removed when it is dropped.
pub struct Listener {
    fd: AsyncFd<OwnedFd>,
    addr: ListenAddr,
}

impl Listener {
    /// Binds and listens. A Unix socket file left by a process that is gone is replaced.
    ///
    /// # Errors
    /// Those of `bind`; "address in use" also when another process still answers on a Unix socket.
    pub fn bind(addr: &ListenAddr, backlog: u32) -> io::Result<Self> {
        let (socket, addr) = match addr {
            ListenAddr::Tcp(a) => {
                let s = socket2::Socket::new(socket2::Domain::for_address(*a), socket2::Type::STREAM, None)?;
                s.set_reuse_address(true)?;
                s.bind(&(*a).into())?;
                let bound = s.local_addr()?.as_socket().unwrap_or(*a);
                (s, ListenAddr::Tcp(bound))
            }
            ListenAddr::Unix(path) => (bind_unix(path)?, addr.clone()),
        };
        socket.set_nonblocking(true)?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(Listener { fd: register_listener(socket.into())?, addr })
    }

    /// Where it listens (with the port the kernel chose, when 0 was asked for).
    pub fn addr(&self) -> &ListenAddr {
        &self.addr
    }

    /// The next connection, with `TCP_NODELAY` and keepalive set. Cancel safe.
    ///
    /// # Errors
    /// Those of `accept`; the listener lives on (`EMFILE` and its kin pass).
    pub async fn accept(&self) -> io::Result<(OwnedFd, PeerAddr)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(OwnedFd, PeerAddr)>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match rustix::net::acceptfrom_with(self.fd.get_ref(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((fd, addr)) => {
                    let peer = addr.and_then(|a| SocketAddr::try_from(a).ok()).map_or(PeerAddr::Unix, PeerAddr::Tcp);
                    if matches!(peer, PeerAddr::Tcp(_)) {
                        tune(&fd)?;
                    }
                    return Poll::Ready(Ok((fd, peer)));
                }
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {}
                Err(e) => return Poll::Ready(Err(e.into())),
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let ListenAddr::Unix(path) = &self.addr {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// `TCP_NODELAY`, and a dead peer noticed within about half a minute.
///
/// # Errors
/// Those of `setsockopt`.
pub fn tune(fd: &OwnedFd) -> io::Result<()> {
    let s = socket2::SockRef::from(fd);
    s.set_tcp_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    s.set_tcp_keepalive(&keepalive)
}

/// Tells a connection that it is not wanted and ends its stream, without waiting: what the kernel does not take is lost.
pub fn turn_away(fd: &OwnedFd, message: &[u8]) {
    // What has come already is taken: closing with unread bytes resets a connection, and the message may be lost with it.
    let mut came = [0u8; 1024];
    let n = rustix::net::recv(fd, &mut came, RecvFlags::DONTWAIT).map_or(0, |(_, n)| n);
    // A TLS record of the type "handshake": to it this would be noise.
    if n == 0 || came[0] != 0x16 {
        let _ = rustix::net::send(fd, message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
    let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Write);
}

fn bind_unix(path: &Path) -> io::Result<socket2::Socket> {
    let s = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    let addr = socket2::SockAddr::unix(path)?;
    if let Err(e) = s.bind(&addr) {
        let stale = e.kind() == io::ErrorKind::AddrInUse
            && std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
            && std::os::unix::net::UnixStream::connect(path)
                .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        if !stale {
            return Err(e);
        }
        std::fs::remove_file(path)?;
        s.bind(&addr)?;
    }
    // As PostgreSQL's unix_socket_permissions: who may connect is decided by authentication.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    Ok(s)
}

/// The file of a Unix socket in `dir`, as PostgreSQL names it (UNIXSOCK_PATH, libpq/pqcomm.h).
pub fn unix_socket_path(dir: &str, port: u16) -> PathBuf {
    Path::new(dir).join(format!(".s.PGSQL.{port}"))
}
