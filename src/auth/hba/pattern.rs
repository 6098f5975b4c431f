//! Regular expressions of rules and maps: those that mean the same to `regex-lite` as to PostgreSQL.
//!
//! The two dialects share most of what people write and differ in places that would let somebody in: `\B` is a
//! backslash there and "no word boundary" here, `\y` and lookahead exist only there. What is not known to be the same is
//! refused when the file is read. PostgreSQL compiles these expressions with the collation C, so classes are ASCII
//! on both sides. Matching is linear in time.

use regex_lite::{Regex, RegexBuilder};

/// Longest expression, in bytes.
const MAX_LENGTH: usize = 1_024;
/// PostgreSQL's largest repetition (`DUPMAX`).
const MAX_REPEAT: u32 = 255;
/// Compiled size at most, in bytes.
const MAX_COMPILED: usize = 1 << 20;

/// An expression, as PostgreSQL would understand it.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: String,
    regex: Regex,
    /// What its first parentheses hold is the same in PostgreSQL; otherwise why that is not known.
    capture: Result<(), &'static str>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

impl Pattern {
    /// Reads an expression (without the slash before it).
    pub(super) fn new(text: &str) -> Result<Pattern, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!("it is longer than {MAX_LENGTH} bytes"));
        }
        let capture = Scan::new(text).run()?;
        let regex = RegexBuilder::new(text)
            .dot_matches_new_line(true)
            .size_limit(MAX_COMPILED)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Pattern { text: text.to_owned(), regex, capture })
    }

    /// Whether it is found anywhere in the text, as in PostgreSQL: `^` and `$` tie it to the ends.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// What the first parentheses hold; `None`: no match.
    pub(super) fn first_group<'t>(&self, text: &'t str) -> Option<&'t str> {
        Some(self.regex.captures(text)?.get(1)?.as_str())
    }

    /// Whether [`Self::first_group`] is certain to be what PostgreSQL would take.
    pub(super) fn capture(&self) -> Result<(), &'static str> {
        self.capture
    }

    /// As written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// One walk over an expression.
struct Scan<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    /// Something stands before that can be repeated.
    repeatable: bool,
    /// Open parentheses.
    depth: usize,
    /// Parentheses so far.
    groups: usize,
    /// The first parentheses capture, and hold neither others nor a choice, and are not repeated.
    plain_first: bool,
    choice_outside: bool,
    text: &'a str,
}

impl<'a> Scan<'a> {
    fn new(text: &'a str) -> Scan<'a> {
        let rest = text.chars().peekable();
        Scan { rest, repeatable: false, depth: 0, groups: 0, plain_first: false, choice_outside: false, text }
    }

    /// `Err`: the expression is not taken. The inner result is [`Pattern::capture`].
    fn run(mut self) -> Result<Result<(), &'static str>, String> {
        if self.text.is_empty() {
            return Err("it is empty".to_owned());
        }
        let mut ended = false;
        while let Some(c) = self.rest.next() {
            ended = c == '$';
            match c {
                '\\' => self.escape(false)?,
                '[' => self.class()?,
                '(' => self.open()?,
                ')' => self.close()?,
                '|' => {
                    self.choice_outside |= self.depth == 0;
                    self.plain_first &= self.groups != 1 || self.depth == 0;
                    self.repeatable = false;
                }
                '^' | '$' => self.repeatable = false,
                '*' | '+' | '?' | '{' => self.repeat(c)?,
                '}' | ']' => return Err(format!("write \\{c} for the character itself")),
                c if !c.is_ascii() || c.is_ascii_control() => {
                    return Err("only printable ASCII is possible in it".to_owned());
                }
                _ => self.repeatable = true,
            }
        }
        if self.depth > 0 {
            return Err("a closing parenthesis is missing".to_owned());
        }
        Ok(match () {
            () if self.groups == 0 => Err("it has no parentheses"),
            () if !self.text.starts_with('^') || !ended => Err("it must begin with ^ and end with $"),
            () if self.choice_outside => Err("it must not have a | outside of parentheses"),
            () if !self.plain_first => {
                Err("its first parentheses must capture, and hold no others and no |, and not be repeated")
            }
            () => Ok(()),
        })
    }

