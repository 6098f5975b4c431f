//! One scrape: Prometheus text exposition format 0.0.4.
//!
//! Counters and gauges go through a `metrics` recorder of this scrape alone: totals are published with `absolute`, and
//! series of what is gone vanish with it, so nothing stale is ever shown and nothing needs upkeep. What it cannot say
//! (histograms already in buckets, counters with fractions) is written by hand.

use std::fmt::Write;

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::families::{Family, Kind};
use crate::pool::stats::{BUCKETS_US, HistogramTotals};

static METADATA: Metadata<'static> = Metadata::new("pgsluice", Level::INFO, None);

/// A scrape being written.
pub struct Page {
    recorder: PrometheusRecorder,
    described: Vec<&'static str>,
    /// Families written by hand, with their samples.
    own: Vec<(Family, String)>,
}

impl Default for Page {
    fn default() -> Self {
        Page { recorder: PrometheusBuilder::new().build_recorder(), described: Vec::new(), own: Vec::new() }
    }
}

impl Page {
    fn key(&mut self, family: &Family, values: &[&str]) -> Key {
        debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
        if !self.described.contains(&family.name) {
            self.described.push(family.name);
            let name = KeyName::from_const_str(family.name);
            match family.kind {
                Kind::Counter => self.recorder.describe_counter(name, None, family.help.into()),
                _ => self.recorder.describe_gauge(name, None, family.help.into()),
            }
        }
        let labels: Vec<Label> =
            family.labels.iter().zip(values).map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
        Key::from_parts(family.name, labels)
    }

    /// A counter's total.
    pub fn counter(&mut self, family: &Family, values: &[&str], total: u64) {
        let key = self.key(family, values);
        self.recorder.register_counter(&key, &METADATA).absolute(total);
    }

    /// A gauge's value.
    pub fn gauge(&mut self, family: &Family, values: &[&str], value: f64) {
        let key = self.key(family, values);
        self.recorder.register_gauge(&key, &METADATA).set(value);
    }

    /// The samples of a family written by hand, to append to.
    fn own(&mut self, family: &Family) -> &mut String {
        let at = match self.own.iter().position(|(f, _)| f.name == family.name) {
            Some(at) => at,
            None => {
                self.own.push((Family { ..*family }, String::new()));
                self.own.len() - 1
            }
        };
        &mut self.own[at].1
    }

    /// The total of a counter of seconds, given in microseconds.
    pub fn seconds(&mut self, family: &Family, values: &[&str], us: u64) {
        let labels = braced(&labels(family, values));
        let _ = writeln!(self.own(family), "{}{labels} {}", family.name, us as f64 / 1e6);
    }

    /// A histogram in our buckets.
    pub fn histogram(&mut self, family: &Family, values: &[&str], totals: &HistogramTotals) {
        let labels = labels(family, values);
        let comma = if labels.is_empty() { "" } else { "," };
        let name = family.name;
        let out = self.own(family);
        let mut count = 0;
        for (bound, n) in BUCKETS_US.iter().zip(totals.buckets) {
            count += n;
            let le = *bound as f64 / 1e6;
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{le}\"}} {count}");
        }
        count += totals.buckets[BUCKETS_US.len()];
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
        let labels = braced(&labels);
        let _ = writeln!(out, "{name}_sum{labels} {}\n{name}_count{labels} {count}", totals.sum_us as f64 / 1e6);
    }

    /// The whole text.
    pub fn finish(self) -> String {
        let mut out = self.recorder.handle().render();
        for (family, samples) in &self.own {
            let Family { name, help, .. } = family;
            let kind = family.kind.word();
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}");
        }
        out
    }
}

/// `a="x",b="y"`.
fn labels(family: &Family, values: &[&str]) -> String {
    debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
    let mut out = String::new();
    for (name, value) in family.labels.iter().zip(values) {
        let comma = if out.is_empty() { "" } else { "," };
        let _ = write!(out, "{comma}{name}=\"{}\"", escape(value));
    }
    out
}

fn braced(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

/// A label value: backslash, quote and newline escaped.
fn escape(raw: &str) -> String {
    raw.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::families as f;

    #[test]
    fn values_are_escaped_and_families_stand_together() {
        let mut page = Page::default();
        let odd = "a\"b\\c\nd";
        page.counter(&f::POOL_QUERIES, &[odd, "u"], 7);
        page.seconds(&f::POOL_QUERY_SECONDS, &[odd, "u"], 1_500_000);
        let mut totals = HistogramTotals::default();
        totals.buckets[0] = 2;
        totals.buckets[BUCKETS_US.len()] = 1;
        totals.sum_us = 20_000_000;
        page.histogram(&f::CLIENT_LOGIN, &[], &totals);
        page.seconds(&f::POOL_QUERY_SECONDS, &["d", "u"], 0);
        let text = page.finish();
        let escaped = r#"database="a\"b\\c\nd""#;
        for line in [
            format!("pgsluice_pool_queries_total{{{escaped},user=\"u\"}} 7"),
            format!(
                "pgsluice_pool_query_seconds_total{{{escaped},user=\"u\"}} 1.5\npgsluice_pool_query_seconds_total{{database=\"d\",user=\"u\"}} 0"
            ),
            "pgsluice_client_login_seconds_bucket{le=\"0.0005\"} 2".to_owned(),
            "pgsluice_client_login_seconds_bucket{le=\"+Inf\"} 3".to_owned(),
            "pgsluice_client_login_seconds_sum 20\npgsluice_client_login_seconds_count 3".to_owned(),
            "# TYPE pgsluice_pool_query_seconds_total counter".to_owned(),
        ] {
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
    }
}
