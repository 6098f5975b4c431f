//! The few texts that must be recognised before they are sent. The first byte decides nearly always.

/// Whether a text begins with `CREATE DATABASE`, `ALTER DATABASE` or `DROP DATABASE`. Asked before it is sent, of every
/// text: the first byte decides nearly always.
pub(super) fn about_databases(sql: &[u8]) -> bool {
    let sql = sql.trim_ascii_start();
    if !matches!(sql.first().map(u8::to_ascii_lowercase), Some(b'c' | b'a' | b'd')) {
        return false;
    }
    let mut words = sql.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
    let verb = words.next().unwrap_or_default();
    [b"create".as_slice(), b"alter", b"drop"].iter().any(|v| verb.eq_ignore_ascii_case(v))
        && words.next().is_some_and(|w| w.eq_ignore_ascii_case(b"database"))
}

/// Whether a text begins with `DEALLOCATE ALL`, `DEALLOCATE PREPARE ALL` or `DISCARD ALL`: what is pipelined behind it
/// must not count on the statements the server has now. (Not told here: seen when it has succeeded.)
pub(super) fn forgets_statements(sql: &[u8]) -> bool {
    let sql = sql.trim_ascii_start();
    if sql.first().map(u8::to_ascii_lowercase) != Some(b'd') {
        return false;
    }
    let mut words = sql.split(|b| b.is_ascii_whitespace() || matches!(b, b';' | 0)).filter(|w| !w.is_empty());
    let verb = words.next().unwrap_or_default();
    let deallocate = verb.eq_ignore_ascii_case(b"deallocate");
    let mut what = words.next().unwrap_or_default();
    if deallocate && what.eq_ignore_ascii_case(b"prepare") {
        what = words.next().unwrap_or_default();
    }
    (deallocate || verb.eq_ignore_ascii_case(b"discard")) && what.eq_ignore_ascii_case(b"all")
}

/// Whether a text begins with RESET, DISCARD or a SET that may be TO DEFAULT.
pub(super) fn resets(sql: &[u8]) -> bool {
    const DEFAULT: &[u8] = b"default";
    match sql.trim_ascii_start() {
        [b'r' | b'R' | b'd' | b'D' | b'/' | b'-', ..] | [b's' | b'S', b'e' | b'E', b't' | b'T', ..] => {}
        _ => return false,
    }
    let word = first_word(sql).unwrap_or_default();
    word.eq_ignore_ascii_case(b"reset")
        || word.eq_ignore_ascii_case(b"discard")
        || word.eq_ignore_ascii_case(b"set") && sql.windows(DEFAULT.len()).any(|w| w.eq_ignore_ascii_case(DEFAULT))
}

/// Whether such a text is a DISCARD.
pub(super) fn discards(sql: &[u8]) -> bool {
    sql.trim_ascii_start().get(1).is_some_and(|b| b.eq_ignore_ascii_case(&b'i'))
}

/// The first word of a text, behind comments.
pub(super) fn first_word(sql: &[u8]) -> Option<&[u8]> {
    let mut rest = sql.trim_ascii_start();
    loop {
        if let Some(comment) = rest.strip_prefix(b"/*") {
            rest = comment[memchr::memmem::find(comment, b"*/")? + 2..].trim_ascii_start();
        } else if let Some(comment) = rest.strip_prefix(b"--") {
            rest = comment[memchr::memchr(b'\n', comment)?..].trim_ascii_start();
        } else {
            let end = rest.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(rest.len());
            return Some(&rest[..end]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_about_databases_are_told_apart() {
        assert!(about_databases(b"DROP DATABASE x") && about_databases(b"  create\ndatabase y TEMPLATE z"));
        assert!(!about_databases(b"DROP TABLE database") && !about_databases(b"SELECT 1") && !about_databases(b""));
    }

    #[test]
    fn statements_that_reset_are_told_apart() {
        assert!(resets(b"RESET ALL") && resets(b" /* a */ discard all") && resets(b"SET timezone TO Default"));
        assert!(!resets(b"SET timezone = 'UTC'") && !resets(b"SELECT 'default'") && !resets(b"DELETE FROM t"));
    }

    #[test]
    fn statements_that_end_all_prepared_ones_are_told_apart() {
        assert!(
            forgets_statements(b"DISCARD ALL")
                && forgets_statements(b" deallocate all;")
                && forgets_statements(b"DEALLOCATE PREPARE ALL\0")
                && discards(b" Discard ALL")
                && !discards(b"DEALLOCATE ALL")
        );
        assert!(
            !forgets_statements(b"DEALLOCATE x")
                && !forgets_statements(b"DISCARD PLANS")
                && !forgets_statements(b"SELECT 1")
        );
    }
}
