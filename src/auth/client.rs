//! A client proves itself to the pooler (`src/backend/libpq/auth.c`, `CheckPasswordAuth`, `CheckPWChallengeAuth`).

use std::sync::Arc;

use super::context::MockKind;
use super::scram::party::{Checking, Offer};
use super::scram::{ClientKey, MAX_MESSAGE, MECHANISM, MECHANISM_PLUS, Verifier};
use super::{AuthContext, AuthError, Secret, constant_time_eq, md5, random};
use crate::config::AuthMethod;

/// Longest password message (`PG_MAX_AUTH_TOKEN_LENGTH`, `src/include/libpq/auth.h`; cloud tokens are long).
pub const MAX_PASSWORD_MESSAGE: usize = 65_535;

/// What to tell the client next. `Debug` shows the kind only.
#[derive(Clone, PartialEq, Eq)]
pub enum Ask {
    /// Logged in: AuthenticationOk.
    Ok,
    /// AuthenticationCleartextPassword.
    Cleartext,
    /// AuthenticationMD5Password.
    Md5 {
        /// Challenge.
        salt: [u8; 4],
    },
    /// AuthenticationSASL.
    Sasl {
        /// Mechanisms offered.
        mechanisms: &'static [&'static str],
    },
    /// AuthenticationSASLContinue with this data.
    SaslContinue(Vec<u8>),
    /// Logged in: AuthenticationSASLFinal with this data, and AuthenticationOk right behind it.
    SaslFinal(Vec<u8>),
    /// Wrong password or unknown user, which look the same: 28P01, `password authentication failed for user "..."`.
    Refused,
}

impl Ask {
    /// What PostgreSQL calls an answer to it.
    pub fn expected(&self) -> &'static str {
        match self {
            Ask::Sasl { .. } | Ask::SaslContinue(_) => "SASL response",
            _ => "password response",
        }
    }

    /// Longest answer that is read: only a password may be long (`PG_MAX_SASL_MESSAGE_LENGTH`, `src/include/libpq/sasl.h`).
    pub fn longest_answer(&self) -> usize {
        if *self == Ask::Cleartext { MAX_PASSWORD_MESSAGE } else { MAX_MESSAGE }
    }
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Ask::Ok => "Ok",
            Ask::Cleartext => "Cleartext",
            Ask::Md5 { .. } => "Md5(..)",
            Ask::Sasl { .. } => "Sasl",
            Ask::SaslContinue(_) => "SaslContinue(..)",
            Ask::SaslFinal(_) => "SaslFinal(..)",
            Ask::Refused => "Refused",
        })
    }
}

/// One login of one client. `Send + 'static`: may be moved to a blocking thread for an expensive step.
#[derive(Debug)]
pub struct ClientAuth {
    context: Arc<AuthContext>,
    user: String,
    state: State,
    client_key: Option<ClientKey>,
    /// `tls-server-end-point` of our certificate: channel binding is offered.
    end_point: Option<Arc<[u8]>>,
    /// The client chose it.
    plus: bool,
    /// What was asked, when the answer can be held against another secret.
    asked: Option<Asked>,
}

/// A question whose answer does not depend on the secret that is known here.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Cleartext,
    Md5([u8; 4]),
}

enum State {
    /// Asked for the password; `None`: no such user.
    Cleartext(Option<Secret>),
    /// Asked for the hash; what the answer must be, or `None`: nothing can be right.
    Md5(Option<String>),
    /// Offered SCRAM, waiting for SASLInitialResponse; `None`: nothing can be right.
    SaslInitial(Option<Secret>),
    /// The initial response had no data: waiting for `client-first-message`.
    SaslFirst(Option<Secret>),
    /// Waiting for the proof; `doomed` whatever it is.
    SaslProof { checking: Checking, doomed: bool },
    /// Logged in or refused.
    Done,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Cleartext(_) => "Cleartext",
            State::Md5(_) => "Md5",
            State::SaslInitial(_) => "SaslInitial",
            State::SaslFirst(_) => "SaslFirst",
            State::SaslProof { .. } => "SaslProof",
            State::Done => "Done",
        })
    }
}

