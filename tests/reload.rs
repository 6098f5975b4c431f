//! Users and their secrets read again: by SIGHUP, and by the console's RELOAD. New logins are judged by the new ones, sessions
//! stay, and a file that cannot be used changes nothing.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::cluster::{self, Cluster, DATABASE, PASSWORD};
use support::pooler::{Pooler, Setup};
use support::{TempDir, raw, wait_for};

struct Place {
    dir: TempDir,
    pooler: Pooler,
}

impl Place {
    /// A userlist with `app`, a user in the file of the configuration, one with a file of her own.
    fn new(cluster: &Cluster) -> Place {
        let dir = TempDir::new("users");
        let place = |name: &str| dir.path().join(name);
        fs::write(place("userlist.txt"), format!("\"app\" \"{PASSWORD}\"\n")).unwrap();
        fs::write(place("secret"), PASSWORD).unwrap();
        let toml = format!(
            "auth_file = \"{}\"\nadmin_users = [\"app\"]\nfailed_login_delay = 0\n[users.md5user]\npassword_file = \"{}\"\n\
             [databases.app]\nhost = \"127.0.0.1\"\nport = {}\n",
            place("userlist.txt").display(),
            place("secret").display(),
            cluster.port()
        );
        let pooler = Setup::toml(&toml).start();
        Place { dir, pooler }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn code(&self, user: &str, password: &str) -> String {
        match self.pooler.try_client(user, password, DATABASE) {
            Ok(_) => "ok".to_owned(),
            Err(error) => error.code().to_owned(),
        }
    }

    /// SIGHUP, until the log has said so once more.
    fn hup(&self) {
        let said = |log: &str| log.matches("other settings need a restart").count();
        let before = said(&self.pooler.log());
        self.pooler.signal("HUP");
        wait_for("the reload", || (said(&self.pooler.log()) > before).then_some(()));
    }
}

#[test]
fn new_passwords_count_for_new_logins_and_sessions_stay() {
    let cluster = Cluster::start(&[]);
    let place = Place::new(&cluster);
    let mut session = place.pooler.client("app");
    assert_eq!(session.value("SELECT 1"), "1");
    assert_eq!(place.code("plainuser", PASSWORD), "28P01", "not known yet");
    assert_eq!(place.code("md5user", PASSWORD), "ok");

    cluster.psql("ALTER ROLE app PASSWORD 'changed'");
    cluster.psql("SET password_encryption = 'md5'; ALTER ROLE md5user PASSWORD 'other'");
    fs::write(place.file("userlist.txt"), format!("\"app\" \"changed\"\n\"plainuser\" \"{PASSWORD}\"\n")).unwrap();
    fs::write(place.file("secret"), "other\n").unwrap();
    place.hup();
    assert_eq!(place.code("app", PASSWORD), "28P01");
    assert_eq!(place.code("plainuser", PASSWORD), "ok");
    assert_eq!(place.code("md5user", PASSWORD), "28P01");
    assert_eq!(place.code("md5user", "other"), "ok");
    assert_eq!(session.value("SELECT 2"), "2", "the session");
    // At the server too: every connection is a new one now.
    cluster.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('app', 'md5user')");
    // A session whose query meets a server at its very end is told so and ends.
    wait_for("a session on a new server", || {
        let mut fresh = place.pooler.try_client("app", "changed", DATABASE).ok()?;
        fresh.simple("SELECT 3").ok()
    });
}

#[test]
fn a_file_that_cannot_be_used_changes_nothing() {
    let place = Place::new(cluster::shared());
    fs::write(place.file("userlist.txt"), "\"app\" \"half\"\n\"broken hunter2\n").unwrap();
    place.hup();
    let line = place.pooler.wait_for_log("the users cannot be used");
    assert!(line.contains("ERROR") && line.contains("userlist.txt:2"), "{line}");
    assert!(!place.pooler.log().contains("hunter2"));
    assert_eq!(place.code("app", PASSWORD), "ok");
    assert_eq!(place.code("app", "half"), "28P01");
    // Nothing of it counts when another part of the configuration is wrong.
    let toml = place.pooler.dir().join("pgsluice.toml");
    let good = fs::read_to_string(&toml).unwrap();
    fs::write(&toml, good.replace("port = ", "prt = ")).unwrap();
    // Only now: the file is looked at once a second as well.
    fs::write(place.file("userlist.txt"), "\"app\" \"half\"\n").unwrap();
    place.hup();
    assert_eq!(place.code("app", "half"), "28P01");
    fs::write(&toml, &good).unwrap();
    place.hup();
    // What the log told may have been a reading that began before.
    wait_for("the new password", || (place.code("app", "half") == "ok").then_some(()));
}

/// It used to end the process, as SIGHUP does where nobody listens for it, when it came within a moment of the first listener.
#[test]
fn a_signal_right_after_the_start_is_heard() {
    for _ in 0..10 {
        Place::new(cluster::shared()).hup();
    }
}

/// A section whose password changes, and one that leads elsewhere now.
#[test]
fn passwords_of_databases_are_for_the_server_they_were_written_for() {
    let cluster = Cluster::start(&[]);
    let toml = |host: &str, password: &str| {
        let port = cluster.port();
        format!(
            "[users.app]\npassword = \"{PASSWORD}\"\n[databases.app]\nhost = \"{host}\"\nport = {port}\nuser = \"plainuser\"\npassword = \"{password}\"\n"
        )
    };
    let place = |toml: String| Place { dir: TempDir::new("users"), pooler: Setup::toml(&toml).start() };
    let place = place(toml("127.0.0.1", "old"));
    assert_eq!(place.code("app", PASSWORD), "28P01", "not the server's");
    let file = place.pooler.dir().join("pgsluice.toml");
    fs::write(&file, toml("localhost", PASSWORD)).unwrap();
    place.hup();
    assert_eq!(place.code("app", PASSWORD), "28P01", "for another host");
    fs::write(&file, toml("127.0.0.1", PASSWORD)).unwrap();
    place.hup();
    wait_for("the new password", || (place.code("app", PASSWORD) == "ok").then_some(()));
}

/// The file of the configuration is a pipe while the console's RELOAD reads it, and has been exchanged by the time it comes to
/// its end: what SIGHUP reads meanwhile must not be undone by it.
#[test]
fn a_reading_that_began_earlier_does_not_win() {
    let place = Place::new(cluster::shared());
    let toml = place.pooler.dir().join("pgsluice.toml");
    let older = fs::read_to_string(&toml).unwrap();
    let mut session = place.pooler.client("app");
    let mut console = place.pooler.try_client("app", PASSWORD, "pgsluice").unwrap();
    fs::remove_file(&toml).unwrap();
    assert!(Command::new("mkfifo").arg(&toml).status().unwrap().success());
    console.send(&raw::query("RELOAD")).unwrap();
    // Opens once there is a reader.
    let mut pipe = fs::OpenOptions::new().write(true).open(&toml).unwrap();
    let next = toml.with_extension("next");
    fs::write(&next, format!("{older}\n[users.newer]\npassword = \"n\"\n")).unwrap();
    fs::rename(&next, &toml).unwrap();
    let read = |log: &str| log.matches("users were read again").count();
    place.pooler.signal("HUP");
    // SIGHUP's reading comes to its end only if it does not wait for the other.
    let early = (0..50).any(|_| {
        assert_eq!(session.value("SELECT 1"), "1", "clients go on");
        session.is_silent(std::time::Duration::from_millis(10)) && read(&place.pooler.log()) > 0
    });
    assert!(!early, "two readings at once");
    pipe.write_all(older.as_bytes()).unwrap();
    drop(pipe);
    console.answer().unwrap();
    wait_for("both readings", || (read(&place.pooler.log()) == 2).then_some(()));
    let users = raw::text(&console.simple("SHOW USERS").unwrap());
    assert!(users.contains("newer"), "{users}");
}

/// A file that is read again becomes a pipe that nobody writes to, and SIGHUP has it read: whoever does so waits. The
/// writer's end.
fn hang(place: &Place, pipe: &Path) -> fs::File {
    fs::remove_file(pipe).unwrap();
    assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    place.pooler.signal("HUP");
    let open = || fs::OpenOptions::new().write(true).custom_flags(nonblocking()).open(pipe).ok();
    wait_for("the reload to read the pipe", open)
}

/// `O_NONBLOCK` of Linux: without a reader a pipe cannot be opened so.
fn nonblocking() -> i32 {
    i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap()
}

#[test]
fn a_reload_that_hangs_delays_no_stop() {
    for (signal, code) in [("TERM", 0), ("INT", 0), ("QUIT", 3)] {
        let mut place = Place::new(cluster::shared());
        let mut client = place.pooler.client("app");
        assert_eq!(client.value("SELECT 1"), "1");
        let _pipe = hang(&place, &place.file("userlist.txt"));
        // A second one waits for its turn, and is in nobody's way either.
        place.pooler.signal("HUP");
        assert_eq!(client.value("SELECT 1"), "1", "clients go on");
        let began = Instant::now();
        let status = place.pooler.stop(signal);
        assert_eq!(status.code(), Some(code), "{signal}: {}", place.pooler.log());
        // Far below `shutdown_timeout`: nobody was waited for.
        assert!(began.elapsed() < Duration::from_secs(10), "{signal}: {:?}", began.elapsed());
    }
}

#[test]
fn a_signal_that_comes_during_a_reload_is_not_forgotten() {
    let place = Place::new(cluster::shared());
    // A file that nobody looks at without a signal.
    let toml = place.pooler.dir().join("pgsluice.toml");
    let older = fs::read_to_string(&toml).unwrap();
    let mut pipe = hang(&place, &toml);
    pipe.write_all(older.as_bytes()).unwrap();
    let next = toml.with_extension("next");
    fs::write(&next, format!("{older}\n[users.newer]\npassword = \"n\"\n")).unwrap();
    fs::rename(&next, &toml).unwrap();
    // Twice: they may be one.
    place.pooler.signal("HUP");
    place.pooler.signal("HUP");
    assert_eq!(place.code("app", PASSWORD), "ok", "clients go on");
    assert_eq!(place.pooler.log().matches("users were read again").count(), 0);
    drop(pipe);
    let mut console = place.pooler.try_client("app", PASSWORD, "pgsluice").unwrap();
    wait_for("the newer user", || raw::text(&console.simple("SHOW USERS").unwrap()).contains("newer").then_some(()));
}

#[test]
fn the_console_reloads() {
    let place = Place::new(cluster::shared());
    let mut console = place.pooler.try_client("app", PASSWORD, "pgsluice").unwrap();
    fs::write(place.file("userlist.txt"), "\"app\" \"new\"\n\"third\" \"3\"\n").unwrap();
    console.simple("RELOAD").unwrap();
    assert_eq!(place.code("app", PASSWORD), "28P01");
    let shown = support::raw::text(&console.simple("SHOW USERS").unwrap());
    assert!(shown.contains("third"), "{shown}");
    fs::remove_file(place.file("userlist.txt")).unwrap();
    let error = console.simple("RELOAD").unwrap_err();
    assert_eq!(error.code(), "F0000", "{error}");
    assert!(error.to_string().contains("userlist.txt"), "{error}");
    assert_eq!(place.pooler.try_client("app", "new", "pgsluice").err().map(|e| e.to_string()), None);
}
