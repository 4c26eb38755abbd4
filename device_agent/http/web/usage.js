// The view of what was used: tokens by day, by model or by key.

import * as api from "./api.js";
import { ceiling, stacked } from "./chart.js";
import { save } from "./clipboard.js";
import { h, icon } from "./dom.js";
import * as format from "./format.js";
import * as keys from "./keys.js";
import { nameOf, plotted, tabled, totals } from "./ledger.js";
import { address } from "./router.js";
import { empty, loading, problem } from "./states.js";

const RANGES = [7, 30, 90];
const GROUPS = { model: "Model", key: "Key" };
const HEIGHT = 40;

const view = document.getElementById("view-usage");
let asked = { range: 30, group: "model" };
let turn = 0;
let body = null;

/** `?days=` and `?group=` say what is shown, so that it can be linked to and gone back to. */
export async function enter({ query }) {
  document.title = "Usage · edgekit";
  const range = RANGES.includes(Number(query.get("days"))) ? Number(query.get("days")) : 30;
  const group = Object.hasOwn(GROUPS, query.get("group") ?? "") ? query.get("group") : "model";
  asked = { range, group };
  if (!body) {
    body = h("div.content", {}, loading("tiles", 4));
    view.replaceChildren(head(), body);
  }
  choose();
  await load();
}

/** Draws the choosers anew; the focus stays in the one where it was. */
function choose() {
  const before = view.querySelector(".choosers");
  const chosen = before.contains(document.activeElement) ? document.activeElement.closest("nav") : null;
  const name = chosen?.getAttribute("aria-label");
  before.replaceWith(choosers());
  if (name) view.querySelector(`nav[aria-label="${name}"] [aria-current]`).focus();
}

async function load() {
  const mine = ++turn;
  const { range, group } = asked;
  try {
    const found = await api.usage(range, group);
    const rows = Array.isArray(found.data) ? found.data : [];
    view.querySelector("#usage-texts").textContent = found.texts_kept
      ? "This agent is set to keep the texts of questions and answers too."
      : "Texts of questions and answers are not kept.";
    if (mine === turn) body.replaceChildren(...content(rows, found.currency ?? null));
  } catch (error) {
    if (mine === turn) body.replaceChildren(problem(error, { retry: load, what: "the record of usage" }));
  }
}

function head() {
  return h(
    "header.page-head",
    {},
    h("h1", { id: "usage-title", tabindex: "-1" }, "Usage"),
    h("p.lead", {}, "Tokens that this device has read and written. ", h("span", { id: "usage-texts" })),
    h("div.choosers"),
  );
}

function choosers() {
  const link = (label, query, current) => h(
    "a",
    { href: address("usage", null, query), "aria-current": current ? "true" : null },
    label,
  );
  const { range, group } = asked;
  return h(
    "div.choosers",
    {},
    h(
      "nav.segments",
      { "aria-label": "Days" },
      RANGES.map((days) => link(`${days} days`, { days, group }, days === range)),
    ),
    h(
      "nav.segments",
      { "aria-label": "Group by" },
      Object.entries(GROUPS).map(
        ([name, label]) => link(`By ${label.toLowerCase()}`, { days: range, group: name }, name === group),
      ),
    ),
    h(
      "a.plain.outlined",
      { href: api.usagePath("v1/usage.csv", range, group), download: "usage.csv", click: downloadCsv },
      icon("download"),
      "CSV",
    ),
  );
}

/** A link cannot send a key: with one, the file is fetched and saved. */
async function downloadCsv(event) {
  if (!keys.credential("infer")) return;
  event.preventDefault();
  try {
    save(await api.text(event.currentTarget.getAttribute("href")), "usage.csv", "text/csv;charset=utf-8");
  } catch (error) {
    if (error.name !== "AbortError") body.prepend(h("p.wrong", { role: "alert" }, error.message));
  }
}

function content(rows, currency) {
  if (!rows.length) {
    return [
      empty(
        "chart",
        "Nothing was used yet",
        `In the last ${asked.range} days nobody asked anything. `,
        h("a", { href: address("chat") }, "Ask the first question"),
        ", and it is counted here.",
      ),
    ];
  }
  return [sums(rows, currency), figure(rows), table(rows, currency)];
}

