//! Twenty-six Django idioms: fourteen loops that must be found, one that may be found with low confidence, and eleven
//! innocent patterns.

use super::*;

const BOOKS: &str = r#"SELECT "shop_book"."id", "shop_book"."title", "shop_book"."author_id" FROM "shop_book" ORDER BY "shop_book"."id" ASC"#;
const AUTHORS: &str = r#"SELECT "shop_author"."id", "shop_author"."name" FROM "shop_author""#;
const SESSION: &str = r#"SELECT "django_session"."session_key", "django_session"."session_data", "django_session"."expire_date" FROM "django_session" WHERE ("django_session"."expire_date" > '2026-01-01T00:00:00+00:00'::timestamptz AND "django_session"."session_key" = 'abc') LIMIT 21"#;

fn author(id: u64) -> String {
    format!(
        r#"SELECT "shop_author"."id", "shop_author"."name" FROM "shop_author" WHERE "shop_author"."id" = {id} LIMIT 21"#
    )
}

fn books_of(id: u64) -> String {
    format!(
        r#"SELECT "shop_book"."id", "shop_book"."title", "shop_book"."author_id" FROM "shop_book" WHERE "shop_book"."author_id" = {id}"#
    )
}

/// The one finding of a scenario, high confidence, with this relation and advice.
fn finds(client: &mut Client, relation: &str, advice: &str) {
    let seen = client.finish();
    let findings = client.insight.findings();
    let found = findings.iter().find(|finding| finding.relation == relation && finding.advice.contains(advice));
    let found = found.unwrap_or_else(|| panic!("no {relation} with {advice} in {findings:#?}"));
    assert_eq!(found.confidence, Confidence::High, "{seen:#?}");
}

fn finds_nothing(client: &mut Client) {
    let seen = client.finish();
    assert!(sure(&seen).is_empty(), "{seen:#?}");
}

