//! Passwords that a program prints (`password_command`): tokens of clouds, which are of use for minutes.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::Target;
use crate::auth::Secret;
use crate::config::PasswordCommand;
use crate::net::clock::now_us;

/// The program must be done within this.
const LIMIT: Duration = Duration::from_secs(30);
/// Longest password (`PG_MAX_AUTH_TOKEN_LENGTH`, `src/include/libpq/auth.h`).
const MAX_PASSWORD: u64 = 65_535;

/// A program, and what it printed last.
pub struct Printed {
    command: PasswordCommand,
    /// And until when it is good (monotonic microseconds). Held while the program runs: the others wait for the same.
    last: Mutex<Option<(Secret, u64)>>,
}

impl Printed {
    /// It has not run yet.
    pub fn new(command: PasswordCommand) -> Printed {
        Printed { command, last: Mutex::new(None) }
    }

    /// The password, and whether the program ran for it; else it is what was printed last. Cancel safe: the program is ended.
    ///
    /// # Errors
    /// It gave none; in words, without anything that it said.
    pub(super) async fn get(&self, target: &Target) -> Result<(Secret, bool), String> {
        let mut last = self.last.lock().await;
        if let Some((secret, _)) = last.as_ref().filter(|(_, until)| now_us() < *until) {
            return Ok((secret.clone(), false));
        }
        *last = None;
        let printed = tokio::time::timeout(LIMIT, self.run(target)).await;
        let printed = printed.unwrap_or_else(|_| Err(format!("it is not done after {} s", LIMIT.as_secs())));
        let secret = printed.map_err(|why| format!("password_command: {why}; run it by hand to see what it says"))?;
        *last = Some((secret.clone(), now_us() + self.command.ttl.as_micros() as u64));
        Ok((secret, true))
    }

    /// A server did not take it: the next login has another one printed.
    pub(super) fn forget(&self) {
        // Where it is held a new one is on its way.
        if let Ok(mut last) = self.last.try_lock() {
            *last = None;
        }
    }

    /// Nobody reads what it has to say: it may be about the password.
    async fn run(&self, target: &Target) -> Result<Secret, String> {
        let (program, arguments) = self.command.argv.split_first().ok_or("it is empty")?;
        let mut child = Command::new(program)
            .args(arguments)
            .env("PGHOST", &target.host)
            .env("PGPORT", target.port.to_string())
            .env("PGUSER", &target.user)
            .env("PGDATABASE", &target.dbname)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("it cannot be started: {e}"))?;
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD as usize + 2));
        if let Some(output) = child.stdout.take() {
            let read = output.take(MAX_PASSWORD + 2).read_to_end(&mut text).await;
            read.map_err(|e| format!("its output cannot be read: {e}"))?;
        }
        let bad = || Err(format!("it must print one line of at most {MAX_PASSWORD} bytes"));
        if text.len() as u64 > MAX_PASSWORD + 1 {
            return bad();
        }
        let status = child.wait().await.map_err(|e| e.to_string())?;
        if !status.success() {
            return Err(format!("it ended with {status}"));
        }
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let password = std::str::from_utf8(text).map_err(|_| "what it prints is not UTF-8")?;
        if password.is_empty() || password.len() as u64 > MAX_PASSWORD || password.contains(['\0', '\n']) {
            return bad();
        }
        Ok(Secret::Plain(password.to_owned()))
    }
}
