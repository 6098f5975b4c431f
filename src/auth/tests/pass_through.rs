//! Pass-through: what a client proved to the pooler, proved to a server; and answers held against another secret.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::{context, md5_secret, plain, request, verifier};
use crate::auth::server::code;
use crate::auth::{Ask, AuthContext, AuthError, ClientAuth, ClientKey, Reply, Secret, ServerAuth, Verifier};
use crate::config::AuthMethod;

/// A client's login with `proving` at a checking side that knows `stored`.
fn login(
    context: &Arc<AuthContext>,
    method: AuthMethod,
    stored: &Secret,
    mut proving: ServerAuth,
) -> Result<(bool, Option<ClientKey>), AuthError> {
    let (mut check, mut ask) = ClientAuth::start(context.clone(), method, "app", Some(stored)).unwrap();
    loop {
        if ask == Ask::Refused {
            return Ok((false, check.client_key().cloned()));
        }
        let (code, body) = request(&ask);
        match proving.on_request(code, &body)? {
            Reply::Ok => return Ok((true, check.client_key().cloned())),
            Reply::Nothing => ask = Ask::Ok,
            reply => ask = check.on_response(&reply.body().unwrap())?,
        }
    }
}

fn by_password(context: &Arc<AuthContext>, password: &str) -> ServerAuth {
    ServerAuth::new(context.clone(), "app", Some(plain(password)))
}

fn by_key(context: &Arc<AuthContext>, key: Option<ClientKey>) -> ServerAuth {
    ServerAuth::new(context.clone(), "app", Some(verifier())).with_key(key)
}

#[test]
fn what_a_client_proved_logs_in_where_the_same_verifier_is() {
    let context = context();
    for method in [AuthMethod::ScramSha256, AuthMethod::Plain, AuthMethod::Md5] {
        let (done, key) = login(&context, method, &verifier(), by_password(&context, "pencil")).unwrap();
        assert!(done && key.is_some(), "{method}");
        assert_eq!(format!("{:?}", key.as_ref().unwrap()), "ClientKey(..)");
        let at_server =
            |stored: &Secret| login(&context, AuthMethod::ScramSha256, stored, by_key(&context, key.clone()));
        assert!(at_server(&verifier()).unwrap().0, "{method}");
        // Another salt, another count: the key is not shown to such a server at all.
        for (salt, rounds) in [(&b"fedcba9876543210"[..], 4096), (b"0123456789abcdef", 4097)] {
            let other = Secret::Scram(Verifier::derive("pencil", salt, NonZeroU32::new(rounds).unwrap()));
            assert_eq!(at_server(&other), Err(AuthError::OtherVerifier("app".into())));
        }
        // The same salt and another password: the server refuses.
        let rounds = NonZeroU32::new(4096).unwrap();
        let changed = Secret::Scram(Verifier::derive("crayon", b"0123456789abcdef", rounds));
        assert_eq!(at_server(&changed), Ok((false, None)));
    }
    let (done, key) = login(&context, AuthMethod::Plain, &verifier(), by_password(&context, "crayon")).unwrap();
    assert!(!done && key.is_none(), "a wrong password gives no key");
    let nothing = login(&context, AuthMethod::ScramSha256, &verifier(), by_key(&context, None));
    assert_eq!(nothing, Err(AuthError::NoKey("app".into())));
    // A server that wants a password in the clear gets none.
    let (_, key) = login(&context, AuthMethod::ScramSha256, &verifier(), by_password(&context, "pencil")).unwrap();
    let mut machine = by_key(&context, key);
    assert!(matches!(machine.on_request(code::CLEARTEXT, &[]), Err(AuthError::WrongSecret { .. })));
}

#[test]
fn a_server_that_does_not_know_the_verifier_is_not_believed() {
    let context = context();
    let (_, key) = login(&context, AuthMethod::ScramSha256, &verifier(), by_password(&context, "pencil")).unwrap();
    let mut machine = by_key(&context, key);
    let Reply::SaslInitial { data, .. } = machine.on_request(code::SASL, b"SCRAM-SHA-256\0\0").unwrap() else {
        panic!()
    };
    let nonce = String::from_utf8(data).unwrap().split_once(",r=").unwrap().1.to_owned();
    let first = format!("r={nonce}more,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=4096");
    assert!(matches!(machine.on_request(code::SASL_CONTINUE, first.as_bytes()), Ok(Reply::SaslResponse(_))));
    let forged = format!("v={}", "A".repeat(43) + "=");
    assert!(matches!(machine.on_request(code::SASL_FINAL, forged.as_bytes()), Err(AuthError::ServerProof(_))));
}

#[test]
fn an_answer_is_held_against_a_newer_secret_where_it_can_be() {
    let context = context();
    let start = |method, secret: Option<&Secret>| ClientAuth::start(context.clone(), method, "app", secret).unwrap();
    for old in [Some(plain("old")), Some(verifier()), Some(md5_secret("old")), None] {
        let (mut machine, ask) = start(AuthMethod::Plain, old.as_ref());
        assert_eq!(ask, Ask::Cleartext);
        let body = b"crayon\0";
        assert_eq!(machine.on_response(body), Ok(Ask::Refused));
        assert!(machine.again_with(Some(&plain("other"))));
        assert_eq!(machine.on_response(body), Ok(Ask::Refused));
        assert!(machine.again_with(Some(&plain("crayon"))));
        assert_eq!(machine.on_response(body), Ok(Ask::Ok));
    }
    let (mut machine, ask) = start(AuthMethod::Md5, Some(&md5_secret("old")));
    let (code, salt) = request(&ask);
    let answer = by_password(&context, "crayon").on_request(code, &salt).unwrap().body().unwrap();
    assert_eq!(machine.on_response(&answer), Ok(Ask::Refused));
    assert!(!machine.again_with(Some(&verifier())), "a verifier wants another exchange");
    assert!(!machine.again_with(None));
    assert!(machine.again_with(Some(&md5_secret("crayon"))));
    assert_eq!(machine.on_response(&answer), Ok(Ask::Ok));
    // A proof of SCRAM fits its salt alone.
    let (mut machine, _) = start(AuthMethod::ScramSha256, Some(&verifier()));
    assert!(!machine.again_with(Some(&plain("crayon"))));
}

#[test]
fn strangers_look_like_those_who_were_looked_up() {
    let context = context();
    let asked = |context: &Arc<AuthContext>| {
        let (mut machine, ask) = ClientAuth::start(context.clone(), AuthMethod::Md5, "stranger", None).unwrap();
        if !matches!(ask, Ask::Sasl { .. }) {
            return "md5".to_owned();
        }
        let first = b"n,,n=,r=abcdefghijklmnop";
        let body = [&b"SCRAM-SHA-256\0"[..], &(first.len() as u32).to_be_bytes(), first].concat();
        let Ok(Ask::SaslContinue(challenge)) = machine.on_response(&body) else { panic!() };
        String::from_utf8(challenge).unwrap().rsplit_once(',').unwrap().1.to_owned()
    };
    assert_eq!(asked(&context), "md5");
    context.expect_looked_up();
    assert_eq!(asked(&context), "i=4096", "what PostgreSQL makes by default");
    context.learn_looked_up(&md5_secret("x"));
    assert_eq!(asked(&context), "md5");
    let rounds = NonZeroU32::new(5000).unwrap();
    context.learn_looked_up(&Secret::Scram(Verifier::derive("x", b"salt", rounds)));
    context.learn_looked_up(&md5_secret("x"));
    context.learn_looked_up(&plain(""));
    assert_eq!(asked(&context), "i=5000", "it does not go back and forth");
}
