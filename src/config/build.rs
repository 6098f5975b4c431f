//! [`Raw`] into [`Config`]: defaults filled, secrets read, and what belongs together checked.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use super::keys::KEYS;
use super::parse::{Located, read_environment, read_setting};
use super::raw::{self, Raw};
use super::secret_files::{read_limited, read_secret_file};
use super::url::DatabaseUrl;
use super::value::{Number, Read};
use super::{
    AuthConfig, AuthMethod, ClientTls, Config, ConfigError, Database, Environment, HbaConfig, HttpToken, InsightConfig,
    ListenAddr, LogConfig, PasswordCommand, PoolSettings, Problem, QueryConfig, ServerTls, Timeouts, parse_userlist,
};
use crate::auth::{SaltKey, Secret};

/// Longest `userlist.txt`.
const MAX_USERLIST: u64 = 16 << 20;

/// All defaults, without databases and users.
pub(super) fn defaults() -> Config {
    assemble(&default_raw())
}

/// The defaults of the table, read like any other settings.
fn default_raw() -> Raw {
    let mut raw = Raw::default();
    for key in KEYS {
        // Cannot fail: a test reads every default.
        if let Ok(one) = read_setting(key.section, key.name, key.default) {
            raw.overlay(one);
        }
    }
    raw
}

/// Puts defaults, file and environment together; `problems` are those found while reading the file.
pub(super) fn build(
    located: Option<&Located<'_>>,
    file: Raw,
    environment: &Environment,
    mut problems: Vec<Problem>,
) -> Result<Config, ConfigError> {
    let file_is_whole = problems.is_empty();
    let mut raw = default_raw();
    raw.overlay(file);
    raw.overlay(read_environment(environment, &mut problems));
    let mut config = assemble(&raw);
    config.source = located.map(|located| located.path.to_owned());

    let mut builder = Builder { located, environment, problems, warnings: Vec::new(), files: Vec::new() };
    builder.database_url(&mut raw, &mut config);
    builder.http_token(&raw, &mut config);
    builder.salts(&mut config);
    builder.users(&raw, &mut config);
    builder.hba(&mut config);
    builder.databases(&raw, &mut config);
    // What is missing may stand in a line that could not be read.
    if file_is_whole && builder.problems.is_empty() {
        builder.check_whole(&config);
        super::warnings::collect(&config, &mut builder.warnings);
    }
    config.warnings = builder.warnings;
    config.secret_files = builder.files;
    match ConfigError::of(builder.problems) {
        Some(error) => Err(error),
        None => Ok(config),
    }
}

/// The value of a setting that the defaults have filled.
pub(super) fn filled<T: Clone>(setting: &Option<Read<T>>) -> T {
    let value = setting.as_ref().map(|read| read.0.clone());
    value.expect("keys::KEYS has a readable default for every setting; a test checks it")
}

/// A file that was named; the empty name is none.
fn given(setting: &Option<Read<PathBuf>>) -> Option<PathBuf> {
    setting.as_ref().map(|read| read.0.clone()).filter(|path| !path.as_os_str().is_empty())
}

