//! The fields of a line into a [`Rule`] (`parse_hba_line`, `parse_hba_auth_opt`). Messages are PostgreSQL's where it
//! has one.

use std::net::IpAddr;

use super::address::{Network, prefix};
use super::error::{HbaError, shown};
use super::files::Line;
use super::pattern::Pattern;
use super::rule::{
    Address, CLIENT_CERTS, CLIENT_NAMES, CONNECTIONS, ClientCert, ClientName, Connection, Database, METHODS, Method,
    Rule, User,
};
use super::token::{Spot, Token};
use crate::config::nearest;

/// What PostgreSQL has and pgsluice has not.
const OTHER_METHODS: [&str; 8] = ["ident", "gss", "sspi", "pam", "ldap", "radius", "bsd", "oauth"];

/// Reads one line.
pub(super) fn rule(line: &Line) -> Result<Rule, HbaError> {
    let mut fields = Fields { line, rest: line.fields.iter(), last: line.start };
    let connection = connection(&mut fields)?;
    let databases = fields.list("database specification")?;
    let databases = databases.iter().map(|token| database(line, token)).collect::<Result<_, _>>()?;
    let users = fields.list("role specification")?;
    let users = users.iter().map(|token| user(line, token)).collect::<Result<_, _>>()?;
    let address = if connection == Connection::Local { Address::None } else { address(&mut fields)? };
    let token = fields.one("authentication method", "authentication type")?;
    let method = method(line, token, connection)?;
    let mut rule = Rule {
        file: line.file.to_path_buf(),
        line: line.start.line,
        connection,
        databases,
        users,
        address,
        method,
        map: None,
        client_cert: None,
        client_name: ClientName::default(),
    };
    for token in fields.rest.by_ref().flatten() {
        option(line, token, &mut rule)?;
    }
    if method == Method::Cert {
        // The method implies it.
        rule.client_cert = Some(ClientCert::VerifyFull);
    }
    Ok(rule)
}

/// The fields that are left.
struct Fields<'a> {
    line: &'a Line,
    rest: std::slice::Iter<'a, Vec<Token>>,
    /// Where the last one began, for what is missing behind it.
    last: Spot,
}

impl<'a> Fields<'a> {
    fn list(&mut self, what: &str) -> Result<&'a [Token], HbaError> {
        let wrong = HbaError::at(&self.line.file, self.last, format!("end-of-line before {what}"));
        let field = self.rest.next().filter(|field| !field.is_empty());
        let field = field.ok_or_else(|| wrong.help(HELP_LINE))?;
        self.last = field.first().map_or(self.last, |token| token.spot);
        Ok(field)
    }

    fn one(&mut self, what: &str, values_of: &str) -> Result<&'a Token, HbaError> {
        match self.list(what)? {
            [one] => Ok(one),
            _ => Err(self.wrong(format!("multiple values specified for {values_of}")).help("write one on each line")),
        }
    }

    fn wrong(&self, message: String) -> HbaError {
        HbaError::at(&self.line.file, self.last, message)
    }
}

const HELP_LINE: &str =
    "a line is: local DATABASE USER METHOD [OPTIONS], or: host DATABASE USER ADDRESS METHOD [OPTIONS]";

fn at(line: &Line, token: &Token, message: String) -> HbaError {
    HbaError::at(&line.file, token.spot, message)
}

fn find<T: Copy>(words: &[(&str, T)], text: &str) -> Option<T> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
}

