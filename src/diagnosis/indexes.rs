//! Missing indexes that a plan proves, and which statements' plans are worth asking for.

use super::inspection::{Explained, Wish};
use super::statements::{INDEXED_US, Load, MIN_CALLS, cause};
use super::window::{StatementSums, Window};
use super::{Cause, words};
use crate::catalog::{self, Catalog};
use crate::insight::StatementFacts;
use crate::sql::{Limit, Operation};
use std::sync::Arc;

/// Statements whose plans are asked for at a time.
const MAX_WISHES: usize = 50;

/// The costliest plain reads of the window, first the costliest.
pub(super) fn wishes(window: &Window<'_>) -> Vec<Wish> {
    let mut costly: Vec<_> = window
        .facts
        .statements
        .iter()
        .filter(|one| one.described.shape.operation == Operation::Select && !one.described.shape.for_update)
        .map(|one| (window.statement(one.key), one))
        .filter(|(grown, _)| is_worth_it(grown))
        .collect();
    costly.sort_by_key(|(grown, _)| std::cmp::Reverse(grown.time_us));
    costly.into_iter().filter_map(|(_, one)| wish(one)).take(MAX_WISHES).collect()
}

fn is_worth_it(grown: &StatementSums) -> bool {
    grown.calls >= MIN_CALLS && grown.time_us as f64 >= INDEXED_US * grown.calls as f64
}

fn wish(one: &StatementFacts) -> Option<Wish> {
    let shape = &one.described.shape;
    let limit = match shape.limit {
        Limit::One => Some(1),
        Limit::TwentyOne => Some(21),
        Limit::None | Limit::Other => None,
    };
    let order = shape.order_by.first().filter(|_| shape.limit != Limit::None);
    Some(Wish {
        database: Arc::clone(&one.database),
        fingerprint: one.key.1,
        text: catalog::readable(&one.described.display, limit)?,
        order: order.map(|column| column.name.clone()),
    })
}

/// What is known of a statement's plan, with the catalogue of its database.
pub(super) fn known(window: &Window<'_>, one: &StatementFacts) -> Option<(Arc<Explained>, Arc<Catalog>)> {
    let explained = window.plans.get(&one.database, one.key.1)?;
    Some((explained, window.insight.catalog(&one.database)?))
}

/// The index that a statement's plan lacks.
pub(super) fn proved(window: &Window<'_>, one: &StatementFacts, grown: &StatementSums, load: &Load) -> Option<Cause> {
    if !is_worth_it(grown) {
        return None;
    }
    let (explained, catalog) = known(window, one)?;
    let (scan, lack, rows) = explained.lacks(&catalog)?;
    let cost = explained.plan.as_ref()?.cost;
    let (left_us, proof) = match lack.hypothetical {
        Some((with, _)) => (
            load.mean_us * with / cost.max(f64::MIN_POSITIVE),
            format!("; with a hypothetical index its cost falls from {cost:.0} to {with:.0}"),
        ),
        None => (load.mean_us * (1.0 - scan.share) + INDEXED_US, String::new()),
    };
    let columns: Vec<String> = lack.index.columns.iter().map(|name| name.to_string()).collect();
    let table = catalog.table(Some(&lack.index.schema), &lack.index.table)?;
    let mut numbers =
        [("table_rows", rows as f64), ("rows_left", scan.rows), ("plan_cost", cost), ("scan_share", scan.share)]
            .into_iter()
            .collect::<std::collections::BTreeMap<_, _>>();
    numbers.extend(lack.hypothetical.map(|(with, _)| ("plan_cost_with_index", with)));
    Some(Cause {
        recoverable: window.hourly(((load.mean_us - left_us).max(0.0) * grown.calls as f64) as u64),
        evidence: format!(
            "its plan reads {} from end to end (Seq Scan), about {rows} rows, for {:.0} of them, and no index begins with {}; \
             {:.1} ms on average in {} executions{proof}",
            table.name,
            scan.rows,
            columns.first().map_or("", |name| name),
            load.mean_us / 1e3,
            grown.calls
        ),
        numbers,
        mend: words::proved_index(&table.name, &columns),
        code: words::proved_index_code(table, &columns),
        ..cause("missing_index", one)
    })
}
