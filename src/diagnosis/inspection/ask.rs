//! The questions: a snapshot of the catalogue; the plan of a statement, and with HypoPG what an index would make of it.

use super::{Explained, Lack};
use crate::catalog::candidate::{Candidate, candidate};
use crate::catalog::plan::Plan;
use crate::catalog::{self, Catalog, Read, Text};
use crate::server::inspector::first;
use crate::server::{InspectError, Inspector};

/// Of PostgreSQL: `plan_cache_mode` came with 12, EXPLAIN (GENERIC_PLAN) with 16.
const LEAST_VERSION: u32 = 120_000;
const GENERIC_PLAN: u32 = 160_000;
/// Planning as for any value, without workers: costs of plans can then be compared.
const PLANNER: &str = "SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL max_parallel_workers_per_gather = 0";
/// Functions that might do more than compute: volatile ones, and those that did not come with PostgreSQL (11 is
/// pg_catalog, pg_namespace.dat). Planning may evaluate others.
const CALLS: &str = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_proc \
     WHERE proname OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.name[]) AND (provolatile OPERATOR(pg_catalog.=) 'v' \
     OR pronamespace OPERATOR(pg_catalog.<>) '11'::pg_catalog.oid)";
const STATISTICS: &str = "SELECT attname, n_distinct FROM pg_catalog.pg_stats \
     WHERE schemaname OPERATOR(pg_catalog.=) $1::pg_catalog.name AND tablename OPERATOR(pg_catalog.=) $2::pg_catalog.name";
const HYPOPG: &str = "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n \
     ON n.oid OPERATOR(pg_catalog.=) e.extnamespace WHERE e.extname OPERATOR(pg_catalog.=) 'hypopg'";

/// Reads the catalogue.
pub(super) async fn snapshot(server: &mut Inspector) -> Result<Catalog, InspectError> {
    server.begin().await?;
    let read = read(server).await;
    server.end().await?;
    read
}

async fn read(server: &mut Inspector) -> Result<Catalog, InspectError> {
    let path = server.run(catalog::PATH).await?;
    server.run("SET LOCAL search_path = pg_catalog").await?;
    let draft = Catalog::draft(&path, &server.run(&catalog::question(Read::Tables)).await?);
    let oids = draft.oids();
    let columns = server.ask(&catalog::question(Read::Columns), &[&oids]).await?;
    let keys = server.ask(&catalog::question(Read::ForeignKeys), &[&oids]).await?;
    let indexes = server.ask(&catalog::question(Read::Indexes), &[&oids]).await?;
    Ok(draft.finish(&columns, &keys, &indexes))
}

/// Asks for the plan of a statement, sorted by `order` before a LIMIT. What PostgreSQL refuses is known as having none.
pub(super) async fn explain(
    server: &mut Inspector,
    catalog: &Catalog,
    text: &Text,
    order: Option<&str>,
) -> Result<Explained, InspectError> {
    server.begin().await?;
    let mut undo = Undo::default();
    let explained = judge(server, catalog, text, order, &mut undo).await;
    server.end().await?;
    if let Some(schema) = undo.hypopg {
        server.run(&format!("SELECT {schema}.hypopg_reset()")).await?;
    }
    if undo.prepared {
        server.run("DEALLOCATE pgsluice_plan").await?;
    }
    match explained {
        Err(InspectError::Refused(fields)) => {
            tracing::debug!(target: "pgsluice::insight", sqlstate = %fields.code, "no plan for a statement");
            Ok(Explained::new(None, catalog))
        }
        done => done,
    }
}

/// What belongs to the session and not to the transaction.
#[derive(Default)]
struct Undo {
    /// Where HypoPG is, when there is a hypothetical index.
    hypopg: Option<String>,
    /// There is a prepared statement.
    prepared: bool,
}

