//! Advice with a catalogue: what foreign keys decide is certain, what they do not stays probable.

use super::*;
use crate::catalog::Catalog;

fn rows(text: &str) -> Vec<Vec<Option<String>>> {
    text.lines().map(|line| line.trim().split('|').map(|field| Some(field.to_owned())).collect()).collect()
}

fn catalog() -> Arc<Catalog> {
    let tables = "1|public|shop_author|9|f
                  2|public|shop_book|9|f
                  3|public|shop_profile|9|f
                  4|public|shop_customer|9|f
                  5|public|shop_book_tags|9|f
                  6|public|shop_tag|9|f
                  7|public|shop_order|9|f
                  8|public|shop_line|9|f";
    let columns = "1|1|id|t\n2|1|id|t\n2|2|author_id|t\n2|3|editor_id|f\n3|1|id|t\n3|2|customer_id|t\n4|1|id|t
                   5|1|id|t\n5|2|book_id|t\n5|3|tag_id|t\n6|1|id|t\n7|1|id|t\n7|2|buyer_id|f
                   8|1|id|t\n8|2|order_id|t\n8|3|external_id|t";
    let keys = "2|2|1|1\n2|3|1|1\n3|2|4|1\n5|2|2|1\n5|3|6|1\n7|2|4|1\n8|2|7|1";
    let indexes = "3|2|t|f\n7|2|f|f";
    Arc::new(Catalog::draft(&rows("public"), &rows(tables)).finish(&rows(columns), &rows(keys), &rows(indexes)))
}

/// Relation, advice and code of the loop, without a catalogue and with it.
fn advised(parent: &str, child: &str) -> [(String, String, String); 2] {
    let mut client = Client::new();
    client.query(parent, 30);
    (0..30).for_each(|i| client.query(&child.replace("{}", &i.to_string()), 1));
    client.finish();
    let shown = |client: &Client| {
        let findings = client.insight.findings();
        let [finding] = &findings[..] else { panic!("{findings:#?}") };
        (finding.relation.to_owned(), finding.advice.to_string(), finding.mend.clone())
    };
    let before = shown(&client);
    client.insight.set_catalog(&Arc::from("shop"), catalog());
    [before, shown(&client)]
}

const BOOKS: &str = r#"SELECT "shop_book"."id", "shop_book"."author_id" FROM "shop_book""#;
const BOTH: &str = r#"SELECT "shop_book"."id", "shop_book"."author_id", "shop_book"."editor_id" FROM "shop_book""#;
const AUTHORS: &str = r#"SELECT "shop_author"."id", "shop_author"."name" FROM "shop_author""#;
const CUSTOMERS: &str = r#"SELECT "shop_customer"."id" FROM "shop_customer""#;
const ORDERS: &str = r#"SELECT "shop_order"."id", "shop_order"."buyer_id", "shop_order"."state_id" FROM "shop_order""#;
const TAGS: &str = r#"SELECT "shop_tag"."id" FROM "shop_tag""#;
const LINES: &str = r#"SELECT "shop_line"."id", "shop_order"."id", "shop_order"."buyer_id" FROM "shop_line" INNER JOIN "shop_order" ON ("shop_line"."order_id" = "shop_order"."id")"#;
const AUTHOR: &str = r#"SELECT "shop_author"."id" FROM "shop_author" WHERE "shop_author"."id" = {} LIMIT 21"#;
const CUSTOMER: &str = r#"SELECT "shop_customer"."id" FROM "shop_customer" WHERE "shop_customer"."id" = {} LIMIT 21"#;

