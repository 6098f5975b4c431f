//! Scripts from a seed: what a client sends does not depend on what it hears, so a seed always gives the same script.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::ops::{Batch, Goodbye, Msg, Op, PARAMETERS, Session, Shared, Statement};
use crate::support::Random;

const NAMES: [&str; 6] = ["", "s1", "s2", "s3", "s4", "s5"];
const PORTALS: [&str; 5] = ["", "", "", "p1", "p2"];
const SAVEPOINTS: [&str; 2] = ["a", "b"];
pub const ZONES: [&str; 4] = ["UTC", "Asia/Tokyo", "Europe/Paris", "America/New_York"];
const STYLES: [&str; 4] = ["ISO, MDY", "SQL, DMY", "German, DMY", "Postgres, MDY"];
/// Texts that clients share; more than a server keeps.
const TEXTS: u64 = 36;
const LOCKS: u64 = 6;

/// How a run is set up, apart from its seed.
#[derive(Clone, Copy)]
pub struct Mix {
    /// Clients vanish in the middle of batches.
    pub leaves: bool,
    /// Cancel requests.
    pub cancels: bool,
    /// Longest pause between batches.
    pub think: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Guess {
    Idle,
    Block,
    Failed,
}

/// Makes one session. What it guesses of the session's state only makes scripts likelier to make sense.
pub struct Maker {
    random: Random,
    mix: Mix,
    client: u64,
    nonces: u64,
    guess: Guess,
    locked: bool,
    names: BTreeMap<&'static str, Shared>,
    /// Named portals that may be open.
    portals: Vec<&'static str>,
    inserted: Vec<u64>,
    startup: bool,
    /// A sequence is open: no Sync yet.
    open: bool,
    messages: Vec<Msg>,
}

fn text(sql: String, op: Op) -> Shared {
    Arc::new(Statement { sql, op })
}

/// A text that many clients prepare.
fn shared(number: u64) -> Shared {
    let tag = format!("t{number}");
    match number % 9 {
        0 | 1 => text(format!("SELECT $1::text, '{tag}'"), Op::Echo(tag)),
        2 | 3 => {
            text(format!("SELECT $1::text || ':' || n, '{tag}' FROM generate_series(1, $2::int) n"), Op::Series(tag))
        }
        4 => text(format!("SELECT $1::text, length($2::text), '{tag}'"), Op::Length(tag)),
        5 => text(settings("$1::text", &tag), Op::Settings(None, tag)),
        6 => text(format!("INSERT INTO desync VALUES ($1::bigint, 1) RETURNING nonce, '{tag}'"), Op::Insert(None, tag)),
        7 => text(
            format!("SELECT $1::text || ':' || n, 1 / ($2::int - n), '{tag}' FROM generate_series(1, 5) n"),
            Op::Divide(None, tag),
        ),
        _ => {
            // Not DateStyle: what is set may be meant for the other one, and must be surely right or surely wrong.
            let which = (number / 9 % 2) as usize;
            text(format!("SELECT set_config('{}', $1, false), $2::text", PARAMETERS[which]), Op::SetConfig(which))
        }
    }
}

fn settings(nonce: &str, tag: &str) -> String {
    let values = PARAMETERS.map(|name| format!("current_setting('{name}')"));
    format!("SELECT {nonce}, '{tag}', {}, '2020-02-01'::date", values.join(", "))
}

impl Maker {
    /// Session `count` of a client.
    pub fn session(seed: u64, client: u64, count: u64, mix: Mix) -> Session {
        let maker = Maker {
            random: Random::new(seed),
            mix,
            client,
            nonces: count << 16,
            guess: Guess::Idle,
            locked: false,
            names: BTreeMap::new(),
            portals: Vec::new(),
            inserted: Vec::new(),
            startup: false,
            open: false,
            messages: Vec::new(),
        };
        maker.make()
    }

