//! Wrong passwords from one address make its next answers come later, and later still: guessing takes time.
//!
//! Nobody is locked out: a right password waits a second at most, and a user who gave one from an address since its
//! failures began does not wait there at all, until her own name fails again. So one client with an old password does not
//! slow its neighbours behind the same address. Unix sockets are left out: who reaches one is on the same machine.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::quality::RandomState;
use tokio::sync::Mutex as AsyncMutex;

use super::Process;
use super::login::Io;
use crate::auth::Ask;
use crate::net::PeerAddr;
use crate::net::clock::now_us;

/// Addresses remembered; beyond it those are forgotten that failed least lately.
const MAX_ADDRESSES: usize = 4096;
/// Failures that delay nothing: a typing error, and libpq's second try without TLS.
const FREE: u32 = 5;
/// The first delay; each further failure doubles it.
const FIRST: Duration = Duration::from_millis(250);
/// Longest delay of a right password.
const RIGHT: Duration = Duration::from_secs(1);
/// An address is forgotten when it has not failed for this long.
const WINDOW_US: u64 = 60_000_000;
/// Users remembered for each address: all tenants behind one gateway, 8 bytes each, and only those with a right password.
const MAX_USERS: usize = 64;

/// The addresses that failed lately.
pub struct Backoff {
    /// Longest delay of a wrong password; zero switches all of this off.
    longest: Duration,
    table: Mutex<Table>,
    users: RandomState,
    /// Logins delayed: wrong passwords, right ones.
    delayed: [AtomicU64; 2],
}

/// Two generations: what fails stays, what does not is gone after half as many others.
#[derive(Default)]
struct Table {
    recent: HashMap<IpAddr, Failures, RandomState>,
    older: HashMap<IpAddr, Failures, RandomState>,
}

#[derive(Clone, Default)]
struct Failures {
    count: u32,
    last_us: u64,
    /// Hashes of users who gave a right password since.
    proven: Vec<u64>,
    /// Held while one of its passwords is tried at a server.
    turn: Arc<AsyncMutex<()>>,
}

impl Failures {
    /// What the next answer waits for.
    fn delay(&self, longest: Duration) -> Duration {
        match self.count.checked_sub(FREE + 1) {
            Some(doublings) => FIRST.saturating_mul(1 << doublings.min(20)).min(longest),
            None => Duration::ZERO,
        }
    }
}

impl Table {
    /// What is known of an address; old failures count no more.
    fn find(&mut self, address: IpAddr, now_us: u64) -> Option<&mut Failures> {
        if !self.recent.contains_key(&address)
            && let Some(moved) = self.older.remove(&address)
        {
            self.make_room();
            self.recent.insert(address, moved);
        }
        self.recent.get_mut(&address).filter(|f| now_us.saturating_sub(f.last_us) < WINDOW_US)
    }

    fn make_room(&mut self) {
        if self.recent.len() >= MAX_ADDRESSES / 2 {
            self.older = std::mem::take(&mut self.recent);
        }
    }
}

/// Who is one: an IPv4 address, or the /64 network that one host has of IPv6.
fn key(peer: &PeerAddr) -> Option<IpAddr> {
    match peer {
        PeerAddr::Unix => None,
        PeerAddr::Tcp(address) => Some(match address.ip().to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
            v4 => v4,
        }),
    }
}

impl Backoff {
    /// Nobody has failed yet.
    pub fn new(longest: Duration) -> Backoff {
        Backoff { longest, table: Mutex::default(), users: RandomState::default(), delayed: Default::default() }
    }

    fn user(&self, user: &str) -> u64 {
        self.users.hash_one(user)
    }

