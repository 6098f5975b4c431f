//! Which method a client must use: the configured one, or what the first matching rule of `auth_hba_file` says. What the
//! operating system vouches for is decided here; passwords are [`super::prove`]'s.
//!
//! Words and codes are PostgreSQL's (ClientAuthentication in `auth.c`), so that a client learns no more than from it.

use std::io;
use std::rc::Rc;

use super::Worker;
use super::login::{AUTH, ERROR, Failed, Io};
use super::registry::ClientInfo;
use crate::auth::hba::{ClientCert, ClientName, IdentMaps, Login, Method, Network, Origin, Rule};
use crate::config::AuthMethod;
use crate::net::{PeerAddr, Subject, host};
use crate::wire::error::{ErrorFields, sqlstate};
use crate::wire::startup::{Replication, Startup};

/// How the client must prove itself.
pub(super) struct Way {
    /// The method. Who has done so already is asked for no more: [`AuthMethod::Trust`].
    pub(super) method: AuthMethod,
    /// The method that refusals are worded after.
    pub(super) asked: AuthMethod,
    /// Why the certificate does not name the user, where it must: a refusal, once the method is through.
    pub(super) certificate: Result<(), String>,
}

impl Way {
    fn by(method: AuthMethod) -> Way {
        Way { method, asked: method, certificate: Ok(()) }
    }
}

/// How the client must prove itself, and what its connection proves of it.
///
/// # Errors
/// It may not log in.
pub(super) async fn way(w: &Rc<Worker>, io: &Io, client: &ClientInfo, s: &Startup) -> Result<Way, Failed> {
    match w.process.config.auth.method {
        AuthMethod::Hba => {}
        AuthMethod::Peer => return peer(&w.process.hba.load_full().maps, io, s, None).await.map(Way::by),
        AuthMethod::Cert => {
            let subject = certificate(io, s)?;
            let certificate = names(&subject, ClientName::Common, &IdentMaps::default(), None, s);
            return Ok(Way { method: AuthMethod::Trust, asked: AuthMethod::Cert, certificate });
        }
        method => return Ok(Way::by(method)),
    }
    let login = Login {
        origin: origin(client, io.socket.tls().is_some()),
        user: &s.user,
        database: &s.database,
        replication: s.replication == Some(Replication::Physical),
    };
    // The same rules to the end of this login.
    let hba = w.process.hba.load_full();
    let found = hba.rules.find(&login, &networks);
    let rule = found.map_err(|error| {
        tracing::error!(target: "pgsluice::login", %error, "cannot list the network interfaces: login refused");
        Failed::Told(ERROR, ErrorFields::fatal(sqlstate::INTERNAL, "cannot list the network interfaces"))
    })?;
    let Some(rule) = rule else {
        return Err(refused(&login, None));
    };
    tracing::debug!(target: "pgsluice::login", rule = %place(rule), method = %rule.method, "a rule matches");
    let subject = rule.client_cert.map(|_| certificate(io, s)).transpose()?;
    let method = match rule.method {
        Method::Trust | Method::Cert => AuthMethod::Trust,
        Method::Password => AuthMethod::Plain,
        Method::Md5 => AuthMethod::Md5,
        Method::ScramSha256 => AuthMethod::ScramSha256,
        Method::Peer => peer(&hba.maps, io, s, Some(rule)).await?,
        Method::Reject => return Err(refused(&login, Some(rule))),
    };
    let asked = if rule.method == Method::Cert { AuthMethod::Cert } else { method };
    let certificate = match subject.filter(|_| rule.client_cert == Some(ClientCert::VerifyFull)) {
        Some(subject) => names(&subject, rule.client_name, &hba.maps, rule.map.as_deref(), s)
            .map_err(|why| format!("{why} ({})", place(rule))),
        None => Ok(()),
    };
    Ok(Way { method, asked, certificate })
}

/// The subject of the certificate that the client must have shown.
fn certificate(io: &Io, s: &Startup) -> Result<Subject, Failed> {
    io.socket.tls().and_then(|tls| tls.client()).ok_or_else(|| {
        tracing::warn!(target: "pgsluice::login", database = %s.database.escape_debug(), user = %s.user.escape_debug(), "login refused: the client shows no certificate");
        let message = "connection requires a valid client certificate";
        Failed::Told(AUTH, ErrorFields::fatal(sqlstate::INVALID_AUTHORIZATION, message))
    })
}

