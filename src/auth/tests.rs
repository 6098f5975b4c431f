//! Client against server: every method with every kind of secret, and hostile peers. Random peers: `hostile`; channel binding: `binding`;
//! keys that clients prove to have: `pass_through`.

mod binding;
mod hostile;
mod pass_through;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};

use super::server::code;
use super::*;
use crate::config::AuthMethod;

/// From PostgreSQL's documentation style: user `app`, password `pencil`, 4096 iterations.
fn verifier() -> Secret {
    static VERIFIER: LazyLock<Verifier> =
        LazyLock::new(|| Verifier::derive("pencil", b"0123456789abcdef", NonZeroU32::new(4096).unwrap()));
    Secret::Scram(VERIFIER.clone())
}

fn plain(password: &str) -> Secret {
    Secret::Plain(password.into())
}

fn md5_secret(password: &str) -> Secret {
    Secret::Md5(md5::hash_password(password, "app"))
}

fn context() -> Arc<AuthContext> {
    Arc::new(AuthContext::new().unwrap())
}

fn request(ask: &Ask) -> (u32, Vec<u8>) {
    match ask {
        Ask::Ok => (code::OK, vec![]),
        Ask::Cleartext => (code::CLEARTEXT, vec![]),
        Ask::Md5 { salt } => (code::MD5, salt.to_vec()),
        Ask::Sasl { mechanisms } => {
            (code::SASL, mechanisms.iter().flat_map(|m| [m.as_bytes(), b"\0"].concat()).chain([0]).collect())
        }
        Ask::SaslContinue(data) => (code::SASL_CONTINUE, data.clone()),
        Ask::SaslFinal(data) => (code::SASL_FINAL, data.clone()),
        Ask::Refused => unreachable!("an error is sent instead"),
    }
}

/// Runs a whole login of our server side against our client side; the second value is the sequence of requests.
fn login(
    context: &Arc<AuthContext>,
    method: AuthMethod,
    stored: Option<&Secret>,
    given: Option<Secret>,
) -> (Result<bool, AuthError>, Vec<u32>) {
    let mut codes = vec![];
    let (mut check, mut ask) = ClientAuth::start(context.clone(), method, "app", stored).unwrap();
    let mut prove = ServerAuth::new(context.clone(), "app", given);
    loop {
        if ask == Ask::Refused {
            return (Ok(false), codes);
        }
        let (code, body) = request(&ask);
        codes.push(code);
        match prove.on_request(code, &body) {
            Ok(Reply::Ok) => return (Ok(true), codes),
            // After SASLFinal the caller adds AuthenticationOk.
            Ok(Reply::Nothing) => ask = Ask::Ok,
            Ok(reply) => match check.on_response(&reply.body().unwrap()) {
                Ok(next) => ask = next,
                Err(error) => return (Err(error), codes),
            },
            Err(error) => return (Err(error), codes),
        }
    }
}

#[test]
fn every_method_with_every_kind_of_secret() {
    use AuthMethod::*;
    let context = context();
    let md5 = md5_secret("pencil");
    for (method, stored, works) in [
        (Plain, plain("pencil"), true),
        (Plain, md5.clone(), true),
        (Plain, verifier(), true),
        (Md5, plain("pencil"), true),
        (Md5, md5.clone(), true),
        (Md5, verifier(), true),
        (ScramSha256, plain("pencil"), true),
        (ScramSha256, md5, false),
        (ScramSha256, verifier(), true),
        (Trust, plain(""), true),
        (Plain, plain(""), false),
        (Md5, plain(""), false),
        (ScramSha256, plain(""), false),
    ] {
        let right = login(&context, method, Some(&stored), Some(plain("pencil"))).0;
        assert_eq!(right, Ok(works), "{method:?} {stored:?}");
        if method != Trust {
            let wrong = login(&context, method, Some(&stored), Some(plain("pencil2"))).0;
            assert_eq!(wrong, Ok(false), "{method:?} {stored:?}");
        }
    }
    assert_eq!(login(&context, Any, None, None).0, Ok(true));
    assert_eq!(login(&context, Trust, None, None).0, Ok(false));
}

#[test]
fn an_md5_hash_answers_md5_and_a_verifier_logs_in_nowhere() {
    let context = context();
    let stored = plain("pencil");
    assert_eq!(login(&context, AuthMethod::Md5, Some(&stored), Some(md5_secret("pencil"))).0, Ok(true));
    let refused = login(&context, AuthMethod::Md5, Some(&stored), Some(verifier())).0.unwrap_err();
    assert!(refused.to_string().contains("only a SCRAM verifier is configured: give the plain password"), "{refused}");
    let refused = login(&context, AuthMethod::ScramSha256, Some(&stored), Some(md5_secret("pencil"))).0.unwrap_err();
    assert!(matches!(refused, AuthError::WrongSecret { .. }), "{refused}");
    let refused = login(&context, AuthMethod::ScramSha256, Some(&stored), None).0.unwrap_err();
    assert_eq!(refused, AuthError::NoPassword("app".into()));
}

