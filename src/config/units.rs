//! Durations and sizes as people write them: `250ms`, `5s`, `10min`, `1h`, `2d`; `16KiB`, `1MB`.

use std::time::Duration;

/// Longest duration taken: ten years. Longer is a typing error, and sums of deadlines must not overflow.
const MAX_SECONDS: u64 = 10 * 365 * 86_400;

/// Units of durations; the first is what a bare number means.
const TIME_UNITS: [(&str, u64); 10] = [
    ("", 1_000),
    ("us", 0),
    ("ms", 1),
    ("s", 1_000),
    ("sec", 1_000),
    ("m", 60_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

/// Reads a duration: a whole or decimal number and a unit, seconds when there is none.
///
/// # Errors
/// A sentence that says what is accepted.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write for example \"250ms\", \"5s\", \"10min\", \"1h\"");
    let (number, unit) = split_unit(text);
    let value: f64 = number.parse().map_err(|_| wrong())?;
    let &(_, millis) = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let nanos_per_unit = if unit == "us" { 1_000.0 } else { millis as f64 * 1e6 };
    let nanos = value * nanos_per_unit;
    if nanos > MAX_SECONDS as f64 * 1e9 {
        return Err(format!("`{text}` is longer than ten years"));
    }
    // In bounds: checked above, and `split_unit` leaves no sign in the number.
    Ok(Duration::from_nanos(nanos.round() as u64))
}

/// Shows a duration in the largest unit that divides it: what [`parse_duration`] reads back.
pub fn format_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0 => "0s".to_owned(),
        _ if !micros.is_multiple_of(1_000) => format!("{micros}us"),
        _ => {
            let millis = micros / 1_000;
            let (unit, divisor) = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)]
                .into_iter()
                .find(|(_, divisor)| millis.is_multiple_of(*divisor))
                .unwrap_or(("ms", 1));
            format!("{}{unit}", millis / divisor)
        }
    }
}

/// Reads a size in bytes: a whole number and one of B, kB, KiB, MB, MiB, GB, GiB (any case).
///
/// # Errors
/// A sentence that says what is accepted.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size; write for example \"16KiB\", \"64kB\", \"1MiB\"");
    let (number, unit) = split_unit(text);
    let value: u64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "k" | "kib" => 1 << 10,
        "mb" => 1_000_000,
        "m" | "mib" => 1 << 20,
        "gb" => 1_000_000_000,
        "g" | "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    value.checked_mul(factor).ok_or_else(wrong)
}

/// Digits (with a decimal point) and what follows them.
fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations() {
        let ms = |n| Ok(Duration::from_millis(n));
        for (text, expected) in [
            ("5s", ms(5_000)),
            ("250ms", ms(250)),
            ("1h", ms(3_600_000)),
            ("10min", ms(600_000)),
            ("10m", ms(600_000)),
            ("1d", ms(86_400_000)),
            ("15", ms(15_000)),
            ("0", ms(0)),
            ("0.5", ms(500)),
            ("1.5s", ms(1_500)),
            (" 5 s ", ms(5_000)),
            ("1us", Ok(Duration::from_micros(1))),
        ] {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
        for text in ["", "s", "-5s", "5 parsecs", "1e9", "1.2.3s", "99999999999999999999h", "20000d", "5S"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("16KiB"), Ok(16_384));
        assert_eq!(parse_size("64kB"), Ok(64_000));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("1 MiB"), Ok(1 << 20));
        for text in ["", "KiB", "-1", "1.5MB", "99999999999GiB", "1x"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(micros in 0u64..1_000_000_000_000, unit in prop::sample::select(vec![1u64, 1_000, 1_000_000, 60_000_000])) {
            let duration = Duration::from_micros(micros / unit * unit);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,20}") {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
