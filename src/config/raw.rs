//! The configuration as written: every setting optional, nothing checked but the form of each value. No `Debug`: there
//! are passwords in it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::value::{Argv, HttpListen, JsonLines, Number, Read};
use super::{AuthMethod, ChannelBinding, Ciphers, ListenAddr, LogLevel, Passthrough, PoolMode, TlsMode, TlsVersion};

/// A section: a struct of optional settings, the list of their names, and "what the other says counts more".
macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $name {
            $($(#[$field_meta])* pub(super) $field: Option<Read<$type>>,)*
        }

        impl $name {
            /// Names of the settings.
            pub(super) const FIELDS: &[&str] = &[$(stringify!($field)),*];

            /// Takes over what `over` sets.
            pub(super) fn overlay(&mut self, over: $name) {
                $(if over.$field.is_some() {
                    self.$field = over.$field;
                })*
            }
        }
    };
}

/// Bounds that are shared: a pool cannot be larger than PostgreSQL's `max_connections` can be.
type Servers = Number<1, 262_143>;
type Count = Number<0, 1_000_000>;

section! {
    /// What stands above all sections of the file.
    General {
        listen: Vec<ListenAddr>,
        http_listen: HttpListen,
        http_token: String,
        http_token_file: PathBuf,
        workers: Number<1, 64>,
        max_client_conn: Number<1, 1_000_000>,
        max_unauthenticated_conn: Number<1, 1_000_000>,
        listen_backlog: Number<1, 65_535>,
        auth_type: AuthMethod,
        scram_iterations: Number<1, 1_000_000>,
        scram_salt_file: PathBuf,
        auth_file: PathBuf,
        auth_hba_file: PathBuf,
        auth_ident_file: PathBuf,
        auth_user: String,
        auth_query: String,
        auth_dbname: String,
        auth_query_ttl: Duration,
        passthrough_auth: Passthrough,
        admin_users: Vec<String>,
        stats_users: Vec<String>,
        client_tls_mode: TlsMode,
        client_tls_cert_file: PathBuf,
        client_tls_key_file: PathBuf,
        client_tls_ca_file: PathBuf,
        client_tls_min_version: TlsVersion,
        client_tls_ciphers: Ciphers,
        client_login_timeout: Duration,
        failed_login_delay: Duration,
        client_idle_timeout: Duration,
        idle_transaction_timeout: Duration,
        query_timeout: Duration,
        shutdown_timeout: Duration,
    }
}

section! {
    /// `[insight]`.
    Insight {
        enabled: bool,
        min_count: Number<2, 10_000>,
        min_count_low_confidence: Number<2, 10_000>,
        max_period: Number<1, 8>,
        idle_gap: Duration,
        write_loop_min: Number<2, 10_000>,
        cooldown: Duration,
        slow_query: Duration,
        max_fingerprints: Number<100, 100_000>,
        top_fingerprints: Number<0, 1_000>,
        max_findings: Number<16, 65_536>,
        id_tags: Vec<String>,
        history_interval: Duration,
        history_file: PathBuf,
        catalog: bool,
        catalog_interval: Duration,
        explain: bool,
        explain_per_minute: Number<1, 600>,
    }
}

section! {
    /// `[log]`.
    Log {
        format: JsonLines,
        level: LogLevel,
    }
}

section! {
    /// `[users.NAME]`.
    User {
        password: String,
        password_file: PathBuf,
        password_env: String,
    }
}

/// The pool settings stand in `[pool]` and in every `[databases.NAME]`; serde cannot flatten strictly, so one list
/// makes both structs.
macro_rules! pool_settings {
    ($($field:ident: $type:ty,)*) => {
        section! {
            /// `[pool]`.
            Pool { $($field: $type,)* }
        }

        section! {
            /// `[databases.NAME]`.
            Database {
                url: String,
                host: String,
                port: Number<1, 65_535>,
                dbname: String,
                user: String,
                password: String,
                password_file: PathBuf,
                password_env: String,
                password_command: Argv,
                password_command_ttl: Duration,
                auth_user: String,
                auth_query: String,
                auth_dbname: String,
                passthrough_auth: Passthrough,
                insight_user: String,
                $($field: $type,)*
            }
        }

        impl Database {
            /// The pool settings that the database has of its own.
            pub(super) fn pool(&self) -> Pool {
                Pool { $($field: self.$field.clone(),)* }
            }

            /// The section without address and login.
            pub(super) fn pool_only(&self) -> Database {
                Database { $($field: self.$field.clone(),)* ..Database::default() }
            }
        }
    };
}

pool_settings! {
    pool_mode: PoolMode,
    pool_size: Servers,
    min_pool_size: Number<0, 262_143>,
    max_connecting: Number<1, 1_000>,
    server_lifetime: Duration,
    server_idle_timeout: Duration,
    server_connect_timeout: Duration,
    server_login_retry: Duration,
    server_reset_query: String,
    query_wait_timeout: Duration,
    max_prepared_statements: Count,
    max_pinned: Count,
    server_tls_mode: TlsMode,
    server_tls_ca_file: PathBuf,
    server_tls_cert_file: PathBuf,
    server_tls_key_file: PathBuf,
    server_tls_min_version: TlsVersion,
    server_tls_ciphers: Ciphers,
    server_tls_direct: bool,
    server_channel_binding: ChannelBinding,
}

/// The sections of a file; `General` is read from the same table's loose keys.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    #[serde(skip)]
    pub(super) general: General,
    pub(super) pool: Pool,
    pub(super) insight: Insight,
    pub(super) log: Log,
    pub(super) databases: BTreeMap<String, Database>,
    pub(super) users: BTreeMap<String, User>,
}

impl Raw {
    /// Names of the sections.
    pub(super) const SECTIONS: &[&str] = &["pool", "insight", "log", "databases", "users"];

    /// Takes over what `over` sets.
    pub(super) fn overlay(&mut self, over: Raw) {
        self.general.overlay(over.general);
        self.pool.overlay(over.pool);
        self.insight.overlay(over.insight);
        self.log.overlay(over.log);
        for (name, database) in over.databases {
            self.databases.entry(name).or_default().overlay(database);
        }
        for (name, user) in over.users {
            self.users.entry(name).or_default().overlay(user);
        }
    }
}
