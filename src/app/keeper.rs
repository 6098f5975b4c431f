//! The thread that keeps insight's books, about once a second: no client waits for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::client::Process;

/// How often counters are carried into the books.
const PERIOD: Duration = Duration::from_secs(1);

/// Starts it. It ends with the process.
///
/// # Errors
/// Those of starting a thread.
pub(super) fn start(process: &Arc<Process>) -> io::Result<()> {
    let process = Arc::clone(process);
    let keep = move || {
        loop {
            std::thread::park_timeout(PERIOD);
            process.insight.sweep();
            process.with_sources(|sources| process.diagnosis.tick(sources));
        }
    };
    std::thread::Builder::new().name("insight".to_owned()).spawn(keep)?;
    Ok(())
}
