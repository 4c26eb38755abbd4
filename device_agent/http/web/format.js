// Numbers and times as people read them.

const STEPS = ["bytes", "kB", "MB", "GB", "TB"];

/** 103700000 -> "104 MB". */
export function bytes(count) {
  if (!known(count)) return "unknown";
  let step = 0;
  let value = count;
  while (Math.round(value) >= 1000 && step < STEPS.length - 1) {
    value /= 1000;
    step += 1;
  }
  return `${value.toFixed(step > 2 && value < 100 ? 1 : 0)} ${STEPS[step]}`;
}

/** 1234567 -> "1,234,567". */
export function count(value) {
  return known(value) ? Math.round(value).toLocaleString("en") : "unknown";
}

/** 1234567 -> "1.2 M", for axes and tight places. */
export function short(value) {
  for (const [limit, unit] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= limit) return `${(value / limit).toFixed(value < limit * 10 ? 1 : 0).replace(/\.0$/, "")} ${unit}`;
  }
  return String(Math.round(value));
}

/** Tokens a second, with a decimal only where it matters. */
export function rate(value) {
  if (!known(value)) return "unknown";
  return value < 10 && value > 0 ? value.toFixed(1) : count(value);
}

/** A share as "95.6 %". */
export function percent(share, digits = 1) {
  return known(share) ? `${(share * 100).toFixed(digits)} %` : "unknown";
}

/** 93784 seconds -> "1 d 2 h". */
export function duration(seconds) {
  if (!known(seconds)) return "unknown";
  const parts = [[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]];
  let rest = Math.max(0, Math.round(seconds));
  const words = [];
  for (const [size, unit] of parts) {
    const whole = Math.floor(rest / size);
    rest %= size;
    if (whole || (unit === "s" && !words.length)) words.push(`${whole} ${unit}`);
  }
  return words.slice(0, 2).join(" ");
}

/** Milliseconds of waiting: "320 ms", "1.4 s". */
export function wait(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** Money, in whatever the agent's price table is in. */
export function money(value, currency) {
  if (!known(value)) return "unknown";
  const digits = value !== 0 && Math.abs(value) < 1 ? 4 : 2;
  const number = value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return currency ? `${number} ${currency}` : number;
}

/** "2026-11-23" -> "23 Nov"; what is no day stays as it is. */
export function day(text) {
  const date = new Date(`${text}T00:00:00Z`);
  if (Number.isNaN(date.getTime())) return String(text);
  return date.toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
}

/** Unix seconds -> "23 Nov 2026". */
export function date(seconds) {
  if (!known(seconds) || !seconds) return "unknown";
  return new Date(seconds * 1000).toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
}

/** "1 request", "2 requests". */
export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** Whether a value is a number that can be shown. */
export function known(value) {
  return typeof value === "number" && Number.isFinite(value);
}
