//! Which answers a server still owes, and so whether it may be released.
//!
//! One FIFO a server: an entry for each request that will be answered, popped as the answers come. Invariants:
//! - the client's ReadyForQuery is only ever a server's ReadyForQuery for a `Forward` entry;
//! - an answer that fits no entry is a desync: the server is closed, never pooled;
//! - [`Tracker::releasable`] is the release rule: FIFO empty, last ReadyForQuery said idle, no COPY running.
//!
//! Source: protocol-flow ("Extended Query", "Pipelining", "COPY Operations") and PgBouncer's request queue
//! (src/server.c, handle_server_work), whose rules for errors inside pipelines and COPY this follows.

use std::collections::VecDeque;

use super::status::TxStatus;
use super::tag::backend;

/// A request that a server answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Query.
    Query,
    /// FunctionCall.
    Function,
    /// Sync.
    Sync,
    /// Parse.
    Parse,
    /// Bind.
    Bind,
    /// Describe.
    Describe,
    /// Execute.
    Execute,
    /// Close.
    Close,
    /// CopyDone or CopyFail: answered by nothing itself, but ends what a COPY swallows.
    CopyEnd,
}

/// Who asked, and who answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The client asked; the server's answer is forwarded.
    Forward,
    /// pgsluice asked; the server's answer is swallowed.
    Skip,
    /// The client asked and the server was not told; pgsluice answers when the entry reaches the head.
    Fake,
}

/// One expected answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What was asked.
    pub request: Request,
    /// Who asked.
    pub action: Action,
    /// Of what names a shared statement: its number. Of a Query of pgsluice's own: which. 0 otherwise.
    pub statement: u32,
    /// The client's registration that a Parse makes, or that a Close or DEALLOCATE ends; 0 for none.
    pub registration: u32,
    /// The registration behind the name it was asked by, for words about it; 0 when there is none.
    pub named: u32,
    /// Its place among all requests to the server; given by [`Tracker::push`].
    pub(crate) place: u32,
}

impl Entry {
    /// An entry about no shared statement.
    pub fn new(request: Request, action: Action) -> Self {
        Entry { request, action, statement: 0, registration: 0, named: 0, place: 0 }
    }

    /// Its place among all requests to the server.
    pub fn place(&self) -> u32 {
        self.place
    }
}

/// The server said something that fits no request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("server message '{}' does not fit what was asked", char::from(*.0))]
pub struct Desync(pub u8);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Copy {
    #[default]
    None,
    In,
    Out,
}

/// Most entries of one server; a client that pipelines more is not read until answers have come.
pub const MAX_EXPECTED: usize = 16 * 1024;

/// The state machine. See the module's documentation.
#[derive(Debug, Default)]
pub struct Tracker {
    expected: VecDeque<Entry>,
    status: TxStatus,
    /// Nothing but notices, parameters and notifications since the last ReadyForQuery.
    settled: bool,
    /// An error came inside an extended-protocol sequence: the server skips to Sync.
    failed: bool,
    /// Something was carried out since the last ReadyForQuery; Close and Sync alone are nothing.
    worked: bool,
    copy: Copy,
    /// Place of the last request pushed, and of the last Sync (a Query may be skipped after an error).
    last: u32,
    last_sync: u32,
    /// Place of the client's last Sync, Query or FunctionCall.
    last_ending: u32,
    /// An ErrorResponse came that nothing asked for, or parameters could not be set: never pool this server.
    tainted: bool,
    /// Entries that the server skipped because of an error, for the caller to undo.
    dropped: Vec<Entry>,
}

impl Tracker {
    /// A tracker for a server that has just said ReadyForQuery `I`.
    pub fn new() -> Self {
        Tracker { settled: true, ..Tracker::default() }
    }

    /// Notes a request about to be sent (or, for `Fake`, not sent).
    pub fn push(&mut self, entry: Entry) {
        if entry.request == Request::CopyEnd
            && self.copy != Copy::In
            && !self.expected.iter().any(|e| matches!(e.request, Request::Query | Request::Execute))
        {
            // Too late: the COPY has failed and been answered. PostgreSQL ignores it, and says nothing.
            return;
        }
        self.last = self.last.wrapping_add(1);
        if entry.request == Request::Sync {
            self.last_sync = self.last;
        }
        if matches!(entry.request, Request::Sync | Request::Query | Request::Function)
            && entry.action == Action::Forward
        {
            self.last_ending = self.last;
        }
        // The server knows nothing of a fake: it stays as settled as it was.
        self.settled &= entry.action == Action::Fake;
        self.expected.push_back(Entry { place: self.last, ..entry });
    }

