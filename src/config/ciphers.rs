//! Cipher suites by name: IANA's and OpenSSL's, of TLS 1.2 and 1.3 in one list.
//!
//! What is here is what ring has for rustls; a test in [`crate::net`] compares the two.

use std::fmt;

use super::TlsVersion;
use super::value::Value;

/// A suite: its name at IANA and at OpenSSL, and the version it belongs to.
type Suite = (&'static str, &'static str, TlsVersion);

/// All that there are, in the order in which they are preferred where nothing is said.
const SUITES: [Suite; 9] = [
    ("TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384", TlsVersion::V13),
    ("TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256", TlsVersion::V13),
    ("TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256", TlsVersion::V13),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384", TlsVersion::V12),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256", TlsVersion::V12),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", TlsVersion::V12),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384", TlsVersion::V12),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256", TlsVersion::V12),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305", TlsVersion::V12),
];

/// PgBouncer's words for "as the library would have it": all of ours are without known weakness.
const ALL: [&str; 5] = ["default", "secure", "normal", "fast", "all"];

/// Suites that may be used, the best liked first; none named: all.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ciphers(Vec<&'static str>);

impl Ciphers {
    /// Whether nothing was said.
    pub fn all(&self) -> bool {
        self.0.is_empty()
    }

    /// IANA's names, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let all = SUITES.iter().map(|(iana, ..)| *iana).filter(|_| self.0.is_empty());
        self.0.iter().copied().chain(all)
    }

    /// Whether nothing is left for connections of at least this version.
    pub(super) fn leave_nothing_for(&self, least: TlsVersion) -> bool {
        let fits = |version: TlsVersion| version == TlsVersion::V13 || least == TlsVersion::V12;
        !self.names().any(|name| SUITES.iter().any(|(iana, _, version)| *iana == name && fits(*version)))
    }
}

/// A TOML list, or one text with commas or with OpenSSL's colons.
impl Value for Ciphers {
    const BARE: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        let items: Vec<_> =
            text.split([',', ':']).map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect();
        if items.is_empty() { Ok(Ciphers::default()) } else { Self::parse_list(&items) }
    }

    fn parse_list(items: &[String]) -> Result<Self, String> {
        if let [word] = items
            && ALL.iter().any(|all| word.eq_ignore_ascii_case(all))
        {
            return Ok(Ciphers::default());
        }
        if items.is_empty() {
            return Err("an empty list leaves no cipher: name some, or write \"default\"".to_owned());
        }
        let mut names = Vec::new();
        for item in items {
            let known =
                |(iana, openssl, _): &&Suite| item.eq_ignore_ascii_case(iana) || item.eq_ignore_ascii_case(openssl);
            let (name, ..) = SUITES.iter().find(known).ok_or_else(|| unknown(item))?;
            if !names.contains(name) {
                names.push(*name);
            }
        }
        Ok(Ciphers(names))
    }
}

/// With the list of those that there are, each by the name that is usual for its version.
fn unknown(item: &str) -> String {
    let names: Vec<&str> = SUITES.iter().map(|(_, openssl, _)| *openssl).collect();
    let both = SUITES.iter().flat_map(|(iana, openssl, _)| [*iana, *openssl]);
    let hint = super::error::nearest(item, both).map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
    format!("`{}` is not a cipher suite that there is here: {}{hint}", item.escape_debug(), names.join(", "))
}

impl fmt::Display for Ciphers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.all() { "default" } else { "" })?;
        f.write_str(&self.0.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_iana_and_of_openssl_mean_the_same() {
        for (iana, openssl, _) in SUITES {
            let read = |name: &str| Ciphers::parse(name).unwrap().to_string();
            assert_eq!((read(iana), read(openssl)), (iana.to_owned(), iana.to_owned()));
        }
        let list =
            Ciphers::parse("ECDHE-RSA-AES128-GCM-SHA256:tls_aes_128_gcm_sha256, TLS_AES_128_GCM_SHA256").unwrap();
        assert_eq!(list.to_string(), "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_AES_128_GCM_SHA256");
        for all in ["", "default", "SECURE", "all"] {
            assert!(Ciphers::parse(all).unwrap().all(), "{all}");
        }
        assert_eq!(Ciphers::default().names().count(), SUITES.len());
    }

    #[test]
    fn what_there_is_not_is_refused_with_what_there_is() {
        for text in ["HIGH:!aNULL", "AES256-SHA", "default,TLS_AES_128_GCM_SHA256", "TLS_AES_128_CCM_SHA256"] {
            let error = Ciphers::parse(text).unwrap_err();
            assert!(SUITES.iter().all(|(_, openssl, _)| error.contains(openssl)), "{error}");
        }
        let error = Ciphers::parse("ECDHE-RSA-AES128-GCM-SHA265").unwrap_err();
        assert!(error.ends_with("did you mean `ECDHE-RSA-AES128-GCM-SHA256`?"), "{error}");
        assert!(Ciphers::parse_list(&[]).is_err());
    }

    #[test]
    fn a_list_may_leave_nothing() {
        let old = Ciphers::parse("ECDHE-RSA-AES128-GCM-SHA256").unwrap();
        assert!(old.leave_nothing_for(TlsVersion::V13) && !old.leave_nothing_for(TlsVersion::V12));
        let new = Ciphers::parse("TLS_AES_128_GCM_SHA256").unwrap();
        assert!(!new.leave_nothing_for(TlsVersion::V13) && !new.leave_nothing_for(TlsVersion::V12));
    }
}
