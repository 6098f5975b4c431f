//! The thread that looks at catalogues and plans, where that is configured. No client waits for it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::worker::runtime;
use crate::client::Process;
use crate::diagnosis::inspection::{Watch, task};

/// After an internal error.
const PAUSE: Duration = Duration::from_secs(60);

/// Starts it, when there is something to look at. It ends with the process.
///
/// # Errors
/// Those of starting a thread.
pub(super) fn start(process: &Arc<Process>) -> io::Result<()> {
    let insight = &process.config.insight;
    if !insight.catalog && !insight.explain {
        return Ok(());
    }
    let process = Arc::clone(process);
    std::thread::Builder::new().name("inspector".to_owned()).spawn(move || {
        loop {
            // It ends by an internal error only, whose place was logged: begun anew after a while.
            let _ = catch_unwind(AssertUnwindSafe(|| match runtime() {
                Ok(runtime) => runtime.block_on(inspect(&process)),
                Err(error) => tracing::error!(%error, "catalogues and plans cannot be read"),
            }));
            std::thread::park_timeout(PAUSE);
        }
    })?;
    Ok(())
}

async fn inspect(process: &Process) {
    let wishes = || process.with_sources(|sources| process.diagnosis.wishes(sources));
    let watch = Watch {
        pools: &process.pools,
        insight: &process.insight,
        plans: &process.plans,
        config: &process.config.insight,
        wishes: &wishes,
    };
    task::run(&watch).await;
}
