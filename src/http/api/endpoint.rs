//! From a path and its parameters to an answer: one table of endpoints, pages of lists, errors as JSON.

use std::time::SystemTime;

use hyper::StatusCode;
use serde::Serialize;
use serde_json::json;

use super::object::{Object, Told};
use super::{causes, findings, history, pools, queries, routes, status};
use crate::client::Process;

/// What every path of this version begins with.
pub const PREFIX: &str = "/api/v1";
/// Items of a page without `limit`, and at most.
const LIMIT: usize = 50;
const MAX_LIMIT: usize = 1_000;

/// Why there is no answer.
pub struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    /// The request cannot be understood.
    pub fn bad(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    /// There is no such thing.
    pub fn missing(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, message: message.into() }
    }
}

/// What was asked: the part of the path that names one item, and the parameters.
#[derive(Default)]
pub struct Ask {
    /// The id after the endpoint's path.
    pub id: Option<String>,
    parameters: Vec<(String, String)>,
}

impl Ask {
    /// A parameter's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that is a number.
    pub fn number(&self, name: &str, default: usize) -> Result<usize, Refusal> {
        let wrong = || Refusal::bad(format!("{name} is a number"));
        self.get(name).map_or(Ok(default), |value| value.parse().map_err(|_| wrong()))
    }

    /// A parameter that is one of some words, by `read`.
    pub fn word<T>(&self, name: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Refusal> {
        let wrong = || Refusal::bad(format!("{name} has no such value; docs/api.md lists them"));
        self.get(name).map(|value| read(value).ok_or_else(wrong)).transpose()
    }

    /// `offset` and `limit`.
    pub fn page(&self) -> Result<(usize, usize), Refusal> {
        let limit = self.number("limit", LIMIT)?;
        if limit > MAX_LIMIT {
            return Err(Refusal::bad(format!("limit is {MAX_LIMIT} at most")));
        }
        Ok((self.number("offset", 0)?, limit))
    }
}

/// One endpoint.
pub struct Endpoint {
    /// Path behind [`PREFIX`].
    pub path: &'static str,
    /// What it answers.
    pub about: &'static str,
    /// Whether `path/ID` is one item, and what the id is.
    pub id: Option<&'static str>,
    /// Whether it is a list, with `limit` and `offset`.
    pub list: bool,
    /// Its other parameters.
    pub parameters: &'static [(&'static str, &'static str)],
    /// Objects of the answer, documented; the item's first.
    pub objects: fn(&mut Vec<Object>),
    /// The answer.
    pub answer: fn(&Process, &Ask) -> Result<Json, Refusal>,
}

/// All endpoints, in the order of the documentation.
pub const ALL: &[Endpoint] = &[
    causes::ENDPOINT,
    findings::ENDPOINT,
    queries::ENDPOINT,
    queries::TABLES,
    routes::ENDPOINT,
    pools::ENDPOINT,
    pools::PINS,
    history::HISTORY,
    history::COMPARE,
    status::ENDPOINT,
];

/// The answer to a GET of `path` (all of it) with this query string: status and JSON.
pub fn answer(process: &Process, path: &str, query: Option<&str>) -> (StatusCode, String) {
    match find(path, query).and_then(|(endpoint, ask)| (endpoint.answer)(process, &ask)) {
        Ok(Json(text)) => (StatusCode::OK, text),
        Err(refusal) => (refusal.status, json!({ "error": refusal.message }).to_string()),
    }
}

fn find(path: &str, query: Option<&str>) -> Result<(&'static Endpoint, Ask), Refusal> {
    let missing = || {
        let paths: Vec<_> = ALL.iter().map(|endpoint| format!("{PREFIX}/{}", endpoint.path)).collect();
        Refusal::missing(format!("no such path; there are {}", paths.join(", ")))
    };
    let rest = path.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('/')).ok_or_else(missing)?;
    let (name, id) = rest.split_once('/').map_or((rest, None), |(name, id)| (name, Some(id)));
    let endpoint = ALL.iter().find(|endpoint| endpoint.path == name).ok_or_else(missing)?;
    if id.is_some() && endpoint.id.is_none() {
        return Err(missing());
    }
    let parameters = parameters(query.unwrap_or(""))?;
    let known = |name: &str| {
        endpoint.parameters.iter().any(|(known, _)| *known == name)
            || (endpoint.list && ["limit", "offset"].contains(&name))
    };
    if parameters.iter().any(|(name, _)| !known(name)) {
        return Err(Refusal::bad("unknown parameter; docs/api.md lists them"));
    }
    Ok((endpoint, Ask { id: id.map(str::to_owned), parameters }))
}

