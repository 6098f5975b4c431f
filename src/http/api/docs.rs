//! `docs/api.md`, from the table of endpoints and the definitions of their objects.

use std::fmt::Write;

use super::endpoint::{ALL, PREFIX};
use super::object::Object;
use crate::diagnosis::KINDS;

const INTRODUCTION: &str = "\
# JSON API

<!-- Written from src/http/api/ by `UPDATE_DOCS=1 cargo test`. -->

Everything that pgsluice found and counts, read only, at `http_listen` (default `127.0.0.1:9127`). With `http_token` or
`http_token_file` set, every request needs it, as for `/metrics`: `Authorization: Bearer TOKEN`, or as the password of basic
authentication. Without one only requests over the loopback, to an address or `localhost`, are answered; others get 403.
Whoever may read this sees names of databases, users, applications, routes, tables and columns, and statements without their
literals. No literal, parameter or row is in any of it.

```sh
curl -s 'http://127.0.0.1:9127/api/v1/findings?min_confidence=medium&limit=10'
```

The version stands in the path. Within it fields and endpoints are only added, so a reader ignores what it does not know.
Units stand in the names: `_seconds`, `_us` (microseconds), `_bytes`, `_unix_seconds` (time since 1970). Counts begin with the
process. Answers come from counters that are read as they are, without stopping anything: two of one answer may be a moment
apart. Statements are those of the last seconds, too; requests, routes and findings appear when a unit of work is over.

Lists answer `{\"at_unix_seconds\", \"total\", \"offset\", \"limit\", \"items\"}`; `limit` (default 50, at most 1000) and `offset`
choose the page. Errors answer 400 or 404 and `{\"error\": \"...\"}`. Only GET and HEAD are allowed.
";

/// The whole document.
pub fn markdown() -> String {
    let mut out = INTRODUCTION.to_owned();
    for endpoint in ALL {
        let path = endpoint.path;
        let _ = write!(out, "\n## GET {PREFIX}/{path}\n\n{}", endpoint.about);
        let _ = match endpoint.id {
            Some(id) => writeln!(out, " `{PREFIX}/{path}/ID` is one of them; ID is {id}."),
            None => writeln!(out),
        };
        if !endpoint.parameters.is_empty() {
            out.push_str("\n| Parameter | Only what is |\n|---|---|\n");
            for (name, doc) in endpoint.parameters {
                let _ = writeln!(out, "| `{name}` | {doc} |");
            }
        }
        let mut objects = Vec::new();
        (endpoint.objects)(&mut objects);
        for (at, object) in objects.iter().enumerate() {
            fields(&mut out, object, (at == 0).then_some(endpoint.list));
        }
        if path == "causes" {
            out.push_str("\n| Kind | What it is |\n|---|---|\n");
            for (kind, about) in KINDS {
                let _ = writeln!(out, "| `{kind}` | {about} |");
            }
        }
    }
    out
}

/// The table of an object. `list` is given of the endpoint's own.
fn fields(out: &mut String, object: &Object, list: Option<bool>) {
    let what = match list {
        Some(true) => "Items, ",
        Some(false) => "The answer, ",
        None => "",
    };
    let _ = write!(
        out,
        "\n{what}**{}**:{}\n\n| Field | Type | What it tells |\n|---|---|---|\n",
        object.name, object.about
    );
    for field in &object.fields {
        let kind = field.kind.replace(['[', ']'], "**");
        let _ = writeln!(out, "| `{}` | {kind} |{} |", field.name, field.doc);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_document_is_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, markdown()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == markdown(), "docs/api.md is old: run UPDATE_DOCS=1 cargo test");
    }

    #[test]
    fn times_and_sizes_carry_their_unit() {
        for endpoint in ALL {
            let mut objects = Vec::new();
            (endpoint.objects)(&mut objects);
            for field in objects.iter().flat_map(|object| &object.fields) {
                let doc = field.doc.to_lowercase();
                let timed = ["time ", "how long", "wait,"].iter().any(|word| doc.trim_start().starts_with(word));
                let unit = field.name.contains("_seconds") || field.name.ends_with("_us");
                assert!(!timed || unit, "{}: a time without its unit", field.name);
            }
        }
    }
}
