// @ts-check
// The fan from the balancer to the lanes: a curve for each target, as wide as its share of the
// picks, and a dot for each sampled pick that travels along it.

import { attr, h, s } from "../lib/dom.js";

/** Milliseconds that a dot travels. */
const TRAVEL = 520;
/** Most dots at a time. */
const DOTS = 160;
const WIDTH = 144;

const still = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * @param {number} top height of the head of the lanes
 * @param {number} row height of a lane
 * @param {(y: number) => void} onOrigin called with where the curves begin
 */
export function flow(top, row, onOrigin) {
  const svg = s("svg", { class: "fan", "aria-hidden": "true" });
  const canvas = h("canvas", { class: "dots", "aria-hidden": "true" });
  const node = h("div", { class: "flow" }, svg, canvas);
  /** @type {Map<string, { curve: any, y: number }>} */
  const curves = new Map();
  /** @type {{ start: number, id: string, kind: string }[]} */
  let dots = [];
  let origin = 60;
  let frame = 0;
  let height = 0;
  /** @type {Record<string, string>} */
  let colours = {};

  const readColours = () => {
    const style = getComputedStyle(node);
    for (const name of ["good", "warn", "bad", "trial"]) colours[name] = style.getPropertyValue(`--${name}`);
  };
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", readColours);

  /** @param {number} time */
  function draw(time) {
    frame = 0;
    const context = canvas.getContext("2d");
    if (!context) return;
    const scale = devicePixelRatio || 1;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, WIDTH, height);
    dots = dots.filter((dot) => time - dot.start < TRAVEL && curves.has(dot.id));
    for (const dot of dots) {
      const part = (time - dot.start) / TRAVEL;
      const end = curves.get(dot.id);
      if (part < 0 || !end) continue;
      const ease = part * part * (3 - 2 * part);
      const back = 1 - ease;
      // A cubic curve whose ends are level.
      const x = 3 * back * ease * (WIDTH / 2) * (back + ease) + ease ** 3 * WIDTH;
      const y = origin * (back ** 3 + 3 * back * back * ease) + end.y * (3 * back * ease * ease + ease ** 3);
      context.globalAlpha = Math.min(1, 4 * (1 - part));
      context.fillStyle = colours[dot.kind];
      context.beginPath();
      context.arc(x, y, dot.kind === "good" ? 2.6 : 3.6, 0, 7);
      context.fill();
    }
    if (dots.length > 0) frame = requestAnimationFrame(draw);
  }

  return {
    node,
    /**
     * @param {{ id: string, share: number, available: boolean, idle: boolean }[]} lanes in the order in which they are shown
     */
    update(lanes) {
      const wanted = top + lanes.length * row;
      if (wanted !== height) {
        height = wanted;
        attr(svg, "viewBox", `0 0 ${WIDTH} ${height}`);
        attr(svg, "width", WIDTH);
        attr(svg, "height", height);
        const scale = devicePixelRatio || 1;
        [canvas.width, canvas.height] = [WIDTH * scale, height * scale];
        canvas.style.width = `${WIDTH}px`;
        canvas.style.height = `${height}px`;
        origin = Math.max(top, Math.min(top + (lanes.length * row) / 2, 300));
        onOrigin(origin);
        readColours();
      }
      const most = Math.max(0.0001, ...lanes.map((lane) => lane.share));
      const seen = new Set();
      lanes.forEach((lane, index) => {
        seen.add(lane.id);
        const y = top + (index + 0.5) * row;
        let known = curves.get(lane.id);
        if (!known) {
          known = { curve: s("path"), y };
          curves.set(lane.id, known);
          svg.append(known.curve);
        }
        known.y = y;
        attr(known.curve, "d", `M0 ${origin}C${WIDTH / 2} ${origin} ${WIDTH / 2} ${y} ${WIDTH} ${y}`);
        const width =
          lane.share > 0 ? 1.2 + 13 * (lane.share / most) * Math.min(1, 6 / lanes.length + 0.25) : 1;
        attr(known.curve, "stroke-width", width.toFixed(1));
        attr(known.curve, "class", lane.available ? (lane.idle ? "idle" : "open") : "out");
      });
      for (const [id, known] of curves) {
        if (seen.has(id)) continue;
        known.curve.remove();
        curves.delete(id);
      }
    },
    /**
     * Plays sampled picks, in the second after they were made.
     * @param {{ id: string, status: number, trial: boolean, ago: number }[]} samples
     */
    play(samples) {
      if (still.matches || document.hidden) return;
      const now = performance.now();
      for (const sample of samples) {
        const kind = sample.trial
          ? "trial"
          : sample.status === 0 || sample.status >= 500
            ? "bad"
            : sample.status >= 400
              ? "warn"
              : "good";
        const start = now + Math.max(0, 1000 - Math.min(sample.ago, 1000));
        if (dots.length < DOTS) dots.push({ start, id: sample.id, kind });
      }
      if (!frame && dots.length > 0) frame = requestAnimationFrame(draw);
    },
    stop() {
      cancelAnimationFrame(frame);
      scheme.removeEventListener("change", readColours);
      dots = [];
    },
  };
}
