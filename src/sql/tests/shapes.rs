//! Shapes of what Django sends.

use super::*;

fn of(sql: &str) -> Shape {
    shape(RawSql(sql.as_bytes()), ON)
}

fn names(columns: &[Column]) -> Vec<String> {
    columns.iter().map(|c| format!("{}.{}", c.table, c.name)).collect()
}

#[test]
fn foreign_key_get() {
    let s = of(
        r#"SELECT "shop_author"."id", "shop_author"."name" FROM "shop_author" WHERE "shop_author"."id" = 1 LIMIT 21"#,
    );
    assert_eq!((s.table(), s.limit, s.width), (Some("shop_author"), Limit::TwentyOne, 2));
    assert_eq!(names(&s.columns), ["shop_author.id", "shop_author.name"]);
    assert_eq!(names(&s.equals), ["shop_author.id"]);
    assert!(!s.other_predicates && s.has_where);
    assert_eq!(summary(&s), "SELECT shop_author");
}

#[test]
fn many_to_many_and_prefetch() {
    let s = of(
        r#"SELECT ("shop_book_tags"."book_id") AS "_prefetch_related_val_book_id", "shop_tag"."id" FROM "shop_tag" INNER JOIN "shop_book_tags" ON ("shop_tag"."id" = "shop_book_tags"."tag_id") WHERE "shop_book_tags"."book_id" IN (1, 2)"#,
    );
    assert_eq!(s.tables.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["shop_tag", "shop_book_tags"]);
    assert_eq!(s.prefetch, Some(Column { table: "shop_book_tags".into(), name: "book_id".into() }));
    assert_eq!(names(&s.in_lists), ["shop_book_tags.book_id"]);
    assert_eq!(s.joins.len(), 1);
    assert_eq!((s.joins[0].table, s.joins[0].outer), (1, false));
    let (a, b) = &s.joins[0].on[0];
    assert_eq!(names(&[a.clone(), b.clone()]), ["shop_tag.id", "shop_book_tags.tag_id"]);
    // Django 5.2 puts parentheses around the values.
    let s = of(r#"SELECT "t"."id" FROM "t" WHERE ("t"."id") IN ((1), (2))"#);
    assert_eq!(names(&s.in_lists), ["t.id"]);
}

#[test]
fn counts_exists_and_aggregates() {
    let s = of(r#"SELECT COUNT(*) AS "__count" FROM "shop_book" WHERE "shop_book"."author_id" = 6"#);
    assert!(s.count && s.aggregate.as_deref() == Some("count") && names(&s.equals) == ["shop_book.author_id"]);
    let s = of(r#"SELECT 1 AS "a" FROM "shop_book" WHERE "shop_book"."author_id" = 6 LIMIT 1"#);
    assert!(s.exists && s.limit == Limit::One);
    assert!(of(r#"SELECT $1 AS "a" FROM "b" LIMIT 1"#).exists);
    let s = of(r#"SELECT AVG("t"."x") AS "v" FROM "t""#);
    assert_eq!((s.count, s.aggregate.as_deref()), (false, Some("avg")));
}

#[test]
fn conditions() {
    let s = of(
        r#"SELECT a FROM t WHERE (t.b = 1 AND c > 2 AND d BETWEEN 1 AND 2 AND (e IN (1,2)) AND UPPER("n"::text) LIKE UPPER('%x%') AND k IS NULL) ORDER BY t.a DESC, RANDOM() LIMIT 5 OFFSET 20000"#,
    );
    assert_eq!(names(&s.equals), ["t.b"]);
    assert_eq!(names(&s.ranges), ["t.c", "t.d"]);
    assert_eq!(names(&s.in_lists), ["t.e"]);
    assert_eq!(names(&s.likes), ["t.n"]);
    assert!(s.leading_wildcard && s.other_predicates && s.order_random && s.deep_offset && s.offset);
    assert_eq!(names(&s.order_by), ["t.a"]);
    assert!(of("SELECT a FROM t WHERE b = 1 OR c = 2").equals.is_empty());
    assert_eq!(names(&of("SELECT a FROM t WHERE b = ANY('{1,2}'::int4[])").in_lists), ["t.b"]);
    assert!(of("SELECT a FROM t WHERE b IN (SELECT c FROM u)").in_lists.is_empty());
}

#[test]
fn aliases_ctes_and_subqueries() {
    let s = of(
        r#"WITH x AS (SELECT U0."id" FROM "inner_t" U0) SELECT a.name, T3."n" FROM outer_t a, "third" T3 JOIN x ON (x.id = a.id) WHERE a.id = 1"#,
    );
    assert_eq!(s.tables.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["outer_t", "third", "inner_t"]);
    assert_eq!(names(&s.columns), ["outer_t.name", "third.n"]);
    assert_eq!(names(&s.equals), ["outer_t.id"]);
    let s = of(r#"SELECT COUNT(*) FROM (SELECT DISTINCT "a"."id" AS "c" FROM "a") subquery"#);
    assert_eq!(s.table(), Some("a"));
    let s = of(r#"DECLARE "c" NO SCROLL CURSOR WITH HOLD FOR SELECT "t"."id" FROM "t""#);
    assert_eq!((s.operation, s.table(), s.width), (Operation::Cursor, Some("t"), 1));
}

#[test]
fn writes() {
    let s = of(
        r#"INSERT INTO "t" ("a", "b") VALUES (1, 2), (3, 4) ON CONFLICT ("a") DO UPDATE SET "b" = EXCLUDED."b" RETURNING "t"."id""#,
    );
    assert_eq!((s.operation, s.insert_columns.len(), s.returning), (Operation::Insert, 2, true));
    assert_eq!((s.on_conflict, s.set_columns), (OnConflict::Update, vec!["b".to_string()]));
    let s = of(r#"UPDATE "t" SET "a" = 1, "b" = f("c", 2) WHERE "t"."id" = 3"#);
    assert_eq!((s.table(), s.set_columns.len(), names(&s.equals)), (Some("t"), 2, vec!["t.id".to_string()]));
    let s = of(r#"DELETE FROM "t" WHERE "t"."id" IN (1)"#);
    assert_eq!((summary(&s).as_str(), names(&s.in_lists)), ("DELETE t", vec!["t.id".to_string()]));
    let s = of(r#"SELECT "t"."id" FROM "t" WHERE "t"."n" = 'x' LIMIT 21 FOR UPDATE SKIP LOCKED"#);
    assert!(s.for_update && s.skip_locked);
    let s = of("SELECT key, value, name FROM t WHERE role = 1 AND year > 2 FOR NO KEY UPDATE SKIP LOCKED");
    assert_eq!(names(&s.columns), ["t.key", "t.value", "t.name"]);
    assert_eq!((names(&s.equals), s.tables.len()), (vec!["t.role".to_string()], 1));
}
