//! A client proves who it is: the exchange of authentication messages.

use std::rc::Rc;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::login::{AUTH, CONSOLE, ERROR, Failed, Io};
use super::passthrough::{self, Meeting};
use super::registry::{ClientInfo, Place};
use super::{Worker, backoff, gate};
use crate::auth::{self, AuthError, ClientAuth, Secret};
use crate::config::AuthMethod;
use crate::pool::{Found, Source};
use crate::server::{ConnectError, LookupError, Proof};
use crate::wire::control;
use crate::wire::error::{ErrorFields, sqlstate};
use crate::wire::startup::{Replication, Startup};

/// What is known of the user who wants to log in.
struct Known {
    secret: Option<Secret>,
    /// Where it is from, when a database was asked.
    asked: Option<(Arc<Source>, Arc<Found>)>,
}

/// Asks until the client has proven who it is. What servers may be logged in to with, where anything is known.
///
/// # Errors
/// It has not, or it went away.
pub(super) async fn authenticate(
    w: &Rc<Worker>,
    io: &mut Io,
    place: &Place,
    s: &Startup,
) -> Result<Option<Box<Proof>>, Failed> {
    let way = gate::way(w, io, &place.info, s).await?;
    if let (AuthMethod::Cert, Err(why)) = (way.asked, &way.certificate) {
        return Err(not_named(s, &place.info, way.asked, why));
    }
    let mut known = known(w, s, way.method).await?;
    let mut why = "wrong password or unknown user";
    if known.secret.is_none() {
        match passthrough::meeting(w, io, &place.info, s, &way) {
            Meeting::Asked(trial) => {
                return passthrough::authenticate(w, io, &place.info, s, &trial).await.map(Some);
            }
            Meeting::Refused(said) => why = said,
        }
    }
    let end_point = io.end_point.clone();
    let began =
        ClientAuth::start_bound(Arc::clone(&w.process.auth), way.method, &s.user, known.secret.as_ref(), end_point);
    let (machine, ask) = began.map_err(|e| internal(&e))?;
    let mut done = exchange(w, io, machine, ask).await?;
    if done.ask == auth::Ask::Refused {
        done = again(w, &mut known, way.method, s, done).await?;
    }
    if way.method.asks_password() {
        backoff::hold(&w.process, io, &place.info.peer, &s.user, &done.ask).await;
    }
    match &done.ask {
        auth::Ask::Refused => return Err(refused(s, &place.info, way.method, why)),
        // AuthenticationOk goes out with the welcome.
        auth::Ask::SaslFinal(d) => {
            io.say(|out| control::authentication(out, &control::Ask::SaslFinal(d))).await;
        }
        _ => {}
    }
    if let Err(why) = &way.certificate {
        return Err(not_named(s, &place.info, way.asked, why));
    }
    let key = done.machine.client_key().cloned();
    Ok(known.secret.map(|secret| Box::new(Proof { secret, key })))
}

/// The configuration's word, else the database's. Where nothing is checked nobody is asked.
async fn known(w: &Rc<Worker>, s: &Startup, method: AuthMethod) -> Result<Known, Failed> {
    if let Some(secret) = w.process.pools.shared().users.load().get(&s.user) {
        return Ok(Known { secret: Some(secret.clone()), asked: None });
    }
    let pools = &w.process.pools;
    let database = match s.replication {
        _ if CONSOLE.contains(&&*s.database) => None,
        // Of no database: any will do where all are of one server.
        Some(Replication::Physical) if !pools.knows(&s.database) => pools.only_server(),
        _ => Some(&*s.database),
    };
    let nobody = Known { secret: None, asked: None };
    let source = match pools.shared().directory.source(database) {
        Ok(Some(source)) if method != AuthMethod::Any => source,
        Ok(_) => return Ok(nobody),
        Err(e) => return Err(unanswered(&e)),
    };
    match source.ask(&s.user).await {
        Ok(found) => Ok(Known { secret: found.secret.clone(), asked: Some((source, found)) }),
        // What databases there are is not for strangers. The log has it.
        Err(LookupError::Connect(ConnectError::Refused(e))) if e.code == sqlstate::NO_SUCH_DATABASE => Ok(nobody),
        Err(e) => Err(unanswered(&e)),
    }
}

/// Where an exchange has ended: [`auth::Ask::Ok`], [`auth::Ask::SaslFinal`] or [`auth::Ask::Refused`].
struct Done {
    machine: ClientAuth,
    ask: auth::Ask,
    /// The client's last answer.
    body: Zeroizing<Vec<u8>>,
}

async fn exchange(w: &Worker, io: &mut Io, mut machine: ClientAuth, mut ask: auth::Ask) -> Result<Done, Failed> {
    let mut body = Zeroizing::default();
    loop {
        let message = match &ask {
            auth::Ask::Ok | auth::Ask::SaslFinal(_) | auth::Ask::Refused => return Ok(Done { machine, ask, body }),
            auth::Ask::Cleartext => control::Ask::Cleartext,
            auth::Ask::Md5 { salt } => control::Ask::Md5(*salt),
            auth::Ask::Sasl { mechanisms } => control::Ask::Sasl(mechanisms),
            auth::Ask::SaslContinue(d) => control::Ask::SaslContinue(d),
        };
        io.say(|out| control::authentication(out, &message)).await;
        body = io.password(&ask).await?;
        Done { machine, ask, body } = respond(w, machine, body).await?;
    }
}