#[test]
fn foreign_keys_decide() {
    for (parent, child, relation, advice, code) in [
        (
            BOOKS,
            AUTHOR,
            "fk",
            "select_related(\"author\") on the query of shop_book: shop_book.author_id references shop_author.id, NOT NULL, so an INNER JOIN",
            "Book.objects.select_related(\"author\")",
        ),
        (
            BOTH,
            AUTHOR,
            "fk",
            "select_related(\"author\", \"editor\")",
            "Book.objects.select_related(\"author\", \"editor\")",
        ),
        (
            ORDERS,
            CUSTOMER,
            "fk",
            "shop_order.buyer_id references shop_customer.id, may be NULL, so a LEFT JOIN",
            "Order.objects.select_related(\"buyer\")",
        ),
        (
            LINES,
            CUSTOMER,
            "fk",
            "select_related(\"order__buyer\") on the query of shop_line",
            "Line.objects.select_related(\"order__buyer\")",
        ),
        (
            AUTHORS,
            r#"SELECT "shop_book"."id" FROM "shop_book" WHERE "shop_book"."author_id" = {}"#,
            "reverse_fk",
            "prefetch_related(\"book_set\") on the query of shop_author: shop_book.author_id references shop_author.id, with many rows",
            "Author.objects.prefetch_related(\"book_set\")",
        ),
        (
            AUTHORS,
            r#"SELECT "shop_book"."id" FROM "shop_book" WHERE ("shop_book"."author_id" = {} AND "shop_book"."price" > 5)"#,
            "filtered_reverse_fk",
            "prefetch_related(Prefetch(\"book_set\"",
            "Author.objects.prefetch_related(\n    Prefetch(\"book_set\", queryset=Book.objects",
        ),
        (
            CUSTOMERS,
            r#"SELECT "shop_profile"."id" FROM "shop_profile" WHERE "shop_profile"."customer_id" = {} LIMIT 21"#,
            "o2o",
            "references shop_customer.id and is unique, so it is one to one, by a LEFT JOIN",
            "Customer.objects.select_related(\"profile\")",
        ),
        (
            // By its shape one to one; the key is not unique.
            CUSTOMERS,
            r#"SELECT "shop_order"."id" FROM "shop_order" WHERE "shop_order"."buyer_id" = {} LIMIT 21"#,
            "reverse_fk",
            "prefetch_related(\"order_set\") on the query of shop_customer",
            "Customer.objects.prefetch_related(\"order_set\")",
        ),
        (
            BOOKS,
            r#"SELECT "shop_tag"."id" FROM "shop_tag" INNER JOIN "shop_book_tags" ON ("shop_tag"."id" = "shop_book_tags"."tag_id") WHERE "shop_book_tags"."book_id" = {}"#,
            "m2m",
            "prefetch_related(\"tags\") on the query of shop_book: shop_book_tags joins shop_book to shop_tag by foreign keys",
            "Book.objects.prefetch_related(\"tags\")",
        ),
        (
            TAGS,
            r#"SELECT "shop_book"."id" FROM "shop_book" INNER JOIN "shop_book_tags" ON ("shop_book"."id" = "shop_book_tags"."book_id") WHERE "shop_book_tags"."tag_id" = {}"#,
            "m2m",
            "it is called book_set unless the field sets related_name",
            "Tag.objects.prefetch_related(\"book_set\")",
        ),
        // Through a key of the loop's own rows, under the name of its role.
        (
            ORDERS,
            r#"SELECT "shop_profile"."id" FROM "shop_profile" WHERE "shop_profile"."customer_id" = {} LIMIT 21"#,
            "o2o",
            "select_related(\"buyer__profile\") on the query of shop_order: shop_profile.customer_id references shop_customer.id",
            "Order.objects.select_related(\"buyer__profile\")",
        ),
        (
            AUTHORS,
            r#"SELECT COUNT(*) AS "__count" FROM "shop_book" WHERE "shop_book"."author_id" = {}"#,
            "count",
            "shop_book.author_id references shop_author.id",
            "Author.objects.annotate(n=Count(\"book\", distinct=True))",
        ),
    ] {
        let [(_, before, _), (known, after, mend)] = advised(parent, child);
        assert!(before.starts_with("probably ") || before.starts_with("in_bulk("), "{before}");
        assert!(!after.contains("probably") && after.contains(advice), "{child}: {after}");
        assert!(known == relation && mend.starts_with(code), "{child}: {known}, {mend}");
    }
}

#[test]
fn what_they_do_not_decide_stays_as_it_was() {
    for (parent, child) in [
        // No foreign key.
        (ORDERS, r#"SELECT "shop_line"."id" FROM "shop_line" WHERE "shop_line"."external_id" = {}"#),
        // It leads elsewhere than to the loop's rows.
        (TAGS, r#"SELECT "shop_book"."id" FROM "shop_book" WHERE "shop_book"."author_id" = {}"#),
        // A table that is not known.
        (BOOKS, r#"SELECT "shop_shelf"."id" FROM "shop_shelf" WHERE "shop_shelf"."book_id" = {}"#),
        // No relation at all.
        (TAGS, AUTHOR),
        (BOOKS, r#"UPDATE "shop_book" SET "author_id" = 1 WHERE "shop_book"."id" = {}"#),
    ] {
        let [before, after] = advised(parent, child);
        assert_eq!(before, after, "{child}");
    }
}