/// Whether the certificate is the user's (CheckCertAuth in `auth.c`); else why not.
fn names(subject: &Subject, which: ClientName, maps: &IdentMaps, map: Option<&str>, s: &Startup) -> Result<(), String> {
    let name = match which {
        ClientName::Common => &subject.common_name,
        ClientName::Distinguished => &subject.distinguished_name,
    };
    let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else {
        return Err("the client's certificate contains no user name".to_owned());
    };
    if maps.admits(map, name, &s.user) {
        return Ok(());
    }
    Err(format!("the certificate of \"{}\" may not log in as this user", name.escape_debug()))
}

/// Where the client comes from, and how.
fn origin(client: &ClientInfo, tls: bool) -> Origin {
    match &client.peer {
        PeerAddr::Unix => Origin::Local,
        PeerAddr::Tcp(peer) => Origin::Tcp { address: peer.ip().to_canonical(), tls },
    }
}

fn networks() -> io::Result<Vec<Network>> {
    Ok(host::networks()?.into_iter().map(|(address, mask)| Network { address, mask }).collect())
}

fn place(rule: &Rule) -> String {
    format!("{}:{}", rule.file.display(), rule.line)
}

/// `reject`, or no rule at all.
fn refused(login: &Login<'_>, rule: Option<&Rule>) -> Failed {
    let (user, database) = (login.user, login.database);
    let (host, encryption) = match login.origin {
        Origin::Local => ("[local]".to_owned(), "no encryption"),
        Origin::Tcp { address, tls } => (address.to_string(), if tls { "SSL encryption" } else { "no encryption" }),
    };
    let message = match (rule, login.replication) {
        (Some(_), false) => format!(
            "pg_hba.conf rejects connection for host \"{host}\", user \"{user}\", database \"{database}\", {encryption}"
        ),
        (Some(_), true) => {
            format!("pg_hba.conf rejects replication connection for host \"{host}\", user \"{user}\", {encryption}")
        }
        (None, false) => {
            format!("no pg_hba.conf entry for host \"{host}\", user \"{user}\", database \"{database}\", {encryption}")
        }
        (None, true) => {
            format!(
                "no pg_hba.conf entry for replication connection from host \"{host}\", user \"{user}\", {encryption}"
            )
        }
    };
    let why = rule.map_or_else(|| "no rule matches".to_owned(), |rule| format!("rejected by {}", place(rule)));
    tracing::warn!(target: "pgsluice::login", client = host, database = %database.escape_debug(), user = %user.escape_debug(), why, "login refused");
    Failed::Told(AUTH, ErrorFields::fatal(sqlstate::INVALID_AUTHORIZATION, message))
}

/// The operating system's name of the client's process, mapped.
async fn peer(maps: &IdentMaps, io: &Io, s: &Startup, rule: Option<&Rule>) -> Result<AuthMethod, Failed> {
    let why = match host::peer_uid(io.socket.as_fd()) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => "it did not come by a Unix socket".to_owned(),
        Err(error) => format!("the client's process is not known: {error}"),
        Ok(uid) => match tokio::task::spawn_blocking(move || host::user_name(uid)).await {
            Ok(Ok(Some(system))) => {
                let map = rule.and_then(|rule| rule.map.as_deref());
                if maps.admits(map, &system, &s.user) {
                    return Ok(AuthMethod::Trust);
                }
                format!("\"{}\" of the operating system may not log in as this user", system.escape_debug())
            }
            Ok(Ok(None)) => format!("the operating system has no user {uid}"),
            Ok(Err(error)) => format!("user {uid} cannot be looked up: {error}"),
            Err(_) => format!("user {uid} cannot be looked up"),
        },
    };
    let rule = rule.map_or_else(|| "auth_type".to_owned(), place);
    tracing::warn!(target: "pgsluice::login", database = %s.database.escape_debug(), user = %s.user.escape_debug(), rule, why, "login refused");
    let message = format!("Peer authentication failed for user \"{}\"", s.user);
    Err(Failed::Told(AUTH, ErrorFields::fatal(sqlstate::INVALID_AUTHORIZATION, message)))
}
