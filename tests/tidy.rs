//! Rules of the house that no compiler checks: layers, where `unsafe` and `pgwire` may be, sizes, characters; and the
//! fuzz corpora, replayed.

#![allow(clippy::unwrap_used)] // a test may panic

use std::fs;
use std::path::{Path, PathBuf};

/// Module by layer; imports point downward only (src/lib.rs).
const LAYERS: &[(&str, u8)] = &[
    ("wire", 0),
    ("sql", 0),
    ("catalog", 0),
    ("net", 1),
    ("auth", 1),
    ("insight", 1),
    ("config", 1),
    ("server", 2),
    ("pool", 3),
    ("cancel", 3),
    ("diagnosis", 3),
    ("client", 4),
    ("admin", 5),
    ("http", 5),
    ("app", 6),
    ("cli", 7),
    ("main", 7),
];

/// Layer 1 is four modules side by side; these alone of them may look at each other.
const BESIDE: &[(&str, &str)] = &[
    ("config", "auth"),
    ("auth", "config"),
    ("insight", "config"),
    ("diagnosis", "pool"),
    ("net", "config"),
    ("http", "admin"),
    ("admin", "http"),
];

/// Most lines of a source file; above it a file wants to be two.
const MAX_LINES: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut todo = vec![root().join(dir)];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// The part of a source file before its tests, without comments.
fn code(name: &str, text: &str) -> String {
    if name.contains("/tests") || name.ends_with("_tests.rs") {
        return String::new();
    }
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].lines().map(|l| l.split_once("//").map_or(l, |(before, _)| before)).collect::<Vec<_>>().join("\n")
}

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(m, _)| *m == module).map(|(_, l)| *l)
}

/// The top-level module of a source file: `src/wire/frame.rs` is in `wire`.
fn module(name: &str) -> &str {
    name.strip_prefix("src/").unwrap().split(['/', '.']).next().unwrap()
}

