// What the detector found: the list, and one finding with its evidence and its mend.

import { get } from "./api.js";
import { timeline } from "./chart.js";
import { ago, clock, count, empty, facts, h, jump, place, plural, sentence, snippet, sqlLines, time } from "./dom.js";
import { filter, matches } from "./table.js";

const KINDS = { n_plus_one: "N+1", chain: "N+1 chain", duplicate: "Duplicate", write_loop: "Write loop" };
const RELATIONS = {
  fk: "a foreign key followed row by row", reverse_fk: "related rows fetched row by row", m2m: "a many-to-many fetched row by row",
  one_to_one: "a one-to-one followed row by row", count: "a count for each row", exists: "an exists() for each row",
};

const words = (name) => (name ?? "").replaceAll("_", " ");
export const kindName = (kind) => KINDS[kind] ?? sentence(words(kind));

/** N: of every burst the same, or from to. */
const range = (finding) => (finding.n_min === finding.n_max ? count(finding.n_max) : `${count(finding.n_min)}–${count(finding.n_max)}`);

const tablesOf = (finding) => {
  const { tables } = finding;
  return tables.length > 3 ? `${tables.slice(0, 3).join(", ")} and ${tables.length - 3} more` : tables.join(", ") || "a statement";
};

const tableOf = (text) => /\bFROM\s+(?:ONLY\s+)?((?:"[^"]+"|\w+)(?:\.(?:"[^"]+"|\w+))?)/i.exec(text ?? "")?.[1].replaceAll('"', "");

/** What happens, in one line. */
export function headline(finding) {
  const parent = tableOf(finding.parent?.text);
  const times = `${range(finding)} times`;
  if (finding.kind === "write_loop") return `${tablesOf(finding)} is written one row at a time, ${times}`;
  if (finding.kind === "duplicate") return `${tablesOf(finding)} is asked the same ${times}`;
  const loop = finding.kind === "chain" ? `one loop asks ${tablesOf(finding)}` : `${tablesOf(finding)} is asked`;
  return `${loop} ${times}${parent ? `, once for each row of ${parent}` : ""}`;
}

/** Where it happens: route and database, or who it was. */
export function where(finding, links = false) {
  const parts = [];
  const route = finding.route;
  if (finding.job) parts.push("command or task ");
  if (route) parts.push(links ? h("a", { href: place("routes", finding.database, route) }, route) : h("b", { class: "route" }, route));
  else parts.push(finding.application || finding.user ? finding.application ? `application ${finding.application}` : `user ${finding.user}` : "no route tag");
  return [parts, ` in ${finding.database}`];
}

const perBurst = (finding) => (finding.bursts ? finding.avoidable_floor_seconds / finding.bursts : 0);
/** A change on one line of a list. */
export const oneLine = (code) => code.replace(/\s*\n\s*/g, " ").replace(/([([]) | (?=[)\]])/g, "$1");

const CONFIDENCE = "high: an earlier SELECT's rows explain the loop; medium: most signs fit; low: look at it first";

// `submission_submissiontype` may be SubmissionType: a table does not tell.
const NAMES = "Each model is written as its table is called, so capitals inside its name may differ from your code's; names of fields are guessed from columns.";

const badge = (finding) => [
  h("span", { class: `badge ${finding.severity}` }, finding.severity), " ",
  h("span", { class: "badge", title: CONFIDENCE }, `${finding.confidence} confidence`),
];

function card(finding, now) {
  return h("li", { class: `card ${finding.severity}`, "data-row": finding.id },
    h("div", { class: "what" },
      h("a", { class: "open", href: place("findings", finding.id) }, h("span", { class: "kind" }, kindName(finding.kind)), " ", headline(finding)),
      h("p", { class: "where" }, where(finding, true)),
      finding.mend ? h("p", { class: "mend" }, h("span", { class: "faint" }, "Change: "), h("code", null, oneLine(finding.mend))) : h("p", { class: "mend faint" }, sentence(finding.advice)),
      h("p", { class: "small" }, badge(finding), " ", h("span", { class: "faint" }, `seen ${ago(finding.last_seen_unix_seconds, now)}`))),
    h("div", { class: "cost" },
      h("div", null, h("small", null, "at least "), h("a", { class: "big", href: place("findings", finding.id), title: "what it is made of" }, time(perBurst(finding)))),
      h("small", null, "lost each time"),
      h("small", null, `${time(finding.avoidable_floor_seconds)} in all, ${plural(finding.bursts, "time")} seen`)));
}

const ORDERS = [
  ["severity", "severity, then cost in all", null],
  ["total", "cost in all", (f) => f.avoidable_floor_seconds],
  ["burst", "cost each time", perBurst],
  ["n", "executions", (f) => f.n_max],
  ["last", "seen last", (f) => f.last_seen_unix_seconds],
];

