//! Causes seen in one statement. A statement has one cause of slowness at most, the most telling one.

use std::collections::HashSet;

use super::window::{StatementSums, Window};
use super::{Basis, Cause, indexes, words};
use crate::insight::{Confidence, Described, StatementFacts};
use crate::sql::{Column, Fingerprint, Limit, Operation, Shape};

/// Executions in the window that a judgement needs (PgHero asks for 100 since its statistics began).
pub(super) const MIN_CALLS: u64 = 20;
/// A mean from which a statement is slow (PgHero), microseconds; and what an indexed look-up takes.
const SLOW_US: f64 = 20_000.0;
pub(super) const INDEXED_US: f64 = 2_000.0;
/// A mean that is slow however seldom, microseconds.
const VERY_SLOW_US: f64 = 500_000.0;
const MIN_VERY_SLOW: u64 = 3;
/// Rows of a look-up.
const FEW_ROWS: f64 = 10.0;
/// Rows of a page.
const PAGE_ROWS: f64 = 1_000.0;
/// Columns and bytes a row from which `only()` is worth a thought.
const WIDE_COLUMNS: usize = 20;
const WIDE_ROW_BYTES: f64 = 2_048.0;
/// An execution this long, and this many times the median, of a statement that locks rows probably waited for a lock.
/// The bound of a bucket next to 100 ms.
pub(crate) const LOCK_WAIT_US: u64 = 3 << 15;
const LOCK_WAIT_TIMES: f64 = 10.0;
const MIN_LOCK_WAITS: u64 = 3;
/// A pause in a transaction that is one too many, and their share of the time that are, microseconds and part of one.
const LONG_PAUSE_MS: u32 = 1_000;
const PAUSED_SHARE: f64 = 0.01;
/// Parse messages that are worth looking at, and different texts of one statement that are too many.
const MIN_PARSES: u64 = 200;
const MANY_TEXTS: u32 = 50;
/// What parsing and planning anew takes, microseconds: a guess at the low end.
const PARSE_US: f64 = 100.0;
/// What makes a cache worth a thought: reads observed and an hour, reads for each write, part that repeats.
const CACHE_READS: u64 = 200;
const CACHE_READS_PER_HOUR: f64 = 1_000.0;
const CACHE_READS_PER_WRITE: u64 = 100;
const CACHE_REPEATS: f64 = 0.8;

/// Causes of all statements.
pub(crate) fn causes(window: &Window<'_>) -> Vec<Cause> {
    let sure = window.facts.findings.iter().filter(|finding| finding.confidence > Confidence::Low);
    let looped: HashSet<_> = sure.flat_map(|f| f.fingerprints.iter().map(|fp| (f.database.to_string(), *fp))).collect();
    let mut found = Vec::new();
    for one in &window.facts.statements {
        let grown = window.statement(one.key);
        found.extend(idle_after(window, one, &grown));
        if grown.calls == 0 {
            continue;
        }
        found.extend(ever_new_texts(window, one, &grown));
        let slow = slowness(window, one, &grown);
        let in_loop = looped.contains(&(one.database.to_string(), Fingerprint(one.key.1)));
        if slow.is_none() && !in_loop {
            found.extend(cacheable(window, one, &grown));
        }
        found.extend(slow);
    }
    name_holders(window, &mut found);
    found
}

/// Who waits for locks is told who probably held them: transactions that idled after a write of the same table.
fn name_holders(window: &Window<'_>, found: &mut [Cause]) {
    let of = |cause: &Cause| {
        let statements = &window.facts.statements;
        statements
            .iter()
            .find(|one| cause.fingerprint == Some(Fingerprint(one.key.1)) && one.database == cause.database)
    };
    let holders: Vec<_> = found
        .iter()
        .filter(|cause| cause.kind == "idle_in_transaction")
        .filter_map(of)
        .filter(|one| locks_rows(&one.described.shape))
        .collect();
    for cause in found.iter_mut().filter(|cause| cause.kind == "lock_wait") {
        let Some(waiter) = of(cause) else { continue };
        let holder = holders
            .iter()
            .find(|holder| holder.database == waiter.database && holder.described.table() == waiter.described.table());
        if let Some(holder) = holder {
            let routes = holder.routes.iter().map(|route| format!(", route {route}")).collect::<String>();
            let shown = shown(&holder.described);
            cause.evidence.push_str(&format!("; probably for transactions that idled after {shown}{routes}"));
        }
    }
}

