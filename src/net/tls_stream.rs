//! The TLS state of one connection, on rustls' unbuffered interface: it holds bytes only while they wait for something.
//!
//! - Ciphertext is received into a buffer of the thread. What stays with the connection is the beginning of a record,
//!   and what was decrypted beyond the room of the reader; both are empty when the peer is silent.
//! - Bytes count as sent only when their record has gone to the kernel whole. Until then `Tls::try_send` says that
//!   they were not taken, and its caller gives the same bytes again: what is owed is as exact as without TLS.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{RecvFlags, SendFlags};
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{CommonState, Error};

/// Room for one receive: a record of the largest size (TLS 1.2's, RFC 5246 6.2.3).
const RECEIVE: usize = 5 + 16 * 1024 + 2048;
/// Plaintext encrypted ahead of one `send`.
const ENCRYPT: usize = 32 * 1024;
/// Longest unfinished input: a handshake message may be spread over records (rustls bounds it at 64 KiB).
const MAX_INCOMING: usize = 128 * 1024;

/// What one thread's connections share.
struct Scratch {
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

std::thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { incoming: Vec::new(), outgoing: Vec::new() }) };
}

enum Side {
    /// We are the server.
    Server(UnbufferedServerConnection),
    /// We are the client.
    Client(UnbufferedClientConnection),
}

impl Side {
    fn state(&self) -> &CommonState {
        match self {
            Side::Server(c) => c,
            Side::Client(c) => c,
        }
    }
}

/// The reading side's end. After a failure rustls is not asked again: it would look for the rest of a message in input
/// that is gone.
enum End {
    Open,
    /// close_notify, or the end of the stream.
    Closed,
    Failed(Error),
}

/// The TLS state of one connection.
pub struct Tls {
    side: Side,
    /// Received, and not a whole record (or handshake message) yet.
    incoming: Vec<u8>,
    /// Decrypted and not yet read, from `plain_at`.
    plain: Vec<u8>,
    plain_at: usize,
    /// Ciphertext that the kernel has not taken yet.
    outgoing: Vec<u8>,
    /// Plaintext bytes in `outgoing` that the sender has not been told of.
    owed: usize,
    end: End,
}

/// Where plaintext goes: the reader's buffer first.
struct Sink<'a> {
    buf: &'a mut [u8],
    filled: usize,
    rest: &'a mut Vec<u8>,
}

impl Sink<'_> {
    fn put(&mut self, payload: &[u8]) {
        let n = payload.len().min(self.buf.len() - self.filled);
        self.buf[self.filled..self.filled + n].copy_from_slice(&payload[..n]);
        self.filled += n;
        self.rest.extend_from_slice(&payload[n..]);
    }
}

/// What came of one step of rustls.
enum Next {
    /// There may be more to do.
    Again,
    /// Input is needed.
    Input,
    /// The peer has said that it is done.
    Closed,
}

/// One step: takes plaintext out, puts handshake records in. Returns the bytes of input that are done with.
fn step<D>(
    status: UnbufferedStatus<'_, '_, D>,
    sink: &mut Sink<'_>,
    out: &mut Vec<u8>,
) -> (usize, Result<Next, Error>) {
    let mut discard = status.discard;
    let next = match status.state {
        Err(e) => Err(e),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    sink.put(record.payload);
                }
                Some(Err(e)) => break Err(e),
                None => break Ok(Next::Again),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            encode(out, |room| match data.encode(room) {
                Ok(n) => Ok(n),
                Err(EncodeError::InsufficientSize(e)) => Err(Some(e.required_size)),
                Err(EncodeError::AlreadyEncoded) => Err(None),
            });
            Ok(Next::Again)
        }
        // It is in `out`, which is sent before anything else.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Next::Again)
        }
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Next::Closed),
        Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Ok(Next::Input),
        // Early data is never allowed here.
        Ok(_) => Err(Error::General("unexpected state".to_owned())),
    };
    (discard, next)
}

