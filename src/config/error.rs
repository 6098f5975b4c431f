//! Errors of the configuration: where, what, and how to mend it. Never the value of a secret.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::auth::hba::HbaError;

/// Everything that is wrong with a configuration; `Display` shows all of it.
#[derive(Clone, Debug)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Problem {
    place: Place,
    message: String,
    help: Option<String>,
}

/// Where something is wrong.
#[derive(Clone, Debug)]
enum Place {
    /// The configuration as a whole.
    Whole,
    /// An environment variable.
    Variable(String),
    /// A file that cannot be read, or as a whole.
    File(PathBuf),
    /// A place in a file.
    Spot(Spot),
}

#[derive(Clone, Debug)]
struct Spot {
    path: PathBuf,
    line: usize,
    column: usize,
    /// The line and how many characters to underline; `None` where it may hold a secret.
    excerpt: Option<(String, usize)>,
}

impl ConfigError {
    /// `None` when there are no problems.
    pub(super) fn of(problems: Vec<Problem>) -> Option<ConfigError> {
        (!problems.is_empty()).then_some(ConfigError { problems })
    }

    /// The problems, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> ConfigError {
        ConfigError { problems: vec![problem] }
    }
}

impl Problem {
    pub(super) fn whole(message: impl Into<String>) -> Problem {
        Problem { place: Place::Whole, message: message.into(), help: None }
    }

    pub(super) fn variable(name: &str, message: impl Into<String>) -> Problem {
        Problem { place: Place::Variable(name.to_owned()), message: message.into(), help: None }
    }

    pub(super) fn file(path: &Path, message: impl Into<String>) -> Problem {
        Problem { place: Place::File(path.to_owned()), message: message.into(), help: None }
    }

    /// At a line of a file whose text is not shown, because it may hold a secret. Counted from 1.
    pub(super) fn line(path: &Path, line: usize, message: impl Into<String>) -> Problem {
        let spot = Spot { path: path.to_owned(), line, column: 1, excerpt: None };
        Problem { place: Place::Spot(spot), message: message.into(), help: None }
    }

    /// A line of `pg_hba.conf` or `pg_ident.conf`, which is not shown: options of other methods hold passwords.
    pub(super) fn hba(error: HbaError) -> Problem {
        let HbaError { file: path, line, column, message, help } = error;
        let place = if line == 0 { Place::File(path) } else { Place::Spot(Spot { path, line, column, excerpt: None }) };
        Problem { place, message, help }
    }

    /// At a span of the TOML text.
    pub(super) fn at(path: &Path, text: &str, span: Range<usize>, message: impl Into<String>) -> Problem {
        Problem { place: Place::Spot(Spot::new(path, text, span)), message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// Line in the file, for sorting and tests; 0 where there is none.
    pub fn line_number(&self) -> usize {
        match &self.place {
            Place::Spot(spot) => spot.line,
            _ => 0,
        }
    }
}

impl Spot {
    fn new(path: &Path, text: &str, span: Range<usize>) -> Spot {
        let start = floor_boundary(text, span.start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = &text[line_start..];
        let line = line.split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let end = floor_boundary(text, span.end).max(start);
        let width = text[start..end].split('\n').next().unwrap_or_default().chars().count();
        Spot {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            excerpt: excerpt(text, line_start, line).map(|shown| (shown, width)),
        }
    }
}

/// The line as it may be shown: values that may be secrets are cut off.
fn excerpt(text: &str, line_start: usize, line: &str) -> Option<String> {
    let before = &text[..line_start];
    let in_long_text = ["\"\"\"", "'''"].iter().any(|quote| before.matches(quote).count() % 2 == 1);
    if in_long_text || line.len() > 160 || line.trim().is_empty() {
        return None;
    }
    let lower = line.to_ascii_lowercase();
    let header = before.lines().rev().map(str::trim_start).find(|line| line.starts_with('['));
    let in_users = header.is_some_and(|header| header.starts_with("[users"));
    let secret = ["password", "passwd", "secret", "token", "url", "://", "users.", "users =", "scram-sha-256$", "md5"]
        .iter()
        .any(|word| lower.contains(word));
    if (secret || in_users) && !line.trim_start().starts_with('[') {
        let key = line.split('=').next().unwrap_or_default();
        // A line without `=` would be shown whole: it is not.
        return (key.len() < line.len()).then(|| format!("{key}= ..."));
    }
    Some(line.to_owned())
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Whole => write!(f, "{}", self.message)?,
            Place::Variable(name) => write!(f, "environment variable {name}: {}", self.message)?,
            Place::File(path) => write!(f, "{}: {}", path.display(), self.message)?,
            Place::Spot(spot) => {
                write!(f, "{}:{}:{}: {}", spot.path.display(), spot.line, spot.column, self.message)?;
                if let Some((line, width)) = &spot.excerpt {
                    underline(f, spot, line, *width)?;
                }
            }
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// The line with carets under the place.
fn underline(f: &mut fmt::Formatter<'_>, spot: &Spot, line: &str, width: usize) -> fmt::Result {
    let number = spot.line.to_string();
    let gutter = " ".repeat(number.len());
    // Tabs are repeated, so that the caret stands where the terminal puts the place.
    let indent: String = line.chars().take(spot.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let left = line.chars().count().saturating_sub(spot.column - 1);
    write!(f, "\n {gutter} |\n {number} | {line}")?;
    if left > 0 {
        write!(f, "\n {gutter} | {indent}{}", "^".repeat(width.clamp(1, left)))?;
    }
    Ok(())
}

/// The candidate nearest to what was written, when it is near enough to be meant.
pub(crate) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_ascii_lowercase();
    let allowed = (written.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&written, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits from one word to the other: insertion, deletion, replacement, exchange of neighbours.
fn distance(a: &str, b: &str) -> usize {
    // Words of settings are short; what is longer is not a typing error of one.
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut before_last: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("pool_size", "pool_size"), 0);
        assert_eq!(distance("pool_sise", "pool_size"), 1);
        assert_eq!(distance("pool_szie", "pool_size"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(nearest("poolsize", ["pool_mode", "pool_size"]), Some("pool_size"));
        assert_eq!(nearest("entirely_else", ["pool_mode", "pool_size"]), None);
    }
}