impl ClientAuth {
    /// Begins a login; cheap. `secret` is what is known of `user`, `None` when the user is unknown: such a user is
    /// taken through the same exchange and refused at its end (at once where the method asks for nothing).
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub fn start(
        context: Arc<AuthContext>,
        method: AuthMethod,
        user: &str,
        secret: Option<&Secret>,
    ) -> Result<(ClientAuth, Ask), AuthError> {
        ClientAuth::start_bound(context, method, user, secret, None)
    }

    /// The same over TLS: `end_point` (RFC 5929's `tls-server-end-point` of our certificate) is what SCRAM may be bound to.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub fn start_bound(
        context: Arc<AuthContext>,
        method: AuthMethod,
        user: &str,
        secret: Option<&Secret>,
        end_point: Option<Arc<[u8]>>,
    ) -> Result<(ClientAuth, Ask), AuthError> {
        let known = secret.filter(|secret| !secret.is_empty());
        let (state, ask) = match method {
            AuthMethod::Any => (State::Done, Ask::Ok),
            // An empty password is still a known user.
            AuthMethod::Trust if secret.is_some() => (State::Done, Ask::Ok),
            // Decided before: who comes here has become one of the others.
            AuthMethod::Trust | AuthMethod::Peer | AuthMethod::Cert | AuthMethod::Hba => (State::Done, Ask::Refused),
            AuthMethod::Plain => (State::Cleartext(known.cloned()), Ask::Cleartext),
            AuthMethod::Md5 if !wants_scram(&context, known) => {
                let salt = random()?;
                let expected = known.and_then(|secret| secret.md5_hash(user)).map(|hash| md5::answer(&hash, salt));
                (State::Md5(expected), Ask::Md5 { salt })
            }
            AuthMethod::Md5 | AuthMethod::ScramSha256 => {
                let able = known.filter(|secret| !matches!(secret, Secret::Md5(_)));
                (State::SaslInitial(able.cloned()), Ask::Sasl { mechanisms: offered(end_point.is_some()) })
            }
        };
        let user = user.to_owned();
        let asked = match ask {
            Ask::Cleartext => Some(Asked::Cleartext),
            Ask::Md5 { salt } => Some(Asked::Md5(salt)),
            _ => None,
        };
        Ok((ClientAuth { context, user, state, client_key: None, end_point, plus: false, asked }, ask))
    }

    /// After [`Ask::Refused`]: takes the same answer again as if `secret` had been known at first. False where that
    /// cannot be, as in SCRAM, whose answer fits one salt only.
    pub fn again_with(&mut self, secret: Option<&Secret>) -> bool {
        let known = secret.filter(|secret| !secret.is_empty());
        self.state = match (self.asked, known) {
            (Some(Asked::Cleartext), _) => State::Cleartext(known.cloned()),
            (Some(Asked::Md5(salt)), Some(secret @ (Secret::Plain(_) | Secret::Md5(_)))) => {
                State::Md5(secret.md5_hash(&self.user).map(|hash| md5::answer(&hash, salt)))
            }
            _ => return false,
        };
        true
    }

    /// Whether the next [`Self::on_response`] runs PBKDF2 (a millisecond or more): then move the machine to a
    /// blocking thread for it. False once the keys of the user are cached, so nearly always.
    pub fn is_expensive(&self, body: &[u8]) -> bool {
        match &self.state {
            State::Cleartext(Some(Secret::Scram(verifier))) => match password(body) {
                Ok(Some(given)) => !self.context.is_cached(given, &verifier.salt, verifier.iterations),
                _ => false,
            },
            State::Cleartext(None) => self.context.mock().kind == MockKind::Verifier,
            State::SaslInitial(Some(Secret::Plain(password))) | State::SaslFirst(Some(Secret::Plain(password))) => {
                !self.context.has_verifier(&self.user, password)
            }
            _ => false,
        }
    }

    /// Takes the body of the client's `p` message: PasswordMessage (its NUL included), SASLInitialResponse or
    /// SASLResponse, whichever was asked for.
    ///
    /// After [`Ask::Ok`], [`Ask::SaslFinal`], [`Ask::Refused`] or an error the exchange is over.
    ///
    /// # Errors
    /// The message is malformed or comes out of turn. A wrong password is `Ok(Ask::Refused)`.
    pub fn on_response(&mut self, body: &[u8]) -> Result<Ask, AuthError> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Cleartext(secret) => {
                let given = password(body)?;
                Ok(verdict(given.is_some_and(|given| self.check_cleartext(secret.as_ref(), given))))
            }
            State::Md5(expected) => {
                let given = password(body)?.unwrap_or_default();
                // A value of the same length keeps the work the same for unknown users.
                let wanted = expected.as_deref().unwrap_or("md500000000000000000000000000000000");
                let equal = constant_time_eq(given.as_bytes(), wanted.as_bytes());
                Ok(verdict(equal && expected.is_some()))
            }
            State::SaslInitial(secret) => match self.sasl_initial(body)? {
                Some(data) => self.begin_scram(secret, data),
                None => {
                    self.state = State::SaslFirst(secret);
                    Ok(Ask::SaslContinue(Vec::new()))
                }
            },
            State::SaslFirst(secret) => self.begin_scram(secret, body),
            State::SaslProof { checking, doomed } => match checking.finish(body)? {
                Some(checked) if !doomed => {
                    self.client_key = Some(checked.client_key);
                    Ok(Ask::SaslFinal(checked.server_final.into_bytes()))
                }
                _ => Ok(Ask::Refused),
            },
            State::Done => Err(AuthError::Unexpected("the exchange is over")),
        }
    }

    /// The key that the client proved to have, after a successful login against a verifier: a server that keeps the same verifier
    /// (same salt, same iterations) can be logged in to with it, without the password.
    pub fn client_key(&self) -> Option<&ClientKey> {
        self.client_key.as_ref()
    }

    /// The data of a SASLInitialResponse, its choice of a mechanism noted.
    fn sasl_initial<'b>(&mut self, body: &'b [u8]) -> Result<Option<&'b [u8]>, AuthError> {
        let (mechanism, rest) = mechanism(body)?;
        self.plus = mechanism == MECHANISM_PLUS.as_bytes();
        if !offered(self.end_point.is_some()).iter().any(|m| m.as_bytes() == mechanism) {
            return Err(AuthError::Mechanism);
        }
        initial_data(rest)
    }

    fn begin_scram(&mut self, secret: Option<Secret>, client_first: &[u8]) -> Result<Ask, AuthError> {
        let verifier = match &secret {
            Some(Secret::Scram(verifier)) => verifier.clone(),
            Some(Secret::Plain(password)) => self.context.verifier(&self.user, password),
            Some(Secret::Md5(_)) | None => self.context.mock_verifier(&self.user),
        };
        let doomed = !matches!(secret, Some(Secret::Scram(_) | Secret::Plain(_)));
        let offer = Offer { end_point: self.end_point.as_deref(), plus: self.plus };
        let (checking, server_first) = Checking::begin(client_first, verifier, random()?, offer)?;
        self.state = State::SaslProof { checking, doomed };
        Ok(Ask::SaslContinue(server_first.into_bytes()))
    }

    /// `plain_crypt_verify` in `src/backend/libpq/crypt.c`.
    fn check_cleartext(&mut self, secret: Option<&Secret>, given: &str) -> bool {
        match secret {
            Some(Secret::Plain(password)) => {
                // Digests: neither length nor content shows in the time.
                self.context.tag(&[given.as_bytes()]) == self.context.tag(&[password.as_bytes()])
            }
            Some(Secret::Md5(hash)) => {
                let wanted = hash.to_ascii_lowercase();
                constant_time_eq(md5::hash_password(given, &self.user).as_bytes(), wanted.as_bytes())
            }
            Some(Secret::Scram(verifier)) => {
                self.client_key = self.context.check(verifier, given);
                self.client_key.is_some()
            }
            None => {
                match self.context.mock().kind {
                    MockKind::Verifier => self.context.check(&self.context.mock_verifier(&self.user), given).is_some(),
                    MockKind::Plain => self.context.tag(&[given.as_bytes()]) == self.context.tag(&[b"mock"]),
                };
                false
            }
        }
    }
}

