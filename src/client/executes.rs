//! SQL-level EXECUTE of statements prepared by protocol, wherever in a text it stands: behind another statement, behind
//! EXPLAIN, in CREATE TABLE AS. As in `rename`, the server knows them by other names, which are put in the text, and gets those
//! that it lacks first.

use std::ops::Range;
use std::sync::Arc;

use super::ahead::has;
use super::inbound::{Event, Taken};
use super::plan::Plan;
use super::rename::{identifier, renamed};
use super::session::Session;
use crate::server::{self, Server};
use crate::sql::{self, LexSettings, RawSql, Said};
use crate::wire::tag::frontend as tag;
use crate::wire::tracker::{Action, Entry, Request};
use crate::wire::{TxStatus, frame, names};

/// A name in a text, and what it is at servers.
struct Name {
    at: Range<usize>,
    instead: Vec<u8>,
    shared: Option<Arc<server::Statement>>,
    registration: u32,
}

impl Session {
    /// A simple Query at `text`. `None` when it names no statement of this client's.
    pub(super) fn rename_executes(
        &mut self,
        text: &Range<usize>,
        server: &mut Server,
        plan: &mut Plan<'_>,
        data: &[u8],
        events: &mut Vec<Event>,
    ) -> Option<Taken> {
        let sql = &data[text.clone()];
        if !says_execute(sql) || !self.shares_statements() {
            return None;
        }
        let mut said = Vec::new();
        // A SET that is on its way may say how strings are read.
        let answered = server.tracker.client_answered();
        let standard_conforming_strings = self.lex.standard_conforming_strings.filter(|_| answered);
        let settings = LexSettings { standard_conforming_strings, ..self.lex };
        if !sql::executed_names(RawSql(sql), settings, |what| said.push(what)) {
            return (!answered && server.tracker.answer_comes()).then_some(Taken::Wait);
        }
        let (mut named, mut made) = (Vec::new(), Vec::new());
        for what in said {
            match what {
                Said::Execute(start) => {
                    let Some((name, end)) = identifier(sql, start).filter(|(name, _)| !made.contains(name)) else {
                        continue;
                    };
                    if self.undecided(&name, server) {
                        return Some(Taken::Wait);
                    }
                    named.extend(self.name_at_servers(&name, start..end));
                }
                Said::Prepare(start) => made.extend(identifier(sql, start).map(|(name, _)| name)),
                // What is executed behind it the text makes itself.
                Said::EndAll => break,
            }
        }
        if named.is_empty() {
            return None;
        }
        let shared: Vec<_> = named.iter().filter_map(|n| n.shared.clone()).collect();
        let mut there = shared.iter().all(|s| has(s.id, server));
        if !there {
            let open = server.tracker.wants_sync();
            if !open && !server.tracker.answered() {
                // No answer comes before the end of a COPY that is not here: the server refuses the Query itself.
                return server.tracker.will_answer().then_some(Taken::Wait);
            }
            if server.tracker.status() != TxStatus::Failed {
                shared.iter().for_each(|s| self.ensure(s, server, plan, data));
                there = true;
            }
            if there && !open {
                // As for a text that begins with EXECUTE.
                frame::put(plan.inject(data), tag::SYNC, |_| {});
                server.tracker.push(Entry::new(Request::Sync, Action::Skip));
            }
        }
        let mut new = sql.to_vec();
        // The last first: what stands before it stays where it is.
        for name in named.iter().rev() {
            new = renamed(&new, &name.at, &name.instead);
        }
        names::put_query(plan.inject(data), &new);
        // An error that names one says which.
        let one = match &*named {
            [one] => one.registration,
            _ => 0,
        };
        let statement = shared.first().filter(|_| there).map_or(0, |s| s.id);
        let entry = Entry { statement, named: one, ..Entry::new(Request::Query, Action::Forward) };
        self.query_taken(entry, text.clone(), data, server, events);
        Some(Taken::Yes)
    }

    fn name_at_servers(&mut self, name: &[u8], at: Range<usize>) -> Option<Name> {
        let known = self.names().get(name).and_then(|n| Some((n.at_servers()?, n.registration)));
        let Some((mut shared, registration)) = known else {
            let hidden = String::from_utf8_lossy(&self.hidden(name)?).replace('"', "\"\"");
            return Some(Name { at, instead: format!("\"{hidden}\"").into_bytes(), shared: None, registration: 0 });
        };
        let now = self.schema_now();
        // The client is told the columns.
        if !shared.current(now)
            && let Some(new) = self.pool.shared.statements.again(&shared, &self.pool.schema, now)
        {
            self.names().renew(name, &new);
            shared = new;
        }
        Some(Name { at, instead: shared.name.to_vec(), shared: Some(shared), registration })
    }
}

/// Whether the word stands in a text, in whatever place.
fn says_execute(sql: &[u8]) -> bool {
    memchr::memchr2_iter(b'x', b'X', sql).any(|x| {
        let word = x.checked_sub(1).and_then(|from| sql.get(from..from + 7));
        word.is_some_and(|w| w.eq_ignore_ascii_case(b"execute"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_seen_wherever_it_stands() {
        for sql in ["EXECUTE a", "xx; Execute a", "select 1;execute"] {
            assert!(says_execute(sql.as_bytes()), "{sql}");
        }
        for sql in ["", "x", "ex", "SELECT max(x) FROM next", "execut", "xecute"] {
            assert!(!says_execute(sql.as_bytes()), "{sql}");
        }
    }
}
