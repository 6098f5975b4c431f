//! The thread that keeps insight's books, about once a second: no client waits for it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::history::HistoryFile;
use crate::client::Process;

/// How often counters are carried into the books.
const PERIOD: Duration = Duration::from_secs(1);
/// How old what the history remembers may be.
const DAY: f64 = 86_400.0;

/// Starts it. It ends with the process.
///
/// # Errors
/// Those of starting a thread.
pub(super) fn start(process: &Arc<Process>) -> io::Result<()> {
    let process = Arc::clone(process);
    std::thread::Builder::new().name("insight".to_owned()).spawn(move || keep(&process))?;
    Ok(())
}

fn keep(process: &Process) {
    let mut file = process.config.insight.history_file.as_deref().map(|path| {
        let (file, known) = HistoryFile::open(path, unix() - DAY);
        process.insight.restore(known);
        file
    });
    loop {
        // An internal error costs one round, not the thread: the locks forgive it, and its place was logged.
        let _ = catch_unwind(AssertUnwindSafe(|| round(process, &mut file)));
        std::thread::park_timeout(PERIOD);
    }
}

fn round(process: &Process, file: &mut Option<HistoryFile>) {
    process.insight.sweep();
    process.with_sources(|sources| process.diagnosis.tick(sources));
    if let Some(interval) = process.insight.close_interval(unix())
        && let Some(file) = file
    {
        file.add(&interval, || process.insight.intervals());
    }
}

/// Seconds since the epoch.
fn unix() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
