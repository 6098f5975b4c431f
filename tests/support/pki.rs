//! Certificates for tests: CAs, servers, clients, made anew in every run.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::TempDir;

/// A CA and a directory for what it signs.
pub struct Ca {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// PEM files of a certificate and its key.
#[derive(Clone)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("CA {}", super::unique()));
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = TempDir::new("pki");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { dir, issuer }
    }

    /// The CA's own certificate.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A server's certificate for these names (addresses among them).
    pub fn server(&self, names: &[&str]) -> Pair {
        self.sign(names, ExtendedKeyUsagePurpose::ServerAuth, |_| {})
    }

    /// One that was good years ago.
    pub fn expired(&self, names: &[&str]) -> Pair {
        self.sign(names, ExtendedKeyUsagePurpose::ServerAuth, |params| {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        })
    }

    /// One that has a common name and no alternative ones, as old ones do.
    pub fn common_name(&self, name: &str) -> Pair {
        self.sign(&[], ExtendedKeyUsagePurpose::ServerAuth, |params| {
            params.distinguished_name.push(DnType::CommonName, name);
        })
    }

    /// A client's certificate.
    pub fn client(&self, name: &str) -> Pair {
        self.sign(&[], ExtendedKeyUsagePurpose::ClientAuth, |params| {
            params.distinguished_name.push(DnType::CommonName, name);
        })
    }

    /// A client's certificate with this subject; all others have a common name alone.
    pub fn client_named(&self, subject: &[(DnType, &str)]) -> Pair {
        self.sign(&[], ExtendedKeyUsagePurpose::ClientAuth, |params| {
            params.distinguished_name = DistinguishedName::new();
            for (kind, text) in subject {
                params.distinguished_name.push(kind.clone(), *text);
            }
        })
    }

    /// A client's certificate that was good years ago.
    pub fn expired_client(&self, name: &str) -> Pair {
        self.sign(&[], ExtendedKeyUsagePurpose::ClientAuth, |params| {
            params.distinguished_name.push(DnType::CommonName, name);
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        })
    }

    fn sign(&self, names: &[&str], usage: ExtendedKeyUsagePurpose, change: impl Fn(&mut CertificateParams)) -> Pair {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![usage];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        self.write(&cert.pem(), &key.serialize_pem())
    }

    /// A certificate that signs itself.
    pub fn self_signed(&self, names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        self.write(&cert.pem(), &key.serialize_pem())
    }

    fn write(&self, cert: &str, key: &str) -> Pair {
        let base = self.dir.path().join(format!("pair-{}", super::unique()));
        let pair = Pair { cert: base.with_extension("pem"), key: base.with_extension("key") };
        fs::write(&pair.cert, cert).unwrap();
        fs::write(&pair.key, key).unwrap();
        private(&pair.key);
        pair
    }
}

impl Pair {
    /// The settings that give it to PostgreSQL.
    pub fn options(&self) -> [String; 3] {
        [
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", self.cert.display()),
            format!("ssl_key_file={}", self.postgres_key().display()),
        ]
    }

    /// A copy of the key that PostgreSQL, which runs as nobody, accepts.
    fn postgres_key(&self) -> PathBuf {
        let copy = self.key.with_extension("pgkey");
        fs::copy(&self.key, &copy).unwrap();
        private(&copy);
        if super::cluster::root() {
            chown(&copy, Some(super::cluster::NOBODY), Some(super::cluster::NOBODY)).unwrap();
        }
        copy
    }

    /// Puts another pair in the place of this one.
    pub fn replace_by(&self, other: &Pair) {
        fs::copy(&other.cert, &self.cert).unwrap();
        fs::copy(&other.key, &self.key).unwrap();
    }

    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.cert).unwrap()
    }
}

fn private(file: &Path) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A raw client's TLS: trusts `ca` (or anybody), shows `own`, offers these protocols.
pub fn client_config(ca: Option<&Path>, own: Option<&Pair>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match ca {
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
            builder.with_root_certificates(roots)
        }
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)),
    };
    let mut config = match own {
        Some(own) => {
            let key = PrivateKeyDer::from_pem_file(&own.key).unwrap();
            builder.with_client_auth_cert(vec![own.der()], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// One that trusts anybody and offers these cipher suites alone, by rustls' names.
pub fn client_with_ciphers(names: &[&str]) -> Arc<ClientConfig> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| names.contains(&suite.suite().as_str().unwrap_or_default()));
    assert_eq!(provider.cipher_suites.len(), names.len(), "{names:?}");
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    Arc::new(config)
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
