//! The display form: valid SQL without a literal, and the only way from a client's SQL to text.
//!
//! It is made by the same machine as the fingerprint, so what is shown is what was hashed: `$1 .. $n` for literals,
//! `IN ($1 /*, ... */)` for lists, `_` for dynamic names, casts kept so that EXPLAIN (GENERIC_PLAN) can plan it.

use super::canon::Canon;
use super::form::{Lexeme, Sink};
use super::hash::Keyed;
use super::lexer::Lexer;
use super::words::{SHOWN, Word, attr};
use super::{LexSettings, Operation, RawSql, flag};

/// PostgreSQL cuts identifiers at this many bytes (NAMEDATALEN - 1).
const NAME_BYTES: usize = 63;

/// A statement's text without any literal. Identifiers are shown; literals, comments and dynamic names are not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Normalised {
    text: String,
    exact: bool,
}

impl Normalised {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text again has the statement's fingerprint: nothing was cut or escaped.
    pub fn is_exact(&self) -> bool {
        self.exact
    }
}

impl std::fmt::Display for Normalised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// The display form of the first statement of `sql`, at most about `max_len` bytes.
///
/// A text the lexer is in doubt about (unsafe client encoding, unknown backslash setting) shows its verb and
/// `<unlexed>` only.
pub fn display(sql: RawSql<'_>, settings: LexSettings, max_len: usize) -> Normalised {
    let text =
        Text { out: String::new(), params: 0, glue: true, prev: Word::Start, exact: true, after_type: false, max_len };
    let mut stack = Vec::new();
    let mut canon = Canon::new(Lexer::new(sql.0, settings), text, &mut stack, Keyed::new([0; 2]));
    let (mut facts, _) = canon.statement();
    while facts.operation == Operation::Empty && canon.lx.pos < sql.0.len() {
        (facts, _) = canon.statement();
    }
    if canon.lx.unsure() || !settings.safe_encoding {
        return Normalised { text: format!("{} <unlexed>", verb(facts.operation)), exact: false };
    }
    let mut sink = canon.sink;
    sink.exact &= facts.flags & flag::TRUNCATED == 0;
    if sink.out.len() > max_len {
        let mut cut = max_len.saturating_sub(4);
        while !sink.out.is_char_boundary(cut) {
            cut -= 1;
        }
        sink.out.truncate(cut);
        sink.out.push_str(" ...");
        sink.exact = false;
    }
    Normalised { text: sink.out, exact: sink.exact }
}

/// The verb shown for text that may not be.
pub(super) fn verb(operation: Operation) -> &'static str {
    match operation {
        Operation::Select => "SELECT",
        Operation::Insert => "INSERT",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Merge => "MERGE",
        Operation::Ddl => "DDL",
        Operation::Transaction => "TRANSACTION",
        Operation::Copy => "COPY",
        Operation::Session => "SESSION",
        Operation::Cursor => "CURSOR",
        Operation::Empty => "EMPTY",
        Operation::Other => "OTHER",
    }
}

struct Text {
    out: String,
    /// Placeholders given out.
    params: u32,
    /// The next token stands right behind the last one.
    glue: bool,
    /// Kind of the last token, for the space before a parenthesis.
    prev: Word,
    exact: bool,
    /// The last token ended a type name.
    after_type: bool,
    max_len: usize,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Mark {
    len: usize,
    params: u32,
    glue: bool,
    prev: Word,
}

impl Text {
    fn space(&mut self) {
        if !self.glue {
            self.out.push(' ');
        }
        self.glue = false;
    }

    /// Bytes as text: what is not printable or not UTF-8 is escaped, and then the text is no longer exact.
    fn escaped(&mut self, bytes: &[u8], change: fn(char) -> char) {
        for piece in bytes.utf8_chunks() {
            for c in piece.valid().chars() {
                if c.is_control() {
                    self.exact = false;
                    self.out.extend(c.escape_default());
                } else {
                    self.out.push(change(c));
                }
            }
            for b in piece.invalid() {
                self.exact = false;
                self.out.push_str(&format!("\\x{b:02X}"));
            }
        }
    }

