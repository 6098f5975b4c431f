//! From the first packet to ReadyForQuery: encryption, cancel requests, authentication, the welcome.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use zeroize::{Zeroize, Zeroizing};

use super::parameters::Setting;
use super::pins::Pins;
use super::registry::{ClientState, Place, Who};
use super::replication::{self, Link};
use super::resets::Resets;
use super::session::{Session, farewell};
use super::strangers::{Refusal, Stranger};
use super::tried::reported;
use super::unnamed::Unnamed;
use super::{Worker, application, encrypt, notices, observe, prove};
use crate::auth;
use crate::cancel::{LONG_SECRET, Registration};
use crate::config::{ListenAddr, PoolMode};
use crate::insight::SessionInsight;
use crate::net::clock::now_us;
use crate::net::{PeerAddr, Socket};
use crate::pool::replication::Dedicated;
use crate::pool::welcome::Reported;
use crate::pool::{Checkout, Pool, Unknown};
use crate::server::{InMessage, ParamSet, Proof};
use crate::sql::LexSettings;
use crate::wire::error::{ErrorFields, sqlstate};
use crate::wire::startup::{self, Replication, Startup};
use crate::wire::tag::frontend;
use crate::wire::{Frame, HEADER, TxStatus, control};

/// Databases that are the console.
pub const CONSOLE: [&str; 2] = ["pgsluice", "pgbouncer"];

/// A client logged in to the console.
pub struct Console {
    /// Its socket.
    pub socket: Socket,
    /// What it sent behind its login.
    pub input: Vec<u8>,
    /// Its place among the clients.
    pub place: Place,
    /// May act, not only look.
    pub admin: bool,
}

/// How a connection's login ended.
pub enum Outcome {
    /// It is over.
    Done,
    /// It became a session: run it in a task of its own, which is smaller than the login's, with the server it has
    /// got already (session pooling).
    Session(Box<Session>, Option<Checkout>),
    /// It is for the console.
    Console(Box<Console>),
}

/// Why a login failed; the client has been told.
pub(super) enum Failed {
    /// By place in [`super::registry::LOGIN_RESULTS`], with what to say.
    Told(usize, ErrorFields),
    /// The TLS handshake failed; TLS told the client.
    Handshake,
    /// The client went away, or it was a cancel request.
    Silent,
}

pub(super) const AUTH: usize = 1;
pub(super) const REFUSED: usize = 2;
const TIMEOUT: usize = 3;
pub(super) const ERROR: usize = 4;

/// Takes one accepted connection through its login.
pub async fn serve(w: Rc<Worker>, socket: Socket, stranger: Stranger, peer: PeerAddr, local: ListenAddr) -> Outcome {
    let began = now_us();
    let place = w.process.clients.enter(peer, local, began);
    let limit = w.process.config.timeouts.client_login_timeout;
    let mut io = Io { socket, buf: Vec::new(), end_point: None, mute: false };
    let greeted = tokio::select! {
        greeted = within(limit, Box::pin(login(&w, &mut io, &place))) => greeted,
        () = stranger.must_leave() => Err(turned_away(&w, Refusal::MadeRoom)),
    };
    // Whatever comes now, it is no stranger any more.
    drop(stranger);
    let ready = match greeted {
        Ok(Greeted::Console { admin }) => Ok(Ready::Console { admin }),
        // Its wait for a server has a limit of its own.
        Ok(Greeted::Client(startup, proof)) => Box::pin(welcome(&w, &mut io, &place, startup, proof)).await,
        Err(failed) => Err(failed),
    };
    match ready {
        Err(Failed::Silent) => Outcome::Done,
        Err(Failed::Handshake) => {
            w.process.clients.count_login(ERROR, 0);
            Outcome::Done
        }
        Err(Failed::Told(result, fields)) => {
            w.process.clients.count_login(result, 0);
            let _ = tokio::time::timeout(Duration::from_secs(1), io.say(|out| control::error(out, &fields))).await;
            Outcome::Done
        }
        Ok(ready) => {
            w.process.clients.count_login(0, now_us() - began);
            match ready {
                Ready::Console { admin } => {
                    Outcome::Console(Box::new(Console { socket: io.socket, input: io.buf, place, admin }))
                }
                Ready::Session(login) => {
                    let (session, server) = session(w, io, place, *login);
                    Outcome::Session(Box::new(session), server)
                }
                Ready::Replication(opened) => {
                    let (dedicated, registration) = *opened;
                    let Io { socket, buf: input, .. } = io;
                    Box::pin(Link { w, socket, place, registration, dedicated, input }.run()).await;
                    Outcome::Done
                }
            }
        }
    }
}

