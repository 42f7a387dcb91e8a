// @ts-check
// Many targets: a cell each, coloured by one figure. Drawn on a canvas, whose size depends on the
// number of targets alone.

import { attr, h, newId, text } from "../lib/dom.js";
import { ms, number, percent } from "../lib/format.js";
import { condition } from "./lanes.js";

/** @typedef {any} Lane */

const METRICS = [
  {
    id: "balance",
    name: "Share against weight",
    of: (lane) =>
      lane.expected > 0 && lane.total > 0 ? Math.log2(Math.max(lane.share / lane.expected, 0.01)) : 0,
    scale: "two",
    low: "¼ of its weight",
    high: "4 ×",
  },
  { id: "latency", name: "Latency", of: (lane) => lane.ms ?? 0, scale: "one", unit: ms },
  { id: "in_flight", name: "In flight", of: (lane) => lane.in_flight ?? 0, scale: "one", unit: number },
  { id: "errors", name: "Errors/s", of: (lane) => lane.errors ?? 0, scale: "one", unit: number },
];

/** @param {(lane: Lane) => void} open */
export function heat(open) {
  const canvas = h("canvas", {
    class: "heat",
    tabindex: "0",
    role: "img",
    on: { mousemove: hover, mouseleave: () => select(-1), click, keydown: key },
  });
  const detail = h("p", { class: "detail", role: "status" }, "Point at a cell, or use the arrow keys.");
  const low = h("span", { class: "figure" });
  const high = h("span", { class: "figure" });
  const legend = h(
    "span",
    { class: "legend" },
    low,
    h("span", { class: "ramp" }),
    high,
    h("span", { class: "swatch out" }),
    "out",
  );
  const group = newId("metric");
  let metric = METRICS[0];
  const choices = METRICS.map((one) => {
    const id = newId("metric");
    const input = h("input", { type: "radio", name: group, id, checked: one === metric });
    input.addEventListener("change", () => {
      metric = one;
      draw();
    });
    return h("span", null, input, h("label", { for: id }, one.name));
  });
  const node = h(
    "div",
    { class: "heat-map" },
    h("div", { class: "choices", role: "radiogroup", "aria-label": "Colour by" }, choices, legend),
    canvas,
    detail,
  );
  /** @type {Lane[]} */
  let lanes = [];
  let selected = -1;
  let [columns, size] = [1, 10];
  const resized = new ResizeObserver(draw);
  resized.observe(node);

  function layout() {
    const width = Math.max(240, node.clientWidth);
    // As large as four hundred pixels of height allow.
    size = Math.max(9, Math.min(64, Math.floor(Math.sqrt((width * 400) / Math.max(lanes.length, 1)))));
    columns = Math.max(1, Math.floor(width / size));
    return [width, Math.ceil(lanes.length / columns) * size];
  }

  function draw() {
    const [width, height] = layout();
    const scale = devicePixelRatio || 1;
    const [w, hh] = [Math.round(width * scale), Math.round(height * scale)];
    if (canvas.width !== w || canvas.height !== hh) {
      [canvas.width, canvas.height] = [w, hh];
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    const context = canvas.getContext("2d");
    if (!context) return;
    const style = getComputedStyle(node);
    const [cold, warm, none, bad, ink] = ["--cold", "--hot", "--cell", "--bad", "--ink"].map((name) =>
      style.getPropertyValue(name).trim(),
    );
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    const values = lanes.map(metric.of);
    const most = metric.scale === "two" ? 2 : Math.max(...values, 1e-9);
    attr(node, "data-scale", metric.scale);
    text(low, metric.low ?? metric.unit?.(0));
    text(high, metric.high ?? metric.unit?.(most));
    lanes.forEach((lane, index) => {
      const x = (index % columns) * size;
      const y = Math.floor(index / columns) * size;
      const inner = size - (size > 14 ? 2 : 1);
      context.globalAlpha = 1;
      context.fillStyle = none;
      context.fillRect(x, y, inner, inner);
      const part = Math.max(-1, Math.min(1, values[index] / most));
      context.globalAlpha = Math.abs(part);
      context.fillStyle = part < 0 ? cold : warm;
      context.fillRect(x, y, inner, inner);
      context.globalAlpha = 1;
      if (size >= 52) {
        context.fillStyle = ink;
        context.font = "10px sans-serif";
        context.fillText(
          lane.name.length > 9 ? `…${lane.name.slice(-7)}` : lane.name,
          x + 4,
          y + 14,
          inner - 6,
        );
      }
      if (!lane.available) {
        context.strokeStyle = bad;
        context.lineWidth = Math.max(1.5, size / 9);
        context.beginPath();
        context.moveTo(x + 2, y + 2);
        context.lineTo(x + inner - 2, y + inner - 2);
        context.moveTo(x + inner - 2, y + 2);
        context.lineTo(x + 2, y + inner - 2);
        context.stroke();
      }
      if (index === selected) {
        context.strokeStyle = ink;
        context.lineWidth = 2;
        context.strokeRect(x, y, inner, inner);
      }
    });
  }

  /** @param {number} index */
  function select(index) {
    selected = index >= 0 && index < lanes.length ? index : -1;
    tell();
    draw();
  }

  function tell() {
    const lane = lanes[selected];
    if (!lane) return;
    const [word, , why] = condition(lane);
    text(
      detail,
      `${lane.name}: ${why || word}; ${percent(lane.share)} of the picks, ${percent(lane.expected)} by weight; ` +
        `${lane.in_flight ?? 0} in flight; ${ms(lane.ms)}; ${number(lane.errors ?? 0)} errors/s`,
    );
  }

  /** @param {MouseEvent} event */
  function at(event) {
    const column = Math.floor(event.offsetX / size);
    return column < columns ? Math.floor(event.offsetY / size) * columns + column : -1;
  }

  function hover(event) {
    const index = at(event);
    if (index !== selected) select(index);
  }

  function click(event) {
    const lane = lanes[at(event)];
    if (lane) open(lane);
  }

  /** @param {KeyboardEvent} event */
  function key(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
    if (event.key in steps) {
      event.preventDefault();
      select(Math.max(0, Math.min(lanes.length - 1, selected + steps[event.key])));
    } else if (event.key === "Enter" && lanes[selected]) open(lanes[selected]);
  }

  return {
    node,
    /** @param {Lane[]} all */
    update(all) {
      lanes = all;
      const out = all.filter((lane) => !lane.available).length;
      attr(canvas, "aria-label", `${all.length} targets, ${out} of them out. Arrow keys choose one.`);
      if (selected >= 0) tell();
      draw();
    },
    stop() {
      resized.disconnect();
    },
  };
}
