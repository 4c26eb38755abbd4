// The view of updates: what runs, what is offered, how it goes on; asked often only while something goes on.

import * as api from "./api.js";
import { ask } from "./dialogs.js";
import { button, h, icon } from "./dom.js";
import { reload } from "./facts.js";
import * as format from "./format.js";
import { lineCard } from "./line.js";
import { list, panel } from "./model.js";
import { steps } from "./progress.js";
import { empty, loading, problem } from "./states.js";
import { ago, ENDINGS, left, WISHES } from "./words.js";

const BUSY_MS = 1_000;
const IDLE_MS = 5_000;

const view = document.getElementById("view-updates");
let timer = 0;
let shown = false;
let turn = 0; // only the newest answer may draw
let body = null;
let buttons = null;
let phase = null;

export function enter() {
  shown = true;
  document.title = "Updates · edgekit";
  if (!body) build();
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

function build() {
  body = h("div.content", {}, loading("tiles", 3));
  buttons = h("div.verbs", { hidden: true });
  view.replaceChildren(
    h(
      "header.page-head.with-verbs",
      {},
      h(
        "div.titles",
        {},
        h("h1", { id: "updates-title", tabindex: "-1" }, "Updates"),
        h("p.lead", { id: "updates-lead" }, "What this device runs, and what its owner offers."),
      ),
      buttons,
    ),
    body,
  );
}

async function look({ quiet = true } = {}) {
  const mine = ++turn;
  clearTimeout(timer);
  try {
    const found = await api.sync({ quiet });
    if (mine !== turn) return;
    draw(found);
    again(found.state?.phase !== "idle" || found.busy ? BUSY_MS : IDLE_MS);
  } catch (error) {
    if (mine !== turn) return;
    buttons.hidden = true;
    phase = null;
    body.replaceChildren(problem(refusal(error), { retry: () => look({ quiet: false }), what: "updates" }));
    if (error.status === 0 || error.status >= 500) again(IDLE_MS);
  }
}

/** Who declines to give the token is told what it is for. */
function refusal(error) {
  if (error.name !== "AbortError") return error;
  return Object.assign(new Error("Only somebody with the agent’s admin token may see and change what it runs."), {
    status: 401,
  });
}

function again(after) {
  if (shown && !document.hidden) timer = setTimeout(look, after);
}

/** Draws; where the focus was on something that is drawn anew, it stays on its successor. */
function draw(found) {
  const mark = view.contains(document.activeElement) && document.activeElement.getAttribute("data-focus");
  drawButtons(found);
  body.replaceChildren(...(found.enrolled ? enrolled(found) : stranger(found)));
  if (mark) {
    const next = view.querySelector(`[data-focus="${CSS.escape(mark)}"]`) ?? view.querySelector("h1");
    next.focus({ preventScroll: true });
  }
  announce(found.state ?? {});
}

function announce(state) {
  if (phase !== null && state.phase !== phase) {
    document.getElementById("status").textContent = WISHES.phase(state);
  }
  phase = state.phase;
}

function drawButtons({ enrolled: known, state = {}, busy }) {
  buttons.hidden = !known;
  const working = busy || !["idle", "soaking"].includes(state.phase);
  const wish = (verb, kind, label) => {
    const one = button(kind, verb === "update" ? "download" : "retry", label, (event) => act(verb, {}, event.currentTarget));
    one.setAttribute("data-focus", verb);
    one.disabled = Boolean(working);
    return one;
  };
  const said = buttons.querySelector(".wrong")?.textContent ?? "";
  buttons.replaceChildren(
    wish("check", "plain.outlined", "Check now"),
    wish("update", "primary", "Update now"),
    h("p.wrong", { role: "alert" }, said),
  );
}

// --- what operators wish --------------------------------------------------------------------

async function act(verb, body_, pressed) {
  await reload(pressed, async () => {
    const found = await api.wish(verb, body_);
    turn += 1;
    draw(found);
    again(BUSY_MS);
    // A button that waits cannot keep the focus; its successor takes it.
    view.querySelector(`[data-focus="${CSS.escape(pressed.getAttribute("data-focus"))}"]`)?.focus();
  });
}

/** Asks first: these change what answers people. */
async function confirmed(verb, line, pressed) {
  const words = WISHES[verb](line);
  const sure = await ask({ title: words.title, body: [h("p", {}, words.text)], confirm: words.confirm });
  if (sure === null) return;
  await act(verb, { channel: line.channel }, pressed);
}

// --- what is shown --------------------------------------------------------------------------

function enrolled(found) {
  return [
    warning(found),
    steps(found.state, found.busy),
    h(
      "ul.lines",
      {},
      found.lines.map((line) => h("li", {}, lineCard(line, found, confirmed))),
    ),
    h("div.tiles", {}, looked(found), trusted(found.trust), space(found)),
    h("div.columns-2", {}, history(found.history), aside(found)),
  ].filter(Boolean);
}

function stranger({ problem: said }) {
  if (said) return [notice("bad", "Updates do not work", said)];
  return [
    empty(
      "download",
      "This device follows no repository",
      "Tell it whom to trust, with the file that the owner’s ",
      h("code", {}, "edgekit repo provision"),
      " wrote: ",
      h("code", {}, "edgekit enrol FILE"),
      ". Until then it runs what lies in its folder of models.",
    ),
  ];
}

function notice(kind, title, text) {
  return h(`div.notice.${kind}`, { role: "status" }, icon("alert"), h("div", {}, h("h2", {}, title), h("p", {}, text)));
}

function warning({ problem: said, trust }) {
  if (said) return notice("bad", "This device cannot tell what it trusted", said);
  if (trust && !trust.fresh) {
    return notice(
      "warn",
      "What is known of the repository is out of date",
      "What is installed runs on. Nothing new is installed until the repository has been reached again, and shows " +
        "that it is current: somebody may be holding back its updates.",
    );
  }
  if (trust && !trust.clock_reliable) {
    return notice("warn", "This device’s clock is behind", "The time of the newest signature is used instead.");
  }
  return null;
}

function tile(title, value, ...more) {
  return h("section.panel.tile", {}, h("h2", {}, title), h("p.big", {}, value), more);
}

function looked({ checked_at: at, next_look_at: next, fetches_at: fetches }) {
  const soon = format.known(next) ? `next look ${left(next)}` : "looks only when asked";
  return tile(
    "Last look",
    format.known(at) ? ago(at) : "Never",
    h(
      "p.below",
      {},
      h("span", {}, soon),
      format.known(fetches) && h("span", {}, `fetches ${left(fetches)}`),
    ),
  );
}

function trusted(trust) {
  if (!trust) return tile("Trust", "Nothing yet", h("p.below", {}, h("span", {}, "The first look fetches it.")));
  return tile(
    "Trust",
    trust.fresh ? "Current" : "Out of date",
    h(
      "p.below",
      {},
      h("span", {}, `${trust.fresh ? "until" : "since"} ${format.date(trust.expires)}`),
      h("span", {}, format.plural(trust.releases, "release")),
    ),
  );
}

function space({ disk, installed }) {
  if (!disk) return null;
  return tile(
    "Disk",
    format.bytes(disk.free_bytes),
    h(
      "p.below",
      {},
      h("span", {}, "free"),
      h("span", {}, `${format.bytes(disk.used_bytes)} in ${format.plural(installed.length, "release")}`),
    ),
  );
}

function history(entries) {
  if (!entries.length) return panel("History", h("p.quiet", {}, "Nothing has happened yet."));
  return panel(
    "History",
    h(
      "ol.story",
      {},
      entries.map((entry) => h(
        "li",
        {},
        h(
          "p",
          {},
          h(`span.badge${ENDINGS[entry.ending].kind}`, {}, WISHES.ended(entry)),
          " ",
          h("b", {}, entry.release ?? entry.channel),
          h("time", { datetime: new Date(entry.at * 1000).toISOString() }, ago(entry.at)),
        ),
        entry.reason && h("p.quiet", {}, entry.reason),
        entry.moved_bytes > 0 && h(
          "p.quiet",
          {},
          `${format.bytes(entry.moved_bytes)} downloaded, ${format.bytes(entry.reused_bytes)} reused, ` +
            `in ${format.duration(entry.seconds)}`,
        ),
      )),
    ),
  );
}

function aside(found) {
  return h("div.stack", {}, installed(found.installed), refusals(found.refusals), device(found));
}

function installed(all) {
  if (!all.length) return null;
  const rows = all.map((one) => h(
    "tr",
    {},
    h("th", { scope: "row" }, one.id, " ", one.active && h("span.badge.on", {}, "Serving")),
    h("td.end", {}, format.bytes(one.bytes)),
  ));
  return panel(
    "On this device",
    h(
      "table.plain-table",
      {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Release"), h("th.end", { scope: "col" }, "Size"))),
      h("tbody", {}, rows),
    ),
  );
}

function refusals(all) {
  if (!all.length) return null;
  return panel(
    "Failed here",
    h("p.quiet", {}, "Not tried again until the channel has named another release."),
    h(
      "ul.story",
      {},
      all.map((one) => h(
        "li",
        {},
        h("p", {}, h("b", {}, one.release), h("time", {}, ago(one.at))),
        h("p.quiet", {}, one.reason),
      )),
    ),
  );
}

function device({ device: id, labels, repositories, trust }) {
  const words = Object.entries(labels).map(([name, value]) => `${name}=${value}`);
  return panel(
    "This device",
    list([
      ["Id", id],
      ["Labels", words.join(", ") || "none"],
      [repositories.length > 1 ? "Repositories" : "Repository", repositories.join(", ") || "none"],
      ["Keys", trust ? `version ${trust.root_version}` : null],
      ["Signed state", trust ? `version ${format.count(trust.timestamp_version)}` : null],
    ]),
  );
}
