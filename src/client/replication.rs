//! Replication clients (`replication=true` or `database`): each has a server connection of its own from its login to
//! its end, and bytes go through unchanged, COPY in both directions included.
//!
//! Nothing is read but the headers of the server's messages: they tell when the connection may be ended at a drain.
//! `pool_mode` and the limits of queries and idle times do not apply.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::Worker;
use super::alarm::Alarm;
use super::registry::{ClientState, Place};
use super::session::farewell;
use crate::cancel::Registration;
use crate::net::clock::now_us;
use crate::net::{Lent, Socket};
use crate::pool::replication::Dedicated;
use crate::pool::{Pool, Unknown};
use crate::server::{ParamSet, Proof};
use crate::wire::error::{ErrorFields, sqlstate};
use crate::wire::startup::{Replication, Startup};
use crate::wire::tag::backend as tag;
use crate::wire::{HEADER, control};

/// Turns of the loop in one wake-up before others get theirs.
const TURNS: usize = 16;

/// Opens the server connection of a replication client that has proven who it is.
///
/// # Errors
/// What it is told.
pub(super) async fn open(
    w: &Rc<Worker>,
    place: &Place,
    s: &Startup,
    kind: Replication,
    proof: Option<Box<Proof>>,
) -> Result<Dedicated, ErrorFields> {
    let pool = pool(w, s, kind)?;
    if let Some(proof) = proof {
        pool.learn(*proof);
    }
    let (value, shown) = match kind {
        Replication::Logical => ("database", "logical"),
        Replication::Physical => ("true", "physical"),
    };
    let parameters = s.parameters.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    let startup = Arc::new(ParamSet::from_pairs([("replication", value)].into_iter().chain(parameters)));
    place.info.set_state(ClientState::Waiting, 0, now_us());
    pool.open_replication(w.id, place.info.id, &startup, shown).await
}

/// The pool it is counted with. Physical replication is of no database (tools say `replication`, or nothing): any name
/// does where all databases are of one server.
fn pool(w: &Rc<Worker>, s: &Startup, kind: Replication) -> Result<Arc<Pool>, ErrorFields> {
    let pools = &w.process.pools;
    let found = pools.get(&s.database, &s.user);
    let found = match (found, pools.only_server()) {
        (Err(Unknown::Database), Some(database)) if kind == Replication::Physical => pools.get(database, &s.user),
        (found, _) => found,
    };
    found.map_err(|e| match e {
        Unknown::Database => {
            ErrorFields::fatal(sqlstate::NO_SUCH_DATABASE, format!("database \"{}\" does not exist", s.database))
                .hint("Name a database that pgsluice knows: it leads to the server.")
        }
        Unknown::TooMany => ErrorFields::fatal(sqlstate::TOO_MANY_CONNECTIONS, "too many pools are in use"),
    })
}

/// A replication client and its server connection.
pub(super) struct Link {
    pub(super) w: Rc<Worker>,
    pub(super) socket: Socket,
    pub(super) place: Place,
    pub(super) registration: Registration,
    pub(super) dedicated: Dedicated,
    /// What the client sent behind its login.
    pub(super) input: Vec<u8>,
}

impl Link {
    /// Relays until one side closes.
    pub(super) async fn run(self) {
        let Link { w, socket, place, registration, dedicated, input } = self;
        let pool = Arc::clone(dedicated.pool());
        pool.clients.fetch_add(1, Relaxed);
        // Nothing waited: nothing was cancelled.
        let _ = registration.slot.set(&dedicated.server.key);
        place.info.set_state(ClientState::Active, dedicated.server.info.id, now_us());
        let alarm = w.alarms.add();
        let mut up = Pipe { held: None };
        if !input.is_empty() {
            let mut lent = w.buffers.lend();
            lent.grow(input.len());
            lent.spare()[..input.len()].copy_from_slice(&input);
            lent.received(input.len());
            up.held = Some(lent);
        }
        let phase = if up.held.is_some() { Phase::Busy } else { Phase::Idle };
        let mut relay = Relay {
            w,
            pool: Arc::clone(&pool),
            client: socket,
            dedicated,
            alarm,
            up,
            down: Pipe { held: None },
            steps: Steps::new(phase),
        };
        let told = poll_fn(|cx| relay.poll(cx)).await;
        registration.slot.clear();
        pool.clients.fetch_sub(1, Relaxed);
        if let Some(fields) = told {
            let mut out = Vec::new();
            control::error(&mut out, &fields);
            let _ = tokio::time::timeout(Duration::from_secs(1), relay.client.send_all(&out)).await;
        }
    }
}

struct Relay {
    w: Rc<Worker>,
    pool: Arc<Pool>,
    client: Socket,
    dedicated: Dedicated,
    alarm: Rc<Alarm>,
    /// To the server.
    up: Pipe,
    /// To the client.
    down: Pipe,
    steps: Steps,
}

