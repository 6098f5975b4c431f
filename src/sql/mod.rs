//! SQL as the pooler sees it: one lexer pass that gives each statement a stable, literal-free fingerprint.
//!
//! Pure: no I/O, no tokio, knows nothing of the wire. The hot entry is [`Analyzer::analyze`]; it allocates nothing
//! once its scratch is warm. [`display`] and [`shape()`] are the cold path, run once for a fingerprint never seen before.

mod canon;
mod comments;
mod executed;
mod fingerprint;
mod form;
mod frames;
mod fuzz;
mod hash;
mod keywords;
mod kind;
mod lexer;
mod normalize;
mod seen;
mod shape;
mod shape_parse;
mod shape_tables;
mod shape_where;
mod strings;
mod tags;
mod templates;
mod touched;
mod types;
mod words;

#[cfg(test)]
mod tests;

pub use comments::without_comments;
pub use executed::{Said, executed_names};
pub use fingerprint::Analyzer;
pub use fuzz::{fuzz_lexer, fuzz_tags};
pub use kind::set_target;
pub use normalize::{Normalised, display};
pub use shape::{Column, Join, Limit, OnConflict, Shape, Table, shape, summary};
pub use tags::{CommentBodies, TagValue, Tags, VALUE_CAP, comment_bodies, tags, tags_with};
pub use touched::{hidden_parameters, touched_parameters};

/// Version of the hash form. Published with every fingerprint; a change of any rule that moves an id bumps it.
pub const FINGERPRINT_VERSION: u8 = 1;

/// SQL text as a client sent it. Has no `Debug`, `Display` or `Serialize`: literals must not leave the process.
#[derive(Clone, Copy)]
pub struct RawSql<'a>(pub &'a [u8]);

/// Stable 64-bit id of a statement's literal-free form; shown as 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Fingerprint(pub u64);

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a statement does, by its leading keywords.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Operation {
    /// SELECT, VALUES, TABLE, or WITH whose parts all read.
    Select,
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// MERGE.
    Merge,
    /// CREATE, ALTER, DROP, TRUNCATE, COMMENT, GRANT and the like.
    Ddl,
    /// BEGIN, COMMIT, ROLLBACK, SAVEPOINT, RELEASE, PREPARE TRANSACTION, START, END, ABORT.
    Transaction,
    /// COPY.
    Copy,
    /// SET, RESET, SHOW, DISCARD, DEALLOCATE, PREPARE, EXECUTE, LISTEN, NOTIFY ..., set_config without FROM.
    Session,
    /// DECLARE, FETCH, MOVE, CLOSE.
    Cursor,
    /// No statement at all (`;`, a comment).
    Empty,
    /// Anything else (EXPLAIN, VACUUM, CALL, DO, LOCK ...).
    #[default]
    Other,
}

/// What a statement leaves behind in its server session beyond the transaction. Bits of [`Statement::effects`].
///
/// Follows the list of session state in PostgreSQL's `DISCARD ALL` (sql-discard).
pub mod effect {
    /// `SET x`, `SET SESSION x`, `set_config(_, _, false)`: a run-time parameter (not SET LOCAL, SET TRANSACTION, SET CONSTRAINTS).
    pub const SET: u16 = 1;
    /// `SET ROLE`, `SET SESSION AUTHORIZATION`, `RESET ROLE`, `RESET SESSION AUTHORIZATION`.
    pub const ROLE: u16 = 1 << 1;
    /// `RESET x`, `RESET ALL`, `SET x TO DEFAULT`.
    pub const RESET: u16 = 1 << 2;
    /// `LISTEN`.
    pub const LISTEN: u16 = 1 << 3;
    /// A session-level advisory lock: `pg_advisory_lock*`, `pg_try_advisory_lock*` (not the `_xact_` ones).
    pub const ADVISORY_LOCK: u16 = 1 << 4;
    /// `CREATE TEMP ...`, `SELECT INTO TEMP`, `pg_temp.`.
    pub const TEMP: u16 = 1 << 5;
    /// `DECLARE ... WITH HOLD`.
    pub const HOLD_CURSOR: u16 = 1 << 6;
    /// SQL-level `PREPARE name AS`.
    pub const PREPARE: u16 = 1 << 7;
    /// SQL-level `EXECUTE name`.
    pub const EXECUTE: u16 = 1 << 8;
    /// `DEALLOCATE ALL` (names: [`DEALLOCATE`]).
    pub const DEALLOCATE_ALL: u16 = 1 << 9;
    /// `DEALLOCATE name`.
    pub const DEALLOCATE: u16 = 1 << 10;
    /// `DISCARD ALL`.
    pub const DISCARD_ALL: u16 = 1 << 11;
    /// `LOAD 'library'`, `CREATE/REPLACE ... pg_temp`: cannot be followed or undone.
    pub const LOAD: u16 = 1 << 12;
    /// `UNLISTEN`, `pg_advisory_unlock*`, `CLOSE`, `DISCARD TEMP|PLANS|SEQUENCES`: may undo something above.
    pub const UNDO: u16 = 1 << 13;
}

