//! Whether this instance is alive, and whether traffic should come to it.

use std::sync::atomic::Ordering::Relaxed;

use crate::client::Process;
use crate::config::AuthMethod;
use crate::pool::Pool;

/// A failed connect counts against readiness for this long. Not for ever: once nobody sends clients here, nobody
/// tries the database again either, and only a try can tell that it is back.
const FAILURE_COUNTS_US: u64 = 15_000_000;

/// Whether every address is being listened at.
///
/// # Errors
/// The reason, in one line.
pub fn started(process: &Process) -> Result<(), String> {
    let open = process.listening.lock().map_or(0, |l| l.len());
    let wanted = process.config.listen.len();
    if open < wanted {
        return Err(format!("starting: {open} of {wanted} addresses are open"));
    }
    Ok(())
}

/// Whether clients sent here would be served: listening, not draining, and no pool in use that could not reach its
/// database just now.
///
/// # Errors
/// The reason, in one line.
pub fn ready(process: &Process) -> Result<(), String> {
    started(process)?;
    if process.draining.load(Relaxed) {
        return Err("draining".to_owned());
    }
    if let Some(pool) = process.pools.all().into_iter().find(|p| p.warming()) {
        return Err(format!("database {:?} has not been reached yet", pool.database));
    }
    let failing = process.pools.all().into_iter().find_map(|p| {
        let why = p.failed_within(FAILURE_COUNTS_US)?;
        counts(process, &p, why).then_some((p, why))
    });
    match failing {
        Some((pool, why)) => {
            Err(format!("database {:?}: the last attempt to open a server connection failed ({why})", pool.database))
        }
        None => Ok(()),
    }
}

/// Whether a failure says something of this instance. Where clients choose the names (`*` databases, `auth_type` any)
/// one with a name that PostgreSQL does not know must not take the others' service away.
fn counts(process: &Process, pool: &Pool, why: &str) -> bool {
    let config = &process.config;
    // A user of the database whose password has changed, or who is gone, is a matter of her own.
    let hers = why == "auth" && config.asks() && !process.pools.shared().users.load().contains_key(&*pool.user);
    let ours = config.databases.contains_key(&*pool.database) && config.auth.method != AuthMethod::Any && !hers;
    ours || matches!(why, "refused" | "timeout")
}
