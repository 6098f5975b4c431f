//! Texts that differ from one seen before in their literals alone. An application sends few statements, with ever-new
//! values; such a text is compared with what is known of it, and only its literals are lexed.
//!
//! A template is the text of a statement without its first and last comments, cut at its literals. A text that has the
//! same bytes between literals of the same kind is cut into the same tokens, so all that is known of the one holds of the
//! other but the hash of the literals, which is made anew. Where the value of a literal decides more than that (LIMIT,
//! ordinals, the length of a number behind a type), its bytes count as text, or nothing is kept ([`Cuts`]).
//!
//! A template is made when its fingerprint is lexed a second time, so that ever-new ones push nothing out. It holds no
//! variable literal. Bounds: [`SETS`] times [`WAYS`] templates of [`MAX_TEXT`] bytes.

use super::canon::Canon;
use super::form::{Frame, Lexeme, Sink};
use super::hash::{Keyed, fold, keep, load8};
use super::lexer::{Kind, Lexer};
use super::words::Word;
use super::{LexSettings, Operation, Statement, flag};

const SETS: usize = 32;
/// Templates that begin alike.
const WAYS: usize = 16;
/// Templates of one fingerprint: lists of other lengths, other limits.
const VARIANTS: usize = 4;
/// Of so many that find no room, one takes a place: more statements that begin alike than there are ways, and ever-new
/// lengths of a list, cost no template each.
const HASTE: usize = 64;
/// Longest text kept.
const MAX_TEXT: usize = 4096;
/// Most literals of one template.
const MAX_SLOTS: usize = 256;
/// Bytes by which a template is looked for: as many as stand before its first literal.
const SHORT: usize = 16;
const LONG: usize = 64;
/// Fingerprints that were lexed lately.
const CANDIDATES: usize = 512;

/// What stands at one place of a template.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Number,
    Str,
    /// A literal that is always the same, of this length: the last bytes of the text before it.
    Same(u16),
}

#[derive(Clone, Copy)]
struct Slot {
    /// Bytes of text up to it.
    text: u16,
    what: What,
}

struct Template {
    settings: LexSettings,
    /// The text between the literals.
    text: Box<[u8]>,
    slots: Box<[Slot]>,
    /// Whether there is a comment before the first token, and behind the last one.
    comments: (bool, bool),
    statement: Statement,
}

impl Template {
    /// The statement that the lexer's text is, if it is one of this template. The lexer stands at the first token.
    fn read(&self, mut lexer: Lexer<'_>, keyed: Keyed) -> Option<Statement> {
        let source = lexer.text();
        if lexer.comment != self.comments.0 {
            return None;
        }
        let (mut at, mut from, mut literals) = (lexer.pos, 0, keyed.start());
        for slot in &self.slots {
            let length = usize::from(slot.text);
            if !self.stands(from, length, source, at) {
                return None;
            }
            from += length;
            at += length;
            let start = match slot.what {
                What::Same(length) => at.checked_sub(usize::from(length))?,
                what => {
                    lexer.pos = at;
                    let token = match what {
                        What::Number if source.get(at)?.is_ascii_digit() => lexer.number(),
                        What::Str if *source.get(at)? == b'\'' => lexer.plain_string(),
                        _ => return None,
                    };
                    at = token.end;
                    token.start
                }
            };
            literals = keyed.absorb_at(literals, source, start, at);
        }
        let length = self.text.len() - from;
        if !self.stands(from, length, source, at) {
            return None;
        }
        lexer.pos = at + length;
        lexer.comment = false;
        lexer.pass_space();
        let whole = lexer.pos == source.len() && !lexer.open_end && !lexer.doubt;
        (whole && lexer.comment == self.comments.1).then_some(Statement { literals, ..self.statement })
    }

    /// Whether `length` bytes of the text from `from` on stand at `at` in `source`.
    #[inline(always)]
    fn stands(&self, from: usize, length: usize, source: &[u8], at: usize) -> bool {
        // What stands between the numbers of a list is short.
        let chunk = |text: &[u8], at: usize| text.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        if length <= 8
            && let (Some(there), Some(here)) = (chunk(source, at), chunk(&self.text, from))
        {
            return keep(there ^ here, length) == 0;
        }
        source.get(at..at + length).is_some_and(|there| *there == self.text[from..from + length])
    }

