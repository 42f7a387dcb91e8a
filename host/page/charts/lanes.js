// @ts-check
// Targets as lanes: one row each, with the fan in front.

import { attr, h, heads, rowsOf, text } from "../lib/dom.js";
import { ago, ms, number, percent, seconds } from "../lib/format.js";
import { flow } from "./flow.js";
import { spark } from "./line.js";

const TOP = 30;
const ROW = 34;

/** @typedef {any} Lane an address of an upstream's event, with its `name` and `share` */

/** What an address does, in a word and a sentence. @param {Lane} lane @returns {[string, string, string]} */
export function condition(lane) {
  const failure = lane.last_failure;
  const reason = failure ? failure.detail || failure.report.replace("_", " ") : "";
  if (lane.ejected_for !== undefined)
    return ["ejected", "bad", `ejected as an outlier, for another ${seconds(lane.ejected_for)}`];
  if (!lane.available) {
    const by =
      { active: "by probes", passive: "by requests", manual: "by an operator", restored: "before a restart" }[
        lane.changed_by
      ] ?? "";
    const trial = lane.trial_in !== undefined ? `; trial in ${seconds(lane.trial_in)}` : "";
    return [
      "unhealthy",
      "bad",
      `out${reason && lane.changed_by !== "manual" ? `: ${reason},` : ""} ${by}${trial}`,
    ];
  }
  if (lane.weight === 0) return ["resting", "idle", "weight 0: no new requests"];
  if (lane.failover && lane.expected === 0) return ["failover", "idle", "stands by for the others"];
  if (lane.slow_start !== undefined)
    return ["slow start", "warn", `slow start, ${percent(lane.slow_start)} passed`];
  if (lane.failures > 0)
    return [
      "failing",
      "warn",
      `${lane.failures} ${lane.failures === 1 ? "failure" : "failures"} in a row${reason ? `: ${reason}` : ""}`,
    ];
  if (lane.last_probe)
    return [
      "healthy",
      "good",
      `${lane.last_probe.detail || lane.last_probe.report}, probe ${ago(lane.last_probe.at)}`,
    ];
  return ["healthy", "good", ""];
}

/**
 * @param {(lane: Lane) => void} open called with a lane that is chosen
 * @param {(y: number) => void} onOrigin called with the height at which the balancer stands
 */
export function lanes(open, onOrigin) {
  const fan = flow(TOP, ROW, onOrigin);
  const body = h("tbody");
  const head = [
    "Target",
    "Share of picks, weight",
    "Picks/s",
    "In flight",
    "Latency",
    "",
    "Errors/s",
    "Condition",
  ];
  const table = h(
    "table",
    { class: "lanes" },
    h("caption", { class: "hidden" }, "Targets"),
    heads(head, (_, index) => index >= 2 && index <= 6),
    body,
  );
  const node = h("div", { class: "picture" }, fan.node, h("div", { class: "scroll-x" }, table));
  const rows = new Map();
  const order = new Map();

  function make(/** @type {Lane} */ first) {
    let lane = first;
    const glyph = h("span", { class: "glyph" });
    const name = h("button", {
      type: "button",
      class: "link",
      on: { click: () => open(lane), keydown: move },
    });
    const bar = h("span", { class: "bar" });
    const tick = h("span", { class: "tick" });
    const share = h("span", { class: "figure" });
    const [picks, inFlight, latency, errors] = [0, 0, 0, 0].map(() => h("td", { class: "number figure" }));
    const load = h("span", { class: "load" });
    const count = h("span", { class: "figure" });
    inFlight.append(load, count);
    const history = spark(60, "latency");
    const state = h("td", { class: "condition" });
    const row = h(
      "tr",
      null,
      h("th", { scope: "row" }, glyph, name),
      h("td", { class: "share" }, h("span", { class: "track" }, bar, tick), share),
      picks,
      inFlight,
      latency,
      h("td", { class: "history" }, history.node),
      errors,
      state,
    );
    return {
      node: row,
      /** @param {Lane} now */
      update(now) {
        lane = now;
        const [word, kind, why] = condition(lane);
        attr(row, "class", lane.available ? null : "out");
        attr(glyph, "data-kind", kind);
        attr(glyph, "title", word);
        text(name, lane.name);
        attr(name, "aria-label", `${lane.name}, ${word}`);
        const widest = Math.max(lane.widest, 0.0001);
        bar.style.width = `${(100 * lane.share) / widest}%`;
        tick.style.left = `${(100 * lane.expected) / widest}%`;
        attr(
          bar,
          "data-over",
          Math.abs(lane.share - lane.expected) > 0.25 * lane.expected + 0.02 ? "yes" : null,
        );
        text(
          share,
          lane.total > 0
            ? `${percent(lane.share)} / ${percent(lane.expected)}`
            : `– / ${percent(lane.expected)}`,
        );
        text(picks, number(lane.picks ?? 0));
        load.style.transform = `scaleX(${Math.min(1, (lane.in_flight ?? 0) / 12)})`;
        text(count, lane.pending ? `${lane.in_flight ?? 0} +${lane.pending}` : (lane.in_flight ?? 0));
        text(latency, ms(lane.ms));
        history.push(lane.ms);
        text(errors, lane.errors ? number(lane.errors) : "0");
        attr(errors, "data-kind", lane.errors ? "bad" : null);
        text(state, why || word);
        attr(state, "title", why);
        attr(state, "data-kind", kind);
      },
    };
  }

  /** Arrow keys move between lanes. @param {KeyboardEvent} event */
  function move(event) {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const row = step && /** @type {any} */ (event.target).closest("tr")[step];
    if (!row) return;
    event.preventDefault();
    row.querySelector("button").focus();
  }

  return {
    node,
    /** @param {Lane[]} all @param {any[]} samples */
    update(all, samples) {
      rowsOf(body, all, (lane) => lane.id, make, rows);
      order.clear();
      fan.update(
        all.map((lane) => ({
          id: lane.id,
          share: lane.share,
          available: lane.available,
          idle: lane.share === 0 && lane.expected === 0,
        })),
      );
      fan.play(samples);
    },
    stop() {
      fan.stop();
    },
  };
}