function sums(rows, currency) {
  const all = totals(rows);
  const cachedShare = all.input_tokens ? all.cached_tokens / all.input_tokens : 0;
  const tiles = [
    ["Requests", format.count(all.requests), `in ${asked.range} days`],
    ["Tokens read", format.count(all.input_tokens), `${format.percent(cachedShare, 0)} of them cached`],
    [
      "Tokens written",
      format.count(all.output_tokens),
      all.requests ? `${format.count(all.output_tokens / all.requests)} a request` : "",
    ],
    all.cost !== null && ["Cost", format.money(all.cost, currency), "by this agent’s price table"],
  ];
  return h(
    "div.tiles.sums",
    {},
    tiles.filter(Boolean).map(([title, value, below]) => h(
      "section.panel.tile",
      {},
      h("h2", {}, title),
      h("p.big", {}, value),
      h("p.below", {}, below),
    )),
  );
}

/** The plot. Pointer or arrow keys choose a day, and a line beneath says what it has. */
function figure(rows) {
  const { days, series } = plotted(rows, { ...asked, today: new Date().toISOString().slice(0, 10) });
  const columns = days.map((_, index) => series.map(({ tokens }) => tokens[index]));
  const top = ceiling(Math.max(...columns.map((values) => values.reduce((a, b) => a + b, 0))));
  const readout = h("p.readout", { "aria-live": "polite" }, "Choose a day to see its numbers.");
  let at = days.length;
  const pick = (index) => {
    at = Math.max(0, Math.min(days.length - 1, index));
    readout.replaceChildren(...reading(days[at], series.map(({ name, tokens }) => [name, tokens[at]])));
    plot.querySelectorAll(".column").forEach((node, one) => node.classList.toggle("picked", one === at));
  };
  const plot = stacked(columns, { top, height: HEIGHT, onPick: pick });
  const walk = (event) => {
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: days.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    pick(to);
  };
  const axis = [top, top / 2, 0].map((value) => h("span", {}, format.short(value)));
  const marks = [days[0], days[Math.floor(days.length / 2)], days.at(-1)].map((one) => h("span", {}, format.day(one)));
  return h(
    "figure.panel.plot",
    { "aria-label": `Tokens a day by ${asked.group}, over ${asked.range} days` },
    h(
      "figcaption",
      {},
      h("h2", {}, "Tokens a day"),
      h("ul.legend", {}, series.map(({ name }, index) => h("li", {}, h(`i.series-${index}`), h("span", {}, name)))),
    ),
    h(
      "div.axes",
      { tabindex: "0", role: "group", "aria-label": "Plot: arrow keys go from day to day", keydown: walk },
      h("div.axis", { "aria-hidden": "true" }, axis),
      plot,
      h("div.marks", { "aria-hidden": "true" }, marks),
    ),
    readout,
  );
}

function reading(day, values) {
  const some = values.filter(([, tokens]) => tokens > 0);
  const all = some.reduce((sum, [, tokens]) => sum + tokens, 0);
  const each = some.map(([name, tokens]) => `${name} ${format.count(tokens)}`).join(", ");
  const [only] = some.length === 1 ? some[0] : [];
  return [h("b", {}, format.day(day)), ` ${format.plural(all, "token")}`, only ? `, ${only}` : each && `: ${each}`];
}

function table(rows, currency) {
  const priced = totals(rows).cost !== null;
  const heads = ["Day", GROUPS[asked.group], "Requests", "Read", "Cached", "Written", ...(priced ? ["Cost"] : [])];
  const lines = tabled(rows, asked.group).map((row) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, format.day(row.day)),
      h("td.name", {}, nameOf(row, asked.group)),
      [
        "requests",
        "input_tokens",
        "cached_tokens",
        "output_tokens",
      ].map((name) => h("td.end", {}, format.count(row[name]))),
      priced && h("td.end", {}, format.known(row.cost) ? format.money(row.cost, currency) : "none"),
    ),
  );
  return h(
    "section.panel",
    {},
    h("h2", {}, "Day by day"),
    h(
      "div.table",
      { tabindex: "0", role: "region", "aria-label": "Usage day by day" },
      h(
        "table.plain-table",
        {},
        h("thead", {}, h("tr", {}, heads.map((name, index) => h(index > 1 ? "th.end" : "th", { scope: "col" }, name)))),
        h("tbody", {}, lines),
      ),
    ),
  );
}