    /// The template of a text, if it has one. The lexer stands at the first token.
    fn of(lexer: Lexer<'_>, settings: LexSettings, keyed: Keyed, statement: &Statement) -> Option<Template> {
        let source = lexer.text();
        let mut stack: Vec<Frame<()>> = Vec::new();
        let mut canon = Canon::new(Lexer::new(source, settings), Cuts::new(source), &mut stack, keyed);
        let (read, _) = canon.statement();
        if canon.unfit || canon.sink.unfit || read != *statement {
            return None;
        }
        let (mut text, mut slots, mut from) = (Vec::new(), Vec::new(), lexer.pos);
        let mut before = 0;
        for &(what, start, stop) in &canon.sink.literals {
            let same = matches!(what, What::Same(_));
            let to = if same { stop } else { start };
            text.extend_from_slice(source.get(from..to)?);
            slots.push(Slot { text: u16::try_from(text.len() - before).ok()?, what });
            (before, from) = (text.len(), stop);
        }
        // Behind the last token, which a `;` may be, only white space and comments are left.
        let (mut tail, mut end) = (Lexer { pos: from, ..lexer }, from);
        loop {
            let token = tail.next();
            end = if token.kind == Kind::End { end } else { token.end };
            if matches!(token.kind, Kind::End | Kind::Semi) {
                break;
            }
        }
        text.extend_from_slice(source.get(from..end)?);
        if text.ends_with(b"-") {
            // Before another one it is the beginning of a comment.
            return None;
        }
        let mut tail = Lexer { pos: end, comment: false, ..lexer };
        tail.pass_space();
        let comments = (lexer.comment, tail.comment);
        let (text, slots) = (text.into(), slots.into());
        let template = Template { settings, text, slots, comments, statement: *statement };
        // What does not even tell its own text is of no use.
        (template.read(lexer, keyed)? == *statement).then_some(template)
    }

    /// Bytes that are the same in every text of it.
    fn begins(&self) -> usize {
        let variable = |slot: &&Slot| !matches!(slot.what, What::Same(_));
        let first = self.slots.iter().position(|slot| variable(&slot));
        first.map_or(self.text.len(), |n| self.slots[..=n].iter().map(|slot| usize::from(slot.text)).sum())
    }
}

/// Hears the literals of a statement, and what makes it unfit for a template.
struct Cuts<'s> {
    source: &'s [u8],
    literals: Vec<(What, usize, usize)>,
    last: Last,
    /// ORDER BY or GROUP BY was passed: a number behind a comma may be an ordinal, if it is short.
    by: bool,
    unfit: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Limit,
    By,
    Comma,
    Any,
}

impl<'s> Cuts<'s> {
    fn new(source: &'s [u8]) -> Self {
        Cuts { source, literals: Vec::new(), last: Last::Any, by: false, unfit: false }
    }

    fn literal(&mut self, text: &[u8]) {
        // It lies in `source`, like every part of it that the canonicaliser speaks of.
        let start = text.as_ptr().addr().wrapping_sub(self.source.as_ptr().addr());
        let end = start.wrapping_add(text.len());
        let after = self.literals.last().map_or(0, |known| known.2);
        let Ok(length) = u16::try_from(text.len()) else {
            self.unfit = true;
            return;
        };
        self.unfit |= start < after || end > self.source.len() || self.literals.len() >= MAX_SLOTS;
        let decides = match self.last {
            Last::Limit | Last::By => true,
            Last::Comma => self.by,
            Last::Any => false,
        };
        let what = match text.first() {
            Some(b'0'..=b'9') if !decides => What::Number,
            Some(b'\'') => What::Str,
            _ => What::Same(length),
        };
        self.literals.push((what, start, end));
    }
}

impl Sink for Cuts<'_> {
    type Mark = ();
    fn mark(&self) {}
    // What is taken back has been hashed all the same.
    fn rollback(&mut self, (): ()) {}
    fn put(&mut self, lexeme: Lexeme<'_>) {
        match lexeme {
            Lexeme::Literal(text) => self.literal(text),
            Lexeme::Name => self.unfit = true,
            // What stands behind a `U&` token, if its string is one character long.
            Lexeme::Word(text, _) => self.unfit |= text.eq_ignore_ascii_case(b"uescape"),
            _ => {}
        }
        self.last = match lexeme {
            // Words that do not count.
            Lexeme::Word(_, Word::As | Word::Inner | Word::Outer) => self.last,
            Lexeme::Word(_, Word::Limit) => Last::Limit,
            Lexeme::Word(_, Word::By) => Last::By,
            Lexeme::Comma => Last::Comma,
            _ => Last::Any,
        };
        self.by |= self.last == Last::By;
    }
}

/// Templates that begin alike, and what is looked for.
#[derive(Default)]
struct Set {
    keys: [u64; WAYS],
    templates: [Option<Box<Template>>; WAYS],
    /// The one that makes room next.
    next: usize,
}

impl Set {
    fn full(&self) -> bool {
        self.templates[WAYS - 1].is_some()
    }

    /// How many are of this statement.
    fn variants(&self, statement: &Statement) -> usize {
        self.of(statement).count()
    }

