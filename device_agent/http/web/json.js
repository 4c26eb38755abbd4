// JSON as a tree that folds, or as text where it is too large for that.

import { h } from "./dom.js";

const MOST_NODES = 2_000;
const DEEPEST = 40;

/** The value of a text that is JSON, as {value}; or null. */
export function parseJson(text) {
  try {
    return { value: JSON.parse(text) };
  } catch {
    return null;
  }
}

/** A tree of `value` (parsed JSON). */
export function jsonTree(value) {
  const budget = { left: MOST_NODES };
  const tree = isBranch(value) ? branch(null, value, 0, budget) : line(null, value);
  return h(
    "div.json",
    { tabindex: "0", role: "group", "aria-label": "JSON" },
    budget.left > 0 ? tree : h("pre", {}, JSON.stringify(value, null, 2)),
  );
}

function branch(name, value, depth, budget) {
  const entries = Object.entries(value);
  const list = Array.isArray(value);
  budget.left -= entries.length + 1;
  if (budget.left <= 0 || depth > DEEPEST) return line(name, "…");
  const inside = entries.map(([key, inner]) => {
    const own = list ? null : key;
    return isBranch(inner) ? branch(own, inner, depth + 1, budget) : line(own, inner);
  });
  const size = h("span.kind", {}, list ? `[${entries.length}]` : `{${entries.length}}`);
  return h("details", { open: depth < 3 }, h("summary", {}, label(name), size), inside);
}

function line(name, value) {
  const kind = value === null ? "null" : typeof value;
  return h("div.leaf", {}, label(name), h(`span.${kind}`, {}, JSON.stringify(value)));
}

function label(name) {
  return name === null ? null : h("span.key", {}, `${name}: `);
}

function isBranch(value) {
  return value !== null && typeof value === "object" && Object.keys(value).length > 0;
}
