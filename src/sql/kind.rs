//! What a statement is and what it leaves behind in its server session.

use super::lexer::{Kind, Lexer, Token};
use super::words::Word;
use super::{LexSettings, Operation, RawSql, effect};

/// Tokens looked at behind the first keyword of a utility statement.
const LOOK_AHEAD: usize = 64;

/// Kind of statement by its first keyword.
pub(super) fn operation(first: Word) -> Operation {
    match first {
        Word::Select | Word::Values | Word::Table | Word::With => Operation::Select,
        Word::Insert => Operation::Insert,
        Word::Update => Operation::Update,
        Word::Delete => Operation::Delete,
        Word::Merge => Operation::Merge,
        Word::Begin
        | Word::Commit
        | Word::Rollback
        | Word::Savepoint
        | Word::Release
        | Word::StartKw
        | Word::End
        | Word::Abort => Operation::Transaction,
        Word::Create
        | Word::Alter
        | Word::Drop
        | Word::Truncate
        | Word::Comment
        | Word::Grant
        | Word::Revoke
        | Word::Reindex
        | Word::Cluster
        | Word::Refresh
        | Word::Security
        | Word::Reassign
        | Word::Import => Operation::Ddl,
        Word::Copy => Operation::Copy,
        Word::Set
        | Word::Reset
        | Word::Show
        | Word::Discard
        | Word::Deallocate
        | Word::Prepare
        | Word::Execute
        | Word::Listen
        | Word::Unlisten
        | Word::Notify
        | Word::Load => Operation::Session,
        Word::Declare | Word::Fetch | Word::Move | Word::CloseKw => Operation::Cursor,
        _ => Operation::Other,
    }
}

/// Statements in whose text a plain word before a string is a type name.
pub(super) fn is_dml(first: Word) -> bool {
    matches!(
        first,
        Word::Select
            | Word::Insert
            | Word::Update
            | Word::Delete
            | Word::Merge
            | Word::With
            | Word::Values
            | Word::Declare
            | Word::Explain
    )
}

/// True when a dynamic name follows the first keyword; `lexer` stands behind it.
pub(super) fn names_follow(first: Word, lexer: Lexer<'_>) -> bool {
    match first {
        Word::Savepoint
        | Word::Release
        | Word::Declare
        | Word::CloseKw
        | Word::Execute
        | Word::Deallocate
        | Word::Listen
        | Word::Notify
        | Word::Unlisten => true,
        Word::Prepare => Words(lexer).next() != Some(Word::Transaction),
        _ => false,
    }
}

/// The words of the rest of a statement, one for each token.
struct Words<'s>(Lexer<'s>);

impl Words<'_> {
    fn token(&mut self) -> Option<Token> {
        let token = self.0.next();
        (!matches!(token.kind, Kind::Semi | Kind::End)).then_some(token)
    }
}

impl Iterator for Words<'_> {
    type Item = Word;
    fn next(&mut self) -> Option<Word> {
        self.token().map(|t| if t.kind == Kind::Word { t.word } else { Word::Ident })
    }
}

/// Effects told by the first words of a statement. `lexer` stands behind the first keyword. Function calls
/// (`set_config`, advisory locks) and `pg_temp` are seen by the canonicaliser, wherever they stand.
pub(super) fn effects(first: Word, lexer: Lexer<'_>) -> u16 {
    let mut words = Words(lexer);
    match first {
        Word::Set => set_effects(words),
        Word::Reset => match (words.next(), words.next()) {
            (Some(Word::Role), None) | (Some(Word::Session), Some(Word::Authorization)) => effect::ROLE | effect::RESET,
            _ => effect::RESET,
        },
        Word::Listen => effect::LISTEN,
        Word::Unlisten | Word::CloseKw => effect::UNDO,
        Word::Discard => match words.next() {
            Some(Word::All) => effect::DISCARD_ALL,
            _ => effect::UNDO,
        },
        Word::Prepare => match words.next() {
            Some(Word::Transaction) => 0,
            _ => effect::PREPARE,
        },
        Word::Execute => effect::EXECUTE,
        Word::Deallocate => deallocate_effects(words),
        Word::Declare => hold_effects(words),
        Word::Load => effect::LOAD,
        Word::Create => create_effects(words),
        _ => 0,
    }
}

