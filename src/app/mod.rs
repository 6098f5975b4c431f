//! Wires everything: listeners, workers, the HTTP thread, signals, drain.

mod fuzz;
mod history;
mod inspector;
mod keeper;
mod signals;
mod worker;

pub use fuzz::StartupFuzz;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use arc_swap::ArcSwap;

use crate::auth::AuthContext;
use crate::cancel::Cancels;
use crate::client::{Backoff, Clients, Process, Strangers};
use crate::config::Config;
use crate::diagnosis::Diagnosis;
use crate::diagnosis::inspection::Plans;
use crate::insight::Insight;
use crate::net::{Aside, TlsFiles};
use crate::pool::{Directory, Pools, Shared};
use crate::server::{Params, StatementCache};

/// Exit status after a drain in which every client ended by itself.
pub const EXIT_OK: u8 = 0;
/// Exit status when something needed at the start was not to be had (an address in use, say).
pub const EXIT_FAILED: u8 = 1;
/// Exit status when clients were cut off: the deadline passed, or a second signal came.
pub const EXIT_CUT_OFF: u8 = 3;

/// Runs until a signal ends it.
pub fn run(config: Arc<Config>) -> ExitCode {
    quiet_panics();
    raise_file_limit();
    let process = match process(config) {
        Ok(p) => p,
        Err(e) => {
            tracing::error!(error = %e, "cannot start");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    worker::run_all(&process)
}

fn process(config: Arc<Config>) -> Result<Arc<Process>, Box<dyn std::error::Error>> {
    let tls = Arc::new(TlsFiles::load(&config)?);
    let auth = Arc::new(AuthContext::with(config.auth.scram_iterations, config.auth.salts.clone())?);
    auth.learn_users(&config.auth.users);
    let users = Arc::new(ArcSwap::from_pointee(config.auth.users.clone()));
    let server_logins = Arc::new(Aside::new()?);
    let shared = Shared {
        tls: Arc::clone(&tls),
        auth: Arc::clone(&auth),
        directory: Directory::new(
            Arc::clone(&config),
            Arc::clone(&users),
            Arc::clone(&tls),
            Arc::clone(&auth),
            Arc::clone(&server_logins),
        ),
        aside: server_logins,
        users,
        params: Params::default(),
        statements: StatementCache::default(),
        workers: config.workers,
    };
    Ok(Arc::new(Process {
        pools: Pools::new(Arc::clone(&config), Arc::new(shared)),
        cancels: Arc::new(Cancels::default()),
        clients: Arc::new(Clients::default()),
        strangers: Arc::new(Strangers::new(config.max_unauthenticated_conn)),
        auth,
        backoff: Backoff::new(config.timeouts.failed_login_delay),
        aside: Aside::new()?,
        reloading: Mutex::default(),
        tls,
        hba: ArcSwap::from_pointee(config.auth.hba.clone()),
        insight: Insight::new(&config.insight),
        diagnosis: Diagnosis::default(),
        plans: Plans::default(),
        draining: AtomicBool::new(false),
        listening: Mutex::default(),
        started_unix: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        config,
    }))
}

/// A panic ends its session only, and its message might hold what no log may hold: the place alone is logged.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
        tracing::error!(target: "pgsluice::panic", place, "a session ended by an internal error; please report this place");
    }));
}

/// Every client is a descriptor: take what the hard limit allows.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_err() {
        tracing::warn!("could not raise the limit of open files");
    }
}

/// Begins the drain.
fn drain(process: &Process) {
    process.draining.store(true, Relaxed);
}
