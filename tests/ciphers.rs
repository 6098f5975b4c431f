//! Cipher suites and least versions, on both sides: what is on the list is used, what is not is refused.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use support::cluster::{self, DATABASE, PASSWORD};
use support::pki::{Ca, Pair, client_with_ciphers};
use support::pooler::{Pooler, Setup};
use support::raw;
use support::secured::{configuration, secured, secured_with, tls_mode};

fn offering(pair: &Pair, ciphers: &str) -> Setup {
    Setup::url(cluster::shared(), "app")
        .env("PGSLUICE_CLIENT_TLS_CERT_FILE", &pair.cert.display().to_string())
        .env("PGSLUICE_CLIENT_TLS_KEY_FILE", &pair.key.display().to_string())
        .env("PGSLUICE_CLIENT_TLS_CIPHERS", ciphers)
}

/// Version and cipher that this client gets, as the console says it; `None`: none.
fn agreed(pooler: &Pooler, names: &[&str]) -> Option<String> {
    let mut client = raw::Client::connect_tls(pooler.address(), &client_with_ciphers(names), "localhost").ok()?;
    client.login("app", PASSWORD, "pgsluice").ok()?;
    let rows = client.simple("SHOW CLIENTS").unwrap();
    Some(rows.iter().find_map(|row| row[17].clone().filter(|tls| !tls.is_empty())).unwrap())
}

const OLD_128: &str = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
const OLD_256: &str = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
const NEW_128: &str = "TLS13_AES_128_GCM_SHA256";
const NEW_256: &str = "TLS13_AES_256_GCM_SHA384";

#[test]
fn clients_get_a_cipher_of_the_list_or_none() {
    let ca = Ca::new();
    let pair = ca.server(&["localhost"]);
    let all = offering(&pair, "default").start();
    for name in [OLD_128, OLD_256, NEW_128, NEW_256] {
        assert!(agreed(&all, &[name]).is_some(), "{name}");
    }
    let both = offering(&pair, "ECDHE-ECDSA-AES256-GCM-SHA384:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384").start();
    assert_eq!(agreed(&both, &[OLD_128, OLD_256]).as_deref(), Some("TLSv1.2/TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"));
    assert_eq!(agreed(&both, &[OLD_128]), None);
    both.wait_for_log("no cipher in common");
    // The list's order counts, whatever the client's.
    assert_eq!(agreed(&both, &[NEW_256, NEW_128]).as_deref(), Some("TLSv1.3/TLS_AES_128_GCM_SHA256"));
    // A list without any of a version is the end of that version.
    let new = offering(&pair, "TLS_AES_256_GCM_SHA384").start();
    assert_eq!(agreed(&new, &[OLD_256]), None);
    assert_eq!(agreed(&new, &[OLD_256, NEW_256]).as_deref(), Some("TLSv1.3/TLS_AES_256_GCM_SHA384"));
    let old = offering(&pair, "ECDHE-ECDSA-AES128-GCM-SHA256").start();
    assert_eq!(agreed(&old, &[OLD_128, NEW_256]).as_deref(), Some("TLSv1.2/TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"));
}

#[test]
fn lists_that_cannot_work_are_refused_at_the_start() {
    let ca = Ca::new();
    let pair = ca.server(&["localhost"]);
    let (_, said) = offering(&pair, "HIGH:!aNULL").fails();
    assert!(said.contains("PGSLUICE_CLIENT_TLS_CIPHERS") && said.contains("ECDHE-RSA-AES256-GCM-SHA384"), "{said}");
    let (_, said) =
        offering(&pair, "ECDHE-ECDSA-AES128-GCM-SHA256").env("PGSLUICE_CLIENT_TLS_MIN_VERSION", "tlsv1.3").fails();
    assert!(said.contains("`client_tls_ciphers` has no cipher of TLS 1.3"), "{said}");
    // The key is ECDSA's.
    let (_, said) = offering(&pair, "ECDHE-RSA-AES128-GCM-SHA256").fails();
    assert!(said.contains("no cipher of client_tls_ciphers"), "{said}");
}

/// What a session's server speaks, as PostgreSQL says it.
fn spoken(pooler: &Pooler, database: &str) -> Result<String, String> {
    let mut client = pooler.try_client("app", PASSWORD, database).map_err(|e| e.to_string())?;
    let rows = client
        .simple("SELECT version, cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .map_err(|e| e.to_string())?;
    Ok(raw::text(&rows))
}

#[test]
fn servers_are_offered_the_list_alone() {
    let Some(pg) = secured(|ca| ca.server(&["localhost"])) else { return };
    let section = |list: &str| format!("{}\nserver_tls_ciphers = {list}", tls_mode("require", None));
    let databases = [
        ("one", "localhost", section(r#"["TLS_CHACHA20_POLY1305_SHA256"]"#)),
        ("old", "localhost", section(r#""ECDHE-ECDSA-AES128-GCM-SHA256""#)),
        ("rsa", "localhost", section(r#""ECDHE-RSA-AES128-GCM-SHA256""#)),
    ];
    let pooler = Setup::toml(&configuration(pg.cluster.port(), &databases)).start();
    let one = spoken(&pooler, "one").unwrap();
    assert!(one.contains("TLSv1.3") && one.contains("TLS_CHACHA20_POLY1305_SHA256"), "{one}");
    let old = spoken(&pooler, "old").unwrap();
    assert!(old.contains("TLSv1.2") && old.contains("ECDHE-ECDSA-AES128-GCM-SHA256"), "{old}");
    // The server's key is ECDSA's.
    let error = spoken(&pooler, "rsa").unwrap_err();
    assert!(error.contains("TLS with server") && error.contains("no cipher in common"), "{error}");
}

#[test]
fn servers_of_an_old_version_are_refused_where_a_newer_one_is_asked_for() {
    let Some(pg) = secured_with(|ca| ca.server(&["localhost"]), &["ssl_max_protocol_version=TLSv1.2"]) else { return };
    let section = |least: &str| format!("{}\nserver_tls_min_version = \"{least}\"", tls_mode("require", None));
    let databases = [("any", "localhost", section("tlsv1.2")), ("new", "localhost", section("tlsv1.3"))];
    let pooler = Setup::toml(&configuration(pg.cluster.port(), &databases)).start();
    assert!(spoken(&pooler, "any").unwrap().contains("TLSv1.2"));
    let error = spoken(&pooler, "new").unwrap_err();
    assert!(error.contains("TLS version"), "{error}");
    let url = format!(
        "postgres://app:{PASSWORD}@localhost:{}/{DATABASE}?sslmode=require&ssl_min_protocol_version=TLSv1.3",
        pg.cluster.port()
    );
    let pooler = Setup::toml("").env("DATABASE_URL", &url).start();
    let error = spoken(&pooler, DATABASE).unwrap_err();
    assert!(error.contains("TLS version"), "{error}");
}
