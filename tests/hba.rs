//! Rules for each client: every method through libpq, the words of a refusal beside PostgreSQL's own, who is at the other
//! end of a Unix socket; and the parser beside PostgreSQL's views of the same files.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use pgsluice::config::Config;
use support::cluster::{Cluster, shared};
use support::pooler::{Pooler, Setup};
use support::{TempDir, raw, skip, wait_for};

/// A pooler with these rules and maps. Every user is known, with the password `secret`; the server is entered as `app`.
fn pooler(dir: &TempDir, rules: &str, maps: &str) -> Pooler {
    // Clients of another user of the system must reach the socket.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    Setup::toml(&configuration(dir, rules, maps)).unix(dir.path()).start()
}

fn configuration(dir: &TempDir, rules: &str, maps: &str) -> String {
    let (hba, ident) = (dir.path().join("rules"), dir.path().join("maps"));
    fs::write(&hba, rules).unwrap();
    fs::write(&ident, maps).unwrap();
    let users = ["app", "trusted", "plain", "hashed", "scram", "banned", "nobody", "rep", &own_name()];
    let users: std::collections::BTreeSet<&str> = users.into_iter().collect();
    let users: String = users.iter().map(|user| format!("[users.\"{user}\"]\npassword = \"secret\"\n")).collect();
    format!(
        "auth_type = \"hba\"\nauth_hba_file = \"{}\"\nauth_ident_file = \"{}\"\nadmin_users = [\"trusted\", \"banned\"]\n\
         [databases.app]\nhost = \"127.0.0.1\"\nport = {}\nuser = \"app\"\npassword = \"secret\"\n{users}",
        hba.display(),
        ident.display(),
        shared().port()
    )
}

/// The operating system's name of this process's user.
fn own_name() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn psql(host: &str, port: u16, user: &str, password: &str, database: &str) -> Command {
    let mut command = Command::new(shared().program("psql"));
    command.args(["-h", host, "-p", &port.to_string(), "-U", user, "-d", database]);
    command.args(["-wXAtc", "SELECT 6 * 7"]).env("PGPASSWORD", password).env("PGSSLMODE", "disable").current_dir("/");
    command
}

/// What psql prints: the answer, or the error.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = if output.status.success() { output.stdout } else { output.stderr };
    String::from_utf8(text).unwrap().trim().to_owned()
}

/// The code of the first authentication request, or the error that comes instead.
fn first_request(pooler: &Pooler, parameters: &[(&str, &str)]) -> Result<u32, String> {
    let mut client = raw::Client::connect(pooler.address()).unwrap();
    client.send_startup(parameters).unwrap();
    let message = client.read().unwrap();
    match message.tag {
        b'R' => Ok(u32::from_be_bytes(message.body[..4].try_into().unwrap())),
        _ => Err(String::from_utf8_lossy(&message.body).replace('\0', "|")),
    }
}

const METHODS: &str = "\
host  all  trusted all          trust
host  all  plain   127.0.0.1 255.255.255.255 password
host  all  hashed  127.0.0.0/8  md5
host  all  scram,/^nob samehost scram-sha-256
host  all  banned  all          reject
";

#[test]
fn each_client_is_asked_as_its_rule_says() {
    let dir = TempDir::new("hba");
    let pooler = pooler(&dir, METHODS, "");
    let ask = |user: &str| first_request(&pooler, &[("user", user), ("database", "app")]);
    // AuthenticationOk 0, CleartextPassword 3, MD5Password 5, SASL 10.
    for (user, code) in [("trusted", 0), ("plain", 3), ("hashed", 5), ("scram", 10), ("nobody", 10)] {
        assert_eq!(ask(user), Ok(code), "{user}");
        let run = |password| said(&mut psql("127.0.0.1", pooler.port(), user, password, "app"));
        assert_eq!(run("secret"), "42", "{user}");
        if code != 0 {
            let wrong = run("wrong");
            assert!(wrong.ends_with(&format!("password authentication failed for user \"{user}\"")), "{wrong}");
        }
    }
    // A rule lets in whom the configuration knows, nobody else.
    let stranger = first_request(&pooler, &[("user", "nobody_else"), ("database", "app")]);
    assert_eq!(stranger, Ok(10), "asked like anybody");
    let stranger = said(&mut psql("127.0.0.1", pooler.port(), "nobody_else", "secret", "app"));
    assert!(stranger.contains("password authentication failed"), "{stranger}");
    // The console has rules like a database.
    assert!(
        said(psql("127.0.0.1", pooler.port(), "trusted", "", "pgsluice").args(["-c", "SHOW VERSION"]))
            .contains("pgsluice")
    );
    assert!(
        said(&mut psql("127.0.0.1", pooler.port(), "banned", "secret", "pgsluice")).contains("pg_hba.conf rejects")
    );
    pooler.wait_for_log("rejected by");
}

