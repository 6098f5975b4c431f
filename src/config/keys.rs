//! The table of all settings: names, defaults, documentation. It drives the defaults themselves, the environment,
//! SHOW CONFIG, `docs/configuration.md` and `config/pgsluice.toml`, so none of them can differ from another.

use super::query::DEFAULT_QUERY;
use super::units::format_duration;
use super::{Config, HbaConfig, HttpToken, ListenAddr};

/// Where a setting stands in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Section {
    /// Above all sections.
    General,
    /// `[pool]`, and again in every `[databases.NAME]`.
    Pool,
    /// `[insight]`.
    Insight,
    /// `[log]`.
    Log,
}

impl Section {
    /// Name in the file; `None` above all sections.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Section::General => None,
            Section::Pool => Some("pool"),
            Section::Insight => Some("insight"),
            Section::Log => Some("log"),
        }
    }
}

/// One setting.
pub struct Key {
    /// Where it stands.
    pub section: Section,
    /// Its name in the section.
    pub name: &'static str,
    /// The default, written as in the file.
    pub default: &'static str,
    /// Whether a reload can change it.
    pub changeable: bool,
    /// What it does.
    pub doc: &'static str,
    /// Its value in a configuration, written as in the file.
    pub get: fn(&Config) -> String,
}

impl Key {
    /// Name in SHOW CONFIG: settings of `[insight]` and `[log]` carry the section in front.
    pub fn full_name(&self) -> String {
        match self.section {
            Section::General | Section::Pool => self.name.to_owned(),
            Section::Insight => format!("insight_{}", self.name),
            Section::Log => format!("log_{}", self.name),
        }
    }

    /// Name of the environment variable.
    pub fn variable(&self) -> String {
        format!("PGSLUICE_{}", self.full_name().to_ascii_uppercase())
    }
}

/// Shorthand for the rows of [`KEYS`].
const fn key(
    section: Section,
    name: &'static str,
    default: &'static str,
    changeable: bool,
    get: fn(&Config) -> String,
    doc: &'static str,
) -> Key {
    Key { section, name, default, changeable, doc, get }
}

fn path(file: &Option<std::path::PathBuf>) -> String {
    file.as_ref().map_or_else(String::new, |p| p.display().to_string())
}

