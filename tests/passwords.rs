//! Passwords for logins at the server that do not stand in the configuration: printed by a program, long, exchanged.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use support::cluster::{Cluster, shared};
use support::pooler::Setup;
use support::{TempDir, raw, wait_for};

/// A program that notes that it ran, and for whom, and prints what the file `token` holds.
fn program(dir: &TempDir, body: &str) -> String {
    let path = dir.path().join("token.sh");
    fs::write(&path, format!("#!/bin/sh\ncd {}\n{body}\n", dir.path().display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

const PRINTS: &str = "echo \"$1 $PGUSER@$PGHOST:$PGPORT/$PGDATABASE\" >> runs; cat token";

/// Clients are let in as `client`; the server is entered as `plainuser`, whom it asks for a password in the clear.
fn toml(cluster: &Cluster, lines: &str) -> String {
    format!(
        "[users.client]\npassword = \"secret\"\n[databases.app]\nhost = \"127.0.0.1\"\nport = {}\nuser = \"plainuser\"\n{lines}\n",
        cluster.port()
    )
}

fn runs(dir: &TempDir) -> usize {
    fs::read_to_string(dir.path().join("runs")).unwrap_or_default().lines().count()
}

/// As cloud tokens are: long, and of characters that mean something elsewhere.
fn token(seed: &str) -> String {
    format!("{seed}?Action=connect&X-Token={}=%2F", "aB3/+".repeat(900))
}

#[test]
fn a_program_prints_the_password() {
    let cluster = Cluster::start(&[]);
    let dir = TempDir::new("token");
    let set = |seed: &str| {
        cluster.psql(&format!("ALTER ROLE plainuser PASSWORD '{}'", token(seed)));
        fs::write(dir.path().join("token"), token(seed) + "\n").unwrap();
    };
    set("first");
    let command = format!("password_command = [\"{}\", \"an argument; $(x)\"]", program(&dir, PRINTS));
    let pooler = Setup::toml(&toml(&cluster, &command)).start();
    let mut client = pooler.client("client");
    assert_eq!(client.value("SELECT session_user"), "plainuser");
    let line = format!("an argument; $(x) plainuser@127.0.0.1:{}/app\n", cluster.port());
    assert_eq!(fs::read_to_string(dir.path().join("runs")).unwrap(), line);

    let end = || {
        cluster.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'plainuser'");
        wait_for("servers to end", || {
            (cluster.psql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'plainuser'") == "0").then_some(())
        });
    };
    end();
    assert_eq!(client.value("SELECT 1"), "1");
    assert_eq!(runs(&dir), 1, "what was printed serves for a while");
    // Refused: another one is printed before anybody hears of it.
    set("second");
    end();
    assert_eq!(client.value("SELECT 1"), "1");
    assert_eq!(runs(&dir), 2);
    assert!(!pooler.log().contains("X-Token") && !pooler.log().contains("argument"), "{}", pooler.log());
}

#[test]
fn what_was_printed_grows_old() {
    let cluster = shared();
    let dir = TempDir::new("token");
    fs::write(dir.path().join("token"), "secret").unwrap();
    let command =
        format!("password_command = [\"{}\"]\npassword_command_ttl = \"0s\"\npool_size = 4", program(&dir, PRINTS));
    let pooler = Setup::toml(&toml(cluster, &command)).start();
    let mut held: Vec<raw::Client> = Vec::new();
    for n in 1..=3 {
        let mut client = pooler.client("client");
        client.simple("BEGIN").unwrap();
        held.push(client);
        assert!(runs(&dir) >= n, "{n} servers");
    }
}

#[test]
fn a_program_that_gives_none_is_told_of() {
    let cluster = shared();
    for (body, why) in [
        ("echo secret-word; echo other-word >&2; exit 3", "password_command: it ended with exit status: 3"),
        ("true", "it must print one line"),
        ("echo one; echo two", "it must print one line"),
        ("head -c 70000 /dev/zero | tr '\\\\0' x", "it must print one line of at most 65535 bytes"),
        ("printf '\\\\377'", "what it prints is not UTF-8"),
        ("echo wrong", "password authentication failed for user \"plainuser\""),
    ] {
        let dir = TempDir::new("token");
        let command = format!("password_command = [\"{}\"]", program(&dir, &body.replace("\\\\", "\\")));
        let pooler = Setup::toml(&toml(cluster, &command)).start();
        let error = pooler.try_client("client", "secret", "app").err().unwrap().to_string();
        assert!(error.contains("28") && error.contains(why), "{body}: {error}");
        assert!(!error.contains("-word") && !pooler.log().contains("-word"), "{error}");
    }
    let pooler = Setup::toml(&toml(cluster, "password_command = [\"/no/such/program\"]")).start();
    let error = pooler.try_client("client", "secret", "app").err().unwrap().to_string();
    assert!(error.contains("password_command: it cannot be started: No such file"), "{error}");
    for (lines, message) in [
        ("password_command = \"echo x\"", "write a list, which no shell reads"),
        ("password_command = []", "the program is missing"),
        ("password_command = [\"x\"]\npassword = \"y\"", "keep one of `password_command`"),
        ("password_command_ttl = 5", "of no use without `password_command`"),
    ] {
        let (status, log) = Setup::toml(&toml(cluster, lines)).fails();
        assert!(!status.success() && log.contains(message), "{lines}: {log}");
    }
}

#[test]
fn a_secret_that_is_exchanged_is_noticed() {
    let dir = TempDir::new("secret");
    // As Kubernetes mounts one: a link that is exchanged.
    for version in ["one", "two"] {
        fs::create_dir(dir.path().join(version)).unwrap();
        fs::write(dir.path().join(version).join("password"), "secret").unwrap();
    }
    let link = |version: &str| {
        std::os::unix::fs::symlink(dir.path().join(version), dir.path().join("new")).unwrap();
        fs::rename(dir.path().join("new"), dir.path().join("data")).unwrap();
    };
    link("one");
    let text = format!("failed_login_delay = 0\n{}", toml(shared(), "password = \"secret\""));
    let file = format!("password_file = \"{}\"", dir.path().join("data/password").display());
    let pooler = Setup::toml(&text.replacen("password = \"secret\"", &file, 1)).start();
    assert_eq!(pooler.client("client").value("SELECT 1"), "1");
    assert!(!pooler.log().contains("a file with secrets has changed"));
    fs::write(dir.path().join("two").join("password"), "another").unwrap();
    link("two");
    wait_for("the new password", || pooler.try_client("client", "another", "app").ok());
    pooler.wait_for_log("a file with secrets has changed");
    assert_eq!(pooler.try_client("client", "secret", "app").err().unwrap().code(), "28P01");
}

#[test]
fn long_passwords_of_clients_and_servers() {
    let cluster = Cluster::start(&[]);
    let long = token("long");
    cluster.psql(&format!("ALTER ROLE plainuser PASSWORD '{long}'; ALTER ROLE app PASSWORD '{long}'"));
    for method in ["plain", "scram-sha-256", "md5"] {
        let text = format!(
            "auth_type = \"{method}\"\n[users.plainuser]\npassword = \"{long}\"\n[users.app]\npassword = \"{long}\"\n\
             [databases.app]\nhost = \"127.0.0.1\"\nport = {}\n",
            cluster.port()
        );
        let pooler = Setup::toml(&text).start();
        for user in ["plainuser", "app"] {
            let mut client = pooler.try_client(user, &long, "app").unwrap();
            assert_eq!(client.value("SELECT session_user"), user, "{method}");
            let nearly = &long[..long.len() - 1];
            assert_eq!(pooler.try_client(user, nearly, "app").err().unwrap().code(), "28P01");
        }
    }
}
