//! Typed, validated configuration. Built once from TOML and the environment, then passed by `Arc`; never global.
//!
//! | file | what it holds |
//! |---|---|
//! | `keys` | the table of all settings, with defaults and documentation |
//! | `raw` | the sections as written, every setting optional |
//! | `value`, `units` | how each kind of value is read from text |
//! | `parse` | TOML text and environment into `raw` |
//! | `build` | `raw` into [`Config`]: secrets read, what belongs together checked |
//! | `hba` | `auth_hba_file` and `auth_ident_file`, read and re-read |
//! | `query`, `passthrough` | `auth_query` and `passthrough_auth` |
//! | `secret_files` | files with secrets, which may change, and commands that print them |
//! | `tls`, `ciphers` | TLS of both sides |
//! | `url`, `userlist` | `DATABASE_URL` and PgBouncer's `userlist.txt` |
//! | `warnings` | what is possible but probably not meant |
//! | `error` | errors that show the place and the mend |
//! | `docs` | `docs/configuration.md` and `config/pgsluice.toml` from the table |

mod build;
mod ciphers;
pub mod docs;
mod error;
mod hba;
pub mod keys;
mod parse;
mod passthrough;
mod query;
mod raw;
mod secret_files;
mod tls;
pub mod units;
mod url;
mod userlist;
mod value;
mod warnings;

pub use ciphers::Ciphers;
pub(crate) use error::nearest;
pub use error::{ConfigError, Problem};
pub use hba::{Disk, HbaConfig};
pub use parse::Environment;
pub use passthrough::Passthrough;
pub use query::{AuthQuery, QueryConfig};
pub use secret_files::{PasswordCommand, SecretFiles};
pub use tls::{ChannelBinding, ClientTls, ServerTls, TlsMode, TlsVersion};
pub use userlist::{UserlistError, fuzz_userlist, parse_userlist};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// When a server connection goes back to its pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PoolMode {
    /// When the client disconnects.
    Session,
    /// When a transaction ends.
    Transaction,
    /// After each statement; transactions are refused.
    Statement,
}

/// Everything pgsluice was told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listen: Vec<ListenAddr>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; `None` switches HTTP off.
    pub http_listen: Option<SocketAddr>,
    /// What must be presented there for anything but the health pages; `None`: nothing.
    pub http_token: Option<HttpToken>,
    /// Number of worker threads (each a single-threaded runtime).
    pub workers: usize,
    /// Clients that are logged in at most; the console admits more.
    pub max_client_conn: usize,
    /// Connections that have not logged in yet at most.
    pub max_unauthenticated_conn: usize,
    /// Listen queue of each socket.
    pub backlog: u32,
    /// Users admitted to the console as administrators.
    pub admin_users: Vec<String>,
    /// Users admitted to the console for SHOW only.
    pub stats_users: Vec<String>,
    /// How clients prove who they are.
    pub auth: AuthConfig,
    /// TLS towards clients.
    pub client_tls: ClientTls,
    /// Named databases, and `*` for any other name.
    pub databases: BTreeMap<String, Database>,
    /// Defaults of every pool.
    pub pool: PoolSettings,
    /// Timeouts that belong to clients.
    pub timeouts: Timeouts,
    /// Insight.
    pub insight: InsightConfig,
    /// Log format and level.
    pub log: LogConfig,
    /// Files that secrets were read from; see [`SecretFiles`].
    pub secret_files: Vec<PathBuf>,
    /// The file that was read; `None`: the environment alone.
    pub source: Option<PathBuf>,
    /// What is possible but probably not meant; to be logged at start and shown by `pgsluice check`.
    pub warnings: Vec<String>,
}

/// Where the token of HTTP comes from. `Debug` shows no token.
#[derive(Clone, PartialEq, Eq)]
pub enum HttpToken {
    /// The token.
    Given(String),
    /// A file that holds it, and may change.
    File(PathBuf),
}

impl HttpToken {
    /// Characters a token has at least: one that can be guessed is none.
    const MIN: usize = 16;

    /// The token as it is now.
    ///
    /// # Errors
    /// The file cannot be read, or what is there is no token; in words, without it.
    pub fn read(&self) -> Result<String, String> {
        let text = match self {
            HttpToken::Given(text) => text.clone(),
            HttpToken::File(path) => secret_files::read_secret_file(path)?,
        };
        if text.len() < Self::MIN || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!("a token has at least {} printable ASCII characters and no blanks", Self::MIN));
        }
        Ok(text)
    }
}

impl std::fmt::Debug for HttpToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            HttpToken::Given(_) => "HttpToken::Given(..)",
            HttpToken::File(_) => "HttpToken::File(..)",
        })
    }
}