/// Appends to `out` what `write` writes, with the room that it asks for. Whether it wrote.
fn encode(out: &mut Vec<u8>, mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>) -> bool {
    let start = out.len();
    let mut room = 0;
    // The second try has the room that the first asked for.
    for _ in 0..2 {
        out.resize(start + room, 0);
        match write(&mut out[start..]) {
            Ok(n) => {
                out.truncate(start + n);
                return true;
            }
            Err(Some(required)) => room = required,
            Err(None) => break,
        }
    }
    out.truncate(start);
    false
}

/// Encrypts `data` behind `out` when the state allows it. Bytes of input that are done with, and whether it did.
fn encrypt<D>(status: UnbufferedStatus<'_, '_, D>, data: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
    let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state else {
        return (status.discard, false);
    };
    let done = encode(out, |room| match traffic.encrypt(data, room) {
        Ok(n) => Ok(n),
        Err(EncryptError::InsufficientSize(e)) => Err(Some(e.required_size)),
        Err(EncryptError::EncryptExhausted) => Err(None),
    });
    (status.discard, done)
}

fn goodbye<D>(status: UnbufferedStatus<'_, '_, D>, out: &mut Vec<u8>) {
    if let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state {
        encode(out, |room| match traffic.queue_close_notify(room) {
            Ok(n) => Ok(n),
            Err(EncryptError::InsufficientSize(e)) => Err(Some(e.required_size)),
            Err(EncryptError::EncryptExhausted) => Err(None),
        });
    }
}

/// Runs rustls over `input`; what it is done with is at the front (the returned number of bytes).
fn digest(side: &mut Side, input: &mut [u8], sink: &mut Sink<'_>, out: &mut Vec<u8>) -> (usize, Result<Next, Error>) {
    let mut used = 0;
    loop {
        let (discard, next) = match side {
            Side::Server(c) => step(c.process_tls_records(&mut input[used..]), sink, out),
            Side::Client(c) => step(c.process_tls_records(&mut input[used..]), sink, out),
        };
        used += discard;
        match next {
            Ok(Next::Again) => {}
            Err(e) => {
                // What was due before it, and the alert that tells the peer why. rustls looks at input only when it has
                // nothing to send, and after an error it must not: this is not the input that it remembers.
                while side.state().wants_write() {
                    let (_, next) = match side {
                        Side::Server(c) => step(c.process_tls_records(&mut []), sink, out),
                        Side::Client(c) => step(c.process_tls_records(&mut []), sink, out),
                    };
                    if next.is_err() {
                        break;
                    }
                }
                return (used, Err(e));
            }
            done => return (used, done),
        }
    }
}