fn names<T>(words: &[(&'static str, T)]) -> String {
    words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")
}

/// What was probably meant, and what is possible.
fn choices<T>(words: &[(&'static str, T)], text: &str) -> String {
    match nearest(text, words.iter().map(|(word, _)| *word)) {
        Some(near) => format!("did you mean {near}? Possible are {}", names(words)),
        None => format!("possible are {}", names(words)),
    }
}

fn connection(fields: &mut Fields<'_>) -> Result<Connection, HbaError> {
    let token = fields.one("connection type", "connection type")?;
    find(&CONNECTIONS, &token.text).ok_or_else(|| {
        let error = fields.wrong(format!("invalid connection type {}", shown(&token.text)));
        error.help(if token.text.starts_with("include") {
            "an inclusion is: include FILE, include_if_exists FILE or include_dir DIRECTORY, alone on its line"
                .to_owned()
        } else {
            choices(&CONNECTIONS, &token.text)
        })
    })
}

/// A name that begins with a slash is an expression (PostgreSQL 16), quoted or not.
fn pattern(line: &Line, token: &Token) -> Result<Option<Pattern>, HbaError> {
    let Some(text) = token.text.strip_prefix('/') else { return Ok(None) };
    let wrong = |why| {
        let error = at(line, token, format!("invalid regular expression {}: {why}", shown(text)));
        error.help("an expression with a comma, a blank or # needs quotes: \"/^db\\d{2,4}$\"")
    };
    Pattern::new(text).map(Some).map_err(wrong)
}

/// Membership is in PostgreSQL's catalogue, which a pooler does not see.
fn no_roles(line: &Line, token: &Token, what: &str) -> HbaError {
    at(line, token, format!("{} needs to know which user belongs to which role; pgsluice does not", shown(&token.text)))
        .help(format!("name the {what}, write a regular expression (/^app_), or list them in a file: @{what}"))
}

fn database(line: &Line, token: &Token) -> Result<Database, HbaError> {
    Ok(match &*token.text {
        _ if token.is("all") => Database::All,
        _ if token.is("sameuser") => Database::SameUser,
        _ if token.is("replication") => Database::Replication,
        _ if token.is("samerole") || token.is("samegroup") => return Err(no_roles(line, token, "databases")),
        name => match pattern(line, token)? {
            Some(pattern) => Database::Pattern(pattern),
            None => Database::Name(name.to_owned()),
        },
    })
}

/// A user, here or in a map.
pub(super) fn user(line: &Line, token: &Token) -> Result<User, HbaError> {
    Ok(match &*token.text {
        _ if token.is("all") => User::All,
        name if name.starts_with('+') && !token.quoted => return Err(no_roles(line, token, "users")),
        name => match pattern(line, token)? {
            Some(pattern) => User::Pattern(pattern),
            None => User::Name(name.to_owned()),
        },
    })
}

fn address(fields: &mut Fields<'_>) -> Result<Address, HbaError> {
    let token = fields.one("IP address specification", "host address")?;
    if let Some(word) = [("all", Address::All), ("samehost", Address::SameHost), ("samenet", Address::SameNet)]
        .into_iter()
        .find_map(|(word, address)| token.is(word).then_some(address))
    {
        return Ok(word);
    }
    let (text, bits) = match token.text.split_once('/') {
        Some((text, bits)) => (text, Some(bits)),
        None => (&*token.text, None),
    };
    let Ok(address) = text.parse::<IpAddr>() else {
        if bits.is_some() && !text.contains(':') && !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            let message = format!("specifying both host name and CIDR mask is invalid: {}", shown(&token.text));
            return Err(fields.wrong(message).help("write an address, for example 10.0.0.0/8"));
        }
        return Err(no_address(fields, text));
    };
    let mask = match bits {
        Some(bits) => prefix(address, bits).ok_or_else(|| {
            let most = if address.is_ipv4() { 32 } else { 128 };
            let error = fields.wrong(format!("invalid CIDR mask in address {}", shown(&token.text)));
            error.help(format!("write a number of bits from 0 to {most} behind the slash"))
        })?,
        None => mask(fields, address)?,
    };
    Ok(Address::Net(Network { address, mask }))
}

/// The mask in a column of its own.
fn mask(fields: &mut Fields<'_>, address: IpAddr) -> Result<IpAddr, HbaError> {
    let one = if address.is_ipv4() { 32 } else { 128 };
    let token = fields.one("netmask specification", "netmask")?;
    let help = || format!("for one address write {address}/{one}; else a mask such as /24 or a column 255.255.255.0");
    let Ok(mask) = token.text.parse::<IpAddr>() else {
        return Err(fields.wrong(format!("invalid IP mask {}", shown(&token.text))).help(help()));
    };
    if mask.is_ipv4() != address.is_ipv4() {
        return Err(fields.wrong("IP address and mask do not match".to_owned()).help(help()));
    }
    Ok(mask)
}

fn no_address(fields: &Fields<'_>, text: &str) -> HbaError {
    let numeric = text.contains(':') || text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if numeric {
        let message = format!("invalid IP address {}", shown(text));
        return fields.wrong(message).help("write an address in full, for example 10.0.0.0/8 or fd00::/8");
    }
    // The name of an address is said by whoever holds its reverse zone; and a lookup for each login can hang.
    let message = format!("{} is a host name: pgsluice does not look up names for rules", shown(text));
    fields.wrong(message).help("write addresses (10.1.2.3/32), a network (10.1.2.0/24), samehost, samenet or all")
}

fn method(line: &Line, token: &Token, connection: Connection) -> Result<Method, HbaError> {
    let text = match &*token.text {
        // For backwards compatibility, as in PostgreSQL.
        "ident" if connection == Connection::Local => "peer",
        text => text,
    };
    let wrong = |message: String| Err(at(line, token, message));
    let Some(method) = find(&METHODS, text) else {
        let known = OTHER_METHODS.contains(&text);
        let why = if known { ": pgsluice does not support it" } else { "" };
        let error = at(line, token, format!("invalid authentication method {}{why}", shown(text)));
        return Err(error.help(choices(&METHODS, text)));
    };
    match method {
        Method::Peer if connection != Connection::Local => {
            wrong("peer authentication is only supported on local sockets".to_owned())
        }
        Method::Cert if connection != Connection::HostSsl => {
            wrong("cert authentication is only supported on hostssl connections".to_owned())
        }
        _ => Ok(method),
    }
}

fn option(line: &Line, token: &Token, rule: &mut Rule) -> Result<(), HbaError> {
    const SUPPORTED: &str =
        "supported are map=NAME (peer, cert), clientcert=verify-ca|verify-full and clientname=CN|DN (hostssl)";
    let wrong = |message: String| Err(at(line, token, message).help(SUPPORTED));
    // The value is not repeated where it may be a password.
    let Some((name, value)) = token.text.split_once('=') else {
        return wrong("authentication option not in name=value format".to_owned());
    };
    match name {
        "map" if matches!(rule.method, Method::Peer | Method::Cert) => rule.map = Some(value.to_owned()),
        "map" => return wrong("authentication option \"map\" is only valid for peer and cert".to_owned()),
        "clientcert" if rule.connection != Connection::HostSsl => {
            return wrong("clientcert can only be configured for \"hostssl\" rows".to_owned());
        }
        "clientcert" => match find(&CLIENT_CERTS, value) {
            Some(ClientCert::VerifyCa) if rule.method == Method::Cert => {
                let message = "clientcert can only be set to \"verify-full\" when using \"cert\" authentication";
                return wrong(message.to_owned());
            }
            Some(cert) => rule.client_cert = Some(cert),
            None => return wrong(format!("invalid value for clientcert: {}", shown(value))),
        },
        "clientname" if rule.connection != Connection::HostSsl => {
            return wrong("clientname can only be configured for \"hostssl\" rows".to_owned());
        }
        "clientname" => match find(&CLIENT_NAMES, value) {
            Some(name) => rule.client_name = name,
            None => return wrong(format!("invalid value for clientname: {}", shown(value))),
        },
        _ => return wrong(format!("unrecognized authentication option name: {}", shown(name))),
    }
    Ok(())
}
