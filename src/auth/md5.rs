//! PostgreSQL's MD5 authentication (`src/common/md5_common.c`, `pg_md5_encrypt`).

use md5::{Digest, Md5};

/// `md5` followed by 32 hexadecimal digits of md5(`text` followed by `salt`).
pub(super) fn encrypt(text: &[u8], salt: &[u8]) -> String {
    let digest = Md5::new().chain_update(text).chain_update(salt).finalize();
    let mut out = String::with_capacity(35);
    out.push_str("md5");
    for byte in digest {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
        }
    }
    out
}

/// The hash that pg_authid keeps: the salt is the user name.
pub(super) fn hash_password(password: &str, user: &str) -> String {
    encrypt(password.as_bytes(), user.as_bytes())
}

/// The answer to a challenge: the digits of the kept hash, hashed again with the salt.
pub(super) fn answer(hash: &str, salt: [u8; 4]) -> String {
    encrypt(hash.strip_prefix("md5").unwrap_or(hash).as_bytes(), &salt)
}
