//! A client that says goodbye while the server still owes it answers, and one that leaves while it waits.
//!
//! PostgreSQL reads Terminate only after it has done what was asked before it: a statement sent and left is carried
//! out to its end. So the session stays, reads no more, and ends when all has been answered. Who goes without
//! Terminate is another matter: nobody knows whether the rest was wanted, and it is cancelled.

use super::session::{Session, Stop};
use crate::server::{Server, clean};
use crate::wire::Frame;
use crate::wire::tag::frontend as tag;

/// Bytes looked at behind the input for a Terminate that has not been read yet.
const LOOKED_AT: usize = 4096;

impl Session {
    /// What became of the client's batch: at Terminate with answers owed the session goes on without the client.
    pub(super) fn unless_leaving(&mut self, result: Result<(), Stop>, server: &mut Server) -> Result<(), Stop> {
        if !matches!(result, Err(Stop::Terminate)) {
            return result;
        }
        self.leaving = true;
        // What needs no server's answer is no reason to stay.
        self.flush_fakes(server)?;
        if server.tracker.answered() && server.unsent.is_empty() {
            return result;
        }
        // Nobody reads what stands behind Terminate.
        if let Some(input) = self.input.take() {
            self.w.buffers.give_back(input);
        }
        self.finish_for(server)
    }

    /// Ends what the client of `server` left open and the server waits for: a pipeline, a COPY.
    pub(super) fn finish_for(&mut self, server: &mut Server) -> Result<(), Stop> {
        let mut out = Vec::new();
        if server.tracker.wants_copy_end() {
            clean::fail_copy(&mut server.tracker, &mut out);
        } else if !server.tracker.copying_in() && server.tracker.wants_sync() {
            clean::undo_pipeline(&mut server.tracker, &mut out);
        }
        if server.unsent.is_empty() && !out.is_empty() {
            let n = server.socket.try_send(&out).map_err(|e| Stop::ServerLost(e.to_string()))?;
            out.drain(..n);
        }
        server.unsent.extend_from_slice(&out);
        Ok(())
    }

    /// Whether a client that has closed its side said Terminate behind what it asked for.
    pub(super) fn said_terminate(&mut self) -> bool {
        let mut bytes = self.input.as_ref().map_or_else(Vec::new, |i| i.filled().to_vec());
        let read = bytes.len();
        bytes.resize(read + LOOKED_AT, 0);
        let n = self.socket.peek(&mut bytes[read..]);
        bytes.truncate(read + n);
        let mut rest = bytes.get(self.in_message.left..).unwrap_or_default();
        while let Ok(Some(frame)) = Frame::peek(rest) {
            if frame.tag == tag::TERMINATE {
                return true;
            }
            rest = rest.get(frame.len..).unwrap_or_default();
        }
        false
    }
}
