//! The form of a SCRAM secret that pg_authid keeps.

use std::num::NonZeroU32;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{KEY_LEN, Keys, MAX_ITERATIONS};
use crate::auth::constant_time_eq;

/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>` (`parse_scram_secret` in `auth-scram.c`).
///
/// Enough to check a client, not enough to log in as one.
#[derive(Clone)]
pub struct Verifier {
    pub(in crate::auth) iterations: NonZeroU32,
    pub(in crate::auth) salt: Vec<u8>,
    pub(in crate::auth) stored_key: [u8; KEY_LEN],
    pub(in crate::auth) server_key: [u8; KEY_LEN],
}

impl Verifier {
    /// Reads a verifier; `None` when the text is not one, or asks for more than [`MAX_ITERATIONS`].
    pub fn parse(text: &str) -> Option<Verifier> {
        Verifier::read(text).filter(Verifier::is_affordable)
    }

    /// The same, however many iterations it asks for.
    pub(in crate::auth) fn read(text: &str) -> Option<Verifier> {
        let rest = text.strip_prefix("SCRAM-SHA-256$")?;
        let (iterations_salt, keys) = rest.split_once('$')?;
        let (iterations, salt) = iterations_salt.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let iterations = iterations.parse::<NonZeroU32>().ok()?;
        let salt = STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        let key = |text| STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        Some(Verifier { iterations, salt, stored_key: key(stored_key)?, server_key: key(server_key)? })
    }

    /// Whether it keeps to [`MAX_ITERATIONS`].
    pub(in crate::auth) fn is_affordable(&self) -> bool {
        self.iterations.get() <= MAX_ITERATIONS
    }

    /// Derives a verifier from a password. **Expensive**: PBKDF2.
    pub fn derive(password: &str, salt: &[u8], iterations: NonZeroU32) -> Verifier {
        Verifier::from_keys(&Keys::derive(password, salt, iterations), salt, iterations)
    }

    /// The verifier that belongs to derived keys.
    pub(in crate::auth) fn from_keys(keys: &Keys, salt: &[u8], iterations: NonZeroU32) -> Verifier {
        Verifier { iterations, salt: salt.to_vec(), stored_key: keys.stored_key, server_key: keys.server_key }
    }

    /// Iterations of PBKDF2.
    pub fn iterations(&self) -> u32 {
        self.iterations.get()
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(..)")
    }
}

impl PartialEq for Verifier {
    fn eq(&self, other: &Verifier) -> bool {
        self.iterations == other.iterations
            && self.salt == other.salt
            && constant_time_eq(&self.stored_key, &other.stored_key)
            && constant_time_eq(&self.server_key, &other.server_key)
    }
}

impl Eq for Verifier {}
