//! What single keywords mean to the canonicaliser: clauses, limits, SET, dynamic names, writing verbs.

use super::canon::Canon;
use super::form::{Clause, Lexeme, MAX_DEPTH, Shell, Sink, T_DOT, T_EQUALS, WATCH_NAME, WATCH_TABLE};
use super::lexer::{Kind, Lexer, Token};
use super::words::{NULL_OK, Word, attr};
use super::{effect, flag, kind};

impl<'s, S: Sink> Canon<'s, '_, S> {
    /// Rules of one keyword. True when the token has been dealt with.
    pub(super) fn keyword(&mut self, token: Token) -> bool {
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
            Word::Group | Word::Order | Word::Having | Word::Window | Word::Returning | Word::For => {
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

    pub(super) fn rare_keyword(&mut self, token: Token, top: bool) -> bool {
        match token.word {
            Word::Case if self.stack.len() < MAX_DEPTH => {
                self.push(Shell::Case, false, false);
                self.n += 1;
                self.prev = Word::Case;
                self.sink.put(Lexeme::Word(self.lx.bytes(&token), token.word));
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
            Word::Share | Word::No | Word::Key if self.prev == Word::For => self.facts.flags |= flag::FOR_UPDATE,
            Word::Locked if self.prev == Word::Skip => self.facts.flags |= flag::LOCK_QUEUE,
            Word::Nowait if self.facts.flags & flag::FOR_UPDATE != 0 => self.facts.flags |= flag::LOCK_QUEUE,
            Word::Conflict if self.prev == Word::On => self.facts.flags |= flag::ON_CONFLICT,
            Word::Temp | Word::Temporary if matches!(self.prev, Word::Into | Word::Local | Word::Global) => {
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
    pub(super) fn silent(&mut self, token: Token) -> bool {
        self.sink.put(Lexeme::Word(self.lx.bytes(&token), token.word));
        if token.word == Word::As {
            self.prev = Word::As;
            if self.cur.shell == Shell::Cast {
                self.type_name(true);
            }
        }
        true
    }

    pub(super) fn limit_word(&mut self, token: Token, top: bool) -> bool {
        if token.word == Word::Fetch && self.n == 0 {
            return self.rest_as_name(token);
        }
        if top {
            self.facts.flags |= if token.word == Word::Offset { flag::OFFSET } else { flag::LIMIT };
        }
        self.cur.clause = Clause::Other;
        false
    }

    /// FETCH, MOVE: one id for each verb, whatever follows (R13).
    pub(super) fn rest_as_name(&mut self, token: Token) -> bool {
        self.emit_word(token);
        let from = self.lx.pos;
        let to = self.skip_statement();
        let text = &self.lx.text()[from..to];
        self.name(text);
        true
    }

    /// Goes to the end of the statement; gives the end of its last token.
    pub(super) fn skip_statement(&mut self) -> usize {
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
    pub(super) fn set_statement(&mut self, set: Token) -> bool {
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
                (Kind::Word, Word::Session) => self.sink.put(Lexeme::Word(self.lx.bytes(&token), token.word)),
                (Kind::Word, Word::To) => return self.set_value(ahead, true),
                (Kind::Word, Word::Zone | Word::Role | Word::Authorization | Word::Names | Word::Schema) => {
                    self.emit_word(token);
                    return self.set_value(ahead, false);
                }
                (Kind::Word | Kind::Quoted, word) => {
                    self.sets_scs |= word == Word::ScsName;
                    self.emit(token.hash, Word::Ident);
                    let text = self.lx.bytes(&token);
                    let word = if word == Word::Local { Word::Local } else { Word::Plain };
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
    pub(super) fn set_value(&mut self, lexer: Lexer<'s>, equals: bool) -> bool {
        if equals {
            self.emit(T_EQUALS, Word::Op);
            self.sink.put(Lexeme::Op(b"="));
        }
        self.lx = lexer;
        let from = lexer.pos;
        let end = self.skip_statement();
        if end > from {
            self.literal(Token { kind: Kind::Str, word: Word::Lit, start: from, end, hash: 0 });
        }
        true
    }

    pub(super) fn select(&mut self) {
        if !self.cur.segment {
            self.start_segment(matches!(self.prev, Word::Union | Word::All));
        }
        self.cur.query = true;
        self.cur.clause = Clause::Select;
    }

    pub(super) fn set_operation(&mut self, _: Token) {
        if self.cur.shell != Shell::Case {
            self.end_segment();
        }
        self.cur.clause = Clause::None;
    }

    /// A writing verb: decides what a WITH does, and tells `FOR UPDATE`.
    pub(super) fn verb(&mut self, token: Token, top: bool) {
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

    /// First keyword of the statement.
    pub(super) fn begin(&mut self, token: Token) {
        self.first = token.word;
        self.facts.operation = kind::operation(token.word);
        self.facts.effects |= kind::effects(token.word, self.lx);
        self.cur.query = matches!(token.word, Word::Delete | Word::Update);
        if matches!(token.word, Word::Update | Word::Into) {
            self.watch |= WATCH_TABLE;
        }
        self.watch |= if kind::names_follow(token.word, self.lx) { WATCH_NAME } else { 0 };
    }

    /// A keyword where a dynamic name stands: `SAVEPOINT key`. The grammar's own words pass.
    pub(super) fn unreserved_name(&mut self, token: Token) -> bool {
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
}

/// `SET SESSION x`: the word SESSION is noise; `lexer` stands behind it.
fn session_noise(mut lexer: Lexer<'_>) -> bool {
    !matches!(lexer.next().word, Word::Authorization | Word::Characteristics)
}
