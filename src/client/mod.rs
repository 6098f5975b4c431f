//! One client session: login, then a loop of idle, waiting and linked. The only place where wire, pool and insight meet.
//!
//! | file | what it does |
//! |---|---|
//! | [`login`] | first packet, authentication, welcome |
//! | [`session`] | the session's state and its loop |
//! | [`relay`] | both directions while linked to a server: the hot loop |
//! | [`inbound`] | client to server: names rewritten, statements injected |
//! | [`outbound`] | server to client: answers tracked, injected ones swallowed |
//! | [`observe`] | after forwarding: fingerprints, insight, what pins the session |
//! | [`statements`] | the client's names for statements and portals |
//! | [`refuse`] | answering without a server |
//! | [`alarm`] | deadlines, swept once in a while |
//! | [`registry`] | who is connected |

pub mod alarm;
pub mod inbound;
pub mod login;
pub mod observe;
pub mod outbound;
pub mod refuse;
pub mod registry;
pub mod relay;
pub mod session;
pub mod statements;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::auth::AuthContext;
use crate::cancel::Cancels;
use crate::config::Config;
use crate::insight::{Insight, WorkerInsight};
use crate::net::BufPool;
use crate::pool::Pools;
use crate::sql::Analyzer;

pub use alarm::Alarms;
pub use login::{Console, Outcome, serve};
pub use registry::{ClientInfo, ClientState, Clients};

/// What all sessions of one worker thread share. Single-threaded: `Rc` and cells.
pub struct Worker {
    /// Number of the worker.
    pub id: usize,
    /// Configuration.
    pub config: Arc<Config>,
    /// Pools of all workers.
    pub pools: Arc<Pools>,
    /// Cancel keys of all clients.
    pub cancels: Arc<Cancels>,
    /// Who is connected, over all workers.
    pub clients: Arc<Clients>,
    /// Keys and caches for authentication.
    pub auth: Arc<AuthContext>,
    /// Insight of the process.
    pub insight: Arc<Insight>,
    /// Insight of this worker.
    pub lens: RefCell<WorkerInsight>,
    /// Lexer scratch.
    pub analyzer: RefCell<Analyzer>,
    /// Relay buffers.
    pub buffers: BufPool,
    /// Scratch for messages written anew, and for what was forwarded.
    pub scratch: RefCell<inbound::Scratch>,
    /// The same for the other direction.
    pub batch: RefCell<outbound::Batch>,
    /// Deadlines of this worker's sessions.
    pub alarms: Alarms,
    /// Sessions end between transactions.
    pub draining: Cell<bool>,
}

impl Worker {
    /// The sweep, a few times a second: wakes sessions whose deadline has passed; all of them when draining.
    pub fn sweep(self: &Rc<Self>, now_us: u64) {
        self.alarms.sweep(now_us, self.draining.get());
        self.lens.borrow_mut().tick(now_us);
    }
}
