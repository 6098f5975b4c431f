//! Values of settings. Every type reads itself from text, so that a TOML number, a TOML string and an environment
//! variable go the same way.

use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use super::{AuthMethod, ChannelBinding, ListenAddr, LogLevel, Passthrough, PoolMode, TlsMode, TlsVersion, units};

/// Port of PgBouncer, where applications look for a pooler.
pub(super) const DEFAULT_PORT: u16 = 6432;

/// A type that can be read from text, or from a list of texts.
pub(super) trait Value: Sized {
    /// Whether a bare TOML number or boolean will do.
    const BARE: bool = true;

    /// Reads one value; the error is a sentence.
    fn parse(text: &str) -> Result<Self, String>;

    /// Reads a TOML list.
    fn parse_list(_items: &[String]) -> Result<Self, String> {
        Err("one value expected, not a list".to_owned())
    }
}

/// The bridge from serde to [`Value`].
#[derive(Clone)]
pub(super) struct Read<T>(pub(super) T);

impl<'de, T: Value> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadVisitor(PhantomData)).map(Read)
    }
}

struct ReadVisitor<T>(PhantomData<T>);

impl<T: Value> ReadVisitor<T> {
    fn bare<E: Error>(self, text: &str) -> Result<T, E> {
        if T::BARE {
            T::parse(text).map_err(E::custom)
        } else {
            // The value may be a password: it is not repeated.
            Err(E::custom("a text in quotes expected"))
        }
    }
}

impl<'de, T: Value> Visitor<'de> for ReadVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::parse(text).map_err(E::custom)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<T, E> {
        self.bare(if value { "true" } else { "false" })
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        self.bare(&value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<T, E> {
        self.bare(&value.to_string())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<T, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<String>()? {
            items.push(item);
        }
        T::parse_list(&items).map_err(A::Error::custom)
    }
}

/// A whole number within bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Number<MIN, MAX> {
    /// The nearest number within the bounds.
    pub(super) fn clamped(number: u32) -> Self {
        Number(number.clamp(MIN, MAX))
    }

    pub(super) fn get(self) -> u32 {
        self.0
    }

    pub(super) fn size(self) -> usize {
        self.0 as usize
    }
}

impl<const MIN: u32, const MAX: u32> Value for Number<MIN, MAX> {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim().parse::<i64>() {
            Ok(n) if (i64::from(MIN)..=i64::from(MAX)).contains(&n) => Ok(Number(n as u32)),
            Ok(n) => Err(format!("{n} is out of bounds; between {MIN} and {MAX} is possible")),
            Err(_) => Err(format!("`{text}` is not a whole number")),
        }
    }
}

impl Value for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        units::parse_duration(text)
    }
}

impl Value for bool {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" | "1" => Ok(true),
            "false" | "off" | "no" | "0" => Ok(false),
            _ => Err(format!("`{text}` is neither true nor false")),
        }
    }
}

/// Text that goes into the protocol, where a NUL ends it.
impl Value for String {
    const BARE: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        if text.contains('\0') { Err("a NUL character is not possible here".to_owned()) } else { Ok(text.to_owned()) }
    }
}

impl Value for PathBuf {
    const BARE: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        String::parse(text).map(PathBuf::from)
    }
}

/// A list of names: a TOML list, or one text with commas.
impl Value for Vec<String> {
    const BARE: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
    }

    fn parse_list(items: &[String]) -> Result<Self, String> {
        Ok(items.to_vec())
    }
}

/// One of a few words; the error lists them and the nearest.
fn choose<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let wanted = text.trim().to_ascii_lowercase();
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == wanted) {
        return Ok(*value);
    }
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let hint = super::error::nearest(&wanted, names.iter().copied())
        .map_or_else(String::new, |word| format!("; did you mean `{word}`?"));
    Err(format!("`{text}` is not one of {}{hint}", names.join(", ")))
}

