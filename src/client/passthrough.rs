//! Users whom neither the configuration nor `auth_query` knows, let in by PostgreSQL itself (`passthrough_auth`): the password is
//! asked for in the clear and tried in a login there. Nobody is let in whom PostgreSQL has not asked for a password.
//!
//! Guessing is no faster than at PostgreSQL: each guess is a login there, a few at a time, and failures are delayed besides.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::Worker;
use super::gate::Way;
use super::login::{AUTH, ERROR, Failed, Io};
use super::prove::{internal, refused_as, wrong_password};
use super::registry::ClientInfo;
use super::{backoff, login};
use crate::auth::{self, AuthError, Secret, Verifier, client};
use crate::config::{AuthMethod, Passthrough};
use crate::net::PeerAddr;
use crate::net::clock::now_us;
use crate::pool::{Trial, Unknown};
use crate::server::{ConnectError, Proof, Server, Tried, Vouched, try_password};
use crate::wire::control;
use crate::wire::error::{ErrorFields, sqlstate};
use crate::wire::startup::{Replication, Startup};

/// How an unknown user is met.
pub(super) enum Meeting {
    /// As one with a wrong password; the log says this of it.
    Refused(&'static str),
    /// Asked for the password.
    Asked(Box<Trial>),
}

/// Whether the password of a user whom nothing here knows may be asked for.
pub(super) fn meeting(w: &Worker, io: &Io, client: &ClientInfo, s: &Startup, way: &Way) -> Meeting {
    let refused = Meeting::Refused("wrong password or unknown user");
    let config = &w.process.config;
    // A rule that says scram-sha-256 or md5 promises that no password crosses the line.
    let asks = match config.auth.method {
        AuthMethod::Hba => way.method == AuthMethod::Plain,
        method => method.asks_password(),
    };
    let mode = config.passthrough(&s.database);
    let console = login::CONSOLE.contains(&s.database.as_str());
    // Who is to be refused for a certificate has no password tried.
    if mode == Passthrough::Disabled
        || !asks
        || console
        || s.replication == Some(Replication::Physical)
        || way.certificate.is_err()
    {
        return refused;
    }
    if mode == Passthrough::Enabled && is_overheard(io, client) {
        return Meeting::Refused("unknown user, and passthrough_auth = \"enabled\" takes passwords only with TLS");
    }
    match w.process.pools.trial(&s.database, &s.user) {
        Some(trial) => Meeting::Asked(Box::new(trial)),
        None => refused,
    }
}

/// Whether others may read what the client sends.
fn is_overheard(io: &Io, client: &ClientInfo) -> bool {
    match &client.peer {
        PeerAddr::Unix => false,
        PeerAddr::Tcp(peer) => io.socket.tls().is_none() && !peer.ip().to_canonical().is_loopback(),
    }
}

/// Asks for the password and tries it. What servers may be logged in to with.
///
/// # Errors
/// PostgreSQL does not take it, or the client went away.
pub(super) async fn authenticate(
    w: &Rc<Worker>,
    io: &mut Io,
    client: &ClientInfo,
    s: &Startup,
    trial: &Trial,
) -> Result<Box<Proof>, Failed> {
    io.say(|out| control::authentication(out, &control::Ask::Cleartext)).await;
    let body = io.password(&auth::Ask::Cleartext).await?;
    let given = client::password(&body).map_err(|e: AuthError| internal(&e))?;
    let mut waited = Duration::ZERO;
    let tried = match given {
        Some(given) => match vouched(w, trial, given).await {
            Some(proof) => Ok(proof),
            None => {
                let queue = w.process.backoff.queue(&client.peer, &s.user, now_us());
                waited = queue.as_ref().map_or(Duration::ZERO, |(delay, _)| *delay);
                // Who hangs up costs PostgreSQL nothing from then on.
                tokio::select! {
                    biased;
                    () = io.socket.closed() => return Err(Failed::Silent),
                    tried = try_in_turn(w, s, trial, given, queue) => tried,
                }
            }
        },
        // PostgreSQL takes any bytes; here a password is text.
        None => Err(Refusal::wrong(s, "the password is not UTF-8")),
    };
    match tried {
        Ok(proof) => {
            backoff::hold_rest(&w.process, io, &client.peer, &s.user, &auth::Ask::Ok, waited).await;
            Ok(Box::new(proof))
        }
        Err(Refusal { why, fields }) => {
            if fields.code.starts_with("28") {
                backoff::hold_rest(&w.process, io, &client.peer, &s.user, &auth::Ask::Refused, waited).await;
            }
            let result = if fields.code.starts_with("28") { AUTH } else { ERROR };
            Err(refused_as(s, client, &why, result, fields))
        }
    }
}

/// What the log and the client are told.
struct Refusal {
    why: String,
    fields: ErrorFields,
}

impl Refusal {
    /// The client is told of a wrong password.
    fn wrong(s: &Startup, why: impl Into<String>) -> Refusal {
        let (code, message) = wrong_password(s);
        Refusal { why: why.into(), fields: ErrorFields::fatal(code, message) }
    }
}

/// What is known of the same password, if PostgreSQL took it a while ago.
async fn vouched(w: &Worker, trial: &Trial, given: &str) -> Option<Proof> {
    let learnt = trial.pool.as_ref()?.target.learnt.clone()?;
    let (vouched, proof) = learnt.vouched(now_us())?;
    let auth = Arc::clone(&w.process.auth);
    let right = if auth.is_checked(&vouched.verifier, given) {
        auth.check(&vouched.verifier, given).is_some()
    } else {
        let given = Zeroizing::new(given.to_owned());
        w.process.aside.run(move || auth.check(&vouched.verifier, &given).is_some()).await?
    };
    right.then(|| (*proof).clone())
}

/// One login at PostgreSQL, when it is this address's turn.
async fn try_in_turn(
    w: &Rc<Worker>,
    s: &Startup,
    trial: &Trial,
    given: &str,
    queue: Option<(Duration, Arc<Mutex<()>>)>,
) -> Result<Proof, Refusal> {
    let Some((delay, turn)) = queue else { return try_there(w, s, trial, given).await };
    tokio::time::sleep(delay).await;
    let _turn = turn.lock().await;
    try_there(w, s, trial, given).await
}

/// One login at PostgreSQL.
async fn try_there(w: &Rc<Worker>, s: &Startup, trial: &Trial, given: &str) -> Result<Proof, Refusal> {
    let shared = w.process.pools.shared();
    // Of a pool that is not there yet nothing has been doubted.
    let doubts = trial.pool.as_ref().and_then(|pool| pool.target.learnt.as_ref()).map_or(0, |learnt| learnt.doubts());
    let tried = {
        // Never closed.
        let _turn = trial.turns.acquire().await;
        try_password(&trial.target, given.to_owned(), &shared.params, &shared.auth).await
    };
    match tried {
        Tried::Right(server, proof) => {
            let verifier = match &proof.secret {
                Secret::Scram(verifier) => Some(verifier.clone()),
                _ => derive(w, s, given).await,
            };
            take(w, s, server, &proof, verifier, doubts)
                .map_err(|fields| Refusal { why: fields.message.clone(), fields })?;
            Ok(proof)
        }
        Tried::Unasked => {
            Err(Refusal::wrong(s, "PostgreSQL lets this user in without a password, so none can be tried"))
        }
        Tried::Failed { error: ConnectError::Refused(fields), sent } => {
            // Before a password what it says is about pgsluice: its address, for one.
            match fields.code.starts_with("28") && !sent {
                true => Err(Refusal::wrong(s, format!("PostgreSQL: {}", fields.message))),
                false => Err(Refusal { why: format!("PostgreSQL: {}", fields.message), fields }),
            }
        }
        Tried::Failed { error: ConnectError::Auth(why), .. } => Err(Refusal::wrong(s, why)),
        Tried::Failed { error, .. } => Err(Refusal {
            why: error.text(),
            fields: ErrorFields::fatal(
                sqlstate::CANNOT_CONNECT_NOW,
                "pgsluice cannot reach the database to try the password",
            )
            .hint("It goes on as soon as the database is back; pgsluice's log says more."),
        }),
    }
}

/// A verifier of a right password.
async fn derive(w: &Worker, s: &Startup, given: &str) -> Option<Verifier> {
    let (auth, user, given) = (Arc::clone(&w.process.auth), s.user.clone(), Zeroizing::new(given.to_owned()));
    w.process.aside.run(move || auth.verifier(&user, &given)).await
}

/// The user is proven: the server is the first of her pool, which keeps what logs in there.
fn take(
    w: &Rc<Worker>,
    s: &Startup,
    server: Option<Box<Server>>,
    proof: &Proof,
    verifier: Option<Verifier>,
    doubts: u32,
) -> Result<(), ErrorFields> {
    // One that replicates opens her own.
    if s.replication.is_some() {
        return Ok(());
    }
    let pool = w.process.pools.get(&s.database, &s.user).map_err(|e| match e {
        Unknown::Database => {
            ErrorFields::fatal(sqlstate::NO_SUCH_DATABASE, format!("database \"{}\" does not exist", s.database))
        }
        Unknown::TooMany => ErrorFields::fatal(sqlstate::TOO_MANY_CONNECTIONS, "too many pools are in use"),
    })?;
    pool.learn(proof.clone());
    let ttl_us = w.process.config.auth.query.ttl.as_micros() as u64;
    if let Some(learnt) = &pool.target.learnt {
        match verifier {
            Some(verifier) => learnt.vouch(Vouched { verifier, until_us: now_us() + ttl_us }, doubts),
            // The one before may have been of another password.
            None => learnt.doubt(),
        }
    }
    if let Some(server) = server {
        pool.adopt(*server);
    }
    Ok(())
}
