//! The web page over HTTP: its headers, its policy, that every file it names is there, and who sees what.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use support::pooler::{Pooler, Setup};
use support::{DEADLINE, cluster};

const BROWSER: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";
const TOKEN: &str = "the-token-of-the-page";

/// Head (in lower case) and body of the answer.
fn ask(pooler: &Pooler, line: &str, headers: &str) -> (String, String) {
    let mut stream = TcpStream::connect_timeout(&pooler.http_address(), DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let host = pooler.http_address();
    write!(stream, "{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

fn header<'h>(head: &'h str, name: &str) -> &'h str {
    let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name} in {head}"))
}

/// Files that a text names: all are under `ui/`, or beside the script that imports them.
fn named(text: &str) -> BTreeSet<String> {
    let files = text.split('"').filter_map(|word| word.strip_prefix("ui/").or_else(|| word.strip_prefix("./")));
    files.map(str::to_owned).collect()
}

#[test]
fn the_page_and_everything_it_names_are_served_with_a_strict_policy() {
    let pooler = Setup::url(cluster::shared(), "app").start();
    let (head, html) = ask(&pooler, "GET /", BROWSER);
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert_eq!(header(&head, "content-type"), "text/html; charset=utf-8");
    assert_eq!(header(&head, "vary"), "accept");
    let mut todo: Vec<_> = named(&html).into_iter().collect();
    assert!(todo.len() > 10, "{todo:?}");
    let mut heads = vec![head];
    let mut seen = BTreeSet::new();
    while let Some(file) = todo.pop() {
        if !seen.insert(file.clone()) {
            continue;
        }
        let (head, text) = ask(&pooler, &format!("GET /ui/{file}"), "");
        assert!(head.starts_with("http/1.1 200 "), "{file}: {head}");
        let kind = match file.rsplit_once('.').unwrap().1 {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!(header(&head, "content-type"), kind, "{file}");
        todo.extend(named(&text));
        heads.push(head);
    }
    for head in heads {
        let policy = header(&head, "content-security-policy");
        for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.contains(part), "{part}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert_eq!(header(&head, "x-content-type-options"), "nosniff");
        assert_eq!(header(&head, "cache-control"), "no-store");
        assert_eq!(header(&head, "referrer-policy"), "no-referrer");
    }
    // What the page says there is, there is.
    let (_, rest) = html.split_once("name=\"api-endpoints\" content=\"").unwrap();
    let endpoints: Vec<_> = rest.split_once('"').unwrap().0.split(' ').collect();
    assert!(endpoints.contains(&"findings") && endpoints.contains(&"pools"), "{endpoints:?}");
    for endpoint in endpoints {
        let (head, _) = ask(&pooler, &format!("GET /api/v1/{endpoint}?from=1"), "");
        assert!(!head.starts_with("http/1.1 404 "), "{endpoint}: {head}");
    }
    for (line, status) in
        [("GET /ui/nothing.js", 404), ("GET /ui/", 404), ("GET /ui/../Cargo.toml", 404), ("POST /", 405)]
    {
        let (head, _) = ask(&pooler, line, BROWSER);
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{line}: {head}");
    }
    let (head, _) = ask(&pooler, "HEAD /", BROWSER);
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    // Without a wish for HTML the list of paths stays.
    let (head, text) = ask(&pooler, "GET /", "Accept: */*\r\n");
    assert_eq!(header(&head, "content-type"), "text/plain; charset=utf-8");
    assert!(text.contains("/metrics"), "{text}");
}

#[test]
fn the_frame_is_for_everyone_and_what_it_shows_for_whoever_has_the_token() {
    let pooler = Setup::url(cluster::shared(), "app").env("PGSLUICE_HTTP_TOKEN", TOKEN).start();
    // It must be there to ask for the token, and tells nothing of this instance.
    let (head, html) = ask(&pooler, "GET /", BROWSER);
    assert!(head.starts_with("http/1.1 200 ") && !html.contains(TOKEN), "{head}");
    assert!(ask(&pooler, "GET /ui/main.js", "").0.starts_with("http/1.1 200 "));
    let right = format!("Authorization: Bearer {TOKEN}\r\n");
    for (path, headers, status) in [
        ("/api/v1/findings", "", 401),
        ("/api/v1/findings", "Authorization: Bearer another-token-of-them\r\n", 401),
        ("/api/v1/findings", &right, 200),
        ("/", "", 401),
        ("/ui/nothing.js", "", 401),
        ("/ui/nothing.js", &right, 404),
    ] {
        let (head, _) = ask(&pooler, &format!("GET {path}"), headers);
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{path} {headers}: {head}");
    }
}