fn addresses(list: &[ListenAddr]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

use Section::{General, Insight, Log, Pool};

/// All settings, in the order of the documentation.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key(General, "listen", "127.0.0.1:6432", false, |c| addresses(&c.listen),
        "Where clients connect: a list of `address:port` and of absolute paths of directories for Unix sockets. \
         `*:6432` is every IPv4 address. The default serves the same pod or host only."),
    key(General, "http_listen", "127.0.0.1:9127", false, |c| c.http_listen.map_or("off".into(), |a| a.to_string()),
        "Where `/metrics`, `/healthz` and `/readyz` are served, or `off`. In Kubernetes use `*:9127`, so that probes \
         and Prometheus reach it."),
    key(General, "http_token", "", false, |c| if c.http_token.is_some() { "(set)".into() } else { String::new() },
        "Whoever asks HTTP for anything but the health pages must present this: as `Authorization: Bearer TOKEN`, or as the \
         password of basic authentication with any user name. At least 16 printable characters without blanks. Set it where \
         `http_listen` is not on the loopback."),
    key(General, "http_token_file", "", false, |c| match &c.http_token {
            Some(HttpToken::File(path)) => path.display().to_string(),
            _ => String::new(),
        },
        "A file that holds the same (a mounted secret). It is read again when it has changed."),
    key(General, "workers", "1", false, |c| c.workers.to_string(),
        "Threads that move data, from 1 to 64. One is right for a sidecar; a pooler shared by many pods can use more."),
    key(General, "max_client_conn", "10000", true, |c| c.max_client_conn.to_string(),
        "Clients that are logged in at most, the console's included (it admits more). An idle one costs about 1.5 KiB \
         and a file descriptor; more are refused with 53300."),
    key(General, "max_unauthenticated_conn", "1000", false, |c| c.max_unauthenticated_conn.to_string(),
        "Connections that have not logged in yet at most, beside `max_client_conn`. It is looked at before anything is \
         read of a connection. When all places are taken the one that has been there longest is closed for the next, if \
         it has had a second or more; else the new one is refused with 53300."),
    key(General, "listen_backlog", "1024", false, |c| c.backlog.to_string(),
        "Connections that may wait to be accepted. Linux cuts it to `net.core.somaxconn`."),
    key(General, "auth_type", "scram-sha-256", true, |c| c.auth.method.to_string(),
        "How clients prove who they are: `scram-sha-256`, `md5` (SCRAM for users with a SCRAM verifier), `plain` \
         (password in the clear), `trust` (no password, but the user must be known), `peer` (Unix sockets only: the \
         operating system's name of the client's process must be the user's), `cert` (TLS only: the common name of the \
         client's certificate must be the user's), `hba` (as `auth_hba_file` says for each), `any` (nothing is checked)."),
    key(General, "scram_iterations", "4096", false, |c| c.auth.scram_iterations.to_string(),
        "Iterations of SCRAM for users of whom a plain password is known (a verifier has its own). Each login costs the \
         client that many: fewer make logins cheap where nobody listens, as in a pod. See docs/security.md."),
    key(General, "scram_salt_file", "", false, |c| path(&c.auth.salt_file),
        "A file with a secret that all pods have, at least 16 bytes of random text (a mounted secret). SCRAM's salts follow from \
         it, of users who do not exist and of those whose plain password is known: they stay the same over restarts and pods, as a \
         verifier's does. Without it they are others in each process. See docs/security.md."),
    key(General, "auth_file", "", true, |c| c.auth.file.as_ref().map_or_else(String::new, |p| p.display().to_string()),
        "A PgBouncer `userlist.txt`: lines of `\"user\" \"secret\"`, the secret a password, an MD5 hash or a SCRAM \
         verifier. Relative to the directory of the configuration file. `[users]` overrides it."),
    key(General, "auth_hba_file", "", true, |c| HbaConfig::shown(&c.auth.hba.file),
        "With `auth_type = \"hba\"`: a file in the syntax of PostgreSQL's `pg_hba.conf`. Its first line that matches a \
         client's connection, address, database and user says how she proves who she is; without one she is refused. \
         Methods: `trust`, `reject`, `password`, `md5`, `scram-sha-256`, `peer`, `cert`. Users must be known in any case. \
         Relative to the directory of the configuration file. See \"Rules for each client\" in docs/configuration.md."),
    key(General, "auth_ident_file", "", true, |c| HbaConfig::shown(&c.auth.hba.ident_file),
        "A file in the syntax of PostgreSQL's `pg_ident.conf`, for `map=` in `auth_hba_file`: lines of a map's name, a \
         user of the operating system and the user she may log in as."),
    key(General, "auth_user", "", true, |c| c.auth.query.default.as_ref().map_or_else(String::new, |q| q.user.clone()),
        "Users whom neither `[users]` nor `auth_file` knows are looked up in the database: pgsluice logs in as this user and runs \
         `auth_query`. Her password is that of `[users]` or `auth_file`. Each database may have its own. See \"Users of the \
         database\" in docs/configuration.md."),
    key(General, "auth_query", DEFAULT_QUERY, true, |c| match &c.auth.query.default {
            Some(query) => query.query.clone(),
            None => DEFAULT_QUERY.to_owned(),
        },
        "What she runs: `$1` is the user's name; the answer is at most one row of name and secret (a password, an MD5 hash or a \
         SCRAM verifier; NULL for none). The default, PgBouncer's, needs a superuser: give a function instead."),
    key(General, "auth_dbname", "", true, |c| {
            c.auth.query.default.as_ref().and_then(|q| q.dbname.clone()).unwrap_or_default()
        },
        "The database, one of `[databases]`, in which it is run. Default: the one that the client names."),
    key(General, "auth_query_ttl", "1min", true, |c| format_duration(c.auth.query.ttl),
        "What it answered, that there is no such user included, counts for so long; after a failed login it is asked anew. 0 \
         asks at every login."),
    key(General, "passthrough_auth", "disabled", false, |c| c.auth.passthrough.to_string(),
        "Users whom neither `[users]`, `auth_file` nor `auth_query` knows may be let in by PostgreSQL itself: pgsluice asks for the \
         password in the clear, logs in with it, and lets the client in if PostgreSQL asked for the password and took it. `enabled`: \
         only clients with TLS, on Unix sockets and on the loopback; `enabled_plain`: others too, whose passwords cross the network \
         in the clear; `disabled`: nobody. See \"Users whom only PostgreSQL knows\" in docs/configuration.md."),
    key(General, "admin_users", "", true, |c| c.admin_users.join(","),
        "Users who may do everything on the console (the database `pgsluice` or `pgbouncer`)."),
    key(General, "stats_users", "", true, |c| c.stats_users.join(","),
        "Users who may only look (SHOW) on the console. The user of `DATABASE_URL` is one when neither \
         `admin_users` nor `stats_users` is set."),
    key(General, "client_tls_mode", "prefer", false, |c| c.client_tls.mode.to_string(),
        "TLS for clients on TCP (PgBouncer's `client_tls_sslmode`): `disable`, `allow` and `prefer` (when the client \
         asks, and `client_tls_cert_file` is set), `require` (a client without TLS is refused), `verify-ca` and \
         `verify-full` (and the client must have a certificate of `client_tls_ca_file`). Unix sockets never need it."),
    key(General, "client_tls_cert_file", "", false, |c| path(&c.client_tls.cert),
        "PEM file of pgsluice's certificate, those between it and its CA behind it. Without one no TLS is offered. \
         SIGHUP reads it and the other TLS files again."),
    key(General, "client_tls_key_file", "", false, |c| path(&c.client_tls.key),
        "PEM file of the certificate's key, without a passphrase."),
    key(General, "client_tls_ca_file", "", false, |c| path(&c.client_tls.ca),
        "PEM file of the CAs that sign clients' certificates. With it clients are asked for one, and one that is not good ends the \
         handshake. Who must have one: everybody with `verify-ca` and `verify-full`, else as rules or `auth_type` say."),
    key(General, "client_tls_min_version", "tlsv1.2", false, |c| c.client_tls.min_version.to_string(),
        "Least TLS version for clients: `tlsv1.2` or `tlsv1.3`."),
    key(General, "client_tls_ciphers", "default", false, |c| c.client_tls.ciphers.to_string(),
        "Cipher suites for clients, of TLS 1.2 and 1.3 in one list, the preferred first, by IANA's or OpenSSL's names; `default` \
         is all nine that there are. See docs/security.md."),
    key(General, "client_login_timeout", "15s", true, |c| format_duration(c.timeouts.client_login_timeout),
        "A client must have logged in within this time. The wait for a server connection is not counted: it has \
         `query_wait_timeout`."),
    key(General, "failed_login_delay", "5s", false, |c| format_duration(c.timeouts.failed_login_delay),
        "After five wrong passwords from one address (of IPv6: one /64 network) within a minute the answer to the next \
         comes 250 ms late, and twice as late each further time, up to this; 0 is never. A right password waits a second \
         at most. Unix sockets are left out. See docs/security.md."),
    key(General, "client_idle_timeout", "0s", true, |c| format_duration(c.timeouts.client_idle_timeout),
        "A client that sends nothing outside a transaction for this long is disconnected; 0 is never, which is \
         right for persistent Django connections."),
    key(General, "idle_transaction_timeout", "0s", true, |c| format_duration(c.timeouts.idle_transaction_timeout),
        "A client that sends nothing inside a transaction for this long is disconnected (25P03) and the transaction \
         rolled back; 0 is never."),
    key(General, "query_timeout", "0s", true, |c| format_duration(c.timeouts.query_timeout),
        "A query that runs longer is cancelled (57014); 0 is never. PostgreSQL's `statement_timeout` is the finer tool."),
    key(General, "shutdown_timeout", "25s", true, |c| format_duration(c.timeouts.shutdown_timeout),
        "After SIGTERM running transactions get this long. Keep it below Kubernetes' \
         `terminationGracePeriodSeconds`, which is 30 s."),

    key(Pool, "pool_mode", "transaction", true, |c| c.pool.pool_mode.to_string(),
        "When a server connection goes back to the pool: `transaction` (when the transaction ends), `session` (when \
         the client leaves), `statement` (after each statement; transactions are refused)."),
    key(Pool, "pool_size", "20", true, |c| c.pool.pool_size.to_string(),
        "Server connections at most, for each pair of database and user (PgBouncer's `default_pool_size`). In a \
         sidecar every pod has its own pool: pods x pool_size must stay below PostgreSQL's `max_connections`."),
    key(Pool, "min_pool_size", "0", true, |c| c.pool.min_pool_size.to_string(),
        "Server connections kept open even when idle, so that the first requests after a quiet time need not wait \
         for a login."),
    key(Pool, "max_connecting", "4", true, |c| c.pool.max_connecting.to_string(),
        "Logins to the server under way at once, for each pool. Each costs PostgreSQL a process."),
    key(Pool, "server_lifetime", "1h", true, |c| format_duration(c.pool.server_lifetime),
        "An older server connection is closed when it is idle; spread, so that not all are renewed together."),
    key(Pool, "server_idle_timeout", "10min", true, |c| format_duration(c.pool.server_idle_timeout),
        "A server connection unused for longer is closed; 0 is never."),
    key(Pool, "server_connect_timeout", "5s", true, |c| format_duration(c.pool.server_connect_timeout),
        "Connecting and logging in to the server must succeed within this time."),
    key(Pool, "server_login_retry", "1s", true, |c| format_duration(c.pool.server_login_retry),
        "The longest pause between attempts while the server is away; attempts begin close together and slow down \
         to this. Service is back within that time of the database's return."),
    key(Pool, "server_reset_query", "DISCARD ALL", true, |c| c.pool.server_reset_query.clone(),
        "Sent when a client of a `session` pool leaves; empty sends nothing. `transaction` pools do not need it."),
    key(Pool, "query_wait_timeout", "15s", true, |c| format_duration(c.pool.query_wait_timeout),
        "A client waits this long for a server connection, then gets 53300 and is told who holds the pool; 0 is for \
         ever. Shorter than the web server's own timeout (gunicorn: 30 s), so that the view sees the error."),
    key(Pool, "max_prepared_statements", "200", true, |c| c.pool.max_prepared_statements.to_string(),
        "Prepared statements kept on each server connection for clients that use the protocol's named statements; \
         0 passes names through, which breaks them in `transaction` mode."),
    key(Pool, "max_pinned", "1000", true, |c| c.pool.max_pinned.to_string(),
        "Clients of a `transaction` pool that may keep a server connection for themselves because of session state \
         that cannot follow them (LISTEN, session-level advisory locks, temporary tables, SQL's PREPARE): at most \
         this many, and never the pool's last server. One more is disconnected with 53400 and told why; 0 allows none. \
         Cursors of `.iterator()` are not counted."),
    key(Pool, "server_tls_mode", "prefer", false, |c| c.pool.tls.mode.to_string(),
        "TLS to the server (libpq's `sslmode`): `disable`; `allow` and `prefer` (with or without, whatever works, the \
         one or the other first); `require`; `verify-ca` (and the certificate must be signed by a CA of \
         `server_tls_ca_file`); `verify-full` (and name the host). Unix sockets never have it."),
    key(Pool, "server_tls_ca_file", "", false, |c| path(&c.pool.tls.ca),
        "PEM file of the CAs that sign the server's certificate, or `system` for those of the operating system. When \
         it is given the certificate is checked in every mode, as in libpq."),
    key(Pool, "server_tls_cert_file", "", false, |c| path(&c.pool.tls.cert),
        "PEM file of the certificate shown to servers that ask for one."),
    key(Pool, "server_tls_key_file", "", false, |c| path(&c.pool.tls.key),
        "PEM file of that certificate's key."),
    key(Pool, "server_tls_min_version", "tlsv1.2", false, |c| c.pool.tls.min_version.to_string(),
        "Least TLS version to the server: `tlsv1.2` or `tlsv1.3` (libpq's `ssl_min_protocol_version`)."),
    key(Pool, "server_tls_ciphers", "default", false, |c| c.pool.tls.ciphers.to_string(),
        "Cipher suites offered to the server, as in `client_tls_ciphers`."),
    key(Pool, "server_tls_direct", "false", false, |c| c.pool.tls.direct.to_string(),
        "TLS from the first byte (libpq's `sslnegotiation=direct`): a round trip less; PostgreSQL 17 and later."),
    key(Pool, "server_channel_binding", "prefer", false, |c| c.pool.tls.channel_binding.to_string(),
        "SCRAM towards the server bound to its certificate (libpq's `channel_binding`): `disable`, `prefer`, \
         `require`."),

    key(Insight, "enabled", "true", true, |c| c.insight.enabled.to_string(),
        "Fingerprints, findings and their metrics."),
    key(Insight, "min_count", "5", true, |c| c.insight.min_count.to_string(),
        "Executions of one statement in a loop that make a finding, when the query that feeds the loop was seen."),
    key(Insight, "min_count_low_confidence", "20", true, |c| c.insight.min_count_low_confidence.to_string(),
        "The same when no feeding query was seen: such loops are often intended."),
    key(Insight, "max_period", "8", true, |c| c.insight.max_period.to_string(),
        "Statements that the body of a loop may have."),
    key(Insight, "idle_gap", "100ms", true, |c| format_duration(c.insight.idle_gap),
        "A client that is silent this long outside a transaction has begun a new unit of work (a request, a job); \
         the least value, raised by itself for slow clients."),
    key(Insight, "write_loop_min", "20", true, |c| c.insight.write_loop_min.to_string(),
        "Single-row writes in a loop that make a finding (`bulk_create` would be one statement)."),
    key(Insight, "cooldown", "10min", true, |c| format_duration(c.insight.cooldown),
        "The same finding is logged again after this long at the earliest; its counters always move."),
    key(Insight, "slow_query", "500ms", true, |c| format_duration(c.insight.slow_query),
        "Statements that take longer are counted as slow."),
    key(Insight, "max_fingerprints", "5000", false, |c| c.insight.max_fingerprints.to_string(),
        "Distinct statements remembered; the rest is counted together as `other`."),
    key(Insight, "top_fingerprints", "100", true, |c| c.insight.top_fingerprints.to_string(),
        "Statements with series of their own in `/metrics`, the costliest first."),
    key(Insight, "max_findings", "1024", false, |c| c.insight.max_findings.to_string(),
        "Findings remembered; the least severe and oldest go first."),
    key(Insight, "id_tags", "", true, |c| c.insight.id_tags.join(","),
        "SQL comment tags (sqlcommenter) whose change begins a new unit of work, besides `traceparent`: for example \
         `request_id`. Their values are hashed, never shown."),

    key(Insight, "history_interval", "1min", false, |c| format_duration(c.insight.history_interval),
        "Length of an interval of the history, a second at least. The last 1440 are kept in memory: a day of minutes."),
    key(Insight, "history_file", "", false, |c| path(&c.insight.history_file),
        "A file that the history survives a restart in: numbers, ids and names of databases, no statement text. Bounded (some \
         MB), readable by its owner only. The interval that is open at the end is lost; when the file cannot be written \
         the history goes on in memory. Empty: none."),
    key(Insight, "catalog", "false", false, |c| c.insight.catalog.to_string(),
        "Reads, on a connection of pgsluice's own, what tables, columns, foreign keys and indexes each database in use has: then \
         advice that would be probable is exact. Read only; see \"What pgsluice itself asks a database\" in docs/security.md. \
         Logs in as `insight_user` of the database's section, else as the busiest pool does."),
    key(Insight, "catalog_interval", "10min", false, |c| format_duration(c.insight.catalog_interval),
        "It is read again after this long, a second at least, while the database is in use."),
    key(Insight, "explain", "false", false, |c| c.insight.explain.to_string(),
        "Has PostgreSQL (12 or later) show the plans of the costliest SELECTs, on the same connection: generic plans of the \
         literal-free texts, never executed. Proves or refutes missing indexes, with HypoPG where that is installed. Reads the \
         catalogue as well."),
    key(Insight, "explain_per_minute", "6", false, |c| c.insight.explain_per_minute.to_string(),
        "Plans asked for at most, over all databases; each statement's once a day, or when indexes of its tables have changed."),

    key(Log, "format", "text", false, |c| if c.log.json { "json" } else { "text" }.into(),
        "`text` for people, `json` for log collectors. Both go to standard error."),
    key(Log, "level", "info", false, |c| c.log.level.to_string(),
        "`error`, `warn`, `info` or `debug`. No level shows SQL literals, parameters or secrets."),
];