    /// Whether the client must not be read until answers have come.
    pub fn full(&self) -> bool {
        self.expected.len() >= MAX_EXPECTED
    }

    /// Transaction status of the last ReadyForQuery.
    pub fn status(&self) -> TxStatus {
        self.status
    }

    /// The release rule (design, invariant 3), as far as the server's side goes.
    pub fn releasable(&self) -> bool {
        self.expected.is_empty()
            && self.settled
            && self.status == TxStatus::Idle
            && self.copy == Copy::None
            && !self.tainted
    }

    /// Whether every request has been answered (the transaction may still be open).
    pub fn answered(&self) -> bool {
        self.expected.is_empty() && self.settled
    }

    /// Whether every request of a client has been answered.
    pub fn client_answered(&self) -> bool {
        self.answered() || !self.expected.is_empty() && self.only_ours()
    }

    /// Whether [`Self::answered`] will be true though nothing more is sent: who waits for it waits not for ever.
    pub fn will_answer(&self) -> bool {
        self.client_answered() || self.answer_comes()
    }

    /// Whether the server must be closed rather than pooled.
    pub fn tainted(&self) -> bool {
        self.tainted
    }

    /// Whether a COPY is running from the client to the server.
    pub fn copying_in(&self) -> bool {
        self.copy == Copy::In
    }

    /// Whether the server waits for the end of a COPY that nobody has sent.
    pub fn wants_copy_end(&self) -> bool {
        self.copying_in() && !self.expected.iter().any(|e| e.request == Request::CopyEnd)
    }

    /// Whether [`Self::pop_fake`] may have something to give; a cheap look for every message.
    #[inline]
    pub fn fake_ahead(&self) -> bool {
        self.expected.front().is_some_and(|e| e.action == Action::Fake || e.request == Request::CopyEnd)
    }

    /// Whether the server answers a Query or Execute of the client's: rows are its own, whatever they hold.
    #[inline]
    pub fn in_rows(&self) -> bool {
        self.expected
            .front()
            .is_some_and(|e| matches!(e.request, Request::Query | Request::Execute) && e.action == Action::Forward)
    }

    /// Takes a `Fake` entry off the head, for the caller to answer. `None` when a real answer comes next.
    pub fn pop_fake(&mut self) -> Option<Entry> {
        self.trim();
        match self.expected.front() {
            Some(e) if e.action == Action::Fake && !self.failed => {
                let e = *e;
                self.expected.pop_front();
                Some(e)
            }
            _ => None,
        }
    }