    /// Notes a wrong password. How long its answer shall wait.
    pub fn failed(&self, peer: &PeerAddr, user: &str, now_us: u64) -> Duration {
        let Some(address) = key(peer).filter(|_| !self.longest.is_zero()) else { return Duration::ZERO };
        let user = self.user(user);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.find(address, now_us).is_none() {
            table.make_room();
            table.older.remove(&address);
            table.recent.insert(address, Failures::default());
        }
        let Some(failures) = table.recent.get_mut(&address) else { return Duration::ZERO };
        failures.count = failures.count.saturating_add(1);
        failures.last_us = now_us;
        failures.proven.retain(|proven| *proven != user);
        self.counted(0, failures.delay(self.longest))
    }

    /// How long the answer to a right password shall wait.
    pub fn succeeded(&self, peer: &PeerAddr, user: &str, now_us: u64) -> Duration {
        let Some(address) = key(peer).filter(|_| !self.longest.is_zero()) else { return Duration::ZERO };
        let user = self.user(user);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(failures) = table.find(address, now_us) else { return Duration::ZERO };
        if failures.proven.contains(&user) {
            return Duration::ZERO;
        }
        if failures.proven.len() >= MAX_USERS {
            failures.proven.remove(0);
        }
        failures.proven.push(user);
        self.counted(1, failures.delay(self.longest).min(RIGHT))
    }

    /// How long a password of this user waits before it is tried at a server, and whose turn must be over by then: each
    /// address that has failed too often has one. `None`: it goes ahead.
    pub fn queue(&self, peer: &PeerAddr, user: &str, now_us: u64) -> Option<(Duration, Arc<AsyncMutex<()>>)> {
        let address = key(peer).filter(|_| !self.longest.is_zero())?;
        let user = self.user(user);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = table.find(address, now_us)?;
        let delay = failures.delay(self.longest).min(RIGHT);
        (!delay.is_zero() && !failures.proven.contains(&user)).then(|| (delay, Arc::clone(&failures.turn)))
    }

    fn counted(&self, which: usize, delay: Duration) -> Duration {
        if !delay.is_zero() {
            self.delayed[which].fetch_add(1, Relaxed);
        }
        delay
    }

    /// Logins delayed so far: with a wrong password, with a right one.
    pub fn delayed(&self) -> [u64; 2] {
        std::array::from_fn(|i| self.delayed[i].load(Relaxed))
    }
}

/// Lets the answer to a password wait as long as it shall; not for a client who has left.
pub(super) async fn hold(process: &Process, io: &mut Io, peer: &PeerAddr, user: &str, answer: &Ask) {
    hold_rest(process, io, peer, user, answer, Duration::ZERO).await;
}