/// Whether a statement waits for others that write the same rows.
fn locks_rows(shape: &Shape) -> bool {
    matches!(shape.operation, Operation::Update | Operation::Delete) || shape.for_update
}

pub(super) fn cause(kind: &'static str, one: &StatementFacts) -> Cause {
    Cause {
        fingerprint: Some(Fingerprint(one.key.1)),
        text: one.described.display.to_string(),
        routes: one.routes.clone(),
        ..Cause::new(kind, &one.database)
    }
}

/// What one statement's executions of the window were like.
pub(super) struct Load {
    pub(super) mean_us: f64,
    p50_us: f64,
    p95_us: f64,
    rows: f64,
    bytes_per_row: f64,
}

impl Load {
    fn new(one: &StatementFacts, grown: &StatementSums) -> Self {
        let calls = grown.calls.max(1) as f64;
        let at = |share| one.detail.spread.quantile(share, one.max_us) * 1e6;
        Self {
            mean_us: grown.time_us as f64 / calls,
            p50_us: at(0.5),
            p95_us: at(0.95),
            rows: grown.rows as f64 / calls,
            bytes_per_row: grown.bytes as f64 / grown.rows.max(1) as f64,
        }
    }

    fn is_slow(&self, calls: u64) -> bool {
        (calls >= MIN_CALLS && self.mean_us >= SLOW_US) || (calls >= MIN_VERY_SLOW && self.mean_us >= VERY_SLOW_US)
    }
}

/// Why a statement takes its time.
fn slowness(window: &Window<'_>, one: &StatementFacts, grown: &StatementSums) -> Option<Cause> {
    let shape = &one.described.shape;
    use Operation::{Delete, Insert, Select, Update};
    if !matches!(shape.operation, Select | Insert | Update | Delete) {
        return None;
    }
    let load = Load::new(one, grown);
    let saved = |left_us: f64| window.hourly(((load.mean_us - left_us).max(0.0) * grown.calls as f64) as u64);
    if let Some(cause) = waited(window, one, grown, &load) {
        return Some(cause);
    }
    let mut found = read_too_much(one, grown, &load, |share| window.hourly(grown.time_us) * share)
        .or_else(|| indexes::proved(window, one, grown, &load));
    if found.is_none() && load.is_slow(grown.calls) {
        let refuted = indexes::known(window, one).and_then(|(explained, catalog)| explained.refutes(&catalog));
        found = Some(too_slow(one, &load, shape, refuted.as_deref()));
        if let Some(cause) = &mut found {
            cause.recoverable = saved(INDEXED_US);
        }
    }
    let mut cause = found?;
    cause.numbers.extend([
        ("calls_per_hour", window.count(grown.calls)),
        ("mean_seconds", load.mean_us / 1e6),
        ("p50_seconds", load.p50_us / 1e6),
        ("p95_seconds", load.p95_us / 1e6),
        ("rows_per_call", load.rows),
    ]);
    Some(cause)
}

/// A statement that locks rows, quick but for a few times.
fn waited(window: &Window<'_>, one: &StatementFacts, grown: &StatementSums, load: &Load) -> Option<Cause> {
    let least = (load.p50_us * LOCK_WAIT_TIMES).max(LOCK_WAIT_US as f64) as u64;
    let (waits, spent) = one.detail.spread.above(least, one.max_us);
    // Of the window as well, not only of all time.
    let recent = waits.min(grown.long);
    if !locks_rows(&one.described.shape)
        || grown.calls < MIN_CALLS
        || recent < MIN_LOCK_WAITS
        || waits * 4 > one.total.calls
    {
        return None;
    }
    let (longest, usual) = (one.max_us as f64 / 1e6, load.p50_us / 1e3);
    Some(Cause {
        probable: true,
        recoverable: window.hourly(spent.min(grown.time_us)),
        evidence: format!(
            "{waits} of {} executions took 100 ms and more, {longest:.1} s at most; half of them less than {usual:.1} ms",
            one.total.calls
        ),
        numbers: [("waits", waits as f64), ("longest_seconds", longest), ("p50_seconds", load.p50_us / 1e6)].into(),
        mend: words::LOCKS.to_owned(),
        code: words::LOCKS_CODE.to_owned(),
        ..cause("lock_wait", one)
    })
}

