//! The pooler proves itself to PostgreSQL (`src/interfaces/libpq/fe-auth.c`).

use std::sync::Arc;

use zeroize::Zeroizing;

use super::error::printable;
use super::scram::party::{Binding, Proved, Proving};
use super::scram::{ClientKey, Keys, MECHANISM, MECHANISM_PLUS, Verifier};
use super::{AuthContext, AuthError, Secret, md5, random};
use crate::config::ChannelBinding;

/// Authentication codes of the `R` message (`AUTH_REQ_*`, `src/include/libpq/protocol.h`).
pub mod code {
    /// AuthenticationOk.
    pub const OK: u32 = 0;
    /// AuthenticationCleartextPassword.
    pub const CLEARTEXT: u32 = 3;
    /// AuthenticationMD5Password.
    pub const MD5: u32 = 5;
    /// AuthenticationSASL.
    pub const SASL: u32 = 10;
    /// AuthenticationSASLContinue.
    pub const SASL_CONTINUE: u32 = 11;
    /// AuthenticationSASLFinal.
    pub const SASL_FINAL: u32 = 12;
}

/// What to send to the server. [`Reply::body`] gives the body of the `p` message.
#[derive(Clone, PartialEq, Eq)]
pub enum Reply {
    /// Nothing; the server goes on.
    Nothing,
    /// PasswordMessage with this text (without NUL).
    Password(Zeroizing<Vec<u8>>),
    /// SASLInitialResponse.
    SaslInitial {
        /// Mechanism chosen.
        mechanism: &'static str,
        /// Its initial data.
        data: Vec<u8>,
    },
    /// SASLResponse with this data.
    SaslResponse(Vec<u8>),
    /// Logged in.
    Ok,
}

impl Reply {
    /// The whole body of the `p` message to send; `None` when there is nothing to send.
    pub fn body(&self) -> Option<Zeroizing<Vec<u8>>> {
        let body = match self {
            Reply::Nothing | Reply::Ok => None,
            Reply::Password(text) => Some([text.as_slice(), b"\0"].concat()),
            Reply::SaslInitial { mechanism, data } => {
                let length = u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes();
                Some([mechanism.as_bytes(), b"\0", &length, data].concat())
            }
            Reply::SaslResponse(data) => Some(data.clone()),
        };
        body.map(Zeroizing::new)
    }
}

/// Shows the kind only: a reply may be a password.
impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Reply::Nothing => "Nothing",
            Reply::Password(_) => "Password(..)",
            Reply::SaslInitial { .. } => "SaslInitial(..)",
            Reply::SaslResponse(_) => "SaslResponse(..)",
            Reply::Ok => "Ok",
        })
    }
}

/// One login at one server. `Send + 'static`: may be moved to a blocking thread for an expensive step.
#[derive(Debug)]
pub struct ServerAuth {
    context: Arc<AuthContext>,
    user: String,
    secret: Option<Secret>,
    /// What a client proved to have, when the secret is a verifier.
    key: Option<ClientKey>,
    state: State,
    /// How much channel binding is wanted.
    binding: ChannelBinding,
    line: Line,
    /// The password may be wrong: it has been given by a stranger.
    trial: bool,
    /// What a trial has shown to be right, once the server says so.
    shown: Option<(Secret, Option<ClientKey>)>,
}

/// What the connection to the server is, for channel binding.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Line {
    /// No TLS.
    #[default]
    Plain,
    /// TLS, with the server's `tls-server-end-point` (RFC 5929) when its certificate has one.
    Tls(Option<Vec<u8>>),
}

enum State {
    /// Nothing asked yet: the server may also let us in without a password.
    Start,
    /// The password or its hash has been sent.
    PasswordSent,
    /// `client-first-message` has been sent.
    ScramFirst { proving: Proving, with: With },
    /// The proof has been sent; the server owes us its own.
    ScramFinal(Proved),
    /// The server has proved itself; AuthenticationOk must follow.
    Proven,
    /// Logged in, or broken off.
    Done,
}

