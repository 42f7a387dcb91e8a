// @ts-check
// The picture of an upstream.

import { heat } from "../charts/heat.js";
import { condition, lanes } from "../charts/lanes.js";
import { chart } from "../charts/line.js";
import { ApiError, all, call, find, follow, get } from "../lib/api.js";
import { confirm, dialog, notice } from "../lib/dialog.js";
import { attr, h, put, rowsOf, text } from "../lib/dom.js";
import { shadowOf } from "../parts/shadow.js";
import { ago, bytes, clock, ms, ns, number, percent, seconds, short } from "../lib/format.js";

/** Most targets that are shown as lanes unless the operator chooses. */
const LANES = 40;

/** Why requests found no endpoint: codes of the Admin API in words. */
const REASONS = {
  no_targets: "no target has a weight",
  no_address: "no target has an address",
  none_available: "no target is available",
  below_threshold: "too little of the weight is available",
  refused_by_balancer: "refused by the balancer",
  overflow: "limits of requests reached",
};

/** @param {string[]} rest @param {import("../app.js").Context} context */
export function upstream([name], { signal, state }) {
  const path = `/upstreams/${encodeURIComponent(name)}`;
  /** Names of targets by id. @type {Map<string, string>} */
  const targets = new Map();
  let asked = 0;
  let mode = "";
  let chosen = null;

  const glyph = h("span", { class: "glyph large" });
  const labels = ["Picks/s", "Errors/s", "p50", "p99", "In flight", "Waiting", "Without a target/s"];
  const figures = labels.map(() => h("dd", { class: "figure" }, "–"));
  const source = h("div", { class: "source" });
  const [balancerName, version, cost, rate] = [
    h("a", { class: "name" }),
    h("span", { class: "figure" }),
    h("span", { class: "figure" }),
    h("span", { class: "figure big" }),
  ];
  const alarm = h("p", { class: "alarm", role: "alert", hidden: true });
  put(
    source,
    h("h2", null, "Balancer"),
    balancerName,
    h("p", null, rate, " picks/s"),
    h("p", null, cost, " each"),
    h("p", { class: "hint" }, "version ", version),
    alarm,
  );

  const lanePicture = lanes(open, (y) => few.style.setProperty("--origin", `${y}px`));
  const heatPicture = heat(open);
  const unusual = h("ol", { class: "unusual" });
  const unusualRows = new Map();
  const many = h("div", { hidden: true }, heatPicture.node, h("h3", null, "Most unusual"), unusual);
  const few = h("div", { class: "with-source" }, source, lanePicture.node);
  const toggle = h(
    "button",
    {
      type: "button",
      on: { click: () => ((mode = mode === "lanes" ? "map" : "lanes"), last && draw(last)) },
    },
    "Heat map",
  );
  const missing = h("p", { class: "empty", hidden: true }, "This upstream has no target with an address.");

  const traffic = chart(
    "Picks/s",
    [
      { name: "requests", label: "all" },
      { name: "bad", label: "errors" },
      { name: "fallback", label: "by the gateway" },
    ],
    number,
  );
  const latency = chart(
    "Latency",
    [
      { name: "latency", label: "p50" },
      { name: "p99", label: "p99" },
    ],
    ms,
  );
  const facts = h("dl", { class: "facts" });
  const order = h("ol", { class: "order" });
  const logs = h("pre", { class: "logs", tabindex: "0", "aria-label": "Log lines of the balancer" });
  const shadow = h("div");
  let last = null;
  let before = null;

  async function readTargets() {
    asked = Date.now();
    for (const target of await all(`${path}/targets`, signal)) targets.set(target.id, target.target);
  }

  /** The lanes of an event, with their names and shares. @param {any} now */
  function completed(now) {
    const total = now.lanes.reduce((sum, lane) => sum + (lane.picks ?? 0), 0);
    const counts = new Map();
    for (const lane of now.lanes) counts.set(lane.target, (counts.get(lane.target) ?? 0) + 1);
    const all = now.lanes.map((lane) => {
      const target = targets.get(lane.target);
      // A name of DNS may have several addresses.
      const name =
        !target || target === lane.address
          ? lane.address
          : counts.get(lane.target) > 1
            ? `${target} → ${lane.address}`
            : target;
      return { ...lane, name, total, share: total > 0 ? (lane.picks ?? 0) / total : 0 };
    });
    const widest = Math.max(...all.map((lane) => Math.max(lane.share, lane.expected)), 0);
    for (const lane of all) lane.widest = widest;
    return all.sort(
      (one, other) =>
        Number(one.failover ?? false) - Number(other.failover ?? false) ||
        one.name.localeCompare(other.name, "en", { numeric: true }),
    );
  }

  /** @param {any} now */
  function draw(now) {
    last = now;
    const ready = completed(now);
    const unknown = now.lanes.some((lane) => !targets.has(lane.target));
    if (unknown && Date.now() - asked > 3000) readTargets().catch(() => {});
    const inFlight = ready.reduce((sum, lane) => sum + (lane.in_flight ?? 0), 0);
    const rejected = Object.values(now.without_peer).reduce((sum, n) => sum + n, 0);
    const lost = before === null ? 0 : Math.max(0, rejected - before);
    before = rejected;
    const values = [
      number(now.balancer.picks),
      number(now.errors),
      ms(now.p50),
      ms(now.p99),
      number(inFlight),
      number(now.pending),
      number(lost),
    ];
    figures.forEach((node, index) => text(node, values[index]));
    attr(figures[1], "data-kind", now.errors > 0 ? "bad" : null);
    attr(figures[6], "data-kind", lost > 0 ? "bad" : null);
    const out = ready.filter((lane) => !lane.available).length;
    attr(glyph, "data-kind", !now.healthy ? "bad" : out > 0 ? "warn" : "good");
    attr(glyph, "title", !now.healthy ? "unhealthy" : out > 0 ? `${out} of ${ready.length} out` : "healthy");
    traffic.push([now.balancer.picks, now.errors, now.balancer.fallback]);
    latency.push([now.p50, now.p99]);

    const asLanes = mode ? mode === "lanes" : ready.length <= LANES;
    mode ||= asLanes ? "lanes" : "map";
    few.hidden = !asLanes;
    many.hidden = asLanes;
    text(toggle, asLanes ? "Heat map" : "Lanes");
    missing.hidden = ready.length > 0;
    if (asLanes) lanePicture.update(ready, now.samples);
    else {
      heatPicture.update(ready);
      listUnusual(ready);
    }
    drawBalancer(now);
    drawOrder(now, ready);
    if (chosen) chosen(ready);
  }

  /** Those that are out first, then those whose latency is far from the middle. @param {any[]} ready */
  function listUnusual(ready) {
    const sorted = ready
      .map((lane) => lane.ms ?? 0)
      .filter((value) => value > 0)
      .sort((one, other) => one - other);
    const middle = sorted[Math.floor(sorted.length / 2)] || 1;
    const rank = (lane) => (lane.available ? 0 : 1e6) + (lane.errors ?? 0) * 100 + (lane.ms ?? 0) / middle;
    const top = [...ready].sort((one, other) => rank(other) - rank(one)).slice(0, 12);
    const row = (first) => {
      const [mark, button, why] = [
        h("span", { class: "glyph" }),
        h("button", { type: "button", class: "link" }),
        h("span", { class: "why" }),
      ];
      let lane = first;
      button.addEventListener("click", () => open(lane));
      return {
        node: h("li", null, mark, button, why),
        update(now) {
          lane = now;
          const [word, kind, text_] = condition(now);
          attr(mark, "data-kind", kind);
          text(button, now.name);
          text(
            why,
            `${text_ || word}; ${percent(now.share)} of the picks; ${ms(now.ms)}; ${now.in_flight ?? 0} in flight`,
          );
        },
      };
    };
    rowsOf(unusual, top, (lane) => lane.id, row, unusualRows);
  }

  /** @param {any} now */
  function drawBalancer(now) {
    const { balancer } = now;
    const { counters } = balancer;
    text(balancerName, balancer.name);
    attr(balancerName, "href", `#/balancers/${encodeURIComponent(balancer.name)}`);
    text(version, short(balancer.version));
    text(cost, ns(balancer.pick_ns));
    text(rate, number(balancer.picks));
    const quarantine = counters.quarantine !== null;
    alarm.hidden = !quarantine && !(balancer.fallback > 0);
    text(
      alarm,
      quarantine
        ? `Quarantine for another ${seconds(counters.quarantine)}: the gateway picks by weight`
        : `The gateway makes ${number(balancer.fallback)} picks/s itself`,
    );
    const kinds = Object.entries(counters.fallback_picks_by_kind).filter(([, n]) => n > 0);
    const faults = Object.entries(counters.faults).filter(([, n]) => n > 0);
    const list = (pairs, none) =>
      pairs.length > 0 ? pairs.map(([kind, n]) => `${n} ${kind.replace("_", " ")}`).join(", ") : none;
    const rows = [
      ["Time of a pick", `${ns(balancer.pick_ns)} on average, 99 % within ${ns(balancer.pick_p99_ns)}`],
      ["Picks by the gateway", list(kinds, "none")],
      ["Refused by the balancer", number(counters.refused)],
      [
        "Ended tries that it was told of",
        counters.outcomes_dropped > 0
          ? `${number(counters.outcomes)}, and ${number(counters.outcomes_dropped)} dropped`
          : number(counters.outcomes),
      ],
      ["Faults", list(faults, "none")],
      ["Last fault", counters.last_fault ?? "none"],
      ["Quarantine", quarantine ? `for another ${seconds(counters.quarantine)}` : "no"],
      ["Instances", `${counters.instances}, the present one with ${bytes(counters.memory)}`],
      [
        "Switches",
        `${counters.switches}${counters.handover ? `; ${counters.handover.failure ?? `${bytes(counters.handover.bytes)} of state handed over`}` : ""}`,
      ],
    ];
    if (facts.children.length !== rows.length * 2)
      put(
        facts,
        rows.map(([term]) => [h("dt", null, term), h("dd")]),
      );
    rows.forEach(([, value], index) => text(facts.children[index * 2 + 1], value));
  }

  /** The order of failover. @param {any} now @param {any[]} ready */
  function drawOrder(now, ready) {
    const first = ready.filter((lane) => !lane.failover);
    const second = ready.filter((lane) => lane.failover);
    const of = (lanes) => `${lanes.filter((lane) => lane.available).length} of ${lanes.length} available`;
    const lines = [
      `Targets: ${of(first)}. The balancer chooses; after a fault, the gateway chooses by weight.`,
    ];
    if (second.length > 0)
      lines.push(
        `Failover targets: ${of(second)}. Used where no target is left, and for requests that have failed at all of them.`,
      );
    const reasons = Object.entries(now.without_peer).filter(([, n]) => n > 0);
    lines.push(
      `Status 503, so far: ${reasons.map(([code, n]) => `${n} (${REASONS[code] ?? code})`).join(", ") || "none"}.`,
    );
    if (order.children.length !== lines.length)
      put(
        order,
        lines.map(() => h("li")),
      );
    lines.forEach((line, index) => text(order.children[index], line));
  }

  /** Shows one target, live. @param {any} first */
  function open(first) {
    const body = h("dl", { class: "facts" });
    const update = (/** @type {any[]} */ ready) => {
      const lane = ready.find((one) => one.id === first.id);
      if (!lane)
        return put(
          body,
          h("dt", null, "Removed"),
          h("dd", null, "It is no longer an address of this upstream."),
        );
      const [word, , why] = condition(lane);
      const event = (one) =>
        one
          ? `${ago(one.at)}, ${{ active: "probe", passive: "request" }[one.source] ?? one.source}: ${one.report.replace("_", " ")}${one.detail ? ` (${one.detail})` : ""}`
          : "none";
      const rows = [
        ["Address", lane.address],
        ["Condition", why || word],
        ["Since", lane.changed_at ? `${clock(lane.changed_at)} (${ago(lane.changed_at)})` : "it was added"],
        ["Last probe", event(lane.last_probe)],
        ["Last failure", event(lane.last_failure)],
        [
          "Share of picks",
          `${percent(lane.share)}, by weight ${percent(lane.expected)} (weight ${lane.weight})`,
        ],
        ["Picks/s", number(lane.picks ?? 0)],
        ["Latency", `${ms(lane.ms)} on average, longest ${ms(lane.max_ms)}`],
        [
          "In flight",
          `${lane.in_flight ?? 0}, waiting ${lane.pending ?? 0}, connections ${lane.connections ?? 0}`,
        ],
        ["Trial", lane.trial_in !== undefined ? `in ${seconds(lane.trial_in)}` : "none due"],
        ["Endpoint id", lane.id],
      ];
      return put(
        body,
        rows.map(([term, value]) => [h("dt", null, term), h("dd", null, value)]),
      );
    };
    const set = async (healthy) => {
      const word = healthy ? "healthy" : "unhealthy";
      if (
        !healthy &&
        !(await confirm(
          `${first.name} gets no further requests until it is set to healthy, or a probe succeeds.`,
          "Set unhealthy",
        ))
      )
        return;
      try {
        await call("PUT", `${path}/targets/${first.target}/${encodeURIComponent(first.address)}/${word}`);
        notice(`${first.name} is set to ${word}.`, { undo: () => set(!healthy) });
      } catch (error) {
        notice(String(error instanceof ApiError ? error.message : error), { bad: true });
      }
    };
    chosen = update;
    update(last ? completed(last) : []);
    dialog(first.name, () =>
      h(
        "div",
        null,
        body,
        h(
          "div",
          { class: "actions" },
          h(
            "a",
            {
              class: "button",
              href: `#/entities/upstreams/${encodeURIComponent(name)}/targets/${first.target}`,
            },
            "Edit the target",
          ),
          h("button", { type: "button", on: { click: () => set(true) } }, "Set healthy"),
          h("button", { type: "button", class: "danger", on: { click: () => set(false) } }, "Set unhealthy"),
        ),
      ),
    ).then(() => (chosen = null));
  }

  async function readBeside() {
    if (!last || document.hidden) return;
    const answer = await find(`/balancers/${encodeURIComponent(last.balancer.name)}/logs`, signal);
    const lines = (answer?.data ?? []).filter((line) => !line.upstream || line.upstream === name).slice(-40);
    text(logs, lines.map(logLine).join("\n") || "No lines.");
    const report = await find(`${path}/shadow`, signal);
    put(
      shadow,
      report
        ? shadowOf(report)
        : h(
            "p",
            { class: "empty" },
            "None. ",
            h("a", { href: `#/balancers?upstream=${encodeURIComponent(name)}` }, "Start one"),
            ".",
          ),
    );
  }

  readTargets().catch(() => {});
  get(path, signal).catch((error) => {
    if (error instanceof ApiError)
      put(
        screen,
        h("h1", null, name),
        h(
          "p",
          { class: "problem", role: "alert" },
          error.status === 404 ? `There is no upstream ${name}.` : error.message,
        ),
      );
  });
  const timer = setInterval(() => readBeside().catch(() => {}), 3000);
  setTimeout(() => readBeside().catch(() => {}), 1300);
  signal.addEventListener("abort", () => {
    clearInterval(timer);
    lanePicture.stop();
    heatPicture.stop();
  });
  follow(`${path}/live`, draw, state, signal);
  const screen = h(
    "div",
    { class: "screen" },
    h(
      "div",
      { class: "title" },
      h("h1", null, glyph, name),
      h("a", { class: "button", href: `#/entities/upstreams/${encodeURIComponent(name)}` }, "Settings"),
      toggle,
    ),
    h(
      "dl",
      { class: "figures" },
      labels.map((label, index) => h("div", null, h("dt", null, label), figures[index])),
    ),
    h("section", { class: "card picture-card", "aria-label": "Targets" }, few, many, missing),
    h("div", { class: "charts" }, traffic.node, latency.node),
    h(
      "div",
      { class: "columns" },
      h("section", { class: "card" }, h("h2", null, "Balancer"), facts),
      h(
        "div",
        null,
        h("section", { class: "card" }, h("h2", null, "Failover order"), order),
        h("section", { class: "card" }, h("h2", null, "Shadow"), shadow),
      ),
    ),
    h("section", { class: "card" }, h("h2", null, "Log lines of the balancer"), logs),
  );
  return screen;
}

/** @param {any} line */
function logLine(line) {
  if (typeof line === "string") return line;
  return [line.time ? clock(line.time) : "", line.level ?? "", line.upstream ?? "", line.message ?? ""]
    .filter(Boolean)
    .join("  ");
}
