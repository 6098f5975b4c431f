//! What is typed at the console: statements of words, cut at semicolons. Quotes and comments as in SQL.

use crate::wire::error::{ErrorFields, sqlstate};

/// A token of a console command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Token {
    /// Letters, digits, `_`, `.`, `-`, `*` and anything not ASCII: a keyword, name or number.
    Word(String),
    /// A quoted name or value, without its quotes.
    Quoted(String),
    /// Any other character.
    Symbol(char),
}

impl Token {
    /// Whether it is this keyword, in any case.
    pub fn is(&self, keyword: &str) -> bool {
        matches!(self, Token::Word(w) if w.eq_ignore_ascii_case(keyword))
    }

    /// The text of a word or a quoted name.
    pub fn name(&self) -> Option<&str> {
        match self {
            Token::Word(w) | Token::Quoted(w) => Some(w),
            Token::Symbol(_) => None,
        }
    }
}

/// Cuts `text` into statements; empty ones are left out.
///
/// # Errors
/// A quote or comment that does not end.
pub fn statements(text: &str) -> Result<Vec<Vec<Token>>, ErrorFields> {
    let mut all = Vec::new();
    let mut current = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = match c {
            ';' => {
                all.extend(Some(std::mem::take(&mut current)).filter(|s| !s.is_empty()));
                after
            }
            _ if c.is_whitespace() => after,
            '-' if after.starts_with('-') => after.split_once('\n').map_or("", |(_, rest)| rest),
            '/' if after.starts_with('*') => {
                let unended = || syntax("unterminated /* comment");
                after[1..].split_once("*/").ok_or_else(unended)?.1
            }
            '\'' | '"' => {
                let (value, rest) = quoted(after, c)?;
                current.push(Token::Quoted(value));
                rest
            }
            _ if in_word(c) => {
                let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
                current.push(Token::Word(rest[..end].to_owned()));
                &rest[end..]
            }
            _ => {
                current.push(Token::Symbol(c));
                after
            }
        };
    }
    all.extend(Some(current).filter(|s| !s.is_empty()));
    Ok(all)
}

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '*') || !c.is_ascii()
}

/// The text up to the closing quote, doubled quotes made single, and what follows.
fn quoted(text: &str, quote: char) -> Result<(String, &str), ErrorFields> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once(quote).ok_or_else(|| syntax("unterminated quoted string"))?;
        value.push_str(before);
        match after.strip_prefix(quote) {
            Some(more) => {
                value.push(quote);
                rest = more;
            }
            None => return Ok((value, after)),
        }
    }
}

fn syntax(message: &str) -> ErrorFields {
    ErrorFields::error(sqlstate::SYNTAX_ERROR, message)
}

/// Fuzz entry: any text is cut or refused.
pub fn fuzz_console(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = statements(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        let token = |t: &Token| match t {
            Token::Word(w) => w.clone(),
            Token::Quoted(q) => format!("<{q}>"),
            Token::Symbol(c) => c.to_string(),
        };
        let statement = |s: &Vec<Token>| s.iter().map(token).collect::<Vec<_>>().join(" ");
        match statements(text) {
            Ok(all) => all.iter().map(statement).collect::<Vec<_>>().join(" | "),
            Err(e) => e.message,
        }
    }

    #[test]
    fn statements_are_cut_at_semicolons() {
        assert_eq!(show("show pools"), "show pools");
        assert_eq!(show(" ;; SHOW\tPOOLS ;\n show clients;"), "SHOW POOLS | show clients");
        assert_eq!(show(" ; -- nothing\n /* at ; all */ "), "");
        assert_eq!(show("set a='x;''y'"), "set a = <x;'y>");
        assert_eq!(show("PAUSE \"my \"\"db\"\"\" -- x"), "PAUSE <my \"db\">");
        assert_eq!(show("SHOW FINGERPRINT 00ff-12"), "SHOW FINGERPRINT 00ff-12");
        assert_eq!(show("kill \u{e9}t\u{e9}*"), "kill \u{e9}t\u{e9}*");
        assert_eq!(show("set a = 'x"), "unterminated quoted string");
        assert_eq!(show("show /* pools"), "unterminated /* comment");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_cut_or_refused(text in "[ -~\u{e9}\n]{0,200}|(['\"/*;a-]| ){0,60}") {
            fuzz_console(text.as_bytes());
        }
    }
}
