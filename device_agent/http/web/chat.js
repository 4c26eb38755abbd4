// The chat view: reads the person, asks the agent, shows the answer, and keeps the conversation.

import * as api from "./api.js";
import * as conversations from "./conversations.js";
import * as history from "./history.js";
import { fullness, NEARLY_FULL, stopwatch } from "./numbers.js";
import * as picker from "./picker.js";
import { address, replace } from "./router.js";
import * as settings from "./settings.js";
import { AnswerTurn, userTurn } from "./turns.js";

const $ = (id) => document.getElementById(id);
const input = $("input");
const scroll = $("scroll");

let current = conversations.blank();
let nodes = []; // the node of each of its messages
let running = null; // {controller, turn, clock} of the answer in progress
let following = true; // whether the end is kept in sight while text comes
let scrolledTo = 0; // where the conversation was scrolled to

// --- the view -------------------------------------------------------------------------------

/** Shows the conversation `id`, a new one if `?model=` asks for it, or the one that was shown before. */
export function enter({ id, query, first }) {
  if (id === null && query.has("model")) {
    begin(conversations.blank());
    picker.pick(query.get("model"));
    describe();
    replace(address("chat"));
  } else if (id !== null && id !== current.id) {
    const found = conversations.get(id);
    begin(found ?? conversations.blank());
    if (!found) replace(address("chat"));
  } else if (id === null && current.messages.length) {
    replace(address("chat", current.id));
  }
  entitle();
  if (first && matchMedia("(hover: hover)").matches) input.focus();
}

/** Connects everything. To be called once the conversations are there. */
export function start() {
  settings.start($("open-settings"));
  picker.start(describe);
  history.start((id) => id === current.id && newChat());
  wire();
  wireKeeping();
  grow();
  introduce();
}

/** Called when the list of conversations is another. */
export function changed() {
  const kept = conversations.get(current.id);
  if (kept && !running && kept.messages.length !== nodes.length) begin(kept); // another tab wrote to it
  entitle();
}

function begin(conversation) {
  settle();
  current = conversation;
  $("log").replaceChildren();
  nodes = [];
  for (const message of current.messages) {
    const node = message.role === "user" ? asked(message.content) : answered(message);
    nodes.push(node);
  }
  $("log").append(...nodes);
  if (current.model) picker.pick(current.model);
  hideError();
  showContext(null);
  markLast();
  describe();
  entitle();
  toEnd();
}

function newChat() {
  history.close();
  begin(conversations.blank());
  replace(address("chat"));
  entitle();
  input.focus();
}

function entitle() {
  const title = current.title || "New chat";
  $("chat-title").textContent = title;
  $("chat-title").title = title;
  if (!$("view-chat").hidden) document.title = current.title ? `${title} · edgekit` : "Chat · edgekit";
  document.querySelector("[data-view=chat]").href = address("chat", current.messages.length ? current.id : null);
  history.show(current.id);
}

// --- asking ---------------------------------------------------------------------------------

async function send(text) {
  hideError();
  if (settings.obstacle()) {
    showError(new Error(settings.obstacle()));
    input.value = text;
    grow();
    return;
  }
  push({ role: "user", content: text }, asked(text));
  replace(address("chat", current.id));
  await Promise.all([answer(), save()]);
}

async function answer() {
  const parameters = settings.parameters();
  const run = { controller: new AbortController(), clock: stopwatch(), conversation: current };
  run.turn = new AnswerTurn({ onRetry: () => retry(run.turn.node), json: "response_format" in parameters });
  running = run;
  busy(true);
  $("log").append(run.turn.node);
  toEnd(true);
  try {
    const end = await ask(run, parameters);
    run.turn.numbers(run.clock.text(end));
    finish(run, end.finish === "length" ? "The answer reached its longest length." : "");
    if (running === run) showContext(end.usage);
    keepUp(run);
    say(run.turn.text);
  } catch (error) {
    if (running === run) stopped(run, error); // else another conversation is shown, and this one was settled
  } finally {
    if (running === run) {
      running = null;
      busy(false);
    }
  }
}

async function ask(run, parameters) {
  if (!picker.chosen()) picker.fill(await api.models());
  const { id } = picker.chosen() ?? {};
  if (!id) throw new api.ApiError("The agent has no model that writes texts.");
  run.model = id;
  const messages = current.messages.map(({ role, content }) => ({ role, content }));
  const request = {
    model: id,
    messages: [...settings.systemMessages(), ...messages],
    ...parameters,
    ...picker.strategy(),
  };
  return api.chat(request, {
    signal: run.controller.signal,
    heard: (delta) => {
      if (!delta.content && !delta.reasoning_content && !delta.tool_calls) return;
      run.turn.hear(delta, run.clock.tick());
      run.turn.numbers(run.clock.text());
      requestAnimationFrame(() => keepUp(run));
    },
  });
}

function stopped(run, error) {
  const wanted = error.name === "AbortError";
  if (run.turn.begun) finish(run, wanted ? "Stopped." : "The answer broke off here.");
  else run.turn.node.remove();
  if (wanted) say("Stopped.");
  else showError(error);
}

/** The answer is what it is now: it joins its conversation. */
function finish(run, note) {
  run.turn.finish(note);
  run.conversation.messages.push({ ...run.turn.record, model: run.model });
  run.conversation.model = run.model;
  if (run.conversation === current) nodes.push(run.turn.node);
  markLast();
  save(run.conversation);
}

/** Ends what is running because something else is to be shown; what was written is kept. */
function settle() {
  const run = running;
  running = null;
  busy(false);
  if (!run) return;
  run.controller.abort();
  if (run.turn.begun) finish(run, "Stopped.");
}

