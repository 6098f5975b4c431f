//! Who holds the pool: the text that a client which waited in vain is told.

use super::Pool;
use crate::net::clock::now_us;
use crate::server::ServerState;

impl Pool {
    /// One sentence on what the servers were doing, and one on what to do about it. No SQL, no names of clients.
    pub fn holders(&self) -> (String, String) {
        let now = now_us();
        let (mut idle_tx, mut running, mut between, mut other) = (Kind::default(), Kind::default(), Kind::default(), 0);
        let servers = self.servers();
        for s in &servers {
            let age = now.saturating_sub(s.tx_since_us());
            match (s.state(), s.tx()) {
                (ServerState::Active, b'T' | b'E') => idle_tx.add(age),
                (ServerState::Active, b'Q') => running.add(age),
                (ServerState::Active, _) => between.add(age),
                _ => other += 1,
            }
        }
        let session = self.settings.pool_mode == crate::config::PoolMode::Session;
        let mut parts = Vec::new();
        running.say("running a query", &mut parts);
        idle_tx.say("idle in transaction", &mut parts);
        between.say(if session { "held by a session" } else { "kept by pinned clients" }, &mut parts);
        if other > 0 {
            parts.push(format!("{other} being cleaned or opened"));
        }
        if parts.is_empty() {
            parts.push("none open yet".to_owned());
        }
        let detail = format!(
            "{} of {} server connections of {}/{}: {}.",
            servers.len(),
            self.settings.pool_size,
            self.database,
            self.user,
            parts.join(", ")
        );
        let hint = if idle_tx.n * 2 > servers.len() {
            "Most are idle in transaction: move slow work (HTTP calls, e-mail) out of atomic() blocks; SHOW SERVERS lists them."
        } else if between.n * 2 > servers.len() && session {
            "Most are kept by sessions: use pool_mode = \"transaction\", close idle connections, or raise pool_size."
        } else if between.n * 2 > servers.len() {
            "Most are kept by clients with session state; SHOW CLIENTS names the reason of each (column pinned)."
        } else {
            "Queries hold them: mend the slow ones (SHOW FINGERPRINTS, SHOW NPLUSONE) or raise pool_size."
        };
        (detail, hint.to_owned())
    }
}

#[derive(Default)]
struct Kind {
    n: usize,
    oldest_us: u64,
}

impl Kind {
    fn add(&mut self, age_us: u64) {
        self.n += 1;
        self.oldest_us = self.oldest_us.max(age_us);
    }

    fn say(&self, what: &str, parts: &mut Vec<String>) {
        if self.n > 0 {
            parts.push(format!("{} {what} (longest {:.1} s)", self.n, self.oldest_us as f64 / 1e6));
        }
    }
}
