//! Secrets and the SASL, MD5 and cleartext exchanges of both sides, without I/O.

/// A user's secret. Its `Debug` shows the kind only.
#[derive(Clone)]
pub enum Secret {
    /// Password in the clear.
    Plain(String),
    /// `md5` + md5(password ‖ user) in hex, as in pg_authid.
    Md5(String),
}
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}
