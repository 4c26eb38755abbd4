// System prompt and sampling, kept in this browser only.

const KEY = "edgekit.settings";
const DEFAULTS = { system: "", temperature: "0.7", top_p: "0.95", max_tokens: "", seed: "" };
const form = document.getElementById("settings-form");
const dialog = document.getElementById("settings");

/** What a request needs besides messages; empty fields are left out, so that the server's defaults hold. */
export function sampling() {
  const values = read();
  const request = { temperature: Number(values.temperature), top_p: Number(values.top_p) };
  for (const name of ["max_tokens", "seed"]) if (values[name] !== "") request[name] = Math.trunc(Number(values[name]));
  return request;
}

/** The system message, or none. */
export function systemMessages() {
  const text = read().system.trim();
  return text ? [{ role: "system", content: text }] : [];
}

/** Connects the drawer to the button that opens it. */
export function start(openButton) {
  fill({ ...DEFAULTS, ...stored() });
  openButton.addEventListener("click", () => dialog.showModal());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // the backdrop
  });
  form.addEventListener("input", keep);
  document.getElementById("reset").addEventListener("click", () => {
    fill(DEFAULTS);
    keep();
  });
}

/** No answer can be longer than the context. */
export function bound(contextTokens) {
  form.elements.max_tokens.max = contextTokens;
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
    document.getElementById(`${name}-value`).textContent = Number(form.elements[name].value).toFixed(2);
  }
}
