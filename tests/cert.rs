//! Clients that show certificates: `cert`, `clientcert=`, `clientname=` and `map=`, each beside PostgreSQL with the same
//! files and the same clients.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::DnType;
use support::cluster::{Cluster, shared};
use support::pki::{Ca, Pair, client_config};
use support::pooler::{Pooler, Setup};
use support::secured::secured;
use support::{TempDir, raw, skip};

const RULES: &str = "\
local all postgres trust
hostnossl all postgres all trust
hostssl all postgres all cert map=dba
hostssl all by_dn all cert clientname=DN map=dn
hostssl all \"CN=whole,O=shop\" all scram-sha-256 clientcert=verify-full clientname=DN
hostssl all app all scram-sha-256 clientcert=verify-full
hostssl all plainuser all password clientcert=verify-ca
hostssl all trustuser all trust clientcert=verify-full
hostssl all banned all reject clientcert=verify-ca
hostssl all jane all cert
hostssl all joe all scram-sha-256
";

const MAPS: &str = "\
dba ada postgres
dn \"/^CN=dora,O=(shop|stall)$\" by_dn
";

const USERS: [&str; 10] =
    ["postgres", "by_dn", "CN=whole,O=shop", "app", "plainuser", "trustuser", "banned", "jane", "joe", "nobody_at_all"];

/// Everybody is known with the same password, and the server is entered as the superuser.
fn toml(port: u16, top: &str) -> String {
    let known = USERS.iter().filter(|user| **user != "nobody_at_all");
    let users: String = known.map(|user| format!("[users.\"{user}\"]\npassword = \"secret\"\n")).collect();
    format!(
        "failed_login_delay = 0\n{top}\n[databases.app]\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"postgres\"\npassword = \"unused\"\n\
         server_tls_mode = \"disable\"\n{users}"
    )
}

fn with_tls(setup: Setup, own: &Pair, ca: &Ca) -> Setup {
    setup
        .env("PGSLUICE_CLIENT_TLS_CERT_FILE", &own.cert.display().to_string())
        .env("PGSLUICE_CLIENT_TLS_KEY_FILE", &own.key.display().to_string())
        .env("PGSLUICE_CLIENT_TLS_CA_FILE", &ca.file().display().to_string())
}

/// What a client with this certificate is told.
fn told(address: SocketAddr, ca: &Ca, own: Option<&Pair>, user: &str, password: &str) -> String {
    let config = client_config(Some(&ca.file()), own, &[]);
    let Ok(mut client) = raw::Client::connect_tls(address, &config, "localhost") else {
        return "no TLS".to_owned();
    };
    match client.login(user, password, "app") {
        Ok(()) => client.value("SELECT 6 * 7"),
        Err(raw::Error::Server { severity, code, message, .. }) => format!("{severity} {code} {message}"),
        Err(raw::Error::Io(_)) => "no TLS".to_owned(),
    }
}

/// What the TLS of a client says when its certificate is refused: the server's alert, by its name.
fn alert(address: SocketAddr, ca: &Ca, own: &Pair) -> String {
    let config = client_config(Some(&ca.file()), Some(own), &[]);
    let told = raw::Client::connect_tls(address, &config, "localhost")
        .map_err(raw::Error::Io)
        // In TLS 1.3 the server looks at it when the client's handshake is over.
        .and_then(|mut client| client.login("app", "secret", "app"));
    match told {
        Err(raw::Error::Io(error)) => error.to_string(),
        Err(error) => panic!("not refused by TLS: {error}"),
        Ok(()) => "let in".to_owned(),
    }
}

#[test]
fn certificates_that_are_not_good_are_refused_with_postgresqls_alert() {
    let Some(pg) = secured(|ca| ca.server(&["localhost"])) else { return };
    let (ca, own, stranger) = (&pg.ca, pg.ca.server(&["localhost"]), Ca::new());
    let pooler = with_tls(Setup::toml(&toml(pg.cluster.port(), "")), &own, ca).start();
    for (what, certificate, expected) in [
        ("expired", ca.expired_client("app"), "CertificateExpired"),
        ("of another CA", stranger.client("app"), "UnknownC"),
    ] {
        let [direct, pooled] = [pg.cluster.address(), pooler.address()].map(|at| alert(at, ca, &certificate));
        assert!(direct.contains(expected), "{what}: PostgreSQL says {direct}");
        assert_eq!(pooled, direct, "{what}");
    }
}