/// Everything but users and databases.
fn assemble(raw: &Raw) -> Config {
    let (general, insight) = (&raw.general, &raw.insight);
    let file = filled(&general.auth_file);
    let client_tls = ClientTls {
        mode: filled(&general.client_tls_mode),
        cert: given(&general.client_tls_cert_file),
        key: given(&general.client_tls_key_file),
        ca: given(&general.client_tls_ca_file),
        min_version: filled(&general.client_tls_min_version),
        ciphers: filled(&general.client_tls_ciphers),
    };
    Config {
        listen: filled(&general.listen),
        http_listen: filled(&general.http_listen).0,
        http_token: None,
        workers: filled(&general.workers).size(),
        max_client_conn: filled(&general.max_client_conn).size(),
        max_unauthenticated_conn: filled(&general.max_unauthenticated_conn).size(),
        backlog: filled(&general.listen_backlog).get(),
        admin_users: filled(&general.admin_users),
        stats_users: filled(&general.stats_users),
        auth: AuthConfig {
            method: filled(&general.auth_type),
            scram_iterations: NonZeroU32::new(filled(&general.scram_iterations).get()).unwrap_or(NonZeroU32::MIN),
            salt_file: given(&general.scram_salt_file),
            salts: None,
            file: (!file.as_os_str().is_empty()).then_some(file),
            hba: HbaConfig::named(&filled(&general.auth_hba_file), &filled(&general.auth_ident_file)),
            query: QueryConfig { default: super::query::of_all(general), ttl: filled(&general.auth_query_ttl) },
            passthrough: filled(&general.passthrough_auth),
            users: BTreeMap::new(),
        },
        client_tls,
        databases: BTreeMap::new(),
        pool: pool_settings(&raw.pool),
        timeouts: Timeouts {
            client_login_timeout: filled(&general.client_login_timeout),
            failed_login_delay: filled(&general.failed_login_delay),
            client_idle_timeout: filled(&general.client_idle_timeout),
            idle_transaction_timeout: filled(&general.idle_transaction_timeout),
            query_timeout: filled(&general.query_timeout),
            shutdown_timeout: filled(&general.shutdown_timeout),
        },
        insight: InsightConfig {
            enabled: filled(&insight.enabled),
            min_count: filled(&insight.min_count).get(),
            min_count_low_confidence: filled(&insight.min_count_low_confidence).get(),
            max_period: filled(&insight.max_period).get(),
            idle_gap: filled(&insight.idle_gap),
            write_loop_min: filled(&insight.write_loop_min).get(),
            cooldown: filled(&insight.cooldown),
            slow_query: filled(&insight.slow_query),
            max_fingerprints: filled(&insight.max_fingerprints).size(),
            top_fingerprints: filled(&insight.top_fingerprints).size(),
            max_findings: filled(&insight.max_findings).size(),
            id_tags: filled(&insight.id_tags),
            history_interval: filled(&insight.history_interval),
            history_file: given(&insight.history_file),
            catalog: filled(&insight.catalog),
            catalog_interval: filled(&insight.catalog_interval),
            explain: filled(&insight.explain),
            explain_per_minute: filled(&insight.explain_per_minute).get(),
        },
        log: LogConfig { json: filled(&raw.log.format).0, level: filled(&raw.log.level) },
        secret_files: Vec::new(),
        source: None,
        warnings: Vec::new(),
    }
}

fn pool_settings(pool: &raw::Pool) -> PoolSettings {
    PoolSettings {
        pool_mode: filled(&pool.pool_mode),
        pool_size: filled(&pool.pool_size).size(),
        min_pool_size: filled(&pool.min_pool_size).size(),
        max_connecting: filled(&pool.max_connecting).size(),
        server_lifetime: filled(&pool.server_lifetime),
        server_idle_timeout: filled(&pool.server_idle_timeout),
        server_connect_timeout: filled(&pool.server_connect_timeout),
        server_login_retry: filled(&pool.server_login_retry),
        server_reset_query: filled(&pool.server_reset_query),
        query_wait_timeout: filled(&pool.query_wait_timeout),
        max_prepared_statements: filled(&pool.max_prepared_statements).size(),
        max_pinned: filled(&pool.max_pinned).size(),
        tls: ServerTls {
            mode: filled(&pool.server_tls_mode),
            ca: given(&pool.server_tls_ca_file),
            cert: given(&pool.server_tls_cert_file),
            key: given(&pool.server_tls_key_file),
            min_version: filled(&pool.server_tls_min_version),
            ciphers: filled(&pool.server_tls_ciphers),
            direct: filled(&pool.server_tls_direct),
            channel_binding: filled(&pool.server_channel_binding),
        },
    }
}

/// Collects problems and warnings on the way.
struct Builder<'a> {
    located: Option<&'a Located<'a>>,
    environment: &'a Environment,
    problems: Vec<Problem>,
    warnings: Vec<String>,
    /// Files that secrets were read from.
    files: Vec<PathBuf>,
}

