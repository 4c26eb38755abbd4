// The view of the store's models: cards, and one model's page.

import * as api from "./api.js";
import { h } from "./dom.js";
import * as format from "./format.js";
import { activeBadge, adaptersOf, qualityBars, reload, speedBars, verbs } from "./facts.js";
import { detail } from "./model.js";
import { address } from "./router.js";
import { empty, loading, problem } from "./states.js";

const view = document.getElementById("view-models");
let entries = null;
let wanted = null; // the id in the address
let turn = 0; // only the newest loading may draw

/** Shows all models, or the page of one. */
export async function enter({ id }) {
  wanted = id;
  document.title = id === null ? "Models · edgekit" : `${id} · edgekit`;
  draw(entries === null ? h("div.content", {}, loading("cards", 3)) : body());
  await load();
}

async function load() {
  const mine = ++turn;
  try {
    const found = await api.catalogue().catch(fromModels);
    if (mine !== turn) return;
    entries = found;
    draw(body());
  } catch (error) {
    if (mine === turn) draw(h("div.content", {}, problem(error, { retry: load, what: "the catalogue of models" })));
  }
}

/** An older agent has no catalogue, but it says who answers. */
async function fromModels(error) {
  if (error.status !== 404) throw error;
  const found = await api.models();
  return found.map(({ id, meta = {} }, index) => ({
    id, kind: meta.kind ?? "generate", active: meta.active ?? index === 0, loaded: meta.loaded ?? true, brief: true,
    version: meta.version, quantisation: meta.quantisation, bytes: meta.size, context: meta.n_ctx,
    licence: meta.licence,
    sha256: meta.sha256, quality: meta.quality ?? {}, architecture: { parameters: meta.n_params, vocab: meta.n_vocab },
  }));
}

/** Draws; where the focus was on something that is drawn anew, it stays on its successor. */
function draw(content) {
  const focused = view.contains(document.activeElement) ? document.activeElement : null;
  const mark = focused?.id || focused?.getAttribute("data-focus");
  const one = wanted !== null && entries?.find(({ id }) => id === wanted);
  view.replaceChildren(head(one), content);
  if (!focused) return;
  const again = mark && view.querySelector(`#${CSS.escape(mark)}, [data-focus="${CSS.escape(mark)}"]`);
  (again || view.querySelector("h1")).focus({ preventScroll: true });
}

function head(one) {
  if (wanted !== null) {
    return h(
      "header.page-head",
      {},
      h("a.crumb", { href: address("models") }, "Models"),
      h("div.titles", {}, h("h1", { id: "models-title", tabindex: "-1" }, wanted), one && activeBadge(one)),
      one && verbs(one, change),
    );
  }
  return h(
    "header.page-head",
    {},
    h("h1", { id: "models-title", tabindex: "-1" }, "Models"),
    h("p.lead", {}, "What is in this device’s store, and what was measured of it."),
  );
}

function body() {
  if (wanted === null) return gallery();
  const one = entries.find(({ id }) => id === wanted);
  if (one) return detail(one, entries);
  return h(
    "div.content",
    {},
    empty(
      "empty",
      "There is no such model",
      "The store has no model of this name. ",
      h("a", { href: address("models") }, "See those that it has"),
      ".",
    ),
  );
}

function gallery() {
  if (!entries.length) {
    return h(
      "div.content",
      {},
      empty(
        "empty",
        "The store is empty",
        "Put a bundle into the folder that the agent was started on, and it appears here.",
      ),
    );
  }
  return h(
    "div.content",
    {},
    h("ul.cards", {}, entries.map((entry) => h("li", {}, card(entry))), entries.length === 1 && h("li", {}, room())),
  );
}

function room() {
  return h(
    "div.card.room",
    {},
    h("h2", {}, "Room for more"),
    h(
      "p",
      {},
      "Start the agent on a folder with several bundles in it, and they appear here: to try, compare and switch.",
    ),
  );
}

function card(entry) {
  const adapters = adaptersOf(entry);
  return h(
    "article.card",
    { "aria-label": entry.id },
    h(
      "div.card-head",
      {},
      h("h2", {}, h("a", { href: address("models", entry.id), "data-focus": `card ${entry.id}` }, entry.id)),
      activeBadge(entry),
    ),
    h("dl.facts-grid", {}, facts(entry).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    qualityBars(entry.quality ?? {}),
    entry.kind !== "embed" && speedBars(entry, entries),
    adapters.length > 0 && h(
      "p.adapters",
      {},
      h("span", {}, "Adapters"),
      adapters.map((name) => h("span.badge", {}, name)),
    ),
    verbs(entry, change),
  );
}

function facts({ architecture = {}, quantisation, bytes, memory_bytes: memory, context, licence }) {
  return [
    ["Parameters", format.known(architecture.parameters) ? format.short(architecture.parameters) : "unknown"],
    ["Weights", quantisation ? String(quantisation).toUpperCase() : "unknown"],
    ["Size", format.bytes(bytes)],
    ["Memory at 2k", format.bytes(memory)],
    ["Context", format.count(context)],
    ["Licence", licence ?? "not stated"],
  ];
}

/** Activates or unloads, and shows what then is. */
function change(id, verb, button) {
  return reload(button, async () => {
    await api.change(id, verb);
    await load();
    const done = verb === "activate" ? "is active now" : "was unloaded";
    document.getElementById("status").textContent = `${id} ${done}.`;
  });
}
