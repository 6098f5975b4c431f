//! Signals: SIGTERM and SIGINT drain, a second one ends at once; SIGQUIT ends at once; SIGHUP has TLS files, rules and users read
//! again, and so has a file with secrets that has changed.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::client::Process;
use crate::config::SecretFiles;

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

    /// Waits for the next one. Cancel safe: a reload that is under way goes on.
    pub(super) async fn end_asked(&mut self) -> Asked {
        loop {
            tokio::select! {
                _ = self.term.recv() => return Asked::Drain,
                _ = self.int.recv() => return Asked::Drain,
                _ = self.quit.recv() => return Asked::End,
                _ = self.hup.recv() => self.reload().await,
                () = self.secrets.next_change() => {
                    tracing::info!("a file with secrets has changed");
                    self.reload().await;
                }
            }
        }
    }

    /// Beside the worker, which has queries to move. What came of it is in the log.
    async fn reload(&self) {
        let process = Arc::clone(&self.process);
        // An error says that it panicked, which the log has.
        drop(tokio::task::spawn_blocking(move || process.reload()).await);
    }
}
