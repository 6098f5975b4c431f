//! A PostgreSQL with TLS, and poolers that use it.

use std::fs;
use std::sync::Arc;

use rustls::ClientConfig;

use super::cluster::{self, Cluster, DATABASE, PASSWORD};
use super::pki::{Ca, Pair, client_config};
use super::pooler::Setup;
use super::{TempDir, skip};

/// `app` by TLS only, `plainuser` without only, `md5user` with a certificate of a client only.
const HBA: &str = "\
local all postgres trust
host all postgres all trust
hostssl all,replication app all scram-sha-256
hostnossl all plainuser all password
hostssl all md5user all md5 clientcert=verify-ca
";

/// A PostgreSQL with TLS; `None` where it was built without.
pub struct Secured {
    pub cluster: Cluster,
    pub ca: Ca,
    /// Removed with it: a server that starts again reads its file again.
    #[expect(unused, reason = "held for its drop")]
    hba: TempDir,
}

pub fn secured(pair: impl Fn(&Ca) -> Pair) -> Option<Secured> {
    secured_with(pair, &[])
}

/// With more settings, such as `max_connections=20`.
pub fn secured_with(pair: impl Fn(&Ca) -> Pair, more: &[&str]) -> Option<Secured> {
    if !cluster::shared().has_tls() {
        skip("this PostgreSQL was built without TLS");
        return None;
    }
    let (ca, dir) = (Ca::new(), TempDir::new("hba"));
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let file = dir.path().join("pg_hba.conf");
    fs::write(&file, HBA).unwrap();
    let mut options = pair(&ca).options().to_vec();
    options.push(format!("hba_file={}", file.display()));
    options.push(format!("ssl_ca_file={}", ca.file().display()));
    let options: Vec<&str> = options.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Some(Secured { cluster: Cluster::start(&options), ca, hba: dir })
}

/// One section for each of these: name, host, other lines.
pub fn configuration(port: u16, databases: &[(&str, &str, String)]) -> String {
    let mut text = String::new();
    for user in ["app", "plainuser", "md5user"] {
        text.push_str(&format!("[users.{user}]\npassword = \"{PASSWORD}\"\n"));
    }
    for (name, host, lines) in databases {
        text.push_str(&format!(
            "[databases.{name}]\nhost = \"{host}\"\nport = {port}\ndbname = \"{DATABASE}\"\n{lines}\n"
        ));
    }
    text
}

pub fn tls_mode(mode: &str, ca: Option<&Ca>) -> String {
    let ca = ca.map_or_else(String::new, |ca| format!("\nserver_tls_ca_file = \"{}\"", ca.file().display()));
    format!("server_tls_mode = \"{mode}\"{ca}")
}

/// TLS on both sides, insisted on, with these lines for the database `app`; and how a client asks for it.
pub fn both_sides(pg: &Secured, lines: &str) -> (Setup, Arc<ClientConfig>) {
    let lines = format!("{}\n{lines}", tls_mode("verify-full", Some(&pg.ca)));
    let text = configuration(pg.cluster.port(), &[(DATABASE, "localhost", lines)]);
    let own = pg.ca.server(&["localhost"]);
    let setup = Setup::toml(&format!("stats_users = [\"app\"]\n{text}"))
        .env("PGSLUICE_CLIENT_TLS_CERT_FILE", &own.cert.display().to_string())
        .env("PGSLUICE_CLIENT_TLS_KEY_FILE", &own.key.display().to_string())
        .env("PGSLUICE_CLIENT_TLS_MODE", "require");
    (setup, client_config(Some(&pg.ca.file()), None, &[b"postgresql"]))
}
