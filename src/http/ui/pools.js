// Pools: whether they are large enough, who holds what, who is pinned and why.

import { get } from "./api.js";
import { count, empty, facts, h, jump, place, plural, sentence, snippet, time } from "./dom.js";
import { filter, matches } from "./table.js";

const key = (pool) => `${pool.database} ${pool.user}`;
const held = (pool) => pool.holders.length;
// Held longer than this without running anything, a server is kept from others.
const LONG = 1;

/** What happened since an earlier look; since the start of the process when there was none. */
function since(pool, before, now, uptime) {
  const seconds = before ? Math.max(0.001, now - before.at) : uptime;
  const old = before?.pools.get(key(pool));
  const growth = (name) => pool[name] - (old?.[name] ?? 0);
  const assignments = growth("assignments");
  return {
    seconds, assignments, queries: growth("queries"), timeouts: growth("wait_timeouts"),
    wait: assignments ? growth("wait_total_seconds") / assignments : 0,
    busy: growth("held_total_seconds") / seconds,
  };
}

const busy = (recent) => (recent.busy < 0.1 ? "<0.1" : recent.busy.toFixed(1));

/** How long clients wait for a server, in words: what says whether there are enough. */
const waits = (pool) => (pool.wait_p95_seconds ? `95 of 100 times a server came within ${time(pool.wait_p95_seconds)}` : "95 of 100 times a server came at once");

/** Whether the pool is too small, in words: what is now, then what was. */
function verdict(pool, recent) {
  const idlers = pool.holders.filter((holder) => holder.state !== "running" && holder.state_seconds >= LONG);
  const names = [...new Set(idlers.map((holder) => holder.application || "a client without a name"))];
  const who = names.length > 3 ? `${names.slice(0, 3).join(", ")} and others` : names.join(", ");
  const blame = idlers.length ? ` But ${who} ${idlers.length > 1 ? "hold" : "holds"} ${plural(idlers.length, "server")} without running anything` : "";
  const first = blame && `${blame}: mend that first.`;
  if (pool.clients_waiting) {
    return ["critical", `Too small now: ${plural(pool.clients_waiting, "client waits", "clients wait")}, the longest for ${time(pool.longest_wait_seconds)}; ${held(pool)} of ${pool.size} servers are held. Since the start ${waits(pool)}.${first}`];
  }
  if (recent.timeouts > 0) return ["critical", `Too small: ${plural(recent.timeouts, "client")} gave up waiting in the last ${time(recent.seconds)}; since the start ${waits(pool)}.${first}`];
  if (pool.wait_p95_seconds > 0.01) {
    return ["warning", `Tight: 5 of 100 assignments waited ${time(pool.wait_p95_seconds)} or longer since the start; ${busy(recent)} of ${pool.size} servers are busy on average.${first}`];
  }
  if (pool.wait_timeouts) return ["warning", `Large enough now: ${waits(pool)}. But since the start ${plural(pool.wait_timeouts, "client")} gave up waiting.${first}`];
  return ["good", `Large enough: ${waits(pool)}; ${busy(recent)} of ${pool.size} are busy on average.${blame && `${blame}.`}`];
}

function slots(pool) {
  const kinds = [["held", held(pool)], ["idle", pool.servers_idle], ["other", pool.servers_cleaning + pool.servers_opening]];
  const used = kinds.reduce((sum, [, n]) => sum + n, 0);
  const all = [...kinds, ["free", Math.max(0, pool.size - used)]];
  if (pool.size > 60) return null;
  return h("div", { class: "slots", role: "img", "aria-label": `${held(pool)} servers held, ${pool.servers_idle} idle, ${pool.size} at most` },
    all.flatMap(([kind, n]) => Array.from({ length: n }, () => h("span", { class: kind }))));
}

/** Who lets a transaction idle, by name. */
function idlers(pool) {
  const idle = pool.holders.filter((holder) => holder.state.startsWith("idle in transaction"));
  if (!idle.length) return h("p", { class: "faint small" }, "Nobody is idle in a transaction.");
  const one = (holder) => `${holder.application || `client ${holder.client_id}`}${holder.route ? ` in ${holder.route}` : ""} for ${time(holder.state_seconds)}`;
  return h("p", { class: "idlers" }, h("b", null, "Idle in transaction: "), `${idle.slice(0, 5).map(one).join(", ")}${idle.length > 5 ? ` and ${idle.length - 5} more` : ""}. `,
    "Each keeps a server from others, and its locks.");
}

function holders(pool, pins) {
  if (!pool.holders.length) return h("p", { class: "faint" }, "Nobody holds a server at this moment.");
  const cell = (label, number, ...content) => h("td", { role: "cell", class: number ? "number" : null, "data-label": label }, content);
  const heads = [["application", false], ["route", false], ["state", false], ["for", true], ["transaction", true], ["client", true], ["server pid", true]];
  return h("table", { role: "table" }, h("caption", { class: "hidden" }, `Who holds the servers of ${pool.database}, ${pool.user}`),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads.map(([label, number]) => h("th", { role: "columnheader", scope: "col", class: number ? "number" : null }, label)))),
    h("tbody", { role: "rowgroup" }, pool.holders.map((holder) => {
      const pin = pins.find((p) => p.server_id === holder.server_id && p.client_id === holder.client_id);
      return h("tr", { role: "row", "data-row": `h${holder.server_id}` },
        h("td", { role: "cell", class: "main", "data-label": "application" }, h("b", null, holder.application || "without a name"), holder.pinned && h("div", { class: "small" }, h("span", { class: "badge warning" }, "pinned"), " ", pin ? pin.reason : holder.pinned)),
        cell("route", false, holder.route ? h("a", { href: place("routes", pool.database, holder.route) }, holder.route) : h("span", { class: "faint" }, "not known")),
        cell("state", false, h("span", { class: holder.state.startsWith("idle") && holder.state_seconds >= LONG ? "late" : null }, holder.state)),
        cell("for", true, time(holder.state_seconds)), cell("transaction", true, holder.transaction_seconds === null ? "none" : time(holder.transaction_seconds)),
        cell("client", true, String(holder.client_id)), cell("server pid", true, String(holder.pid)));
    })));
}