/// Facts about one statement that the detector needs. Bits of [`Statement::flags`].
pub mod flag {
    /// No FROM (`SELECT 1`, `SELECT nextval(...)`).
    pub const NO_FROM: u16 = 1;
    /// Has LIMIT or FETCH FIRST.
    pub const LIMIT: u16 = 1 << 1;
    /// Has ORDER BY at the top level.
    pub const ORDER_BY: u16 = 1 << 2;
    /// Has OFFSET.
    pub const OFFSET: u16 = 1 << 3;
    /// Has a `<`, `>`, `<=`, `>=` or BETWEEN against a value in WHERE.
    pub const RANGE: u16 = 1 << 4;
    /// `SKIP LOCKED` or `NOWAIT`.
    pub const LOCK_QUEUE: u16 = 1 << 5;
    /// `FOR UPDATE` and its kin.
    pub const FOR_UPDATE: u16 = 1 << 6;
    /// Reads only catalogues (`pg_*`, `information_schema`) or `django_migrations`.
    pub const CATALOG: u16 = 1 << 7;
    /// Text was cut at the cap or ended inside a literal or comment.
    pub const TRUNCATED: u16 = 1 << 8;
    /// Not lexed (unsafe client encoding, doubt about backslashes): no text may be shown.
    pub const UNLEXED: u16 = 1 << 9;
    /// `LIMIT 1`.
    pub const LIMIT_ONE: u16 = 1 << 10;
    /// `LIMIT 21`, Django's `.get()`.
    pub const LIMIT_GET: u16 = 1 << 11;
    /// A bare `SELECT <literal>`: Django's health check.
    pub const PING: u16 = 1 << 12;
    /// Reads `django_session` by `session_key`.
    pub const DJANGO_SESSION: u16 = 1 << 13;
    /// Has INSERT ... ON CONFLICT.
    pub const ON_CONFLICT: u16 = 1 << 14;
    /// Has at least one comment that may hold tags (see [`super::tags()`]).
    pub const COMMENT: u16 = 1 << 15;
}

/// One analysed statement. `Copy`: it is stored with a prepared statement and in the session's queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statement {
    /// Hash of the literal-free form.
    pub fingerprint: Fingerprint,
    /// Keyed hash of the literals (never leaves the process).
    pub literals: u64,
    /// Kind of statement.
    pub operation: Operation,
    /// Bits of [`flag`].
    pub flags: u16,
    /// Bits of [`effect`].
    pub effects: u16,
    /// Longest list of literals after IN, ANY(ARRAY), VALUES rows: 1 when there is none.
    pub max_list: u16,
}

/// How the session's settings make text to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LexSettings {
    /// The client session's `standard_conforming_strings`; `None` when unknown.
    pub standard_conforming_strings: Option<bool>,
    /// False for client encodings whose second byte may be `\` or `'` (SJIS, BIG5, GBK, UHC, GB18030, JOHAB).
    pub safe_encoding: bool,
}