/// Settings of `[databases.NAME]` besides those of `[pool]`.
pub const DATABASE_KEYS: &[(&str, &str)] = &[
    ("url", "A URL as in `DATABASE_URL`; the other settings of the section override its parts."),
    ("host", "Host name, address, or the directory of a Unix socket. Default `127.0.0.1`."),
    ("port", "Port. Default `5432`."),
    ("dbname", "Name at the server. Default: the name that the client used."),
    (
        "user",
        "Log in to the server as this user, whoever the client is. Default: the client's user, with that user's \
         password.",
    ),
    ("password", "Password at the server. Default: what `[users]` or `auth_file` know of the user."),
    ("password_file", "A file that holds the password (a mounted secret)."),
    ("password_env", "The environment variable that holds the password."),
    (
        "password_command",
        "A program that prints the password, with its arguments (a list; no shell): for tokens of clouds that expire. It finds \
         `PGHOST`, `PGPORT`, `PGUSER` and `PGDATABASE` in its environment, runs when a server connection is opened, and must be \
         done within 30 s.",
    ),
    ("password_command_ttl", "What it printed is used for so long, or until the server refuses it. Default `10min`."),
    ("auth_user", "As `auth_user` above all sections, for clients of this database; empty: nobody is asked."),
    ("auth_query", "As `auth_query` above all sections."),
    ("auth_dbname", "As `auth_dbname` above all sections."),
    ("passthrough_auth", "As `passthrough_auth` above all sections, for clients of this database."),
    (
        "insight_user",
        "Who looks at the catalogue and at plans (`catalog`, `explain` in `[insight]`), with the password that `[users]` or \
         `auth_file` know. Default: whoever the busiest pool of the database logs in as.",
    ),
];

