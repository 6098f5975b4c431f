//! `pgsluice report`: the diagnosis of a running pgsluice as a document.
//!
//! | file | what |
//! |---|---|
//! | [`gather`] | the API's answers in one JSON document |
//! | [`compare`] | beside an earlier one |
//! | [`document`] | what is told, in order |
//! | [`markdown`], [`html`] | how it is written |

mod compare;
pub(in crate::cli) mod document;
mod gather;
mod html;
mod markdown;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::remote::{Failure, RemoteArgs};

/// Arguments.
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// What of the past is looked at.
    #[arg(long, default_value = "1h", value_parser = crate::config::units::parse_duration)]
    since: Duration,
    /// How it is written.
    #[arg(long, value_enum, default_value = "md")]
    format: Format,
    /// Compare with a report that was saved earlier as JSON: what a change has saved.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Markdown, to paste into a ticket.
    Md,
    /// One file with plots, nothing fetched.
    Html,
    /// For machines, and for --compare.
    Json,
}

/// The report as text.
pub(super) fn report(args: &ReportArgs) -> Result<String, Failure> {
    let earlier = args.compare.as_deref().map(gather::load).transpose()?;
    let mut report = gather::gather(&args.remote.open()?, args.since.as_secs_f64())?;
    if let Some(earlier) = earlier {
        report["comparison"] = compare::compare(&earlier, &report);
    }
    Ok(match args.format {
        Format::Md => markdown::markdown(&document::document(&report)),
        Format::Html => html::html(&document::document(&report)),
        Format::Json => format!("{report:#}\n"),
    })
}
