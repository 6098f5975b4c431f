//! After a batch has been forwarded: what it said, in fingerprints, for insight; and whether it leaves something in
//! the server's session that ties the client to it.

use std::ops::Range;
use std::rc::Rc;

use super::inbound::{Event, MAX_GATHERED};
use super::pins::Pins;
use super::session::Session;
use super::statements::Meta;
use crate::config::PoolMode;
use crate::insight::{Begin, TagSet, Text, Times};
use crate::pool::welcome::Welcomes;
use crate::sql::{self, LexSettings, RawSql, effect, flag};

/// Whether text in this client encoding can be lexed byte by byte: no second byte may be `\` or `'` (R22).
pub fn safe_encoding(name: &str) -> bool {
    let name = name.trim_matches('\'').to_ascii_uppercase();
    ![
        "SJIS",
        "SHIFT_JIS",
        "MSKANJI",
        "SHIFTJIS",
        "WIN932",
        "WINDOWS932",
        "BIG5",
        "WIN950",
        "WINDOWS950",
        "GBK",
        "WIN936",
        "WINDOWS936",
        "UHC",
        "WIN949",
        "WINDOWS949",
        "GB18030",
        "JOHAB",
        "SHIFT_JIS_2004",
        "SJIS2004",
    ]
    .contains(&name.as_str())
}

impl Session {
    /// Looks at what was forwarded, in order.
    pub(super) fn observe(&mut self, data: &[u8], events: &mut Vec<Event>, now: u64) {
        let at = Times {
            received_us: self.received_us.min(now),
            server_us: self.server_us.max(self.received_us),
            sent_us: self.server_us.max(now),
        };
        for e in events.drain(..) {
            match e {
                Event::Query(text) => {
                    self.observe_query(&data[text], at);
                    self.insight.synced();
                }
                Event::Gathered(text) => {
                    // A short text that came in pieces has its NUL too.
                    self.observe_query(text.strip_suffix(&[0]).unwrap_or(&text), at);
                    self.insight.synced();
                }
                Event::Parse { name, sql } => self.observe_parse(&data[name], &data[sql], now),
                Event::Bind { portal, statement, parameters } => self.observe_bind(data, portal, statement, parameters),
                Event::Execute(portal) => self.observe_execute(&data[portal], at),
                Event::Sync => self.insight.synced(),
            }
        }
    }

    fn observe_query(&mut self, text: &[u8], at: Times) {
        if !self.looks_at_sql() {
            return;
        }
        let w = Rc::clone(&self.w);
        let mut analyzer = w.analyzer.borrow_mut();
        let lens = &mut *w.lens.borrow_mut();
        let lex = self.lex;
        let mut begun = self.begun;
        let (mut pin, mut effects, mut flags) = (None, 0, 0);
        let resets = &mut self.resets;
        let insight = &mut self.insight;
        let pins = &mut self.pins;
        let was_free = pins.reason().is_none();
        let ties =
            Ties { follows: self.pool.settings.pool_mode != PoolMode::Session, welcomes: &self.pool.welcomes, lex };
        analyzer.analyze(RawSql(text), lex, |statement, sql| {
            effects |= statement.effects;
            flags |= statement.flags;
            pin = pin.or_else(|| ties.reason(statement.effects, sql));
            ties.cursors(statement.effects, sql, pins);
            if statement.effects & effect::RESET != 0
                && let Some(name) = sql::set_target(RawSql(sql.0), lex)
            {
                resets.note(&name);
            }
            insight.begin(
                lens,
                &Begin {
                    statement: *statement,
                    text: Some(Text { sql, lex }),
                    tags: TagSet::default(),
                    at,
                    pipelined: begun > 0,
                },
            );
            begun += 1;
        });
        self.begun = begun;
        self.made_temp |= effects & effect::TEMP != 0;
        self.unread |= flags & flag::TRUNCATED != 0 || text.len() >= MAX_GATHERED;
        if was_free && self.pins.reason().is_some() {
            self.note_pinned();
        }
        if let Some(reason) = pin {
            self.pin(reason);
        }
    }

    fn observe_parse(&mut self, name: &[u8], text: &[u8], now: u64) {
        if !self.looks_at_sql() {
            return;
        }
        let w = Rc::clone(&self.w);
        let lens = &mut *w.lens.borrow_mut();
        let lex = self.lex;
        let mut meta = Meta::default();
        let insight = &mut self.insight;
        w.analyzer.borrow_mut().analyze(RawSql(text), lex, |statement, sql| {
            let tags = insight.register(lens, statement, Text { sql, lex }, now);
            meta = Meta { statement: *statement, tags, known: true };
        });
        self.made_temp |= meta.statement.effects & effect::TEMP != 0;
        self.unread |= meta.statement.flags & flag::TRUNCATED != 0;
        let ties = Ties { follows: self.follows_parameters(), welcomes: &self.pool.welcomes, lex };
        let was_free = self.pins.reason().is_none();
        ties.cursors(meta.statement.effects, RawSql(text), &mut self.pins);
        let lasting = ties.reason(meta.statement.effects, RawSql(text));
        if was_free && self.pins.reason().is_some() {
            self.note_pinned();
        }
        if let Some(reason) = lasting {
            self.pin(reason);
        }
        if meta.statement.effects & effect::RESET != 0
            && let Some(name) = sql::set_target(RawSql(text), lex)
        {
            self.resets.note(&name);
        }
        self.names().learn(name, meta);
    }

