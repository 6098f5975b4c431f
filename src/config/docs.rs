//! `docs/configuration.md` and `config/pgsluice.toml`, written from the table of settings.

use super::keys::{DATABASE_KEYS, KEYS, Key, Section, USER_KEYS};

/// Sections with their headings, in the order of the documentation.
const SECTIONS: [(Section, &str, &str); 4] = [
    (Section::General, "General settings", "They stand above all sections of the file."),
    (
        Section::Pool,
        "`[pool]`",
        "Defaults of every pool. There is one pool for each pair of database and user. Each of these settings can \
         also stand in `[databases.NAME]`, for the pools of that database.",
    ),
    (Section::Insight, "`[insight]`", "What pgsluice watches in the traffic, and what it calls a finding."),
    (Section::Log, "`[log]`", "Logs go to standard error."),
];

const INTRODUCTION: &str = "\
# Configuration

<!-- Written from src/config/keys.rs by `UPDATE_DOCS=1 cargo test`; `pgsluice docs` prints it. -->

pgsluice reads a TOML file and the environment; the environment counts more. Either is enough alone. The file is
the one given by `--config` or `PGSLUICE_CONFIG`, else `/etc/pgsluice/pgsluice.toml` where that exists. `pgsluice check`
reads the same and says what it would do, or what is wrong and where.

## The shortest configuration

```sh
DATABASE_URL=postgres://user:password@db:5432/app pgsluice run
```

