//! The mends, in Django's words. Models and fields are guessed from tables and columns by Django's defaults.

use crate::catalog::Table;
use crate::insight::{field, model};

pub(super) const SLOW: &str =
    "look at its plan: EXPLAIN (ANALYZE, BUFFERS) with values that are typical, or queryset.explain(analyze=True)";

pub(super) const KEYSET: &str = "page by key instead of by number: filter(pk__gt=last_pk).order_by(\"pk\")[:size]; OFFSET reads all rows that it skips";

pub(super) const COUNT: &str = "count seldom or not at all: a Paginator whose count is cached or estimated (pg_class.reltuples), \
     \"next\" links without a total, exists() where only yes or no is asked, show_full_result_count = False in the admin";

pub(super) const UNBOUNDED: &str = "read a page at a time (Paginator, [:size]); where all rows are really needed, .iterator(chunk_size=2000) \
     and .values_list() of what is used; aggregate in the database what is only added up";

pub(super) const WIDE: &str =
    "fetch the columns that are used: .only(...), .defer(...) of the large ones, or .values_list(...)";

pub(super) const IDLE: &str = "move what takes long (HTTP calls, e-mail, files, computing) out of atomic(): before it, or with \
     transaction.on_commit() after it; with ATOMIC_REQUESTS, @non_atomic_requests on the view";

pub(super) const ON_COMMIT: &str =
    "with transaction.atomic():\n    ...  # only queries\n    transaction.on_commit(partial(send_mail, ...))";

pub(super) const TEXTS: &str = "one text for all values: a list as one array parameter (= ANY(%s)) instead of IN with as many parameters as \
     values, parameters instead of values written into the text, no traceparent in SQL comments";

pub(super) const TEXTS_CODE: &str = "cursor.execute(\"SELECT ... WHERE id = ANY(%s)\", [ids])";

pub(super) const MANY: &str = "look at its findings first; then select_related() and prefetch_related() for what templates and serializers \
     touch, one query for what is asked in parts, cached_property for what is asked again";

pub(super) const SAVEPOINTS: &str = "no savepoint for each row: atomic(savepoint=False) inside a transaction that fails as a whole, \
     bulk_create(ignore_conflicts=True) instead of get_or_create() in a loop, or a transaction for each batch";

pub(super) const SAVEPOINTS_CODE: &str = "with transaction.atomic(savepoint=False):\n    ...";

pub(super) const LOCKS: &str = "lock in one order (order_by(\"pk\").select_for_update()), keep transactions short, skip_locked=True for queues, \
     and try again on serialization failures";

pub(super) const LOCKS_CODE: &str = "for obj in queryset.order_by(\"pk\").select_for_update():\n    ...";

pub(super) const PERSISTENT: &str = "keep connections: CONN_MAX_AGE = 60 with CONN_HEALTH_CHECKS = True, or psycopg's pool (OPTIONS = \
     {\"pool\": True}, Django 5.1); to a pooler on the same host, a Unix socket";

pub(super) const PERSISTENT_CODE: &str =
    "DATABASES[\"default\"][\"CONN_MAX_AGE\"] = 60\nDATABASES[\"default\"][\"CONN_HEALTH_CHECKS\"] = True";

pub(super) const REPLICA: &str = "a replica for reads that may be a little old: a second entry in DATABASES and a router with db_for_read, or \
     .using(\"replica\") where it matters";

pub(super) const REPLICA_CODE: &str = "queryset.using(\"replica\")";

pub(super) fn keyset(table: &str) -> String {
    format!("{}.objects.filter(pk__gt=last_pk).order_by(\"pk\")[:page_size]", model(table))
}

pub(super) fn count(table: &str) -> String {
    format!("cache.get_or_set(\"{table}_count\", {}.objects.count, 300)", model(table))
}

pub(super) fn unbounded(table: &str) -> String {
    format!("for obj in {}.objects.filter(...).iterator(chunk_size=2000):\n    ...", model(table))
}

pub(super) fn wide(table: &str) -> String {
    format!("{}.objects.only(\"id\", ...)", model(table))
}

pub(super) fn index(table: &str, columns: &[String]) -> String {
    format!(
        "probably an index on {table} ({}): in the model's Meta, and in its migration AddIndexConcurrently with atomic = False; \
         check with queryset.explain() first",
        columns.join(", ")
    )
}

pub(super) fn index_code(table: &str, columns: &[String], wildcard: bool) -> String {
    let fields: Vec<_> = columns.iter().map(|column| format!("\"{}\"", field(column))).collect();
    let fields = fields.join(", ");
    let name: String = format!("{}_idx", columns.join("_")).chars().take(30).collect();
    let index = if wildcard {
        let classes = vec!["\"gin_trgm_ops\""; columns.len()].join(", ");
        format!("GinIndex(fields=[{fields}], opclasses=[{classes}], name=\"{name}\")")
    } else {
        format!("models.Index(fields=[{fields}], name=\"{name}\")")
    };
    format!("class {}(models.Model):\n    class Meta:\n        indexes = [{index}]", model(table))
}

pub(super) fn proved_index(table: &str, columns: &[String]) -> String {
    format!(
        "an index on {table} ({}): in the model's Meta, and in its migration AddIndexConcurrently with atomic = False, so that \
         writers need not wait",
        columns.join(", ")
    )
}

/// Model and migration. Of a column `x_id` the field is `x` where it is a foreign key.
pub(super) fn proved_index_code(table: &Table, columns: &[String]) -> String {
    let named = |column: &String| {
        let key = table.foreign_key(column).is_some();
        format!("\"{}\"", if key { field(column) } else { column })
    };
    let fields: Vec<_> = columns.iter().map(named).collect();
    let model = model(&table.name);
    let index = format!("models.Index(fields=[{}], name=\"{}\")", fields.join(", "), index_name(&table.name, columns));
    format!(
        "class {model}(models.Model):\n    class Meta:\n        indexes = [{index}]\n\n\
         # its migration, as makemigrations writes it, but for these:\n\
         from django.contrib.postgres.operations import AddIndexConcurrently\n\n\
         class Migration(migrations.Migration):\n    atomic = False\n    operations = [\n        \
         AddIndexConcurrently(\n            model_name=\"{}\",\n            index={index},\n        ),\n    ]",
        model.to_lowercase()
    )
}

/// At most 30 characters, as Django demands, and not beginning with an underscore or a digit.
fn index_name(table: &str, columns: &[String]) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let words = [crate::insight::bare(table)].into_iter().chain(columns.iter().map(String::as_str));
    let name: String = words.collect::<Vec<_>>().join("_").chars().map(plain).take(26).collect();
    let name = name.trim_matches('_');
    let begins = name.starts_with(|c: char| c.is_ascii_digit());
    format!("{}{name}_idx", if begins { "i" } else { "" }).chars().take(30).collect()
}

pub(super) fn cache(table: &str) -> String {
    match table {
        "django_content_type" => {
            "ContentType.objects.get_for_model() and get_for_id() have a cache of their own".to_owned()
        }
        "django_session" => "SESSION_ENGINE = \"django.contrib.sessions.backends.cached_db\"".to_owned(),
        _ => format!("cache it: cache.get_or_set() around the query of {table}, dropped when {table} is saved"),
    }
}

pub(super) fn cache_code(table: &str) -> String {
    format!("cache.get_or_set(key, lambda: list({}.objects.filter(...)), timeout=300)", model(table))
}

pub(super) fn pool_size(enough: usize) -> String {
    format!(
        "first what holds servers for long (idle_in_transaction, slow statements, N+1); then pool_size = {enough}, if \
         PostgreSQL's max_connections and cores allow"
    )
}
