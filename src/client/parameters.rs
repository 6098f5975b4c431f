//! A client's parameters, set where a server has others: in the same write as what the client asks, and in a transaction
//! block, so that what comes behind is refused when they cannot be set. What could get past that block (a text that begins
//! with the end of a transaction) waits for the answer. So does all, where the first statements of the block may run into
//! a time limit that another client has left; what has not been sent can go to another server then.
//!
//! A cancel request that comes meanwhile is for the client's own request, and kept for it. (What is left: an administrator's
//! pg_cancel_backend in the microseconds before the block has begun; and a cancel of a pinned client's own that is under way
//! already when the block is sent, which ends its session.)

use std::sync::Arc;

use super::plan::Plan;
use super::session::{Session, Stop};
use crate::server::{self, Server, params};
use crate::wire::names::{self, Bind};
use crate::wire::tag::{backend, frontend as tag};
use crate::wire::tracker::{Action, Entry, Request};
use crate::wire::{Frame, HEADER, Severity, TxStatus, error};

/// Marks these queries among pgsluice's own (`Entry::statement`).
pub(super) const SETTING: u32 = 0;

/// Servers that a request may leave, one after the other, because parameters could not be set there just then.
const SERVERS_TRIED: u8 = 3;

/// Whether parameters are being set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Setting {
    /// No.
    #[default]
    No,
    /// Together with what the client asks.
    Together,
    /// What the client asks waits.
    Alone,
}

impl Session {
    /// Makes the server's parameters the client's, in the same write as what follows (transaction pooling).
    pub(super) fn sync_parameters(&mut self, server: &mut Server, plan: &mut Plan<'_>) {
        if !self.follows_parameters() || self.in_message.left > 0 || self.asks_first(server) {
            return;
        }
        if Arc::ptr_eq(&server.params, &self.params) {
            if self.restoring && server.tracker.releasable() {
                // Another server, which has the startup values.
                self.restoring = false;
            }
            return;
        }
        // Inside a transaction only what a RESET there has undone: it is rolled back together with it.
        let in_transaction = self.restoring
            && server.tracker.answered()
            && server.tracker.status() == TxStatus::Transaction
            && !self.pins.guessed();
        if !server.tracker.releasable() && !in_transaction {
            return;
        }
        let mut sql = Vec::new();
        let put = if in_transaction { params::sync_sql } else { params::sync_block };
        put(&server.params, &self.params, &mut sql);
        if !sql.is_empty() {
            names::put_query(plan.inject(&[]), &sql);
            server.tracker.push(Entry::new(Request::Query, Action::Skip));
            server.unnamed_of = 0;
            self.registration.slot.hold();
            self.setting = if params::hurried(&server.params) { Setting::Alone } else { Setting::Together };
        }
        server.params = Arc::clone(&self.params);
    }

    /// Whether this message, of which the beginning is here, must not be sent before the parameters are set.
    #[cold]
    pub(super) fn waits_for_parameters(&mut self, frame: Frame, seen: &[u8]) -> bool {
        if self.setting == Setting::Alone {
            return true;
        }
        let body = seen.get(HEADER..).unwrap_or_default();
        let whole = seen.len() == frame.len;
        match frame.tag {
            tag::QUERY => may_leave(body, whole),
            tag::PARSE => memchr::memchr(0, body).is_none_or(|end| may_leave(&body[end + 1..], whole)),
            tag::BIND => match Bind::peek(body) {
                Some(Bind { statement: b"", .. }) => self.unnamed.text().is_some_and(|text| may_leave(text, true)),
                Some(b) => {
                    let named = self.names.as_mut().and_then(|n| n.get(b.statement)?.at_servers());
                    named.is_some_and(|s: Arc<server::Statement>| may_leave(&s.rest, true))
                }
                None => false,
            },
            _ => false,
        }
    }

