//! The command line as scripts see it.

use clap::CommandFactory as _;

use super::*;

fn environment() -> Environment {
    [("DATABASE_URL", "postgres://app:hunter2@db:5433/shop"), ("PGSLUICE_POOL_SIZE", "7")].into_iter().collect()
}

/// Exit codes cannot be compared, only shown.
fn code(code: ExitCode) -> String {
    format!("{code:?}")
}

fn parse(arguments: &[&str]) -> Cli {
    Cli::try_parse_from([&["pgsluice"], arguments].concat()).unwrap()
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
    let help = Cli::command().render_long_help().to_string();
    assert!(help.contains("DATABASE_URL=postgres://") && !help.contains("docs  "), "{help}");
    assert!(Cli::try_parse_from(["pgsluice", "--version"]).is_err_and(|e| e.exit_code() == 0));
    assert!(Cli::try_parse_from(["pgsluice"]).is_err_and(|e| e.exit_code() == 2));
    assert!(Cli::try_parse_from(["pgsluice", "health", "--timeout", "soon"]).is_err());
}

#[test]
fn the_exit_code_tells_a_bad_configuration() {
    let bad = parse(&["check", "--config", "/does/not/exist.toml"]);
    assert_eq!(code(run(&bad, &environment())), code(ExitCode::from(EX_CONFIG)));
    let bad = parse(&["run", "-c", "/does/not/exist.toml"]);
    assert_eq!(code(run(&bad, &environment())), code(ExitCode::from(EX_CONFIG)));
    let unwell = parse(&["health", "--url", "nonsense"]);
    assert_eq!(code(run(&unwell, &environment())), code(ExitCode::FAILURE));
}

#[test]
fn check_says_what_would_happen_and_no_secret() {
    let config = Config::load(None, &environment()).unwrap();
    let text = check::describe(&config);
    assert_eq!(
        text,
        "configuration  the environment\n\
         clients        127.0.0.1:6432\n\
         login          scram-sha-256, users: app\n\
         http           http://127.0.0.1:9127/metrics, /healthz, /readyz\n\
         console        admin_users: none; stats_users: app\n\
         databases      shop -> db:5433, database shop, as the client's user; transaction mode, 7 servers a user at most\n\
         not default    stats_users = app\n\
         \x20              pool_size = 7\n\
         ok\n"
    );
    let asking =
        Config::from_toml("auth_user = \"asking\"\n[databases.shop]\n", std::path::Path::new("x.toml")).unwrap();
    let text = check::describe(&asking);
    assert!(text.contains("login          scram-sha-256, users: none; others are looked up by auth_query\n"), "{text}");
    assert!(text.contains("warning: no password is known of auth_user \"asking\""), "{text}");
}
