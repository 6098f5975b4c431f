//! TLS before a client's login: what an SSLRequest is answered, TLS from the first byte, and who may do without.
//!
//! ProcessSSLStartup and ProcessStartupPacket of PostgreSQL (backend_startup.c) are the model.

use std::sync::Arc;

use super::Process;
use super::login::{ERROR, Failed, Io, REFUSED};
use super::registry::ClientInfo;
use crate::net::{Acceptor, PeerAddr, TlsError};
use crate::wire::error::{ErrorFields, sqlstate};
use crate::wire::startup::{self, First, Replication, Startup};

/// First byte of a TLS connection: the record type "handshake". No startup packet begins so: it would be too long.
const HANDSHAKE: u8 = 0x16;

/// The offer to a client; `None` on Unix sockets, and where there is no certificate.
fn offer(process: &Process, client: &ClientInfo) -> Option<Arc<Acceptor>> {
    match client.peer {
        PeerAddr::Tcp(_) => process.tls.acceptor(),
        PeerAddr::Unix => None,
    }
}

/// Reads up to the StartupMessage. TLS is begun when the client asks and it is offered, else refused (`N`); bytes
/// already behind such a request were sent before the answer was known and are an attack or a bug (CVE-2021-23214).
pub(super) async fn first_packets(process: &Process, io: &mut Io, client: &ClientInfo) -> Result<Startup, Failed> {
    let violation = |m: String| Failed::Told(ERROR, ErrorFields::fatal(sqlstate::PROTOCOL_VIOLATION, m));
    let offer = offer(process, client);
    let (mut ssl, mut gss) = (false, false);
    if let Some(offer) = &offer {
        io.fill().await?;
        if io.buf.first() == Some(&HANDSHAKE) {
            let early = Some(std::mem::take(&mut io.buf));
            handshake(process, offer, io, early, client).await?;
            (ssl, gss) = (true, true);
        }
    }
    loop {
        let len = loop {
            match startup::packet_len(&io.buf).map_err(|e| violation(e.to_string()))? {
                Some(len) if io.buf.len() >= len => break len,
                _ => io.fill().await?,
            }
        };
        let packet: Vec<u8> = io.buf.drain(..len).collect();
        let first =
            startup::read(&packet).map_err(|e| Failed::Told(ERROR, ErrorFields::fatal(e.sqlstate(), e.to_string())))?;
        let asked_ssl = first == First::Ssl;
        match first {
            First::Ssl if !ssl => ssl = true,
            First::GssEnc if !gss => gss = true,
            First::Ssl | First::GssEnc => {
                return Err(violation("encryption was already negotiated".to_owned()));
            }
            First::Cancel { pid, secret } => {
                let cancels = Arc::clone(&process.cancels);
                // The client waits for the connection to close, which it takes for "delivered".
                cancels.cancel(pid, &secret).await;
                return Err(Failed::Silent);
            }
            First::Startup(s) => {
                let tls = io.socket.tls().is_some();
                check(process, client, tls, &s).map_err(|fields| Failed::Told(REFUSED, fields))?;
                return Ok(s);
            }
        }
        if !io.buf.is_empty() {
            return Err(violation("received unencrypted data after an encryption request".to_owned()));
        }
        if let Some(offer) = offer.as_ref().filter(|_| asked_ssl) {
            io.socket.send_all(b"S").await.map_err(|_| Failed::Silent)?;
            handshake(process, offer, io, None, client).await?;
            // GSSAPI inside TLS makes no sense.
            gss = true;
            continue;
        }
        io.socket.send_all(b"N").await.map_err(|_| Failed::Silent)?;
    }
}

/// The handshake. `early` are bytes received already, of a client that did not ask first: then it must name the
/// protocol (ALPN), so that no bytes meant for another service are ever taken for PostgreSQL's. Not cancel safe: the
/// connection is of no use then.
async fn handshake(
    process: &Process,
    offer: &Acceptor,
    io: &mut Io,
    early: Option<Vec<u8>>,
    client: &ClientInfo,
) -> Result<(), Failed> {
    let direct = early.is_some();
    io.mute = true;
    let done = match offer.accept() {
        Ok(tls) => io.socket.secure_stranger(tls, &early.unwrap_or_default(), &process.aside).await,
        Err(e) => Err(e),
    };
    io.mute = done.is_err();
    let done = done.and_then(|()| match io.socket.tls() {
        Some(tls) if direct && !tls.speaks_postgresql() => Err(TlsError::Tls(rustls::Error::NoApplicationProtocol)),
        tls => Ok(tls.map(|tls| tls.summary())),
    });
    match done {
        Ok(summary) => {
            client.set_tls(summary.unwrap_or_default());
            io.end_point = offer.end_point();
            return Ok(());
        }
        // Health checks and scanners connect and leave.
        Err(TlsError::Io(e)) => {
            tracing::debug!(target: "pgsluice::login", client = %client.peer, error = %e, "a client left during the TLS handshake");
        }
        Err(e) => {
            tracing::warn!(target: "pgsluice::login", client = %client.peer, error = %e, mend = e.mend(), "TLS with a client failed");
        }
    }
    Err(Failed::Handshake)
}

/// Refuses a client that must use TLS and does not: in PostgreSQL's words, to which libpq's `sslmode=allow` listens.
///
/// # Errors
/// What to tell the client.
fn check(process: &Process, client: &ClientInfo, tls: bool, s: &Startup) -> Result<(), ErrorFields> {
    let PeerAddr::Tcp(peer) = &client.peer else { return Ok(()) };
    if tls || !process.tls.required() {
        return Ok(());
    }
    let (host, user) = (peer.ip(), &s.user);
    let message = match s.replication {
        Some(Replication::Physical) => format!(
            "no pg_hba.conf entry for replication connection from host \"{host}\", user \"{user}\", no encryption"
        ),
        _ => format!(
            "no pg_hba.conf entry for host \"{host}\", user \"{user}\", database \"{}\", no encryption",
            s.database
        ),
    };
    Err(ErrorFields::fatal(sqlstate::INVALID_AUTHORIZATION, message).hint(format!(
        "pgsluice's client_tls_mode is {}: connect with sslmode=require or more.",
        process.tls.client_mode()
    )))
}
