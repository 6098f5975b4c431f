//! Tags from comments.

use super::*;

fn route(sql: &str) -> Option<String> {
    let mut buffer = [0; VALUE_CAP];
    tags(RawSql(sql.as_bytes())).and_then(|t| t.route).map(|v| v.write(&mut buffer).to_string())
}

#[test]
fn sqlcommenter() {
    let sql = "SELECT 1 /*app_name='shop',controller='shop%3Abook',framework='django%3A5.2',route='%5Ebooks/(%3FP%3Cpk%3E%5Cd%2B)',traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/;";
    let got = tags(RawSql(sql.as_bytes())).expect("tags");
    let mut buffer = [0; VALUE_CAP];
    assert_eq!(got.route.expect("route").write(&mut buffer), r"^books/(?P<pk>\d+)");
    assert_eq!(got.controller.expect("controller").write(&mut buffer), "shop:book");
    assert_eq!(got.application.expect("application").write(&mut buffer), "shop");
    assert_eq!(got.trace_id.expect("trace id")[..4], [0x0a, 0xf7, 0x65, 0x19]);
    assert_eq!(got.id, 0);
}

#[test]
fn escapes_and_masks() {
    // Client-side binding doubles the percent signs.
    assert_eq!(route("SELECT 1 /*route='a%%2Fb'*/").as_deref(), Some("a/b"));
    assert_eq!(route("SELECT 1 /*route='a%2Fb'*/").as_deref(), Some("a/b"));
    assert_eq!(route("SELECT 1 /*route='it\\'s'*/").as_deref(), Some("it's"));
    assert_eq!(route("SELECT 1 /*route='/book/123456/x/7'*/").as_deref(), Some("/book/#/x/7"));
    assert_eq!(route("SELECT 1 /*route='%C3%A4'*/").as_deref(), Some("??"));
    assert_eq!(route(&format!("SELECT 1 /*route='{}'*/", "x".repeat(500))).map(|r| r.len()), Some(VALUE_CAP));
    let value = |sql: &'static str| tags(RawSql(sql.as_bytes())).and_then(|t| t.route).map(|v| v.hash());
    assert_eq!(value("SELECT 1 /*route='a%2Fb'*/"), value("SELECT 1 /*route='a%%2Fb'*/"));
    assert_ne!(value("SELECT 1 /*route='a/1'*/"), value("SELECT 1 /*route='a/2'*/"));
}

#[test]
fn places_and_forms() {
    assert_eq!(route("/*route='x'*/ SELECT 1").as_deref(), Some("x"));
    assert_eq!(route("/* route = 'x' , a = 1 */ SELECT 1").as_deref(), Some("x"));
    assert_eq!(route("SELECT 1 /*a=2,route='x'*/ ; ").as_deref(), Some("x"));
    assert!(tags(RawSql(b"SELECT 1 /*application:Shop,controller:books*/")).is_some());
    let datadog = tags(RawSql(b"/*dddb='x',dddbs='web',dde='prod'*/ SELECT 1")).expect("tags");
    assert!(datadog.application.is_some() && datadog.route.is_none());
    let keys = ["tenant".to_string()];
    assert_ne!(tags_with(RawSql(b"SELECT 1 /*tenant='a'*/"), &keys).expect("id").id, 0);
    assert_ne!(
        tags(RawSql(b"SELECT 1 /*task_id='a'*/")).expect("id").id,
        tags(RawSql(b"SELECT 1 /*task_id='b'*/")).expect("id").id
    );
}

#[test]
fn what_is_no_tag() {
    for sql in [
        "SELECT 1",
        "SELECT /*route='x'*/ 1",
        "SELECT 1 /* a comment */",
        "SELECT 1 /*route='x*/",
        "SELECT 1 /*unknown='x'*/",
        "SELECT '/*route=x*/'",
        "SELECT '/*route=' , 'secret' --*/",
        "SELECT $$/*route='secret'$$ --*/",
        "SELECT 1 /*traceparent='00-00000000000000000000000000000000-b7ad6b7169203331-01'*/",
        "SELECT 1 /*traceparent='00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/",
    ] {
        assert!(tags(RawSql(sql.as_bytes())).is_none(), "{sql}");
    }
    let many: Vec<String> = (0..16).map(|i| format!("k{i}='v'")).collect();
    assert_eq!(route(&format!("SELECT 1 /*{},route='late'*/", many.join(","))), None);
}