/// `client_login_timeout` for a part of the login; zero is none.
async fn within<T>(limit: Duration, part: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    if limit.is_zero() {
        return part.await;
    }
    let late = |_| Failed::Told(TIMEOUT, ErrorFields::fatal(sqlstate::PROTOCOL_VIOLATION, "client_login_timeout"));
    tokio::time::timeout(limit, part).await.map_err(late)?
}

/// Who has proven to be who it says.
enum Greeted {
    Console {
        admin: bool,
    },
    /// And what servers may be logged in to with.
    Client(Startup, Option<Box<Proof>>),
}

enum Ready {
    Console { admin: bool },
    Session(Box<LoggedIn>),
    Replication(Box<(Dedicated, Registration)>),
}

struct LoggedIn {
    pool: Arc<Pool>,
    startup: Arc<ParamSet>,
    registration: Registration,
    reported: Arc<Reported>,
    /// Session pooling: the server of this session.
    server: Option<Checkout>,
}

/// The socket and what has been read too much, while messages are few and small.
pub(super) struct Io {
    pub(super) socket: Socket,
    pub(super) buf: Vec<u8>,
    /// With TLS: what SCRAM may be bound to.
    pub(super) end_point: Option<Arc<[u8]>>,
    /// A TLS handshake is half done: nothing can be said.
    pub(super) mute: bool,
}

impl Io {
    pub(super) async fn fill(&mut self) -> Result<(), Failed> {
        let mut chunk = [0u8; 1024];
        let n = self.socket.recv(&mut chunk).await.map_err(|_| Failed::Silent)?;
        if n == 0 {
            return Err(Failed::Silent);
        }
        self.buf.extend_from_slice(&chunk[..n]);
        // It may be a password.
        chunk.zeroize();
        Ok(())
    }

    pub(super) async fn say(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.mute {
            return;
        }
        let mut out = Vec::new();
        write(&mut out);
        let _ = self.socket.send_all(&out).await;
    }

    /// The body of the next `p` message, the answer to `ask`.
    pub(super) async fn password(&mut self, ask: &auth::Ask) -> Result<Zeroizing<Vec<u8>>, Failed> {
        loop {
            let violation = |m: &str| Failed::Told(ERROR, ErrorFields::fatal(sqlstate::PROTOCOL_VIOLATION, m));
            if let Some(f) = Frame::peek(&self.buf).map_err(|_| violation("invalid message length"))? {
                if f.tag != frontend::PASSWORD {
                    return Err(violation(&format!("expected {}, got message type {}", ask.expected(), f.tag)));
                }
                if f.len - HEADER > ask.longest_answer() {
                    return Err(violation("password message is too long"));
                }
                if self.buf.len() >= f.len {
                    let body = Zeroizing::new(self.buf[HEADER..f.len].to_vec());
                    self.buf[..f.len].zeroize();
                    self.buf.drain(..f.len);
                    return Ok(body);
                }
            }
            self.fill().await?;
        }
    }
}

async fn login(w: &Rc<Worker>, io: &mut Io, place: &Place) -> Result<Greeted, Failed> {
    let s = encrypt::first_packets(&w.process, io, &place.info).await?;
    place.info.set_who(Who {
        user: s.user.clone(),
        database: s.database.clone(),
        application: parameter(&s, "application_name"),
    });
    if s.minor > startup::NEWEST_MINOR || !s.unknown_options.is_empty() {
        let minor = s.minor.min(startup::NEWEST_MINOR);
        io.say(|out| control::negotiate(out, minor, s.unknown_options.clone())).await;
    }
    let console = CONSOLE.contains(&s.database.as_str());
    if w.process.draining.load(Relaxed) && !console {
        return Err(Failed::Told(REFUSED, farewell()));
    }
    let most = if console { usize::MAX } else { w.process.config.max_client_conn };
    // As early as PostgreSQL says so; who logs in meanwhile is seen below.
    if w.process.clients.admitted() >= most {
        return Err(turned_away(w, Refusal::Full));
    }
    let proof = prove::authenticate(w, io, place, &s).await?;
    if !place.admit(most) {
        return Err(turned_away(w, Refusal::Full));
    }
    if console {
        return welcome_console(w, io, place, &s).await;
    }
    Ok(Greeted::Client(s, proof))
}

