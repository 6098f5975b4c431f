//! The web page: files in the binary, which read the JSON API and nothing else.
//!
//! | file | what it does |
//! |---|---|
//! | `index.html` | the frame: it is painted before anything is asked |
//! | `style.css` | light and dark, wide and narrow |
//! | `main.js` | places (`#/...`), polling, keyboard, login |
//! | `api.js` | requests with the token |
//! | `dom.js` | elements from text, numbers in words |
//! | `table.js` | a list that sorts and grows by pages |
//! | `chart.js` | timeline and sparkline |
//! | `findings.js`, `causes.js`, `queries.js`, `routes.js`, `pools.js`, `compare.js` | one place each |
//!
//! No framework: the page is lists, links and two drawings, and what is here is smaller than the smallest of them would be
//! with its build step. The files say nothing of this instance but which endpoints it has, so they need no token; what they
//! show comes from the API, which does. Data is only ever inserted as text, which the policy below enforces where the
//! browser knows trusted types.

use hyper::header::HeaderMap;
use hyper::header::{ACCEPT, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, VARY};

use super::api::endpoint;

/// What every file's path begins with, but that of the page itself, which is `/`.
pub const PREFIX: &str = "/ui/";

/// Nothing from elsewhere, nothing inline, in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// The page, with a place for the names of the endpoints.
const INDEX: &str = include_str!("index.html");

/// Files by name: content type and content.
const FILES: &[(&str, &str, &str)] = &[
    ("style.css", CSS, include_str!("style.css")),
    ("icon.svg", PICTURE, include_str!("icon.svg")),
    ("main.js", SCRIPT, include_str!("main.js")),
    ("api.js", SCRIPT, include_str!("api.js")),
    ("dom.js", SCRIPT, include_str!("dom.js")),
    ("table.js", SCRIPT, include_str!("table.js")),
    ("chart.js", SCRIPT, include_str!("chart.js")),
    ("findings.js", SCRIPT, include_str!("findings.js")),
    ("causes.js", SCRIPT, include_str!("causes.js")),
    ("queries.js", SCRIPT, include_str!("queries.js")),
    ("routes.js", SCRIPT, include_str!("routes.js")),
    ("pools.js", SCRIPT, include_str!("pools.js")),
    ("compare.js", SCRIPT, include_str!("compare.js")),
];

/// The file at a path: content type and content. `/` is the page only for whoever accepts HTML; `curl` is told in plain text
/// what there is.
pub fn file(path: &str, headers: &HeaderMap) -> Option<(&'static str, String)> {
    if path == "/" {
        return wants_html(headers).then(|| (HTML, index()));
    }
    let name = path.strip_prefix(PREFIX)?;
    FILES.iter().find(|(known, ..)| *known == name).map(|(_, kind, text)| (*kind, (*text).to_owned()))
}

/// What a browser is to keep to.
pub fn guard(headers: &mut HeaderMap) {
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (VARY, "Accept"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

fn wants_html(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains("text/html"))
}

/// The page says which endpoints there are, so that it asks for none that is not.
fn index() -> String {
    let names: Vec<_> = endpoint::ALL.iter().map(|endpoint| endpoint.path).collect();
    INDEX.replace("{endpoints}", &names.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// What stands between quotes in `text` and is the path of a file.
    fn referenced(text: &str) -> BTreeSet<&str> {
        let ours = |word: &&str| word.starts_with("ui/") || word.starts_with("./");
        text.split('"').filter(ours).map(|word| word.trim_start_matches("ui/").trim_start_matches("./")).collect()
    }

    #[test]
    fn every_file_that_is_named_exists_and_every_file_is_named() {
        let known: BTreeSet<&str> = FILES.iter().map(|(name, ..)| *name).collect();
        assert_eq!(referenced(INDEX), known, "index.html loads all of them at once");
        for (name, _, text) in FILES {
            for file in referenced(text) {
                assert!(known.contains(file), "{name} imports {file}");
            }
        }
    }

    #[test]
    fn no_data_becomes_markup_and_nothing_is_inline() {
        for (name, _, text) in FILES {
            for word in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "http://",
                "https://",
            ] {
                let allowed = word == "http://"
                    && text.matches("http://").count() == text.matches("http://www.w3.org/2000/svg").count();
                assert!(!text.contains(word) || allowed, "{word} in {name}");
            }
        }
        for word in ["<style", " style=", " onclick", " onload", "http://", "https://"] {
            assert!(!INDEX.contains(word), "{word} in index.html");
        }
        let scripts = INDEX.matches("<script").count();
        assert_eq!(scripts, INDEX.matches("<script type=\"module\" src=\"ui/").count());
    }

    #[test]
    fn the_page_is_for_browsers() {
        let mut headers = HeaderMap::new();
        assert!(file("/", &headers).is_none());
        headers.insert(ACCEPT, HeaderValue::from_static("text/html,application/xhtml+xml,*/*;q=0.8"));
        let (kind, text) = file("/", &headers).unwrap();
        assert_eq!(kind, HTML);
        assert!(text.contains("content=\"") && text.contains("findings queries") && !text.contains("{endpoints}"));
        assert!(file("/ui/", &headers).is_none() && file("/ui/../main.js", &headers).is_none());
    }
}