    fn make(mut self) -> Session {
        let mut startup = Vec::new();
        if self.chance(25) {
            for (which, name) in PARAMETERS.into_iter().enumerate() {
                if self.chance(50) {
                    startup.push((name, self.value(which)));
                }
            }
        }
        self.startup = !startup.is_empty();
        let count = 3 + self.random.below(10);
        let tie = self.chance(5).then(|| count.saturating_sub(3));
        let mut batches = Vec::new();
        for number in 0..count {
            if tie == Some(number) {
                self.tie();
            }
            self.batch();
            let messages = std::mem::take(&mut self.messages);
            batches.push(self.finish(messages));
        }
        if self.mix.leaves && self.chance(25) {
            let share = self.random.below(1001);
            let after = Duration::from_micros(self.random.below(30_000));
            batches.last_mut().expect("three at least").leave = Some((share, after));
        }
        let goodbye = self.pick(&[Goodbye::Terminate, Goodbye::Close, Goodbye::Reset]);
        Session { startup, batches, goodbye }
    }

    fn finish(&mut self, messages: Vec<Msg>) -> Batch {
        let deaf = if self.chance(4) { 20 + self.random.below(300) } else { 0 };
        let cancel = self.mix.cancels && self.chance(8);
        let think = if self.chance(70) { 0 } else { self.random.below(self.mix.think.as_micros() as u64 + 1) };
        Batch {
            messages,
            cut: self.chance(30),
            deaf: Duration::from_millis(deaf),
            cancel: cancel.then(|| Duration::from_micros(self.random.below(30_000))),
            leave: None,
            think: Duration::from_micros(think),
            seed: self.random.next(),
        }
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random.below(of.len() as u64) as usize]
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random.below(100) < percent
    }

    fn number(&mut self) -> u64 {
        self.nonces += 1;
        self.client << 40 | self.nonces
    }

    fn nonce(&mut self) -> String {
        format!("n{}", self.number())
    }

    fn value(&mut self, which: usize) -> String {
        match which {
            0 => self.pick(&ZONES).to_owned(),
            1 => format!("app {} {}", self.client, self.random.below(1000)),
            _ => self.pick(&STYLES).to_owned(),
        }
    }

    // === Statements with literals ===

    fn plain(&mut self) -> Shared {
        let nonce = self.nonce();
        match self.random.below(14) {
            0..=3 => text(format!("SELECT '{nonce}'"), Op::Rows(vec![vec![nonce]])),
            4 => {
                let rows = 1 + self.random.below(200);
                let sql = format!("SELECT '{nonce}:' || n FROM generate_series(1, {rows}) n");
                text(sql, Op::Rows((1..=rows).map(|n| vec![format!("{nonce}:{n}")]).collect()))
            }
            5 => {
                let size = self.pick(&[10, 8_000, 16_384, 100_000]);
                let sql = format!("SELECT '{nonce}', repeat('x', {size})");
                text(sql, Op::Rows(vec![vec![nonce, "x".repeat(size)]]))
            }
            6 | 7 => text(settings(&format!("'{nonce}'"), "q"), Op::Settings(Some(nonce), "q".to_owned())),
            8 | 9 => {
                let number = self.number();
                self.inserted.push(number);
                let sql = format!("INSERT INTO desync VALUES ({number}, 1) RETURNING nonce, 'i'");
                text(sql, Op::Insert(Some(number), "i".to_owned()))
            }
            10 if !self.inserted.is_empty() => {
                let of = self.inserted[self.random.below(self.inserted.len() as u64) as usize];
                let sql = format!("SELECT '{nonce}', count(*) FROM desync WHERE nonce = {of}");
                text(sql, Op::Count(nonce, of))
            }
            11 if !self.locked => {
                self.locked = self.guess != Guess::Idle;
                let sql = format!("SELECT pg_advisory_xact_lock({}), '{nonce}'", self.random.below(LOCKS));
                text(sql, Op::Lock(vec![vec![String::new(), nonce]]))
            }
            12 => {
                let ms = self.random.below(40);
                text(format!("SELECT pg_sleep(0.{ms:03}), '{nonce}'"), Op::Rows(vec![vec![String::new(), nonce]]))
            }
            _ => {
                let lines = 1 + self.random.below(40);
                let sql = format!("COPY (SELECT '{nonce}:' || n FROM generate_series(1, {lines}) n) TO STDOUT");
                text(sql, Op::CopyOut((1..=lines).map(|n| format!("{nonce}:{n}")).collect()))
            }
        }
    }

