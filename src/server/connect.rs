//! Dialling and logging in to PostgreSQL.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;

use super::encrypt::{self, Begun, Progress, Way};
use super::prove::authenticate;
use super::{InMessage, Learnt, ParamSet, Printed, Replay, Server, ServerInfo, ServerKey, ServerStatements};
use crate::auth::{AuthContext, AuthError, ClientKey, Secret, ServerAuth};
use crate::net::dial::{Reached, dial};
use crate::net::{Aside, Connector, Socket};
use crate::wire::error::{ErrorFields, Severity, code, field, sqlstate};
use crate::wire::tag::backend;
use crate::wire::{Frame, Tracker, control, frame};

/// Longest message taken during login (an ErrorResponse or a SASL challenge).
const MAX_LOGIN_MESSAGE: usize = 64 * 1024;

/// Longest ErrorResponse in answer to a startup packet (MAX_ERRLEN, fe-connect.c).
const MAX_FIRST_ERROR: u32 = 30_000;

/// A secret that a reload may change.
pub type Renewable = Arc<ArcSwapOption<Secret>>;

/// A server to log in to.
#[derive(Clone)]
pub struct Target {
    /// Host name, address, or directory of a Unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database name at the server.
    pub dbname: String,
    /// User name at the server.
    pub user: String,
    /// What the configuration knows of that user; a reload may bring another secret.
    pub secret: Renewable,
    /// What the logins of clients say of that user, where they may.
    pub learnt: Option<Arc<Learnt>>,
    /// What a program prints: nothing else counts.
    pub printed: Option<Arc<Printed>>,
    /// How it is asked for TLS.
    pub tls: Arc<Connector>,
    /// Where keys are derived for logins at servers: how many iterations there are, servers say.
    pub aside: Arc<Aside>,
    /// Time allowed for all of it.
    pub timeout: Duration,
}

impl Target {
    /// What a client has proved, where servers are logged in to with nothing else.
    pub fn only_learnt(&self) -> Option<Arc<super::Proof>> {
        let configured = self.printed.is_some() || self.secret.load().is_some();
        self.learnt.as_ref().filter(|_| !configured).and_then(|learnt| learnt.get())
    }

    /// Whether nothing is known to log in with, though clients' logins may tell something.
    pub fn waits_for_proof(&self) -> bool {
        self.learnt.as_ref().is_some_and(|learnt| learnt.get().is_none())
            && self.printed.is_none()
            && self.secret.load().is_none()
    }

    /// With what to log in now: what is configured, with the key that fits it; where nothing is, what the newest client's
    /// login was checked against.
    fn credentials(&self) -> (Option<Secret>, Option<ClientKey>) {
        let newest = self.learnt.as_ref().and_then(|learnt| learnt.get());
        match (self.secret.load().as_deref(), newest) {
            (None, None) => (None, None),
            (None, Some(proof)) => (Some(proof.secret.clone()), proof.key.clone()),
            (Some(secret), proof) => {
                let key = proof.filter(|proof| proof.secret == *secret).and_then(|proof| proof.key.clone());
                (Some(secret.clone()), key)
            }
        }
    }
}

/// Why a login at a server failed.
#[derive(Clone, Debug)]
pub enum ConnectError {
    /// No connection.
    Unreachable(String),
    /// `server_connect_timeout` passed.
    Timeout,
    /// The server refused: its own words.
    Refused(ErrorFields),
    /// TLS did not come about.
    Tls {
        /// What went wrong.
        fault: String,
        /// What to do about it.
        mend: &'static str,
    },
    /// We could not authenticate.
    Auth(String),
    /// The server does not speak the protocol.
    Protocol(&'static str),
}

impl ConnectError {
    /// What a client is told.
    pub fn fields(&self, target: &Target) -> ErrorFields {
        let at = format!("server \"{}\", port {}", target.host, target.port);
        match self {
            ConnectError::Refused(e) => e.clone(),
            ConnectError::Unreachable(e) => {
                ErrorFields::fatal(sqlstate::CANNOT_CONNECT_NOW, format!("could not connect to {at}: {e}"))
                    .hint("pgsluice goes on trying; check that the database is up and reachable from here.")
            }
            ConnectError::Timeout => {
                ErrorFields::fatal(sqlstate::CANNOT_CONNECT_NOW, format!("login at {at} timed out"))
                    .hint("Raise server_connect_timeout if the database is only slow to accept.")
            }
            ConnectError::Tls { fault, mend } => {
                ErrorFields::fatal(sqlstate::CANNOT_CONNECT_NOW, format!("TLS with {at} failed: {fault}")).hint(*mend)
            }
            ConnectError::Auth(e) => {
                ErrorFields::fatal(sqlstate::INVALID_AUTHORIZATION, format!("pgsluice could not log in at {at}: {e}"))
            }
            ConnectError::Protocol(e) => {
                ErrorFields::fatal(sqlstate::PROTOCOL_VIOLATION, format!("{at} does not speak PostgreSQL: {e}"))
            }
        }
    }

