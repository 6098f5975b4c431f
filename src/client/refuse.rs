//! Answering without a server: nothing of the request has reached one, so the pooler answers itself, skips to each
//! Sync, and sends exactly one ReadyForQuery per Sync or Query (design, invariant 2).

use super::session::{Session, Stop};
use crate::net::buffer::SIZE;
use crate::wire::error::ErrorFields;
use crate::wire::tag::frontend as tag;
use crate::wire::{Frame, TxStatus, control};

impl Session {
    /// Works off what needs no server. Whether something is left that does.
    pub(super) fn needs_server(&mut self) -> Result<bool, Stop> {
        loop {
            let Some(input) = &mut self.input else {
                return Ok(false);
            };
            if self.in_message.left > 0 {
                let n = self.in_message.left.min(input.filled().len());
                input.consume(n);
                self.in_message.left -= n;
                if self.in_message.left > 0 || input.is_empty() {
                    self.give_back_if_empty();
                    return Ok(false);
                }
            }
            let frame = match Frame::peek(input.filled()) {
                Ok(Some(f)) => f,
                Ok(None) => {
                    self.give_back_if_empty();
                    return Ok(false);
                }
                Err(e) => return Err(Stop::protocol(e.to_string())),
            };
            match frame.tag {
                tag::TERMINATE => return Err(Stop::Terminate),
                t if !tag::known(t) => {
                    return Err(Stop::protocol(format!("invalid frontend message type {t}")));
                }
                tag::SYNC if self.skip_to_sync => {
                    self.skip_to_sync = false;
                    control::ready(&mut self.unsent, TxStatus::Idle);
                    self.drop_message(frame);
                }
                // Late data of a COPY that has failed, and a Flush with nothing to flush.
                tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL | tag::FLUSH => self.drop_message(frame),
                _ if self.skip_to_sync => self.drop_message(frame),
                // No server is held for a message that may never be complete.
                _ if frame.len <= SIZE && input.filled().len() < frame.len => return Ok(false),
                _ => return Ok(true),
            }
        }
    }

    /// Answers the request at the front of the input with an error; the session goes on.
    pub(super) fn refuse(&mut self, error: &ErrorFields) {
        control::error(&mut self.unsent, error);
        let front = self.input.as_ref().and_then(|i| Frame::peek(i.filled()).ok().flatten());
        let Some(frame) = front else { return };
        if matches!(frame.tag, tag::QUERY | tag::FUNCTION_CALL | tag::SYNC) {
            control::ready(&mut self.unsent, TxStatus::Idle);
        } else {
            self.skip_to_sync = true;
        }
        self.drop_message(frame);
    }

    /// No server can be had: PostgreSQL's own words, FATAL made ERROR, since this session survives.
    pub(super) fn refuse_failed(&mut self, mut fields: ErrorFields) -> Result<(), Stop> {
        fields.severity = crate::wire::Severity::Error;
        self.refuse(&fields);
        Ok(())
    }

    fn drop_message(&mut self, frame: Frame) {
        if let Some(input) = &mut self.input {
            let n = frame.len.min(input.filled().len());
            input.consume(n);
            self.in_message.left = frame.len - n;
            self.in_message.forward = false;
        }
        self.give_back_if_empty();
    }

    fn give_back_if_empty(&mut self) {
        if let Some(input) = self.input.take_if(|i| i.is_empty()) {
            self.w.buffers.give_back(input);
        }
    }
}