#[test]
fn foreign_key_with_many_parents() {
    let mut client = Client::new();
    client.query(BOOKS, 30);
    (0..30).for_each(|id| client.query(&author(id), 1));
    finds(&mut client, "fk", r#"select_related("author") on the query of shop_book"#);
}

#[test]
fn foreign_key_with_few_parents() {
    let mut client = Client::new();
    client.query(BOOKS, 30);
    (0..30).for_each(|id| client.query(&author(id % 3), 1));
    finds(&mut client, "fk", r#"select_related("author")"#);
}

#[test]
fn reverse_foreign_key() {
    let mut client = Client::new();
    client.query(AUTHORS, 20);
    (0..20).for_each(|id| client.query(&books_of(id), 3));
    finds(&mut client, "reverse_fk", r#"prefetch_related("book_set") on the query of shop_author"#);
}

#[test]
fn count_per_row() {
    let mut client = Client::new();
    client.query(AUTHORS, 12);
    for id in 0..12 {
        client.query(
            &format!(r#"SELECT COUNT(*) AS "__count" FROM "shop_book" WHERE "shop_book"."author_id" = {id}"#),
            1,
        );
    }
    finds(&mut client, "count", "annotate(n=Count(\"book\"");
}

#[test]
fn chain_of_three() {
    let mut client = Client::new();
    client.query(BOOKS, 10);
    for id in 0..10 {
        client.query(&author(id), 1);
        client.query(&format!(r#"SELECT 1 AS "a" FROM "shop_review" WHERE "shop_review"."book_id" = {id} LIMIT 1"#), 1);
        client.query(&format!(r#"SELECT "shop_tag"."id" FROM "shop_tag" INNER JOIN "shop_book_tags" ON ("shop_tag"."id" = "shop_book_tags"."tag_id") WHERE "shop_book_tags"."book_id" = {id}"#), 2);
    }
    finds(&mut client, "fk", r#"select_related("author")"#);
    let findings = client.insight.findings();
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].kind, findings[0].fingerprints.len()), (Kind::Chain, 3));
    assert!(findings[0].advice.contains(r#"prefetch_related("tags")"#), "{}", findings[0].advice);
    assert!(findings[0].advice.contains("Exists(...filter(book=OuterRef"), "{}", findings[0].advice);
}

#[test]
fn nested_loops() {
    let mut client = Client::new();
    client.query(AUTHORS, 8);
    let mut books = 0;
    for id in 0..8 {
        let of_this = 1 + id % 4;
        client.query(&books_of(id), of_this);
        for _ in 0..of_this {
            books += 1;
            client.query(
                &format!(r#"SELECT "shop_review"."id" FROM "shop_review" WHERE "shop_review"."book_id" = {books}"#),
                2,
            );
        }
    }
    let seen = client.finish();
    let found = sure(&seen);
    assert_eq!(found.len(), 2, "{seen:#?}");
    assert!(found.iter().all(|burst| burst.confidence == Confidence::High), "{seen:#?}");
    assert_eq!(found.iter().map(|burst| burst.parent_rows).collect::<Vec<_>>(), [Some(8), Some(20)]);
}

#[test]
fn generic_foreign_key() {
    let mut client = Client::new();
    client.query(
        r#"SELECT "shop_item"."id", "shop_item"."content_type_id", "shop_item"."object_id" FROM "shop_item""#,
        30,
    );
    for id in 0..30u64 {
        if id < 3 {
            client.query(&format!(r#"SELECT "django_content_type"."id", "django_content_type"."model" FROM "django_content_type" WHERE "django_content_type"."id" = {id} LIMIT 21"#), 1);
        }
        let table = ["shop_book", "shop_author", "shop_tag"][(id % 3) as usize];
        client.query(
            &format!(r#"SELECT "{table}"."id", "{table}"."name" FROM "{table}" WHERE "{table}"."id" = {id} LIMIT 21"#),
            1,
        );
    }
    let seen = client.finish();
    assert_eq!(sure(&seen).len(), 3, "{seen:#?}");
    let findings = client.insight.findings();
    assert!(findings.iter().any(|finding| finding.advice.contains("content_object")), "{findings:#?}");
}

#[test]
fn deferred_field() {
    let mut client = Client::new();
    client.query(r#"SELECT "shop_book"."id" FROM "shop_book""#, 15);
    for id in 0..15 {
        client.query(&format!(r#"SELECT "shop_book"."id", "shop_book"."title" FROM "shop_book" WHERE "shop_book"."id" = {id} LIMIT 21"#), 1);
    }
    finds(&mut client, "deferred", r#"add "title" to only()"#);
}

#[test]
fn delete_loop_with_a_transaction_each() {
    let mut client = Client::new();
    client.query(BOOKS, 30);
    for id in 0..30 {
        client.query("BEGIN", 0);
        client.query(&format!(r#"DELETE FROM "shop_book_tags" WHERE "shop_book_tags"."book_id" IN ({id})"#), 1);
        client.query(&format!(r#"DELETE FROM "shop_book" WHERE "shop_book"."id" IN ({id})"#), 1);
        client.query("COMMIT", 0);
    }
    finds(&mut client, "delete", "filter(pk__in=ids).delete() for shop_book,");
}

#[test]
fn many_to_many_add_loop() {
    let mut client = Client::new();
    client.query(BOOKS, 25);
    for id in 0..25 {
        client.query("BEGIN", 0);
        client.query(
            &format!(r#"INSERT INTO "shop_book_tags" ("book_id", "tag_id") VALUES ({id}, 3) ON CONFLICT DO NOTHING"#),
            1,
        );
        client.query("COMMIT", 0);
    }
    finds(&mut client, "m2m_add", "through model");
}

#[test]
fn get_or_create_loop() {
    let mut client = Client::new();
    for id in 0..25 {
        client.query(&format!(r#"SELECT "shop_tag"."id", "shop_tag"."name" FROM "shop_tag" WHERE "shop_tag"."name" = 't{id}' LIMIT 21"#), 0);
        client.query("BEGIN", 0);
        client.query(&format!(r#"INSERT INTO "shop_tag" ("name") VALUES ('t{id}') RETURNING "shop_tag"."id""#), 1);
        client.query("COMMIT", 0);
    }
    client.finish();
    let findings = client.insight.findings();
    assert!(
        findings
            .iter()
            .any(|finding| finding.relation == "get_or_create" && finding.advice.contains("name__in=values")),
        "{findings:#?}"
    );
    assert!(findings.iter().any(|finding| finding.kind == Kind::WriteLoop));
}

#[test]
fn create_loop() {
    let mut client = Client::new();
    for id in 0..40 {
        client.query(&format!(r#"INSERT INTO "shop_tag" ("name") VALUES ('t{id}') RETURNING "shop_tag"."id""#), 1);
    }
    client.finish();
    let findings = client.insight.findings();
    assert_eq!((findings.len(), findings[0].kind, findings[0].relation), (1, Kind::WriteLoop, "insert"));
    assert!(findings[0].advice.contains("bulk_create(objects"));
}

#[test]
fn save_loop() {
    let mut client = Client::new();
    client.query(BOOKS, 30);
    for id in 0..30 {
        client.query(
            &format!(r#"UPDATE "shop_book" SET "title" = 'x{id}', "author_id" = 2 WHERE "shop_book"."id" = {id}"#),
            1,
        );
    }
    finds(&mut client, "update", r#"bulk_update(objects, ["title""#);
}

#[test]
fn repeated_get_of_one_object() {
    let mut client = Client::new();
    (0..10).for_each(|_| client.query(&author(7), 1));
    let seen = client.finish();
    assert_eq!((seen.len(), seen[0].kind, seen[0].n), (1, Kind::Duplicate, 10), "{seen:#?}");
}

#[test]
fn get_over_a_python_list_is_low() {
    let mut client = Client::new();
    (0..25).for_each(|id| client.query(&author(id), 1));
    let seen = client.finish();
    assert_eq!((seen.len(), seen[0].confidence), (1, Confidence::Low), "{seen:#?}");
}

#[test]
fn get_over_a_python_list_in_a_request_is_medium() {
    let mut client = Client::new();
    client.query(SESSION, 1);
    (0..25).for_each(|id| client.query(&author(id), 1));
    let seen = client.finish();
    assert_eq!((seen.len(), seen[0].confidence), (1, Confidence::Medium), "{seen:#?}");
}

#[test]
fn select_related_and_prefetch() {
    let mut client = Client::new();
    for _ in 0..6 {
        client.query(r#"SELECT "shop_book"."id", "shop_author"."id" FROM "shop_book" INNER JOIN "shop_author" ON ("shop_book"."author_id" = "shop_author"."id")"#, 30);
        client.query(r#"SELECT ("shop_book_tags"."book_id") AS "_prefetch_related_val_book_id", "shop_tag"."id" FROM "shop_tag" INNER JOIN "shop_book_tags" ON ("shop_tag"."id" = "shop_book_tags"."tag_id") WHERE "shop_book_tags"."book_id" IN (1, 2, 3)"#, 50);
    }
    finds_nothing(&mut client);
}

#[test]
fn paginator_walk() {
    let mut client = Client::new();
    for page in 0..15 {
        client.query(r#"SELECT COUNT(*) AS "__count" FROM "shop_book""#, 1);
        client.query(
            &format!(
                r#"SELECT "shop_book"."id" FROM "shop_book" ORDER BY "shop_book"."id" ASC LIMIT 20 OFFSET {}"#,
                page * 20 + 20
            ),
            20,
        );
    }
    finds_nothing(&mut client);
}

#[test]
fn keyset_walk() {
    let mut client = Client::new();
    for page in 0..30 {
        client.query(&format!(r#"SELECT "shop_book"."id" FROM "shop_book" WHERE "shop_book"."id" > {} ORDER BY "shop_book"."id" ASC LIMIT 100"#, page * 100), 100);
    }
    finds_nothing(&mut client);
}

#[test]
fn iterator_over_a_cursor() {
    let mut client = Client::new();
    client.query("BEGIN", 0);
    client.query(&format!(r#"DECLARE "_django_curs_140_sync_1" NO SCROLL CURSOR FOR {BOOKS}"#), 0);
    for _ in 0..30 {
        client.query(r#"FETCH FORWARD 100 FROM "_django_curs_140_sync_1""#, 100);
    }
    client.query(r#"CLOSE "_django_curs_140_sync_1""#, 0);
    client.query("COMMIT", 0);
    finds_nothing(&mut client);
}

#[test]
fn iterator_with_prefetch() {
    let mut client = Client::new();
    for chunk in 0..12u64 {
        client.query(r#"FETCH FORWARD 100 FROM "_django_curs_140_sync_1""#, 100);
        let ids: Vec<String> = (0..100).map(|id| (chunk * 100 + id).to_string()).collect();
        client.query(
            &format!(
                r#"SELECT "shop_author"."id" FROM "shop_author" WHERE "shop_author"."id" IN ({})"#,
                ids.join(", ")
            ),
            40,
        );
    }
    finds_nothing(&mut client);
}

#[test]
fn back_to_back_requests_with_session() {
    let mut client = Client::new();
    client.pause = 800;
    for id in 0..20 {
        client.query(SESSION, 1);
        client.query(&author(id), 1);
        client.query(&books_of(id), 4);
    }
    finds_nothing(&mut client);
}

#[test]
fn back_to_back_requests_without_session() {
    let mut client = Client::new();
    client.pause = 800;
    for id in 0..19 {
        client.query(&author(id), 1);
        client.query(&books_of(id), 4);
    }
    finds_nothing(&mut client);
}

#[test]
fn a_list_then_its_details_each_with_a_token_look_up() {
    let mut client = Client::new();
    let token = r#"SELECT "authtoken_token"."key", "authtoken_token"."user_id" FROM "authtoken_token" WHERE "authtoken_token"."key" = 'k' LIMIT 21"#;
    client.query(token, 1);
    client.query(BOOKS, 15);
    for id in 0..15 {
        client.query(token, 1);
        client.query(&author(id), 1);
    }
    finds_nothing(&mut client);
}

#[test]
fn a_list_then_its_details_with_pauses() {
    let mut client = Client::new();
    client.query(BOOKS, 15);
    for id in 0..15 {
        client.wait_ms(25);
        client.query(&author(id), 1);
    }
    finds_nothing(&mut client);
}

#[test]
fn queue_polling_with_skip_locked() {
    let mut client = Client::new();
    for id in 0..40 {
        client.query("BEGIN", 0);
        client.query(
            &format!(
                r#"SELECT "q"."id" FROM "q" WHERE "q"."due" < {id} ORDER BY "q"."id" LIMIT 1 FOR UPDATE SKIP LOCKED"#
            ),
            1,
        );
        client.query(&format!(r#"UPDATE "q" SET "done" = true WHERE "q"."id" = {id}"#), 1);
        client.query("COMMIT", 0);
    }
    finds_nothing(&mut client);
}

#[test]
fn queue_without_locks() {
    let mut client = Client::new();
    client.query(SESSION, 1);
    client.query(AUTHORS, 9);
    for id in 0..40 {
        client.query(&format!(r#"SELECT "q"."id" FROM "q" WHERE "q"."due" < {id} ORDER BY "q"."id" LIMIT 1"#), 1);
        client.query(&author(id), 1);
        client.query(&format!(r#"UPDATE "q" SET "done" = true WHERE "q"."id" = {id}"#), 1);
    }
    finds_nothing(&mut client);
}

#[test]
fn twelve_different_counts() {
    let mut client = Client::new();
    for table in 0..12 {
        client
            .query(&format!(r#"SELECT COUNT(*) AS "__count" FROM "shop_t{table}" WHERE "shop_t{table}"."active""#), 1);
    }
    finds_nothing(&mut client);
}

#[test]
fn bulk_create_in_batches() {
    let mut client = Client::new();
    for batch in 0..30 {
        client.query(&format!(r#"INSERT INTO "shop_tag" ("name") VALUES ('a{batch}'), ('b{batch}'), ('c{batch}')"#), 3);
    }
    let seen = client.finish();
    assert!(seen.is_empty(), "{seen:#?}");
}

#[test]
fn four_gets() {
    let mut client = Client::new();
    client.query(SESSION, 1);
    (0..4).for_each(|id| client.query(&author(id), 1));
    let seen = client.finish();
    assert!(seen.is_empty(), "{seen:#?}");
}

#[test]
fn a_pipeline_is_one_round_trip() {
    let mut client = Client::new();
    client.query(BOOKS, 30);
    (0..30).for_each(|id| client.query_as(&author(id), 1, true));
    finds_nothing(&mut client);
}

#[test]
fn a_loop_survives_rendering_pauses() {
    let mut client = Client::new();
    (0..20).for_each(|_| client.query(&author(1), 1));
    client.wait_ms(30);
    client.query(BOOKS, 20);
    client.wait_ms(15);
    for id in 0..20 {
        client.query(&books_of(id), 2);
        if id == 11 {
            client.wait_ms(20);
        }
    }
    let seen = client.finish();
    assert_eq!(sure(&seen).iter().map(|burst| burst.n).collect::<Vec<_>>(), [20], "{seen:#?}");
}