    /// Of two failed ways the error that says more: the server's own words before those about TLS.
    fn or_first(self, first: ConnectError) -> ConnectError {
        if matches!(self, ConnectError::Refused(_) | ConnectError::Auth(_)) { self } else { first }
    }

    /// In a few words, for the log.
    pub fn text(&self) -> String {
        match self {
            ConnectError::Unreachable(e) | ConnectError::Auth(e) => e.clone(),
            ConnectError::Tls { fault, mend } => format!("TLS failed: {fault} ({mend})"),
            ConnectError::Refused(e) => e.message.clone(),
            ConnectError::Protocol(e) => (*e).to_owned(),
            ConnectError::Timeout => "timed out".to_owned(),
        }
    }

    /// Label for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            ConnectError::Unreachable(_) => "refused",
            ConnectError::Timeout => "timeout",
            ConnectError::Refused(e) if e.code.starts_with("28") => "auth",
            ConnectError::Auth(_) => "auth",
            _ => "error",
        }
    }

    /// Whether the password, or what stands for one, is wrong: the same tried again is refused again.
    pub fn is_wrong_password(&self) -> bool {
        match self {
            ConnectError::Refused(e) => e.code == sqlstate::INVALID_PASSWORD,
            ConnectError::Auth(_) => true,
            _ => false,
        }
    }

    /// Whether it lies in who asks, not in the server: no reason to fail other users of the pool for long.
    pub fn is_callers_fault(&self) -> bool {
        matches!(self, ConnectError::Refused(e) if e.code.starts_with("22") || e.code.starts_with("42"))
    }
}

impl From<io::Error> for ConnectError {
    fn from(e: io::Error) -> Self {
        ConnectError::Unreachable(e.to_string())
    }
}

