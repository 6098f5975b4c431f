//! The first packet of a connection: SSLRequest, GSSENCRequest, CancelRequest or StartupMessage.
//!
//! Source: protocol-message-formats and PostgreSQL's ProcessStartupPacket (backend_startup.c), limits included.

use std::fmt;

use super::cursor::Cursor;
use super::error::sqlstate;

/// Longest startup packet taken (MAX_STARTUP_PACKET_LENGTH, libpq/pqcomm.h).
pub const MAX_PACKET: usize = 10_000;

/// Newest minor version of protocol 3 that clients may speak; what it adds to 3.0 are longer cancel keys.
pub const NEWEST_MINOR: u16 = 2;

const CANCEL: u32 = 80_877_102;
/// Code of SSLRequest.
pub const SSL: u32 = 80_877_103;
const GSSENC: u32 = 80_877_104;

/// A first packet. `Debug` shows the kind only.
#[derive(PartialEq, Eq)]
pub enum First {
    /// SSLRequest.
    Ssl,
    /// GSSENCRequest.
    GssEnc,
    /// CancelRequest.
    Cancel {
        /// Process id part of the key.
        pid: u32,
        /// Secret part, 4 to 256 bytes.
        secret: Vec<u8>,
    },
    /// StartupMessage.
    Startup(Startup),
}

/// A StartupMessage. `Debug` shows no name and no value.
#[derive(PartialEq, Eq, Default)]
pub struct Startup {
    /// Minor version of protocol 3.
    pub minor: u16,
    /// `user`.
    pub user: String,
    /// `database`; the user's name when absent.
    pub database: String,
    /// `replication`, when given and not false.
    pub replication: Option<Replication>,
    /// Every other parameter, in order; `options` has been taken apart into them.
    pub parameters: Vec<(String, String)>,
    /// Names beginning `_pq_.`, which we do not know.
    pub unknown_options: Vec<String>,
}

/// What a replication client wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replication {
    /// `true`: of the whole server.
    Physical,
    /// `database`: of one database.
    Logical,
}

/// Why a first packet is refused. The text is for the client, and no other: it may hold what the client sent.
#[derive(PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// The length cannot be.
    #[error("invalid length of startup packet")]
    Length,
    /// Not protocol 3.
    #[error("unsupported frontend protocol {0}.{1}: server supports 3.0 to 3.2")]
    Version(u16, u16),
    /// The body is not what the protocol says.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// No user.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// Bytes that are not UTF-8 in a name or value.
    #[error("startup parameter is not valid UTF-8")]
    Encoding,
    /// `replication` is none of its values.
    #[error("invalid value for parameter \"replication\": \"{0}\"")]
    Replication(String),
    /// A setting with the name of what is no setting, in another spelling or within `options`. Names are compared without
    /// case later on: it must not become the user or database of a server's login.
    #[error("unrecognized configuration parameter \"{0}\"")]
    Reserved(String),
    /// `options` cannot be read.
    #[error("invalid command-line argument for server process: {0}")]
    Options(String),
}

impl StartupError {
    /// What PostgreSQL calls it.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            StartupError::Replication(_) => sqlstate::INVALID_PARAMETER_VALUE,
            StartupError::Reserved(_) => sqlstate::UNDEFINED_OBJECT,
            _ => sqlstate::PROTOCOL_VIOLATION,
        }
    }
}

impl fmt::Debug for First {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            First::Ssl => f.write_str("Ssl"),
            First::GssEnc => f.write_str("GssEnc"),
            First::Cancel { .. } => f.write_str("Cancel(..)"),
            First::Startup(s) => s.fmt(f),
        }
    }
}

impl fmt::Debug for Startup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Startup")
            .field("minor", &self.minor)
            .field("parameters", &self.parameters.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for StartupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StartupError::Length => "Length",
            StartupError::Version(..) => "Version(..)",
            StartupError::Layout => "Layout",
            StartupError::NoUser => "NoUser",
            StartupError::Encoding => "Encoding",
            StartupError::Replication(_) => "Replication(..)",
            StartupError::Reserved(_) => "Reserved(..)",
            StartupError::Options(_) => "Options(..)",
        })
    }
}

/// Bytes of the packet at the front of `buf`, length word included; `None` until four bytes are there.
///
/// # Errors
/// [`StartupError::Length`] when PostgreSQL would refuse it.
pub fn packet_len(buf: &[u8]) -> Result<Option<usize>, StartupError> {
    let Some(b) = buf.first_chunk::<4>() else {
        return Ok(None);
    };
    let len = u32::from_be_bytes(*b) as usize;
    if !(8..=MAX_PACKET).contains(&len) {
        return Err(StartupError::Length);
    }
    Ok(Some(len))
}

