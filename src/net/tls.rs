//! TLS by rustls: what clients are offered ([`Acceptor`]), how servers are asked ([`Connector`]), both read from files
//! and read again on request without touching connections that exist.
//!
//! There is no session resumption, as in PostgreSQL: connections to and from a pooler live long.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, CommonState, RootCertStore, ServerConfig, SignatureAlgorithm, SupportedCipherSuite,
    SupportedProtocolVersion,
};

use super::certificate;
use super::subject::{Subject, subject};
use super::tls_stream::Tls;
use super::tls_verify::{ServerCheck, iana, provider, provider_with};
use super::tls_words::fault;
use crate::config::{ClientTls, Config, ServerTls, TlsMode, TlsVersion};

/// The protocol's name in ALPN (PostgreSQL's `PG_ALPN_PROTOCOL`, libpq/pqcomm.h).
pub const ALPN: &[u8] = b"postgresql";

/// Where operating systems keep their CAs: Debian, Red Hat, Alpine and BSD, macOS.
const SYSTEM_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/opt/homebrew/etc/ca-certificates/cert.pem",
];

/// Why TLS did not come about.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The handshake failed.
    #[error("{}", fault(.0).0)]
    Tls(#[from] rustls::Error),
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl TlsError {
    /// What to do about it, in the words of either side's settings.
    pub fn mend(&self) -> &'static str {
        match self {
            TlsError::Tls(e) => fault(e).1,
            TlsError::Io(_) => "the peer ended the connection during the TLS handshake: look into its log",
        }
    }
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", path.display())]
pub struct FileError {
    path: PathBuf,
    what: String,
}

fn file_error(path: &Path, what: impl ToString) -> FileError {
    FileError { path: path.to_owned(), what: what.to_string() }
}

/// What is known of TLS on a connection.
pub struct TlsInfo<'a> {
    pub(super) state: &'a CommonState,
}

impl TlsInfo<'_> {
    /// Version and cipher suite, as `TLSv1.3/TLS13_AES_256_GCM_SHA384` without the prefix that repeats the version.
    pub fn summary(&self) -> String {
        let version = match self.state.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLS",
        };
        let suite = self.state.negotiated_cipher_suite().map_or_else(|| "unknown".to_owned(), |s| iana(&s));
        format!("{version}/{suite}")
    }

    /// Whether both sides agreed on PostgreSQL's protocol (ALPN).
    pub fn speaks_postgresql(&self) -> bool {
        self.state.alpn_protocol() == Some(ALPN)
    }

    /// Whom the client's certificate names, which was checked in the handshake; `None`: it showed none.
    pub fn client(&self) -> Option<Subject> {
        // Where nobody asks for a certificate there is none here.
        Some(subject(self.state.peer_certificates()?.first()?).unwrap_or_default())
    }

    /// `tls-server-end-point` of the peer's certificate.
    pub fn peer_end_point(&self) -> Option<Vec<u8>> {
        certificate::end_point(self.state.peer_certificates()?.first()?)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let read = CertificateDer::pem_file_iter(path).map_err(|e| file_error(path, pem_words(&e)))?;
    let found: Vec<_> = read.collect::<Result<_, _>>().map_err(|e| file_error(path, pem_words(&e)))?;
    if found.is_empty() {
        return Err(file_error(path, "no certificate in it (PEM: -----BEGIN CERTIFICATE-----)"));
    }
    Ok(found)
}

/// Errors of the reader may quote a line of the file, which may be a key.
fn pem_words(e: &rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error;
    match e {
        Error::Io(e) => format!("cannot be read: {e}"),
        Error::NoItemsFound => "nothing in PEM form in it".to_owned(),
        _ => "not in PEM form".to_owned(),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| match e {
        rustls::pki_types::pem::Error::NoItemsFound => {
            file_error(path, "no private key in it (PEM, without a passphrase)")
        }
        e => file_error(path, pem_words(&e)),
    })
}

fn roots(path: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), FileError> {
    let found = certificates(path)?;
    let mut store = RootCertStore::empty();
    // Those that cannot sign (X.509 version 1) still count when a server shows exactly them.
    store.add_parsable_certificates(found.iter().cloned());
    Ok((store, found))
}

fn system_file() -> PathBuf {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let usual = || SYSTEM_FILES.iter().map(PathBuf::from).find(|p| p.exists());
    named.or_else(usual).unwrap_or_else(|| PathBuf::from(SYSTEM_FILES[0]))
}