    fn failing(&mut self) -> Shared {
        self.fails();
        let nonce = self.nonce();
        match self.random.below(4) {
            0 => text(format!("SELECT 1/0, '{nonce}'"), Op::Planning("22012")),
            1 => text(format!("SELEC '{nonce}'"), Op::Syntax),
            2 => text(format!("SELECT '{nonce}' FROM no_such_table"), Op::Analysis("42P01")),
            _ => {
                let by = 1 + self.random.below(5) as i64;
                let sql = format!("SELECT '{nonce}:' || n, 1 / ({by} - n), 'd' FROM generate_series(1, 5) n");
                text(sql, Op::Divide(Some((nonce, by)), "d".to_owned()))
            }
        }
    }

    fn fails(&mut self) {
        if self.guess == Guess::Block {
            self.guess = Guess::Failed;
        }
    }

    fn set(&mut self) -> Shared {
        let which = self.random.below(3) as usize;
        let value = self.value(which);
        let local = self.guess == Guess::Block && self.chance(30);
        let word = if local { "LOCAL " } else { "" };
        text(format!("SET {word}{} = '{value}'", PARAMETERS[which]), Op::Set(which, value, local))
    }

    /// BEGIN, COMMIT and their kin, as they fit (or not).
    fn control(&mut self) -> Shared {
        let savepoint = self.pick(&SAVEPOINTS);
        let choice = match self.guess {
            Guess::Idle => self.pick(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]),
            Guess::Block => self.pick(&[0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 5]),
            Guess::Failed => self.pick(&[1, 2, 2, 2, 4, 4, 4, 3]),
        };
        let ended = matches!(choice, 1 | 2);
        if ended {
            self.guess = Guess::Idle;
            self.locked = false;
        }
        if ended || choice > 2 {
            self.portals.clear();
        }
        match choice {
            0 => {
                self.guess = Guess::Block;
                text("BEGIN".to_owned(), Op::Begin)
            }
            1 => text("COMMIT".to_owned(), Op::Commit),
            2 => text("ROLLBACK".to_owned(), Op::Rollback),
            3 => text(format!("SAVEPOINT {savepoint}"), Op::Savepoint(savepoint)),
            4 => {
                self.guess = if self.guess == Guess::Idle { Guess::Idle } else { Guess::Block };
                text(format!("ROLLBACK TO {savepoint}"), Op::RollbackTo(savepoint))
            }
            _ => text(format!("RELEASE {savepoint}"), Op::Release(savepoint)),
        }
    }

    fn any(&mut self) -> Shared {
        let control = if self.guess == Guess::Failed { 60 } else { 25 };
        if self.chance(control) {
            return self.control();
        }
        match self.random.below(20) {
            0..=1 => self.failing(),
            2..=4 => self.set(),
            5 if !self.startup => {
                let which = self.random.below(3) as usize;
                text(format!("RESET {}", PARAMETERS[which]), Op::Reset(which))
            }
            _ => self.plain(),
        }
    }

    // === Messages ===

    fn batch(&mut self) {
        if !self.open && self.chance(6) {
            return self.forget();
        }
        let rounds = if self.chance(55) { 1 } else { 2 + self.random.below(4) };
        for round in 0..rounds {
            match self.random.below(20) {
                0..=6 => self.simple(),
                7..=13 => self.driver(),
                14..=16 => self.stray(),
                17..=18 => self.copy_in(),
                _ => {
                    let (a, b) = (self.random.below(1 << 20) as i32, self.number() as i32 & 0xfffff);
                    self.messages.push(Msg::Function(a, b));
                    self.open = false;
                }
            }
            if self.open {
                let flush = round + 1 == rounds && self.chance(25);
                self.messages.push(if flush { Msg::Flush } else { Msg::Sync });
                self.open = flush;
            }
        }
    }

    /// Alone in its batch: what it brings back for a client with startup parameters comes with the next one.
    fn forget(&mut self) {
        let statement = match self.random.below(4) {
            0 => text("DEALLOCATE ALL".to_owned(), Op::DeallocateAll),
            1 => text("DISCARD ALL".to_owned(), Op::DiscardAll),
            2 => text("RESET TimeZone".to_owned(), Op::Reset(0)),
            _ => text("RESET DateStyle".to_owned(), Op::Reset(2)),
        };
        if !matches!(statement.op, Op::Reset(_)) {
            self.names.clear();
        }
        if matches!(statement.op, Op::DiscardAll) {
            self.fails();
        }
        self.messages.push(Msg::Query(vec![statement], 0));
    }

    fn simple(&mut self) {
        let padding = if self.chance(3) { self.pick(&[16_000, 70_000, 100_000]) } else { 0 };
        let statements = if self.chance(3) {
            vec![text(String::new(), Op::Empty)]
        } else {
            let count = if self.chance(75) { 1 } else { 2 + self.random.below(3) };
            let before = self.guess;
            let all: Vec<_> = (0..count).map(|_| self.any()).collect();
            if all.iter().any(|s| matches!(s.op, Op::Syntax)) && before != Guess::Idle {
                self.guess = Guess::Failed;
            }
            all
        };
        self.messages.push(Msg::Query(statements, padding));
        self.open = false;
    }

    /// What a driver does: prepare perhaps, bind, describe, execute, once or several times.
    fn driver(&mut self) {
        self.open = true;
        for _ in 0..1 + self.random.below(3) {
            if self.chance(20) {
                // A statement of its own, unnamed.
                let statement = self.any();
                let control = matches!(statement.op, Op::Savepoint(_) | Op::RollbackTo(_) | Op::Release(_));
                self.parse("", statement.clone());
                self.run("", &statement, Vec::new());
                if control {
                    self.portals.clear();
                }
                continue;
            }
            let name = self.pick(&NAMES);
            let known = self.names.get(name).cloned();
            let statement = match known {
                Some(known) if self.chance(75) && !name.is_empty() => known,
                known => {
                    if known.is_some() && !name.is_empty() && self.chance(85) {
                        self.messages.push(Msg::Close(b'S', name.to_owned()));
                        self.names.remove(name);
                    }
                    let statement = shared(self.random.below(TEXTS));
                    self.parse(name, statement.clone());
                    statement
                }
            };
            if self.chance(20) {
                self.messages.push(Msg::Describe(b'S', name.to_owned()));
            }
            for _ in 0..1 + self.random.below(2) {
                let parameters = self.parameters(&statement);
                self.run(name, &statement, parameters);
            }
        }
    }

    fn parse(&mut self, name: &'static str, statement: Shared) {
        self.messages.push(Msg::Parse(name.to_owned(), statement.clone()));
        self.names.entry(name).or_insert(statement);
    }

    fn run(&mut self, name: &str, statement: &Shared, parameters: Vec<String>) {
        let mut portal = self.pick(&PORTALS);
        if !statement.op.suspends() || self.portals.contains(&portal) && self.chance(90) {
            portal = "";
        }
        let whole = portal.to_owned();
        self.messages.push(Msg::Bind { portal: whole.clone(), name: name.to_owned(), parameters });
        if self.chance(40) {
            self.messages.push(Msg::Describe(b'P', whole.clone()));
        }
        let limit = if statement.op.suspends() { self.pick(&[0, 0, 0, 1, 2, 5]) } else { 0 };
        self.messages.push(Msg::Execute(whole.clone(), limit));
        if limit > 0 && self.chance(70) {
            let again = self.pick(&[0, 0, 1, 3]);
            self.messages.push(Msg::Execute(whole.clone(), again));
        }
        if self.chance(10) {
            self.messages.push(Msg::Flush);
        }
        if !portal.is_empty() {
            if self.chance(60) {
                self.messages.push(Msg::Close(b'P', whole));
            } else {
                self.portals.push(portal);
            }
        }
    }

    fn parameters(&mut self, statement: &Shared) -> Vec<String> {
        match &statement.op {
            Op::Echo(_) | Op::Settings(None, _) => vec![self.nonce()],
            Op::Series(_) => vec![self.nonce(), self.pick(&[0, 1, 2, 5, 5, 300]).to_string()],
            Op::Length(_) => {
                let size = self.pick(&[1, 100, 16_300, 20_000, 100_000]);
                vec![self.nonce(), "l".repeat(size)]
            }
            Op::Insert(None, _) => {
                let number = self.number();
                self.inserted.push(number);
                vec![number.to_string()]
            }
            Op::Divide(None, _) => {
                let by = self.pick(&[9, 9, 9, 1, 3, 5]);
                if by < 9 {
                    self.fails();
                }
                vec![self.nonce(), by.to_string()]
            }
            Op::SetConfig(which) => vec![self.value(*which), self.nonce()],
            _ => Vec::new(),
        }
    }

    /// Messages of the extended protocol that need not make sense.
    ///
    /// Named portals only: PostgreSQL 15.18 itself crashes when the unnamed portal is executed that a Query with a
    /// failed ROLLBACK TO left in a failed transaction.
    fn stray(&mut self) {
        self.open = true;
        for _ in 0..1 + self.random.below(4) {
            let name = self.pick(&NAMES[1..]);
            let portal = self.pick(&["p1", "p2"]);
            match self.random.below(9) {
                0 => self.messages.push(Msg::Describe(b'S', name.to_owned())),
                1 => self.messages.push(Msg::Describe(b'P', portal.to_owned())),
                2 => {
                    self.messages.push(Msg::Close(b'S', name.to_owned()));
                    self.names.remove(name);
                }
                3 => {
                    self.messages.push(Msg::Close(b'P', portal.to_owned()));
                    self.portals.retain(|p| *p != portal);
                }
                4 | 5 => {
                    let statement = shared(self.random.below(TEXTS));
                    self.parse(name, statement);
                }
                6 => {
                    let statement = text(String::new(), Op::Empty);
                    self.parse("", statement.clone());
                    self.run("", &statement, Vec::new());
                }
                7 => self.messages.push(Msg::Execute(portal.to_owned(), 0)),
                _ => {
                    // A name of which nothing is known, by a text that takes no parameters.
                    self.messages.push(Msg::Bind {
                        portal: String::new(),
                        name: "never".to_owned(),
                        parameters: Vec::new(),
                    });
                    self.fails();
                }
            }
        }
    }

    fn copy_in(&mut self) {
        let nonce = self.number();
        let statement = text("COPY desync FROM STDIN".to_owned(), Op::CopyIn(nonce));
        let extended = self.chance(40);
        if extended {
            self.parse("", statement);
            self.messages.push(Msg::Bind { portal: String::new(), name: String::new(), parameters: Vec::new() });
            self.messages.push(Msg::Execute(String::new(), 0));
        } else {
            let mut all = vec![statement];
            if self.chance(20) {
                all.push(self.plain_select());
            }
            if self.chance(20) {
                let before = self.plain_select();
                all.insert(0, before);
            }
            self.messages.push(Msg::Query(all, 0));
        }
        for _ in 0..self.random.below(6) {
            let good = !self.chance(8);
            self.messages.push(Msg::CopyData(nonce, good));
            if !good {
                self.fails();
            }
        }
        if self.chance(75) {
            self.messages.push(Msg::CopyDone);
        } else {
            self.messages.push(Msg::CopyFail);
            self.fails();
        }
        self.inserted.push(nonce);
        self.open = extended;
    }

    fn plain_select(&mut self) -> Shared {
        let nonce = self.nonce();
        text(format!("SELECT '{nonce}'"), Op::Rows(vec![vec![nonce]]))
    }

    /// Something that ties the client to its server until it leaves.
    fn tie(&mut self) {
        if self.open {
            self.messages.push(Msg::Sync);
            self.open = false;
        }
        let number = self.number();
        let (sql, op) = match self.random.below(6) {
            0 => ("SET work_mem = '77MB'".to_owned(), Op::Tie("SET")),
            1 => (format!("CREATE TEMP TABLE tied_{number} (a int)"), Op::Tie("CREATE TABLE")),
            2 => (format!("LISTEN tied_{number}"), Op::Tie("LISTEN")),
            3 => (format!("PREPARE tied_{number} AS SELECT 42"), Op::Tie("PREPARE")),
            4 => {
                let nonce = self.nonce();
                let sql = format!("SELECT pg_advisory_lock({number}), '{nonce}'");
                (sql, Op::Rows(vec![vec![String::new(), nonce]]))
            }
            _ => ("SET statement_timeout = '100s'".to_owned(), Op::Tie("SET")),
        };
        self.messages.push(Msg::Query(vec![text(sql, op)], 0));
    }
}
