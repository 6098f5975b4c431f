//! Signals: SIGTERM and SIGINT drain, a second one ends at once; SIGQUIT ends at once; SIGHUP has TLS files and rules read again,
//! and so has a file with secrets that has changed.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::client::Process;
use crate::config::{AuthMethod, SecretFiles};

/// The signals that end the process.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    quit: Signal,
    hup: Signal,
    /// Files that are as good as a signal when they change: mounted secrets come without one.
    secrets: SecretFiles,
    process: Arc<Process>,
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
    pub(super) fn new(process: Arc<Process>) -> io::Result<Self> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hup: signal(SignalKind::hangup())?,
            secrets: SecretFiles::of(&process.config),
            process,
        })
    }

    /// Certificates, keys and CAs, rules and maps, for connections to come; those that exist go on.
    fn reload(&self) {
        let tls = &self.process.tls;
        let rules = self.process.config.auth.method == AuthMethod::Hba;
        match tls.reload() {
            Ok(()) if tls.any() => tracing::info!("SIGHUP: certificates, keys and CAs were read again"),
            Ok(()) if rules => {}
            Ok(()) => tracing::warn!("SIGHUP: there are no TLS files or rules to read again"),
            Err(e) => tracing::error!(error = %e, "SIGHUP: a TLS file cannot be used; the old ones stay in force"),
        }
        if rules {
            match self.process.hba.load().reread() {
                Ok(hba) => {
                    tracing::info!(rules = hba.rules.iter().count(), "SIGHUP: auth_hba_file was read again");
                    self.process.hba.store(Arc::new(hba));
                }
                Err(e) => tracing::error!(error = %e, "SIGHUP: the rules cannot be used; the old ones stay in force"),
            }
        }
        tracing::info!("SIGHUP: other settings need a restart");
    }

    /// Waits for the next one. Cancel safe.
    pub(super) async fn end_asked(&mut self) -> Asked {
        loop {
            tokio::select! {
                _ = self.term.recv() => return Asked::Drain,
                _ = self.int.recv() => return Asked::Drain,
                _ = self.quit.recv() => return Asked::End,
                _ = self.hup.recv() => self.reload(),
                () = self.secrets.next_change() => {
                    tracing::info!("a file with secrets has changed");
                    self.reload();
                }
            }
        }
    }
}
