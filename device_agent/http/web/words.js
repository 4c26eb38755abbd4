// What the agent says of updates, in sentences.

import * as format from "./format.js";

/** How an outcome is shown; `kind` is the badge's further class. */
export const ENDINGS = {
  installed: { label: "Installed", kind: ".on" },
  current: { label: "Up to date", kind: ".on" },
  held: { label: "Waiting", kind: "" },
  refused: { label: "Refused", kind: ".bad" },
  failed: { label: "Not done", kind: ".bad" },
};

const DONE = { rollback: "Went back", pin: "Pinned", unpin: "Follows again" };

const PHASES = {
  idle: "The update has ended.",
  checking: "Looking for updates.",
  fetching: "Downloading",
  verifying: "Reading every file again",
  trial: "Trying the new release",
  soaking: "The new release serves, and is watched.",
};

/** Questions before something is changed, and words afterwards. */
export const WISHES = {
  rollback: ({ active, previous, trial }) => ({
    title: `Go back to ${trial ? active : previous}?`,
    text:
      `Requests move to it without a pause, and it needs no network. ${trial ?? active} is not taken again until the ` +
      "channel names another release.",
    confirm: "Go back",
  }),
  pin: ({ active }) => ({
    title: `Stay on ${active}?`,
    text: "The channel is ignored until you follow it again, also where a newer release repairs something.",
    confirm: "Pin it",
  }),
  unpin: ({ channel }) => ({
    title: `Follow ${channel} again?`,
    text: "The next look installs what the channel offers.",
    confirm: "Follow it",
  }),
  ended: ({ does, ending, exit_code: code }) => (code === 0 && DONE[does]) || ENDINGS[ending].label,
  phase: ({ phase, release }) => `${PHASES[phase] ?? phase}${release && phase !== "soaking" ? ` ${release}` : ""}`,
};

/** Unix seconds in the past -> "5 min ago". */
export function ago(seconds) {
  const passed = Date.now() / 1000 - seconds;
  if (passed < 10) return "just now";
  return passed < 7 * 86_400 ? `${largest(passed)} ago` : format.date(seconds);
}

/** Unix seconds in the future -> "in 40 min". */
export function left(seconds) {
  const rest = seconds - Date.now() / 1000;
  return rest < 10 ? "now" : `in ${largest(rest)}`;
}

function largest(seconds) {
  return format.duration(seconds).split(" ").slice(0, 2).join(" ");
}
