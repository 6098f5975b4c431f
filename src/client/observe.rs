//! After a batch has been forwarded: what it said, in fingerprints, for insight; and whether it leaves something in
//! the server's session that ties the client to it.

use std::ops::Range;
use std::rc::Rc;

use super::inbound::{Event, MAX_GATHERED};
use super::pins::{How, Pins};
use super::resets::Resets;
use super::session::Session;
use super::statements::Meta;
use crate::config::PoolMode;
use crate::insight::{Begin, TagSet, Text, Times};
use crate::pool::Pin;
use crate::pool::welcome::Welcomes;
use crate::server::{ParamSet, params};
use crate::sql::{self, LexSettings, Operation, RawSql, Statement, effect, flag};

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
        self.place.info.set_route(self.insight.route(&self.w.lens.borrow()));
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
        let (mut effects, mut flags) = (0, 0);
        let insight = &mut self.insight;
        let mut notes = Notes {
            follows: self.pool.settings.pool_mode != PoolMode::Session,
            welcomes: &self.pool.welcomes,
            lex,
            params: &self.params,
            pins: &mut self.pins,
            resets: &mut self.resets,
        };
        analyzer.analyze(RawSql(text), lex, |statement, sql| {
            effects |= statement.effects;
            flags |= statement.flags;
            notes.sent(statement, sql);
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
    }

    pub(super) fn observe_parse(&mut self, name: &[u8], text: &[u8], now: u64) {
        if !self.looks_at_sql() {
            return;
        }
        let w = Rc::clone(&self.w);
        let lens = &mut *w.lens.borrow_mut();
        let lex = self.lex;
        let mut meta = Meta::default();
        let insight = &mut self.insight;
        w.analyzer.borrow_mut().analyze_again(RawSql(text), lex, |statement, sql| {
            let tags = insight.register(lens, statement, Text { sql, lex }, now);
            meta = Meta { statement: *statement, tags, known: true };
        });
        self.made_temp |= meta.statement.effects & effect::TEMP != 0;
        self.unread |= meta.statement.flags & flag::TRUNCATED != 0;
        self.notes().parsed(&meta.statement, RawSql(text));
        self.names().learn(name, meta);
    }

    fn notes(&mut self) -> Notes<'_> {
        Notes {
            follows: self.pool.settings.pool_mode != PoolMode::Session,
            welcomes: &self.pool.welcomes,
            lex: self.lex,
            params: &self.params,
            pins: &mut self.pins,
            resets: &mut self.resets,
        }
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
            self.notes().executed(&meta.statement);
        }
        self.begun += 1;
    }

    /// Session pooling without insight never reads SQL.
    fn looks_at_sql(&self) -> bool {
        self.follows_parameters() || self.w.process.insight.enabled()
    }
}

/// Where what statements leave in their session is noted.
struct Notes<'a> {
    follows: bool,
    welcomes: &'a Welcomes,
    lex: LexSettings,
    params: &'a ParamSet,
    pins: &'a mut Pins,
    resets: &'a mut Resets,
}