/// One answer of the client, off the worker's thread where that takes long.
async fn respond(w: &Worker, mut machine: ClientAuth, body: Zeroizing<Vec<u8>>) -> Result<Done, Failed> {
    if !machine.is_expensive(&body) {
        let ask = machine.on_response(&body).map_err(|e| internal(&e))?;
        return Ok(Done { machine, ask, body });
    }
    let work = move || {
        let ask = machine.on_response(&body)?;
        Ok(Done { machine, ask, body })
    };
    w.process.aside.run(work).await.ok_or(Failed::Silent)?.map_err(|e| internal(&e))
}

/// A refusal may be due to an answer that is no longer true: the database is asked anew. The client's answer is held against
/// the new secret where that can be; after SCRAM it counts for the next login.
async fn again(w: &Worker, known: &mut Known, method: AuthMethod, s: &Startup, mut done: Done) -> Result<Done, Failed> {
    let Some((source, found)) = &known.asked else { return Ok(done) };
    let fresh = source.doubt(&s.user, found).await;
    if fresh.secret == known.secret {
        return Ok(done);
    }
    known.secret.clone_from(&fresh.secret);
    if method == AuthMethod::Trust && known.secret.is_some() {
        done.ask = auth::Ask::Ok;
    } else if done.machine.again_with(known.secret.as_ref()) {
        done = respond(w, done.machine, done.body).await?;
    }
    Ok(done)
}

pub(super) fn internal(e: &AuthError) -> Failed {
    let (message, detail) = e.told();
    let fields = ErrorFields::fatal(e.sqlstate(), message);
    Failed::Told(
        ERROR,
        match detail {
            Some(detail) => fields.detail(detail),
            None => fields,
        },
    )
}

/// The users' database gives no answer. Who has not proven anything is told no addresses: the log has them.
fn unanswered(error: &LookupError) -> Failed {
    let away = |message: &str| {
        ErrorFields::fatal(sqlstate::CANNOT_CONNECT_NOW, message.to_owned())
            .hint("It goes on as soon as the database is back; pgsluice's log says more.")
    };
    let fields = match error {
        LookupError::Connect(e) if e.label() == "auth" => {
            ErrorFields::fatal(sqlstate::INTERNAL, "pgsluice cannot log in to the database that it asks for users")
                .hint("Look at auth_user and her password; pgsluice's log says more.")
        }
        LookupError::Connect(_) => away("pgsluice cannot reach the database that it asks for users"),
        LookupError::Busy => away("too many logins wait for the database that pgsluice asks for users"),
        LookupError::Query(_) | LookupError::Answer(_) => {
            ErrorFields::fatal(sqlstate::INTERNAL, "auth_query failed").hint("pgsluice's log says more.")
        }
    };
    Failed::Told(ERROR, fields)
}

/// Wrong password or unknown user, which look the same.
fn refused(s: &Startup, client: &ClientInfo, method: AuthMethod, why: &str) -> Failed {
    let unknown = format!("user \"{}\" is not known to pgsluice", s.user);
    let said = (method == AuthMethod::Trust).then_some((sqlstate::INVALID_AUTHORIZATION, unknown));
    tell(s, client, why, said.unwrap_or_else(|| wrong_password(s)))
}

/// The certificate is not this user's; in PostgreSQL's words for the method (auth_failed in `auth.c`).
fn not_named(s: &Startup, client: &ClientInfo, asked: AuthMethod, why: &str) -> Failed {
    let failed =
        |what: &str| (sqlstate::INVALID_AUTHORIZATION, format!("{what} authentication failed for user \"{}\"", s.user));
    let said = match asked {
        AuthMethod::Cert => failed("certificate"),
        AuthMethod::Trust => failed("\"trust\""),
        _ => wrong_password(s),
    };
    tell(s, client, why, said)
}

pub(super) fn wrong_password(s: &Startup) -> (&'static str, String) {
    (sqlstate::INVALID_PASSWORD, format!("password authentication failed for user \"{}\"", s.user))
}

fn tell(s: &Startup, client: &ClientInfo, why: &str, (code, message): (&'static str, String)) -> Failed {
    refused_as(s, client, why, AUTH, ErrorFields::fatal(code, message))
}

/// The log says why, the client is told `fields`.
pub(super) fn refused_as(s: &Startup, client: &ClientInfo, why: &str, result: usize, fields: ErrorFields) -> Failed {
    // It may hold a server's words, and those the client's name: a line of the log is one line.
    let why = why.replace(char::is_control, " ");
    tracing::warn!(target: "pgsluice::login", client = %client.peer, database = %s.database.escape_debug(), user = %s.user.escape_debug(), "login refused: {why}");
    Failed::Told(result, fields)
}
