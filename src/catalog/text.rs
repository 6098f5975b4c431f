//! Which literal-free texts may be explained: one plain SELECT without a literal. Strict on purpose; what is refused is
//! merely not explained.

/// Placeholders at most.
const MAX_PARAMETERS: usize = 200;
/// Words that look like calls at most.
const MAX_CALLS: usize = 64;
/// What a list that was shortened shows.
const ELLIPSIS: &str = "/*, ... */";
/// Words that write, lock or run something, wherever they stand.
const FORBIDDEN: &[&str] = &[
    "ANALYZE",
    "CALL",
    "COPY",
    "DELETE",
    "DO",
    "EXECUTE",
    "EXPLAIN",
    "INSERT",
    "INTO",
    "LOCK",
    "MERGE",
    "SET",
    "SHARE",
    "TABLESAMPLE",
    "UPDATE",
];

/// A text that may be explained.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text {
    /// The text.
    pub display: String,
    /// Names that stand before a parenthesis: functions, if there are any of that name.
    pub calls: Vec<String>,
}

/// Whether a literal-free text may be explained. `limit` is put in place of the parameter of a LIMIT at its end, where it
/// is known: the planner would guess a tenth of all rows.
pub fn readable(display: &str, limit: Option<u32>) -> Option<Text> {
    let mut sql = display.replace(ELLIPSIS, "");
    let opens = sql.trim_start().get(..6).is_some_and(|verb| verb.eq_ignore_ascii_case("SELECT"));
    // Without quotes, comments, separators and dollars but `$1`, one statement is one whatever the server's settings are.
    let strange = sql.contains(['\'', ';', '\\', '\0']) || sql.contains("--") || sql.contains("/*");
    if !opens || strange {
        return None;
    }
    let (mut calls, mut last) = (Vec::new(), 0);
    for token in tokens(&sql)? {
        match token {
            Token::Word(word) if FORBIDDEN.iter().any(|bad| word.eq_ignore_ascii_case(bad)) => return None,
            Token::Call(word) if FORBIDDEN.iter().any(|bad| word.eq_ignore_ascii_case(bad)) => return None,
            Token::Call(word) => calls.push(word.to_lowercase()),
            Token::QuotedCall(name) => calls.push(name),
            Token::Parameter(n) => last = last.max(n),
            Token::Word(_) => {}
        }
    }
    if calls.len() > MAX_CALLS || last > MAX_PARAMETERS {
        return None;
    }
    calls.sort_unstable();
    calls.dedup();
    let end = format!("LIMIT ${last}");
    if let Some(limit) = limit.filter(|_| last > 0 && sql.ends_with(&end)) {
        sql.truncate(sql.len() - end.len());
        sql.push_str(&format!("LIMIT {limit}"));
    }
    Some(Text { display: sql, calls })
}

enum Token<'t> {
    Word(&'t str),
    Call(&'t str),
    QuotedCall(String),
    Parameter(usize),
}

/// Words, calls and parameters; `None` when a quote is not closed or a dollar begins no parameter.
fn tokens(sql: &str) -> Option<Vec<Token<'_>>> {
    let bytes = sql.as_bytes();
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80;
    let run = |from: usize| bytes[from..].iter().take_while(|b| word(b)).count();
    let (mut at, mut found) = (0, Vec::new());
    while at < bytes.len() {
        let calls = |end: usize| sql[end..].trim_start().starts_with('(');
        match bytes[at] {
            b'"' => {
                let mut end = at + 1;
                loop {
                    end += sql[end..].find('"')? + 1;
                    if bytes.get(end) != Some(&b'"') {
                        break;
                    }
                    end += 1;
                }
                if calls(end) {
                    found.push(Token::QuotedCall(sql[at + 1..end - 1].replace("\"\"", "\"")));
                }
                at = end;
            }
            b'$' => {
                let digits = run(at + 1);
                found.push(Token::Parameter(sql[at + 1..at + 1 + digits].parse().ok()?));
                at += 1 + digits;
            }
            b if word(&b) => {
                let end = at + run(at);
                let text = &sql[at..end];
                found.push(if calls(end) { Token::Call(text) } else { Token::Word(text) });
                at = end;
            }
            _ => at += 1,
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_selects_without_literals_are_readable() {
        let read = |sql: &str| readable(sql, None);
        let text =
            read(r#"SELECT "t"."id", upper("t"."x"), "my""f"(1) FROM "t" WHERE "t"."id" IN ($1 /*, ... */)"#).unwrap();
        assert_eq!(text.calls, ["in", "my\"f", "upper"]);
        assert!(text.display.ends_with("IN ($1 )"));
        for sql in [
            "UPDATE t SET a = $1",
            "SELECT 1; DROP TABLE t",
            "SELECT 'literal'",
            "SELECT $$literal$$",
            "SELECT $a$literal$a$",
            "SELECT \"unclosed",
            "SELECT 1 -- comment",
            "SELECT /* comment */ 1",
            "WITH x AS (INSERT INTO t VALUES (1) RETURNING id) SELECT * FROM x",
            "SELECT * INTO new FROM t",
            "SELECT * FROM t FOR UPDATE",
            "SELECT * FROM (DELETE(t))",
            "SELECT a\\b",
            "SELECT $201",
            "SELECT <unlexed>;",
            "",
        ] {
            assert!(read(sql).is_none(), "{sql}");
        }
        // Columns of such names are quoted by Django.
        assert!(read(r#"SELECT "t"."update" FROM "t""#).is_some());
    }

    #[test]
    fn a_known_limit_is_told() {
        let sql = |text: &str| readable(text, Some(21)).unwrap().display;
        assert_eq!(sql("SELECT a FROM t WHERE b = $1 LIMIT $2"), "SELECT a FROM t WHERE b = $1 LIMIT 21");
        assert_eq!(sql("SELECT a FROM t WHERE b = $1"), "SELECT a FROM t WHERE b = $1");
        assert_eq!(sql("SELECT a FROM t LIMIT $1 OFFSET $2"), "SELECT a FROM t LIMIT $1 OFFSET $2");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(sql in "SELECT [a-z$1\"'();\u{e9} -]{0,50}") {
            let text = readable(&sql, Some(1));
            assert!(text.is_none_or(|text| !text.display.contains(['\'', ';'])));
        }
    }
}