/// Reads one complete packet (as [`packet_len`] measured it).
///
/// # Errors
/// See [`StartupError`].
pub fn read(packet: &[u8]) -> Result<First, StartupError> {
    let mut c = Cursor::new(packet);
    let len = c.u32().map_err(|_| StartupError::Length)? as usize;
    let code = c.u32().map_err(|_| StartupError::Length)?;
    if len != packet.len() {
        return Err(StartupError::Length);
    }
    match code {
        SSL if len == 8 => Ok(First::Ssl),
        GSSENC if len == 8 => Ok(First::GssEnc),
        SSL | GSSENC => Err(StartupError::Length),
        CANCEL => {
            let pid = c.u32().map_err(|_| StartupError::Length)?;
            if !(4..=256).contains(&c.rest().len()) {
                return Err(StartupError::Length);
            }
            Ok(First::Cancel { pid, secret: c.rest().to_vec() })
        }
        _ if code >> 16 != 3 => Err(StartupError::Version((code >> 16) as u16, code as u16)),
        _ => read_startup(code as u16, c).map(First::Startup),
    }
}

fn read_startup(minor: u16, mut c: Cursor<'_>) -> Result<Startup, StartupError> {
    let mut s = Startup { minor, ..Startup::default() };
    loop {
        let name = text(c.cstr().map_err(|_| StartupError::Layout)?)?;
        if name.is_empty() {
            if !c.rest().is_empty() {
                return Err(StartupError::Layout);
            }
            break;
        }
        let value = text(c.cstr().map_err(|_| StartupError::Layout)?)?;
        match name {
            "user" => s.user = value.to_owned(),
            "database" => s.database = value.to_owned(),
            "replication" => s.replication = replication(value)?,
            "options" => options(value, &mut s.parameters)?,
            _ if name.starts_with("_pq_.") => s.unknown_options.push(name.to_owned()),
            _ => s.parameters.push((name.to_owned(), value.to_owned())),
        }
    }
    if s.user.is_empty() {
        return Err(StartupError::NoUser);
    }
    if let Some((name, _)) = s.parameters.iter().find(|(name, _)| reserved(name)) {
        return Err(StartupError::Reserved(name.clone()));
    }
    if s.database.is_empty() {
        s.database.clone_from(&s.user);
    }
    Ok(s)
}

/// Names of a startup packet that are no settings (ProcessStartupPacket).
fn reserved(name: &str) -> bool {
    ["user", "database", "replication", "options"].iter().any(|r| name.eq_ignore_ascii_case(r))
        || name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("_pq_."))
}

/// As PostgreSQL reads it: `database`, or a boolean in any of its spellings (parse_bool_with_len, bool.c).
fn replication(value: &str) -> Result<Option<Replication>, StartupError> {
    if value == "database" {
        return Ok(Some(Replication::Logical));
    }
    let v = value.to_ascii_lowercase();
    let begins = |word: &str, least: usize| v.len() >= least && word.starts_with(&v);
    if begins("true", 1) || begins("yes", 1) || v == "on" || v == "1" {
        Ok(Some(Replication::Physical))
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || v == "0" {
        Ok(None)
    } else {
        Err(StartupError::Replication(value.to_owned()))
    }
}

fn text(bytes: &[u8]) -> Result<&str, StartupError> {
    std::str::from_utf8(bytes).map_err(|_| StartupError::Encoding)
}

/// Takes `options` apart: `-c name=value`, `--name=value`, backslash escapes (pg_split_opts, process_postgres_switches).
///
/// # Errors
/// [`StartupError::Options`] for switches that are not settings.
pub fn options(value: &str, out: &mut Vec<(String, String)>) -> Result<(), StartupError> {
    let mut words = split(value).into_iter();
    while let Some(word) = words.next() {
        let setting = if word == "-c" || word == "--" {
            words.next().ok_or_else(|| StartupError::Options(word.clone()))?
        } else if let Some(rest) = word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            rest.to_owned()
        } else {
            return Err(StartupError::Options(word));
        };
        let (name, value) = setting.split_once('=').ok_or_else(|| StartupError::Options(setting.clone()))?;
        // ParseLongOption: dashes in the name stand for underscores.
        out.push((name.trim().replace('-', "_"), value.to_owned()));
    }
    Ok(())
}

fn split(value: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut started = false;
    let mut chars = value.chars();
    while let Some(ch) = chars.next() {
        match ch {
            ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' => {
                if started {
                    words.push(std::mem::take(&mut word));
                    started = false;
                }
            }
            '\\' => {
                started = true;
                word.extend(chars.next());
            }
            _ => {
                started = true;
                word.push(ch);
            }
        }
    }
    if started {
        words.push(word);
    }
    words
}