#[test]
fn rules_look_at_certificates_as_postgresql_does() {
    if !shared().has_tls() {
        return skip("this PostgreSQL was built without TLS");
    }
    let (ca, other, dir) = (Ca::new(), Ca::new(), TempDir::new("hba"));
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (rules, maps) = (dir.path().join("rules"), dir.path().join("maps"));
    fs::write(&rules, RULES).unwrap();
    fs::write(&maps, MAPS).unwrap();
    let own = ca.server(&["localhost"]);
    let mut options = own.options().to_vec();
    options.push(format!("hba_file={}", rules.display()));
    options.push(format!("ident_file={}", maps.display()));
    options.push(format!("ssl_ca_file={}", ca.file().display()));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let cluster = Cluster::start(&options);
    for user in ["by_dn", "CN=whole,O=shop", "banned", "jane", "joe"] {
        cluster.psql(&format!("CREATE ROLE \"{user}\" LOGIN PASSWORD 'secret'"));
    }
    let hba = format!(
        "auth_type = \"hba\"\nauth_hba_file = \"{}\"\nauth_ident_file = \"{}\"",
        rules.display(),
        maps.display()
    );
    let pooler = with_tls(Setup::toml(&toml(cluster.port(), &hba)), &own, &ca).start();

    let named = |name: &str, of: &str| ca.client_named(&[(DnType::OrganizationName, of), (DnType::CommonName, name)]);
    let certificates = [
        ("none", None),
        ("ada", Some(ca.client("ada"))),
        ("app", Some(ca.client("app"))),
        ("trustuser", Some(ca.client("trustuser"))),
        ("jane", Some(ca.client("jane"))),
        ("dora of shop", Some(named("dora", "shop"))),
        ("dora of elsewhere", Some(named("dora", "elsewhere"))),
        ("whole", Some(named("whole", "shop"))),
        ("jane of shop", Some(named("jane", "shop"))),
        ("nameless", Some(ca.client_named(&[(DnType::OrganizationName, "shop")]))),
        ("expired", Some(ca.expired_client("jane"))),
        ("of another CA", Some(other.client("jane"))),
    ];
    let mut let_in = 0;
    for (name, pair) in &certificates {
        for user in USERS {
            // A wrong password where one is asked for, and the certificate is looked at as well.
            let wrong = ["app", "plainuser"].contains(&user).then_some("wrong");
            for password in ["secret"].into_iter().chain(wrong) {
                let own = told(cluster.address(), &ca, pair.as_ref(), user, password);
                let ours = told(pooler.address(), &ca, pair.as_ref(), user, password);
                assert_eq!(ours, own, "certificate {name}, user {user}, password {password}");
                let_in += usize::from(own == "42");
            }
        }
    }
    assert!(let_in >= 15, "{let_in} logins succeeded");
    pooler.wait_for_log("the certificate of \"ada\" may not log in as this user");
    pooler.wait_for_log("the client's certificate contains no user name");
    pooler.wait_for_log("the client shows no certificate");
}

fn by_certificate(ca: &Ca, own: &Pair, mode: &str) -> Pooler {
    let setup = Setup::toml(&toml(shared().port(), "auth_type = \"cert\""));
    with_tls(setup, own, ca).env("PGSLUICE_CLIENT_TLS_MODE", mode).start()
}

#[test]
fn a_certificate_may_be_all_that_is_asked() {
    let ca = Ca::new();
    let own = ca.server(&["localhost"]);
    let (jane, stranger) = (ca.client("jane"), ca.client("nobody_at_all"));
    for mode in ["prefer", "verify-full"] {
        let pooler = by_certificate(&ca, &own, mode);
        let told = |pair: Option<&Pair>, user: &str| told(pooler.address(), &ca, pair, user, "");
        assert_eq!(told(Some(&jane), "jane"), "42", "{mode}");
        let other = "FATAL 28000 certificate authentication failed for user \"joe\"";
        assert_eq!(told(Some(&jane), "joe"), other);
        // Who is not known learns no more than that.
        assert_eq!(told(Some(&jane), "nobody_at_all"), other.replace("joe", "nobody_at_all"));
        let unknown = "FATAL 28000 user \"nobody_at_all\" is not known to pgsluice";
        assert_eq!(told(Some(&stranger), "nobody_at_all"), unknown);
        let missing = "FATAL 28000 connection requires a valid client certificate";
        assert_eq!(told(None, "jane"), if mode == "prefer" { missing } else { "no TLS" });
        if mode == "prefer" {
            let mut plain = raw::Client::connect(pooler.address()).unwrap();
            let error = plain.login("jane", "", "app").unwrap_err().to_string();
            assert_eq!(error, missing.replace("28000", "28000:"));
        }
    }
    let bare = Setup::toml(&toml(shared().port(), "auth_type = \"cert\""));
    let (status, log) = bare.fails();
    assert!(!status.success() && log.contains("auth_type = \"cert\" needs `client_tls_cert_file`"), "{log}");
}

#[test]
fn rules_about_certificates_need_a_ca() {
    let dir = TempDir::new("hba");
    let rules = dir.path().join("rules");
    let text = format!("auth_type = \"hba\"\nauth_hba_file = \"{}\"\n[databases.app]\n[users.app]\n", rules.display());
    for (line, message) in [
        ("hostssl all all all cert", "can only be checked if a root certificate store is available"),
        ("hostssl all all all md5 clientcert=verify-ca", "can only be checked if a root certificate store"),
        ("host all all all md5 clientname=CN", "clientname can only be configured for \"hostssl\" rows"),
        ("hostssl all all all md5 clientname=cn", "invalid value for clientname: \"cn\""),
    ] {
        fs::write(&rules, format!("{line}\n")).unwrap();
        let error = pgsluice::config::Config::from_toml(&text, Path::new("pgsluice.toml")).unwrap_err().to_string();
        assert!(error.contains(message), "{line}: {error}");
    }
}
