//! What the tests that need a real server share: a private PostgreSQL, the pooler as a process, a proxy that
//! makes faults, and a client that sends whatever bytes it is told.
//!
//! Nothing sleeps for luck: every wait polls a condition and fails at a deadline, saying what it waited for.
#![allow(dead_code, clippy::unwrap_used, missing_docs)] // each test file uses a part; a test may panic

pub mod cluster;
pub mod copy;
pub mod pki;
pub mod pooler;
pub mod proxy;
pub mod raw;
pub mod secured;
pub mod sequences;

use std::fs::OpenOptions;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The longest any single wait of a test may take. Generous: the machine may be busy with other builds.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Polls `condition` until it gives a value; panics with `what` at the deadline.
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_or_tell(what, || {}, condition)
}

/// The same; `tell` prints what explains it when it is given up.
#[track_caller]
#[allow(dead_code)] // for those that wait for much at once
pub fn wait_or_tell<T>(what: &str, tell: impl FnOnce(), mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        if start.elapsed() >= DEADLINE {
            tell();
            panic!("gave up after {DEADLINE:?} waiting for {what}");
        }
        pause();
    }
}

/// Between two looks at a condition; the one place where a test sleeps.
#[allow(clippy::disallowed_methods)]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// Says that the calling test leaves something out, and why; `make test` repeats these lines at its end.
/// Use it as `return skip("...")`.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {reason}\n", thread.name().unwrap_or("test"));
    eprint!("{line}");
    if let Ok(path) = std::env::var("PGSLUICE_SKIPS") {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// A directory of its own under the system's temporary directory, removed on drop.
///
/// Not under `target/`: a PostgreSQL that runs as nobody must be able to search every parent, and a socket's path
/// must stay under 108 bytes.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new(purpose: &str) -> Self {
        loop {
            let path = std::env::temp_dir().join(format!("pgsluice-{purpose}-{}-{}", std::process::id(), unique()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Self(path),
                // Left by a run that was killed, and the number of its process has come round.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => panic!("{}: {e}", path.display()),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A number no other call in this process got.
pub fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The seed of a run without `PGSLUICE_SEED`: always the same, so that a change is judged by what it changed.
const FIXED_SEED: u64 = 20_261_122;

/// The seed of this run's randomness: `PGSLUICE_SEED` (`clock` for another one each time), else a fixed one. Printed,
/// so that a failure can be repeated.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = match std::env::var("PGSLUICE_SEED").as_deref() {
            Ok("clock") => clock(),
            Ok(number) => number.parse().expect("PGSLUICE_SEED is a number, or clock"),
            Err(_) => FIXED_SEED,
        };
        eprintln!("seed: PGSLUICE_SEED={seed}");
        seed
    })
}

/// A small generator (SplitMix64): the same seed gives the same faults.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// A TCP port that was free a moment ago, below the range that outgoing connections are given (32768 and up), so
/// that none of those takes it meanwhile. Whoever binds it must still be ready to try another.
pub fn free_port() -> u16 {
    let mut random = Random::new(
        u64::from(std::process::id()) << 32
            ^ unique()
            ^ SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64,
    );
    wait_for("a free TCP port", || {
        let port = 12000 + random.below(20000) as u16;
        (claim(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()).then_some(port)
    })
}

/// Keeps other tests, of other checkouts too, from being given this port while this process lives: else one whose own
/// program cannot bind it finds the other's listening there, and takes it for its own.
fn claim(port: u16) -> bool {
    static CLAIMED: Mutex<Vec<std::fs::File>> = Mutex::new(Vec::new());
    let dir = std::env::temp_dir().join("pgsluice-ports");
    let _ = std::fs::create_dir_all(&dir);
    // Where that cannot be (the directory is another user's), without.
    let Ok(file) = OpenOptions::new().create(true).append(true).open(dir.join(port.to_string())) else { return true };
    let free = file.try_lock().is_ok();
    if free {
        CLAIMED.lock().unwrap().push(file);
    }
    free
}

/// `127.0.0.1:port`.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Sends a signal by name ("TERM", "KILL", "HUP") with the shell's own kill: no `unsafe`, and no kill(1), which slim
/// systems lack.
pub fn signal(pid: u32, name: &str) {
    assert!(try_signal(pid, name), "kill -{name} {pid}");
}

/// As [`signal`]; false when there is no such process.
pub fn try_signal(pid: u32, name: &str) -> bool {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "kill -$0 $1 2>/dev/null", name, &pid.to_string()]);
    shell.status().is_ok_and(|status| status.success())
}
