//! What is read again while clients go on, by SIGHUP or the console's RELOAD: certificates, keys and CAs, rules and maps,
//! users and their secrets. New logins are judged by it; sessions stay. A part that cannot be used stays as it was, whole.
//! One reading at a time, whoever asks: files are opened only when the reading before is in force.

use std::sync::{Arc, PoisonError};

use super::Process;
use crate::config::{AuthMethod, Config, Environment};

impl Process {
    /// Reads everything again and logs what came of it. Reads files, and waits for who does so already: not for a worker's
    /// thread.
    ///
    /// # Errors
    /// What could not be used and is as it was, in words without secrets.
    pub fn reload(&self) -> Result<(), String> {
        let _alone = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failed = Vec::new();
        let mut note = |what: &str, done: Result<String, String>| match done {
            Ok(said) => tracing::info!("reload: {said}"),
            Err(error) => {
                tracing::error!(error, "reload: {what} cannot be used; the old ones stay in force");
                failed.push(format!("{what} cannot be used: {error}"));
            }
        };
        if self.tls.any() {
            let said = "certificates, keys and CAs were read again".to_owned();
            note("a TLS file", self.tls.reload().map(|()| said).map_err(|e| e.to_string()));
        }
        if self.config.auth.method == AuthMethod::Hba {
            note("the rules", self.reload_rules());
        }
        note("the users", self.reload_users());
        tracing::info!("reload: other settings need a restart");
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }

    fn reload_rules(&self) -> Result<String, String> {
        let hba = self.hba.load().reread().map_err(|e| e.to_string())?;
        let said = format!("auth_hba_file was read again ({} rules)", hba.rules.iter().count());
        self.hba.store(Arc::new(hba));
        Ok(said)
    }

    /// Users and secrets, of clients and for servers, from wherever the configuration has them. The whole configuration must
    /// be right for it, so that half of a change is never taken.
    fn reload_users(&self) -> Result<String, String> {
        let fresh =
            Config::load(self.config.source.as_deref(), &Environment::of_process()).map_err(|e| e.to_string())?;
        self.auth.learn_users(&fresh.auth.users);
        let users = fresh.auth.users.len();
        let changed = self.pools.renew(&fresh);
        Ok(format!("users were read again ({users}; {changed} of them new, changed or gone)"))
    }
}