impl Relay {
    /// Ready when it is over, with what the client is still to be told.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<ErrorFields>> {
        self.alarm.listen(cx);
        for _ in 0..TURNS {
            let Relay { w, pool, client, dedicated, up, down, steps, .. } = self;
            let stats = &pool.stats[w.id];
            let server = &mut dedicated.server.socket;
            let went = up.poll_move(w, client, server, cx, |bytes| {
                stats.received.add(bytes.len() as u64);
                steps.asked();
            });
            let came = down.poll_move(w, server, client, cx, |bytes| {
                stats.sent.add(bytes.len() as u64);
                steps.heard(bytes);
            });
            match (went, came) {
                (Poll::Pending, Poll::Pending) => {
                    let may_end = self.steps.between() && self.up.held.is_none() && self.down.held.is_none();
                    return if self.alarm.draining() && may_end {
                        Poll::Ready(Some(farewell()))
                    } else {
                        Poll::Pending
                    };
                }
                // Each side hears of the other's end as it would directly: its connection is closed.
                (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(None),
                _ => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// One direction.
struct Pipe {
    /// Received and not yet taken by the other side, which is why no more is read.
    held: Option<Lent>,
}

impl Pipe {
    /// Moves bytes once. The end of the stream is an error, as it is the end of the relay.
    fn poll_move(
        &mut self,
        w: &Worker,
        from: &mut Socket,
        to: &mut Socket,
        cx: &mut Context<'_>,
        seen: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<()>> {
        while let Some(held) = &mut self.held {
            ready!(to.poll_writable(cx))?;
            let n = to.try_send(held.filled())?;
            held.consume(n);
            if held.is_empty() {
                to.written();
                self.held.take().into_iter().for_each(|held| w.buffers.give_back(held));
            }
        }
        ready!(from.poll_readable(cx))?;
        let mut lent = w.buffers.lend();
        let received = from.poll_recv(cx, lent.spare());
        let moved = match received {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Ok(n)) => {
                lent.received(n);
                seen(lent.filled());
                match to.try_send(lent.filled()) {
                    Ok(sent) => lent.consume(sent),
                    Err(e) => return Poll::Ready(Err(e)),
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => Poll::Pending,
        };
        if lent.is_empty() {
            w.buffers.give_back(lent);
        } else {
            self.held = Some(lent);
        }
        moved
    }
}

/// What the server is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Waits for a command.
    Idle,
    /// Runs one: a base backup, or SQL.
    Busy,
    /// Streams for as long as the client wants.
    Streams,
}

/// Steps over the server's messages by their headers.
struct Steps {
    phase: Phase,
    head: [u8; HEADER],
    /// Bytes of `head` that are there.
    have: usize,
    /// Bytes of the message still to come.
    left: usize,
}

impl Steps {
    fn new(phase: Phase) -> Steps {
        Steps { phase, head: [0; HEADER], have: 0, left: 0 }
    }

    fn asked(&mut self) {
        if self.phase == Phase::Idle {
            self.phase = Phase::Busy;
        }
    }

    fn heard(&mut self, mut bytes: &[u8]) {
        loop {
            let n = self.left.min(bytes.len());
            self.left -= n;
            bytes = &bytes[n..];
            let Some(byte) = bytes.first() else { return };
            self.head[self.have] = *byte;
            self.have += 1;
            bytes = &bytes[1..];
            if self.have < HEADER {
                continue;
            }
            self.have = 0;
            let [tag, len @ ..] = self.head;
            self.left = (u32::from_be_bytes(len) as usize).saturating_sub(4);
            match tag {
                tag::READY_FOR_QUERY => self.phase = Phase::Idle,
                tag::COPY_BOTH_RESPONSE => self.phase = Phase::Streams,
                _ => {}
            }
        }
    }

    /// Whether the connection may be ended: nothing would be cut short that ends by itself, and no message.
    fn between(&self) -> bool {
        self.phase != Phase::Busy && self.have == 0 && self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_may_end_between_messages_and_a_backup_may_not() {
        let mut steps = Steps::new(Phase::Idle);
        assert!(steps.between());
        steps.asked();
        assert!(!steps.between(), "a command runs");
        let w = [b'W', 0, 0, 0, 7, 0, 0, 0];
        let data = [b'd', 0, 0, 0, 6, 1, 2];
        for (i, byte) in w.iter().chain(&data).enumerate() {
            steps.heard(&[*byte]);
            assert_eq!(steps.between(), i == 7 || i == 14, "byte {i}");
        }
        steps.asked();
        assert!(steps.between(), "feedback is no command");
        let done = [b'c', 0, 0, 0, 4, b'Z', 0, 0, 0, 5, b'I'];
        steps.heard(&done);
        assert!(steps.between() && steps.phase == Phase::Idle);
        steps.asked();
        steps.heard(&[b'H', 0, 0, 0, 4, b'd', 0, 0, 0, 4]);
        assert!(!steps.between(), "a COPY out is a backup");
    }
}
