// Rows of /v1/usage to what a plot and a table need. No nodes here.

const DAY_MS = 86_400_000;
/** So many series have a colour of their own; the rest are one. */
const MOST_SERIES = 5;
const COUNTS = ["requests", "input_tokens", "cached_tokens", "output_tokens"];

/** Sums of rows: counts, and `cost`, which is null if no row has one. */
export function totals(rows) {
  const sums = Object.fromEntries(COUNTS.map((name) => [name, rows.reduce((sum, row) => sum + number(row[name]), 0)]));
  const costs = rows.map(({ cost }) => cost).filter((cost) => typeof cost === "number");
  return { ...sums, cost: costs.length ? costs.reduce((sum, cost) => sum + cost, 0) : null };
}

/** {days, series}: every day of the range, and for each series {name, tokens by day}, the largest first. */
export function plotted(rows, { range, group, today }) {
  const days = calendar(rows, range, today);
  const place = new Map(days.map((day, index) => [day, index]));
  const sums = new Map();
  for (const row of rows) {
    if (!place.has(row.day)) continue;
    const name = nameOf(row, group);
    if (!sums.has(name)) sums.set(name, new Array(days.length).fill(0));
    sums.get(name)[place.get(row.day)] += number(row.input_tokens) + number(row.output_tokens);
  }
  const ranked = [...sums].map(([name, tokens]) => ({ name, tokens })).sort((a, b) => sum(b.tokens) - sum(a.tokens));
  return { days, series: ranked.length > MOST_SERIES + 1 ? folded(ranked) : ranked };
}

/** Rows of one table: by day and series, the newest day first. */
export function tabled(rows, group) {
  return rows.toSorted(
    (a, b) => String(b.day).localeCompare(String(a.day)) || nameOf(a, group).localeCompare(nameOf(b, group)),
  );
}

/** What a row is about. */
export function nameOf(row, group) {
  if (group === "key") return String(row.key_name || row.key || "local");
  return String(row.model ?? "unknown");
}

function folded(ranked) {
  const rest = ranked.slice(MOST_SERIES);
  const tokens = rest[0].tokens.map((_, day) => rest.reduce((sum, one) => sum + one.tokens[day], 0));
  return [...ranked.slice(0, MOST_SERIES), { name: `${rest.length} others`, tokens }];
}

/** The days up to today by the browser's clock, or to the newest row's if the device's is ahead. */
function calendar(rows, range, today) {
  const known = rows.map(({ day }) => day).filter((day) => /^\d{4}-\d\d-\d\d$/.test(day));
  const last = [today, ...known].sort().at(-1);
  const end = Date.parse(`${last}T00:00:00Z`);
  return Array.from(
    { length: range },
    (_, index) => new Date(end - (range - 1 - index) * DAY_MS).toISOString().slice(0, 10),
  );
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

function number(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}
