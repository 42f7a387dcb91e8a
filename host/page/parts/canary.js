// @ts-check
// Canaries: the settings that one is started with, and its bounds while it runs.

import { ofKong } from "../forms/fields.js";
import { attr, h, heads, put } from "../lib/dom.js";
import { clock, ms, number, short } from "../lib/format.js";

/** The fields of a canary, in the words of the Admin API. */
export const CANARY = ofKong({
  fields: [
    {
      share_percent: {
        type: "number",
        required: true,
        default: 5,
        between: [0, 100],
        description: "Percent of the picks",
      },
    },
    { max_faults: { type: "integer", required: true, default: 0, description: "Faults until it ends" } },
    {
      max_error_percent: {
        type: "number",
        between: [0, 100],
        description: "Most failed requests, in percent",
      },
    },
    { max_error_ratio: { type: "number", description: "The same, in times the rate of the active version" } },
    { max_p99_ms: { type: "number", description: "Highest p99, in milliseconds" } },
    { max_p99_ratio: { type: "number", description: "The same, in times that of the active version" } },
    {
      min_requests: {
        type: "integer",
        required: true,
        default: 100,
        description: "Requests of each side before anything but faults is judged",
      },
    },
    { duration: { type: "number", description: "Seconds until it has passed" } },
    {
      promote: {
        type: "boolean",
        required: true,
        default: false,
        description: "Whether it becomes active once it has passed",
      },
    },
  ],
});

/** Shows a canary with its bounds: how much of each is used up. @param {any} canaryCard @param {any} canary */
export function showCanary(canaryCard, canary) {
  canaryCard.hidden = !canary;
  if (!canary) return;
  const [stable, own] = [canary.figures?.stable, canary.figures?.canary];
  const part = (side, count) => (side && side.requests > 0 ? (100 * side[count]) / side.requests : null);
  const p99 = (side) => side?.recent?.p99_ms ?? null;
  const ratio = (one, other) => (one !== null && other ? one / other : null);
  const bounds = [
    ["Faults", own?.faults, canary.max_faults, number],
    ["Errors", part(own, "errors"), canary.max_error_percent, (value) => `${number(value)} %`],
    [
      "Errors, in times the active version",
      ratio(part(own, "errors"), part(stable, "errors")),
      canary.max_error_ratio,
      number,
    ],
    ["p99", p99(own), canary.max_p99_ms, ms],
    ["p99, in times the active version", ratio(p99(own), p99(stable)), canary.max_p99_ratio, number],
    ["Requests until it is judged", own?.requests, canary.min_requests, number],
  ].filter(([, , bound]) => bound !== null && bound !== undefined);
  const meter = ([label, value, bound, unit]) => {
    const bar = h("span", { class: "bar" });
    const used = bound > 0 ? (value ?? 0) / bound : (value ?? 0) > 0 ? 1 : 0;
    bar.style.width = `${Math.min(100, 100 * used)}%`;
    attr(bar, "data-over", label.startsWith("Requests") ? null : used >= 0.8 ? "yes" : null);
    return [
      h("dt", null, label),
      h(
        "dd",
        null,
        h("span", { class: "track wide" }, bar),
        h("span", { class: "figure" }, `${unit(value)} of ${unit(bound)}`),
      ),
    ];
  };
  const side = (label, one) =>
    h(
      "tr",
      null,
      h("th", { scope: "row" }, label),
      [number(one?.picks), number(one?.requests), number(one?.errors), number(one?.faults), ms(p99(one))].map(
        (value) => h("td", { class: "number figure" }, value),
      ),
    );
  put(
    canaryCard,
    h("h2", null, `Canary ${short(canary.version)}: ${canary.state}`),
    h(
      "p",
      null,
      `${canary.share_percent} % of the picks, since ${clock(canary.created_at)}${canary.duration ? `, for ${canary.duration} s` : ""}${canary.promote ? ", then active" : ""}.`,
      canary.reason ? ` ${canary.reason}.` : "",
    ),
    h("dl", { class: "facts" }, bounds.map(meter)),
    h(
      "table",
      null,
      heads(["", "Picks", "Requests", "Errors", "Faults", "p99"], (_, index) => index > 0),
      h("tbody", null, side("Active version", stable), side("Canary", own)),
    ),
  );
}
