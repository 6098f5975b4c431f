//! Secrets, and the cleartext, MD5 and SCRAM-SHA-256 exchanges of both sides, without I/O.
//!
//! | file | what it holds |
//! |---|---|
//! | [`secret`] | what is known of a user: password, MD5 hash or SCRAM verifier |
//! | [`client`] | a client proves itself to the pooler: [`ClientAuth`] |
//! | [`server`] | the pooler proves itself to PostgreSQL: [`ServerAuth`] |
//! | [`scram`] | SCRAM-SHA-256 (RFC 5802, RFC 7677): keys, messages, both parties |
//! | [`hba`] | which client may log in, and how: `pg_hba.conf` and `pg_ident.conf` |
//! | [`context`] | the process's key and the cache of derived SCRAM keys: [`AuthContext`] |
//!
//! The state machines take and give *bodies* of messages; they know neither frames nor sockets. Every call is
//! cheap (microseconds) except where the `is_expensive` method of the machine says otherwise: then the machine
//! should be moved to a blocking thread for that one call, because PBKDF2 takes a millisecond or more.
//!
//! Nothing here prints a secret: the types that hold one show only their kind in `Debug`.
pub mod client;
pub mod context;
mod error;
pub mod hba;
mod md5;
pub mod scram;
pub mod secret;
pub mod server;

pub use client::{Ask, ClientAuth};
pub use context::{AuthContext, SaltKey};
pub use error::AuthError;
pub use scram::{ClientKey, Verifier};
pub use secret::Secret;
pub use server::{Reply, ServerAuth};

/// Fuzz entry: hostile bytes given to every state of both machines. Must not panic, and must never log anyone in.
pub fn fuzz_sasl(data: &[u8]) {
    client::fuzz(data);
    server::fuzz(data);
}

/// Compares two equally long values in a time that does not depend on where they differ.
///
/// The length of a value is not treated as a secret; callers compare digests or hexadecimal hashes.
pub(crate) fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let difference = a.iter().zip(b).fold(0u8, |acc, (x, y)| std::hint::black_box(acc | (x ^ y)));
    std::hint::black_box(difference) == 0
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], AuthError> {
    use ring::rand::SecureRandom;
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| AuthError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
