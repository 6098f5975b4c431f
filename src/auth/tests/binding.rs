//! Channel binding: both parties on the same TLS connection, on different ones, and with somebody between them who takes
//! the offer away.

use std::sync::Arc;

use super::{context, plain, request, verifier};
use crate::auth::server::{Line, code};
use crate::auth::{Ask, AuthError, ClientAuth, Reply, ServerAuth};
use crate::config::{AuthMethod, ChannelBinding};

type End = Option<&'static [u8]>;

/// A whole login. `offered`: what the checking side binds to; `seen`: the certificate that the proving side sees.
/// The mechanism chosen, or why it failed.
fn login(
    offered: End,
    seen: Line,
    wish: ChannelBinding,
    between: impl Fn(Vec<u8>) -> Vec<u8>,
) -> Result<String, AuthError> {
    let stored = verifier();
    let end: Option<Arc<[u8]>> = offered.map(Arc::from);
    let (mut check, mut ask) =
        ClientAuth::start_bound(context(), AuthMethod::ScramSha256, "app", Some(&stored), end).unwrap();
    let mut prove = ServerAuth::new(context(), "app", Some(plain("pencil"))).on_line(seen, wish);
    let mut chosen = String::new();
    loop {
        assert_ne!(ask, Ask::Refused, "the password is right");
        let (code, body) = request(&ask);
        let body = if code == code::SASL { between(body) } else { body };
        let reply = prove.on_request(code, &body)?;
        if let Reply::SaslInitial { mechanism, .. } = &reply {
            chosen = (*mechanism).to_owned();
        }
        match reply {
            Reply::Ok => return Ok(chosen),
            Reply::Nothing => ask = Ask::Ok,
            reply => ask = check.on_response(&reply.body().unwrap())?,
        }
    }
}

fn untouched(body: Vec<u8>) -> Vec<u8> {
    body
}

/// What somebody in the middle leaves of the offer.
fn without_plus(_: Vec<u8>) -> Vec<u8> {
    b"SCRAM-SHA-256\0\0".to_vec()
}

fn tls(end: &[u8]) -> Line {
    Line::Tls(Some(end.to_vec()))
}

const A: &[u8] = &[1; 32];

#[test]
fn both_sides_bind_where_both_can() {
    use ChannelBinding::*;
    for wish in [Prefer, Require] {
        assert_eq!(login(Some(A), tls(A), wish, untouched).as_deref(), Ok("SCRAM-SHA-256-PLUS"));
    }
    assert_eq!(login(Some(A), tls(A), Disable, untouched).as_deref(), Ok("SCRAM-SHA-256"));
    assert_eq!(login(None, tls(A), Prefer, untouched).as_deref(), Ok("SCRAM-SHA-256"), "the flag is y, and true");
    assert_eq!(login(Some(A), Line::Tls(None), Prefer, untouched).as_deref(), Ok("SCRAM-SHA-256"));
    assert_eq!(login(None, Line::Plain, Prefer, untouched).as_deref(), Ok("SCRAM-SHA-256"));
}

#[test]
fn another_connection_is_noticed() {
    let other = tls(&[2; 32]);
    assert_eq!(login(Some(A), other, ChannelBinding::Prefer, untouched), Err(AuthError::BindingMismatch));
    assert_eq!(AuthError::BindingMismatch.sqlstate(), "28000");
}

#[test]
fn an_offer_that_was_taken_away_is_noticed() {
    let got = login(Some(A), tls(A), ChannelBinding::Prefer, without_plus);
    assert_eq!(got, Err(AuthError::BindingDowngrade), "by the checking side, from the flag y");
    let got = login(Some(A), tls(A), ChannelBinding::Require, without_plus);
    assert!(matches!(got, Err(AuthError::NoBinding(_))), "{got:?}");
    let got = login(Some(A), Line::Plain, ChannelBinding::Prefer, untouched);
    assert!(matches!(got, Err(AuthError::Malformed(_))), "{got:?}: there is no TLS to bind to");
}

#[test]
fn require_takes_nothing_else() {
    let start = || ServerAuth::new(context(), "app", Some(plain("pencil"))).on_line(tls(A), ChannelBinding::Require);
    for (code, body) in [(code::OK, &b""[..]), (code::CLEARTEXT, b""), (code::MD5, b"salt")] {
        let got = start().on_request(code, body);
        assert!(matches!(got, Err(AuthError::NoBinding(_))), "{code}: {got:?}");
    }
}

#[test]
fn gs2_flags_must_fit_the_mechanism() {
    let answer = |mechanism: &str, header: &str| {
        let stored = verifier();
        let end = Some(Arc::from(A));
        let (mut auth, ask) =
            ClientAuth::start_bound(context(), AuthMethod::ScramSha256, "app", Some(&stored), end).unwrap();
        assert_eq!(ask, Ask::Sasl { mechanisms: &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"] });
        let data = format!("{header}n=,r=nonce");
        let mut body = format!("{mechanism}\0").into_bytes();
        body.extend_from_slice(&(data.len() as u32).to_be_bytes());
        body.extend_from_slice(data.as_bytes());
        auth.on_response(&body)
    };
    assert!(matches!(answer("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,"), Ok(Ask::SaslContinue(_))));
    assert!(matches!(answer("SCRAM-SHA-256", "n,,"), Ok(Ask::SaslContinue(_))), "a client that cannot");
    for (mechanism, header) in
        [("SCRAM-SHA-256-PLUS", "n,,"), ("SCRAM-SHA-256-PLUS", "y,,"), ("SCRAM-SHA-256", "p=tls-server-end-point,,")]
    {
        let got = answer(mechanism, header);
        assert!(matches!(got, Err(AuthError::Malformed(_))), "{mechanism} {header}: {got:?}");
    }
    assert_eq!(answer("SCRAM-SHA-256", "y,,"), Err(AuthError::BindingDowngrade));
    assert!(matches!(answer("SCRAM-SHA-256-PLUS", "p=tls-unique,,"), Err(AuthError::BindingType(_))));
}