    fn open(&mut self) -> Result<(), String> {
        self.depth += 1;
        self.groups += 1;
        self.repeatable = false;
        let mut captures = true;
        if self.rest.next_if_eq(&'?').is_some() {
            if self.rest.next() != Some(':') {
                return Err("of the forms (?...) only (?:...) is supported".to_owned());
            }
            captures = false;
        }
        match self.groups {
            1 => self.plain_first = captures,
            // Within the first.
            2 if self.depth > 1 => self.plain_first = false,
            _ => {}
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        self.depth = self.depth.checked_sub(1).ok_or("a parenthesis is closed that was not opened")?;
        if self.groups == 1 && self.rest.peek().is_some_and(|c| matches!(c, '*' | '+' | '?' | '{')) {
            self.plain_first = false;
        }
        self.repeatable = true;
        Ok(())
    }

    /// What follows a backslash.
    fn escape(&mut self, in_class: bool) -> Result<(), String> {
        self.repeatable = true;
        match self.rest.next() {
            Some('d' | 'w' | 's') => Ok(()),
            Some('D' | 'W' | 'S') if !in_class => Ok(()),
            Some(c) if c.is_ascii_punctuation() && !matches!(c, '<' | '>' | '_') => Ok(()),
            Some(c) => Err(format!("\\{} is not supported", c.escape_debug())),
            None => Err("it ends with a backslash".to_owned()),
        }
    }

    fn repeat(&mut self, first: char) -> Result<(), String> {
        if !self.repeatable {
            return Err(format!("nothing stands before {first} that could be repeated"));
        }
        self.repeatable = false;
        if first == '{' {
            let bounds: String = std::iter::from_fn(|| self.rest.next_if(|c| *c != '}')).collect();
            let number = |text: &str| {
                let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                text.parse::<u32>().ok().filter(|n| digits && *n <= MAX_REPEAT)
            };
            let good = match bounds.split_once(',') {
                Some((least, "")) => number(least).is_some(),
                Some((least, most)) => number(least).zip(number(most)).is_some_and(|(least, most)| least <= most),
                None => number(&bounds).is_some(),
            };
            if self.rest.next() != Some('}') || !good {
                return Err(format!("write {{m}}, {{m,}} or {{m,n}} with numbers up to {MAX_REPEAT}, or \\{{"));
            }
        }
        match self.rest.peek() {
            Some('?') => Err("non-greedy repetitions are not supported".to_owned()),
            _ => Ok(()),
        }
    }

    /// What stands in square brackets.
    fn class(&mut self) -> Result<(), String> {
        self.rest.next_if_eq(&'^');
        let mut before = None;
        let mut first = true;
        loop {
            let c = self.rest.next().ok_or("a closing ] is missing")?;
            match c {
                ']' if !first => break,
                ']' => return Err("write \\] in square brackets".to_owned()),
                '[' => self.named_class()?,
                '\\' => self.escape(true)?,
                '&' | '-' | '~' if before == Some(c) => {
                    return Err(format!("{c}{c} in square brackets is not supported"));
                }
                c if !c.is_ascii() || c.is_ascii_control() => {
                    return Err("only printable ASCII is possible in it".to_owned());
                }
                _ => {}
            }
            before = Some(c);
            first = false;
        }
        self.repeatable = true;
        Ok(())
    }

    /// `[:alpha:]` and its kin.
    fn named_class(&mut self) -> Result<(), String> {
        const NAMES: [&str; 12] = [
            "alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "xdigit",
        ];
        let wrong = || "[ in square brackets begins a class such as [:alpha:]; write \\[ for the character".to_owned();
        if self.rest.next() != Some(':') {
            return Err(wrong());
        }
        let name: String = std::iter::from_fn(|| self.rest.next_if(char::is_ascii_lowercase)).collect();
        let closed = self.rest.next() == Some(':') && self.rest.next() == Some(']');
        if closed && NAMES.contains(&&*name) { Ok(()) } else { Err(wrong()) }
    }
}
