//! Bytes to tokens, exactly as PostgreSQL's `scan.l` cuts them (rules R1 to R8, R22, R23).
//!
//! Table driven, eight bytes at a time through quoted identifiers, memchr through strings and comments; never
//! recursive, never allocating, linear in the text. Words come with their hash, so that recognising a keyword and
//! feeding the fingerprint cost one computation.

use memchr::{memchr, memchr2};

use super::LexSettings;
use super::hash::{self, find8, keep, load8};
use super::words::{self, Word};

/// Bytes lexed of one text, string contents not counted (R23). The rest goes only into the hash of literals.
pub(super) const LEX_CAP: usize = 64 * 1024;
/// A string shorter than this counts against [`LEX_CAP`] like any other text.
pub(super) const FREE_STRING: usize = 32;

/// Kind of a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    End,
    Word,
    Quoted,
    Number,
    Str,
    Param,
    Op,
    Open,
    Close,
    OpenBracket,
    CloseBracket,
    Comma,
    Dot,
    Cast,
    Colon,
    Semi,
    Other,
}

/// A token: where it stands, and for words and operators their hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub kind: Kind,
    /// The known word (for [`Kind::Word`] and [`Kind::Quoted`]).
    pub word: Word,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// Hash of a word or operator.
    pub hash: u64,
}

const SPACE: u8 = 0;
const LETTER: u8 = 1;
const DIGIT: u8 = 2;
const DQUOTE: u8 = 3;
const SQUOTE: u8 = 4;
const DOLLAR: u8 = 5;
const OP: u8 = 6;
const COMMA: u8 = 7;
const DOT: u8 = 8;
const OPEN: u8 = 9;
const CLOSE: u8 = 10;
const OPEN_BRACKET: u8 = 11;
const CLOSE_BRACKET: u8 = 12;
const SEMI: u8 = 13;
const COLON: u8 = 14;
const OTHER: u8 = 15;
/// Bit of a byte that continues an identifier.
pub(super) const CONT: u8 = 0x80;

static CLASS: [u8; 256] = {
    let mut t = [OTHER; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        t[i] = match b {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => SPACE,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => LETTER | CONT,
            b'0'..=b'9' => DIGIT | CONT,
            b'"' => DQUOTE,
            b'\'' => SQUOTE,
            b'$' => DOLLAR | CONT,
            b'+' | b'-' | b'*' | b'/' | b'<' | b'>' | b'=' | b'~' | b'!' | b'@' | b'#' | b'%' | b'^' | b'&' | b'|'
            | b'`' | b'?' => OP,
            b',' => COMMA,
            b'.' => DOT,
            b'(' => OPEN,
            b')' => CLOSE,
            b'[' => OPEN_BRACKET,
            b']' => CLOSE_BRACKET,
            b';' => SEMI,
            b':' => COLON,
            _ => OTHER,
        };
        i += 1;
    }
    t
};

#[inline(always)]
pub(super) fn class(b: u8) -> u8 {
    CLASS[b as usize]
}

pub(super) fn is_space(b: u8) -> bool {
    class(b) == SPACE
}

/// How backslashes are read inside a string.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Escapes {
    /// `E'...'`, or `'...'` with standard_conforming_strings off.
    On,
    Off,
    /// Setting unknown: the text is in doubt where both readings would end the string elsewhere.
    Unknown,
}

/// The lexer's position in one text. `Copy`: looking ahead is lexing with a copy.
#[derive(Clone, Copy)]
pub(super) struct Lexer<'s> {
    /// What may be lexed: a prefix of `full`.
    pub(super) src: &'s [u8],
    pub(super) full: &'s [u8],
    pub pos: usize,
    pub(super) plain: Escapes,
    /// A `/* */` comment was passed.
    pub comment: bool,
    /// The text ended inside a literal, quoted identifier or comment.
    pub open_end: bool,
    /// Strings passed, and whether one was followed by a letter at once: then its end may not be where it seems.
    pub strings: u32,
    pub glued: bool,
    /// The two readings of backslashes differ (only with an unknown setting).
    pub doubt: bool,
}

impl<'s> Lexer<'s> {
    pub fn new(full: &'s [u8], settings: LexSettings) -> Self {
        let plain = match settings.standard_conforming_strings {
            Some(true) => Escapes::Off,
            Some(false) => Escapes::On,
            None => Escapes::Unknown,
        };
        let src = &full[..full.len().min(LEX_CAP)];
        Self { src, full, pos: 0, plain, comment: false, open_end: false, strings: 0, glued: false, doubt: false }
    }

    /// The cap was reached before the end of the text.
    pub fn capped(&self) -> bool {
        self.src.len() < self.full.len() && self.pos >= self.src.len()
    }

    /// Quotes may be shifted (a backslash meant as an escape, text cut in the middle): what looks like a name may be
    /// the inside of a literal, so nothing may be shown.
    pub fn unsure(&self) -> bool {
        self.doubt || self.glued || (self.open_end && self.strings > 1)
    }

