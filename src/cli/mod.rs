//! Arguments and subcommands. Each subcommand answers with an exit code that scripts can rely on.

mod check;
mod health;
pub mod logging;
mod remote;
mod report;
mod top;
mod words;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};

use crate::app;
use crate::config::{Config, ConfigError, Environment, docs};
use crate::net::TlsFiles;

/// Exit code for a configuration that cannot be used: EX_CONFIG of `sysexits.h`.
pub const EX_CONFIG: u8 = 78;

/// Read when neither `--config` nor `PGSLUICE_CONFIG` is given, and only if it exists.
pub const DEFAULT_CONFIG: &str = "/etc/pgsluice/pgsluice.toml";

const LONG_ABOUT: &str = "\
A PostgreSQL connection pooler that names the N+1 queries of every client session.

Put it between a Django application and its database by changing HOST and PORT: many client connections share a few \
server connections, and pgsluice tells which view has an N+1 query, what it costs and how to mend it.";

const EXAMPLES: &str = "\
Examples:
  Pool to one database, without any file (clients connect to 127.0.0.1:6432):
      DATABASE_URL=postgres://app:secret@db:5432/app pgsluice run

  Look at what a configuration would do:
      pgsluice check --config pgsluice.toml

  Look at the pools and findings (the user of DATABASE_URL may):
      psql -h 127.0.0.1 -p 6432 -U app pgsluice -c 'SHOW POOLS'

All settings: docs/configuration.md, or config/pgsluice.toml with comments.";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "pgsluice", version, about = "A PostgreSQL connection pooler that names N+1 queries")]
#[command(long_about = LONG_ABOUT, after_help = EXAMPLES, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pool connections until SIGTERM (waits for transactions) or SIGQUIT.
    ///
    /// Stays in the foreground and logs to standard error. Exits with 78 when the configuration cannot be used.
    Run(ConfigArgs),
    /// Check the configuration and say what it would do.
    ///
    /// Reads the same file and environment as `run`, opens nothing, and exits with 0, or with 78 when something is
    /// wrong. Secrets are never shown.
    Check(ConfigArgs),
    /// Ask a running pgsluice whether it is well: exits with 0 or 1.
    ///
    /// For the health check of a container image, which has no curl. Asks /healthz at the address of `http_listen`.
    Health(HealthArgs),
    /// Write the diagnosis of a running pgsluice: what was measured, what to change, what that gains.
    ///
    /// Exits with 0; 1 when nothing answers; 3 when the token is missing or wrong; 4 when the running pgsluice is older
    /// and has no such API; 5 when a file of this machine cannot be read.
    Report(report::ReportArgs),
    /// Look at a running pgsluice live in the terminal: pools, clients, findings, queries.
    ///
    /// Keys are shown in the last line; `?` explains. Exits as `report` does.
    Top(top::TopArgs),
    /// Print the reference of all settings (docs/configuration.md).
    #[command(hide = true)]
    Docs,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Configuration file; without it /etc/pgsluice/pgsluice.toml where that exists, else the environment alone.
    #[arg(short, long, env = "PGSLUICE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct HealthArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Ask this address instead of the configured one, for example http://127.0.0.1:9127/readyz.
    #[arg(long)]
    url: Option<String>,
    /// How long the answer may take.
    #[arg(long, default_value = "2s", value_parser = crate::config::units::parse_duration)]
    timeout: std::time::Duration,
}

/// Reads the arguments of the process and does what they say.
pub fn main() -> ExitCode {
    run(&Cli::parse(), &Environment::of_process())
}

fn run(cli: &Cli, environment: &Environment) -> ExitCode {
    match &cli.command {
        Command::Run(args) => match args.load(environment) {
            Ok(config) => match TlsFiles::load(&config) {
                Ok(_) => start(config),
                Err(error) => refuse(&error),
            },
            Err(error) => refuse(&error),
        },
        Command::Check(args) => match args.load(environment) {
            Ok(config) => match TlsFiles::load(&config) {
                Ok(_) => print(&check::describe(&config)),
                Err(error) => refuse(&error),
            },
            Err(error) => refuse(&error),
        },
        Command::Health(args) => match args.ask(environment) {
            Ok(answer) => print(&format!("{answer}\n")),
            Err(message) => {
                complain(&message);
                ExitCode::FAILURE
            }
        },
        Command::Report(args) => match report::report(args) {
            Ok(text) => print(&text),
            Err(failure) => fail(&failure),
        },
        Command::Top(args) => top::top(args).unwrap_or_else(|failure| fail(&failure)),
        Command::Docs => print(&docs::markdown()),
    }
}

/// Logging first, so that the warnings of the configuration reach the log.
fn start(config: Config) -> ExitCode {
    logging::init(&config.log);
    for warning in &config.warnings {
        tracing::warn!("configuration: {warning}");
    }
    app::run(Arc::new(config))
}

fn refuse(error: &dyn std::error::Error) -> ExitCode {
    complain(&error.to_string());
    ExitCode::from(EX_CONFIG)
}

fn fail(failure: &remote::Failure) -> ExitCode {
    complain(&failure.to_string());
    failure.code()
}

fn complain(message: &str) {
    // Nowhere is left to report a failure of standard error.
    let _ = writeln!(std::io::stderr(), "pgsluice: {message}");
}

/// Prints; a reader that has gone away (`pgsluice docs | head`) is no failure.
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

impl ConfigArgs {
    fn load(&self, environment: &Environment) -> Result<Config, ConfigError> {
        Config::load(self.path().as_deref(), environment)
    }

    /// The file to read; `None`: the environment alone.
    fn path(&self) -> Option<PathBuf> {
        // An empty PGSLUICE_CONFIG counts as none.
        let given = self.config.clone().filter(|path| !path.as_os_str().is_empty());
        given.or_else(|| Some(PathBuf::from(DEFAULT_CONFIG)).filter(|path| Path::exists(path)))
    }
}

impl HealthArgs {
    fn ask(&self, environment: &Environment) -> Result<String, String> {
        let target = match &self.url {
            Some(url) => health::Target::parse(url)?,
            None => {
                let config = self.config.load(environment).map_err(|error| error.to_string())?;
                let address = config.http_listen.ok_or("http_listen is off: there is nothing to ask")?;
                health::Target::of_listener(address)
            }
        };
        health::ask(&target, self.timeout)
    }
}

#[cfg(test)]
mod tests;
