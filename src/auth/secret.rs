//! What is known of a user.

use zeroize::Zeroize;

use super::scram::Verifier;
use super::{constant_time_eq, md5};

/// A user's secret, in one of the three forms of PgBouncer's `userlist.txt`.
///
/// `Debug` shows the kind only; there is no `Display` and no serialisation. An empty plain password means that the
/// user is known but cannot log in with a password (PostgreSQL refuses empty passwords as well).
#[derive(Clone)]
pub enum Secret {
    /// Password in the clear: works with every method, towards clients and servers.
    Plain(String),
    /// `md5` and 32 hexadecimal digits, md5(password followed by user name), as in pg_authid.
    Md5(String),
    /// SCRAM verifier, as in pg_authid: can check clients; logs in to a server only with the key that a client proves to have.
    Scram(Verifier),
}

impl Secret {
    /// Reads a secret the way PostgreSQL tells the forms apart (`get_password_type` in `src/backend/libpq/crypt.c`):
    /// whatever is neither a well-formed MD5 hash nor a well-formed SCRAM verifier is a plain password.
    ///
    /// A verifier with more iterations than are computed here fits no password: taken for a plain one, it would let in
    /// whoever has read it.
    pub fn parse(text: &str) -> Secret {
        if is_md5_hash(text) {
            return Secret::Md5(text.to_owned());
        }
        match Verifier::read(text) {
            Some(verifier) if verifier.is_affordable() => Secret::Scram(verifier),
            Some(_) => Secret::Plain(String::new()),
            None => Secret::Plain(text.to_owned()),
        }
    }

    /// The kind, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Secret::Plain(_) => "a plain password",
            Secret::Md5(_) => "an MD5 hash",
            Secret::Scram(_) => "a SCRAM verifier",
        }
    }

    /// Whether the secret is an empty password: the user is known, but cannot log in with a password.
    pub fn is_empty(&self) -> bool {
        matches!(self, Secret::Plain(password) if password.is_empty())
    }

    /// The MD5 hash of pg_authid, where it can be known.
    pub(super) fn md5_hash(&self, user: &str) -> Option<String> {
        match self {
            Secret::Plain(password) if password.is_empty() => None,
            Secret::Plain(password) => Some(md5::hash_password(password, user)),
            Secret::Md5(hash) => Some(hash.to_ascii_lowercase()),
            Secret::Scram(_) => None,
        }
    }
}

/// `md5` and 32 hexadecimal digits.
fn is_md5_hash(text: &str) -> bool {
    text.strip_prefix("md5").is_some_and(|hex| hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Wiped: memory that is used again, or written to a core file, holds no old password.
impl Drop for Secret {
    fn drop(&mut self) {
        match self {
            Secret::Plain(text) | Secret::Md5(text) => text.zeroize(),
            // Of no use to who wants to log in.
            Secret::Scram(_) => {}
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Secret::Plain(_) => "Secret::Plain(..)",
            Secret::Md5(_) => "Secret::Md5(..)",
            Secret::Scram(_) => "Secret::Scram(..)",
        })
    }
}

/// Equality of the stored text, so that a reload can tell whether a secret changed.
impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        match (self, other) {
            (Secret::Plain(a), Secret::Plain(b)) | (Secret::Md5(a), Secret::Md5(b)) => {
                constant_time_eq(a.as_bytes(), b.as_bytes())
            }
            (Secret::Scram(a), Secret::Scram(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Secret {}
