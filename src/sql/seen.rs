//! Texts that were analysed before. Drivers that prepare every statement anew (server-side binding without a statement
//! cache) send the same text again and again; it is compared instead of lexed.
//!
//! A text is kept when it comes a second time, so that ever-new ones push nothing out and cost a hash each.

use super::{LexSettings, Statement};

/// Places; a text has one of them, by its hash.
const SLOTS: usize = 128;
/// Longest text kept, in bytes: [`SLOTS`] times this bounds what a worker keeps.
pub(super) const MAX_TEXT: usize = 2048;

#[derive(Default)]
struct Slot {
    /// Of the text that came last and was not the one kept.
    candidate: u64,
    text: Vec<u8>,
    known: Option<Known>,
}

/// What a text is: one statement, and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) settings: LexSettings,
    pub(super) statement: Statement,
    pub(super) span: (usize, usize),
}

pub(super) struct Seen {
    slots: Box<[Slot]>,
}

impl Default for Seen {
    fn default() -> Self {
        Seen { slots: (0..SLOTS).map(|_| Slot::default()).collect() }
    }
}

impl Seen {
    /// What `text` is, if it is kept and was read with the same settings. `hash` is the text's, with a secret key.
    #[inline]
    pub(super) fn find(&self, hash: u64, text: &[u8], settings: LexSettings) -> Option<&Known> {
        let slot = &self.slots[hash as usize % SLOTS];
        slot.known.as_ref().filter(|k| k.settings == settings && slot.text == text)
    }

    /// Notes that `text` came and what it is.
    pub(super) fn learn(&mut self, hash: u64, text: &[u8], known: Known) {
        let slot = &mut self.slots[hash as usize % SLOTS];
        if slot.candidate != hash {
            slot.candidate = hash;
            return;
        }
        slot.text.clear();
        slot.text.extend_from_slice(text);
        slot.known = Some(known);
    }
}
