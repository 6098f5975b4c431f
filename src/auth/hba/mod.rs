//! `pg_hba.conf` and `pg_ident.conf` as PostgreSQL 15 to 18 read them: which client may log in, and how it proves itself.
//!
//! | file | what it holds |
//! |---|---|
//! | `token` | a file's text into lines and tokens |
//! | `files` | inclusion: `@file`, `include`, `include_if_exists`, `include_dir` |
//! | `rule` | one record: what it matches, and what it asks for |
//! | `parse` | tokens into a rule |
//! | `address` | addresses and masks |
//! | `ident` | maps of the operating system's users to PostgreSQL's |
//! | `pattern` | regular expressions, those that mean the same here as in PostgreSQL |
//! | `error` | what is wrong, where, and what to write instead |
//!
//! No input or output: files come through a [`Source`], the machine's own networks through a closure. What a pooler
//! cannot decide as PostgreSQL would (membership in roles, host names) is refused when the file is read, never guessed.
//!
//! Sources: PostgreSQL's pages auth-pg-hba-conf and auth-username-maps, `src/backend/libpq/hba.c`.

mod address;
mod error;
mod files;
mod fuzz;
mod ident;
mod parse;
mod pattern;
mod rule;
mod token;

pub use address::Network;
pub use error::HbaError;
pub use files::Source;
pub use fuzz::fuzz_hba;
pub use ident::IdentMaps;
pub use rule::{ClientCert, ClientName, Connection, Login, Method, Origin, Rule};

use std::io;
use std::path::Path;

/// Errors reported at once; the rest shows up when these are mended.
const MAX_ERRORS: usize = 20;

/// The rules of a file, in its order: the first that matches decides.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Reads a file and what it includes.
    ///
    /// # Errors
    /// Every line that cannot be read, up to 20: a file with one such line is not used at all, as in PostgreSQL.
    pub fn load(path: &Path, source: &dyn Source) -> Result<Rules, Vec<HbaError>> {
        let mut errors = Vec::new();
        let mut rules = Vec::new();
        for read in Rules::read(path, source) {
            match read {
                Ok(rule) => rules.push(rule),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() && rules.is_empty() {
            // As load_hba: "configuration file contains no entries".
            errors.push(HbaError::whole(path, "it contains no entries: nobody could log in"));
        }
        errors.truncate(MAX_ERRORS);
        if errors.is_empty() { Ok(Rules(rules)) } else { Err(errors) }
    }

    /// Every record of a file and what it includes, good or not, in the order of the lines: what PostgreSQL's view
    /// `pg_hba_file_rules` shows.
    pub fn read(path: &Path, source: &dyn Source) -> Vec<Result<Rule, HbaError>> {
        files::lines(path, source).into_iter().map(|line| line.and_then(|line| parse::rule(&line))).collect()
    }

    /// The first rule that matches, which alone decides; `None`: the client is refused.
    ///
    /// # Errors
    /// Those of `networks`, which gives the machine's own addresses and is asked only for `samehost` and `samenet`.
    pub fn find(
        &self,
        login: &Login<'_>,
        networks: &dyn Fn() -> io::Result<Vec<Network>>,
    ) -> io::Result<Option<&Rule>> {
        for rule in &self.0 {
            if rule.matches(login, networks)? {
                return Ok(Some(rule));
            }
        }
        Ok(None)
    }

    /// The rules, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests;
