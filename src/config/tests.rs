//! Files and environments as people write them, right and wrong.

use std::time::Duration;

use super::keys::KEYS;
use super::*;

fn env(variables: &[(&str, &str)]) -> Environment {
    variables.iter().copied().collect()
}

fn from_env(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(None, &env(variables))
}

const URL: (&str, &str) = ("DATABASE_URL", "postgres://shop:s%40crt@db.internal:5433/shop_db");

/// A file that is complete but for what a test adds in front of it.
fn toml(front: &str) -> Result<Config, ConfigError> {
    let text = format!("{front}\n[databases.app]\nhost = \"db\"\n[users.app]\npassword = \"hunter2\"\n");
    Config::from_toml(&text, Path::new("test.toml"))
}

fn error(result: Result<Config, ConfigError>) -> String {
    let text = result.expect_err("must be refused").to_string();
    assert!(!text.contains("hunter2"), "a secret is shown:\n{text}");
    text
}

#[test]
fn every_default_of_the_table_is_the_default() {
    let config = Config::default();
    for entry in config.entries() {
        assert_eq!(entry.value, entry.default, "{}", entry.key);
    }
}

#[test]
fn the_table_has_every_setting_and_no_other() {
    let fields = [
        (keys::Section::General, raw::General::FIELDS),
        (keys::Section::Pool, raw::Pool::FIELDS),
        (keys::Section::Insight, raw::Insight::FIELDS),
        (keys::Section::Log, raw::Log::FIELDS),
    ];
    for (section, fields) in fields {
        let of_table: Vec<&str> = KEYS.iter().filter(|key| key.section == section).map(|key| key.name).collect();
        assert_eq!(of_table, fields);
    }
    let database: Vec<&str> =
        keys::DATABASE_KEYS.iter().map(|(name, _)| *name).chain(raw::Pool::FIELDS.iter().copied()).collect();
    assert_eq!(database, raw::Database::FIELDS);
    let user: Vec<&str> = keys::USER_KEYS.iter().map(|(name, _)| *name).collect();
    assert_eq!(user, raw::User::FIELDS);
    let mut names: Vec<String> = KEYS.iter().map(|key| key.full_name()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), KEYS.len(), "names of SHOW CONFIG are unique");
}

#[test]
fn database_url_alone_is_a_whole_configuration() {
    let config = from_env(&[URL, ("HOME", "/root"), ("PATH", "/bin")]).unwrap();
    let database = &config.databases["shop_db"];
    assert_eq!((database.host.as_str(), database.port), ("db.internal", 5433));
    assert_eq!(database.dbname.as_deref(), Some("shop_db"));
    assert_eq!((&database.user, &database.password), (&None, &None), "the client's own are used");
    assert_eq!(config.auth.users["shop"], Secret::Plain("s@crt".into()));
    assert_eq!(config.auth.method, AuthMethod::ScramSha256);
    assert_eq!(config.listen, [ListenAddr::Tcp("127.0.0.1:6432".parse().unwrap())]);
    assert_eq!(config.http_listen, Some("127.0.0.1:9127".parse().unwrap()));
    assert_eq!(config.stats_users, ["shop"]);
    assert_eq!(config.pool.query_wait_timeout, Duration::from_secs(15));
    assert!(config.warnings.is_empty() && config.source.is_none());
    assert!(config.database("other").is_none());
}

use crate::auth::Secret;

#[test]
fn the_environment_overrides_the_file() {
    let text = "listen = \"*:7000\"\n[pool]\npool_size = 5\nmin_pool_size = 1\n[databases.shop_db]\nhost = \"old\"\nuser = \"old\"\n\
                port = 1\npool_size = 7\n[users.shop]\npassword = \"old\"\n[insight]\nmin_count = 9\n";
    let environment = env(&[
        URL,
        ("PGSLUICE_LISTEN", "127.0.0.1:6000,/run/pgsluice"),
        ("PGSLUICE_HTTP_LISTEN", "off"),
        ("PGSLUICE_POOL_SIZE", "30"),
        ("PGSLUICE_QUERY_WAIT_TIMEOUT", "250ms"),
        ("PGSLUICE_ADMIN_USERS", "shop, root"),
        ("PGSLUICE_INSIGHT_ENABLED", "off"),
        ("PGSLUICE_LOG_FORMAT", "json"),
    ]);
    let config = parse::load_text(text, Path::new("test.toml"), &environment).unwrap();
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.listen[1], ListenAddr::Unix("/run/pgsluice/.s.PGSQL.6000".into()));
    assert_eq!(config.http_listen, None);
    assert_eq!((config.pool.pool_size, config.pool.min_pool_size), (30, 1));
    assert_eq!(config.pool.query_wait_timeout, Duration::from_millis(250));
    assert_eq!(config.admin_users, ["shop", "root"]);
    assert!(config.stats_users.is_empty(), "admin_users are set");
    assert!(!config.insight.enabled && config.log.json);
    assert_eq!(config.insight.min_count, 9);
    let database = &config.databases["shop_db"];
    assert_eq!((database.host.as_str(), database.port, database.pool.pool_size), ("db.internal", 5433, 7));
    assert_eq!(config.auth.users["shop"], Secret::Plain("s@crt".into()));
    assert_eq!(config.warnings, ["admin_users or stats_users name \"root\", who cannot log in"]);
}

