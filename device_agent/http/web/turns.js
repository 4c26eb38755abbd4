// What a conversation looks like: one node per turn, with its actions and its numbers.

import { copy } from "./clipboard.js";
import { button, h, icon } from "./dom.js";
import * as format from "./format.js";
import { jsonTree, parseJson } from "./json.js";
import { Growing } from "./markdown.js";

const MOST_CALLS = 128;

/** A turn of the person, with a way to change it. */
export function userTurn(text, { onEdit }) {
  return h(
    "div.turn.user",
    {},
    h("h2.hidden", {}, "You said"),
    h("div.bubble", {}, text),
    h("div.actions", {}, button("action", "edit", "Edit", onEdit)),
  );
}

/** A turn of the model: `hear` its pieces, then `finish` it. `record` is what is kept of it. */
export class AnswerTurn {
  #text = "";
  #thought = "";
  #calls = [];
  #frame = 0;
  #json;
  #note = "";
  #took = 0;
  #body = h("div.prose");
  #thoughts = h("div.prose");
  #state = h("span.state");
  #reasoning = h(
    "details.reasoning",
    { hidden: true },
    h("summary", {}, icon("next"), h("span", {}, "Reasoning"), this.#state),
    this.#thoughts,
  );
  #tools = h("div.calls");
  #numbers = h("div.numbers");
  #growing = new Growing(this.#body, copy);
  #growingThought = new Growing(this.#thoughts, copy);

  constructor({ onRetry, json = false }) {
    this.#json = json;
    const actions = h(
      "div.actions",
      {},
      button("action", "copy", "Copy", (event) => copy(this.#text, event.currentTarget)),
      button("action", "retry", "Try again", onRetry),
    );
    this.node = h(
      "div.turn.answer.waiting",
      {},
      h("h2.hidden", {}, "The model said"),
      this.#reasoning,
      this.#body,
      this.#tools,
      h("div.foot-line", {}, actions, this.#numbers),
    );
  }

  /** An answer of earlier, as it was kept. */
  static of(record, { onRetry }) {
    const turn = new AnswerTurn({ onRetry, json: record.json });
    turn.#text = record.content;
    turn.#thought = record.reasoning ?? "";
    turn.#calls = record.calls ?? [];
    turn.#took = record.thought_ms ?? 0;
    turn.finish(record.note ?? "");
    turn.numbers(record.numbers ?? "");
    return turn;
  }

  get text() {
    return this.#text;
  }

  /** Whether the model has said anything at all. */
  get begun() {
    return Boolean(this.#text || this.#thought || this.#calls.length);
  }

  get record() {
    return {
      role: "assistant",
      content: this.#text,
      ...(this.#thought && { reasoning: this.#thought, thought_ms: this.#took }),
      ...(this.#calls.length && { calls: this.#calls }),
      ...(this.#json && { json: true }),
      ...(this.#note && { note: this.#note }),
      ...(this.#numbers.textContent && { numbers: this.#numbers.textContent }),
    };
  }

  /** A delta of the stream, `ms` after the question. */
  hear({ content, reasoning_content: thought, tool_calls: calls }, ms) {
    if (thought) {
      this.#thought += thought;
      this.#took = ms;
    }
    if (content) this.#text += content;
    for (const call of Array.isArray(calls) ? calls : []) this.#hearCall(call);
    this.node.classList.remove("waiting");
    this.node.classList.add("writing");
    // One drawing per frame, however fast the tokens come.
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  numbers(text) {
    this.#numbers.textContent = text;
  }

  finish(note) {
    cancelAnimationFrame(this.#frame);
    this.#note = note;
    this.node.classList.remove("waiting", "writing");
    this.node.classList.add("done");
    this.#draw();
    const found = this.#json ? parseJson(this.#text) : null;
    if (found) this.#body.replaceChildren(jsonTree(found.value));
    if (note) this.#body.append(h("p.note", {}, note));
  }

  #hearCall({ index, function: named }) {
    if (!Number.isInteger(index) || index < 0 || index >= MOST_CALLS) return;
    this.#calls[index] ??= { name: "", arguments: "" };
    this.#calls[index].name += named?.name ?? "";
    this.#calls[index].arguments += named?.arguments ?? "";
  }

  #draw() {
    this.#frame = 0;
    const done = this.node.classList.contains("done");
    if (this.#thought) this.#drawThought(done);
    if (this.#json && this.#text) this.#body.replaceChildren(h("pre.raw", {}, this.#text));
    else this.#growing.show(this.#text);
    if (this.#calls.length) this.#tools.replaceChildren(...this.#calls.filter(Boolean).map(callNode));
  }

  #drawThought(done) {
    this.#reasoning.hidden = false;
    this.#growingThought.show(this.#thought);
    const over = done || this.#text || this.#calls.length;
    this.#state.textContent = over ? (this.#took ? `for ${format.wait(this.#took)}` : "") : "in progress";
  }
}

/** The model wants a function to be called; this page has none, so it only shows what was asked for. */
function callNode({ name, arguments: text }) {
  const found = parseJson(text);
  return h(
    "figure.code.call",
    {},
    h("figcaption", {}, h("span.what", {}, icon("tool"), `Calls ${name}`)),
    h("pre", { tabindex: "0" }, h("code", {}, found ? JSON.stringify(found.value, null, 2) : text)),
  );
}
