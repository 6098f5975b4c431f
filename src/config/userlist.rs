//! PgBouncer's `userlist.txt`: lines of `"user" "secret"` (`load_auth_file` in PgBouncer's `src/loader.c`).

use std::collections::BTreeMap;

use crate::auth::Secret;

/// Users in one file at most; a larger list wants a directory service.
const MAX_USERS: usize = 100_000;

/// A line that cannot be read. The text of the line is not kept: it may hold a password.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct UserlistError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub message: &'static str,
}

/// Reads the file's text. Quotes inside quotes are doubled; `;` and `#` at the start of a line begin a comment; what
/// follows the secret is ignored, as PgBouncer does. Of a user named twice the last line counts.
///
/// # Errors
/// The first line that cannot be read.
pub fn parse_userlist(text: &str) -> Result<BTreeMap<String, Secret>, UserlistError> {
    let mut users = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let wrong = |message| UserlistError { line: index + 1, message };
        let line = line.trim();
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        let (user, rest) = quoted(line).map_err(wrong)?;
        let (secret, _) = quoted(rest.trim_start()).map_err(wrong)?;
        if user.is_empty() {
            return Err(wrong("the user name is empty"));
        }
        if users.len() >= MAX_USERS {
            return Err(wrong("there are more than 100000 users"));
        }
        users.insert(user, Secret::parse(&secret));
    }
    Ok(users)
}

/// A text in quotes at the start, and what follows it.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut rest = text.strip_prefix('"').ok_or("\"user\" \"secret\" expected, both in double quotes")?;
    let mut value = String::new();
    loop {
        let end = rest.find('"').ok_or("the closing quote is missing")?;
        value.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(behind) => {
                value.push('"');
                rest = behind;
            }
            None if value.contains('\0') => return Err("a NUL character is not possible here"),
            None => return Ok((value, rest)),
        }
    }
}

/// Fuzz entry: any bytes are read or refused.
pub fn fuzz_userlist(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = parse_userlist(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_three_forms() {
        let users = parse_userlist(
            "; comment\n\n\"app\" \"plain\"\n\"o\"\"neil\" \"a \"\"quoted\"\" one\" trailing\r\n  # more\n\
             \"old\" \"md5f00f00f00f00f00f00f00f00f00f00f0\"\n\
             \"new\" \"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\"\n",
        )
        .unwrap();
        assert_eq!(users["app"], Secret::Plain("plain".into()));
        assert_eq!(users["o\"neil"], Secret::Plain("a \"quoted\" one".into()));
        assert!(matches!(users["old"], Secret::Md5(_)));
        assert!(matches!(users["new"], Secret::Scram(_)));
        assert_eq!(users.len(), 4);
    }

    #[test]
    fn errors_name_the_line_and_nothing_else() {
        for (text, line) in [
            ("\"a\" \"b\"\napp hunter2", 2),
            ("\"app\" \"hunter2", 1),
            ("\"app\"", 1),
            ("\n\n\"\" \"hunter2\"", 3),
            ("\"app\" hunter2", 1),
        ] {
            let error = parse_userlist(text).unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\"; a\\n]{0,60}") {
            fuzz_userlist(text.as_bytes());
        }

        #[test]
        fn what_is_quoted_is_read_back(user in "[^\\n\\r\\x00]{1,20}", secret in "[^\\n\\r\\x00]{0,20}") {
            let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            let users = parse_userlist(&format!("{} {}", quote(&user), quote(&secret))).unwrap();
            prop_assert_eq!(&users[&user], &Secret::parse(&secret));
        }
    }
}
