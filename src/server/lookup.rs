//! One question of the pooler's own to a database: what is the secret of this user (`auth_query`)?

use std::sync::Arc;

use super::connect::{self, ConnectError, Messages, Target, fields_of};
use super::{ParamSet, Params};
use crate::auth::{AuthContext, Secret};
use crate::wire::cursor::{Cursor, Truncated};
use crate::wire::error::Severity;
use crate::wire::tag::backend;
use crate::wire::{ErrorFields, control};

/// Longest name of a user that PostgreSQL has (NAMEDATALEN - 1): longer ones are not asked for.
pub const MAX_USER: usize = 63;

/// Why there is no answer. `Debug` and texts hold no secret.
#[derive(Clone, Debug)]
pub enum LookupError {
    /// No connection, or no login as `auth_user`.
    Connect(ConnectError),
    /// The query failed, in the server's words.
    Query(ErrorFields),
    /// It does not answer as a query for secrets should.
    Answer(&'static str),
    /// Too many logins wait for answers.
    Busy,
}

impl std::fmt::Display for LookupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LookupError::Connect(e) => f.write_str(&e.text()),
            LookupError::Query(e) => f.write_str(&e.message),
            LookupError::Answer(what) => f.write_str(what),
            LookupError::Busy => f.write_str("too many logins wait for it"),
        }
    }
}

/// A connection for such questions.
pub struct Asker {
    io: Messages,
}

impl Asker {
    /// Logs in. Cancel safe.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(target: &Target, params: &Params, auth: &Arc<AuthContext>) -> Result<Asker, LookupError> {
        let named = ParamSet::from_pairs([("application_name", "pgsluice auth_query")]);
        let worker = crate::net::worker_id();
        let server =
            connect::connect(target, &params.intern(named), auth, worker).await.map_err(LookupError::Connect)?;
        Ok(Asker { io: Messages::new(server.socket, &[]) })
    }

    /// Asks; `None`: there is no such user. A user without a password has the empty one. Not cancel safe: the connection is
    /// of no use then, nor after an error other than [`LookupError::Query`].
    ///
    /// # Errors
    /// See [`LookupError`].
    pub async fn ask(&mut self, query: &str, user: &str) -> Result<Option<Secret>, LookupError> {
        let lost = |e: std::io::Error| LookupError::Connect(e.into());
        let mut question = Vec::with_capacity(query.len() + user.len() + 64);
        control::one_statement(&mut question, query, &[user]);
        self.io.socket.send_all(&question).await.map_err(lost)?;
        let (mut found, mut rows, mut failed) = (Ok(None), 0, None);
        loop {
            let (tag, body) = self.io.next().await.map_err(LookupError::Connect)?;
            match tag {
                backend::DATA_ROW => {
                    rows += 1;
                    found = read_row(&body, user);
                }
                backend::ERROR => {
                    let fields = fields_of(&body, Severity::Fatal);
                    // The connection ends with these: it was terminated, or the server goes down.
                    if fields.code.starts_with("57P") {
                        return Err(LookupError::Connect(ConnectError::Refused(fields)));
                    }
                    failed.get_or_insert(fields);
                }
                backend::READY_FOR_QUERY => break,
                _ => {}
            }
        }
        match failed {
            Some(fields) => Err(LookupError::Query(fields)),
            None if rows > 1 => Err(LookupError::Answer("it answers with more than one row")),
            None => found.map_err(LookupError::Answer),
        }
    }
}

/// A row of name and secret. Functions with OUT parameters answer for a stranger with a row of two NULLs.
fn read_row(body: &[u8], user: &str) -> Result<Option<Secret>, &'static str> {
    const CUT: &str = "it answers with a message that is cut short";
    let mut c = Cursor::new(body);
    let columns = c.u16().map_err(|_| CUT)?;
    if columns != 2 {
        return Err("it must answer with two columns: name and secret");
    }
    let (name, secret) = (column(&mut c).map_err(|_| CUT)?, column(&mut c).map_err(|_| CUT)?);
    match name {
        None => return Ok(None),
        Some(name) if name != user.as_bytes() => {
            return Err("it answers with another user's name than it was asked for");
        }
        Some(_) => {}
    }
    let secret =
        std::str::from_utf8(secret.unwrap_or_default()).map_err(|_| "it answers with a secret that is not UTF-8")?;
    Ok(Some(Secret::parse(secret)))
}

fn column<'a>(c: &mut Cursor<'a>) -> Result<Option<&'a [u8]>, Truncated> {
    match c.u32()? {
        u32::MAX => Ok(None),
        len => c.bytes(len as usize).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: &[Option<&str>]) -> Vec<u8> {
        let mut body = (columns.len() as u16).to_be_bytes().to_vec();
        for column in columns {
            body.extend(column.map_or(u32::MAX, |text| text.len() as u32).to_be_bytes());
            body.extend(column.unwrap_or_default().as_bytes());
        }
        body
    }

    proptest::proptest! {
        #[test]
        fn any_row_is_read_or_refused(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            let _ = read_row(&body, "u");
            let two = [&[0, 2, 0, 0, 0, 1, b'u'][..], &body].concat();
            let _ = read_row(&two, "u");
        }
    }

    #[test]
    fn rows_are_read_or_refused() {
        let read = |columns: &[Option<&str>]| read_row(&row(columns), "u");
        assert_eq!(read(&[Some("u"), Some("secret")]), Ok(Some(Secret::Plain("secret".into()))));
        assert_eq!(read(&[Some("u"), None]), Ok(Some(Secret::Plain(String::new()))));
        assert_eq!(read(&[None, None]), Ok(None));
        for columns in [&[Some("U"), Some("x")][..], &[Some("u")], &[Some("u"), Some("x"), Some("y")], &[]] {
            assert!(read(columns).is_err(), "{columns:?}");
        }
        let whole = row(&[Some("u"), Some("secret")]);
        for end in 0..whole.len() {
            assert!(read_row(&whole[..end], "u").is_err(), "{end}");
        }
    }
}
