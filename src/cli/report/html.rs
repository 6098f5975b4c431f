//! The report as one HTML file: its style and plots inside, no script, nothing fetched.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

use super::document::Block;
use crate::cli::words::seconds;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--back:#fff;--code:#f6f8fa;--bar:#0969da}\
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9da7b1;--line:#30363d;--back:#0d1117;--code:#161b22;--bar:#58a6ff}}\
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:60rem;margin:0 auto;padding:1rem}\
h1,h2,h3{line-height:1.25}h2{border-bottom:1px solid var(--line);margin-top:2.5rem}h3{overflow-wrap:anywhere}\
pre{background:var(--code);padding:.75rem;overflow-x:auto;border-radius:6px}code{font:13px/1.45 ui-monospace,monospace}\
.wide{overflow-x:auto;margin:1rem 0}table{border-collapse:collapse;font-size:14px}th,td{border:1px solid var(--line);padding:.3rem .6rem;text-align:left;vertical-align:top}\
th{background:var(--code)}figure{margin:1rem 0}figcaption{color:var(--soft);font-size:14px}svg{max-width:100%;height:auto}\
svg text{fill:var(--ink);font:12px system-ui,sans-serif}svg .bar{fill:var(--bar)}svg .line{stroke:var(--bar);fill:none;stroke-width:1.5}";

/// The beginning. Its policy keeps even a mistake of ours from fetching or running anything: only this very style counts.
fn head() -> String {
    let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{hash}'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>pgsluice report</title>\n\
         <style>{STYLE}</style>\n"
    )
}

/// The whole file.
pub(super) fn html(blocks: &[Block]) -> String {
    let mut out = head() + "<main>\n";
    for block in blocks {
        match block {
            Block::Heading(level, text) => out += &format!("<h{level}>{}</h{level}>\n", escape(text)),
            Block::Text(text) => out += &format!("<p>{}</p>\n", escape(text)),
            Block::Code(_, text) => out += &format!("<pre tabindex=\"0\"><code>{}</code></pre>\n", escape(text)),
            Block::Table(head, rows) => out += &table(head, rows),
            Block::Bars(title, bars) => out += &self::bars(title, bars),
            Block::Line(title, points) => out += &line(title, points),
            Block::Burst(steps) => out += &burst(steps),
        }
    }
    out + "</main>\n</html>\n"
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\n' => out.push(c),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return "<p>None.</p>\n".to_owned();
    }
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        cells.map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect::<String>()
    };
    let mut out = format!(
        "<div class=\"wide\" tabindex=\"0\"><table>\n<tr>{}</tr>\n",
        cells("th scope=\"col\"", &mut head.iter().copied())
    )
    .replace("</th scope=\"col\">", "</th>");
    for row in rows {
        out += &format!("<tr>{}</tr>\n", cells("td", &mut row.iter().map(String::as_str)));
    }
    out + "</table></div>\n"
}

fn figure(title: &str, height: f64, inside: &str) -> String {
    format!(
        "<figure><figcaption>{0}</figcaption><svg viewBox=\"0 0 800 {height:.0}\" width=\"800\" role=\"img\" \
         aria-label=\"{0}\">{inside}</svg></figure>\n",
        escape(title)
    )
}

fn bars(title: &str, bars: &[(String, String, f64)]) -> String {
    let most = bars.iter().map(|bar| bar.2).fold(0.0, f64::max);
    if most <= 0.0 {
        return String::new();
    }
    let mut inside = String::new();
    for (at, (label, told, value)) in bars.iter().enumerate() {
        let (y, width) = (at as f64 * 24.0, (value / most * 380.0).max(1.0));
        let short: String = label.chars().take(46).collect();
        inside += &format!(
            "<text x=\"0\" y=\"{:.0}\">{}</text><rect class=\"bar\" x=\"310\" y=\"{:.0}\" width=\"{width:.1}\" height=\"16\"/>\
             <text x=\"{:.0}\" y=\"{:.0}\">{}</text>",
            y + 16.0,
            escape(&short),
            y + 3.0,
            width + 316.0,
            y + 16.0,
            escape(told)
        );
    }
    figure(title, bars.len() as f64 * 24.0 + 4.0, &inside)
}

fn line(title: &str, points: &[(f64, f64)]) -> String {
    let first = points.iter().map(|p| p.0).fold(f64::INFINITY, f64::min);
    let span = points.iter().map(|p| p.0).fold(0.0, f64::max) - first;
    let most = points.iter().map(|p| p.1).fold(0.0, f64::max);
    if most <= 0.0 || span <= 0.0 {
        return String::new();
    }
    let place = |p: &(f64, f64)| format!("{:.1},{:.1}", (p.0 - first) / span * 800.0, 118.0 - p.1 / most * 100.0);
    let path: Vec<_> = points.iter().map(place).collect();
    let inside = format!(
        "<polyline class=\"line\" points=\"{}\"/><text x=\"0\" y=\"12\">{} at most</text>",
        path.join(" "),
        seconds(most)
    );
    figure(title, 122.0, &inside)
}

fn burst(steps: &[(String, u64, f64, f64)]) -> String {
    let first = steps.iter().map(|step| step.2).fold(f64::INFINITY, f64::min);
    let span = (steps.iter().map(|step| step.3).fold(0.0, f64::max) - first).max(1.0);
    let mut inside = String::new();
    for (at, (role, executions, start, end)) in steps.iter().enumerate() {
        let (y, x) = (at as f64 * 22.0, 150.0 + (start - first) / span * 640.0);
        inside += &format!(
            "<text x=\"0\" y=\"{:.0}\">{} x {executions}</text><rect class=\"bar\" x=\"{x:.1}\" y=\"{:.0}\" width=\"{:.1}\" height=\"14\"/>",
            y + 14.0,
            escape(role),
            y + 3.0,
            ((end - start) / span * 640.0).max(1.0)
        );
    }
    let title = format!("One burst as it ran: {}", seconds(span / 1e6));
    figure(&title, steps.len() as f64 * 22.0 + 4.0, &inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_name_becomes_markup() {
        let nasty = "<script>\"&'";
        let blocks = [
            Block::Heading(2, nasty.to_owned()),
            Block::Bars("x", vec![(nasty.to_owned(), nasty.to_owned(), 1.0)]),
            Block::Table(&["A"], vec![vec![nasty.to_owned()]]),
            Block::Burst(vec![(nasty.to_owned(), 3, 0.0, 5.0)]),
            Block::Line("y", vec![(0.0, 1.0), (1.0, 2.0)]),
        ];
        let page = html(&blocks);
        assert!(!page.contains("<script") && page.matches("<svg").count() == 3, "{page}");
        assert!(page.contains("<th scope=\"col\">A</th>"), "{page}");
    }
}
