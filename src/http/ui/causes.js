// What to mend, ranked by the time an hour that it gives back.

import { get } from "./api.js";
import { count, empty, h, place, plural, routeName, sentence, snippet, sqlLines, time } from "./dom.js";
import { kindName } from "./findings.js";
import { filter, matches } from "./table.js";

const rate = (cause) => `${cause.basis === "floor" ? "at least " : "about "}${time(cause.recoverable_seconds_per_hour)}`;

const unit = (name, value) => {
  for (const [ending, show] of [["_seconds", time], ["_us", (us) => time(us / 1e6)], ["_seconds_per_hour", (x) => `${time(x)} an hour`]]) {
    if (name.endsWith(ending)) return [name.slice(0, -ending.length), show(value)];
  }
  return [name, typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(3))) : count(value)];
};

function item(cause, top) {
  const made = [
    cause.finding && h("a", { href: place("findings", cause.finding) }, "the finding"),
    cause.fingerprint && h("a", { href: place("queries", cause.fingerprint) }, "the statement"),
    ["pool_too_small", "connection_overhead", "idle_in_transaction"].includes(cause.kind) && h("a", { href: "#/pools" }, "the pools"),
  ].filter(Boolean);
  const share = top > 0 ? Math.max(1, (cause.recoverable_seconds_per_hour / top) * 100) : 0;
  const meter = h("meter", { min: 0, max: 100, value: share.toFixed(1), "aria-label": `${share.toFixed(0)} percent of the greatest` });
  return h("li", { class: "card", "data-row": cause.id },
    h("div", { class: "what" },
      h("a", { class: "open", href: cause.finding ? place("findings", cause.finding) : place("causes", cause.id) }, h("span", { class: "kind" }, kindName(cause.kind)), " ", sentence(cause.evidence)),
      h("p", { class: "where" }, cause.routes.length ? cause.routes.map((route) => [h("a", { class: "route", href: place("routes", cause.database, route) }, routeName(route)), " "]) : null,
        `in ${cause.database}`, cause.user && `, user ${cause.user}`),
      h("p", null, sentence(cause.mend)),
      cause.code && snippet(cause.code, "the change"),
      h("details", { "data-key": `more-${cause.id}` }, h("summary", null, "What it is made of"),
        h("dl", { class: "facts" }, Object.entries(cause.numbers).map(([name, value]) => {
          const [label, text] = unit(name, value);
          return h("div", null, h("dt", null, label.replaceAll("_", " ")), h("dd", null, text));
        })),
        cause.text && snippet(sqlLines(cause.text), "the statement"),
        h("p", { class: "faint small" }, `Rates are of the last ${time(cause.window_seconds)}. `, made.length > 0 && ["More: ", made.map((link, at) => [at ? ", " : "", link])]))),
    h("div", { class: "cost" }, h("div", { class: "big" }, rate(cause)), h("small", null, "of each hour"), meter,
      h("span", { class: "badge" }, cause.basis === "floor" ? "floor" : "estimate"), cause.probable && h("span", { class: "badge warning", title: "Look at it before you act" }, "probable")));
}

export const list = {
  title: "Causes",
  every: 15,
  needs: "causes",
  load: (_, signal) => get("causes", { limit: 200 }, signal),
  tools: (state, again) => [filter(state, again, "Filter: kind, route, table")],
  paint(causes, { state }) {
    if (!causes.total) {
      return empty("No cause yet", h("p", null, "A cause is counted from the load of the last half to whole hour. ", h("a", { href: "#/findings" }, "Findings"), " appear earlier, a moment after the request."));
    }
    const top = Math.max(...causes.items.map((cause) => cause.recoverable_seconds_per_hour));
    const shown = causes.items.filter((c) => matches(state, kindName(c.kind), c.kind, c.evidence, c.routes, c.database, c.mend, c.text ?? ""));
    return [
      h("p", { class: "lead" }, `${plural(causes.total, "cause")}, ranked by the time that the database, or a page that waits for it, gets back in every hour. Causes may overlap: mend from the top and look again.`),
      shown.length ? h("ol", { class: "cards" }, shown.map((cause) => item(cause, top))) : empty("No cause fits the filter", h("p", null, "Esc empties it.")),
    ];
  },
};

export const one = {
  title: "Cause",
  every: 15,
  needs: "causes",
  back: "#/causes",
  load: ([id], signal) => get(`causes/${encodeURIComponent(id)}`, {}, signal),
  paint: (cause) => [h("h1", { tabindex: "-1" }, kindName(cause.kind)), h("ol", { class: "cards" }, item(cause, cause.recoverable_seconds_per_hour))],
};
