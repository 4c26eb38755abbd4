// The view of the machine: asked every two seconds for as long as somebody looks.

import * as api from "./api.js";
import { meter, sparkline } from "./chart.js";
import { h } from "./dom.js";
import * as format from "./format.js";
import { engineFacts, list, panel } from "./model.js";
import { address } from "./router.js";
import { loading, problem } from "./states.js";

const EVERY_MS = 2_000;
const SPAN_MS = 5 * 60_000;
const GAP_MS = 3.5 * EVERY_MS;

const view = document.getElementById("view-device");
const samples = { prompt: [], decode: [], temperature: [] };
let timer = 0;
let shown = false;
let turn = 0;
let body = null;

export function enter() {
  shown = true;
  document.title = "Device · edgekit";
  if (!body) {
    body = h("div.content", {}, loading("tiles", 6));
    view.replaceChildren(
      h(
        "header.page-head",
        {},
        h("h1", { id: "device-title", tabindex: "-1" }, "Device"),
        h("p.lead", { id: "device-lead" }, "What this machine is doing right now."),
      ),
      body,
    );
  }
  look({ quiet: false });
}

export function leave() {
  shown = false;
  clearTimeout(timer);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (shown && !document.hidden) look();
});

async function look({ quiet = true } = {}) {
  const mine = ++turn;
  clearTimeout(timer);
  try {
    const found = await api.device({ quiet });
    if (mine !== turn) return;
    remember(found.rates ?? {}, found.temperature_c);
    body.replaceChildren(...tiles(found));
    again();
  } catch (error) {
    if (mine !== turn) return;
    body.replaceChildren(problem(error, { retry: () => look({ quiet: false }), what: "readings of the device" }));
    if (error.status === 0 || error.status >= 500) again(); // it may come back; a refusal will not by itself
  }
}

function again() {
  if (shown && !document.hidden) timer = setTimeout(look, EVERY_MS);
}

function remember({ prompt_tokens_per_s: prompt, decode_tokens_per_s: decode }, temperature) {
  const now = performance.now();
  for (const [name, value] of Object.entries({ prompt, decode, temperature })) {
    if (format.known(value)) samples[name].push([now, value]);
    while (samples[name].length && samples[name][0][0] < now - SPAN_MS) samples[name].shift();
  }
}

// --- tiles ----------------------------------------------------------------------------------

function tiles(found) {
  document.getElementById("device-lead").textContent = machineText(found.machine);
  return [
    h(
      "div.tiles",
      {},
      speed("Writing answers", "decode", found.rates?.decode_tokens_per_s),
      speed("Reading prompts", "prompt", found.rates?.prompt_tokens_per_s),
      queue(found),
      memory(found),
      heat(found),
      disk(found.disk),
      found.battery && battery(found.battery),
    ),
    h("div.columns-2", {}, models(found.models ?? []), versions(found)),
  ];
}

function tile(title, value, unit, ...more) {
  return h(
    "section.panel.tile",
    {},
    h("h2", {}, title),
    h("p.big", {}, value, unit && h("span", {}, ` ${unit}`)),
    more,
  );
}

function speed(title, name, value) {
  const now = performance.now();
  const plot = sparkline(samples[name], { now, span: SPAN_MS, gap: GAP_MS });
  const peak = Math.max(0, ...samples[name].map(([, one]) => one));
  return tile(
    title,
    format.known(value) ? format.rate(value) : "0",
    "tokens/s",
    plot,
    h("p.below", {}, h("span", {}, "Last 5 minutes"), h("span", {}, peak ? `peak ${format.rate(peak)}` : "idle")),
  );
}

function queue({ running = 0, waiting = 0, models: all = [] }) {
  const slots = all.reduce((sum, { engine }) => sum + (engine?.slots ?? 0), 0);
  return tile(
    "Requests",
    format.count(running),
    "running",
    meter([{ share: slots ? running / slots : 0, kind: "fill" }]),
    h(
      "p.below",
      {},
      h("span", {}, `${format.count(waiting)} waiting`),
      h("span", {}, slots ? `room for ${format.count(slots)} at once` : "no model in memory"),
    ),
  );
}

