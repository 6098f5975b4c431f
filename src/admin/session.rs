//! One console client: simple queries, one answer each; anything of the extended protocol is refused up to its Sync.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use super::command::{self, Rights};
use crate::client::session::farewell;
use crate::client::{Console, Worker};
use crate::net::Socket;
use crate::wire::error::{ErrorFields, sqlstate};
use crate::wire::tag::frontend as tag;
use crate::wire::{Frame, HEADER, TxStatus, control};

/// Longest message that is read; what is longer is skipped and refused.
const MAX_MESSAGE: usize = 64 * 1024;

/// Why a session ended.
enum Stop {
    /// Terminate, the end of the stream, or a broken connection.
    Gone,
    /// The client broke the protocol.
    Violation(&'static str),
}

/// A message, or that one was too long.
enum Message {
    Whole(u8, Vec<u8>),
    TooLong(u8),
}

/// Serves one console client to its end. Ends it when the worker drains.
pub async fn serve(w: Rc<Worker>, console: Console) {
    let alarm = w.alarms.add();
    let drain = poll_fn(|cx| {
        alarm.listen(cx);
        if alarm.draining() { Poll::Ready(()) } else { Poll::Pending }
    });
    let Console { socket, input, place, admin } = console;
    let mut session = Session {
        w,
        socket,
        input,
        rights: if admin { Rights::Admin } else { Rights::Look },
        in_transaction: false,
        skip_to_sync: false,
        sending: Cell::new(false),
    };
    let stop = tokio::select! {
        stop = session.run() => stop,
        () = drain => None,
    };
    let last = match stop {
        Some(Stop::Gone) => None,
        Some(Stop::Violation(why)) => Some(ErrorFields::fatal(sqlstate::PROTOCOL_VIOLATION, why)),
        None => Some(farewell()),
    };
    // Behind half a message it would only garble the stream.
    if let Some(fields) = last.filter(|_| !session.sending.get()) {
        let mut out = Vec::new();
        control::error(&mut out, &fields);
        let _ = session.socket.try_send(&out);
    }
    drop(place);
}

struct Session {
    w: Rc<Worker>,
    socket: Socket,
    /// Received and not yet used.
    input: Vec<u8>,
    rights: Rights,
    /// BEGIN was said: drivers that begin before every query want to see it.
    in_transaction: bool,
    /// An error of the extended protocol: everything is ignored up to Sync.
    skip_to_sync: bool,
    /// A message may have been sent in part.
    sending: Cell<bool>,
}

impl Session {
    async fn run(&mut self) -> Option<Stop> {
        loop {
            let step = match self.next().await {
                Ok(Message::Whole(tag, body)) => self.handle(tag, body).await,
                Ok(Message::TooLong(tag)) => self.too_long(tag).await,
                Err(stop) => Err(stop),
            };
            if let Err(stop) = step {
                return Some(stop);
            }
        }
    }

    /// The next message. Cancel safe.
    async fn next(&mut self) -> Result<Message, Stop> {
        loop {
            let frame = Frame::peek(&self.input).map_err(|_| Stop::Violation("invalid message length"))?;
            if let Some(f) = frame {
                if f.len > MAX_MESSAGE {
                    self.skip(f.len).await?;
                    return Ok(Message::TooLong(f.tag));
                }
                if self.input.len() >= f.len {
                    let body = self.input[HEADER..f.len].to_vec();
                    self.input.drain(..f.len);
                    return Ok(Message::Whole(f.tag, body));
                }
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), Stop> {
        let mut chunk = [0; 4096];
        match self.socket.recv(&mut chunk).await {
            Ok(n) if n > 0 => {
                self.input.extend_from_slice(&chunk[..n]);
                Ok(())
            }
            _ => Err(Stop::Gone),
        }
    }

    /// Reads and forgets the first `len` bytes.
    async fn skip(&mut self, mut len: usize) -> Result<(), Stop> {
        loop {
            let n = len.min(self.input.len());
            self.input.drain(..n);
            len -= n;
            if len == 0 {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    async fn handle(&mut self, tag: u8, body: Vec<u8>) -> Result<(), Stop> {
        match tag {
            tag::TERMINATE => Err(Stop::Gone),
            t if !tag::known(t) => Err(Stop::Violation("invalid frontend message type")),
            tag::SYNC => {
                self.skip_to_sync = false;
                self.answer(Vec::new()).await
            }
            _ if self.skip_to_sync => Ok(()),
            tag::QUERY => self.query(body).await,
            // What is late of a COPY, and a Flush with nothing to flush.
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL | tag::FLUSH => Ok(()),
            tag::PASSWORD => Err(Stop::Violation("unexpected password message")),
            tag => self.refuse(tag, &not_supported()).await,
        }
    }

    async fn too_long(&mut self, tag: u8) -> Result<(), Stop> {
        if self.skip_to_sync {
            return Ok(());
        }
        let fields = ErrorFields::error(sqlstate::LIMIT_EXCEEDED, "console command is too long");
        self.refuse(tag, &fields).await
    }

    /// An error, and what follows it by the protocol.
    async fn refuse(&mut self, tag: u8, fields: &ErrorFields) -> Result<(), Stop> {
        let mut out = Vec::new();
        control::error(&mut out, fields);
        if matches!(tag, tag::QUERY | tag::FUNCTION_CALL) {
            return self.answer(out).await;
        }
        self.skip_to_sync = true;
        self.send(&out).await
    }

    async fn query(&mut self, body: Vec<u8>) -> Result<(), Stop> {
        let process = Arc::clone(&self.w.process);
        let (rights, began) = (self.rights, self.in_transaction);
        // Long lists are made elsewhere: this thread has queries to move.
        let done = tokio::task::spawn_blocking(move || {
            let mut out = Vec::new();
            let mut in_transaction = began;
            command::run(&process, rights, &body, &mut in_transaction, &mut out);
            (out, in_transaction)
        })
        .await;
        match done {
            Ok((out, in_transaction)) => {
                self.in_transaction = in_transaction;
                self.answer(out).await
            }
            Err(_) => {
                let fields = ErrorFields::error(sqlstate::INTERNAL, "internal error");
                self.refuse(tag::QUERY, &fields).await
            }
        }
    }

    /// Sends `out` and ReadyForQuery.
    async fn answer(&mut self, mut out: Vec<u8>) -> Result<(), Stop> {
        let status = if self.in_transaction { TxStatus::Transaction } else { TxStatus::Idle };
        control::ready(&mut out, status);
        self.send(&out).await
    }

    /// Not cancel safe, hence `sending`.
    async fn send(&mut self, out: &[u8]) -> Result<(), Stop> {
        self.sending.set(true);
        self.socket.send_all(out).await.map_err(|_| Stop::Gone)?;
        self.sending.set(false);
        Ok(())
    }
}

fn not_supported() -> ErrorFields {
    ErrorFields::error(sqlstate::NOT_SUPPORTED, "extended query protocol not supported by admin console")
        .hint("Use simple queries: psycopg without parameters and with prepare_threshold=None, or psql.")
}
