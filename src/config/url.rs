//! `postgres://user:password@host:port/database?parameters` (libpq, "Connection URIs").

use std::path::PathBuf;
use std::time::Duration;

use super::value::Value;
use super::{ChannelBinding, TlsMode, TlsVersion, tls, units};

/// What a URL says.
#[derive(Default)]
pub(super) struct DatabaseUrl {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    /// Name, address or socket directory; empty means localhost.
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) dbname: Option<String>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) tls_mode: Option<TlsMode>,
    pub(super) tls_ca: Option<PathBuf>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) tls_direct: Option<bool>,
    pub(super) tls_min_version: Option<TlsVersion>,
    pub(super) channel_binding: Option<ChannelBinding>,
}

/// libpq's names and those that Django's helpers (dj-database-url, django-environ) take as well.
const SCHEMES: [&str; 4] = ["postgres", "postgresql", "postgis", "pgsql"];

impl DatabaseUrl {
    /// Reads a URL. Errors never repeat any part of it but names of parameters.
    pub(super) fn parse(text: &str) -> Result<DatabaseUrl, String> {
        let text = text.trim();
        let rest = text
            .split_once("://")
            .filter(|(scheme, _)| SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()))
            .map(|(_, rest)| rest)
            .ok_or("a URL such as postgres://user:password@host:5432/database expected")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut url = DatabaseUrl::default();
        // The last @, as Python's urlparse does: passwords with a raw @ are common.
        let address = match authority.rsplit_once('@') {
            Some((login, address)) => {
                let (user, password) = login.split_once(':').map_or((login, None), |(u, p)| (u, Some(p)));
                url.user = non_empty(decode(user)?);
                url.password = password.map(decode).transpose()?.and_then(non_empty);
                address
            }
            None => authority,
        };
        url.address(address)?;
        if path.contains('/') {
            return Err("the database name holds a `/`: write it as %2F".to_owned());
        }
        url.dbname = non_empty(decode(path)?);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or("a parameter after `?` has no value; write name=value")?;
            url.parameter(&decode(name)?, decode(value)?)?;
        }
        if url.tls_mode.is_none() && url.tls_ca.as_ref().is_some_and(|ca| ca.as_os_str() == tls::SYSTEM_CAS) {
            // As libpq: the operating system's CAs are of use with the host's name only.
            url.tls_mode = Some(TlsMode::VerifyFull);
        }
        Ok(url)
    }

    /// `host`, `host:port`, `[address]:port`, `%2Fdirectory`.
    fn address(&mut self, address: &str) -> Result<(), String> {
        if address.contains(',') {
            return Err("several hosts are named; pgsluice pools to one".to_owned());
        }
        let (host, port) = if let Some(rest) = address.strip_prefix('[') {
            let (host, behind) = rest.split_once(']').ok_or("the `]` of the address is missing")?;
            match behind.strip_prefix(':') {
                Some(port) => (host, port),
                None if behind.is_empty() => (host, ""),
                None => return Err("between `]` and the port a `:` is expected".to_owned()),
            }
        } else {
            address.split_once(':').unwrap_or((address, ""))
        };
        self.host = decode(host)?;
        if !port.is_empty() {
            self.port = Some(parse_port(port)?);
        }
        Ok(())
    }

    fn parameter(&mut self, name: &str, value: String) -> Result<(), String> {
        match name {
            "host" => self.host = value,
            "port" => self.port = Some(parse_port(&value)?),
            "user" => self.user = non_empty(value),
            "password" => self.password = non_empty(value),
            "dbname" => self.dbname = non_empty(value),
            "connect_timeout" => self.connect_timeout = Some(units::parse_duration(&value)?),
            "sslmode" => {
                self.tls_mode = Some(TlsMode::parse(&value).map_err(|_| {
                    "sslmode is one of disable, allow, prefer, require, verify-ca, verify-full".to_owned()
                })?);
            }
            // The word of django-environ and of dj-database-url's helpers.
            "ssl" | "ssl_require" => match bool::parse(&value) {
                Ok(true) => self.tls_mode = Some(self.tls_mode.unwrap_or(TlsMode::Require)),
                Ok(false) => {}
                Err(_) => return Err(format!("{name} is true or false")),
            },
            "sslrootcert" => self.tls_ca = non_empty(value).map(PathBuf::from),
            "sslcert" => self.tls_cert = non_empty(value).map(PathBuf::from),
            "sslkey" => self.tls_key = non_empty(value).map(PathBuf::from),
            "sslnegotiation" => match value.as_str() {
                "postgres" => self.tls_direct = Some(false),
                "direct" => self.tls_direct = Some(true),
                _ => return Err("sslnegotiation is postgres or direct".to_owned()),
            },
            "ssl_min_protocol_version" => {
                let read = TlsVersion::parse(&value);
                self.tls_min_version =
                    Some(read.map_err(|_| "ssl_min_protocol_version is TLSv1.2 or TLSv1.3".to_owned())?);
            }
            "channel_binding" => {
                let read = ChannelBinding::parse(&value);
                self.channel_binding =
                    Some(read.map_err(|_| "channel_binding is one of disable, prefer, require".to_owned())?);
            }
            "gssencmode" if value == "require" => {
                return Err("gssencmode=require: pgsluice speaks no GSSAPI; use TLS (sslmode=verify-full)".to_owned());
            }
            // Of no meaning between pooler and server: the clients' own values are followed.
            "gssencmode" | "application_name" | "fallback_application_name" => {}
            "conn_max_age" | "conn_health_checks" | "disable_server_side_cursors" | "engine" => {
                return Err(format!("parameter `{name}` is Django's own: leave it out here"));
            }
            "options" => {
                return Err("parameter `options` belongs to the clients: set it in Django's OPTIONS".into());
            }
            _ => {
                let known = [
                    "host",
                    "port",
                    "user",
                    "password",
                    "dbname",
                    "connect_timeout",
                    "sslmode",
                    "sslrootcert",
                    "sslcert",
                    "sslkey",
                    "sslnegotiation",
                    "ssl_min_protocol_version",
                    "channel_binding",
                ];
                let mend = super::error::nearest(name, known)
                    .map_or_else(|| format!("known are {}", known.join(", ")), |n| format!("did you mean `{n}`?"));
                return Err(format!("unknown parameter `{name}`: leave it out, or {mend}"));
            }
        }
        Ok(())
    }
}

