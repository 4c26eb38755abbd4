// The chat page: reads the person, asks the agent, shows the answer.

import * as api from "./api.js";
import * as settings from "./settings.js";
import { AnswerTurn, userTurn } from "./turns.js";

const $ = (id) => document.getElementById(id);
const input = $("input");
const scroll = $("scroll");

let model = null; // {id, meta} once the agent has told
let messages = []; // {role, content}: what the model sees, in order
let nodes = []; // the node of each message
let running = null; // AbortController of the answer in progress

// --- asking ---------------------------------------------------------------------------------

async function send(text) {
  hideError();
  const turn = userTurn(text, { onEdit: () => edit(turn) });
  push("user", text, turn);
  await answer();
}

async function answer() {
  const controller = new AbortController();
  const turn = new AnswerTurn({ onRetry: () => retry(turn.node) });
  const clock = stopwatch();
  running = controller;
  busy(true);
  $("log").append(turn.node);
  toEnd(true);
  try {
    model ??= await api.model();
    const request = { model: model.id, messages: [...settings.systemMessages(), ...messages], ...settings.sampling() };
    const end = await api.chat(request, {
      signal: controller.signal,
      onText: (piece) => {
        const stay = atEnd();
        clock.tick();
        turn.add(piece);
        turn.numbers(clock.text());
        if (stay) requestAnimationFrame(() => toEnd());
      },
    });
    const stay = atEnd();
    turn.finish(end.finish === "length" ? "The answer reached its longest length." : "");
    turn.numbers(clock.text(end));
    showContext(end.usage);
    keep(turn);
    if (stay) toEnd();
    say(turn.text);
  } catch (error) {
    if (running === controller) stopped(turn, clock, error); // else a new chat has begun, and nobody cares
  } finally {
    if (running === controller) {
      running = null;
      busy(false);
    }
  }
}

function stopped(turn, clock, error) {
  const wanted = error.name === "AbortError";
  if (turn.text) {
    turn.finish(wanted ? "Stopped." : "The answer broke off here.");
    turn.numbers(clock.text());
    keep(turn);
  } else {
    turn.node.remove();
  }
  if (wanted) say("Stopped.");
  else showError(error);
}

function keep(turn) {
  messages.push({ role: "assistant", content: turn.text });
  nodes.push(turn.node);
  markLast();
}

function push(role, content, node) {
  messages.push({ role, content });
  nodes.push(node);
  $("log").append(node);
  markLast();
}

/** Only the last question and the last answer can be changed: earlier ones have consequences. */
function markLast() {
  $("welcome").hidden = messages.length > 0;
  const lastQuestion = messages.findLastIndex((message) => message.role === "user");
  nodes.forEach((node, index) => node.classList.toggle("last", index >= lastQuestion));
}

function cutFrom(index) {
  for (const node of nodes.splice(index)) node.remove();
  messages.splice(index);
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
  input.value = messages[index].content;
  cutFrom(index);
  grow();
  input.focus();
}

function newChat() {
  running?.abort();
  running = null;
  busy(false);
  cutFrom(0);
  $("log").replaceChildren(); // with the answer that was being written
  hideError();
  $("context").textContent = "";
  input.focus();
}

// --- numbers --------------------------------------------------------------------------------

function stopwatch() {
  const start = performance.now();
  let first = 0;
  let last = 0;
  let pieces = 0;
  return {
    tick() {
      last = performance.now();
      first ||= last;
      pieces += 1;
    },
    /** The device's own count when the answer has ended, and the page's estimate until then. */
    text(end) {
      if (!pieces) return "";
      const estimate = pieces > 1 ? ((pieces - 1) * 1000) / (last - first) : 0;
      const rate = end?.timings?.predicted_per_second || estimate;
      const parts = [];
      if (rate) parts.push(`${rate.toFixed(rate < 10 ? 1 : 0)} tokens/s`);
      parts.push(`first token ${seconds(first - start)}`);
      if (end?.usage) parts.push(`${end.usage.completion_tokens} tokens`);
      return parts.join("  ·  ");
    },
  };
}

function seconds(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function showContext(usage) {
  if (!usage || !model.meta?.n_ctx) return;
  const [used, all] = [usage.total_tokens, model.meta.n_ctx].map((count) => count.toLocaleString("en"));
  $("context").textContent = `${used} of ${all} tokens of context`;
}

function facts({ quantisation, size, n_ctx: context, version }) {
  const bytes = size >= 1e9 ? `${(size / 1e9).toFixed(1)} GB` : `${Math.round(size / 1e6)} MB`;
  return [quantisation?.toUpperCase(), bytes, `${context.toLocaleString("en")} context`, `v${version}`];
}

// --- what is on the page --------------------------------------------------------------------

async function introduce() {
  try {
    model = await api.model();
  } catch (error) {
    showError(error);
    return;
  }
  document.title = `${model.id} on edgekit`;
  $("model").textContent = model.id;
  $("model").title = model.id;
  if (!model.meta) return;
  settings.bound(model.meta.n_ctx);
  $("facts").hidden = false;
  $("facts").replaceChildren(
    ...facts(model.meta).map((fact) => {
      const item = document.createElement("span");
      item.textContent = fact;
      return item;
    }),
  );
}

function busy(on) {
  document.body.classList.toggle("busy", on);
  $("send").setAttribute("aria-label", on ? "Stop" : "Send");
  $("send").title = on ? "Stop (Esc)" : "Send (Enter)";
  if (on) say("The model is answering.");
  grow();
}

function showError(error) {
  $("banner-text").textContent = error.message;
  $("banner").hidden = false;
  console.info("edgekit:", error);
}

function hideError() {
  $("banner").hidden = true;
}

/** For screen readers: whole answers, not every token. */
function say(text) {
  $("status").textContent = text;
}

function atEnd() {
  return scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80;
}

function toEnd(smooth = false) {
  scroll.scrollTo({ top: scroll.scrollHeight, behavior: smooth ? "smooth" : "instant" });
}

/** The field is as high as its text, up to what the stylesheet allows. */
function grow() {
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight}px`;
  $("send").disabled = !running && !input.value.trim();
}

function submit() {
  const text = input.value.trim();
  if (running || !text) return;
  input.value = "";
  grow();
  send(text);
}

// --- wiring ---------------------------------------------------------------------------------

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) running.abort();
  else submit();
  input.focus();
});

input.addEventListener("input", grow);
input.addEventListener("keydown", (event) => {
  // While an input method composes a character, Enter belongs to it.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running && !$("settings").open) running.abort();
});

$("examples").addEventListener("click", (event) => {
  const prompt = event.target.closest("button")?.dataset.prompt;
  if (prompt && !running) send(prompt);
});

$("banner-retry").addEventListener("click", () => {
  hideError();
  if (messages.at(-1)?.role === "user") answer();
  else if (messages.length) retry(nodes.at(-1));
  else introduce();
  input.focus();
});

$("banner-close").addEventListener("click", () => {
  hideError();
  input.focus();
});

$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.theme = (root.dataset.theme ?? system) === "dark" ? "light" : "dark";
  try {
    localStorage.setItem("edgekit.theme", root.dataset.theme);
  } catch {
    // Storage may be switched off: the choice then lasts as long as the page.
  }
});

$("new").addEventListener("click", newChat);
settings.start($("open-settings"));
grow();
introduce();
