// Routes (views, jobs): the list with queries per request, and one with what it runs.

import { all, get } from "./api.js";
import { count, empty, facts, h, jump, mean, place, plural, routeName, snippet, time } from "./dom.js";
import { headline, kindName, oneLine } from "./findings.js";
import { columns as queryColumns } from "./queries.js";
import { filter, matches, table } from "./table.js";

const key = (route) => `${route.database} ${route.route}`;
const lost = (route) => (route.requests ? route.avoidable_floor_seconds / route.requests : 0);
const address = (route) => place("routes", route.database, route.route ?? "");

const columns = (several) => [
  { key: "route", label: "route", main: true, value: (r) => routeName(r.route), cell: (r) => [h("a", { class: "open", href: address(r) }, routeName(r.route)), r.job && h("span", { class: "small faint" }, " command or task"), several && h("div", { class: "small faint" }, r.database)] },
  { key: "lost", label: "lost each", hint: "at least, by queries in loops: mean of a request", number: true, value: lost, cell: (r) => (r.findings.length ? h("a", { href: place("findings", r.findings[0]) }, time(lost(r))) : "–") },
  { key: "queries", label: "queries each", hint: "mean statements of a request", number: true, value: (r) => r.queries_per_request, cell: (r) => mean(r.queries_per_request) },
  { key: "p95q", label: "p95", hint: "95 of 100 requests ran no more statements", number: true, value: (r) => r.p95_queries, cell: (r) => count(Math.min(Math.round(r.p95_queries), r.max_queries)) },
  { key: "maxq", label: "most", hint: "most statements of a request", number: true, wide: true, value: (r) => r.max_queries, cell: (r) => count(r.max_queries) },
  { key: "requests", label: "requests", number: true, value: (r) => r.requests, cell: (r) => count(r.requests) },
  { key: "each", label: "db time each", hint: "mean time at the server of a request", number: true, value: (r) => r.db_seconds_per_request, cell: (r) => time(r.db_seconds_per_request) },
  { key: "p95t", label: "p95 db time", hint: "95 of 100 requests took no longer at the server", number: true, wide: true, value: (r) => r.p95_db_seconds, cell: (r) => time(r.p95_db_seconds) },
  { key: "db", label: "db time", hint: "time at the server, all requests", number: true, value: (r) => r.db_seconds, cell: (r) => time(r.db_seconds) },
];

// The middleware of docs/getting-started.md.
const TAG = `from urllib.parse import quote
from django.db import connection

class RouteTags:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        def tagged(execute, sql, params, many, context):
            match = request.resolver_match
            if match:
                # With parameters the driver reads % as its own: doubled, it arrives single.
                comment = f"/*framework='django',route='{quote(match.route)}'*/".replace("%", "%%" if params else "%")
                sql = f"{sql} {comment}"
            return execute(sql, params, many, context)

        with connection.execute_wrapper(tagged):
            return self.get_response(request)`;

export const list = {
  title: "Routes",
  every: 15,
  load: async (_, signal) => ({ items: await all("routes", {}, signal) }),
  tools: (state, again) => [filter(state, again, "Filter: route, database")],
  paint({ items }, { state, again }) {
    if (!items.length) return empty("No request is over yet", h("p", null, "A request is counted when it is over: after a second of silence, or when the next begins. ", h("a", { href: "#/findings" }, "How to connect"), "."));
    state.sort ??= "lost";
    state.down ??= true;
    const rows = items.filter((r) => matches(state, routeName(r.route), r.database));
    const tagged = items.some((r) => r.route);
    const worst = [...items].filter((r) => r.route && !r.job).sort((a, b) => lost(b) - lost(a))[0];
    return [
      worst && lost(worst) > 0 && h("p", { class: "lead" }, "Worst: ", h("a", { href: address(worst) }, worst.route), ` loses at least ${time(lost(worst))} in each of ${plural(worst.requests, "request")}, with ${mean(worst.queries_per_request)} queries each.`),
      !tagged && h("div", { class: "callout" }, h("p", null, "No statement names its route. A comment on each (sqlcommenter's format) makes findings and numbers belong to views. This class at the end of MIDDLEWARE does it:"), snippet(TAG, "middleware")),
      rows.length ? table({ caption: "Routes", columns: columns(new Set(items.map((r) => r.database)).size > 1), rows, key, state, again }) : empty("No route fits the filter", h("p", null, "Esc empties it.")),
    ];
  },
};

export const one = {
  title: "Route",
  every: 15,
  back: "#/routes",
  async load([database, route], signal) {
    const of = { database, route };
    const [routes, findings, queries] = await Promise.all([get("routes", of, signal), get("findings", { ...of, limit: 100 }, signal), route ? get("queries", { ...of, limit: 200 }, signal) : { items: [] }]);
    return { route: routes.items[0], findings: findings.items, queries: queries.items, name: route };
  },
  paint({ route: r, findings, queries, name }, { state, again }) {
    if (!r) return empty("No such route", h("p", null, `${routeName(name)} has not been seen since the start of the process. `, h("a", { href: "#/routes" }, "All routes"), "."));
    state.sort ??= "total_seconds";
    state.down ??= true;
    const between = Math.max(0, r.elapsed_seconds - r.db_seconds) / Math.max(1, r.requests);
    return [
      h("h1", { tabindex: "-1" }, routeName(r.route)), h("p", { class: "where" }, `${r.job ? "command or task " : ""}in ${r.database}`),
      facts(["requests", count(r.requests)], ["queries each", jump("ran", mean(r.queries_per_request))], ["p50, p95, most", [r.p50_queries, r.p95_queries, r.max_queries].map((n) => count(Math.min(Math.round(n), r.max_queries))).join(", "), "from buckets"],
        ["time at the server each", time(r.db_seconds_per_request), `p95 ${time(r.p95_db_seconds)}`], ["between its statements each", time(between), "from the first statement to the last answer, less the time at the server: application and network"],
        ["lost each, at least", jump("found", time(lost(r)))], ["same read again", count(r.duplicates), "reads that repeat another of their request with no write in between"],
        ["new connections", count(r.new_connections), "requests that began with one"],
        r.savepoint_storms > 0 && ["savepoint storms", `${count(r.savepoint_storms)}, up to ${count(r.max_savepoints)} savepoints`]),
      h("h2", { id: "found", tabindex: "-1" }, "Findings"),
      findings.length ? h("ol", { class: "plain" }, findings.map((f) => h("li", { "data-row": f.id }, h("a", { class: "open", href: place("findings", f.id) }, h("span", { class: "kind" }, kindName(f.kind)), " ", headline(f)),
        h("span", { class: "faint" }, ` at least ${time(f.bursts ? f.avoidable_floor_seconds / f.bursts : 0)} a time; `), f.mend && h("code", null, oneLine(f.mend))))) : h("p", { class: "faint" }, "None: no loop of queries was seen in it."),
      queries.length > 0 && [h("h2", { id: "ran", tabindex: "-1" }, "Queries that ran in it"), h("p", { class: "faint small" }, "Numbers are of the statement in all its routes."),
        table({ caption: "Queries of the route", columns: queryColumns(null), rows: queries, key: (q) => `${q.fingerprint} ${q.database}`, state, again })],
    ];
  },
};
