//! The file that lets the history survive a restart: one JSON object a line, appended to, and written anew when it has
//! grown to twice what is kept or when writing failed. It holds ids, names of databases and numbers, no text.
//!
//! A disk that is full, a directory that is missing: the history goes on in memory, and the file when it can be written
//! again. Lines that cannot be read are left out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::insight::{Interval, MAX_INTERVALS};

/// Bytes that are read at most; a file that has grown larger is not ours alone.
const MAX_BYTES: u64 = 64 << 20;

/// The file.
pub(super) struct HistoryFile {
    path: PathBuf,
    /// Lines in it; `None`: it must be written anew.
    lines: Option<usize>,
    /// The last attempt failed, and was told.
    failed: bool,
}

impl HistoryFile {
    /// What the file remembers, oldest first, of the time since `oldest` (seconds since the epoch).
    pub(super) fn open(path: &Path, oldest: f64) -> (Self, Vec<Interval>) {
        let mut file = HistoryFile { path: path.to_owned(), lines: None, failed: false };
        let read = read(path).map(|text| {
            let known = text.lines().filter_map(|line| serde_json::from_str::<Interval>(line).ok());
            let mut known: Vec<_> = known.filter(|interval| interval.from >= oldest).collect();
            known.sort_by(|a, b| a.from.total_cmp(&b.from));
            known.split_off(known.len().saturating_sub(MAX_INTERVALS))
        });
        let known = read.unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                file.tell(&error);
            }
            Vec::new()
        });
        (file, known)
    }

    /// Adds an interval; `all` has those that are kept, with it.
    pub(super) fn add(&mut self, interval: &Interval, all: impl FnOnce() -> Vec<Interval>) {
        let done = match self.lines {
            Some(lines) if lines < 2 * MAX_INTERVALS => append(&self.path, interval).map(|()| lines + 1),
            _ => {
                let all = all();
                write_anew(&self.path, &all).map(|()| all.len())
            }
        };
        match done {
            Ok(lines) => {
                self.lines = Some(lines);
                self.failed = false;
            }
            Err(error) => {
                // Half a line may stand there now.
                self.lines = None;
                self.tell(&error);
            }
        }
    }

    /// Says once that it does not work.
    fn tell(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failed, true) {
            tracing::warn!(path = %self.path.display(), %error, "history_file cannot be used now: the history is in memory only");
        }
    }
}

/// The text of a regular file: a device or a pipe would never end.
fn read(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn line(interval: &Interval) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(interval)?;
    line.push(b'\n');
    Ok(line)
}

fn append(path: &Path, interval: &Interval) -> io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(&line(interval)?)
}

/// Beside it, then in its place: whoever reads sees the old or the new one. Nobody else may read it.
fn write_anew(path: &Path, all: &[Interval]) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|known| !known.is_file()) {
        return Err(io::Error::other("not a regular file"));
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    // What a crash left there may be somebody else's to read.
    let _ = fs::remove_file(&beside);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        let mut bytes = Vec::new();
        for interval in all {
            bytes.extend(line(interval)?);
        }
        file.write_all(&bytes)?;
        fs::rename(&beside, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn interval(from: f64) -> Interval {
        Interval { from, seconds: 60.0, ..Interval::default() }
    }

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("pgsluice-history-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn what_is_written_is_read_and_only_its_owner_may() {
        let directory = directory("read");
        let path = directory.join("history");
        let (mut file, known) = HistoryFile::open(&path, 0.0);
        assert!(known.is_empty() && !file.failed, "no file yet is no fault");
        file.add(&interval(1.0), || vec![interval(1.0)]);
        file.add(&interval(2.0), || unreachable!("appended"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // Half a line, and one that is none.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"from\":\nxyz\xff\n").unwrap();
        let (_, known) = HistoryFile::open(&path, 0.0);
        assert_eq!(known, [interval(1.0), interval(2.0)]);
        assert_eq!(HistoryFile::open(&path, 1.5).1, [interval(2.0)], "what is too old is left out");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_written_comes_back() {
        let directory = directory("away");
        let path = directory.join("later/history");
        let (mut file, _) = HistoryFile::open(&path, 0.0);
        file.add(&interval(1.0), || vec![interval(1.0)]);
        assert!(file.failed && file.lines.is_none());
        fs::create_dir(directory.join("later")).unwrap();
        file.add(&interval(2.0), || vec![interval(1.0), interval(2.0)]);
        assert!(!file.failed);
        assert_eq!(HistoryFile::open(&path, 0.0).1.len(), 2, "nothing is missing");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_full_disk_leaves_no_rest_and_a_device_is_refused() {
        assert_eq!(append(Path::new("/dev/full"), &interval(1.0)).unwrap_err().kind(), io::ErrorKind::StorageFull);
        let (mut file, known) = HistoryFile::open(Path::new("/dev/full"), 0.0);
        assert!(known.is_empty() && file.failed);
        file.add(&interval(1.0), Vec::new);
        assert!(file.lines.is_none());
    }

    #[test]
    fn the_file_is_bounded() {
        let directory = directory("bounded");
        let path = directory.join("history");
        let (mut file, _) = HistoryFile::open(&path, 0.0);
        let kept =
            |last: usize| (last.saturating_sub(MAX_INTERVALS - 1)..=last).map(|at| interval(at as f64)).collect();
        for at in 0..4 * MAX_INTERVALS {
            file.add(&interval(at as f64), || kept(at));
        }
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 2 * MAX_INTERVALS, "{lines}");
        assert_eq!(HistoryFile::open(&path, 0.0).1.len(), MAX_INTERVALS);
        fs::remove_dir_all(directory).unwrap();
    }
}