#[test]
fn every_setting_can_come_from_the_environment() {
    for key in KEYS {
        let variable = key.variable();
        let config = from_env(&[URL, (&variable, key.default)]);
        assert!(config.is_ok() || key.name == "auth_file", "{variable}: {config:?}");
    }
}

#[test]
fn unknown_variables_are_refused_but_for_kubernetes_service_links() {
    let text = error(from_env(&[URL, ("PGSLUICE_POLL_SIZE", "20"), ("PGSLUICE_WORKERS", "many")]));
    assert_eq!(
        text,
        "environment variable PGSLUICE_POLL_SIZE: unknown setting\n  help: did you mean `PGSLUICE_POOL_SIZE`?\n\
         environment variable PGSLUICE_WORKERS: `many` is not a whole number"
    );
    let text = error(from_env(&[URL, ("PGSLUICE_DEFAULT_POOL_SIZE", "20")]));
    assert!(text.ends_with("help: set `PGSLUICE_POOL_SIZE`"), "{text}");
    let text = error(from_env(&[URL, ("PGSLUICE_LISTEN_PORT", "6432"), ("PGSLUICE_PIDFILE", "/run/x")]));
    assert!(text.contains("set `PGSLUICE_LISTEN`") && text.contains("leave it out"), "{text}");
    let links = [
        URL,
        ("PGSLUICE_SERVICE_HOST", "10.0.0.1"),
        ("PGSLUICE_SERVICE_PORT", "6432"),
        ("PGSLUICE_SERVICE_PORT_POSTGRES", "6432"),
        ("PGSLUICE_PORT", "tcp://10.0.0.1:6432"),
        ("PGSLUICE_PORT_6432_TCP", "tcp://10.0.0.1:6432"),
        ("PGSLUICE_PORT_6432_TCP_PROTO", "tcp"),
        ("PGSLUICE_PORT_6432_TCP_ADDR", "10.0.0.1"),
        ("PGSLUICE_METRICS_SERVICE_HOST", "10.0.0.2"),
        ("PGSLUICE_METRICS_PORT_9127_TCP", "tcp://10.0.0.2:9127"),
        ("PGSLUICE_CONFIG", "/etc/x.toml"),
    ];
    from_env(&links).unwrap();
}

#[test]
fn database_urls_that_cannot_work_say_what_to_do() {
    for (variables, expected) in [
        (&[][..], "no database to pool to is configured"),
        (&[("DATABASE_URL", "")], "no database to pool to is configured"),
        (&[("DATABASE_URL", "postgres://app:hunter2@db/app?sslmode=verify-full")], "needs `server_tls_ca_file`"),
        (&[("DATABASE_URL", "postgres://db/app")], "it names no user"),
        (&[("DATABASE_URL", "postgres://app@db/app")], "it has no password, so \"app\" cannot log in"),
        (&[("DATABASE_URL", "postgres://app:hunter2@localhost:6432/app")], "it names pgsluice's own address"),
        (&[("DATABASE_URL", "sqlite:///hunter2.db")], "a URL such as postgres://"),
        (&[("DATABASE_URL", "postgres://a:hunter2@b/c"), ("DATABASE_URL_FILE", "/x")], "keep one of them"),
        (&[("PGSLUICE_DATABASE_URL_FILE", "/does/not/exist")], "cannot be read"),
    ] {
        let text = error(from_env(variables));
        assert!(text.contains(expected), "{text}");
    }
    let trusting = from_env(&[("DATABASE_URL", "postgres://app@db"), ("PGSLUICE_AUTH_TYPE", "trust")]).unwrap();
    assert!(trusting.auth.users["app"].is_empty());
    assert!(trusting.databases.contains_key("app"), "libpq's default name is the user's");
    let both = from_env(&[("DATABASE_URL", "postgres://a:b@127.0.0.1:6432/c"), ("PGSLUICE_DATABASE_URL", URL.1)]);
    assert_eq!(both.unwrap().databases.len(), 1, "the application's own variable does not count");
}

