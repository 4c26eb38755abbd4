// The list of conversations: beside the chat where there is room, in a drawer where there is not.

import * as conversations from "./conversations.js";
import { ask, field } from "./dialogs.js";
import { h, icon } from "./dom.js";
import { saveJson, saveMarkdown } from "./download.js";
import { openMenu } from "./menu.js";
import { address } from "./router.js";

const DAY_MS = 86_400_000;
const WIDE = matchMedia("(min-width: 68rem)");

const $ = (id) => document.getElementById(id);
const panel = $("history");
const search = $("search");
let current = null;

/** Connects the list; `removed(id)` is called when a conversation is gone. */
export function start(removed) {
  search.addEventListener("input", show);
  $("open-history").addEventListener("click", () => {
    $("history-drawer").showModal();
    search.focus();
  });
  $("history-drawer").addEventListener("click", (event) => {
    if (event.target === $("history-drawer") || event.target.closest("a")) close();
  });
  $("chat-menu").addEventListener("click", () => menu($("chat-menu"), current, removed));
  panel.addEventListener("click", (event) => {
    const opener = event.target.closest("button[data-id]");
    if (opener) menu(opener, opener.dataset.id, removed);
  });
  WIDE.addEventListener("change", settle);
  settle();
}

/** Draws the list; `id` is the conversation that is shown. */
export function show(id) {
  if (typeof id === "string" || id === null) current = id;
  const found = conversations.list(search.value);
  $("chat-menu").hidden = !conversations.get(current);
  $("keeping-off").hidden = conversations.isKeeping();
  $("conversations").replaceChildren(...(found.length ? groups(found) : [nothing()]));
}

/** Closes the drawer, if it is one now. */
export function close() {
  if ($("history-drawer").open) $("history-drawer").close();
}

/** One panel, in whichever of its two places there is room for it: its content exists once. */
function settle() {
  close();
  (WIDE.matches ? $("history-side") : $("history-drawer")).append(panel);
}

function groups(found) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const names = {
    Today: midnight,
    Yesterday: midnight - DAY_MS,
    "Last 7 days": midnight - 6 * DAY_MS,
    Earlier: -Infinity,
  };
  const parts = Object.groupBy(found, ({ updated }) => Object.keys(names).find((name) => updated >= names[name]));
  return Object.keys(names)
    .filter((name) => parts[name])
    .flatMap((name) => [h("h3", {}, name), h("ul", {}, parts[name].map(entry))]);
}

function entry({ id, title }) {
  const name = title || "Untitled";
  return h(
    "li",
    {},
    h("a", { href: address("chat", id), "aria-current": id === current ? "true" : null, title: name }, name),
    h(
      "button.tool",
      {
        type: "button",
        "data-id": id,
        "aria-label": `Actions for ${name}`,
        "aria-haspopup": "menu",
        "aria-expanded": "false",
      },
      icon("more"),
    ),
  );
}

function nothing() {
  const searching = search.value.trim();
  return h(
    "p.quiet",
    {},
    searching ? "Nothing found." : "No conversations yet. They stay in this browser; nothing is sent anywhere else.",
  );
}

function menu(opener, id, removed) {
  const conversation = conversations.get(id);
  if (!conversation) return;
  openMenu(opener, [
    { label: "Rename", run: () => rename(conversation) },
    { label: "Save as Markdown", run: () => saveMarkdown(conversation) },
    { label: "Save as JSON", run: () => saveJson(conversation) },
    { label: "Delete", danger: true, run: () => remove(conversation, removed) },
  ]);
}

async function rename({ id, title }) {
  const values = await ask({
    title: "Rename",
    body: [field("Name", { name: "title", value: title, maxlength: conversations.LIMITS.title, required: true })],
    confirm: "Rename",
  });
  if (values) await conversations.rename(id, values.title);
}

async function remove({ id, title }, removed) {
  const sure = await ask({
    title: "Delete this conversation?",
    body: [h("p", {}, `“${title || "Untitled"}” is removed from this browser for good.`)],
    confirm: "Delete",
    danger: true,
  });
  if (!sure) return;
  await conversations.remove(id);
  removed(id);
}

/** Asks before everything that was kept is deleted; resolves to whether it was. */
export async function removeAll(removed, { title, confirm }) {
  const number = conversations.list().length;
  const words = number === 1 ? "One conversation is" : `${number} conversations are`;
  const body = [h("p", {}, `${words} removed from this browser for good.`)];
  if (number && !(await ask({ title, body, confirm, danger: true }))) return false;
  const ids = conversations.list().map(({ id }) => id);
  await conversations.clear();
  for (const id of ids) removed(id);
  return true;
}
