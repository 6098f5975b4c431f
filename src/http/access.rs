//! Who may read what HTTP serves: whoever presents the token (RFC 6750, or RFC 7617 with the token as password).

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::header::HeaderValue;

use crate::auth::constant_time_eq;
use crate::auth::scram::hmac_sha256;
use crate::config::HttpToken;

/// What is asked of a request.
pub struct Access {
    source: Option<HttpToken>,
    /// Drawn at start: tokens are compared as digests under it, so that neither length nor content shows in the time.
    key: [u8; 32],
    known: Mutex<Known>,
}

/// The file as it was when it was read last.
#[derive(Default)]
struct Known {
    stamp: Option<(SystemTime, u64)>,
    digest: Option<[u8; 32]>,
}

impl Access {
    /// Of a configuration whose token could be read. `key` is random.
    pub fn new(source: Option<HttpToken>, key: [u8; 32]) -> Access {
        let access = Access { source, key, known: Mutex::default() };
        access.digest();
        access
    }

    /// Whether a request with this Authorization header may see what is not a health page.
    pub fn admits(&self, header: Option<&HeaderValue>) -> bool {
        if self.source.is_none() {
            return true;
        }
        let given = header.and_then(presented).map(|token| self.hide(&token));
        // Nothing is right while the file cannot be read.
        matches!((given, self.digest()), (Some(given), Some(wanted)) if constant_time_eq(&given, &wanted))
    }

    /// Whether statements may be shown to this peer although no token is set: only on this host, and not to a page of
    /// another site in its browser, which would come by a name of its own (DNS rebinding).
    pub fn admits_without_token(&self, peer: SocketAddr, host: Option<&HeaderValue>) -> bool {
        self.source.is_some() || (peer.ip().to_canonical().is_loopback() && host.is_none_or(is_local))
    }

    fn hide(&self, token: &[u8]) -> [u8; 32] {
        hmac_sha256(&self.key, &[token])
    }

    /// The token's digest; a file that has changed is read again. One that is half written or gone for a moment (a
    /// mounted secret being exchanged) changes nothing until it can be read.
    fn digest(&self) -> Option<[u8; 32]> {
        let source = self.source.as_ref()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = match source {
            HttpToken::File(path) => stamp(path),
            HttpToken::Given(_) => None,
        };
        if known.digest.is_none() || (stamp.is_some() && stamp != known.stamp) {
            match source.read() {
                Ok(token) => *known = Known { stamp, digest: Some(self.hide(token.as_bytes())) },
                Err(why) => {
                    tracing::warn!(%why, "http_token_file has changed and is not used: the token stays as it was")
                }
            }
        }
        known.digest
    }
}

/// Whether a Host header is an address or `localhost`, with or without a port.
fn is_local(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else { return false };
    let name =
        host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(n, _)| n);
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

fn stamp(path: &PathBuf) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The token of `Bearer TOKEN`, or the password of `Basic`.
fn presented(header: &HeaderValue) -> Option<Vec<u8>> {
    let (scheme, rest) = header.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = STANDARD.decode(rest).ok()?;
    let colon = pair.iter().position(|&b| b == b':')?;
    Some(pair[colon + 1..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "a-token-of-the-tests";

    fn header(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).unwrap()
    }

    #[test]
    fn only_the_token_opens() {
        let access = Access::new(Some(HttpToken::Given(TOKEN.to_owned())), [7; 32]);
        let basic = |pair: &str| header(&format!("basic {}", STANDARD.encode(pair)));
        assert!(access.admits(Some(&header(&format!("Bearer {TOKEN}")))));
        assert!(access.admits(Some(&basic(&format!("anyone:{TOKEN}")))));
        assert!(access.admits(Some(&basic(&format!(":{TOKEN}")))));
        for wrong in [
            header(TOKEN),
            header(&format!("Bearer {TOKEN}x")),
            header(&format!("Bearer {}", &TOKEN[1..])),
            header("Bearer "),
            header("Basic ===="),
            header(&format!("Digest {TOKEN}")),
            basic(TOKEN),
            basic(&format!("{TOKEN}:")),
        ] {
            assert!(!access.admits(Some(&wrong)), "{wrong:?}");
        }
        assert!(!access.admits(None));
        assert!(Access::new(None, [7; 32]).admits(None));
    }

    #[test]
    fn without_a_token_statements_are_shown_on_this_host_only() {
        let open = Access::new(None, [7; 32]);
        let shows = |peer: &str, host: &str| open.admits_without_token(peer.parse().unwrap(), Some(&header(host)));
        for (peer, host) in [
            ("127.0.0.1:5", "127.0.0.1:9127"),
            ("[::1]:5", "[::1]:9127"),
            ("[::1]:5", "[::1]"),
            ("[::ffff:127.0.0.1]:5", "LocalHost:9127"),
            ("127.8.0.1:5", "localhost"),
        ] {
            assert!(shows(peer, host), "{peer} {host}");
        }
        for (peer, host) in [
            ("10.0.0.1:5", "127.0.0.1:9127"),
            ("127.0.0.1:5", "evil.example:9127"),
            ("127.0.0.1:5", "localhost.evil.example"),
            ("127.0.0.1:5", ""),
        ] {
            assert!(!shows(peer, host), "{peer} {host}");
        }
        // With one, it is the token that counts.
        let guarded = Access::new(Some(HttpToken::Given(TOKEN.to_owned())), [7; 32]);
        assert!(guarded.admits_without_token("10.0.0.1:5".parse().unwrap(), None));
    }
}
