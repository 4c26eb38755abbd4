// What a conversation looks like: one node per turn, with its actions and its numbers.

import { render } from "./markdown.js";

const ICONS = {
  copy: "M8 7.5h7a1 1 0 0 1 1 1v7a1 1 0 0 1-1 1H8a1 1 0 0 1-1-1v-7a1 1 0 0 1 1-1zM4.5 12.5a1 1 0 0 1-1-1v-7a1 1 0 0 1 1-1h7a1 1 0 0 1 1 1",
  retry: "M15.6 8A6 6 0 1 0 16 11.2M16 4.5V8h-3.5",
  edit: "m4 16 .8-3.4 8.4-8.4a1.4 1.4 0 0 1 2 0l.6.6a1.4 1.4 0 0 1 0 2l-8.4 8.4z",
};
const SVG = "http://www.w3.org/2000/svg";

/** A turn of the person, with a way to change it. */
export function userTurn(text, { onEdit }) {
  const turn = box("turn user");
  const bubble = box("bubble");
  bubble.textContent = text;
  const actions = box("actions");
  actions.append(action("edit", "Edit", onEdit));
  turn.append(speaker("You said"), bubble, actions);
  return turn;
}

/** A turn of the model: `show` its text so far, then `finish` it with its numbers. */
export class AnswerTurn {
  #text = "";
  #frame = 0;
  #body = box("prose");
  #numbers = box("numbers");
  #actions = box("actions");

  constructor({ onRetry }) {
    this.node = box("turn answer waiting");
    this.#actions.append(
      action("copy", "Copy", (button) => copy(this.#text, button)),
      action("retry", "Try again", onRetry),
    );
    const foot = box("foot-line");
    foot.append(this.#actions, this.#numbers);
    this.node.append(speaker("The model said"), this.#body, foot);
  }

  get text() {
    return this.#text;
  }

  add(text) {
    this.#text += text;
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
    this.#draw();
    this.node.classList.remove("waiting", "writing");
    this.node.classList.add("done");
    if (!note) return;
    const line = box("note");
    line.textContent = note;
    this.#body.append(line);
  }

  #draw() {
    this.#frame = 0;
    this.#body.replaceChildren(render(this.#text, copy));
  }
}

/** Puts `text` on the clipboard and says so on `button`; without https or localhost the old way is the only one. */
async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    field.className = "hidden";
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    button.focus();
  }
  const label = button.querySelector("span") ?? button;
  const before = label.textContent;
  if (before === "Copied") return;
  label.textContent = "Copied";
  setTimeout(() => (label.textContent = before), 1500);
}

function action(icon, label, onClick) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "action";
  button.title = label;
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", "0 0 20 20");
  picture.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[icon]);
  picture.append(path);
  const text = document.createElement("span");
  text.textContent = label;
  button.append(picture, text);
  button.addEventListener("click", () => onClick(button));
  return button;
}

function speaker(text) {
  const node = document.createElement("h3");
  node.className = "hidden";
  node.textContent = text;
  return node;
}

function box(className) {
  const node = document.createElement("div");
  node.className = className;
  return node;
}
