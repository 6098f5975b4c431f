// Before and after: two windows of the history side by side.

import { get } from "./api.js";
import { headline } from "./findings.js";
import { ago, clock, count, empty, h, mean, place, plural, time } from "./dom.js";

const DAY = 86400;
const WINDOWS = [[300, "5 minutes"], [900, "15 minutes"], [3600, "1 hour"], [21600, "6 hours"], [DAY, "1 day"]];
const PRESETS = [["the hour before", 3600, 3600], ["this hour yesterday", DAY, 3600], ["the day before", DAY, DAY], ["five minutes ago", 300, 300]];

/** The value of a field for local date and time. */
const local = (unix) => new Date((unix - new Date(unix * 1000).getTimezoneOffset() * 60) * 1000).toISOString().slice(0, 16);
const unix = (text) => (text ? new Date(text).getTime() / 1000 : null);

const LINES = [
  ["avoidable_floor_seconds_per_hour", "lost by loops, at least, an hour", time],
  ["queries_per_request", "queries of a request", mean], ["db_seconds_per_request", "time at the server of a request", time],
  // A loop that is mended leaves fewer statements, each of which does more.
  ["mean_seconds", "mean time of a statement", time, true], ["requests_per_hour", "requests an hour", count, true], ["calls_per_hour", "statements an hour", count, true],
  ["errors_per_hour", "failed an hour", mean],
];

const signed = (seconds) => (seconds > 0 ? `+${time(seconds)}` : time(seconds));

/** A change in words and colour; `neutral`: more is neither better nor worse. */
function change(before, after, neutral, empty) {
  if (empty || before === null || after === null) return h("span", { class: "faint" }, "–");
  if (!before && !after) return h("span", { class: "faint" }, "same");
  if (!before) return h("span", { class: neutral ? null : "worse" }, neutral ? "new" : "new, worse");
  const part = after / before - 1;
  if (Math.abs(part) < 0.005) return h("span", { class: "faint" }, "same");
  const text = part > 1 ? `× ${mean(after / before)}` : `${part > 0 ? "+" : "−"}${Math.abs(part * 100).toFixed(Math.abs(part) < 0.1 ? 1 : 0)} %`;
  return h("span", { class: neutral ? null : part < 0 ? "better" : "worse" }, text, !neutral && (part < 0 ? " better" : " worse"));
}

const row = (cells, key) => h("tr", { role: "row", "data-row": key }, cells.map(([label, content, main]) => h("td", { role: "cell", class: main ? "main" : "number", "data-label": label }, content)));

function grid(caption, heads, rows) {
  return h("table", { role: "table" }, h("caption", { class: "hidden" }, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads.map((label, at) => h("th", { role: "columnheader", scope: "col", class: at ? "number" : "main" }, label)))),
    h("tbody", { role: "rowgroup" }, rows));
}

/** Sides of which nothing can be said, or of which there is nothing to say: beside them tables would only look like numbers. */
const silent = ({ before, after }) => [["before", before], ["after", after]].filter(([, side]) => !side.known_seconds || !side.calls_per_hour).map(([name]) => name);

/** Findings by name, a few of them. */
const some = (found, names) => `${found.slice(0, 3).map((f) => names.get(f.finding) ?? f.finding).join("; ")}${found.length > 3 ? `; and ${found.length - 3} more` : ""}`;

/** What it comes to, in words. */
function summary({ before, after, findings }, names) {
  if (!before.known_seconds || !after.known_seconds) {
    const missing = before.known_seconds ? "after" : "before";
    return ["warning", `Nothing is known of the window ${missing}: choose others. The history begins when pgsluice starts, unless history_file is set.`];
  }
  const gone = findings.filter((f) => f.before_bursts_per_hour > 0 && !f.after_bursts_per_hour);
  const fresh = findings.filter((f) => !f.before_bursts_per_hour && f.after_bursts_per_hour > 0);
  const [a, b] = [before.db_seconds_per_request, after.db_seconds_per_request];
  const nothing = silent({ before, after });
  if (nothing.length) return ["warning", `Nothing ran in ${nothing.length > 1 ? "either window" : `the window ${nothing[0]}`}: no statement came, so there is nothing to compare. Choose other windows.`];
  const requests = Math.round(Math.min(...[before, after].map((side) => (side.requests_per_hour * side.known_seconds) / 3600)));
  const few = requests < 30 ? ` Only ${plural(requests, "request")} on one side: too few to be sure.` : "";
  const better = b < a * 0.98;
  const worse = b > a * 1.02;
  return [few ? "" : better ? "good" : worse ? "critical" : "", `${better ? "Yes, it helped" : worse ? "No, it became worse" : "It made no difference"}: a request takes ${time(b)} at the server, after ${time(a)} before, and runs ${mean(after.queries_per_request)} queries, after ${mean(before.queries_per_request)}. `
    + `${gone.length ? `Gone: ${some(gone, names)}. ` : "No finding has gone. "}${fresh.length ? `New: ${some(fresh, names)}.` : "None is new."}${few}`];
}

