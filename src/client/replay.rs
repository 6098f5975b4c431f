//! Sending a client's sequence a second time, when its first message failed for a stale plan before anything was done.
//!
//! Only where nothing is lost: no transaction block, the Bind that failed was the first message, the client is told the
//! columns behind it, all of the sequence up to its Sync was sent and nothing behind it. The client hears nothing of
//! the error; the statement has been marked, so the second time it is prepared anew.

use super::session::Session;
use crate::net::buffer::SIZE;
use crate::server::{Replaying, Server};
use crate::wire::tag::frontend as tag;
use crate::wire::tracker::{Entry, Request};
use crate::wire::{Frame, TxStatus};

impl Session {
    /// Keeps the sequence that begins with the Bind at `at`, when it may be sent again. `true`: its place is wanted.
    pub(super) fn keep_sequence(&mut self, data: &[u8], at: usize, server: &mut Server) -> bool {
        let again = server.replay.state == Replaying::Again;
        let idle = server.tracker.status() == TxStatus::Idle && server.tracker.only_ours();
        if again || !idle || data.len() - at > SIZE || !is_sequence(&data[at..]) {
            return false;
        }
        server.replay.bytes.clear();
        server.replay.bytes.extend_from_slice(&data[at..]);
        server.replay.state = Replaying::Kept;
        true
    }

    /// A Bind failed for a stale plan: whether it will be sent again, and the client needs not know.
    pub(super) fn will_replay(&mut self, e: &Entry, server: &mut Server) -> bool {
        let replay = &mut server.replay;
        let fit = replay.state == Replaying::Kept
            && e.request == Request::Bind
            && e.place() == replay.place
            && self.in_message.left == 0
            && server.tracker.one_sequence_left();
        if fit {
            replay.state = Replaying::Failed;
        }
        fit
    }

    /// The failed sequence has been answered: it is as if it had not been read yet.
    pub(super) fn replay(&mut self, server: &mut Server) {
        server.replay.state = Replaying::Again;
        let rest = self.input.take();
        let behind = rest.as_ref().map_or(&[][..], |r| r.filled());
        let mut input = self.w.buffers.lend();
        input.grow(server.replay.bytes.len() + behind.len());
        for bytes in [&server.replay.bytes[..], behind] {
            input.spare()[..bytes.len()].copy_from_slice(bytes);
            input.received(bytes.len());
        }
        if let Some(rest) = rest {
            self.w.buffers.give_back(rest);
        }
        self.input = Some(input);
    }
}

/// Whether this is one sequence of prepared statements, whole, with its Sync at the end.
fn is_sequence(data: &[u8]) -> bool {
    let mut at = 0;
    while let Ok(Some(f)) = Frame::peek(&data[at..]) {
        at += f.len;
        match f.tag {
            tag::SYNC => return at == data.len(),
            tag::BIND | tag::DESCRIBE | tag::EXECUTE | tag::CLOSE | tag::FLUSH if at < data.len() => {}
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_sequence_counts() {
        let (b, e, s, q) = (*b"B\0\0\0\x04", *b"E\0\0\0\x04", *b"S\0\0\0\x04", *b"Q\0\0\0\x04");
        assert!(is_sequence(&[b, e, s].concat()));
        assert!(!is_sequence(&[b, e].concat()), "no Sync yet");
        assert!(!is_sequence(&[b, e, s, b].concat()), "something behind");
        assert!(!is_sequence(&[b, q, s].concat()));
        assert!(!is_sequence(b"B\0\0\0\x09x"), "half a message");
    }
}
