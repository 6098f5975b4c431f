//! Which run-time parameters a statement may change for the rest of its session.

use super::lexer::{Kind, Lexer, Token};
use super::words::Word;
use super::{LexSettings, RawSql, set_target};

/// Longest parameter name told; PostgreSQL's own are below NAMEDATALEN (63 bytes).
const MAX_NAME: usize = 127;

/// The parameters that SET SESSION CHARACTERISTICS sets (sql-set-transaction).
const CHARACTERISTICS: [&str; 3] =
    ["default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable"];

/// Calls `each` with the lower-case name of every parameter that one statement sets or resets with SET, RESET or
/// `set_config`; `RESET ALL` is `all`. False when it may change others too: a name that is computed or a parameter.
pub fn touched_parameters(sql: RawSql<'_>, settings: LexSettings, mut each: impl FnMut(&str)) -> bool {
    let mut lexer = Lexer::new(sql.0, settings);
    let first = lexer.next();
    match first.word {
        Word::Set | Word::Reset if first.kind == Kind::Word => match set_target(sql, settings).as_deref() {
            Some("session authorization") => each("session_authorization"),
            Some("xml") => each("xmloption"),
            Some(name) if name.len() <= MAX_NAME => each(name),
            Some(_) => return false,
            None => CHARACTERISTICS.into_iter().for_each(each),
        },
        _ => return configured(lexer, &mut each),
    }
    true
}

/// The same of a text inside which statements may hide (the body of a DO block): every `set_config` with a literal name.
pub fn hidden_parameters(sql: RawSql<'_>, mut each: impl FnMut(&str)) {
    let lower = sql.0.to_ascii_lowercase();
    for at in memchr::memmem::find_iter(&lower, b"set_config") {
        let rest = lower[at + b"set_config".len()..].trim_ascii_start();
        let Some(rest) = rest.strip_prefix(b"(").map(<[u8]>::trim_ascii_start) else { continue };
        if let Some(name) = rest.strip_prefix(b"'").and_then(|r| plain(&r[..memchr::memchr(b'\'', r)?])) {
            each(&name);
        }
    }
}

/// `set_config('name', ...)` wherever it stands.
fn configured(mut lexer: Lexer<'_>, each: &mut impl FnMut(&str)) -> bool {
    loop {
        let token = lexer.next();
        match token.kind {
            Kind::End => return true,
            Kind::Word | Kind::Quoted if token.word == Word::SetConfig => {}
            _ => continue,
        }
        if lexer.next().kind != Kind::Open {
            continue;
        }
        let argument = lexer.next();
        let Some(name) = literal(&lexer, argument) else { return false };
        each(&name);
    }
}

fn literal(lexer: &Lexer<'_>, token: Token) -> Option<String> {
    let text = lexer.bytes(&token);
    let text = (token.kind == Kind::Str).then(|| text.strip_prefix(b"'")?.strip_suffix(b"'")).flatten()?;
    plain(text)
}

/// A name as PostgreSQL writes parameters: letters, digits, underscores, dots.
fn plain(text: &[u8]) -> Option<String> {
    let fits = !text.is_empty()
        && text.len() <= MAX_NAME
        && text.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'$' | b'-'));
    fits.then(|| String::from_utf8_lossy(text).to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON: LexSettings = LexSettings { standard_conforming_strings: Some(true), safe_encoding: true };

    fn of(sql: &str) -> (Vec<String>, bool) {
        let mut names = Vec::new();
        let all = touched_parameters(RawSql(sql.as_bytes()), ON, |n| names.push(n.to_owned()));
        (names, all)
    }

    #[test]
    fn every_way_to_set_a_parameter_names_it() {
        for (sql, names) in [
            ("SET Work_Mem = '1MB'", vec!["work_mem"]),
            ("SET SESSION app.tenant TO 'x'", vec!["app.tenant"]),
            ("SET TIME ZONE 'UTC'", vec!["timezone"]),
            ("SET XML OPTION DOCUMENT", vec!["xmloption"]),
            ("SET SESSION AUTHORIZATION DEFAULT", vec!["session_authorization"]),
            ("RESET ROLE", vec!["role"]),
            ("RESET ALL", vec!["all"]),
            ("/* x */ SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", CHARACTERISTICS.to_vec()),
            (
                "SELECT set_config('App.Tenant', $1, false), pg_catalog.set_config ( 'b', '1', true)",
                vec!["app.tenant", "b"],
            ),
            ("SELECT 'set_config(''a'''", vec![]),
        ] {
            assert_eq!(of(sql), (names.into_iter().map(str::to_owned).collect(), true), "{sql}");
        }
    }

    #[test]
    fn a_name_that_is_not_written_out_is_not_guessed() {
        for sql in ["SELECT set_config(name, 'x', false) FROM t", "SELECT set_config($1, $2, false)"] {
            assert!(!of(sql).1, "{sql}");
        }
    }

    #[test]
    fn names_inside_a_block_are_found() {
        let mut names = Vec::new();
        hidden_parameters(
            RawSql(b"DO $$ BEGIN PERFORM set_config( 'a.b', '1', false); PERFORM SET_CONFIG(x, '1', false); END $$"),
            |n| {
                names.push(n.to_owned());
            },
        );
        assert_eq!(names, ["a.b"]);
    }
}
