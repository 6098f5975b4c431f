//! Whole control messages: the only module that uses `pgwire`.
//!
//! pgwire encodes what pgsluice says itself. What peers say is read with [`super::cursor`] and [`super::error`], one
//! validated frame at a time, because pgwire's decoders panic on short bodies; a client's SQL and rows never come here.

use bytes::{Bytes, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::cancel::CancelRequest;
use pgwire::messages::data::{DataRow, FieldDescription, RowDescription};
use pgwire::messages::response::{CommandComplete, ErrorResponse, NoticeResponse, ReadyForQuery, TransactionStatus};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, Password, SASLInitialResponse, SASLResponse, SecretKey,
    Startup,
};

use super::TxStatus;
use super::cursor::{Cursor, Truncated};
use super::error::{ErrorFields, Severity};

/// `text` OID (pg_type.dat).
const TEXT_OID: u32 = 25;
/// `bigint` OID (pg_type.dat).
const INT8_OID: u32 = 20;

/// Appends `message`. pgwire refuses only messages above its own size limits, which nothing we build reaches.
fn put(out: &mut Vec<u8>, message: &impl Message) {
    let mut b = BytesMut::new();
    if message.encode(&mut b).is_ok() {
        out.extend_from_slice(&b);
    } else {
        debug_assert!(false, "a control message of ours exceeded pgwire's limit");
    }
}

/// ErrorResponse or, for [`Severity::Warning`] and [`Severity::Notice`], NoticeResponse.
pub fn error(out: &mut Vec<u8>, e: &ErrorFields) {
    // A NUL would end the field early and shift what follows.
    let clean = |s: &str| s.replace('\0', " ");
    let mut fields = vec![
        (b'S', e.severity.word().to_owned()),
        (b'V', e.severity.word().to_owned()),
        (b'C', clean(&e.code)),
        (b'M', clean(&e.message)),
    ];
    fields.extend(e.detail.as_ref().map(|d| (b'D', clean(d))));
    fields.extend(e.hint.as_ref().map(|h| (b'H', clean(h))));
    if matches!(e.severity, Severity::Warning | Severity::Notice) {
        put(out, &NoticeResponse::new(fields));
    } else {
        put(out, &ErrorResponse::new(fields));
    }
}

/// ReadyForQuery.
pub fn ready(out: &mut Vec<u8>, status: TxStatus) {
    put(
        out,
        &ReadyForQuery::new(match status {
            TxStatus::Idle => TransactionStatus::Idle,
            TxStatus::Transaction => TransactionStatus::Transaction,
            TxStatus::Failed => TransactionStatus::Error,
        }),
    );
}

