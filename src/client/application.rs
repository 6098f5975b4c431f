//! The name of the application as a server reports it: cut to the length of a name, and ASCII.
//!
//! Source: check_application_name (guc.c, variable.c), truncate_identifier, pg_clean_ascii. PostgreSQL 16 shows what is
//! not ASCII in hexadecimal; before, it shows question marks.

use crate::server::Reported;

/// Longest name (NAMEDATALEN - 1, pg_config_manual.h).
pub(super) const MAX_IDENTIFIER: usize = 63;

/// The name as a server tells it that reports these values of itself.
pub(super) fn clean(name: &str, reported: &Reported) -> Vec<u8> {
    let value = |wanted: &[u8]| reported.iter().find(|(n, _)| **n == *wanted).map(|(_, v)| &**v);
    let cut = match value(b"server_encoding") {
        Some(b"UTF8") | None => cut(name).as_bytes(),
        Some(_) => &name.as_bytes()[..name.len().min(MAX_IDENTIFIER)],
    };
    let hexadecimal = value(b"server_version").is_none_or(|v| major(v) >= 16);
    let mut clean = Vec::with_capacity(cut.len());
    for b in cut {
        match b {
            b' '..=b'~' => clean.push(*b),
            _ if hexadecimal => clean.extend_from_slice(format!("\\x{b:02x}").as_bytes()),
            _ => clean.push(b'?'),
        }
    }
    clean
}

/// A name cut to its longest, between two characters.
pub(super) fn cut(name: &str) -> &str {
    let end = (0..=MAX_IDENTIFIER.min(name.len())).rev().find(|i| name.is_char_boundary(*i)).unwrap_or(0);
    &name[..end]
}

/// `15.18 (Debian 15.18-0+deb12u1)`, `18beta1`.
fn major(version: &[u8]) -> u32 {
    let digits = version.iter().position(|b| !b.is_ascii_digit()).unwrap_or(version.len());
    std::str::from_utf8(&version[..digits]).ok().and_then(|v| v.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_as_the_servers_version_tells_it() {
        let of = |name: &str, version: &str, encoding: &str| {
            let reported = [("server_version", version), ("server_encoding", encoding)];
            let reported = reported.map(|(n, v)| (n.as_bytes().into(), v.as_bytes().into())).to_vec();
            String::from_utf8(clean(name, &reported)).unwrap()
        };
        assert_eq!(of("caf\u{e9}\t", "15.18 (Debian 15.18-0+deb12u1)", "UTF8"), "caf???");
        assert_eq!(of("caf\u{e9}\t", "18.6", "UTF8"), "caf\\xc3\\xa9\\x09");
        assert_eq!(of("\u{e9}", "18beta1", "UTF8"), "\\xc3\\xa9");
        let long = "\u{e9}".repeat(40);
        assert_eq!(of(&long, "15.1", "UTF8"), "?".repeat(62), "not half a character");
        assert_eq!(of(&long, "15.1", "SQL_ASCII"), "?".repeat(63));
        assert_eq!(of(&long, "16.0", "UTF8").len(), 4 * 62, "cut before it is shown");
    }
}
