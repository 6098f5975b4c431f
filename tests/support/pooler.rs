//! The pooler as a process: the binary under test with a configuration, its log, its metrics, its end.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use super::cluster::{Cluster, DATABASE, PASSWORD};
use super::{DEADLINE, TempDir, free_port, local, raw, signal, wait_for};

/// A running pgsluice; killed on drop.
pub struct Pooler {
    child: Child,
    port: u16,
    http_port: u16,
    log: Arc<Mutex<Vec<String>>>,
    dir: TempDir,
}

/// How to start one.
#[derive(Clone, Default)]
pub struct Setup {
    /// Text of the configuration file, without the addresses to listen on; `None` runs by environment alone.
    pub toml: Option<String>,
    /// Environment variables besides the addresses.
    pub environment: Vec<(String, String)>,
    /// A directory for a Unix socket besides the TCP port; libpq finds it by the directory and that port.
    pub socket_dir: Option<PathBuf>,
    /// Other arguments after `run`.
    pub arguments: Vec<String>,
}

impl Setup {
    /// By environment alone, as the image is used: `DATABASE_URL` of `user`.
    pub fn url(cluster: &Cluster, user: &str) -> Self {
        Self::default().env("DATABASE_URL", &cluster.url(user))
    }

    /// By a configuration file.
    pub fn toml(text: &str) -> Self {
        Self { toml: Some(text.to_owned()), ..Self::default() }
    }

    /// And listens in a directory.
    pub fn unix(mut self, dir: &Path) -> Self {
        self.socket_dir = Some(dir.to_owned());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts on free ports and waits until it serves. Panics with the log when it ends instead.
    pub fn start(&self) -> Pooler {
        // Another process may take a port between the look and the bind.
        for _ in 0..4 {
            let mut pooler = self.launch();
            match pooler.ready() {
                Ok(()) => return pooler,
                Err(log) if log.contains("ddress already in use") => {}
                Err(log) => panic!("pgsluice ended at its start:\n{log}"),
            }
        }
        panic!("no free port");
    }

    /// Starts what is expected to refuse its configuration; exit status and log.
    pub fn fails(&self) -> (ExitStatus, String) {
        let mut pooler = self.launch();
        let status = wait_for("pgsluice to refuse its configuration", || pooler.child.try_wait().unwrap());
        pooler.settle();
        (status, pooler.log())
    }

    fn launch(&self) -> Pooler {
        let dir = TempDir::new("pooler");
        let (port, http_port) = (free_port(), free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
        command.arg("run").args(&self.arguments).current_dir(dir.path());
        // Nothing of the developer's own surroundings.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("PGSLUICE_") || name.starts_with("PG") || name == "DATABASE_URL" {
                command.env_remove(name);
            }
        }
        let unix = self.socket_dir.iter().map(|dir| format!(",{}", dir.display()));
        command.env("PGSLUICE_LISTEN", unix.fold(local(port).to_string(), |tcp, unix| tcp + &unix));
        command.env("PGSLUICE_HTTP_LISTEN", local(http_port).to_string());
        // `{port}` is the port of this start.
        let filled = |value: &String| value.replace("{port}", &port.to_string());
        command.envs(self.environment.iter().map(|(name, value)| (name, filled(value))));
        if let Some(toml) = &self.toml {
            let path = dir.path().join("pgsluice.toml");
            fs::write(&path, toml).unwrap();
            command.arg("--config").arg(path);
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start pgsluice");
        let log = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take().expect("piped"), log.clone());
        collect(child.stderr.take().expect("piped"), log.clone());
        Pooler { child, port, http_port, log, dir }
    }
}

impl Pooler {
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> SocketAddr {
        local(self.port)
    }

    pub fn http_address(&self) -> SocketAddr {
        local(self.http_port)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its configuration file lies (`pgsluice.toml`), for tests of reload.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// A raw client logged in as `user` with the usual password, database `app`.
    pub fn client(&self, user: &str) -> raw::Client {
        self.try_client(user, PASSWORD, DATABASE)
            .unwrap_or_else(|error| panic!("login as {user}: {error}\n{}", self.log()))
    }

    pub fn try_client(&self, user: &str, password: &str, database: &str) -> Result<raw::Client, raw::Error> {
        raw::Client::open(self.address(), user, password, database)
    }

    /// Everything it wrote so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits for a line with `text`; the line.
    pub fn wait_for_log(&self, text: &str) -> String {
        let seen = || self.log.lock().unwrap().iter().find(|line| line.contains(text)).cloned();
        wait_for(&format!("a log line with {text:?}; log:\n{}", self.log()), seen)
    }

    /// GET of a path: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        http_get(self.http_address(), path).unwrap_or_else(|error| panic!("GET {path}: {error}\n{}", self.log()))
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        let (status, body) = self.get("/metrics");
        assert_eq!(status, 200, "/metrics: {body}");
        body
    }

    /// The sum over all series of a metric whose labels contain every one of `labels` (`kind="n_plus_one"`);
    /// 0 when there is none.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        sum(&self.metrics(), name, labels)
    }

    /// A signal by name: "TERM", "HUP", "INT".
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Sends the signal and waits for the end.
    pub fn stop(&mut self, name: &str) -> ExitStatus {
        self.signal(name);
        self.wait()
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let status = wait_for("pgsluice to end", || self.child.try_wait().unwrap());
        self.settle();
        status
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn ready(&mut self) -> Result<(), String> {
        wait_for("pgsluice to listen", || {
            if self.child.try_wait().unwrap().is_some() {
                self.settle();
                return Some(Err(self.log()));
            }
            TcpStream::connect(self.address()).ok().map(|_| Ok(()))
        })
    }

    /// After its end: until the readers of its output have read all.
    fn settle(&self) {
        wait_for("the end of pgsluice's output", || (Arc::strong_count(&self.log) == 1).then_some(()));
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of pgsluice ---\n{}", self.log());
        }
    }
}

fn collect(output: impl Read + Send + 'static, log: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            log.lock().unwrap().push(line);
        }
    });
}

/// GET by hand: HTTP/1.1 with `Connection: close`, so that the end of the body is the end of the stream.
pub fn http_get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("no head in the answer"))?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other("no status in the answer"))?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { unchunk(body) } else { body.to_owned() }))
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).expect("length of a chunk");
        whole.push_str(&rest[..length]);
        if length == 0 {
            break;
        }
        body = &rest[length + 2..];
    }
    whole
}

/// Adds up the series of `name` that carry all `labels` in an exposition text.
pub fn sum(exposition: &str, name: &str, labels: &[&str]) -> f64 {
    let value = |line: &str| -> Option<f64> {
        let rest = line.strip_prefix(name)?;
        let own = if let Some(rest) = rest.strip_prefix('{') { rest.rsplit_once('}')?.0 } else { "" };
        if !(rest.starts_with('{') || rest.starts_with(' ')) || !labels.iter().all(|label| own.contains(label)) {
            return None;
        }
        let tail = rest.rsplit_once('}').map_or(rest, |(_, tail)| tail);
        tail.split_whitespace().next()?.parse().ok()
    };
    exposition.lines().filter_map(value).sum()
}
