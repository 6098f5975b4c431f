//! What went wrong with TLS, in plain words, and what to do about it.

use rustls::{AlertDescription, CertificateError, Error, InconsistentKeys, PeerIncompatible};

/// The fault and its mend.
pub(super) fn fault(error: &Error) -> (String, &'static str) {
    let (words, mend) = match error {
        Error::InvalidCertificate(e) => return certificate(e),
        Error::AlertReceived(alert) => return refused(*alert),
        Error::NoCertificatesPresented => (
            "the peer showed no certificate",
            "give the client a certificate (libpq: sslcert and sslkey), or set client_tls_mode = \"require\"",
        ),
        Error::NoApplicationProtocol => (
            "the peer does not offer the protocol \"postgresql\" (ALPN)",
            "direct TLS needs a driver that speaks it as libpq 17 does; use sslnegotiation=postgres otherwise",
        ),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => (
            "both sides have no TLS version in common",
            "TLS 1.2 or 1.3 is needed: see client_tls_min_version and server_tls_min_version here, ssl_min_protocol_version at PostgreSQL, and the age of the driver",
        ),
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon | PeerIncompatible::NoKxGroupsInCommon) => (
            "both sides have no cipher in common",
            "allow an ECDHE cipher with AES-GCM or ChaCha20 at the other side; client_tls_ciphers and server_tls_ciphers may leave some out here",
        ),
        Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon) => (
            "both sides have no signature algorithm in common",
            "use a certificate with an ECDSA P-256 or an RSA key of 2048 bits or more",
        ),
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            (
                "what the peer sent is not TLS",
                "check that the port is PostgreSQL's and nothing between changes the bytes",
            )
        }
        Error::DecryptError => {
            ("a record could not be decrypted", "something between the two sides changes the bytes, or an attack")
        }
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            ("the key does not belong to the certificate", "give the key that the certificate was made for")
        }
        other => return (other.to_string(), "look into the other side's log"),
    };
    (words.to_owned(), mend)
}

fn certificate(error: &CertificateError) -> (String, &'static str) {
    let (words, mend) = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ("the certificate has expired", "renew it; check the clock of this machine")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("the certificate is not valid yet", "check the clocks of both machines")
        }
        CertificateError::UnknownIssuer => (
            "the certificate is signed by an unknown CA",
            "put the CA that signed it into the file of CAs (server_tls_ca_file or sslrootcert; client_tls_ca_file for clients)",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ("the certificate does not name the host", "connect by a name that the certificate has, or use verify-ca")
        }
        CertificateError::BadSignature => ("the certificate's signature is wrong", "make it anew"),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => (
            "the certificate is not made for this side",
            "extended key usage must allow serverAuth for servers, clientAuth for clients",
        ),
        CertificateError::Revoked => ("the certificate has been revoked", "renew it"),
        other => return (format!("the certificate cannot be used: {other}"), "make it anew"),
    };
    (words.to_owned(), mend)
}

/// The peer told us why it gave up.
fn refused(alert: AlertDescription) -> (String, &'static str) {
    let (words, mend) = match alert {
        AlertDescription::UnknownCA => {
            ("the peer does not know the CA of our certificate", "give the peer that CA (libpq: sslrootcert)")
        }
        AlertDescription::CertificateExpired => {
            ("the peer says that our certificate has expired", "renew it and send SIGHUP")
        }
        AlertDescription::CertificateRequired => (
            "the peer wants a certificate and was shown none",
            "set server_tls_cert_file and server_tls_key_file (sslcert and sslkey in the URL)",
        ),
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            ("the peer does not accept our certificate", "check its names and its CA at the peer")
        }
        AlertDescription::ProtocolVersion => (
            "the peer speaks no TLS version that we do",
            "TLS 1.2 or 1.3 is needed at the peer; see server_tls_min_version here",
        ),
        AlertDescription::NoApplicationProtocol => {
            ("the peer does not speak PostgreSQL's protocol by ALPN", "direct TLS needs PostgreSQL 17 or later")
        }
        AlertDescription::HandshakeFailure => {
            ("the peer found no cipher in common", "allow AES-GCM or ChaCha20 at the peer; see server_tls_ciphers here")
        }
        other => return (format!("the peer broke the TLS handshake off ({other:?})"), "look into the peer's log"),
    };
    (words.to_owned(), mend)
}