fn turned_away(w: &Worker, refusal: Refusal) -> Failed {
    w.process.strangers.count_refusal(refusal);
    Failed::Told(REFUSED, refusal.fields())
}

fn parameter(s: &Startup, name: &str) -> String {
    s.parameters.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default()
}

async fn welcome_console(w: &Rc<Worker>, io: &mut Io, place: &Place, s: &Startup) -> Result<Greeted, Failed> {
    let admin = w.process.config.admin_users.contains(&s.user);
    if !admin && !w.process.config.stats_users.contains(&s.user) {
        return Err(Failed::Told(
            AUTH,
            ErrorFields::fatal(sqlstate::INVALID_AUTHORIZATION, format!("user \"{}\" may not use the console", s.user))
                .hint("Add the user to admin_users or stats_users."),
        ));
    }
    place.info.set_state(ClientState::Active, 0, now_us());
    let pid: [u8; 4] = auth::random().map_err(|_| Failed::Silent)?;
    let secret: [u8; LONG_SECRET] = auth::random().map_err(|_| Failed::Silent)?;
    let secret = if s.minor >= 2 { &secret[..] } else { &secret[..4] };
    io.say(|out| {
        control::authentication(out, &control::Ask::Ok);
        let version = concat!(env!("CARGO_PKG_VERSION"), "/pgsluice");
        for (n, v) in [
            ("server_version", version),
            ("client_encoding", "UTF8"),
            ("server_encoding", "UTF8"),
            ("DateStyle", "ISO, MDY"),
            ("TimeZone", "UTC"),
            ("standard_conforming_strings", "on"),
            ("is_superuser", "off"),
            ("integer_datetimes", "on"),
        ] {
            control::parameter_status(out, n.as_bytes(), v.as_bytes());
        }
        control::backend_key(out, u32::from_be_bytes(pid) & 0x7fff_ffff, secret);
        control::ready(out, TxStatus::Idle);
    })
    .await;
    Ok(Greeted::Console { admin })
}

/// A replication client: its server connection stands when it is welcomed.
async fn welcome_replication(
    w: &Rc<Worker>,
    io: &mut Io,
    place: &Place,
    s: &Startup,
    kind: Replication,
    proof: Option<Box<Proof>>,
) -> Result<Ready, Failed> {
    let dedicated = tokio::select! {
        opened = replication::open(w, place, s, kind, proof) => opened.map_err(|fields| Failed::Told(ERROR, fields))?,
        () = io.socket.closed() => return Err(Failed::Silent),
    };
    let pid = dedicated.server.key.pid();
    let registration = w.process.cancels.register(Some(pid), s.minor >= 2).map_err(|_| Failed::Silent)?;
    let mut out = Vec::with_capacity(512);
    control::authentication(&mut out, &control::Ask::Ok);
    notices::put(&mut out, &dedicated.server.notices, &dedicated.server.startup);
    for (name, value) in &dedicated.server.reported {
        control::parameter_status(&mut out, name, value);
    }
    finish(w, io, out, &registration).await?;
    Ok(Ready::Replication(Box::new((dedicated, registration))))
}