    /// The whole text.
    pub fn text(&self) -> &'s [u8] {
        self.full
    }

    /// The bytes of a token.
    pub fn bytes(&self, t: &Token) -> &'s [u8] {
        self.full.get(t.start..t.end).unwrap_or_default()
    }

    #[inline(always)]
    pub(super) fn at(&self, i: usize) -> u8 {
        self.src.get(i).copied().unwrap_or(0)
    }

    /// The next token. Comments and white space are passed over.
    #[inline(always)]
    pub fn next(&mut self) -> Token {
        loop {
            let Some(&b) = self.src.get(self.pos) else {
                return self.end_token();
            };
            match class(b) & !CONT {
                SPACE => self.pos += 1,
                DQUOTE => return self.quoted(self.pos + 1),
                LETTER => return self.word(),
                COMMA => return self.punct(Kind::Comma, 1),
                DOT => {
                    if class(self.at(self.pos + 1)) == DIGIT | CONT {
                        return self.number();
                    }
                    let n = if self.at(self.pos + 1) == b'.' { 2 } else { 1 };
                    return self.punct(if n == 2 { Kind::Other } else { Kind::Dot }, n);
                }
                DIGIT => return self.number(),
                SQUOTE => return self.plain_string(),
                OPEN => return self.punct(Kind::Open, 1),
                CLOSE => return self.punct(Kind::Close, 1),
                OP => {
                    if let Some(token) = self.operator_or_comment() {
                        return token;
                    }
                }
                OPEN_BRACKET => return self.punct(Kind::OpenBracket, 1),
                CLOSE_BRACKET => return self.punct(Kind::CloseBracket, 1),
                SEMI => return self.punct(Kind::Semi, 1),
                COLON => {
                    return match self.at(self.pos + 1) {
                        b':' => self.punct(Kind::Cast, 2),
                        b'=' => self.punct(Kind::Other, 2),
                        _ => self.punct(Kind::Colon, 1),
                    };
                }
                DOLLAR => return self.dollar(),
                _ => {
                    // No SQL has such a byte outside of literals: whatever this is, none of it may be shown.
                    self.doubt = true;
                    return self.punct(Kind::Other, 1);
                }
            }
        }
    }

    /// Goes to the next token, over white space and comments.
    #[inline]
    pub(super) fn pass_space(&mut self) {
        while let Some(&b) = self.src.get(self.pos) {
            match class(b) & !CONT {
                SPACE => self.pos += 1,
                OP if self.comment() => {}
                _ => break,
            }
        }
    }

    #[cold]
    pub(super) fn end_token(&mut self) -> Token {
        self.pos = self.src.len();
        Token { kind: Kind::End, word: Word::Start, start: self.pos, end: self.pos, hash: 0 }
    }

    #[inline(always)]
    pub(super) fn punct(&mut self, kind: Kind, n: usize) -> Token {
        let start = self.pos;
        self.pos = (start + n).min(self.src.len());
        Token { kind, word: Word::Op, start, end: self.pos, hash: 0 }
    }

    /// True for a token that the cap may have cut in two: it is not returned.
    #[inline(always)]
    pub(super) fn cut(&self, end: usize) -> bool {
        end >= self.src.len() && self.src.len() < self.full.len()
    }

    /// `"..."` whose content starts at `from`. The token covers the quotes.
    #[inline(always)]
    pub(super) fn quoted(&mut self, from: usize) -> Token {
        let (mut acc, mut i) = (hash::WORD_SEED, from);
        loop {
            let w = load8(self.src, i);
            let hit = find8(w, b'"');
            if hit != 0 {
                let n = hit.trailing_zeros() as usize / 8;
                if n > 0 || i == from {
                    acc = hash::chunk(acc, keep(w, n));
                }
                i += n;
                break;
            }
            acc = hash::chunk(acc, w);
            i += 8;
            if i >= self.src.len() {
                return self.unterminated_quote();
            }
        }
        if self.at(i + 1) == b'"' || self.cut(i + 1) {
            return self.quoted_slow(from, i);
        }
        let (word, reserved) = words::quoted(acc);
        let start = self.pos;
        self.pos = i + 1;
        Token { kind: Kind::Quoted, word, start, end: i + 1, hash: if reserved { acc ^ hash::QUOTED_TAG } else { acc } }
    }

    /// A quoted identifier that holds `""`: its raw bytes are hashed.
    #[cold]
    fn quoted_slow(&mut self, from: usize, first: usize) -> Token {
        let mut i = first;
        loop {
            if self.cut(i + 1) {
                return self.end_token();
            }
            if self.at(i + 1) != b'"' {
                break;
            }
            match memchr(b'"', self.src.get(i + 2..).unwrap_or_default()) {
                Some(n) => i += 2 + n,
                None => return self.unterminated_quote(),
            }
        }
        let start = self.pos;
        self.pos = i + 1;
        let raw = hash::word_raw(hash::WORD_SEED, &self.src[from..i]);
        Token { kind: Kind::Quoted, word: Word::Ident, start, end: i + 1, hash: raw }
    }

    /// R21: a literal or quoted identifier without its end is one placeholder to the end of the text.
    #[cold]
    pub(super) fn unterminated(&mut self, start: usize) -> Token {
        self.src = self.full;
        self.pos = self.full.len();
        self.open_end = true;
        self.strings += 1;
        Token { kind: Kind::Str, word: Word::Lit, start, end: self.pos, hash: 0 }
    }

    /// A quoted identifier without its end: cut by the cap, or never closed.
    #[cold]
    fn unterminated_quote(&mut self) -> Token {
        if self.src.len() < self.full.len() { self.end_token() } else { self.unterminated(self.pos) }
    }

    #[inline(always)]
    fn word(&mut self) -> Token {
        let start = self.pos;
        let mut end = start + 1;
        while let Some(&b) = self.src.get(end) {
            if class(b) & CONT == 0 {
                if (b == b'\'' || b == b'&')
                    && let Some(token) = self.prefixed_string(start, end)
                {
                    return token;
                }
                break;
            }
            end += 1;
        }
        if self.cut(end) {
            return self.end_token();
        }
        self.pos = end;
        let hash = hash::word_lower(self.src, start, end);
        Token { kind: Kind::Word, word: words::unquoted(hash), start, end, hash }
    }

    /// A number; plain digits, by far the most common, take the short way.
    #[inline(always)]
    pub(super) fn number(&mut self) -> Token {
        let start = self.pos;
        let mut i = start + 1;
        while class(self.at(i)) == DIGIT | CONT {
            i += 1;
        }
        let next = self.at(i);
        if class(next) & CONT != 0 || next == b'.' || i >= self.src.len() || self.src[start] == b'.' {
            return self.odd_number();
        }
        self.pos = i;
        Token { kind: Kind::Number, word: Word::Lit, start, end: i, hash: 0 }
    }

    /// A number in any of PostgreSQL 16's forms; letters right behind it belong to it (R3).
    fn odd_number(&mut self) -> Token {
        let start = self.pos;
        let (mut i, mut dot) = (start, false);
        let radix = self.at(start) == b'0' && matches!(self.at(start + 1) | 0x20, b'x' | b'o' | b'b');
        loop {
            let b = self.at(i);
            let c = class(b);
            if c == DIGIT | CONT || c == LETTER | CONT {
                i += 1;
                let exponent = b | 0x20 == b'e' && !radix;
                if exponent && matches!(self.at(i), b'+' | b'-') && self.at(i + 1).is_ascii_digit() {
                    i += 1;
                }
            } else if b == b'.' && !dot && !radix && self.at(i + 1) != b'.' {
                dot = true;
                i += 1;
            } else {
                break;
            }
        }
        if self.cut(i) {
            return self.end_token();
        }
        self.pos = i;
        Token { kind: Kind::Number, word: Word::Lit, start, end: i, hash: 0 }
    }

    /// Passes the comment that begins here, if one does.
    #[inline(always)]
    fn comment(&mut self) -> bool {
        let start = self.pos;
        match (self.src[start], self.at(start + 1)) {
            (b'-', b'-') => {
                let rest = &self.src[start..];
                self.pos = start + memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            }
            (b'/', b'*') => self.block_comment(),
            _ => return false,
        }
        true
    }

    /// An operator (R7), or nothing when a comment was passed.
    fn operator_or_comment(&mut self) -> Option<Token> {
        let start = self.pos;
        if self.comment() {
            return None;
        }
        let mut end = start + 1;
        while class(self.at(end)) == OP {
            match (self.src[end], self.at(end + 1)) {
                (b'-', b'-') | (b'/', b'*') => break,
                _ => end += 1,
            }
        }
        if self.cut(end) {
            return Some(self.end_token());
        }
        if end > start + 1 {
            end = self.trim_operator(start, end);
        }
        self.pos = end;
        let one = end == start + 1;
        let word = if one && self.src[start] == b'-' { Word::Minus } else { Word::Op };
        let hash = match &self.src[start..end] {
            [b] => hash::chunk(hash::OP_SEED, u64::from(*b)),
            b"!=" => hash::word_raw(hash::OP_SEED, b"<>"),
            run => hash::word_raw(hash::OP_SEED, run),
        };
        Some(Token { kind: Kind::Op, word, start, end, hash })
    }

    /// A run that ends in `+` or `-` loses it unless it holds one of `~!@#%^&|` + "`?": `=-1` is `=`, `-1`.
    fn trim_operator(&self, start: usize, mut end: usize) -> usize {
        let run = &self.src[start..end];
        let special = |b: &u8| matches!(b, b'~' | b'!' | b'@' | b'#' | b'%' | b'^' | b'&' | b'|' | b'`' | b'?');
        if matches!(run.last(), Some(b'+' | b'-')) && !run.iter().any(special) {
            while end > start + 1 && matches!(self.src[end - 1], b'+' | b'-') {
                end -= 1;
            }
        }
        end
    }

    /// True when, after white space, a digit or `.digit` follows: the sign before it belongs to the number.
    pub fn number_follows(&self) -> bool {
        let mut i = self.pos;
        while is_space(self.at(i)) && i < self.src.len() {
            i += 1;
        }
        self.at(i).is_ascii_digit() || (self.at(i) == b'.' && self.at(i + 1).is_ascii_digit())
    }
}
