//! Peers that send anything.

use proptest::prelude::*;

use super::{context, verifier};
use crate::auth::scram::party::{Binding, Proving};
use crate::auth::{Ask, AuthContext, ClientAuth, fuzz_sasl};
use crate::config::AuthMethod;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_of_a_peer_panic_or_log_in(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzz_sasl(&data);
    }

    #[test]
    fn text_like_messages_neither(text in "[nypcrsive=,A-Za-z0-9+/]{0,120}") {
        fuzz_sasl(text.as_bytes());
        fuzz_sasl(format!("SCRAM-SHA-256\0\0\0\0{}{text}", text.len() as u8 as char).as_bytes());
    }

    /// A mutated or truncated proof is refused or malformed, never accepted, and nothing panics.
    #[test]
    fn a_mutated_proof_is_never_accepted(at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<bool>()) {
        let context = context();
        let stored = verifier();
        let (mut auth, _) = ClientAuth::start(context, AuthMethod::ScramSha256, "app", Some(&stored)).unwrap();
        let (proving, first) = Proving::with_nonce("", "rOprNGfwEbeRWgbNEkqO", Binding::Cannot);
        let mut body = b"SCRAM-SHA-256\0".to_vec();
        body.extend_from_slice(&(first.len() as u32).to_be_bytes());
        body.extend_from_slice(first.as_bytes());
        let Ok(Ask::SaslContinue(server_first)) = auth.on_response(&body) else { panic!() };
        let context = AuthContext::new().unwrap();
        let (_, last) = proving.finish(&server_first, |salt, n| context.keys("pencil", salt, n)).unwrap();
        let mut last = last.into_bytes();
        let at = at.index(last.len());
        if cut { last.truncate(at) } else { last[at] ^= flip }
        prop_assert!(!matches!(auth.on_response(&last), Ok(Ask::SaslFinal(_) | Ask::Ok)));
    }
}
