// Two drawings: the timeline of one burst, and a sparkline. What they show is also told in text beside them.

import { count, h, plural, s, time } from "./dom.js";

/** A sparkline: one bar for each of the last 60 intervals, the newest at the right. */
export function spark(values, label) {
  const [slots, pitch, height] = [60, 1.5, 22];
  const width = slots * pitch;
  const shown = values.slice(-slots);
  const top = Math.max(...shown);
  if (!top) return h("span", { class: "faint" }, "–");
  const bars = shown.map((value, at) => {
    const tall = value && Math.max(1, (value / top) * height);
    return tall ? s("rect", { x: ((slots - shown.length + at) * pitch).toFixed(1), y: (height - tall).toFixed(1), width: pitch, height: tall.toFixed(1) }) : null;
  });
  return s("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label }, s("title", null, label),
    s("path", { d: `M0 ${height - 0.5}h${width}` }), bars);
}

const NAMES = { parent: "the list", loop: "the loop", beside: "beside it" };

/** What happened between the steps of a burst: the pauses in which no statement of it ran. */
function gaps(steps) {
  const found = [];
  let end = steps[0]?.end_us ?? 0;
  for (const step of steps) {
    if (step.start_us > end) found.push({ from: end, to: step.start_us });
    end = Math.max(end, step.end_us);
  }
  return found;
}

/** The timeline of one burst: one bar for each statement, as long as from its first execution to its last answer. */
export function timeline(steps, describe) {
  if (!steps.length) return h("p", { class: "faint" }, "No timeline was kept of this burst.");
  const begin = Math.min(...steps.map((step) => step.start_us));
  const span = Math.max(1, ...steps.map((step) => step.end_us - begin));
  const x = (us) => ((us - begin) / span) * 100;
  const bar = (step) => {
    const [left, width] = [x(step.start_us), Math.max(0.6, x(step.end_us) - x(step.start_us))];
    const busy = Math.min(1, step.server_us / Math.max(1, step.end_us - step.start_us));
    return s("svg", { class: `bar ${step.role}`, viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
      gaps(steps).map((gap) => s("rect", { class: "gap", x: x(gap.from), width: x(gap.to) - x(gap.from), y: 0, height: 10 })),
      s("rect", { class: "all", x: Math.min(left, 99.4), width, y: 1, height: 8 }),
      s("rect", { class: "busy", x: Math.min(left, 99.4), width: width * busy, y: 1, height: 8 }));
  };
  const rows = steps.map((step) => {
    const length = (step.end_us - step.start_us) / 1e6;
    const server = step.server_us / 1e6;
    return h("li", { class: step.role },
      h("div", { class: "step" }, h("strong", null, step.role === "beside" ? NAMES.beside : `${step.executions > 1 ? `${count(step.executions)} × ` : ""}${NAMES[step.role] ?? step.role}`), " ", describe(step)),
      bar(step),
      h("div", { class: "faint" },
        `starts at ${time((step.start_us - begin) / 1e6)}, ${plural(step.executions, "execution")}, ${plural(step.rows, "row")}, takes ${time(length)}: `,
        `${time(server)} at the server`, step.executions > 1 && `, ${time(Math.max(0, length - server))} between them (longest execution ${time(step.longest_us / 1e6)})`));
  });
  const idle = gaps(steps).reduce((sum, gap) => sum + gap.to - gap.from, 0) / 1e6;
  return h("div", null,
    h("ol", { class: "timeline" }, rows),
    h("p", { class: "faint legend" },
      h("span", { class: "key busy" }), "at the server ", h("span", { class: "key all" }), "network and application between executions ",
      idle > 0 && [h("span", { class: "key gap" }), `nothing of it ran (${time(idle)} in all) `], `· the whole: ${time(span / 1e6)}.`));
}
