// The line of numbers beneath an answer, and how full the context is.

import * as format from "./format.js";

/** From this share of the context on, a hint says so. */
export const NEARLY_FULL = 0.8;

/** Counts pieces as they come: the page's own estimate, until the agent's measurement is there. */
export function stopwatch() {
  const start = performance.now();
  let first = 0;
  let last = 0;
  let pieces = 0;
  return {
    /** Milliseconds since the question. */
    tick() {
      last = performance.now();
      first ||= last;
      pieces += 1;
      return last - start;
    },
    text(end) {
      if (!pieces) return "";
      const estimate = pieces > 1 && last > first ? ((pieces - 1) * 1000) / (last - first) : 0;
      const rate = end?.timings?.predicted_per_second || estimate;
      const parts = rate ? [`${format.rate(rate)} tokens/s`] : [];
      parts.push(`first token ${format.wait(first - start)}`);
      return [...parts, ...counted(end?.usage)].join(" · ");
    },
  };
}

function counted(usage) {
  if (!usage) return [];
  const cached = usage.prompt_tokens_details?.cached_tokens;
  const parts = [format.plural(usage.completion_tokens, "token")];
  if (cached) parts.push(`${format.count(cached)} of ${format.count(usage.prompt_tokens)} prompt tokens cached`);
  return parts;
}

/** Share of the context in use and a sentence for it, or null if it is not known. */
export function fullness(usedTokens, contextTokens) {
  if (!format.known(usedTokens) || !contextTokens) return null;
  const text = `${format.count(usedTokens)} of ${format.count(contextTokens)} tokens of context`;
  return { share: Math.min(1, usedTokens / contextTokens), text };
}