    fn observe_bind(&mut self, data: &[u8], portal: Range<usize>, statement: Range<usize>, parameters: Range<usize>) {
        if !self.looks_at_sql() {
            return;
        }
        let mut meta = self.names().meta(&data[statement]);
        meta.statement.literals = self.w.lens.borrow().bind_literals(meta.statement.literals, &data[parameters]);
        self.names().bind(&data[portal], meta);
    }

    fn observe_execute(&mut self, portal: &[u8], at: Times) {
        self.stats().queries.add(1);
        let meta = self.names().portal(portal);
        if meta.known {
            let begin = Begin { statement: meta.statement, text: None, tags: meta.tags, at, pipelined: self.begun > 0 };
            self.insight.begin(&mut self.w.lens.borrow_mut(), &begin);
        }
        self.begun += 1;
    }

    /// Session pooling without insight never reads SQL.
    fn looks_at_sql(&self) -> bool {
        self.follows_parameters() || self.w.process.insight.enabled()
    }
}

/// What is needed to tell whether a statement ties its client to a server.
struct Ties<'a> {
    follows: bool,
    welcomes: &'a Welcomes,
    lex: LexSettings,
}

impl Ties<'_> {
    /// State that a statement leaves in the server's session and that cannot be followed keeps the client there.
    fn reason(&self, effects: u16, text: RawSql<'_>) -> Option<&'static str> {
        if effects == 0 || !self.follows {
            return None;
        }
        match effects {
            e if e & effect::ROLE != 0 => Some("SET ROLE or SET SESSION AUTHORIZATION"),
            e if e & effect::LISTEN != 0 => Some("LISTEN"),
            e if e & effect::ADVISORY_LOCK != 0 => Some("a session-level advisory lock"),
            e if e & effect::TEMP != 0 => Some("a temporary table"),
            e if e & effect::PREPARE != 0 => Some("SQL-level PREPARE"),
            e if e & effect::LOAD != 0 => Some("LOAD"),
            e if e & (effect::SET | effect::RESET) != 0 && !self.only_reported(text) => {
                Some("SET of a parameter that servers do not report")
            }
            _ => None,
        }
    }

    /// Cursors WITH HOLD opened, and cursors closed.
    fn cursors(&self, effects: u16, text: RawSql<'_>, pins: &mut Pins) {
        if self.follows && effects & effect::HOLD_CURSOR != 0 {
            pins.declare(text.0);
        } else if self.follows && effects & effect::UNDO != 0 {
            pins.close(text.0);
        }
    }

    /// A parameter that servers report (GUC_REPORT) follows its client: the report tells its value.
    fn only_reported(&self, text: RawSql<'_>) -> bool {
        if let Some(name) = sql::set_target(text, self.lex) {
            return name == "all" || self.welcomes.reports(if name == "time zone" { "timezone" } else { &name });
        }
        let mut rest = text.0;
        let mut found = false;
        while let Some(at) = memchr::memmem::find(&rest.to_ascii_lowercase(), b"set_config") {
            rest = &rest[at + b"set_config".len()..];
            let Some(name) = first_argument(rest) else { return false };
            if !self.welcomes.reports(&name) {
                return false;
            }
            found = true;
        }
        found
    }
}

/// The name in `('name', ...`; `None` when the argument is not a plain literal.
fn first_argument(rest: &[u8]) -> Option<String> {
    let rest = rest.trim_ascii_start().strip_prefix(b"(")?.trim_ascii_start().strip_prefix(b"'")?;
    let end = memchr::memchr(b'\'', rest)?;
    Some(String::from_utf8_lossy(&rest[..end]).to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn djangos_time_zone_is_followed_and_other_parameters_pin() {
        let welcomes = Welcomes::default();
        welcomes.learn_reported([(b"TimeZone".as_slice(), b"UTC".as_slice())]);
        let lex = LexSettings { standard_conforming_strings: Some(true), safe_encoding: true };
        let ties = Ties { follows: true, welcomes: &welcomes, lex };
        for (sql, pins) in [
            ("SELECT set_config('TimeZone', 'UTC', false)", false),
            ("SELECT set_config('TimeZone', $1, false)", false),
            ("SELECT set_config('timezone', 'UTC', false), set_config('work_mem', '1MB', false)", true),
            ("SET TIME ZONE 'UTC'", false),
            ("SET work_mem = '1MB'", true),
            ("SELECT set_config(name, 'x', false) FROM t", true),
        ] {
            assert_eq!(ties.reason(effect::SET, RawSql(sql.as_bytes())).is_some(), pins, "{sql}");
        }
    }

    #[test]
    fn encodings_whose_second_byte_may_be_a_quote_are_unsafe() {
        assert!(safe_encoding("UTF8") && safe_encoding("'utf-8'") && safe_encoding("LATIN1"));
        assert!(!safe_encoding("SJIS") && !safe_encoding("gbk"));
    }
}
