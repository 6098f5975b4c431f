//! The answers of SHOW.

mod causes;
mod clients;
mod insight;
mod pools;
mod settings;
mod stats;

use super::parse::Token;
use super::table::Table;
use crate::client::Process;
use crate::wire::error::{ErrorFields, sqlstate};

/// A SHOW without arguments.
type Maker = fn(&Process) -> Table;

/// What SHOW knows, besides HELP.
const PLAIN: [(&str, Maker); 19] = [
    ("CLIENTS", clients::clients),
    ("CONFIG", settings::config),
    ("DATABASES", pools::databases),
    ("LISTS", pools::lists),
    ("MEM", settings::mem),
    ("PINS", clients::pins),
    ("POOLS", pools::pools),
    ("SERVERS", clients::servers),
    ("STATE", settings::state),
    ("STATS", stats::stats),
    ("STATS_AVERAGES", stats::averages),
    ("STATS_TOTALS", stats::totals),
    ("TOTALS", stats::sums),
    ("USERS", pools::users),
    ("VERSION", settings::version),
    // There are none of these; tools that ask get an empty list.
    ("PEERS", |_| Table::new("#peer_id host #port #pool_size")),
    ("PEER_POOLS", |_| Table::new("#peer_id #cl_active_cancel_req #cl_waiting_cancel_req #sv_active_cancel #sv_login")),
    ("DNS_HOSTS", |_| Table::new("hostname #ttl addrs")),
    ("DNS_ZONES", |_| Table::new("zonename #serial #count")),
];

/// What takes arguments.
const WITH_ARGUMENTS: [&str; 4] = ["CAUSES", "NPLUSONE", "FINGERPRINTS", "FINGERPRINT"];

/// The names that SHOW takes, for help and hints.
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = PLAIN.iter().map(|(name, _)| *name).collect();
    names.extend(WITH_ARGUMENTS);
    names
}

/// The rows that `SHOW words` asks for; `None`: no such SHOW.
///
/// # Errors
/// Arguments that are none.
pub fn table(process: &Process, words: &[Token]) -> Result<Option<Table>, ErrorFields> {
    let Some((what, arguments)) = words.split_first() else {
        return Ok(None);
    };
    if let Some((_, make)) = PLAIN.iter().find(|(name, _)| what.is(name)) {
        return Ok(arguments.is_empty().then(|| make(process)));
    }
    if what.is("CAUSES") {
        return causes::causes(process, arguments).map(Some);
    }
    if what.is("NPLUSONE") {
        return insight::nplusone(process, arguments).map(Some);
    }
    if what.is("FINGERPRINTS") {
        return insight::fingerprints(process, arguments).map(Some);
    }
    if what.is("FINGERPRINT") {
        return insight::fingerprint(process, arguments).map(Some);
    }
    Ok(None)
}

/// A syntax error with what would have been right.
fn usage(message: &str, hint: &str) -> ErrorFields {
    ErrorFields::error(sqlstate::SYNTAX_ERROR, message).hint(hint)
}
