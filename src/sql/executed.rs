//! Where a text names prepared statements that it executes.

use super::lexer::{Kind, Lexer};
use super::words::Word;
use super::{LexSettings, RawSql};

/// What a text says about a prepared statement, and where its name begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    /// It is executed.
    Execute(usize),
    /// It is made: from here on the name is the text's own.
    Prepare(usize),
    /// All are ended: what is executed from here on the text has made itself.
    EndAll,
}

/// Calls `each` with what the text says about prepared statements, in its order. They are executed at the beginning of
/// one of the text's statements, behind EXPLAIN, and behind AS in a CREATE TABLE. False when it is not sure how the text
/// is read.
pub fn executed_names(sql: RawSql<'_>, settings: LexSettings, mut each: impl FnMut(Said)) -> bool {
    let mut lexer = Lexer::new(sql.0, settings);
    let (mut first, mut before) = (Word::Start, Word::Start);
    loop {
        let token = lexer.next();
        match token.kind {
            Kind::End => return settings.safe_encoding && !lexer.unsure() && !lexer.capped(),
            Kind::Semi => {
                (first, before) = (Word::Start, Word::Start);
                continue;
            }
            Kind::Word if token.word == Word::Execute => {
                let executes =
                    before == Word::Start || first == Word::Explain || first == Word::Create && before == Word::As;
                let mut ahead = lexer;
                let name = ahead.next();
                if executes && matches!(name.kind, Kind::Word | Kind::Quoted) {
                    each(Said::Execute(name.start));
                }
            }
            Kind::Word if token.word == Word::Prepare && before == Word::Start => {
                let mut ahead = lexer;
                let name = ahead.next();
                if matches!(name.kind, Kind::Word | Kind::Quoted) && name.word != Word::Transaction {
                    each(Said::Prepare(name.start));
                }
            }
            Kind::Word if token.word == Word::All => {
                let ends = before == first && matches!(first, Word::Deallocate | Word::Discard);
                if ends || first == Word::Deallocate && before == Word::Prepare {
                    each(Said::EndAll);
                }
            }
            _ => {}
        }
        before = if token.kind == Kind::Word { token.word } else { Word::Plain };
        if first == Word::Start {
            first = before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sql: &str) -> Vec<&str> {
        let settings = LexSettings { standard_conforming_strings: Some(true), safe_encoding: true };
        let mut names = Vec::new();
        let word = |at: usize| sql[at..].split(['(', ';', ' ']).next().unwrap();
        let each = |said| match said {
            Said::Execute(at) => names.push(word(at)),
            Said::Prepare(at) => names.extend(["made", word(at)]),
            Said::EndAll => names.push("ended"),
        };
        assert!(executed_names(RawSql(sql.as_bytes()), settings, each));
        names
    }

    #[test]
    fn names_are_found_wherever_a_statement_is_executed() {
        for (sql, names) in [
            ("EXECUTE a", vec!["a"]),
            ("SELECT 1; execute a(1, ';EXECUTE x'); /* ; EXECUTE c */ EXECUTE \"B\"", vec!["a", "\"B\""]),
            ("EXPLAIN EXECUTE a", vec!["a"]),
            ("BEGIN; EXPLAIN (ANALYZE, COSTS off) EXECUTE a(1); END", vec!["a"]),
            ("CREATE TEMP TABLE t AS EXECUTE a(1)", vec!["a"]),
            ("DO $$BEGIN EXECUTE a; END$$", vec![]),
            ("GRANT EXECUTE ON FUNCTION f() TO x", vec![]),
            ("CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION f()", vec![]),
            ("SELECT execute FROM a; SELECT ';', execute FROM b", vec![]),
            ("SELECT 1; EXECUTE", vec![]),
            ("DEALLOCATE ALL; PREPARE a AS SELECT 2; EXECUTE a", vec!["ended", "made", "a", "a"]),
            ("deallocate prepare all; DISCARD ALL;EXECUTE a", vec!["ended", "ended", "a"]),
            ("DISCARD PLANS; DEALLOCATE b; SELECT ALL 1; EXECUTE a", vec!["a"]),
            ("PREPARE TRANSACTION 'x'; PREPARE \"a\" (int) AS SELECT $1", vec!["made", "\"a\""]),
        ] {
            assert_eq!(of(sql), names, "{sql}");
        }
    }
}
