// @ts-check
// Lines over the last minutes, in SVG. The size of a chart never depends on its data.

import { attr, h, s, text } from "../lib/dom.js";

/** Numbers of the last seconds: a ring of fixed length, so that memory does not grow. */
export class Ring {
  /** @param {number} length */
  constructor(length) {
    this.values = new Float64Array(length).fill(NaN);
    this.next = 0;
  }

  /** @param {number | null | undefined} value */
  push(value) {
    this.values[this.next] = value ?? NaN;
    this.next = (this.next + 1) % this.values.length;
  }

  /** @param {number} age 0 is the newest one */
  at(age) {
    const length = this.values.length;
    return this.values[(this.next - 1 - age + 2 * length) % length];
  }

  max() {
    let most = 0;
    for (const value of this.values) if (value > most) most = value;
    return most;
  }
}

/** The points of a ring as a path; gaps where there is no value. @param {Ring} ring @param {number} width @param {number} height @param {number} most */
function path(ring, width, height, most) {
  const length = ring.values.length;
  let d = "";
  let drawn = false;
  for (let age = length - 1; age >= 0; age -= 1) {
    const value = ring.at(age);
    if (Number.isNaN(value)) {
      drawn = false;
      continue;
    }
    const x = (width * (length - 1 - age)) / (length - 1);
    const y = height - 1 - (height - 2) * Math.min(value / most, 1);
    d += `${drawn ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    drawn = true;
  }
  return d;
}

/** A small line without axes. @param {number} [length] @param {string} [name] */
export function spark(length = 60, name = "line") {
  const ring = new Ring(length);
  const line = s("path", { class: name, "vector-effect": "non-scaling-stroke" });
  const node = s(
    "svg",
    { class: "spark", viewBox: "0 0 80 20", preserveAspectRatio: "none", "aria-hidden": "true" },
    line,
  );
  return {
    node,
    /** @param {number | null | undefined} value */
    push(value) {
      ring.push(value);
      attr(line, "d", path(ring, 80, 20, ring.max() || 1));
    },
  };
}

/** The least round number that is not below `value`. @param {number} value */
function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= value) ?? 10;
  return step * power;
}

/**
 * A chart of several lines with a common scale.
 * @param {string} title
 * @param {{ name: string, label: string }[]} lines
 * @param {(value: number) => string} unit
 * @param {number} [length] seconds
 */
export function chart(title, lines, unit, length = 120) {
  const [width, height] = [400, 90];
  const rings = lines.map(() => new Ring(length));
  const paths = lines.map((line) => s("path", { class: line.name, "vector-effect": "non-scaling-stroke" }));
  const grid = [0.5, 1].map((part) =>
    s("line", {
      class: "grid",
      x1: 0,
      x2: width,
      y1: height - part * (height - 2),
      y2: height - part * (height - 2),
      "vector-effect": "non-scaling-stroke",
    }),
  );
  const top = h("span", { class: "top-label" }, unit(1));
  const values = lines.map((line) => h("b", { class: "figure" }, "–"));
  const legend = lines.map((line, index) =>
    h("span", { class: `key ${line.name}` }, line.label, " ", values[index]),
  );
  const node = h(
    "figure",
    { class: "chart" },
    h("figcaption", null, h("span", null, title), legend),
    h(
      "div",
      { class: "plot" },
      s(
        "svg",
        { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
        grid,
        paths,
      ),
      top,
      h("span", { class: "left-label" }, `${Math.round(length / 60)} min ago`),
      h("span", { class: "right-label" }, "now"),
    ),
  );
  return {
    node,
    /** @param {(number | null | undefined)[]} numbers */
    push(numbers) {
      numbers.forEach((value, index) => {
        rings[index].push(value);
        text(values[index], value === null || value === undefined ? "–" : unit(value));
      });
      const most = ceiling(Math.max(...rings.map((ring) => ring.max())));
      text(top, unit(most));
      rings.forEach((ring, index) => attr(paths[index], "d", path(ring, width, height, most)));
    },
  };
}
