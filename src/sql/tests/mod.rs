//! Tests of the module as a whole; those of one file stand in the file.

mod corpus;
mod facts;
mod properties;
mod rows;
mod shapes;
mod tag_values;
mod templates;

use super::*;

/// UTF-8, standard_conforming_strings on.
pub(super) const ON: LexSettings = LexSettings { standard_conforming_strings: Some(true), safe_encoding: true };
pub(super) const OFF: LexSettings = LexSettings { standard_conforming_strings: Some(false), safe_encoding: true };

pub(super) fn all(sql: &[u8], settings: LexSettings) -> Vec<(Statement, Vec<u8>)> {
    let mut out = Vec::new();
    Analyzer::new([1, 2]).analyze(RawSql(sql), settings, |s, text| out.push((*s, text.0.to_vec())));
    out
}

pub(super) fn one(sql: &str) -> Statement {
    let got = all(sql.as_bytes(), ON);
    assert_eq!(got.len(), 1, "{sql}: one statement");
    got[0].0
}

pub(super) fn fp(sql: &str) -> Fingerprint {
    one(sql).fingerprint
}

pub(super) fn shown(sql: &str) -> String {
    display(RawSql(sql.as_bytes()), ON, 2048).to_string()
}
