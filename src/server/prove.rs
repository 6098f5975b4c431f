//! The pooler proves itself to a server; and a password that a client has given is tried at one (`passthrough_auth`).

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use zeroize::Zeroizing;

use super::connect::{ConnectError, Messages, Target, login_in_time, refused};
use super::encrypt::{self, Progress};
use super::{ParamSet, Params, Proof, Server};
use crate::auth::{AuthContext, Secret, ServerAuth, server::Reply, server::code as method};
use crate::net::Socket;
use crate::wire::error::sqlstate;
use crate::wire::tag::{backend, frontend};
use crate::wire::{control, frame};

/// What came of a password that was tried.
pub enum Tried {
    /// The server took it: what logs in there from now on, and the connection, as one without parameters of a client; none
    /// where the server took the password and then had no room.
    Right(Option<Box<Server>>, Proof),
    /// The server let the pooler in without asking for it.
    Unasked,
    /// It is wrong, or no login came about.
    Failed {
        /// Why.
        error: ConnectError,
        /// The password (or its proof) had been sent: what the server said, it said to who knows it or tried to.
        sent: bool,
    },
}

/// Logs in to `target` with a password that may be wrong. Cancel safe.
pub async fn try_password(target: &Target, password: String, params: &Params, auth: &Arc<AuthContext>) -> Tried {
    let with = Target {
        secret: Arc::new(ArcSwapOption::from_pointee(Secret::Plain(password))),
        learnt: None,
        printed: None,
        ..target.clone()
    };
    let mut progress = Progress { trial: true, ..Progress::default() };
    let (startup, worker) = (params.intern(ParamSet::default()), crate::net::worker_id());
    match login_in_time(&with, &startup, auth, worker, &mut progress).await {
        Ok(server) => match progress.shown {
            Some(proof) => Tried::Right(Some(Box::new(server)), proof),
            None => Tried::Unasked,
        },
        // The limit of a role or database is looked at behind AuthenticationOk. Servers that are open may serve her.
        Err(ConnectError::Refused(fields))
            if fields.code == sqlstate::TOO_MANY_CONNECTIONS && progress.shown.is_some() =>
        {
            match progress.shown {
                Some(proof) => Tried::Right(None, proof),
                None => Tried::Unasked,
            }
        }
        Err(error) => Tried::Failed { error, sent: progress.proved },
    }
}

/// Answers what the server asks for until it is content.
///
/// # Errors
/// It refuses, or asks for what cannot be given.
pub(super) async fn authenticate(
    io: &mut Messages,
    target: &Target,
    mut auth: ServerAuth,
    progress: &mut Progress,
) -> Result<(), ConnectError> {
    loop {
        let (tag, body) = io.next().await?;
        match tag {
            backend::AUTHENTICATION => {}
            backend::ERROR => return Err(refused(&body)),
            backend::NOTICE | backend::NEGOTIATE_PROTOCOL_VERSION => continue,
            _ => {
                return Err(ConnectError::Protocol("unexpected message during authentication"));
            }
        }
        let (code, data) = control::read_authentication(&body)
            .map_err(|_| ConnectError::Protocol("truncated authentication request"))?;
        let reply = if auth.is_expensive(code, data) {
            let data = data.to_vec();
            let derived = target.aside.run(move || {
                let reply = auth.on_request(code, &data);
                (auth, reply)
            });
            let (back, reply) = derived.await.ok_or(ConnectError::Protocol("authentication was interrupted"))?;
            auth = back;
            reply?
        } else {
            auth.on_request(code, data)?
        };
        if reply == Reply::Ok {
            progress.shown = auth.shown().map(|(secret, key)| Proof { secret, key });
            return Ok(());
        }
        let Some(body) = reply.body() else { continue };
        progress.proved = true;
        warn_of_listeners(&io.socket, target, code);
        // Not to grow: what it outgrows is not wiped.
        let mut out = Zeroizing::new(Vec::with_capacity(frame::HEADER + body.len()));
        frame::put(&mut out, frontend::PASSWORD, |b| b.extend_from_slice(&body));
        io.socket.send_all(&out).await?;
    }
}

/// Once, and loudly: whoever is on the way has the password, or what it can be guessed from.
fn warn_of_listeners(socket: &Socket, target: &Target, code: u32) {
    let what = match code {
        method::CLEARTEXT => "THE PASSWORD IS SENT IN THE CLEAR",
        method::MD5 => "THE PASSWORD IS SENT AS AN MD5 HASH, from which it can be guessed fast,",
        _ => return,
    };
    if encrypt::is_overheard(socket) && target.tls.warn_once(code == method::CLEARTEXT) {
        tracing::warn!(target: "pgsluice::server", host = %target.host, user = %target.user,
            "{what} over a network: set server_tls_mode = \"verify-full\" (or require), or scram-sha-256 in the server's pg_hba.conf");
    }
}
