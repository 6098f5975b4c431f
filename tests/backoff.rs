//! Wrong passwords from one address delay its next answers; nobody is locked out by them, and Unix sockets are left out.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use support::cluster::{self, DATABASE, PASSWORD};
use support::pooler::{Pooler, Setup};
use support::{TempDir, wait_for};

fn delayed(pooler: &Pooler, password: &str) -> f64 {
    pooler.metric("pgsluice_client_login_delays_total", &[&format!("password=\"{password}\"")])
}

fn fail(pooler: &Pooler) -> Duration {
    let began = Instant::now();
    let error = pooler.try_client("app", "wrong", DATABASE).err().unwrap();
    assert_eq!(error.code(), "28P01", "{error}");
    began.elapsed()
}

#[test]
fn wrong_passwords_delay_the_next_answers_and_lock_nobody_out() {
    let toml = format!(
        "failed_login_delay = \"1s\"\n[users.app]\npassword = \"{PASSWORD}\"\n[users.postgres]\npassword = \"{PASSWORD}\"\n\
         [databases.app]\nhost = \"127.0.0.1\"\nport = {}\n",
        cluster::shared().port()
    );
    for method in ["scram-sha-256", "md5", "plain"] {
        let pooler = Setup::toml(&toml).env("PGSLUICE_AUTH_TYPE", method).start();
        for _ in 0..5 {
            let _ = fail(&pooler);
        }
        assert_eq!(delayed(&pooler, "wrong"), 0.0, "{method}: a few are free");
        for least in [250, 500, 1000, 1000] {
            let took = fail(&pooler);
            assert!(took >= Duration::from_millis(least), "{method}: {took:?} of {least} ms");
        }
        assert_eq!(delayed(&pooler, "wrong"), 4.0);
        // Who knows the password gets in, a second late, and then at once.
        assert_eq!(pooler.client("postgres").value("SELECT 1"), "1");
        assert_eq!(delayed(&pooler, "right"), 1.0);
        assert_eq!(pooler.client("postgres").value("SELECT 1"), "1");
        assert_eq!(delayed(&pooler, "right"), 1.0, "{method}: she has proven herself");
        let line = pooler.wait_for_log("login refused");
        assert!(line.contains("127.0.0.1"), "who it was: {line}");
    }
}

#[test]
fn who_leaves_is_waited_for_no_longer_and_the_wait_holds_no_place_for_ever() {
    let pooler = Setup::url(cluster::shared(), "app").env("PGSLUICE_FAILED_LOGIN_DELAY", "10s").start();
    (0..10).for_each(|_| {
        // An answer that is to come late is not waited for.
        let mut client = support::raw::Client::connect(pooler.address()).unwrap();
        client.set_timeout(Duration::from_millis(300)).unwrap();
        let _ = client.login("app", "wrong", DATABASE);
    });
    wait_for("nobody to be there", || {
        (pooler.metric("pgsluice_client_unauthenticated_connections", &[]) == 0.0).then_some(())
    });
}

#[test]
fn unix_sockets_and_the_setting_zero_have_no_delay() {
    let cluster = cluster::shared();
    let dir = TempDir::new("socket");
    let pooler = Setup::url(cluster, "app").unix(dir.path()).start();
    for _ in 0..8 {
        let connection = format!("host={} port={} user=app dbname=app", dir.path().display(), pooler.port());
        let psql = Command::new(cluster.program("psql"))
            .args(["-XAtc", "SELECT 1", &connection])
            .env("PGPASSWORD", "wrong")
            .output()
            .unwrap();
        assert!(!psql.status.success());
    }
    assert_eq!(delayed(&pooler, "wrong"), 0.0);
    let off = Setup::url(cluster, "app").env("PGSLUICE_FAILED_LOGIN_DELAY", "0").start();
    for _ in 0..8 {
        let _ = fail(&off);
    }
    assert_eq!(delayed(&off, "wrong"), 0.0);
}
