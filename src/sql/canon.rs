//! The canonicaliser: tokens in, the literal-free form out (rules R4 to R21), in one pass.
//!
//! Every bracket, CASE and SELECT arm is a token sequence with a hash of its own ([`Frame`]), closed into one token of
//! the sequence around it. So a repeated group is found by comparing two numbers, and dropped by going back to the
//! hash before it. The same machine drives the display form: a [`Sink`] hears every canonical token and can be rolled
//! back to a mark. One look-back token, a frame stack of fixed depth, no recursion.

use super::form::*;
use super::hash::{self, Keyed};
use super::lexer::{Kind, Lexer, Token};
use super::words::{self, RULE, SIGN_OK, TYPE, VERB, Word, attr};
use super::{Fingerprint, Operation, Statement, effect, flag, kind};

/// The machine over one text; [`Canon::statement`] runs it over one statement.
pub(super) struct Canon<'s, 'k, S: Sink> {
    pub lx: Lexer<'s>,
    pub sink: S,
    pub(super) stack: &'k mut Vec<Frame<S::Mark>>,
    pub(super) cur: Frame<S::Mark>,
    pub(super) keyed: Keyed,
    pub(super) lits: u64,
    pub(super) prev: Word,
    /// Tokens of this statement.
    pub(super) n: u32,
    pub(super) watch: u8,
    pub(super) range_op: bool,
    pub(super) seen_where: bool,
    /// State before the last plain word, to take it back as the type of a literal.
    pub(super) before_word: (u64, bool, S::Mark, (usize, usize), Word),
    /// The same before the word ARRAY.
    pub(super) before_array: (u64, bool),
    /// The last literal was the word TRUE.
    pub(super) last_true: bool,
    pub(super) first: Word,
    pub(super) facts: Statement,
    /// This statement sets `standard_conforming_strings`.
    pub(super) sets_scs: bool,
    pub(super) tables: u32,
    pub(super) catalogs: u32,
    pub(super) has_from: bool,
    /// Calls `set_config`.
    pub(super) set_config: bool,
    /// The first table is `django_session`; `session_key` was seen in WHERE.
    pub(super) django_session: (bool, bool),
    /// A writing verb inside a CTE.
    pub(super) cte_op: Option<Operation>,
    /// A parenthesis deeper than the stack.
    pub(super) flat: u32,
    /// The length of a number behind a type name decides whether it belongs to the type: no template.
    pub(super) unfit: bool,
    /// First and last token of the statement.
    pub span: (usize, usize),
}

/// How a statement ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Semicolon,
    Text,
}

impl<'s, 'k, S: Sink> Canon<'s, 'k, S> {
    pub fn new(lx: Lexer<'s>, sink: S, stack: &'k mut Vec<Frame<S::Mark>>, keyed: Keyed) -> Self {
        stack.clear();
        let mark = sink.mark();
        Self {
            lx,
            sink,
            stack,
            cur: Frame::new(Shell::Top),
            keyed,
            lits: keyed.start(),
            prev: Word::Start,
            n: 0,
            watch: 0,
            range_op: false,
            seen_where: false,
            before_word: (0, true, mark, (0, 0), Word::Start),
            before_array: (0, true),
            last_true: false,
            first: Word::Start,
            facts: Statement::default(),
            sets_scs: false,
            tables: 0,
            catalogs: 0,
            has_from: false,
            set_config: false,
            django_session: (false, false),
            cte_op: None,
            flat: 0,
            unfit: false,
            span: (0, 0),
        }
    }

    fn reset(&mut self) {
        self.stack.clear();
        self.cur = Frame::new(Shell::Top);
        self.lits = self.keyed.start();
        self.prev = Word::Start;
        (self.n, self.watch, self.tables, self.catalogs, self.flat) = (0, 0, 0, 0, 0);
        (self.range_op, self.seen_where, self.has_from) = (false, false, false);
        self.first = Word::Start;
        self.facts = Statement { max_list: 1, operation: Operation::Empty, ..Statement::default() };
        self.cte_op = None;
        self.set_config = false;
        self.sets_scs = false;
        self.unfit = false;
        self.django_session = (false, false);
        self.lx.comment = false;
    }

    /// Runs over one statement, up to its `;` or the end of the text.
    pub fn statement(&mut self) -> (Statement, Ended) {
        self.reset();
        let ended = loop {
            let token = self.lx.next();
            if self.n == 0 {
                self.span.0 = token.start;
            }
            match token.kind {
                Kind::Quoted => self.ident(token, Word::Ident),
                Kind::Word => self.word(token),
                Kind::Comma => self.comma(),
                Kind::Dot => {
                    self.emit(T_DOT, Word::Dot);
                    self.sink.put(Lexeme::Dot);
                }
                Kind::Number | Kind::Param => self.number(token),
                Kind::Str => self.string(token),
                Kind::Open => self.open(),
                Kind::Close => self.close_paren(),
                Kind::Op => self.operator(token),
                Kind::OpenBracket => self.open_bracket(),
                Kind::CloseBracket => self.close_bracket(),
                Kind::Cast => self.cast(),
                Kind::Colon | Kind::Other => self.other(token),
                Kind::Semi => {
                    if self.stack.is_empty() {
                        break Ended::Semicolon;
                    }
                    self.other(token);
                }
                Kind::End => break Ended::Text,
            }
            self.span.1 = token.end;
        };
        (self.finish(), ended)
    }

