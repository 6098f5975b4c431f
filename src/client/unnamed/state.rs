//! What is known of a client's unnamed statement, and of those before it that may come back.

use crate::server::shared::{Charge, MAX_SHARED, StatementCache};
use crate::wire::tracker::{Action, Entry};

/// Texts of this many bytes are kept without looking at the memory of the one before.
const SPARE: usize = 1024;
/// Statements remembered that others of the same sequence have replaced, and bytes of their texts.
pub(super) const MAX_REPLACED: usize = 256;
pub(super) const MAX_REPLACED_BYTES: usize = MAX_SHARED;

/// What is known of the one that is there, but for its text.
#[derive(Clone, Copy, Default)]
pub(super) struct State {
    /// Its text is in `kept`.
    pub(super) kept: bool,
    /// Place of its last Parse among the server's requests.
    pub(super) place: u32,
    /// Which server that was (low bits of its serial number): the places of another say nothing.
    pub(super) server: u32,
    /// Place of what made it or, when there is none, of what has ended it.
    pub(super) touched: u32,
    /// That has been answered, and was not skipped.
    pub(super) decided: bool,
    /// A text that is not kept.
    pub(super) long: Long,
    /// Counts its Parses and ends: a server may still have an earlier one.
    pub(super) version: u32,
    /// Hash of the parameters and columns that the client was told; 0 for none.
    pub(super) told: u64,
    pub(super) columns: Columns,
}

/// What is remembered beyond a batch.
pub(super) struct Kept {
    pub(super) text: Vec<u8>,
    pub(super) charge: Charge,
    /// Those replaced in a sequence without Sync, by what the server may skip.
    pub(super) replaced: Vec<Replaced>,
    /// Bytes of their texts.
    pub(super) replaced_bytes: usize,
}

/// One that was there before the request at `end`.
pub(super) struct Replaced {
    pub(super) end: u32,
    /// Which the server had.
    pub(super) unnamed_of: u64,
    pub(super) state: State,
    pub(super) text: Box<[u8]>,
}

impl Kept {
    pub(super) fn new(cache: &StatementCache) -> Box<Self> {
        Box::new(Kept { text: Vec::new(), charge: cache.charge(), replaced: Vec::new(), replaced_bytes: 0 })
    }

    /// Takes a text. `false`: there is no room.
    pub(super) fn take(&mut self, text: &[u8]) -> bool {
        self.text.clear();
        let room = self.text.capacity();
        if room > SPARE && room / 4 > text.len() {
            self.text = Vec::new();
        }
        if self.text.capacity() < text.len() {
            let room = text.len().next_multiple_of(64);
            if !self.charge.change(room) {
                self.text = Vec::new();
                self.charge.change(0);
                return false;
            }
            self.text.reserve_exact(room);
        }
        self.text.extend_from_slice(text);
        true
    }
}

/// Where it was prepared anew, its columns there.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Columns {
    /// Those that the client was told, or not to be compared.
    #[default]
    Same,
    /// A Describe is under way at this place.
    Asked(u32),
    Other,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Long {
    #[default]
    No,
    /// Sent, and not bound yet.
    Unbound,
    /// A Sync has followed before it was bound: its server is the only one that has it.
    Ties,
}

impl State {
    #[inline]
    pub(super) fn token(&self, client: u64) -> u64 {
        client << 32 | u64::from(self.version)
    }

    /// Whether this Parse made it: there is none then. `of`: which the server has; one put ahead is put ahead again.
    pub(super) fn dropped(&mut self, e: &Entry, client: u64, of: &mut u64) -> bool {
        // Places are those of one server: they say nothing where another one has it.
        let there = self.token(client) == *of;
        let made = e.action == Action::Forward && !self.decided && self.touched == e.place();
        if there && (made || self.place == e.place()) {
            *of = 0;
        }
        if made {
            self.forget();
        }
        made
    }

    #[inline]
    pub(super) fn forget(&mut self) {
        self.kept = false;
        self.long = Long::No;
        self.told = 0;
        self.columns = Columns::Same;
    }
}
