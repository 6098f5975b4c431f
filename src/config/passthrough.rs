//! `passthrough_auth`: users whom nothing here knows, tried at PostgreSQL with their own passwords.

use super::{AuthMethod, Config, Database, TlsMode};

/// Whether a password of an unknown user is asked for, in the clear, and tried at PostgreSQL (PgDog's words).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passthrough {
    /// Never.
    Disabled,
    /// Of clients with TLS, on Unix sockets and on the loopback.
    Enabled,
    /// Of all clients.
    EnabledPlain,
}

impl Database {
    /// Whether servers are logged in to as the client itself, with what is known of her.
    pub(super) fn as_the_client(&self) -> bool {
        self.user.is_none() && self.password.is_none() && self.password_command.is_none()
    }
}

impl Config {
    /// How unknown users of `database` are met.
    pub fn passthrough(&self, database: &str) -> Passthrough {
        self.database(database).map_or(self.auth.passthrough, |database| database.passthrough)
    }

    /// Whether unknown users may be let in by PostgreSQL anywhere.
    pub fn passes_through(&self) -> bool {
        self.databases.values().any(|database| database.passthrough != Passthrough::Disabled)
    }
}

/// What is possible but probably not meant. `exposed`: there is an address beyond the loopback.
pub(super) fn warnings(config: &Config, exposed: bool, warnings: &mut Vec<String>) {
    if !config.passes_through() {
        return;
    }
    let method = config.auth.method;
    if !method.asks_password() && method != AuthMethod::Hba {
        warnings.push(format!("auth_type = \"{method}\" asks for no password: passthrough_auth is not used"));
    }
    let on = config.databases.iter().filter(|(_, database)| database.passthrough != Passthrough::Disabled);
    let fixed: Vec<&str> = on.clone().filter(|(_, d)| !d.as_the_client()).map(|(name, _)| name.as_str()).collect();
    if !fixed.is_empty() {
        warnings.push(format!(
            "passthrough_auth is not used for {}: the section says itself as whom servers are logged in to",
            super::warnings::names(&fixed)
        ));
    }
    let plain = on.clone().any(|(_, database)| database.passthrough == Passthrough::EnabledPlain);
    if plain && exposed && config.client_tls.mode < TlsMode::Require {
        warnings.push(
            "passthrough_auth = \"enabled_plain\": passwords of users who are not known here cross the network in the clear \
             unless client_tls_mode is require or more"
                .to_owned(),
        );
    }
}
