//! `pg_ident.conf`: which users of the operating system (or of certificates) may log in as which of PostgreSQL's
//! (`parse_ident_line`, `check_ident_usermap`).

use std::path::Path;

use super::error::{HbaError, shown};
use super::files::{self, Line, Source};
use super::pattern::Pattern;
use super::rule::User;
use super::token::Token;
use super::{MAX_ERRORS, parse};

/// All maps of a file.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct IdentMaps(Vec<Entry>);

/// A line: users of the system and one of PostgreSQL.
#[derive(Clone, PartialEq, Debug)]
struct Entry {
    map: String,
    system: System,
    user: Target,
}

#[derive(Clone, PartialEq, Debug)]
enum System {
    Name(String),
    Pattern(Pattern),
}

#[derive(Clone, PartialEq, Debug)]
enum Target {
    User(User),
    /// What stands before and behind `\1`, for which the system's pattern gives the text.
    Captured {
        before: String,
        behind: String,
    },
}

impl IdentMaps {
    /// Reads a file and what it includes.
    ///
    /// # Errors
    /// Every line that cannot be read, up to 20.
    pub fn load(path: &Path, source: &dyn Source) -> Result<IdentMaps, Vec<HbaError>> {
        let (mut entries, mut errors) = (Vec::new(), Vec::new());
        for line in files::lines(path, source) {
            match line.and_then(|line| entry(&line)) {
                Ok(entry) => entries.push(entry),
                Err(error) => errors.push(error),
            }
        }
        errors.truncate(MAX_ERRORS);
        if errors.is_empty() { Ok(IdentMaps(entries)) } else { Err(errors) }
    }

    /// Whether there is such a map.
    pub fn has(&self, map: &str) -> bool {
        self.0.iter().any(|entry| entry.map == map)
    }

    /// Whether the map lets `system` log in as `user`. Without a map the names must be equal.
    pub fn admits(&self, map: Option<&str>, system: &str, user: &str) -> bool {
        match map {
            // An empty name is no map (check_usermap).
            None | Some("") => system == user,
            Some(map) => self.0.iter().any(|entry| entry.map == map && entry.admits(system, user)),
        }
    }
}

impl Entry {
    fn admits(&self, system: &str, user: &str) -> bool {
        let captured = match &self.system {
            System::Name(name) if name != system => return false,
            System::Pattern(pattern) if !pattern.is_match(system) => return false,
            System::Name(_) => None,
            System::Pattern(pattern) => pattern.first_group(system),
        };
        match &self.user {
            Target::User(target) => target.matches(user),
            Target::Captured { before, behind } => captured.is_some_and(|captured| {
                user.strip_prefix(&**before).and_then(|rest| rest.strip_suffix(&**behind)) == Some(captured)
            }),
        }
    }
}

/// As PostgreSQL's view `pg_ident_file_mappings` shows it.
impl std::fmt::Display for IdentMaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Entry { map, system, user } in &self.0 {
            let system = match system {
                System::Name(name) => name.clone(),
                System::Pattern(pattern) => format!("/{}", pattern.text()),
            };
            let user = match user {
                Target::User(user) => user.text(),
                Target::Captured { before, behind } => format!("{before}\\1{behind}"),
            };
            writeln!(f, "{map} {system} {user}")?;
        }
        Ok(())
    }
}

fn entry(line: &Line) -> Result<Entry, HbaError> {
    const HELP: &str = "a line is: MAP SYSTEM-USER DATABASE-USER";
    let mut last = line.start;
    let mut fields = line.fields.iter();
    let mut one = || match fields.next().map(Vec::as_slice) {
        Some([token]) => {
            last = token.spot;
            Ok(token)
        }
        Some(_) => Err(HbaError::at(&line.file, last, "multiple values in ident field").help(HELP)),
        None => Err(HbaError::at(&line.file, last, "missing entry at end of line").help(HELP)),
    };
    let (map, system, user) = (one()?, one()?, one()?);
    let at = |token: &Token, message: String| HbaError::at(&line.file, token.spot, message);
    let system = match system.text.strip_prefix('/') {
        None => System::Name(system.text.clone()),
        Some(text) => System::Pattern(
            Pattern::new(text)
                .map_err(|why| at(system, format!("invalid regular expression {}: {why}", shown(text))))?,
        ),
    };
    let target = match (&system, user.text.split_once("\\1")) {
        (System::Pattern(pattern), Some((before, behind))) if !user.text.starts_with('/') => {
            captured(pattern, user, before, behind).map_err(|why| at(user, why))?
        }
        _ => Target::User(parse::user(line, user)?),
    };
    Ok(Entry { map: map.text.clone(), system, user: target })
}

fn captured(pattern: &Pattern, user: &Token, before: &str, behind: &str) -> Result<Target, String> {
    // PostgreSQL replaces the first only, and its manual and its code disagree about quotes.
    if behind.contains("\\1") || user.quoted {
        return Err(format!("{} is not supported: write \\1 once, without quotes", shown(&user.text)));
    }
    if user.text.starts_with('+') {
        return Err(format!("{} needs to know the roles' members; pgsluice does not", shown(&user.text)));
    }
    pattern.capture().map_err(|why| format!("\\1 is not certain with this regular expression: {why}"))?;
    Ok(Target::Captured { before: before.to_owned(), behind: behind.to_owned() })
}