    /// Entries the server skipped since the last call, in order.
    pub fn take_dropped(&mut self) -> std::vec::Drain<'_, Entry> {
        self.dropped.drain(..)
    }

    /// Whether the transaction is known not to have failed: nothing is under way that could change it.
    pub fn surely_not_failed(&self) -> bool {
        self.status != TxStatus::Failed && self.expected.front().is_none_or(|e| before(self.last_ending, e.place))
    }

    /// The place of the last request pushed.
    pub fn last_place(&self) -> u32 {
        self.last
    }

    /// Whether what became of the request at `place` is not known yet, though a Sync behind it has been sent: the
    /// answer comes by itself, and what is sent now is no longer skipped together with it.
    pub fn undecided(&self, place: u32) -> bool {
        self.expected.front().is_some_and(|e| before(e.place, place.wrapping_add(1)) && before(place, self.last_sync))
    }

    /// Whether nothing that a client has asked is to be answered.
    pub fn only_ours(&self) -> bool {
        self.expected.iter().all(|e| e.action == Action::Skip)
    }

    /// Whether the request at `place` has not been answered yet.
    pub fn pending(&self, place: u32) -> bool {
        self.expected.front().is_some_and(|e| before(e.place, place.wrapping_add(1)))
    }

    /// Whether the server skips everything up to the next Sync.
    pub fn failing(&self) -> bool {
        self.failed
    }

    /// The request that is being answered, when it is about a shared statement or a client's name for one.
    #[inline]
    pub fn about(&self) -> Option<&Entry> {
        let own = |e: &Entry| e.request == Request::Query && e.action == Action::Skip;
        self.expected.front().filter(|e| e.statement | e.registration | e.named != 0 && !own(e))
    }

    /// Whether all that is left to be answered is one sequence that ends with a Sync of the client's.
    pub fn one_sequence_left(&self) -> bool {
        let ends = |e: &&Entry| matches!(e.request, Request::Sync | Request::Query | Request::Function);
        self.expected.iter().filter(ends).count() == 1
            && self.expected.back().is_some_and(|e| e.request == Request::Sync && e.action == Action::Forward)
    }

    /// Entries behind the one that is being answered.
    pub fn behind_head(&self) -> impl Iterator<Item = &Entry> {
        self.expected.iter().skip(1)
    }

    /// All that is still to be answered. An Execute's own entry is gone with its last message, a Query's with ReadyForQuery.
    pub fn unanswered(&self) -> impl Iterator<Item = &Entry> {
        self.expected.iter()
    }

    /// Which of pgsluice's own queries is answered now (what its entry has as `statement`), if one is.
    pub fn own_query(&self) -> Option<u32> {
        let head = self.expected.front()?;
        (head.request == Request::Query && head.action == Action::Skip).then_some(head.statement)
    }

    /// Whether a request was sent without Sync or Query behind it: its answers may never come by themselves. After an
    /// error the server skips a Query too.
    pub fn wants_sync(&self) -> bool {
        if self.failed {
            return !self.expected.iter().any(|e| e.request == Request::Sync);
        }
        match self.expected.iter().rev().find(|e| e.request != Request::CopyEnd) {
            Some(e) => !matches!(e.request, Request::Sync | Request::Query | Request::Function),
            None => !self.settled,
        }
    }

    /// Whether the client's last Sync, Query or FunctionCall is still to be answered, and will be though nothing more is
    /// sent: who waits for it waits not for ever.
    pub fn answer_comes(&self) -> bool {
        if self.failed {
            return self.expected.iter().any(|e| e.request == Request::Sync);
        }
        if self.copy == Copy::In {
            // Nothing before its end; and a Sync sent before that is swallowed.
            let mut left = self.expected.iter().skip_while(|e| e.request != Request::CopyEnd);
            let ended = left.next().is_some();
            return ended
                && (self.head_is(Request::Query, Action::Forward) || left.any(|e| e.request != Request::CopyEnd));
        }
        self.pending(self.last_ending)
    }

    /// Whether [`Self::take_dropped`] has anything.
    pub fn has_dropped(&self) -> bool {
        !self.dropped.is_empty()
    }

    /// Digests one message of the server. `body` may be a prefix; ReadyForQuery needs its one byte.
    ///
    /// `Fake` entries at the head must have been taken with [`Self::pop_fake`] first. Returns whether the message
    /// is for the client.
    ///
    /// # Errors
    /// [`Desync`]: the server must be closed and the client told.
    #[inline]
    pub fn answer(&mut self, tag: u8, body: &[u8]) -> Result<bool, Desync> {
        match tag {
            backend::DATA_ROW | backend::COPY_DATA | backend::COPY_DONE => self.within(tag),
            backend::READY_FOR_QUERY => self.ready(body),
            backend::NOTICE | backend::PARAMETER_STATUS => Ok(!self.head_is(Request::Query, Action::Skip)),
            backend::NOTIFICATION => Ok(true),
            backend::COMMAND_COMPLETE | backend::EMPTY_QUERY | backend::PORTAL_SUSPENDED => self.completed(tag),
            backend::ROW_DESCRIPTION | backend::NO_DATA => match self.head() {
                Some(e) if e.request == Request::Describe => self.pop(tag, Request::Describe),
                _ => self.within(tag),
            },
            backend::PARAMETER_DESCRIPTION => match self.head() {
                Some(e) if e.request == Request::Describe => Ok(e.action == Action::Forward),
                _ => Err(Desync(tag)),
            },
            backend::PARSE_COMPLETE => self.pop(tag, Request::Parse),
            backend::BIND_COMPLETE => self.pop(tag, Request::Bind),
            backend::CLOSE_COMPLETE => self.pop(tag, Request::Close),
            backend::ERROR => self.error(),
            backend::COPY_IN_RESPONSE => self.copy_begins(tag, Copy::In),
            backend::COPY_OUT_RESPONSE => self.copy_begins(tag, Copy::Out),
            backend::FUNCTION_RESULT => match self.head() {
                Some(e) if e.request == Request::Function => Ok(e.action == Action::Forward),
                _ => Err(Desync(tag)),
            },
            _ => Err(Desync(tag)),
        }
    }

    fn head(&mut self) -> Option<Entry> {
        self.trim();
        self.expected.front().copied()
    }

    fn head_is(&self, request: Request, action: Action) -> bool {
        self.expected.front().is_some_and(|e| e.request == request && e.action == action)
    }

    /// A CopyDone sent outside a COPY is ignored by PostgreSQL and answered by nothing.
    fn trim(&mut self) {
        while self.copy != Copy::In && self.expected.front().is_some_and(|e| e.request == Request::CopyEnd) {
            self.expected.pop_front();
        }
    }

    /// A message inside the answer to a Query or Execute.
    fn within(&mut self, tag: u8) -> Result<bool, Desync> {
        match self.head() {
            Some(e) if matches!(e.request, Request::Query | Request::Execute) => Ok(e.action == Action::Forward),
            _ => Err(Desync(tag)),
        }
    }

    fn pop(&mut self, tag: u8, request: Request) -> Result<bool, Desync> {
        match self.head() {
            Some(e) if e.request == request && e.action != Action::Fake => {
                self.worked |= request != Request::Close;
                self.expected.pop_front();
                Ok(e.action == Action::Forward)
            }
            _ => Err(Desync(tag)),
        }
    }

    fn completed(&mut self, tag: u8) -> Result<bool, Desync> {
        let forward = self.within(tag)?;
        self.worked = true;
        if self.copy == Copy::In {
            self.drop_swallowed(false);
        }
        self.copy = Copy::None;
        if self.head().is_some_and(|e| e.request == Request::Execute) {
            self.expected.pop_front();
        }
        Ok(forward)
    }

    fn copy_begins(&mut self, tag: u8, copy: Copy) -> Result<bool, Desync> {
        let forward = self.within(tag)?;
        self.copy = copy;
        Ok(forward)
    }

    fn error(&mut self) -> Result<bool, Desync> {
        (self.settled, self.worked) = (false, true);
        let Some(head) = self.head() else {
            // Nothing was asked: the backend is about to die (57P01 and its kin).
            self.tainted = true;
            return Ok(true);
        };
        if self.copy == Copy::In {
            self.drop_swallowed(true);
        }
        self.copy = Copy::None;
        match (head.request, head.action) {
            (Request::Query, Action::Skip) => {
                // Parameters that could not be set; a question that failed leaves the server as it was.
                self.tainted |= head.statement == 0;
                Ok(false)
            }
            (Request::Query | Request::Function | Request::Sync, _) => Ok(true),
            _ => {
                self.failed = true;
                Ok(true)
            }
        }
    }

    /// Syncs that were sent while the server was in COPY IN are swallowed by it (copyfromparse.c, CopyGetData):
    /// everything behind the head up to CopyDone goes. With an error and no CopyDone yet, the Syncs alone.
    fn drop_swallowed(&mut self, error: bool) {
        if let Some(end) = self.expected.iter().position(|e| e.request == Request::CopyEnd) {
            self.expected.drain(1..=end);
        } else if error && self.expected.front().is_some_and(|e| e.request == Request::Execute) {
            self.expected.retain(|e| e.request != Request::Sync);
        }
    }

    fn ready(&mut self, body: &[u8]) -> Result<bool, Desync> {
        let status = body.first().copied().and_then(TxStatus::from_byte).ok_or(Desync(b'Z'))?;
        let Some(head) = self.head() else {
            return Err(Desync(b'Z'));
        };
        let mut forward = head.action == Action::Forward;
        if self.failed && !matches!(head.request, Request::Sync) {
            forward = self.skip_to_sync()?;
        } else if matches!(head.request, Request::Query | Request::Function | Request::Sync) {
            self.expected.pop_front();
        } else {
            return Err(Desync(b'Z'));
        }
        // PostgreSQL 18 makes a block of what stands behind an Execute without Sync, a Query too. A Sync that ends it with
        // nothing between leaves the backend in a state in which it refuses whatever comes next (XX000; seen with 18.6).
        let broken = !self.worked && self.status == TxStatus::Transaction && status == TxStatus::Idle;
        self.tainted |= broken && head.request == Request::Sync;
        self.worked = false;
        self.failed = false;
        self.copy = Copy::None;
        self.status = status;
        self.trim();
        // The server knows nothing of what is faked behind this: it is as settled as without.
        self.settled = self.expected.iter().all(|e| e.action == Action::Fake);
        Ok(forward)
    }

    fn skip_to_sync(&mut self) -> Result<bool, Desync> {
        while let Some(e) = self.expected.pop_front() {
            if e.request == Request::Sync {
                return Ok(e.action == Action::Forward);
            }
            self.dropped.push(e);
        }
        Err(Desync(b'Z'))
    }
}

fn before(a: u32, b: u32) -> bool {
    b.wrapping_sub(a).wrapping_sub(1) < u32::MAX / 2
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
