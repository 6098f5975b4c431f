//! Groups and arms: the frame stack of the canonicaliser (rules R11, R12, R16).

use super::canon::Canon;
use super::form::{
    Clause, Frame, Lexeme, MAX_DEPTH, Shell, Sink, T_ATOMIC, T_BRACKET, T_CASE, T_CLOSE, T_LIST, T_OPEN, T_SEGMENT,
};
use super::hash;
use super::lexer::Token;
use super::words::{BARE, Word, attr};
use super::{Statement, effect};

impl<S: Sink> Canon<'_, '_, S> {
    /// Opens a frame inside the current one.
    pub(super) fn push(&mut self, shell: Shell, bare: bool, joined: bool) {
        if self.stack.len() >= MAX_DEPTH {
            self.flat += 1;
            self.cur.h = hash::step(self.cur.h, T_OPEN);
            self.cur.pure = false;
            return;
        }
        let frame = Frame { bare, joined, ..Frame::new(shell) };
        self.stack.push(std::mem::replace(&mut self.cur, frame));
    }

    pub(super) fn open(&mut self) {
        self.n += 1;
        let shell = match (self.prev, self.cur.shell, self.cur.clause) {
            (Word::In, ..) => Shell::List,
            (Word::Cast, ..) => Shell::Cast,
            (Word::SetConfig, ..) => Shell::SetConfig,
            (Word::Values | Word::Comma, _, Clause::Values) => Shell::Row,
            (Word::Open | Word::Comma, Shell::List, _) => Shell::Item,
            _ => Shell::Paren,
        };
        let bare =
            attr(self.prev) & BARE != 0 && (self.prev != Word::Comma || matches!(shell, Shell::Row | Shell::Item));
        let since = self.n - self.cur.group_n;
        let joined = bare
            && self.cur.group_n > 0
            && match self.prev {
                Word::Comma | Word::And | Word::Or | Word::Union => since == 2,
                Word::All => since == 3,
                _ => false,
            };
        self.sink.put(Lexeme::Open(b'('));
        self.watch &= !super::form::WATCH_TABLE;
        self.push(shell, bare, joined);
        self.prev = Word::Open;
    }

    pub(super) fn open_bracket(&mut self) {
        self.n += 1;
        let array = self.prev == Word::Array
            || (self.cur.shell == Shell::Array && matches!(self.prev, Word::Open | Word::Comma));
        self.sink.put(Lexeme::Open(b'['));
        let (word, before) = (self.prev == Word::Array, self.before_array);
        let depth = self.stack.len();
        self.push(if array { Shell::Array } else { Shell::Subscript }, word, false);
        if self.stack.len() > depth {
            (self.cur.outer_h, self.cur.outer_pure) = before;
        }
        self.prev = Word::Open;
    }

    pub(super) fn close_bracket(&mut self) {
        if self.flat > 0 || !matches!(self.cur.shell, Shell::Array | Shell::Subscript) {
            self.flat = self.flat.saturating_sub(1);
            self.sink.put(Lexeme::Close(b']'));
            return self.emit(T_CLOSE, Word::Close);
        }
        self.n += 1;
        let literal = self.cur.shell == Shell::Array && self.cur.pure && self.cur.items > 0;
        let child = self.pop(literal);
        self.sink.put(Lexeme::Close(b']'));
        if literal {
            self.array_literal(&child);
        } else {
            self.cur.h = hash::step(self.cur.h, hash::group(child.h, T_BRACKET));
            self.cur.pure = false;
            self.prev = Word::Close;
        }
    }

    /// `ARRAY[1, 2]` is one literal: drivers write an empty one as `'{}'`, and others send a parameter.
    fn array_literal(&mut self, child: &Frame<S::Mark>) {
        self.note_list(child.items);
        if child.bare {
            // Take back the word ARRAY, which is in the hash already.
            self.cur.h = child.outer_h;
            self.cur.pure = child.outer_pure;
        }
        self.cur.h = hash::step(self.cur.h, super::form::T_LIT);
        self.cur.items += 1;
        self.prev = Word::Lit;
    }

    /// Takes the current frame off the stack; with `squash` its list shows one element.
    fn pop(&mut self, squash: bool) -> Frame<S::Mark> {
        self.end_segment();
        if squash {
            if self.cur.items > 1 {
                self.sink.rollback(self.cur.first_mark);
            }
            self.sink.put(Lexeme::Ellipsis);
        }
        let outer = self.stack.pop().unwrap_or_else(|| Frame::new(Shell::Top));
        std::mem::replace(&mut self.cur, outer)
    }

