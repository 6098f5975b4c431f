//! The documentation names what exists: metrics, variables, settings, files, links.

#![allow(clippy::unwrap_used)] // a test may panic

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

/// Every page: those at the root and in docs/.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<_> =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].iter().map(|name| root().join(name)).collect();
    files(&root().join("docs"), "md", &mut paths);
    assert!(paths.len() > 8, "pages are missing: {paths:?}");
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect()
}

fn source() -> String {
    let mut paths = Vec::new();
    files(&root().join("src"), "rs", &mut paths);
    paths.iter().map(|p| fs::read_to_string(p).unwrap()).collect()
}

/// Words of `text` that begin with `prefix`.
fn words<'t>(text: &'t str, prefix: &str) -> BTreeSet<&'t str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with(prefix) && word.len() > prefix.len())
        .collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn metrics_exist() {
    let source = source();
    for (path, text) in pages() {
        for name in words(&text, "pgsluice_") {
            let family = ["_sum", "_count", "_bucket"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            // `grep pgsluice_pool` and the names of statements at servers.
            let known = ["pgsluice_pool", "pgsluice_N"].contains(&name) || source.contains(&format!("\"{family}\""));
            assert!(known, "{}: no metric {name}", path.display());
        }
    }
}

#[test]
fn variables_and_settings_exist() {
    let reference = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let variables = words(&reference, "PGSLUICE_");
    for (path, text) in pages() {
        for name in words(&text, "PGSLUICE_") {
            assert!(variables.contains(name) || name == "PGSLUICE_CACHE", "{}: no variable {name}", path.display());
        }
        for name in quoted(&text).filter_map(|word| word.strip_prefix("insight.")) {
            assert!(reference.contains(&format!("| `{name}` |")), "{}: no setting insight.{name}", path.display());
        }
    }
}

#[test]
fn files_exist() {
    let top = ["src/", "tests/", "docs/", "demo/", "deploy/", "benches/", "config/", "examples/", "tools/"];
    for (path, text) in pages() {
        for name in quoted(&text).filter(|word| top.iter().any(|dir| word.starts_with(dir))) {
            let name = name.split([' ', '*']).next().unwrap_or(name);
            assert!(root().join(name).exists(), "{}: no file {name}", path.display());
        }
    }
}

#[test]
fn links_lead_somewhere() {
    for (path, text) in pages() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let page = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            assert!(page.exists(), "{}: link to {target}", path.display());
            if !anchor.is_empty() {
                let text = fs::read_to_string(&page).unwrap();
                assert!(anchors(&text).contains(anchor), "{}: no heading for {target}", path.display());
            }
        }
    }
}

/// Ids of a page: of its headings as GitHub makes them, and those written out.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| {
        line.trim_start_matches('#')
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    });
    let written = text.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned);
    headings.chain(written).collect()
}
