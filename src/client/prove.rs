//! A client proves who it is: the exchange of authentication messages.

use std::rc::Rc;
use std::sync::Arc;

use super::login::{AUTH, ERROR, Failed, Io};
use super::registry::{ClientInfo, Place};
use super::{Worker, backoff, gate};
use crate::auth::{self, ClientAuth};
use crate::config::AuthMethod;
use crate::wire::control;
use crate::wire::error::{ErrorFields, sqlstate};
use crate::wire::startup::Startup;

/// Asks until the client has proven who it is.
///
/// # Errors
/// It has not, or it went away.
pub(super) async fn authenticate(w: &Rc<Worker>, io: &mut Io, place: &Place, s: &Startup) -> Result<(), Failed> {
    let method = gate::method(w, io, &place.info, s).await?;
    let users = w.process.pools.shared().users.load_full();
    let secret = users.get(&s.user);
    let (mut machine, mut ask) =
        ClientAuth::start_bound(Arc::clone(&w.process.auth), method, &s.user, secret, io.end_point.clone())
            .map_err(|e| internal(&e))?;
    loop {
        if method.asks_password() {
            backoff::hold(&w.process, io, &place.info.peer, &s.user, &ask).await;
        }
        let message = match &ask {
            auth::Ask::Ok => control::Ask::Ok,
            auth::Ask::Cleartext => control::Ask::Cleartext,
            auth::Ask::Md5 { salt } => control::Ask::Md5(*salt),
            auth::Ask::Sasl { mechanisms } => control::Ask::Sasl(mechanisms),
            auth::Ask::SaslContinue(d) => control::Ask::SaslContinue(d),
            auth::Ask::SaslFinal(d) => control::Ask::SaslFinal(d),
            auth::Ask::Refused => return Err(refused(s, method, &place.info)),
        };
        match ask {
            // AuthenticationOk goes out with the welcome.
            auth::Ask::Ok => return Ok(()),
            auth::Ask::SaslFinal(_) => {
                io.say(|out| control::authentication(out, &message)).await;
                return Ok(());
            }
            _ => io.say(|out| control::authentication(out, &message)).await,
        }
        let body = io.password(&ask).await?;
        let answer;
        if machine.is_expensive(&body) {
            let work = move || {
                let answer = machine.on_response(&body);
                (machine, answer)
            };
            (machine, answer) = w.process.aside.run(work).await.ok_or(Failed::Silent)?;
        } else {
            answer = machine.on_response(&body);
        }
        ask = answer.map_err(|e| internal(&e))?;
    }
}

/// The exchange broke off.
fn internal(e: &auth::AuthError) -> Failed {
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

fn refused(s: &Startup, method: AuthMethod, client: &ClientInfo) -> Failed {
    tracing::warn!(target: "pgsluice::login", client = %client.peer, database = %s.database.escape_debug(), user = %s.user.escape_debug(), "login refused: wrong password or unknown user");
    let (code, message) = if method == AuthMethod::Trust {
        (sqlstate::INVALID_AUTHORIZATION, format!("user \"{}\" is not known to pgsluice", s.user))
    } else {
        (sqlstate::INVALID_PASSWORD, format!("password authentication failed for user \"{}\"", s.user))
    };
    Failed::Told(AUTH, ErrorFields::fatal(code, message))
}
