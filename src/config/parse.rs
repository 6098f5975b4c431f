//! TOML text and environment variables into [`Raw`], with all that is wrong at once.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::nearest;
use super::keys::{KEYS, RENAMED, Section};
use super::raw::{Database, General, Insight, Log, Pool, Raw, User};
use super::{Config, ConfigError, Problem, build};

/// Longest configuration file read.
const MAX_FILE: u64 = 16 << 20;
/// Problems reported at once; the rest shows up when these are mended.
const MAX_PROBLEMS: usize = 20;

/// Environment variables, taken as a value so that tests need not change those of the process.
///
/// `Debug` shows names only.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// The variables of the process. Those that are not UTF-8 are read with replacement characters.
    pub fn of_process() -> Environment {
        std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect()
    }

    /// The value of a variable; an empty one counts as set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The value of a variable, unless it is empty: Kubernetes and Compose files leave empty what is optional.
    pub fn non_empty(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.trim().is_empty())
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Environment {
        Environment { variables: variables.into_iter().map(|(n, v)| (n.into(), v.into())).collect() }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.variables.keys()).finish()
    }
}

/// A TOML text and where its keys stand, for messages about values that are wrong together.
pub(super) struct Located<'a> {
    pub(super) path: &'a Path,
    text: &'a str,
    table: DeTable<'a>,
}

impl Located<'_> {
    /// A problem with the setting at `keys` (section, name), or with the nearest part of it that is in the file.
    pub(super) fn problem(&self, keys: &[&str], message: impl Into<String>) -> Problem {
        match find(&self.table, keys) {
            Some(span) => Problem::at(self.path, self.text, span, message),
            None => Problem::file(self.path, message),
        }
    }
}

/// The span of the last of `keys` that exists.
fn find(table: &DeTable<'_>, keys: &[&str]) -> Option<Range<usize>> {
    let (first, rest) = keys.split_first()?;
    let (key, value) = table.iter().find(|(key, _)| key.get_ref().as_ref() == *first)?;
    match value.get_ref() {
        DeValue::Table(inner) if !rest.is_empty() => find(inner, rest).or(Some(key.span())),
        _ => Some(key.span()),
    }
}

/// See [`Config::load`].
pub(super) fn load(path: Option<&Path>, environment: &Environment) -> Result<Config, ConfigError> {
    let Some(path) = path else {
        return build::build(None, Raw::default(), environment, Vec::new());
    };
    let cannot = |error: &dyn fmt::Display| Problem::file(path, format!("cannot be read: {error}"));
    let size = std::fs::metadata(path).map_err(|error| cannot(&error))?.len();
    if size > MAX_FILE {
        return Err(cannot(&"it is longer than 16 MiB").into());
    }
    let text = std::fs::read_to_string(path).map_err(|error| cannot(&error))?;
    load_text(&text, path, environment)
}

/// See [`Config::from_toml`].
pub(super) fn load_text(text: &str, path: &Path, environment: &Environment) -> Result<Config, ConfigError> {
    let mut problems = Vec::new();
    let (raw, located) = read_toml(text, path, &mut problems);
    problems.sort_by_key(Problem::line_number);
    problems.truncate(MAX_PROBLEMS);
    build::build(Some(&located), raw, environment, problems)
}

/// Reads a TOML text; what cannot be read is reported and left out.
fn read_toml<'a>(text: &'a str, path: &'a Path, problems: &mut Vec<Problem>) -> (Raw, Located<'a>) {
    let (document, errors) = DeTable::parse_recoverable(text);
    let located = Located { path, text, table: document.get_ref().clone() };
    if !errors.is_empty() {
        problems.extend(errors.iter().take(MAX_PROBLEMS).map(|error| describe(error, path, text)));
        return (Raw::default(), located);
    }
    let span = document.span();
    let mut sections = document.into_inner();
    remove_unknown(&mut sections, &located, problems);
    let mut general = DeTable::new();
    let loose: Vec<_> =
        sections.keys().filter(|key| !Raw::SECTIONS.contains(&key.get_ref().as_ref())).cloned().collect();
    for key in loose {
        if let Some(value) = sections.remove(key.get_ref().as_ref()) {
            general.insert(key, value);
        }
    }
    let mut raw: Raw = read_table(Spanned::new(span.clone(), sections), &located, problems);
    raw.general = read_table::<General>(Spanned::new(span, general), &located, problems);
    resolve_paths(&mut raw, path);
    (raw, located)
}

