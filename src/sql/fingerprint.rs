//! The hot entry: one pass over a text, one [`Statement`] for each of its statements.

use super::canon::{Canon, Ended};
use super::form::{Frame, NoText};
use super::hash::{self, Keyed};
use super::lexer::Lexer;
use super::seen::{self, Known, Seen};
use super::templates::Templates;
use super::{Fingerprint, LexSettings, Operation, RawSql, Statement, flag};

/// Reusable scratch of the lexer pass and the key of the literals' hash. One for each worker.
pub struct Analyzer {
    keyed: Keyed,
    stack: Vec<Frame<()>>,
    seen: Seen,
    templates: Templates,
}

impl Analyzer {
    /// `literal_key`: random for each process; it keeps the hashes of literals from being looked up.
    pub fn new(literal_key: [u64; 2]) -> Self {
        Self {
            keyed: Keyed::new(literal_key),
            stack: Vec::with_capacity(64),
            seen: Seen::default(),
            templates: Templates::default(),
        }
    }

    /// Calls `each` for every top-level statement of `sql`, with the statement's own text.
    ///
    /// A text without any statement gives one [`Operation::Empty`]. Allocates nothing once warm, and takes time linear
    /// in the text: 64 KiB are lexed, what lies behind goes only into the hash of the literals.
    pub fn analyze<'s>(
        &mut self,
        sql: RawSql<'s>,
        settings: LexSettings,
        mut each: impl FnMut(&Statement, RawSql<'s>),
    ) {
        let text = sql.0;
        if let Some(statement) = self.templates.find(text, settings, self.keyed) {
            return each(&statement, sql);
        }
        let lexer = Lexer::new(text, settings);
        let mut canon = Canon::new(lexer, NoText, &mut self.stack, self.keyed);
        let (mut start, mut count, mut unlexed) = (0, 0, !settings.safe_encoding);
        let mut other: Option<u16> = None;
        let mut pending: Option<(Statement, usize, usize)> = None;
        loop {
            let (mut facts, ended) = canon.statement();
            let last = ended == Ended::Text;
            let end = if last { text.len() } else { canon.lx.pos - 1 };
            if facts.flags & flag::TRUNCATED != 0 && last {
                facts.literals = self.keyed.absorb(facts.literals, text.get(canon.lx.pos..).unwrap_or_default());
            }
            unlexed |= canon.lx.doubt;
            if unlexed && facts.operation != Operation::Empty {
                unreadable(&mut facts, self.keyed, &text[start..end]);
                facts.effects |= *other.get_or_insert_with(|| other_effects(text, settings));
            }
            if facts.operation != Operation::Empty {
                count += 1;
                if let Some((earlier, from, to)) = pending.replace((facts, start, end)) {
                    each(&earlier, RawSql(&text[from..to]));
                }
                // The server reads the whole text with the value before it, a later reader might not (R20).
                unlexed |= canon.sets_scs;
            } else if let (true, Some((_, _, to))) = (last, pending.as_mut()) {
                // A comment behind the last `;` belongs to the statement before it.
                *to = end;
            } else if last && count == 0 {
                each(&facts, sql);
            }
            if last {
                break;
            }
            start = canon.lx.pos;
        }
        if let Some((facts, from, to)) = pending {
            each(&facts, RawSql(&text[from..to]));
            if count == 1 && (from, to) == (0, text.len()) {
                self.templates.lexed(text, settings, self.keyed, &facts);
            }
        }
    }

    /// [`Self::analyze`] for a text that is likely to come again as it is (a Parse): one that did is not lexed anew.
    pub fn analyze_again<'s>(
        &mut self,
        sql: RawSql<'s>,
        settings: LexSettings,
        mut each: impl FnMut(&Statement, RawSql<'s>),
    ) {
        let text = sql.0;
        if text.len() > seen::MAX_TEXT {
            return self.analyze(sql, settings, each);
        }
        let hash = self.hash_literals(text);
        if let Some(known) = self.seen.find(hash, text, settings) {
            return each(&known.statement, RawSql(&text[known.span.0..known.span.1]));
        }
        let (mut count, mut known) = (0, None);
        self.analyze(sql, settings, |statement, part| {
            count += 1;
            // `part` lies in `text`.
            let from = part.0.as_ptr().addr() - text.as_ptr().addr();
            known = Some(Known { settings, statement: *statement, span: (from, from + part.0.len()) });
            each(statement, part);
        });
        if let Some(known) = known.filter(|_| count == 1) {
            self.seen.learn(hash, text, known);
        }
    }

    /// Keyed hash of bytes (Bind parameters).
    pub fn hash_literals(&self, bytes: &[u8]) -> u64 {
        self.keyed.absorb(self.keyed.start(), bytes)
    }

    /// Two literal hashes in order as one.
    pub fn combine(&self, first: u64, second: u64) -> u64 {
        self.keyed.absorb(first, &second.to_le_bytes())
    }
}

/// Lexing is in doubt: the id tells the verb only, no text may be shown, all bytes are literal.
fn unreadable(facts: &mut Statement, keyed: Keyed, text: &[u8]) {
    facts.flags = (facts.flags & flag::COMMENT) | flag::UNLEXED;
    facts.max_list = 1;
    facts.literals = keyed.absorb(keyed.start(), text);
    facts.fingerprint = Fingerprint(hash::finish(hash::step(hash::named(b"unlexed"), facts.operation as u64 + 1)));
}

/// Effects of the whole text when backslashes are read the other way: what the session must reckon with in doubt.
#[cold]
fn other_effects(text: &[u8], settings: LexSettings) -> u16 {
    let backslashes = settings.standard_conforming_strings.unwrap_or(true);
    let settings = LexSettings { standard_conforming_strings: Some(!backslashes), safe_encoding: true };
    let mut stack = Vec::new();
    let mut canon = Canon::new(Lexer::new(text, settings), NoText, &mut stack, Keyed::new([0; 2]));
    let mut effects = 0;
    loop {
        let (facts, ended) = canon.statement();
        effects |= facts.effects;
        if ended == Ended::Text {
            return effects;
        }
    }
}
