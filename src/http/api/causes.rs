//! `/causes`: the one list of what to mend, ranked.

use std::collections::BTreeMap;

use super::endpoint::{Ask, Endpoint, Json, Refusal, cut, objects, page, value};
use super::object::object;
use crate::client::Process;
use crate::diagnosis::{self, KINDS};

object! {
    /// One cause of time that pages wait for the database.
    Cause {
        /// 12 hex digits: the same cause has the same on every instance and after every restart.
        id: String,
        /// `n_plus_one`, `missing_index`, `idle_in_transaction` and so on; all are listed below.
        kind: &'static str,
        /// Seconds an hour that mending it gives back, at the rate of the last half to whole hour.
        recoverable_seconds_per_hour: f64,
        /// `floor` (at least so many) or `estimate`.
        basis: &'static str,
        /// It is only probable that this is the cause: look at it before you act.
        probable: bool,
        /// Database as clients name it.
        database: String,
        /// Routes it was seen in, as far as statements are tagged.
        routes: Vec<String>,
        /// User, where it is one user's.
        user: Option<String>,
        /// The statement; 16 hex digits.
        fingerprint: Option<String>,
        /// Its text without literals.
        text: Option<String>,
        /// Id of the finding that tells more.
        finding: Option<String>,
        /// What was seen, in a sentence.
        evidence: String,
        /// The same in numbers, units in their names.
        numbers: BTreeMap<String, f64>,
        /// What to change, in Django's words.
        mend: String,
        /// The same as code; empty when there is none. Names are guessed from tables and columns.
        code: String,
        /// Length of the window that the rates are of.
        window_seconds: f64,
    }
}

/// The endpoint.
pub const ENDPOINT: Endpoint = Endpoint {
    path: "causes",
    about: "What to mend, ranked by the seconds an hour that it gives back.",
    id: Some("a cause's id"),
    list: true,
    parameters: &[
        ("database", "of this database"),
        ("route", "seen in this route"),
        ("kind", "of this kind"),
        ("basis", "`floor` or `estimate`"),
    ],
    objects: objects::<Cause>(),
    answer,
};

fn answer(process: &Process, ask: &Ask) -> Result<Json, Refusal> {
    let kind = ask.word("kind", |word| KINDS.iter().map(|(kind, _)| *kind).find(|kind| *kind == word))?;
    let basis = ask.word("basis", |word| ["floor", "estimate"].into_iter().find(|basis| *basis == word))?;
    let (window, mut all) = process.with_sources(|sources| process.diagnosis.causes(sources));
    let window = window.as_secs_f64();
    if let Some(id) = &ask.id {
        let found = all.into_iter().find(|cause| cause.id() == *id);
        return value(&cause(found.ok_or_else(|| Refusal::missing("no such cause"))?, window));
    }
    all.retain(|cause| {
        ask.get("database").is_none_or(|name| *name == *cause.database)
            && ask.get("route").is_none_or(|name| cause.routes.iter().any(|route| **route == *name))
            && kind.is_none_or(|kind| kind == cause.kind)
            && basis.is_none_or(|basis| basis == cause.basis.name())
    });
    let (total, chosen) = cut(ask, all)?;
    page(ask, total, &chosen.into_iter().map(|one| cause(one, window)).collect::<Vec<_>>())
}

fn cause(cause: diagnosis::Cause, window_seconds: f64) -> Cause {
    Cause {
        id: cause.id(),
        kind: cause.kind,
        recoverable_seconds_per_hour: cause.recoverable,
        basis: cause.basis.name(),
        probable: cause.probable,
        database: cause.database.to_string(),
        routes: cause.routes.iter().map(|route| route.to_string()).collect(),
        user: cause.user.map(|user| user.to_string()),
        fingerprint: cause.fingerprint.map(|fingerprint| fingerprint.to_string()),
        text: Some(cause.text).filter(|text| !text.is_empty()),
        finding: cause.finding,
        evidence: cause.evidence,
        numbers: cause.numbers.into_iter().map(|(name, number)| (name.to_owned(), number)).collect(),
        mend: cause.mend,
        code: cause.code,
        window_seconds,
    }
}