/// A slow statement that reads no more than it should. `refuted` says why its plan needs no index.
fn too_slow(one: &StatementFacts, load: &Load, shape: &Shape, refuted: Option<&str>) -> Cause {
    let table = one.described.table();
    let ms = |us: f64| format!("{:.0} ms", us / 1e3);
    let (mean, p95) = (ms(load.mean_us), ms(load.p95_us));
    if shape.operation == Operation::Select && shape.offset {
        return Cause {
            evidence: format!("pages of {table} with OFFSET take {mean} on average, {p95} at the 95th percentile"),
            mend: words::KEYSET.to_owned(),
            code: words::keyset(table),
            ..cause("deep_offset", one)
        };
    }
    if shape.count {
        return Cause {
            evidence: format!("counting {table} takes {mean} on average"),
            mend: words::COUNT.to_owned(),
            code: words::count(table),
            ..cause("slow_count", one)
        };
    }
    if let Some(columns) = candidate(shape, load, table).filter(|_| refuted.is_none()) {
        return Cause {
            probable: true,
            evidence: format!(
                "{:.1} rows of {table} for each look-up by {}, but {mean} on average (half of them take {} and more)",
                load.rows,
                columns.join(", "),
                ms(load.p50_us)
            ),
            mend: words::index(table, &columns),
            code: words::index_code(table, &columns, shape.leading_wildcard),
            ..cause("missing_index", one)
        };
    }
    let refuted = refuted.map(|why| format!("; {why}")).unwrap_or_default();
    Cause {
        evidence: format!("{mean} on average, {p95} at the 95th percentile{refuted}"),
        mend: words::SLOW.to_owned(),
        ..cause("slow_query", one)
    }
}

/// Columns that an index would need, when a statement looks like one that lacks it: equalities, then one range or order.
fn candidate(shape: &Shape, load: &Load, table: &str) -> Option<Vec<String>> {
    let whole = shape.aggregate.is_some() || shape.group_by || shape.distinct || shape.set_operation;
    let looks_up = shape.operation != Operation::Insert && !table.is_empty() && !whole;
    // One that waits for locks now and then has a mean far above its median.
    if !looks_up || load.rows > FEW_ROWS || load.p50_us * 4.0 < load.mean_us {
        return None;
    }
    let own = |column: &&Column| column.table.is_empty() || column.table == table;
    let name = |column: &Column| column.name.clone();
    let mut columns: Vec<String> = shape.equals.iter().chain(&shape.in_lists).filter(own).map(name).collect();
    let sorted = shape.order_by.iter().filter(|_| shape.limit != Limit::None);
    let one_more = shape.ranges.iter().chain(&shape.likes).chain(sorted).find(own).map(name);
    columns.extend(one_more.filter(|column| !columns.contains(column)));
    // The primary key has one.
    let keyed = columns.first().is_none_or(|column| column == "id");
    columns.dedup();
    columns.truncate(3);
    (!keyed).then_some(columns)
}

/// More rows or columns than a page can use. `time` gives a share of the statement's time as seconds an hour.
fn read_too_much(one: &StatementFacts, grown: &StatementSums, load: &Load, time: impl Fn(f64) -> f64) -> Option<Cause> {
    let (shape, table) = (&one.described.shape, one.described.table());
    let plain = shape.operation == Operation::Select && shape.aggregate.is_none() && !shape.count;
    if plain && shape.limit == Limit::None && load.rows >= PAGE_ROWS && grown.large * 2 >= grown.calls {
        return Some(Cause {
            recoverable: time(1.0 - PAGE_ROWS / load.rows),
            evidence: format!("{:.0} rows of {table} each time, without LIMIT", load.rows),
            mend: words::UNBOUNDED.to_owned(),
            code: words::unbounded(table),
            numbers: [("response_bytes_per_call", load.bytes_per_row * load.rows)].into(),
            ..cause("unbounded_read", one)
        });
    }
    let wide = shape.width >= WIDE_COLUMNS && load.bytes_per_row >= WIDE_ROW_BYTES;
    (plain && wide && grown.calls >= MIN_CALLS).then(|| Cause {
        recoverable: time(0.5),
        evidence: format!("{} columns and {:.0} bytes for each row of {table}", shape.width, load.bytes_per_row),
        mend: words::WIDE.to_owned(),
        code: words::wide(table),
        numbers: [("response_bytes_per_row", load.bytes_per_row), ("columns", shape.width as f64)].into(),
        ..cause("over_fetch", one)
    })
}

