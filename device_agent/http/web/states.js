// What a view shows when it has nothing to show: loading, empty, or an error with a way on.

import { h, icon } from "./dom.js";

/** Grey shapes in the place of what is coming, so that nothing jumps. */
export function loading(kind, number) {
  return h(
    "div.loading",
    { role: "status", "aria-label": "Loading" },
    h(`div.${kind}`, {}, Array.from({ length: number }, () => h("div.bone"))),
  );
}

/** A quiet box that says why there is nothing, and what to do about it. */
export function empty(picture, title, ...words) {
  return h("div.empty", {}, icon(picture), h("h2", {}, title), h("p", {}, words));
}

const OLDER = "The program that answers here is older than this page, or was built without it. All else works.";

/** Why a view could not be filled. An agent that does not know a route is older than this page, or built without it. */
export function problem(error, { retry, what }) {
  const missing = error.status === 404 || error.status === 405;
  return h(
    "div.empty.problem",
    { role: "alert" },
    icon(error.status === 401 ? "lock" : "alert"),
    h(
      "h2",
      {},
      missing ? `This agent does not offer ${what}` : `${what[0].toUpperCase()}${what.slice(1)} could not be shown`,
    ),
    h(
      "p",
      {},
      missing ? OLDER : error.message,
    ),
    h("button.plain.outlined", { type: "button", click: retry }, "Try again"),
  );
}
