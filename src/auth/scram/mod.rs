//! SCRAM-SHA-256, with channel binding too (RFC 5802, RFC 7677, RFC 5929), as PostgreSQL speaks it
//! (`src/common/scram-common.c`, `src/backend/libpq/auth-scram.c`, `src/interfaces/libpq/fe-auth-scram.c`).
//!
//! Hand-written on ring's HMAC, SHA-256 and PBKDF2, because a pooler needs what ready-made machines lack: a bound on
//! iterations, comparison in constant time, and the ClientKey for a later pass-through.

mod message;
pub(super) mod party;
mod verifier;

pub use verifier::Verifier;

use std::num::NonZeroU32;

use ring::{digest, hmac, pbkdf2};

/// Length of every key and signature: a SHA-256 digest.
pub const KEY_LEN: usize = digest::SHA256_OUTPUT_LEN;
/// Iterations of verifiers derived here; PostgreSQL's default (`scram_iterations`) and RFC 7677's minimum.
pub const DEFAULT_ITERATIONS: u32 = 4096;
/// Iterations that a server may ask for. OWASP recommends 600,000 for PBKDF2-HMAC-SHA256; a million leaves room
/// above that and bounds the time that a hostile server can take to about half a second of a blocking thread.
pub const MAX_ITERATIONS: u32 = 1_000_000;
/// Longest SASL message that is read (`PG_MAX_SASL_MESSAGE_LENGTH`, `src/include/libpq/sasl.h`).
pub const MAX_MESSAGE: usize = 1024;
/// The mechanism without channel binding.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// The same bound to the TLS connection.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// The only type of channel binding that PostgreSQL has (RFC 5929, section 4).
pub(super) const END_POINT: &str = "tls-server-end-point";
/// Random bytes of a nonce and of a salt (`SCRAM_RAW_NONCE_LEN`, `SCRAM_DEFAULT_SALT_LEN`).
pub(super) const NONCE_LEN: usize = 18;
pub(super) const SALT_LEN: usize = 16;

/// The key that a client proves to have. With it one can log in wherever the same verifier is stored: it is kept in
/// memory only, and wiped when it is dropped.
#[derive(Clone)]
pub struct ClientKey(pub(super) [u8; KEY_LEN]);

impl PartialEq for ClientKey {
    fn eq(&self, other: &ClientKey) -> bool {
        super::constant_time_eq(&self.0, &other.0)
    }
}

impl Eq for ClientKey {}

impl Drop for ClientKey {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl std::fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientKey(..)")
    }
}

/// What a password, a salt and an iteration count give; derived once and cached, because PBKDF2 is slow on purpose.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) client_key: ClientKey,
    pub(super) stored_key: [u8; KEY_LEN],
    pub(super) server_key: [u8; KEY_LEN],
}

impl Keys {
    /// Derives the keys. **Expensive**: about a millisecond for 4096 iterations.
    pub(super) fn derive(password: &str, salt: &[u8], iterations: NonZeroU32) -> Keys {
        let mut salted = [0; KEY_LEN];
        let normalised = saslprep(password);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, normalised.as_bytes(), &mut salted);
        let mut client_key = hmac_sha256(&salted, &[b"Client Key"]);
        let keys = Keys {
            stored_key: sha256(&client_key),
            client_key: ClientKey(client_key),
            server_key: hmac_sha256(&salted, &[b"Server Key"]),
        };
        zeroize::Zeroize::zeroize(&mut client_key);
        zeroize::Zeroize::zeroize(&mut salted);
        keys
    }
}

impl Keys {
    /// The keys of who proved to have `client_key` for `verifier`.
    pub(super) fn proven(client_key: &ClientKey, verifier: &Verifier) -> Keys {
        Keys { client_key: client_key.clone(), stored_key: sha256(&client_key.0), server_key: verifier.server_key }
    }
}

/// HMAC-SHA-256 of the concatenated parts.
pub(crate) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; KEY_LEN] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    let mut out = [0; KEY_LEN];
    out.copy_from_slice(context.sign().as_ref());
    out
}

/// SHA-256.
pub(super) fn sha256(data: &[u8]) -> [u8; KEY_LEN] {
    let mut out = [0; KEY_LEN];
    out.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    out
}

/// XOR of two keys: a proof is a key masked by a signature, and the other way round.
pub(super) fn xor(a: &[u8; KEY_LEN], b: &[u8; KEY_LEN]) -> [u8; KEY_LEN] {
    std::array::from_fn(|i| a[i] ^ b[i])
}

/// SASLprep (RFC 4013); like PostgreSQL, a password that it forbids is used as it is
/// (`pg_saslprep`'s callers in `src/common/scram-common.c`).
fn saslprep(password: &str) -> std::borrow::Cow<'_, str> {
    if password.is_ascii() {
        // PostgreSQL leaves ASCII alone, control characters included.
        return password.into();
    }
    stringprep::saslprep(password).unwrap_or(password.into())
}

/// Salt and iterations of a `server-first-message`.
pub(super) fn parse_server_first(message: &[u8]) -> Result<(Vec<u8>, NonZeroU32), super::AuthError> {
    message::ServerFirst::parse(message).map(|first| (first.salt, first.iterations))
}