/// The word of a value.
fn word<T: PartialEq>(value: &T, words: &[(&'static str, T)]) -> &'static str {
    words.iter().find(|(_, candidate)| candidate == value).map_or("?", |(word, _)| word)
}

const POOL_MODES: [(&str, PoolMode); 3] =
    [("session", PoolMode::Session), ("transaction", PoolMode::Transaction), ("statement", PoolMode::Statement)];
const AUTH_METHODS: [(&str, AuthMethod); 8] = [
    ("scram-sha-256", AuthMethod::ScramSha256),
    ("md5", AuthMethod::Md5),
    ("plain", AuthMethod::Plain),
    ("trust", AuthMethod::Trust),
    ("any", AuthMethod::Any),
    ("peer", AuthMethod::Peer),
    ("cert", AuthMethod::Cert),
    ("hba", AuthMethod::Hba),
];
/// PgDog's words.
const PASSTHROUGHS: [(&str, Passthrough); 3] = [
    ("disabled", Passthrough::Disabled),
    ("enabled", Passthrough::Enabled),
    ("enabled_plain", Passthrough::EnabledPlain),
];
const TLS_MODES: [(&str, TlsMode); 6] = [
    ("disable", TlsMode::Disable),
    ("allow", TlsMode::Allow),
    ("prefer", TlsMode::Prefer),
    ("require", TlsMode::Require),
    ("verify-ca", TlsMode::VerifyCa),
    ("verify-full", TlsMode::VerifyFull),
];
/// PostgreSQL's words for `ssl_min_protocol_version`, in lower case.
const TLS_VERSIONS: [(&str, TlsVersion); 2] = [("tlsv1.2", TlsVersion::V12), ("tlsv1.3", TlsVersion::V13)];
const CHANNEL_BINDINGS: [(&str, ChannelBinding); 3] =
    [("disable", ChannelBinding::Disable), ("prefer", ChannelBinding::Prefer), ("require", ChannelBinding::Require)];
const LOG_LEVELS: [(&str, LogLevel); 4] =
    [("error", LogLevel::Error), ("warn", LogLevel::Warn), ("info", LogLevel::Info), ("debug", LogLevel::Debug)];

macro_rules! words {
    ($type:ty, $table:ident) => {
        impl Value for $type {
            fn parse(text: &str) -> Result<Self, String> {
                choose(text, &$table)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(word(self, &$table))
            }
        }
    };
}
words!(PoolMode, POOL_MODES);
words!(AuthMethod, AUTH_METHODS);
words!(LogLevel, LOG_LEVELS);
words!(Passthrough, PASSTHROUGHS);
words!(TlsMode, TLS_MODES);
words!(TlsVersion, TLS_VERSIONS);
words!(ChannelBinding, CHANNEL_BINDINGS);

/// A program and its arguments.
#[derive(Clone)]
pub(super) struct Argv(pub(super) Vec<String>);

impl Value for Argv {
    const BARE: bool = false;

    fn parse(_: &str) -> Result<Self, String> {
        Err("write a list, which no shell reads: [\"program\", \"argument\"]".to_owned())
    }

    fn parse_list(items: &[String]) -> Result<Self, String> {
        match items.first() {
            Some(program) if !program.is_empty() && !items.iter().any(|item| item.contains('\0')) => {
                Ok(Argv(items.to_vec()))
            }
            _ => Err("the program is missing".to_owned()),
        }
    }
}

/// `text` or `json`.
#[derive(Clone, Copy, Debug)]
pub(super) struct JsonLines(pub(super) bool);

impl Value for JsonLines {
    fn parse(text: &str) -> Result<Self, String> {
        choose(text, &[("text", false), ("json", true)]).map(JsonLines)
    }
}

/// Where clients connect.
impl Value for Vec<ListenAddr> {
    fn parse(text: &str) -> Result<Self, String> {
        Self::parse_list(&<Vec<String>>::parse(text)?)
    }

    fn parse_list(items: &[String]) -> Result<Self, String> {
        if items.is_empty() {
            return Err("at least one address is needed".to_owned());
        }
        let tcp: Vec<Option<SocketAddr>> = items
            .iter()
            .map(|item| if item.starts_with('/') { Ok(None) } else { tcp_address(item, DEFAULT_PORT).map(Some) })
            .collect::<Result<_, _>>()?;
        // libpq finds a Unix socket by directory and port: the port of the first TCP address.
        let port = tcp.iter().flatten().next().map_or(DEFAULT_PORT, SocketAddr::port);
        let path = |item: &str| ListenAddr::Unix(unix_socket(item, port));
        Ok(items.iter().zip(tcp).map(|(item, tcp)| tcp.map_or_else(|| path(item), ListenAddr::Tcp)).collect())
    }
}

/// The full path of a Unix socket: a directory gets libpq's file name.
fn unix_socket(item: &str, port: u16) -> PathBuf {
    let path = PathBuf::from(item);
    let is_file = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".s.PGSQL."));
    if is_file { path } else { path.join(format!(".s.PGSQL.{port}")) }
}

/// `address:port`, with `*` for all addresses and `localhost` for 127.0.0.1; the port may be left out.
fn tcp_address(text: &str, default_port: u16) -> Result<SocketAddr, String> {
    let wrong = || {
        format!(
            "`{text}` is neither address:port (\"127.0.0.1:{default_port}\", \"*:{default_port}\", \"[::1]:{default_port}\") nor an absolute path"
        )
    };
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, default_port));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
        None => (text, default_port),
    };
    let address = match host {
        "*" | "" if !text.is_empty() => Ipv4Addr::UNSPECIFIED,
        "localhost" => Ipv4Addr::LOCALHOST,
        _ => return Err(wrong()),
    };
    Ok(SocketAddr::new(address.into(), port))
}