fn set_effects(mut words: Words<'_>) -> u16 {
    let mut first = words.next();
    if first == Some(Word::Local) || matches!(first, Some(Word::Transaction | Word::Constraints)) {
        return 0;
    }
    if first == Some(Word::Session) {
        match words.next() {
            Some(Word::Authorization) => return effect::ROLE,
            // SET SESSION CHARACTERISTICS sets default_transaction_*.
            Some(Word::Characteristics) => return effect::SET,
            next => first = next,
        }
    }
    if first == Some(Word::Role) {
        // `SET role = x` names the parameter, to the same end.
        return effect::ROLE;
    }
    let mut next = words.token();
    if first == Some(Word::Names) {
        return if next.is_none_or(|t| is(&t, Word::Default)) { effect::RESET } else { effect::SET };
    }
    // The dots of a custom parameter.
    while next.is_some_and(|t| t.kind == Kind::Dot) {
        words.next();
        next = words.token();
    }
    let value = words.token();
    let local = |t: &Token| first == Some(Word::Time) && is(t, Word::Local);
    if value.is_some_and(|t| is(&t, Word::Default) || local(&t)) { effect::RESET } else { effect::SET }
}

fn is(token: &Token, word: Word) -> bool {
    token.kind == Kind::Word && token.word == word
}

fn deallocate_effects(mut words: Words<'_>) -> u16 {
    let mut name = words.next();
    if name == Some(Word::Prepare) {
        name = words.next();
    }
    if name == Some(Word::All) { effect::DEALLOCATE_ALL } else { effect::DEALLOCATE }
}

fn hold_effects(words: Words<'_>) -> u16 {
    let mut last = Word::Start;
    // The cursor's name comes first and may be any word.
    for word in words.skip(1).take(LOOK_AHEAD) {
        match (last, word) {
            (Word::With, Word::Hold) => return effect::HOLD_CURSOR,
            (_, Word::For) => return 0,
            _ => last = word,
        }
    }
    0
}

fn create_effects(words: Words<'_>) -> u16 {
    let mut temp = false;
    let mut last = [Word::Start; 2];
    let (mut index, mut routine, mut pg_temp) = (0, true, false);
    for word in words {
        if index < LOOK_AHEAD {
            match word {
                Word::Temp | Word::Temporary if index < 5 && head(last[1]) => temp = true,
                Word::Table | Word::View | Word::Sequence if index < 6 => routine = false,
                Word::PgTemp => pg_temp = true,
                _ => {}
            }
        }
        // `ON COMMIT DROP`: gone with its transaction.
        if last == [Word::On, Word::Commit] && word == Word::Drop {
            return 0;
        }
        last = [last[1], word];
        index += 1;
    }
    (u16::from(temp || pg_temp) * effect::TEMP) | (u16::from(pg_temp && routine) * effect::LOAD)
}

/// Words that may stand between CREATE and TEMP.
fn head(w: Word) -> bool {
    matches!(w, Word::Start | Word::Or | Word::Replace | Word::Global | Word::Local)
}

/// The parameter a SET or RESET statement names, in lower case: `search_path`, `time zone`, `role`. RESET ALL: `all`.
///
/// None for any other statement, and for SET TRANSACTION, SET CONSTRAINTS and SET SESSION CHARACTERISTICS.
pub fn set_target(sql: RawSql<'_>, settings: LexSettings) -> Option<String> {
    let mut words = Words(Lexer::new(sql.0, settings));
    let first = words.token()?;
    if !matches!(first.word, Word::Set | Word::Reset) || first.kind != Kind::Word {
        return None;
    }
    let mut name = words.token()?;
    if first.word == Word::Set && matches!(name.word, Word::Session | Word::Local) {
        name = words.token()?;
    } else if name.word == Word::Session {
        return Some("session authorization".into());
    }
    match name.word {
        Word::Transaction | Word::Constraints | Word::Characteristics => return None,
        Word::Authorization => return Some("session authorization".into()),
        Word::Time => return Some("timezone".into()),
        Word::Names => return Some("client_encoding".into()),
        Word::Schema => return Some("search_path".into()),
        _ => {}
    }
    let mut text = plain(&words.0, &name)?;
    loop {
        let mut ahead = Words(words.0);
        let (Some(dot), Some(part)) = (ahead.token(), ahead.token()) else {
            break;
        };
        if dot.kind != Kind::Dot {
            break;
        }
        text.push('.');
        text.push_str(&plain(&ahead.0, &part)?);
        words = ahead;
    }
    Some(text)
}

fn plain(lexer: &Lexer<'_>, token: &Token) -> Option<String> {
    let text = std::str::from_utf8(lexer.bytes(token)).ok()?;
    // Parameter names are matched without regard to case, quoted or not.
    matches!(token.kind, Kind::Word | Kind::Quoted).then(|| text.trim_matches('"').to_ascii_lowercase())
}