function pinned(pins, id) {
  if (!pins.length) return null;
  return [h("h3", { id, tabindex: "-1" }, "Pinned clients"), h("p", { class: "faint small" }, "What these did lives in their server connection, so they keep it between transactions."),
    h("ul", { class: "cards" }, pins.map((pin) => h("li", { class: "card warning", "data-row": `p${pin.client_id}` }, h("div", { class: "what" },
      h("b", null, pin.application || `client ${pin.client_id}`), ` keeps server ${pin.server_id} for ${time(pin.pinned_seconds)}: ${pin.reason}.`, h("p", null, h("span", { class: "faint" }, "Mend: "), sentence(pin.mend))))))];
}

function section(pool, pins, recent) {
  const [grade, sentence] = verdict(pool, recent);
  const id = `pool-${encodeURIComponent(key(pool))}`;
  return h("section", { class: "pool", "aria-label": `Pool ${pool.database}, ${pool.user}` },
    h("h2", null, `${pool.database}`, h("span", { class: "faint" }, ` user ${pool.user}, ${pool.mode} pooling`)),
    h("p", { class: `verdict ${grade}` }, sentence), slots(pool),
    facts(
      ["clients", count(pool.clients_active + pool.clients_waiting + pool.clients_idle), `${pool.clients_active} active, ${pool.clients_waiting} waiting, ${pool.clients_idle} idle`],
      ["active, waiting, idle", `${count(pool.clients_active)}, ${count(pool.clients_waiting)}, ${count(pool.clients_idle)}`],
      ["servers held", jump(id, `${held(pool)} of ${pool.size}`), "the table below tells by whom"],
      ["servers idle", count(pool.servers_idle)],
      ["idle in transaction", pool.servers_idle_in_transaction ? jump(id, count(pool.servers_idle_in_transaction)) : 0, "servers whose client lets a transaction idle"],
      ["pinned", pool.clients_pinned ? jump(`${id}-pins`, count(pool.clients_pinned)) : 0],
      ["wait p50, p95, p99", [pool.wait_p50_seconds, pool.wait_p95_seconds, pool.wait_p99_seconds].map((wait) => (wait ? time(wait) : "none")).join(", "), "since the start; 0: a server was free at once"],
      ["mean wait, lately", time(recent.wait), `in the last ${time(recent.seconds)}, of ${count(recent.assignments)} assignments`],
      ["busy, lately", `${busy(recent)} servers`, `mean of the last ${time(recent.seconds)}: growth of the time held, which counts when a server is given back`],
      ["held p95", time(pool.held_p95_seconds), "how long a client keeps a server"],
      ["gave up waiting", count(pool.wait_timeouts)],
      ["transactions", count(pool.transactions)], ["queries", count(pool.queries)],
      ["opened", `${count(pool.server_connects)}, p50 ${time(pool.server_connect_p50_seconds)}`, "server connections opened"]),
    h("h3", { id, tabindex: "-1" }, "Who holds the servers"), pool.holders.length > 0 && idlers(pool), holders(pool, pins), pinned(pins, `${id}-pins`));
}

export const list = {
  title: "Pools",
  every: 5,
  async load(_, signal, { state }) {
    const [pools, pins, status] = await Promise.all([get("pools", { limit: 1000 }, signal), get("pins", { limit: 1000 }, signal), get("status", {}, signal)]);
    const now = pools.at_unix_seconds;
    // Against the look of about a minute ago: steadier than against the last.
    state.looks = [...(state.looks ?? []).filter((look) => now - look.at < 70), { at: now, pools: new Map(pools.items.map((pool) => [key(pool), pool])) }];
    return { pools, pins: pins.items, status, before: state.looks.length > 1 ? state.looks[0] : null };
  },
  tools: (state, again) => [filter(state, again, "Filter: database, user, application")],
  paint({ pools, pins, status, before }, { state }) {
    if (!pools.items.length) {
      return empty("No pool yet", h("p", null, "A pool is made when the first client of a database and user logs in. "), snippet(`psql "host=${location.hostname} port=${/:(\d+)$/.exec(status.listening[0] ?? "")?.[1] ?? 6432} user=app dbname=app"`, "a first client"));
    }
    const shown = pools.items.filter((pool) => matches(state, pool.database, pool.user, pool.holders.map((holder) => holder.application ?? "")));
    const waiting = pools.items.reduce((sum, pool) => sum + pool.clients_waiting, 0);
    const servers = pools.items.reduce((sum, pool) => sum + held(pool), 0);
    return [
      h("p", { class: "lead" }, `${plural(pools.items.length, "pool")}: ${plural(servers, "server")} held, ${plural(waiting, "client waits", "clients wait")}, ${plural(pins.length, "client")} pinned.`),
      shown.length ? shown.map((pool) => section(pool, pins.filter((pin) => pin.database === pool.database && pin.user === pool.user), since(pool, before, pools.at_unix_seconds, status.uptime_seconds)))
        : empty("No pool fits the filter", h("p", null, "Esc empties it.")),
    ];
  },
};
