//! RESET, SET ... TO DEFAULT and DISCARD ALL in transaction pooling: the server goes back to *its* defaults, the client to
//! what it began with. Its next batch sets those values; until then, and afterwards, it is told them and no others.

use std::sync::Arc;

use super::session::Session;
use super::{application, texts};
use crate::server::Server;
use crate::wire::tag::{backend as tag, frontend as ask};
use crate::wire::{TxStatus, control, frame};

/// RESETs under way, and what they leave to be told.
#[derive(Default)]
pub(super) struct Resets {
    /// What sessions without RESETs do not need.
    rare: Option<Box<Rare>>,
    /// A RESET has succeeded; a SET.
    pub(super) done: [bool; 2],
    /// One has been sent, or is in the sequence that is being sent: what comes behind it must find the startup values.
    pub(super) awaited: bool,
    pub(super) parsed: bool,
    /// One was answered outside of a block, and the startup values are not there for good yet; a block has begun; something
    /// was rolled back in it, perhaps those values.
    outside: bool,
    in_block: bool,
    lost: bool,
    /// Something was rolled back since: whether it has stayed so is not known.
    undone: bool,
}

/// Boxed on first use: an idle session stays small.
#[derive(Default)]
pub(super) struct Rare {
    /// Lower-case names (`all`), and whether by SET ... TO DEFAULT, whose answer is that of any SET.
    pub(super) names: Vec<(Box<str>, bool)>,
    /// Set again since, as a report has told.
    since: Vec<Box<str>>,
    /// Set again behind the RESET, as the text of the same request says. Where the value is the one from before, no report tells.
    again: Vec<Box<str>>,
    /// Reports for the client, before the ReadyForQuery that is being looked at.
    pub(super) reports: Vec<u8>,
    /// Startup values that come back with the next batch, and that the client has not been told.
    untold: Vec<Box<str>>,
}

/// What the client hears of a report that a RESET has caused.
pub(super) enum Report {
    /// As the server says it.
    AsIs,
    /// Nothing: it has the value that it began with.
    Nothing,
    /// This message: the value that it began with.
    Own(Vec<u8>),
}

impl Resets {
    /// What is there of the rare part.
    #[inline]
    pub(super) fn rare(&self) -> &Rare {
        static NONE: Rare =
            Rare { names: Vec::new(), since: Vec::new(), again: Vec::new(), reports: Vec::new(), untold: Vec::new() };
        self.rare.as_deref().unwrap_or(&NONE)
    }

    fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// The reports to be put behind what is being looked at, taken.
    pub(super) fn take_reports(&mut self) -> Vec<u8> {
        self.rare.as_mut().map(|r| std::mem::take(&mut r.reports)).unwrap_or_default()
    }

    /// All is answered.
    #[inline]
    pub(super) fn clear(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.names.clear();
            rare.again.clear();
        }
    }

    /// A statement resets `name`. Bounded: more than one session sets are all.
    pub(super) fn note(&mut self, name: &str, by_set: bool) {
        if let Some(rare) = &mut self.rare {
            rare.again.retain(|n| name != "all" && **n != *name);
        }
        if self.rare().names.len() < crate::server::params::MAX_PARAMS {
            self.rare_mut().names.push((name.into(), by_set));
        }
    }

    /// A statement sets `name`: what was reset before it in the same request has a value of the client's own.
    pub(super) fn note_set(&mut self, name: &str) {
        let reset = |(n, _): &(Box<str>, bool)| matches!(&**n, n if n == name || n == "all");
        if self.rare().names.iter().any(reset) && !self.rare().again.iter().any(|n| **n == *name) {
            self.rare_mut().again.push(name.into());
        }
    }

    /// What was set again; after an error it is not known whether it was.
    fn again(&self) -> &[Box<str>] {
        if self.undone { &[] } else { &self.rare().again }
    }

    /// CommandComplete of a RESET, or (`by_set`) of a SET.
    pub(super) fn answered(&mut self, by_set: bool) {
        self.done[usize::from(by_set)] |= self.rare().names.iter().any(|(_, set)| *set == by_set);
    }

    /// An error or a ROLLBACK was answered.
    pub(super) fn undone(&mut self) {
        self.undone |= self.done.contains(&true);
        self.lost |= self.in_block;
    }

    /// Whether what a ReadyForQuery says matters.
    #[inline]
    pub(super) fn follows(&self) -> bool {
        self.outside || self.in_block
    }

    /// Whether a report may be of what they have left.
    #[inline]
    pub(super) fn under_way(&self) -> bool {
        !self.rare().names.is_empty() || self.lost
    }

    /// Whether a statement that resets this lower-case name has succeeded, and no ReadyForQuery has followed.
    fn has(&self, name: &str) -> bool {
        self.rare()
            .names
            .iter()
            .any(|(n, set)| self.done[usize::from(*set)] && matches!(&**n, n if n == name || n == "all"))
    }

    /// The names whose kind of statement has succeeded since the last call; they stay until all is answered, since
    /// another RESET may be pipelined behind this one.
    fn take_done(&mut self) -> Vec<Box<str>> {
        let done = std::mem::take(&mut self.done);
        self.rare().names.iter().filter(|(_, set)| done[usize::from(*set)]).map(|(n, _)| n.clone()).collect()
    }
}