/// A password with a raw `/` or `?` ends up where the port should be: the text is not repeated.
fn parse_port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|&port| port != 0).ok_or_else(|| {
        "the port is not a number from 1 to 65535 (if the password holds one of / ? # % @ or :, \
         percent-encode it: / is %2F)"
            .to_owned()
    })
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Percent-decoding; `+` is a plus, as in libpq.
fn decode(text: &str) -> Result<String, String> {
    const WRONG: &str = "a `%` is not followed by two hexadecimal digits: write a percent sign as %25";
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16)).ok_or(WRONG);
        let value = digit()? * 16 + digit()?;
        if value == 0 {
            return Err("%00 is not possible".to_owned());
        }
        out.push(value as u8);
    }
    String::from_utf8(out).map_err(|_| "the percent-encoded text is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(text: &str) -> String {
        match DatabaseUrl::parse(text) {
            Ok(url) => format!(
                "{} {} {} {} {}",
                url.user.as_deref().unwrap_or("-"),
                url.password.as_deref().unwrap_or("-"),
                url.host,
                url.port.map_or("-".into(), |port| port.to_string()),
                url.dbname.as_deref().unwrap_or("-"),
            ),
            Err(error) => error,
        }
    }

    #[test]
    fn forms() {
        for (url, expected) in [
            ("postgres://user:password@db:5432/app", "user password db 5432 app"),
            ("postgresql://user@db/app", "user - db - app"),
            ("postgres://u:p%40ss%2F%25@db/app", "u p@ss/% db - app"),
            ("postgres://u:p@ss@db/app", "u p@ss db - app"),
            ("postgres://u:p@[::1]:5433/app", "u p ::1 5433 app"),
            ("postgres://u:p@%2Frun%2Fpostgresql/app", "u p /run/postgresql - app"),
            ("postgres://u:p@/app?host=/run/postgresql&port=5433", "u p /run/postgresql 5433 app"),
            ("postgres:///app?user=u&password=p%26q&sslmode=prefer&application_name=x", "u p&q  - app"),
            ("POSTGRES://u:a+b@db", "u a+b db - -"),
            ("postgis://u:p@db/app", "u p db - app"),
            ("postgres://u:p@db/app?sslmode=require&sslrootcert=/ca.pem", "u p db - app"),
            (
                "postgres://u:p@db/app?sslmode=always",
                "sslmode is one of disable, allow, prefer, require, verify-ca, verify-full",
            ),
            (
                "postgres://u:p@db/app?options=-c%20x",
                "parameter `options` belongs to the clients: set it in Django's OPTIONS",
            ),
            ("postgres://u:p@db/app?hots=x", "unknown parameter `hots`: leave it out, or did you mean `host`?"),
            ("postgres://u:p@db/app?conn_max_age=600", "parameter `conn_max_age` is Django's own: leave it out here"),
        ] {
            assert_eq!(show(url), expected, "{url}");
        }
    }

    #[test]
    fn errors_keep_the_password() {
        for url in [
            "postgres://u:hunter2/x@db:5432/app",
            "postgres://u:hunter2?x@db:5432/app",
            "postgres://u:hunter2%zz@db/app",
            "postgres://u:hunter2@a,b/app",
            "mysql://u:hunter2@db/app",
            "u:hunter2@db/app",
            "postgres://u:hunter2@db:x/app",
            "postgres://u:hunter2@db/a/b",
            "postgres://u:hunter2@db/app?sslmode=hunter2",
        ] {
            let error = DatabaseUrl::parse(url).err().expect(url);
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(text in "\\PC{0,60}", tail in "[a-z:@/?%&=\\[\\],0-9]{0,60}") {
            let _ = DatabaseUrl::parse(&text);
            let _ = DatabaseUrl::parse(&format!("postgres://{tail}"));
        }
    }
}
