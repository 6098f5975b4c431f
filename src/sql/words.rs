//! The words the lexer knows: PostgreSQL's reserved keywords, the others that change how text is read, and a few
//! names (functions, tables) with a meaning for the session.
//!
//! Recognition is one probe of a table built at compile time, keyed by the 64-bit hash the word needs anyway.

use super::hash::word_const;

/// What a word is when quoted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Reserved (or only a type or function name): quoted it is another token.
    R,
    /// Unreserved keyword: quoted it is the same identifier, without the keyword's meaning.
    U,
    /// A name: means the same quoted or not.
    N,
}
use Class::{N, R, U};

/// A NULL, TRUE or FALSE after this word is a value (rule R5).
pub(super) const NULL_OK: u8 = 1;
/// A sign after this word belongs to the number (rule R6).
pub(super) const SIGN_OK: u8 = 2;
/// A group after this word stands alone and may be repeated (rules R12, R16).
pub(super) const BARE: u8 = 4;
/// The canonicaliser has a rule for this word.
pub(super) const RULE: u8 = 8;
/// A type whose name may go on (`timestamp(3) with time zone`).
pub(super) const TYPE: u8 = 16;
/// Starts a statement, and so is a keyword even after AS.
pub(super) const VERB: u8 = 32;
/// Shown as a keyword: reserved, or with a rule.
pub(super) const SHOWN: u8 = 64;
/// A value may follow (both of the first two).
const V: u8 = NULL_OK | SIGN_OK;

macro_rules! words {
    ($($id:ident $text:literal $class:ident $attr:expr;)*) => {
        /// A known word, or what the last token was.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[repr(u8)]
        pub(super) enum Word {
            /// Start of a statement.
            #[default]
            Start,
            /// Unquoted word that is no known word.
            Plain,
            /// Quoted identifier, or a word after a dot.
            Ident,
            /// A literal or parameter.
            Lit,
            /// A parenthesised single literal.
            LitGroup,
            Open,
            Close,
            Comma,
            Dot,
            Colon,
            Minus,
            Op,
            $($id,)*
        }

        const LIST: &[(&str, Word, Class, u8)] = &[
            $(($text, Word::$id, Class::$class, $attr),)*
        ];
    };
}

