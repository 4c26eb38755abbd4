// Who answers, and how it goes about it: two lists beneath the message field.

import { h } from "./dom.js";
import * as format from "./format.js";

/** What the agent calls a way of reasoning -> what it is called here. Nothing is sent for the first. */
const STRATEGIES = {
  "": "As the model does",
  direct: "Direct",
  "step-by-step": "Step by step",
  "recall-then-answer": "Recall, then answer",
  "extract-then-answer": "Extract, then answer",
  auto: "Chosen by the model",
};

const models = document.getElementById("model");
const strategies = document.getElementById("strategy");
let entries = [];

/** Fills the list of ways. `changed()` is called when a person picks something. */
export function start(changed) {
  strategies.replaceChildren(...Object.entries(STRATEGIES).map(([value, label]) => h("option", { value }, label)));
  models.addEventListener("change", changed);
  strategies.addEventListener("change", changed);
}

/** Fills the list of models from entries of /v1/models: those that write texts, each before its adapters. */
export function fill(found) {
  const wanted = models.value;
  entries = found.filter(({ id, meta }) => typeof id === "string" && (meta?.kind ?? "generate") === "generate");
  const label = ({ id, meta }) => (meta?.base ? `\u00a0\u00a0${id.slice(meta.base.length + 1)} (adapter)` : id);
  const options = entries.map((entry) => h("option", { value: entry.id }, label(entry)));
  models.replaceChildren(...options);
  models.disabled = !options.length;
  pick(wanted);
}

/** Selects a model if it is there, and the active one if not. */
export function pick(id) {
  models.value = entries.some((entry) => entry.id === id) ? id : (entries[0]?.id ?? "");
  models.title = models.value;
}

/** The entry of the selected model, or null. */
export function chosen() {
  return entries.find(({ id }) => id === models.value) ?? null;
}

/** What a request says of the way of reasoning. */
export function strategy() {
  return strategies.value ? { edgekit: { strategy: strategies.value } } : {};
}

/** The model's facts in a few words each. */
export function facts(meta) {
  if (!meta) return [];
  const { quantisation, size, n_ctx: context, version } = meta;
  return [
    quantisation && String(quantisation).toUpperCase(),
    format.known(size) && format.bytes(size),
    format.known(context) && `${format.count(context)} context`,
    version && `v${version}`,
  ].filter(Boolean);
}
