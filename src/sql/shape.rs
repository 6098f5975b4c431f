//! What a statement looks like, for advice in the ORM's words. Cold path: once for a fingerprint never seen before.
//!
//! Works on the canonical tokens, so a shape holds names and facts but never a literal. Everything is bounded: what
//! does not fit is left out, and what cannot be read is [`Shape::other_predicates`].

use super::canon::Canon;
use super::form::{Lexeme, Sink};
use super::hash::Keyed;
use super::lexer::Lexer;
use super::shape_parse;
use super::words::{SHOWN, Word, attr};
use super::{LexSettings, Operation, RawSql, flag};

/// Tables kept of one statement.
pub const TABLE_CAP: usize = 8;
/// Columns kept of one list.
pub const COLUMN_CAP: usize = 64;
/// Canonical tokens looked at.
const TOKEN_CAP: usize = 8192;
/// An OFFSET above this is deep pagination.
const DEEP_OFFSET: u64 = 10_000;
/// Bytes of a summary.
const SUMMARY_BYTES: usize = 120;

/// A column, with the name of its table where the statement tells it (aliases resolved).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Column {
    /// Table name, empty when the column stands alone.
    pub table: String,
    /// Column name; `*` for all.
    pub name: String,
}

/// A table named by a statement.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table {
    /// Name without its schema.
    pub name: String,
    /// Schema, when written.
    pub schema: Option<String>,
    /// Alias, when given.
    pub alias: Option<String>,
}

/// One join of the outermost SELECT, UPDATE or DELETE.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Join {
    /// Index in [`Shape::tables`].
    pub table: usize,
    /// LEFT, RIGHT or FULL.
    pub outer: bool,
    /// `a = b` pairs of its ON.
    pub on: Vec<(Column, Column)>,
}

/// The LIMIT of the outermost statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Limit {
    /// No LIMIT.
    #[default]
    None,
    /// `LIMIT 1`: `.first()`, `.exists()`.
    One,
    /// `LIMIT 21`: Django's `.get()`.
    TwentyOne,
    /// Any other.
    Other,
}

/// What INSERT does on a conflict.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnConflict {
    /// Fails.
    #[default]
    None,
    /// `DO NOTHING`.
    Nothing,
    /// `DO UPDATE`.
    Update,
}

/// The shape of one statement.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shape {
    /// Kind of statement (of a DECLARE: Cursor, the rest tells its query).
    pub operation: Operation,
    /// Tables in order of appearance, subqueries included, CTE names left out. The first is the statement's own.
    pub tables: Vec<Table>,
    /// Plain columns of the select list.
    pub columns: Vec<Column>,
    /// Expressions in the select list, plain or not, also beyond the cap.
    pub width: usize,
    /// `COUNT(*)` is the whole select list.
    pub count: bool,
    /// `SELECT 1 AS "a"`: Django's `.exists()`.
    pub exists: bool,
    /// The one aggregate that is the whole select list, in lower case (`count`, `sum` ...).
    pub aggregate: Option<String>,
    /// `*` or `t.*` in the select list.
    pub star: bool,
    /// The column behind `_prefetch_related_val_...`.
    pub prefetch: Option<Column>,
    /// Joins of the outermost statement.
    pub joins: Vec<Join>,
    /// Has WHERE.
    pub has_where: bool,
    /// Top-level conditions `column = value`.
    pub equals: Vec<Column>,
    /// Top-level conditions `column IN (values)`, `column = ANY(value)`.
    pub in_lists: Vec<Column>,
    /// Top-level conditions `column < value`, BETWEEN and the like.
    pub ranges: Vec<Column>,
    /// Top-level LIKE, ILIKE, `~`.
    pub likes: Vec<Column>,
    /// A LIKE pattern begins with `%`.
    pub leading_wildcard: bool,
    /// Other conditions (OR, IS NULL, functions, subqueries, `a = b`).
    pub other_predicates: bool,
    /// Plain columns of ORDER BY.
    pub order_by: Vec<Column>,
    /// `ORDER BY RANDOM()`.
    pub order_random: bool,
    /// Has GROUP BY.
    pub group_by: bool,
    /// LIMIT.
    pub limit: Limit,
    /// Has OFFSET.
    pub offset: bool,
    /// OFFSET above 10,000.
    pub deep_offset: bool,
    /// `FOR UPDATE` and its kin.
    pub for_update: bool,
    /// `SKIP LOCKED` or `NOWAIT`.
    pub skip_locked: bool,
    /// `SELECT DISTINCT`.
    pub distinct: bool,
    /// UNION, EXCEPT or INTERSECT.
    pub set_operation: bool,
    /// ON CONFLICT.
    pub on_conflict: OnConflict,
    /// Columns of INSERT.
    pub insert_columns: Vec<String>,
    /// Columns of UPDATE's SET (or of ON CONFLICT's).
    pub set_columns: Vec<String>,
    /// Has RETURNING.
    pub returning: bool,
    /// Values in the text, lists counted once.
    pub values: usize,
}