    fn word(&mut self, bytes: &[u8], word: Word) {
        // A column may be named like an unreserved keyword.
        let known = attr(word) & SHOWN != 0 || self.prev == Word::Start;
        let shown = self.cut(bytes);
        self.escaped(shown, if known { |c| c.to_ascii_uppercase() } else { |c| c.to_ascii_lowercase() });
        self.prev = word;
    }

    fn cut<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        // Two bytes more for the quotes of a quoted one.
        self.exact &= bytes.len() <= NAME_BYTES + 2;
        &bytes[..bytes.len().min(NAME_BYTES + 2)]
    }
}

impl Sink for Text {
    type Mark = Mark;

    fn mark(&self) -> Mark {
        Mark { len: self.out.len(), params: self.params, glue: self.glue, prev: self.prev }
    }

    fn rollback(&mut self, mark: Mark) {
        self.out.truncate(mark.len);
        (self.params, self.glue, self.prev) = (mark.params, mark.glue, mark.prev);
    }

    fn put(&mut self, lexeme: Lexeme<'_>) {
        if self.out.len() > self.max_len.saturating_mul(2) + 256 && !matches!(lexeme, Lexeme::Close(_)) {
            // Long enough: a list that may still be rolled back needs no more text than this.
            self.exact = false;
            return;
        }
        if std::mem::replace(&mut self.after_type, matches!(lexeme, Lexeme::TypeEnd)) && may_extend_type(&lexeme) {
            self.exact = false;
        }
        match lexeme {
            Lexeme::Word(bytes, word) => {
                self.space();
                self.word(bytes, word);
            }
            Lexeme::Quoted(bytes) => {
                self.space();
                let shown = self.cut(bytes);
                self.escaped(shown, |c| c);
                if shown.len() < bytes.len() {
                    self.out.push('"');
                }
                self.prev = Word::Ident;
            }
            Lexeme::Op(bytes) => {
                self.space();
                self.escaped(bytes, |c| c);
                self.prev = Word::Op;
            }
            Lexeme::Number(bytes) => {
                self.glue &= self.prev != Word::Dot;
                self.space();
                self.escaped(bytes, |c| c);
                self.prev = Word::Lit;
            }
            Lexeme::Open(b) => {
                let call = matches!(
                    self.prev,
                    Word::Plain
                        | Word::Ident
                        | Word::Lit
                        | Word::Close
                        | Word::Cast
                        | Word::Exists
                        | Word::Array
                        | Word::Any
                ) || (b == b'[' && self.prev != Word::Op);
                if !call {
                    self.space();
                }
                self.out.push(char::from(b));
                self.glue = true;
                self.prev = Word::Open;
            }
            Lexeme::Close(b) => {
                self.out.push(char::from(b));
                self.glue = false;
                self.prev = Word::Close;
            }
            Lexeme::Comma => {
                self.out.push(',');
                self.glue = false;
                self.prev = Word::Comma;
            }
            Lexeme::Dot => {
                if matches!(self.prev, Word::Op | Word::Dot | Word::Lit | Word::Comma) {
                    self.out.push(' ');
                }
                self.out.push('.');
                self.glue = true;
                self.prev = Word::Dot;
            }
            Lexeme::Cast => {
                if self.prev == Word::Op {
                    self.out.push(' ');
                }
                self.out.push_str("::");
                self.glue = true;
                self.prev = Word::Op;
            }
            Lexeme::TypeEnd => {}
            Lexeme::Literal(_) => {
                self.space();
                self.params += 1;
                self.out.push_str(&format!("${}", self.params));
                self.prev = Word::Lit;
            }
            Lexeme::Name => {
                self.space();
                self.out.push('_');
                self.prev = Word::Ident;
            }
            Lexeme::Ellipsis => {
                self.space();
                self.out.push_str("/*, ... */");
            }
        }
    }
}

/// Read again, this token behind a type name would be taken for a part of it. No valid SQL has it there.
fn may_extend_type(lexeme: &Lexeme<'_>) -> bool {
    match lexeme {
        Lexeme::Dot | Lexeme::Open(_) => true,
        Lexeme::Word(_, word) => matches!(
            word,
            Word::Array
                | Word::Precision
                | Word::Varying
                | Word::With
                | Word::Without
                | Word::Character
                | Word::Char
                | Word::Year
                | Word::Month
                | Word::Day
                | Word::Hour
                | Word::Minute
                | Word::Second
        ),
        _ => false,
    }
}