/// Reads a struct; at each error the value at fault is taken out and reading begins again, so that all show up.
fn read_table<T: DeserializeOwned + Default>(
    mut table: Spanned<DeTable<'_>>,
    located: &Located<'_>,
    problems: &mut Vec<Problem>,
) -> T {
    for _ in 0..MAX_PROBLEMS {
        match T::deserialize(toml::de::Deserializer::from(table.clone())) {
            Ok(value) => return value,
            Err(error) => {
                problems.push(describe(&error, located.path, located.text));
                let removed = error.span().is_some_and(|span| remove_at(table.get_mut(), &span));
                if !removed {
                    break;
                }
            }
        }
    }
    T::default()
}

/// Takes out the innermost entry whose key or value covers the span.
fn remove_at(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    let covers = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    let mut found = None;
    for (key, value) in table.iter_mut() {
        if let DeValue::Table(inner) = value.get_mut()
            && remove_at(inner, span)
        {
            return true;
        }
        if covers(key.span()) || covers(value.span()) {
            found = Some(key.get_ref().clone());
            break;
        }
    }
    found.is_some_and(|key| table.remove(key.as_ref()).is_some())
}

/// An error of the TOML reader. Its text may repeat the value ("invalid type: string ..."): that part is cut.
fn describe(error: &toml::de::Error, path: &Path, text: &str) -> Problem {
    let message = error.message().trim_end();
    let message = match message.strip_prefix("invalid ").and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((_, expected)) => format!("expected {expected}"),
        None => message.replace('\n', ", "),
    };
    match error.span() {
        Some(span) => Problem::at(path, text, span, message),
        None => Problem::file(path, message),
    }
}

/// Reports and takes out all keys that no section knows.
fn remove_unknown(table: &mut DeTable<'_>, located: &Located<'_>, problems: &mut Vec<Problem>) {
    let top: Vec<&str> = General::FIELDS.iter().chain(Raw::SECTIONS).copied().collect();
    retain_known(table, &top, "", located, problems);
    for (name, section) in table.iter_mut() {
        let name = name.get_ref().as_ref().to_owned();
        let DeValue::Table(section) = section.get_mut() else {
            continue;
        };
        let known = match name.as_str() {
            "pool" => Pool::FIELDS,
            "insight" => Insight::FIELDS,
            "log" => Log::FIELDS,
            "databases" | "users" => {
                let fields = if name == "users" { User::FIELDS } else { Database::FIELDS };
                for (inner, section) in section.iter_mut() {
                    let place = format!(" in [{name}.{}]", inner.get_ref());
                    if let DeValue::Table(section) = section.get_mut() {
                        retain_known(section, fields, &place, located, problems);
                    }
                }
                continue;
            }
            _ => continue,
        };
        retain_known(section, known, &format!(" in [{name}]"), located, problems);
    }
}

fn retain_known(
    table: &mut DeTable<'_>,
    known: &[&str],
    place: &str,
    located: &Located<'_>,
    problems: &mut Vec<Problem>,
) {
    let unknown: Vec<_> = table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())).cloned().collect();
    for key in unknown {
        let name = key.get_ref().as_ref();
        let mut problem = located_key(located, &key, format!("unknown key `{name}`{place}"));
        if let Some(help) = mend(name, known) {
            problem = problem.help(help);
        }
        problems.push(problem);
        table.remove(name);
    }
}

fn located_key(located: &Located<'_>, key: &Spanned<std::borrow::Cow<'_, str>>, message: String) -> Problem {
    Problem::at(located.path, located.text, key.span(), message)
}

/// What was probably meant: another name, another section, or PgBouncer's name of something.
fn mend(name: &str, known: &[&str]) -> Option<String> {
    if let Some((_, mend)) = RENAMED.iter().find(|(old, _)| *old == name) {
        return Some((*mend).to_owned());
    }
    let section_of = |section: Section| section.name().map_or("above all sections".into(), |s| format!("in [{s}]"));
    if let Some(key) = KEYS.iter().find(|key| key.name == name && !known.contains(&name)) {
        return Some(format!("`{name}` belongs {}", section_of(key.section)));
    }
    if let Some(near) = nearest(name, known.iter().copied()) {
        return Some(format!("did you mean `{near}`?"));
    }
    let near = nearest(name, KEYS.iter().map(|key| key.name))?;
    let key = KEYS.iter().find(|key| key.name == near)?;
    Some(format!("did you mean `{near}`, which belongs {}?", section_of(key.section)))
}

