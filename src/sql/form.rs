//! The parts of the literal-free form: its tokens, who listens to them, and the frames they are hashed in.

use super::hash;
use super::words::Word;

/// Frames deeper than this are hashed flat.
pub(super) const MAX_DEPTH: usize = 64;
/// Ordinals of ORDER BY and GROUP BY longer than this are literals like any other number.
pub(super) const ORDINAL_DIGITS: usize = 4;

pub(super) const T_LIT: u64 = hash::named(b"literal");
pub(super) const T_NAME: u64 = hash::named(b"name");
pub(super) const T_LIST: u64 = hash::named(b"list");
pub(super) const T_OPEN: u64 = hash::named(b"(");
pub(super) const T_CLOSE: u64 = hash::named(b")");
pub(super) const T_BRACKET: u64 = hash::named(b"[");
pub(super) const T_CASE: u64 = hash::named(b"case");
pub(super) const T_ATOMIC: u64 = hash::named(b"atomic");
pub(super) const T_SEGMENT: u64 = hash::named(b"segment");
pub(super) const T_COMMA: u64 = hash::named(b",");
pub(super) const T_DOT: u64 = hash::named(b".");
pub(super) const T_CAST: u64 = hash::named(b"::");
pub(super) const T_EQUALS: u64 = hash::chunk(hash::OP_SEED, b'=' as u64);
pub(super) const T_LESS: u64 = hash::chunk(hash::OP_SEED, b'<' as u64);
pub(super) const T_GREATER: u64 = hash::chunk(hash::OP_SEED, b'>' as u64);
pub(super) const T_LESS_EQ: u64 = hash::chunk(hash::OP_SEED, u16::from_le_bytes(*b"<=") as u64);
pub(super) const T_GREATER_EQ: u64 = hash::chunk(hash::OP_SEED, u16::from_le_bytes(*b">=") as u64);

/// A canonical token as the display form sees it.
#[derive(Clone, Copy)]
pub(super) enum Lexeme<'a> {
    /// Keyword or unquoted word.
    Word(&'a [u8], Word),
    /// Quoted identifier, quotes included.
    Quoted(&'a [u8]),
    /// Operator or other punctuation.
    Op(&'a [u8]),
    /// An ordinal: the only number that stays.
    Number(&'a [u8]),
    Open(u8),
    Close(u8),
    Comma,
    Dot,
    Cast,
    /// End of the type name behind a cast.
    TypeEnd,
    /// A literal: `$n`. Its text is for judging (a leading `%`, a deep OFFSET), never for showing.
    Literal(&'a [u8]),
    /// A dynamic name: `_`.
    Name,
    /// `/*, ... */` at the end of a list.
    Ellipsis,
}

/// Who hears the canonical tokens.
pub(super) trait Sink {
    /// A place to come back to.
    type Mark: Copy + Default;
    fn mark(&self) -> Self::Mark;
    fn rollback(&mut self, mark: Self::Mark);
    fn put(&mut self, lexeme: Lexeme<'_>);
}

/// The hot path: nobody listens.
pub(super) struct NoText;

impl Sink for NoText {
    type Mark = ();
    #[inline(always)]
    fn mark(&self) {}
    #[inline(always)]
    fn rollback(&mut self, (): ()) {}
    #[inline(always)]
    fn put(&mut self, _: Lexeme<'_>) {}
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Shell {
    /// The statement itself.
    #[default]
    Top,
    Paren,
    /// After IN: squashed when all literals.
    List,
    /// A group inside a list.
    Item,
    /// A row of VALUES.
    Row,
    Array,
    Subscript,
    Cast,
    SetConfig,
    Case,
    Atomic,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Clause {
    #[default]
    None,
    Select,
    From,
    Where,
    /// ORDER BY and GROUP BY.
    Order,
    Values,
    Other,
}

/// One token sequence: the statement, a bracket, a CASE.
#[derive(Clone, Copy, Default)]
pub(super) struct Frame<M> {
    pub h: u64,
    /// Hash and token of the last bare group, and the token number it ended at (0: none).
    pub group_h: u64,
    pub group_t: u64,
    pub group_n: u32,
    /// Bare groups joined so far.
    pub groups: u32,
    /// Hash around the open segment, and after the last one; the last one's token.
    pub seg_outer: u64,
    pub seg_after: u64,
    pub seg_last: u64,
    /// Hash and purity before the word ARRAY in front of this bracket.
    pub outer_h: u64,
    pub outer_pure: bool,
    /// Literals at this level.
    pub items: u32,
    pub shell: Shell,
    pub clause: Clause,
    /// Only literals and commas so far.
    pub pure: bool,
    /// Opened where a group stands alone; opened right behind a connector behind another such group.
    pub bare: bool,
    pub joined: bool,
    /// Inside a segment; the segment may be dropped when it equals the last one.
    pub segment: bool,
    pub seg_joined: bool,
    pub seg_seen: bool,
    /// Has its own SELECT, so FROM is a clause.
    pub query: bool,
    pub group_mark: M,
    pub seg_mark: M,
    pub first_mark: M,
}

impl<M: Copy + Default> Frame<M> {
    pub fn new(shell: Shell) -> Self {
        Self { h: hash::SEQ_SEED, shell, pure: true, ..Self::default() }
    }
}

pub(super) const WATCH_TABLE: u8 = 1;
pub(super) const WATCH_NAME: u8 = 2;