#[test]
fn refusals_are_postgresqls_own() {
    const RULES: &str = "\
local all postgres trust
local all banned reject
host  all banned 127.0.0.1/32 reject
host  replication banned 127.0.0.1/32 reject
";
    let cluster = Cluster::start(&["wal_level=replica", "max_wal_senders=20"]);
    fs::write(cluster.socket_dir().join("data/pg_hba.conf"), RULES).unwrap();
    cluster.psql("SELECT pg_reload_conf()");
    let dir = TempDir::new("hba");
    let pooler = pooler(&dir, RULES, "");
    let error = |mut client: raw::Client, parameters: &[(&str, &str)]| match client.login_with("secret", parameters) {
        Err(raw::Error::Server { severity, code, message, .. }) => format!("{severity} {code} {message}"),
        other => panic!("{parameters:?}: {other:?}"),
    };
    for (user, more) in [
        ("banned", ("database", "app")),
        ("nobody", ("database", "app")),
        ("no\"such\nuser", ("database", "no such database")),
        ("banned", ("replication", "true")),
        ("nobody", ("replication", "true")),
        ("nobody", ("replication", "database")),
    ] {
        let parameters = [("user", user), ("database", "app"), more];
        let parameters = if more.0 == "database" { &[parameters[0], more][..] } else { &parameters[..] };
        let by_tcp = |address| error(raw::Client::connect(address).unwrap(), parameters);
        let own = wait_for("PostgreSQL to take the rules", || {
            let own = by_tcp(cluster.address());
            own.contains("pg_hba.conf").then_some(own)
        });
        assert_eq!(by_tcp(pooler.address()), own);
        assert!(own.starts_with("FATAL 28000 "), "{own}");
        let by_unix = |dir: &Path, port: u16| {
            error(raw::Client::connect_unix(&dir.join(format!(".s.PGSQL.{port}"))).unwrap(), parameters)
        };
        assert_eq!(by_unix(dir.path(), pooler.port()), by_unix(cluster.socket_dir(), cluster.port()));
    }
}

#[test]
fn the_other_end_of_a_unix_socket_is_known_by_name() {
    let dir = TempDir::new("hba");
    let own = own_name();
    let rules = "local all app,plain peer map=m\nlocal all hashed peer map=caught\nlocal all all peer\n";
    let pooler = pooler(&dir, rules, &format!("m {own} app\ncaught /^(.*)$ hash\\1\nother {own} plain\n"));
    let socket = dir.path().to_str().unwrap();
    let run = |user: &str| said(&mut psql(socket, pooler.port(), user, "", "app"));
    let failed = |user: &str| {
        let said = run(user);
        assert!(said.ends_with(&format!("FATAL:  Peer authentication failed for user \"{user}\"")), "{said}");
    };
    assert_eq!(run(&own), "42", "the same name");
    assert_eq!(run("app"), "42", "mapped");
    failed("plain"); // only in another map
    failed("hashed"); // \1 is not "ed"
    failed("trusted"); // no map: the names differ
    pooler.wait_for_log("of the operating system may not log in as this user");
    // Without an entry for TCP nobody comes that way.
    assert!(said(&mut psql("127.0.0.1", pooler.port(), "app", "secret", "app")).contains("no pg_hba.conf entry"));
    if own != "root" {
        return skip("another user of the system can be played by root only");
    }
    let mut other = psql(socket, pooler.port(), "nobody", "", "app");
    assert_eq!(said(other.uid(65534).gid(65534)), "42", "the process is nobody's");
    for user in ["app", "root"] {
        let mut other = psql(socket, pooler.port(), user, "", "app");
        assert!(said(other.uid(65534).gid(65534)).contains("Peer authentication failed"), "nobody is not {user}");
    }
}