async fn welcome(
    w: &Rc<Worker>,
    io: &mut Io,
    place: &Place,
    s: Startup,
    proof: Option<Box<Proof>>,
) -> Result<Ready, Failed> {
    if let Some(kind) = s.replication {
        return welcome_replication(w, io, place, &s, kind, proof).await;
    }
    let pool = w.process.pools.get(&s.database, &s.user).map_err(|e| match e {
        Unknown::Database => Failed::Told(REFUSED, ErrorFields::fatal(sqlstate::NO_SUCH_DATABASE, format!("database \"{}\" does not exist", s.database))
            .hint("pgsluice knows the databases of its configuration; add a section [databases.NAME] or [databases.\"*\"].")),
        Unknown::TooMany => Failed::Told(REFUSED, ErrorFields::fatal(sqlstate::TOO_MANY_CONNECTIONS, "too many pools are in use")),
    })?;
    if let Some(proof) = proof {
        pool.learn(*proof);
    }
    let startup = w
        .process
        .pools
        .shared()
        .params
        .intern(ParamSet::from_pairs(s.parameters.iter().map(|(k, v)| (k.as_str(), v.as_str()))));
    let (reported, server) = tokio::select! {
        reported = reported(w, &pool, place, &startup) => reported.map_err(|fields| Failed::Told(ERROR, fields))?,
        () = io.socket.closed() => return Err(Failed::Silent),
    };
    // In session pooling the process id a client is told is its backend's: pg_backend_pid() agrees with it.
    let pid = server.as_ref().map(|s| s.key.pid());
    let registration = w.process.cancels.register(pid, s.minor >= 2).map_err(|_| Failed::Silent)?;
    let mut out = Vec::with_capacity(512);
    control::authentication(&mut out, &control::Ask::Ok);
    notices::greet(&mut out, &pool, &startup, server.as_deref());
    let application = startup.get("application_name").filter(|_| pool.settings.pool_mode != PoolMode::Session);
    for (name, value) in reported.iter() {
        let value = match application {
            Some(a) if &**name == b"application_name" => application::clean(a, &reported),
            _ => value.to_vec(),
        };
        control::parameter_status(&mut out, name, &value);
    }
    finish(w, io, out, &registration).await?;
    place.info.set_state(ClientState::Idle, 0, now_us());
    Ok(Ready::Session(Box::new(LoggedIn { pool, startup, registration, reported, server })))
}

/// The end of the welcome, and all of it sent.
async fn finish(w: &Rc<Worker>, io: &mut Io, mut out: Vec<u8>, registration: &Registration) -> Result<(), Failed> {
    control::backend_key(&mut out, registration.key.pid, &registration.secret());
    control::ready(&mut out, TxStatus::Idle);
    let limit = w.process.config.timeouts.client_login_timeout;
    within(limit, async { io.socket.send_all(&out).await.map_err(|_| Failed::Silent) }).await
}

fn session(w: Rc<Worker>, io: Io, place: Place, login: LoggedIn) -> (Session, Option<Checkout>) {
    let value = |name: &[u8]| {
        login.reported.iter().find(|(n, _)| **n == *name).map(|(_, v)| String::from_utf8_lossy(v).into_owned())
    };
    let lex = LexSettings {
        standard_conforming_strings: value(b"standard_conforming_strings").map(|v| v == "on"),
        safe_encoding: value(b"client_encoding").is_none_or(|v| observe::safe_encoding(&v)),
    };
    let mut insight = SessionInsight::new(w.process.insight.database(&login.pool.database));
    insight.set_user(&login.pool.user);
    if let Some(a) = login.startup.get("application_name") {
        insight.set_application(a);
    }
    let input = (!io.buf.is_empty()).then(|| {
        let mut lent = w.buffers.lend();
        lent.grow(io.buf.len());
        lent.spare()[..io.buf.len()].copy_from_slice(&io.buf);
        lent.received(io.buf.len());
        lent
    });
    let alarm = w.alarms.add();
    let now = now_us();
    let session = Session {
        w,
        socket: io.socket,
        place,
        pool: login.pool,
        registration: login.registration,
        params: Arc::clone(&login.startup),
        startup: login.startup,
        input,
        in_message: InMessage::default(),
        unsent: Vec::new(),
        names: None,
        unnamed: Unnamed::default(),
        gathered: None,
        insight,
        alarm,
        pins: Pins::default(),
        lex,
        unread: false,
        made_temp: false,
        skip_to_sync: false,
        forgetting: None,
        held: false,
        setting: Setting::No,
        cut_short: false,
        resets: Resets::default(),
        restoring: false,
        leaving: false,
        server_fatal: false,
        answered: 0,
        begun: 0,
        received_us: now,
        server_us: now,
        request_us: now,
        transaction_us: now,
    };
    (session, login.server)
}
