//! Requests asked back to back with nothing to tell them apart, and work that repeats by nature.

use super::*;

fn blamed(seen: &[Seen]) -> Vec<&Seen> {
    seen.iter().filter(|burst| burst.confidence > Confidence::Low).collect()
}

fn take_job(client: &mut Client, id: u32) {
    client.query("BEGIN", 0);
    client.query(r#"SELECT "shop_job"."id", "shop_job"."state" FROM "shop_job" WHERE "shop_job"."state" = 'ready' ORDER BY "shop_job"."id" ASC LIMIT 1 FOR UPDATE SKIP LOCKED"#, 1);
    client.query(&format!(r#"UPDATE "shop_job" SET "state" = 'done' WHERE "shop_job"."id" = {id}"#), 1);
    client.query("COMMIT", 0);
}

#[test]
fn jobs_taken_one_at_a_time() {
    let mut client = Client::new();
    // Something that returned as many rows as jobs are taken.
    client.query(r#"SELECT "shop_tag"."id" FROM "shop_tag""#, 40);
    for id in 0..40 {
        take_job(&mut client, id);
        client.query(&format!(r#"SELECT "shop_book"."id" FROM "shop_book" WHERE "shop_book"."id" = {id} LIMIT 21"#), 1);
    }
    let seen = client.finish();
    assert!(blamed(&seen).is_empty(), "{seen:#?}");
}

#[test]
fn a_loop_inside_each_job_is_a_loop() {
    let mut client = Client::new();
    for id in 0..3 {
        take_job(&mut client, id);
        for line in 0..12 {
            client.query(
                &format!(r#"INSERT INTO "shop_line" ("job_id", "n") VALUES ({id}, {line}) RETURNING "shop_line"."id""#),
                1,
            );
        }
    }
    let seen = client.finish();
    assert!(blamed(&seen).iter().any(|burst| burst.kind == Kind::WriteLoop), "{seen:#?}");
}

#[test]
fn rows_locked_once_and_saved_one_by_one() {
    let mut client = Client::new();
    client.query("BEGIN", 0);
    client.query(
        r#"SELECT "shop_job"."id" FROM "shop_job" WHERE "shop_job"."state" = 'ready' LIMIT 30 FOR UPDATE SKIP LOCKED"#,
        30,
    );
    for id in 0..30 {
        client.query(&format!(r#"UPDATE "shop_job" SET "state" = 'done' WHERE "shop_job"."id" = {id}"#), 1);
    }
    client.query("COMMIT", 0);
    let seen = client.finish();
    assert!(blamed(&seen).iter().any(|burst| burst.kind == Kind::WriteLoop), "{seen:#?}");
}

#[test]
fn polling_is_no_duplicate() {
    for pause in [5_000, 20_000, 60_000, 90_000] {
        let mut client = Client::new();
        client.pause = pause;
        for _ in 0..40 {
            client.query(r#"SELECT COUNT(*) AS "__count" FROM "shop_job" WHERE "shop_job"."state" = 'failed'"#, 1);
            if pause < 50_000 {
                client.wait_ms(25);
            }
        }
        let seen = client.finish();
        assert!(blamed(&seen).is_empty(), "{pause}: {seen:#?}");
    }
}

/// The same question in each of twelve turns of one request, with a write to another table in some of them.
fn asked_with_writes(every: u64) -> Vec<Seen> {
    let mut client = Client::new();
    client.query("SELECT 1", 1);
    for turn in 0..12u64 {
        client.query(r#"SELECT "shop_class"."id" FROM "shop_class" WHERE "shop_class"."id" = 2 LIMIT 21"#, 1);
        if turn % every == 0 {
            client.query(&format!(r#"INSERT INTO "shop_cache" ("key") VALUES ('{turn}')"#), 1);
        }
    }
    client.finish()
}

#[test]
fn a_write_now_and_then_makes_a_repeat_no_other_question() {
    let seen = asked_with_writes(6);
    assert!(seen.iter().any(|burst| burst.kind == Kind::Duplicate), "{seen:#?}");
    let seen = asked_with_writes(1);
    assert!(!seen.iter().any(|burst| burst.kind == Kind::Duplicate), "{seen:#?}");
}

#[test]
fn the_same_question_in_a_loop_is_a_duplicate() {
    for pause in [300, 1_200, 6_000] {
        let mut client = Client::new();
        client.pause = pause;
        for _ in 0..15 {
            client.query(r#"SELECT "shop_tag"."id" FROM "shop_tag" WHERE "shop_tag"."name" = 'x' LIMIT 21"#, 1);
        }
        let seen = client.finish();
        assert!(blamed(&seen).iter().any(|burst| burst.kind == Kind::Duplicate), "{pause}: {seen:#?}");
    }
}

#[test]
fn one_insert_a_request_is_no_write_loop() {
    let mut client = Client::new();
    for id in 0..60 {
        client.query(&format!(r#"INSERT INTO "shop_visit" ("page") VALUES ('{id}') RETURNING "shop_visit"."id""#), 1);
        client.wait_ms(20);
    }
    let seen = client.finish();
    assert!(blamed(&seen).is_empty(), "{seen:#?}");
}

#[test]
fn two_requests_run_together_count_as_two() {
    let mut client = Client::new();
    for _ in 0..2 {
        client.query(r#"SELECT "shop_author"."id", "shop_author"."name" FROM "shop_author""#, 60);
        for id in 0..60 {
            client.query(
                &format!(r#"SELECT COUNT(*) AS "__count" FROM "shop_book" WHERE "shop_book"."author_id" = {id}"#),
                1,
            );
        }
    }
    let seen = client.finish();
    assert_eq!((seen.len(), seen[0].n, seen[0].parent_rows), (1, 60, Some(60)), "{seen:#?}");
    let findings = client.insight.findings();
    assert_eq!((findings[0].n, findings[0].bursts), ((60, 60, 60), 2));
}

const TOKEN: &str = r#"SELECT "authtoken_token"."key", "authtoken_token"."user_id" FROM "authtoken_token" WHERE "authtoken_token"."key" = 'k' LIMIT 21"#;
const USER: &str =
    r#"SELECT "auth_user"."id", "auth_user"."name" FROM "auth_user" WHERE "auth_user"."id" = 7 LIMIT 21"#;

fn page(id: u32) -> String {
    format!(r#"SELECT "cms_page"."id", "cms_page"."title" FROM "cms_page" WHERE "cms_page"."id" = {id} LIMIT 21"#)
}

#[test]
fn a_loop_over_ids_from_a_search_engine() {
    let mut client = Client::new();
    for request in 0..3 {
        client.wait_ms(25);
        client.query(TOKEN, 1);
        client.query(USER, 1);
        (0..12).for_each(|id| client.query(&page(request * 100 + id), 1));
    }
    let seen = client.finish();
    assert!(sure(&seen).iter().any(|burst| burst.n == 12), "{seen:#?}");
}

#[test]
fn details_with_a_token_each_back_to_back() {
    let mut client = Client::new();
    for id in 0..40 {
        client.query(TOKEN, 1);
        client.query(&page(id), 1);
    }
    let seen = client.finish();
    // The token, asked again and again, may be called a duplicate; the pages are no loop.
    let pages = sure(&seen).into_iter().filter(|burst| burst.all.contains("cms_page")).count();
    assert_eq!(pages, 0, "{seen:#?}");
}

#[test]
fn details_back_to_back_with_a_moment_between() {
    let mut client = Client::new();
    (0..20).for_each(|_| client.query(USER, 1));
    client.query(r#"SELECT "cms_site"."id" FROM "cms_site" WHERE "cms_site"."host" = 'x' LIMIT 21"#, 1);
    for id in 0..40 {
        client.now += 3_500;
        client.query(&page(id), 1);
        client.query(
            &format!(r#"SELECT "cms_image"."id" FROM "cms_image" WHERE "cms_image"."page_id" = {id} LIMIT 21"#),
            1,
        );
        client.query(&format!(r#"SELECT "cms_block"."id" FROM "cms_block" WHERE "cms_block"."page_id" = {id}"#), 3);
    }
    let seen = client.finish();
    assert!(sure(&seen).is_empty(), "{seen:#?}");
}

#[test]
fn a_loop_inside_one_transaction() {
    let mut client = Client::new();
    client.query("BEGIN", 0);
    (0..12).for_each(|id| client.query(&page(id), 1));
    client.query("COMMIT", 0);
    let seen = client.finish();
    assert!(sure(&seen).iter().any(|burst| burst.n == 12), "{seen:#?}");
}

#[test]
fn requests_in_a_transaction_each() {
    let mut client = Client::new();
    for id in 0..40 {
        client.query("BEGIN", 0);
        client.query(&page(id), 1);
        client.query("COMMIT", 0);
    }
    let seen = client.finish();
    assert!(sure(&seen).is_empty(), "{seen:#?}");
}

#[test]
fn a_tree_walked_node_by_node() {
    let mut client = Client::new();
    client.query(TOKEN, 1);
    client.query(USER, 1);
    // Each node has two children, down to the fourth level.
    for node in 0..15 {
        client.query(&format!(r#"SELECT "cms_node"."id", "cms_node"."parent_id" FROM "cms_node" WHERE "cms_node"."parent_id" = {node} ORDER BY "cms_node"."path" ASC"#), if node < 7 { 2 } else { 0 });
    }
    let seen = client.finish();
    assert!(sure(&seen).iter().any(|burst| burst.n == 15), "{seen:#?}");
}

fn card(client: &mut Client, id: u32) {
    client.query(&format!(r#"SELECT "shop_stock"."id" FROM "shop_stock" WHERE "shop_stock"."book_id" = {id}"#), 1);
    client.query(&format!(r#"SELECT "shop_image"."id" FROM "shop_image" WHERE "shop_image"."book_id" = {id}"#), 2);
    client.query(&format!(r#"SELECT 1 AS "a" FROM "shop_offer" WHERE "shop_offer"."book_id" = {id} LIMIT 1"#), 0);
}

/// A busy machine delays one statement or another of most turns; a request would begin with the same one.
#[test]
fn delays_at_any_place_of_a_turn_are_no_requests() {
    let mut client = Client::new();
    client.query("SELECT 1", 1);
    client.query(r#"SELECT "shop_menu"."id" FROM "shop_menu" WHERE "shop_menu"."site_id" = 1"#, 3);
    for id in 0..12 {
        // Before the first, the second or the third statement of a turn.
        client.pause = 300;
        for (place, sql) in [
            format!(r#"SELECT "shop_stock"."id" FROM "shop_stock" WHERE "shop_stock"."book_id" = {id}"#),
            format!(r#"SELECT "shop_image"."id" FROM "shop_image" WHERE "shop_image"."book_id" = {id}"#),
            format!(r#"SELECT 1 AS "a" FROM "shop_offer" WHERE "shop_offer"."book_id" = {id} LIMIT 1"#),
        ]
        .iter()
        .enumerate()
        {
            if place as u32 == id % 3 {
                client.wait_ms(4);
            }
            client.query(sql, 1);
        }
    }
    let seen = client.finish();
    assert_eq!(sure(&seen).len(), 3, "{seen:#?}");
}

#[test]
fn a_request_each_that_begins_with_the_same_statement_is_no_loop() {
    let mut client = Client::new();
    client.query("SELECT 1", 1);
    client.pause = 300;
    for id in 0..12 {
        client.wait_ms(4);
        card(&mut client, id);
    }
    let seen = client.finish();
    assert!(sure(&seen).is_empty(), "{seen:#?}");
}

/// What follows a marked request after a pause is judged by itself.
#[test]
fn a_pause_parts_requests_after_a_marked_one() {
    let mut client = Client::new();
    client.query("SELECT 1", 1);
    client.query(r#"SELECT "shop_user"."id" FROM "shop_user" WHERE "shop_user"."id" = 7 LIMIT 21"#, 1);
    for page in 0..2 {
        client.wait_ms(20);
        client.query(&format!(r#"SELECT "shop_book"."id" FROM "shop_book" WHERE "shop_book"."shelf_id" = {page}"#), 9);
        (0..9).for_each(|id| card(&mut client, page * 100 + id));
    }
    let seen = client.finish();
    assert!(sure(&seen).len() == 6 && sure(&seen).iter().all(|burst| burst.n == 9), "{seen:#?}");
}

/// Requests of several kinds, nothing between them, look a thing up by its key: some of them write, some do not.
#[test]
fn look_ups_of_requests_that_run_together_are_no_loop() {
    let look_up = |client: &mut Client, id: u32| {
        client
            .query(&format!(r#"SELECT "shop_job"."id" FROM "shop_job" WHERE "shop_job"."code" = 'j{id}' LIMIT 21"#), 1);
    };
    let mut client = Client::new();
    client.query("SELECT 1", 1);
    client.query(r#"SELECT "shop_user"."id" FROM "shop_user" WHERE "shop_user"."id" = 7 LIMIT 21"#, 1);
    for id in 0..12 {
        look_up(&mut client, id);
        if id % 2 == 0 {
            client.query(&format!(r#"INSERT INTO "shop_ping" ("job_id") VALUES ({id}) RETURNING "shop_ping"."id""#), 1);
        } else {
            client.query(&format!(r#"SELECT "shop_ping"."id" FROM "shop_ping" WHERE "shop_ping"."job_id" = {id}"#), 4);
        }
    }
    let seen = client.finish();
    assert!(!sure(&seen).iter().any(|burst| burst.all.contains("shop_job")), "{seen:#?}");
}

/// As many turns that write as one long list has rows: a purge, whatever else was asked before.
#[test]
fn a_purge_of_a_long_list_is_a_loop() {
    let mut client = Client::new();
    let owner = |client: &mut Client, id: u32| {
        client.query(&format!(r#"SELECT "shop_user"."id" FROM "shop_user" WHERE "shop_user"."id" = {id} LIMIT 21"#), 1);
    };
    (0..3).for_each(|id| owner(&mut client, id));
    client.query(r#"SELECT "shop_job"."id" FROM "shop_job" WHERE "shop_job"."old""#, 40);
    for id in 0..40 {
        owner(&mut client, id % 4);
        client.query(&format!(r#"SELECT "shop_job"."n" FROM "shop_job" WHERE "shop_job"."id" = {id} LIMIT 21"#), 1);
        client.query(&format!(r#"DELETE FROM "shop_ping" WHERE "shop_ping"."job_id" = {id}"#), 1);
    }
    let seen = client.finish();
    assert!(sure(&seen).iter().any(|burst| burst.all.contains("shop_job") && burst.n == 40), "{seen:#?}");
}

/// Turns that write a balance and its history, `in_transaction` of their own or without one.
fn payments(in_transaction: bool) -> Vec<Seen> {
    let mut client = Client::new();
    for id in 0..40 {
        if in_transaction {
            client.query("BEGIN", 0);
        }
        client.query(&format!(r#"UPDATE "shop_account" SET "balance" = 5 WHERE "shop_account"."id" = {id}"#), 1);
        client.query(&format!(r#"INSERT INTO "shop_history" ("account_id", "delta") VALUES ({id}, 5)"#), 1);
        if in_transaction {
            client.query("COMMIT", 0);
        }
    }
    client.finish()
}

#[test]
fn items_that_are_written_in_transactions_of_their_own_are_not_to_be_batched() {
    let apart = payments(true);
    assert!(blamed(&apart).is_empty(), "{apart:#?}");
    let loops = payments(false);
    assert!(blamed(&loops).iter().any(|burst| burst.kind == Kind::WriteLoop), "{loops:#?}");
}

/// The same question in each of twelve turns, among a hundred others that differ: cells of the memory for reads are shared,
/// their contents are not.
#[test]
fn a_repeat_among_many_other_reads_is_a_duplicate() {
    let mut client = Client::new();
    client.query("SELECT 1", 1);
    for turn in 0..12 {
        client.query(r#"SELECT "shop_class"."id" FROM "shop_class" WHERE "shop_class"."id" = 2 LIMIT 21"#, 1);
        (0..100).for_each(|id| client.query(&page(turn * 100 + id), 1));
    }
    let seen = client.finish();
    let repeats = client.insight.routes().iter().map(|route| route.duplicates).sum::<u64>();
    assert_eq!(repeats, 11);
    assert!(seen.iter().any(|burst| burst.kind == Kind::Duplicate && burst.all.contains("shop_class")), "{seen:#?}");
}

/// A list read twice in one request, row by row: each row's second read is a repeat, all 120 of them.
#[test]
fn every_repeat_within_the_bound_is_counted() {
    let mut client = Client::new();
    client.query("SELECT 1", 1);
    (0..2).for_each(|_| (0..120).for_each(|id| client.query(&page(id), 1)));
    client.finish();
    assert_eq!(client.insight.routes()[0].duplicates, 120);
}
