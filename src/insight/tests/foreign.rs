//! Advice for applications unlike those it was made with: settings in tables, generic foreign keys, relations of
//! relations.

use super::*;

/// What is advised for a loop over `list` (of twelve rows) with these statements in each turn; `{}` is the turn.
fn advised(list: &str, children: &[&str]) -> Vec<FindingView> {
    let mut client = Client::new();
    client.query("SELECT 1", 1);
    client.query(list, 12);
    for turn in 0..12 {
        children.iter().for_each(|sql| client.query(&sql.replace("{}", &turn.to_string()), 1));
    }
    client.finish();
    client.insight.findings()
}

fn only(list: &str, child: &str) -> (&'static str, String, String) {
    let found = advised(list, &[child]);
    assert_eq!(found.len(), 1, "{child}: {found:#?}");
    (found[0].relation, found[0].advice.to_string(), found[0].mend.clone())
}

const EVENTS: &str = r#"SELECT "event_event"."id", "event_event"."slug" FROM "event_event""#;
const SLOTS: &str = r#"SELECT "schedule_talkslot"."id", "schedule_talkslot"."submission_id", "schedule_talkslot"."room_id" FROM "schedule_talkslot" WHERE "schedule_talkslot"."schedule_id" = 3"#;
const LOGGED: &str = r#"SELECT "common_logentry"."id", "common_logentry"."person_id", "common_logentry"."content_type_id", "common_logentry"."object_id" FROM "common_logentry""#;

