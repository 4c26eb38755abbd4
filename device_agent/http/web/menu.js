// A small menu at a button: opened by click or keys, left by Escape, a choice or a click elsewhere.

import { h } from "./dom.js";

const GAP_PX = 6;

/** Opens a menu of {label, danger, run} beside `button`. */
export function openMenu(button, entries) {
  const menu = h("div.menu", { role: "menu", popover: "auto", "aria-label": button.getAttribute("aria-label") });
  const items = entries.map(({ label, danger, run }) =>
    h(
      danger ? "button.danger" : "button",
      { type: "button", role: "menuitem", tabindex: "-1", click: () => choose(run) },
      label,
    ),
  );
  const choose = (run) => {
    menu.hidePopover();
    run();
  };
  menu.append(...items);
  menu.addEventListener("keydown", (event) => walk(event, items));
  menu.addEventListener("toggle", (event) => {
    if (event.newState === "open") return;
    button.setAttribute("aria-expanded", "false");
    if (menu.contains(document.activeElement) || document.activeElement === document.body) button.focus();
    menu.remove();
  });
  (button.closest("dialog") ?? document.body).append(menu);
  menu.showPopover();
  place(menu, button);
  button.setAttribute("aria-expanded", "true");
  items[0].focus();
}

function place(menu, button) {
  const at = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = menu;
  const below = at.bottom + GAP_PX + height <= innerHeight;
  menu.style.left = `${Math.max(8, Math.min(at.right - width, innerWidth - width - 8))}px`;
  menu.style.top = `${Math.max(8, below ? at.bottom + GAP_PX : at.top - GAP_PX - height)}px`;
}

function walk(event, items) {
  const at = items.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
  if (event.key === "Tab") items[0].closest(".menu").hidePopover();
  if (to === undefined) return;
  event.preventDefault();
  items.at(to % items.length).focus();
}