/** Nothing found: because nothing was there to be seen, or because all is well. */
function nothing({ status, routes }) {
  const statements = Object.values(status.insight.statements).reduce((sum, n) => sum + n, 0);
  if (!status.insight.enabled) {
    return empty("Insight is switched off", h("p", null, "Statements pass, and nobody looks at them. Set ", h("code", null, "insight = true"), " and reload to see findings."));
  }
  if (!statements) {
    const address = status.listening[0] ?? "127.0.0.1:6432";
    const [, host, port] = /^\[?([^\]]*?)\]?:(\d+)$/.exec(address) ?? [null, "127.0.0.1", "6432"];
    const shown = ["0.0.0.0", "::"].includes(host) ? "the host of pgsluice" : host;
    return empty("No statement has come yet",
      h("p", null, "Point Django at pgsluice instead of PostgreSQL; user, password and name stay as they are:"),
      snippet(`DATABASES["default"]["HOST"] = "${shown}"\nDATABASES["default"]["PORT"] = "${port}"`, "settings.py"),
      h("p", null, `It listens at ${status.listening.join(", ") || "no address"}; ${plural(status.clients, "client")} connected. Open a page of the application: this page looks again by itself.`));
  }
  return empty("Nothing found",
    h("p", null, `pgsluice has watched for ${time(status.uptime_seconds)}: ${plural(statements, "statement")} in ${plural(routes, "route")}, and no loop of queries among them.`),
    h("p", null, "A request is judged a moment after it is over. What takes most time all the same is under ", h("a", { href: "#/queries" }, "Queries"), "."));
}

/** The findings, most important first. */
export const list = {
  title: "Findings",
  every: 10,
  async load(_, signal) {
    const [findings, status] = await Promise.all([get("findings", { limit: 200 }, signal), get("status", {}, signal)]);
    const routes = findings.total ? 0 : (await get("routes", { limit: 1 }, signal)).total;
    return { findings, status, routes };
  },
  tools(state, again) {
    const order = h("select", { "aria-label": "Order by", id: "order", onchange: () => { state.order = order.value; again(); } },
      ORDERS.map(([key, label]) => h("option", { value: key, selected: (state.order ?? "severity") === key }, label)));
    const low = h("input", { type: "checkbox", checked: state.low !== false, onchange: () => { state.low = low.checked; again(); } });
    return [filter(state, again, "Filter: route, table, kind"), h("label", null, "Order ", order), h("label", null, low, " low confidence, too")];
  },
  paint({ findings, status, routes }, { state, again }) {
    if (!findings.total) return nothing({ status, routes });
    const now = findings.at_unix_seconds;
    const shown = findings.items.filter((f) => (state.low !== false || f.confidence !== "low")
      && matches(state, headline(f), f.route ?? "", f.database, f.application ?? "", kindName(f.kind), f.tables, f.mend, f.id));
    const value = ORDERS.find(([key]) => key === state.order)?.[2];
    if (value) shown.sort((a, b) => value(b) - value(a));
    state.shown ??= 100;
    const sure = shown.filter((f) => f.confidence !== "low").sort((a, b) => perBurst(b) - perBurst(a));
    // A command or a task is no view, however much it asks: nobody waits for its page.
    const worst = sure.find((f) => f.route && !f.job);
    return [
      h("p", { class: "lead" }, `${plural(findings.total, "finding")} in ${time(status.uptime_seconds)} of watching. `,
        worst && ["The view that loses most each time is ", h("a", { href: place("routes", worst.database, worst.route) }, worst.route), ": ",
          h("a", { href: place("findings", worst.id) }, `at least ${time(perBurst(worst))}, as ${headline(worst)}`), "."],
        !worst && sure.length > 0 && ["What loses most each time: ", h("a", { href: place("findings", sure[0].id) }, `at least ${time(perBurst(sure[0]))}, as ${headline(sure[0])}`),
          ". To see in which view, let statements ", h("a", { href: "#/routes" }, "name their route"), "."]),
      shown.length ? h("ol", { class: "cards" }, shown.slice(0, state.shown).map((f) => card(f, now))) : empty("No finding fits the filter", h("p", null, "Esc empties it.")),
      shown.length > state.shown && h("p", { class: "more" }, h("button", { type: "button", "data-key": "more", onclick: () => { state.shown += 100; again(); } }, "Show more")),
      findings.total > findings.items.length && h("p", { class: "faint" }, `These are the first ${count(findings.items.length)} of ${count(findings.total)}.`),
    ];
  },
};

