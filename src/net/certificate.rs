//! The few things of a certificate (RFC 5280) that rustls does not tell: the hash that channel binding uses, the
//! common name, the time it is valid. A reader of DER that takes what it needs and believes no length.

use ring::digest;

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
pub(super) const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Common name (2.5.4.3).
pub(super) const COMMON_NAME: &[u8] = &[0x55, 4, 3];
/// Subject alternative name (2.5.29.17).
const ALT_NAME: &[u8] = &[0x55, 29, 17];
/// RSASSA-PSS (1.2.840.113549.1.1.10).
const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];

/// A reader over the values of one constructed value.
#[derive(Clone, Copy)]
pub(super) struct Der<'a>(pub(super) &'a [u8]);

impl<'a> Der<'a> {
    /// The next value: tag and content.
    pub(super) fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let n = usize::from(first & 0x7f);
            if n == 0 || n > 4 {
                return None;
            }
            let (bytes, rest) = rest.split_at_checked(n)?;
            (bytes.iter().fold(0, |len, b| len << 8 | usize::from(*b)), rest)
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, content))
    }

    pub(super) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(t, _)| *t == tag).map(|(_, content)| content)
    }
}

/// The fields behind serial number and signature algorithm in TBSCertificate, from the issuer on.
pub(super) fn fields(certificate: &[u8]) -> Option<Der<'_>> {
    let whole = Der(certificate).expect(SEQUENCE)?;
    let mut tbs = Der(Der(whole).expect(SEQUENCE)?);
    // Version is tagged [0] and may be absent.
    if tbs.0.first() == Some(&0xa0) {
        tbs.next()?;
    }
    tbs.next()?;
    tbs.next()?;
    Some(tbs)
}

/// `tls-server-end-point` (RFC 5929): the certificate's hash by the hash function of its signature, SHA-256 where that
/// is MD5 or SHA-1. `None`: the signature has no hash function of its own (Ed25519), or none that is known here.
pub fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Der(Der(certificate).expect(SEQUENCE)?);
    whole.next()?;
    let mut algorithm = Der(whole.expect(SEQUENCE)?);
    let oid = algorithm.expect(OID)?;
    let hash = if oid == RSA_PSS { pss_hash(algorithm) } else { signature_hash(oid) };
    hash.map(|hash| digest::digest(hash, certificate).as_ref().to_vec())
}

fn signature_hash(oid: &[u8]) -> Option<&'static digest::Algorithm> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4];
    if let Some([n]) = oid.strip_prefix(RSA) {
        return match n {
            // md5, sha1, sha256
            4 | 5 | 11 => Some(&digest::SHA256),
            12 => Some(&digest::SHA384),
            13 => Some(&digest::SHA512),
            _ => None,
        };
    }
    match oid.strip_prefix(ECDSA)? {
        [1] | [3, 2] => Some(&digest::SHA256),
        [3, 3] => Some(&digest::SHA384),
        [3, 4] => Some(&digest::SHA512),
        _ => None,
    }
}

/// RSASSA-PSS-params (RFC 4055): the hash is tagged 0, SHA-1 when absent.
fn pss_hash(mut behind: Der<'_>) -> Option<&'static digest::Algorithm> {
    const SHA2: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2];
    let mut parameters = Der(behind.expect(SEQUENCE)?);
    let Some((0xa0, hash)) = parameters.next() else { return Some(&digest::SHA256) };
    let oid = Der(Der(hash).expect(SEQUENCE)?).expect(OID)?;
    match oid.strip_prefix(SHA2)? {
        [1] => Some(&digest::SHA256),
        [2] => Some(&digest::SHA384),
        [3] => Some(&digest::SHA512),
        _ => None,
    }
}

/// First and last second (Unix time) in which the certificate is valid.
pub fn validity(certificate: &[u8]) -> Option<(u64, u64)> {
    let mut tbs = fields(certificate)?;
    tbs.next()?;
    let mut times = Der(tbs.expect(SEQUENCE)?);
    Some((time(times.next()?)?, time(times.next()?)?))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn time((tag, text): (u8, &[u8])) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z').filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?;
    let (year, rest) = match (tag, text.len()) {
        (UTC_TIME, 12) => {
            let year: u64 = text[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &text[2..])
        }
        (GENERALIZED_TIME, 14) => (text[..4].parse().ok()?, &text[4..]),
        _ => return None,
    };
    let part = |i: usize| rest[2 * i..2 * i + 2].parse::<u64>().ok();
    let (month, day) = (part(0)?, part(1)?);
    if year < 1970 || !(1..=12).contains(&month) {
        return Some(0);
    }
    // Days from civil (Howard Hinnant), with the year beginning in March.
    let y = if month <= 2 { year - 1 } else { year };
    let m = if month <= 2 { month + 9 } else { month - 3 };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + part(2)? * 3600 + part(3)? * 60 + part(4)?)
}