#[test]
fn imports_point_downward() {
    for (name, text) in files("src", "rs") {
        let own = module(&name);
        if own == "lib" {
            continue;
        }
        let own_layer = layer(own).unwrap_or_else(|| panic!("{name}: give {own} a layer"));
        for (at, _) in code(&name, &text).match_indices("crate::") {
            let text = code(&name, &text);
            let other: String = text[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if other == own || other.is_empty() {
                continue;
            }
            let Some(other_layer) = layer(&other) else { continue };
            let beside = BESIDE.contains(&(own, &*other))
                || own == "cancel" && other == "pool"
                || own == "pool" && other == "cancel";
            assert!(
                other_layer < own_layer || (other_layer == own_layer && beside),
                "{name} (layer {own_layer}) imports {other} (layer {other_layer})"
            );
        }
        if own_layer == 0 {
            assert!(!code(&name, &text).contains("tokio"), "{name}: wire and sql know no tokio");
        }
        if own == "insight" {
            for other in ["wire", "net", "auth"] {
                assert!(
                    !code(&name, &text).contains(&format!("crate::{other}::")),
                    "{name}: insight knows sql and its configuration only"
                );
            }
        }
    }
}

#[test]
fn unsafe_and_pgwire_are_where_they_belong() {
    for (name, text) in files("src", "rs") {
        let code = code(&name, &text);
        if name != "src/net/socket.rs" {
            let ways = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern", "allow(unsafe_code)"];
            assert!(!ways.iter().any(|way| code.contains(way)), "{name}: unsafe");
        }
        if name != "src/wire/control.rs" {
            assert!(!code.contains("pgwire::"), "{name}: pgwire");
        }
        assert!(!code.contains(".unwrap()"), "{name}: unwrap");
    }
}

#[test]
fn sources_are_ascii_and_not_too_long() {
    for (name, text) in files("src", "rs") {
        // Tests hold other characters on purpose, and one module draws itself in a comment.
        assert!(code(&name, &text).is_ascii(), "{name}: not ASCII");
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{name}: {lines} lines, {MAX_LINES} at most");
    }
}

#[test]
fn a_module_says_what_it_is_for() {
    for (name, text) in files("src", "rs") {
        assert!(text.starts_with("//!"), "{name}: opens with its purpose");
    }
}

/// Fields that only look like a secret.
const PRINTABLE: &[(&str, &str)] = &[
    ("src/auth/client.rs", "end_point: Option<Arc<[u8]>>"), // a hash of a certificate, which is public
    ("src/auth/server.rs", "Tls(Option<Vec<u8>>)"),         // likewise
    ("src/cli/mod.rs", "url: Option<String>"),              // of the health page
    ("src/config/mod.rs", "value: String"),                 // SHOW CONFIG: settings, of which none is a secret
    ("src/insight/event.rs", "sql: &'a str"),               // literal-free
    ("src/sql/shape.rs", "Op(Vec<u8>)"),                    // an operator
    ("src/wire/names.rs", "Statement(&'a [u8])"),           // names
    ("src/wire/names.rs", "Portal(&'a [u8])"),
];

/// `Debug` reaches logs and panics: what derives it holds no raw bytes, and no text under a name like these.
#[test]
fn what_derives_debug_holds_no_secret() {
    let telling = ["password", "secret", "sql", "url", "literal", "parameters", "params", "value", "body", "proof"];
    let raw = ["Vec<u8>", "[u8]>", "&'a [u8]", "Box<str>, Box<str>"];
    let (mut seen, mut found) = (0, Vec::new());
    for (name, text) in files("src", "rs") {
        let code = code(&name, &text);
        for (at, _) in code.match_indices("#[derive(") {
            let item = &code[at..];
            let (derives, item) = item.split_once(")]").unwrap();
            let Some(begin) = item.find(['{', ';']).filter(|_| derives.contains("Debug")) else { continue };
            let end = if item[begin..].starts_with(';') { begin } else { item.find("\n}").unwrap_or(item.len()) };
            seen += 1;
            for line in item[..end].lines() {
                let field = line
                    .trim()
                    .trim_start_matches("pub(crate) ")
                    .trim_start_matches("pub(super) ")
                    .trim_start_matches("pub ");
                let named = field.split_once(": ").is_some_and(|(n, ty)| {
                    telling.contains(&n) && ["String", "str", "Raw"].iter().any(|t| ty.contains(t))
                });
                let known = PRINTABLE.iter().any(|(file, line)| *file == name && field.contains(line));
                let raw = raw.iter().any(|r| field.contains(r));
                if !known && (named || raw) {
                    found.push(format!("{name}: {field}"));
                }
            }
        }
    }
    assert!(found.is_empty(), "these derive Debug, which shows what they hold: {found:#?}");
    assert!(seen > 50, "{seen} types looked at");
}

/// The target `startup_tls`, with a certificate made for it.
fn tls_fuzz() -> pgsluice::app::StartupFuzz {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let base = std::env::temp_dir().join(format!("pgsluice-fuzz-{}", std::process::id()));
    let (cert, key) = (base.with_extension("pem"), base.with_extension("key"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let fuzz = pgsluice::app::StartupFuzz::new(&cert, &key).unwrap();
    fs::remove_file(cert).unwrap();
    fs::remove_file(key).unwrap();
    fuzz
}

/// As cargo-fuzz would, without it.
#[test]
fn fuzz_corpora_hold() {
    type Target = (&'static str, fn(&[u8]));
    let targets: [Target; 10] = [
        ("frame", pgsluice::wire::frame::fuzz_frame),
        ("startup", pgsluice::wire::startup::fuzz_startup),
        ("control", pgsluice::wire::control::fuzz_control),
        ("names", pgsluice::wire::names::fuzz_names),
        ("lexer", pgsluice::sql::fuzz_lexer),
        ("tags", pgsluice::sql::fuzz_tags),
        ("sasl", pgsluice::auth::fuzz_sasl),
        ("userlist", pgsluice::config::fuzz_userlist),
        ("hba", pgsluice::auth::hba::fuzz_hba),
        ("certificate", pgsluice::net::certificate::fuzz_certificate),
    ];
    let tls = tls_fuzz();
    let by_tls = |data: &[u8]| tls.run(data);
    let targets = targets.iter().map(|(name, run)| (*name, run as &dyn Fn(&[u8])));
    for (target, run) in targets.chain([("startup_tls", &by_tls as &dyn Fn(&[u8]))]) {
        assert!(root().join(format!("tests/fuzz/fuzz_targets/{target}.rs")).exists());
        let mut seeds = 0;
        for entry in fs::read_dir(root().join("tests/fuzz/corpus").join(target)).unwrap() {
            let data = fs::read(entry.unwrap().path()).unwrap();
            run(&data);
            // And every beginning of it.
            for end in (0..data.len()).step_by(1 + data.len() / 64) {
                run(&data[..end]);
            }
            seeds += 1;
        }
        assert!(seeds > 0, "{target} has no seeds");
    }
}