/// PostgreSQL's order: the better one first.
fn offered(binding: bool) -> &'static [&'static str] {
    if binding { &[MECHANISM_PLUS, MECHANISM] } else { &[MECHANISM] }
}

/// `md5` as a method means SCRAM for users of whom a verifier is known.
fn wants_scram(context: &AuthContext, known: Option<&Secret>) -> bool {
    match known {
        Some(secret) => matches!(secret, Secret::Scram(_)),
        None => context.mock().kind == MockKind::Verifier,
    }
}

fn verdict(right: bool) -> Ask {
    if right { Ask::Ok } else { Ask::Refused }
}

/// PasswordMessage: one string that fills the message. `None`: no configured password can be equal to it, because it
/// is not UTF-8.
///
/// # Errors
/// It is malformed, or empty.
pub fn password(body: &[u8]) -> Result<Option<&str>, AuthError> {
    if body.len() > MAX_PASSWORD_MESSAGE {
        return Err(AuthError::Packet("invalid password packet size"));
    }
    match body.split_last() {
        Some((0, [])) => Err(AuthError::EmptyPassword),
        Some((0, text)) if !text.contains(&0) => Ok(std::str::from_utf8(text).ok()),
        _ => Err(AuthError::Packet("invalid password packet size")),
    }
}

