//! A PostgreSQL client that sends exactly the bytes it is told and shows exactly the messages it gets.
//!
//! Format and flow: PostgreSQL documentation, "Message Formats" and "Message Flow". Every read has a timeout, so a
//! pooler that forgets to answer fails a test instead of hanging it.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use md5::{Digest, Md5};
use ring::{digest, hmac, pbkdf2};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::DEADLINE;

const PROTOCOL_3_0: u32 = 196_608;
const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;

/// A connection, logged in or not.
pub struct Client {
    stream: Stream,
    /// Of BackendKeyData: what a cancel request must carry.
    pub key: Option<(i32, Vec<u8>)>,
    /// ParameterStatus reports so far, in order of arrival.
    pub parameters: Vec<(String, String)>,
    /// Status byte of the last ReadyForQuery.
    pub status: u8,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A message of the server.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub tag: u8,
    pub body: Vec<u8>,
}

/// Rows of text; `None` is NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// An ErrorResponse, or a connection that broke.
#[derive(Debug)]
pub enum Error {
    Server { severity: String, code: String, message: String, body: Vec<u8> },
    Io(io::Error),
}

impl Client {
    /// TCP, without a startup message.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
        stream.set_nodelay(true)?;
        Self::new(Stream::Tcp(stream))
    }

    /// TCP from another of this machine's addresses, without a startup message.
    pub fn connect_from(source: SocketAddr, address: SocketAddr) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind(source)?;
            socket.connect(address).await?.into_std()
        })?;
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        Self::new(Stream::Tcp(stream))
    }

    /// Unix socket, without a startup message.
    pub fn connect_unix(path: &Path) -> io::Result<Self> {
        Self::new(Stream::Unix(UnixStream::connect(path)?))
    }

    /// TLS from here on: the handshake, to its end on this side.
    pub fn encrypt(self, config: &Arc<ClientConfig>, host: &str) -> io::Result<Self> {
        let Stream::Tcp(mut stream) = self.stream else { panic!("TLS on TCP only") };
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let mut tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Self::new(Stream::Tls(Box::new(StreamOwned::new(tls, stream))))
    }

    /// Asks for TLS, which must be there, and begins it.
    pub fn connect_tls(address: SocketAddr, config: &Arc<ClientConfig>, host: &str) -> io::Result<Self> {
        let mut client = Self::connect(address)?;
        assert_eq!(client.ask_tls()?, b'S', "TLS is offered");
        client.encrypt(config, host)
    }

    fn new(stream: Stream) -> io::Result<Self> {
        let client = Self { stream, key: None, parameters: Vec::new(), status: 0 };
        client.set_timeout(DEADLINE)?;
        Ok(client)
    }

    /// Connects by TCP and logs in.
    pub fn open(address: SocketAddr, user: &str, password: &str, database: &str) -> Result<Self, Error> {
        let mut client = Self::connect(address)?;
        client.login(user, password, database)?;
        Ok(client)
    }

    /// How long one read may wait.
    pub fn set_timeout(&self, limit: Duration) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(limit)),
            Stream::Unix(stream) => stream.set_read_timeout(Some(limit)),
            Stream::Tls(stream) => stream.sock.set_read_timeout(Some(limit)),
        }
    }

    /// How long one write may wait.
    pub fn set_write_timeout(&self, limit: Duration) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_write_timeout(Some(limit)),
            Stream::Unix(stream) => stream.set_write_timeout(Some(limit)),
            Stream::Tls(stream) => stream.sock.set_write_timeout(Some(limit)),
        }
    }

    // === Sending ===

    /// Any bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// A frame with a right length.
    pub fn send_frame(&mut self, tag: u8, body: &[u8]) -> io::Result<()> {
        self.send(&frame(tag, body))
    }

    /// A startup message of protocol 3.0.
    pub fn send_startup(&mut self, parameters: &[(&str, &str)]) -> io::Result<()> {
        self.send(&startup(PROTOCOL_3_0, parameters))
    }

    /// Asks for TLS; the one byte of the answer.
    pub fn ask_tls(&mut self) -> io::Result<u8> {
        self.send(&[8u32.to_be_bytes(), SSL_REQUEST.to_be_bytes()].concat())?;
        let mut answer = [0];
        self.read_exact(&mut answer)?;
        Ok(answer[0])
    }

    /// A cancel request, on a connection made for it; waits for the server to close.
    pub fn send_cancel(mut self, (pid, secret): &(i32, Vec<u8>)) -> io::Result<()> {
        let mut message = (12 + secret.len() as u32).to_be_bytes().to_vec();
        message.extend(CANCEL_REQUEST.to_be_bytes());
        message.extend(pid.to_be_bytes());
        message.extend(secret);
        self.send(&message)?;
        match self.read() {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(error),
            Ok(message) => Err(io::Error::other(format!("an answer to a cancel request: {message:?}"))),
        }
    }

    /// No more from us; the server may still speak.
    pub fn half_close(&self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(stream) => stream.sock.shutdown(Shutdown::Write),
        }
    }

    /// TLS's own goodbye; the connection stays.
    pub fn close_notify(&mut self) -> io::Result<()> {
        let Stream::Tls(stream) = &mut self.stream else { panic!("no TLS") };
        stream.conn.send_close_notify();
        stream.flush()
    }

    /// Bytes on the connection itself: under TLS they are a record, or a part of one.
    pub fn send_beneath(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tls(stream) => stream.sock.write_all(bytes),
            _ => self.send(bytes),
        }
    }

    /// The stream itself, for who goes on without this.
    pub fn into_tcp(self) -> TcpStream {
        match self.stream {
            Stream::Tcp(stream) => stream,
            Stream::Unix(_) | Stream::Tls(_) => panic!("no plain TCP stream"),
        }
    }

    /// Closes with a reset instead of a goodbye.
    pub fn reset(self) {
        let stream = match &self.stream {
            Stream::Tcp(stream) => Some(stream),
            Stream::Tls(stream) => Some(&stream.sock),
            Stream::Unix(_) => None,
        };
        if let Some(stream) = stream {
            socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }

    // === Reading ===

    /// The next message. UnexpectedEof when the server closed between messages.
    pub fn read(&mut self) -> io::Result<Message> {
        let mut header = [0; 5];
        self.read_exact(&mut header)?;
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if length < 4 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("length {length} of message {:?}", header[0] as char),
            ));
        }
        let mut body = vec![0; length - 4];
        self.read_exact(&mut body)?;
        let message = Message { tag: header[0], body };
        self.note(&message);
        Ok(message)
    }

    /// All messages up to and with the first of `tag`.
    pub fn read_until(&mut self, tag: u8) -> io::Result<Vec<Message>> {
        let mut messages = Vec::new();
        loop {
            let message = self.read()?;
            let last = message.tag == tag;
            messages.push(message);
            if last {
                return Ok(messages);
            }
        }
    }

    /// All messages until the server closes.
    pub fn read_to_end(&mut self) -> io::Result<Vec<Message>> {
        let mut messages = Vec::new();
        loop {
            match self.read() {
                Ok(message) => messages.push(message),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(messages),
                Err(error) => return Err(error),
            }
        }
    }

    /// True when nothing arrives within `limit`: for "the pooler must not answer yet".
    pub fn is_silent(&mut self, limit: Duration) -> bool {
        self.set_timeout(limit).unwrap();
        let mut byte = [0];
        let peeked = match &self.stream {
            Stream::Tcp(stream) => stream.peek(&mut byte),
            Stream::Unix(_) => unimplemented!("peek of a Unix socket is not stable"),
            Stream::Tls(stream) => stream.sock.peek(&mut byte),
        };
        self.set_timeout(DEADLINE).unwrap();
        matches!(peeked, Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
    }

    /// Bytes outside of messages: the answer to a request for encryption.
    pub fn read_raw(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.read_exact(bytes)
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read_exact(bytes),
            Stream::Unix(stream) => stream.read_exact(bytes),
            Stream::Tls(stream) => stream.read_exact(bytes),
        }
    }

    fn note(&mut self, message: &Message) {
        match message.tag {
            b'Z' => self.status = message.body[0],
            b'K' => {
                let pid = i32::from_be_bytes(message.body[..4].try_into().unwrap());
                self.key = Some((pid, message.body[4..].to_vec()));
            }
            b'S' => {
                let mut words =
                    message.body.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
                self.parameters.push((words.next().unwrap(), words.next().unwrap()));
            }
            _ => {}
        }
    }

    // === Whole exchanges ===

    /// Startup and authentication (trust, clear text, md5, SCRAM-SHA-256), to the first ReadyForQuery.
    pub fn login(&mut self, user: &str, password: &str, database: &str) -> Result<(), Error> {
        self.login_with(password, &[("user", user), ("database", database)])
    }

    /// As [`Self::login`], with startup parameters of the caller's choice (`user` among them).
    pub fn login_with(&mut self, password: &str, parameters: &[(&str, &str)]) -> Result<(), Error> {
        self.login_by(PROTOCOL_3_0, password, parameters)
    }

    /// As [`Self::login_with`], in another version of the protocol (`3 << 16 | 2`).
    pub fn login_by(&mut self, version: u32, password: &str, parameters: &[(&str, &str)]) -> Result<(), Error> {
        self.send(&startup(version, parameters))?;
        let user = parameters.iter().find(|(name, _)| *name == "user").map_or("", |(_, value)| value);
        self.authenticate(user, password)?;
        loop {
            let message = self.read()?;
            match message.tag {
                b'E' => return Err(message.to_error()),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    /// Answers what is asked after the startup message, until there is no more to prove.
    pub fn authenticate(&mut self, user: &str, password: &str) -> Result<(), Error> {
        let mut scram = None;
        loop {
            let message = self.read()?;
            match message.tag {
                b'E' => return Err(message.to_error()),
                b'R' => match u32::from_be_bytes(message.body[..4].try_into().unwrap()) {
                    0 => return Ok(()),
                    3 => self.send_frame(b'p', &c_string(password))?,
                    5 => self.send_frame(b'p', &c_string(&md5_answer(user, password, &message.body[4..])))?,
                    10 => self.send_frame(b'p', &Scram::first_message())?,
                    11 => {
                        let (state, answer) = Scram::answer(password, &message.body[4..]);
                        scram = Some(state);
                        self.send_frame(b'p', answer.as_bytes())?;
                    }
                    12 => {
                        scram.take().expect("final before continue").verify(&message.body[4..]);
                        return Ok(());
                    }
                    other => panic!("authentication method {other}"),
                },
                _ => {}
            }
        }
    }

    /// A simple query to its ReadyForQuery; the rows of all its statements, or the first error.
    pub fn simple(&mut self, sql: &str) -> Result<Rows, Error> {
        self.send_frame(b'Q', &c_string(sql))?;
        self.answer()
    }

    /// Parse, Bind, Execute, Sync of the unnamed statement with text parameters.
    pub fn extended(&mut self, sql: &str, parameters: &[Option<&str>]) -> Result<Rows, Error> {
        let message = [parse("", sql), bind("", "", parameters), execute("", 0), sync()].concat();
        self.send(&message)?;
        self.answer()
    }

    /// Reads to ReadyForQuery; the rows, or the first error.
    pub fn answer(&mut self) -> Result<Rows, Error> {
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            let message = match self.read() {
                Ok(message) => message,
                // A FATAL error is followed by the end of the connection: the error is the better answer.
                Err(error) => return Err(failure.unwrap_or(Error::Io(error))),
            };
            match message.tag {
                b'D' => rows.push(message.to_row()),
                b'E' => failure = failure.or(Some(message.to_error())),
                b'Z' => return failure.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    /// One value.
    pub fn value(&mut self, sql: &str) -> String {
        let rows = self.simple(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        rows[0][0].clone().unwrap_or_default()
    }

    /// The last reported value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Terminate, then close.
    pub fn terminate(mut self) {
        let _ = self.send_frame(b'X', b"");
    }
}

impl Message {
    /// A field of an ErrorResponse or NoticeResponse: `C` code, `M` message, `S` severity, `D` detail, `H` hint.
    pub fn field(&self, code: u8) -> Option<String> {
        let mut fields = self.body.split(|&byte| byte == 0);
        fields.find(|field| field.first() == Some(&code)).map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
    }

    pub fn to_error(&self) -> Error {
        let field = |code| self.field(code).unwrap_or_default();
        Error::Server { severity: field(b'S'), code: field(b'C'), message: field(b'M'), body: self.body.clone() }
    }

    /// The columns of a DataRow.
    pub fn to_row(&self) -> Vec<Option<String>> {
        let mut rest = &self.body[2..];
        let mut row = Vec::new();
        while !rest.is_empty() {
            let length = i32::from_be_bytes(rest[..4].try_into().unwrap());
            rest = &rest[4..];
            row.push((length >= 0).then(|| {
                let (value, tail) = rest.split_at(length as usize);
                rest = tail;
                String::from_utf8_lossy(value).into_owned()
            }));
        }
        row
    }

    /// The tag of a CommandComplete ("SELECT 1").
    pub fn command(&self) -> String {
        String::from_utf8_lossy(self.body.strip_suffix(b"\0").unwrap_or(&self.body)).into_owned()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.tag as char, self.body.escape_ascii())
    }
}

impl Error {
    /// The SQLSTATE; empty when the connection broke.
    pub fn code(&self) -> &str {
        match self {
            Self::Server { code, .. } => code,
            Self::Io(_) => "",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { severity, code, message, .. } => write!(f, "{severity} {code}: {message}"),
            Self::Io(error) => write!(f, "connection: {error}"),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The tags of messages as one string, "T D D C Z" without the spaces: the shape of an answer.
pub fn tags(messages: &[Message]) -> String {
    messages.iter().map(|message| message.tag as char).collect()
}

/// Rows as psql -At prints them.
pub fn text(rows: &Rows) -> String {
    let line = |row: &Vec<Option<String>>| {
        row.iter().map(|value| value.clone().unwrap_or_default()).collect::<Vec<_>>().join("|")
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

// === Messages of a client ===

pub fn c_string(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

pub fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend((body.len() as u32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

pub fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend(c_string(name));
        body.extend(c_string(value));
    }
    body.push(0);
    [&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
}

pub fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', &c_string(sql))
}

pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    frame(b'P', &[&c_string(name)[..], &c_string(sql), &0u16.to_be_bytes()].concat())
}

/// Text parameters, text results.
pub fn bind(portal: &str, statement: &str, parameters: &[Option<&str>]) -> Vec<u8> {
    let mut body = [c_string(portal), c_string(statement)].concat();
    body.extend(0u16.to_be_bytes());
    body.extend((parameters.len() as u16).to_be_bytes());
    for parameter in parameters {
        match parameter {
            None => body.extend((-1i32).to_be_bytes()),
            Some(text) => {
                body.extend((text.len() as u32).to_be_bytes());
                body.extend(text.as_bytes());
            }
        }
    }
    body.extend(0u16.to_be_bytes());
    frame(b'B', &body)
}

/// `kind` is `S` for a statement, `P` for a portal.
pub fn describe(kind: u8, name: &str) -> Vec<u8> {
    frame(b'D', &[&[kind][..], &c_string(name)].concat())
}

pub fn close(kind: u8, name: &str) -> Vec<u8> {
    frame(b'C', &[&[kind][..], &c_string(name)].concat())
}

/// `limit` 0 is all rows.
pub fn execute(portal: &str, limit: u32) -> Vec<u8> {
    frame(b'E', &[&c_string(portal)[..], &limit.to_be_bytes()].concat())
}

pub fn sync() -> Vec<u8> {
    frame(b'S', b"")
}

pub fn flush() -> Vec<u8> {
    frame(b'H', b"")
}

// === Authentication ===

fn md5_answer(user: &str, password: &str, salt: &[u8]) -> String {
    let hex = |bytes: &[u8]| Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("md5{}", hex(&[hex(format!("{password}{user}").as_bytes()).as_bytes(), salt].concat()))
}

/// The client side of SCRAM-SHA-256 (RFC 5802, 7677), without channel binding and with a fixed nonce: tests only.
struct Scram {
    server_signature: Vec<u8>,
}

impl Scram {
    const NONCE: &str = "pgsluiceharness";

    fn first_message() -> Vec<u8> {
        let first = format!("n,,n=,r={}", Self::NONCE);
        [&c_string("SCRAM-SHA-256")[..], &(first.len() as u32).to_be_bytes(), first.as_bytes()].concat()
    }

    fn answer(password: &str, challenge: &[u8]) -> (Self, String) {
        let challenge = std::str::from_utf8(challenge).unwrap();
        let part =
            |name: char| challenge.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('=')).unwrap();
        let (nonce, salt, rounds) = (part('r'), STANDARD.decode(part('s')).unwrap(), part('i').parse().unwrap());
        assert!(nonce.starts_with(Self::NONCE), "the server's nonce must extend ours");

        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password.as_bytes(), &mut salted);
        let sign =
            |key: &[u8], data: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref().to_vec();
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        let last = format!("c=biws,r={nonce}");
        let all = format!("n=,r={},{challenge},{last}", Self::NONCE);
        let signature = sign(stored_key.as_ref(), all.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, bit)| key ^ bit).collect();
        let server_signature = sign(&sign(&salted, b"Server Key"), all.as_bytes());
        (Self { server_signature }, format!("{last},p={}", STANDARD.encode(proof)))
    }

    fn verify(&self, last: &[u8]) {
        let expected = format!("v={}", STANDARD.encode(&self.server_signature));
        assert_eq!(std::str::from_utf8(last).unwrap(), expected, "the server did not prove that it knows the password");
    }
}
