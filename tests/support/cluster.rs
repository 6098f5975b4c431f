//! A private PostgreSQL for a test process: made in a second, on a socket of its own, gone with the process.
//!
//! * Binaries: `tools/postgres.sh` finds or fetches them; `PG_BIN` chooses (so `make test` runs on two versions).
//! * `initdb` runs once for each version, into a template under `target/tmp` guarded by a lock file; a cluster is a
//!   copy of it (50 ms instead of 700).
//! * PostgreSQL refuses to run as root, so as root it runs as nobody (65534): that user exists in `/etc/passwd`
//!   everywhere, which initdb demands.
//! * A watchdog shell holds the read end of a pipe: when the test process ends in any way, the pipe closes and the
//!   watchdog ends the server and removes the directory. (`PR_SET_PDEATHSIG` would fire when the *thread* that
//!   started the server ends, that is with the first test.)
//!
//! Users, all with the database `app`: `app`/`secret` (SCRAM), `md5user`/`secret` (md5), `plainuser`/`secret`
//! (clear text), `trustuser` (no password), and the superuser `postgres` (no password).

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock};

use super::{TempDir, free_port, local, raw, signal, try_signal, wait_for};

/// The password of every user that has one.
pub const PASSWORD: &str = "secret";
/// The database that the users share.
pub const DATABASE: &str = "app";

pub const NOBODY: u32 = 65534;

const ROLES: &str = "\
CREATE ROLE app LOGIN PASSWORD 'secret'
CREATE ROLE plainuser LOGIN PASSWORD 'secret'
CREATE ROLE trustuser LOGIN
SET password_encryption = 'md5'
CREATE ROLE md5user LOGIN PASSWORD 'secret'
CREATE DATABASE app OWNER app
";

const HBA: &str = "\
local all postgres,trustuser trust
host  all postgres,trustuser 127.0.0.1/32 trust
local all md5user md5
host  all md5user 127.0.0.1/32 md5
local all plainuser password
host  all plainuser 127.0.0.1/32 password
local all all scram-sha-256
host  all all 127.0.0.1/32 scram-sha-256
host  replication all 127.0.0.1/32 scram-sha-256
";

/// Speed over durability: nothing here outlives the test.
const SETTINGS: &str = "\
fsync = off
synchronous_commit = off
full_page_writes = off
shared_buffers = 16MB
max_connections = 300
max_prepared_transactions = 10
autovacuum = off
wal_level = minimal
max_wal_senders = 0
log_line_prefix = '%m [%p] %u@%d '
log_connections = on
";

/// A running PostgreSQL.
pub struct Cluster {
    dir: TempDir,
    bin: PathBuf,
    port: u16,
    options: Vec<String>,
    server: Mutex<Option<Server>>,
}

struct Server {
    child: Child,
    watchdog: Child,
    /// Closed (with the process, at the latest): the watchdog acts. A line written: it leaves.
    leash: Option<ChildStdin>,
}

/// The cluster that all tests of this process share. Tests that stop or restart it make their own.
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start(&[]))
}

impl Cluster {
    /// Starts a cluster; `options` are settings such as `max_connections=20`.
    pub fn start(options: &[&str]) -> Self {
        let bin = binaries().to_owned();
        let dir = TempDir::new("pg");
        give_away(dir.path());
        let data = dir.path().join("data");
        run(Command::new("cp").arg("-a").arg(template()).arg(&data));
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut cluster = Self { dir, bin, port: 0, options, server: Mutex::new(None) };
        // The port may be taken between the look and the bind.
        for _ in 0..5 {
            cluster.port = free_port();
            if cluster.launch() {
                return cluster;
            }
        }
        panic!("PostgreSQL does not start:\n{}", cluster.log());
    }

    /// The directory of the Unix socket; its port is [`Self::port`].
    pub fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> SocketAddr {
        local(self.port)
    }

    /// `postgres://user:secret@127.0.0.1:port/app`.
    pub fn url(&self, user: &str) -> String {
        format!("postgres://{user}:{PASSWORD}@127.0.0.1:{}/{DATABASE}", self.port)
    }

    /// The major version, for what differs between servers.
    pub fn version(&self) -> u32 {
        let text = fs::read_to_string(self.dir.path().join("data/PG_VERSION")).unwrap();
        text.trim().parse().unwrap()
    }

