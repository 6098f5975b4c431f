//! Signals: SIGTERM and SIGINT drain, a second one ends at once; SIGQUIT ends at once; SIGHUP has TLS files read again.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::net::TlsFiles;

/// The signals that end the process.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    quit: Signal,
    hup: Signal,
    tls: Arc<TlsFiles>,
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    /// SIGTERM, SIGINT.
    Drain,
    /// SIGQUIT.
    End,
}

impl Signals {
    /// Listens from now on.
    pub(super) fn new(tls: Arc<TlsFiles>) -> io::Result<Self> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hup: signal(SignalKind::hangup())?,
            tls,
        })
    }

    /// Certificates, keys and CAs, for connections to come; those that exist go on.
    fn reload(&self) {
        match self.tls.reload() {
            Ok(()) if self.tls.any() => {
                tracing::info!("SIGHUP: certificates, keys and CAs were read again; other settings need a restart")
            }
            Ok(()) => tracing::warn!("SIGHUP: there are no TLS files to read again; other settings need a restart"),
            Err(e) => tracing::error!(error = %e, "SIGHUP: a TLS file cannot be used; the old ones stay in force"),
        }
    }

    /// Waits for the next one. Cancel safe.
    pub(super) async fn end_asked(&mut self) -> Asked {
        loop {
            tokio::select! {
                _ = self.term.recv() => return Asked::Drain,
                _ = self.int.recv() => return Asked::Drain,
                _ = self.quit.recv() => return Asked::End,
                _ = self.hup.recv() => self.reload(),
            }
        }
    }
}