This admits `user` with that password (SCRAM-SHA-256), and pools to the database `app` under the same name. In Django
only `HOST` and `PORT` change. Special characters in the URL are percent-encoded (`/` is `%2F`); a Unix socket is
written as `postgres://user:password@/app?host=/run/postgresql`. Parameters of the URL: `host`, `port`, `user`,
`password`, `dbname`, `connect_timeout`, and libpq's for TLS: `sslmode`, `sslrootcert`, `sslcert`, `sslkey`,
`sslnegotiation`, `ssl_min_protocol_version`, `channel_binding`. TLS for clients and servers: [security.md](security.md#tls).

Where the application shares pgsluice's environment, its own `DATABASE_URL` names pgsluice: then give the database's
address in `PGSLUICE_DATABASE_URL`, which counts more. `DATABASE_URL_FILE` and `PGSLUICE_DATABASE_URL_FILE` name a file
that holds the URL (a mounted secret).

## How values are written

Durations are `250ms`, `5s`, `10min`, `1h`, `1d` or a number of seconds; lists are TOML lists, or one text with commas
(the way of the environment). An unknown key or variable is an error, never ignored. A changed setting takes effect at
the next start, but for the contents of TLS files, `auth_hba_file` and `auth_ident_file`, and users and passwords, which SIGHUP
reads again.
";

const DATABASES: &str = "\
## `[databases.NAME]`

`NAME` is what clients connect to; `[databases.\"*\"]` is any other name. The settings of `[pool]` are possible here
as well.

```toml
[databases.app]
host = \"db.internal\"
pool_size = 30

[databases.\"*\"]
host = \"db.internal\"
```

";

const USERS: &str = "\
A token of a cloud that is good for minutes is printed by a program, whenever a server connection is opened:

```toml
[databases.app]
host = \"app.abc123.eu-central-1.rds.amazonaws.com\"
user = \"app\"
server_tls_mode = \"verify-full\"
server_tls_ca_file = \"rds-ca.pem\"
password_command = [\"/usr/local/bin/rds-token\"]
```

It runs with pgsluice's own environment and user, no shell reads it, and what it prints (one line, up to 65,535 bytes) is kept for
`password_command_ttl`. When the server refuses what was kept, another one is printed at once. What it says to standard error is not
read.

## `[users.NAME]`

Who may log in. A section without a password makes the user known, which is all that `trust` and `peer` ask.

```toml
[users.app]
password_env = \"APP_PASSWORD\"
```

";

const USERLIST: &str = "\
## `userlist.txt`

`auth_file` takes PgBouncer's file as it is: lines of `\"user\" \"secret\"`, quotes inside doubled, comments after `;`.
The secret is a password, an MD5 hash or a SCRAM verifier as in `pg_authid`. An MD5 hash cannot be used with
`auth_type = \"scram-sha-256\"`.

A SCRAM verifier is enough where clients prove themselves (`scram-sha-256`, `md5`, `plain`): what a client proves to have logs in to
the server as well, as long as the server keeps the same verifier (the same salt and iterations; copy it from `pg_authid`). Until
such a client has come nothing is opened for the user. `trust`, `peer` and `cert` prove nothing of that kind: give the plain
password, or the database's own `user` and `password`.
";

const QUERY: &str = "\
## Users of the database

With `auth_user` set, users who stand neither in `[users]` nor in `auth_file` are looked up in PostgreSQL: PgBouncer's `auth_query`.
Its default reads `pg_authid` and needs a superuser. A function gives a user of its own just that, and no more:

```sql
CREATE ROLE pooler_auth LOGIN PASSWORD '...';
CREATE FUNCTION public.user_lookup(i_user text, OUT uname text, OUT secret text) RETURNS record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
  SELECT rolname::text, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END
  FROM pg_authid WHERE rolname = i_user AND rolcanlogin AND NOT rolsuper
$$;
REVOKE EXECUTE ON FUNCTION public.user_lookup FROM public;
GRANT EXECUTE ON FUNCTION public.user_lookup TO pooler_auth;
```

```toml
auth_user = \"pooler_auth\"
auth_query = \"SELECT uname, secret FROM public.user_lookup($1)\"

[users.pooler_auth]
password_file = \"/run/secrets/pooler_auth\"

[databases.app]
host = \"db.internal\"
```

- The answer is one row of name and secret (a SCRAM verifier, an MD5 hash, a password, or NULL for none), or no row, or NULLs:
  no such user. Another name than the one asked for, a second row or a third column is an error.
- It runs in the database that the client names, or in `auth_dbname` for all; the console looks in `auth_dbname` only. Whoever owns the
  database decides who gets in: with a wildcard and databases of several owners set `auth_dbname`. A database that does not
  exist is told to nobody: the log has it, the client a wrong password. With `auth_dbname` strangers cannot have pgsluice
  try names of databases either, which is bounded otherwise ([security.md](security.md#who-may-connect)).
- One connection of pgsluice's own for each database that is asked, one question at a time; it is closed when it was idle for half a minute. Answers count for
  `auth_query_ttl`, that there is no such user included. Logins of one user that come together share one question.
- After a wrong password the user is asked for anew, once a second at most. So a changed password works at once with `plain` and `md5`; with
  SCRAM the first login with it fails and the next succeeds. A role that was dropped, locked or has expired is let in no longer
  than `auth_query_ttl` (`0` asks at each login), and only as far as servers of its pool are open already.
- While the database is away, users that are known count on until their time is over; others get 57P03.
- Towards the server each user is logged in with what the client proved: the key of its SCRAM login, or the MD5 hash.

";

const PASSTHROUGH: &str = "\
## Users whom only PostgreSQL knows

With `passthrough_auth` (PgDog's name) users need stand nowhere but in PostgreSQL, and no user with rights on `pg_authid` is needed:

```toml
passthrough_auth = \"enabled\"
client_tls_cert_file = \"tls.crt\"
client_tls_key_file = \"tls.key\"

[databases.app]
host = \"db.internal\"
server_tls_mode = \"verify-full\"
```

- A user whom neither `[users]`, `auth_file` nor `auth_query` knows is asked for the password in the clear. pgsluice logs in to the
  database with it; if PostgreSQL takes it the client is let in, and that connection is the first of her pool. If not she gets
  PostgreSQL's own error. So LDAP, PAM and the like work as well, where PostgreSQL is set up for them.
- `enabled` asks only clients that have TLS, come by a Unix socket or from the loopback; others are refused like any unknown user (28P01),
  and the log says why. Where a proxy stands before pgsluice on the same machine, everybody comes from the loopback. `enabled_plain` asks everybody.
- A server that asks for no password (`trust`, `peer`, or a certificate of pgsluice's own) proves nothing: then the client is
  refused, whatever she sent.
- What PostgreSQL took counts for `auth_query_ttl` for the same password, without asking again (`0` asks at each login); any other password
  is tried at PostgreSQL. So a new password works at once; an old one, or that of a role that was dropped, for no longer than
  that, nor after a server has refused it.
- Kept in memory, as long as the pool: a SCRAM verifier and key where PostgreSQL asks for SCRAM; the MD5 hash where it asks for that;
  only where it asks for the password in the clear, the password. Nothing is written to a file.
- It goes with `auth_type` `scram-sha-256`, `md5` and `plain`: users who are known are asked as it says. With `hba`, lines that say `password` ask so, and
  lines that say `scram-sha-256` or `md5` refuse unknown users: they promise that no password is sent in the clear.
- Not for the console, nor for physical replication, nor for databases whose section has a `user`, `password` or `password_command`.
- Four logins at a time are tried for each section, beside `pool_size`, each a connection of PostgreSQL. Failed ones delay the next
  (`failed_login_delay`).
- Clients that insist on SCRAM (libpq's `require_auth`) do not get in this way. Who is asked for a password in the clear learns that
  pgsluice does not know the user.

";

const RULES: &str = "\
## Rules for each client

With `auth_type = \"hba\"` the file `auth_hba_file` decides, in the syntax of PostgreSQL's
[`pg_hba.conf`](https://www.postgresql.org/docs/current/auth-pg-hba-conf.html). The first line that matches counts; without
one the client gets PostgreSQL's `no pg_hba.conf entry for host ...` (28000).

```
# TYPE  DATABASE    USER         ADDRESS        METHOD
local   all         all                         peer map=admins
host    pgsluice    all          127.0.0.1/32   scram-sha-256
host    all         intern       all            reject
host    app         \"/^app_\"     10.0.0.0/8     scram-sha-256
include_dir hba.d
```

As in PostgreSQL 15 to 18: quotes, lists, `all`, `sameuser`, `replication`, names in a file (`@file`), regular expressions
(`/...`; in quotes when they hold a comma), networks as `/bits` or with a mask beside, `samehost`, `samenet`, `\\` at the end of a
line, `include`, `include_if_exists`, `include_dir`. The console's databases (`pgsluice`, `pgbouncer`) are named like any other.

- Methods: `trust`, `reject`, `password`, `md5`, `scram-sha-256`, `peer` (`ident` on a `local` line is `peer`), `cert`. `hostssl` lines
  match clients with TLS.
- Whom a rule lets in must still be known: in `[users]` or `auth_file`, or by `auth_query`. With `trust`, `peer` and `cert` too: pgsluice logs in to
  the server with the password that it knows of the user, or with the database's own `user` and `password`.
- `cert` (on `hostssl` lines) asks for nothing but a certificate that a CA of `client_tls_ca_file` has signed and whose common name is the
  user's; `clientname=DN` takes the distinguished name instead, as RFC 2253 writes it, and `map=NAME` a map. `clientcert=verify-full` asks for such a
  certificate besides the line's method, `clientcert=verify-ca` for any of that CA.
- `peer` is for Unix sockets: the operating system tells the name of the client's user, which must be the name she gives.
  `map=NAME` looks it up in `auth_ident_file` instead, in the syntax of
  [`pg_ident.conf`](https://www.postgresql.org/docs/current/auth-username-maps.html): `admins root app`, `all`, `/regex` and `\\1`.
- Refused when the file is read, with the line and what to write instead: `+role`, `samerole` (a pooler does not know who
  belongs to which role), host names (they would be looked up at each login, and whoever holds the address's reverse zone
  answers), other methods and options, regular expressions that PostgreSQL reads differently (`\\y`, lookahead, `*?`).

`pgsluice check` reads the files and lists the rules. One wrong line, and none is used: pgsluice does not start.
";

/// The text of `docs/configuration.md`.
pub fn markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    for (section, heading, text) in SECTIONS {
        out.push_str(&format!("\n## {heading}\n\n{text}\n\n"));
        out.push_str("| key | default | environment | meaning |\n|---|---|---|---|\n");
        for key in KEYS.iter().filter(|key| key.section == section) {
            let default = if key.default.is_empty() { "none".into() } else { format!("`{}`", key.default) };
            let row = (key.name, default, key.variable(), key.doc.replace('|', "\\|"));
            out.push_str(&format!("| `{}` | {} | `{}` | {} |\n", row.0, row.1, row.2, row.3));
        }
    }
    for (text, keys) in [(DATABASES, DATABASE_KEYS), (USERS, USER_KEYS)] {
        out.push_str(&format!("\n{text}| key | meaning |\n|---|---|\n"));
        for (name, doc) in keys {
            out.push_str(&format!("| `{name}` | {doc} |\n"));
        }
    }
    out.push_str(&format!("\n{USERLIST}\n{QUERY}{PASSTHROUGH}{RULES}"));
    out
}

const FILE_INTRODUCTION: &str = "\
# pgsluice.toml: every setting with its default. What is commented out may stay so.
# docs/configuration.md explains the same; `pgsluice check` tells what a file does.
# Durations: \"250ms\", \"5s\", \"10min\", \"1h\". The environment (PGSLUICE_*, DATABASE_URL) counts more than this file.
";

/// The text of `config/pgsluice.toml`.
pub fn sample() -> String {
    let mut out = String::from(FILE_INTRODUCTION);
    for (section, _, text) in SECTIONS {
        if let Some(name) = section.name() {
            out.push_str(&format!("\n\n{}[{name}]\n", comment(text)));
        }
        for key in KEYS.iter().filter(|key| key.section == section) {
            out.push_str(&format!("\n{}# {} = {}\n", comment(key.doc), key.name, literal(key)));
        }
    }
    out.push_str("\n\n# Databases that clients may name; [databases.\"*\"] is any other name.\n");
    out.push_str("# The settings of [pool] are possible here as well.\n[databases.app]\nhost = \"127.0.0.1\"\n");
    let value = |name: &str| match name {
        "port" => "5432",
        "password_command" => "[\"...\"]",
        _ => "\"...\"",
    };
    for (name, doc) in DATABASE_KEYS.iter().filter(|(name, _)| *name != "host") {
        out.push_str(&format!("\n{}# {name} = {}\n", comment(doc), value(name)));
    }
    out.push_str("\n\n# Users who may log in.\n[users.app]\npassword = \"change me\"\n");
    for (name, doc) in USER_KEYS.iter().filter(|(name, _)| *name != "password") {
        out.push_str(&format!("\n{}# {name} = \"...\"\n", comment(doc)));
    }
    out
}

/// The default as TOML: numbers and booleans bare, lists as lists.
fn literal(key: &Key) -> String {
    const LISTS: [&str; 4] = ["listen", "admin_users", "stats_users", "id_tags"];
    let text = key.default;
    if LISTS.contains(&key.name) {
        let items: Vec<String> =
            text.split(',').filter(|item| !item.is_empty()).map(|item| format!("\"{item}\"")).collect();
        return format!("[{}]", items.join(", "));
    }
    let bare = text.parse::<u64>().is_ok() || matches!(text, "true" | "false");
    if bare { text.to_owned() } else { format!("\"{text}\"") }
}

/// Comment lines of at most 100 characters.
fn comment(text: &str) -> String {
    let mut out = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > 100 {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::path::Path;

    /// The file must be what the table says; `UPDATE_DOCS=1` writes it.
    fn check(name: &str, text: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
        }
        let file = std::fs::read_to_string(&path).unwrap_or_default();
        let first = file.lines().zip(text.lines()).position(|(a, b)| a != b);
        let place = first.map_or_else(|| "its length".into(), |line| format!("line {}", line + 1));
        assert!(file == text, "{name} differs from the table at {place}: run UPDATE_DOCS=1 cargo test");
        assert!(file.is_ascii());
    }

    #[test]
    fn the_reference_is_up_to_date() {
        check("docs/configuration.md", &markdown());
    }

    #[test]
    fn the_sample_is_up_to_date() {
        check("config/pgsluice.toml", &sample());
    }

    #[test]
    fn the_sample_can_be_read_as_it_is_and_with_all_settings_in_force() {
        let path = Path::new("pgsluice.toml");
        let config = Config::from_toml(&sample(), path).unwrap();
        let defaults = Config::default();
        assert_eq!(config.entries(), defaults.entries());
        let all: String = sample()
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(setting) if is_setting(setting) && !setting.contains("...") => {
                    format!("{setting}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        let config = Config::from_toml(&all, path).map_err(|error| error.to_string()).unwrap();
        assert_eq!(config.entries(), defaults.entries());
        assert_eq!(config.databases["app"].pool, defaults.pool);
        for key in KEYS {
            let line = format!("\n{} = ", key.name);
            assert!(all.contains(&line), "{} is missing", key.name);
        }
    }

    fn is_setting(line: &str) -> bool {
        line.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    }

    #[test]
    fn the_minimal_file_is_whole() {
        let text = include_str!("../../config/minimal.toml");
        let config = Config::from_toml(text, Path::new("minimal.toml")).unwrap();
        assert_eq!(config.warnings, Vec::<String>::new());
    }
}
