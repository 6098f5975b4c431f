//! TLS to a server: asked for by an SSLRequest or begun at once, and what is tried when one way is refused.
//!
//! The order of attempts is libpq's (PQconnectPoll in fe-connect.c): `prefer` tries with TLS and then without, `allow`
//! the other way round; the others have one way only.

use std::io;
use std::sync::Arc;

use super::Proof;
use super::connect::ConnectError;
use crate::auth::server::Line;
use crate::config::TlsMode;
use crate::net::dial::{Reached, dial_again};
use crate::net::{Connector, Socket, TlsError};
use crate::wire::control;

/// How one attempt to connect is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// Without TLS.
    Plain,
    /// With TLS where the server can, without where it says that it cannot.
    Offer,
    /// With TLS or not at all.
    Tls,
}

/// The ways to try, in order. Unix sockets have no TLS (as in libpq).
pub(super) fn ways(connector: &Connector, host: &str) -> (Way, Option<Way>) {
    if host.starts_with('/') {
        return (Way::Plain, None);
    }
    match connector.settings().mode {
        TlsMode::Disable => (Way::Plain, None),
        TlsMode::Allow => (Way::Plain, Some(Way::Tls)),
        TlsMode::Prefer => (Way::Offer, Some(Way::Plain)),
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => (Way::Tls, None),
    }
}

/// How far an attempt has come.
#[derive(Default)]
pub(super) struct Progress {
    /// Whether the secret is right shall be known.
    pub(super) trial: bool,
    /// And what it has shown.
    pub(super) shown: Option<Proof>,
    /// TLS is there.
    pub(super) tls: bool,
    /// A password or proof has been sent: it goes nowhere a second time.
    pub(super) proved: bool,
}

/// Whether the other way may succeed where this one failed.
pub(super) fn other_way_may_do(way: Way, error: &ConnectError, progress: &Progress) -> bool {
    match error {
        ConnectError::Tls { .. } => way == Way::Offer,
        // pg_hba.conf has hostssl or hostnossl; PgBouncer says "SSL required" with 08P01.
        ConnectError::Refused(e) if !progress.proved => match way {
            Way::Plain => e.code.starts_with("28") || e.code.starts_with("08"),
            // Where the server said N this was without TLS already.
            Way::Offer | Way::Tls => e.code.starts_with("28") && progress.tls,
        },
        _ => false,
    }
}

/// What stands on a connection that was to have TLS.
#[derive(PartialEq, Eq)]
pub(super) enum Begun {
    /// What `way` says.
    Done,
    /// The first byte of an error: the server answered a request for TLS so, where it need not prove who it is.
    Error,
}

/// Makes a new connection what `way` says.
///
/// # Errors
/// The connection failed, or TLS on it.
pub(super) async fn encrypt(
    socket: &mut Socket,
    connector: &Connector,
    host: &str,
    way: Way,
) -> Result<Begun, ConnectError> {
    if way == Way::Plain {
        return Ok(Begun::Done);
    }
    let failed = |e: TlsError| ConnectError::Tls { fault: e.to_string(), mend: e.mend() };
    let Some(tls) = connector.connect(host).map_err(failed)? else { return Ok(Begun::Done) };
    if !connector.settings().direct {
        let mut request = Vec::new();
        control::ssl_request(&mut request);
        socket.send_all(&request).await?;
        // One byte, not more: what stands behind it came before TLS, and as TLS it will fail (CVE-2021-23222).
        let mut answer = [0u8; 1];
        if socket.recv(&mut answer).await? == 0 {
            return Err(ConnectError::Unreachable("server closed the connection unexpectedly".to_owned()));
        }
        match answer[0] {
            b'S' => {}
            b'N' if way == Way::Offer => return Ok(Begun::Done),
            b'N' => {
                return Err(ConnectError::Tls {
                    fault: "server does not support SSL, but SSL was required".to_owned(),
                    mend: "switch TLS on at the server (ssl = on), or set server_tls_mode = \"prefer\" (sslmode=prefer)",
                });
            }
            // A postmaster that cannot fork. Who insists on TLS is told nothing that anybody may have said (CVE-2024-10977).
            b'E' if way == Way::Offer => return Ok(Begun::Error),
            b'E' => {
                let why = "it answers a request for TLS with an error, which its log may show";
                return Err(ConnectError::Unreachable(why.to_owned()));
            }
            _ => return Err(ConnectError::Protocol("it answers a request for TLS with neither S nor N")),
        }
    }
    socket.secure(tls, Vec::new()).await.map_err(failed)?;
    let named = socket.tls().is_some_and(|t| t.speaks_postgresql());
    if connector.settings().direct && !named {
        return Err(ConnectError::Tls {
            fault: "direct SSL connection was established without ALPN protocol negotiation extension".to_owned(),
            mend: "direct TLS needs PostgreSQL 17 or later: leave server_tls_direct out",
        });
    }
    Ok(Begun::Done)
}

/// A connection for a cancel request to where the session's leads: with TLS and nothing else when the session has it.
///
/// # Errors
/// The connection failed, or TLS on it.
pub(super) async fn dial_cancel(at: &Reached, tls: Option<&(Arc<Connector>, Box<str>)>) -> io::Result<Socket> {
    let mut socket = dial_again(at).await?;
    if let Some((connector, host)) = tls {
        encrypt(&mut socket, connector, host, Way::Tls).await.map_err(|e| io::Error::other(e.text()))?;
    }
    Ok(socket)
}

/// What SCRAM may be bound to.
pub(super) fn line(socket: &Socket) -> Line {
    socket.tls().map_or(Line::Plain, |tls| Line::Tls(tls.peer_end_point()))
}

/// Whether what is sent in the clear can be read by others: TCP, without TLS, to another machine.
pub(super) fn is_overheard(socket: &Socket) -> bool {
    socket.tls().is_none()
        && socket2::SockRef::from(&socket.as_fd())
            .peer_addr()
            .ok()
            .and_then(|a| a.as_socket())
            .is_some_and(|a| !a.ip().to_canonical().is_loopback())
}