export const list = {
  title: "Before / after",
  every: 30,
  needs: "compare",
  async load(_, signal, { state }) {
    const now = Date.now() / 1000;
    const known = await get("history", { limit: 1 }, signal);
    const since = known.items[0]?.from_unix_seconds;
    // At first the longest comparison whose both sides are known.
    const long = since ? now - since : 0;
    if (!state.window) Object.assign(state, long > DAY + 3600 ? { back: DAY, window: 3600 } : long > 2 * 3600 ? { back: 3600, window: 3600 } : { back: 300, window: 300 });
    state.show();
    const to = state.to ?? null;
    const from = state.from ?? (to ?? now) - (state.back ?? 3600);
    const [compared, findings] = await Promise.all([get("compare", { from: Math.round(from), to: to && Math.round(to), window_seconds: state.window }, signal),
      get("findings", { limit: 1000 }, signal)]);
    return { compared, since, names: new Map(findings.items.map((f) => [f.id, `${f.route ? `${f.route}: ` : ""}${headline(f)}`])) };
  },
  tools(state, again, read) {
    const now = Date.now() / 1000;
    const from = h("input", { type: "datetime-local", value: local(state.from ?? now - (state.back ?? 3600)) });
    const to = h("input", { type: "datetime-local", value: state.to ? local(state.to) : null });
    const size = h("select", null, WINDOWS.map(([seconds, label]) => h("option", { value: seconds, selected: seconds === (state.window ?? 3600) }, label)));
    state.show = () => { if (document.activeElement?.type === "datetime-local") return; from.value = local(state.from ?? Date.now() / 1000 - (state.back ?? 3600)); to.value = state.to ? local(state.to) : ""; size.value = state.window ?? 3600; };
    const set = () => { state.from = unix(from.value); state.to = unix(to.value); state.window = Number(size.value); read(); };
    for (const field of [from, to, size]) field.addEventListener("change", set);
    const preset = ([label, back, window]) => h("button", { type: "button", onclick: () => {
      Object.assign(state, { from: null, to: null, back, window });
      state.show();
      read();
    } }, label);
    return [h("span", { class: "presets" }, h("span", null, "Now, beside "), PRESETS.map(preset)),
      h("label", null, "or: before ", from), h("label", null, "after (empty: now) ", to), h("label", null, "each the last ", size)];
  },
  paint({ compared: c, since, names }) {
    const [grade, sentence] = summary(c, names);
    const side = (s) => `${clock(s.from_unix_seconds).slice(0, 16)} to ${clock(s.to_unix_seconds).slice(11, 16)}${s.known_seconds < (s.to_unix_seconds - s.from_unix_seconds) * 0.98 ? `, ${time(s.known_seconds)} of it known` : ""}`;
    const heads = (first) => [first, "before", "after", "change"];
    const findings = c.findings.map((f) => row([["finding", h("a", { class: "open", href: place("findings", f.finding) }, names.get(f.finding) ?? f.finding), true],
      ["before", `${mean(f.before_bursts_per_hour)}/h`], ["after", `${mean(f.after_bursts_per_hour)}/h`],
      ["change", h("span", { class: f.change_seconds_per_hour < 0 ? "better" : f.change_seconds_per_hour > 0 ? "worse" : "faint" }, !f.after_bursts_per_hour ? "gone, " : !f.before_bursts_per_hour ? "new, " : "", `${signed(f.change_seconds_per_hour)} an hour`)]], f.finding));
    const statements = c.statements.slice(0, 50).map((q) => row([["statement", h("a", { class: "open sql", href: place("queries", q.fingerprint), title: q.text }, (q.text ?? q.fingerprint).slice(0, 200)), true],
      ["before", [`${mean(q.before_calls_per_hour)}/h, ${time(q.before_mean_seconds)}`]], ["after", `${mean(q.after_calls_per_hour)}/h, ${time(q.after_mean_seconds)}`],
      ["change", h("span", { class: q.change_seconds_per_hour < 0 ? "better" : q.change_seconds_per_hour > 0 ? "worse" : "faint" }, `${signed(q.change_seconds_per_hour)} an hour`)]], `${q.fingerprint} ${q.database}`));
    return [
      h("p", { class: `verdict ${grade}` }, sentence, since && ` The history goes back to ${clock(since).slice(0, 16)} (${ago(since, Date.now() / 1000)}).`),
      h("p", { class: "faint small" }, `Before: ${side(c.before)}. After: ${side(c.after)}.`),
      ...(silent(c).length ? [] : [
      h("h2", null, "The whole"), grid("The whole", heads("what"), LINES.map(([name, label, show, neutral]) => row([["what", label, true], ["before", show(c.before[name])], ["after", show(c.after[name])], ["change", change(c.before[name], c.after[name], neutral, !neutral && !(c.before.calls_per_hour && c.after.calls_per_hour))]], name))),
      h("h2", null, "Findings"), findings.length ? grid("Findings", heads("finding"), findings) : h("p", { class: "faint" }, "None in either window."),
      h("h2", null, "Statements"), statements.length ? grid("Statements", heads("statement"), statements) : empty("No statement in either window"),
      c.statements.length > 50 && h("p", { class: "faint" }, `The 50 greatest changes of ${count(c.statements.length)}.`)]),
    ];
  },
};
