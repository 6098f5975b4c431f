//! `auth_query`: whom to ask for users that the configuration does not know.

use std::time::Duration;

use super::build::filled;
use super::value::Read;
use super::{Config, raw};
use crate::auth::Secret;

/// The question, as PgBouncer puts it, every name in it with its schema: whoever owns a database can set its search path.
/// A role that may not log in is not there; one whose password has expired (VALID UNTIL) has none.
pub const DEFAULT_QUERY: &str = "SELECT rolname, CASE WHEN rolvaliduntil OPERATOR(pg_catalog.<) pg_catalog.now() THEN NULL ELSE rolpassword END \
     FROM pg_catalog.pg_authid WHERE rolname OPERATOR(pg_catalog.=) $1 AND rolcanlogin";

/// Who asks, what and where. A database has its own, or the one above all sections.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AuthQuery {
    /// Logs in to ask (`auth_user`); her secret is that of `[users]` or `auth_file`.
    pub user: String,
    /// Asks for one user, whose name is `$1`; answers with at most one row of name and secret.
    pub query: String,
    /// The database (a name of `[databases]`) in which it is asked; `None`: the one that the client names.
    pub dbname: Option<String>,
}

/// How `auth_query` is used, whoever is asked.
#[derive(Clone, PartialEq, Debug)]
pub struct QueryConfig {
    /// For databases that say nothing of their own, and for the console.
    pub default: Option<AuthQuery>,
    /// What was learnt counts for so long. Zero: every login asks.
    pub ttl: Duration,
}

/// `auth_user` and what belongs to it, above all sections.
pub(super) fn of_all(general: &raw::General) -> Option<AuthQuery> {
    let text = |setting: &Option<Read<String>>| Some(filled(setting)).filter(|text| !text.is_empty());
    Some(AuthQuery {
        user: text(&general.auth_user)?,
        query: filled(&general.auth_query),
        dbname: text(&general.auth_dbname),
    })
}

/// The same of a database: its own words over those above all sections. An empty user is nobody.
pub(super) fn of_database(database: &raw::Database, general: &raw::General) -> Option<AuthQuery> {
    let mut whole = general.clone();
    whole.overlay(raw::General {
        auth_user: database.auth_user.clone(),
        auth_query: database.auth_query.clone(),
        auth_dbname: database.auth_dbname.clone(),
        ..raw::General::default()
    });
    of_all(&whole)
}

impl Config {
    /// Whether anybody is asked for users that are not known here.
    pub fn asks(&self) -> bool {
        self.auth.query.default.is_some() || self.databases.values().any(|database| database.auth_query.is_some())
    }

    /// Everybody who is asked, with the section that says so; `None`: above all sections.
    fn queries(&self) -> impl Iterator<Item = (Option<&str>, &AuthQuery)> {
        let own =
            self.databases.iter().filter_map(|(name, database)| Some((Some(&**name), database.auth_query.as_ref()?)));
        let default = self.auth.query.default.iter().map(|query| (None, query));
        default.chain(own.filter(|(_, query)| self.auth.query.default.as_ref() != Some(query)))
    }
}

/// What cannot work: section, message.
pub(super) fn problems(config: &Config) -> Vec<(Option<&str>, String)> {
    let unknown = |query: &AuthQuery| query.dbname.clone().filter(|dbname| config.database(dbname).is_none());
    let message = |dbname: String| format!("auth_dbname: there is no section [databases.{dbname}]");
    config.queries().filter_map(|(section, query)| Some((section, message(unknown(query)?)))).collect()
}

/// What is possible but probably not meant.
pub(super) fn warnings(config: &Config, warnings: &mut Vec<String>) {
    let mut seen: Vec<&str> = Vec::new();
    for (_, AuthQuery { user, .. }) in config.queries() {
        if seen.contains(&&**user) {
            continue;
        }
        seen.push(user);
        match config.auth.users.get(user) {
            Some(Secret::Scram(_)) => warnings.push(format!(
                "a SCRAM verifier is all that is known of auth_user \"{user}\": pgsluice cannot log in with it; give the \
                 plain password"
            )),
            None => warnings.push(format!(
                "no password is known of auth_user \"{user}\": add [users.{user}], unless PostgreSQL asks her for none"
            )),
            _ => {}
        }
    }
}
