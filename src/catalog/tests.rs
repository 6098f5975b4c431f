//! Catalogues and candidates from answers as PostgreSQL gives them.

use super::candidate::{BIG_TABLE, candidate, lacks_index};
use super::plan::Scan;
use super::*;

fn rows(text: &str) -> Vec<Vec<Option<String>>> {
    let row = |line: &str| line.split('|').map(|field| Some(field.to_owned())).collect();
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(row).collect()
}

fn catalog() -> Catalog {
    let tables = "10|public|author|500000|f
                  11|public|book|500000|f
                  12|other|author|5|f
                  13|public|small|9999|f
                  14|public|never|-1|f
                  15|public|part|500000|t";
    let columns = "10|1|id|t
                   10|2|email|f
                   10|3|active|f
                   10|4|born|f
                   11|1|id|t
                   11|3|author_id|f
                   13|1|email|f
                   14|1|email|f
                   15|1|email|f";
    Catalog::draft(&rows("public"), &rows(tables)).finish(
        &rows(columns),
        &rows("11|3|10|1\n11|3|99|1"),
        &rows("10|1|t|f\n11|1|t|f\n11|3 0|f|f\n10|2|t|t"),
    )
}

fn scan(table: &str, equals: &[&str], ranges: &[&str], left: f64) -> Scan {
    let names = |list: &[&str]| list.iter().map(|name| Box::from(*name)).collect();
    Scan {
        table: table.into(),
        rows: left,
        equals: names(equals),
        ranges: names(ranges),
        share: 1.0,
        ..Scan::default()
    }
}

#[test]
fn names_are_looked_for_in_the_path() {
    let catalog = catalog();
    assert_eq!(catalog.table(None, "author").unwrap().rows, Some(500_000));
    assert_eq!(catalog.table(Some("other"), "author").unwrap().rows, Some(5));
    assert!(catalog.table(None, "stranger").is_none());
    let book = catalog.table(None, "book").unwrap();
    let key = book.foreign_key("author_id").unwrap();
    assert_eq!((&*catalog.at(key.to).name, &*key.to_column, book.foreign_keys.len()), ("author", "id", 1));
    assert!(book.is_unique("id") && !book.is_unique("author_id"));
    assert_eq!(catalog.table(None, "never").unwrap().rows, None);
}

#[test]
fn big_tables_without_an_index_lack_one() {
    let catalog = catalog();
    let lacks = |scan: &Scan| lacks_index(&catalog, scan).is_some();
    // A partial index on email is none for all rows.
    assert!(lacks(&scan("author", &["email"], &[], 1.0)));
    for innocent in [
        scan("small", &["email"], &[], 1.0),
        scan("never", &["email"], &[], 1.0),
        scan("part", &["email"], &[], 1.0),
        scan("stranger", &["email"], &[], 1.0),
        scan("author", &["email"], &[], 250_000.0),
        scan("author", &[], &[], 500_000.0),
        scan("author", &["id"], &[], 1.0),
        scan("author", &["computed"], &[], 1.0),
        scan("book", &["author_id"], &[], 1.0),
    ] {
        assert!(!lacks(&innocent), "{innocent:?}");
    }
    const { assert!(BIG_TABLE == 10_000) };
}

#[test]
fn columns_of_a_candidate_are_in_the_order_of_what_they_tell() {
    let catalog = catalog();
    let columns = |scan: &Scan, distinct: &dyn Fn(&str) -> Option<f64>, order: Option<&str>| {
        let found = candidate(&catalog, scan, distinct, order).unwrap();
        found.columns.iter().map(|name| name.to_string()).collect::<Vec<_>>()
    };
    let known = |name: &str| match name {
        "email" => Some(-1.0),
        "active" => Some(2.0),
        _ => None,
    };
    let both = scan("author", &["active", "email"], &["born"], 1.0);
    assert_eq!(columns(&both, &known, None), ["email"], "one row is left");
    assert_eq!(columns(&both, &|_| None, None), ["active", "email", "born"]);
    let few = scan("author", &["active"], &[], 10_000.0);
    assert_eq!(columns(&few, &known, Some("born")), ["active", "born"]);
    assert_eq!(columns(&few, &known, Some("elsewhere")), ["active"]);
    let index = candidate(&catalog, &both, &known, None).unwrap();
    assert_eq!(index.sql(), r#"CREATE INDEX ON "public"."author" ("email")"#);
}

#[test]
fn a_table_that_was_not_read_to_its_end_is_left_out() {
    let tables = "1|public|a|5|f\n2|public|b|5|f\n3|public|c|5|f";
    let columns: Vec<_> = (0..MAX_ROWS).map(|n| if n < 10 { "1|1|x|t" } else { "2|1|x|t" }).collect();
    let catalog = Catalog::draft(&rows("public"), &rows(tables)).finish(&rows(&columns.join("\n")), &[], &[]);
    assert!(catalog.table(None, "a").is_some() && catalog.len() == 1);
}

proptest::proptest! {
    #[test]
    fn any_answers_make_a_catalogue(
        answers in proptest::collection::vec(proptest::collection::vec(proptest::option::of("[0-9 tfa-]{0,3}"), 0..6), 0..12)
    ) {
        let catalog = Catalog::draft(&answers, &answers).finish(&answers, &answers, &answers);
        proptest::prop_assert!(catalog.len() <= answers.len());
    }
}
