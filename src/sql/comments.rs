//! A text without its comments, for telling whether two texts are the same statement.

use memchr::memmem;

use super::lexer::{Kind, Lexer, is_space};
use super::{LexSettings, RawSql};

/// Appends the text without comments to `out`; false when there is none to leave out, or when where they are is in
/// doubt. Hints (`/*+ ... */`, pg_hint_plan) stay: they mean something.
///
/// A gap between two tokens that holds a comment becomes one white space, a newline where there was one; at the ends
/// of the text, nothing.
pub fn without_comments(sql: RawSql<'_>, settings: LexSettings, out: &mut Vec<u8>) -> bool {
    let text = sql.0;
    if !settings.safe_encoding || (memmem::find(text, b"/*").is_none() && memmem::find(text, b"--").is_none()) {
        return false;
    }
    let begin = out.len();
    let mut lexer = Lexer::new(text, settings);
    let (mut end, mut found) = (0, false);
    loop {
        let token = lexer.next();
        let last = token.kind == Kind::End;
        let gap = text.get(end..token.start).unwrap_or_default();
        if gap.iter().all(|b| is_space(*b)) || memmem::find(gap, b"/*+").is_some() {
            out.extend_from_slice(gap);
        } else {
            found = true;
            if end > 0 && !last {
                out.push(if gap.contains(&b'\n') { b'\n' } else { b' ' });
            }
        }
        if last {
            break;
        }
        out.extend_from_slice(lexer.bytes(&token));
        end = token.end;
    }
    let certain = !lexer.capped() && !lexer.unsure() && !lexer.open_end;
    if !found || !certain {
        out.truncate(begin);
    }
    found && certain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(sql: &str) -> Option<String> {
        let settings = LexSettings { standard_conforming_strings: Some(true), safe_encoding: true };
        let mut out = Vec::new();
        without_comments(RawSql(sql.as_bytes()), settings, &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn comments_go_and_nothing_else() {
        for (sql, without) in [
            ("SELECT 1 /* traceparent='00-1' */", "SELECT 1"),
            ("/* a */ SELECT 1", "SELECT 1"),
            ("SELECT/* a /* nested */ b */1", "SELECT 1"),
            ("SELECT 1 -- a\n, 2", "SELECT 1\n, 2"),
            ("SELECT 1 + /* a */ -1", "SELECT 1 + -1"),
            (
                "SELECT '/* no */', \"--\", $$ -- $$, E'\\'/*' /* yes */",
                "SELECT '/* no */', \"--\", $$ -- $$, E'\\'/*'",
            ),
            ("SELECT  1 ;  /* a */", "SELECT  1 ;"),
            ("SELECT 'a' -- x\n'b' /* y */", "SELECT 'a' -- x\n'b'"),
        ] {
            assert_eq!(stripped(sql).as_deref(), Some(without), "{sql}");
        }
    }

    #[test]
    fn a_text_in_doubt_or_without_comments_is_left_alone() {
        for sql in ["SELECT 1", "SELECT '--'", "SELECT 1 /* open", "SELECT 'open /* */", "SELECT /*+ SeqScan(t) */ 1"] {
            assert_eq!(stripped(sql), None, "{sql}");
        }
        let unknown = LexSettings { standard_conforming_strings: None, safe_encoding: true };
        assert!(!without_comments(RawSql(b"SELECT '\\' /* a */ '"), unknown, &mut Vec::new()));
        let unsafe_encoding = LexSettings { standard_conforming_strings: Some(true), safe_encoding: false };
        assert!(!without_comments(RawSql(b"SELECT 1 /* a */"), unsafe_encoding, &mut Vec::new()));
    }

    #[test]
    fn hints_stay_among_comments() {
        assert_eq!(
            stripped("/*+ A */ SELECT 1 /* b */").as_deref(),
            Some("/*+ A */ SELECT 1"),
            "the hint decides the plan"
        );
    }
}
