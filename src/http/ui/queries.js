// Statements by fingerprint: the list of all, and one.

import { all, get, has } from "./api.js";
import { spark } from "./chart.js";
import { bytes, count, empty, facts, h, mean, percent, place, routeName, snippet, sqlLines, time } from "./dom.js";
import { filter, matches, table } from "./table.js";

const key = (query) => `${query.fingerprint} ${query.database}`;
const FIRST = 100;
// Of the whole list, which is thousands of rows: read again after this many seconds only.
const WHOLE = 60;
const HOUR = 3600;

/** Calls of each interval of the last hour, by statement; null without a history. */
export async function history(signal, fingerprint) {
  if (!has("history")) return null;
  const intervals = (await get("history", { from: Math.floor(Date.now() / 1000) - HOUR, limit: 1000, detail: fingerprint ? undefined : "all", fingerprint }, signal)).items;
  const series = new Map();
  intervals.forEach((interval, at) => {
    for (const statement of interval.statements ?? []) {
      const name = key(statement);
      if (!series.has(name)) series.set(name, new Array(intervals.length).fill(0));
      series.get(name)[at] = statement.total_seconds / Math.max(1, interval.length_seconds);
    }
  });
  return { intervals, series };
}

const trend = (past, query) => {
  const values = past?.series.get(key(query));
  if (!values) return h("span", { class: "faint" }, "–");
  return spark(values, `time at the server in each interval of the last hour; at most ${time(Math.max(...values.map((v) => v ?? 0)))} a second`);
};

/** The columns of a list of statements. */
export function columns(past) {
  const number = (name, label, hint, show) => ({ key: name, label, hint, number: true, value: (q) => q[name], cell: (q) => show(q[name]) });
  return [
    {
      key: "text", label: "statement", main: true, value: (q) => q.summary || q.text,
      cell: (q) => [
        h("a", { class: "open sql", href: place("queries", q.fingerprint), title: q.text || null }, q.text ? q.text.slice(0, 240) : q.summary || q.fingerprint),
        h("div", { class: "small faint" }, q.database, q.routes.length > 0 && [" · ", q.routes.slice(0, 2).map(routeName).join(", "), (q.more_routes || q.routes.length > 2) && " …"],
          q.findings.length > 0 && [" · ", h("a", { href: place("findings", q.findings[0]) }, "part of a finding")], q.errors > 0 && ` · ${count(q.errors)} failed`),
      ],
    },
    past && { key: "trend", label: "last hour", wide: true, cell: (q) => trend(past, q) },
    number("calls", "calls", "executions since the start", count),
    number("total_seconds", "time", "time at the server, all executions", time),
    { ...number("share", "share", "part of all time at the server in its database", percent), wide: true },
    { ...number("mean_seconds", "mean", "mean time of an execution", time), wide: true },
    number("p50_seconds", "p50", "half of the executions took no longer", time),
    number("p95_seconds", "p95", "95 of 100 executions took no longer", time),
    number("p99_seconds", "p99", "99 of 100 executions took no longer", time),
    { ...number("rows_per_call", "rows", "mean rows of an execution", mean), wide: true },
  ].filter(Boolean);
}