#[test]
fn secrets_come_from_files_and_variables() {
    let directory = std::env::temp_dir().join(format!("pgsluice-config-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("secret"), "from file\n").unwrap();
    std::fs::write(directory.join("users.txt"), "\"a\" \"x\"\n\"b\" \"y\"\n").unwrap();
    std::fs::write(directory.join("url"), "postgres://u:p@db/app\n").unwrap();
    let text = "auth_file = \"users.txt\"\n[databases.\"*\"]\nurl = \"postgres://owner:pw@db/\"\n[users.b]\n\
                password_file = \"secret\"\n[users.c]\npassword_env = \"C_PASSWORD\"\n[users.d]\n";
    let file = directory.join("pgsluice.toml");
    std::fs::write(&file, text).unwrap();
    let url = directory.join("url").display().to_string();
    let environment = env(&[("C_PASSWORD", "from env"), ("DATABASE_URL_FILE", &url)]);
    let config = Config::load(Some(&file), &environment).unwrap();
    let users = &config.auth.users;
    assert_eq!(users["a"], Secret::Plain("x".into()));
    assert_eq!(users["b"], Secret::Plain("from file".into()), "[users] overrides auth_file");
    assert_eq!(users["c"], Secret::Plain("from env".into()));
    assert_eq!(users["u"], Secret::Plain("p".into()));
    assert!(config.warnings.iter().any(|warning| warning.contains("\"d\"")), "{:?}", config.warnings);
    let any = config.database("whatever").unwrap();
    assert_eq!((any.user.as_deref(), any.dbname.as_deref()), (Some("owner"), None));
    assert_eq!(any.password, Some(Secret::Plain("pw".into())));

    std::fs::write(directory.join("users.txt"), "\"a\" \"x\"\nb hunter2\n").unwrap();
    let text = error(Config::load(Some(&file), &environment));
    assert!(text.contains("users.txt:2:1: \"user\" \"secret\" expected"), "{text}");
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(error(Config::load(Some(&file), &environment)).contains("cannot be read"));
}

#[test]
fn everything_wrong_is_shown_at_once_with_its_place() {
    let text = error(toml(
        "workres = 2\npool_mode = \"session\"\nmax_client_conn = -3\nclient_login_timeout = \"5 parsecs\"\n\
         [pool]\npool_sise = 20\npool_mode = \"transction\"\n\tserver_lifetime = true",
    ));
    assert_eq!(
        text,
        r#"test.toml:1:1: unknown key `workres`
   |
 1 | workres = 2
   | ^^^^^^^
  help: did you mean `workers`?
test.toml:2:1: unknown key `pool_mode`
   |
 2 | pool_mode = "session"
   | ^^^^^^^^^
  help: `pool_mode` belongs in [pool]
test.toml:3:19: -3 is out of bounds; between 1 and 1000000 is possible
   |
 3 | max_client_conn = -3
   |                   ^^
test.toml:4:24: `5 parsecs` is not a duration; write for example "250ms", "5s", "10min", "1h"
   |
 4 | client_login_timeout = "5 parsecs"
   |                        ^^^^^^^^^^^
test.toml:6:1: unknown key `pool_sise` in [pool]
   |
 6 | pool_sise = 20
   | ^^^^^^^^^
  help: did you mean `pool_size`?
test.toml:7:13: `transction` is not one of session, transaction, statement; did you mean `transaction`?
   |
 7 | pool_mode = "transction"
   |             ^^^^^^^^^^^^
test.toml:8:20: `true` is not a duration; write for example "250ms", "5s", "10min", "1h"
   |
 8 | 	server_lifetime = true
   | 	                  ^^^^"#
    );
}

#[test]
fn mistakes_of_newcomers_from_pgbouncer_are_mended() {
    for (front, expected) in [
        ("listen_port = 6432", "write `listen = [\"127.0.0.1:6432\"]`"),
        ("[pool]\ndefault_pool_size = 20", "write `pool_size` in [pool]"),
        ("server_reset_qurey = \"\"", "did you mean `server_reset_query`, which belongs in [pool]?"),
        ("[databases.other]\nhots = \"db\"", "test.toml:2:1: unknown key `hots` in [databases.other]"),
        ("[pools]\nx = 1", "unknown key `pools`"),
        ("[pool]\nmin_pool_size = 30", "test.toml:2:1: `min_pool_size` is greater than `pool_size`"),
        ("[databases.x]\npool_size = 3\nmin_pool_size = 4", "test.toml:3:1: `min_pool_size` is greater"),
        ("[users.x]\npassword = \"hunter2\"\npassword_env = \"Y\"", "keep one of `password`"),
        ("[users.x]\npassword_env = \"NOT_SET\"", "test.toml:2:1: the environment variable is not set"),
        ("[users.x]\npassword_file = \"/does/not/exist\"", "test.toml:2:1: the file cannot be read"),
        ("pool = 5", "test.toml:1:8: expected "),
        (
            "client_tls_ciphers = \"AES256-SHA\"",
            "test.toml:1:22: `AES256-SHA` is not a cipher suite that there is here: TLS_AES_256",
        ),
        ("client_tls_ciphers = [\"AES256-SHA\"]", "test.toml:1:22: `AES256-SHA` is not"),
        ("[pool]\nserver_tls_ciphers = []", "test.toml:2:22: an empty list leaves no cipher"),
        (
            "[databases.x]\nserver_tls_min_version = \"tlsv1.3\"\nserver_tls_ciphers = \"ECDHE-RSA-AES128-GCM-SHA256\"",
            "test.toml:3:1: `server_tls_ciphers` has no cipher of TLS 1.3",
        ),
        ("client_tls13_ciphers = \"\"", "write them into `client_tls_ciphers`"),
        ("listen = []", "at least one address is needed"),
        ("auth_file = \"none.txt\"", "none.txt cannot be read"),
        ("scram_salt_file = \"none.txt\"", "test.toml:1:1: the file cannot be read"),
        ("http_token = \"hunter2\"", "test.toml:1:1: a token has at least 16 printable ASCII characters"),
        ("http_token = \"0123456789abcdef\"\nhttp_token_file = \"x\"", "keep one of"),
    ] {
        let text = error(toml(front));
        assert!(text.contains(expected), "{front}\n{text}");
    }
    let nobody = Config::from_toml("[databases.app]\nhost = \"db\"", Path::new("t.toml"));
    assert!(error(nobody).starts_with("no user can log in\n  help: "));
}

#[test]
fn broken_toml_is_shown_without_secrets() {
    for front in [
        "[users.x]\npassword = \"hunter2",
        "[users.x]\npassword = hunter2",
        "[users.x]\npassword = 1.2",
        "users.x = \"hunter2\"",
        "users = \"hunter2\"",
        "[users]\nx = \"hunter2\"",
        "[users.x]\n\"hunter2\"",
        "[users.x]\npassword = \"\"\"\nhunter2\\q\n\"\"\"",
        "[users.x]\npassword_env = \"hunter2\"",
        "[users.x]\npassword_file = \"hunter2\"",
        "[users.x]\npassword = [\"hunter2\"]",
        "[users.x]\npassword = {a = \"hunter2\"}",
        "[databases]\nx = \"host=db password=hunter2\"",
        "[databases.x]\nurl = \"postgres://u:hunter2@db:port/x\"",
        "[databases.x]\nurl = \"postgres://u:hunter2@db/x?nope=hunter2\"",
        "[pool]\npool_size = ",
        "[pool\n",
    ] {
        let text = error(toml(front));
        assert!(text.contains("test.toml:"), "{front}\n{text}");
    }
}

#[test]
fn debug_and_entries_keep_secrets() {
    let config = toml("").unwrap();
    assert!(!format!("{config:?} {:?}", config.entries()).contains("hunter2"));
    assert!(!format!("{:?}", env(&[("A", "hunter2")])).contains("hunter2"));
}

#[test]
fn each_database_has_its_own_question_or_the_common_one() {
    let config = toml(
        "auth_user = \"asking\"\nauth_dbname = \"users\"\nauth_query_ttl = \"5s\"\n\
         [databases.users]\n[databases.own]\nauth_user = \"other\"\nauth_query = \"SELECT $1, 'x'\"\n\
         [databases.none]\nauth_user = \"\"\n",
    )
    .unwrap();
    let of = |name: &str| config.databases[name].auth_query.as_ref().map(|q| (&*q.user, q.query.contains("pg_authid")));
    assert_eq!(of("users"), Some(("asking", true)));
    assert_eq!(of("own"), Some(("other", false)));
    assert_eq!(of("none"), None);
    assert_eq!(config.databases["own"].auth_query.as_ref().unwrap().dbname.as_deref(), Some("users"));
    assert_eq!(config.auth.query.ttl.as_secs(), 5);
    // Who is asked may know everybody: no user need be listed.
    assert!(Config::from_toml("auth_user = \"a\"\n[databases.x]\n", Path::new("x.toml")).is_ok());
    assert!(Config::from_toml("[databases.x]\n", Path::new("x.toml")).is_err());
    assert!(error(toml("auth_dbname = \"gone\"\nauth_user = \"a\"\n[databases.x]\n")).contains("[databases.gone]"));
}

#[test]
fn warnings_tell_what_is_probably_not_meant() {
    let verifier = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    let text = format!(
        "listen = \"*\"\nadmin_users = [\"root\"]\n[databases.pgbouncer]\n[users.v]\npassword = \"{verifier}\"\n\
         [users.m]\npassword = \"md5f00f00f00f00f00f00f00f00f00f00f0\"\n[users.e]\n"
    );
    let config = toml(&text).unwrap();
    assert_eq!(config.warnings.len(), 4, "{:#?}", config.warnings);
    let weak = |listen: &str| {
        let config = from_env(&[URL, ("PGSLUICE_LISTEN", listen), ("PGSLUICE_SCRAM_ITERATIONS", "256")]).unwrap();
        config.warnings.iter().filter(|w| w.contains("scram_iterations = 256")).count()
    };
    assert_eq!((weak("*:6432"), weak("127.0.0.1:6432,/run"), weak("[::1]:6432")), (1, 0, 0));
    let unproven = toml(&text.replace("listen = \"*\"", "auth_type = \"trust\"")).unwrap();
    let told = |config: &Config, what: &str| config.warnings.iter().any(|warning| warning.contains(what));
    assert!(told(&unproven, "a SCRAM verifier is all that is known of \"v\""), "{:#?}", unproven.warnings);
    let asking = toml(&format!("auth_user = \"v\"\n{text}[databases.two]\nauth_user = \"w\"\n")).unwrap();
    assert!(told(&asking, "all that is known of auth_user \"v\""), "{:#?}", asking.warnings);
    assert!(told(&asking, "no password is known of auth_user \"w\""), "{:#?}", asking.warnings);
    let trusting = toml("listen = \"*\"\nauth_type = \"any\"").unwrap();
    assert!(trusting.warnings[0].contains("lets everybody in"), "{:?}", trusting.warnings);
    let clear = |mode: &str| {
        let variables =
            [URL, ("PGSLUICE_LISTEN", "*:6432"), ("PGSLUICE_AUTH_TYPE", "plain"), ("PGSLUICE_CLIENT_TLS_MODE", mode)];
        let files = [("PGSLUICE_CLIENT_TLS_CERT_FILE", "c.pem"), ("PGSLUICE_CLIENT_TLS_KEY_FILE", "c.key")];
        let config = from_env(&[&variables[..], &files].concat()).unwrap();
        config.warnings.iter().any(|warning| warning.contains("in the clear"))
    };
    assert!(clear("prefer") && !clear("require"));
    let md5 = |listen: &str, method: &str| {
        let variables = [URL, ("PGSLUICE_LISTEN", listen), ("PGSLUICE_AUTH_TYPE", method)];
        from_env(&variables).unwrap().warnings.iter().any(|warning| warning.contains("can be guessed fast"))
    };
    assert!(md5("*:6432", "md5") && !md5("127.0.0.1:6432", "md5") && !md5("*:6432", "scram-sha-256"));
}

proptest::proptest! {
    /// Any text is read or refused with a place inside the text.
    #[test]
    fn any_text_is_read_or_refused(text in "([a-z_]{1,8} = ?[\"0-9a-z\\[\\]{},.]{0,8}|\\[[a-z.\"*]{0,9}\\]|\\PC{0,9}|\n){0,8}") {
        let _ = Config::from_toml(&text, Path::new("x.toml")).map_err(|error| error.to_string());
    }
}
