//! Run-time parameters: the sets clients ask for, interned, and the SQL that turns one set into another.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

/// Parameters a server may report before we stop keeping them (PostgreSQL 18 reports 15).
pub const MAX_REPORTED: usize = 64;
/// Parameters one client may set: all that a startup packet can hold (a letter and two NULs each is the least), and
/// those that servers report.
pub const MAX_PARAMS: usize = crate::wire::startup::MAX_PACKET / 3 + MAX_REPORTED;
/// Parameters set by one SELECT; PostgreSQL takes 1664 columns (MaxTupleAttributeNumber, htup_details.h).
const PER_SELECT: usize = 1000;
/// No value of a parameter can hold it.
const UNKNOWN: &str = "\0";

/// Parameter values by lower-case name (PostgreSQL compares names without case, guc.c). Copies share names and values:
/// a set may hold thousands, and each change makes a new one.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct ParamSet(BTreeMap<Arc<str>, Arc<str>>);

/// Shows how many there are: values are the client's.
impl std::fmt::Debug for ParamSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ParamSet({} ..)", self.0.len())
    }
}

impl ParamSet {
    /// From pairs; a later one of the same name wins, as in PostgreSQL. All are kept: a startup packet bounds them.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        ParamSet(pairs.into_iter().map(|(k, v)| (k.to_ascii_lowercase().into(), v.into())).collect())
    }

    /// The same set with one value changed; see [`Self::set`].
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut set = self.clone();
        set.set(name, value);
        set
    }

    /// Changes one value. At [`MAX_PARAMS`] no name is added: a client has brought a full packet and reset (or a server
    /// reported) more than [`MAX_REPORTED`] others.
    pub fn set(&mut self, name: &str, value: &str) {
        let name = name.to_ascii_lowercase();
        if self.0.len() < MAX_PARAMS || self.0.contains_key(&*name) {
            self.0.insert(name.into(), value.into());
        }
    }

    /// The same set without one name.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let mut set = self.clone();
        set.0.remove(name);
        set
    }

    /// Gives `name` a value that no client can ask for: whatever the next one wants is set, or reset.
    pub fn set_unknown(&mut self, name: &str) {
        self.set(name, UNKNOWN);
    }

    /// Unknown values for all names of this set and of `other`.
    #[must_use]
    pub fn all_unknown(&self, other: &ParamSet) -> Self {
        ParamSet::from_pairs(self.iter().chain(other.iter()).map(|(name, _)| (name, UNKNOWN)))
    }

    /// The value of a lower-case name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|v| &**v)
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }
}

/// Reported, but not for a client to set.
pub fn fixed(name: &str) -> bool {
    matches!(
        name,
        "is_superuser"
            | "session_authorization"
            | "in_hot_standby"
            | "server_version"
            | "server_encoding"
            | "integer_datetimes"
    )
}

/// Appends to `out` the SQL that makes a server with `from` one with `to`. One simple Query: all of it or nothing.
///
/// `set_config` rather than SET: it takes list values (search_path) in the form of the startup packet. A role is given
/// up first and taken last: what a client set before SET ROLE, it need not be allowed to set afterwards.
pub fn sync_sql(from: &ParamSet, to: &ParamSet, out: &mut Vec<u8>) {
    if from == to {
        return;
    }
    let role = |name: &str| ROLES.contains(&name);
    let reset = |out: &mut Vec<u8>, name: &str| {
        out.extend_from_slice(b"RESET ");
        quote(out, b'"', name);
        out.push(b';');
    };
    ROLES.iter().filter(|n| from.get(n).is_some()).for_each(|n| reset(out, n));
    from.iter().filter(|(n, _)| !role(n) && to.get(n).is_none()).for_each(|(n, _)| reset(out, n));
    let values = to.iter().filter(|(n, v)| !role(n) && from.get(n) != Some(*v));
    let roles = ROLES.iter().filter_map(|n| Some((*n, to.get(n)?)));
    for (i, (name, value)) in values.chain(roles).enumerate() {
        out.extend_from_slice(match (i, i % PER_SELECT) {
            (0, _) => b"SELECT ",
            (_, 0) => b";SELECT ",
            _ => b",",
        });
        out.extend_from_slice(b"pg_catalog.set_config(");
        literal(out, name);
        out.push(b',');
        literal(out, value);
        out.extend_from_slice(b",false)");
    }
}