export const list = {
  title: "Queries",
  every: 15,
  async load(_, signal, place) {
    const { state } = place;
    const now = Date.now() / 1000;
    const first = await get("queries", { limit: FIRST }, signal);
    // What has come again takes the place of what is known.
    const known = new Map((state.whole ?? []).map((query) => [key(query), query]));
    first.items.forEach((query) => known.set(key(query), query));
    if (first.total > FIRST && now - (state.read ?? 0) > WHOLE) {
      state.read = now;
      all("queries", {}).then((items) => { state.whole = items; place.data.items = items; place.again(); }).catch(() => { state.read = 0; });
    }
    if (has("history") && now - (state.pastRead ?? 0) > WHOLE) {
      state.pastRead = now;
      history().then((past) => { state.past = past; place.again(); }).catch(() => { state.pastRead = 0; });
    }
    return { ...first, items: [...known.values()] };
  },
  tools: (state, again) => [filter(state, again, "Filter: words of the statement, table, route")],
  paint(queries, { state, again }) {
    if (!queries.total) return empty("No statement yet", h("p", null, "They appear as soon as a client runs one. ", h("a", { href: "#/findings" }, "How to connect"), "."));
    state.sort ??= "total_seconds";
    state.down ??= true;
    const rows = queries.items.filter((q) => matches(state, q.text, q.summary, q.database, q.routes, q.fingerprint));
    const loading = queries.items.length < queries.total;
    return [
      h("p", { class: "lead" }, `${count(queries.total)} statements, without their literals; numbers since the start of the process.`, loading && ` ${count(queries.items.length)} have come so far…`),
      rows.length ? table({ caption: "Statements", columns: columns(has("history") ? state.past ?? { series: new Map() } : null), rows, key, state, again })
        : empty("No statement fits the filter", h("p", null, "Esc empties it.")),
    ];
  },
};

export const one = {
  title: "Query",
  every: 15,
  back: "#/queries",
  async load([id], signal) {
    const [query, past] = await Promise.all([get(`queries/${encodeURIComponent(id)}`, {}, signal), history(signal, id)]);
    return { query, past };
  },
  paint({ query: q, past }) {
    const values = past?.series.get(key(q));
    return [
      h("h1", { tabindex: "-1" }, q.summary || q.operation),
      h("p", { class: "where" }, `${q.access === "none" ? q.operation : `${q.operation}, ${q.access}s`} in ${q.database}; `, "routes: ",
        q.routes.length ? q.routes.map((route, at) => [at > 0 && ", ", h("a", { href: place("routes", q.database, route) }, routeName(route))]) : "none tagged", q.more_routes && " and more"),
      q.findings.length > 0 && h("p", { class: "callout" }, "Part of ", q.findings.map((id, at) => [at > 0 && ", ", h("a", { href: place("findings", id) }, `finding ${id}`)])),
      q.text ? snippet(sqlLines(q.text), "the statement") : h("p", { class: "faint" }, "Its text has been pushed out by newer ones."),
      h("h2", null, "Time at the server"),
      facts(["in all", time(q.total_seconds)], ["share of its database", percent(q.share)], ["mean", time(q.mean_seconds)], ["p50", time(q.p50_seconds)], ["p95", time(q.p95_seconds)],
        ["p99", time(q.p99_seconds)], ["longest", time(q.max_seconds)]),
      values && [h("h2", null, "Last hour"), h("p", null, spark(values, "time at the server in each interval of the last hour"), h("span", { class: "faint small" }, " time at the server a second; gaps: not among the costliest"))],
      h("h2", null, "What it does"),
      facts(["executions", count(q.calls)], ["failed", count(q.errors)], ["rows", count(q.rows)], ["rows an execution", mean(q.rows_per_call)], ["bytes of answers", bytes(q.response_bytes)],
        ["bytes an answer", bytes(q.response_bytes_per_call)], ["large results", count(q.large_results), "1,000 rows and more, or 1 MiB and more"],
        q.repeat_ratio !== null && ["same values again", percent(q.repeat_ratio), "within the hour, at least"],
        q.idle_after_count > 0 && ["pauses after it in a transaction", `${count(q.idle_after_count)}, ${time(q.idle_after_seconds)} in all, longest ${time(q.idle_after_max_seconds)}`],
        q.parses > 0 && ["prepared", `${count(q.parses)} times, ${q.distinct_texts >= 64 ? "64 or more" : count(q.distinct_texts)} different texts`]),
      h("p", { class: "faint small" }, `Fingerprint ${q.fingerprint}, the same on every instance and after every restart. Percentiles come from buckets.`),
    ];
  },
};
