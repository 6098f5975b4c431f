//! Files that secrets are read from: looked at once in a while, since mounted secrets are exchanged under way.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::{Config, raw};

/// A program that prints a password for logins at the server (`password_command`).
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordCommand {
    /// The program and its arguments; no shell reads them.
    pub argv: Vec<String>,
    /// What it printed is used for so long.
    pub ttl: Duration,
}

/// Tokens of clouds are good for 15 minutes and more.
const DEFAULT_TTL: Duration = Duration::from_secs(600);

impl PasswordCommand {
    /// The command of a section, which stands alone; else the setting at fault and a message.
    pub(super) fn of(section: &raw::Database) -> Result<Option<PasswordCommand>, (&'static str, &'static str)> {
        let ttl = section.password_command_ttl.as_ref().map(|read| read.0);
        let Some(argv) = &section.password_command else {
            let message = "`password_command_ttl` is of no use without `password_command`";
            return ttl.map_or(Ok(None), |_| Err(("password_command_ttl", message)));
        };
        if section.password.is_some() || section.password_file.is_some() || section.password_env.is_some() {
            let message = "keep one of `password_command`, `password`, `password_file` and `password_env`";
            return Err(("password_command", message));
        }
        Ok(Some(PasswordCommand { argv: argv.0.0.clone(), ttl: ttl.unwrap_or(DEFAULT_TTL) }))
    }
}

/// The program alone: arguments may be secrets.
impl std::fmt::Debug for PasswordCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PasswordCommand({:?}, ..)", self.argv.first())
    }
}

/// Longest secret or URL in a file of its own.
const MAX_SECRET: u64 = 64 << 10;
/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What tells one state of a file from another: Kubernetes exchanges a link, others write in place or rename.
type Stamp = (u64, u64, i64, i64, u64);

/// Files with secrets in them, as they were when they were looked at last.
pub struct SecretFiles {
    files: Vec<(PathBuf, Option<Stamp>)>,
    /// The look that is under way.
    look: Option<JoinHandle<Vec<Option<Stamp>>>>,
    stamp: fn(&Path) -> Option<Stamp>,
}

impl SecretFiles {
    /// The files of a configuration, as they are now.
    pub fn of(config: &Config) -> SecretFiles {
        Self::seen_by(&config.secret_files, stamp)
    }

    fn seen_by(paths: &[PathBuf], stamp: fn(&Path) -> Option<Stamp>) -> SecretFiles {
        SecretFiles { files: paths.iter().map(|path| (path.clone(), stamp(path))).collect(), look: None, stamp }
    }

    /// Waits until one of them is another than at the last look. It looks beside the worker, one look at a time: a file
    /// system that hangs stops neither traffic nor signals. Cancel safe.
    pub async fn next_change(&mut self) {
        if self.files.is_empty() {
            return std::future::pending().await;
        }
        loop {
            if self.look.is_none() {
                tokio::time::sleep(LOOK).await;
            }
            let (files, stamp) = (&self.files, self.stamp);
            let look = self.look.get_or_insert_with(|| {
                let paths: Vec<PathBuf> = files.iter().map(|(path, _)| path.clone()).collect();
                tokio::task::spawn_blocking(move || paths.iter().map(|path| stamp(path)).collect())
            });
            // An error says that it panicked, which the log has.
            let seen = look.await.unwrap_or_default();
            self.look = None;
            if self.note(seen) {
                return;
            }
        }
    }

    /// Whether one of them is another than at the last look. One that is gone counts once it is there again.
    fn note(&mut self, seen: Vec<Option<Stamp>>) -> bool {
        let mut changed = false;
        for ((_, known), now) in self.files.iter_mut().zip(seen) {
            if now.is_some() && now != *known {
                *known = now;
                changed = true;
            }
        }
        changed
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let m = std::fs::metadata(path).ok()?;
    Some((m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.len()))
}

/// The text of a file of limited length.
pub(super) fn read_limited(path: &Path, limit: u64) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(std::io::Error::other(format!("it is longer than {limit} bytes")));
    }
    Ok(text)
}

/// A secret in a file of its own; a line feed at the end is not part of it. Errors do not repeat the path: people
/// write the secret itself there.
pub(super) fn read_secret_file(path: &Path) -> Result<String, String> {
    let text = read_limited(path, MAX_SECRET).map_err(|error| format!("the file cannot be read: {error}"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err("the file is empty".to_owned());
    }
    if text.contains('\0') {
        return Err("the file holds a NUL character".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc::{Receiver, channel};
    use std::sync::{Mutex, OnceLock};

    #[test]
    fn every_file_with_a_secret_is_looked_at() {
        let dir = std::env::temp_dir().join(format!("pgsluice-secret-files-{}", std::process::id()));
        fs::create_dir_all(dir.join("one")).unwrap();
        fs::create_dir_all(dir.join("two")).unwrap();
        for name in ["userlist", "user", "one/database", "two/database", "url"] {
            fs::write(dir.join(name), "\"a\" \"first\"\n").unwrap();
        }
        fs::write(dir.join("url"), "postgres://u:p@db/x\n").unwrap();
        // As Kubernetes mounts a secret.
        let _ = fs::remove_file(dir.join("data"));
        symlink(dir.join("one"), dir.join("data")).unwrap();
        let text = "auth_file = \"userlist\"\n[users.app]\npassword_file = \"user\"\n\
                    [databases.app]\npassword_file = \"data/database\"\n";
        let url = dir.join("url").display().to_string();
        let environment: Environment = [("DATABASE_URL_FILE", url.as_str())].into_iter().collect();
        let path = dir.join("pgsluice.toml");
        fs::write(&path, text).unwrap();
        let config = Config::load(Some(&path), &environment).unwrap();
        let mut files = SecretFiles::of(&config);
        let paths: Vec<PathBuf> = files.files.iter().map(|(path, _)| path.clone()).collect();
        assert_eq!(paths.len(), 4);
        let mut changed = || files.note(paths.iter().map(|path| stamp(path)).collect());
        assert!(!changed() && !changed());
        for name in ["userlist", "user", "url"] {
            fs::write(dir.join(name), "\"a\" \"second one\"\n").unwrap();
            assert!(changed() && !changed(), "{name}");
        }
        fs::remove_file(dir.join("data")).unwrap();
        assert!(!changed(), "gone for a moment");
        symlink(dir.join("two"), dir.join("data")).unwrap();
        assert!(changed() && !changed());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[tokio::test]
    async fn a_file_system_that_hangs_stops_nothing_else() {
        static BACK: OnceLock<Mutex<Receiver<()>>> = OnceLock::new();
        let (back, waits) = channel();
        BACK.set(Mutex::new(waits)).unwrap();
        let mut files = SecretFiles {
            files: vec![(PathBuf::from("secret"), None)],
            look: None,
            stamp: |_| {
                let _ = BACK.get()?.lock().ok()?.recv();
                Some((1, 1, 1, 1, 1))
            },
        };
        for _ in 0..2 {
            let hangs = tokio::time::timeout(LOOK * 3 / 2, files.next_change()).await;
            assert!(hangs.is_err() && files.look.is_some(), "the timer runs beside the one look");
        }
        back.send(()).unwrap();
        files.next_change().await;
    }
}
