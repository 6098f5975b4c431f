//! One PostgreSQL connection: dial, login, statements it knows, parameters set on it, cleaning, cancel.

pub mod cancel;
pub mod clean;
pub mod connect;
mod encrypt;
pub mod info;
pub mod inspector;
mod learnt;
pub mod lookup;
pub mod params;
mod password;
mod prove;
pub mod shared;
pub mod statements;

use std::sync::Arc;

pub use cancel::ServerKey;
pub use connect::{ConnectError, Renewable, Target};
pub use info::{ServerInfo, ServerState};
pub use inspector::{InspectError, Inspector};
pub use learnt::{Learnt, Proof, Vouched};
pub use lookup::{Asker, LookupError};
pub use params::{ParamSet, Params};
pub use password::Printed;
pub use prove::{Tried, try_password};
pub use shared::{Registered, Schema, Statement, StatementCache};
pub use statements::{ServerStatements, Shape};

use crate::net::{Lent, Socket};
use crate::wire::Tracker;

/// A logged-in server connection. Whoever holds it owns its stream state: partial reads and writes live here.
pub struct Server {
    /// The stream.
    pub socket: Socket,
    /// Which worker's reactor the socket is registered with.
    pub worker: usize,
    /// How to cancel what it runs.
    pub key: Arc<ServerKey>,
    /// What others may see of it.
    pub info: Arc<ServerInfo>,
    /// Answers it owes.
    pub tracker: Tracker,
    /// Shared prepared statements it has.
    pub statements: ServerStatements,
    /// Whose unnamed statement it has, and which of that client's; 0 when that is not known.
    pub unnamed_of: u64,
    /// Startup parameters of clients that it was opened with (session mode).
    pub startup: Arc<ParamSet>,
    /// Parameters set on it since, as far as they can be followed.
    pub params: Arc<ParamSet>,
    /// What would be sent again when a plan turns out to be stale.
    pub replay: Replay,
    /// ParameterStatus values, by name as the server spells it.
    pub reported: Reported,
    /// NoticeResponse bodies of its login: every client of it would have got them directly.
    pub notices: Notices,
    /// The same of the last statement of ours.
    pub said: Notices,
    /// Bytes for the server that its socket has not taken yet.
    pub unsent: Vec<u8>,
    /// Bytes from the server not yet forwarded (the beginning of a message).
    pub input: Option<Lent>,
    /// Bytes of the message being forwarded that have not come yet.
    pub in_message: InMessage,
    /// A client left state behind that must be undone before another gets it.
    pub dirty: bool,
    /// Closed at release once the clock passes this (monotonic microseconds).
    pub expires_us: u64,
    /// Since when it has been idle (monotonic microseconds).
    pub idle_since_us: u64,
}

/// A message of which only a part has been seen: the rest is carried without being looked at.
#[derive(Clone, Copy, Default, Debug)]
pub struct InMessage {
    /// Bytes still to come.
    pub left: usize,
    /// Whether they are forwarded (or swallowed).
    pub forward: bool,
}

/// A sequence of a client that may be sent a second time, as the client sent it.
#[derive(Default)]
pub struct Replay {
    /// Its bytes, Sync included.
    pub bytes: Vec<u8>,
    /// Place of its first request.
    pub place: u32,
    /// How far it has come.
    pub state: Replaying,
}

/// See [`Replay`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Replaying {
    /// Nothing is kept.
    #[default]
    No,
    /// Its answers are awaited.
    Kept,
    /// It has failed for a stale plan; its ReadyForQuery is awaited.
    Failed,
    /// It is being sent again: no third time.
    Again,
}

impl Server {
    /// Whether it may go back to the pool as it is (invariant 3, the server's side).
    pub fn releasable(&self) -> bool {
        self.tracker.releasable()
            && self.in_message.left == 0
            && self.unsent.is_empty()
            && self.input.as_ref().is_none_or(Lent::is_empty)
    }

    /// Notes a ParameterStatus.
    pub fn report(&mut self, name: &[u8], value: &[u8]) {
        note(&mut self.reported, name, value);
    }

    /// The value the server last reported for a parameter.
    pub fn reported(&self, name: &[u8]) -> Option<&[u8]> {
        self.reported.iter().find(|(n, _)| &**n == name).map(|(_, v)| &**v)
    }
}

/// ParameterStatus values by name, as a server spells them.
pub type Reported = Vec<(Box<[u8]>, Box<[u8]>)>;

/// Bodies of NoticeResponse.
pub type Notices = Vec<Box<[u8]>>;

/// Notices kept of one login or statement, and the bytes of one.
const MAX_NOTICES: usize = 8;
const MAX_NOTICE: usize = 2048;

/// Keeps a notice; bounded.
fn keep_notice(notices: &mut Notices, body: &[u8]) {
    if notices.len() < MAX_NOTICES && body.len() <= MAX_NOTICE {
        notices.push(body.into());
    }
}

/// Notes a ParameterStatus in `reported`; bounded.
fn note(reported: &mut Reported, name: &[u8], value: &[u8]) {
    if let Some((_, v)) = reported.iter_mut().find(|(n, _)| &**n == name) {
        *v = value.into();
    } else if reported.len() < params::MAX_REPORTED {
        reported.push((name.into(), value.into()));
    }
}