impl Builder<'_> {
    fn problem(&mut self, keys: &[&str], message: impl Into<String>) {
        self.problems.push(match self.located {
            Some(located) => located.problem(keys, message),
            None => Problem::whole(message),
        });
    }

    /// `DATABASE_URL` and its relatives: a database and a user of their own, over those of the file.
    fn database_url(&mut self, raw: &mut Raw, config: &mut Config) {
        let Some((variable, text)) = self.find_database_url() else {
            return;
        };
        let url = match DatabaseUrl::parse(&text) {
            Ok(url) => url,
            Err(message) => return self.problems.push(Problem::variable(&variable, message)),
        };
        if points_to(&url, &config.listen) {
            // An application in the same pod has a DATABASE_URL too, and it names the pooler.
            if variable.starts_with("DATABASE_URL") && !raw.databases.is_empty() {
                self.warnings.push(format!("{variable} names pgsluice's own address and is ignored"));
                return;
            }
            let problem = Problem::variable(&variable, "it names pgsluice's own address");
            return self.problems.push(problem.help("give the database's address in PGSLUICE_DATABASE_URL"));
        }
        let Some(user) = url.user.clone() else {
            let problem = Problem::variable(&variable, "it names no user");
            return self.problems.push(problem.help("write postgres://user:password@host:5432/database"));
        };
        if url.password.is_none() && config.auth.method.asks_password() {
            let problem = Problem::variable(&variable, format!("it has no password, so \"{user}\" cannot log in"));
            return self.problems.push(problem.help("add the password, or set PGSLUICE_AUTH_TYPE=trust"));
        }
        let name = url.dbname.clone().unwrap_or_else(|| user.clone());
        let database = raw.databases.entry(name).or_default();
        // Address and login of the file must not be mixed with those of the URL; its pool settings stay.
        *database = database.pool_only();
        database.overlay(database_of(&url));
        let password = Read(url.password.unwrap_or_default());
        raw.users.insert(user.clone(), raw::User { password: Some(password), ..raw::User::default() });
        if config.admin_users.is_empty() && config.stats_users.is_empty() {
            config.stats_users.push(user);
        }
    }

    /// The variable that counts and the URL that it holds or points to.
    fn find_database_url(&mut self) -> Option<(String, String)> {
        for name in ["PGSLUICE_DATABASE_URL", "DATABASE_URL"] {
            let file_name = format!("{name}_FILE");
            let direct = self.environment.non_empty(name);
            match (direct, self.environment.non_empty(&file_name)) {
                (Some(_), Some(_)) => {
                    let problem = Problem::variable(&file_name, format!("{name} is set as well: keep one of them"));
                    self.problems.push(problem);
                    return None;
                }
                (Some(url), None) => return Some((name.to_owned(), url.to_owned())),
                (None, Some(path)) => match read_secret_file(Path::new(path)) {
                    Ok(url) => {
                        self.files.push(path.into());
                        return Some((file_name, url));
                    }
                    Err(message) => {
                        self.problems.push(Problem::variable(&file_name, message));
                        return None;
                    }
                },
                (None, None) => {}
            }
        }
        None
    }

    /// `http_token` or `http_token_file`: set, and a token now.
    fn http_token(&mut self, raw: &Raw, config: &mut Config) {
        let (text, path) = (filled(&raw.general.http_token), filled(&raw.general.http_token_file));
        let (key, token) = match (text.is_empty(), path.as_os_str().is_empty()) {
            (true, true) => return,
            (false, true) => ("http_token", HttpToken::Given(text)),
            (true, false) => ("http_token_file", HttpToken::File(path)),
            (false, false) => return self.problem(&["http_token"], "keep one of `http_token` and `http_token_file`"),
        };
        match token.read() {
            Ok(_) => config.http_token = Some(token),
            Err(message) => self.problem(&[key], message),
        }
    }

    /// `scram_salt_file`.
    fn salts(&mut self, config: &mut Config) {
        let Some(path) = &config.auth.salt_file else { return };
        let short = || format!("the secret in the file has fewer than {} bytes", SaltKey::SHORTEST);
        match read_secret_file(path).and_then(|text| SaltKey::of(&text).ok_or_else(short)) {
            Ok(key) => config.auth.salts = Some(key),
            Err(message) => self.problem(&["scram_salt_file"], message),
        }
    }

    /// `auth_file`, and `[users]` over it.
    fn users(&mut self, raw: &Raw, config: &mut Config) {
        if let Some(path) = &config.auth.file {
            self.files.push(path.clone());
            match read_limited(path, MAX_USERLIST).map(|text| parse_userlist(&text)) {
                Ok(Ok(users)) => config.auth.users = users,
                Ok(Err(error)) => self.problems.push(Problem::line(path, error.line, error.message)),
                Err(error) => {
                    let message = format!("{} cannot be read: {error}", path.display());
                    self.problem(&["auth_file"], message);
                }
            }
        }
        for (name, user) in &raw.users {
            if name.is_empty() || name.contains('\0') {
                self.problem(&["users", name], "this is no user name");
                continue;
            }
            let given = (&user.password, &user.password_file, &user.password_env);
            if let Ok(secret) = self.secret(["users", name], given) {
                let secret = secret.unwrap_or_else(|| Secret::Plain(String::new()));
                config.auth.users.insert(name.clone(), secret);
            }
        }
    }

    /// `auth_hba_file` and `auth_ident_file`.
    fn hba(&mut self, config: &mut Config) {
        let certificates = config.client_tls.offered() && config.client_tls.ca.is_some();
        if config.auth.method == AuthMethod::Cert && !certificates {
            let message = "auth_type = \"cert\" needs `client_tls_cert_file` with its key, and `client_tls_ca_file`";
            self.problem(&["auth_type"], message);
        }
        let auth = &mut config.auth;
        auth.hba.certificates = certificates;
        if auth.method == AuthMethod::Hba && auth.hba.file.is_none() {
            self.problem(&["auth_type"], "auth_type = \"hba\" needs `auth_hba_file`");
        } else if auth.method == AuthMethod::Hba {
            match auth.hba.read() {
                Ok(read) => auth.hba = read,
                Err(problems) => self.problems.extend(problems),
            }
        }
    }

    /// The one secret of `password`, `password_file` and `password_env`; `Err` after a problem.
    fn secret(&mut self, [section, name]: [&str; 2], given: Given<'_>) -> Result<Option<Secret>, ()> {
        let (password, file, variable) = given;
        let count = usize::from(password.is_some()) + usize::from(file.is_some()) + usize::from(variable.is_some());
        if count > 1 {
            self.problem(&[section, name], "keep one of `password`, `password_file` and `password_env`");
            return Err(());
        }
        let (key, text) = if let Some(Read(password)) = password {
            return Ok(Some(Secret::parse(password)));
        } else if let Some(Read(path)) = file {
            self.files.push(path.clone());
            ("password_file", read_secret_file(path))
        } else if let Some(Read(variable)) = variable {
            let value = self.environment.non_empty(variable).map(str::to_owned);
            ("password_env", value.ok_or_else(|| "the environment variable is not set".to_owned()))
        } else {
            return Ok(None);
        };
        match text {
            Ok(text) => Ok(Some(Secret::parse(&text))),
            Err(message) => {
                self.problem(&[section, name, key], message);
                Err(())
            }
        }
    }

    fn tls_problems(&mut self, section: &str, name: Option<&str>, problems: Vec<(&'static str, String)>) {
        for (key, message) in problems {
            let keys: Vec<&str> = [Some(section), name, Some(key)].into_iter().flatten().collect();
            self.problem(&keys, message);
        }
    }

    fn databases(&mut self, raw: &Raw, config: &mut Config) {
        if config.pool.min_pool_size > config.pool.pool_size {
            self.problem(&["pool", "min_pool_size"], "`min_pool_size` is greater than `pool_size`");
        }
        self.tls_problems("pool", None, config.pool.tls.problems());
        for (key, message) in config.client_tls.problems() {
            self.problem(&[key], message);
        }
        for (name, section) in &raw.databases {
            let mut whole = raw::Database::default();
            if let Some(Read(text)) = &section.url {
                match DatabaseUrl::parse(text) {
                    Ok(url) => whole = database_of_section(&url),
                    Err(message) => self.problem(&["databases", name, "url"], message),
                }
            }
            let own_secret =
                section.password.is_some() || section.password_file.is_some() || section.password_env.is_some();
            if own_secret || section.password_command.is_some() {
                whole.password = None;
            }
            whole.overlay(section.clone());
            let given = (&whole.password, &whole.password_file, &whole.password_env);
            let Ok(password) = self.secret(["databases", name], given) else {
                continue;
            };
            if matches!(password, Some(Secret::Scram(_))) {
                self.problem(
                    &["databases", name],
                    "a SCRAM verifier cannot log in to a server: give the plain password",
                );
            }
            let command = PasswordCommand::of(&whole).unwrap_or_else(|(key, message)| {
                self.problem(&["databases", name, key], message);
                None
            });
            let mut pool = raw.pool.clone();
            pool.overlay(whole.pool());
            let pool = pool_settings(&pool);
            let keys = ["databases", name, "min_pool_size"];
            let own_size = whole.min_pool_size.is_some() || whole.pool_size.is_some();
            if own_size && pool.min_pool_size > pool.pool_size {
                self.problem(&keys, "`min_pool_size` is greater than `pool_size`");
            }
            if pool.tls != config.pool.tls {
                self.tls_problems("databases", Some(name), pool.tls.problems());
            }
            let text = |setting: &Option<Read<String>>| {
                setting.as_ref().map(|read| read.0.clone()).filter(|text| !text.is_empty())
            };
            let database = Database {
                host: text(&whole.host).unwrap_or_else(|| "127.0.0.1".to_owned()),
                port: whole.port.as_ref().map_or(5432, |port| port.0.get() as u16),
                dbname: text(&whole.dbname),
                user: text(&whole.user),
                password: password.filter(|secret| !secret.is_empty()),
                password_command: command,
                auth_query: super::query::of_database(&whole, &raw.general),
                passthrough: whole.passthrough_auth.as_ref().map_or(config.auth.passthrough, |read| read.0),
                insight_user: text(&whole.insight_user),
                pool,
            };
            config.databases.insert(name.clone(), database);
        }
    }

    /// What a configuration needs to be of any use.
    fn check_whole(&mut self, config: &Config) {
        if config.databases.is_empty() {
            let help = "set DATABASE_URL=postgres://user:password@host:5432/database, or write a section:\n    [databases.app]\n    host = \"db.internal\"";
            self.problems.push(Problem::whole("no database to pool to is configured").help(help));
        } else if config.auth.users.is_empty()
            && config.auth.method != AuthMethod::Any
            && !config.asks()
            && !config.passes_through()
        {
            let help =
                "write a section for each user that may log in:\n    [users.app]\n    password_env = \"APP_PASSWORD\"";
            self.problems.push(Problem::whole("no user can log in").help(help));
        }
        for (section, message) in super::query::problems(config) {
            let keys = section.map_or(vec!["auth_dbname"], |name| vec!["databases", name, "auth_dbname"]);
            self.problem(&keys, message);
        }
    }
}