impl Shape {
    /// The table the statement is about.
    pub fn table(&self) -> Option<&str> {
        self.tables.first().map(|t| t.name.as_str())
    }
}

/// The shape of the first statement of `sql`.
pub fn shape(sql: RawSql<'_>, settings: LexSettings) -> Shape {
    let mut stack = Vec::new();
    let sink = Collect::default();
    let mut canon = Canon::new(Lexer::new(sql.0, settings), sink, &mut stack, Keyed::new([0; 2]));
    let (mut facts, _) = canon.statement();
    while facts.operation == Operation::Empty && canon.lx.pos < sql.0.len() {
        (facts, _) = canon.statement();
    }
    let mut shape = Shape { operation: facts.operation, ..Shape::default() };
    if canon.lx.unsure() || !settings.safe_encoding {
        return shape;
    }
    shape.limit = match facts.flags {
        f if f & flag::LIMIT_ONE != 0 => Limit::One,
        f if f & flag::LIMIT_GET != 0 => Limit::TwentyOne,
        f if f & flag::LIMIT != 0 => Limit::Other,
        _ => Limit::None,
    };
    shape.offset = facts.flags & flag::OFFSET != 0;
    shape.for_update = facts.flags & flag::FOR_UPDATE != 0;
    shape.skip_locked = facts.flags & flag::LOCK_QUEUE != 0;
    shape_parse::fill(&mut shape, &canon.sink.tokens);
    shape
}

/// `SELECT shop_book`, `UPDATE shop_author`: low-cardinality text for a label, at most 120 bytes.
pub fn summary(shape: &Shape) -> String {
    let mut text = super::normalize::verb(shape.operation).to_string();
    for table in shape.tables.iter().take(3) {
        if text.len() + 1 + table.name.len() > SUMMARY_BYTES {
            break;
        }
        text.push(' ');
        text.push_str(&table.name);
    }
    text
}

/// A canonical token of the cold path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Item {
    /// Known keyword.
    Key(Word),
    /// Identifier: unquoted in lower case, quoted without its quotes.
    Name(String),
    Op(Vec<u8>),
    Number,
    Open,
    Close,
    Comma,
    Dot,
    Literal {
        /// A string that begins with `%`.
        wildcard: bool,
        /// A number above 10,000.
        deep: bool,
    },
}

#[derive(Default)]
struct Collect {
    tokens: Vec<Item>,
    in_type: bool,
}

impl Sink for Collect {
    type Mark = usize;

    fn mark(&self) -> usize {
        self.tokens.len()
    }

    fn rollback(&mut self, mark: usize) {
        self.tokens.truncate(mark);
    }

    fn put(&mut self, lexeme: Lexeme<'_>) {
        if matches!(lexeme, Lexeme::Cast | Lexeme::TypeEnd) {
            self.in_type = matches!(lexeme, Lexeme::Cast);
            return;
        }
        if self.in_type || self.tokens.len() >= TOKEN_CAP {
            return;
        }
        self.tokens.push(match lexeme {
            Lexeme::Word(_, word) if structural(word) => Item::Key(word),
            Lexeme::Word(text, _) => Item::Name(name(&text.to_ascii_lowercase())),
            Lexeme::Quoted(text) => Item::Name(name(unquote(text))),
            Lexeme::Op(text) => Item::Op(text.to_vec()),
            Lexeme::Number(_) => Item::Number,
            Lexeme::Open(_) => Item::Open,
            Lexeme::Close(_) => Item::Close,
            Lexeme::Comma => Item::Comma,
            Lexeme::Dot => Item::Dot,
            Lexeme::Name => Item::Name("_".into()),
            Lexeme::Literal(text) => Item::Literal {
                wildcard: text.split(|&b| b == b'\'').nth(1).is_some_and(|body| body.starts_with(b"%")),
                deep: std::str::from_utf8(text)
                    .ok()
                    .and_then(|t| t.parse::<u64>().ok())
                    .is_some_and(|n| n > DEEP_OFFSET),
            },
            Lexeme::Ellipsis | Lexeme::Cast | Lexeme::TypeEnd => return,
        });
    }
}

/// Keywords that give a statement its structure; the others may be names (`SELECT key FROM t`).
fn structural(word: Word) -> bool {
    let name = matches!(
        word,
        Word::Key
            | Word::No
            | Word::Share
            | Word::Of
            | Word::Temp
            | Word::Temporary
            | Word::Locked
            | Word::Begin
            | Word::Atomic
            | Word::Move
    );
    attr(word) & SHOWN != 0 && !name
}

fn unquote(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\"")).unwrap_or(text)
}

/// A name as text: printable, at most 63 characters.
fn name(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().take(63).map(|c| if c.is_control() { '?' } else { c }).collect()
}