function save(conversation = current) {
  return conversations.keep(conversation);
}

// --- turns ----------------------------------------------------------------------------------

function asked(text) {
  const node = userTurn(text, { onEdit: () => edit(node) });
  return node;
}

function answered(message) {
  const turn = AnswerTurn.of(message, { onRetry: () => retry(turn.node) });
  return turn.node;
}

function push(message, node) {
  current.messages.push(message);
  nodes.push(node);
  $("log").append(node);
  markLast();
}

/** Only the last question and the last answer can be changed: earlier ones have consequences. */
function markLast() {
  $("welcome").hidden = current.messages.length > 0;
  const lastQuestion = current.messages.findLastIndex((message) => message.role === "user");
  nodes.forEach((node, index) => node.classList.toggle("last", index >= lastQuestion));
}

function cutFrom(index) {
  for (const node of nodes.splice(index)) node.remove();
  current.messages.splice(index);
  markLast();
}

function retry(node) {
  if (running) return;
  hideError();
  const index = nodes.indexOf(node);
  if (index >= 0) cutFrom(index);
  answer();
}

function edit(node) {
  if (running) return;
  hideError();
  const index = nodes.indexOf(node);
  input.value = current.messages[index].content;
  cutFrom(index);
  grow();
  input.focus();
}

// --- what is on the page --------------------------------------------------------------------

async function introduce() {
  try {
    picker.fill(await api.models());
  } catch (error) {
    showError(error);
    return;
  }
  picker.pick(current.model || picker.chosen()?.id);
  describe();
}

function describe() {
  const model = picker.chosen();
  $("model").title = model?.id ?? "";
  $("welcome-model").textContent = model?.id ?? "";
  settings.bound(model?.meta?.n_ctx);
  $("facts").replaceChildren(
    ...picker.facts(model?.meta).map((fact) => Object.assign(document.createElement("li"), { textContent: fact })),
  );
}

function showContext(usage) {
  const found = fullness(usage?.total_tokens, picker.chosen()?.meta?.n_ctx);
  $("context").textContent = found?.text ?? "";
  $("full").hidden = !found || found.share < NEARLY_FULL;
  if (!found) return;
  const share = `${Math.round(found.share * 100)} %`;
  $("full-text").textContent = `The context is ${share} full. At 100 % the model can take no more questions here.`;
}

function busy(on) {
  document.body.classList.toggle("busy", on);
  $("send").setAttribute("aria-label", on ? "Stop" : "Send");
  $("send").title = on ? "Stop (Esc)" : "Send (Enter)";
  if (on) say("The model is answering.");
  grow();
}

function showError(error) {
  if (error.name === "AbortError") return;
  $("banner-text").textContent = error.message;
  $("banner-new").hidden = error.code !== "context_length_exceeded";
  $("banner").hidden = false;
  console.info("edgekit:", error.message);
}

function hideError() {
  $("banner").hidden = true;
}

/** For screen readers: whole answers, not every token. */
function say(text) {
  $("status").textContent = text;
}

/** Who scrolls up wants to read there; who comes back to the end wants to follow again. */
function scrolled() {
  if (scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80) following = true;
  else if (scroll.scrollTop < scrolledTo) following = false;
  scrolledTo = scroll.scrollTop;
}

function keepUp(run) {
  if (following && running === run) toEnd();
}

function toEnd(smooth = false) {
  following = true;
  scroll.scrollTo({ top: scroll.scrollHeight, behavior: smooth ? "smooth" : "instant" });
}

/** The field is as high as its text, up to what the stylesheet allows. */
function grow() {
  input.style.height = "auto";
  if (input.scrollHeight) input.style.height = `${input.scrollHeight}px`;
  $("send").disabled = !running && !input.value.trim();
}

function submit() {
  const text = input.value.trim();
  if (running || !text) return;
  input.value = "";
  grow();
  send(text);
}

function tryAgain() {
  hideError();
  if (settings.obstacle()) settings.openAt("schema");
  else if (current.messages.at(-1)?.role === "user") answer();
  else if (current.messages.length) retry(nodes.at(-1));
  else introduce();
}

// --- wiring ---------------------------------------------------------------------------------

function wire() {
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) running.controller.abort();
    else submit();
    input.focus();
  });
  scroll.addEventListener("scroll", scrolled, { passive: true });
  input.addEventListener("input", grow);
  input.addEventListener("keydown", (event) => {
    // While an input method composes a character, Enter belongs to it.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || document.querySelector("dialog[open], :popover-open")) return;
    running?.controller.abort();
  });
  $("examples").addEventListener("click", (event) => {
    const prompt = event.target.closest("button")?.dataset.prompt;
    if (prompt && !running) send(prompt);
  });
  $("banner-retry").addEventListener("click", tryAgain);
  $("banner-close").addEventListener("click", () => {
    hideError();
    input.focus();
  });
  for (const id of ["new", "new-here", "banner-new", "full-new"]) $(id).addEventListener("click", newChat);
  addEventListener("pagehide", settle);
}

function wireKeeping() {
  const box = $("keep");
  const gone = (id) => id === current.id && newChat();
  box.checked = conversations.isKeeping();
  box.addEventListener("change", async () => {
    const off = !box.checked;
    const question = { title: "Keep nothing from now on?", confirm: "Keep nothing" };
    if (off && !(await history.removeAll(gone, question))) box.checked = true;
    else await conversations.setKeeping(box.checked);
  });
  $("delete-all").addEventListener(
    "click",
    () => history.removeAll(gone, { title: "Delete all conversations?", confirm: "Delete all" }),
  );
}
