//! What only this machine knows: who is at the other end of a Unix socket, and its own networks.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// The user that the process at the other end had when it connected (`SO_PEERCRED`).
///
/// # Errors
/// Those of `getsockopt`; also when it is no Unix socket.
pub fn peer_uid(socket: BorrowedFd<'_>) -> io::Result<u32> {
    // The kernel answers for TCP too, with nonsense.
    if rustix::net::getsockname(socket)?.address_family() != rustix::net::AddressFamily::UNIX {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(rustix::net::sockopt::socket_peercred(socket)?.uid.as_raw())
}

/// The name of a user (`getpwuid_r`); `None`: there is no such user. May block, on a directory service.
///
/// # Errors
/// Those of the system's user database.
pub fn user_name(uid: u32) -> io::Result<Option<String>> {
    let user = nix::unistd::User::from_uid(uid.into())?;
    // A name that is no UTF-8 comes with replacement characters, and two could look the same: it is nobody's.
    Ok(user.map(|user| user.name).filter(|name| !name.contains(char::REPLACEMENT_CHARACTER)))
}

/// Addresses of this machine's interfaces, with their masks (`getifaddrs`).
///
/// # Errors
/// Those of the kernel.
pub fn networks() -> io::Result<Vec<(IpAddr, IpAddr)>> {
    use nix::sys::socket::SockaddrStorage;
    let ip = |storage: SockaddrStorage| -> Option<IpAddr> {
        let v4 = storage.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    };
    let interfaces = nix::ifaddrs::getifaddrs()?;
    Ok(interfaces.filter_map(|one| Some((ip(one.address?)?, ip(one.netmask?)?))).collect())
}