/// What the proof is made with.
enum With {
    Password(Zeroizing<String>),
    /// A client's key, and the verifier that it belongs to.
    Key(ClientKey, Verifier),
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Start => "Start",
            State::PasswordSent => "PasswordSent",
            State::ScramFirst { .. } => "ScramFirst",
            State::ScramFinal(_) => "ScramFinal",
            State::Proven => "Proven",
            State::Done => "Done",
        })
    }
}

impl ServerAuth {
    /// Begins a login as `user`; cheap. Without a secret only servers that ask for nothing can be logged in to.
    pub fn new(context: Arc<AuthContext>, user: &str, secret: Option<Secret>) -> ServerAuth {
        let secret = secret.filter(|secret| !secret.is_empty());
        let (binding, line) = (ChannelBinding::Prefer, Line::Plain);
        let (user, key, state) = (user.to_owned(), None, State::Start);
        ServerAuth { context, user, secret, key, state, binding, line, trial: false, shown: None }
    }

    /// Where the secret is a verifier: the key that a client proved to have, which answers SCRAM in its place.
    pub fn with_key(self, key: Option<ClientKey>) -> ServerAuth {
        ServerAuth { key, ..self }
    }

    /// The secret may be wrong, and whether it is shall be known ([`Self::shown`]): it pushes nothing out of the cache.
    pub fn on_trial(self, trial: bool) -> ServerAuth {
        ServerAuth { trial, ..self }
    }

    /// After [`Reply::Ok`] in a trial: what the server can be logged in to with from now on, the password itself only where it asks
    /// for that; a verifier with its key after SCRAM. `None`: it asked for nothing, so the password has not been tried.
    pub fn shown(self) -> Option<(Secret, Option<ClientKey>)> {
        let shown = self.shown?;
        if let ((Secret::Scram(verifier), Some(key)), Some(Secret::Plain(password))) = (&shown, &self.secret) {
            let keys = Keys::proven(key, verifier);
            self.context.remember(password, &verifier.salt, verifier.iterations, &keys);
        }
        Some(shown)
    }

    /// Says what the connection is and how much channel binding is wanted.
    pub fn on_line(self, line: Line, binding: ChannelBinding) -> ServerAuth {
        ServerAuth { binding, line, ..self }
    }

    /// `channel_binding=require`: nothing but SCRAM-SHA-256-PLUS to its end will do (check_expected_areq in fe-auth.c).
    fn check_binding(&self, code: u32) -> Result<(), AuthError> {
        match code {
            code::SASL => Ok(()),
            // Behind the beginning only SCRAM goes on, which has been bound.
            _ if self.binding != ChannelBinding::Require || !matches!(self.state, State::Start) => Ok(()),
            code::OK => Err(AuthError::NoBinding("the server asks for no authentication")),
            _ => Err(AuthError::NoBinding("the server does not ask for SCRAM")),
        }
    }

    /// Whether this request makes [`Self::on_request`] run PBKDF2 (a millisecond for PostgreSQL's default, half a
    /// second at worst): then move the machine to a blocking thread for it. False once the keys are cached.
    pub fn is_expensive(&self, code: u32, body: &[u8]) -> bool {
        match (&self.state, code) {
            (State::ScramFirst { with: With::Password(password), .. }, code::SASL_CONTINUE) => {
                match super::scram::parse_server_first(body) {
                    Ok((salt, iterations)) => !self.context.is_cached(password, &salt, iterations),
                    Err(_) => false,
                }
            }
            _ => false,
        }
    }

