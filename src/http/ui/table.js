// A table that sorts by its columns and grows by pages: thousands of rows cost as little as the first hundred.

import { count, h } from "./dom.js";

const PAGE = 100;
const collator = new Intl.Collator("en", { numeric: true });

function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return -1;
  if (b === null || b === undefined) return 1;
  return typeof a === "number" ? a - b : collator.compare(a, b);
}

/**
 * `columns`: { key, label, hint, value(row), cell(row), number, main, wide }: `value` is what is sorted by, `cell` what is
 * shown; `main` takes the whole width on a phone, `wide` is left out there. `state` keeps { sort, down, shown } over
 * repaints, `again` repaints. `key(row)` must be unique: the focus stays with it.
 */
export function table({ caption, columns, rows, key, state, again, note }) {
  state.shown ??= PAGE;
  const by = columns.find((column) => column.key === state.sort);
  const sorted = by ? rows.map((row) => [by.value(row), row]).sort(([a], [b]) => (state.down ? compare(b, a) : compare(a, b))).map(([, row]) => row) : rows;
  const shown = sorted.slice(0, state.shown);
  const head = columns.map((column) => {
    const active = by === column;
    const sort = () => {
      state.down = active ? !state.down : Boolean(column.number);
      state.sort = column.key;
      state.shown = PAGE;
      again();
    };
    const label = column.value
      ? h("button", { type: "button", "data-key": `sort-${column.key}`, onclick: sort, title: column.hint }, column.label,
        h("span", { class: "arrow", "aria-hidden": "true" }, active ? (state.down ? " ▼" : " ▲") : ""))
      : column.label;
    return h("th", {
      role: "columnheader", scope: "col", class: classes(column), title: column.hint,
      "aria-sort": active ? (state.down ? "descending" : "ascending") : column.value ? "none" : null,
    }, label);
  });
  const body = shown.map((row) =>
    h("tr", { role: "row", "data-row": key(row) }, columns.map((column) =>
      h("td", { role: "cell", class: classes(column), "data-label": column.label }, column.cell(row)))));
  const rest = sorted.length - shown.length;
  const more = rest > 0 && h("p", { class: "more" },
    h("button", { type: "button", "data-key": "more", onclick: () => { state.shown += PAGE; again(); } }, `Show ${count(Math.min(rest, PAGE))} more`),
    ` ${count(shown.length)} of ${count(sorted.length)} are shown`);
  return [
    h("table", { role: "table", "aria-rowcount": sorted.length + 1 },
      h("caption", { class: "hidden" }, caption),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)),
      h("tbody", { role: "rowgroup" }, body)),
    more, note,
  ];
}

const classes = (column) => [column.number && "number", column.main && "main", column.wide && "wide"].filter(Boolean).join(" ") || null;

/** The field that filters a list; it stays while the list is painted again. */
export function filter(state, again, label) {
  let timer;
  const input = h("input", {
    type: "search", id: "filter", placeholder: label, "aria-label": label, autocomplete: "off", spellcheck: "false", value: state.filter || null,
    oninput: () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        state.filter = input.value;
        state.shown = PAGE;
        again();
      }, 80);
    },
  });
  return input;
}

/** Whether every word of the filter is in one of the texts. */
export function matches(state, ...texts) {
  const wanted = (state.filter ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  if (!wanted.length) return true;
  const text = texts.flat().join(" ").toLowerCase();
  return wanted.every((word) => text.includes(word));
}
