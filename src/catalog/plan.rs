//! EXPLAIN's JSON: which tables a plan reads from end to end, what it keeps of them, and what that costs.
//!
//! Taken from it are kinds of nodes, names and numbers. Conditions are read for the columns in them and forgotten: they may
//! hold literals of a view or a policy.

use serde_json::Value;

/// Nodes looked at.
const MAX_NODES: usize = 500;
/// Longest condition that is read.
const MAX_CONDITION: usize = 8_192;

/// What a plan is like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The planner's cost of all of it.
    pub cost: f64,
    /// Tables that are read from end to end.
    pub scans: Vec<Scan>,
    /// Indexes that are used.
    pub indexes: Vec<Box<str>>,
}

/// A sequential scan with a condition, or without.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scan {
    /// Schema.
    pub schema: Option<Box<str>>,
    /// Table.
    pub table: Box<str>,
    /// Rows that are left, as estimated.
    pub rows: f64,
    /// Its part of the plan's cost, from 0 to 1.
    pub share: f64,
    /// Columns compared with one value (or a list of them).
    pub equals: Vec<Box<str>>,
    /// Columns compared by `<` and its kin.
    pub ranges: Vec<Box<str>>,
    /// There are conditions of other kinds.
    pub others: bool,
}

impl Plan {
    /// Reads `EXPLAIN (FORMAT JSON, VERBOSE)`. `None`: it is something else.
    pub fn read(json: &str) -> Option<Plan> {
        let value: Value = serde_json::from_str(json).ok()?;
        let root = value.get(0)?.get("Plan")?;
        let mut plan = Plan { cost: root.get("Total Cost")?.as_f64()?, ..Plan::default() };
        let mut left = MAX_NODES;
        walk(root, 1.0, &mut plan, &mut left)?;
        Some(plan)
    }
}

/// `None` when there are too many nodes.
fn walk(node: &Value, loops: f64, plan: &mut Plan, left: &mut usize) -> Option<()> {
    *left = left.checked_sub(1)?;
    let text = |name: &str| node.get(name).and_then(Value::as_str);
    let number = |node: &Value, name: &str| node.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let kind = text("Node Type")?;
    if let Some(index) = text("Index Name") {
        plan.indexes.push(index.into());
    }
    if let (true, Some(table)) = (kind == "Seq Scan", text("Relation Name")) {
        let mut scan = Scan {
            schema: text("Schema").map(Into::into),
            table: table.into(),
            rows: number(node, "Plan Rows"),
            share: (number(node, "Total Cost") * loops / plan.cost.max(f64::MIN_POSITIVE)).min(1.0),
            ..Scan::default()
        };
        if let Some(filter) = text("Filter") {
            conditions(filter, &mut scan);
        }
        plan.scans.push(scan);
    }
    let children: &[Value] = node.get("Plans").and_then(Value::as_array).map_or(&[], |plans| plans);
    let inner = |child: &Value| child.get("Parent Relationship").and_then(Value::as_str) == Some("Inner");
    let outer = children.iter().find(|child| !inner(child)).map_or(1.0, |child| number(child, "Plan Rows").max(1.0));
    for child in children {
        let again = if kind == "Nested Loop" && inner(child) { outer } else { 1.0 };
        walk(child, loops * again, plan, left)?;
    }
    Some(())
}

/// Sorts the conditions of a Filter, as ruleutils.c writes them: `((t.a = $1) AND ((t.b)::text = $2))`.
fn conditions(filter: &str, scan: &mut Scan) {
    if filter.len() > MAX_CONDITION {
        scan.others = true;
        return;
    }
    let parts = split(inside(filter), " AND ");
    for part in parts {
        match comparison(inside(part)) {
            Some((column, true)) if !scan.equals.contains(&column) => scan.equals.push(column),
            Some((column, false)) if !scan.ranges.contains(&column) => scan.ranges.push(column),
            Some(_) => {}
            None => scan.others = true,
        }
    }
}

/// Without the parentheses around all of it.
fn inside(text: &str) -> &str {
    let text = text.trim();
    match text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        Some(rest) if split(rest, ")").len() == 1 => rest,
        _ => text,
    }
}

