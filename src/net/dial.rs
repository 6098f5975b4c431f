//! Connecting to a server, by TCP (every address of the name in turn) or Unix socket.

use std::io;
use std::os::fd::OwnedFd;

use super::listener::{tune, unix_socket_path};
use super::socket::Socket;

/// Connects. `host` beginning with `/` is the directory of a Unix socket. Cancel safe.
///
/// # Errors
/// The last address's error, or the resolver's.
pub async fn dial(host: &str, port: u16) -> io::Result<Socket> {
    let fd: OwnedFd = if host.starts_with('/') {
        tokio::net::UnixStream::connect(unix_socket_path(host, port))
            .await?
            .into_std()?
            .into()
    } else {
        let fd: OwnedFd = tokio::net::TcpStream::connect((host, port))
            .await?
            .into_std()?
            .into();
        tune(&fd)?;
        fd
    };
    Socket::new(fd)
}