    /// Whether the server was built with TLS (the embedded one was not).
    pub fn has_tls(&self) -> bool {
        let output = Command::new(self.bin.join("pg_config")).arg("--configure").output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("openssl")
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A connection as the superuser, by the Unix socket.
    pub fn connect(&self) -> raw::Client {
        let mut client = raw::Client::connect_unix(&self.socket_dir().join(format!(".s.PGSQL.{}", self.port))).unwrap();
        client.login("postgres", "", DATABASE).expect("superuser login");
        client
    }

    /// Runs SQL as the superuser in the database `app`; the rows as psql -At prints them: `|` between columns, a
    /// line per row. Panics when the server objects.
    pub fn psql(&self, sql: &str) -> String {
        match self.connect().simple(sql) {
            Ok(rows) => raw::text(&rows),
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    /// The binary of a client program, such as "psql" or "pgbench".
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Backends of ordinary clients in `database`, other than the one that asks.
    pub fn backends(&self, database: &str) -> usize {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' \
             AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        );
        self.psql(&sql).parse().unwrap()
    }

    /// Ends one backend as an administrator would: its client sees 57P01.
    pub fn kill_backend(&self, pid: i32) {
        assert_eq!(self.psql(&format!("SELECT pg_terminate_backend({pid})")), "t", "no backend {pid}");
    }

    /// Fast shutdown: sessions are ended with 57P01. The data stay; [`Self::launch_again`] starts it anew.
    pub fn stop(&self) {
        self.end("INT");
    }

    /// As a crash of the machine: clients see the connection close without a word.
    pub fn crash(&self) {
        self.end("QUIT");
    }

    /// Starts a stopped cluster on the same port.
    pub fn launch_again(&self) {
        assert!(self.launch(), "PostgreSQL does not start again:\n{}", self.log());
    }

    /// Stops and starts.
    pub fn restart(&self) {
        self.stop();
        self.launch_again();
    }

    fn end(&self, name: &str) {
        if let Some(mut server) = self.server().take() {
            signal(server.child.id(), name);
            wait_for("PostgreSQL to stop", || server.child.try_wait().unwrap());
            server.release();
        }
    }

    /// A test that panicked while holding the lock must not hide behind "poisoned".
    fn server(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// False when the server ended instead of becoming ready.
    fn launch(&self) -> bool {
        let mut server = self.server();
        assert!(server.is_none(), "already running");
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = as_server(&self.bin.join("postgres"), self.dir.path());
        command.arg("-D").arg(self.dir.path().join("data")).arg("-k").arg(self.dir.path());
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        for option in &self.options {
            command.arg("-c").arg(option);
        }
        // stdout and stderr must not be the test's: nextest waits for them to close.
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        *server = Some(Server::guard(child, self.dir.path()));
        let socket = self.dir.path().join(format!(".s.PGSQL.{}", self.port));
        wait_for("PostgreSQL to accept connections", || {
            let running = server.as_mut().expect("just set");
            if running.child.try_wait().unwrap().is_some() {
                server.take().expect("just seen").release();
                return Some(false);
            }
            let mut client = raw::Client::connect_unix(&socket).ok()?;
            client.login("postgres", "", "postgres").ok().map(|()| true)
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Without a panic of its own: this may run while a test fails.
        if let Some(mut server) = self.server().take() {
            try_signal(server.child.id(), "QUIT");
            let _ = server.child.wait();
            server.release();
        }
    }
}

impl Server {
    fn guard(child: Child, dir: &Path) -> Self {
        // A group of its own: Ctrl-C must not end the watchdog before its work.
        let script = "read _ && exit; kill -QUIT $0 2>/dev/null; \
                      n=0; while kill -0 $0 2>/dev/null && [ $n -lt 20 ]; do sleep 0.1; n=$((n+1)); done; rm -rf \"$1\"";
        let mut watchdog = Command::new("sh")
            .args(["-c", script, &child.id().to_string()])
            .arg(dir)
            .process_group(0)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let leash = watchdog.stdin.take();
        Self { child, watchdog, leash }
    }

    /// Tells the watchdog that its server is gone (its pid may soon be another's).
    fn release(mut self) {
        if let Some(mut leash) = self.leash.take() {
            let _ = leash.write_all(b"done\n");
        }
        let _ = self.watchdog.wait();
    }
}

/// The directory of the server's binaries. Panics when there are none and none can be fetched: these tests are the
/// heart of the suite, not an option.
fn binaries() -> &'static Path {
    static BINARIES: OnceLock<PathBuf> = OnceLock::new();
    BINARIES.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/postgres.sh");
        let output = Command::new(&script).stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "no PostgreSQL: set PG_BIN, or see tools/postgres.sh");
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    })
}

/// The data directory that clusters are copied from, made by whoever comes first.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let version = Command::new(binaries().join("postgres")).arg("--version").output().unwrap().stdout;
        let version: String =
            String::from_utf8(version).unwrap().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
        // The settings are part of the name: a change of them makes another template.
        let recipe =
            [ROLES, HBA, SETTINGS].concat().bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31) + u32::from(byte));
        let home = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(home).unwrap();
        let path = home.join(format!("pg-template-{version}-{recipe:08x}"));
        let lock = File::create(home.join("pg-template.lock")).unwrap();
        lock.lock().unwrap();
        if !path.exists() {
            make_template(&path);
        }
        path
    })
}

fn make_template(path: &Path) {
    let scratch = TempDir::new("initdb");
    give_away(scratch.path());
    let data = scratch.path().join("data");
    run(as_server(&binaries().join("initdb"), scratch.path()).arg("-D").arg(&data).args([
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C",
        "--no-sync",
        "-N",
        "--wal-segsize=1",
    ]));
    let mut settings = File::options().append(true).open(data.join("postgresql.conf")).unwrap();
    settings.write_all(SETTINGS.as_bytes()).unwrap();
    fs::write(data.join("pg_hba.conf"), HBA).unwrap();
    let mut single = as_server(&binaries().join("postgres"), scratch.path())
        .arg("--single")
        .arg("-D")
        .arg(&data)
        .arg("postgres")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    single.stdin.take().expect("piped").write_all(ROLES.as_bytes()).unwrap();
    assert!(single.wait().unwrap().success(), "postgres --single failed");
    // Copied beside, then renamed: half a template must never be seen.
    let copy = path.with_extension("new");
    let _ = fs::remove_dir_all(&copy);
    run(Command::new("cp").arg("-a").arg(&data).arg(&copy));
    fs::rename(&copy, path).unwrap();
}

/// A command that runs as the unprivileged user when we are root. `dir` becomes its working directory: the
/// checkout may be closed to that user.
fn as_server(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).env_remove("PGDATA").env_remove("PGOPTIONS").env("LC_ALL", "C").stdin(Stdio::null());
    if root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Makes a directory the server user's own.
fn give_away(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    if root() {
        chown(dir, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

pub fn root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").map(|own| own.uid() == 0).unwrap_or(false)
}

/// Runs to the end; its words are shown when it fails.
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
