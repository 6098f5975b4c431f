//! A small client of the JSON API for `report` and `top`: one GET a connection, blocking, within a time and a size.
//!
//! HTTP/1.0 is spoken, so that no server answers in chunks; a token is never shown.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::health::left;
use super::words::clean;
use crate::http::api::endpoint::PREFIX;

/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 64 << 20;
/// Items of a page, the most that the API gives.
const PAGE: usize = 1_000;
/// Whom to ask, and how.
#[derive(Args)]
pub(super) struct RemoteArgs {
    /// Address of the running pgsluice (`http_listen`).
    #[arg(long, default_value = "http://127.0.0.1:9127", value_parser = Address::parse)]
    url: Address,
    /// File that holds the token, where `http_token` or `http_token_file` is set.
    #[arg(long, env = "PGSLUICE_HTTP_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How long an answer may take.
    #[arg(long, default_value = "10s", value_parser = crate::config::units::parse_duration)]
    timeout: Duration,
}

impl fmt::Debug for RemoteArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteArgs").field("address", &self.url.host).finish_non_exhaustive()
    }
}

/// Host and port of an `http://` address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Address {
    /// As it goes into `Host`.
    host: String,
    /// With the port.
    target: String,
}

impl Address {
    fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("https://") {
            return Err("pgsluice itself speaks plain HTTP: use http://, over the network through a tunnel \
                        (ssh -L 9127:127.0.0.1:9127 HOST)"
                .to_owned());
        }
        let host = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let well = !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && !b"/@?#".contains(&b));
        if !well {
            return Err("an address such as http://127.0.0.1:9127 expected".to_owned());
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let target = if has_port { host.to_owned() } else { format!("{host}:9127") };
        Ok(Self { host: host.to_owned(), target })
    }
}

/// Why there is no answer; each with its own exit code, documented in docs/terminal.md.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing listens there, it does not answer in time, or what answers is no pgsluice.
    Silent(String),
    /// The token is missing or wrong, or the request is not allowed.
    Refused(String),
    /// A pgsluice that has no such endpoint.
    Old(String),
    /// A file of this machine.
    File(String),
}

impl Failure {
    /// Of the process.
    pub(super) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Silent(_) => 1,
            Failure::Refused(_) => 3,
            Failure::Old(_) => 4,
            Failure::File(_) => 5,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::Silent(text) | Failure::Refused(text) | Failure::Old(text) | Failure::File(text)) = self;
        f.write_str(text)
    }
}

/// The running pgsluice.
pub(super) struct Remote {
    address: Address,
    token: Option<String>,
    timeout: Duration,
}

impl RemoteArgs {
    /// Reads the token, opens nothing.
    pub(super) fn open(&self) -> Result<Remote, Failure> {
        let read = |path: &PathBuf| {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::File(format!("token file {}: {error}", path.display())))?;
            let token = text.trim().to_owned();
            // Nothing that would end the header it stands in.
            if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(Failure::File(format!("token file {}: holds no token", path.display())));
            }
            Ok(token)
        };
        let given = self.token_file.as_ref().filter(|path| !path.as_os_str().is_empty());
        Ok(Remote { address: self.url.clone(), token: given.map(read).transpose()?, timeout: self.timeout })
    }
}

impl Remote {
    /// Where it is, to be shown.
    pub(super) fn name(&self) -> &str {
        &self.address.host
    }