#[test]
fn peer_without_rules() {
    let dir = TempDir::new("hba");
    let own = own_name();
    let toml = configuration(&dir, "", "").replace("\"hba\"", "\"peer\"");
    let pooler = Setup::toml(&toml).unix(dir.path()).start();
    let socket = dir.path().to_str().unwrap();
    assert_eq!(said(&mut psql(socket, pooler.port(), &own, "", "app")), "42");
    for (host, user) in [(socket, "app"), ("127.0.0.1", &*own)] {
        let said = said(&mut psql(host, pooler.port(), user, "secret", "app"));
        assert!(said.contains("Peer authentication failed"), "{host}: {said}");
    }
    pooler.wait_for_log("it did not come by a Unix socket");
    // A name of the system that the configuration does not know.
    let strangers = toml.replace(&format!("[users.\"{own}\"]"), "[users.stranger]");
    let pooler = Setup::toml(&strangers).unix(dir.path()).start();
    let said = said(&mut psql(socket, pooler.port(), &own, "", "app"));
    assert!(said.contains("is not known to pgsluice"), "{said}");
}

#[test]
fn rules_that_cannot_be_kept_end_the_start() {
    let dir = TempDir::new("hba");
    for (rules, maps, message) in [
        ("local all all peer\nhost all +admins all md5\n", "", "rules:2:10: \"+admins\" needs to know"),
        ("hostssl all all all cert\n", "", "rules:1:1: client certificates can only be checked"),
        ("local all all peer map=gone\n", "m a b\n", "rules:1:1: there is no map \"gone\""),
        ("local all all peer map=m\n", "m a\n", "maps:1:3: missing entry"),
        ("# nothing\n", "", "no entries"),
    ] {
        let (status, log) = Setup::toml(&configuration(&dir, rules, maps)).fails();
        assert!(!status.success() && log.contains(message), "{rules}: {log}");
    }
    let toml = configuration(&dir, METHODS, "");
    let (_, log) = Setup::toml(&toml.replace("auth_hba_file", "auth_file")).fails();
    assert!(log.contains("needs `auth_hba_file`"), "{log}");

    let path = dir.path().join("pgsluice.toml");
    fs::write(&path, &toml).unwrap();
    let check = || {
        // Nothing of the surroundings: what `make test` sets is no setting.
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
        let output = command.env_clear().arg("check").arg("--config").arg(&path).output().unwrap();
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (good, text) = check();
    assert!(good && text.contains("rules:3: host all hashed 127.0.0.0 255.0.0.0 md5"), "{text}");
    let doubtful = "host all all 10.0.0.0/8 trust\nhostssl all all all md5\nhostgssenc all all all md5\nhost all all 127.0.0.0/8 trust\n";
    fs::write(dir.path().join("rules"), doubtful).unwrap();
    let (good, text) = check();
    assert!(good && text.contains("rules:2: hostssl matches nobody") && text.contains("rules:3: hostgssenc"), "{text}");
    assert!(!text.contains("lets in everybody"), "the pooler listens on the loopback only: {text}");
    fs::write(&path, format!("listen = [\"*:6432\"]\n{toml}")).unwrap();
    let (_, text) = check();
    assert!(text.contains("rules:1: trust lets in everybody") && !text.contains("rules:4: trust"), "{text}");
    fs::write(dir.path().join("rules"), "host all all db.internal md5\n").unwrap();
    let (good, text) = check();
    assert!(!good && text.contains("rules:1:14: \"db.internal\" is a host name") && text.contains("help: "), "{text}");
}

#[test]
fn the_example_of_our_documentation_is_read() {
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap();
    let example = docs.split("```\n# TYPE").nth(1).unwrap().split("```").next().unwrap();
    let dir = TempDir::new("hba");
    fs::create_dir(dir.path().join("hba.d")).unwrap();
    let toml = configuration(&dir, &format!("# TYPE{example}"), "admins root app\n");
    let config = Config::from_toml(&toml, Path::new("pgsluice.toml")).unwrap();
    assert_eq!(config.auth.hba.rules.iter().count(), 4);
}

#[test]
fn files_are_read_again_or_not_at_all() {
    let dir = TempDir::new("hba");
    let text = configuration(&dir, "local all all peer\ninclude more\n", "");
    fs::write(dir.path().join("more"), "host all all all md5\n").unwrap();
    let config = Config::from_toml(&text, Path::new("pgsluice.toml")).unwrap();
    let shown = |hba: &pgsluice::config::HbaConfig| hba.rules.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&config.auth.hba), ["local all all peer", "host all all all md5"]);
    fs::write(dir.path().join("more"), "host all all all reject\n").unwrap();
    let again = config.auth.hba.reread().unwrap();
    assert_eq!(shown(&again), ["local all all peer", "host all all all reject"]);
    fs::write(dir.path().join("more"), "host all all all rejected\n").unwrap();
    let error = again.reread().unwrap_err().to_string();
    assert!(
        error.contains("more:1:18: invalid authentication method \"rejected\"\n  help: did you mean reject?"),
        "{error}"
    );
    // Like `auth_file`: relative to the configuration.
    let relative = text.replace(&format!("{}/", dir.path().display()), "");
    fs::write(dir.path().join("more"), "").unwrap();
    let config = Config::from_toml(&relative, &dir.path().join("pgsluice.toml")).unwrap();
    assert_eq!(shown(&config.auth.hba), ["local all all peer"]);
    let unused = Config::from_toml(&relative.replace("\"hba\"", "\"md5\""), Path::new("gone/pgsluice.toml")).unwrap();
    assert!(unused.warnings.iter().any(|w| w.contains("auth_hba_file and auth_ident_file are not used")));
}