words! {
    Select "select" R V | RULE | VERB; From "from" R SIGN_OK | RULE; Where "where" R SIGN_OK | BARE | RULE; And "and" R SIGN_OK | BARE; Or "or" R SIGN_OK | BARE;
    Not "not" R SIGN_OK; In "in" R SIGN_OK; Is "is" R 0; Null "null" R RULE; True "true" R RULE; False "false" R RULE;
    As "as" R RULE; On "on" R SIGN_OK | BARE | RULE; Join "join" R RULE; Inner "inner" R RULE; Outer "outer" R RULE; Left "left" R 0; Right "right" R 0;
    Full "full" R 0; Cross "cross" R 0; Natural "natural" R 0; Lateral "lateral" R 0; Only "only" R 0;
    Order "order" R RULE; Group "group" R RULE; By "by" U SIGN_OK | RULE; Having "having" R SIGN_OK | BARE | RULE; Limit "limit" R V | RULE; Offset "offset" R V | RULE;
    Fetch "fetch" R RULE | VERB; First "first" U SIGN_OK; Next "next" U SIGN_OK; For "for" R SIGN_OK | RULE; Distinct "distinct" R V; All "all" R SIGN_OK | BARE;
    Asc "asc" R 0; Desc "desc" R 0; Union "union" R BARE | RULE; Except "except" R RULE; Intersect "intersect" R RULE; Window "window" R RULE;
    Case "case" R V | RULE; When "when" R V | BARE | RULE; Then "then" R V; Else "else" R V | RULE; End "end" R RULE;
    Array "array" R 0; Any "any" R 0; Some "some" R 0; Cast "cast" R 0; Values "values" U V | BARE | RULE | VERB; Default "default" R SIGN_OK | RULE;
    Insert "insert" U RULE | VERB; Into "into" R RULE; Update "update" U RULE | VERB; Delete "delete" U RULE | VERB; Merge "merge" U RULE | VERB;
    Set "set" U RULE; Returning "returning" R V | RULE; With "with" R RULE | VERB; Table "table" R VERB; Conflict "conflict" U RULE; Do "do" R 0;
    Between "between" U SIGN_OK | RULE; Like "like" R SIGN_OK; Ilike "ilike" R SIGN_OK; Similar "similar" R 0; To "to" R V | RULE; Escape "escape" U 0;
    Uescape "uescape" U 0; Create "create" R 0; Begin "begin" U RULE; Atomic "atomic" U RULE; Share "share" U RULE; No "no" U RULE; Key "key" U RULE;
    Skip "skip" U 0; Locked "locked" U RULE; Nowait "nowait" U RULE; Current "current" U 0; Of "of" U RULE; Temp "temp" U RULE; Temporary "temporary" U RULE;
    Using "using" R 0; Materialized "materialized" U RULE; Recursive "recursive" U RULE; Nothing "nothing" U RULE; Interval "interval" U TYPE; Timestamp "timestamp" U TYPE;
    Time "time" U TYPE; Double "double" U TYPE; Character "character" U TYPE; Char "char" U TYPE; Varchar "varchar" U TYPE; Bit "bit" U TYPE;
    Numeric "numeric" U TYPE; Decimal "decimal" U TYPE; Dec "dec" U TYPE; Float "float" U TYPE; National "national" U TYPE; Nchar "nchar" U TYPE;
    Timestamptz "timestamptz" U TYPE; Timetz "timetz" U TYPE;
    Precision "precision" U 0; Varying "varying" U 0; Zone "zone" U 0; Without "without" U 0; At "at" U 0; Year "year" U 0; Month "month" U 0; Day "day" U 0;
    Hour "hour" U 0; Minute "minute" U 0; Second "second" U 0; Document "document" U 0; Content "content" U 0; Path "path" U 0; Passing "passing" U 0;
    Version "version" U 0; Value "value" U 0; Format "format" U 0; Encoding "encoding" U 0; Row "row" U 0; Exists "exists" U 0;
    Savepoint "savepoint" U 0; Release "release" U VERB; Rollback "rollback" U 0; Commit "commit" U 0; StartKw "start" U 0; Abort "abort" U 0; Work "work" U 0;
    Transaction "transaction" U 0; Prepared "prepared" U 0; Prepare "prepare" U 0; Execute "execute" U VERB; Deallocate "deallocate" U 0; Declare "declare" U 0;
    Move "move" U RULE; CloseKw "close" U 0; Hold "hold" U 0; Cursor "cursor" U 0; Listen "listen" U 0; Unlisten "unlisten" U 0; Notify "notify" U 0; Discard "discard" U 0;
    Reset "reset" U 0; Show "show" U 0; Local "local" U 0; Session "session" U 0; Global "global" U 0; Characteristics "characteristics" U 0; Constraints "constraints" U 0;
    Role "role" U 0; Authorization "authorization" R 0; Names "names" U 0; Schema "schema" U 0; Load "load" U 0; Copy "copy" U 0; Explain "explain" U 0;
    Alter "alter" U 0; Drop "drop" U 0; Truncate "truncate" U 0; Comment "comment" U 0; Grant "grant" R 0; Revoke "revoke" U 0; Reindex "reindex" U 0; Cluster "cluster" U 0;
    Refresh "refresh" U 0; Security "security" U 0; Reassign "reassign" U 0; Import "import" U 0; Replace "replace" U 0; Plans "plans" U 0; Sequences "sequences" U 0;
    View "view" U 0; Sequence "sequence" U 0; Matched "matched" U 0;
    Partition "partition" U 0; Over "over" U 0; Filter "filter" U 0; Nulls "nulls" U RULE; Last "last" U 0; Rows "rows" U 0; Range "range" U SIGN_OK; Tablesample "tablesample" R 0;
    Analyse "analyse" R 0; Analyze "analyze" R 0; Asymmetric "asymmetric" R 0; Both "both" R 0; Check "check" R 0; Collate "collate" R 0; Column "column" R 0;
    Constraint "constraint" R 0; CurrentCatalog "current_catalog" R 0; CurrentDate "current_date" R 0; CurrentRole "current_role" R 0; CurrentTime "current_time" R 0;
    CurrentTimestamp "current_timestamp" R 0; CurrentUser "current_user" R 0; Deferrable "deferrable" R 0; Foreign "foreign" R 0; Initially "initially" R 0;
    Leading "leading" R 0; Localtime "localtime" R 0; Localtimestamp "localtimestamp" R 0; Placing "placing" R 0; Primary "primary" R 0; References "references" R 0;
    SessionUser "session_user" R 0; Symmetric "symmetric" R SIGN_OK; SystemUser "system_user" R 0; Trailing "trailing" R 0; Unique "unique" R 0; User "user" R 0; Variadic "variadic" R 0;
    Binary "binary" R 0; Collation "collation" R 0; Concurrently "concurrently" R 0; CurrentSchema "current_schema" R 0; Freeze "freeze" R 0; Isnull "isnull" R 0;
    Notnull "notnull" R 0; Overlaps "overlaps" R 0; Verbose "verbose" R 0;
    SetConfig "set_config" N 0; PgTemp "pg_temp" N 0; DjangoSession "django_session" N 0; DjangoMigrations "django_migrations" N 0; SessionKey "session_key" N 0;
    AdvisoryLock "pg_advisory_lock" N 0; AdvisoryLockShared "pg_advisory_lock_shared" N 0; TryAdvisoryLock "pg_try_advisory_lock" N 0;
    TryAdvisoryLockShared "pg_try_advisory_lock_shared" N 0; AdvisoryUnlock "pg_advisory_unlock" N 0; AdvisoryUnlockShared "pg_advisory_unlock_shared" N 0;
    AdvisoryUnlockAll "pg_advisory_unlock_all" N 0; ScsName "standard_conforming_strings" N 0; InformationSchema "information_schema" N 0; SearchPath "search_path" N 0;
}

