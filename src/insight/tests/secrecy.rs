//! No literal leaves: not in a log line, a metric, a view or an event.

use std::io::Write;

use super::*;

/// Collects log lines.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The log of `work`, everything down to debug.
pub(super) fn capture(work: impl FnOnce()) -> String {
    let sink = Sink::default();
    let writer = sink.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, work);
    let bytes = sink.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

const SECRETS: [&str; 6] = ["s3cr3t", "jane@example.org", "987654321", "hunter2", "Zürich", "deadbeef"];

#[test]
fn literals_appear_nowhere() {
    let mut shown = String::new();
    let log = capture(|| {
        let mut client = Client::new();
        client.session.set_application("app\n\"x\u{7}é");
        client.query(r#"SELECT "u"."id", "u"."owner_id" FROM "u" WHERE "u"."email" = 'jane@example.org'"#, 8);
        for id in 0..8 {
            client.query(&format!(r#"SELECT "owner"."id" FROM "owner" WHERE "owner"."id" = 987654321{id} LIMIT 21 /*route='x/987654321/y',user='hunter2'*/"#), 1);
            client.query(&format!(r#"SELECT "n"."id" FROM "n" WHERE "n"."owner_id" = {id} AND "n"."t" IN ('s3cr3t', E'hunter2\'', $$Zürich$$, X'deadbeef')"#), 2);
        }
        for id in 0..30 {
            client.query(&format!(r#"UPDATE "u" SET "password" = 'hunter2-{id}' WHERE "u"."id" = {id}"#), 1);
            client.query("SET app.jwt = 's3cr3t'", 0);
            client.query("SELECT x, 's3cr3t unterminated", 0);
        }
        shown.push_str(&client.finish().iter().map(|burst| burst.all.clone()).collect::<String>());
        client.insight.sweep();
        client.insight.render(&mut shown);
        shown.push_str(&format!(
            "{:?}{:?}",
            client.insight.findings(),
            client.insight.fingerprints(FingerprintOrder::Total, 1_000)
        ));
        assert!(client.insight.findings().len() >= 2, "{shown}");
    });
    assert!(log.contains("pgsluice::finding") && log.contains("pgsluice::burst"), "{log}");
    for secret in SECRETS {
        assert!(!shown.contains(secret), "{secret} in {shown}");
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    assert!(log.contains("app?") && !log.contains('\u{7}'), "{log}");
}