    /// Takes an `R` message: its code and what follows the code.
    ///
    /// # Errors
    /// The server asks for what cannot be given, breaks the protocol, or fails to prove itself: close the connection.
    pub fn on_request(&mut self, code: u32, body: &[u8]) -> Result<Reply, AuthError> {
        self.check_binding(code)?;
        match (std::mem::replace(&mut self.state, State::Done), code) {
            (State::Start | State::PasswordSent | State::Proven, code::OK) => Ok(Reply::Ok),
            (State::ScramFirst { .. } | State::ScramFinal(_), code::OK) => {
                Err(AuthError::ServerProof("it ended the SCRAM exchange early"))
            }
            (State::Start, code::CLEARTEXT) => {
                let Secret::Plain(password) = self.secret()? else {
                    return Err(self.wrong_secret("cleartext"));
                };
                let reply = Reply::Password(Zeroizing::new(password.clone().into_bytes()));
                self.shown = self.trial.then(|| (Secret::Plain(password.clone()), None));
                self.state = State::PasswordSent;
                Ok(reply)
            }
            (State::Start, code::MD5) => {
                let salt = body.try_into().map_err(|_| AuthError::Malformed("the MD5 salt is not four bytes"))?;
                let hash = self.secret()?.md5_hash(&self.user).ok_or_else(|| self.wrong_secret("MD5"))?;
                self.state = State::PasswordSent;
                let reply = Reply::Password(Zeroizing::new(md5::answer(&hash, salt).into_bytes()));
                self.shown = self.trial.then_some((Secret::Md5(hash), None));
                Ok(reply)
            }
            (State::Start, code::SASL) => self.begin_scram(body),
            (State::ScramFirst { proving, with }, code::SASL_CONTINUE) => {
                if let With::Key(_, verifier) = &with
                    && super::scram::parse_server_first(body)? != (verifier.salt.clone(), verifier.iterations)
                {
                    return Err(AuthError::OtherVerifier(self.user.clone()));
                }
                let (context, trial) = (&self.context, self.trial);
                let mut shown = None;
                let keys = |salt: &[u8], iterations| -> Keys {
                    match &with {
                        With::Password(password) if trial => {
                            let keys = context.keys_unremembered(password, salt, iterations);
                            let verifier = Verifier::from_keys(&keys, salt, iterations);
                            shown = Some((Secret::Scram(verifier), Some(keys.client_key.clone())));
                            keys
                        }
                        With::Password(password) => context.keys(password, salt, iterations),
                        With::Key(key, verifier) => Keys::proven(key, verifier),
                    }
                };
                let (proved, client_final) = proving.finish(body, keys)?;
                self.shown = shown;
                self.state = State::ScramFinal(proved);
                Ok(Reply::SaslResponse(client_final.into_bytes()))
            }
            (State::ScramFinal(proved), code::SASL_FINAL) => {
                proved.verify(body)?;
                self.state = State::Proven;
                Ok(Reply::Nothing)
            }
            (_, code::CLEARTEXT | code::MD5 | code::SASL | code::SASL_CONTINUE | code::SASL_FINAL | code::OK) => {
                Err(AuthError::Unexpected("the server's request is out of turn"))
            }
            (_, other) => Err(AuthError::ServerMethod(method_name(other))),
        }
    }

    fn begin_scram(&mut self, mechanisms: &[u8]) -> Result<Reply, AuthError> {
        // A list of strings, ended by an empty one.
        let offered: Vec<&[u8]> = mechanisms.split(|&b| b == 0).take_while(|name| !name.is_empty()).take(16).collect();
        let plus = offered.contains(&MECHANISM_PLUS.as_bytes());
        let mechanism = self.mechanism(plus)?;
        if mechanism == MECHANISM && !offered.contains(&MECHANISM.as_bytes()) {
            let names: Vec<String> = offered.iter().map(|name| printable(name)).collect();
            return Err(AuthError::ServerMechanisms(names.join(", ")));
        }
        let with = match (self.secret()?, &self.key) {
            (Secret::Plain(password), _) => With::Password(Zeroizing::new(password.clone())),
            (Secret::Scram(verifier), Some(key)) => With::Key(key.clone(), verifier.clone()),
            (Secret::Scram(_), None) => return Err(AuthError::NoKey(self.user.clone())),
            (Secret::Md5(_), _) => return Err(self.wrong_secret("SCRAM-SHA-256")),
        };
        let binding = match &self.line {
            Line::Tls(Some(end_point)) if mechanism == MECHANISM_PLUS => Binding::EndPoint(end_point),
            // Signed with the rest: a server that did offer it knows that somebody took the offer away.
            Line::Tls(Some(_)) if !plus && self.binding != ChannelBinding::Disable => Binding::NotOffered,
            _ => Binding::Cannot,
        };
        let (proving, client_first) = Proving::begin(random()?, binding);
        self.state = State::ScramFirst { proving, with };
        Ok(Reply::SaslInitial { mechanism, data: client_first.into_bytes() })
    }