    /// An answer of the API; `path` stands behind `/api/v1/`.
    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        let answer = self.exchange(path).map_err(|error| {
            let what = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "nothing listens there; is http_listen set?".to_owned(),
                std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => "no answer in time".to_owned(),
                _ => error.to_string(),
            };
            Failure::Silent(format!("no answer from http://{}: {what}", self.address.target))
        })?;
        self.read(path, &answer)
    }

    /// All items of a list, page by page, `most` of them at most.
    pub(super) fn list(&self, path: &str, most: usize) -> Result<Vec<Value>, Failure> {
        let mut items = Vec::new();
        let mark = if path.contains('?') { '&' } else { '?' };
        while items.len() < most {
            let limit = PAGE.min(most - items.len());
            let mut page = self.get(&format!("{path}{mark}limit={limit}&offset={}", items.len()))?;
            let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) else { break };
            let last = more.len() < limit;
            items.extend(more);
            if last {
                break;
            }
        }
        Ok(items)
    }

    /// Likewise, where an older pgsluice has no such endpoint: `None`.
    pub(super) fn try_list(&self, path: &str, most: usize) -> Result<Option<Vec<Value>>, Failure> {
        match self.list(path, most) {
            Err(Failure::Old(_)) => Ok(None),
            other => other.map(Some),
        }
    }

    fn read(&self, path: &str, answer: &[u8]) -> Result<Value, Failure> {
        let split = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let (head, body) = split.map_or((answer, &[][..]), |at| (&answer[..at], &answer[at + 4..]));
        let line = String::from_utf8_lossy(head.split(|b| *b == b'\r').next().unwrap_or_default()).into_owned();
        let json = serde_json::from_slice::<Value>(body).ok();
        let told = json.as_ref().and_then(|value| value.get("error")).and_then(Value::as_str).map(clean);
        let name = &self.address.host;
        match line.strip_prefix("HTTP/1.").and_then(|rest| rest.split_whitespace().nth(1)) {
            Some("200") => json
                .ok_or_else(|| Failure::Silent(format!("http://{name} answers, but not with JSON; is it pgsluice?"))),
            Some("401") if self.token.is_some() => {
                Err(Failure::Refused(format!("http://{name} refuses the token of --token-file")))
            }
            Some("401") => Err(Failure::Refused(format!("http://{name} wants a token: give --token-file"))),
            Some("403") => Err(Failure::Refused(format!(
                "http://{name} answers over the loopback only until http_token is set: {}",
                String::from_utf8_lossy(body).trim().chars().filter(|c| !c.is_control()).take(200).collect::<String>()
            ))),
            Some("404") => {
                let what = path.split(['?', '/']).next().unwrap_or(path);
                let why = told.unwrap_or_else(|| "it is older than this program, or no pgsluice".to_owned());
                Err(Failure::Old(format!("http://{name} has no {PREFIX}/{what}: {why}")))
            }
            _ => Err(Failure::Silent(format!("http://{name} answers {}: {}", clean(&line), told.unwrap_or_default()))),
        }
    }

    fn exchange(&self, path: &str) -> std::io::Result<Vec<u8>> {
        let deadline = Instant::now() + self.timeout;
        let mut failed = std::io::ErrorKind::AddrNotAvailable.into();
        for address in self.address.target.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, left(deadline)?) {
                Ok(stream) => return self.talk(stream, path, deadline),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn talk(&self, mut stream: TcpStream, path: &str, deadline: Instant) -> std::io::Result<Vec<u8>> {
        let authorization =
            self.token.as_ref().map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        let host = &self.address.host;
        let request = format!("GET {PREFIX}/{path} HTTP/1.0\r\nHost: {host}\r\n{authorization}\r\n");
        stream.set_write_timeout(Some(left(deadline)?))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut chunk = vec![0; 64 << 10];
        loop {
            stream.set_read_timeout(Some(left(deadline)?))?;
            match stream.read(&mut chunk)? {
                0 => return Ok(answer),
                n => answer.extend_from_slice(&chunk[..n]),
            }
            if answer.len() > MAX_ANSWER {
                return Err(std::io::Error::other("the answer is too long"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(token: Option<&str>) -> Remote {
        let address = Address::parse("http://x:1").unwrap();
        Remote { address, token: token.map(str::to_owned), timeout: Duration::from_secs(1) }
    }

    #[test]
    fn addresses() {
        let target = |text| Address::parse(text).map(|address| address.target);
        assert_eq!(target("http://a:1/").unwrap(), "a:1");
        assert_eq!(target("a").unwrap(), "a:9127");
        assert_eq!(target("http://[::1]:7").unwrap(), "[::1]:7");
        assert!(target("https://a").unwrap_err().contains("ssh -L"));
        assert!(target("http://").is_err() && target("http://a/b").is_err() && target("http://u@a").is_err());
    }

    #[test]
    fn each_failure_says_what_to_do() {
        let read = |answer: &str, token| remote(token).read("status", answer.as_bytes()).unwrap_err();
        assert!(matches!(read("HTTP/1.0 401 U\r\n\r\n", None), Failure::Refused(t) if t.contains("give --token-file")));
        assert!(matches!(read("HTTP/1.0 401 U\r\n\r\n", Some("t")), Failure::Refused(t) if t.contains("refuses")));
        assert!(matches!(read("HTTP/1.0 404 N\r\n\r\nno", None), Failure::Old(t) if t.contains("older")));
        assert!(
            matches!(read("HTTP/1.0 200 O\r\n\r\n<html>", None), Failure::Silent(t) if t.contains("not with JSON"))
        );
        assert!(matches!(read("SSH-2.0-x\r\n", None), Failure::Silent(_)));
        assert_eq!(remote(None).read("x", b"HTTP/1.0 200 O\r\n\r\n{}").unwrap(), serde_json::json!({}));
    }
}
