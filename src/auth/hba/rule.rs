//! One record of `pg_hba.conf`: whom it matches, and what it asks for (`check_hba`, `check_db`, `check_role`).

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use super::address::{Network, host_mask};
use super::pattern::Pattern;

/// A record.
#[derive(Clone, PartialEq, Debug)]
pub struct Rule {
    /// The file it stands in.
    pub file: PathBuf,
    /// Its line, counted from 1.
    pub line: usize,
    /// Connections it is for.
    pub connection: Connection,
    pub(super) databases: Vec<Database>,
    pub(super) users: Vec<User>,
    pub(super) address: Address,
    /// What it asks for.
    pub method: Method,
    /// The map of user names that `peer` and `cert` use; `None`: the names must be equal.
    pub map: Option<String>,
    /// Whether the client's certificate is checked besides the method.
    pub client_cert: Option<ClientCert>,
    /// Which name of the certificate is the user's.
    pub client_name: ClientName,
}

/// The first word of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Connection {
    /// Unix sockets.
    Local,
    /// TCP.
    Host,
    /// TCP with TLS.
    HostSsl,
    /// TCP without TLS.
    HostNoSsl,
    /// TCP with encryption by GSSAPI, which pgsluice never has.
    HostGssEnc,
    /// TCP without it.
    HostNoGssEnc,
}

/// Methods that are understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// Nothing is asked.
    Trust,
    /// The client is refused.
    Reject,
    /// Cleartext password.
    Password,
    /// MD5, or SCRAM where the user has a verifier.
    Md5,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// The operating system's name of the process at the other end of the Unix socket.
    Peer,
    /// The name in the client's certificate.
    Cert,
}

/// How well a client's certificate is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientCert {
    /// A CA signed it.
    VerifyCa,
    /// And it names the user.
    VerifyFull,
}

/// Which name of a certificate is a user's (`clientname=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClientName {
    /// The common name.
    #[default]
    Common,
    /// The distinguished name, as RFC 2253 writes it.
    Distinguished,
}

/// One of a list of databases.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Database {
    All,
    SameUser,
    Replication,
    Name(String),
    Pattern(Pattern),
}

/// One of a list of users.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum User {
    All,
    Name(String),
    Pattern(Pattern),
}

/// Where clients come from.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Address {
    /// Of a record `local`, which has none.
    None,
    All,
    SameHost,
    SameNet,
    Net(Network),
}

/// Where one client comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// By a Unix socket.
    Local,
    /// By TCP.
    Tcp {
        /// From this address; an IPv4 address in IPv6's clothes counts as IPv4.
        address: IpAddr,
        /// With TLS.
        tls: bool,
    },
}

/// A client that wants to log in.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// Where it comes from.
    pub origin: Origin,
    /// Who it says it is.
    pub user: &'a str,
    /// The database it names.
    pub database: &'a str,
    /// It wants physical replication, which only the word `replication` matches.
    pub replication: bool,
}

impl Rule {
    /// Whether the rule is for this client.
    pub(super) fn matches(
        &self,
        login: &Login<'_>,
        networks: &dyn Fn() -> io::Result<Vec<Network>>,
    ) -> io::Result<bool> {
        let connection = match (self.connection, login.origin) {
            (Connection::Local, Origin::Local) => true,
            (Connection::Local, _) | (_, Origin::Local) => false,
            (Connection::Host | Connection::HostNoGssEnc, _) => true,
            (Connection::HostSsl, Origin::Tcp { tls, .. }) => tls,
            (Connection::HostNoSsl, Origin::Tcp { tls, .. }) => !tls,
            (Connection::HostGssEnc, _) => false,
        };
        // The names first: they are at hand.
        if !connection
            || !self.databases.iter().any(|database| database.matches(login))
            || !self.users.iter().any(|user| user.matches(login.user))
        {
            return Ok(false);
        }
        let Origin::Tcp { address, .. } = login.origin else { return Ok(true) };
        let address = address.to_canonical();
        let one = |own: Network| Network { mask: host_mask(own.address), ..own };
        Ok(match &self.address {
            Address::None | Address::All => true,
            Address::SameHost => networks()?.into_iter().map(one).any(|own| own.contains(address)),
            Address::SameNet => networks()?.iter().any(|own| own.contains(address)),
            Address::Net(network) => network.contains(address),
        })
    }