impl From<AuthError> for ConnectError {
    fn from(e: AuthError) -> Self {
        ConnectError::Auth(e.to_string())
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Connects and logs in, with `startup` as parameters beside user and database. Cancel safe: a half-made
/// connection is closed.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(
    target: &Target,
    startup: &Arc<ParamSet>,
    auth: &Arc<AuthContext>,
    worker: usize,
) -> Result<Server, ConnectError> {
    let Some(printed) = &target.printed else {
        return login_in_time(target, startup, auth, worker, &mut Progress::default()).await;
    };
    loop {
        // It has a time limit of its own.
        let (secret, fresh) = printed.get(target).await.map_err(ConnectError::Auth)?;
        let with = Target {
            secret: Arc::new(ArcSwapOption::from_pointee(secret)),
            learnt: None,
            printed: None,
            ..target.clone()
        };
        match login_in_time(&with, startup, auth, worker, &mut Progress::default()).await {
            Err(e) if e.label() == "auth" => {
                printed.forget();
                if fresh {
                    return Err(e);
                }
            }
            done => return done,
        }
    }
}

/// How far it came is in `progress`.
pub(super) async fn login_in_time(
    target: &Target,
    startup: &Arc<ParamSet>,
    auth: &Arc<AuthContext>,
    worker: usize,
    progress: &mut Progress,
) -> Result<Server, ConnectError> {
    tokio::time::timeout(target.timeout, Box::pin(login(target, startup, auth, worker, progress)))
        .await
        .unwrap_or(Err(ConnectError::Timeout))
}

async fn login(
    target: &Target,
    startup: &Arc<ParamSet>,
    auth: &Arc<AuthContext>,
    worker: usize,
    progress: &mut Progress,
) -> Result<Server, ConnectError> {
    let (way, other) = encrypt::ways(&target.tls, &target.host);
    match (log_in(target, startup, auth, worker, way, progress).await, other) {
        (Err(e), Some(other)) if encrypt::other_way_may_do(way, &e, progress) => {
            tracing::debug!(target: "pgsluice::server", host = %target.host, error = %e.text(), "trying again {}", if other == Way::Plain { "without TLS" } else { "with TLS" });
            // The first error says more when both ways fail.
            log_in(target, startup, auth, worker, other, progress).await.map_err(|second| second.or_first(e))
        }
        (done, _) => done,
    }
}

async fn log_in(
    target: &Target,
    startup: &Arc<ParamSet>,
    auth: &Arc<AuthContext>,
    worker: usize,
    way: Way,
    progress: &mut Progress,
) -> Result<Server, ConnectError> {
    let (mut socket, reached) = dial(&target.host, target.port).await?;
    let begun = encrypt::encrypt(&mut socket, &target.tls, &target.host, way).await?;
    progress.tls = socket.tls().is_some();
    let mut io = Messages::new(socket, &[]);
    if begun == Begun::Error {
        return Err(io.rest_of_error().await);
    }
    let mut out = Vec::new();
    let names = [("user", target.user.as_str()), ("database", target.dbname.as_str())];
    // Ours last: of two with one name the last counts.
    control::startup(&mut out, startup.iter().chain(names));
    io.socket.send_all(&out).await?;
    io.forked().await?;
    let (secret, key) = target.credentials();
    let machine = ServerAuth::new(Arc::clone(auth), &target.user, secret)
        .with_key(key)
        .on_trial(progress.trial)
        .on_line(encrypt::line(&io.socket), target.tls.settings().channel_binding);
    authenticate(&mut io, target, machine, progress).await?;
    welcome(io, target, reached, startup, worker).await
}

async fn welcome(
    mut io: Messages,
    target: &Target,
    reached: Reached,
    startup: &Arc<ParamSet>,
    worker: usize,
) -> Result<Server, ConnectError> {
    let (mut reported, mut notices) = (Vec::new(), Vec::new());
    let mut key = (0, vec![0; 4]);
    loop {
        let (tag, body) = io.next().await?;
        let truncated = |_| ConnectError::Protocol("truncated message during login");
        match tag {
            backend::PARAMETER_STATUS => {
                let (name, value) = control::read_parameter_status(&body).map_err(truncated)?;
                if reported.len() < super::params::MAX_REPORTED {
                    reported.push((name.into(), value.into()));
                }
            }
            backend::BACKEND_KEY_DATA => {
                let (pid, secret) = control::read_backend_key(&body).map_err(truncated)?;
                key = (pid, secret.to_vec());
            }
            backend::READY_FOR_QUERY => break,
            backend::ERROR => return Err(refused(&body)),
            backend::NOTICE => super::keep_notice(&mut notices, &body),
            _ => return Err(ConnectError::Protocol("unexpected message during login")),
        }
    }
    if io.at != io.buf.len() {
        return Err(ConnectError::Protocol("the server said more than was asked"));
    }
    let tls = io.socket.tls().map(|tls| tls.summary());
    let tls_to = tls.as_ref().map(|_| (Arc::clone(&target.tls), target.host.as_str().into()));
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    Ok(Server {
        socket: io.socket,
        worker,
        info: Arc::new(ServerInfo::new(NEXT_ID.fetch_add(1, Relaxed), key.0, unix).with_tls(tls.unwrap_or_default())),
        key: Arc::new(ServerKey::new(reached, key.0, key.1, tls_to)),
        tracker: Tracker::new(),
        statements: ServerStatements::default(),
        unnamed_of: 0,
        startup: Arc::clone(startup),
        params: Arc::default(),
        replay: Replay::default(),
        reported,
        notices,
        said: Vec::new(),
        unsent: Vec::new(),
        input: None,
        in_message: InMessage::default(),
        dirty: false,
        expires_us: u64::MAX,
        idle_since_us: 0,
    })
}

/// The server's own error, its fields kept.
pub fn refused(body: &[u8]) -> ConnectError {
    ConnectError::Refused(fields_of(body, Severity::Fatal))
}

/// The fields of an ErrorResponse that a client is told.
pub fn fields_of(body: &[u8], severity: Severity) -> ErrorFields {
    let text = |f| field(body, f).map(|v| String::from_utf8_lossy(v).into_owned());
    ErrorFields {
        severity,
        code: String::from_utf8_lossy(&code(body)).into_owned(),
        message: text(b'M').unwrap_or_else(|| "unknown error".to_owned()),
        detail: text(b'D'),
        hint: text(b'H'),
    }
}

/// Whole messages off a socket, for the phases where they are small.
pub(super) struct Messages {
    pub(super) socket: Socket,
    buf: Vec<u8>,
    at: usize,
    /// Longest message taken.
    limit: usize,
}

impl Messages {
    pub(super) fn new(socket: Socket, rest: &[u8]) -> Self {
        Messages { socket, buf: rest.to_vec(), at: 0, limit: MAX_LOGIN_MESSAGE }
    }

