// The two secrets that a person may have to enter. They go into an Authorization header and nowhere else.

import { ask, field, tick } from "./dialogs.js";
import { h } from "./dom.js";

const NAMES = { infer: "edgekit.key", admin: "edgekit.admin" };
const memory = {}; // where the browser's storage is switched off
let asking = null;

/** The secret for this scope, or null. */
export function credential(scope) {
  const name = NAMES[scope];
  for (const storage of storages()) {
    const found = storage.getItem(name);
    if (found) return found;
  }
  return memory[name] ?? null;
}

/** Whether any secret is kept in this browser. */
export function any() {
  return Object.keys(NAMES).some((scope) => credential(scope) !== null);
}

/** Forgets both. */
export function forget() {
  for (const name of Object.values(NAMES)) {
    for (const storage of storages()) storage.removeItem(name);
    delete memory[name];
  }
}

/** Asks for the secret, one dialog at a time; resolves to whether one was given. `reason` is the agent's sentence. */
export function demand(scope, reason) {
  asking ??= (scope === "admin" ? askAdmin(reason) : askKey(reason)).finally(() => {
    asking = null;
  });
  return asking;
}

async function askKey(reason) {
  const values = await ask({
    title: "This agent asks for a key",
    body: [
      reason && h("p.reason", {}, reason),
      field(
        "Key",
        { type: "password", name: "secret", required: true, placeholder: "ek-…" },
        "Whoever runs this agent makes keys with: edgekit keys",
      ),
      tick("Remember it in this browser", "remember"),
    ],
    confirm: "Use this key",
  });
  return values !== null && keep("infer", values.secret, values.remember === "on");
}

async function askAdmin(reason) {
  const values = await ask({
    title: "Admin token",
    body: [
      h(
        "p",
        {},
        "Changing what this agent runs needs its admin token. It was made at the first start and lies in the file ",
        h("code", {}, "admin-token"),
        " in the agent’s folder, readable only by the account that runs the agent.",
      ),
      reason && h("p.reason", {}, reason),
      field(
        "Token",
        { type: "password", name: "secret", required: true },
        "It is kept until this tab closes, and sent to this agent only.",
      ),
    ],
    confirm: "Continue",
  });
  return values !== null && keep("admin", values.secret, false);
}

function keep(scope, secret, remember) {
  const value = secret.trim();
  if (!value) return false;
  const name = NAMES[scope];
  memory[name] = value;
  try {
    localStorage.removeItem(name);
    (remember ? localStorage : sessionStorage).setItem(name, value);
  } catch {
    // Storage is switched off or full: it lasts as long as the page.
  }
  return true;
}

function storages() {
  try {
    return [sessionStorage, localStorage];
  } catch {
    return [];
  }
}