async fn judge(
    server: &mut Inspector,
    catalog: &Catalog,
    text: &Text,
    order: Option<&str>,
    undo: &mut Undo,
) -> Result<Explained, InspectError> {
    let none = || Explained::new(None, catalog);
    if server.version < LEAST_VERSION {
        return Ok(none());
    }
    server.run(PLANNER).await?;
    if first(&server.ask(CALLS, &[&array(&text.calls)]).await?) != Some("0") {
        return Ok(none());
    }
    let Some(plan) = plan(server, text, undo).await? else { return Ok(none()) };
    let mut lack = None;
    let mut scans: Vec<usize> = (0..plan.scans.len()).collect();
    scans.sort_by(|a, b| plan.scans[*b].share.total_cmp(&plan.scans[*a].share));
    for at in scans {
        let scan = &plan.scans[at];
        let Some((table, _)) = catalog::candidate::lacks_index(catalog, scan) else { continue };
        let statistics = server.ask(STATISTICS, &[&table.schema, &table.name]).await?;
        let distinct = |name: &str| {
            let of = statistics.iter().find(|row| row.first().is_some_and(|known| known.as_deref() == Some(name)));
            of?.get(1)?.as_deref()?.parse().ok()
        };
        // Rows come sorted from an index only when nothing else is joined to them.
        let order = order.filter(|_| plan.scans.len() + plan.indexes.len() == 1);
        let Some(index) = candidate(catalog, scan, &distinct, order) else { continue };
        let hypothetical = hypothetical(server, text, &index, undo).await?;
        lack = Some(Lack { scan: at, index, hypothetical });
        break;
    }
    Ok(Explained { lack, ..Explained::new(Some(plan), catalog) })
}

/// The generic plan. `None`: its JSON is not as expected.
async fn plan(server: &mut Inspector, text: &Text, undo: &mut Undo) -> Result<Option<Plan>, InspectError> {
    const OPTIONS: &str = "FORMAT JSON, VERBOSE";
    // Apart from any other statement: the server takes one only, and only one that can be planned.
    server.ask(&format!("PREPARE pgsluice_plan AS {}", text.display), &[]).await?;
    undo.prepared = true;
    let shown = if server.version >= GENERIC_PLAN {
        server.run(&format!("EXPLAIN ({OPTIONS}, GENERIC_PLAN) {}", text.display)).await?
    } else {
        let count = "SELECT pg_catalog.cardinality(parameter_types) FROM pg_catalog.pg_prepared_statements \
             WHERE name OPERATOR(pg_catalog.=) 'pgsluice_plan'";
        let count = server.run(count).await?;
        let count = first(&count).and_then(|count| count.parse().ok()).unwrap_or(0);
        let nulls = vec!["NULL"; count].join(", ");
        let list = if nulls.is_empty() { nulls } else { format!("({nulls})") };
        server.run(&format!("EXPLAIN ({OPTIONS}) EXECUTE pgsluice_plan{list}")).await?
    };
    server.run("DEALLOCATE pgsluice_plan").await?;
    undo.prepared = false;
    Ok(first(&shown).and_then(Plan::read))
}

/// With HypoPG: the cost with this index, and whether it is used.
async fn hypothetical(
    server: &mut Inspector,
    text: &Text,
    index: &Candidate,
    undo: &mut Undo,
) -> Result<Option<(f64, bool)>, InspectError> {
    let installed = server.run(HYPOPG).await?;
    let Some(place) = first(&installed) else { return Ok(None) };
    let create = format!("SELECT indexname FROM {place}.hypopg_create_index($1::pg_catalog.text)");
    server.run("SAVEPOINT hypothetical").await?;
    let created = match server.ask(&create, &[&index.sql()]).await {
        Err(InspectError::Refused(_)) => {
            // Not for this user: the plan stands without it.
            server.run("ROLLBACK TO SAVEPOINT hypothetical").await?;
            return Ok(None);
        }
        created => created?,
    };
    undo.hypopg = Some(place.to_owned());
    let Some(name) = first(&created) else { return Ok(None) };
    let with = plan(server, text, undo).await?;
    Ok(with.map(|with| (with.cost, with.indexes.iter().any(|used| **used == *name))))
}

/// An array's text.
fn array(names: &[String]) -> String {
    let quoted = |name: &String| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    format!("{{{}}}", names.iter().map(quoted).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_in_an_array_are_quoted() {
        assert_eq!(super::array(&["a".into(), "b\"c\\".into()]), r#"{"a","b\"c\\"}"#);
        assert_eq!(super::array(&[]), "{}");
    }
}
