// One model's page: its card, its facts, its adapters and its files.

import { copy } from "./clipboard.js";
import { h, icon } from "./dom.js";
import { adaptersOf, qualityBars, speedBars } from "./facts.js";
import * as format from "./format.js";
import { render } from "./markdown.js";
import { address } from "./router.js";

/** The page of `entry`, beside `entries` for comparison. */
export function detail(entry, entries) {
  const side = [
    panel("Architecture", list(architecture(entry))),
    h("div.panel", {}, qualityBars(entry.quality ?? {}), entry.kind !== "embed" && speedBars(entry, entries)),
    entry.engine && panel("In memory", list(engineFacts(entry.engine))),
    panel("Adapters", adapters(entry)),
  ];
  return h("div.content.detail", {}, h("div.main", {}, card(entry), files(entry)), h("div.side", {}, side));
}

/** What a loaded model's engine says of itself. */
export function engineFacts(engine) {
  const { slots, running, waiting, threads, cached_entries: entries, cached_bytes: bytes, drafted, accepted } = engine;
  return [
    ["Running", `${format.count(running)} of ${format.count(slots)} at once`],
    ["Waiting", format.count(waiting)],
    ["Threads", format.count(threads)],
    ["Kept texts", entries > 0 ? `${format.count(entries)} in ${format.bytes(bytes)}` : "none"],
    [
      "Guesses right",
      drafted > 0 ? `${format.percent(accepted / drafted, 0)} of ${format.count(drafted)}` : "none made",
    ],
  ];
}

/** Pairs as a description list. */
export function list(pairs) {
  return h(
    "dl.pairs",
    {},
    pairs.filter(([, value]) => value !== null && value !== undefined).map(
      ([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)),
    ),
  );
}

export function panel(title, ...content) {
  return h("section.panel", {}, h("h2", {}, title), content);
}

function architecture({ architecture: arch = {}, quantisation, bytes, memory_bytes: memory, context, ...rest }) {
  const { licence, source, created, sha256 } = rest;
  const number = (value) => (format.known(value) ? format.count(value) : null);
  const shared = format.known(arch.kv_heads) ? `, ${arch.kv_heads} for keys and values` : "";
  const heads = format.known(arch.heads) ? `${arch.heads}${shared}` : null;
  return [
    ["Kind", arch.model_type],
    ["Parameters", number(arch.parameters)],
    [
      "Layers",
      format.known(arch.layers) ? `${arch.layers}${format.known(arch.hidden) ? ` of width ${arch.hidden}` : ""}` : null,
    ],
    ["Heads", heads],
    ["Vocabulary", number(arch.vocab)],
    ["Context", `${format.count(context)} tokens`],
    ["Weights", quantisation ? String(quantisation).toUpperCase() : null],
    ["Size", format.bytes(bytes)],
    ["Memory at 2,048 tokens", format.bytes(memory)],
    ["Licence", licence ?? "not stated"],
    ["Source", sourceText(source)],
    ["Made", created ? format.date(created) : null],
    [
      "SHA-256",
      sha256 && h(
        "span.hash",
        {},
        h("code", { title: sha256 }, String(sha256).slice(0, 12)),
        h(
          "button.action",
          { type: "button", "aria-label": "Copy the SHA-256", click: (event) => copy(sha256, event.currentTarget) },
          icon("copy"),
        ),
      ),
    ],
  ];
}

function sourceText(source) {
  if (typeof source === "string") return source;
  return source?.file ? [source.kind, source.file].filter(Boolean).join(" ") : null;
}

function card({ card: text }) {
  if (!text) return panel("Model card", h("p.quiet", {}, "This bundle brings no card."));
  return h("section.panel", { "aria-label": "Model card" }, h("div.prose", {}, render(text, copy)));
}

function adapters(entry) {
  const names = adaptersOf(entry);
  if (!names.length) return h("p.quiet", {}, "None. A LoRA that was converted for this model appears here.");
  const chats = entry.kind !== "embed";
  return h(
    "ul.plain-list",
    {},
    names.map((name) => h(
      "li",
      {},
      h("span", {}, name),
      chats && h(
        "a",
        { href: address("chat", null, { model: `${entry.id}:${name}` }), "aria-label": `Try ${entry.id} with ${name}` },
        "Try it",
      ),
    )),
  );
}

function files({ files: found = [] }) {
  if (!found.length) return null;
  const rows = found.map(
    ({ path, size }) => h("tr", {}, h("th", { scope: "row" }, path), h("td.end", {}, format.bytes(size))),
  );
  return panel(
    "Files",
    h(
      "table.plain-table",
      {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "File"), h("th.end", { scope: "col" }, "Size"))),
      h("tbody", {}, rows),
    ),
  );
}
