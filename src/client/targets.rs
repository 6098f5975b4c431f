//! Client to server: Describe and Close, of a statement by the name that servers know.

use std::ops::Range;

use super::fresh::Chosen;
use super::inbound::{Taken, malformed, needs_short};
use super::plan::Plan;
use super::session::{Session, Stop};
use super::unnamed::UNNAMED;
use crate::server::Server;
use crate::wire::names::{self, Target};
use crate::wire::tag::frontend as tag;
use crate::wire::tracker::{Action, Entry, Request};
use crate::wire::{Frame, HEADER};

impl Session {
    /// Forwards one of them, with the name that servers know.
    pub(super) fn describe_or_close(
        &mut self,
        frame: Frame,
        data: &[u8],
        range: Range<usize>,
        server: &mut Server,
        plan: &mut Plan<'_>,
    ) -> Result<Taken, Stop> {
        if range.len() < frame.len {
            return needs_short(frame);
        }
        let close = frame.tag == tag::CLOSE;
        let request = if close { Request::Close } else { Request::Describe };
        let Ok(target) = Target::read(&data[range.start + HEADER..range.end]) else {
            return Ok(malformed(request, data, range, server, plan));
        };
        if target == Target::Statement(b"") && !close && self.unnamed_undecided(server) {
            return Ok(Taken::Wait);
        }
        if let Target::Statement(name) = target
            && !close
            && self.names.as_ref().is_some_and(|n| n.commands)
            && !self.undecided(name, server)
            && !self.put_command(name, None, server, plan, data)
        {
            return Ok(Taken::Wait);
        }
        if let Target::Statement(name) = target
            && !name.is_empty()
        {
            if self.undecided(name, server) {
                return Ok(Taken::Wait);
            }
            if self.shares_statements() {
                if close && (self.pins.reason().is_none() || self.names().is_shared(name)) {
                    let registration = self.names().close(name);
                    plan.inject(data);
                    server.tracker.push(Entry { registration, ..Entry::new(Request::Close, Action::Fake) });
                    self.names().placed(name, server.tracker.last_place());
                    return Ok(Taken::Yes);
                }
                // It tells the client what it may not know: nothing to wait for.
                if let Some((Chosen::Use(shared), named)) = self.choose(name, true, server, plan, data) {
                    self.ensure(&shared, server, plan, data);
                    names::put_statement(plan.inject(data), tag::DESCRIBE, &shared.name);
                    server.tracker.push(Entry { statement: shared.id, named, ..Entry::new(request, Action::Forward) });
                    return Ok(Taken::Yes);
                }
                if let Some(hidden) = self.hidden(name) {
                    names::put_statement(plan.inject(data), frame.tag, &hidden);
                    server.tracker.push(Entry::new(request, Action::Forward));
                    return Ok(Taken::Yes);
                }
            } else if close {
                let registration = self.names().close(name);
                self.names().closed(registration);
            }
        }
        let mut statement = self.names.as_mut().map_or(0, |n| std::mem::take(&mut n.describing));
        if target == Target::Statement(b"") && !close {
            self.ensure_unnamed(server, plan, data);
            statement = if self.follows_parameters() { UNNAMED } else { 0 };
        }
        let ends = close && target == Target::Statement(b"");
        if ends {
            self.replace_unnamed(server, data);
        }
        server.tracker.push(Entry { statement, ..Entry::new(request, Action::Forward) });
        if ends {
            self.unnamed.ended(server.tracker.last_place(), server);
            if let Some(names) = &mut self.names {
                names.end_unnamed(server.tracker.last_place());
            }
        }
        plan.keep(data, range);
        Ok(Taken::Yes)
    }
}
