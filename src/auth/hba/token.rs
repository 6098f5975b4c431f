//! Lines and tokens (`next_token` and `tokenize_auth_file` in `src/backend/libpq/hba.c`).
//!
//! A backslash at the end of a line continues it, before anything else is looked at. Tokens end at blanks and commas;
//! `#` begins a comment; both lose their meaning between double quotes, and a doubled quote is one quote.

/// Longest token, in bytes (`MAX_TOKEN` of PostgreSQL 15).
const MAX_TOKEN: usize = 10_240;

/// A place in a file: line and character, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spot {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A word of a line.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) text: String,
    /// It begins with a quote: then it is a name, never a keyword.
    pub(super) quoted: bool,
    pub(super) spot: Spot,
}

impl Token {
    /// Whether it is this keyword (`token_is_keyword`).
    pub(super) fn is(&self, keyword: &str) -> bool {
        !self.quoted && self.text == keyword
    }
}

/// A line with its continuations.
pub(super) struct Whole {
    text: String,
    /// Where each line of the file begins in `text`, and its number.
    pieces: Vec<(usize, usize)>,
}

impl Whole {
    /// The place of a byte of the text.
    fn spot(&self, at: usize) -> Spot {
        let (start, line) = self.pieces.iter().rev().find(|(start, _)| *start <= at).copied().unwrap_or((0, 1));
        Spot { line, column: self.text[start..at].chars().count() + 1 }
    }

    /// Where it begins.
    pub(super) fn start(&self) -> Spot {
        self.spot(0)
    }
}

/// The lines of a text, continued ones put together.
pub(super) fn lines(text: &str) -> impl Iterator<Item = Whole> {
    let mut numbered = text.split('\n').zip(1..);
    std::iter::from_fn(move || {
        let (line, number) = numbered.next()?;
        let mut whole = Whole { text: line.trim_end_matches('\r').to_owned(), pieces: vec![(0, number)] };
        // A backslash counts only behind the last continuation: two lines of one backslash each are two of them.
        let mut continued = 0;
        while whole.text.len() > continued && whole.text.ends_with('\\') {
            whole.text.pop();
            continued = whole.text.len();
            let Some((line, number)) = numbered.next() else { break };
            whole.pieces.push((continued, number));
            whole.text.push_str(line.trim_end_matches('\r'));
        }
        Some(whole)
    })
}

/// Reads a line token by token.
pub(super) struct Cursor<'a> {
    whole: &'a Whole,
    at: usize,
}

/// A token, and whether a comma followed it: then the next one belongs to the same field.
pub(super) struct Read {
    pub(super) token: Token,
    pub(super) comma: bool,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(whole: &'a Whole) -> Cursor<'a> {
        Cursor { whole, at: 0 }
    }

    /// Whether the line is read to its end.
    pub(super) fn at_end(&self) -> bool {
        self.at >= self.whole.text.len()
    }

    /// The next token; `None` at the end of the line or at a comment.
    ///
    /// # Errors
    /// The token is too long; where it begins.
    pub(super) fn next(&mut self) -> Result<Option<Read>, Spot> {
        let text = &self.whole.text;
        let blank = |c: char| matches!(c, ' ' | '\t' | '\r');
        let skipped = text[self.at..].find(|c| !blank(c) && c != ',').unwrap_or(text.len() - self.at);
        let start = self.at + skipped;
        let mut token = String::new();
        let (mut in_quote, mut was_quote, mut saw_quote, mut initial) = (false, false, false, false);
        let mut comma = false;
        let mut end = text.len();
        for (offset, c) in text[start..].char_indices() {
            if !in_quote && (blank(c) || c == ',' || c == '#') {
                comma = c == ',';
                // A comment is the end of the line.
                end = if c == '#' { text.len() } else { start + offset };
                break;
            }
            if token.len() >= MAX_TOKEN {
                self.at = text.len();
                return Err(self.whole.spot(start));
            }
            if c != '"' || was_quote {
                token.push(c);
            }
            was_quote = in_quote && c == '"' && !was_quote;
            if c == '"' {
                in_quote = !in_quote;
                saw_quote = true;
                initial |= token.is_empty();
            }
        }
        self.at = end;
        let spot = self.whole.spot(start);
        let some = saw_quote || !token.is_empty();
        Ok(some.then_some(Read { token: Token { text: token, quoted: initial, spot }, comma }))
    }
}
