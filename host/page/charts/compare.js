// @ts-check
// Balancers beside each other: quantiles of latency on a logarithmic scale, and load over time.

import { h, s } from "../lib/dom.js";
import { ms } from "../lib/format.js";

const COLOURS = ["#1d5fbf", "#dd6a1f", "#1c8a55", "#9a4fc4", "#cc2f3c", "#0f8f9c", "#a3760a", "#5c6879"];

/** @param {number} index */
export function colour(index) {
  return COLOURS[index % COLOURS.length];
}

/** Quantiles of each balancer: a line from p50 to p99.9 with a mark at each. @param {any[]} outcomes */
export function quantiles(outcomes) {
  const [width, left, row, top] = [760, 170, 30, 26];
  const marks = ["p50", "p90", "p99", "p99.9"];
  const all = outcomes.flatMap((one) => marks.map((mark) => one.total[mark])).filter((value) => value > 0);
  if (all.length === 0) return h("p", { class: "empty" }, "No request was answered.");
  const [least, most] = [Math.log10(Math.min(...all)) - 0.08, Math.log10(Math.max(...all)) + 0.08];
  const x = (value) =>
    left + ((Math.log10(Math.max(value, 1e-9)) - least) / Math.max(most - least, 0.1)) * (width - left - 16);
  const height = top + outcomes.length * row + 8;
  const ticks = [];
  for (let power = Math.floor(least); power <= most; power += 1) {
    for (const factor of [1, 2, 5]) {
      const value = factor * 10 ** power;
      if (Math.log10(value) >= least && Math.log10(value) <= most) ticks.push(value);
    }
  }
  const svg = s("svg", {
    class: "quantiles",
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": "Latencies: p50, p90, p99 and p99.9 of each balancer",
  });
  for (const tick of ticks) {
    svg.append(
      s("line", { class: "grid", x1: x(tick), x2: x(tick), y1: top - 6, y2: height }),
      s("text", { class: "tick", x: x(tick), y: 12, "text-anchor": "middle" }, ms(tick)),
    );
  }
  outcomes.forEach((one, index) => {
    const y = top + (index + 0.5) * row;
    const points = marks.map((mark) => x(one.total[mark]));
    svg.append(
      s(
        "text",
        { class: "name", x: left - 12, y: y + 4, "text-anchor": "end" },
        one.balancer.length > 24 ? `${one.balancer.slice(0, 23)}…` : one.balancer,
      ),
      s("line", {
        x1: points[0],
        x2: points[3],
        y1: y,
        y2: y,
        stroke: colour(index),
        "stroke-width": 2.5,
        opacity: 0.55,
      }),
      points
        .map((at, mark) =>
          s(
            "circle",
            {
              cx: at,
              cy: y,
              r: [6, 4.5, 4.5, 3][mark],
              fill: mark === 0 ? colour(index) : "var(--card)",
              stroke: colour(index),
              "stroke-width": 2,
            },
            s("title", null, `${one.balancer}, ${marks[mark]}: ${ms(one.total[marks[mark]])}`),
          ),
        )
        .reduce((group, node) => (group.append(node), group), s("g")),
    );
  });
  return svg;
}

/** Requests at the busiest target, and at the mean one, over time. @param {any[]} outcomes */
export function loads(outcomes) {
  const [width, height, left] = [760, 190, 44];
  const series = outcomes.map((one) => one.timeline.working.map((sample) => Math.max(0, ...sample)));
  const most = Math.max(1, ...series.flat());
  const longest = Math.max(2, ...series.map((one) => one.length));
  const svg = s("svg", {
    class: "loads",
    viewBox: `0 0 ${width} ${height + 20}`,
    role: "img",
    "aria-label": "Requests at the busiest target over time",
  });
  for (const part of [0, 0.5, 1]) {
    const y = 8 + (height - 16) * (1 - part);
    svg.append(
      s("line", { class: "grid", x1: left, x2: width, y1: y, y2: y }),
      s("text", { class: "tick", x: left - 6, y: y + 4, "text-anchor": "end" }, Math.round(most * part)),
    );
  }
  series.forEach((values, index) => {
    const d = values
      .map(
        (value, at) =>
          `${at === 0 ? "M" : "L"}${(left + ((width - left) * at) / (longest - 1)).toFixed(1)} ${(8 + (height - 16) * (1 - value / most)).toFixed(1)}`,
      )
      .join("");
    svg.append(s("path", { d, fill: "none", stroke: colour(index), "stroke-width": 1.6 }));
  });
  const step = outcomes[0]?.timeline.step ?? 1;
  svg.append(
    s("text", { class: "tick", x: left, y: height + 14 }, "0 s"),
    s(
      "text",
      { class: "tick", x: width, y: height + 14, "text-anchor": "end" },
      `${Math.round(step * longest)} s`,
    ),
  );
  return svg;
}
