//! (under construction)

/// Runs the pooler until it is told to stop.
pub fn run(_config: std::sync::Arc<crate::config::Config>) -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
