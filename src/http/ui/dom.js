// Elements made from text, and numbers in words. Data is inserted as text nodes and attributes only.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An element: h("a", { href: "#" }, "text", other). */
export const h = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);
export const s = (tag, properties, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = (value, digits) => String(Number(value.toPrecision(digits)));

/** A count. */
export const count = (value) => (value === null || value === undefined ? "–" : grouped.format(value));

/** A mean: one digit behind the point below 100. */
export const mean = (value) => (value === null || value === undefined ? "–" : value < 100 ? short(Math.round(value * 10) / 10, 3) : count(value));

export const percent = (part) => (part < 0.001 ? "<0.1 %" : `${part < 0.1 ? (part * 100).toFixed(1) : Math.round(part * 100)} %`);

/** Seconds in the unit that suits them. */
export function time(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0) return `−${time(-seconds)}`;
  if (seconds === 0) return "0";
  if (seconds < 0.0009995) return `${short(seconds * 1e6, 3)} µs`;
  if (seconds < 0.9995) return `${short(seconds * 1e3, 3)} ms`;
  if (seconds < 120) return `${short(seconds, 3)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${short(seconds / 3600, 3)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

export const ago = (unix, now) => {
  const passed = now - unix;
  return passed < 2 ? "just now" : `${time(Math.round(passed))} ago`;
};

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  for (const unit of ["bytes", "KiB", "MiB"]) {
    if (value < 1024) return `${short(value, 3)} ${unit}`;
    value /= 1024;
  }
  return `${short(value, 3)} GiB`;
}

export const clock = (unix) =>
  new Date(unix * 1000).toLocaleString("sv", { dateStyle: "short", timeStyle: "medium" });

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** A place's address: parts are encoded. */
export const place = (...parts) => `#/${parts.map((part) => encodeURIComponent(part)).join("/")}`;

/** What a route is called. */
export const routeName = (route) => (route === null || route === undefined || route === "" ? "without a route tag" : route);

const COPY = "Copy";

/** Code with a button that copies it. */
export function snippet(text, label) {
  const code = h("pre", { class: "code", tabindex: "0", role: "group", "aria-label": label }, h("code", null, text));
  const button = h("button", { type: "button", class: "copy", "aria-label": `${COPY}: ${label}` }, COPY);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      say("Copied");
    } catch {
      // No clipboard without HTTPS on another host: select it, so that Ctrl+C does.
      getSelection().selectAllChildren(code);
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => (button.textContent = COPY), 2500);
  });
  return h("div", { class: "snippet" }, code, button);
}

/** The names and values of a description list. */
export const facts = (...pairs) =>
  h("dl", { class: "facts" }, pairs.filter(Boolean).map(([name, value, hint]) =>
    h("div", null, h("dt", { title: hint }, name), h("dd", null, value))));

/** A number that leads to the part of this page that it is made of. */
export const jump = (id, text) =>
  h("button", { type: "button", class: "link", "data-key": `jump-${id}-${text}`, onclick: () => {
    const goal = document.getElementById(id);
    goal?.scrollIntoView({ block: "start" });
    goal?.focus({ preventScroll: true });
  } }, text);

/** A sentence that begins like one. */
export const sentence = (text) => text.replace(/^./, (first) => first.toUpperCase());

/** A SQL text with its parts on lines of their own. */
export const sqlLines = (text) =>
  text.replace(/ (FROM|WHERE|(?:LEFT OUTER |INNER |LEFT |RIGHT |CROSS )?JOIN|GROUP BY|ORDER BY|HAVING|LIMIT|VALUES|SET|RETURNING|UNION) /g, "\n$1 ");

/** Said to screen readers. */
export function say(text) {
  document.getElementById("told").textContent = text;
}

/** A state in the middle of nothing: what is missing, and what to do about it. */
export const empty = (title, ...more) => h("section", { class: "empty" }, h("h2", null, title), more);