/// Attributes of a word or of the pseudo-words.
#[inline(always)]
pub(super) const fn attr(w: Word) -> u8 {
    ATTR[w as usize]
}

static ATTR: [u8; 256] = {
    let mut t = [0u8; 256];
    t[Word::Start as usize] = SIGN_OK | BARE;
    t[Word::Open as usize] = V | BARE;
    t[Word::Comma as usize] = V | BARE;
    t[Word::Colon as usize] = SIGN_OK;
    t[Word::Op as usize] = V;
    t[Word::Minus as usize] = NULL_OK;
    let mut i = 0;
    while i < LIST.len() {
        let shown = matches!(LIST[i].2, R) || LIST[i].3 & (RULE | VERB) != 0;
        t[LIST[i].1 as usize] = LIST[i].3 | if shown { SHOWN } else { 0 };
        i += 1;
    }
    t
};

const SLOTS: usize = 1024;

struct Table {
    hash: [u64; SLOTS],
    word: [Word; SLOTS],
    class: [Class; SLOTS],
}

static TABLE: Table = {
    let mut t = Table { hash: [0; SLOTS], word: [Word::Plain; SLOTS], class: [N; SLOTS] };
    let mut i = 0;
    while i < LIST.len() {
        let h = word_const(LIST[i].0.as_bytes());
        let mut at = slot(h);
        while t.hash[at] != 0 {
            at = (at + 1) % SLOTS;
        }
        t.hash[at] = h;
        t.word[at] = LIST[i].1;
        t.class[at] = LIST[i].2;
        i += 1;
    }
    t
};

#[inline(always)]
const fn slot(h: u64) -> usize {
    (h >> 54) as usize
}

#[inline(always)]
fn find(h: u64) -> Option<usize> {
    let mut at = slot(h);
    loop {
        let seen = TABLE.hash[at % SLOTS];
        if seen == h {
            return Some(at % SLOTS);
        }
        if seen == 0 {
            return None;
        }
        at += 1;
    }
}

/// The known word with this hash, or [`Word::Plain`].
#[inline(always)]
pub(super) fn unquoted(h: u64) -> Word {
    match find(h) {
        None => Word::Plain,
        Some(at) => TABLE.word[at],
    }
}

/// What a quoted identifier with this hash is: a known name or [`Word::Ident`]; and whether it hides a reserved word.
#[inline(always)]
pub(super) fn quoted(h: u64) -> (Word, bool) {
    match find(h) {
        None => (Word::Ident, false),
        Some(at) => match TABLE.class[at] {
            R => (Word::Ident, true),
            U => (Word::Ident, false),
            N => (TABLE.word[at], false),
        },
    }
}

/// Names (not keywords) keep their meaning when quoted and are identifiers everywhere.
#[inline(always)]
pub(super) fn is_name(w: Word) -> bool {
    w as u8 >= Word::SetConfig as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_found_and_no_hash_is_shared() {
        for &(text, word, _, _) in LIST {
            assert!(unquoted(word_const(text.as_bytes())) == word, "{text}");
        }
        assert!(unquoted(word_const(b"shop_book")) == Word::Plain);
        let mut all: Vec<u64> = LIST.iter().map(|w| word_const(w.0.as_bytes())).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), LIST.len());
        assert!(LIST.len() < SLOTS / 2, "the table stays sparse");
    }
}
