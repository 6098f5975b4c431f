//! Cost of the lexer pass (`analyze`), and of a statement that is known but for its literals (`known`): nanoseconds a
//! statement (divan's table) and a byte (its bytes/s counter).
//!
//! `cargo bench --bench lexer`. Take the `fastest` column: the rest tells how busy the machine was.

use divan::counter::BytesCount;
use pgsluice::sql::{Analyzer, LexSettings, RawSql};

fn main() {
    divan::main();
}

const SETTINGS: LexSettings = LexSettings { standard_conforming_strings: Some(true), safe_encoding: true };

/// A statement of a known kind and length.
struct Case {
    name: &'static str,
    sql: String,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_{}B", self.name, self.sql.len())
    }
}

/// A Django SELECT over `columns` columns, quoted and qualified as the ORM does it.
fn select(columns: usize) -> String {
    let names = ["id", "title", "slug", "author_id", "published_at", "price", "is_active", "created", "category_id"];
    let list: Vec<String> = (0..columns)
        .map(|i| match i / names.len() {
            0 => format!(r#""shop_book"."{}""#, names[i % names.len()]),
            n => format!(r#""shop_book"."{}_{n}""#, names[i % names.len()]),
        })
        .collect();
    format!(
        r#"SELECT {} FROM "shop_book" INNER JOIN "shop_author" ON ("shop_book"."author_id" = "shop_author"."id") WHERE ("shop_author"."country" = 'CH' AND "shop_book"."price" > 10.50) ORDER BY "shop_book"."title" ASC LIMIT 21"#,
        list.join(", ")
    )
}

fn cases() -> Vec<Case> {
    let case = |name, sql: String| Case { name, sql };
    let rows: Vec<String> = (0..700).map(|i| format!("({i}, 'label {i}', NULL, 12.5)")).collect();
    let ids: Vec<String> = (1..=100).map(|i| (i * 37).to_string()).collect();
    vec![
        case("begin", "BEGIN".into()),
        case("pgbench", "SELECT abalance FROM pgbench_accounts WHERE aid = 123456;".into()),
        case(
            "django_get",
            r#"SELECT "shop_author"."id", "shop_author"."name", "shop_author"."country" FROM "shop_author" WHERE "shop_author"."id" = 4217 LIMIT 21"#.into(),
        ),
        case("django_select", select(20)),
        case("django_select", select(36)),
        case("insert_values", format!(r#"INSERT INTO "shop_tag" ("id", "label", "note", "weight") VALUES {} RETURNING "shop_tag"."id""#, rows.join(", "))),
        case(
            "in_list",
            format!(r#"SELECT "shop_book"."id", "shop_book"."title" FROM "shop_book" WHERE "shop_book"."id" IN ({})"#, ids.join(", ")),
        ),
        case("one_string", format!("INSERT INTO t (a) VALUES ('{}')", "x".repeat(20_000))),
    ]
}

#[divan::bench(args = cases(), sample_count = 400, sample_size = 200)]
fn analyze(bencher: divan::Bencher<'_, '_>, case: &Case) {
    // Of a text that begins with an empty statement no template is kept.
    measure(bencher, &format!(";{}", case.sql));
}

#[divan::bench(args = cases(), sample_count = 400, sample_size = 200)]
fn known(bencher: divan::Bencher<'_, '_>, case: &Case) {
    measure(bencher, &case.sql);
}

fn measure(bencher: divan::Bencher<'_, '_>, sql: &str) {
    let mut analyzer = Analyzer::new([7, 9]);
    bencher.counter(BytesCount::of_slice(sql.as_bytes())).bench_local(move || {
        let mut sum = 0;
        analyzer
            .analyze(RawSql(divan::black_box(sql.as_bytes())), SETTINGS, |s, _| sum ^= s.fingerprint.0 ^ s.literals);
        sum
    });
}
