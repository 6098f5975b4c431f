//! Numbers and names of the API's answers as words for people.

use std::time::{Duration, SystemTime};

use serde_json::Value;

/// Text of a field; empty when it has none.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}

/// Number of a field; 0 when it has none.
pub(super) fn number(value: &Value, field: &str) -> f64 {
    value.get(field).and_then(Value::as_f64).unwrap_or(0.0)
}

/// Items of a field that is a list.
pub(super) fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Names of a field that is a list of them.
pub(super) fn names(value: &Value, field: &str) -> String {
    items(value, field).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

/// The route of a finding or statement, in words where there is none.
pub(super) fn route(value: &Value) -> String {
    match text(value, "route") {
        "" => "(no route tag)".to_owned(),
        route => clean(route),
    }
}

/// Without what would move a terminal's cursor or colour its text: names come from clients.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A time in the unit that suits it.
pub(super) fn seconds(value: f64) -> String {
    match value {
        v if v <= 0.0 => "0".to_owned(),
        v if v < 0.000_999_5 => format!("{:.0} us", v * 1e6),
        v if v < 0.009_995 => format!("{:.2} ms", v * 1e3),
        v if v < 0.099_95 => format!("{:.1} ms", v * 1e3),
        v if v < 0.999_5 => format!("{:.0} ms", v * 1e3),
        v if v < 120.0 => format!("{v:.2} s"),
        v if v < 7_200.0 => format!("{:.0} min", v / 60.0),
        v if v < 172_800.0 => format!("{:.1} h", v / 3_600.0),
        v => format!("{:.1} d", v / 86_400.0),
    }
}

/// A count, thousands apart.
pub(super) fn count(value: f64) -> String {
    let digits = format!("{:.0}", value.max(0.0));
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A mean of counts.
pub(super) fn mean(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { count(value) }
}

/// Now, Unix seconds.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

/// A Unix time as `2026-01-31 12:34:56 UTC`.
pub(super) fn date(unix: f64) -> String {
    crate::net::clock::utc(unix as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let times = [0.0, 0.000_07, 0.001_5, 0.031, 0.25, 0.999_7, 61.0, 300.0, 7_200.0, 864_000.0];
        let told = times.map(seconds).join("; ");
        assert_eq!(told, "0; 70 us; 1.50 ms; 31.0 ms; 250 ms; 1.00 s; 61.00 s; 5 min; 2.0 h; 10.0 d");
        assert_eq!([0.0, 999.0, 1_000.0, 1_234_567.0].map(count).join(" "), "0 999 1,000 1,234,567");
        assert_eq!(clean("a\u{1b}[31mb\n"), "a [31mb ");
    }
}
