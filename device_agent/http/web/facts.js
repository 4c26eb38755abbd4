// A model's facts as its card and its page show them.

import { h, icon } from "./dom.js";
import { meter } from "./chart.js";
import * as format from "./format.js";
import { address } from "./router.js";

/** Names of a model's adapters. */
export function adaptersOf({ adapters = [] }) {
  return adapters.map((one) => (typeof one === "string" ? one : String(one?.name ?? one?.id ?? ""))).filter(Boolean);
}

/** Version, and whether it answers and is in memory. */
export function activeBadge({ active, loaded, kind, version }) {
  return h(
    "p.badges",
    {},
    active && h("span.badge.on", {}, "Active"),
    loaded && h("span.badge", {}, "In memory"),
    kind === "embed" && h("span.badge", {}, "Embeddings"),
    version && h("span.version", {}, `version ${version}`),
  );
}

/** What can be done with a model; `change(id, verb, button)` does it. */
export function verbs({ id, active, loaded, kind, brief }, change) {
  const act = (verb, label) =>
    h(
      "button.plain.outlined",
      {
        type: "button",
        "data-focus": `${verb} ${id}`,
        "aria-label": `${label} ${id}`,
        click: (event) => change(id, verb, event.currentTarget),
      },
      label,
    );
  return h(
    "div.verbs",
    {},
    kind !== "embed" && h(
      "a.primary",
      { href: address("chat", null, { model: id }), "aria-label": `Try ${id}` },
      icon("bolt"),
      "Try it",
    ),
    !brief && !active && kind !== "embed" && act("activate", "Activate"),
    !brief && loaded && act("unload", "Unload"),
    h("p.wrong", { role: "alert" }),
  );
}

/** Runs `work` while `button` waits; what went wrong is said beside it. */
export async function reload(button, work) {
  const place = button.parentElement.querySelector(".wrong");
  place.textContent = "";
  button.setAttribute("aria-busy", "true");
  button.disabled = true;
  try {
    await work();
  } catch (error) {
    if (error.name !== "AbortError") place.textContent = error.message;
  } finally {
    button.removeAttribute("aria-busy");
    button.disabled = false;
    if (button.isConnected) button.focus();
  }
}

/** How near the bundle is to its source: each measurement as a bar, the fuller the better. */
export function qualityBars(quality) {
  const { same_top_token: same, kl, perplexity, reference_perplexity: reference, cosine } = quality;
  const rows = [];
  if (format.known(same)) rows.push(["Same top token", format.percent(same), same]);
  // exp(-KL) is 1 for the source itself, and falls as the bundle's predictions leave it.
  if (format.known(kl)) rows.push(["Distance (KL)", `${kl.toFixed(4)} nats`, Math.exp(-Math.max(0, kl))]);
  if (format.known(perplexity)) {
    const share = format.known(reference) && perplexity > 0 ? Math.min(1, reference / perplexity) : null;
    rows.push(
      [
        "Perplexity",
        `${perplexity.toFixed(2)}${format.known(reference) ? ` (source ${reference.toFixed(2)})` : ""}`,
        share,
      ],
    );
  }
  if (format.known(cosine)) rows.push(["Cosine to its vectors", cosine.toFixed(4), Math.max(0, cosine)]);
  return h(
    "section.measure",
    {},
    h("h3", {}, "Quality against its source"),
    rows.length ? rows.map(bar) : h("p.quiet", {}, "Not measured."),
  );
}

/** Tokens a second lately on this device; all models share a scale, so that cards can be compared. */
export function speedBars({ measured }, entries) {
  const kinds = [["Reading a prompt", "prompt_tokens_per_s"], ["Writing an answer", "decode_tokens_per_s"]];
  const rows = kinds
    .filter(([, name]) => format.known(measured?.[name]))
    .map(([label, name]) => {
      const all = entries.map((entry) => entry.measured?.[name]).filter(format.known);
      const best = Math.max(...all);
      return [
        label,
        `${format.rate(measured[name])} tokens/s`,
        all.length > 1 && best > 0 ? measured[name] / best : null,
      ];
    });
  return h(
    "section.measure",
    {},
    h("h3", {}, "Speed on this device"),
    rows.length ? rows.map(bar) : h("p.quiet", {}, "Not measured yet: it is once the model has answered."),
  );
}

function bar([name, value, share]) {
  return h(
    "div.measured",
    {},
    h("span", {}, name),
    h("b", {}, value),
    share === null ? null : meter([{ share, kind: "fill" }]),
  );
}