/// Fuzz entry: no packet panics.
pub fn fuzz_startup(data: &[u8]) {
    if let Ok(Some(len)) = packet_len(data)
        && let Some(packet) = data.get(..len)
    {
        let _ = read(packet);
    }
    let _ = read(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let mut p = ((body.len() + 8) as u32).to_be_bytes().to_vec();
        p.extend_from_slice(&code.to_be_bytes());
        p.extend_from_slice(body);
        p
    }

    #[test]
    fn a_startup_message_is_read() {
        let p = packet(0x3_0000, b"user\0app\0database\0shop\0client_encoding\0UTF8\0options\0-c statement_timeout=5000 --search-path=a\\ b\0_pq_.x\0y\0\0");
        let First::Startup(s) = read(&p).unwrap() else { panic!("not a startup") };
        assert_eq!((s.user.as_str(), s.database.as_str(), s.minor), ("app", "shop", 0));
        let names: Vec<_> = s.parameters.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(names, ["client_encoding=UTF8", "statement_timeout=5000", "search_path=a b"]);
        assert_eq!(s.unknown_options, ["_pq_.x"]);
    }

    #[test]
    fn what_postgresql_refuses_is_refused() {
        assert_eq!(read(&packet(0x2_0000, b"\0")), Err(StartupError::Version(2, 0)));
        assert_eq!(read(&packet(0x3_0000, b"user\0app\0")), Err(StartupError::Layout));
        assert_eq!(read(&packet(0x3_0000, b"user\0app\0\0Q")), Err(StartupError::Layout));
        assert_eq!(read(&packet(0x3_0000, b"database\0a\0\0")), Err(StartupError::NoUser));
        assert_eq!(packet_len(&[0, 0, 0, 7]), Err(StartupError::Length));
        assert_eq!(packet_len(&[0, 1, 0, 0]), Err(StartupError::Length));
        assert!(matches!(read(&packet(0x3_0000, b"user\0a\0options\0-x\0\0")), Err(StartupError::Options(_))));
    }

    #[test]
    fn requests_before_login_are_told_apart() {
        assert_eq!(read(&packet(SSL, b"")), Ok(First::Ssl));
        assert_eq!(read(&packet(GSSENC, b"")), Ok(First::GssEnc));
        assert_eq!(
            read(&packet(CANCEL, &[0, 0, 0, 5, 1, 2, 3, 4])),
            Ok(First::Cancel { pid: 5, secret: vec![1, 2, 3, 4] })
        );
        assert_eq!(read(&packet(CANCEL, &[0, 0, 0, 5, 1])), Err(StartupError::Length));
    }

    #[test]
    fn debug_shows_nothing_that_was_sent() {
        let body = b"user\0hidden\0database\0hidden\0password\0hidden\0options\0-c hidden.hidden=hidden\0_pq_.hidden\0hidden\0\0";
        let cancel = packet(CANCEL, &[b"\0\0\0\x05".as_slice(), b"hidden"].concat());
        let bad = packet(0x3_0000, b"user\0a\0options\0hidden\0\0");
        for packet in [packet(0x3_0000, body), cancel, bad] {
            let shown = format!("{:?}", read(&packet));
            assert!(!shown.contains("hidden") && !shown.contains("104"), "{shown}");
        }
    }

    #[test]
    fn replication_is_read_as_postgresql_reads_it() {
        let read = |value: &str| {
            let First::Startup(s) = read(&packet(0x3_0000, format!("user\0a\0replication\0{value}\0\0").as_bytes()))?
            else {
                panic!("not a startup")
            };
            Ok::<_, StartupError>(s.replication)
        };
        for value in ["true", "TRUE", "t", "yes", "y", "on", "1"] {
            assert_eq!(read(value), Ok(Some(Replication::Physical)), "{value}");
        }
        for value in ["false", "f", "No", "off", "of", "0"] {
            assert_eq!(read(value), Ok(None), "{value}");
        }
        assert_eq!(read("database"), Ok(Some(Replication::Logical)));
        for value in ["", "o", "2", "Database", "truer"] {
            assert!(matches!(read(value), Err(StartupError::Replication(_))), "{value}");
        }
    }

    #[test]
    fn the_database_defaults_to_the_user() {
        let First::Startup(s) = read(&packet(0x3_0000, b"user\0app\0\0")).unwrap() else { panic!("not a startup") };
        assert_eq!(s.database, "app");
    }
}