/// A line of SHOW CONFIG.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Name of the setting.
    pub key: String,
    /// Its value, as it would be written in the file. Secrets are no settings and never appear.
    pub value: String,
    /// Its default.
    pub default: &'static str,
    /// Whether a reload can change it.
    pub changeable: bool,
}

impl Config {
    /// Reads the environment over `path`, or the environment alone. This is what a start and a reload call.
    ///
    /// # Errors
    /// Everything that is wrong, with places and mends.
    pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Config, ConfigError> {
        parse::load(path, environment)
    }

    /// Reads a file, with the environment of the process over it.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn from_file(path: &Path) -> Result<Config, ConfigError> {
        Config::load(Some(path), &Environment::of_process())
    }

    /// Reads the environment of the process alone: `DATABASE_URL` is enough.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn from_env() -> Result<Config, ConfigError> {
        Config::load(None, &Environment::of_process())
    }

    /// Reads TOML text without any environment; `path` is for messages and relative files.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn from_toml(text: &str, path: &Path) -> Result<Config, ConfigError> {
        parse::load_text(text, path, &Environment::default())
    }

    /// All settings with values and defaults, for SHOW CONFIG.
    pub fn entries(&self) -> Vec<Entry> {
        keys::KEYS
            .iter()
            .map(|key| Entry {
                key: key.full_name(),
                value: (key.get)(self),
                default: key.default,
                changeable: key.changeable,
            })
            .collect()
    }

    /// The database that a client means by `name`: its own section, or `*`.
    pub fn database(&self, name: &str) -> Option<&Database> {
        self.databases.get(name).or_else(|| self.databases.get("*"))
    }
}

/// All defaults, no database, no user: for tests, and as a start for configurations made by hand.
impl Default for Config {
    fn default() -> Config {
        build::defaults()
    }
}

/// An address of a listening socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListenAddr {
    /// TCP.
    Tcp(SocketAddr),
    /// Unix socket path, in full (`/run/pgsluice/.s.PGSQL.6432`).
    Unix(PathBuf),
}

/// Client authentication methods (PostgreSQL's names, client-authentication chapter).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuthMethod {
    /// No password is asked; the user must be known.
    Trust,
    /// No password is asked; any user name is taken as it is.
    Any,
    /// Cleartext password.
    Plain,
    /// MD5 (a SCRAM verifier switches to SCRAM).
    Md5,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// The operating system's name of the process at the other end of a Unix socket.
    Peer,
    /// The name in the client's certificate.
    Cert,
    /// What the rules of `auth_hba_file` say.
    Hba,
}

impl AuthMethod {
    /// Whether every client must give a password.
    pub fn asks_password(self) -> bool {
        matches!(self, AuthMethod::Plain | AuthMethod::Md5 | AuthMethod::ScramSha256)
    }
}

/// How clients prove who they are, and what is known of users.
#[derive(Clone, PartialEq, Debug)]
pub struct AuthConfig {
    /// Method asked of every client.
    pub method: AuthMethod,
    /// Iterations of the SCRAM verifiers that are made from plain passwords.
    pub scram_iterations: std::num::NonZeroU32,
    /// The file that salts follow from, if any.
    pub salt_file: Option<PathBuf>,
    /// What was in it.
    pub salts: Option<crate::auth::SaltKey>,
    /// The `userlist.txt` that was read, if any.
    pub file: Option<PathBuf>,
    /// Rules and maps, for [`AuthMethod::Hba`].
    pub hba: HbaConfig,
    /// Whom to ask for users that are not in `users`.
    pub query: QueryConfig,
    /// How users are met whom nothing here knows, at databases that do not say themselves.
    pub passthrough: Passthrough,
    /// Users and their secrets: from `[users]`, `userlist.txt`, `DATABASE_URL`. An empty plain password: the user is
    /// known (for `trust`), but cannot log in with a password.
    pub users: BTreeMap<String, crate::auth::Secret>,
}

/// A database that clients may name, and the server behind it.
#[derive(Clone, PartialEq, Debug)]
pub struct Database {
    /// Host name, address, or a directory of a Unix socket (starts with `/`).
    pub host: String,
    /// TCP port, or the number in the Unix socket's name.
    pub port: u16,
    /// Name at the server; `None`: the name that the client used.
    pub dbname: Option<String>,
    /// Log in to the server as this user, whoever the client is.
    pub user: Option<String>,
    /// Password for `user` (or for any user when `user` is absent).
    pub password: Option<crate::auth::Secret>,
    /// Prints that password at each need.
    pub password_command: Option<PasswordCommand>,
    /// Whom to ask for users that the configuration does not know; `None`: nobody.
    pub auth_query: Option<AuthQuery>,
    /// How users are met whom neither the configuration nor `auth_query` knows.
    pub passthrough: Passthrough,
    /// Who looks at the catalogue and at plans; `None`: whoever the busiest pool logs in as.
    pub insight_user: Option<String>,
    /// Settings that differ from `[pool]`.
    pub pool: PoolSettings,
}

