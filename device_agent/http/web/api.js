// The agent's HTTP API, as the page needs it.

import * as keys from "./keys.js";
import { events } from "./stream.js";

/** A request that was not answered as hoped; `message` is the agent's own sentence, `status` 0 if none came. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const SILENT = "The agent does not answer. Is it still running on this device?";
const GARBLED = "The agent answered with something that this page cannot read.";

/** Who can be asked: entries of /v1/models, the active one first. */
export const models = () => listing("v1/models");

/** Every model of the store with its facts. */
export const catalogue = () => listing("v1/edgekit/models");

/** What the machine is doing. With `quiet`, nobody is asked for a key. */
export const device = ({ quiet = false } = {}) => json("v1/edgekit/device", {}, { quiet });

/** What this device runs and is offered. With `quiet`, nobody is asked for the admin token. */
export const sync = ({ quiet = false } = {}) => json("v1/edgekit/sync", {}, { scope: "admin", quiet });

/** `verb` is "check", "update", "rollback", "pin" or "unpin"; resolves to how things are then. */
export function wish(verb, body) {
  const headers = { "Content-Type": "application/json" };
  return json(`v1/edgekit/sync/${verb}`, { method: "POST", headers, body: JSON.stringify(body) }, { scope: "admin" });
}

/** Tokens of the last days, by day and `group`. */
export const usage = (days, group) => json(usagePath("v1/usage", days, group));

/** Where the same is as CSV. */
export const usagePath = (route, days, group) => `${route}?days=${days}&group=day,${group}`;

/** A file's text, for a download that needs the key. */
export const text = async (path) => (await reach(path)).text();

/** `verb` is "activate" or "unload". */
export function change(id, verb) {
  return json(`v1/edgekit/models/${encodeURIComponent(id)}/${verb}`, { method: "POST" }, { scope: "admin" });
}

/**
 * Streams an answer. `heard(delta)` is called for every piece; resolves to {finish, timings, usage}.
 * Aborting `signal` closes the connection, which stops the generation on the device.
 */
export async function chat(request, { signal, heard }) {
  const response = await reach("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  const end = { finish: null, timings: null, usage: null };
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") return end;
      read(parsed(data), end, heard);
    }
  } catch (error) {
    if (error instanceof ApiError || error.name === "AbortError") throw error;
    throw new ApiError(error instanceof RangeError ? error.message : SILENT);
  }
  throw new ApiError("The connection ended before the answer did.");
}

function read(chunk, end, heard) {
  if (chunk.error) throw new ApiError(String(chunk.error.message), { code: chunk.error.code });
  const choice = chunk.choices?.[0];
  if (choice?.delta) heard(choice.delta);
  end.finish = choice?.finish_reason ?? end.finish;
  end.timings = chunk.timings ?? end.timings;
  end.usage = chunk.usage ?? end.usage;
}

async function listing(path) {
  const { data } = await json(path);
  if (!Array.isArray(data)) throw new ApiError(GARBLED);
  return data;
}

async function json(path, options, how) {
  const found = parsed(await (await reach(path, options, how)).text());
  if (found === null || typeof found !== "object") throw new ApiError(GARBLED);
  return found;
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new ApiError(GARBLED);
  }
}

/** A response that is fine; whoever is missing a key is asked for it, as often as it is wrong, until they decline. */
async function reach(path, options = {}, { scope = "infer", quiet = false } = {}) {
  const open = scope !== "admin" || quiet || keys.credential("admin");
  if (!open && !(await keys.demand("admin", ""))) throw declined();
  for (;;) {
    const secret = keys.credential(scope);
    const response = await fetched(path, options, secret);
    if (response.ok) return response;
    const refused = await refusal(response);
    const lacking = response.status === 401 || (scope === "admin" && response.status === 403);
    if (!lacking || quiet) throw refused;
    const changed = keys.credential(scope) !== secret; // somebody entered one while this request was on its way
    if (!changed && !(await keys.demand(scope, refused.message))) throw refused;
  }
}

function declined() {
  const error = new Error("Nothing was changed.");
  error.name = "AbortError";
  return error;
}

async function fetched(path, options, secret) {
  const headers = { ...options.headers, ...(secret && { Authorization: `Bearer ${secret}` }) };
  try {
    return await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(SILENT);
  }
}

async function refusal(response) {
  const body = await response.json().catch(() => null);
  const sentence = body?.error?.message;
  const message = typeof sentence === "string" ? sentence : `The agent answered with status ${response.status}.`;
  return new ApiError(message, { status: response.status, code: body?.error?.code ?? null });
}
