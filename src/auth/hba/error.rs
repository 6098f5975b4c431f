//! What is wrong with a file of rules or maps.

use std::path::{Path, PathBuf};

use super::token::Spot;

/// Characters of a file shown in a message.
const MAX_SHOWN: usize = 60;

/// A line that cannot be used: where, why, and what to write instead. The line itself is not kept: options of methods
/// that PostgreSQL knows and pgsluice does not may hold passwords.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HbaError {
    /// The file: the one named in the configuration, or one that it includes.
    pub file: PathBuf,
    /// Line, counted from 1; 0: the file as a whole.
    pub line: usize,
    /// Character in the line, counted from 1.
    pub column: usize,
    /// What is wrong; in PostgreSQL's words where it says the same.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl HbaError {
    /// The file as a whole is wrong.
    pub(super) fn whole(file: &Path, message: impl Into<String>) -> HbaError {
        HbaError::at(file, Spot { line: 0, column: 0 }, message)
    }

    /// At a place.
    pub(super) fn at(file: &Path, spot: Spot, message: impl Into<String>) -> HbaError {
        let Spot { line, column } = spot;
        HbaError { file: file.to_owned(), line, column, message: message.into(), help: None }
    }

    /// With what to write instead.
    pub(super) fn help(mut self, help: impl Into<String>) -> HbaError {
        self.help = Some(help.into());
        self
    }
}

impl std::fmt::Display for HbaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for HbaError {}

/// A word of the file in quotes, short and printable.
pub(super) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(MAX_SHOWN).collect();
    let more = if cut.len() < text.len() { "..." } else { "" };
    format!("\"{}{more}\"", cut.escape_debug())
}