/// Cuts at `by` where no parenthesis, bracket or quote is open. A closing one that nothing opened cuts as well.
fn split<'t>(text: &'t str, by: &str) -> Vec<&'t str> {
    let (mut parts, mut from, mut depth, mut quote) = (Vec::new(), 0, 0i32, None);
    for (at, c) in text.char_indices() {
        if quote.is_some() {
            quote = quote.filter(|open| *open != c);
            continue;
        }
        if depth == 0 && at >= from && text[at..].starts_with(by) {
            parts.push(&text[from..at]);
            from = at + by.len();
        }
        match c {
            '\'' | '"' => quote = Some(c),
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// `a = $1`, `(t.a)::text = ANY ($1)`, `a >= $1`: the column, and whether it is an equality.
fn comparison(text: &str) -> Option<(Box<str>, bool)> {
    for (operator, equality) in [(" = ", true), (" <= ", false), (" >= ", false), (" < ", false), (" > ", false)] {
        if let [left, right] = split(text, operator)[..] {
            // The value: a parameter, perhaps cast, perhaps a list of one.
            let right = right.strip_prefix("ANY ").map_or(right, inside);
            let value = inside(right.split("::").next()?);
            let value =
                value.strip_prefix("ARRAY[").map_or(value, |list| list.split([',', ']']).next().unwrap_or(list));
            if !value.trim_start_matches('(').starts_with('$') {
                return None;
            }
            return Some((column(left)?, equality));
        }
    }
    None
}

/// The column of `t.a`, `a`, `(t."A")::text`.
fn column(text: &str) -> Option<Box<str>> {
    let bare = match text.strip_prefix('(').and_then(|rest| rest.split_once(")::")) {
        Some((bare, _)) => bare,
        None => text,
    };
    let name = split(bare, ".").pop()?;
    match name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => Some(quoted.replace("\"\"", "\"").into()),
        None if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80) => {
            Some(name.into())
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(filter: &str) -> (Vec<String>, Vec<String>, bool) {
        let mut scan = Scan::default();
        conditions(filter, &mut scan);
        let names = |list: Vec<Box<str>>| list.into_iter().map(String::from).collect();
        (names(scan.equals), names(scan.ranges), scan.others)
    }

    #[test]
    fn conditions_are_sorted() {
        for (filter, equals, ranges, others) in [
            ("(t.a = $1)", &["a"][..], &[][..], false),
            ("((t.email)::text = ($1)::text)", &["email"], &[], false),
            ("((t.a = $1) AND ((t.b)::text = $2) AND (t.c >= $3))", &["a", "b"], &["c"], false),
            ("(\"T\".\"My \"\"Col\" = ANY ($1))", &["My \"Col"], &[], false),
            ("(t.a = ANY (ARRAY[$1]))", &["a"], &[], false),
            ("(upper((t.email)::text) = upper($1))", &[], &[], true),
            ("((t.a = $1) OR (t.b = $2))", &[], &[], true),
            ("((t.a = $1) AND ((t.b = $2) OR (t.c = $3)))", &["a"], &[], true),
            ("((t.state)::text = 'new AND (old'::text)", &[], &[], true),
            ("(t.active AND (t.a = $1))", &["a"], &[], true),
            ("(t.a = t.b)", &[], &[], true),
            ("((t.name)::text ~~ $1)", &[], &[], true),
            ("(t.gone IS NULL)", &[], &[], true),
        ] {
            let wanted = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            assert_eq!(sorted(filter), (wanted(equals), wanted(ranges), others), "{filter}");
        }
    }

    #[test]
    fn inner_scans_are_repeated_and_literals_are_left_behind() {
        let json = r#"[{"Plan": {"Node Type": "Nested Loop", "Total Cost": 1000.0, "Plan Rows": 5, "Plans": [
            {"Node Type": "Index Scan", "Parent Relationship": "Outer", "Index Name": "a_pkey", "Total Cost": 8.0, "Plan Rows": 4},
            {"Node Type": "Seq Scan", "Parent Relationship": "Inner", "Relation Name": "b", "Schema": "public",
             "Total Cost": 100.0, "Plan Rows": 2, "Filter": "((b.x = $1) AND (b.state = 'secret'::text))"}]}}]"#;
        let plan = Plan::read(json).unwrap();
        assert_eq!(plan.indexes, ["a_pkey".into()]);
        let [scan] = &plan.scans[..] else { panic!("{plan:?}") };
        assert_eq!((&*scan.table, scan.share, scan.rows, scan.others), ("b", 0.4, 2.0, true));
        assert!(!format!("{plan:?}").contains("secret"));
    }

    proptest::proptest! {
        #[test]
        fn anything_is_read_or_not(filter in "[a$1='\"() .:AND\\[\\]ANY]{0,60}", json in "[\\[\\]{}\":a1]{0,40}") {
            sorted(&filter);
            assert!(Plan::read(&json).is_none());
        }
    }
}
