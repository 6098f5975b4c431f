//! The two parties of the exchange, as states that can be used once each.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::message::{ClientFinal, ClientFirst, Flag, ServerFirst, parse_server_final};
use super::{ClientKey, END_POINT, Keys, NONCE_LEN, Verifier, hmac_sha256, sha256, xor};
use crate::auth::{AuthError, constant_time_eq};

/// The party that checks: has sent `server-first-message` and waits for the proof.
pub(in crate::auth) struct Checking {
    verifier: Verifier,
    /// What `c=` of the next message must be, in base64.
    binding: String,
    bound: bool,
    client_first_bare: String,
    server_first: String,
    /// Client's nonce followed by ours.
    nonce: String,
}

/// What the checking party offered, and what the client chose of it.
#[derive(Clone, Copy)]
pub(in crate::auth) struct Offer<'a> {
    /// `tls-server-end-point` of our certificate, when we offered to bind to it.
    pub(in crate::auth) end_point: Option<&'a [u8]>,
    /// The client chose SCRAM-SHA-256-PLUS.
    pub(in crate::auth) plus: bool,
}

/// `cbind-input` in base64: the gs2 header, and behind it the data bound to.
fn binding(header: &str, end_point: Option<&[u8]>) -> String {
    STANDARD.encode([header.as_bytes(), end_point.unwrap_or_default()].concat())
}

/// The outcome of a check.
pub(in crate::auth) struct Checked {
    /// `server-final-message`.
    pub(in crate::auth) server_final: String,
    /// The key that the client proved to have.
    pub(in crate::auth) client_key: ClientKey,
}

impl Checking {
    /// Takes `client-first-message`; the second value is `server-first-message`.
    pub(in crate::auth) fn begin(
        client_first: &[u8],
        verifier: Verifier,
        nonce: [u8; NONCE_LEN],
        offer: Offer<'_>,
    ) -> Result<(Checking, String), AuthError> {
        let first = ClientFirst::parse(client_first)?;
        // read_client_first_message in auth-scram.c, its words included.
        match first.flag {
            Flag::No | Flag::Thinks if offer.plus => {
                return Err(AuthError::Malformed(
                    "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.",
                ));
            }
            Flag::Thinks if offer.end_point.is_some() => return Err(AuthError::BindingDowngrade),
            Flag::Bound if !offer.plus => {
                return Err(AuthError::Malformed(
                    "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.",
                ));
            }
            _ => {}
        }
        let end_point = offer.end_point.filter(|_| first.flag == Flag::Bound);
        Ok(Checking::with_nonce(&first, verifier, &STANDARD.encode(nonce), end_point))
    }

    /// The same with the nonce's text given, for the RFC's vectors.
    pub(in crate::auth) fn with_nonce(
        first: &ClientFirst<'_>,
        verifier: Verifier,
        own_nonce: &str,
        end_point: Option<&[u8]>,
    ) -> (Checking, String) {
        let nonce = format!("{}{own_nonce}", first.nonce);
        let salt = STANDARD.encode(&verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let checking = Checking {
            verifier,
            binding: binding(first.header, end_point),
            bound: end_point.is_some(),
            client_first_bare: first.bare.to_owned(),
            server_first: server_first.clone(),
            nonce,
        };
        (checking, server_first)
    }

    /// Takes `client-final-message`. `Ok(None)`: well-formed, but the proof is wrong.
    ///
    /// A verifier made up for an unknown user takes the same path and the same time.
    pub(in crate::auth) fn finish(self, client_final: &[u8]) -> Result<Option<Checked>, AuthError> {
        let message = ClientFinal::parse(client_final)?;
        if !constant_time_eq(message.binding.as_bytes(), self.binding.as_bytes()) {
            return Err(match self.bound {
                true => AuthError::BindingMismatch,
                false => AuthError::Packet("unexpected SCRAM channel-binding attribute in client-final-message"),
            });
        }
        if !constant_time_eq(message.nonce.as_bytes(), self.nonce.as_bytes()) {
            return Err(AuthError::Response("Nonce does not match."));
        }
        let signed = [&self.client_first_bare, ",", &self.server_first, ",", message.without_proof].concat();
        let signature = hmac_sha256(&self.verifier.stored_key, &[signed.as_bytes()]);
        let client_key = ClientKey(xor(&message.proof, &signature));
        let server_signature = hmac_sha256(&self.verifier.server_key, &[signed.as_bytes()]);
        if !constant_time_eq(&sha256(&client_key.0), &self.verifier.stored_key) {
            return Ok(None);
        }
        let server_final = format!("v={}", STANDARD.encode(server_signature));
        Ok(Some(Checked { server_final, client_key }))
    }
}

/// The party that proves: has sent `client-first-message`.
pub(in crate::auth) struct Proving {
    client_first_bare: String,
    nonce: String,
    /// `cbind-input` in base64.
    binding: String,
}

/// What the proving party can say of channel binding.
#[derive(Clone, Copy)]
pub(in crate::auth) enum Binding<'a> {
    /// It cannot (no TLS, or a certificate without a fitting hash).
    Cannot,
    /// It could, but the server does not offer it.
    NotOffered,
    /// Bound to this end point.
    EndPoint(&'a [u8]),
}

/// Has sent the proof and waits for the server's.
pub(in crate::auth) struct Proved {
    expected_signature: [u8; super::KEY_LEN],
}

impl Proving {
    /// The second value is `client-first-message`. The user name stays empty, as libpq leaves it.
    pub(in crate::auth) fn begin(nonce: [u8; NONCE_LEN], binding: Binding<'_>) -> (Proving, String) {
        Proving::with_nonce("", &STANDARD.encode(nonce), binding)
    }

