//! Files and what they include (`tokenize_auth_file`, `tokenize_expand_file`, `GetConfFilesInDir`).
//!
//! `@file` puts the words of a file in the place of a name; a line `include file`, `include_if_exists file` or
//! `include_dir directory` (PostgreSQL 16) puts its lines there. Names are relative to the file that includes.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::error::{HbaError, shown};
use super::token::{Cursor, Spot, Token, Whole, lines as whole_lines};

/// Inclusions within each other (`CONF_FILE_MAX_DEPTH`).
const MAX_DEPTH: usize = 10;
/// Files read for one configuration: ten levels could multiply without end.
const MAX_FILES: usize = 10_000;
/// Lines and words kept for one configuration.
const MAX_ENTRIES: usize = 100_000;

/// Where files come from.
pub trait Source {
    /// The text of a file.
    ///
    /// # Errors
    /// It cannot be read, is too long, or is no UTF-8.
    fn read(&self, path: &Path) -> io::Result<String>;

    /// The files of a directory (no directories), in any order.
    ///
    /// # Errors
    /// It cannot be read.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;
}

/// A line with its fields: a field is a word, or a list of words with commas.
pub(super) struct Line {
    pub(super) file: Rc<Path>,
    /// Where the line begins.
    pub(super) start: Spot,
    pub(super) fields: Vec<Vec<Token>>,
}

/// The lines of a file and of those it includes; comments and empty lines are left out.
pub(super) fn lines(path: &Path, source: &dyn Source) -> Vec<Result<Line, HbaError>> {
    let mut reader = Reader { source, files: MAX_FILES, entries: MAX_ENTRIES, full: false };
    match source.read(path) {
        Ok(text) => {
            let mut found = Vec::new();
            reader.file(path, &text, 0, &mut found);
            found
        }
        Err(error) => vec![Err(HbaError::whole(path, format!("it cannot be read: {error}")))],
    }
}

struct Reader<'a> {
    source: &'a dyn Source,
    /// How many may still be read.
    files: usize,
    /// How many lines and words may still be kept.
    entries: usize,
    /// A limit is passed: the reading ends.
    full: bool,
}

type Lines = Vec<Result<Line, HbaError>>;