    /// Whether it is for clients that come by a network.
    fn is_reachable(&self) -> bool {
        match &self.address {
            Address::None | Address::SameHost => false,
            Address::All | Address::SameNet => true,
            Address::Net(network) => !network.is_loopback(),
        }
    }

    /// Whether it lets in without a proof whoever reaches the pooler by a network.
    pub fn is_open(&self) -> bool {
        self.method == Method::Trust && self.is_reachable() && self.client_cert.is_none()
    }

    /// Whether it may have a password cross a network without TLS, in the clear or as an MD5 hash.
    pub fn is_weak(&self) -> bool {
        let tls = self.connection == Connection::HostSsl || self.client_cert.is_some();
        matches!(self.method, Method::Password | Method::Md5) && self.is_reachable() && !tls
    }
}

impl Database {
    fn matches(&self, login: &Login<'_>) -> bool {
        match self {
            Database::Replication => login.replication,
            _ if login.replication => false,
            Database::All => true,
            Database::SameUser => login.database == login.user,
            Database::Name(name) => name == login.database,
            Database::Pattern(pattern) => pattern.is_match(login.database),
        }
    }

    fn text(&self) -> String {
        match self {
            Database::All => "all".to_owned(),
            Database::SameUser => "sameuser".to_owned(),
            Database::Replication => "replication".to_owned(),
            Database::Name(name) => name.clone(),
            Database::Pattern(pattern) => format!("/{}", pattern.text()),
        }
    }
}

impl User {
    /// Whether the name is meant.
    pub(super) fn matches(&self, user: &str) -> bool {
        match self {
            User::All => true,
            User::Name(name) => name == user,
            User::Pattern(pattern) => pattern.is_match(user),
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            User::All => "all".to_owned(),
            User::Name(name) => name.clone(),
            User::Pattern(pattern) => format!("/{}", pattern.text()),
        }
    }
}

/// Words and values, for tables both ways.
pub(super) const CONNECTIONS: [(&str, Connection); 6] = [
    ("local", Connection::Local),
    ("host", Connection::Host),
    ("hostssl", Connection::HostSsl),
    ("hostnossl", Connection::HostNoSsl),
    ("hostgssenc", Connection::HostGssEnc),
    ("hostnogssenc", Connection::HostNoGssEnc),
];
pub(super) const METHODS: [(&str, Method); 7] = [
    ("trust", Method::Trust),
    ("reject", Method::Reject),
    ("password", Method::Password),
    ("md5", Method::Md5),
    ("scram-sha-256", Method::ScramSha256),
    ("peer", Method::Peer),
    ("cert", Method::Cert),
];
pub(super) const CLIENT_CERTS: [(&str, ClientCert); 2] =
    [("verify-ca", ClientCert::VerifyCa), ("verify-full", ClientCert::VerifyFull)];

pub(super) const CLIENT_NAMES: [(&str, ClientName); 2] =
    [("CN", ClientName::Common), ("DN", ClientName::Distinguished)];

fn word<T: PartialEq>(value: &T, words: &[(&'static str, T)]) -> &'static str {
    words.iter().find(|(_, candidate)| candidate == value).map_or("?", |(word, _)| word)
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word(self, &METHODS))
    }
}

/// As PostgreSQL's view `pg_hba_file_rules` shows it: without quotes, the mask written out.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let databases: Vec<String> = self.databases.iter().map(Database::text).collect();
        let users: Vec<String> = self.users.iter().map(User::text).collect();
        write!(f, "{} {} {}", word(&self.connection, &CONNECTIONS), databases.join(","), users.join(","))?;
        match &self.address {
            Address::None => {}
            Address::All => f.write_str(" all")?,
            Address::SameHost => f.write_str(" samehost")?,
            Address::SameNet => f.write_str(" samenet")?,
            Address::Net(network) => write!(f, " {} {}", network.address, network.mask)?,
        }
        write!(f, " {}", self.method)?;
        if let Some(map) = &self.map {
            write!(f, " map={map}")?;
        }
        if let Some(cert) = &self.client_cert {
            write!(f, " clientcert={}", word(cert, &CLIENT_CERTS))?;
        }
        Ok(())
    }
}
