//! Why an authentication exchange cannot go on.

/// An exchange that broke off. A *wrong password* is not an error of this kind: see [`super::Ask::Refused`].
///
/// No variant holds a secret, and texts that came from the peer are shortened and stripped of control characters.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AuthError {
    /// The peer sent something that is not a message of the exchange (client: SQLSTATE 08P01).
    #[error("malformed authentication message: {0}")]
    Malformed(&'static str),
    /// The same where PostgreSQL has these words for it.
    #[error("{0}")]
    Packet(&'static str),
    /// The client's last message of SCRAM does not belong to this exchange: it was replayed, or comes out of turn.
    #[error("invalid SCRAM response: {0}")]
    Response(&'static str),
    /// The client binds SCRAM to something that PostgreSQL does not know either.
    #[error("unsupported SCRAM channel-binding type \"{0}\"")]
    BindingType(String),
    /// PostgreSQL takes no empty password.
    #[error("empty password returned by client")]
    EmptyPassword,
    /// A message came when none was expected.
    #[error("unexpected authentication message: {0}")]
    Unexpected(&'static str),
    /// The client asked for a SASL mechanism that is not offered.
    #[error("client selected an invalid SASL authentication mechanism")]
    Mechanism,
    /// The client insists on something that SCRAM-SHA-256 without channel binding cannot give.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The client thinks that we offered no channel binding, but we did: somebody between us removed it.
    #[error("SCRAM channel binding negotiation error")]
    BindingDowngrade,
    /// The client is bound to another TLS connection than ours: somebody is between us.
    #[error("SCRAM channel binding check failed")]
    BindingMismatch,
    /// The server must bind the exchange to the TLS connection and does not.
    #[error("server_channel_binding is \"require\", but {0}")]
    NoBinding(&'static str),
    /// The operating system gave no random bytes.
    #[error("no random numbers from the operating system")]
    Random,
    /// The server wants a method that pgsluice does not speak.
    #[error("the server asks for {0} authentication, which is not supported; use scram-sha-256 in its pg_hba.conf")]
    ServerMethod(String),
    /// The server offers no SASL mechanism that pgsluice speaks.
    #[error("the server offers no SCRAM-SHA-256, only: {0}")]
    ServerMechanisms(String),
    /// The server wants a password and none is known.
    #[error(
        "the server asks for a password of user \"{0}\" and none is configured: \
         set `password` in [users.{0}] or in the database's section"
    )]
    NoPassword(String),
    /// What is known of the user cannot answer what the server asks.
    #[error(
        "the server asks for {method} authentication of user \"{user}\", but only {kind} is configured: \
         give the plain password"
    )]
    WrongSecret {
        /// User at the server.
        user: String,
        /// What the server asked for.
        method: &'static str,
        /// What is known of the user.
        kind: &'static str,
    },
    /// A verifier can check who logs in, and nobody has who proved to know its password.
    #[error(
        "the server asks for SCRAM-SHA-256 authentication of user \"{0}\", of whom only a SCRAM verifier is known, and no \
         client of hers has logged in with a password: let her clients use scram-sha-256, or give the plain password"
    )]
    NoKey(String),
    /// The key that a client proved to have fits another verifier than the server's.
    #[error(
        "the server has another SCRAM verifier of user \"{0}\" than the one that her client logged in with: was the password \
         changed? The verifier in [users] or `auth_file` must be the one in the server's pg_authid"
    )]
    OtherVerifier(String),
    /// PBKDF2 with this many iterations would let a server occupy a thread for long.
    #[error("the server asks for {0} SCRAM iterations; at most {max} are accepted", max = super::scram::MAX_ITERATIONS)]
    Iterations(u64),
    /// The server did not prove that it knows the user's secret: an impostor, or a broken server.
    #[error("the server did not prove that it knows the password of the user: {0}")]
    ServerProof(&'static str),
    /// The server ended the SCRAM exchange with an error of its own.
    #[error("the server refused the SCRAM exchange: {0}")]
    ServerRefused(String),
}

impl AuthError {
    /// What the client is told, in PostgreSQL's words: message and detail (auth-scram.c).
    pub fn told(&self) -> (String, Option<&'static str>) {
        match self {
            AuthError::Malformed(detail) => ("malformed SCRAM message".to_owned(), Some(detail)),
            AuthError::Response(detail) => ("invalid SCRAM response".to_owned(), Some(detail)),
            other => (other.to_string(), None),
        }
    }

    /// SQLSTATE for the client whose exchange broke off.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            AuthError::Malformed(_)
            | AuthError::Packet(_)
            | AuthError::Response(_)
            | AuthError::BindingType(_)
            | AuthError::Unexpected(_)
            | AuthError::Mechanism => "08P01",
            AuthError::EmptyPassword => "28P01",
            AuthError::Unsupported(_) => "0A000",
            AuthError::Random => "XX000",
            _ => "28000",
        }
    }
}

/// Text of a peer, fit for an error message: at most 64 printable characters.
pub(super) fn printable(text: &[u8]) -> String {
    text.iter().take(64).map(|&b| if (0x20..0x7f).contains(&b) { b as char } else { '?' }).collect()
}