/// Clients that let a transaction idle for long after this statement.
fn idle_after(window: &Window<'_>, one: &StatementFacts, grown: &StatementSums) -> Option<Cause> {
    let long = one.detail.idle_max_ms >= LONG_PAUSE_MS;
    let share = window.hourly(grown.idle_us) / 3_600.0;
    if grown.idle_count == 0 || !(long || share >= PAUSED_SHARE) {
        return None;
    }
    let waited: u64 = window
        .pools
        .iter()
        .filter(|pool| pool.database == one.database)
        .map(|pool| window.pool(&pool.key()).wait_us)
        .sum();
    let seconds = grown.idle_us as f64 / 1e6;
    Some(Cause {
        // A server that idles costs those who wait for one, and nobody else.
        recoverable: window.hourly(waited.min(grown.idle_us)),
        evidence: format!(
            "after {} clients let the transaction idle {} times, {:.1} s on average, {:.1} s at most",
            shown(&one.described),
            grown.idle_count,
            seconds / grown.idle_count as f64,
            f64::from(one.detail.idle_max_ms) / 1e3
        ),
        mend: words::IDLE.to_owned(),
        code: words::ON_COMMIT.to_owned(),
        numbers: [
            ("idle_seconds_per_hour", window.hourly(grown.idle_us)),
            ("pauses_per_hour", window.count(grown.idle_count)),
            ("longest_pause_seconds", f64::from(one.detail.idle_max_ms) / 1e3),
            ("waited_seconds_per_hour", window.hourly(waited)),
        ]
        .into(),
        ..cause("idle_in_transaction", one)
    })
}

/// `UPDATE shop_order`, or the verb alone.
fn shown(known: &Described) -> &str {
    if known.tables.is_empty() { &known.display } else { &known.summary }
}

/// Prepared statements whose texts are ever new.
fn ever_new_texts(window: &Window<'_>, one: &StatementFacts, grown: &StatementSums) -> Option<Cause> {
    let texts = one.detail.texts();
    let anew = grown.parses * 2 >= grown.calls;
    if grown.parses < MIN_PARSES || texts < MANY_TEXTS || !anew {
        return None;
    }
    Some(Cause {
        recoverable: window.count(grown.parses) * PARSE_US / 1e6,
        evidence: format!(
            "prepared {} times with {texts} and more different texts: no plan is ever used again",
            grown.parses
        ),
        mend: words::TEXTS.to_owned(),
        code: words::TEXTS_CODE.to_owned(),
        numbers: [("parses_per_hour", window.count(grown.parses)), ("distinct_texts", f64::from(texts))].into(),
        ..cause("statement_cache_defeated", one)
    })
}

/// Reads that repeat, of tables that hardly change.
fn cacheable(window: &Window<'_>, one: &StatementFacts, grown: &StatementSums) -> Option<Cause> {
    let shape = &one.described.shape;
    if shape.operation != Operation::Select
        || shape.for_update
        || one.described.tables.is_empty()
        || grown.calls < CACHE_READS
        || window.count(grown.calls) < CACHE_READS_PER_HOUR
    {
        return None;
    }
    let repeats = one.detail.repeat_ratio().filter(|ratio| *ratio >= CACHE_REPEATS)?;
    let mut writes = 0;
    for table in &one.described.tables {
        let [read, written] = window.facts.tables.get(&(one.key.0, table.clone())).copied()?;
        if written * CACHE_READS_PER_WRITE > read {
            return None;
        }
        writes += written;
    }
    let table = one.described.table();
    Some(Cause {
        recoverable: window.hourly(grown.time_us) * repeats,
        basis: Basis::Estimate,
        evidence: format!(
            "{:.0} reads of {table} an hour, {:.0} % with values asked for before, and {writes} writes in all",
            window.count(grown.calls),
            repeats * 100.0
        ),
        mend: words::cache(table),
        code: words::cache_code(table),
        numbers: [("calls_per_hour", window.count(grown.calls)), ("repeat_ratio", repeats), ("writes", writes as f64)]
            .into(),
        ..cause("cache_candidate", one)
    })
}