/// Sends what the kernel takes.
fn send(fd: &OwnedFd, buf: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < buf.len() {
        match rustix::net::send(fd, &buf[sent..], SendFlags::NOSIGNAL) {
            Ok(n) => sent += n,
            Err(rustix::io::Errno::AGAIN) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(sent)
}

/// What one receive came to. The bytes are in the thread's buffer until the next one.
pub(super) struct Received {
    /// Bytes; `None`: there are none now. 0 is the end of the stream.
    n: Option<usize>,
    /// The kernel has nothing more: readiness must come from a new edge.
    pub(super) drained: bool,
}

impl Tls {
    /// The server's side of a new connection.
    pub fn server(connection: UnbufferedServerConnection) -> Tls {
        Tls::new(Side::Server(connection))
    }

    /// The client's side of a new connection.
    pub fn client(connection: UnbufferedClientConnection) -> Tls {
        Tls::new(Side::Client(connection))
    }

    fn new(side: Side) -> Tls {
        Tls {
            side,
            incoming: Vec::new(),
            plain: Vec::new(),
            plain_at: 0,
            outgoing: Vec::new(),
            owed: 0,
            end: End::Open,
        }
    }

    /// What rustls knows of the connection.
    pub(super) fn state(&self) -> &CommonState {
        self.side.state()
    }

    /// Whether the reader has something without a receive: plaintext, or the end.
    pub(super) fn has_plain(&self) -> bool {
        self.plain_at < self.plain.len() || !matches!(self.end, End::Open)
    }

    /// Plaintext that waits for the reader.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.plain[self.plain_at..]
    }

    /// Reads what has been decrypted. `None`: a receive is needed.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> Option<io::Result<usize>> {
        let waiting = self.waiting();
        if waiting.is_empty() {
            return match &self.end {
                End::Open => None,
                End::Closed => Some(Ok(0)),
                End::Failed(e) => Some(Err(io::Error::new(io::ErrorKind::InvalidData, e.clone()))),
            };
        }
        let n = waiting.len().min(buf.len());
        buf[..n].copy_from_slice(&waiting[..n]);
        self.plain_at += n;
        if self.plain_at == self.plain.len() {
            self.plain = Vec::new();
            self.plain_at = 0;
        }
        Some(Ok(n))
    }

    /// Receives once, behind what was left over; [`Self::take`] follows at once. Not when the stream has ended.
    pub(super) fn receive(&self, fd: &OwnedFd) -> io::Result<Received> {
        SCRATCH.with_borrow_mut(|scratch| {
            let incoming = &mut scratch.incoming;
            let kept = self.incoming.len();
            incoming.resize((kept + RECEIVE).max(incoming.len()), 0);
            incoming[..kept].copy_from_slice(&self.incoming);
            loop {
                match rustix::net::recv(fd, &mut incoming[kept..kept + RECEIVE], RecvFlags::DONTWAIT) {
                    Ok((_, n)) => return Ok(Received { n: Some(n), drained: n > 0 && n < RECEIVE }),
                    Err(rustix::io::Errno::AGAIN) => return Ok(Received { n: None, drained: true }),
                    Err(rustix::io::Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        })
    }

    /// Decrypts what was received, into `buf` first (empty while other plaintext waits); the bytes put there.
    pub(super) fn take(&mut self, fd: &OwnedFd, received: &Received, buf: &mut [u8]) -> usize {
        match received.n {
            None => 0,
            Some(0) => {
                // Without close_notify too: messages have lengths, so what is cut short is seen (as in PostgreSQL).
                self.end = End::Closed;
                0
            }
            Some(n) => SCRATCH.with_borrow_mut(|scratch| {
                let kept = self.incoming.len();
                let filled = self.feed(&mut scratch.incoming[..kept + n], buf);
                // If it fails the next send says so; what was received comes first.
                let _ = self.flush(fd);
                filled
            }),
        }
    }

    /// Takes ciphertext: `input` is what was left over and what came now. Returns the plaintext put into `buf`.
    fn feed(&mut self, input: &mut [u8], buf: &mut [u8]) -> usize {
        let mut sink = Sink { buf, filled: 0, rest: &mut self.plain };
        let (used, next) = digest(&mut self.side, input, &mut sink, &mut self.outgoing);
        let filled = sink.filled;
        self.incoming.clear();
        match next {
            Ok(Next::Closed) => self.end = End::Closed,
            Err(e) => self.end = End::Failed(e),
            Ok(_) if input.len() - used > MAX_INCOMING => self.end = End::Failed(Error::PeerSentOversizedRecord),
            Ok(_) => self.incoming.extend_from_slice(&input[used..]),
        }
        if self.incoming.is_empty() {
            self.incoming = Vec::new();
        }
        filled
    }

    /// Sends what was encrypted before. Whether nothing is left.
    pub(super) fn flush(&mut self, fd: &OwnedFd) -> io::Result<bool> {
        if self.outgoing.is_empty() {
            return Ok(true);
        }
        let n = send(fd, &self.outgoing)?;
        if n == self.outgoing.len() {
            self.outgoing = Vec::new();
        } else {
            self.outgoing.drain(..n);
        }
        Ok(self.outgoing.is_empty())
    }

    /// As `Socket::try_send`. What it says was not taken must come again, first and unchanged: a part of it may be
    /// encrypted already.
    pub(super) fn try_send(&mut self, fd: &OwnedFd, buf: &[u8]) -> io::Result<usize> {
        if let End::Failed(e) = &self.end {
            return Err(io::Error::new(io::ErrorKind::InvalidData, e.clone()));
        }
        if !self.flush(fd)? {
            return Ok(0);
        }
        let mut taken = std::mem::take(&mut self.owed).min(buf.len());
        while taken < buf.len() {
            let chunk = &buf[taken..(taken + ENCRYPT).min(buf.len())];
            let whole = SCRATCH.with_borrow_mut(|scratch| {
                let out = &mut scratch.outgoing;
                out.clear();
                self.encrypt(chunk, out)?;
                let n = send(fd, out)?;
                self.outgoing.extend_from_slice(&out[n..]);
                Ok::<_, io::Error>(n == out.len())
            })?;
            if !whole {
                self.owed = chunk.len();
                break;
            }
            taken += chunk.len();
        }
        Ok(taken)
    }

    fn encrypt(&mut self, data: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let invalid = |e: Error| io::Error::new(io::ErrorKind::InvalidData, e);
        if self.state().wants_write() {
            // What rustls has to say of its own goes first.
            let mut sink = Sink { buf: &mut [], filled: 0, rest: &mut self.plain };
            let (used, next) = digest(&mut self.side, &mut self.incoming, &mut sink, out);
            self.incoming.drain(..used);
            if let Err(e) = next {
                self.end = End::Failed(e.clone());
                return Err(invalid(e));
            }
        }
        let (used, done) = match &mut self.side {
            Side::Server(c) => encrypt(c.process_tls_records(&mut self.incoming), data, out),
            Side::Client(c) => encrypt(c.process_tls_records(&mut self.incoming), data, out),
        };
        self.incoming.drain(..used);
        if done { Ok(()) } else { Err(invalid(Error::HandshakeNotComplete)) }
    }

    /// What has been received before TLS was there; how many bytes.
    pub(super) fn begin(&mut self, early: &[u8]) -> usize {
        self.incoming.extend_from_slice(early);
        early.len()
    }

    /// Keeps what was received, for [`Self::work`]. The bytes that came; 0 at the end of the stream.
    pub(super) fn keep(&mut self, received: &Received) -> usize {
        match received.n {
            None => 0,
            Some(0) => {
                self.end = End::Closed;
                0
            }
            Some(n) => SCRATCH.with_borrow(|scratch| {
                let kept = self.incoming.len();
                self.incoming.extend_from_slice(&scratch.incoming[kept..kept + n]);
                n
            }),
        }
    }

    /// Goes on with the handshake as far as what has come allows. **Expensive**: keys are agreed on, signatures made.
    pub(super) fn work(&mut self) {
        let mut input = std::mem::take(&mut self.incoming);
        self.feed(&mut input, &mut []);
    }

    /// Goes on with the handshake: sends what is due, takes what has come. Whether it is complete.
    pub(super) fn shake(&mut self, fd: &OwnedFd, early: &mut Vec<u8>) -> Result<bool, Error> {
        if matches!(self.end, End::Open) {
            let mut input = std::mem::take(&mut self.incoming);
            input.append(early);
            self.feed(&mut input, &mut []);
        }
        let flushed = self.flush(fd).unwrap_or(false);
        match &self.end {
            End::Failed(e) => Err(e.clone()),
            _ => Ok(flushed && !self.state().is_handshaking()),
        }
    }

    /// Whether records wait for the kernel.
    pub(super) fn blocked(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether the stream has ended.
    pub(super) fn ended(&self) -> bool {
        !matches!(self.end, End::Open)
    }

    /// Tells the peer that nothing more comes, as far as that costs nothing.
    pub(super) fn say_goodbye(&mut self, fd: &OwnedFd) {
        if !self.outgoing.is_empty() || self.state().is_handshaking() || matches!(self.end, End::Failed(_)) {
            return;
        }
        let mut out = Vec::new();
        match &mut self.side {
            Side::Server(c) => goodbye(c.process_tls_records(&mut self.incoming), &mut out),
            Side::Client(c) => goodbye(c.process_tls_records(&mut self.incoming), &mut out),
        }
        let _ = send(fd, &out);
    }
}
