//! Sequences of messages, sent to PostgreSQL and through a pool of two servers: the answers are the same, message for message,
//! on whichever server the next request comes to be.

use std::net::SocketAddr;

use super::cluster::{self, DATABASE, PASSWORD};
use super::pooler::Pooler;
use super::raw::{Client, Message};

/// One write.
pub struct Write {
    bytes: Vec<u8>,
    /// How many ReadyForQuery answer it.
    readies: usize,
    /// How many of the requests behind the last Sync are answered, in the extended protocol.
    answers: usize,
    /// A COPY begins, and its data comes with another write.
    copy: bool,
}

/// Type and body of each message.
fn frames(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut all = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<5>() {
        let body = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize - 4;
        all.push((header[0], &rest[..body]));
        bytes = &rest[body..];
    }
    all
}

impl Write {
    /// What is sent at once. Each Query, Sync and FunctionCall is answered; what a Flush ends is answered without one.
    pub fn of(bytes: &[u8]) -> Self {
        let all = frames(bytes);
        let ends = |tag: &u8| matches!(tag, b'Q' | b'S' | b'F');
        let behind = all.iter().rposition(|(tag, _)| ends(tag)).map_or(0, |at| at + 1);
        let requests = all[behind..].iter().filter(|(tag, _)| matches!(tag, b'P' | b'B' | b'D' | b'E' | b'C'));
        let copy = all.last().is_some_and(|(tag, sql)| *tag == b'Q' && copies(sql));
        let done = all.iter().any(|(tag, _)| matches!(tag, b'c' | b'f'));
        let query = all.iter().any(|(tag, _)| ends(tag));
        let readies = all.iter().filter(|(tag, _)| ends(tag)).count() - usize::from(copy);
        // The end of a COPY that a Query began in another write.
        let readies = readies + usize::from(done && !query);
        Self { bytes: bytes.to_vec(), readies, answers: requests.count(), copy }
    }

    /// One of its Queries is skipped behind an error.
    pub fn skipping(mut self) -> Self {
        self.readies -= 1;
        self
    }
}

fn copies(sql: &[u8]) -> bool {
    let sql = String::from_utf8_lossy(sql).to_lowercase();
    sql.starts_with("copy") && sql.contains("from stdin")
}

/// A startup parameter of the client's own.
const ZONE: &[(&str, &str)] = &[("TimeZone", "Asia/Tokyo")];

fn open(address: SocketAddr, startup: &[(&str, &str)]) -> Client {
    let mut client = Client::connect(address).unwrap();
    let parameters = [&[("user", "postgres"), ("database", DATABASE)], startup].concat();
    client.login_with(PASSWORD, &parameters).unwrap();
    client
}

/// All that was heard of a write.
fn hear(client: &mut Client, write: &Write) -> Vec<Message> {
    let mut all: Vec<Message> = (0..write.readies).flat_map(|_| client.read_until(b'Z').unwrap()).collect();
    let mut left = if write.copy { usize::MAX } else { write.answers };
    while left > 0 {
        let message = client.read().unwrap();
        match message.tag {
            b'1' | b'2' | b'3' | b'T' | b'n' | b'C' | b's' | b'I' if !write.copy => left -= 1,
            b'G' | b'E' => left = 0,
            _ => {}
        }
        all.push(message);
    }
    all
}

/// As a driver reads it: of errors and notices the words, of columns not the number of a table made for the occasion.
fn shown(m: &Message) -> String {
    match m.tag {
        b'E' | b'N' => {
            let fields = [b'S', b'C', b'M', b'D', b'H', b'P', b'W'].map(|f| m.field(f));
            format!("{}({fields:?})", m.tag as char)
        }
        b'T' => {
            let (mut body, mut at) = (m.body.clone(), 2);
            while let Some(end) = body.get(at..).and_then(|rest| rest.iter().position(|b| *b == 0)) {
                at += end + 1;
                body[at..at + 4].fill(0);
                at += 18;
            }
            format!("T({})", body.escape_ascii())
        }
        _ => format!("{m:?}"),
    }
}

fn answers(client: &mut Client, write: &Write) -> Vec<String> {
    hear(client, write).iter().map(shown).collect()
}

fn direct(writes: &[Write], startup: &[(&str, &str)]) -> Vec<Vec<String>> {
    let mut client = open(cluster::shared().address(), startup);
    let answer = |write: &Write| {
        client.send(&write.bytes).unwrap();
        answers(&mut client, write)
    };
    writes.iter().map(answer).collect()
}

/// Sends all on a direct connection, and through the pool, where the client is moved to the other server between its
/// transactions: before each write, or each second one.
pub fn same(pooler: &Pooler, what: &str, writes: &[Write]) {
    same_for(pooler, ZONE, what, writes);
}

/// The same for a client with these startup parameters.
pub fn same_for(pooler: &Pooler, startup: &[(&str, &str)], what: &str, writes: &[Write]) {
    let expected = direct(writes, startup);
    for every in [1, 2] {
        let mut client = open(pooler.address(), startup);
        let mut neighbours = [open(pooler.address(), ZONE), open(pooler.address(), ZONE)];
        neighbours[0].simple("BEGIN").unwrap();
        let mut free = true;
        for (i, (write, expected)) in writes.iter().zip(&expected).enumerate() {
            if i % every == 0 && free && client.status == b'I' {
                // The server that the client had is taken, and the other one is free then.
                neighbours[1].simple("BEGIN").unwrap();
                neighbours[1].extended("SELECT 'theirs'", &[]).unwrap();
                neighbours[0].simple("COMMIT").unwrap();
                neighbours.swap(0, 1);
            }
            client.send(&write.bytes).unwrap();
            let heard = answers(&mut client, write);
            assert_eq!(&heard, expected, "{what}, write {i}, moved before every {every}");
            free = write.answers == 0 && !write.copy;
        }
        client.terminate();
    }
}

/// The same for a client that is tied to its server for a part of the sequence: it is not moved.
pub fn same_when_tied(pooler: &Pooler, what: &str, writes: &[Write]) {
    let mut client = open(pooler.address(), ZONE);
    for (i, (write, expected)) in writes.iter().zip(&direct(writes, ZONE)).enumerate() {
        client.send(&write.bytes).unwrap();
        assert_eq!(&answers(&mut client, write), expected, "{what}, write {i}");
    }
    client.terminate();
}