/// The same for one that has waited already.
pub(super) async fn hold_rest(
    process: &Process,
    io: &mut Io,
    peer: &PeerAddr,
    user: &str,
    answer: &Ask,
    waited: Duration,
) {
    let delay = match answer {
        Ask::Refused => process.backoff.failed(peer, user, now_us()),
        Ask::Ok | Ask::SaslFinal(_) => process.backoff.succeeded(peer, user, now_us()),
        _ => return,
    };
    if delay > waited {
        tokio::select! {
            () = tokio::time::sleep(delay - waited) => {}
            () = io.socket.closed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> PeerAddr {
        PeerAddr::Tcp(text.parse().unwrap())
    }

    fn millis(delays: impl IntoIterator<Item = Duration>) -> Vec<u128> {
        delays.into_iter().map(|d| d.as_millis()).collect()
    }

    #[test]
    fn delays_double_up_to_the_longest_and_are_forgotten() {
        let backoff = Backoff::new(Duration::from_secs(3));
        let from = peer("192.0.2.1:1000");
        let delays = (0..11).map(|i| backoff.failed(&from, "app", i));
        assert_eq!(millis(delays), [0, 0, 0, 0, 0, 250, 500, 1000, 2000, 3000, 3000]);
        assert_eq!(backoff.failed(&peer("192.0.2.2:1000"), "app", 20), Duration::ZERO, "another address");
        assert_eq!(backoff.failed(&PeerAddr::Unix, "app", 20), Duration::ZERO);
        assert_eq!(backoff.delayed(), [6, 0]);
        assert_eq!(backoff.failed(&from, "app", 10 + WINDOW_US), Duration::ZERO, "a minute later");
        let off = Backoff::new(Duration::ZERO);
        assert!((0..20).all(|i| off.failed(&from, "app", i).is_zero()));
    }

    #[test]
    fn a_right_password_waits_a_second_once() {
        let backoff = Backoff::new(Duration::from_secs(60));
        let from = peer("192.0.2.1:1000");
        assert_eq!(backoff.succeeded(&from, "good", 0), Duration::ZERO);
        for i in 0..20 {
            let _ = backoff.failed(&from, "bad", i);
        }
        assert_eq!(backoff.succeeded(&from, "good", 30).as_millis(), 1000);
        assert_eq!(backoff.succeeded(&from, "good", 31), Duration::ZERO);
        backoff.failed(&from, "bad", 32);
        assert_eq!(backoff.succeeded(&from, "good", 33), Duration::ZERO, "the neighbour's failures are not hers");
        backoff.failed(&from, "good", 34);
        assert_eq!(backoff.succeeded(&from, "good", 35).as_millis(), 1000, "her name is guessed at");
        assert_eq!(backoff.delayed()[1], 2);
    }

    #[test]
    fn many_neighbours_wait_once_each() {
        let backoff = Backoff::new(Duration::from_secs(60));
        let from = peer("192.0.2.1:1000");
        // As many as delay a right password by all that it can be.
        let doublings = RIGHT.as_millis().div_ceil(FIRST.as_millis()).next_power_of_two().ilog2();
        for i in 0..=u64::from(FREE + doublings) {
            let _ = backoff.failed(&from, "old", i);
        }
        let round = || (0..MAX_USERS).map(|n| backoff.succeeded(&from, &format!("tenant{n}"), 30)).collect::<Vec<_>>();
        assert!(round().iter().all(|delay| *delay == RIGHT));
        assert!(round().iter().all(Duration::is_zero), "each has given a right one");
        // One more pushes the first of them out, and no other.
        assert_eq!(backoff.succeeded(&from, "newcomer", 30), RIGHT);
        assert!((1..MAX_USERS).all(|n| backoff.succeeded(&from, &format!("tenant{n}"), 30).is_zero()));
        assert_eq!(backoff.succeeded(&from, "tenant0", 30), RIGHT);
    }

    #[test]
    fn ipv6_counts_by_network_and_mapped_ipv4_as_ipv4() {
        let backoff = Backoff::new(Duration::from_secs(3));
        for i in 0..FREE {
            assert!(backoff.failed(&peer(&format!("[2001:db8:1:2::{i}]:5")), "app", 0).is_zero());
        }
        assert!(!backoff.failed(&peer("[2001:db8:1:2:ffff::1]:5"), "app", 0).is_zero());
        assert!(backoff.failed(&peer("[2001:db8:1:3::1]:5"), "app", 0).is_zero());
        for _ in 0..FREE {
            let _ = backoff.failed(&peer("[::ffff:192.0.2.9]:5"), "app", 0);
        }
        assert!(!backoff.failed(&peer("192.0.2.9:5"), "app", 0).is_zero());
    }

    #[test]
    fn the_table_is_bounded_and_keeps_who_fails_on() {
        let backoff = Backoff::new(Duration::from_secs(3));
        let stubborn = peer("192.0.2.1:1");
        for i in 0..20_000u32 {
            backoff.failed(&PeerAddr::Tcp((std::net::Ipv4Addr::from_bits(0x0a00_0000 + i), 1).into()), "app", 0);
            if i % 1000 == 0 {
                backoff.failed(&stubborn, "app", 0);
            }
        }
        let table = backoff.table.lock().unwrap();
        assert!(table.recent.len() + table.older.len() <= MAX_ADDRESSES);
        drop(table);
        assert_eq!(backoff.failed(&stubborn, "app", 0), Duration::from_secs(3));
    }
}
