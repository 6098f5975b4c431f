//! Connecting to a server, by TCP (every address of the name in turn) or Unix socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::listener::{tune, unix_socket_path};
use super::socket::Socket;

/// Where a connection leads: the address that was reached. A name may stand for several servers, and for others later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// TCP.
    Tcp(SocketAddr),
    /// The file of a Unix socket.
    Unix(PathBuf),
}

/// Connects. `host` beginning with `/` is the directory of a Unix socket. Cancel safe.
///
/// # Errors
/// The last address's error, or the resolver's.
pub async fn dial(host: &str, port: u16) -> io::Result<(Socket, Reached)> {
    if host.starts_with('/') {
        let reached = Reached::Unix(unix_socket_path(host, port));
        return Ok((dial_again(&reached).await?, reached));
    }
    let stream = tokio::net::TcpStream::connect((host, port)).await?;
    let reached = Reached::Tcp(stream.peer_addr()?);
    Ok((tcp(stream)?, reached))
}

/// Connects to where an earlier connection led. Cancel safe.
///
/// # Errors
/// Those of `connect`.
pub async fn dial_again(to: &Reached) -> io::Result<Socket> {
    match to {
        Reached::Tcp(address) => tcp(tokio::net::TcpStream::connect(address).await?),
        Reached::Unix(path) => Socket::new(tokio::net::UnixStream::connect(path).await?.into_std()?.into()),
    }
}

fn tcp(stream: tokio::net::TcpStream) -> io::Result<Socket> {
    let fd: OwnedFd = stream.into_std()?.into();
    tune(&fd)?;
    Socket::new(fd)
}