#[test]
fn sighup_reads_the_rules_again_and_keeps_the_old_when_it_cannot() {
    let dir = TempDir::new("hba");
    let pooler = pooler(&dir, "host all app all scram-sha-256\n", "");
    let run = || said(&mut psql("127.0.0.1", pooler.port(), "app", "secret", "app"));
    let mut session = pooler.client("app");
    assert_eq!(run(), "42");
    let reload = |rules: &str, log: &str| {
        fs::write(dir.path().join("rules"), rules).unwrap();
        pooler.signal("HUP");
        pooler.wait_for_log(log);
    };
    reload("host all app all rejected\n", "the rules cannot be used; the old ones stay in force");
    assert_eq!(run(), "42");
    reload("host all app all reject\n", "auth_hba_file was read again");
    assert!(run().contains("pg_hba.conf rejects connection"), "{}", run());
    assert_eq!(session.value("SELECT 'lives'"), "lives");
}

/// The same maps at PostgreSQL, for the same process and the same names.
#[test]
fn peers_are_judged_as_by_postgresql() {
    let own = own_name();
    let mut maps = vec![
        ("plain", format!("plain {own} app\nplain {own} \"md 5\"\nplain other plain\n")),
        ("caught", "caught /^(.*)$ \\1\n".to_owned()),
        ("around", "around /^(.)(.*)$ x\\1y\n".to_owned()),
        ("narrow", "narrow /^[^a-z]+$ app\nnarrow /^.?$ app\n".to_owned()),
        ("found", format!("found /{} app\n", &own[1..])),
    ];
    let cluster = Cluster::start(&[]);
    if cluster.version() >= 16 {
        maps.push(("every", format!("every {own} all\n")));
        maps.push(("name", format!("name {own} \"all\"\n")));
        maps.push(("pattern", format!("pattern {own} /^a\n")));
    }
    let never = "local never all peer map=never\n";
    let rules = maps.iter().map(|(map, _)| format!("local {map} all peer map={map}\n"));
    let rules = format!("local all postgres trust\n{never}local same all peer\n{}", rules.collect::<String>());
    let lines = format!("never \"nobody here\" app\n{}", maps.iter().map(|(_, lines)| &**lines).collect::<String>());
    fs::write(cluster.socket_dir().join("data/pg_hba.conf"), &rules).unwrap();
    fs::write(cluster.socket_dir().join("data/pg_ident.conf"), &lines).unwrap();
    cluster.psql("SELECT pg_reload_conf()");
    let dir = TempDir::new("hba");
    let pooler = pooler(&dir, &rules, &lines);
    let refused = |dir: &Path, port: u16, user: &str, map: &str| {
        let mut client = raw::Client::connect_unix(&dir.join(format!(".s.PGSQL.{port}"))).unwrap();
        match client.login(user, "", map) {
            Err(raw::Error::Server { message, .. }) => message.starts_with("Peer authentication failed"),
            Err(error) => panic!("{user} {map}: {error}"),
            Ok(()) => false,
        }
    };
    wait_for("PostgreSQL to take the rules", || {
        refused(cluster.socket_dir(), cluster.port(), "app", "never").then_some(())
    });
    let (mut yes, mut no) = (0, 0);
    for map in maps.iter().map(|(map, _)| *map).chain(["same", "never"]) {
        let first = format!("x{}y", &own[..1]);
        for user in ["app", "md 5", "plain", "all", "a", &own, &own.to_uppercase(), &first] {
            let theirs = refused(cluster.socket_dir(), cluster.port(), user, map);
            assert_eq!(refused(dir.path(), pooler.port(), user, map), theirs, "map {map}, user {user:?}");
            *(if theirs { &mut no } else { &mut yes }) += 1;
        }
    }
    assert!(yes >= 5 && no >= 20, "{yes} let in, {no} refused");
}
