// Where one is (`#/place/part`), what is read when, keys, login. Nothing is asked while the tab is hidden.

import { Failure, get, has, token } from "./api.js";
import * as causes from "./causes.js";
import * as compare from "./compare.js";
import { bytes, count, empty, h, plural, say, time } from "./dom.js";
import * as findings from "./findings.js";
import * as pools from "./pools.js";
import * as queries from "./queries.js";
import * as routes from "./routes.js";

const PLACES = Object.entries({ findings, causes, queries, routes, pools, compare }).filter(([, place]) => !place.list.needs || has(place.list.needs));
const $ = (id) => document.getElementById(id);
const main = $("content");
/** What a list was sorted and filtered by, kept while one looks elsewhere. */
const states = new Map();
let here = null;
let timer;
let reading = null;

function parse() {
  const [name, ...parts] = location.hash.replace(/^#\/?/, "").split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  const known = PLACES.find(([place]) => place === name) ?? PLACES[0];
  const [place, module] = known;
  const single = parts.length > 0 && module.one;
  return { name: place, view: single ? module.one : module.list, parts: single ? parts : [] };
}

/** Goes where the address says. */
function go() {
  const { name, view, parts } = parse();
  const id = [name, ...parts].join("/");
  if (!states.has(id)) states.set(id, {});
  // One place after another would otherwise be remembered for ever.
  if (states.size > 200) states.delete(states.keys().next().value);
  const first = here === null;
  here = { id, name, view, parts, state: states.get(id), data: null, first };
  here.again = ((me) => () => here === me && paint())(here);
  const links = $("places").querySelectorAll("a");
  for (const link of links) {
    if (link.dataset.place === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${view.title} · pgsluice`;
  const tools = view.tools ? h("div", { class: "tools", role: "search", "aria-label": view.title }, view.tools(here.state, here.again, () => read())) : null;
  const body = h("div", { id: "body" });
  if (!first) body.append(h("p", { class: "faint waiting" }, "Reading…"));
  const title = h("h1", { tabindex: "-1", class: tools ? null : "hidden" }, view.title);
  main.replaceChildren(...[view.back && h("p", { class: "back" }, h("a", { href: view.back }, "← All")), (tools || !view.back) && title, tools, body].filter(Boolean));
  if (!first) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
  read();
}

/** Reads what is shown here, and paints it; then again after a while. */
async function read() {
  clearTimeout(timer);
  reading?.abort();
  const me = here;
  const controller = (reading = new AbortController());
  main.setAttribute("aria-busy", "true");
  try {
    const data = await me.view.load(me.parts, controller.signal, me);
    if (here !== me) return;
    me.data = data;
    trouble(null);
    tools(true);
    paint();
    live(`live, every ${me.view.every} s`);
  } catch (error) {
    if (here !== me || error.name === "AbortError") return;
    failed(error);
    if (error.status === 401 || error.status === 403) return;
  } finally {
    if (reading === controller) main.removeAttribute("aria-busy");
  }
  if (!document.hidden) timer = setTimeout(read, me.view.every * 1000);
}

/** Paints the data; focus and place on the page stay. */
function paint() {
  if (!here.data) return;
  const body = $("body");
  if (!body) return;
  // A text that is being selected is not taken away.
  const selection = getSelection();
  if (here.painted && !selection.isCollapsed && body.contains(selection.anchorNode)) return;
  const active = document.activeElement;
  const row = active?.closest?.("[data-row]")?.dataset.row;
  const key = active?.dataset?.key;
  const open = [...body.querySelectorAll("details[open]")].map((detail) => detail.dataset.key);
  body.replaceChildren(...[here.view.paint(here.data, here)].flat(Infinity).filter((node) => node !== null && node !== undefined && node !== false));
  for (const detail of body.querySelectorAll("details")) detail.open = open.includes(detail.dataset.key);
  here.painted = true;
  if (active && !active.isConnected) {
    const again = key ? body.querySelector(`[data-key="${CSS.escape(key)}"]`) : row ? openerOf(body.querySelector(`[data-row="${CSS.escape(row)}"]`)) : null;
    again?.focus({ preventScroll: true });
  }
}

function live(text) {
  $("live").textContent = text;
}

function trouble(text) {
  const line = $("trouble");
  if (text && line.textContent !== text) line.textContent = text;
  line.hidden = !text;
}

/** What went wrong, and what helps. */
function failed(error) {
  live("");
  if (error.status === 401) return login(token.get() ? "That token is not right." : "");
  if (error.status === 403) {
    $("body").replaceChildren(empty("Only from this host",
      h("p", null, "Without a token pgsluice shows statements only over the loopback. Set one and read the page again:"),
      h("pre", { class: "code" }, "http_token_file = \"/run/secrets/pgsluice-http\"   # or PGSLUICE_HTTP_TOKEN_FILE"),
      h("p", null, "Or come through a tunnel: ", h("code", null, `ssh -L 9127:127.0.0.1:${location.port || 80} ${location.hostname}`), ", then open localhost:9127 here.")));
    return undefined;
  }
  if (error.status === 404 && here.view.back) {
    $("body").replaceChildren(empty("It is not here (any more)", h("p", null, `${error.message}. What has not been seen for long gives way to newer ones, and a restart forgets.`), h("p", null, h("a", { href: here.view.back }, "All that is known"))));
    return undefined;
  }
  if (!(error instanceof Failure)) console.error(error);
  const what = error.status === 0 ? "pgsluice does not answer: it has ended, or the way to it is cut." : `pgsluice answers ${error.status ?? "something unforeseen"}: ${error.message}.`;
  trouble(`${what} ${here.painted ? "What is shown is old." : ""} The next try is in ${here.view.every} s; r tries now.`);
  if (!here.painted) $("body").replaceChildren();
  return undefined;
}

/** Filters are of no use where nothing is shown. */
function tools(shown) {
  const bar = main.querySelector(".tools");
  if (bar) bar.hidden = !shown;
}

function login(wrong) {
  token.forget();
  tools(false);
  const field = h("input", { type: "password", id: "token", autocomplete: "current-password", required: true, "aria-describedby": "token-note" });
  const form = h("form", { class: "login", onsubmit: (event) => {
    event.preventDefault();
    token.set(field.value);
    say("Reading");
    read().then(() => about());
  } }, h("h2", null, "This pgsluice asks for its token"), wrong && h("p", { class: "worse", role: "alert" }, wrong),
  h("label", { for: "token" }, "Token"), field, h("button", null, "Show"),
  h("p", { id: "token-note", class: "faint small" }, "The value of http_token, or what is in http_token_file. It is kept until this tab is closed, and sent to this pgsluice only."));
  $("body").replaceChildren(form);
  field.focus();
}

/** The process and what insight itself costs, once a minute. */
async function about() {
  if (document.hidden) return;
  try {
    const status = await get("status");
    const memory = Object.values(status.insight.memory_bytes).reduce((sum, n) => sum + n, 0);
    const left = status.insight.dropped_fingerprints;
    $("about").replaceChildren(...[`pgsluice ${status.version}, up ${time(status.uptime_seconds)}, ${plural(status.clients, "client")}`, status.draining && " · draining",
      ` · insight: ${count(status.insight.fingerprints)} statements remembered, ${time(status.insight.cpu_seconds)} of CPU, ${bytes(memory)}`, left > 0 && `, ${count(left)} dropped for lack of room`,
      token.get() && [" · ", h("button", { type: "button", class: "link", onclick: () => { token.forget(); location.reload(); } }, "forget the token")]].flat().filter(Boolean));
  } catch {
    // The page itself says what is wrong.
  }
}

// === Keys ===

const openerOf = (row) => (row ? row.querySelector("a.open, a, summary, button") ?? ((row.tabIndex = -1), row) : null);

function step(by) {
  const rows = [...main.querySelectorAll("[data-row]")];
  const at = rows.indexOf(document.activeElement?.closest("[data-row]"));
  const next = rows[at < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, at + by))];
  const opener = openerOf(next);
  opener?.focus({ preventScroll: true });
  next?.scrollIntoView({ block: "nearest" });
}

function escape() {
  const field = $("filter");
  if (field && (document.activeElement === field || here.state.filter)) {
    if (field.value) {
      field.value = "";
      here.state.filter = "";
      here.again();
    }
    field.blur();
    main.focus({ preventScroll: true });
  } else if (here.view.back) location.hash = here.view.back;
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (event.key === "Escape") return escape();
  if (event.target.closest("input, select, textarea")) return;
  const at = "123456789".indexOf(event.key);
  const keys = {
    j: () => step(1), k: () => step(-1), r: () => read(), "?": () => $("help").showModal(),
    "/": () => $("filter")?.focus(),
  };
  const action = keys[event.key] ?? (at >= 0 && PLACES[at] ? () => (location.hash = `#/${PLACES[at][0]}`) : null);
  if (!action) return;
  event.preventDefault();
  action();
}

$("places").append(...PLACES.map(([name, place]) => h("li", null, h("a", { href: `#/${name}`, "data-place": name }, place.list.title))));
$("keys").addEventListener("click", () => $("help").showModal());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("keydown", pressed);
// A click anywhere on a row opens it, as its link does.
main.addEventListener("click", (event) => {
  if (event.target.closest("a, button, input, select, summary, details, pre, label") || !getSelection().isCollapsed) return;
  event.target.closest("[data-row]")?.querySelector("a.open")?.click();
});
addEventListener("hashchange", go);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(timer);
    live("paused");
  } else {
    read();
    about();
  }
});
setInterval(about, 60_000);
go();
about();