impl Reader<'_> {
    fn file(&mut self, path: &Path, text: &str, depth: usize, found: &mut Lines) {
        let file: Rc<Path> = path.into();
        if let Some(at) = text.find('\0') {
            let line = text[..at].matches('\n').count() + 1;
            return found.push(Err(HbaError::at(
                &file,
                Spot { line, column: 1 },
                "a NUL character is not possible here",
            )));
        }
        for whole in whole_lines(text) {
            if self.full {
                return;
            }
            match self.fields(&file, &whole, depth) {
                Ok(fields) if fields.is_empty() => {}
                Ok(fields) => self.line(Line { file: Rc::clone(&file), start: whole.start(), fields }, depth, found),
                Err(error) => found.push(Err(error)),
            }
        }
    }

    /// A line, or the lines that it includes.
    fn line(&mut self, line: Line, depth: usize, found: &mut Lines) {
        if let [first, second] = &line.fields[..]
            && let (Some(first), Some(second)) = (first.first(), second.first())
        {
            let included = match &*first.text {
                "include" => self.include(&line, second, depth, false, found),
                "include_if_exists" => self.include(&line, second, depth, true, found),
                "include_dir" => self.include_dir(&line, second, depth, found),
                _ => return self.keep(line, found),
            };
            if let Err(error) = included {
                found.push(Err(error));
            }
            return;
        }
        self.keep(line, found);
    }

    fn keep(&mut self, line: Line, found: &mut Lines) {
        found.push(self.spend(&line.file, line.start).map(|()| line));
    }

    /// One line or word more.
    fn spend(&mut self, file: &Path, spot: Spot) -> Result<(), HbaError> {
        match self.entries.checked_sub(1) {
            Some(left) => {
                self.entries = left;
                Ok(())
            }
            None => {
                self.full = true;
                Err(HbaError::at(file, spot, format!("there are more than {MAX_ENTRIES} entries")))
            }
        }
    }

    fn include(
        &mut self,
        line: &Line,
        name: &Token,
        depth: usize,
        if_exists: bool,
        found: &mut Lines,
    ) -> Result<(), HbaError> {
        let path = beside(&line.file, &name.text);
        match self.open(&line.file, name.spot, &path, depth) {
            Ok(text) => {
                self.file(&path, &text, depth + 1, found);
                Ok(())
            }
            Err((_, Some(io::ErrorKind::NotFound))) if if_exists => Ok(()),
            Err((error, _)) => Err(error),
        }
    }

    fn include_dir(&mut self, line: &Line, name: &Token, depth: usize, found: &mut Lines) -> Result<(), HbaError> {
        let directory = beside(&line.file, &name.text);
        let mut files = self.source.list(&directory).map_err(|error| {
            let message = format!("could not open directory {}: {error}", shown(&directory.display().to_string()));
            HbaError::at(&line.file, name.spot, message)
        })?;
        files.retain(|path| {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            name.ends_with(b".conf") && !name.starts_with(b".")
        });
        files.sort();
        for path in files {
            let text = self.open(&line.file, name.spot, &path, depth).map_err(|(error, _)| error)?;
            self.file(&path, &text, depth + 1, found);
        }
        Ok(())
    }

    /// The text of an included file.
    fn open(
        &mut self,
        from: &Path,
        spot: Spot,
        path: &Path,
        depth: usize,
    ) -> Result<String, (HbaError, Option<io::ErrorKind>)> {
        let named = shown(&path.display().to_string());
        let wrong = |why: String| HbaError::at(from, spot, format!("could not open file {named}: {why}"));
        if depth >= MAX_DEPTH {
            // Nothing of it will be used, and files that include each other twice would be read a thousand times.
            self.full = true;
            let error = wrong("maximum nesting depth exceeded".to_owned());
            return Err((error.help(format!("files may include each other {MAX_DEPTH} deep")), None));
        }
        let Some(left) = self.files.checked_sub(1) else {
            self.full = true;
            return Err((wrong(format!("more than {MAX_FILES} files are included")), None));
        };
        self.files = left;
        self.source.read(path).map_err(|error| (wrong(error.to_string()), Some(error.kind())))
    }

    /// The fields of a line, `@file` expanded (`next_field_expand`).
    fn fields(&mut self, file: &Rc<Path>, whole: &Whole, depth: usize) -> Result<Vec<Vec<Token>>, HbaError> {
        let mut fields = Vec::new();
        let mut cursor = Cursor::new(whole);
        while !cursor.at_end() {
            let mut field = Vec::new();
            loop {
                let read =
                    cursor.next().map_err(|spot| HbaError::at(file, spot, "authentication file token too long"))?;
                let Some(read) = read else { break };
                match read.token.text.strip_prefix('@') {
                    Some(name) if !read.token.quoted && !name.is_empty() => {
                        field.extend(self.words(file, &read.token, name, depth)?);
                    }
                    _ => {
                        self.spend(file, read.token.spot)?;
                        field.push(read.token);
                    }
                }
                if !read.comma {
                    break;
                }
            }
            if !field.is_empty() {
                fields.push(field);
            }
        }
        Ok(fields)
    }

    /// All words of a file. They stand where the `@` stands: that is the line that uses them.
    fn words(&mut self, file: &Rc<Path>, token: &Token, name: &str, depth: usize) -> Result<Vec<Token>, HbaError> {
        let path = beside(file, name);
        let text = self.open(file, token.spot, &path, depth).map_err(|(error, _)| error)?;
        let mut found = Vec::new();
        self.file(&path, &text, depth + 1, &mut found);
        let mut words = Vec::new();
        for line in found {
            let tokens = line?.fields.into_iter().flatten();
            words.extend(tokens.map(|inner| Token { spot: token.spot, ..inner }));
        }
        Ok(words)
    }
}

/// A name as the file at `from` means it.
fn beside(from: &Path, name: &str) -> PathBuf {
    from.parent().unwrap_or(Path::new("")).join(name)
}
