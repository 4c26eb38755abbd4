// Plots, as SVG that is built node by node.

import { s } from "./dom.js";

/**
 * A line of [time, value] over the last `span` (in the unit of the times), the newest at the right edge. A gap longer
 * than `gap` breaks the line: what was not measured is not drawn.
 */
export function sparkline(samples, { now, span, gap, top }) {
  const width = 300;
  const height = 64;
  const peak = top ?? Math.max(1e-9, ...samples.map(([, value]) => value));
  const runs = [];
  let before = -Infinity;
  for (const [time, value] of samples) {
    const point = [width * (1 - (now - time) / span), height - 2 - (height - 6) * Math.min(1, value / peak)];
    if (time - before > gap) runs.push([]);
    runs.at(-1).push(point.map((part) => part.toFixed(1)));
    before = time;
  }
  return s(
    "svg.spark",
    { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    s("line.base", { x1: 0, x2: width, y1: height - 1, y2: height - 1 }),
    runs.filter((run) => run.length > 1).map((run) => [
      s(
        "path.area",
        { d: `M${run[0][0]} ${height}L${run.map((point) => point.join(" ")).join("L")}L${run.at(-1)[0]} ${height}Z` },
      ),
      s("polyline.line", { points: run.map((point) => point.join(",")).join(" ") }),
    ]),
  );
}

/** One bar of parts [{share, kind}] that together are at most 1. */
export function meter(parts) {
  let x = 0;
  const bars = parts.map(({ share, kind }) => {
    const width = Math.max(0, Math.min(1 - x, share)) * 100;
    const bar = s(`rect.${kind}`, { x: (x * 100).toFixed(2), y: 0, width: width.toFixed(2), height: 8 });
    x += width / 100;
    return bar;
  });
  return s(
    "svg.meter",
    { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("rect.rest", { x: 0, y: 0, width: 100, height: 8 }),
    bars,
  );
}

/** The next round number from `value` on: where an axis ends. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value);
}

/**
 * Stacked columns: `columns` are lists of values by series, bottom first. `onPick(index)` is called for the column
 * under the pointer. The drawing says nothing to a screen reader: the table beneath it has the numbers.
 */
export function stacked(columns, { top, height, onPick }) {
  const step = 100 / columns.length;
  const gap = Math.min(step * 0.28, 0.8);
  const nodes = columns.map((values, index) => {
    let y = height;
    const parts = values.map((value, series) => {
      const size = (value / top) * height;
      y -= size;
      return size > 0 && s(
        `rect.series-${series}`,
        {
          x: (index * step + gap / 2).toFixed(3),
          y: y.toFixed(2),
          width: (step - gap).toFixed(3),
          height: size.toFixed(2),
        },
      );
    });
    const area = s(
      "rect.hit",
      {
        x: (index * step).toFixed(3),
        y: 0,
        width: step.toFixed(3),
        height,
        pointerenter: () => onPick(index),
        click: () => onPick(index),
      },
    );
    return s("g.column", {}, area, parts);
  });
  return s("svg.columns", { viewBox: `0 0 100 ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, nodes);
}
