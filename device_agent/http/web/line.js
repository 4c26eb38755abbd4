// One channel: what it brought, what it offers, and what may be done about it.

import { meter } from "./chart.js";
import { h } from "./dom.js";
import * as format from "./format.js";
import { ENDINGS } from "./words.js";

/** What became of the release that is offered, where that was tried. */
const BECAME = { refused: "was refused", failed: "could not be installed", held: "waits" };

/** A card; `wish(verb, line, button)` is called for what the person wants done. */
export function lineCard(line, { state, busy }, wish) {
  const working = Boolean(busy) || ["checking", "fetching", "verifying", "trial"].includes(state.phase);
  return h(
    "article.card.line",
    { "aria-label": `Channel ${line.channel}` },
    h(
      "div.card-head",
      {},
      h("p.quiet", {}, `Channel ${line.channel}`),
      h("h2", {}, (line.soaking ? line.trial : line.active) ?? "Nothing installed yet"),
      badges(line),
    ),
    line.warnings.map((text) => h("p.warning", { role: "alert" }, `${text}.`)),
    offered(line, state),
    verbs(line, working, wish),
  );
}

function badges({ active, trial, soaking, pin, last }) {
  const held = last && ["refused", "failed"].includes(last.ending);
  const all = [
    (active || soaking) && h("span.badge.on", {}, "Serving"),
    soaking && h("span.badge", {}, "Being watched"),
    trial && !soaking && h("span.badge", {}, `On trial: ${trial}`),
    pin && h("span.badge", {}, "Pinned"),
    held && h("span.badge.bad", {}, ENDINGS[last.ending].label),
  ].filter(Boolean);
  return all.length > 0 && h("p.badges", {}, all);
}

/** What the channel has, what it costs and what is saved, or why there is nothing. */
function offered(line, state) {
  const { offered: offer, last, active, trial } = line;
  const news = offer?.release && ![active, trial].includes(offer.release);
  if (state.phase !== "idle" && state.channel === line.channel && state.phase !== "soaking") return null;
  if (news) {
    const about = last?.release === offer.release ? last : null;
    const words = trouble(last) || (offer.cost ? "" : reason(offer));
    return h(
      "section.offer",
      { "aria-label": "Offered" },
      h("h3", {}, `${offer.release} ${BECAME[about?.ending] ?? "is offered"}`),
      offer.cost && cost(offer.cost),
      words && h("p.quiet", {}, sentence(words)),
    );
  }
  const wrong = trouble(last);
  if (wrong) return h("section.offer", { "aria-label": "Why" }, h("h3", {}, "Not updated"), h("p.quiet", {}, sentence(wrong)));
  const why = offer?.reason || last?.reason;
  const calm = last && ["current", "installed"].includes(last.ending) && !line.pin;
  return h("p.quiet", {}, calm ? "This is the newest that the channel has for this device." : sentence(why));
}

/** Why the newest thing that was done with the channel went wrong, if it did. */
function trouble(last) {
  return last && last.exit_code !== 0 ? last.reason : "";
}

function reason(offer) {
  return offer.reason === "offered" ? "It is on this device already, and only has to be tried" : offer.reason;
}

function sentence(words) {
  if (!words) return "Nobody has looked yet what the channel offers.";
  return `${words[0].toUpperCase()}${words.slice(1)}${/[.!?]$/.test(words) ? "" : "."}`;
}

function cost({ fetch_bytes: fetch, full_bytes: full, disk_bytes: disk }) {
  const share = full ? Math.min(1, fetch / full) : 1;
  const saved = Math.max(0, full - fetch);
  return [
    h(
      "p.big",
      {},
      format.bytes(fetch),
      h("span", {}, saved > 0 ? ` to download instead of ${format.bytes(full)}` : " to download"),
    ),
    meter([{ share, kind: "second" }, { share: 1 - share, kind: "fill" }]),
    h(
      "ul.legend",
      {},
      h("li", {}, h("i.second"), h("span", {}, "Download"), h("b", {}, format.percent(share, 0))),
      saved > 0 && h("li", {}, h("i.fill"), h("span", {}, "Saved by what is here"), h("b", {}, format.bytes(saved))),
      h("li", {}, h("span", {}, "On disk"), h("b", {}, format.bytes(disk))),
    ),
  ];
}

function verbs(line, working, wish) {
  const one = (verb, label, when) =>
    when && h(
      "button.plain.outlined",
      {
        type: "button",
        disabled: working,
        "data-focus": `${verb} ${line.channel}`,
        click: (event) => wish(verb, line, event.currentTarget),
      },
      label,
    );
  const back = line.trial ? line.active : line.previous;
  const all = [
    one("rollback", `Go back to ${back}`, back && !line.pin),
    one("pin", "Pin this release", line.active && !line.pin && !line.trial),
    one("unpin", "Follow the channel", line.pin),
  ].filter(Boolean);
  return all.length > 0 && h("div.verbs", {}, all, h("p.wrong", { role: "alert" }));
}
