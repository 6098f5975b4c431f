//! The four messages of SCRAM, parsed with bounds checks and nothing allocated but what is kept.

use std::num::NonZeroU32;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{END_POINT, KEY_LEN, MAX_ITERATIONS, MAX_MESSAGE};
use crate::auth::AuthError;
use crate::auth::error::printable;

/// A client on channel binding (RFC 5802, 7: `gs2-cbind-flag`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::auth) enum Flag {
    /// `n`: the client cannot.
    No,
    /// `y`: the client could, and thinks that the server cannot.
    Thinks,
    /// `p=tls-server-end-point`: the exchange is bound.
    Bound,
}

/// `client-first-message`.
pub(in crate::auth) struct ClientFirst<'a> {
    /// What it says of channel binding.
    pub(in crate::auth) flag: Flag,
    /// The gs2 header as it came: a part of what `c=` repeats.
    pub(in crate::auth) header: &'a str,
    /// Everything behind the gs2 header: part of what is signed.
    pub(in crate::auth) bare: &'a str,
    pub(in crate::auth) nonce: &'a str,
}

/// `client-final-message`.
pub(in crate::auth) struct ClientFinal<'a> {
    /// Base64 of the gs2 header, as sent.
    pub(in crate::auth) binding: &'a str,
    pub(in crate::auth) nonce: &'a str,
    /// Everything before `,p=`: part of what is signed.
    pub(in crate::auth) without_proof: &'a str,
    pub(in crate::auth) proof: [u8; KEY_LEN],
}

/// `server-first-message`.
pub(in crate::auth) struct ServerFirst<'a> {
    pub(in crate::auth) nonce: &'a str,
    pub(in crate::auth) salt: Vec<u8>,
    pub(in crate::auth) iterations: NonZeroU32,
}

/// Length, text and NUL checks that all messages share (`scram_exchange` in `auth-scram.c`).
fn text(message: &[u8]) -> Result<&str, AuthError> {
    if message.is_empty() {
        return Err(AuthError::Malformed("The SASL message is empty."));
    }
    if message.len() > MAX_MESSAGE {
        return Err(AuthError::Malformed("The SASL message is too long."));
    }
    if message.contains(&0) {
        return Err(AuthError::Malformed("The SASL message contains a NUL."));
    }
    std::str::from_utf8(message).map_err(|_| AuthError::Malformed("The SASL message is not UTF-8."))
}

/// Takes `name=value` from the front; the comma behind it goes too.
fn attribute<'a>(rest: &mut &'a str, name: char, missing: &'static str) -> Result<&'a str, AuthError> {
    let value = rest.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')).ok_or(AuthError::Malformed(missing))?;
    let (value, behind) = value.split_once(',').unwrap_or((value, ""));
    *rest = behind;
    Ok(value)
}

/// A nonce is printable ASCII without comma (`is_scram_printable`).
fn check_nonce(nonce: &str) -> Result<(), AuthError> {
    if nonce.is_empty() || !nonce.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b',') {
        return Err(AuthError::Packet("non-printable characters in SCRAM nonce"));
    }
    Ok(())
}

