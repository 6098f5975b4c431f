//! The canonicaliser: tokens in, the literal-free form out (rules R4 to R21), in one pass.
//!
//! Every bracket, CASE and SELECT arm is a token sequence with a hash of its own ([`Frame`]), closed into one token of
//! the sequence around it. So a repeated group is found by comparing two numbers, and dropped by going back to the
//! hash before it. The same machine drives the display form: a [`Sink`] hears every canonical token and can be rolled
//! back to a mark. One look-back token, a frame stack of fixed depth, no recursion.

use super::hash::{self, Keyed};
use super::lexer::{Kind, Lexer, Token};
use super::words::{self, NULL_OK, RULE, SIGN_OK, TYPE, VERB, Word, attr};
use super::{Fingerprint, Operation, Statement, effect, flag, kind};

/// Frames deeper than this are hashed flat.
pub(super) const MAX_DEPTH: usize = 64;
/// Ordinals of ORDER BY and GROUP BY longer than this are literals like any other number.
const ORDINAL_DIGITS: usize = 4;

pub(super) const T_LIT: u64 = hash::named(b"literal");
const T_NAME: u64 = hash::named(b"name");
pub(super) const T_LIST: u64 = hash::named(b"list");
pub(super) const T_OPEN: u64 = hash::named(b"(");
pub(super) const T_CLOSE: u64 = hash::named(b")");
pub(super) const T_BRACKET: u64 = hash::named(b"[");
pub(super) const T_CASE: u64 = hash::named(b"case");
pub(super) const T_ATOMIC: u64 = hash::named(b"atomic");
pub(super) const T_SEGMENT: u64 = hash::named(b"segment");
const T_COMMA: u64 = hash::named(b",");
const T_DOT: u64 = hash::named(b".");
pub(super) const T_CAST: u64 = hash::named(b"::");
const T_EQUALS: u64 = hash::chunk(hash::OP_SEED, b'=' as u64);
const T_LESS: u64 = hash::chunk(hash::OP_SEED, b'<' as u64);
const T_GREATER: u64 = hash::chunk(hash::OP_SEED, b'>' as u64);
const T_LESS_EQ: u64 = hash::chunk(hash::OP_SEED, u16::from_le_bytes(*b"<=") as u64);
const T_GREATER_EQ: u64 = hash::chunk(hash::OP_SEED, u16::from_le_bytes(*b">=") as u64);