    pub(super) fn close_paren(&mut self) {
        while self.cur.shell == Shell::Case && self.flat == 0 {
            // A CASE without its END: closed with the parenthesis around it.
            self.close_block(T_CASE);
        }
        if self.flat > 0
            || self.stack.is_empty()
            || matches!(self.cur.shell, Shell::Array | Shell::Subscript | Shell::Atomic)
        {
            self.flat = self.flat.saturating_sub(1);
            self.sink.put(Lexeme::Close(b')'));
            return self.emit(T_CLOSE, Word::Close);
        }
        self.n += 1;
        let squash = self.cur.shell == Shell::List && self.cur.pure && self.cur.items > 0;
        let last_true = self.cur.shell == Shell::SetConfig && self.set_config_local();
        let child = self.pop(squash);
        self.sink.put(Lexeme::Close(b')'));
        self.prev = Word::Close;
        if child.shell == Shell::SetConfig && !last_true {
            self.facts.effects |= effect::SET;
        }
        let sole = child.pure && child.items == 1;
        if sole && child.shell == Shell::Item {
            // `IN ((1), (2))` is `IN (1, 2)`.
            self.cur.h = hash::step(self.cur.h, super::form::T_LIT);
            self.cur.items += 1;
            self.prev = Word::Lit;
            return;
        }
        if squash {
            self.note_list(child.items);
        } else if sole && child.shell == Shell::Paren {
            self.prev = Word::LitGroup;
        }
        let token = if squash { T_LIST } else { hash::group(child.h, T_OPEN) };
        self.close_group(&child, token);
    }

    /// A closed group: one more token, unless it repeats the group before it.
    fn close_group(&mut self, child: &Frame<S::Mark>, token: u64) {
        self.cur.pure = false;
        if child.joined && token == self.cur.group_t {
            self.cur.h = self.cur.group_h;
            self.cur.groups += 1;
            self.cur.group_n = self.n;
            self.note_list(self.cur.groups);
            return self.sink.rollback(self.cur.group_mark);
        }
        self.cur.h = hash::step(self.cur.h, token);
        if child.bare {
            self.cur.group_h = self.cur.h;
            self.cur.group_t = token;
            self.cur.group_n = self.n;
            self.cur.groups = 1;
            self.cur.group_mark = self.sink.mark();
        } else {
            self.cur.group_n = 0;
        }
    }

    fn note_list(&mut self, items: u32) {
        let items = u16::try_from(items).unwrap_or(u16::MAX);
        self.facts.max_list = self.facts.max_list.max(items);
    }

    /// END of a CASE or of BEGIN ATOMIC.
    pub(super) fn end_block(&mut self, token: Token) {
        self.n += 1;
        let tag = if self.cur.shell == Shell::Case { T_CASE } else { T_ATOMIC };
        self.close_block(tag);
        self.sink.put(Lexeme::Word(self.lx.bytes(&token), Word::End));
        self.prev = Word::End;
    }

    fn close_block(&mut self, tag: u64) {
        let child = self.pop(false);
        self.cur.h = hash::step(self.cur.h, hash::group(child.h, tag));
        self.cur.pure = false;
        self.prev = Word::End;
    }

    /// Starts an arm: a SELECT between set operations, a WHEN of a CASE.
    pub(super) fn start_segment(&mut self, joined: bool) {
        self.cur.seg_outer = self.cur.h;
        self.cur.h = hash::SEQ_SEED;
        self.cur.segment = true;
        self.cur.seg_joined = joined && self.cur.seg_seen;
    }

    /// Ends the open arm; one that repeats the arm before it is dropped (R16).
    pub(super) fn end_segment(&mut self) {
        if !self.cur.segment {
            return;
        }
        let token = hash::group(self.cur.h, T_SEGMENT);
        self.cur.segment = false;
        if self.cur.seg_joined && token == self.cur.seg_last {
            self.cur.h = self.cur.seg_after;
            return self.sink.rollback(self.cur.seg_mark);
        }
        self.cur.h = hash::step(self.cur.seg_outer, token);
        self.cur.seg_after = self.cur.h;
        self.cur.seg_last = token;
        self.cur.seg_seen = true;
        self.cur.seg_mark = self.sink.mark();
    }

    /// Closes whatever is open at the end of the statement and gives the hash of the form.
    pub(super) fn close_all(&mut self) -> u64 {
        if self.lx.capped() {
            self.drop_partial_row();
        }
        loop {
            self.end_segment();
            let Some(outer) = self.stack.pop() else {
                return self.cur.h;
            };
            let child = std::mem::replace(&mut self.cur, outer);
            let list = child.shell == Shell::List && child.pure;
            if list {
                self.note_list(child.items);
            }
            self.cur.h = hash::step(self.cur.h, if list { T_LIST } else { hash::group(child.h, T_OPEN) });
        }
    }

    /// R12: at the cap, the row in work is dropped: a long INSERT is a short one.
    fn drop_partial_row(&mut self) {
        let row = self.stack.iter().chain([&self.cur]).position(|f| f.shell == Shell::Row);
        if let Some(depth) = row.filter(|&d| d > 0 && self.stack[d - 1].group_n > 0) {
            self.cur = self.stack[depth - 1];
            self.stack.truncate(depth - 1);
            self.cur.h = self.cur.group_h;
            self.sink.rollback(self.cur.group_mark);
        } else if self.cur.clause == Clause::Values && self.prev == Word::Comma && self.cur.group_n > 0 {
            self.cur.h = self.cur.group_h;
            self.sink.rollback(self.cur.group_mark);
        }
    }

    /// True when the third argument of `set_config` is the word TRUE: then it lasts only for the transaction.
    fn set_config_local(&self) -> bool {
        self.cur.items == 3 && self.last_true
    }
}

/// Whether the facts tell a plain `SELECT <literal>`.
pub(super) fn is_ping(facts: &Statement, tokens: u32, first: Word, last: Word) -> bool {
    facts.operation == super::Operation::Select && tokens == 2 && first == Word::Select && last == Word::Lit
}