impl Session {
    /// A report for the client comes behind a RESET: where it tells the server's default, the client has its startup value.
    #[cold]
    pub(super) fn report_of_reset(&mut self, body: &[u8], server: &Server) -> Report {
        let Ok((name, value)) = control::read_parameter_status(body) else { return Report::AsIs };
        let Ok(lower) = std::str::from_utf8(name).map(str::to_ascii_lowercase) else { return Report::AsIs };
        let begun = self.follows_parameters() && !self.startup.is_empty();
        let ours = begun && server.startup.is_empty() && (self.resets.lost || self.resets.has(&lower));
        if !ours || self.resets.again().iter().any(|n| **n == *lower) {
            return Report::AsIs;
        }
        if !self.pool.welcomes.is_default(name, value) {
            // Set again behind the RESET.
            if !self.resets.lost {
                self.resets.rare_mut().since.push(lower.into());
            }
            return Report::AsIs;
        }
        let Some((_, own)) = self.startup_value(&lower) else { return Report::AsIs };
        let told = self.is_told(&lower, &own);
        let shared = &self.pool.shared.params;
        self.params = shared.intern(self.params.with(&lower, &own));
        self.heard_parameter(&lower, &own);
        if told {
            return Report::Nothing;
        }
        let mut message = Vec::new();
        put_report(&mut message, name, own.as_bytes());
        Report::Own(message)
    }

    /// While startup values are being set anew: whether this report tells the client something.
    pub(super) fn is_news(&self, body: &[u8]) -> bool {
        let Ok((name, _)) = control::read_parameter_status(body) else { return false };
        self.resets.rare().untold.iter().any(|n| n.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The value that the client began with, and the name, as a server spells them. `None` when it brought none, or none is
    /// known.
    fn startup_value(&self, name: &str) -> Option<(Vec<u8>, String)> {
        let value = self.startup.get(name)?;
        let known = self.pool.welcomes.get(&self.startup.without("application_name"))?;
        if name == "application_name" {
            return Some((name.into(), String::from_utf8(application::clean(value, &known)).ok()?));
        }
        let (name, value) = known.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))?;
        Some((name.to_vec(), String::from_utf8(value.to_vec()).ok()?))
    }

    /// Whether the value that the client heard last is its startup value.
    fn is_told(&self, name: &str, own: &str) -> bool {
        self.params.get(name).is_some_and(|now| now == own || Some(now) == self.startup.get(name))
    }