#[test]
fn a_table_of_settings_read_again_and_again_wants_a_cache() {
    for child in [
        r#"SELECT "event_event_settingsstore"."id", "event_event_settingsstore"."object_id", "event_event_settingsstore"."key", "event_event_settingsstore"."value" FROM "event_event_settingsstore" WHERE "event_event_settingsstore"."object_id" = 1"#,
        r#"SELECT "event_event_settingsstore"."id", "event_event_settingsstore"."object_id", "event_event_settingsstore"."key", "event_event_settingsstore"."value" FROM "event_event_settingsstore" WHERE "event_event_settingsstore"."object_id" = {}"#,
        r#"SELECT "constance_constance"."id", "constance_constance"."key", "constance_constance"."value" FROM "constance_constance" WHERE "constance_constance"."key" = 'k{}' LIMIT 21"#,
    ] {
        let (relation, advice, mend) = only(EVENTS, child);
        assert!(
            relation == "settings" && advice.contains("CACHES") && mend.starts_with("CACHES ="),
            "{advice}; {mend}"
        );
        assert!(!advice.contains("_related"), "{advice}");
    }
    // Keys and values of an object's own are rows like others.
    let (relation, advice, _) = only(
        EVENTS,
        r#"SELECT "event_label"."id", "event_label"."key", "event_label"."value" FROM "event_label" WHERE "event_label"."event_id" = {}"#,
    );
    assert!(relation == "reverse_fk" && advice.contains(r#"prefetch_related("label_set")"#), "{advice}");
}

#[test]
fn a_generic_foreign_key_is_known_by_the_rows_that_hold_it() {
    let child =
        r#"SELECT "mail_mail"."id", "mail_mail"."subject" FROM "mail_mail" WHERE "mail_mail"."id" = {} LIMIT 21"#;
    let (relation, advice, mend) = only(LOGGED, child);
    assert_eq!(relation, "gfk", "{advice}");
    assert!(advice.contains(r#"prefetch_related("content_object")"#) && mend.ends_with(r#"("content_object")"#));
    // The rows have another foreign key, which may lead there under a name of its own.
    assert!(advice.starts_with("probably") && advice.contains("by a foreign key instead"), "{advice}");
    let plain = LOGGED.replace(r#""common_logentry"."person_id", "#, "");
    assert!(only(&plain, child).1.starts_with(r#"prefetch_related("content_object")"#));
    // One that is called like the table is no generic one.
    let person = r#"SELECT "crm_person"."id" FROM "crm_person" WHERE "crm_person"."id" = {} LIMIT 21"#;
    assert_eq!(only(LOGGED, person).0, "fk");
    // Nor is one whose last word ends the table's name.
    let option = r#"SELECT "shop_attributeoption"."id" FROM "shop_attributeoption" WHERE "shop_attributeoption"."id" = {} LIMIT 21"#;
    assert_eq!(only(&LOGGED.replace("person_id", "value_option_id"), option).0, "fk");
    let named = LOGGED.replace("content_type_id", "target_content_type_id").replace("object_id", "target_object_id");
    assert!(only(&named, child).1.contains(r#"prefetch_related("target")"#));
}

#[test]
fn what_another_relation_leads_to_is_reached_through_it() {
    let resources = r#"SELECT "submission_resource"."id" FROM "submission_resource" WHERE "submission_resource"."submission_id" = {}"#;
    let speakers = r#"SELECT "person_user"."id" FROM "person_user" INNER JOIN "submission_submission_speakers" ON ("person_user"."id" = "submission_submission_speakers"."user_id") WHERE "submission_submission_speakers"."submission_id" = {}"#;
    let counted =
        r#"SELECT COUNT(*) AS "__count" FROM "submission_resource" WHERE "submission_resource"."submission_id" = {}"#;
    let asked =
        r#"SELECT 1 AS "a" FROM "submission_resource" WHERE "submission_resource"."submission_id" = {} LIMIT 1"#;
    for (list, child, words) in [
        (SLOTS, resources, r#"prefetch_related("submission__resource_set") on the query of schedule_talkslot"#),
        (SLOTS, speakers, r#"prefetch_related("submission__speakers") on the query of schedule_talkslot"#),
        (SLOTS, counted, r#"Count("submission__resource""#),
        (SLOTS, asked, r#"submission=OuterRef("submission")"#),
        // Joined by select_related under the name of its role.
        (
            r#"SELECT "schedule_talkslot"."id", "schedule_talkslot"."talk_id", "submission_submission"."id" FROM "schedule_talkslot" INNER JOIN "submission_submission" ON ("schedule_talkslot"."talk_id" = "submission_submission"."id")"#,
            resources,
            r#"prefetch_related("talk__resource_set")"#,
        ),
        // The rows themselves.
        (
            r#"SELECT "submission_submission"."id" FROM "submission_submission""#,
            speakers,
            r#"prefetch_related("speakers") on the query of submission_submission"#,
        ),
    ] {
        let (_, advice, mend) = only(list, child);
        assert!(advice.contains(words), "{advice}");
        let code = words.split(" on ").next().unwrap_or_default();
        assert!(mend.contains(code), "{mend}");
    }
}

#[test]
fn a_tenant_that_stays_the_same_is_not_what_is_looked_up() {
    let code = r#"SELECT "submission_question"."id" FROM "submission_question" WHERE ("submission_question"."event_id" = 1 AND "submission_question"."code" = 'c{}') LIMIT 21"#;
    let (_, advice, mend) = only(r#"SELECT "cms_page"."id" FROM "cms_page""#, code);
    assert!(advice.contains("filter(code__in=values, ...)") && !advice.contains("event__in"), "{advice}");
    assert!(mend.contains("code__in=values"), "{mend}");
    let both = r#"SELECT "person_profile"."id" FROM "person_profile" WHERE ("person_profile"."event_id" = 1 AND "person_profile"."user_id" = {}) LIMIT 21"#;
    let (_, advice, _) = only(r#"SELECT "person_user"."id" FROM "person_user""#, both);
    assert!(advice.contains("filter(user__in=values, ...)"), "{advice}");
    // Nor does it lead back to the loop's rows, when these have the key that does.
    let lines = r#"SELECT "shop_line"."id" FROM "shop_line" WHERE ("shop_line"."tenant_id" = 1 AND "shop_line"."order_id" = {})"#;
    let (_, advice, _) = only(r#"SELECT "shop_order"."id", "shop_order"."tenant_id" FROM "shop_order""#, lines);
    assert!(advice.contains(r#"Prefetch("line_set""#), "{advice}");
}