/// A canonical token as the display form sees it.
#[derive(Clone, Copy)]
pub(super) enum Lexeme<'a> {
    /// Keyword or unquoted word.
    Word(&'a [u8], Word),
    /// Quoted identifier, quotes included.
    Quoted(&'a [u8]),
    /// Operator or other punctuation.
    Op(&'a [u8]),
    /// An ordinal: the only number that stays.
    Number(&'a [u8]),
    Open(u8),
    Close(u8),
    Comma,
    Dot,
    Cast,
    /// End of the type name behind a cast.
    TypeEnd,
    /// A literal: `$n`. Its text is for judging (a leading `%`, a deep OFFSET), never for showing.
    Literal(&'a [u8]),
    /// A dynamic name: `_`.
    Name,
    /// `/*, ... */` at the end of a list.
    Ellipsis,
}

/// Who hears the canonical tokens.
pub(super) trait Sink {
    /// A place to come back to.
    type Mark: Copy + Default;
    fn mark(&self) -> Self::Mark;
    fn rollback(&mut self, mark: Self::Mark);
    fn put(&mut self, lexeme: Lexeme<'_>);
}

/// The hot path: nobody listens.
pub(super) struct NoText;

impl Sink for NoText {
    type Mark = ();
    #[inline(always)]
    fn mark(&self) {}
    #[inline(always)]
    fn rollback(&mut self, (): ()) {}
    #[inline(always)]
    fn put(&mut self, _: Lexeme<'_>) {}
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Shell {
    /// The statement itself.
    #[default]
    Top,
    Paren,
    /// After IN: squashed when all literals.
    List,
    /// A group inside a list.
    Item,
    /// A row of VALUES.
    Row,
    Array,
    Subscript,
    Cast,
    SetConfig,
    Case,
    Atomic,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Clause {
    #[default]
    None,
    Select,
    From,
    Where,
    /// ORDER BY and GROUP BY.
    Order,
    Values,
    Other,
}

/// One token sequence: the statement, a bracket, a CASE.
#[derive(Clone, Copy, Default)]
pub(super) struct Frame<M> {
    pub h: u64,
    /// Hash and token of the last bare group, and the token number it ended at (0: none).
    pub group_h: u64,
    pub group_t: u64,
    pub group_n: u32,
    /// Bare groups joined so far.
    pub groups: u32,
    /// Hash around the open segment, and after the last one; the last one's token.
    pub seg_outer: u64,
    pub seg_after: u64,
    pub seg_last: u64,
    /// Hash and purity before the word ARRAY in front of this bracket.
    pub outer_h: u64,
    pub outer_pure: bool,
    /// Literals at this level.
    pub items: u32,
    pub shell: Shell,
    pub clause: Clause,
    /// Only literals and commas so far.
    pub pure: bool,
    /// Opened where a group stands alone; opened right behind a connector behind another such group.
    pub bare: bool,
    pub joined: bool,
    /// Inside a segment; the segment may be dropped when it equals the last one.
    pub segment: bool,
    pub seg_joined: bool,
    pub seg_seen: bool,
    /// Has its own SELECT, so FROM is a clause.
    pub query: bool,
    pub group_mark: M,
    pub seg_mark: M,
    pub first_mark: M,
}

impl<M: Copy + Default> Frame<M> {
    pub fn new(shell: Shell) -> Self {
        Self {
            h: hash::SEQ_SEED,
            shell,
            pure: true,
            ..Self::default()
        }
    }
}

pub(super) const WATCH_TABLE: u8 = 1;
const WATCH_NAME: u8 = 2;

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
        self.facts = Statement {
            max_list: 1,
            operation: Operation::Empty,
            ..Statement::default()
        };
        self.cte_op = None;
        self.set_config = false;
        self.sets_scs = false;
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
    fn ident(&mut self, token: Token, prev: Word) {
        let text = self.lx.bytes(&token);
        if self.watch != 0 || token.word != Word::Ident {
            if self.watch & WATCH_NAME != 0 {
                self.watch &= !WATCH_NAME;
                return self.name(text);
            }
            self.noted_ident(token);
        }
        let mark = (
            self.cur.h,
            self.cur.pure,
            self.sink.mark(),
            (token.start, token.end),
            self.prev,
        );
        self.emit(
            token.hash,
            if words::is_name(token.word) {
                token.word
            } else {
                prev
            },
        );
        if token.kind == Kind::Quoted {
            self.sink.put(Lexeme::Quoted(text));
        } else {
            self.before_word = mark;
            self.sink.put(Lexeme::Word(text, Word::Plain));
        }
    }

    /// An identifier that means something: a table, or a known function.
    fn noted_ident(&mut self, token: Token) {
        match token.word {
            Word::PgTemp => self.facts.effects |= effect::TEMP,
            Word::AdvisoryLock
            | Word::AdvisoryLockShared
            | Word::TryAdvisoryLock
            | Word::TryAdvisoryLockShared => {
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
            let catalog = name
                .get(..3)
                .is_some_and(|p| p.eq_ignore_ascii_case(b"pg_"))
                || matches!(token.word, Word::DjangoMigrations | Word::InformationSchema);
            self.tables += 1;
            self.catalogs += u32::from(catalog);
            self.django_session.0 |= token.word == Word::DjangoSession && self.tables == 1;
        }
    }

    /// A dynamic name (savepoint, cursor, prepared statement, channel): R13.
    fn name(&mut self, text: &[u8]) {
        self.lits = self.keyed.absorb(self.lits, text);
        self.emit(T_NAME, Word::Ident);
        self.sink.put(Lexeme::Name);
    }

    #[inline(always)]
    fn word(&mut self, token: Token) {
        if token.word == Word::Plain {
            return self.ident(
                Token {
                    word: Word::Ident,
                    ..token
                },
                if self.prev == Word::Dot {
                    Word::Ident
                } else {
                    Word::Plain
                },
            );
        }
        if self.prev == Word::Dot || words::is_name(token.word) {
            return self.ident(token, Word::Ident);
        }
        if self.prev == Word::As && attr(token.word) & VERB == 0 {
            return self.ident(
                Token {
                    word: Word::Ident,
                    ..token
                },
                Word::Ident,
            );
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
        if watch & WATCH_TABLE != 0
            && !matches!(
                token.word,
                Word::Lateral | Word::Only | Word::Into | Word::Table
            )
        {
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
    fn emit_word(&mut self, token: Token) {
        self.emit(token.hash, token.word);
        self.sink
            .put(Lexeme::Word(self.lx.bytes(&token), token.word));
    }

    /// First keyword of the statement.
    fn begin(&mut self, token: Token) {
        self.first = token.word;
        self.facts.operation = kind::operation(token.word);
        self.facts.effects |= kind::effects(token.word, self.lx);
        self.cur.query = matches!(token.word, Word::Delete | Word::Update);
        if matches!(token.word, Word::Update | Word::Into) {
            self.watch |= WATCH_TABLE;
        }
        self.watch |= if kind::names_follow(token.word, self.lx) {
            WATCH_NAME
        } else {
            0
        };
    }

    /// A keyword where a dynamic name stands: `SAVEPOINT key`. The grammar's own words pass.
    fn unreserved_name(&mut self, token: Token) -> bool {
        let noise = match self.first {
            Word::Release => token.word == Word::Savepoint,
            Word::Deallocate => matches!(token.word, Word::Prepare | Word::All),
            Word::Rollback => token.word == Word::Savepoint,
            Word::CloseKw => token.word == Word::All,
            _ => false,
        };
        if noise {
            return false;
        }
        self.watch &= !WATCH_NAME;
        let text = self.lx.bytes(&token);
        self.name(text);
        true
    }

    /// Rules of one keyword. True when the token has been dealt with.
    fn keyword(&mut self, token: Token) -> bool {
        let top = self.stack.is_empty();
        match token.word {
            Word::Null | Word::True | Word::False => {
                if attr(self.prev) & NULL_OK == 0 {
                    return false;
                }
                self.literal(token);
                return true;
            }
            Word::Default if self.cur.shell == Shell::Row => {
                self.literal(token);
                return true;
            }
            Word::As | Word::Inner => return self.silent(token),
            Word::Outer if matches!(self.prev, Word::Left | Word::Right | Word::Full) => {
                return self.silent(token);
            }
            Word::Select => self.select(),
            Word::From => {
                if self.cur.query && self.prev != Word::Distinct {
                    self.cur.clause = Clause::From;
                    self.watch |= WATCH_TABLE;
                    self.has_from = true;
                }
            }
            Word::Join | Word::Into => self.watch |= WATCH_TABLE,
            Word::Where => {
                self.cur.clause = Clause::Where;
                self.seen_where = true;
            }
            Word::By => {
                if matches!(self.prev, Word::Order | Word::Group) {
                    self.cur.clause = Clause::Order;
                    if top && self.prev == Word::Order {
                        self.facts.flags |= flag::ORDER_BY;
                    }
                }
            }
            Word::Limit | Word::Offset | Word::Fetch => return self.limit_word(token, top),
            Word::Group
            | Word::Order
            | Word::Having
            | Word::Window
            | Word::Returning
            | Word::For => {
                self.cur.clause = Clause::Other;
            }
            Word::On => {
                if self.cur.clause == Clause::Values {
                    self.cur.clause = Clause::Other;
                }
            }
            Word::Values => self.cur.clause = Clause::Values,
            Word::Union | Word::Except | Word::Intersect => self.set_operation(token),
            _ => return self.rare_keyword(token, top),
        }
        false
    }

    fn rare_keyword(&mut self, token: Token, top: bool) -> bool {
        match token.word {
            Word::Case if self.stack.len() < MAX_DEPTH => {
                self.push(Shell::Case, false, false);
                self.n += 1;
                self.prev = Word::Case;
                self.sink
                    .put(Lexeme::Word(self.lx.bytes(&token), token.word));
                return true;
            }
            Word::When if self.cur.shell == Shell::Case => {
                self.end_segment();
                self.start_segment(true);
            }
            Word::Else if self.cur.shell == Shell::Case => self.end_segment(),
            Word::End if matches!(self.cur.shell, Shell::Case | Shell::Atomic) => {
                self.end_block(token);
                return true;
            }
            Word::Atomic if self.prev == Word::Begin && self.stack.len() < MAX_DEPTH => {
                self.emit_word(token);
                self.push(Shell::Atomic, false, false);
                return true;
            }
            Word::Between => self.facts.flags |= if self.seen_where { flag::RANGE } else { 0 },
            Word::Insert | Word::Update | Word::Delete | Word::Merge => self.verb(token, top),
            Word::Share | Word::No | Word::Key if self.prev == Word::For => {
                self.facts.flags |= flag::FOR_UPDATE
            }
            Word::Locked if self.prev == Word::Skip => self.facts.flags |= flag::LOCK_QUEUE,
            Word::Nowait if self.facts.flags & flag::FOR_UPDATE != 0 => {
                self.facts.flags |= flag::LOCK_QUEUE
            }
            Word::Conflict if self.prev == Word::On => self.facts.flags |= flag::ON_CONFLICT,
            Word::Temp | Word::Temporary
                if matches!(self.prev, Word::Into | Word::Local | Word::Global) =>
            {
                self.watch &= !WATCH_TABLE;
                if self.first != Word::Create {
                    self.facts.effects |= effect::TEMP;
                }
            }
            Word::Of if self.prev == Word::Current => {
                self.emit_word(token);
                self.watch |= WATCH_NAME;
                return true;
            }
            Word::To if self.first == Word::Rollback => self.watch |= WATCH_NAME,
            Word::Move if self.n == 0 => return self.rest_as_name(token),
            Word::Set if self.n == 0 => return self.set_statement(token),
            _ => {}
        }
        false
    }

    /// A word that shows but does not count (R18).
    fn silent(&mut self, token: Token) -> bool {
        self.sink
            .put(Lexeme::Word(self.lx.bytes(&token), token.word));
        if token.word == Word::As {
            self.prev = Word::As;
            if self.cur.shell == Shell::Cast {
                self.type_name(true);
            }
        }
        true
    }

    fn limit_word(&mut self, token: Token, top: bool) -> bool {
        if token.word == Word::Fetch && self.n == 0 {
            return self.rest_as_name(token);
        }
        if top {
            self.facts.flags |= if token.word == Word::Offset {
                flag::OFFSET
            } else {
                flag::LIMIT
            };
        }
        self.cur.clause = Clause::Other;
        false
    }

    /// FETCH, MOVE: one id for each verb, whatever follows (R13).
    fn rest_as_name(&mut self, token: Token) -> bool {
        self.emit_word(token);
        let from = self.lx.pos;
        let to = self.skip_statement();
        let text = &self.lx.text()[from..to];
        self.name(text);
        true
    }

    /// Goes to the end of the statement; gives the end of its last token.
    fn skip_statement(&mut self) -> usize {
        let mut end = self.lx.pos;
        loop {
            let mut ahead = self.lx;
            let token = ahead.next();
            if matches!(token.kind, Kind::Semi | Kind::End) {
                if token.kind == Kind::End {
                    self.lx = ahead;
                }
                return end;
            }
            end = token.end;
            self.lx = ahead;
        }
    }

    /// `SET x = anything` is `SET x = $` (R13): the value may be a secret.
    fn set_statement(&mut self, set: Token) -> bool {
        self.emit_word(set);
        loop {
            let mut ahead = self.lx;
            let token = ahead.next();
            match (token.kind, token.word) {
                (Kind::Semi | Kind::End, _) => return true,
                // These hold no values: back to the common path.
                (Kind::Word, Word::Transaction | Word::Characteristics | Word::Constraints) => {
                    return true;
                }
                (Kind::Word, Word::Session) if !session_noise(ahead) => self.emit_word(token),
                (Kind::Word, Word::Session) => self
                    .sink
                    .put(Lexeme::Word(self.lx.bytes(&token), token.word)),
                (Kind::Word, Word::To) => return self.set_value(ahead, true),
                (
                    Kind::Word,
                    Word::Zone | Word::Role | Word::Authorization | Word::Names | Word::Schema,
                ) => {
                    self.emit_word(token);
                    return self.set_value(ahead, false);
                }
                (Kind::Word | Kind::Quoted, word) => {
                    self.sets_scs |= word == Word::ScsName;
                    self.emit(token.hash, Word::Ident);
                    let text = self.lx.bytes(&token);
                    let word = if word == Word::Local {
                        Word::Local
                    } else {
                        Word::Plain
                    };
                    self.sink.put(if token.kind == Kind::Word {
                        Lexeme::Word(text, word)
                    } else {
                        Lexeme::Quoted(text)
                    });
                }
                (Kind::Dot, _) => {
                    self.emit(T_DOT, Word::Dot);
                    self.sink.put(Lexeme::Dot);
                }
                (Kind::Op, _) if token.hash == T_EQUALS => return self.set_value(ahead, true),
                _ => return self.set_value(self.lx, false),
            }
            self.lx = ahead;
        }
    }

    /// The value of SET, from `lexer` to the end of the statement: one literal.
    fn set_value(&mut self, lexer: Lexer<'s>, equals: bool) -> bool {
        if equals {
            self.emit(T_EQUALS, Word::Op);
            self.sink.put(Lexeme::Op(b"="));
        }
        self.lx = lexer;
        let from = lexer.pos;
        let end = self.skip_statement();
        if end > from {
            self.literal(Token {
                kind: Kind::Str,
                word: Word::Lit,
                start: from,
                end,
                hash: 0,
            });
        }
        true
    }

    fn select(&mut self) {
        if !self.cur.segment {
            self.start_segment(matches!(self.prev, Word::Union | Word::All));
        }
        self.cur.query = true;
        self.cur.clause = Clause::Select;
    }

    fn set_operation(&mut self, _: Token) {
        if self.cur.shell != Shell::Case {
            self.end_segment();
        }
        self.cur.clause = Clause::None;
    }

    /// A writing verb: decides what a WITH does, and tells `FOR UPDATE`.
    fn verb(&mut self, token: Token, top: bool) {
        if token.word == Word::Update && matches!(self.prev, Word::For | Word::Key) {
            self.facts.flags |= flag::FOR_UPDATE;
        } else if self.first == Word::With && self.prev == Word::Open {
            self.cte_op = Some(kind::operation(token.word));
            self.cur.query = true;
        } else if top && self.first == Word::With && self.prev == Word::Close {
            self.facts.operation = kind::operation(token.word);
            self.cur.query = true;
        } else {
            return;
        }
        if token.word == Word::Update && self.prev != Word::For && self.prev != Word::Key {
            self.watch |= WATCH_TABLE;
        }
    }

    /// A literal of any kind: the placeholder in the form, its bytes in the keyed hash.
    #[inline(always)]
    pub(super) fn literal(&mut self, token: Token) {
        self.lits = self.keyed.absorb(self.lits, self.lx.bytes(&token));
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
        } else if self.cur.clause == Clause::Order
            && self.prev == Word::Comma
            && self.ordinal(token)
        {
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
            self.sink
                .put(Lexeme::Word(&self.lx.text()[start..end], Word::Plain));
            return self.sink.put(Lexeme::TypeEnd);
        }
        self.literal(token);
    }

    #[inline(always)]
    fn operator(&mut self, token: Token) {
        let text = self.lx.bytes(&token);
        if matches!(text, b"-" | b"+") && attr(self.prev) & SIGN_OK != 0 && self.lx.number_follows()
        {
            let number = self.lx.next();
            return self.literal(Token {
                start: token.start,
                ..number
            });
        }
        self.range_op = matches!(token.hash, T_LESS | T_GREATER | T_LESS_EQ | T_GREATER_EQ);
        self.emit(token.hash, token.word);
        self.sink
            .put(Lexeme::Op(if text == b"!=" { b"<>" } else { text }));
    }

    fn other(&mut self, token: Token) {
        let text = self.lx.bytes(&token);
        let prev = if token.kind == Kind::Colon {
            Word::Colon
        } else {
            Word::Op
        };
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
            facts.flags |= if super::frames::is_ping(&facts, self.n, self.first, self.prev) {
                flag::PING
            } else {
                0
            };
            facts.flags |= if self.django_session == (true, true) {
                flag::DJANGO_SESSION
            } else {
                0
            };
            if !self.has_from && self.set_config {
                facts.operation = Operation::Session;
            }
        }
        facts.flags |= if self.tables > 0 && self.tables == self.catalogs {
            flag::CATALOG
        } else {
            0
        };
        facts.flags |= if self.lx.comment { flag::COMMENT } else { 0 };
        facts.flags |= if self.lx.open_end || self.lx.capped() {
            flag::TRUNCATED
        } else {
            0
        };
        facts
    }
}

/// `SET SESSION x`: the word SESSION is noise; `lexer` stands behind it.
fn session_noise(mut lexer: Lexer<'_>) -> bool {
    !matches!(
        lexer.next().word,
        Word::Authorization | Word::Characteristics
    )
}