    /// After the reports of what was reset (they come with ReadyForQuery): the client's startup values come back with
    /// its next batch.
    pub(super) fn follow_resets(&mut self, server: &mut Server) {
        let mut names = self.resets.take_done();
        if !self.follows_parameters() || self.startup.is_empty() {
            return;
        }
        let mut since = std::mem::take(&mut self.resets.rare_mut().since);
        since.extend(self.resets.again().iter().cloned());
        self.tell_startup_values(&names, &since);
        self.resets.outside |= server.tracker.status() == TxStatus::Idle;
        let mut params = (*self.params).clone();
        let mut known = (*server.params).clone();
        if names.iter().any(|n| &**n == "session_authorization") {
            // The role with it (guc.c, set_config_option).
            names.push("role".into());
        }
        // What was set behind the RESET is there, and stays. Of what no report tells, what is asked at the end will.
        let stays: Vec<_> = since
            .iter()
            .map(|n| (n, self.params.get(n).map(str::to_owned), server.params.get(n).map(str::to_owned)))
            .collect();
        for name in &names {
            if &**name == "all" {
                // All but the role (GUC_NO_RESET_ALL).
                let role = params.get("role").map(str::to_owned);
                params = role.map_or_else(|| self.startup.without("role"), |r| self.startup.with("role", &r));
                known = known.all_unknown(&self.startup);
            } else {
                known.set_unknown(name);
                // If it is rolled back, what is asked at the end of the transaction will tell.
                match self.startup.get(name) {
                    Some(value) => params.set(name, value),
                    None => params = params.without(name),
                }
            }
        }
        for (name, wish, there) in stays {
            let (wish, there) = match (wish, there) {
                (Some(wish), Some(there)) => (wish, there),
                // Unknown on one side: wished for and there alike, so that nothing is put over it.
                (wish, there) => match wish.or(there).or_else(|| self.startup.get(name).map(str::to_owned)) {
                    Some(value) => (value.clone(), value),
                    None => continue,
                },
            };
            params.set(name, &wish);
            known.set(name, &there);
        }
        let shared = Arc::clone(&self.pool.shared);
        let shared = &shared.params;
        self.params = shared.intern(params);
        let named = names.iter().any(|n| matches!(&**n, "all" | "application_name"))
            && !since.iter().any(|n| &**n == "application_name");
        if let Some(application) = self.startup.get("application_name").filter(|_| named).map(str::to_owned) {
            // The server is told with the next batch; the console need not wait for that.
            self.heard_parameter("application_name", &application);
        }
        // What a reset left (and whether it was rolled back) is not known: whoever comes next sets these anew.
        server.params = shared.intern(known);
        self.restoring = true;
    }

    /// Whether the next message must wait until a RESET before it has been answered: it must find the startup values, which
    /// are set before what is sent then.
    #[inline]
    pub(super) fn awaits_reset(&mut self, next: u8, server: &Server) -> bool {
        if !self.resets.awaited || matches!(next, ask::COPY_DATA | ask::COPY_DONE | ask::COPY_FAIL | ask::TERMINATE) {
            return false;
        }
        let waits = server.tracker.answer_comes() || self.pins.asking() || self.asks_first(server);
        // What has no Sync yet may have the RESET in it.
        self.resets.awaited = waits || !server.tracker.client_answered();
        waits
    }

    /// Whether the server is to be asked what a RESET has left before more is sent.
    pub(super) fn asks_first(&self, server: &Server) -> bool {
        self.resets.awaited && self.pins.must_ask() && server.releasable()
    }

    /// A text is about to be sent: whether it resets something that the client began with.
    #[inline]
    pub(super) fn may_reset(&self, sql: &[u8]) -> bool {
        !self.startup.is_empty() && self.follows_parameters() && texts::resets(sql)
    }

    /// A ReadyForQuery behind a RESET: startup values that were set anew in a block go with it when it is rolled back.
    pub(super) fn follow_block(&mut self, server: &mut Server) {
        let status = server.tracker.status();
        self.resets.in_block |= self.resets.outside && self.restoring && status != TxStatus::Idle;
        if self.resets.lost && status != TxStatus::Failed {
            self.resets.lost = false;
            let known = (*server.params).clone().all_unknown(&self.startup);
            server.params = self.pool.shared.params.intern(known);
            self.restoring = true;
        }
        if status == TxStatus::Idle {
            self.resets.in_block = false;
            self.resets.outside = self.restoring;
        }
    }

    /// Reports what servers do not, since their default is what the client had; what may have been rolled back is told later.
    fn tell_startup_values(&mut self, names: &[Box<str>], since: &[Box<str>]) {
        let undone = std::mem::take(&mut self.resets.undone);
        self.resets.rare_mut().untold.clear();
        let startup = Arc::clone(&self.startup);
        for (name, _) in
            startup.iter().filter(|(n, _)| names.iter().any(|r| matches!(&**r, r if r == *n || r == "all")))
        {
            match self.startup_value(name) {
                _ if since.iter().any(|n| **n == *name) => {}
                Some((_, own)) if self.is_told(name, &own) => {}
                Some((spelled, own)) if !undone => {
                    put_report(&mut self.resets.rare_mut().reports, &spelled, own.as_bytes());
                    self.heard_parameter(name, &own);
                }
                _ => self.resets.rare_mut().untold.push(name.into()),
            }
        }
    }
}

fn put_report(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    frame::put(out, tag::PARAMETER_STATUS, |out| {
        for part in [name, value] {
            out.extend_from_slice(part);
            out.push(0);
        }
    });
}