#[test]
fn an_unknown_user_sees_what_a_wrong_password_sees() {
    let by_verifier = context();
    by_verifier.learn_users(&BTreeMap::from([("other".to_owned(), verifier())]));
    let by_password = context();
    for (context, known) in [(&by_verifier, verifier()), (&by_password, plain("pencil"))] {
        for method in [AuthMethod::Plain, AuthMethod::Md5, AuthMethod::ScramSha256] {
            let unknown = login(context, method, None, Some(plain("x")));
            let wrong = login(context, method, Some(&known), Some(plain("x")));
            assert_eq!(unknown, wrong, "{method:?}");
            assert_eq!(unknown.0, Ok(false));
        }
    }
}

#[test]
fn debug_shows_no_part_of_an_exchange() {
    let asks = [Ask::Md5 { salt: *b"hide" }, Ask::SaslContinue(b"hide".to_vec()), Ask::SaslFinal(b"hide".to_vec())];
    assert_eq!(format!("{asks:?}"), "[Md5(..), SaslContinue(..), SaslFinal(..)]");
    let (auth, _) = ClientAuth::start(context(), AuthMethod::Plain, "app", Some(&plain("hidden"))).unwrap();
    assert!(!format!("{auth:?}").contains("hidden"));
}

/// `r=...,s=<salt>,i=<n>` of a fresh exchange.
fn server_first(context: &Arc<AuthContext>, user: &str, stored: Option<&Secret>) -> String {
    let (mut auth, _) = ClientAuth::start(context.clone(), AuthMethod::ScramSha256, user, stored).unwrap();
    match auth.on_response(b"SCRAM-SHA-256\0\0\0\0\x0dn,,n=,r=nonce").unwrap() {
        Ask::SaslContinue(data) => String::from_utf8(data).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_salt_of_an_unknown_user_is_stable_and_her_own() {
    let context = context();
    let salt = |user, stored: Option<&Secret>| {
        let message = server_first(&context, user, stored);
        message.split_once(",s=").unwrap().1.to_owned()
    };
    assert_eq!(salt("ghost", None), salt("ghost", None));
    assert_ne!(salt("ghost", None), salt("wraith", None));
    assert_eq!(salt("app", Some(&plain("pencil"))), salt("app", None), "creating the user changes nothing to see");
    assert_eq!(salt("ghost", None).len(), salt("app", Some(&verifier())).len());
    assert_ne!(server_first(&context, "app", None), server_first(&context, "app", None), "nonces are fresh");
}

#[test]
fn a_recorded_exchange_cannot_be_replayed() {
    let context = context();
    let stored = verifier();
    let start = || ClientAuth::start(context.clone(), AuthMethod::ScramSha256, "app", Some(&stored)).unwrap().0;
    let mut prove = ServerAuth::new(context.clone(), "app", Some(plain("pencil")));
    let first = prove.on_request(code::SASL, b"SCRAM-SHA-256\0\0").unwrap().body().unwrap();
    let mut auth = start();
    let Ask::SaslContinue(data) = auth.on_response(&first).unwrap() else { panic!() };
    let last = prove.on_request(code::SASL_CONTINUE, &data).unwrap().body().unwrap();
    assert!(matches!(auth.on_response(&last), Ok(Ask::SaslFinal(_))));
    assert!(auth.client_key().is_some());
    assert!(matches!(auth.on_response(&last), Err(AuthError::Unexpected(_))));

    let mut again = start();
    again.on_response(&first).unwrap();
    assert!(matches!(again.on_response(&last), Err(AuthError::Response(_))), "the nonce is another");
    assert!(again.client_key().is_none());
}

#[test]
fn gs2_headers_are_treated_as_postgresql_treats_them() {
    let context = context();
    let stored = verifier();
    let answer = |header: &str| {
        let (mut auth, _) = ClientAuth::start(context.clone(), AuthMethod::ScramSha256, "app", Some(&stored)).unwrap();
        let data = format!("{header}n=,r=nonce");
        let mut body = b"SCRAM-SHA-256\0".to_vec();
        body.extend_from_slice(&(data.len() as u32).to_be_bytes());
        body.extend_from_slice(data.as_bytes());
        auth.on_response(&body)
    };
    assert!(matches!(answer("n,,"), Ok(Ask::SaslContinue(_))));
    assert!(matches!(answer("y,,"), Ok(Ask::SaslContinue(_))));
    assert!(matches!(answer("p=tls-server-end-point,,"), Err(AuthError::Malformed(_))));
    assert!(matches!(answer("p=tls-unique,,"), Err(AuthError::BindingType(kind)) if kind == "tls-unique"));
    assert!(matches!(answer("n,a=other,"), Err(AuthError::Unsupported(_))));
    assert!(matches!(answer("n,,m=ext,"), Err(AuthError::Unsupported(_))));
    assert!(matches!(answer("x,,"), Err(AuthError::Malformed(_))));
}

#[test]
fn an_initial_response_without_data_is_asked_for_it() {
    let stored = verifier();
    let (mut auth, _) = ClientAuth::start(context(), AuthMethod::ScramSha256, "app", Some(&stored)).unwrap();
    assert_eq!(auth.on_response(b"SCRAM-SHA-256\0\xff\xff\xff\xff"), Ok(Ask::SaslContinue(vec![])));
    assert!(matches!(auth.on_response(b"n,,n=,r=nonce"), Ok(Ask::SaslContinue(_))));
    let (mut auth, _) = ClientAuth::start(context(), AuthMethod::ScramSha256, "app", Some(&stored)).unwrap();
    assert_eq!(auth.on_response(b"SCRAM-SHA-256-PLUS\0\0\0\0\0"), Err(AuthError::Mechanism));
}

/// A login that has sent `client-first-message`, and the nonce of it.
fn offered(context: &Arc<AuthContext>) -> (ServerAuth, String) {
    let mut auth = ServerAuth::new(context.clone(), "app", Some(plain("pencil")));
    let offer = b"SCRAM-SHA-1\0SCRAM-SHA-256\0\0";
    let Reply::SaslInitial { data, .. } = auth.on_request(code::SASL, offer).unwrap() else { panic!() };
    let nonce = String::from_utf8(data).unwrap().split_once("r=").unwrap().1.to_owned();
    (auth, nonce)
}

#[test]
fn servers_that_do_not_prove_themselves_are_refused() {
    let context = context();
    let (mut auth, _) = offered(&context);
    let early = auth.on_request(code::OK, b"");
    assert!(matches!(early, Err(AuthError::ServerProof(_))), "Ok right after the offer");
    let proved = || {
        let (mut auth, nonce) = offered(&context);
        auth.on_request(code::SASL_CONTINUE, format!("r={nonce}more,s=c2FsdA==,i=1").as_bytes()).unwrap();
        auth
    };
    assert!(matches!(proved().on_request(code::OK, b""), Err(AuthError::ServerProof(_))), "no SASLFinal");
    let zeros = format!("v={}=", "A".repeat(43));
    let wrong = proved().on_request(code::SASL_FINAL, zeros.as_bytes());
    assert!(matches!(wrong, Err(AuthError::ServerProof(_))), "a wrong signature");
    let own = proved().on_request(code::SASL_FINAL, b"e=invalid-proof");
    assert_eq!(own, Err(AuthError::ServerRefused("invalid-proof".into())));
}

#[test]
fn nonces_and_iterations_of_a_server_are_checked() {
    let context = context();
    let (mut auth, _) = offered(&context);
    let error = auth.on_request(code::SASL_CONTINUE, b"r=other,s=c2FsdA==,i=4096").unwrap_err();
    assert!(error.to_string().contains("nonce"), "{error}");
    let (mut auth, nonce) = offered(&context);
    let error = auth.on_request(code::SASL_CONTINUE, format!("r={nonce},s=c2FsdA==,i=4096").as_bytes()).unwrap_err();
    assert!(error.to_string().contains("nonce"), "nothing added: {error}");
    let (mut auth, nonce) = offered(&context);
    let greedy = format!("r={nonce}more,s=c2FsdA==,i=2000000000");
    assert!(!auth.is_expensive(code::SASL_CONTINUE, greedy.as_bytes()));
    let refused = auth.on_request(code::SASL_CONTINUE, greedy.as_bytes());
    assert_eq!(refused, Err(AuthError::Iterations(2_000_000_000)));
    let (mut auth, nonce) = offered(&context);
    assert!(auth.on_request(code::SASL_CONTINUE, format!("r={nonce}m,s=c2FsdA==,i=0").as_bytes()).is_err());
    let (mut auth, _) = offered(&context);
    assert!(matches!(auth.on_request(9, b""), Err(AuthError::ServerMethod(name)) if name == "SSPI"));
}

#[test]
fn passwords_that_are_empty_or_not_utf8_are_wrong() {
    for stored in ["", "\u{fffd}", "x"] {
        for (given, answer) in [(&b"\0"[..], Err(AuthError::EmptyPassword)), (b"\xff\0", Ok(Ask::Refused))] {
            let secret = plain(stored);
            let (mut auth, _) = ClientAuth::start(context(), AuthMethod::Plain, "app", Some(&secret)).unwrap();
            assert_eq!(auth.on_response(given), answer);
        }
    }
    for malformed in [&b""[..], b"no end", b"a\0b\0"] {
        let (mut auth, _) = ClientAuth::start(context(), AuthMethod::Plain, "app", Some(&plain("x"))).unwrap();
        assert!(matches!(auth.on_response(malformed), Err(AuthError::Packet(_))));
    }
}

#[test]
fn a_server_without_scram_is_named() {
    let mut auth = ServerAuth::new(context(), "app", Some(plain("pencil")));
    let error = auth.on_request(code::SASL, b"OAUTHBEARER\0\0").unwrap_err();
    assert_eq!(error.to_string(), "the server offers no SCRAM-SHA-256, only: OAUTHBEARER");
}

#[test]
fn the_expensive_step_is_announced_once() {
    let context = context();
    let stored = plain("pencil");
    let first = b"SCRAM-SHA-256\0\0\0\0\x0dn,,n=,r=nonce";
    let start = || ClientAuth::start(context.clone(), AuthMethod::ScramSha256, "app", Some(&stored)).unwrap().0;
    let mut auth = start();
    assert!(auth.is_expensive(first));
    auth.on_response(first).unwrap();
    assert!(!start().is_expensive(first));
    context.warm(&BTreeMap::from([("b".to_owned(), plain("p"))]), 10);
    assert!(context.has_verifier("b", "p"));
}

#[test]
fn passwords_beyond_ascii_are_prepared_as_postgresql_prepares_them() {
    let one = NonZeroU32::MIN;
    let derive = |password: &str| Verifier::derive(password, b"salt", one);
    // RFC 4013, section 3: a soft hyphen maps to nothing, the Roman numeral nine to IX.
    assert!(derive("I\u{ad}X\u{2168}") == derive("IXIX"));
    assert!(derive("\u{aa}") == derive("a"));
    // Forbidden (a private-use character): used as it is.
    assert!(derive("\u{e000}\u{ad}") != derive("\u{e000}"));
    assert!(derive("a\u{7}") != derive("a"));
}

#[test]
fn secrets_are_told_apart_and_never_shown() {
    let text = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    assert!(matches!(Secret::parse(text), Secret::Scram(_)));
    assert!(
        Secret::parse(text)
            == Secret::Scram(Verifier::derive(
                "pencil",
                &base64::Engine::decode(&base64::engine::general_purpose::STANDARD, "W22ZaJ0SNY7soEsUEjb6gQ==")
                    .unwrap(),
                NonZeroU32::new(4096).unwrap()
            ))
    );
    assert!(matches!(Secret::parse("md5f00f00f00f00f00f00f00f00f00f00f0"), Secret::Md5(_)));
    assert!(matches!(Secret::parse("md5tulip"), Secret::Plain(_)));
    assert!(matches!(Secret::parse("SCRAM-SHA-256$0:c2FsdA==$x:y"), Secret::Plain(_)));
    // Well formed, but too costly: what it hides is not its own text.
    let costly = text.replace("$4096:", "$2000000:");
    assert!(costly != text && Secret::parse(&costly).is_empty());
    for secret in [Secret::parse(text), plain("hunter2"), md5_secret("hunter2")] {
        let shown = format!("{secret:?} {:?}", Some(&secret));
        assert!(!shown.contains("hunter2") && !shown.contains("md5") && !shown.contains("W22Z"), "{shown}");
    }
    let (auth, _) = ClientAuth::start(context(), AuthMethod::Plain, "app", Some(&plain("hunter2"))).unwrap();
    let server = ServerAuth::new(context(), "app", Some(plain("hunter2")));
    assert!(!format!("{auth:?} {server:?}").contains("hunter2"));
    assert!(!format!("{:?}", Reply::Password(b"hunter2".to_vec().into())).contains("104"));
}

#[test]
fn md5_as_in_pg_authid() {
    // select md5('secret' || 'app')
    assert_eq!(md5::hash_password("secret", "app"), format!("md5{}", md5_hex("secretapp")));
    assert_eq!(md5::hash_password("", ""), "md5d41d8cd98f00b204e9800998ecf8427e");
}

fn md5_hex(text: &str) -> String {
    md5::encrypt(text.as_bytes(), b"")[3..].to_owned()
}