    /// One canonical token.
    #[inline(always)]
    pub(super) fn emit(&mut self, token: u64, prev: Word) {
        self.n += 1;
        self.cur.h = hash::step(self.cur.h, token);
        self.cur.pure = false;
        self.prev = prev;
    }

    #[inline(always)]
    fn comma(&mut self) {
        if self.cur.pure && self.cur.items == 1 {
            self.cur.first_mark = self.sink.mark();
        }
        self.n += 1;
        self.cur.h = hash::step(self.cur.h, T_COMMA);
        self.prev = Word::Comma;
        if self.cur.clause == Clause::From {
            self.watch |= WATCH_TABLE;
        }
        self.sink.put(Lexeme::Comma);
    }

    #[inline(always)]
    pub(super) fn ident(&mut self, token: Token, prev: Word) {
        let text = self.lx.bytes(&token);
        if self.watch != 0 || token.word != Word::Ident {
            if self.watch & WATCH_NAME != 0 {
                self.watch &= !WATCH_NAME;
                return self.name(text);
            }
            self.noted_ident(token);
        }
        let mark = (self.cur.h, self.cur.pure, self.sink.mark(), (token.start, token.end), self.prev);
        self.emit(token.hash, if words::is_name(token.word) { token.word } else { prev });
        if token.kind == Kind::Quoted {
            self.sink.put(Lexeme::Quoted(text));
        } else {
            self.before_word = mark;
            self.sink.put(Lexeme::Word(text, Word::Plain));
        }
    }

    /// An identifier that means something: a table, or a known function.
    pub(super) fn noted_ident(&mut self, token: Token) {
        match token.word {
            Word::PgTemp => self.facts.effects |= effect::TEMP,
            Word::AdvisoryLock | Word::AdvisoryLockShared | Word::TryAdvisoryLock | Word::TryAdvisoryLockShared => {
                self.facts.effects |= effect::ADVISORY_LOCK;
            }
            Word::AdvisoryUnlock | Word::AdvisoryUnlockShared | Word::AdvisoryUnlockAll => {
                self.facts.effects |= effect::UNDO;
            }
            Word::SessionKey if self.seen_where => self.django_session.1 = true,
            Word::SetConfig => self.set_config = true,
            _ => {}
        }
        if self.watch & WATCH_TABLE != 0 {
            self.watch &= !WATCH_TABLE;
            let text = self.lx.bytes(&token);
            let name = text.strip_prefix(b"\"").unwrap_or(text);
            let catalog = name.get(..3).is_some_and(|p| p.eq_ignore_ascii_case(b"pg_"))
                || matches!(token.word, Word::DjangoMigrations | Word::InformationSchema);
            self.tables += 1;
            self.catalogs += u32::from(catalog);
            self.django_session.0 |= token.word == Word::DjangoSession && self.tables == 1;
        }
    }

    /// A dynamic name (savepoint, cursor, prepared statement, channel): R13.
    pub(super) fn name(&mut self, text: &[u8]) {
        self.lits = self.keyed.absorb(self.lits, text);
        self.emit(T_NAME, Word::Ident);
        self.sink.put(Lexeme::Name);
    }

    #[inline(always)]
    fn word(&mut self, token: Token) {
        if token.word == Word::Plain {
            return self.ident(
                Token { word: Word::Ident, ..token },
                if self.prev == Word::Dot { Word::Ident } else { Word::Plain },
            );
        }
        if self.prev == Word::Dot || words::is_name(token.word) {
            return self.ident(token, Word::Ident);
        }
        if self.prev == Word::As && attr(token.word) & VERB == 0 {
            return self.ident(Token { word: Word::Ident, ..token }, Word::Ident);
        }
        // What waits for a table or a name was set by the words before this one, not by this one's own rule.
        let watch = self.watch;
        if self.first == Word::Start {
            if self.n as usize == self.stack.len() {
                self.begin(token);
            } else {
                // Something else came first: no statement we know.
                self.first = Word::Plain;
            }
        }
        if watch & WATCH_TABLE != 0 && !matches!(token.word, Word::Lateral | Word::Only | Word::Into | Word::Table) {
            self.noted_ident(token);
        }
        if (watch & WATCH_NAME != 0 && self.unreserved_name(token))
            || (attr(token.word) & RULE != 0 && self.keyword(token))
            || (attr(token.word) & TYPE != 0 && self.type_literal(token))
        {
            return;
        }
        if token.word == Word::Array {
            self.before_array = (self.cur.h, self.cur.pure);
        }
        self.emit_word(token);
    }

