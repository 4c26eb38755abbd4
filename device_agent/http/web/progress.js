// How far an update is: five steps, and a bar while bytes come.

import { meter } from "./chart.js";
import { h } from "./dom.js";
import * as format from "./format.js";

const STEPS = [
  ["checking", "Look"],
  ["fetching", "Fetch"],
  ["verifying", "Verify"],
  ["trial", "Try"],
  ["soaking", "Watch"],
];

const TOLD = {
  checking: () => "Asking the repository what is new.",
  fetching: ({ release }) => `Downloading ${release}. The model that runs now goes on serving.`,
  verifying: ({ release }) => `Reading every file of ${release} again, and comparing it with what was signed.`,
  trial: ({ release }) => `${release} runs apart from everything, and must give the answers that it was signed with.`,
  soaking: ({ release }) => `${release} answers now. If it fails, this device goes back by itself.`,
};

/** Nothing while nothing goes on. */
export function steps(state, busy) {
  if (busy) {
    return h(
      "section.panel.under-way",
      { "aria-label": "Progress" },
      h("p", {}, `Another program is at work on this device: edgekit ${busy.does}, process ${busy.pid}.`),
    );
  }
  const at = STEPS.findIndex(([phase]) => phase === state.phase);
  if (at < 0) return null;
  return h(
    "section.panel.under-way",
    { "aria-label": "Progress" },
    h(
      "ol.steps",
      {},
      STEPS.map(([phase, label], index) => h(
        `li${index < at ? ".done" : ""}`,
        { "aria-current": phase === state.phase ? "step" : null },
        label,
      )),
    ),
    h("p", {}, TOLD[state.phase](state)),
    state.phase === "fetching" && bar(state),
  );
}

function bar({ done_bytes: done, total_bytes: total, bytes_per_s: speed, eta_s: rest }) {
  const share = total ? done / total : 1;
  return h(
    "div.bar-of-bytes",
    {
      role: "progressbar",
      "aria-label": "Downloaded",
      "aria-valuemin": 0,
      "aria-valuemax": 100,
      "aria-valuenow": Math.round(share * 100),
    },
    meter([{ share, kind: "fill" }]),
    h(
      "p.below",
      {},
      h("span", {}, `${format.bytes(done)} of ${format.bytes(total)}`),
      h(
        "span",
        {},
        [
          format.known(speed) && `${format.bytes(speed)}/s`,
          format.known(rest) && `${format.duration(rest)} left`,
        ].filter(Boolean).join(", "),
      ),
    ),
  );
}