/// The common name of the subject, when the certificate has no subject alternative name at all: old certificates of
/// PostgreSQL servers are often made so, and libpq takes them.
pub fn sole_common_name(certificate: &[u8]) -> Option<String> {
    let mut tbs = fields(certificate)?;
    tbs.next()?;
    tbs.next()?;
    let mut subject = Der(tbs.expect(SEQUENCE)?);
    tbs.next()?;
    while let Some((tag, content)) = tbs.next() {
        if tag == 0xa3 && has_alt_name(content)? {
            return None;
        }
    }
    let mut name = None;
    while let Some(set) = subject.expect(SET) {
        let mut pair = Der(Der(set).expect(SEQUENCE)?);
        if pair.expect(OID)? == COMMON_NAME {
            name = std::str::from_utf8(pair.next()?.1).ok().map(str::to_owned);
        }
    }
    name.filter(|n| !n.contains('\0'))
}

fn has_alt_name(extensions: &[u8]) -> Option<bool> {
    let mut extensions = Der(Der(extensions).expect(SEQUENCE)?);
    while let Some(extension) = extensions.expect(SEQUENCE) {
        if Der(extension).expect(OID)? == ALT_NAME {
            return Some(true);
        }
    }
    Some(false)
}

/// Whether `pattern` names `host`: equal, or `*.` for exactly one label (`pq_verify_peer_name_matches_certificate_name`).
pub fn name_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(rest) => {
            host.split_once('.').is_some_and(|(label, tail)| !label.is_empty() && tail.eq_ignore_ascii_case(rest))
        }
        None => pattern.eq_ignore_ascii_case(host),
    }
}

/// Fuzz entry: no bytes panic.
pub fn fuzz_certificate(data: &[u8]) {
    let _ = (end_point(data), validity(data), sole_common_name(data), super::subject::subject(data));
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm, names: &[&str], common: &str) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "an organisation");
        params.distinguished_name.push(DnType::CommonName, common);
        params.not_before = rcgen::date_time_ymd(2024, 2, 29);
        params.not_after = rcgen::date_time_ymd(2061, 3, 1);
        let key = KeyPair::generate_for(algorithm).unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let hash = |a, d: &'static digest::Algorithm| {
            let der = certificate(a, &["db"], "db");
            (end_point(&der), Some(digest::digest(d, &der).as_ref().to_vec()))
        };
        let (got, expected) = hash(&rcgen::PKCS_ECDSA_P256_SHA256, &digest::SHA256);
        assert_eq!(got, expected);
        let (got, expected) = hash(&rcgen::PKCS_ECDSA_P384_SHA384, &digest::SHA384);
        assert_eq!(got, expected);
        assert_eq!(hash(&rcgen::PKCS_ED25519, &digest::SHA256).0, None);
    }

    /// Certificates made by OpenSSL: ECDSA with SHA-256, RSASSA-PSS with SHA-384, RSA with SHA-1.
    #[test]
    fn certificates_of_openssl_are_read() {
        for (name, hash) in [("ecdsa", &digest::SHA256), ("pss", &digest::SHA384), ("sha1", &digest::SHA256)] {
            let file = format!("{}/tests/fuzz/corpus/certificate/{name}", env!("CARGO_MANIFEST_DIR"));
            let der = std::fs::read(file).unwrap();
            assert_eq!(end_point(&der), Some(digest::digest(hash, &der).as_ref().to_vec()), "{name}");
            assert_eq!(sole_common_name(&der).is_some(), name != "ecdsa", "{name}");
            let (first, last) = validity(&der).unwrap();
            assert_eq!(last - first, 3650 * 86_400, "{name}");
        }
    }

    #[test]
    fn weak_hashes_become_sha_256() {
        for (oid, hash) in [
            (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4][..], Some(256)),
            (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5], Some(256)),
            (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11], Some(256)),
            (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13], Some(512)),
            (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1], Some(256)),
            (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4], Some(512)),
            (&[0x2b, 0x65, 0x70], None),
        ] {
            assert_eq!(signature_hash(oid).map(|h| h.output_len() * 8), hash, "{oid:x?}");
        }
    }

    #[test]
    fn times_and_names_are_read() {
        let der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256, &[], "db.internal");
        // date -u -d 2024-02-29 +%s; date -u -d 2061-03-01 +%s
        assert_eq!(validity(&der), Some((1_709_164_800, 2_876_860_800)));
        assert_eq!(sole_common_name(&der).as_deref(), Some("db.internal"));
        let der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256, &["other"], "db.internal");
        assert_eq!(sole_common_name(&der), None, "with alternative names the common one does not count");
    }

    #[test]
    fn a_star_is_one_label() {
        assert!(name_matches("*.internal", "db.internal") && name_matches("DB.internal", "db.INTERNAL"));
        assert!(!name_matches("*.internal", "a.db.internal") && !name_matches("*.internal", ".internal"));
        assert!(!name_matches("db*", "db1") && !name_matches("*", "db"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            fuzz_certificate(&data);
        }

        #[test]
        fn no_mutation_of_a_certificate_panics(at in proptest::prelude::any::<proptest::sample::Index>(), byte in proptest::prelude::any::<u8>()) {
            static DER: std::sync::LazyLock<Vec<u8>> =
                std::sync::LazyLock::new(|| certificate(&rcgen::PKCS_ECDSA_P256_SHA256, &["db"], "db"));
            let mut der = DER.clone();
            let at = at.index(der.len());
            der[at] = byte;
            fuzz_certificate(&der);
            fuzz_certificate(&der[..at]);
        }
    }
}