/// Time limits that a session may have set, which are in force while other parameters are set. (PostgreSQL 17 has the
/// last; who set it was there.)
const LIMITS: [&str; 3] = ["statement_timeout", "lock_timeout", "transaction_timeout"];

/// The same as a transaction block: should a part of it fail, what follows in the same write is refused (25P02), not done
/// under what another client has set. Time limits of `from` end first.
pub fn sync_block(from: &ParamSet, to: &ParamSet, out: &mut Vec<u8>) {
    out.extend_from_slice(b"BEGIN;");
    let begin = out.len();
    let mut unlimited = None;
    for name in LIMITS.into_iter().filter(|n| from.get(n).is_some()) {
        out.extend_from_slice(format!("SET {name}=0;").as_bytes());
        unlimited.get_or_insert_with(|| from.clone()).set_unknown(name);
    }
    let bare = out.len();
    sync_sql(unlimited.as_ref().unwrap_or(from), to, out);
    if from == to || out.len() == bare {
        out.truncate(begin - b"BEGIN;".len());
    } else {
        out.extend_from_slice(b";COMMIT");
    }
}

/// Whether the first statements of [`sync_block`] may fail by themselves, for a time limit that a session has set.
pub fn hurried(from: &ParamSet) -> bool {
    LIMITS.iter().filter_map(|n| from.get(n)).any(|v| v != "0" && milliseconds(v).is_none_or(|ms| ms < UNHURRIED_MS))
}

/// Nothing of the kind takes so long.
const UNHURRIED_MS: u64 = 1000;

/// A time limit as it is usually written, in whole milliseconds.
fn milliseconds(value: &str) -> Option<u64> {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(digits);
    let factor = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// In the order in which they are given up and taken: a new session authorization drops the role.
const ROLES: [&str; 2] = ["session_authorization", "role"];

/// `"name"`: custom parameters may be dotted, each part quoted.
fn quote(out: &mut Vec<u8>, q: u8, text: &str) {
    for (i, part) in text.split('.').enumerate() {
        if i > 0 {
            out.push(b'.');
        }
        out.push(q);
        for b in part.bytes() {
            if b == q {
                out.push(q);
            }
            out.push(b);
        }
        out.push(q);
    }
}

/// An escape string: means the same whatever `standard_conforming_strings` is.
pub fn literal(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"E'");
    for b in text.bytes() {
        match b {
            b'\'' | b'\\' => out.extend_from_slice(&[b'\\', b]),
            // Bytes of the server's encoding, as in a startup packet, whatever client_encoding is.
            0x80.. => out.extend_from_slice(format!("\\x{b:02x}").as_bytes()),
            _ => out.push(b),
        }
    }
    out.push(b'\'');
}

/// Interned sets: clients of one application share one, and equality is a pointer comparison.
#[derive(Default)]
pub struct Params {
    sets: Mutex<HashSet<Arc<ParamSet>>>,
}

