//! Addresses and masks (`check_ip`, `pg_range_sockaddr`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address and a mask of its family. The mask need not be a prefix: PostgreSQL compares bit by bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    /// Any address of the network.
    pub address: IpAddr,
    /// The bits that count.
    pub mask: IpAddr,
}

impl Network {
    /// Whether the address is in it. `::ffff:a.b.c.d` must have been made IPv4 before.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, self.mask, address) {
            (IpAddr::V4(own), IpAddr::V4(mask), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()) & mask.to_bits() == 0
            }
            (IpAddr::V6(own), IpAddr::V6(mask), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()) & mask.to_bits() == 0
            }
            _ => false,
        }
    }

    /// Whether all of it is this machine's own loopback.
    pub fn is_loopback(&self) -> bool {
        match (self.address, self.mask) {
            (IpAddr::V4(own), IpAddr::V4(mask)) => own.is_loopback() && mask.octets()[0] == 255,
            (IpAddr::V6(own), IpAddr::V6(mask)) => own.is_loopback() && mask.to_bits() == u128::MAX,
            _ => false,
        }
    }
}

/// The mask of a prefix length; `None`: longer than the address.
pub(super) fn prefix(of: IpAddr, bits: &str) -> Option<IpAddr> {
    // strtol of PostgreSQL would take signs and blanks; whoever writes them errs.
    if bits.is_empty() || !bits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let bits: u32 = bits.parse().ok()?;
    match of {
        IpAddr::V4(_) if bits <= 32 => Some(Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - bits).unwrap_or(0)).into()),
        IpAddr::V6(_) if bits <= 128 => {
            Some(Ipv6Addr::from_bits(u128::MAX.checked_shl(128 - bits).unwrap_or(0)).into())
        }
        _ => None,
    }
}

/// All bits: one address.
pub(super) fn host_mask(of: IpAddr) -> IpAddr {
    match of {
        IpAddr::V4(_) => Ipv4Addr::BROADCAST.into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(u128::MAX).into(),
    }
}
