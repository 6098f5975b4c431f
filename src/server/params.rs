//! Run-time parameters: the sets clients ask for, interned, and the SQL that turns one set into another.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

/// Parameters a server may report before we stop keeping them (PostgreSQL 18 reports 15).
pub const MAX_REPORTED: usize = 64;
/// Parameters one client may set.
pub const MAX_PARAMS: usize = 64;

/// Parameter values by lower-case name (PostgreSQL compares names without case, guc.c).
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct ParamSet(BTreeMap<Box<str>, Box<str>>);

impl ParamSet {
    /// From pairs; a later one of the same name wins, as in PostgreSQL.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        ParamSet(pairs.into_iter().take(MAX_PARAMS).map(|(k, v)| (k.to_ascii_lowercase().into(), v.into())).collect())
    }

    /// The same set with one value changed.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut set = self.clone();
        if set.0.len() < MAX_PARAMS || set.0.contains_key(name) {
            set.0.insert(name.to_ascii_lowercase().into(), value.into());
        }
        set
    }

    /// The same set without one name.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let mut set = self.clone();
        set.0.remove(name);
        set
    }

    /// The same set with a value that no client can ask for: whatever the next one wants is set, or reset.
    #[must_use]
    pub fn with_unknown(&self, name: &str) -> Self {
        self.with(name, "\0")
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
        out.extend_from_slice(if i == 0 { b"SELECT " } else { b"," });
        out.extend_from_slice(b"pg_catalog.set_config(");
        literal(out, name);
        out.push(b',');
        literal(out, value);
        out.extend_from_slice(b",false)");
    }
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
    fn values_cannot_end_their_literal() {
        assert_eq!(sql(&[], &[("x", r"a'b\")]), r"SELECT pg_catalog.set_config(E'x',E'a\'b\\',false)");
    }

    #[test]
    fn an_unknown_value_is_always_set_anew() {
        let known = ParamSet::from_pairs([("a", "1"), ("b", "2")]).with_unknown("a");
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