    /// The same with user and nonce given, for the RFC's vectors.
    pub(in crate::auth) fn with_nonce(user: &str, nonce: &str, bind: Binding<'_>) -> (Proving, String) {
        let (header, end_point) = match bind {
            Binding::Cannot => ("n,,".to_owned(), None),
            Binding::NotOffered => ("y,,".to_owned(), None),
            Binding::EndPoint(hash) => (format!("p={END_POINT},,"), Some(hash)),
        };
        let client_first_bare = format!("n={user},r={nonce}");
        let client_first = format!("{header}{client_first_bare}");
        (Proving { client_first_bare, nonce: nonce.to_owned(), binding: binding(&header, end_point) }, client_first)
    }

    /// Takes `server-first-message`; `keys` turns salt and iterations into keys. The second value is
    /// `client-final-message`.
    pub(in crate::auth) fn finish(
        self,
        server_first: &[u8],
        keys: impl FnOnce(&[u8], std::num::NonZeroU32) -> Keys,
    ) -> Result<(Proved, String), AuthError> {
        let message = ServerFirst::parse(server_first)?;
        // RFC 5802, 5.1: the server's nonce must begin with ours, and it must have added to it.
        let added = message.nonce.strip_prefix(&self.nonce).unwrap_or_default();
        if added.is_empty() {
            return Err(AuthError::ServerProof("its nonce does not extend ours"));
        }
        let keys = keys(&message.salt, message.iterations);
        let without_proof = format!("c={},r={}", self.binding, message.nonce);
        // Checked to be UTF-8 by `ServerFirst::parse`.
        let parts: [&[u8]; 5] = [self.client_first_bare.as_bytes(), b",", server_first, b",", without_proof.as_bytes()];
        let signature = hmac_sha256(&keys.stored_key, &parts);
        let proof = STANDARD.encode(xor(&keys.client_key.0, &signature));
        let expected_signature = hmac_sha256(&keys.server_key, &parts);
        Ok((Proved { expected_signature }, format!("{without_proof},p={proof}")))
    }
}

impl Proved {
    /// Takes `server-final-message` and checks that the server knows the verifier.
    pub(in crate::auth) fn verify(self, server_final: &[u8]) -> Result<(), AuthError> {
        let signature = parse_server_final(server_final)?;
        if constant_time_eq(&signature, &self.expected_signature) {
            Ok(())
        } else {
            Err(AuthError::ServerProof("its SCRAM signature is wrong"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_FINAL: &str =
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    /// RFC 7677, section 3.
    #[test]
    fn the_rfc_exchange_on_the_proving_side() {
        let (proving, first) = Proving::with_nonce("user", "rOprNGfwEbeRWgbNEkqO", Binding::Cannot);
        assert_eq!(first, CLIENT_FIRST);
        let derive = |salt: &[u8], iterations| Keys::derive("pencil", salt, iterations);
        let (proved, last) = proving.finish(SERVER_FIRST.as_bytes(), derive).unwrap();
        assert_eq!(last, CLIENT_FINAL);
        proved.verify(SERVER_FINAL.as_bytes()).unwrap();
    }

    /// RFC 7677, section 3.
    #[test]
    fn the_rfc_exchange_on_the_checking_side() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::derive("pencil", &salt, NonZeroU32::new(4096).unwrap());
        let first = ClientFirst::parse(CLIENT_FIRST.as_bytes()).unwrap();
        let (checking, answer) = Checking::with_nonce(&first, verifier, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", None);
        assert_eq!(answer, SERVER_FIRST);
        let checked = checking.finish(CLIENT_FINAL.as_bytes()).unwrap().expect("the right proof");
        assert_eq!(checked.server_final, SERVER_FINAL);
        let keys = Keys::derive("pencil", &salt, NonZeroU32::new(4096).unwrap());
        assert_eq!(checked.client_key, keys.client_key, "the key for a later pass-through");
    }
}