    /// Takes messages of this length, too.
    pub(super) fn up_to(self, limit: usize) -> Self {
        Messages { limit, ..self }
    }

    /// Whether bytes beyond the last message have come.
    pub(super) fn has_more(&self) -> bool {
        self.at < self.buf.len()
    }

    /// The next message, its body copied. Cancel safe: bytes stay in `self`.
    pub(super) async fn next(&mut self) -> Result<(u8, Vec<u8>), ConnectError> {
        loop {
            let rest = &self.buf[self.at..];
            let head = Frame::peek(rest).map_err(|_| ConnectError::Protocol("impossible message length"))?;
            if let Some(f) = head {
                if f.len > self.limit {
                    return Err(ConnectError::Protocol("message too long for a login"));
                }
                if rest.len() >= f.len {
                    let body = rest[frame::HEADER..f.len].to_vec();
                    self.at += f.len;
                    return Ok((f.tag, body));
                }
            }
            self.buf.drain(..self.at);
            self.at = 0;
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), ConnectError> {
        let mut chunk = [0u8; 2048];
        let n = self.socket.recv(&mut chunk).await?;
        if n == 0 {
            return Err(ConnectError::Unreachable("server closed the connection unexpectedly".to_owned()));
        }
        self.buf.extend_from_slice(&chunk[..n]);
        Ok(())
    }

    /// The error whose first byte has been read.
    async fn rest_of_error(&mut self) -> ConnectError {
        self.buf.push(backend::ERROR);
        let message = async {
            self.forked().await?;
            self.next().await
        };
        message.await.map_or_else(|e| e, |(_, body)| refused(&body))
    }

    /// Waits for the first answer, and takes the one that is no message: a postmaster that cannot fork says `E` and a
    /// text, as in protocol 2 (report_fork_failure_to_client, postmaster.c). Told, as libpq does (fe-connect.c), by a
    /// length that cannot be.
    async fn forked(&mut self) -> Result<(), ConnectError> {
        loop {
            match *self.buf {
                [backend::ERROR, a, b, c, d, ..] if u32::from_be_bytes([a, b, c, d]) > MAX_FIRST_ERROR => break,
                [backend::ERROR, ..] if self.buf.len() < frame::HEADER => self.fill().await?,
                [] => self.fill().await?,
                _ => return Ok(()),
            }
        }
        while !self.buf.contains(&0) && self.buf.len() < MAX_LOGIN_MESSAGE && self.fill().await.is_ok() {}
        let text = self.buf[1..].split(|b| *b == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(text).trim_end().to_owned();
        Err(ConnectError::Refused(ErrorFields::fatal(sqlstate::INSUFFICIENT_RESOURCES, text)))
    }
}
