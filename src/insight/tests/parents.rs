//! Which list a loop runs over: named where its rows hold the key that the loop looks up, not where it only happens to
//! have about as many.

use super::*;

const SESSION: &str = r#"SELECT "django_session"."session_key" FROM "django_session" WHERE "django_session"."session_key" = 'abc' LIMIT 21"#;
const LINES: &str = r#"SELECT "shop_line"."id", "shop_line"."product_id", "shop_line"."quantity" FROM "shop_line" INNER JOIN "shop_product" ON ("shop_line"."product_id" = "shop_product"."id") WHERE "shop_line"."basket_id" = 7"#;
const IMAGES: &str = r#"SELECT "shop_image"."id", "shop_image"."product_id" FROM "shop_image" WHERE "shop_image"."product_id" IN (1, 2, 3, 4, 5, 6)"#;
const CATEGORIES: &str =
    r#"SELECT "shop_category"."id", "shop_category"."name", "shop_category"."path" FROM "shop_category""#;
const ORDERS: &str = r#"SELECT "shop_order"."id", "shop_order"."user_id" FROM "shop_order" LIMIT 20"#;

fn stock(product: u64) -> String {
    format!(
        r#"SELECT "shop_stock"."id", "shop_stock"."price" FROM "shop_stock" WHERE "shop_stock"."product_id" = {product} LIMIT 1"#
    )
}

fn user(id: u64) -> String {
    format!(r#"SELECT "auth_user"."id", "auth_user"."email" FROM "auth_user" WHERE "auth_user"."id" = {id} LIMIT 21"#)
}

fn at_path(path: u64) -> String {
    format!(r#"SELECT "shop_category"."id" FROM "shop_category" WHERE "shop_category"."path" = '{path}'"#)
}

fn in_a_request() -> Client {
    let mut client = Client::new();
    client.query(SESSION, 1);
    client
}

/// Rows of the list that the one finding names.
fn named(client: &mut Client) -> Option<u64> {
    let seen = client.finish();
    let found = sure(&seen);
    assert_eq!(found.len(), 1, "{seen:#?}");
    found[0].parent_rows
}

#[test]
fn a_list_that_is_looped_over_several_times() {
    let mut client = in_a_request();
    client.query(LINES, 6);
    client.query(IMAGES, 6);
    for _ in 0..4 {
        (1..=6).for_each(|product| client.query(&stock(product), 1));
    }
    assert_eq!(named(&mut client), Some(6));
    let findings = client.insight.findings();
    let parent = findings[0].parent_text.clone().unwrap_or_default();
    assert!(!parent.contains("shop_image"), "the prefetch of the same rows is not the list: {parent}");
}

#[test]
fn a_loop_that_goes_on_with_rows_of_its_own_is_not_several_laps() {
    let mut client = in_a_request();
    client.query(LINES, 6);
    (100..124).for_each(|product| client.query(&stock(product), 1));
    assert_eq!(named(&mut client), None);
}

#[test]
fn a_list_with_about_as_many_rows_but_another_key() {
    // Products from a search engine, and a menu of categories.
    let mut client = in_a_request();
    client.query(CATEGORIES, 14);
    (1..=13).for_each(|product| client.query(&stock(product), 1));
    assert_eq!(named(&mut client), None);
    let mut client = in_a_request();
    client.query(LINES, 14);
    client.query(CATEGORIES, 13);
    (1..=13).for_each(|product| client.query(&stock(product), 1));
    assert_eq!(named(&mut client), Some(14), "the list that has the key, though another has as many rows");
}

#[test]
fn the_same_statement_once_before_the_list() {
    let mut client = in_a_request();
    client.query(&user(1), 1);
    client.query(ORDERS, 20);
    (100..120).for_each(|id| client.query(&user(id), 1));
    assert_eq!(named(&mut client), Some(20));
    let mut client = in_a_request();
    client.query(&user(1), 1);
    client.query(CATEGORIES, 20);
    (100..120).for_each(|id| client.query(&user(id), 1));
    assert_eq!(named(&mut client), None, "categories have no user");
}

#[test]
fn rows_that_a_cursor_returned() {
    let declare =
        |name: u8| format!(r#"DECLARE "_django_curs_1_sync_{name}" NO SCROLL CURSOR WITH HOLD FOR {CATEGORIES}"#);
    let fetch = r#"FETCH FORWARD 2000 FROM "_django_curs_1_sync_1""#;
    let mut client = in_a_request();
    client.query(&declare(1), 0);
    client.query(fetch, 30);
    (0..30).for_each(|path| client.query(&at_path(path), 1));
    client.query(fetch, 0);
    client.query(r#"CLOSE "_django_curs_1_sync_1""#, 0);
    assert_eq!(named(&mut client), Some(30));
    let mut client = in_a_request();
    client.query(&declare(1), 0);
    client.query(&declare(2), 0);
    client.query(fetch, 30);
    (0..30).for_each(|path| client.query(&at_path(path), 1));
    assert_eq!(named(&mut client), None, "nobody knows which cursor the rows came from");
}

#[test]
fn a_list_that_had_to_make_room() {
    let mut client = in_a_request();
    client.query(LINES, 6);
    for lap in 0..4u64 {
        (1..=6).for_each(|product| client.query(&stock(product), 1));
        for other in 0..20 {
            client.query(&format!(r#"SELECT "t_{lap}_{other}"."id" FROM "t_{lap}_{other}""#), 1);
        }
    }
    assert_eq!(named(&mut client), Some(6));
}
