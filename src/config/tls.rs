//! TLS settings of both sides.

use std::path::PathBuf;

use super::Ciphers;

/// How much TLS is wanted: libpq's `sslmode`, and PgBouncer's `client_tls_sslmode` and `server_tls_sslmode`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// Clients: when they ask. Servers: when they refuse a connection without.
    Allow,
    /// Clients: when they ask. Servers: when they can.
    Prefer,
    /// Always; clients' certificates are not looked at, servers' only when a file of CAs is given (as in libpq).
    Require,
    /// Always, and the peer's certificate must be signed by a known CA.
    VerifyCa,
    /// And the server's certificate must name the host.
    VerifyFull,
}

/// Least protocol version.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

/// Whether SCRAM must be bound to the TLS connection (libpq's `channel_binding`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where both sides can.
    Prefer,
    /// Always: the server must prove that it owns the certificate and knows the password.
    Require,
}

/// TLS towards clients.
#[derive(Clone, PartialEq, Debug)]
pub struct ClientTls {
    /// How much of it.
    pub mode: TlsMode,
    /// pgsluice's certificate and those between it and its CA; without one no TLS is offered.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// CAs that sign clients' certificates.
    pub ca: Option<PathBuf>,
    /// Least protocol version.
    pub min_version: TlsVersion,
    /// Cipher suites.
    pub ciphers: Ciphers,
}

impl ClientTls {
    /// Whether TLS is offered.
    pub fn offered(&self) -> bool {
        self.mode != TlsMode::Disable && self.cert.is_some()
    }
}

/// TLS towards servers.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ServerTls {
    /// How much of it.
    pub mode: TlsMode,
    /// CAs that sign servers' certificates; `system`: those of the operating system.
    pub ca: Option<PathBuf>,
    /// pgsluice's own certificate, for servers that ask for one.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// TLS from the first byte (libpq's `sslnegotiation=direct`, PostgreSQL 17).
    pub direct: bool,
    /// Least protocol version.
    pub min_version: TlsVersion,
    /// Cipher suites.
    pub ciphers: Ciphers,
    /// SCRAM's channel binding.
    pub channel_binding: ChannelBinding,
}

/// The value of `server_tls_ca_file` that means the operating system's CAs (libpq: `sslrootcert=system`).
pub const SYSTEM_CAS: &str = "system";

impl ServerTls {
    /// Whether the CAs of the operating system are meant.
    pub fn system(&self) -> bool {
        self.ca.as_ref().is_some_and(|ca| ca.as_os_str() == SYSTEM_CAS)
    }

    /// What is wrong together: setting, message.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.mode >= TlsMode::VerifyCa && self.ca.is_none() {
            problems.push((
                "server_tls_ca_file",
                format!("server_tls_mode is {}, which needs `server_tls_ca_file` (or the word system)", self.mode),
            ));
        }
        if self.system() && self.mode != TlsMode::VerifyFull && self.mode != TlsMode::Disable {
            problems.push((
                "server_tls_mode",
                "with the operating system's CAs anybody can have a certificate: server_tls_mode must be verify-full"
                    .to_owned(),
            ));
        }
        if self.cert.is_some() != self.key.is_some() {
            let message = "`server_tls_cert_file` and `server_tls_key_file` belong together";
            problems.push(("server_tls_cert_file", message.to_owned()));
        }
        if self.direct && self.mode < TlsMode::Require {
            let message = "`server_tls_direct` needs server_tls_mode = \"require\" or more";
            problems.push(("server_tls_direct", message.to_owned()));
        }
        if self.ciphers.leave_nothing_for(self.min_version) {
            let message =
                "`server_tls_ciphers` has no cipher of TLS 1.3, and server_tls_min_version allows nothing else";
            problems.push(("server_tls_ciphers", message.to_owned()));
        }
        if self.channel_binding == ChannelBinding::Require && self.mode == TlsMode::Disable {
            let message = "server_channel_binding = \"require\" needs TLS";
            problems.push(("server_channel_binding", message.to_owned()));
        }
        problems
    }
}

impl ClientTls {
    /// What is wrong together: setting, message.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.cert.is_some() != self.key.is_some() {
            let message = "`client_tls_cert_file` and `client_tls_key_file` belong together";
            problems.push(("client_tls_cert_file", message.to_owned()));
        }
        if self.mode >= TlsMode::Require && self.cert.is_none() {
            let message = format!("client_tls_mode is {}, which needs `client_tls_cert_file`", self.mode);
            problems.push(("client_tls_mode", message));
        }
        if self.mode >= TlsMode::VerifyCa && self.ca.is_none() {
            let message = format!("client_tls_mode is {}, which needs `client_tls_ca_file`", self.mode);
            problems.push(("client_tls_ca_file", message));
        }
        if self.ciphers.leave_nothing_for(self.min_version) {
            let message =
                "`client_tls_ciphers` has no cipher of TLS 1.3, and client_tls_min_version allows nothing else";
            problems.push(("client_tls_ciphers", message.to_owned()));
        }
        problems
    }
}