/// Where HTTP is served; `off` for nowhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct HttpListen(pub(super) Option<SocketAddr>);

impl Value for HttpListen {
    const BARE: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "off" | "false" | "none" => Ok(HttpListen(None)),
            address if address.starts_with('/') => Err("HTTP is served on TCP only".to_owned()),
            address => tcp_address(address, 9127).map(|address| HttpListen(Some(address))),
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddr::Tcp(address) => write!(f, "{address}"),
            ListenAddr::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_addresses() {
        let show = |text: &str| {
            <Vec<ListenAddr>>::parse(text)
                .map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(show("127.0.0.1:6432").unwrap(), "127.0.0.1:6432");
        assert_eq!(show("*:6000, /run/pgsluice").unwrap(), "0.0.0.0:6000 /run/pgsluice/.s.PGSQL.6000");
        assert_eq!(show("/tmp/.s.PGSQL.5432").unwrap(), "/tmp/.s.PGSQL.5432");
        assert_eq!(show("/tmp/").unwrap(), "/tmp/.s.PGSQL.6432");
        assert_eq!(show("localhost,[::1]:7000,::1").unwrap(), "127.0.0.1:6432 [::1]:7000 [::1]:6432");
        assert_eq!(show(":6432").unwrap(), "0.0.0.0:6432");
        for text in ["", "db.internal:6432", "127.0.0.1:port", "127.0.0.1:99999"] {
            assert!(show(text).is_err(), "{text}");
        }
    }

    #[test]
    fn words_are_suggested() {
        let error = PoolMode::parse("transction").unwrap_err();
        assert_eq!(error, "`transction` is not one of session, transaction, statement; did you mean `transaction`?");
        assert_eq!(AuthMethod::parse("SCRAM-SHA-256").unwrap().to_string(), "scram-sha-256");
    }

    #[test]
    fn numbers_keep_their_bounds() {
        assert_eq!(<Number<1, 5>>::parse("5").unwrap().get(), 5);
        assert!(<Number<1, 5>>::parse("6").is_err());
        assert!(<Number<1, 5>>::parse("-1").is_err());
        assert!(<Number<1, 5>>::parse("2.5").is_err());
    }
}