/// What pgsluice asks of a client that logs in.
pub enum Ask<'a> {
    /// AuthenticationOk.
    Ok,
    /// AuthenticationCleartextPassword.
    Cleartext,
    /// AuthenticationMD5Password.
    Md5([u8; 4]),
    /// AuthenticationSASL.
    Sasl(&'a [&'a str]),
    /// AuthenticationSASLContinue.
    SaslContinue(&'a [u8]),
    /// AuthenticationSASLFinal.
    SaslFinal(&'a [u8]),
}

/// An Authentication message.
pub fn authentication(out: &mut Vec<u8>, ask: &Ask<'_>) {
    put(
        out,
        &match ask {
            Ask::Ok => Authentication::Ok,
            Ask::Cleartext => Authentication::CleartextPassword,
            Ask::Md5(salt) => Authentication::MD5Password(salt.to_vec()),
            Ask::Sasl(m) => Authentication::SASL(m.iter().map(|s| (*s).to_owned()).collect()),
            Ask::SaslContinue(d) => Authentication::SASLContinue(Bytes::copy_from_slice(d)),
            Ask::SaslFinal(d) => Authentication::SASLFinal(Bytes::copy_from_slice(d)),
        },
    );
}

/// Parse, Bind, Execute and Sync of the unnamed statement: one statement of the pooler's own, its parameters apart from its
/// text, results as text.
pub fn one_statement(out: &mut Vec<u8>, sql: &str, parameters: &[&str]) {
    use super::frame::put;
    use super::tag::frontend;
    put(out, frontend::PARSE, |b| {
        b.push(0);
        b.extend_from_slice(sql.as_bytes());
        b.extend_from_slice(&[0, 0, 0]);
    });
    put(out, frontend::BIND, |b| {
        // No names, no formats.
        b.extend_from_slice(&[0; 4]);
        b.extend_from_slice(&(parameters.len() as u16).to_be_bytes());
        for parameter in parameters {
            b.extend_from_slice(&(parameter.len() as u32).to_be_bytes());
            b.extend_from_slice(parameter.as_bytes());
        }
        b.extend_from_slice(&[0; 2]);
    });
    put(out, frontend::EXECUTE, |b| b.extend_from_slice(&[0; 5]));
    put(out, frontend::SYNC, |_| {});
}

/// ParameterStatus, from bytes as the server sent them.
pub fn parameter_status(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    super::frame::put(out, super::tag::backend::PARAMETER_STATUS, |b| {
        b.extend_from_slice(name);
        b.push(0);
        b.extend_from_slice(value);
        b.push(0);
    });
}

/// BackendKeyData: a secret of 4 bytes in protocol 3.0, of up to 256 from 3.2 on.
pub fn backend_key(out: &mut Vec<u8>, pid: u32, secret: &[u8]) {
    put(out, &BackendKeyData::new(pid as i32, SecretKey::Bytes(Bytes::copy_from_slice(secret))));
}

/// NegotiateProtocolVersion: 3.`minor` is what we speak with this client, and these options we do not know.
///
/// The full version number is sent, as PostgreSQL does (backend_startup.c, SendNegotiateProtocolVersion).
pub fn negotiate(out: &mut Vec<u8>, minor: u16, unknown: Vec<String>) {
    put(out, &NegotiateProtocolVersion::new(3 << 16 | i32::from(minor), unknown));
}

/// StartupMessage of protocol 3.0.
pub fn startup<'a>(out: &mut Vec<u8>, parameters: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let mut s = Startup::default();
    s.protocol_number_major = 3;
    s.protocol_number_minor = 0;
    for (k, v) in parameters {
        s.parameters.insert(k.to_owned(), v.to_owned());
    }
    put(out, &s);
}

/// CancelRequest.
pub fn cancel(out: &mut Vec<u8>, pid: u32, secret: &[u8]) {
    put(out, &CancelRequest::new(pid as i32, SecretKey::Bytes(Bytes::copy_from_slice(secret))));
}

/// SSLRequest.
pub fn ssl_request(out: &mut Vec<u8>) {
    out.extend_from_slice(&8u32.to_be_bytes());
    out.extend_from_slice(&super::startup::SSL.to_be_bytes());
}

/// PasswordMessage; `password` is already hashed for md5.
pub fn password(out: &mut Vec<u8>, password: &str) {
    put(out, &Password::new(password.to_owned()));
}

/// SASLInitialResponse.
pub fn sasl_initial(out: &mut Vec<u8>, mechanism: &str, data: &[u8]) {
    put(out, &SASLInitialResponse::new(mechanism.to_owned(), Some(Bytes::copy_from_slice(data))));
}

/// SASLResponse.
pub fn sasl_response(out: &mut Vec<u8>, data: &[u8]) {
    put(out, &SASLResponse::new(Bytes::copy_from_slice(data)));
}

/// The type of a console column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColumnType {
    /// `text`.
    Text,
    /// `bigint`, in text format.
    Int8,
}

/// RowDescription of console columns.
pub fn row_description(out: &mut Vec<u8>, columns: &[(&str, ColumnType)]) {
    let fields = columns
        .iter()
        .map(|(name, ty)| {
            let (oid, size) = match ty {
                ColumnType::Text => (TEXT_OID, -1),
                ColumnType::Int8 => (INT8_OID, 8),
            };
            FieldDescription::new((*name).to_owned(), 0, 0, oid, size, -1, 0)
        })
        .collect();
    put(out, &RowDescription::new(fields));
}

/// DataRow of text values; `None` is NULL.
pub fn data_row(out: &mut Vec<u8>, values: &[Option<String>]) {
    let mut data = BytesMut::new();
    for v in values {
        match v {
            None => data.extend_from_slice(&(-1i32).to_be_bytes()),
            Some(v) => {
                data.extend_from_slice(&(v.len() as i32).to_be_bytes());
                data.extend_from_slice(v.as_bytes());
            }
        }
    }
    put(out, &DataRow::new(data, values.len() as i16));
}

