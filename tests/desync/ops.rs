//! What scripts are made of: statements whose answers are known beforehand, the messages that carry them, batches.

use std::sync::Arc;
use std::time::Duration;

use crate::support::raw;

/// Parameters that servers report, which every client sets for itself.
pub const PARAMETERS: [&str; 3] = ["TimeZone", "application_name", "DateStyle"];

/// What a statement does, as far as its client can tell.
#[derive(Debug)]
pub enum Op {
    Empty,
    /// These rows.
    Rows(Vec<Vec<String>>),
    /// `$1` and the tag of the text.
    Echo(String),
    /// `$1:n` and the tag for n up to `$2`.
    Series(String),
    /// `$1`, the length of `$2`, the tag.
    Length(String),
    /// The nonce (else `$1`), the tag, the three parameters and a date in the client's style.
    Settings(Option<String>, String),
    /// Inserts the nonce (else `$1`) and returns it with the tag.
    Insert(Option<u64>, String),
    /// How many rows the nonce has.
    Count(String, u64),
    /// Five rows `nonce:n` (else `$1:n`) with a division by `x - n`, where `x` may be `$2`: an error behind some rows.
    Divide(Option<(String, i64)>, String),
    /// Not SQL.
    Syntax,
    /// Fails when it is analysed, with this SQLSTATE.
    Analysis(&'static str),
    /// Fails when it is planned.
    Planning(&'static str),
    Begin,
    Commit,
    Rollback,
    Savepoint(&'static str),
    RollbackTo(&'static str),
    Release(&'static str),
    /// Which of [`PARAMETERS`], the value, whether LOCAL.
    Set(usize, String, bool),
    /// `set_config(name, $1, false)` and `$2`.
    SetConfig(usize),
    Reset(usize),
    DeallocateAll,
    DiscardAll,
    CopyOut(Vec<String>),
    /// Rows of this nonce follow.
    CopyIn(u64),
    /// An advisory lock until the end of the transaction; these rows.
    Lock(Vec<Vec<String>>),
    /// Leaves what ties the client to its server; answered with this command tag.
    Tie(&'static str),
}

/// A statement and its text.
#[derive(Debug)]
pub struct Statement {
    pub sql: String,
    pub op: Op,
}

pub type Shared = Arc<Statement>;

impl Op {
    /// Allowed in a failed transaction (IsTransactionExitStmt, postgres.c).
    pub fn ends_failure(&self) -> bool {
        matches!(self, Op::Commit | Op::Rollback | Op::RollbackTo(_))
    }

    /// BEGIN, COMMIT, SAVEPOINT and their kin (TransactionStmt).
    pub fn controls(&self) -> bool {
        matches!(self, Op::Begin | Op::Savepoint(_) | Op::Release(_)) || self.ends_failure()
    }

    /// Whether a RowDescription belongs to it.
    pub fn returns_rows(&self) -> bool {
        matches!(
            self,
            Op::Rows(_)
                | Op::Echo(_)
                | Op::Series(_)
                | Op::Length(_)
                | Op::Settings(..)
                | Op::Insert(..)
                | Op::Count(..)
                | Op::Divide(..)
                | Op::SetConfig(_)
                | Op::Lock(_)
                | Op::Planning(_)
        )
    }

    /// Parameters it takes.
    pub fn takes(&self) -> usize {
        match self {
            Op::Echo(_) | Op::Settings(None, _) | Op::Insert(None, _) => 1,
            Op::Series(_) | Op::Length(_) | Op::Divide(None, _) | Op::SetConfig(_) => 2,
            _ => 0,
        }
    }

    /// Why it does not take these: scripts guess what a name means, and may be wrong.
    pub fn refuses(&self, parameters: &[String]) -> Option<&'static str> {
        let number = match self {
            _ if parameters.len() != self.takes() => return Some("08P01"),
            Op::Insert(None, _) => &parameters[0],
            Op::Series(_) | Op::Divide(None, _) => &parameters[1],
            _ => return None,
        };
        number.parse::<i64>().is_err().then_some("22P02")
    }

    /// A portal of it can be executed again.
    pub fn suspends(&self) -> bool {
        self.returns_rows() && !matches!(self, Op::Insert(..))
    }
}

/// A message of the client.
#[derive(Debug)]
pub enum Msg {
    /// Statements of one Query, and how long a comment stands in front of them.
    Query(Vec<Shared>, usize),
    Parse(String, Shared),
    Bind {
        portal: String,
        name: String,
        parameters: Vec<String>,
    },
    Describe(u8, String),
    Execute(String, u32),
    Close(u8, String),
    Sync,
    Flush,
    /// A row of COPY; whether it is a right one.
    CopyData(u64, bool),
    CopyDone,
    CopyFail,
    /// int4pl(a, b).
    Function(i32, i32),
}

/// OID of int4pl (pg_proc.dat).
const INT4PL: u32 = 177;

impl Msg {
    pub fn put(&self, out: &mut Vec<u8>) {
        let bytes = match self {
            Msg::Query(statements, padding) => {
                let texts: Vec<_> = statements.iter().map(|s| s.sql.as_str()).collect();
                let comment = if *padding > 0 { format!("/*{}*/ ", "p".repeat(*padding)) } else { String::new() };
                raw::query(&format!("{comment}{}", texts.join("; ")))
            }
            Msg::Parse(name, statement) => raw::parse(name, &statement.sql),
            Msg::Bind { portal, name, parameters } => {
                let parameters: Vec<_> = parameters.iter().map(|p| Some(p.as_str())).collect();
                raw::bind(portal, name, &parameters)
            }
            Msg::Describe(kind, name) => raw::describe(*kind, name),
            Msg::Execute(portal, limit) => raw::execute(portal, *limit),
            Msg::Close(kind, name) => raw::close(*kind, name),
            Msg::Sync => raw::sync(),
            Msg::Flush => raw::flush(),
            Msg::CopyData(nonce, true) => raw::frame(b'd', format!("{nonce}\t1\n").as_bytes()),
            Msg::CopyData(..) => raw::frame(b'd', b"not a number\t1\n"),
            Msg::CopyDone => raw::frame(b'c', b""),
            Msg::CopyFail => raw::frame(b'f', b"no more\0"),
            Msg::Function(a, b) => {
                let mut body = [&INT4PL.to_be_bytes()[..], &0u16.to_be_bytes(), &2u16.to_be_bytes()].concat();
                for value in [a.to_string(), b.to_string()] {
                    body.extend((value.len() as u32).to_be_bytes());
                    body.extend(value.as_bytes());
                }
                body.extend(0u16.to_be_bytes());
                raw::frame(b'F', &body)
            }
        };
        out.extend(bytes);
    }

    /// For a failure's report.
    pub fn show(&self) -> String {
        let mut text = match self {
            Msg::Query(statements, padding) => {
                let texts: Vec<_> = statements.iter().map(|s| s.sql.as_str()).collect();
                format!(
                    "Q {:?}{}",
                    texts,
                    if *padding > 0 { format!(" behind {padding} bytes") } else { String::new() }
                )
            }
            Msg::Parse(name, statement) => format!("P {name:?} {:?}", statement.sql),
            Msg::Bind { portal, name, parameters } => format!("B {portal:?} {name:?} {parameters:?}"),
            Msg::Describe(kind, name) => format!("D {} {name:?}", *kind as char),
            Msg::Execute(portal, limit) => format!("E {portal:?} {limit}"),
            Msg::Close(kind, name) => format!("C {} {name:?}", *kind as char),
            other => format!("{other:?}"),
        };
        if let Some((at, _)) = text.char_indices().nth(300) {
            text.truncate(at);
        }
        text
    }
}

/// How a client goes.
#[derive(Clone, Copy, Debug)]
pub enum Goodbye {
    Terminate,
    Close,
    Reset,
}

/// Messages sent at once, whose answers are read before the next batch is sent.
#[derive(Debug)]
pub struct Batch {
    pub messages: Vec<Msg>,
    /// In pieces of random sizes.
    pub cut: bool,
    /// Nothing is read for so long after sending has begun.
    pub deaf: Duration,
    /// A cancel request so long after sending has begun.
    pub cancel: Option<Duration>,
    /// The client goes when so many bytes (in thousandths of all) have been sent, after so long.
    pub leave: Option<(u64, Duration)>,
    /// Before it.
    pub think: Duration,
    /// Seed of the cuts.
    pub seed: u64,
}

/// All that one connection does.
#[derive(Debug)]
pub struct Session {
    pub startup: Vec<(&'static str, String)>,
    pub batches: Vec<Batch>,
    pub goodbye: Goodbye,
}

impl Session {
    pub fn show(&self) -> String {
        let mut text = format!("startup {:?}, goodbye {:?}\n", self.startup, self.goodbye);
        for (number, batch) in self.batches.iter().enumerate() {
            text += &format!(
                "batch {number}: cut {}, deaf {:?}, cancel {:?}, leave {:?}\n",
                batch.cut, batch.deaf, batch.cancel, batch.leave
            );
            for message in &batch.messages {
                text += &format!("    {}\n", message.show());
            }
        }
        text
    }
}
