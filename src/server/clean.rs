//! Bringing a server back to a state in which another client may have it.
//!
//! Works on a server that nobody holds, off the hot path, with a deadline; on any doubt the server is closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::connect::{ConnectError, Messages, fields_of};
use super::{ParamSet, Server, ServerKey, keep_notice, note};
use crate::net::Socket;
use crate::wire::tag::{backend, frontend};
use crate::wire::tracker::{Action, Entry, Request, Tracker};
use crate::wire::{ErrorFields, Severity, TxStatus, control, frame, names};

/// Time allowed to drain and clean one server.
pub const CLEAN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a server could not be cleaned. It is closed.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// Took too long.
    #[error("timed out")]
    Timeout,
    /// Half a message was on its way, in either direction.
    #[error("a message was cut short")]
    Partial,
    /// The server failed.
    #[error("{0}")]
    Failed(String),
}

impl From<ConnectError> for CleanError {
    fn from(e: ConnectError) -> Self {
        CleanError::Failed(match e {
            ConnectError::Unreachable(m) => m,
            ConnectError::Protocol(m) => m.to_owned(),
            other => format!("{other:?}"),
        })
    }
}

/// Takes a server whose client has gone: answers still owed are awaited (after a cancel), an open transaction is
/// rolled back, and `reset` (when not empty) is run if the server is dirty. Not cancel safe: the server is lost
/// with the future, which is what doubt demands.
///
/// # Errors
/// See [`CleanError`].
pub async fn reclaim(server: Server, reset: &str) -> Result<Server, CleanError> {
    tokio::time::timeout(CLEAN_TIMEOUT, Box::pin(work(server, reset))).await.unwrap_or(Err(CleanError::Timeout))
}

async fn work(mut server: Server, reset: &str) -> Result<Server, CleanError> {
    if !server.unsent.is_empty() || server.in_message.left > 0 && server.input.is_some() {
        return Err(CleanError::Partial);
    }
    if !server.tracker.answered() {
        if server.tracker.copying_in() {
            end_copy(&mut server.socket, &mut server.tracker).await?;
        } else if server.tracker.wants_sync() {
            let mut out = Vec::new();
            undo_pipeline(&mut server.tracker, &mut out);
            server.socket.send_all(&out).await.map_err(|e| CleanError::Failed(e.to_string()))?;
        }
        let key = Arc::clone(&server.key);
        let canceling = Canceling::start(&key);
        server = drain(server).await?.0;
        drop(canceling);
        server.key.settled().await;
    }
    if server.tracker.status() != TxStatus::Idle {
        server = run(server, b"ROLLBACK").await?;
    }
    if server.dirty && !reset.is_empty() {
        server = run(server, reset.as_bytes()).await?;
        server.statements.clear();
        server.params = Arc::new(ParamSet::default());
        server.dirty = false;
    }
    server.said.clear();
    if server.key.in_doubt() {
        return Err(CleanError::Failed("a cancel request may still come to it".to_owned()));
    }
    if server.dirty || server.tracker.status() != TxStatus::Idle || server.tracker.tainted() {
        return Err(CleanError::Failed("state was left behind".to_owned()));
    }
    Ok(server)
}

/// Cancels again and again while it lives: a cancel that arrives before the query it means is lost. No cancel begins
/// once it is dropped; the one under way is waited for with [`ServerKey::settled`].
struct Canceling {
    _stop: oneshot::Sender<()>,
}