function memory({ memory: found, models: all = [], battery }) {
  if (!found) return null;
  const { total_bytes: total, available_bytes: available, rss_bytes: rss } = found;
  const cached = Math.min(rss, all.reduce((sum, { engine }) => sum + (engine?.cached_bytes ?? 0), 0));
  const others = Math.max(0, total - available - rss);
  const parts = [
    ["Agent and models", rss - cached, "fill"],
    ["Kept texts", cached, "second"],
    ["Other programs", others, "other"],
    ["Free", available, "rest"],
  ];
  return h(
    battery ? "section.panel.tile.wide" : "section.panel.tile.broad",
    {},
    h("h2", {}, "Memory"),
    h("p.big", {}, format.bytes(rss), h("span", {}, ` of ${format.bytes(total)}`)),
    meter(parts.slice(0, 3).map(([, value, kind]) => ({ share: value / total, kind }))),
    h(
      "ul.legend",
      {},
      parts.map(
        ([name, value, kind]) => h("li", {}, h(`i.${kind}`), h("span", {}, name), h("b", {}, format.bytes(value))),
      ),
    ),
  );
}

function heat({ temperature_c: now, throttled }) {
  const known = format.known(now);
  const slow = throttled === true && h("span.badge.bad", {}, "Slowed down by heat or power");
  const state = slow || h("span", {}, throttled === false ? "Full speed" : "Throttling unknown");
  const plot = sparkline(samples.temperature, { now: performance.now(), span: SPAN_MS, gap: GAP_MS, top: 100 });
  return tile(
    "Temperature",
    known ? now.toFixed(0) : "No sensor",
    known && "°C",
    known ? plot : h("p.quiet", {}, "This machine does not tell."),
    h("p.below", {}, state),
  );
}

function disk(found) {
  if (!found) return null;
  const { free_bytes: free, total_bytes: total } = found;
  return tile(
    "Disk",
    format.bytes(free),
    "free",
    meter([{ share: total ? 1 - free / total : 0, kind: "other" }]),
    h("p.below", {}, h("span", {}, `of ${format.bytes(total)}`)),
  );
}

function battery({ percent, plugged }) {
  return tile(
    "Battery",
    format.known(percent) ? percent.toFixed(0) : "unknown",
    format.known(percent) && "%",
    meter([{ share: (percent ?? 0) / 100, kind: "fill" }]),
    h("p.below", {}, h("span", {}, plugged ? "Plugged in" : "On battery")),
  );
}

function models(all) {
  if (!all.length) return panel("Models in memory", h("p.quiet", {}, "None. The first question loads one."));
  return panel(
    "Models in memory",
    h(
      "ul.engines",
      {},
      all.map(({ id, engine }) => h(
        "li",
        {},
        h("h3", {}, h("a", { href: address("models", id) }, id), engine?.resting && h("span.badge", {}, "Resting")),
        engine ? list(engineFacts(engine)) : h("p.quiet", {}, "Not loaded."),
      )),
    ),
  );
}

function versions({ versions: found = {}, uptime_s: uptime, machine = {}, clock }) {
  return panel(
    "Program and machine",
    list([
      ["Running for", format.duration(uptime)],
      ["edgekit", found.edgekit],
      ["onnxruntime", found.onnxruntime],
      ["Python", found.python],
      ["Processor", machine.processor],
      ["Cores", format.known(machine.cores) ? `${machine.cores}, ${machine.threads ?? machine.cores} threads` : null],
      ["System", [machine.system, machine.architecture].filter(Boolean).join(", ") || null],
      ["Clock", clockText(clock?.now)],
    ]),
  );
}

function machineText(machine) {
  const words = [
    machine?.processor,
    format.known(machine?.cores) && format.plural(machine.cores, "core"),
    machine?.system,
  ].filter(Boolean);
  return words.join(", ") || "What this machine is doing right now.";
}

/** Unix seconds or a text. A device without a network may well live in another year. */
function clockText(now) {
  if (now === null || now === undefined) return null;
  const date = new Date(format.known(now) ? now * 1000 : now);
  if (Number.isNaN(date.getTime())) return String(now);
  return date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
}
