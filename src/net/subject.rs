//! Whom a client's certificate names, in the forms that `pg_hba.conf` knows: the common name, and the distinguished name
//! as RFC 2253 writes it and OpenSSL prints it (`be_tls_open_server`, be-secure-openssl.c).

use super::certificate::{COMMON_NAME, Der, OID, SEQUENCE, SET, fields};

/// Attributes by object identifier, with OpenSSL's short names. A name with another attribute has no text that is sure.
const ATTRIBUTES: [(&[u8], &str); 20] = [
    (COMMON_NAME, "CN"),
    (&[0x55, 4, 4], "SN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "street"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 12], "title"),
    (&[0x55, 4, 13], "description"),
    (&[0x55, 4, 17], "postalCode"),
    (&[0x55, 4, 41], "name"),
    (&[0x55, 4, 42], "GN"),
    (&[0x55, 4, 43], "initials"),
    (&[0x55, 4, 46], "dnQualifier"),
    (&[0x55, 4, 65], "pseudonym"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
];

/// The subject of a certificate.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Subject {
    /// Its common name: the first, where there are more.
    pub common_name: Option<String>,
    /// Its distinguished name, the last part first (`CN=app,OU=web,O=shop`); `None`: it holds what is not sure to be
    /// written as OpenSSL would.
    pub distinguished_name: Option<String>,
}

/// Reads the subject. `None`: this is no certificate, or a name in it holds a NUL (CVE-2009-4034).
pub fn subject(certificate: &[u8]) -> Option<Subject> {
    let mut tbs = fields(certificate)?;
    tbs.next()?;
    tbs.next()?;
    let mut names = Der(tbs.expect(SEQUENCE)?);
    let (mut common_name, mut parts, mut sure) = (None, Vec::new(), true);
    while let Some(set) = names.expect(SET) {
        let mut set = Der(set);
        let mut joined = false;
        while let Some(pair) = set.expect(SEQUENCE) {
            let mut pair = Der(pair);
            let oid = pair.expect(OID)?;
            let text = text(pair.next()?);
            if text.as_ref().is_some_and(|text| text.contains('\0')) {
                return None;
            }
            if oid == COMMON_NAME && common_name.is_none() {
                common_name = Some(text.clone()?);
            }
            match (ATTRIBUTES.iter().find(|(known, _)| *known == oid), text) {
                (Some((_, name)), Some(text)) => parts.push((format!("{name}={}", escaped(&text)), joined)),
                _ => sure = false,
            }
            joined = true;
        }
    }
    Some(Subject { common_name, distinguished_name: sure.then(|| written(&parts)) })
}

/// Last part first; those of one set stay together by a plus.
fn written(parts: &[(String, bool)]) -> String {
    let mut out = String::new();
    let mut plus = false;
    for (part, joined) in parts.iter().rev() {
        if !out.is_empty() {
            out.push(if plus { '+' } else { ',' });
        }
        out.push_str(part);
        plus = *joined;
    }
    out
}

/// A string of the types whose bytes are text; `None`: another type.
fn text((tag, content): (u8, &[u8])) -> Option<String> {
    const UTF8: u8 = 12;
    // NumericString, PrintableString, TeletexString, IA5String, VisibleString.
    const ASCII: [u8; 5] = [18, 19, 20, 22, 26];
    let known = tag == UTF8 || ASCII.contains(&tag) && content.is_ascii();
    std::str::from_utf8(content).ok().filter(|_| known).map(str::to_owned)
}

/// ASN1_STRFLGS_RFC2253: what has a meaning gets a backslash, control characters and all beyond ASCII are hexadecimal.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.len().wrapping_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        let edge = at == 0 && matches!(byte, b'#' | b' ') || at == last && byte == b' ';
        if edge || matches!(byte, b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';') {
            out.push('\\');
            out.push(char::from(byte));
        } else if byte.is_ascii_graphic() || byte == b' ' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("\\{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    fn certificate(parts: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, text) in parts {
            params.distinguished_name.push(kind.clone(), DnValue::Utf8String((*text).to_owned()));
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    /// What OpenSSL prints, where it is installed.
    fn openssl(der: &[u8]) -> Option<String> {
        let mut child = Command::new("openssl")
            .args(["x509", "-inform", "DER", "-noout", "-subject", "-nameopt", "RFC2253"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        child.stdin.take().unwrap().write_all(der).unwrap();
        let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        Some(said.trim_end_matches('\n').strip_prefix("subject=").unwrap().to_owned())
    }

    #[test]
    fn names_are_written_as_openssl_writes_them() {
        let uid = DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 1]);
        let email = DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]);
        let odd = "#a, b+c=\"d\\\" <e>; \u{e9}\u{1f600}\u{1}\u{7f} ";
        for parts in [
            &[(DnType::OrganizationName, "shop"), (DnType::OrganizationalUnitName, "web"), (DnType::CommonName, "app")]
                [..],
            &[(DnType::CommonName, odd), (uid, " u "), (email, "a@b.c"), (DnType::CountryName, "DE")],
            &[],
        ] {
            let der = certificate(parts);
            let subject = subject(&der).unwrap();
            let common = parts.iter().find(|(kind, _)| *kind == DnType::CommonName).map(|(_, text)| (*text).to_owned());
            assert_eq!(subject.common_name, common);
            let Some(said) = openssl(&der) else {
                eprintln!("SKIPPED: no openssl to compare with");
                continue;
            };
            assert_eq!(subject.distinguished_name, Some(said));
        }
        let shop = certificate(&[(DnType::OrganizationName, "shop"), (DnType::CommonName, "app")]);
        assert_eq!(subject(&shop).unwrap().distinguished_name.as_deref(), Some("CN=app,O=shop"));
    }

    #[test]
    fn what_is_not_sure_has_no_text() {
        let custom = DnType::CustomDnType(vec![1, 2, 3, 4]);
        let named = subject(&certificate(&[(custom, "x"), (DnType::CommonName, "app")])).unwrap();
        assert_eq!(named, Subject { common_name: Some("app".into()), distinguished_name: None });
        assert_eq!(subject(&certificate(&[(DnType::CommonName, "app\0evil")])), None);
        assert_eq!(subject(b"no certificate"), None);
    }
}