/// Settings of a pool of server connections; one pool per (database, user).
#[derive(Clone, PartialEq, Debug)]
pub struct PoolSettings {
    /// When a server goes back.
    pub pool_mode: PoolMode,
    /// Server connections at most.
    pub pool_size: usize,
    /// Server connections kept open even when idle.
    pub min_pool_size: usize,
    /// Connection attempts under way at once.
    pub max_connecting: usize,
    /// A server older than this is closed when idle; spread over the pool so that not all die together.
    pub server_lifetime: Duration,
    /// A server idle for longer is closed (zero: never).
    pub server_idle_timeout: Duration,
    /// Time allowed to connect and log in to a server.
    pub server_connect_timeout: Duration,
    /// Longest pause between attempts after failures.
    pub server_login_retry: Duration,
    /// Sent when a session-mode client leaves (empty: nothing).
    pub server_reset_query: String,
    /// A client waits this long for a server (zero: for ever).
    pub query_wait_timeout: Duration,
    /// Prepared statements kept per server connection (zero: clients' names are passed through).
    pub max_prepared_statements: usize,
    /// Clients that may keep their server between transactions, cursors aside (never more than `pool_size` - 1).
    pub max_pinned: usize,
    /// TLS towards the server.
    pub tls: ServerTls,
}

impl PoolSettings {
    /// Clients that may keep a server between transactions: never all of them, so that the others go on.
    pub fn pin_limit(&self) -> usize {
        self.max_pinned.min(self.pool_size.saturating_sub(1).max(1))
    }
}

/// Timeouts of clients. Zero means never.
#[derive(Clone, PartialEq, Debug)]
pub struct Timeouts {
    /// Time from accept to the end of login.
    pub client_login_timeout: Duration,
    /// Longest delay of the answer to a wrong password.
    pub failed_login_delay: Duration,
    /// A client without a transaction that sends nothing.
    pub client_idle_timeout: Duration,
    /// A client inside a transaction that sends nothing (25P03).
    pub idle_transaction_timeout: Duration,
    /// A query at a server (57014).
    pub query_timeout: Duration,
    /// From SIGTERM to the end, whatever clients do.
    pub shutdown_timeout: Duration,
}

/// Insight settings; `docs/insight.md` explains each.
#[derive(Clone, PartialEq, Debug)]
pub struct InsightConfig {
    /// Fingerprints, findings and their metrics.
    pub enabled: bool,
    /// Executions that make a run.
    pub min_count: u32,
    /// The same for runs without a parent.
    pub min_count_low_confidence: u32,
    /// Statements a loop's body may have.
    pub max_period: u32,
    /// Idle time outside a transaction that ends a unit of work.
    pub idle_gap: Duration,
    /// Executions that make a write loop.
    pub write_loop_min: u32,
    /// The same finding is logged again after this long.
    pub cooldown: Duration,
    /// Statements slower than this are counted as slow.
    pub slow_query: Duration,
    /// Fingerprints remembered.
    pub max_fingerprints: usize,
    /// Fingerprints with series of their own in `/metrics`.
    pub top_fingerprints: usize,
    /// Findings remembered.
    pub max_findings: usize,
    /// Tag keys whose change starts a new unit of work.
    pub id_tags: Vec<String>,
    /// Length of an interval of the history.
    pub history_interval: Duration,
    /// The file that the history survives a restart in.
    pub history_file: Option<PathBuf>,
    /// Tables, keys and indexes are read from databases.
    pub catalog: bool,
    /// And read again after this long.
    pub catalog_interval: Duration,
    /// Plans of the costliest SELECTs are asked for, and the catalogue is read.
    pub explain: bool,
    /// Plans asked for at most.
    pub explain_per_minute: u32,
}

/// As of a configuration that says nothing.
impl Default for InsightConfig {
    fn default() -> InsightConfig {
        build::defaults().insight
    }
}

/// Log settings.
#[derive(Clone, PartialEq, Debug)]
pub struct LogConfig {
    /// JSON lines instead of text.
    pub json: bool,
    /// Least severe level written.
    pub level: LogLevel,
}

/// Log levels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogLevel {
    /// Errors only.
    Error,
    /// And warnings.
    Warn,
    /// And notable events.
    Info,
    /// And each connection.
    Debug,
}

#[cfg(test)]
mod tests;