impl Canceling {
    fn start(key: &Arc<ServerKey>) -> Self {
        let (stop, mut stopped) = oneshot::channel::<()>();
        let key = Arc::clone(key);
        let mut mark = key.mark();
        tokio::spawn(async move {
            let mut pause = Duration::from_millis(20);
            loop {
                // What it came to is seen in the answers.
                let _ = mark.deliver().await;
                tokio::select! {
                    biased;
                    _ = &mut stopped => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause *= 2;
                mark = key.mark();
            }
        });
        Canceling { _stop: stop }
    }
}

/// Ends a pipeline whose client left without a Sync. A Sync alone would commit what the client never asked to commit;
/// PostgreSQL rolls it back when the connection ends. After an error all of it is skipped to the Sync.
pub(crate) fn undo_pipeline(tracker: &mut Tracker, out: &mut Vec<u8>) {
    // No parameter types; no formats, no parameters, no result formats; all rows.
    frame::put(out, frontend::PARSE, |b| b.extend_from_slice(b"\0ROLLBACK\0\0\0"));
    frame::put(out, frontend::BIND, |b| b.extend_from_slice(&[0; 8]));
    frame::put(out, frontend::EXECUTE, |b| b.extend_from_slice(&[0; 5]));
    frame::put(out, frontend::SYNC, |_| {});
    for request in [Request::Parse, Request::Bind, Request::Execute, Request::Sync] {
        tracker.push(Entry::new(request, Action::Skip));
    }
}

/// Ends a COPY whose client has gone: CopyFail, and a Sync for the extended protocol (one Z more for the simple).
pub(crate) fn fail_copy(tracker: &mut Tracker, out: &mut Vec<u8>) {
    frame::put(out, frontend::COPY_FAIL, |b| b.extend_from_slice(b"client disconnected\0"));
    frame::put(out, frontend::SYNC, |_| {});
    tracker.push(Entry::new(Request::CopyEnd, Action::Skip));
    tracker.push(Entry::new(Request::Sync, Action::Skip));
}

async fn end_copy(socket: &mut Socket, tracker: &mut Tracker) -> Result<(), CleanError> {
    let mut out = Vec::new();
    fail_copy(tracker, &mut out);
    socket.send_all(&out).await.map_err(|e| CleanError::Failed(e.to_string()))
}

/// Reads and drops answers until everything asked has been answered.
async fn drain(mut server: Server) -> Result<Heard, CleanError> {
    let mut skip = server.in_message.left;
    server.in_message = super::InMessage::default();
    let mut chunk = vec![0u8; 16 * 1024];
    while skip > 0 {
        let room = skip.min(chunk.len());
        let n = server.socket.recv(&mut chunk[..room]).await.map_err(|e| CleanError::Failed(e.to_string()))?;
        if n == 0 {
            return Err(CleanError::Partial);
        }
        skip -= n;
    }
    hear(server).await
}

/// The server, in step again, and the first error it answered with.
type Heard = (Server, Option<ErrorFields>);

/// Digests messages until the tracker says that nothing is owed.
async fn hear(mut server: Server) -> Result<Heard, CleanError> {
    let mut error = None;
    server.said.clear();
    let rest = server.input.take();
    let mut io = Messages::new(server.socket, rest.as_ref().map_or(&[], |l| l.filled()));
    loop {
        while server.tracker.pop_fake().is_some() {}
        if server.tracker.answered() && !io.has_more() {
            server.socket = io.socket;
            return Ok((server, error));
        }
        let (tag, body) = io.next().await?;
        match tag {
            backend::PARAMETER_STATUS => {
                let (name, value) =
                    control::read_parameter_status(&body).map_err(|e| CleanError::Failed(e.to_string()))?;
                note(&mut server.reported, name, value);
                follow(&mut server.params, name, value);
            }
            backend::NOTICE => keep_notice(&mut server.said, &body),
            backend::ERROR if error.is_none() => error = Some(fields_of(&body, Severity::Fatal)),
            _ => {}
        }
        server.tracker.answer(tag, &body).map_err(|e| CleanError::Failed(e.to_string()))?;
        if tag == backend::COPY_IN_RESPONSE {
            // A COPY does not notice a cancel while it waits for data.
            end_copy(&mut io.socket, &mut server.tracker).await?;
        }
        if server.tracker.failing() && server.tracker.wants_sync() {
            // A Query behind what failed is skipped, and nothing is answered in its place.
            let mut sync = Vec::new();
            frame::put(&mut sync, frontend::SYNC, |_| {});
            server.tracker.push(Entry::new(Request::Sync, Action::Skip));
            io.socket.send_all(&sync).await.map_err(|e| CleanError::Failed(e.to_string()))?;
        }
        for dropped in server.tracker.take_dropped().rev() {
            match dropped.request {
                Request::Close if dropped.action == Action::Skip => server.statements.not_closed(dropped.statement),
                _ => server.statements.parse_dropped(dropped.statement, dropped.place),
            }
        }
    }
}

/// A parameter changed with nobody listening (its client had gone, or a ROLLBACK brought it back): the record follows.
fn follow(params: &mut Arc<ParamSet>, name: &[u8], value: &[u8]) {
    if let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value))
        && !super::params::fixed(name)
    {
        *params = Arc::new(params.with(&name.to_ascii_lowercase(), value));
    }
}

/// Runs one statement of ours to its end.
///
/// # Errors
/// The statement failed, or the connection did.
async fn run(server: Server, sql: &[u8]) -> Result<Server, CleanError> {
    match apply(server, sql).await? {
        (server, None) => Ok(server),
        (_, Some(e)) => Err(CleanError::Failed(e.message)),
    }
}

/// Runs one simple Query of ours; the error, if any, is the statement's, and the server is in step.
/// Not cancel safe: the server is lost with the future.
///
/// # Errors
/// The connection failed.
pub async fn apply(mut server: Server, sql: &[u8]) -> Result<(Server, Option<ErrorFields>), CleanError> {
    let mut out = Vec::new();
    names::put_query(&mut out, sql);
    server.unnamed_of = 0;
    server.tracker.push(Entry::new(Request::Query, Action::Forward));
    server.socket.send_all(&out).await.map_err(|e| CleanError::Failed(e.to_string()))?;
    hear(server).await
}