/** Sentences that say why it is believed. */
function evidence(finding) {
  const e = finding.example;
  const said = [];
  if (e.parent_rows !== null && finding.parent) {
    const fits = e.count_distance === 0 ? "exactly as many" : `close to that (distance ${e.count_distance === null ? "unknown" : e.count_distance.toFixed(2)})`;
    said.push(`The list before it returned ${plural(e.parent_rows, "row")}; the loop ran ${count(e.n)} times: ${fits}.`);
  } else if (["n_plus_one", "chain"].includes(finding.kind)) said.push(`It ran ${count(e.n)} times; no SELECT before it explains how often.`);
  else said.push(`It ran ${count(e.n)} times in one request or job.`);
  said.push(`About ${plural(Math.min(e.distinct_values, e.n), "different value")} in ${plural(e.n, "execution")}; ${plural(e.rows, "row")} in all${e.empty ? `, ${count(e.empty)} without a row` : ""}.`);
  const loop = e.timeline.find((step) => step.role === "loop");
  if (loop && loop.executions >= e.n * 2) said.push(`The timeline holds ${count(loop.executions)} executions, as the loop ran about ${Math.round(loop.executions / e.n)} times in this unit of work.`);
  if (e.exact_repeats) said.push(`${plural(e.exact_repeats, "execution repeats", "executions repeat")} another with the same values, and nothing was written in between.`);
  if (e.after_pause) said.push(`${plural(e.after_pause, "execution")} came after a pause of the client.`);
  if (e.after_write) said.push(`${plural(e.after_write, "execution")} came after a write.`);
  said.push(e.sure_boundary ? "Where the request began is certain." : "Where the request began is inferred from the connection's pauses; route tags make it certain.");
  return h("ul", null, said.map((sentence) => h("li", null, sentence)));
}

const statement = (text, title) =>
  h("section", null, h("h3", null, title, " ", h("a", { class: "small", href: place("queries", text.fingerprint) }, "its numbers")),
    text.text ? snippet(sqlLines(text.text), title) : h("p", { class: "faint" }, "Its text has been pushed out by newer ones."));

/** One finding. */
export const one = {
  title: "Finding",
  every: 15,
  back: "#/findings",
  async load([id], signal) {
    const [finding, status] = await Promise.all([get(`findings/${encodeURIComponent(id)}`, {}, signal), get("status", {}, signal)]);
    return { finding, now: status.at_unix_seconds };
  },
  paint({ finding, now }) {
    const e = finding.example;
    const names = new Map([...(finding.parent ? [finding.parent] : []), ...finding.statements].map((text) => [text.fingerprint, text.text]));
    const describe = (step) => {
      const text = names.get(step.fingerprint);
      return h("a", { href: place("queries", step.fingerprint), title: text }, text ? `${/^\w+/.exec(text)?.[0] ?? ""} ${tableOf(text) ?? ""}` : "statement", " ", h("code", null, step.fingerprint.slice(0, 8)));
    };
    return [
      h("p", { class: "small" }, badge(finding), " ", h("span", { class: "faint" }, RELATIONS[finding.relation] ?? words(finding.relation))),
      h("h1", { tabindex: "-1" }, h("span", { class: "kind" }, kindName(finding.kind)), " ", headline(finding)),
      h("p", { class: "where" }, where(finding, true), finding.application && finding.route && h("span", { class: "faint" }, `, application ${finding.application}`)),
      facts(
        ["lost each time, at least", jump(e ? "burst" : "statements", time(perBurst(finding))), "time that batching would have saved; the true gain is more"],
        ["executions each time", jump(e ? "burst" : "statements", range(finding))], ["seen", plural(finding.bursts, "time")],
        ["statements in all", jump("statements", count(finding.queries))],
        ["lost in all, at least", time(finding.avoidable_floor_seconds)],
        ["first seen", h("span", { title: clock(finding.first_seen_unix_seconds) }, ago(finding.first_seen_unix_seconds, now))],
        ["seen last", h("span", { title: clock(finding.last_seen_unix_seconds) }, ago(finding.last_seen_unix_seconds, now))]),
      h("section", { class: "advice" }, h("h2", null, "What to change"), h("p", null, sentence(finding.advice)),
        finding.mend && snippet(finding.mend, "the change"), finding.mend && h("p", { class: "faint small" }, NAMES)),
      e && h("section", { id: "burst", tabindex: "-1" }, h("h2", null, "One burst as it ran"),
        h("p", { class: "faint small" }, `${clock(e.at_unix_seconds)}: ${plural(e.n, "execution")} in ${time(e.span_seconds)}, of which batching would have saved at least ${time(e.avoidable_floor_seconds)}.`),
        timeline(e.timeline, describe)),
      e && h("section", null, h("h2", null, "Evidence"), evidence(finding)),
      h("section", { id: "statements", tabindex: "-1" }, h("h2", null, "Statements"), finding.parent && statement(finding.parent, "The list that is looped over"),
        finding.statements.map((text, at) => statement(text, finding.statements.length > 1 ? `The loop's statement ${at + 1}` : "The loop's statement"))),
      h("p", { class: "faint small" }, `Finding ${finding.id}, the same on every instance and after every restart.`),
    ];
  },
};