impl Notes<'_> {
    /// A statement was sent to be executed.
    fn sent(&mut self, statement: &Statement, text: RawSql<'_>) {
        let effects = statement.effects;
        if (effects == 0 && statement.operation != Operation::Other && !drops(statement)) || !self.follows {
            return;
        }
        if statement.flags & flag::UNLEXED != 0 || opaque(statement, text) {
            sql::hidden_parameters(text, |name| self.pins.ties().touched.add(name, false));
            self.execute_watched(effect::SET | effect::RESET);
            return self.pins.saw_opaque();
        }
        self.parameters(effects, text, false);
        self.discard(effects);
        if statement.operation == Operation::Cursor {
            self.cursor(effects, text);
        } else {
            self.pins.saw(effects, drops(statement));
        }
    }

    /// A Parse was sent: nothing has happened, but what its text says is known only now.
    fn parsed(&mut self, statement: &Statement, text: RawSql<'_>) {
        if !self.follows {
            return;
        }
        self.parameters(statement.effects, text, true);
        if statement.effects & effect::HOLD_CURSOR != 0 {
            self.pins.declare_parsed(text.0);
        } else if statement.operation == Operation::Cursor {
            self.cursor(statement.effects, text);
        } else if opaque(statement, text) {
            sql::hidden_parameters(text, |name| self.pins.watch(name, How::Set));
        }
    }

    /// A prepared statement was sent to be executed.
    fn executed(&mut self, statement: &Statement) {
        let effects = statement.effects;
        if (effects == 0 && statement.operation != Operation::Other && !drops(statement)) || !self.follows {
            return;
        }
        if statement.operation == Operation::Other || effects & effect::EXECUTE != 0 {
            // The text is gone: it may have been a DO or a CALL.
            self.execute_watched(effect::SET | effect::RESET);
            return self.pins.saw_opaque();
        }
        self.execute_watched(effects);
        self.discard(effects);
        if effects & effect::HOLD_CURSOR != 0 {
            self.pins.declared();
        } else if statement.operation != Operation::Cursor {
            self.pins.saw(effects, drops(statement));
        }
    }

    /// Which of the prepared statements with these effects is executed is not known any more.
    fn execute_watched(&mut self, effects: u16) {
        if effects & (effect::SET | effect::ROLE) != 0 {
            for (name, _) in self.pins.watched(false) {
                let touched = &mut self.pins.ties().touched;
                // It may be another one that is executed: a RESET before it may still be the last.
                if !touched.has(&name) {
                    touched.add(&name, false);
                }
            }
        }
        if effects & effect::RESET != 0 {
            let watched = self.pins.watched(true);
            // Which one of several only the server knows.
            self.pins.ties().touched.guessed |= watched.len() > 1;
            for (name, how) in watched {
                match how {
                    How::Default if effects & effect::SET == 0 => self.reset(&name, true),
                    // What may be any SET is not taken for one TO DEFAULT: what is asked at the end tells.
                    _ => self.reset(&name, false),
                }
            }
        }
    }

    /// Parameters that a statement sets or resets: now, or (`later`) whenever it is executed.
    fn parameters(&mut self, effects: u16, text: RawSql<'_>, later: bool) {
        if effects & (effect::SET | effect::ROLE | effect::RESET) == 0 {
            return;
        }
        let reset = effects & effect::RESET != 0;
        let by_set = super::texts::first_word(text.0).is_some_and(|w| w.eq_ignore_ascii_case(b"set"));
        let mut names = Vec::new();
        let named = sql::touched_parameters(text, self.lex, |name| names.push(name.to_owned()));
        for name in &names {
            match (later, reset) {
                (true, false) => self.pins.watch(name, How::Set),
                (true, true) => self.pins.watch(name, if by_set { How::Default } else { How::Reset }),
                (false, true) => self.reset(name, by_set),
                // Its report tells the value; beside a RESET, which of them came last does not show.
                (false, false)
                    if self.resets.rare().names.is_empty() && self.welcomes.reports(name) && !params::fixed(name) => {}
                (false, false) => {
                    self.resets.note_set(name);
                    self.pins.ties().touched.add(name, false);
                }
            }
        }
        if !named {
            self.pins.pin(Pin::Unreadable);
        }
    }

    fn reset(&mut self, name: &str, by_set: bool) {
        // Of several pipelined behind one another, one may be skipped: then only the server knows.
        let others = !self.resets.rare().names.is_empty();
        self.resets.note(name, by_set);
        let touched = &mut self.pins.ties().touched;
        touched.all |= others && name == "all";
        if name == "all" {
            // It leaves the role alone (GUC_NO_RESET_ALL).
            self.params.iter().for_each(|(n, _)| touched.add(n, n != "role"));
        } else {
            touched.add(name, true);
        }
    }

    /// DISCARD ALL resets what the client has set: of what no report tells, the server is asked.
    fn discard(&mut self, effects: u16) {
        if effects & effect::DISCARD_ALL != 0 {
            let untold = |name: &&str| params::fixed(name) || !self.welcomes.reports(name);
            for name in self.params.iter().map(|(name, _)| name).filter(untold) {
                self.pins.ties().touched.add(name, true);
            }
        }
    }

    /// Cursors WITH HOLD opened, and cursors closed.
    fn cursor(&mut self, effects: u16, text: RawSql<'_>) {
        if effects & effect::HOLD_CURSOR != 0 {
            self.pins.declare(text.0);
        } else if effects & effect::UNDO != 0 {
            self.pins.close(text.0);
        }
    }
}

/// DROP and its kin, which may end a temporary table.
fn drops(statement: &Statement) -> bool {
    statement.operation == Operation::Ddl
}

/// Whether a statement may do what its own words do not tell: DO, CALL, SQL-level EXECUTE.
fn opaque(statement: &Statement, text: RawSql<'_>) -> bool {
    statement.effects & effect::EXECUTE != 0
        || statement.operation == Operation::Other
            && super::texts::first_word(text.0)
                .is_some_and(|w| w.eq_ignore_ascii_case(b"do") || w.eq_ignore_ascii_case(b"call"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(sql: &str, operation: Operation, effects: u16) -> Pins {
        let welcomes = Welcomes::default();
        welcomes.learn_reported([(b"TimeZone".as_slice(), b"UTC".as_slice())]);
        let (mut pins, mut resets) = (Pins::default(), Resets::default());
        let mut notes = Notes {
            follows: true,
            welcomes: &welcomes,
            lex: LexSettings { standard_conforming_strings: Some(true), safe_encoding: true },
            params: &ParamSet::default(),
            pins: &mut pins,
            resets: &mut resets,
        };
        notes.sent(&Statement { operation, effects, ..Statement::default() }, RawSql(sql.as_bytes()));
        pins
    }

    #[test]
    fn reported_parameters_need_no_question_and_unnamed_ones_pin() {
        for (sql, asks, pin) in [
            ("SELECT set_config('TimeZone', 'UTC', false)", false, None),
            ("SET TIME ZONE 'UTC'", false, None),
            ("SET work_mem = '1MB'", true, None),
            ("SELECT set_config('timezone', 'UTC', false), set_config('work_mem', '1MB', false)", true, None),
            ("SELECT set_config(name, 'x', false) FROM t", false, Some(Pin::Unreadable)),
        ] {
            let pins = note(sql, Operation::Session, effect::SET);
            assert_eq!((pins.must_ask(), pins.reason()), (asks, pin), "{sql}");
        }
    }

    #[test]
    fn a_block_may_do_anything_and_a_plain_statement_nothing() {
        assert!(note("/* x */ DO $$BEGIN END$$", Operation::Other, 0).must_ask());
        assert!(note("call p()", Operation::Other, 0).must_ask());
        assert!(!note("LOCK TABLE t", Operation::Other, 0).must_ask());
        assert!(!note("SELECT 1", Operation::Select, 0).must_ask());
    }

    #[test]
    fn encodings_whose_second_byte_may_be_a_quote_are_unsafe() {
        assert!(safe_encoding("UTF8") && safe_encoding("'utf-8'") && safe_encoding("LATIN1"));
        assert!(!safe_encoding("SJIS") && !safe_encoding("gbk"));
    }
}
