//! What `pgsluice check` says of a configuration: where it would listen and what it would pool to. No secrets.

use std::fmt::Write as _;

use crate::config::{Config, Database};

/// Names shown of a list; the rest is counted.
const MAX_NAMES: usize = 8;
/// Rules of `auth_hba_file` shown; the rest is counted.
const MAX_RULES: usize = 50;

/// The text of a good configuration.
pub(super) fn describe(config: &Config) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = render(config, &mut out);
    out
}

fn render(config: &Config, out: &mut String) -> std::fmt::Result {
    let source = config.source.as_ref().map_or("the environment".to_owned(), |path| path.display().to_string());
    writeln!(out, "configuration  {source}")?;
    for (index, address) in config.listen.iter().enumerate() {
        writeln!(out, "{:<15}{address}", if index == 0 { "clients" } else { "" })?;
    }
    let users: Vec<&str> = config.auth.users.keys().map(String::as_str).collect();
    let asked = if config.asks() { "; others are looked up by auth_query" } else { "" };
    writeln!(out, "{:<15}{}, users: {}{asked}", "login", config.auth.method, names(&users))?;
    for (index, rule) in config.auth.hba.rules.iter().take(MAX_RULES).enumerate() {
        let title = if index == 0 { "rules" } else { "" };
        writeln!(out, "{title:<15}{}:{}: {rule}", rule.file.display(), rule.line)?;
    }
    if let more @ 1.. = config.auth.hba.rules.iter().count().saturating_sub(MAX_RULES) {
        writeln!(out, "{:<15}and {more} more", "")?;
    }
    match config.http_listen {
        Some(address) => writeln!(out, "{:<15}http://{address}/metrics, /healthz, /readyz", "http")?,
        None => writeln!(out, "{:<15}off", "http")?,
    }
    let console = |list: &[String]| names(&list.iter().map(String::as_str).collect::<Vec<_>>());
    let (admins, readers) = (console(&config.admin_users), console(&config.stats_users));
    writeln!(out, "{:<15}admin_users: {admins}; stats_users: {readers}", "console")?;
    for (index, (name, database)) in config.databases.iter().enumerate() {
        writeln!(out, "{:<15}{}", if index == 0 { "databases" } else { "" }, pool_line(name, database))?;
    }
    let changed: Vec<_> = config.entries().into_iter().filter(|entry| entry.value != entry.default).collect();
    for (index, entry) in changed.iter().enumerate() {
        let title = if index == 0 { "not default" } else { "" };
        writeln!(out, "{title:<15}{} = {}", entry.key, entry.value)?;
    }
    for warning in &config.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    writeln!(out, "ok")
}

/// One database: what clients call it, and what is behind it.
fn pool_line(name: &str, database: &Database) -> String {
    let target = match database.host.starts_with('/') {
        true => format!("{}/.s.PGSQL.{}", database.host, database.port),
        false => format!("{}:{}", database.host, database.port),
    };
    let dbname = database.dbname.as_deref().unwrap_or(if name == "*" { "<the same name>" } else { name });
    let user = database.user.as_deref().map_or("the client's user".to_owned(), |user| format!("\"{user}\""));
    let (mode, size) = (database.pool.pool_mode, database.pool.pool_size);
    format!("{name} -> {target}, database {dbname}, as {user}; {mode} mode, {size} servers a user at most")
}

fn names(list: &[&str]) -> String {
    match list.len() {
        0 => "none".to_owned(),
        n if n <= MAX_NAMES => list.join(", "),
        n => format!("{} and {} more", list[..MAX_NAMES].join(", "), n - MAX_NAMES),
    }
}