    #[inline(always)]
    pub(super) fn emit_word(&mut self, token: Token) {
        self.emit(token.hash, token.word);
        self.sink.put(Lexeme::Word(self.lx.bytes(&token), token.word));
    }

    /// A literal of any kind: the placeholder in the form, its bytes in the keyed hash.
    #[inline(always)]
    pub(super) fn literal(&mut self, token: Token) {
        self.lits = self.keyed.absorb_at(self.lits, self.lx.text(), token.start, token.end);
        self.last_true = token.word == Word::True;
        if self.prev == Word::Op && self.range_op && self.seen_where {
            self.facts.flags |= flag::RANGE;
        }
        self.n += 1;
        self.cur.h = hash::step(self.cur.h, T_LIT);
        self.cur.items += 1;
        self.cur.pure &= matches!(self.prev, Word::Open | Word::Comma);
        self.prev = Word::Lit;
        self.sink.put(Lexeme::Literal(self.lx.bytes(&token)));
    }

    #[inline(always)]
    fn number(&mut self, token: Token) {
        if token.kind == Kind::Number && !matches!(self.prev, Word::Op | Word::Comma) {
            if self.prev == Word::Limit && self.stack.is_empty() {
                self.facts.flags |= match self.lx.bytes(&token) {
                    b"1" => flag::LIMIT_ONE,
                    b"21" => flag::LIMIT_GET,
                    _ => 0,
                };
            }
            if self.prev == Word::By && self.ordinal(token) {
                return;
            }
        } else if self.cur.clause == Clause::Order && self.prev == Word::Comma && self.ordinal(token) {
            return;
        }
        self.literal(token);
    }

    /// `ORDER BY 1` keeps its number (R15).
    fn ordinal(&mut self, token: Token) -> bool {
        let text = self.lx.bytes(&token);
        let keep = self.cur.clause == Clause::Order
            && token.kind == Kind::Number
            && text.len() <= ORDINAL_DIGITS
            && text.iter().all(u8::is_ascii_digit);
        if keep {
            self.emit(hash::word_raw(hash::OP_SEED, text), Word::Ident);
            self.sink.put(Lexeme::Number(text));
        }
        keep
    }

    fn string(&mut self, token: Token) {
        if self.prev == Word::Plain && kind::is_dml(self.first) {
            // `date '2024-01-01'`: the word was the literal's type (R10).
            let (h, pure, mark, (start, end), prev) = self.before_word;
            self.prev = prev;
            self.cur.h = h;
            self.cur.pure = pure;
            self.sink.rollback(mark);
            self.literal(token);
            self.sink.put(Lexeme::Cast);
            self.sink.put(Lexeme::Word(&self.lx.text()[start..end], Word::Plain));
            return self.sink.put(Lexeme::TypeEnd);
        }
        self.literal(token);
    }

    #[inline(always)]
    fn operator(&mut self, token: Token) {
        let text = self.lx.bytes(&token);
        if matches!(text, b"-" | b"+") && attr(self.prev) & SIGN_OK != 0 && self.lx.number_follows() {
            let number = self.lx.next();
            return self.literal(Token { start: token.start, ..number });
        }
        self.range_op = matches!(token.hash, T_LESS | T_GREATER | T_LESS_EQ | T_GREATER_EQ);
        self.emit(token.hash, token.word);
        self.sink.put(Lexeme::Op(if text == b"!=" { b"<>" } else { text }));
    }

    fn other(&mut self, token: Token) {
        let text = self.lx.bytes(&token);
        let prev = if token.kind == Kind::Colon { Word::Colon } else { Word::Op };
        self.range_op = false;
        self.emit(hash::word_raw(hash::OP_SEED, text), prev);
        self.sink.put(Lexeme::Op(text));
    }

    /// The facts of the statement just passed.
    fn finish(&mut self) -> Statement {
        let h = self.close_all();
        let mut facts = self.facts;
        facts.literals = self.lits;
        facts.fingerprint = Fingerprint(hash::finish(h));
        if self.n > 0 && facts.operation == Operation::Empty {
            facts.operation = Operation::Other;
        }
        if facts.operation == Operation::Select {
            facts.operation = self.cte_op.unwrap_or(Operation::Select);
        }
        if facts.operation == Operation::Select {
            facts.flags |= if self.has_from { 0 } else { flag::NO_FROM };
            facts.flags |= if super::frames::is_ping(&facts, self.n, self.first, self.prev) { flag::PING } else { 0 };
            facts.flags |= if self.django_session == (true, true) { flag::DJANGO_SESSION } else { 0 };
            if !self.has_from && self.set_config {
                facts.operation = Operation::Session;
            }
        }
        facts.flags |= if self.tables > 0 && self.tables == self.catalogs { flag::CATALOG } else { 0 };
        facts.flags |= if self.lx.comment { flag::COMMENT } else { 0 };
        facts.flags |= if self.lx.open_end || self.lx.capped() { flag::TRUNCATED } else { 0 };
        facts
    }
}
