//! The lexer's long tokens: strings in all their spellings, dollar quotes, block comments.

use memchr::{memchr, memchr2};

use super::hash;
use super::lexer::{CONT, Escapes, FREE_STRING, Kind, Lexer, Token, class, is_space};
use super::words::Word;

impl Lexer<'_> {
    /// `E'`, `N'`, `B'`, `X'`, `U&'` and `U&"`: the letter belongs to what follows.
    #[cold]
    pub(super) fn prefixed_string(&mut self, start: usize, end: usize) -> Option<Token> {
        if end != start + 1 {
            return None;
        }
        match (self.src[start] | 0x20, self.at(end), self.at(end + 1)) {
            (b'e', b'\'', _) => Some(self.string(start, end, Escapes::On)),
            (b'n', b'\'', _) => Some(self.string(start, end, self.plain)),
            (b'b' | b'x', b'\'', _) => Some(self.string(start, end, Escapes::Off)),
            (b'u', b'&', b'\'') => {
                let mut token = self.string(start, end + 1, Escapes::Off);
                token.end = self.skip_uescape(token.end);
                Some(token)
            }
            (b'u', b'&', b'"') => {
                let mut token = self.quoted(end + 2);
                if token.kind == Kind::Quoted {
                    token.start = start;
                    token.end = self.skip_uescape(token.end);
                    token.word = Word::Ident;
                    token.hash ^= hash::UNICODE_TAG;
                }
                Some(token)
            }
            _ => None,
        }
    }

    /// Passes `UESCAPE 'c'`; gives the new end of the token before it. Reads bytes, not tokens: no recursion.
    pub(super) fn skip_uescape(&mut self, end: usize) -> usize {
        let space = |mut i: usize| {
            while self.full.get(i).is_some_and(|&b| is_space(b)) {
                i += 1;
            }
            i
        };
        let word = space(end);
        let known = self.full.get(word..word + 7).is_some_and(|w| w.eq_ignore_ascii_case(b"uescape"));
        let quote = space(word + 7);
        match self.full.get(quote..quote + 3) {
            Some([b'\'', _, b'\'']) if known && quote + 3 <= self.src.len() => {
                self.pos = quote + 3;
                quote + 3
            }
            _ => end,
        }
    }

    /// `'...'`.
    #[inline]
    pub(super) fn plain_string(&mut self) -> Token {
        self.string(self.pos, self.pos, self.plain)
    }

    /// A string that starts at `start` with its opening quote at `quote`, with what continues it (R2).
    pub(super) fn string(&mut self, start: usize, quote: usize, escapes: Escapes) -> Token {
        let mut from = quote + 1;
        loop {
            let Some(end) = self.string_end(from, escapes) else {
                return self.unterminated(start);
            };
            match self.continuation(end) {
                Some(next) => from = next + 1,
                None => {
                    self.pos = end;
                    self.strings += 1;
                    self.glued |= self.full.get(end).is_some_and(|&b| class(b) & CONT != 0);
                    if end - start > FREE_STRING || end > self.src.len() {
                        // String contents are scanned at memory speed: they do not count as lexed.
                        let limit = (self.src.len() + (end - start)).min(self.full.len());
                        self.src = &self.full[..limit.max(end)];
                    }
                    return Token { kind: Kind::Str, word: Word::Lit, start, end, hash: 0 };
                }
            }
        }
    }

    /// One past the closing quote of the string whose content starts at `from`.
    pub(super) fn string_end(&mut self, from: usize, escapes: Escapes) -> Option<usize> {
        let mut i = from;
        loop {
            let rest = self.full.get(i..)?;
            match escapes {
                Escapes::On => {
                    i += memchr2(b'\'', b'\\', rest)?;
                    if self.full[i] == b'\\' {
                        i += 2;
                        continue;
                    }
                }
                Escapes::Off => i += memchr(b'\'', rest)?,
                Escapes::Unknown => {
                    i += memchr(b'\'', rest)?;
                    let slashes = self.full[from..i].iter().rev().take_while(|&&b| b == b'\\').count();
                    self.doubt |= slashes % 2 == 1;
                }
            }
            if self.full.get(i + 1) != Some(&b'\'') {
                return Some(i + 1);
            }
            i += 2;
        }
    }

    /// The quote that continues a string ended at `end`: white space with a newline, `--` comments allowed, then `'`.
    pub(super) fn continuation(&self, end: usize) -> Option<usize> {
        let (mut i, mut newline) = (end, false);
        loop {
            match self.full.get(i)? {
                b'\n' | b'\r' => {
                    newline = true;
                    i += 1;
                }
                b if is_space(*b) => i += 1,
                b'-' if self.full.get(i + 1) == Some(&b'-') => {
                    i += memchr2(b'\n', b'\r', self.full.get(i..)?)?;
                }
                b'\'' if newline => return Some(i),
                _ => return None,
            }
        }
    }

    /// `$1`, `$tag$...$tag$` or a stray dollar.
    pub(super) fn dollar(&mut self) -> Token {
        let start = self.pos;
        let mut i = start + 1;
        while self.at(i).is_ascii_digit() {
            i += 1;
        }
        if i > start + 1 {
            if self.cut(i) {
                return self.end_token();
            }
            self.pos = i;
            return Token { kind: Kind::Param, word: Word::Lit, start, end: i, hash: 0 };
        }
        while class(self.at(i)) & CONT != 0 && self.at(i) != b'$' {
            i += 1;
        }
        if self.at(i) != b'$' {
            return if self.cut(i) { self.end_token() } else { self.punct(Kind::Other, 1) };
        }
        let tag = &self.full[start..=i];
        let mut from = i + 1;
        loop {
            let Some(n) = self.full.get(from..).and_then(|rest| memchr(b'$', rest)) else {
                return self.unterminated(start);
            };
            if self.full[from + n..].starts_with(tag) {
                let end = from + n + tag.len();
                let limit = (self.src.len() + (end - start)).min(self.full.len());
                self.src = &self.full[..limit.max(end)];
                self.strings += 1;
                self.pos = end;
                return Token { kind: Kind::Str, word: Word::Lit, start, end, hash: 0 };
            }
            from += n + 1;
        }
    }

    /// Passes a nested block comment.
    #[cold]
    pub(super) fn block_comment(&mut self) {
        self.comment = true;
        let (mut i, mut depth) = (self.pos + 2, 1usize);
        while depth > 0 {
            let Some(n) = self.src.get(i..).and_then(|rest| memchr2(b'/', b'*', rest)) else {
                self.open_end |= self.src.len() == self.full.len();
                self.pos = self.src.len();
                return;
            };
            i += n;
            match (self.src[i], self.at(i + 1)) {
                (b'/', b'*') => {
                    depth += 1;
                    i += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    i += 2;
                }
                _ => i += 1,
            }
        }
        self.pos = i;
    }
}
