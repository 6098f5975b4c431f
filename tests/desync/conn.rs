//! A connection of the soak: logged in like any client, then both directions by themselves.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::support::Random;
use crate::support::cluster::{DATABASE, PASSWORD};
use crate::support::raw::{self, Message};

/// How a connection ended.
#[derive(Debug)]
pub enum Broken {
    /// Between two messages.
    Closed,
    /// In the middle of one.
    CutShort,
    Reset,
}

pub struct Reader {
    half: OwnedReadHalf,
    buffer: Vec<u8>,
    at: usize,
    /// The last value of each ParameterStatus.
    pub parameters: HashMap<String, String>,
}

pub struct Writer {
    half: OwnedWriteHalf,
}

/// The key of cancel requests.
pub type Key = (i32, Vec<u8>);

/// Logs in.
pub async fn open(address: SocketAddr, startup: Vec<(&'static str, String)>) -> Result<(Reader, Writer, Key), String> {
    let login = move || -> Result<raw::Client, String> {
        let mut client = raw::Client::connect(address).map_err(|e| e.to_string())?;
        let mut parameters = vec![("user", "app"), ("database", DATABASE)];
        parameters.extend(startup.iter().map(|(name, value)| (*name, value.as_str())));
        client.login_with(PASSWORD, &parameters).map_err(|e| e.to_string())?;
        Ok(client)
    };
    let client = tokio::task::spawn_blocking(login).await.expect("login does not panic")?;
    let key = client.key.clone().expect("BackendKeyData");
    let parameters = client.parameters.iter().cloned().collect();
    let stream = client.into_tcp();
    stream.set_nonblocking(true).unwrap();
    let (read, write) = TcpStream::from_std(stream).unwrap().into_split();
    Ok((Reader { half: read, buffer: Vec::new(), at: 0, parameters }, Writer { half: write }, key))
}

/// Sends a cancel request and waits until it has been dealt with.
pub async fn cancel(address: SocketAddr, key: Key) {
    let send = move || raw::Client::connect(address).and_then(|client| client.send_cancel(&key));
    let _ = tokio::task::spawn_blocking(send).await.expect("a cancel does not panic");
}

impl Reader {
    /// The next message. Cancel safe.
    pub async fn next(&mut self) -> Result<Message, Broken> {
        loop {
            let there = &self.buffer[self.at..];
            if there.len() >= 5 {
                let length = u32::from_be_bytes(there[1..5].try_into().unwrap()) as usize + 1;
                assert!((5..1 << 28).contains(&length), "a message of {length} bytes: {:?}", &there[..5]);
                if there.len() >= length {
                    let message = Message { tag: there[0], body: there[5..length].to_vec() };
                    self.at += length;
                    if self.at == self.buffer.len() {
                        self.buffer.clear();
                        self.at = 0;
                    }
                    self.note(&message);
                    return Ok(message);
                }
            }
            self.buffer.drain(..self.at);
            self.at = 0;
            match self.half.read_buf(&mut self.buffer).await {
                Ok(0) if self.buffer.is_empty() => return Err(Broken::Closed),
                Ok(0) => return Err(Broken::CutShort),
                Ok(_) => {}
                Err(_) => return Err(Broken::Reset),
            }
        }
    }

    fn note(&mut self, message: &Message) {
        if message.tag == b'S' {
            let mut words = message.body.split(|&b| b == 0).map(|word| String::from_utf8_lossy(word).into_owned());
            let (name, value) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            self.parameters.insert(name, value);
        }
    }

    /// Closes with a reset.
    pub fn reset(self, writer: Writer) {
        let stream = self.half.reunite(writer.half).expect("of one connection");
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// Pieces of a batch that is cut; what is left then goes at once.
const PIECES: usize = 40;

impl Writer {
    /// Sends everything, in pieces when asked to. A broken connection is for the reader to see.
    pub async fn send(&mut self, mut bytes: &[u8], cut: bool, random: &mut Random) {
        for _ in 0..if cut { PIECES } else { 0 } {
            let most = match random.below(3) {
                0 => 3,
                1 => 64,
                _ => 20_000,
            };
            let (now, later) = bytes.split_at(bytes.len().min(1 + random.below(most) as usize));
            if self.half.write_all(now).await.is_err() {
                return;
            }
            bytes = later;
            match random.below(6) {
                0 => tokio::time::sleep(Duration::from_micros(random.below(2000))).await,
                _ => tokio::task::yield_now().await,
            }
        }
        let _ = self.half.write_all(bytes).await;
    }
}