/// `password`, `password_file`, `password_env` of a section.
type Given<'a> = (&'a Option<Read<String>>, &'a Option<Read<std::path::PathBuf>>, &'a Option<Read<String>>);

/// What `DATABASE_URL` says of a database: the client's user and her password are used at the server.
fn database_of(url: &DatabaseUrl) -> raw::Database {
    let host = if url.host.is_empty() { "127.0.0.1" } else { &url.host };
    raw::Database {
        host: Some(Read(host.to_owned())),
        port: url.port.map(|port| Read(Number::clamped(port.into()))),
        dbname: url.dbname.clone().map(Read),
        server_connect_timeout: url.connect_timeout.map(Read),
        server_tls_mode: url.tls_mode.map(Read),
        server_tls_ca_file: url.tls_ca.clone().map(Read),
        server_tls_cert_file: url.tls_cert.clone().map(Read),
        server_tls_key_file: url.tls_key.clone().map(Read),
        server_tls_direct: url.tls_direct.map(Read),
        server_tls_min_version: url.tls_min_version.map(Read),
        server_channel_binding: url.channel_binding.map(Read),
        ..raw::Database::default()
    }
}

/// What the `url` of a section says: user and password are those of the server, whoever the client is.
fn database_of_section(url: &DatabaseUrl) -> raw::Database {
    raw::Database { user: url.user.clone().map(Read), password: url.password.clone().map(Read), ..database_of(url) }
}

/// Whether the URL leads back to the pooler: the loopback (which the containers of a pod share) and one of its ports.
fn points_to(url: &DatabaseUrl, listen: &[ListenAddr]) -> bool {
    let port = url.port.unwrap_or(5432);
    let local = url.host.is_empty() || matches!(url.host.as_str(), "localhost" | "127.0.0.1" | "::1");
    listen.iter().any(|address| match address {
        ListenAddr::Tcp(address) => address.port() == port && (local || address.ip().to_string() == url.host),
        ListenAddr::Unix(path) => *path == Path::new(&url.host).join(format!(".s.PGSQL.{port}")),
    })
}
