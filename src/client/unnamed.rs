//! The unnamed statement in transaction pooling: one that was prepared and synced before it was bound (libpq's PQprepare
//! with an empty name, asyncpg without a statement cache) is wanted again later, perhaps on another server.
//!
//! Its text is kept only then; a Parse whose Bind stands in the same sequence, which is what drivers do for every query,
//! costs two stores. Source: protocol-flow, "Extended Query": the unnamed statement lasts until the next Parse of it or
//! the next simple Query.

use std::ops::Range;

use super::plan::Plan;
use super::session::Session;
use crate::server::Server;
use crate::wire::names;
use crate::wire::tracker::{Action, Entry, Request};

/// Longest text kept; a longer one is found on its server or not at all.
const MAX_TEXT: usize = 16 * 1024;

/// A client's unnamed statement.
#[derive(Default)]
pub(super) struct Unnamed {
    /// Where its text (and types) stand in the batch that is being forwarded, while no Bind has followed; empty for none.
    unbound: (u32, u32),
    /// Its text, once a Sync has followed.
    text: Option<Box<[u8]>>,
}

impl Unnamed {
    /// A Parse of it was forwarded; `rest` is where text and types stand in the batch.
    #[inline]
    pub(super) fn parsed(&mut self, rest: Range<usize>, client: u64, server: &mut Server) {
        let short = rest.len() <= MAX_TEXT;
        self.unbound = if short { (rest.start as u32, rest.end as u32) } else { (0, 0) };
        self.text = None;
        server.unnamed_of = client;
    }

    /// A Sync, or the end of the batch: who has not bound it yet may do so much later.
    #[inline]
    pub(super) fn synced(&mut self, data: &[u8]) {
        if self.unbound.1 > 0 {
            let (from, to) = std::mem::take(&mut self.unbound);
            self.text = data.get(from as usize..to as usize).map(Into::into);
        }
    }

    /// A simple Query was forwarded: it ends the statement.
    #[inline]
    pub(super) fn ended(&mut self, server: &mut Server) {
        server.unnamed_of = 0;
        self.unbound = (0, 0);
        self.text = None;
    }

    /// Its Parse failed or was skipped.
    pub(super) fn dropped(&mut self) {
        self.unbound = (0, 0);
        self.text = None;
    }
}

impl Session {
    /// A Bind (or, not `bound`, a Describe) of the unnamed statement comes: the server gets it first when it has another's.
    #[inline]
    pub(super) fn ensure_unnamed(&mut self, bound: bool, server: &mut Server, plan: &mut Plan<'_>, data: &[u8]) {
        let client = self.place.info.id;
        if self.unnamed.unbound.1 == 0
            && server.unnamed_of != client
            && let Some(text) = &self.unnamed.text
        {
            names::put_parse(plan.inject(data), b"", text);
            server.tracker.push(Entry::new(Request::Parse, Action::Skip));
            server.unnamed_of = client;
        }
        if bound {
            self.unnamed.unbound = (0, 0);
        }
    }
}
