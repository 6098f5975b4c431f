//! A connection of the pooler's own that asks about a database: its catalogue, plans. It belongs to no pool, no client
//! ever gets it, and what it asks stands in one read-only transaction that is rolled back.

use std::sync::Arc;
use std::time::Duration;

use super::connect::{self, ConnectError, Messages, Target, fields_of};
use super::{ParamSet, Params};
use crate::auth::AuthContext;
use crate::wire::cursor::{Cursor, Truncated};
use crate::wire::error::Severity;
use crate::wire::tag::{backend, frontend};
use crate::wire::{ErrorFields, control, frame};

/// Longest message of an answer, and of all messages of one (a plan comes in one row).
const MAX_MESSAGE: usize = 1 << 20;
const MAX_ANSWER: usize = 8 << 20;
/// The server gives up before (`statement_timeout`): who is silent for longer is gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// What begins every transaction. Nothing is set for the session: whatever lies in between may share it.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '2s'; \
     SET LOCAL lock_timeout = '100ms'; SET LOCAL idle_in_transaction_session_timeout = '10s'";

/// Columns as text.
pub type Row = Vec<Option<String>>;

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum InspectError {
    /// No connection, or none any more.
    Connect(ConnectError),
    /// The server refused, in its words. The connection lives, its transaction does not.
    Refused(ErrorFields),
}

impl InspectError {
    /// In a few words.
    pub fn text(&self) -> String {
        match self {
            InspectError::Connect(e) => e.text(),
            InspectError::Refused(e) => format!("{} ({})", e.message, e.code),
        }
    }
}

impl From<ConnectError> for InspectError {
    fn from(e: ConnectError) -> Self {
        InspectError::Connect(e)
    }
}

impl From<Truncated> for InspectError {
    fn from(_: Truncated) -> Self {
        InspectError::Connect(ConnectError::Protocol("a message is cut short"))
    }
}

/// The connection. After [`InspectError::Connect`] it is of no use. Not cancel safe.
pub struct Inspector {
    io: Messages,
    /// Of the server, as in `server_version_num`; 0 before [`Self::begin`].
    pub version: u32,
}

impl Inspector {
    /// Logs in. Cancel safe.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(target: &Target, params: &Params, auth: &Arc<AuthContext>) -> Result<Self, InspectError> {
        let named = ParamSet::from_pairs([("application_name", "pgsluice insight"), ("client_encoding", "UTF8")]);
        let server = connect::connect(target, &params.intern(named), auth, crate::net::worker_id()).await?;
        Ok(Inspector { io: Messages::new(server.socket, &[]).up_to(MAX_MESSAGE), version: 0 })
    }

    /// Begins the transaction, read only and with time limits.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn begin(&mut self) -> Result<(), InspectError> {
        self.run(BEGIN).await?;
        if self.version == 0 {
            let shown = self.run("SHOW server_version_num").await?;
            self.version = first(&shown).and_then(|text| text.parse().ok()).unwrap_or(0);
        }
        Ok(())
    }

    /// Ends the transaction, whatever state it is in.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn end(&mut self) -> Result<(), InspectError> {
        self.run("ROLLBACK").await.map(drop)
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        let mut out = Vec::new();
        frame::put(&mut out, frontend::TERMINATE, |_| {});
        let _ = tokio::time::timeout(PATIENCE, self.io.socket.send_all(&out)).await;
    }

    /// Runs SQL of the pooler's own by the simple protocol.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn run(&mut self, sql: &str) -> Result<Vec<Row>, InspectError> {
        let mut out = Vec::with_capacity(sql.len() + 8);
        frame::put(&mut out, frontend::QUERY, |b| {
            b.extend_from_slice(sql.as_bytes());
            b.push(0);
        });
        self.answer(&out).await
    }

    /// Runs one statement, the parameters apart from its text: the server takes no second one behind it.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn ask(&mut self, sql: &str, parameters: &[&str]) -> Result<Vec<Row>, InspectError> {
        let mut out = Vec::with_capacity(sql.len() + 64);
        control::one_statement(&mut out, sql, parameters);
        self.answer(&out).await
    }

    async fn answer(&mut self, question: &[u8]) -> Result<Vec<Row>, InspectError> {
        let answer = tokio::time::timeout(PATIENCE, async {
            self.io.socket.send_all(question).await.map_err(ConnectError::from)?;
            self.read().await
        });
        answer.await.unwrap_or(Err(InspectError::Connect(ConnectError::Timeout)))
    }

    async fn read(&mut self) -> Result<Vec<Row>, InspectError> {
        let (mut rows, mut failed, mut bytes) = (Vec::new(), None, 0);
        loop {
            let (tag, body) = self.io.next().await?;
            bytes += body.len();
            if bytes > MAX_ANSWER {
                return Err(ConnectError::Protocol("the answer is too long").into());
            }
            match tag {
                backend::DATA_ROW => rows.push(row(&body)?),
                backend::ERROR => {
                    let fields = fields_of(&body, Severity::Fatal);
                    // The connection ends with these: it was terminated, waited too long in its transaction, or the server
                    // goes down.
                    if fields.code.starts_with("57P") || fields.code == "25P03" {
                        return Err(ConnectError::Refused(fields).into());
                    }
                    failed.get_or_insert(fields);
                }
                backend::READY_FOR_QUERY => break,
                _ => {}
            }
        }
        failed.map_or(Ok(rows), |fields| Err(InspectError::Refused(fields)))
    }
}

/// The first column of the first row.
pub fn first(rows: &[Row]) -> Option<&str> {
    rows.first()?.first()?.as_deref()
}

fn row(body: &[u8]) -> Result<Row, Truncated> {
    let mut c = Cursor::new(body);
    let columns = c.u16()?;
    (0..columns)
        .map(|_| match c.u32()? {
            u32::MAX => Ok(None),
            len => c.bytes(len as usize).map(|text| Some(String::from_utf8_lossy(text).into_owned())),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::row;

    proptest::proptest! {
        #[test]
        fn any_row_is_read_or_refused(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            let _ = row(&body);
            let two = [&[0, 2, 0, 0, 0, 1, b'u'][..], &body].concat();
            let _ = row(&two);
        }
    }
}
