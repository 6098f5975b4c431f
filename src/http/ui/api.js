// Requests to the JSON API (docs/api.md), with the token when there is one.

const KEY = "pgsluice-token";
const known = new Set(document.querySelector("meta[name=api-endpoints]").content.split(" "));

/** Whether this pgsluice has an endpoint. */
export const has = (endpoint) => known.has(endpoint);

/** Why there is no answer; status 0 when nobody answers. */
export class Failure extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** The JSON at a path behind /api/v1/. */
export async function get(path, parameters = {}, signal) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null));
  const url = `api/v1/${path}${query.size ? `?${query}` : ""}`;
  const headers = { Accept: "application/json" };
  const secret = token.get();
  // Bytes of UTF-8, which is what the server compares.
  if (secret) headers.Authorization = `Bearer ${String.fromCharCode(...new TextEncoder().encode(secret))}`;
  let response;
  try {
    // Without credentials the browser asks for no password of its own.
    response = await fetch(url, { headers, signal, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, "pgsluice does not answer");
  }
  if (response.ok) return response.json();
  const text = await response.text();
  let message = text.trim();
  try {
    message = JSON.parse(text).error ?? message;
  } catch {
    // Plain text says it as well.
  }
  throw new Failure(response.status, message);
}

/** Every item of a list, a thousand at a time; `some` is called with those that have come. */
export async function all(path, parameters, signal, some = () => {}) {
  const items = [];
  for (;;) {
    const page = await get(path, { ...parameters, limit: 1000, offset: items.length }, signal);
    items.push(...page.items);
    some(items);
    if (!page.items.length || items.length >= page.total) return items;
  }
}
