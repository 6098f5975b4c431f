//! PostgreSQL as its client sees it: what each message must be answered with, and what may come instead when servers
//! are killed, queries cancelled and waits limited.
//!
//! Not a forecast: it reads the answers as it goes, so that a refused BEGIN makes what follows a transaction less.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::conn::{Broken, Reader};
use super::ops::{Msg, Op, PARAMETERS, Shared, Statement};
use super::script::ZONES;
use crate::support::raw::Message;

/// The longest wait for one message. Generous: the machine may be busy.
const STUCK: Duration = Duration::from_secs(60);
/// Messages kept for a failure's report.
const REMEMBERED: usize = 30;

/// Why checking ends.
#[derive(Debug)]
pub enum Stop {
    /// The connection has ended in a way that the run permits.
    Ended,
    /// What must never happen.
    Wrong(String),
}

/// What the run permits, and what servers start with.
#[derive(Clone)]
pub struct Rules {
    /// Servers are killed.
    pub kills: bool,
    /// Waits for a server are limited.
    pub waits: bool,
    /// What comes behind an Execute without Sync runs in a block of its own that lasts until the Sync (PostgreSQL 18:
    /// start_xact_command and XACT_FLAGS_PIPELINING, postgres.c). Before, a Query there ends the transaction.
    pub blocks: bool,
    /// How many errors one cancel request may cause: before PostgreSQL 18 the backend is signalled twice, by itself and as its
    /// process group (signal_child, postmaster.c), and may have begun the next query in between.
    pub signals: u32,
    /// Values of [`PARAMETERS`] without any SET.
    pub defaults: [String; 3],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Transaction {
    Idle,
    Block,
    Failed,
}

/// Values of [`PARAMETERS`].
#[derive(Clone)]
struct Parameters {
    session: [String; 3],
    /// SET LOCAL.
    local: [Option<String>; 3],
}

impl Parameters {
    fn get(&self, which: usize) -> &str {
        self.local[which].as_deref().unwrap_or(&self.session[which])
    }

