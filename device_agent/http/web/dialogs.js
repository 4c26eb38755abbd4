// Small questions: a sentence, perhaps fields, and two buttons.

import { h } from "./dom.js";

let serial = 0;

/**
 * Asks, and resolves to the form's values by name, or to null if the person declined. `body` are nodes; focus goes to
 * the first field, and back to where it was when the dialog closes.
 */
export function ask({ title, body = [], confirm = "OK", decline = "Cancel", danger = false }) {
  return new Promise((resolve) => {
    const id = `dialog-${++serial}`;
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", { id }, title),
      body,
      h(
        "div.choices",
        {},
        h("button.plain", { type: "button", click: () => dialog.close() }, decline),
        h(danger ? "button.primary.danger" : "button.primary", { type: "submit", value: "yes" }, confirm),
      ),
    );
    const dialog = h("dialog.sheet", { "aria-labelledby": id }, form);
    dialog.addEventListener("close", () => {
      const values = dialog.returnValue === "yes" ? Object.fromEntries(new FormData(form)) : null;
      dialog.remove();
      resolve(values);
    });
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector("input, textarea")?.focus();
  });
}

/** A labelled field for `ask`. */
export function field(label, attributes, help = "") {
  const id = `field-${++serial}`;
  return h(
    "div.field",
    {},
    h("label", { for: id }, label),
    h("input.text", { id, autocomplete: "off", spellcheck: "false", ...attributes }),
    help && h("p.help", {}, help),
  );
}

/** A box to tick, for `ask`. */
export function tick(label, name) {
  return h("label.tick", {}, h("input", { type: "checkbox", name }), h("span", {}, label));
}
