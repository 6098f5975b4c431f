//! How a server's certificate is checked, by `server_tls_mode` (libpq, "Protection Provided in Different Modes").

use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, SupportedCipherSuite};

use super::certificate;
use crate::config::Ciphers;

/// The one implementation of cryptography.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));
    Arc::clone(&PROVIDER)
}

/// The same with these suites alone, in this order.
pub(super) fn provider_with(ciphers: &Ciphers) -> Arc<CryptoProvider> {
    let all = provider();
    if ciphers.all() {
        return all;
    }
    let named = |name: &str| all.cipher_suites.iter().find(|s| iana(s) == name).copied();
    let cipher_suites = ciphers.names().filter_map(named).collect();
    Arc::new(CryptoProvider { cipher_suites, ..(*all).clone() })
}

/// The name at IANA: rustls writes the version into those of TLS 1.3.
pub(super) fn iana(suite: &SupportedCipherSuite) -> String {
    suite.suite().as_str().unwrap_or_default().replacen("TLS13_", "TLS_", 1)
}

/// Checks what the mode asks for; that the server has the certificate's key is always checked.
#[derive(Debug)]
pub(super) struct ServerCheck {
    /// CAs; `None`: any certificate will do.
    trusted: Option<(RootCertStore, Vec<CertificateDer<'static>>)>,
    /// The certificate must name the host.
    name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCheck {
    pub(super) fn new(trusted: Option<(RootCertStore, Vec<CertificateDer<'static>>)>, name: bool) -> ServerCheck {
        ServerCheck { trusted, name, provider: provider() }
    }

    fn chain(&self, end: &CertificateDer<'_>, between: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let Some((roots, certificates)) = &self.trusted else { return Ok(()) };
        if certificates.iter().any(|c| c == end) {
            // A certificate that signs itself is its own CA: OpenSSL takes it, webpki does not.
            let (first, last) =
                certificate::validity(end).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
            let now = now.as_secs();
            return match now {
                _ if now < first => Err(CertificateError::NotValidYet.into()),
                _ if now > last => Err(CertificateError::Expired.into()),
                _ => Ok(()),
            };
        }
        let parsed = ParsedCertificate::try_from(end)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, between, now, algorithms)
    }

    fn host(end: &CertificateDer<'_>, host: &ServerName<'_>) -> Result<(), Error> {
        // libpq's rule: the common name counts only without alternative names.
        if let Some(common) = certificate::sole_common_name(end) {
            let named = certificate::name_matches(&common, &host.to_str());
            return if named { Ok(()) } else { Err(CertificateError::NotValidForName.into()) };
        }
        verify_server_name(&ParsedCertificate::try_from(end)?, host)
    }
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.chain(end, between, now)?;
        if self.name {
            Self::host(end, host)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
