//! `auth_hba_file` and `auth_ident_file`: read when the configuration is, and again by [`HbaConfig::reread`].

use std::io;
use std::path::{Path, PathBuf};

use super::secret_files::read_limited;
use super::{AuthMethod, ClientTls, ConfigError, Problem, TlsMode};
use crate::auth::hba::{Connection, IdentMaps, Rules, Source};

/// Longest file of rules, maps or names.
const MAX_FILE: u64 = 1 << 20;
/// Most files of an `include_dir`.
const MAX_LISTED: usize = 1_000;

/// Rules and maps, and where they come from.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct HbaConfig {
    /// `auth_hba_file`.
    pub file: Option<PathBuf>,
    /// `auth_ident_file`.
    pub ident_file: Option<PathBuf>,
    /// What the first says; empty unless `auth_type` is `hba`.
    pub rules: Rules,
    /// What the second says.
    pub maps: IdentMaps,
    /// Clients are asked for certificates, so that rules may look at them.
    pub certificates: bool,
}

/// Files as they are.
pub struct Disk;

impl Source for Disk {
    fn read(&self, path: &Path) -> io::Result<String> {
        read_limited(path, MAX_FILE)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if !path.is_dir() {
                files.push(path);
            }
            if files.len() > MAX_LISTED {
                return Err(io::Error::other(format!("it holds more than {MAX_LISTED} files")));
            }
        }
        Ok(files)
    }
}

impl HbaConfig {
    /// Files that are named; the empty name is none.
    pub(super) fn named(file: &Path, ident_file: &Path) -> HbaConfig {
        let given = |path: &Path| (!path.as_os_str().is_empty()).then(|| path.to_owned());
        HbaConfig { file: given(file), ident_file: given(ident_file), ..HbaConfig::default() }
    }

    /// For SHOW CONFIG.
    pub(super) fn shown(path: &Option<PathBuf>) -> String {
        path.as_ref().map_or_else(String::new, |path| path.display().to_string())
    }

    /// Reads both files; nothing of them is used when anything is wrong.
    pub(super) fn read(&self) -> Result<HbaConfig, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut take = |errors: Vec<_>| problems.extend(errors.into_iter().map(Problem::hba));
        let rules = match &self.file {
            Some(file) => Rules::load(file, &Disk).map_err(&mut take).unwrap_or_default(),
            None => Rules::default(),
        };
        let maps = match &self.ident_file {
            Some(file) => IdentMaps::load(file, &Disk).map_err(&mut take).unwrap_or_default(),
            None => IdentMaps::default(),
        };
        if problems.is_empty() {
            problems.extend(self.unusable(&rules, &maps));
        }
        if problems.is_empty() { Ok(HbaConfig { rules, maps, ..self.clone() }) } else { Err(problems) }
    }

    /// Reads the same files again, for a reload: the old ones go on when the new ones are wrong.
    ///
    /// # Errors
    /// Everything that is wrong, with places and mends.
    pub fn reread(&self) -> Result<HbaConfig, ConfigError> {
        self.read().map_err(|problems| ConfigError::of(problems).expect("read fails with a problem"))
    }

    /// What is possible but probably not meant.
    pub(super) fn warnings(&self, method: AuthMethod, exposed: bool, tls: &ClientTls, warnings: &mut Vec<String>) {
        if method != AuthMethod::Hba {
            if self.file.is_some() || self.ident_file.is_some() {
                warnings.push(format!("auth_type = \"{method}\": auth_hba_file and auth_ident_file are not used"));
            }
            return;
        }
        for rule in self.rules.iter() {
            let place = format!("{}:{}", rule.file.display(), rule.line);
            if exposed && rule.is_open() {
                warnings.push(format!("{place}: trust lets in everybody who reaches the listening address from there"));
            }
            if exposed && rule.is_weak() && tls.mode < TlsMode::Require {
                warnings.push(format!(
                    "{place}: {} lets passwords cross the network without TLS, in the clear or as MD5 hashes that are guessed \
                     fast: write hostssl or scram-sha-256, or set client_tls_mode to require or more",
                    rule.method
                ));
            }
            match rule.connection {
                Connection::HostSsl if !tls.offered() => {
                    warnings
                        .push(format!("{place}: hostssl matches nobody: there is no TLS without client_tls_cert_file"));
                }
                Connection::HostGssEnc => {
                    warnings.push(format!("{place}: hostgssenc matches nobody: there is no GSSAPI encryption"));
                }
                _ => {}
            }
        }
    }
}

impl HbaConfig {
    /// Rules that are well formed and cannot be kept: better said now than to clients.
    fn unusable(&self, rules: &Rules, maps: &IdentMaps) -> Vec<Problem> {
        let has_file = self.ident_file.is_some();
        let mut problems = Vec::new();
        for rule in rules.iter() {
            if rule.client_cert.is_some() && !self.certificates {
                let message = "client certificates can only be checked if a root certificate store is available";
                let help = "set `client_tls_ca_file`, and `client_tls_cert_file` with its key";
                problems.push(Problem::line(&rule.file, rule.line, message).help(help));
            }
            if let Some(map) = rule.map.as_deref().filter(|map| !map.is_empty() && !maps.has(map)) {
                let message = format!("there is no map \"{}\"", map.escape_debug());
                let help = if has_file { "add it to `auth_ident_file`" } else { "set `auth_ident_file`" };
                problems.push(Problem::line(&rule.file, rule.line, message).help(help));
            }
        }
        problems
    }
}
