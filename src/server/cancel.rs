//! Cancel requests to a server, and the mark that keeps a server from its next client while one is under way.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::encrypt::dial_cancel;
use crate::net::Connector;
use crate::net::dial::Reached;
use crate::wire::control;

/// Time allowed to deliver one cancel request.
pub const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a backend is and the key to cancel it. No `Debug`: the key is a secret.
pub struct ServerKey {
    /// Exactly where its connection leads: another server of the same name might know the key as its own.
    at: Reached,
    pid: u32,
    secret: Vec<u8>,
    /// The session has TLS: so has its cancel request. With the name that was dialled, which the certificate is
    /// checked against.
    tls: Option<(Arc<Connector>, Box<str>)>,
    /// Cancel requests not yet delivered. The server is not handed on while there are any: the cancel would hit
    /// the next client's query (PgBouncer's SV_BEING_CANCELED).
    in_flight: AtomicU32,
    delivered: Notify,
    /// Cancel requests that were sent, and of which the postmaster has not said (by closing the connection) that the
    /// backend has been signalled: the signal may come at any time.
    unheard: AtomicU32,
}

impl ServerKey {
    /// From BackendKeyData; `tls` when the session has TLS.
    pub fn new(at: Reached, pid: u32, secret: Vec<u8>, tls: Option<(Arc<Connector>, Box<str>)>) -> Self {
        ServerKey {
            at,
            pid,
            secret,
            tls,
            in_flight: AtomicU32::new(0),
            delivered: Notify::new(),
            unheard: AtomicU32::new(0),
        }
    }

    /// Backend process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Marks a cancel as under way. Called with the lock of the slot that names this server, so that the client
    /// cannot have lost it.
    pub fn mark(self: &Arc<Self>) -> Mark {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        Mark { key: Arc::clone(self) }
    }

    /// Whether a cancel is under way.
    pub fn being_canceled(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }

    /// Whether a cancel that is no longer under way may still hit: the server must be closed rather than handed on.
    pub fn in_doubt(&self) -> bool {
        self.unheard.load(Ordering::Acquire) > 0
    }

    async fn send(&self) -> io::Result<()> {
        let mut socket = dial_cancel(&self.at, self.tls.as_ref()).await?;
        let mut packet = Vec::new();
        control::cancel(&mut packet, self.pid, &self.secret);
        // Not taken back when this future is dropped (a timeout) or the connection fails.
        self.unheard.fetch_add(1, Ordering::AcqRel);
        socket.send_all(&packet).await?;
        let mut buf = [0u8; 64];
        loop {
            match socket.recv(&mut buf).await {
                Ok(0) => break,
                Ok(_) => {}
                // The postmaster's children do not say goodbye in TLS.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(e) => return Err(e),
            }
        }
        self.unheard.fetch_sub(1, Ordering::AcqRel);
        Ok(())
    }

    /// Waits until no cancel is under way. Cancel safe.
    pub async fn settled(&self) {
        loop {
            let delivered = self.delivered.notified();
            if !self.being_canceled() {
                return;
            }
            delivered.await;
        }
    }
}

/// A cancel under way. While it lives its server is not handed on.
pub struct Mark {
    key: Arc<ServerKey>,
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.key.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.key.delivered.notify_waiters();
    }
}

impl Mark {
    /// Sends the cancel request and waits until the postmaster has closed the connection, which it does after
    /// signalling the backend. Cancel safe for the mark; whether the request was sent is not known then.
    ///
    /// # Errors
    /// Those of the connection, or a timeout.
    pub async fn deliver(self) -> io::Result<()> {
        tokio::time::timeout(CANCEL_TIMEOUT, self.key.send())
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::dial::dial;

    /// A name that has moved on is not asked again.
    #[tokio::test]
    async fn a_cancel_goes_to_the_address_the_connection_has() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (_socket, reached) = dial("localhost", port).await.unwrap();
        assert_eq!(reached, Reached::Tcp(listener.local_addr().unwrap()), "the address, not the name");
        drop(listener.accept().await.unwrap());
        let key = Arc::new(ServerKey::new(reached, 7, vec![1, 2, 3, 4], None));
        let mark = key.mark();
        let hear = async {
            let stream = listener.accept().await.unwrap().0.into_std().unwrap();
            let mut socket = crate::net::Socket::new(stream.into()).unwrap();
            let mut packet = [0; 16];
            let mut n = 0;
            while n < packet.len() {
                n += socket.recv(&mut packet[n..]).await.unwrap();
            }
            assert_eq!(packet[8..], [0, 0, 0, 7, 1, 2, 3, 4]);
            assert!(key.being_canceled());
        };
        let (delivered, ()) = tokio::join!(mark.deliver(), hear);
        delivered.unwrap();
        assert!(!key.being_canceled());
    }
}
