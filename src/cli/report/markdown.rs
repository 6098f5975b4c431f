//! The report as Markdown, to be pasted into a ticket.

use super::document::Block;
use crate::cli::words::clean;

/// The whole document.
pub(super) fn markdown(blocks: &[Block]) -> String {
    let mut out = String::new();
    for block in blocks {
        match block {
            Block::Heading(level, text) => {
                out += &format!("{} {}\n\n", "#".repeat(usize::from(*level)), plain(text));
            }
            Block::Text(text) => out += &format!("{}\n\n", plain(text)),
            Block::Code(language, text) => out += &fenced(language, text),
            Block::Table(head, rows) => out += &table(head, rows),
            Block::Bars(..) | Block::Line(..) | Block::Burst(_) => {}
        }
    }
    out.truncate(out.trim_end().len());
    out + "\n"
}

/// Names come from clients: they must make neither markup nor lines.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in clean(text).chars() {
        if matches!(c, '\\' | '*' | '_' | '`' | '<' | '>' | '[' | ']' | '|' | '~' | '$' | '#' | '!' | '@') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn fenced(language: &str, text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let lines: Vec<_> = text.lines().map(clean).collect();
    format!("{fence}{language}\n{}\n{fence}\n\n", lines.join("\n"))
}

fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return "None.\n\n".to_owned();
    }
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut out = line(head.iter().map(|cell| plain(cell)).collect());
    out += &format!("|{}\n", "---|".repeat(head.len()));
    for row in rows {
        out += &line(row.iter().map(|cell| plain(cell)).collect());
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_name_makes_no_markup() {
        let blocks = [
            Block::Text("<img src=x> [a](http://b) @all\n# x".to_owned()),
            Block::Code("sql", "SELECT '```'".to_owned()),
            Block::Table(&["A"], vec![vec!["a|b\nc".to_owned()]]),
        ];
        assert_eq!(
            markdown(&blocks),
            "\\<img src=x\\> \\[a\\](http://b) \\@all \\# x\n\n````sql\nSELECT '```'\n````\n\n| A |\n|---|\n| a\\|b c |\n"
        );
    }
}