/// Settings of `[users.NAME]`.
pub const USER_KEYS: &[(&str, &str)] = &[
    (
        "password",
        "Password, `md5...` hash or `SCRAM-SHA-256$...` verifier. A verifier logs in to a server only after a client who proved to know \
         the password.",
    ),
    ("password_file", "A file that holds the same (a mounted secret)."),
    ("password_env", "The environment variable that holds the same."),
];

/// What users of PgBouncer may write, and what to write instead.
pub(super) const RENAMED: &[(&str, &str)] = &[
    ("listen_addr", "write `listen = [\"127.0.0.1:6432\"]`"),
    ("listen_port", "write `listen = [\"127.0.0.1:6432\"]`"),
    ("unix_socket_dir", "write `listen = [\"127.0.0.1:6432\", \"/run/pgsluice\"]`"),
    ("default_pool_size", "write `pool_size` in [pool]"),
    ("reserve_pool_size", "there is no reserve pool yet: raise `pool_size`"),
    ("max_db_connections", "there is no limit over all users yet: lower `pool_size`"),
    ("logfile", "logs go to standard error"),
    ("syslog", "logs go to standard error"),
    ("verbose", "write `level = \"debug\"` in [log]"),
    ("pidfile", "leave it out: the process stays in the foreground"),
    ("ignore_startup_parameters", "leave it out: startup parameters follow the client"),
    ("client_tls_sslmode", "write `client_tls_mode`"),
    ("server_tls_sslmode", "write `server_tls_mode` in [pool] or in the database's section"),
    ("client_tls_protocols", "write `client_tls_min_version = \"tlsv1.2\"`"),
    ("server_tls_protocols", "write `server_tls_min_version = \"tlsv1.2\"` in [pool] or in the database's section"),
    ("client_tls13_ciphers", "write them into `client_tls_ciphers`, beside those of TLS 1.2"),
    ("server_tls13_ciphers", "write them into `server_tls_ciphers`, beside those of TLS 1.2"),
    ("stats_period", "leave it out: metrics are computed when they are asked for"),
];