impl<'a> ClientFirst<'a> {
    /// Follows `read_client_first_message` in `auth-scram.c`.
    pub(in crate::auth) fn parse(message: &'a [u8]) -> Result<ClientFirst<'a>, AuthError> {
        let message = text(message)?;
        let (flag, rest) = match message.as_bytes()[0] {
            b'n' => (Flag::No, &message[1..]),
            b'y' => (Flag::Thinks, &message[1..]),
            b'p' => {
                let mut rest = message;
                let kind = attribute(&mut rest, 'p', "The channel binding type is missing.")?;
                if kind != END_POINT {
                    let shown = kind.as_bytes().get(..30).unwrap_or(kind.as_bytes());
                    return Err(AuthError::BindingType(printable(shown)));
                }
                (Flag::Bound, &message["p=".len() + kind.len()..])
            }
            _ => {
                return Err(AuthError::Malformed("The gs2 header of the SCRAM message is unknown."));
            }
        };
        let rest = rest.strip_prefix(',').ok_or(AuthError::Malformed("Comma expected in the gs2 header."))?;
        if rest.starts_with("a=") {
            return Err(AuthError::Unsupported("client uses authorization identity, but it is not supported"));
        }
        let bare =
            rest.strip_prefix(',').ok_or(AuthError::Malformed("Unexpected attribute in the client-first-message."))?;
        let mut rest = bare;
        if rest.starts_with("m=") {
            return Err(AuthError::Unsupported("client requires an unsupported SCRAM extension"));
        }
        // The user of the startup packet counts, not this one.
        attribute(&mut rest, 'n', "The SCRAM user name is missing.")?;
        let nonce = attribute(&mut rest, 'r', "The SCRAM nonce is missing.")?;
        check_nonce(nonce)?;
        let header = &message[..message.len() - bare.len()];
        Ok(ClientFirst { flag, header, bare, nonce })
    }
}

impl<'a> ClientFinal<'a> {
    /// Follows `read_client_final_message` in `auth-scram.c`.
    pub(in crate::auth) fn parse(message: &'a [u8]) -> Result<ClientFinal<'a>, AuthError> {
        let message = text(message)?;
        let mut rest = message;
        let binding = attribute(&mut rest, 'c', "The channel binding is missing.")?;
        let nonce = attribute(&mut rest, 'r', "The SCRAM nonce is missing.")?;
        // Optional extensions may stand here; base64 has no comma, so the last one is the proof's.
        let (without_proof, proof) =
            message.rsplit_once(",p=").ok_or(AuthError::Malformed("The SCRAM proof is missing."))?;
        let proof = STANDARD
            .decode(proof)
            .ok()
            .and_then(|proof| proof.try_into().ok())
            .ok_or(AuthError::Malformed("The SCRAM proof is not base64 of a digest."))?;
        Ok(ClientFinal { binding, nonce, without_proof, proof })
    }
}

impl<'a> ServerFirst<'a> {
    /// Follows `read_server_first_message` in `fe-auth-scram.c`, and bounds the iterations.
    pub(in crate::auth) fn parse(message: &'a [u8]) -> Result<ServerFirst<'a>, AuthError> {
        let mut rest = text(message)?;
        if rest.starts_with("m=") {
            return Err(AuthError::Malformed("The server requires an unsupported SCRAM extension."));
        }
        let nonce = attribute(&mut rest, 'r', "The SCRAM nonce is missing.")?;
        check_nonce(nonce)?;
        let salt = attribute(&mut rest, 's', "The SCRAM salt is missing.")?;
        let salt = STANDARD.decode(salt).map_err(|_| AuthError::Malformed("The SCRAM salt is not base64."))?;
        let iterations = attribute(&mut rest, 'i', "The SCRAM iteration count is missing.")?;
        let iterations: u64 =
            iterations.parse().map_err(|_| AuthError::Malformed("The SCRAM iteration count is not a number."))?;
        if iterations > u64::from(MAX_ITERATIONS) {
            return Err(AuthError::Iterations(iterations));
        }
        let iterations = u32::try_from(iterations)
            .ok()
            .and_then(NonZeroU32::new)
            .ok_or(AuthError::Malformed("The SCRAM iteration count is zero."))?;
        Ok(ServerFirst { nonce, salt, iterations })
    }
}

/// Reads `server-final-message`: the signature, or the server's own error.
pub(in crate::auth) fn parse_server_final(message: &[u8]) -> Result<[u8; KEY_LEN], AuthError> {
    let mut rest = text(message)?;
    if let Some(error) = rest.strip_prefix("e=") {
        return Err(AuthError::ServerRefused(printable(error.as_bytes())));
    }
    let signature = attribute(&mut rest, 'v', "The server's SCRAM signature is missing.")?;
    STANDARD
        .decode(signature)
        .ok()
        .and_then(|signature| signature.try_into().ok())
        .ok_or(AuthError::Malformed("The server's SCRAM signature is not base64 of a digest."))
}
