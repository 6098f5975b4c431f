//! Recorded statements: the fuzz corpus of the repository, and, when reachable, PostgreSQL's own grouping.

use std::collections::{HashMap, HashSet};

use super::*;

fn replay(kind: &str, run: fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(kind);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the corpus is in the repository")
        .map(|f| f.expect("entry").path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        run(&std::fs::read(&file).expect("readable"));
    }
}

#[test]
fn the_lexer_corpus_holds() {
    replay("lexer", fuzz_lexer);
}

#[test]
fn the_tags_corpus_holds() {
    replay("tags", fuzz_tags);
}

/// Texts one query id of PostgreSQL stands for, and one of ours: how often each is split by the other.
fn compare(name: &str) -> Option<(usize, usize)> {
    let Some(folder) = std::env::var_os("PGSLUICE_SHARED") else {
        println!("skipped: PGSLUICE_SHARED does not name the folder of recorded statements");
        return None;
    };
    let file = std::path::Path::new(&folder).join("suites/fingerprints").join(name);
    let Ok(text) = std::fs::read_to_string(&file) else {
        println!("skipped: {} is not there", file.display());
        return None;
    };
    let mut ours: HashMap<Fingerprint, HashSet<i64>> = HashMap::new();
    let mut theirs: HashMap<i64, HashMap<Fingerprint, String>> = HashMap::new();
    for line in text.lines() {
        let record: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
        let (id, sql) = (record["queryid"].as_i64().expect("id"), record["sql"].as_str().expect("text"));
        let statements = all(sql.as_bytes(), ON);
        fuzz_lexer(sql.as_bytes());
        if statements.len() != 1 {
            continue;
        }
        let fp = statements[0].0.fingerprint;
        ours.entry(fp).or_default().insert(id);
        theirs.entry(id).or_default().entry(fp).or_insert_with(|| shown(sql));
    }
    // PostgreSQL resolves names: `"t"."a"` and `a` are one column to it, and two texts to us.
    let named = |text: &String| {
        text.split_whitespace()
            .map(|w| w.rsplit('.').next().unwrap_or(w).replace('"', ""))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let differ = |fps: &HashMap<Fingerprint, String>| fps.values().map(named).collect::<HashSet<_>>().len() > 1;
    let splits = theirs.values().filter(|fps| differ(fps)).count();
    let merges = ours.values().filter(|ids| ids.len() > 1).count();
    println!("{name}: {} query ids, {} fingerprints; splits {splits}, merges {merges}", theirs.len(), ours.len());
    if std::env::var_os("PGSLUICE_VERBOSE").is_some() {
        let mut split: Vec<_> = theirs.iter().filter(|(_, f)| f.len() > 1).collect();
        split.sort_by_key(|(id, _)| **id);
        for (id, fps) in split {
            println!("SPLIT {id}");
            let mut texts: Vec<_> = fps.values().collect();
            texts.sort();
            texts.iter().for_each(|t| println!("    {t}"));
        }
    }
    Some((splits, merges))
}

#[test]
fn django_groups_as_postgresql_does() {
    if let Some((splits, _)) = compare("django.jsonl") {
        assert_eq!(splits, 0, "what PostgreSQL holds for one statement is one fingerprint");
    }
}

#[test]
fn the_regression_suite_is_read_whole() {
    compare("regress.jsonl");
}
