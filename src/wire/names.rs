//! The names inside Parse, Bind, Describe and Close, and how those messages are written with another name.
//!
//! Only prefixes are read: parameters and SQL text are carried, never decoded. Source: protocol-message-formats.

use super::cursor::{Cursor, Truncated};
use super::frame;
use super::tag::frontend;

/// Longest statement or portal name taken (PostgreSQL truncates identifiers at 63 bytes but not these names).
pub const MAX_NAME: usize = 1024;

/// A Parse body.
#[derive(Clone, Copy)]
pub struct Parse<'a> {
    /// Statement name; empty for the unnamed one.
    pub name: &'a [u8],
    /// SQL text, its NUL, and the parameter types: all that makes two statements the same.
    pub rest: &'a [u8],
    /// SQL text without its NUL.
    pub sql: &'a [u8],
}

impl<'a> Parse<'a> {
    /// Reads a complete body.
    ///
    /// # Errors
    /// [`Truncated`] when a terminator or a parameter type is missing, or more follows: what PostgreSQL refuses too
    /// (pqformat.c, pq_getmsgend).
    pub fn read(body: &'a [u8]) -> Result<Self, Truncated> {
        let mut c = Cursor::new(body);
        let name = c.cstr()?;
        let rest = c.rest();
        let sql = c.cstr()?;
        let n = c.u16()?;
        c.bytes(usize::from(n) * 4)?;
        c.end()?;
        Ok(Parse { name, rest, sql })
    }
}

/// The names at the front of a Bind body.
#[derive(Clone, Copy)]
pub struct Bind<'a> {
    /// Portal name; empty for the unnamed one.
    pub portal: &'a [u8],
    /// Statement name.
    pub statement: &'a [u8],
    /// Bytes of both names with their NULs: where the parameters begin.
    pub prefix: usize,
}

impl<'a> Bind<'a> {
    /// Reads the names; `None` while one of them is not there yet.
    pub fn peek(body: &'a [u8]) -> Option<Self> {
        let mut c = Cursor::new(body);
        let portal = c.cstr().ok()?;
        let statement = c.cstr().ok()?;
        Some(Bind { portal, statement, prefix: body.len() - c.rest().len() })
    }
}

/// What Describe and Close name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target<'a> {
    /// `S` and a statement name.
    Statement(&'a [u8]),
    /// `P` and a portal name.
    Portal(&'a [u8]),
}

impl<'a> Target<'a> {
    /// Reads a complete body.
    ///
    /// # Errors
    /// [`Truncated`] when the kind is neither `S` nor `P`, the terminator is missing, or more follows.
    pub fn read(body: &'a [u8]) -> Result<Self, Truncated> {
        let mut c = Cursor::new(body);
        let kind = c.u8()?;
        let name = c.cstr()?;
        c.end()?;
        match kind {
            b'S' => Ok(Target::Statement(name)),
            b'P' => Ok(Target::Portal(name)),
            _ => Err(Truncated),
        }
    }
}

/// Appends a Parse of `rest` (SQL, NUL, types) under `name`.
pub fn put_parse(out: &mut Vec<u8>, name: &[u8], rest: &[u8]) {
    frame::put(out, frontend::PARSE, |b| {
        b.extend_from_slice(name);
        b.push(0);
        b.extend_from_slice(rest);
    });
}

/// Appends Describe or Close (`tag`) of a statement.
pub fn put_statement(out: &mut Vec<u8>, tag: u8, name: &[u8]) {
    frame::put(out, tag, |b| {
        b.push(b'S');
        b.extend_from_slice(name);
        b.push(0);
    });
}

/// Appends the header and names of a Bind whose body was `body_len` bytes with a prefix of `old.prefix`; the
/// parameters follow unchanged.
pub fn put_bind_prefix(out: &mut Vec<u8>, old: &Bind<'_>, body_len: usize, name: &[u8]) {
    let prefix = old.portal.len() + 1 + name.len() + 1;
    let len = 4 + prefix + (body_len - old.prefix);
    out.push(frontend::BIND);
    out.extend_from_slice(&(len as u32).to_be_bytes());
    out.extend_from_slice(old.portal);
    out.push(0);
    out.extend_from_slice(name);
    out.push(0);
}

/// Appends a simple Query.
pub fn put_query(out: &mut Vec<u8>, sql: &[u8]) {
    frame::put(out, frontend::QUERY, |b| {
        b.extend_from_slice(sql);
        b.push(0);
    });
}

/// Fuzz entry: no body panics, and what is read can be written again.
pub fn fuzz_names(data: &[u8]) {
    if let Ok(p) = Parse::read(data) {
        let mut out = Vec::new();
        put_parse(&mut out, p.name, p.rest);
        assert_eq!(&out[frame::HEADER..], data);
    }
    if let Some(b) = Bind::peek(data) {
        let mut out = Vec::new();
        put_bind_prefix(&mut out, &b, data.len(), b.statement);
        out.extend_from_slice(&data[b.prefix..]);
        assert_eq!(&out[frame::HEADER..], data);
        assert_eq!(u32::from_be_bytes([out[1], out[2], out[3], out[4]]) as usize, out.len() - 1);
    }
    let _ = Target::read(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_needs_its_types() {
        assert!(Parse::read(b"s\0SELECT 1\0\0\x01\0\0\0\x17").is_ok());
        assert!(Parse::read(b"s\0SELECT 1\0\0\x02\0\0\0\x17").is_err());
        assert!(Parse::read(b"s\0SELECT 1").is_err());
        assert!(Parse::read(b"s\0SELECT 1\0\0\0x").is_err(), "more than it says");
    }

    #[test]
    fn a_target_is_a_kind_and_a_name_and_no_more() {
        assert_eq!(Target::read(b"Sa\0"), Ok(Target::Statement(b"a")));
        assert_eq!(Target::read(b"P\0"), Ok(Target::Portal(b"")));
        for body in [b"".as_slice(), b"S", b"Sa", b"Xa\0", b"Sa\0x"] {
            assert!(Target::read(body).is_err(), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn a_bind_is_renamed_and_keeps_its_parameters() {
        let body = b"po\0st\0\0\0\0\x01\0\0\0\x01x\0\0";
        let b = Bind::peek(body).unwrap();
        let mut out = Vec::new();
        put_bind_prefix(&mut out, &b, body.len(), b"pgs_17");
        out.extend_from_slice(&body[b.prefix..]);
        assert_eq!(&out[5..], b"po\0pgs_17\0\0\0\0\x01\0\0\0\x01x\0\0");
        assert_eq!(out[4] as usize, out.len() - 1);
        assert!(Bind::peek(b"po\0st").is_none());
    }
}