    fn set(&mut self, which: usize, value: String) {
        self.session[which] = value;
        self.local[which] = None;
    }
}

/// What a rollback brings back.
#[derive(Clone)]
struct Snapshot {
    parameters: Parameters,
    rows: usize,
}

#[derive(Clone)]
struct Portal {
    statement: Shared,
    parameters: Vec<String>,
    /// Rows fetched.
    at: usize,
    done: bool,
    /// Its query failed: it cannot be run again (portalmem.c, MarkPortalFailed).
    failed: bool,
    /// How many savepoints there were when it was made: rolling back to an older one takes it.
    depth: usize,
}

struct Copy {
    nonce: u64,
    rows: u64,
    /// Statements of the same Query behind it; `None` in the extended protocol.
    rest: Option<Vec<Shared>>,
    /// There are others in the same Query.
    of_many: bool,
}

/// Counts of what happened, by outcome.
pub type Outcomes = BTreeMap<String, u64>;

/// One connection's answers, checked.
pub struct Checker {
    pub reader: Reader,
    rules: Rules,
    /// Values it began with, and whether it asked for any.
    startup: [String; 3],
    asked: bool,
    transaction: Transaction,
    /// An Execute has been carried out, outside of a block, and no Sync has followed.
    pipelining: bool,
    /// What runs now is in a block because of that.
    implicit: bool,
    /// A command was begun since the last ReadyForQuery.
    started: bool,
    /// PostgreSQL's own fault (18.6): a Sync that ends such a block with nothing between commits nothing; the next command
    /// is refused with XX000, and all is rolled back.
    broken: bool,
    base: Option<Snapshot>,
    savepoints: Vec<(&'static str, Snapshot)>,
    parameters: Parameters,
    statements: BTreeMap<String, Shared>,
    portals: BTreeMap<String, Portal>,
    copy: Option<Copy>,
    /// An error came: everything up to Sync is skipped.
    skipping: bool,
    /// Nothing of this request has reached a server: a wait may end with 53300.
    fresh: bool,
    /// What a cancel left is told by the next ReadyForQuery.
    unsure: bool,
    /// Holds an advisory lock: another one may deadlock.
    locked: bool,
    /// Cancel requests sent that may still take effect.
    pub cancels: u32,
    /// Rows inserted, of those that are not rolled back; nonce and count.
    rows: Vec<(u64, u64)>,
    /// So many of them are committed.
    pub committed: usize,
    /// Rolled back, refused or skipped.
    pub absent: Vec<u64>,
    pub outcomes: Outcomes,
    pub heard: VecDeque<String>,
}

type Answer<T> = Result<Result<T, String>, Stop>;

/// `?` for the inner result: a failed statement is not a failed check.
macro_rules! ok {
    ($answer:expr) => {
        match $answer? {
            Ok(value) => value,
            Err(code) => return Ok(Err(code)),
        }
    };
}

impl Checker {
    pub fn new(reader: Reader, startup: &[(&'static str, String)], rules: Rules) -> Self {
        let mut begins = rules.defaults.clone();
        for (name, value) in startup {
            let which = PARAMETERS.iter().position(|p| p == name).expect("one of ours");
            begins[which] = value.clone();
        }
        Checker {
            reader,
            rules,
            startup: begins.clone(),
            asked: !startup.is_empty(),
            transaction: Transaction::Idle,
            pipelining: false,
            implicit: false,
            started: false,
            broken: false,
            base: None,
            savepoints: Vec::new(),
            parameters: Parameters { session: begins, local: Default::default() },
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            copy: None,
            skipping: false,
            fresh: true,
            unsure: false,
            locked: false,
            cancels: 0,
            rows: Vec::new(),
            committed: 0,
            absent: Vec::new(),
            outcomes: Outcomes::new(),
            heard: VecDeque::new(),
        }
    }

    /// Rows known to be committed.
    pub fn present(&self) -> &[(u64, u64)] {
        &self.rows[..self.committed]
    }

    /// The client goes now, between batches: what is not committed never will be.
    pub fn gone(&mut self) {
        self.absent.extend(self.rows.drain(self.committed..).map(|(nonce, _)| nonce));
    }

    /// Cancels that have been delivered while nothing ran are lost, but in a COPY that waits for data.
    pub fn batch_done(&mut self) {
        if self.copy.is_none() {
            self.cancels = 0;
        }
    }

    fn count(&mut self, what: &str) {
        *self.outcomes.entry(what.to_owned()).or_default() += 1;
    }

    fn wrong<T>(&self, text: impl Into<String>) -> Result<T, Stop> {
        Err(Stop::Wrong(text.into()))
    }

    // === Reading ===

    async fn read(&mut self) -> Result<Message, Stop> {
        loop {
            let message = match timeout(STUCK, self.reader.next()).await {
                Err(_) => return self.wrong(format!("no answer within {STUCK:?}")),
                Ok(Ok(message)) => message,
                Ok(Err(broken)) if self.rules.kills => {
                    self.count(&format!("end without a word: {broken:?}"));
                    return Err(Stop::Ended);
                }
                Ok(Err(broken)) => return self.wrong(format!("the connection broke: {broken:?}")),
            };
            let mut shown = format!("{message:?}");
            if let Some((at, _)) = shown.char_indices().nth(240) {
                shown.truncate(at);
            }
            if self.heard.len() == REMEMBERED {
                self.heard.pop_front();
            }
            self.heard.push_back(shown);
            match message.tag {
                b'N' | b'S' | b'A' => {}
                b'E' if message.field(b'V').is_some_and(|severity| severity == "FATAL") => {
                    return Err(self.fatal(&message).await);
                }
                _ => return Ok(message),
            }
        }
    }

    /// A FATAL error is the last word.
    async fn fatal(&mut self, message: &Message) -> Stop {
        let code = message.field(b'C').unwrap_or_default();
        let allowed = self.rules.kills && matches!(&*code, "57P01" | "08006");
        if !allowed {
            return Stop::Wrong(format!("the session was ended: {}", message.to_error()));
        }
        match timeout(STUCK, self.reader.next()).await {
            Ok(Err(Broken::Closed | Broken::Reset)) => {
                self.count(&format!("end with {code}"));
                Stop::Ended
            }
            other => Stop::Wrong(format!("behind FATAL {code}: {other:?}")),
        }
    }

    /// Whether this error may stand where another answer was expected.
    fn may_fail(&mut self, code: &str) -> bool {
        let allowed = match code {
            "57014" if self.cancels > 0 => {
                self.cancels -= 1;
                self.unsure = true;
                true
            }
            "53300" => self.rules.waits && self.fresh,
            // A server was killed while it was being opened, and no other was there.
            "57P01" | "08006" => self.rules.kills && self.fresh,
            // A statement that its server has not met yet cannot be prepared there.
            "25P02" => self.transaction == Transaction::Failed,
            "40P01" => self.locked,
            _ => false,
        };
        if allowed {
            self.count(code);
        }
        allowed
    }

    fn failure(&mut self, message: &Message, instead_of: &str) -> Answer<Message> {
        let code = message.field(b'C').unwrap_or_default();
        let own = "StartTransactionCommand: unexpected state STARTED";
        if self.broken && message.field(b'M').as_deref() == Some(own) {
            self.count("XX000 of PostgreSQL itself");
            return Ok(Err(code));
        }
        if self.may_fail(&code) {
            return Ok(Err(code));
        }
        self.wrong(format!("{} instead of {instead_of}", message.to_error()))
    }

    async fn want(&mut self, tag: u8) -> Answer<Message> {
        let message = self.read().await?;
        if message.tag == tag {
            self.fresh = false;
            return Ok(Ok(message));
        }
        if message.tag == b'E' {
            return self.failure(&message, &format!("{:?}", tag as char));
        }
        self.wrong(format!("{message:?} instead of {:?}", tag as char))
    }

    /// An error with this code, or one that may come at any time; never `Ok`.
    async fn want_error<T>(&mut self, code: &str) -> Answer<T> {
        let message = self.read().await?;
        if message.tag != b'E' {
            return self.wrong(format!("{message:?} instead of error {code}"));
        }
        if message.field(b'C').as_deref() != Some(code) {
            let answer = self.failure(&message, &format!("error {code}"))?;
            return Ok(Err(answer.expect_err("an error is never an answer")));
        }
        self.count(code);
        Ok(Err(code.to_owned()))
    }

    async fn want_command(&mut self, expected: &str) -> Answer<()> {
        let message = ok!(self.want(b'C').await);
        if message.command() != expected {
            return self.wrong(format!("{message:?} instead of {expected:?}"));
        }
        Ok(Ok(()))
    }

    async fn want_row(&mut self, expected: &[String]) -> Answer<()> {
        let message = ok!(self.want(b'D').await);
        let row: Vec<_> = message.to_row().into_iter().map(Option::unwrap_or_default).collect();
        if row != expected {
            let show = |row: &[String]| row.iter().map(|v| v.chars().take(100).collect()).collect::<Vec<String>>();
            return self.wrong(format!("row {:?} instead of {:?}", show(&row), show(expected)));
        }
        Ok(Ok(()))
    }

    // === Transactions ===

    fn snapshot(&self) -> Snapshot {
        Snapshot { parameters: self.parameters.clone(), rows: self.rows.len() }
    }

    fn restore(&mut self, to: Snapshot) {
        self.parameters = to.parameters;
        self.absent.extend(self.rows.drain(to.rows..).map(|(nonce, _)| nonce));
    }

    /// Every statement runs in a transaction; outside a block it is one of its own.
    fn begin_implicit(&mut self) {
        if self.transaction == Transaction::Idle && self.base.is_none() {
            self.base = Some(self.snapshot());
        }
    }

    /// A message is carried out (start_xact_command).
    fn start_command(&mut self) {
        self.begin_implicit();
        self.started = true;
        self.implicit |= self.rules.blocks && self.pipelining && self.transaction == Transaction::Idle;
    }

    /// An Execute has been carried out and not committed.
    fn executed(&mut self) {
        self.pipelining |= self.transaction == Transaction::Idle;
    }

    fn leave_transaction(&mut self) {
        self.transaction = Transaction::Idle;
        (self.pipelining, self.implicit, self.broken) = (false, false, false);
        self.base = None;
        self.savepoints.clear();
        self.portals.clear();
        self.locked = false;
        self.parameters.local = Default::default();
    }

    fn commit(&mut self) {
        self.leave_transaction();
        self.committed = self.rows.len();
    }

    fn rollback(&mut self) {
        if let Some(base) = self.base.take() {
            self.restore(base);
        }
        self.leave_transaction();
    }

    /// An error.
    fn abort(&mut self) {
        match self.transaction {
            Transaction::Idle => self.rollback(),
            _ => self.transaction = Transaction::Failed,
        }
    }

    async fn want_ready(&mut self) -> Answer<()> {
        let message = ok!(self.want(b'Z').await);
        self.started = false;
        if self.unsure {
            self.unsure = false;
            match message.body[0] {
                b'I' if self.transaction != Transaction::Idle || self.implicit => self.rollback(),
                b'E' if self.transaction == Transaction::Block => self.transaction = Transaction::Failed,
                _ => {}
            }
        }
        if self.transaction == Transaction::Idle && !self.implicit && !self.broken {
            self.commit();
            self.fresh = true;
        }
        let status = match self.transaction {
            Transaction::Idle if !self.implicit => b'I',
            Transaction::Idle | Transaction::Block => b'T',
            Transaction::Failed => b'E',
        };
        if message.body != [status] {
            return self.wrong(format!("{message:?} instead of status {:?}", status as char));
        }
        // A client with startup parameters hears of a RESET in two steps.
        if !self.asked && self.transaction != Transaction::Failed {
            for (which, name) in PARAMETERS.into_iter().enumerate() {
                let (told, true_one) = (self.reader.parameters.get(name), self.parameters.get(which));
                if told.is_none_or(|told| told != true_one) {
                    return self.wrong(format!("{name} was reported as {told:?}, and is {true_one:?}"));
                }
            }
        }
        Ok(Ok(()))
    }

    // === Messages ===

    /// Reads and checks the answers to `message`.
    pub async fn message(&mut self, message: &Msg) -> Result<(), Stop> {
        if self.skipping && !matches!(message, Msg::Sync) {
            return Ok(());
        }
        match message {
            Msg::Query(statements, _) => self.query(statements).await,
            Msg::Sync => self.sync().await,
            Msg::Function(a, b) => self.function(*a, *b).await,
            Msg::Flush => Ok(()),
            Msg::CopyData(nonce, good) => self.copy_data(*nonce, *good).await,
            Msg::CopyDone | Msg::CopyFail => self.copy_end(matches!(message, Msg::CopyDone)).await,
            extended => {
                match extended {
                    Msg::Close(..) => self.begin_implicit(),
                    _ => self.start_command(),
                }
                let (fresh, shareable) = (self.fresh, shareable(extended));
                match self.extended(extended).await? {
                    // pgsluice may have answered this itself, and have no server yet.
                    Ok(()) => self.fresh = fresh && shareable,
                    Err(_) => {
                        if let Msg::Execute(portal, _) = extended
                            && let Some(portal) = self.portals.get_mut(portal)
                        {
                            portal.failed = true;
                        }
                        self.skip();
                    }
                }
                Ok(())
            }
        }
    }

    fn skip(&mut self) {
        self.fresh = false;
        self.abort();
        self.skipping = true;
    }

    async fn extended(&mut self, message: &Msg) -> Answer<()> {
        match message {
            Msg::Parse(name, statement) => self.parse(name, statement).await,
            Msg::Bind { portal, name, parameters } => self.bind(portal, name, parameters).await,
            Msg::Describe(kind, name) => self.describe(*kind, name).await,
            Msg::Execute(portal, limit) => self.execute(portal, *limit as usize).await,
            Msg::Close(kind, name) => {
                ok!(self.want(b'3').await);
                if *kind == b'S' {
                    self.statements.remove(name);
                } else {
                    self.portals.remove(name);
                }
                Ok(Ok(()))
            }
            other => unreachable!("{other:?}"),
        }
    }

    async fn parse(&mut self, name: &str, statement: &Shared) -> Answer<()> {
        if name.is_empty() {
            self.statements.remove("");
        }
        let failed = self.transaction == Transaction::Failed;
        match &statement.op {
            Op::Syntax => return self.want_error("42601").await,
            Op::Empty => {}
            op if failed && !op.ends_failure() => return self.want_error("25P02").await,
            Op::Analysis(code) => return self.want_error(code).await,
            _ => {}
        }
        if self.statements.contains_key(name) {
            return self.want_error("42P05").await;
        }
        ok!(self.want(b'1').await);
        self.statements.insert(name.to_owned(), statement.clone());
        Ok(Ok(()))
    }

    async fn bind(&mut self, portal: &str, name: &str, parameters: &[String]) -> Answer<()> {
        let Some(statement) = self.statements.get(name).cloned() else { return self.want_error("26000").await };
        if parameters.len() != statement.op.takes() {
            return self.want_error("08P01").await;
        }
        if self.transaction == Transaction::Failed && (!statement.op.ends_failure() || !parameters.is_empty()) {
            return self.want_error("25P02").await;
        }
        if !portal.is_empty() && self.portals.contains_key(portal) {
            return self.want_error("42P03").await;
        }
        let planning = if let Op::Planning(code) = statement.op { Some(code) } else { None };
        if let Some(code) = statement.op.refuses(parameters).or(planning) {
            if self.transaction == Transaction::Block {
                // The portal has been made, and nothing put in: it is there until the block ends, and answers as one of an
                // empty text (exec_bind_message; exec_execute_message, CMDTAG_UNKNOWN).
                let statement = Arc::new(Statement { sql: String::new(), op: Op::Empty });
                self.made(portal, statement, &[]);
            }
            return self.want_error(code).await;
        }
        ok!(self.want(b'2').await);
        self.made(portal, statement, parameters);
        Ok(Ok(()))
    }

    fn made(&mut self, portal: &str, statement: Shared, parameters: &[String]) {
        let depth = self.savepoints.len();
        let made = Portal { statement, parameters: parameters.to_vec(), at: 0, done: false, failed: false, depth };
        self.portals.insert(portal.to_owned(), made);
    }

    async fn describe(&mut self, kind: u8, name: &str) -> Answer<()> {
        let (found, missing) = match kind {
            b'S' => (self.statements.get(name).cloned(), "26000"),
            _ => (self.portals.get(name).map(|portal| portal.statement.clone()), "34000"),
        };
        let Some(statement) = found else { return self.want_error(missing).await };
        let rows = statement.op.returns_rows();
        if self.transaction == Transaction::Failed && rows {
            return self.want_error("25P02").await;
        }
        if kind == b'S' {
            ok!(self.want(b't').await);
        }
        ok!(self.want(if rows { b'T' } else { b'n' }).await);
        Ok(Ok(()))
    }

    async fn execute(&mut self, name: &str, limit: usize) -> Answer<()> {
        let Some(portal) = self.portals.get(name).cloned() else { return self.want_error("34000").await };
        if let Op::Empty = portal.statement.op {
            ok!(self.want(b'I').await);
            return Ok(Ok(()));
        }
        if self.transaction == Transaction::Failed && !portal.statement.op.ends_failure() {
            return self.want_error("25P02").await;
        }
        if portal.failed {
            return self.want_error("55000").await;
        }
        let Some((rows, error, command)) = self.answer_of(&portal.statement.op, &portal.parameters) else {
            if portal.done {
                return self.want_error("55000").await;
            }
            ok!(self.run(&portal.statement.op, None).await);
            if let Some(portal) = self.portals.get_mut(name) {
                portal.done = true;
            }
            if !portal.statement.op.controls() && self.copy.is_none() {
                self.executed();
            }
            return Ok(Ok(()));
        };
        let left = &rows[portal.at.min(rows.len())..];
        let suspended = limit > 0 && left.len() >= limit && !portal.done;
        let now = &left[..if suspended { limit } else { left.len() }];
        for row in now {
            ok!(self.want_row(row).await);
        }
        if suspended {
            ok!(self.want(b's').await);
        } else if let Some(code) = error {
            return self.want_error(code).await;
        } else {
            ok!(self.want_command(&format!("{command} {}", now.len())).await);
        }
        let count = now.len();
        if let Some(portal) = self.portals.get_mut(name) {
            portal.at += count;
            portal.done |= !suspended;
        }
        if count > 0 {
            // Not once more when it is executed again at its end.
            self.effect(&portal.statement.op, &portal.parameters);
        }
        self.executed();
        Ok(Ok(()))
    }

    async fn sync(&mut self) -> Result<(), Stop> {
        self.skipping = false;
        self.broken |= self.implicit && !self.started;
        self.implicit = false;
        // A refused Sync, or one whose commit was cancelled, is answered twice.
        while self.want_ready().await?.is_err() {
            self.abort();
        }
        Ok(())
    }

    async fn query(&mut self, statements: &[Shared]) -> Result<(), Stop> {
        self.statements.remove("");
        self.statements_of_query(statements, statements.len() > 1).await
    }

    async fn statements_of_query(&mut self, statements: &[Shared], of_many: bool) -> Result<(), Stop> {
        self.start_command();
        if self.many(statements).await?.is_err() {
            self.fresh = false;
            self.abort();
        } else if let Some(copy) = &mut self.copy {
            copy.of_many = of_many;
            return Ok(());
        } else if of_many {
            // Several statements make a block that ends with them.
            self.implicit = false;
        }
        match self.want_ready().await? {
            Ok(()) => Ok(()),
            Err(code) => self.wrong(format!("error {code} behind the answers to a Query")),
        }
    }

    async fn many(&mut self, statements: &[Shared]) -> Answer<()> {
        if statements.iter().any(|statement| matches!(statement.op, Op::Syntax)) {
            return self.want_error("42601").await;
        }
        for (number, statement) in statements.iter().enumerate() {
            if let Op::Empty = statement.op {
                ok!(self.want(b'I').await);
                continue;
            }
            if self.transaction == Transaction::Failed && !statement.op.ends_failure() {
                return self.want_error("25P02").await;
            }
            self.start_command();
            self.portals.remove("");
            let Some((rows, error, command)) = self.answer_of(&statement.op, &[]) else {
                ok!(self.run(&statement.op, Some(&statements[number + 1..])).await);
                if self.copy.is_some() {
                    return Ok(Ok(()));
                }
                continue;
            };
            ok!(self.want(b'T').await);
            for row in &rows {
                ok!(self.want_row(row).await);
            }
            if let Some(code) = error {
                return self.want_error(code).await;
            }
            ok!(self.want_command(&format!("{command} {}", rows.len())).await);
            self.effect(&statement.op, &[]);
        }
        Ok(Ok(()))
    }

    async fn function(&mut self, a: i32, b: i32) -> Result<(), Stop> {
        self.start_command();
        let answer = if self.transaction == Transaction::Failed {
            self.want_error("25P02").await?
        } else {
            self.want(b'V').await?
        };
        match answer {
            Ok(message) => {
                let sum = (a + b).to_string();
                if message.body[4..] != *sum.as_bytes() {
                    return self.wrong(format!("{message:?} instead of {sum}"));
                }
            }
            Err(_) => {
                self.fresh = false;
                self.abort();
            }
        }
        match self.want_ready().await? {
            Ok(()) => Ok(()),
            Err(code) => self.wrong(format!("error {code} behind the answer to a FunctionCall")),
        }
    }

    // === COPY from the client ===

    async fn copy_data(&mut self, nonce: u64, good: bool) -> Result<(), Stop> {
        let Some(copy) = &mut self.copy else { return Ok(()) };
        if good {
            debug_assert_eq!(copy.nonce, nonce);
            copy.rows += 1;
            return Ok(());
        }
        let _ = self.want_error::<()>("22P02").await?;
        self.copy_failed().await
    }

    async fn copy_end(&mut self, done: bool) -> Result<(), Stop> {
        let Some(copy) = &self.copy else { return Ok(()) };
        let (nonce, rows) = (copy.nonce, copy.rows);
        let answer =
            if done { self.want_command(&format!("COPY {rows}")).await? } else { self.want_error("57014").await? };
        if answer.is_err() {
            return self.copy_failed().await;
        }
        self.rows.push((nonce, rows));
        match self.copy.take() {
            Some(Copy { rest: Some(rest), of_many, .. }) => self.statements_of_query(&rest, of_many).await,
            _ => {
                self.executed();
                Ok(())
            }
        }
    }

    async fn copy_failed(&mut self) -> Result<(), Stop> {
        let Some(copy) = self.copy.take() else { return Ok(()) };
        self.absent.push(copy.nonce);
        if copy.rest.is_none() {
            self.skip();
            return Ok(());
        }
        self.abort();
        match self.want_ready().await? {
            Ok(()) => Ok(()),
            Err(code) => self.wrong(format!("error {code} behind a COPY that has failed")),
        }
    }

    // === Statements ===

    /// The rows of a statement that returns some, the error behind them, and the word of its command tag.
    #[allow(clippy::type_complexity)]
    fn answer_of(
        &self,
        op: &Op,
        parameters: &[String],
    ) -> Option<(Vec<Vec<String>>, Option<&'static str>, &'static str)> {
        let given = |at: usize| parameters.get(at).cloned().unwrap_or_default();
        let number = |at: usize| given(at).parse::<i64>().unwrap_or_default();
        let select = |rows| Some((rows, None, "SELECT"));
        match op {
            Op::Rows(rows) | Op::Lock(rows) => select(rows.clone()),
            Op::Echo(tag) => select(vec![vec![given(0), tag.clone()]]),
            Op::Series(tag) => {
                select((1..=number(1)).map(|n| vec![format!("{}:{n}", given(0)), tag.clone()]).collect())
            }
            Op::Length(tag) => select(vec![vec![given(0), given(1).len().to_string(), tag.clone()]]),
            Op::Settings(nonce, tag) => {
                let nonce = nonce.clone().unwrap_or_else(|| given(0));
                let mut row = vec![nonce, tag.clone()];
                row.extend((0..3).map(|which| self.parameters.get(which).to_owned()));
                row.push(date(self.parameters.get(2)).to_owned());
                select(vec![row])
            }
            Op::Insert(nonce, tag) => {
                let nonce = nonce.map_or_else(|| given(0), |n| n.to_string());
                Some((vec![vec![nonce, tag.clone()]], None, "INSERT 0"))
            }
            Op::Count(own, nonce) => {
                let count: u64 = self.rows.iter().filter(|(n, _)| n == nonce).map(|(_, count)| count).sum();
                select(vec![vec![own.clone(), count.to_string()]])
            }
            Op::Divide(literal, tag) => {
                let (nonce, by) = literal.clone().unwrap_or_else(|| (given(0), number(1)));
                let whole = (1..=5).take_while(|n| *n != by);
                let rows: Vec<_> =
                    whole.map(|n| vec![format!("{nonce}:{n}"), (1 / (by - n)).to_string(), tag.clone()]).collect();
                let error = (rows.len() < 5).then_some("22012");
                Some((rows, error, "SELECT"))
            }
            // A guess that was wrong: no such TimeZone.
            Op::SetConfig(0) if !ZONES.contains(&given(0).as_str()) => Some((Vec::new(), Some("22023"), "SELECT")),
            Op::SetConfig(_) => select(vec![vec![given(0), given(1)]]),
            _ => None,
        }
    }

    /// What a statement with rows has done.
    fn effect(&mut self, op: &Op, parameters: &[String]) {
        match op {
            Op::Insert(nonce, _) => {
                let nonce = nonce.unwrap_or_else(|| parameters[0].parse().expect("a number"));
                self.rows.push((nonce, 1));
            }
            Op::SetConfig(which) => self.parameters.set(*which, parameters[0].clone()),
            Op::Lock(_) => self.locked = true,
            _ => {}
        }
    }

    /// A statement without rows. `rest`: what stands behind it in the same Query.
    async fn run(&mut self, op: &Op, rest: Option<&[Shared]>) -> Answer<()> {
        let block = self.transaction != Transaction::Idle;
        match op {
            Op::Analysis(code) | Op::Planning(code) => self.want_error(code).await,
            Op::Begin | Op::Commit | Op::Rollback => self.run_transaction(op).await,
            Op::Savepoint(_) | Op::RollbackTo(_) | Op::Release(_) if !block => self.want_error("25P01").await,
            Op::Savepoint(name) => {
                ok!(self.want_command("SAVEPOINT").await);
                self.savepoints.push((name, self.snapshot()));
                Ok(Ok(()))
            }
            Op::RollbackTo(name) | Op::Release(name) => {
                let Some(at) = self.savepoints.iter().rposition(|(known, _)| known == name) else {
                    return self.want_error("3B001").await;
                };
                if matches!(op, Op::Release(_)) {
                    ok!(self.want_command("RELEASE").await);
                    self.savepoints.truncate(at);
                    self.portals.values_mut().for_each(|portal| portal.depth = portal.depth.min(at));
                } else {
                    ok!(self.want_command("ROLLBACK").await);
                    self.savepoints.truncate(at + 1);
                    self.portals.retain(|_, portal| portal.depth <= at);
                    self.restore(self.savepoints[at].1.clone());
                    self.transaction = Transaction::Block;
                }
                Ok(Ok(()))
            }
            Op::Set(which, value, local) => {
                ok!(self.want_command("SET").await);
                if *local {
                    self.parameters.local[*which] = Some(value.clone());
                } else {
                    self.parameters.set(*which, value.clone());
                }
                Ok(Ok(()))
            }
            Op::Reset(which) => {
                ok!(self.want_command("RESET").await);
                self.parameters.set(*which, self.startup[*which].clone());
                Ok(Ok(()))
            }
            Op::DeallocateAll => {
                ok!(self.want_command("DEALLOCATE ALL").await);
                self.statements.retain(|name, _| name.is_empty());
                Ok(Ok(()))
            }
            Op::DiscardAll if block || self.implicit => self.want_error("25001").await,
            Op::DiscardAll => {
                ok!(self.want_command("DISCARD ALL").await);
                self.statements.clear();
                self.portals.clear();
                self.parameters = Parameters { session: self.startup.clone(), local: Default::default() };
                Ok(Ok(()))
            }
            Op::CopyOut(lines) => {
                ok!(self.want(b'H').await);
                for line in lines {
                    let data = ok!(self.want(b'd').await);
                    if data.body != format!("{line}\n").as_bytes() {
                        return self.wrong(format!("{data:?} instead of {line:?}"));
                    }
                }
                ok!(self.want(b'c').await);
                self.want_command(&format!("COPY {}", lines.len())).await
            }
            Op::CopyIn(nonce) => {
                ok!(self.want(b'G').await);
                self.copy = Some(Copy { nonce: *nonce, rows: 0, rest: rest.map(<[Shared]>::to_vec), of_many: false });
                Ok(Ok(()))
            }
            Op::Tie(command) => self.want_command(command).await,
            other => unreachable!("{other:?}"),
        }
    }

    async fn run_transaction(&mut self, op: &Op) -> Answer<()> {
        match op {
            Op::Begin => {
                ok!(self.want_command("BEGIN").await);
                self.transaction = Transaction::Block;
                self.implicit = false;
            }
            Op::Commit if self.transaction != Transaction::Failed => {
                ok!(self.want_command("COMMIT").await);
                self.commit();
            }
            _ => {
                ok!(self.want_command("ROLLBACK").await);
                self.rollback();
            }
        }
        Ok(Ok(()))
    }
}

/// Parse and Close of named statements may be answered without a server.
fn shareable(message: &Msg) -> bool {
    match message {
        Msg::Parse(name, _) => !name.is_empty(),
        Msg::Close(kind, name) => *kind == b'S' && !name.is_empty(),
        _ => false,
    }
}

/// The first of February 2020 in this DateStyle.
pub fn date(style: &str) -> &'static str {
    match style {
        "ISO, MDY" => "2020-02-01",
        "SQL, DMY" => "01/02/2020",
        "German, DMY" => "01.02.2020",
        "Postgres, MDY" => "02-01-2020",
        other => panic!("DateStyle {other:?}"),
    }
}
