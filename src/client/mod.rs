//! One client session: login, then a loop of idle, waiting and linked. The only place where wire, pool and insight meet.
//!
//! | file | what it does |
//! |---|---|
//! | `backoff` | wrong passwords make the next answers to an address come later |
//! | [`login`] | first packet, authentication, welcome |
//! | `encrypt` | TLS before the login |
//! | `gate` | which method a client must use: rules, and who is at the other end of a Unix socket |
//! | `passthrough` | users whom only PostgreSQL knows |
//! | [`prove`] | the exchange that proves who a client is |
//! | `application` | the name of the application, as a server tells it |
//! | `notices` | what a server says at a login |
//! | `tried` | parameters of a login that no server has had yet |
//! | [`session`] | the session's state and its loop |
//! | [`relay`] | both directions while linked to a server: the hot loop |
//! | [`inbound`] | client to server: names rewritten, statements injected |
//! | `parameters` | the client's parameters, set where a server has others |
//! | [`plan`] | what a batch becomes on its way |
//! | [`outbound`] | server to client: answers tracked, injected ones swallowed |
//! | [`observe`] | after forwarding: fingerprints, insight, what pins the session |
//! | [`pins`] | what ties a client to its server |
//! | `probe` | asking the server what a client has left in its session |
//! | `ahead` | shared prepared statements, sent ahead where a server lacks them |
//! | `fresh` | prepared statements and a schema that changes |
//! | `resets` | RESET: what a client began with comes back |
//! | `replay` | a sequence sent again when its plan was stale |
//! | `rename` | DEALLOCATE and EXECUTE of a statement prepared by protocol |
//! | [`statements`] | the client's names for statements and portals |
//! | `executes` | EXECUTE of such statements elsewhere in a text |
//! | `targets` | Describe and Close |
//! | `unnamed` | the unnamed statement, when it is bound later than it was prepared |
//! | [`refuse`] | answering without a server |
//! | [`leave`] | clients that go while something is under way |
//! | [`replication`] | clients that replicate |
//! | [`alarm`] | deadlines, swept once in a while |
//! | `reload` | files read again: TLS, rules, users |
//! | [`registry`] | who is connected |
//! | [`strangers`] | who has not logged in yet: a limit, and who makes room |

mod ahead;
pub mod alarm;
mod application;
mod backoff;
mod encrypt;
mod executes;
mod fresh;
mod gate;
pub mod inbound;
pub mod leave;
pub mod login;
mod notices;
pub mod observe;
pub mod outbound;
mod parameters;
mod passthrough;
pub mod pins;
pub mod plan;
mod probe;
pub mod prove;
pub mod refuse;
pub mod registry;
pub mod relay;
mod reload;
mod rename;
mod replay;
pub mod replication;
mod resets;
pub mod session;
pub mod statements;
pub mod strangers;
mod targets;
mod texts;
mod tried;
mod unnamed;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use crate::auth::AuthContext;
use crate::cancel::Cancels;
use crate::config::{Config, HbaConfig, ListenAddr};
use crate::diagnosis::inspection::Plans;
use crate::diagnosis::{Diagnosis, Sources};
use crate::insight::{Insight, WorkerInsight};
use crate::net::{Aside, BufPool, TlsFiles};
use crate::pool::{Pool, Pools};
use crate::sql::Analyzer;

pub use alarm::Alarms;
pub use backoff::Backoff;
pub use login::{Console, Outcome, serve};
pub use registry::{ClientInfo, ClientState, Clients};
pub use strangers::{Refusal, Stranger, Strangers};

/// What the whole process shares.
pub struct Process {
    /// Configuration.
    pub config: Arc<Config>,
    /// Pools of all workers.
    pub pools: Pools,
    /// Cancel keys of all clients.
    pub cancels: Arc<Cancels>,
    /// Who is connected.
    pub clients: Arc<Clients>,
    /// Those of them who have not logged in yet.
    pub strangers: Arc<Strangers>,
    /// Keys and caches for authentication.
    pub auth: Arc<AuthContext>,
    /// Addresses that gave wrong passwords.
    pub backoff: Backoff,
    /// Where logins compute what takes long.
    pub aside: Aside,
    /// Held while files are read again: whoever reads later has the newer ones, and is in force later.
    pub reloading: Mutex<()>,
    /// TLS of both sides, as read from its files.
    pub tls: Arc<TlsFiles>,
    /// Rules of `auth_hba_file` and maps of `auth_ident_file` in force: SIGHUP reads them again.
    pub hba: ArcSwap<HbaConfig>,
    /// Insight.
    pub insight: Arc<Insight>,
    /// Old readings of all counters, for the list of causes.
    pub diagnosis: Diagnosis,
    /// What databases told of plans.
    pub plans: Plans,
    /// SIGTERM was seen: not ready, sessions end between transactions.
    pub draining: AtomicBool,
    /// Addresses that are really listened at (ports the kernel chose filled in).
    pub listening: Mutex<Vec<ListenAddr>>,
    /// Unix time of the start, seconds.
    pub started_unix: u64,
}

impl Process {
    /// A place for a connection that comes now, before anything is read of it.
    ///
    /// # Errors
    /// There is none.
    pub fn welcome(&self, now_us: u64) -> Result<Stranger, Refusal> {
        self.strangers.enter(self.clients.admitted() >= self.config.max_client_conn, now_us)
    }

    /// Calls `with` on where the diagnosis finds its counters.
    pub fn with_sources<T>(&self, with: impl FnOnce(&Sources<'_>) -> T) -> T {
        let pools: Vec<Arc<Pool>> = self.pools.all();
        let time = self.clients.login_time.totals();
        let logins = (self.clients.logins[0].load(Relaxed), time.sum_us);
        with(&Sources { insight: &self.insight, pools: &pools, logins, plans: &self.plans })
    }
}

/// What all sessions of one worker thread share. Single-threaded: `Rc` and cells.
pub struct Worker {
    /// Number of the worker.
    pub id: usize,
    /// What the whole process shares.
    pub process: Arc<Process>,
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
    /// Scratch for a text without its comments.
    pub key: RefCell<Vec<u8>>,
    /// Deadlines of this worker's sessions.
    pub alarms: Alarms,
}

impl Worker {
    /// The part of worker `id`, made on its thread.
    pub fn new(id: usize, process: Arc<Process>, literal_key: [u64; 2]) -> Rc<Worker> {
        Rc::new(Worker {
            id,
            lens: RefCell::new(process.insight.worker()),
            process,
            analyzer: RefCell::new(Analyzer::new(literal_key)),
            buffers: BufPool::default(),
            scratch: RefCell::default(),
            key: RefCell::default(),
            batch: RefCell::default(),
            alarms: Alarms::default(),
        })
    }

    /// The sweep, a few times a second: wakes sessions whose deadline has passed; all of them when draining.
    pub fn sweep(self: &Rc<Self>, now_us: u64) {
        self.alarms.sweep(now_us, self.process.draining.load(Relaxed));
        self.lens.borrow_mut().tick(now_us);
    }
}
