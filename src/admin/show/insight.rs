//! SHOW NPLUSONE, FINGERPRINTS, FINGERPRINT: what insight found. Texts are literal-free.

use std::time::Duration;

use super::usage;
use crate::admin::parse::Token;
use crate::admin::table::{Table, row};
use crate::client::Process;
use crate::insight::{FindingView, FingerprintOrder, FingerprintView};
use crate::sql::Fingerprint;
use crate::wire::error::ErrorFields;

/// Rows without LIMIT.
const LIMIT: usize = 50;
/// Characters of a statement in a list; SHOW FINGERPRINT shows all of it.
const TEXT: usize = 200;

/// LIMIT n and BY word, in any order.
fn arguments(words: &[Token], by: bool) -> Result<(FingerprintOrder, usize), ErrorFields> {
    let hint =
        if by { "SHOW FINGERPRINTS [BY total|calls|mean|p95|rows|bytes] [LIMIT n]" } else { "SHOW NPLUSONE [LIMIT n]" };
    let wrong = || usage("cannot read the arguments", hint);
    let (mut order, mut limit) = (FingerprintOrder::Total, LIMIT);
    let mut rest = words;
    while let [keyword, value, more @ ..] = rest {
        let value = value.name().ok_or_else(wrong)?;
        if keyword.is("LIMIT") {
            limit = value.parse().map_err(|_| wrong())?;
        } else if by && keyword.is("BY") {
            order = FingerprintOrder::named(&value.to_ascii_lowercase()).ok_or_else(wrong)?;
        } else {
            return Err(wrong());
        }
        rest = more;
    }
    if rest.is_empty() { Ok((order, limit)) } else { Err(wrong()) }
}

pub(super) fn nplusone(process: &Process, words: &[Token]) -> Result<Table, ErrorFields> {
    let (_, limit) = arguments(words, false)?;
    let mut table = Table::new(
        "finding severity kind confidence database route tables relation #bursts #queries #n_min #n_max avoidable_ms \
         first_seen last_seen fingerprint parent_fingerprint statement advice",
    );
    for f in process.insight.findings().into_iter().take(limit) {
        let FindingView { n: (min, max, _), .. } = f;
        let time = |unix: f64| crate::net::clock::utc(Duration::try_from_secs_f64(unix).map_or(0, |d| d.as_secs()));
        let texts: Vec<_> = f.texts.iter().map(|t| cut(t)).collect();
        let fingerprints: Vec<_> = f.fingerprints.iter().map(Fingerprint::to_string).collect();
        table.push(row![
            f.id,
            f.severity.name(),
            f.kind.name(),
            f.confidence.name(),
            &*f.database,
            f.route.as_deref(),
            f.tables.join(","),
            f.relation,
            f.bursts,
            f.queries,
            min,
            max,
            ms(f.avoidable_seconds),
            time(f.first_seen),
            time(f.last_seen),
            fingerprints.join(","),
            f.parent.map(|p| p.to_string()),
            texts.join("; "),
            &*f.advice,
        ]);
    }
    Ok(table)
}

const COLUMNS: &str = "fingerprint database #calls total_ms mean_ms max_ms #rows #bytes #errors tables summary statement p50_ms p95_ms p99_ms routes";

fn push(table: &mut Table, f: FingerprintView, text: String) {
    let mean = f.seconds / (f.calls.max(1) as f64);
    table.push(row![
        f.fingerprint.to_string(),
        &*f.database,
        f.calls,
        ms(f.seconds),
        ms(mean),
        ms(f.max_seconds),
        f.rows,
        f.bytes,
        f.errors,
        f.tables.join(","),
        f.summary,
        text,
        ms(f.p50_seconds),
        ms(f.p95_seconds),
        ms(f.p99_seconds),
        f.routes.join(","),
    ]);
}

pub(super) fn fingerprints(process: &Process, words: &[Token]) -> Result<Table, ErrorFields> {
    let (order, limit) = arguments(words, true)?;
    let mut table = Table::new(COLUMNS);
    for f in process.insight.fingerprints(order, limit) {
        let text = cut(&f.text);
        push(&mut table, f, text);
    }
    Ok(table)
}

pub(super) fn fingerprint(process: &Process, words: &[Token]) -> Result<Table, ErrorFields> {
    let hint = "SHOW FINGERPRINT id, with an id of 16 hex digits from SHOW FINGERPRINTS or the metrics.";
    let [id] = words else {
        return Err(usage("cannot read the arguments", hint));
    };
    let id = id.name().and_then(|id| u64::from_str_radix(id, 16).ok());
    let id = Fingerprint(id.ok_or_else(|| usage("not a fingerprint", hint))?);
    let mut table = Table::new(COLUMNS);
    let all = process.insight.fingerprints(FingerprintOrder::Total, usize::MAX);
    for f in all.into_iter().filter(|f| f.fingerprint == id) {
        let text = f.text.clone();
        push(&mut table, f, text);
    }
    Ok(table)
}

fn ms(seconds: f64) -> String {
    format!("{:.3}", seconds * 1e3)
}

/// The beginning of a long text.
fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::parse;

    fn read(text: &str, by: bool) -> Option<(FingerprintOrder, usize)> {
        let statements = parse::statements(text).unwrap();
        arguments(statements.first().map_or(&[], |s| s), by).ok()
    }

    #[test]
    fn arguments_come_in_any_order_and_case() {
        assert_eq!(read("", true), Some((FingerprintOrder::Total, LIMIT)));
        assert_eq!(read("limit 3 BY Mean", true), Some((FingerprintOrder::Mean, 3)));
        assert_eq!(read("by rows", true), Some((FingerprintOrder::Rows, LIMIT)));
        for wrong in ["by rows", "limit", "limit x", "limit -1", "limit 3 4", "for 3"] {
            assert_eq!(read(wrong, false), None, "{wrong}");
        }
        assert_eq!(read("by name", true), None);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = "\u{e9}".repeat(TEXT + 1);
        assert_eq!(cut(&long), format!("{}...", "\u{e9}".repeat(TEXT)));
        assert_eq!(cut("short"), "short");
    }
}