/// CommandComplete.
pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    put(out, &CommandComplete::new(tag.to_owned()));
}

/// Rows that a CommandComplete body reports: the last word when it is a number (`INSERT 0 5`, `SELECT 3`).
pub fn rows(body: &[u8]) -> u64 {
    let body = body.strip_suffix(&[0]).unwrap_or(body);
    let at = memchr::memrchr(b' ', body).map_or(body.len(), |i| i + 1);
    let mut n: u64 = 0;
    for b in &body[at..] {
        if !b.is_ascii_digit() {
            return 0;
        }
        n = n.saturating_mul(10).saturating_add(u64::from(b - b'0'));
    }
    n
}

/// A ParameterStatus body.
///
/// # Errors
/// [`Truncated`].
pub fn read_parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), Truncated> {
    let mut c = Cursor::new(body);
    Ok((c.cstr()?, c.cstr()?))
}

/// A BackendKeyData body: process id and secret (4 to 256 bytes).
///
/// # Errors
/// [`Truncated`] for any other length.
pub fn read_backend_key(body: &[u8]) -> Result<(u32, &[u8]), Truncated> {
    let mut c = Cursor::new(body);
    let pid = c.u32()?;
    if !(4..=256).contains(&c.rest().len()) {
        return Err(Truncated);
    }
    Ok((pid, c.rest()))
}

/// An Authentication body: its code and what follows.
///
/// # Errors
/// [`Truncated`].
pub fn read_authentication(body: &[u8]) -> Result<(u32, &[u8]), Truncated> {
    let mut c = Cursor::new(body);
    Ok((c.u32()?, c.rest()))
}

/// Fuzz entry: no body of a peer panics in the readers above.
pub fn fuzz_control(data: &[u8]) {
    let _ = rows(data);
    let _ = read_parameter_status(data);
    let _ = read_backend_key(data);
    let _ = read_authentication(data);
    let _ = super::error::code(data);
    let _ = super::error::is_fatal(data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::error::field;

    #[test]
    fn errors_carry_postgresqls_fields() {
        let mut out = Vec::new();
        error(&mut out, &ErrorFields::fatal("53300", "no more").detail("d").hint("h"));
        let body = &out[5..];
        assert_eq!(out[0], b'E');
        assert_eq!(field(body, b'C'), Some(&b"53300"[..]));
        assert_eq!(field(body, b'V'), Some(&b"FATAL"[..]));
        assert_eq!((field(body, b'D'), field(body, b'H')), (Some(&b"d"[..]), Some(&b"h"[..])));
        assert!(crate::wire::error::is_fatal(body));
    }

    #[test]
    fn a_nul_in_a_message_does_not_shift_fields() {
        let mut out = Vec::new();
        error(&mut out, &ErrorFields::error("XX000", "a\0Cb").hint("h"));
        assert_eq!(field(&out[5..], b'C'), Some(&b"XX000"[..]));
        assert_eq!(field(&out[5..], b'H'), Some(&b"h"[..]));
    }

    #[test]
    fn rows_of_command_tags() {
        for (tag, n) in
            [("SELECT 12", 12), ("INSERT 0 5", 5), ("BEGIN", 0), ("CREATE TABLE", 0), ("FETCH 100", 100), ("COPY 7", 7)]
        {
            let mut out = Vec::new();
            command_complete(&mut out, tag);
            assert_eq!(rows(&out[5..]), n, "{tag}");
        }
    }

    #[test]
    fn a_startup_message_of_ours_is_one() {
        let mut out = Vec::new();
        startup(&mut out, [("user", "u"), ("database", "d"), ("application_name", "a")]);
        assert_eq!(crate::wire::startup::packet_len(&out), Ok(Some(out.len())));
        let crate::wire::startup::First::Startup(s) = crate::wire::startup::read(&out).unwrap() else {
            panic!("not a startup")
        };
        assert_eq!((s.user.as_str(), s.database.as_str()), ("u", "d"));
    }

    #[test]
    fn a_cancel_of_ours_is_one() {
        let mut out = Vec::new();
        cancel(&mut out, 7, &[1, 2, 3, 4, 5]);
        let first = crate::wire::startup::read(&out).unwrap();
        assert_eq!(first, crate::wire::startup::First::Cancel { pid: 7, secret: vec![1, 2, 3, 4, 5] });
    }
}