    /// The mechanism to use when the server offers channel binding, or does not (pg_SASL_init in fe-auth.c).
    fn mechanism(&self, plus: bool) -> Result<&'static str, AuthError> {
        match (&self.line, self.binding) {
            (Line::Plain, _) if plus => {
                Err(AuthError::Malformed("the server offers SCRAM-SHA-256-PLUS over a connection without TLS"))
            }
            (Line::Tls(Some(_)), ChannelBinding::Prefer | ChannelBinding::Require) if plus => Ok(MECHANISM_PLUS),
            (Line::Plain, ChannelBinding::Require) => Err(AuthError::NoBinding("the connection has no TLS")),
            (Line::Tls(None), ChannelBinding::Require) => {
                Err(AuthError::NoBinding("the hash function of the server's certificate is not known (Ed25519?)"))
            }
            (_, ChannelBinding::Require) => Err(AuthError::NoBinding("the server does not offer SCRAM-SHA-256-PLUS")),
            _ => Ok(MECHANISM),
        }
    }

    fn secret(&self) -> Result<&Secret, AuthError> {
        self.secret.as_ref().ok_or_else(|| AuthError::NoPassword(self.user.clone()))
    }

    fn wrong_secret(&self, method: &'static str) -> AuthError {
        let kind = self.secret.as_ref().map_or("nothing", Secret::kind);
        AuthError::WrongSecret { user: self.user.clone(), method, kind }
    }
}

/// Names of the methods that are not spoken.
fn method_name(code: u32) -> String {
    match code {
        2 => "Kerberos V5".into(),
        4 => "crypt".into(),
        6 => "SCM credentials".into(),
        7 | 8 => "GSSAPI".into(),
        9 => "SSPI".into(),
        other => format!("unknown (code {other})"),
    }
}

/// Fuzz body of [`super::fuzz_sasl`]: a hostile server. It must never be believed.
pub(super) fn fuzz(data: &[u8]) {
    let Ok(context) = AuthContext::new() else {
        return;
    };
    let context = Arc::new(context);
    let verifier = Verifier::derive("not in any corpus", b"salt", std::num::NonZeroU32::MIN);
    for script in [[code::SASL, code::SASL_CONTINUE, code::SASL_FINAL], [code::MD5, code::CLEARTEXT, code::OK]] {
        let mut auth = ServerAuth::new(context.clone(), "u", Some(Secret::Plain("p".into())));
        for code in script {
            let offer = [MECHANISM.as_bytes(), b"\0\0"].concat();
            let body = if code == code::SASL { &offer } else { data };
            if auth.is_expensive(code, body) {
                break;
            }
            if auth.on_request(code, body).is_err() {
                break;
            }
        }
        assert!(!matches!(auth.state, State::Proven), "an impostor was believed");
        let mut auth = ServerAuth::new(context.clone(), "u", Some(Secret::Scram(verifier.clone())))
            .with_key(Some(ClientKey([7; super::scram::KEY_LEN])));
        for code in script {
            let offer = [MECHANISM.as_bytes(), b"\0\0"].concat();
            if auth.on_request(code, if code == code::SASL { &offer } else { data }).is_err() {
                break;
            }
        }
        assert!(!matches!(auth.state, State::Proven), "an impostor was believed");
    }
}
