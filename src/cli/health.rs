//! `pgsluice health`: one GET over a plain socket, because an image without a shell has no curl either.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

/// Bytes of the answer that are read: the status line is at its start.
const MAX_ANSWER: u64 = 4096;

/// What to ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Target {
    /// `host:port`.
    address: String,
    path: String,
}

impl Target {
    /// Reads `http://host[:port][/path]`.
    pub(super) fn parse(url: &str) -> Result<Target, String> {
        let rest = url.strip_prefix("http://").ok_or("a URL such as http://127.0.0.1:9127/healthz expected")?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, "healthz"));
        let clean = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        if host.is_empty() || !clean(host) || !clean(path) {
            return Err("a URL such as http://127.0.0.1:9127/healthz expected".to_owned());
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { host.to_owned() } else { format!("{host}:80") };
        Ok(Target { address, path: format!("/{path}") })
    }

    /// The health page of a listener; one that listens everywhere is asked on the loopback.
    pub(super) fn of_listener(mut address: SocketAddr) -> Target {
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Target { address: address.to_string(), path: "/healthz".to_owned() }
    }
}

/// Asks, and gives the status line of a good answer.
pub(super) fn ask(target: &Target, timeout: Duration) -> Result<String, String> {
    let deadline = Instant::now() + timeout;
    let status = exchange(target, deadline).map_err(|error| format!("{} does not answer: {error}", target.address))?;
    match status.split_whitespace().nth(1) {
        Some("200") => Ok(status),
        _ => Err(format!("{}{} answers: {status}", target.address, target.path)),
    }
}

/// The first line of the answer.
fn exchange(target: &Target, deadline: Instant) -> std::io::Result<String> {
    let address = target.address.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    let mut stream = TcpStream::connect_timeout(&address, left(deadline)?)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", target.path, target.address);
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = [0; 512];
    while !answer.contains(&b'\n') && (answer.len() as u64) < MAX_ANSWER {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut chunk)? {
            0 => break,
            n => answer.extend_from_slice(&chunk[..n]),
        }
    }
    let line = answer.split(|&b| b == b'\n').next().unwrap_or_default();
    let printable = line.iter().filter(|b| (0x20..0x7f).contains(*b)).map(|&b| char::from(b));
    Ok(printable.collect())
}

/// Time left; a timeout of zero would mean none to the socket.
pub(super) fn left(deadline: Instant) -> std::io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(std::io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers one request.
    fn serve(answer: &'static str) -> (Target, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::of_listener(listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            if answer.is_empty() {
                // Say nothing until the other side gives up.
                let _ = stream.read(&mut byte);
            }
            String::from_utf8(request).unwrap()
        });
        (target, thread)
    }

    #[test]
    fn a_good_answer_is_200() {
        let (target, server) = serve("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(ask(&target, Duration::from_secs(10)).unwrap(), "HTTP/1.1 200 OK");
        assert!(server.join().unwrap().starts_with("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:"));
    }

    #[test]
    fn other_answers_and_none_are_failures() {
        let (target, _server) = serve("HTTP/1.1 503 Service Unavailable\r\n\r\n");
        let error = ask(&target, Duration::from_secs(10)).unwrap_err();
        assert!(error.ends_with("/healthz answers: HTTP/1.1 503 Service Unavailable"), "{error}");
        let (target, _server) = serve("");
        let error = ask(&target, Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("does not answer"), "{error}");
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(ask(&Target::of_listener(nobody), Duration::from_secs(10)).is_err());
    }

    #[test]
    fn urls() {
        let show = |url| Target::parse(url).map(|target| format!("{} {}", target.address, target.path));
        assert_eq!(show("http://a:1/b/c").unwrap(), "a:1 /b/c");
        assert_eq!(show("http://a").unwrap(), "a:80 /healthz");
        assert_eq!(show("http://[::1]:9127/readyz").unwrap(), "[::1]:9127 /readyz");
        assert!(show("https://a").is_err() && show("http:///x").is_err() && show("http://a/b c").is_err());
        let everywhere: SocketAddr = "0.0.0.0:9127".parse().unwrap();
        assert_eq!(Target::of_listener(everywhere).address, "127.0.0.1:9127");
    }
}
