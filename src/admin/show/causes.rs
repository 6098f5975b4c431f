//! SHOW CAUSES: what to mend, ranked.

use super::usage;
use crate::admin::parse::Token;
use crate::admin::table::{Table, row};
use crate::client::Process;
use crate::wire::error::ErrorFields;

/// Rows without LIMIT.
const LIMIT: usize = 50;

pub(super) fn causes(process: &Process, words: &[Token]) -> Result<Table, ErrorFields> {
    let limit = match words {
        [] => Some(LIMIT),
        [keyword, value] if keyword.is("LIMIT") => value.name().and_then(|value| value.parse().ok()),
        _ => None,
    };
    let limit = limit.ok_or_else(|| usage("cannot read the arguments", "SHOW CAUSES [LIMIT n]"))?;
    let mut table = Table::new(
        "cause kind seconds_per_hour basis probable database routes user fingerprint finding evidence mend code",
    );
    let (_, causes) = process.with_sources(|sources| process.diagnosis.causes(sources));
    for cause in causes.into_iter().take(limit) {
        table.push(row![
            cause.id(),
            cause.kind,
            format!("{:.3}", cause.recoverable),
            cause.basis.name(),
            if cause.probable { "yes" } else { "no" },
            &*cause.database,
            cause.routes.join(","),
            cause.user.as_deref(),
            cause.fingerprint.map(|fingerprint| fingerprint.to_string()),
            cause.finding,
            cause.evidence,
            cause.mend,
            cause.code,
        ]);
    }
    Ok(table)
}