/// Paths in a file are relative to its directory.
fn resolve_paths(raw: &mut Raw, file: &Path) {
    let base = file.parent().unwrap_or(Path::new(""));
    let resolve = |path: &mut Option<super::value::Read<PathBuf>>| {
        if let Some(path) = path
            && !path.0.as_os_str().is_empty()
            && path.0.as_os_str() != super::tls::SYSTEM_CAS
        {
            path.0 = base.join(&path.0);
        }
    };
    resolve(&mut raw.general.auth_file);
    resolve(&mut raw.general.scram_salt_file);
    resolve(&mut raw.insight.history_file);
    resolve(&mut raw.general.http_token_file);
    resolve(&mut raw.general.auth_hba_file);
    resolve(&mut raw.general.auth_ident_file);
    let General { client_tls_cert_file, client_tls_key_file, client_tls_ca_file, .. } = &mut raw.general;
    [client_tls_cert_file, client_tls_key_file, client_tls_ca_file].into_iter().for_each(resolve);
    let Pool { server_tls_ca_file, server_tls_cert_file, server_tls_key_file, .. } = &mut raw.pool;
    [server_tls_ca_file, server_tls_cert_file, server_tls_key_file].into_iter().for_each(resolve);
    for database in raw.databases.values_mut() {
        let Database { server_tls_ca_file, server_tls_cert_file, server_tls_key_file, .. } = database;
        [server_tls_ca_file, server_tls_cert_file, server_tls_key_file].into_iter().for_each(resolve);
    }
    raw.databases.values_mut().for_each(|database| resolve(&mut database.password_file));
    raw.users.values_mut().for_each(|user| resolve(&mut user.password_file));
}

/// A hint of [`RENAMED`] for whoever writes variables: `write `pool_size`` is `set `PGSLUICE_POOL_SIZE``.
fn in_environment(mend: &str) -> String {
    let setting = mend.split('`').nth(1).and_then(|code| code.split(' ').next());
    let key = setting.and_then(|name| KEYS.iter().find(|key| key.name == name));
    match key.filter(|_| mend.starts_with("write ")) {
        Some(key) => format!("set `{}`", key.variable()),
        None => mend.to_owned(),
    }
}

/// Reads `PGSLUICE_*`; the variables of [`super::build`] and of the command line are skipped.
pub(super) fn read_environment(environment: &Environment, problems: &mut Vec<Problem>) -> Raw {
    const OTHERS: [&str; 3] = ["PGSLUICE_CONFIG", "PGSLUICE_DATABASE_URL", "PGSLUICE_DATABASE_URL_FILE"];
    let mut raw = Raw::default();
    for (name, value) in &environment.variables {
        if !name.starts_with("PGSLUICE_") || OTHERS.contains(&name.as_str()) || is_service_link(name, value) {
            continue;
        }
        let Some(key) = KEYS.iter().find(|key| key.variable() == *name) else {
            let known: Vec<String> = KEYS.iter().map(|key| key.variable()).collect();
            let old = RENAMED.iter().find(|(old, _)| name[9..].eq_ignore_ascii_case(old));
            let near = nearest(name, known.iter().map(String::as_str).chain(OTHERS));
            let problem = Problem::variable(name, "unknown setting");
            problems.push(match (old, near) {
                (Some((_, mend)), _) => problem.help(in_environment(mend)),
                (None, Some(near)) => problem.help(format!("did you mean `{near}`?")),
                (None, None) => problem.help("`pgsluice docs` lists all settings"),
            });
            continue;
        };
        match read_setting(key.section, key.name, value) {
            Ok(one) => raw.overlay(one),
            Err(message) => problems.push(Problem::variable(name, message)),
        }
    }
    raw
}

/// One setting from text, in the same way as from a file.
pub(super) fn read_setting(section: Section, name: &str, value: &str) -> Result<Raw, String> {
    let table: toml::Table = [(name.to_owned(), toml::Value::String(value.to_owned()))].into_iter().collect();
    let message = |error: toml::de::Error| error.message().trim_end().to_owned();
    let mut raw = Raw::default();
    match section {
        Section::General => raw.general = General::deserialize(table).map_err(message)?,
        Section::Pool => raw.pool = Pool::deserialize(table).map_err(message)?,
        Section::Insight => raw.insight = Insight::deserialize(table).map_err(message)?,
        Section::Log => raw.log = Log::deserialize(table).map_err(message)?,
    }
    Ok(raw)
}

/// Kubernetes gives every pod variables for every Service of its namespace; those of a Service whose name begins with
/// `pgsluice` look like settings (`PGSLUICE_PORT=tcp://10.0.0.1:6432`, `PGSLUICE_METRICS_SERVICE_HOST=...`).
fn is_service_link(name: &str, value: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_PORT_") && ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| name.contains(protocol))
        || name.ends_with("_PORT") && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}
