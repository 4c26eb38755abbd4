// Nodes without markup: createElement, attributes and text only, so that nothing from outside can become markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element: `h("a.button", { href: "#/chat" }, "Chat")`. Attributes that are null or false are left out, functions
 * are listeners (`click`), and children may be nodes, texts, lists or null.
 */
export function h(kind, attributes = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  return filled(document.createElement(tag), classes, attributes, children);
}

/** The same for SVG. */
export function s(kind, attributes = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  return filled(document.createElementNS(SVG, tag), classes, attributes, children);
}

function filled(node, classes, attributes, children) {
  if (classes.length) node.setAttribute("class", classes.join(" "));
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(4).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const ICONS = {
  copy: [
    "M8 7.5h7a1 1 0 0 1 1 1v7a1 1 0 0 1-1 1H8a1 1 0 0 1-1-1v-7a1 1 0 0 1 1-1z",
    "M4.5 12.5a1 1 0 0 1-1-1v-7a1 1 0 0 1 1-1h7a1 1 0 0 1 1 1",
  ],
  retry: ["M15.6 8A6 6 0 1 0 16 11.2M16 4.5V8h-3.5"],
  edit: ["m4 16 .8-3.4 8.4-8.4a1.4 1.4 0 0 1 2 0l.6.6a1.4 1.4 0 0 1 0 2l-8.4 8.4z"],
  more: ["M5 10h.01M10 10h.01M15 10h.01"],
  next: ["M8 4.5 13.5 10 8 15.5"],
  download: ["M10 3.5v9M6.5 9.5 10 13l3.5-3.5M4 16.5h12"],
  alert: ["M10 6.5v4.5M10 13.8h.01M10 2.8l7.6 13.4H2.4z"],
  lock: ["M6 9V6.5a4 4 0 0 1 8 0V9M5.5 9h9a1 1 0 0 1 1 1v5.5a1 1 0 0 1-1 1h-9a1 1 0 0 1-1-1V10a1 1 0 0 1 1-1z"],
  empty: ["M3.5 6.5 10 3l6.5 3.5v7L10 17l-6.5-3.5zM3.5 6.5 10 10l6.5-3.5M10 10v7"],
  chart: ["M4 16.5v-6M10 16.5v-12M16 16.5v-8"],
  tool: [
    "M12.6 3.6a4 4 0 0 0-5 5L3.5 12.7a1.6 1.6 0 0 0 0 2.3l1.5 1.5a1.6 1.6 0 0 0 2.3 0l4.1-4.1a4 4 0 0 0 5-5" +
      "l-2.5 2.5-2.7-.8-.8-2.7z",
  ],
  bolt: ["M11 2.5 4.5 11.5H10l-1 6 6.5-9H10z"],
};

/** One of the page's pictures; it says nothing to a screen reader. */
export function icon(name) {
  return s("svg", { viewBox: "0 0 20 20", "aria-hidden": "true" }, ICONS[name].map((d) => s("path", { d })));
}

/** A button with a picture and, if it is to be seen, its label. */
export function button(kind, picture, label, click, { shown = true } = {}) {
  const text = shown ? h("span", {}, label) : null;
  const attributes = { type: "button", click, "aria-label": shown ? null : label, title: shown ? null : label };
  return h(`button.${kind}`, attributes, picture && icon(picture), text);
}
