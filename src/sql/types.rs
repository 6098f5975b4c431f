//! Casts and type names (rules R9, R10).

use super::canon::Canon;
use super::form::{Lexeme, Sink, T_CAST};
use super::hash;
use super::lexer::{Kind, Lexer, Token};
use super::words::Word;

/// Tokens of one type modifier, `(10, 2)`.
const MODIFIER_TOKENS: usize = 8;
/// Digits of a number in a type modifier that may be shown.
const MODIFIER_DIGITS: usize = 5;

impl<S: Sink> Canon<'_, '_, S> {
    /// `::type`: behind a literal it only shows, behind anything else it counts.
    pub(super) fn cast(&mut self) {
        let counts = !matches!(self.prev, Word::Lit | Word::LitGroup);
        let prev = self.prev;
        if counts {
            self.emit(T_CAST, Word::Op);
        }
        self.sink.put(Lexeme::Cast);
        self.type_name(counts);
        self.sink.put(Lexeme::TypeEnd);
        self.prev = if counts { Word::Ident } else { prev };
    }

    /// A type name at the lexer's position: shown, and hashed when it `counts`.
    pub(super) fn type_name(&mut self, counts: bool) {
        let end = type_end(self.lx);
        while self.lx.pos < end {
            let token = self.lx.next();
            if token.end > end || token.kind == Kind::End {
                break;
            }
            self.type_token(token, counts);
        }
        self.note_bracket(Lexer { pos: end, ..self.lx });
        if counts {
            self.prev = Word::Ident;
        }
    }

    /// A bracket behind a type name that was not taken for its modifier: with a shorter number it might be.
    fn note_bracket(&mut self, lexer: Lexer<'_>) {
        self.unfit |= matches!(peek(lexer).0.kind, Kind::Open | Kind::OpenBracket);
    }

    fn type_token(&mut self, token: Token, counts: bool) {
        let text = self.lx.bytes(&token);
        if counts {
            let h = match token.kind {
                Kind::Word | Kind::Quoted => token.hash,
                _ => hash::word_raw(hash::OP_SEED, text),
            };
            self.emit(h, Word::Ident);
        }
        self.sink.put(match token.kind {
            Kind::Word => Lexeme::Word(text, Word::Plain),
            Kind::Quoted => Lexeme::Quoted(text),
            Kind::Dot => Lexeme::Dot,
            Kind::Comma => Lexeme::Comma,
            Kind::Open => Lexeme::Open(b'('),
            Kind::OpenBracket => Lexeme::Open(b'['),
            Kind::Close => Lexeme::Close(b')'),
            Kind::CloseBracket => Lexeme::Close(b']'),
            _ => Lexeme::Number(text),
        });
    }

    /// `timestamp(3) with time zone '...'`, `interval '1' day to second`: the literal alone counts (R10).
    pub(super) fn type_literal(&mut self, first: Token) -> bool {
        let mut ahead = self.lx;
        ahead.pos = first.start;
        let end = type_end_without_fields(ahead);
        ahead.pos = end.max(first.end);
        self.note_bracket(ahead);
        let string = ahead.next();
        if string.kind != Kind::Str || self.prev == Word::Dot {
            return false;
        }
        let mut type_at = self.lx;
        type_at.pos = first.start;
        self.lx = ahead;
        self.literal(string);
        self.sink.put(Lexeme::Cast);
        let back = std::mem::replace(&mut self.lx, type_at);
        let h = self.cur.h;
        while self.lx.pos < end {
            let token = self.lx.next();
            self.type_token(token, false);
        }
        self.cur.h = h;
        self.lx = back;
        if first.word == Word::Interval {
            let fields = interval_fields(self.lx);
            self.note_bracket(Lexer { pos: fields, ..self.lx });
            while self.lx.pos < fields {
                let token = self.lx.next();
                self.type_token(token, false);
            }
        }
        self.sink.put(Lexeme::TypeEnd);
        true
    }
}

fn peek(lexer: Lexer<'_>) -> (Token, Lexer<'_>) {
    let mut ahead = lexer;
    let token = ahead.next();
    (token, ahead)
}

/// Where the type name that starts at the lexer's position ends; the position itself when there is none.
fn type_end(lexer: Lexer<'_>) -> usize {
    let (first, _) = peek(lexer);
    let mut at = lexer;
    at.pos = type_end_without_fields(lexer);
    if first.word == Word::Interval {
        at.pos = interval_fields(at);
    }
    loop {
        let (token, ahead) = peek(at);
        match token.kind {
            Kind::OpenBracket => {
                let (inner, mut after) = peek(ahead);
                let close = if inner.kind == Kind::Number && inner.end - inner.start <= MODIFIER_DIGITS {
                    after.next()
                } else {
                    inner
                };
                if close.kind != Kind::CloseBracket {
                    return at.pos;
                }
                at.pos = close.end;
            }
            Kind::Word if token.word == Word::Array && at.pos > lexer.pos => at = ahead,
            _ => return at.pos,
        }
    }
}

fn type_end_without_fields(lexer: Lexer<'_>) -> usize {
    let (mut token, mut at) = peek(lexer);
    if !matches!(token.kind, Kind::Word | Kind::Quoted) {
        return lexer.pos;
    }
    loop {
        let (dot, after_dot) = peek(at);
        let (part, after) = peek(after_dot);
        if dot.kind != Kind::Dot || !matches!(part.kind, Kind::Word | Kind::Quoted) {
            break;
        }
        (token, at) = (part, after);
    }
    let (next, after) = peek(at);
    match (token.word, next.word) {
        (Word::Double, Word::Precision) | (Word::Character | Word::Char | Word::Nchar | Word::Bit, Word::Varying) => {
            at = after
        }
        (Word::National, Word::Character | Word::Char) => {
            let (varying, after_varying) = peek(after);
            at = if varying.word == Word::Varying { after_varying } else { after };
        }
        _ => {}
    }
    at.pos = modifier_end(at);
    if matches!(token.word, Word::Time | Word::Timestamp) {
        at.pos = time_zone(at);
    }
    at.pos
}

/// `(10, 2)` or `(Point, 4326)`: passed when it holds no string and no long number.
fn modifier_end(lexer: Lexer<'_>) -> usize {
    let (open, mut at) = peek(lexer);
    if open.kind != Kind::Open {
        return lexer.pos;
    }
    for _ in 0..MODIFIER_TOKENS {
        let token = at.next();
        match token.kind {
            Kind::Close => return token.end,
            Kind::Number if token.end - token.start <= MODIFIER_DIGITS => {}
            Kind::Word | Kind::Comma => {}
            _ => break,
        }
    }
    lexer.pos
}

fn time_zone(lexer: Lexer<'_>) -> usize {
    let mut at = lexer;
    let words = [at.next().word, at.next().word, at.next().word];
    match words {
        [Word::With | Word::Without, Word::Time, Word::Zone] => at.pos,
        _ => lexer.pos,
    }
}

/// `DAY TO SECOND(3)` behind an interval.
fn interval_fields(lexer: Lexer<'_>) -> usize {
    let field = |w| matches!(w, Word::Year | Word::Month | Word::Day | Word::Hour | Word::Minute | Word::Second);
    let (from, mut at) = peek(lexer);
    if !field(from.word) || from.kind != Kind::Word {
        return lexer.pos;
    }
    let (to, after) = peek(at);
    let (last, after_last) = peek(after);
    if to.word == Word::To && field(last.word) {
        at = after_last;
    }
    modifier_end(at)
}
