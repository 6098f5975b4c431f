//! Every loop that Django makes, by the shape of its SQL: what it is called, and the mend that is advised.

use super::*;

/// The list that is looped over; the statements of one turn (`{}` is the turn); relation; words of the advice.
type Row = (&'static str, &'static [&'static str], &'static str, &'static str);

const BOOKS: &str = r#"SELECT "shop_book"."id", "shop_book"."title", "shop_book"."author_id" FROM "shop_book" ORDER BY "shop_book"."id" ASC"#;
const AUTHORS: &str = r#"SELECT "shop_author"."id", "shop_author"."name" FROM "shop_author""#;
const USERS: &str = r#"SELECT "auth_user"."id", "auth_user"."username" FROM "auth_user""#;

const TABLE: &[Row] = &[
    (
        BOOKS,
        &[
            r#"SELECT "shop_author"."id", "shop_author"."name" FROM "shop_author" WHERE "shop_author"."id" = {} LIMIT 21"#,
        ],
        "fk",
        r#"select_related("author")"#,
    ),
    (
        AUTHORS,
        &[r#"SELECT "shop_tag"."id" FROM "shop_tag" WHERE "shop_tag"."id" = {} LIMIT 21"#],
        "get",
        "in_bulk(ids) of shop_tag",
    ),
    (
        AUTHORS,
        &[r#"SELECT "shop_book"."id", "shop_book"."title" FROM "shop_book" WHERE "shop_book"."author_id" = {}"#],
        "reverse_fk",
        r#"prefetch_related("book_set") on the query of shop_author"#,
    ),
    (
        AUTHORS,
        &[
            r#"SELECT "shop_book"."id" FROM "shop_book" WHERE ("shop_book"."author_id" = {} AND "shop_book"."published")"#,
        ],
        "filtered_reverse_fk",
        r#"Prefetch("book_set", queryset="#,
    ),
    (
        AUTHORS,
        &[
            r#"SELECT "shop_book"."id" FROM "shop_book" WHERE ("shop_book"."author_id" = {} AND "shop_book"."price" > 5) ORDER BY "shop_book"."title" ASC"#,
        ],
        "filtered_reverse_fk",
        r#"Prefetch("book_set", queryset="#,
    ),
    (
        USERS,
        &[
            r#"SELECT "shop_profile"."id", "shop_profile"."user_id" FROM "shop_profile" WHERE "shop_profile"."user_id" = {} LIMIT 21"#,
        ],
        "o2o",
        r#"select_related("profile") on the query of auth_user"#,
    ),
    (
        BOOKS,
        &[
            r#"SELECT "shop_tag"."id", "shop_tag"."name" FROM "shop_tag" INNER JOIN "shop_book_tags" ON ("shop_tag"."id" = "shop_book_tags"."tag_id") WHERE "shop_book_tags"."book_id" = {}"#,
        ],
        "m2m",
        r#"prefetch_related("tags") on the query of shop_book"#,
    ),
    (
        AUTHORS,
        &[r#"SELECT COUNT(*) AS "__count" FROM "shop_book" WHERE "shop_book"."author_id" = {}"#],
        "count",
        r#"annotate(n=Count("book", distinct=True))"#,
    ),
    (
        BOOKS,
        &[r#"SELECT COUNT(*) AS "__count" FROM "shop_book_tags" WHERE "shop_book_tags"."book_id" = {}"#],
        "count",
        "annotate(n=Count(",
    ),
    (
        AUTHORS,
        &[r#"SELECT 1 AS "a" FROM "shop_book" WHERE "shop_book"."author_id" = {} LIMIT 1"#],
        "exists",
        r#"Exists(...filter(author=OuterRef("pk")))"#,
    ),
    (
        AUTHORS,
        &[
            r#"SELECT "shop_book"."id" FROM "shop_book" WHERE "shop_book"."author_id" = {} ORDER BY "shop_book"."year" DESC LIMIT 1"#,
        ],
        "first",
        r#"Subquery(...filter(author=OuterRef("pk"))"#,
    ),
    (
        AUTHORS,
        &[r#"SELECT SUM("shop_book"."price") AS "price__sum" FROM "shop_book" WHERE "shop_book"."author_id" = {}"#],
        "aggregate",
        r#"annotate(value=Sum("book__..."))"#,
    ),
    (
        r#"SELECT "shop_book"."id" FROM "shop_book""#,
        &[r#"SELECT "shop_book"."id", "shop_book"."blurb" FROM "shop_book" WHERE "shop_book"."id" = {} LIMIT 21"#],
        "deferred",
        r#"add "blurb" to only()"#,
    ),
    (
        BOOKS,
        &[
            r#"SELECT "shop_note"."id" FROM "shop_note" WHERE ("shop_note"."content_type_id" = 7 AND "shop_note"."object_id" = {})"#,
        ],
        "generic_rel",
        r#"prefetch_related("notes"), the GenericRelation"#,
    ),
    (
        BOOKS,
        &[r#"SELECT "shop_tag"."id", "shop_tag"."name" FROM "shop_tag" WHERE "shop_tag"."name" = 'n{}' LIMIT 21"#],
        "get",
        r#"in_bulk(values, field_name="name")"#,
    ),
    (
        BOOKS,
        &[
            r#"SELECT "shop_tag"."id", "shop_tag"."name" FROM "shop_tag" WHERE "shop_tag"."name" = 'n{}' LIMIT 21"#,
            "BEGIN",
            r#"INSERT INTO "shop_tag" ("name") VALUES ('n{}') RETURNING "shop_tag"."id""#,
            "COMMIT",
        ],
        "get_or_create",
        "bulk_create(missing, ignore_conflicts=True)",
    ),
    (
        BOOKS,
        &[
            "BEGIN",
            r#"SELECT "shop_stock"."id" FROM "shop_stock" WHERE "shop_stock"."book_id" = {} LIMIT 21 FOR UPDATE"#,
            r#"UPDATE "shop_stock" SET "n" = 3 WHERE "shop_stock"."id" = {}"#,
            "COMMIT",
        ],
        "update_or_create",
        "update_conflicts=True",
    ),
    (
        BOOKS,
        &[r#"INSERT INTO "shop_review" ("book_id", "stars") VALUES ({}, 5) RETURNING "shop_review"."id""#],
        "insert",
        "bulk_create(objects, batch_size=1000) for shop_review",
    ),
    (
        BOOKS,
        &[r#"UPDATE "shop_book" SET "title" = 't', "author_id" = 3 WHERE "shop_book"."id" = {}"#],
        "update",
        r#"bulk_update(objects, ["title", "author"]) for shop_book"#,
    ),
    (
        BOOKS,
        &["BEGIN", r#"DELETE FROM "shop_book" WHERE "shop_book"."id" IN ({})"#, "COMMIT"],
        "delete",
        "filter(pk__in=ids).delete() for shop_book",
    ),
    (
        BOOKS,
        &[
            "BEGIN",
            r#"INSERT INTO "shop_book_tags" ("book_id", "tag_id") VALUES ({}, 4) ON CONFLICT DO NOTHING"#,
            "COMMIT",
        ],
        "m2m_add",
        "through model (table shop_book_tags)",
    ),
    (
        BOOKS,
        &[
            r#"INSERT INTO "shop_stock" ("book_id", "n") VALUES ({}, 1) ON CONFLICT("book_id") DO UPDATE SET "n" = EXCLUDED."n""#,
        ],
        "upsert",
        "update_conflicts=True",
    ),
    (
        BOOKS,
        &[
            r#"SELECT ("shop_book_tags"."book_id") AS "_prefetch_related_val_book_id", "shop_tag"."id" FROM "shop_tag" INNER JOIN "shop_book_tags" ON ("shop_tag"."id" = "shop_book_tags"."tag_id") WHERE "shop_book_tags"."book_id" IN ({})"#,
        ],
        "prefetch",
        "prefetch_related_objects(list, ...) once",
    ),
    (
        USERS,
        &[
            r#"SELECT "django_content_type"."app_label", "auth_permission"."codename" FROM "auth_permission" INNER JOIN "auth_user_user_permissions" ON ("auth_permission"."id" = "auth_user_user_permissions"."permission_id") INNER JOIN "django_content_type" ON ("auth_permission"."content_type_id" = "django_content_type"."id") WHERE "auth_user_user_permissions"."user_id" = {}"#,
        ],
        "m2m",
        "has_perm",
    ),
];

#[test]
fn rows_that_share_one_foreign_key() {
    let mut client = Client::new();
    client.query(BOOKS, 24);
    for _ in 0..24 {
        client.query(r#"SELECT "shop_author"."id" FROM "shop_author" WHERE "shop_author"."id" = 7 LIMIT 21"#, 1);
    }
    client.finish();
    let findings = client.insight.findings();
    assert_eq!(findings[0].kind, Kind::Duplicate, "{findings:#?}");
    assert!(findings[0].advice.contains(r#"keep the instance"#), "{findings:#?}");
    assert!(findings[0].advice.contains(r#"or probably select_related("author")"#), "{findings:#?}");
}

#[test]
fn each_shape_has_its_name_and_its_mend() {
    let mut wrong = Vec::new();
    for (list, turn, relation, advice) in TABLE {
        let mut client = Client::new();
        client.query(list, 24);
        for id in 0..24 {
            for sql in *turn {
                client.query(&sql.replace("{}", &(100 + id).to_string()), 1);
            }
        }
        let seen = client.finish();
        let findings = client.insight.findings();
        if !findings.iter().any(|found| found.relation == *relation && found.advice.contains(advice)) {
            let found: Vec<_> = findings.iter().map(|found| (found.relation, &found.advice)).collect();
            wrong.push(format!("{relation}, {advice}: {found:#?} of {} in {turn:?}", seen.len()));
        }
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), TABLE.len());
}
