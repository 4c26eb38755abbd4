// The drawer: system prompt, sampling and the answer's form, kept in this browser only.

import { parseJson } from "./json.js";
import { show as showTheme, choose as chooseTheme } from "./appearance.js";

const KEY = "edgekit.settings";
const DEFAULTS = {
  system: "", temperature: "0.7", top_p: "0.95", max_tokens: "", schema: "",
  top_k: "", min_p: "", repetition_penalty: "", presence_penalty: "", frequency_penalty: "", stop: "", seed: "",
};
const WHOLE = ["max_tokens", "top_k", "seed"];
const FRACTIONS = ["min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"];
const MORE = ["top_k", ...FRACTIONS, "stop", "seed"];
const MOST_STOPS = 4;

const $ = (id) => document.getElementById(id);
const form = $("settings-form");
const dialog = $("settings");

/** What a request needs besides messages; empty fields are left out, so that the server's defaults hold. */
export function parameters() {
  const values = read();
  const request = { temperature: Number(values.temperature), top_p: Number(values.top_p) };
  for (const name of WHOLE) if (values[name] !== "") request[name] = Math.trunc(Number(values[name]));
  for (const name of FRACTIONS) if (values[name] !== "") request[name] = Number(values[name]);
  const stop = values.stop.split("\n").filter((line) => line !== "");
  if (stop.length) request.stop = stop;
  const schema = parseJson(values.schema);
  if (schema) {
    const named = { name: "answer", schema: schema.value, strict: true };
    request.response_format = { type: "json_schema", json_schema: named };
  }
  return request;
}

/** The system message, or none. */
export function systemMessages() {
  const text = read().system.trim();
  return text ? [{ role: "system", content: text }] : [];
}

/** Why nothing can be sent with these settings, or "". */
export function obstacle() {
  const { schema, stop } = read();
  if (schemaProblem(schema)) return `The JSON schema in the settings cannot be sent. ${schemaProblem(schema)}`;
  const stops = stop.split("\n").filter(Boolean).length;
  return stops > MOST_STOPS ? `The settings have more than ${MOST_STOPS} stop texts.` : "";
}

/** Opens the drawer at a field. */
export function openAt(name) {
  if (!dialog.open) dialog.showModal();
  const control = form.elements[name];
  const folded = control?.closest("details");
  if (folded) folded.open = true;
  control?.focus();
}

/** Connects the drawer to the button that opens it. */
export function start(openButton) {
  fill({ ...DEFAULTS, ...stored() });
  $("more").open = MORE.some((name) => read()[name] !== "");
  openButton.addEventListener("click", () => {
    showTheme();
    dialog.showModal();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // the backdrop
  });
  form.addEventListener("input", (event) => {
    if (event.target.name === "theme") chooseTheme(event.target.value);
    if (event.target.name in DEFAULTS) keep();
  });
  $("reset").addEventListener("click", () => {
    fill(DEFAULTS);
    keep();
  });
}

/** No answer can be longer than the context. */
export function bound(contextTokens) {
  if (contextTokens) form.elements.max_tokens.max = contextTokens;
}

function read() {
  return Object.fromEntries(Object.keys(DEFAULTS).map((name) => [name, form.elements[name].value]));
}

function fill(values) {
  for (const name of Object.keys(DEFAULTS)) form.elements[name].value = String(values[name]);
  show();
}

function keep() {
  show();
  try {
    localStorage.setItem(KEY, JSON.stringify(read()));
  } catch {
    // Storage may be switched off or full: the settings then last as long as the page.
  }
}

function stored() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return found && typeof found === "object" ? found : {};
  } catch {
    return {};
  }
}

function show() {
  for (const name of ["temperature", "top_p"]) {
    $(`${name}-value`).textContent = Number(form.elements[name].value).toFixed(2);
  }
  const schema = form.elements.schema.value;
  const problem = schemaProblem(schema);
  $("schema-problem").textContent = problem;
  form.elements.schema.setAttribute("aria-invalid", String(Boolean(problem)));
  $("uses-schema").hidden = !schema.trim();
}

function schemaProblem(text) {
  if (!text.trim()) return "";
  const found = parseJson(text);
  if (!found) return "This is not valid JSON.";
  const isObject = found.value !== null && typeof found.value === "object" && !Array.isArray(found.value);
  return isObject ? "" : "A schema is a JSON object.";
}