    /// An answer to the query that sets parameters. Whether it is for the client after all.
    pub(super) fn note_setting(&mut self, t: u8, body: &[u8], server: &mut Server) -> Result<bool, Stop> {
        match t {
            backend::ERROR => {
                let unasked = server.tracker.behind_head().next().is_none();
                let free = self.pins.reason().is_none() && !self.pins.must_ask();
                // A cancel or time limit that was not this client's, or the end of the server.
                let passing = matches!(&error::code(body), b"57014" | b"55P03" | b"57P01");
                let again = self.pins.ties().moved < SERVERS_TRIED;
                if passing && again && unasked && free && server.tracker.status() == TxStatus::Idle {
                    self.pins.ties().moved += 1;
                    return Err(Stop::Elsewhere);
                }
                // What comes behind would run under other parameters than the client's.
                Err(Stop::Protocol(
                    server::connect::fields_of(body, Severity::Fatal)
                        .hint("pgsluice could not set this session's parameters on another server connection."),
                ))
            }
            backend::READY_FOR_QUERY => {
                self.restoring = false;
                self.pins.stayed();
                // Else what waited is about to be sent, and a cancel before it would be lost.
                if !server.tracker.answered() {
                    self.cancel_again();
                }
                Ok(false)
            }
            // The client has been told the server's default; now it is told its own value.
            backend::PARAMETER_STATUS => Ok(self.restoring && self.is_news(body)),
            _ => Ok(false),
        }
    }

    /// The client's own request is with the server: a cancel that came while parameters were set is for it.
    #[cold]
    pub(super) fn cancel_again(&mut self) {
        self.setting = Setting::No;
        if let Some(mark) = self.registration.slot.resume() {
            tokio::spawn(async move {
                if let Err(e) = mark.deliver().await {
                    tracing::warn!(target: "pgsluice::cancel", error = %e, "a cancel request could not be delivered");
                }
            });
        }
    }
}

/// Whether a text may begin with a statement that is carried out in a failed transaction (IsTransactionExitStmt,
/// postgres.c). `whole`: there is no more of it than is here. It ends at its NUL.
fn may_leave(text: &[u8], whole: bool) -> bool {
    const WORDS: [&[u8]; 5] = [b"commit", b"end", b"rollback", b"abort", b"prepare"];
    let end = memchr::memchr(0, text);
    let whole = whole || end.is_some();
    let mut rest = &text[..end.unwrap_or(text.len())];
    loop {
        let blank = |b: &u8| matches!(b, b' ' | b'\t'..=b'\r' | b';');
        rest = &rest[rest.iter().position(|b| !blank(b)).unwrap_or(rest.len())..];
        let comment = match rest {
            [b'-', b'-', ..] => memchr::memchr2(b'\n', b'\r', rest),
            [b'/', b'*', ..] => comment_end(rest),
            _ => break,
        };
        let Some(end) = comment else { return !whole };
        rest = &rest[end..];
    }
    let word = &rest[..rest.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(rest.len())];
    let cut = !whole && (word.len() == rest.len() || matches!(rest, b"-" | b"/"));
    WORDS.iter().any(|w| word.eq_ignore_ascii_case(w))
        || cut && WORDS.iter().any(|w| w.get(..word.len()).is_some_and(|w| w.eq_ignore_ascii_case(word)))
}

/// Where a comment ends that begins here; they nest.
fn comment_end(text: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0, 0);
    loop {
        match text.get(at..at + 2)? {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_transaction_is_seen_however_it_is_written() {
        for text in [
            "ROLLBACK",
            "commit; INSERT",
            " ;; \n\x0b End",
            "/* a /* b */ */-- c\n/**/abort",
            "PREPARE TRANSACTION 'x'",
            "rollback to a",
        ] {
            assert!(may_leave(text.as_bytes(), true), "{text}");
            for at in 0..text.len() {
                assert!(may_leave(&text.as_bytes()[..at], false), "{text}, {at} bytes of it");
            }
        }
        for text in ["SELECT 1; COMMIT", "", "-- COMMIT", "/* COMMIT", "BEGIN", "committed", "/* a */ /* b */ SELECT"] {
            assert!(!may_leave(text.as_bytes(), true), "{text}");
            assert!(!may_leave(&[text.as_bytes(), b"\0ROLLBACK"].concat(), false), "{text} and more");
        }
        assert!(!may_leave(b"SELECT", false) && !may_leave(b"endx", false));
    }
}