impl Params {
    /// The shared copy of `set`.
    pub fn intern(&self, set: ParamSet) -> Arc<ParamSet> {
        let Ok(mut sets) = self.sets.lock() else {
            return Arc::new(set);
        };
        if let Some(known) = sets.get(&set) {
            return Arc::clone(known);
        }
        if sets.len() >= 1024 && sets.len().is_power_of_two() {
            sets.retain(|s| Arc::strong_count(s) > 1);
        }
        let set = Arc::new(set);
        sets.insert(Arc::clone(&set));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(from: &[(&str, &str)], to: &[(&str, &str)]) -> String {
        let mut out = Vec::new();
        sync_sql(&ParamSet::from_pairs(from.iter().copied()), &ParamSet::from_pairs(to.iter().copied()), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_the_difference_is_sent() {
        assert_eq!(sql(&[("TimeZone", "UTC")], &[("timezone", "UTC")]), "");
        assert_eq!(sql(&[], &[("TimeZone", "UTC")]), "SELECT pg_catalog.set_config(E'timezone',E'UTC',false)");
        assert_eq!(sql(&[("a.b", "1")], &[]), "RESET \"a\".\"b\";");
        assert_eq!(
            sql(&[("x", "1"), ("y", "1")], &[("y", "2")]),
            "RESET \"x\";SELECT pg_catalog.set_config(E'y',E'2',false)"
        );
    }

    #[test]
    fn a_role_is_given_up_first_and_taken_last() {
        assert_eq!(
            sql(&[("role", "weak"), ("x", "1")], &[("role", "weak"), ("x", "2"), ("zero", "0")]),
            "RESET \"role\";SELECT pg_catalog.set_config(E'x',E'2',false),pg_catalog.set_config(E'zero',E'0',false),\
             pg_catalog.set_config(E'role',E'weak',false)"
        );
        assert_eq!(
            sql(&[("session_authorization", "a"), ("x", "1")], &[]),
            "RESET \"session_authorization\";RESET \"x\";"
        );
    }

    #[test]
    fn all_that_a_packet_holds_is_kept_and_set_in_pieces() {
        let names: Vec<_> = (0..MAX_PARAMS).map(|i| format!("a.p{i:05}")).collect();
        let all: Vec<_> = names.iter().map(|n| (n.as_str(), "")).collect();
        let set = ParamSet::from_pairs(all.iter().copied());
        assert_eq!(set.iter().count(), MAX_PARAMS);
        assert_eq!(set.with("A.P00000", "1").get("a.p00000"), Some("1"), "one of them changes");
        assert!(set.with("b", "1").get("b").is_none());
        let sql = sql(&[], &all);
        let columns = |select: &str| select.matches("set_config").count();
        assert!(sql.split(';').all(|s| s.starts_with("SELECT ") && columns(s) <= PER_SELECT));
        assert_eq!(columns(&sql), MAX_PARAMS);
    }

    #[test]
    fn time_limits_end_before_anything_is_set() {
        let block = |from: &[(&str, &str)], to: &[(&str, &str)]| {
            let mut out = Vec::new();
            sync_block(
                &ParamSet::from_pairs(from.iter().copied()),
                &ParamSet::from_pairs(to.iter().copied()),
                &mut out,
            );
            String::from_utf8(out).unwrap()
        };
        let limit = ("statement_timeout", "5");
        assert_eq!(block(&[limit], &[limit]), "");
        assert_eq!(block(&[], &[("a", "1")]), "BEGIN;SELECT pg_catalog.set_config(E'a',E'1',false);COMMIT");
        assert_eq!(
            block(&[limit], &[("a", "1"), limit]),
            "BEGIN;SET statement_timeout=0;SELECT pg_catalog.set_config(E'a',E'1',false),\
             pg_catalog.set_config(E'statement_timeout',E'5',false);COMMIT"
        );
        assert_eq!(block(&[limit], &[]), "BEGIN;SET statement_timeout=0;RESET \"statement_timeout\";;COMMIT");
        let hurried = |v: &str| hurried(&ParamSet::from_pairs([("statement_timeout", v)]));
        assert!(["5", "999 ms", "0.5s", UNKNOWN, "900us"].iter().all(|v| hurried(v)));
        assert!(["0", "1000", "1s", "30 s", "5min", "2h"].iter().all(|v| !hurried(v)));
    }

    #[test]
    fn debug_shows_no_value() {
        assert_eq!(format!("{:?}", ParamSet::from_pairs([("a", "hidden"), ("hidden", "b")])), "ParamSet(2 ..)");
    }

    #[test]
    fn values_cannot_end_their_literal() {
        assert_eq!(sql(&[], &[("x", r"a'b\")]), r"SELECT pg_catalog.set_config(E'x',E'a\'b\\',false)");
    }

    #[test]
    fn an_unknown_value_is_always_set_anew() {
        let mut known = ParamSet::from_pairs([("a", "1"), ("b", "2")]);
        known.set_unknown("A");
        let both = ParamSet::from_pairs([("b", "2")]).all_unknown(&ParamSet::from_pairs([("a", "1")]));
        assert_eq!((both.get("a"), both.get("b")), (known.get("a"), known.get("a")));
        for (to, sql) in [
            (vec![("a", "1"), ("b", "2")], "SELECT pg_catalog.set_config(E'a',E'1',false)"),
            (vec![("b", "2")], "RESET \"a\";"),
        ] {
            let mut out = Vec::new();
            sync_sql(&known, &ParamSet::from_pairs(to), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), sql);
        }
    }

    #[test]
    fn equal_sets_are_one() {
        let p = Params::default();
        let a = p.intern(ParamSet::from_pairs([("a", "1"), ("b", "2")]));
        let b = p.intern(ParamSet::from_pairs([("B", "2"), ("A", "1")]));
        assert!(Arc::ptr_eq(&a, &b));
        assert!(!Arc::ptr_eq(&a, &p.intern(a.with("a", "3"))));
    }
}