    fn of(&self, statement: &Statement) -> impl Iterator<Item = usize> {
        let fingerprint = statement.fingerprint;
        let same =
            move |known: &Option<Box<Template>>| known.as_ref().is_some_and(|t| t.statement.fingerprint == fingerprint);
        self.templates.iter().enumerate().filter(move |(_, known)| same(known)).map(|(at, _)| at)
    }

    /// In the place of another of its statement, where there are enough of these; `turn` tells of which.
    fn put(&mut self, key: u64, template: Template, turn: usize) {
        let variants = self.variants(&template.statement);
        let other = (variants >= VARIANTS).then(|| self.of(&template.statement).nth(turn % variants)).flatten();
        let at = other.unwrap_or(self.next % WAYS);
        if other.is_none() {
            self.next = at + 1;
        }
        self.keys[at] = key;
        self.templates[at] = Some(Box::new(template));
    }
}

/// The templates of one worker.
pub(super) struct Templates {
    sets: Box<[Set]>,
    candidates: Box<[u64]>,
    /// Fingerprints that no template can be made of.
    hopeless: Box<[u64]>,
    /// Those that found no room.
    haste: usize,
}

impl Default for Templates {
    fn default() -> Self {
        Templates {
            sets: (0..SETS).map(|_| Set::default()).collect(),
            candidates: vec![0; CANDIDATES].into(),
            hopeless: vec![0; CANDIDATES].into(),
            haste: 0,
        }
    }
}

impl Templates {
    /// The statement that a text is, if a template tells.
    pub(super) fn find(&self, text: &[u8], settings: LexSettings, keyed: Keyed) -> Option<Statement> {
        if text.len() < SHORT || text.len() > MAX_TEXT {
            return None;
        }
        let lexer = first_token(text, settings);
        let long = key(text.get(lexer.pos..)?, LONG);
        let short = key(text.get(lexer.pos..)?, SHORT);
        [long, short].into_iter().flatten().find_map(|key| {
            let set = &self.sets[key as usize % SETS];
            let known = set.keys.iter().zip(&set.templates).filter(|known| *known.0 == key);
            known
                .filter_map(|known| known.1.as_ref())
                .filter(|t| t.settings == settings)
                .find_map(|t| t.read(lexer, keyed))
        })
    }

    /// A text that no template tells was lexed: it is all of this one statement.
    pub(super) fn lexed(&mut self, text: &[u8], settings: LexSettings, keyed: Keyed, statement: &Statement) {
        let plain = matches!(
            statement.operation,
            Operation::Select | Operation::Insert | Operation::Update | Operation::Delete
        );
        let odd = statement.flags & (flag::UNLEXED | flag::TRUNCATED) != 0 || statement.effects != 0;
        if !plain || odd || text.len() < SHORT || text.len() > MAX_TEXT {
            return;
        }
        let fingerprint = statement.fingerprint.0;
        let at = fingerprint as usize % CANDIDATES;
        if self.hopeless[at] == fingerprint {
            return;
        }
        if std::mem::replace(&mut self.candidates[at], fingerprint) == fingerprint {
            self.learn(text, settings, keyed, statement);
        }
    }

    #[cold]
    fn learn(&mut self, text: &[u8], settings: LexSettings, keyed: Keyed, statement: &Statement) -> Option<()> {
        let lexer = first_token(text, settings);
        // Either is a set that it may belong to.
        let begins = text.get(lexer.pos..)?;
        let set = |length| key(begins, length).map(|key| key as usize % SETS);
        let no_room = |at: usize| self.sets[at].full() || self.sets[at].variants(statement) >= VARIANTS;
        if [set(LONG), set(SHORT)].into_iter().flatten().any(no_room) {
            self.haste = self.haste.wrapping_add(1);
            if !self.haste.is_multiple_of(HASTE) {
                return None;
            }
        }
        let template = Template::of(lexer, settings, keyed, statement);
        let template = template.filter(|template| template.begins() >= SHORT);
        let Some(template) = template else {
            let fingerprint = statement.fingerprint.0;
            self.hopeless[fingerprint as usize % CANDIDATES] = fingerprint;
            return None;
        };
        let key = key(begins, if template.begins() >= LONG { LONG } else { SHORT })?;
        self.sets[key as usize % SETS].put(key, template, self.haste / HASTE);
        Some(())
    }
}

/// A lexer of `text` at its first token.
#[inline]
fn first_token(text: &[u8], settings: LexSettings) -> Lexer<'_> {
    let mut lexer = Lexer::new(text, settings);
    lexer.pass_space();
    lexer
}

/// Hash of the first `length` bytes; `None` when there are fewer.
#[inline(always)]
fn key(text: &[u8], length: usize) -> Option<u64> {
    let text = text.get(..length)?;
    let mix = |acc, at| fold(load8(text, at) ^ acc, load8(text, at + 8) ^ 0xa076_1d64_78bd_642f);
    Some((0..length).step_by(16).fold(length as u64, mix))
}
