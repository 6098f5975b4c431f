//! What is possible but probably not meant.

use super::{AuthMethod, Config, ListenAddr, TlsMode};
use crate::auth::Secret;
use crate::auth::scram::DEFAULT_ITERATIONS;

/// Names shown in one warning; the rest is counted.
const MAX_NAMES: usize = 5;

/// Looks at a whole configuration.
pub(super) fn collect(config: &Config, warnings: &mut Vec<String>) {
    let users = |wanted: &dyn Fn(&Secret) -> bool| -> Vec<&str> {
        config.auth.users.iter().filter(|(_, secret)| wanted(secret)).map(|(name, _)| name.as_str()).collect()
    };
    let md5 = users(&|secret| matches!(secret, Secret::Md5(_)));
    if config.auth.method == AuthMethod::ScramSha256 && !md5.is_empty() {
        warnings.push(format!(
            "auth_type is scram-sha-256, but an MD5 hash is all that is known of {}: set auth_type = \"md5\", or give \
             their passwords",
            names(&md5)
        ));
    }
    let empty = users(&Secret::is_empty);
    if config.auth.method.asks_password() && !empty.is_empty() {
        warnings.push(format!("no password is known of {}: they cannot log in", names(&empty)));
    }
    let verifiers = users(&|secret| matches!(secret, Secret::Scram(_)));
    let own_login = config.databases.iter().filter(|(_, d)| d.password.is_none() && d.password_command.is_none());
    let without: Vec<&str> = own_login.map(|(name, _)| name.as_str()).collect();
    let proven = config.auth.method.asks_password() || config.auth.method == AuthMethod::Hba;
    if !verifiers.is_empty() && !without.is_empty() && !proven {
        warnings.push(format!(
            "a SCRAM verifier is all that is known of {}, and auth_type = \"{}\" asks for no proof that pgsluice could log \
             in with to the server of {}; give the database's section a `user` and `password`, or the users' plain passwords",
            names(&verifiers),
            config.auth.method,
            names(&without)
        ));
    }
    super::query::warnings(config, warnings);
    let console = config.admin_users.iter().chain(&config.stats_users);
    let strangers: Vec<&str> =
        console.filter(|user| !config.auth.users.contains_key(*user)).map(String::as_str).collect();
    let asked = config.auth.query.default.as_ref().is_some_and(|query| query.dbname.is_some());
    if config.auth.method != AuthMethod::Any && !strangers.is_empty() && !asked {
        warnings.push(format!("admin_users or stats_users name {}, who cannot log in", names(&strangers)));
    }
    let exposed = config.listen.iter().any(|address| matches!(address, ListenAddr::Tcp(a) if !a.ip().is_loopback()));
    if exposed && matches!(config.auth.method, AuthMethod::Trust | AuthMethod::Any) {
        warnings.push(format!(
            "auth_type = \"{}\" lets everybody in who reaches the listening address",
            config.auth.method
        ));
    }
    super::passthrough::warnings(config, exposed, warnings);
    let iterations = config.auth.scram_iterations.get();
    if exposed && iterations < DEFAULT_ITERATIONS {
        warnings.push(format!(
            "scram_iterations = {iterations}: who records a login that comes from the network can guess its password \
             {} times as fast as with {DEFAULT_ITERATIONS}",
            DEFAULT_ITERATIONS / iterations
        ));
    }
    let insight = &config.insight;
    let looked = config.databases.iter().filter(|_| insight.catalog || insight.explain);
    for (name, database) in looked {
        let Some(user) = &database.insight_user else { continue };
        if database.user.as_ref() != Some(user) && !config.auth.users.contains_key(user) {
            warnings.push(format!(
                "no password is known of insight_user \"{user}\" of the database \"{name}\": add [users.{user}], unless \
                 PostgreSQL asks her for none"
            ));
        }
    }
    config.auth.hba.warnings(config.auth.method, exposed, &config.client_tls, warnings);
    if exposed && config.auth.method == AuthMethod::Plain && config.client_tls.mode < TlsMode::Require {
        warnings.push(
            "auth_type = \"plain\": clients' passwords cross the network in the clear unless client_tls_mode is require or \
             more"
                .to_owned(),
        );
    }
    if exposed && config.auth.method == AuthMethod::Md5 && config.client_tls.mode < TlsMode::Require {
        warnings.push(
            "auth_type = \"md5\": from a login that is recorded on the network the password can be guessed fast; use \
             scram-sha-256, unless client_tls_mode is require or more"
                .to_owned(),
        );
    }
    for reserved in ["pgsluice", "pgbouncer"] {
        if config.databases.contains_key(reserved) {
            warnings.push(format!("the database \"{reserved}\" cannot be reached: the name is the console's"));
        }
    }
}

/// `"a", "b" and 3 more`.
pub(super) fn names(list: &[&str]) -> String {
    let shown: Vec<String> = list.iter().take(MAX_NAMES).map(|name| format!("\"{name}\"")).collect();
    match list.len().saturating_sub(MAX_NAMES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
