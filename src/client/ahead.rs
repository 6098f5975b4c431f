//! Sending a Parse ahead of what needs it, where the server lacks the statement.

use super::inbound::has;
use super::plan::Plan;
use super::session::Session;
use crate::server::{self, Server};
use crate::wire::names;
use crate::wire::tag::frontend as tag;
use crate::wire::tracker::{Action, Entry, Request};

impl Session {
    /// Sends a Parse ahead when the server lacks the statement.
    pub(super) fn ensure(&mut self, shared: &server::Statement, server: &mut Server, plan: &mut Plan<'_>, data: &[u8]) {
        if !has(shared.id, server) {
            let entry = Entry { statement: shared.id, ..Entry::new(Request::Parse, Action::Skip) };
            self.send_parse(shared, entry, server, plan, data);
        }
    }

    pub(super) fn send_parse(
        &mut self,
        shared: &server::Statement,
        entry: Entry,
        server: &mut Server,
        plan: &mut Plan<'_>,
        data: &[u8],
    ) {
        let out = plan.inject(data);
        if server.statements.close_first(shared.id) {
            names::put_statement(out, tag::CLOSE, &shared.name);
            server.tracker.push(Entry { statement: shared.id, ..Entry::new(Request::Close, Action::Skip) });
        }
        if let Some(old) = server.statements.insert(shared.id, self.pool.settings.max_prepared_statements) {
            names::put_statement(out, tag::CLOSE, format!("pgsluice_{old}").as_bytes());
            server.tracker.push(Entry { statement: old, ..Entry::new(Request::Close, Action::Skip) });
        }
        names::put_parse(out, &shared.name, &shared.rest);
        server.tracker.push(entry);
        server.statements.placed(shared.id, server.tracker.last_place());
        self.stats().server_parses.add(1);
    }
}