/// SASLInitialResponse: the mechanism, and what follows it.
fn mechanism(body: &[u8]) -> Result<(&[u8], &[u8]), AuthError> {
    let end = body.iter().position(|&b| b == 0).ok_or(AuthError::Packet("invalid string in message"))?;
    Ok((&body[..end], &body[end + 1..]))
}

/// The rest of it: length (-1: none) and data.
fn initial_data(rest: &[u8]) -> Result<Option<&[u8]>, AuthError> {
    const SHORT: AuthError = AuthError::Packet("insufficient data left in message");
    let (length, data) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
    match usize::try_from(i32::from_be_bytes(*length)) {
        Ok(length) if length == data.len() => Ok(Some(data)),
        Err(_) if length == &[0xff; 4] && data.is_empty() => Ok(None),
        Ok(length) if length > data.len() => Err(SHORT),
        Err(_) if length != &[0xff; 4] => Err(SHORT),
        _ => Err(AuthError::Packet("invalid message format")),
    }
}

/// Fuzz body of [`super::fuzz_sasl`]: `data` as the first and second answer of every method, known and unknown user.
pub(super) fn fuzz(data: &[u8]) {
    use std::num::NonZeroU32;
    let Ok(context) = AuthContext::new() else {
        return;
    };
    let context = Arc::new(context);
    let cut = data.first().map_or(0, |&b| usize::from(b).min(data.len()));
    let (first, second) = data.split_at(cut);
    // One iteration: the fuzzer should not spend its time in PBKDF2.
    let verifier = Secret::Scram(Verifier::derive("not in any corpus", b"salt", NonZeroU32::MIN));
    let md5 = Secret::Md5("md5ffffffffffffffffffffffffffffffff".into());
    for secret in [Some(&verifier), Some(&md5), None] {
        for method in [AuthMethod::Plain, AuthMethod::Md5, AuthMethod::ScramSha256] {
            for (body, end_point) in
                [(first, None), (data, None), (first, Some(Arc::from([7; 32]))), (data, Some(Arc::from([7; 32])))]
            {
                let Ok((mut auth, _)) = ClientAuth::start_bound(context.clone(), method, "u", secret, end_point) else {
                    return;
                };
                if matches!(auth.state, State::Cleartext(Some(Secret::Scram(_)))) && auth.is_expensive(body) {
                    assert!(auth.on_response(body) != Ok(Ask::Ok), "logged in without the password");
                    continue;
                }
                for body in [body, second] {
                    let answer = auth.on_response(body);
                    assert!(!matches!(answer, Ok(Ask::Ok | Ask::SaslFinal(_))), "logged in without the password");
                }
            }
        }
    }
}
