//! After a batch has been forwarded: what it said, in fingerprints, for insight; and whether it leaves something in
//! the server's session that ties the client to it.

use std::ops::Range;
use std::rc::Rc;

use super::inbound::Event;
use super::session::Session;
use super::statements::Meta;
use crate::insight::{Begin, TagSet, Text, Times};
use crate::sql::{self, RawSql, effect};

/// Whether text in this client encoding can be lexed byte by byte: no second byte may be `\` or `'` (R22).
pub fn safe_encoding(name: &str) -> bool {
    let name = name.trim_matches('\'').to_ascii_uppercase();
    !["SJIS", "SHIFT_JIS", "MSKANJI", "SHIFTJIS", "WIN932", "WINDOWS932", "BIG5", "WIN950", "WINDOWS950", "GBK", "WIN936", "WINDOWS936", "UHC", "WIN949",
        "WINDOWS949", "GB18030", "JOHAB", "SHIFT_JIS_2004", "SJIS2004"]
    .contains(&name.as_str())
}

impl Session {
    /// Looks at what was forwarded, in order.
    pub(super) fn observe(&mut self, data: &[u8], events: &mut Vec<Event>, now: u64) {
        let at = Times { received_us: self.received_us.min(now), server_us: self.server_us.max(self.received_us), sent_us: self.server_us.max(now) };
        for e in events.drain(..) {
            match e {
                Event::Query(text) => {
                    self.observe_query(&data[text], at);
                    self.insight.synced();
                }
                Event::Gathered => {
                    if let Some(text) = self.gathered.take() {
                        self.observe_query(&text, at);
                        self.insight.synced();
                    }
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
        let pipelined = self.insight_busy();
        let mut effects = 0;
        let insight = &mut self.insight;
        analyzer.analyze(RawSql(text), lex, |statement, sql| {
            effects |= statement.effects;
            insight.begin(lens, &Begin { statement: *statement, text: Some(Text { sql, lex }), tags: TagSet::default(), at, pipelined });
        });
        if effects != 0 {
            self.apply_effects(effects, text);
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
        if meta.statement.effects != 0 {
            self.apply_effects(meta.statement.effects, text);
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
        let pipelined = self.insight_busy();
        if meta.known {
            let begin = Begin { statement: meta.statement, text: None, tags: meta.tags, at, pipelined };
            self.insight.begin(&mut self.w.lens.borrow_mut(), &begin);
        }
    }

    /// The client sent this before it had the answer to what it sent before.
    fn insight_busy(&self) -> bool {
        false
    }

    /// Session pooling without insight never reads SQL.
    fn looks_at_sql(&self) -> bool {
        self.follows_parameters() || self.w.insight.enabled()
    }

    /// State that a statement leaves in the server's session and that cannot be followed keeps the client there.
    fn apply_effects(&mut self, effects: u16, text: &[u8]) {
        if !self.follows_parameters() {
            return;
        }
        let reason = match effects {
            e if e & effect::ROLE != 0 => "SET ROLE or SET SESSION AUTHORIZATION",
            e if e & effect::LISTEN != 0 => "LISTEN",
            e if e & effect::ADVISORY_LOCK != 0 => "a session-level advisory lock",
            e if e & effect::TEMP != 0 => "a temporary table",
            e if e & effect::HOLD_CURSOR != 0 => "a cursor WITH HOLD",
            e if e & effect::PREPARE != 0 => "SQL-level PREPARE",
            e if e & effect::LOAD != 0 => "LOAD",
            e if e & (effect::SET | effect::RESET) != 0 && !self.sets_only_reported(text) => "SET of a parameter that servers do not report",
            _ => return,
        };
        self.pin(reason);
    }

    /// A parameter that servers report (GUC_REPORT) follows its client: the report tells its value.
    fn sets_only_reported(&self, text: &[u8]) -> bool {
        let Some(name) = sql::set_target(RawSql(text), self.lex) else { return false };
        self.pool.welcomes.reports(&name)
    }
}