fn versions(least: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
    match least {
        TlsVersion::V12 => &BOTH,
        TlsVersion::V13 => &BOTH[1..],
    }
}

/// Whether a suite can be used with a key of this kind: those of TLS 1.3 with any, those of 1.2 say it in their names, where
/// Ed25519 counts as ECDSA (RFC 8422).
fn fits(suite: &SupportedCipherSuite, key: SignatureAlgorithm) -> bool {
    let kind = if key == SignatureAlgorithm::RSA { "_RSA_" } else { "_ECDSA_" };
    suite.tls13().is_some() || iana(suite).contains(kind)
}

/// What clients are offered.
pub struct Acceptor {
    config: Arc<ServerConfig>,
    /// `tls-server-end-point` of our certificate.
    end_point: Option<Arc<[u8]>>,
}

impl Acceptor {
    /// Reads the files. `None`: TLS is not offered.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn load(settings: &ClientTls) -> Result<Option<Acceptor>, FileError> {
        let (Some(cert), Some(key_file)) = (&settings.cert, &settings.key) else { return Ok(None) };
        if settings.mode == TlsMode::Disable {
            return Ok(None);
        }
        let chain = certificates(cert)?;
        let end_point = certificate::end_point(&chain[0]).map(Arc::from);
        let builder = ServerConfig::builder_with_provider(provider_with(&settings.ciphers))
            .with_protocol_versions(versions(settings.min_version))
            .map_err(|e| file_error(cert, e))?;
        let builder = match &settings.ca {
            Some(ca) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?.0), provider());
                // As PostgreSQL with `ssl_ca_file`: asked for, and good when it is shown; rules say who must show one.
                let must = settings.mode >= TlsMode::VerifyCa;
                let verifier = if must { verifier } else { verifier.allow_unauthenticated() };
                let verifier = verifier.build().map_err(|e| file_error(ca, e))?;
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let key = key(key_file)?;
        let signing = provider().key_provider.load_private_key(key.clone_key());
        let algorithm = signing.map_err(|e| file_error(key_file, fault(&e).0))?.algorithm();
        let mut config = builder.with_single_cert(chain, key).map_err(|e| file_error(cert, fault(&e).0))?;
        if !config.crypto_provider().cipher_suites.iter().any(|suite| fits(suite, algorithm)) {
            return Err(file_error(key_file, "the key is of a kind that no cipher of client_tls_ciphers is for"));
        }
        // Who wrote a list meant its order; else the client's counts, which knows whether its processor has AES.
        config.ignore_client_order = !settings.ciphers.all();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Some(Acceptor { config: Arc::new(config), end_point }))
    }

    /// The server's side of a new connection.
    ///
    /// # Errors
    /// rustls has no random numbers.
    pub fn accept(&self) -> Result<Tls, TlsError> {
        Ok(Tls::server(UnbufferedServerConnection::new(Arc::clone(&self.config))?))
    }

    /// What SCRAM binds to, when the certificate has a hash that fits.
    pub fn end_point(&self) -> Option<Arc<[u8]>> {
        self.end_point.clone()
    }
}

/// How servers with the same settings are asked for TLS.
pub struct Connector {
    settings: ServerTls,
    config: ArcSwapOption<ClientConfig>,
    /// Its files cannot be used.
    broken: Option<String>,
    /// Whether the log has been told that a password crosses a network: as an MD5 hash, in the clear.
    warned: [AtomicBool; 2],
}

impl Connector {
    /// Where the files cannot be used every connection fails with the reason.
    pub(super) fn of(settings: &ServerTls) -> Arc<Connector> {
        let broken = |e: FileError| Connector::new(settings, None, Some(e.to_string()));
        Arc::new(Connector::load(settings).unwrap_or_else(broken))
    }

    fn load(settings: &ServerTls) -> Result<Connector, FileError> {
        Ok(Connector::new(settings, client_config(settings)?, None))
    }

    fn new(settings: &ServerTls, config: Option<ClientConfig>, broken: Option<String>) -> Connector {
        let config = ArcSwapOption::from(config.map(Arc::new));
        Connector { settings: settings.clone(), config, broken, warned: Default::default() }
    }

    /// Settings.
    pub fn settings(&self) -> &ServerTls {
        &self.settings
    }