/// `a=x&b=y` with percent escapes and `+` (the HTML form encoding).
fn parameters(query: &str) -> Result<Vec<(String, String)>, Refusal> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(name)?, decode(value)?))
    };
    let pairs = query.split('&').filter(|part| !part.is_empty());
    pairs.map(|text| pair(text).ok_or_else(|| Refusal::bad("the parameters are not well-formed"))).collect()
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        rest = more;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let (digits, more) = rest.split_at_checked(2)?;
                rest = more;
                let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
                u8::from_str_radix(digits, 16).ok()?
            }
            other => *other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// An answer, written.
pub struct Json(String);

/// A page of a list: the items from `offset`, of `total`.
pub fn page<T: Serialize>(ask: &Ask, total: usize, items: &[T]) -> Result<Json, Refusal> {
    #[derive(Serialize)]
    struct Page<'a, T> {
        at_unix_seconds: f64,
        total: usize,
        offset: usize,
        limit: usize,
        items: &'a [T],
    }
    let (offset, limit) = ask.page()?;
    value(&Page { at_unix_seconds: unix(), total, offset, limit, items })
}

/// The part of a whole list that a page shows.
pub fn cut<T>(ask: &Ask, all: Vec<T>) -> Result<(usize, Vec<T>), Refusal> {
    let (offset, limit) = ask.page()?;
    Ok((all.len(), all.into_iter().skip(offset).take(limit).collect()))
}

/// An object as JSON, written at once: a list of thousands is not built as a tree first.
pub fn value<T: Serialize>(of: &T) -> Result<Json, Refusal> {
    let failed = |_| Refusal { status: StatusCode::INTERNAL_SERVER_ERROR, message: "internal error".to_owned() };
    serde_json::to_string(of).map(Json).map_err(failed)
}

/// Now, seconds since the epoch.
pub fn unix() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// Documentation of an object and those inside it.
pub const fn objects<T: Told>() -> fn(&mut Vec<Object>) {
    T::objects
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_or_refused() {
        let read = |query: &str| parameters(query).ok();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(read(""), Some(vec![]));
        assert_eq!(read("a=1&&b"), Some(vec![pair("a", "1"), pair("b", "")]));
        assert_eq!(read("route=%5Ebooks%2F+x"), Some(vec![pair("route", "^books/ x")]));
        for wrong in ["a=%", "a=%1", "a=%+1", "a=%ff"] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn only_what_is_in_the_table_is_found() {
        let found =
            |path: &str, query| find(path, query).map(|(e, ask)| (e.path, ask.id)).map_err(|r| r.status.as_u16());
        assert_eq!(found("/api/v1/findings", Some("limit=3")), Ok(("findings", None)));
        assert_eq!(found("/api/v1/queries/00ff", None), Ok(("queries", Some("00ff".to_owned()))));
        assert_eq!(found("/api/v1/status/1", None), Err(404));
        assert_eq!(found("/api/v1/nothing", None), Err(404));
        assert_eq!(found("/api/v10/findings", None), Err(404));
        assert_eq!(found("/api/v1", None), Err(404));
        assert_eq!(found("/api/v1/status", Some("limit=3")), Err(400));
        assert_eq!(found("/api/v1/findings", Some("colour=red")), Err(400));
    }

    #[test]
    fn pages_have_a_limit() {
        let ask = |limit: &str| Ask { id: None, parameters: vec![("limit".to_owned(), limit.to_owned())] };
        assert_eq!(ask("1000").page().ok(), Some((0, 1_000)));
        assert!(ask("1001").page().is_err() && ask("-1").page().is_err() && ask("x").page().is_err());
    }
}
