//! Signals: SIGTERM and SIGINT drain, a second one ends at once; SIGQUIT ends at once; SIGHUP has TLS files, rules and users read
//! again, and so has a file with secrets that has changed.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

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
    /// The reload that is under way: it may hang (a file that is a pipe, a network's file system), and must delay no stop.
    reloading: Option<JoinHandle<()>>,
    /// Asked for meanwhile, once or more: files may have changed behind it.
    again: bool,
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
            reloading: None,
            again: false,
        })
    }

    /// Waits for the next one. Cancel safe: a reload that is under way goes on.
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
                () = end(&mut self.reloading) => {
                    if std::mem::take(&mut self.again) {
                        self.reload();
                    }
                }
            }
        }
    }

    /// Begins a reload beside the worker, which has queries to move; behind the one that is under way. What came of it is in
    /// the log.
    fn reload(&mut self) {
        if self.reloading.is_some() {
            if !std::mem::replace(&mut self.again, true) {
                tracing::info!("the files are read again once the reload that is under way has ended");
            }
            return;
        }
        let process = Arc::clone(&self.process);
        self.reloading = Some(tokio::task::spawn_blocking(move || drop(process.reload())));
    }
}

/// Waits for the reload that is under way, if there is one. Cancel safe.
async fn end(reloading: &mut Option<JoinHandle<()>>) {
    let Some(running) = reloading else { return std::future::pending().await };
    // An error says that it panicked, which the log has.
    drop(running.await);
    *reloading = None;
}