    /// The client's side of a new connection to `host`; `None` when TLS is switched off.
    ///
    /// # Errors
    /// The files could not be used, or the name cannot be one of a host where it is to be checked.
    pub fn connect(&self, host: &str) -> Result<Option<Tls>, TlsError> {
        let Some(config) = self.config.load_full() else {
            return match &self.broken {
                Some(why) => Err(rustls::Error::General(why.clone()).into()),
                None => Ok(None),
            };
        };
        let name = match ServerName::try_from(host.to_owned()) {
            Ok(name) => name,
            // An address is not sent as a name (SNI), and without verify-full it is not looked at.
            Err(_) if self.settings.mode != TlsMode::VerifyFull => {
                ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])))
            }
            Err(_) => {
                let e = rustls::Error::General(format!("\"{host}\" is not a host name that a certificate can have"));
                return Err(e.into());
            }
        };
        Ok(Some(Tls::client(UnbufferedClientConnection::new(config, name)?)))
    }

    /// Whether this is the first time that it is asked, of passwords in the clear or of MD5 hashes: for a warning that is given once.
    pub fn warn_once(&self, clear: bool) -> bool {
        !self.warned[usize::from(clear)].swap(true, Ordering::Relaxed)
    }
}

fn client_config(settings: &ServerTls) -> Result<Option<ClientConfig>, FileError> {
    if settings.mode == TlsMode::Disable {
        return Ok(None);
    }
    let ca = if settings.system() { Some(system_file()) } else { settings.ca.clone() };
    let trusted = ca.as_deref().map(roots).transpose()?;
    let check = ServerCheck::new(trusted, settings.mode == TlsMode::VerifyFull);
    let builder = ClientConfig::builder_with_provider(provider_with(&settings.ciphers))
        .with_protocol_versions(versions(settings.min_version))
        .map_err(|e| file_error(Path::new("TLS"), e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(check));
    let mut config = match (&settings.cert, &settings.key) {
        (Some(cert), Some(key_file)) => builder
            .with_client_auth_cert(certificates(cert)?, key(key_file)?)
            .map_err(|e| file_error(cert, fault(&e).0))?,
        _ => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Some(config))
}

/// All that was read from TLS files, by the whole process.
pub struct TlsFiles {
    client: ClientTls,
    acceptor: ArcSwapOption<Acceptor>,
    connectors: Mutex<Vec<Arc<Connector>>>,
}

impl TlsFiles {
    /// Reads every file that the configuration names.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn load(config: &Config) -> Result<TlsFiles, FileError> {
        let mut connectors: Vec<Arc<Connector>> = Vec::new();
        for database in config.databases.values() {
            if !connectors.iter().any(|c| c.settings == database.pool.tls) {
                connectors.push(Arc::new(Connector::load(&database.pool.tls)?));
            }
        }
        Ok(TlsFiles {
            client: config.client_tls.clone(),
            acceptor: ArcSwapOption::from(Acceptor::load(&config.client_tls)?.map(Arc::new)),
            connectors: Mutex::new(connectors),
        })
    }

    /// What clients are offered now; `None`: no TLS.
    pub fn acceptor(&self) -> Option<Arc<Acceptor>> {
        self.acceptor.load_full()
    }

    /// Whether clients on TCP must use TLS.
    pub fn required(&self) -> bool {
        self.client.mode >= TlsMode::Require
    }

    /// The mode for clients.
    pub fn client_mode(&self) -> TlsMode {
        self.client.mode
    }

    /// How servers with these settings are asked. Where the settings are new and their files cannot be used, every
    /// connection fails with the reason.
    pub fn connector(&self, settings: &ServerTls) -> Arc<Connector> {
        let mut connectors = self.connectors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = connectors.iter().find(|c| c.settings == *settings) {
            return Arc::clone(known);
        }
        let new = Connector::of(settings);
        if new.broken.is_none() {
            connectors.push(Arc::clone(&new));
        }
        new
    }

    /// Reads the files again, for connections to come. All or nothing: after an error the old ones stay in force.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn reload(&self) -> Result<(), FileError> {
        let connectors = self.connectors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let acceptor = Acceptor::load(&self.client)?;
        let mut configs = Vec::new();
        for c in &connectors {
            configs.push(client_config(&c.settings)?);
        }
        self.acceptor.store(acceptor.map(Arc::new));
        for (connector, config) in connectors.iter().zip(configs) {
            connector.config.store(config.map(Arc::new));
        }
        Ok(())
    }

    /// Whether any file is named.
    pub fn any(&self) -> bool {
        let connectors = self.connectors.lock().unwrap_or_else(PoisonError::into_inner);
        self.client.cert.is_some() || connectors.iter().any(|c| c.settings.ca.is_some() || c.settings.cert.is_some())
    }
}
