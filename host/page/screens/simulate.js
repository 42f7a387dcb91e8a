// @ts-check
// Simulate: balancers on a simulated fleet, compared in plots.

import { colour, loads, quantiles } from "../charts/compare.js";
import { ApiError, all, call, follow, get } from "../lib/api.js";
import { h, heads, newId, put, text } from "../lib/dom.js";
import { ms, number, percent } from "../lib/format.js";

/** @param {string[]} _rest @param {import("../app.js").Context} context */
export function simulate(_rest, { signal }) {
  const ids = [newId("scenario"), newId("text"), newId("seed"), newId("fleet")];
  const scenario = h("select", { id: ids[0] });
  const source = h("textarea", { id: ids[1], rows: "16", spellcheck: "false" });
  const seed = h("input", { id: ids[2], type: "number", min: 0, step: 1, value: 1 });
  const fleet = h("select", { id: ids[3] });
  const boxes = h("div", { class: "checks" });
  const run = h("button", { class: "primary" }, "Simulate");
  const stop = h("button", { type: "button", hidden: true }, "Stop");
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const progress = h("p", { class: "hint", role: "status" });
  const result = h("div", { class: "explained" });
  const texts = new Map();
  /** @type {any[]} */
  let names = [];

  async function read() {
    const [shipped, balancers, upstreams] = await Promise.all([
      get("/pointsman/simulate", signal),
      all("/balancers", signal),
      all("/upstreams", signal),
    ]);
    if (!shipped.admitted) {
      run.disabled = true;
      text(progress, "Your token is read-only: a simulation needs one that may write.");
    }
    for (const one of shipped.data) texts.set(one.name, one.text);
    put(
      scenario,
      shipped.data.map((one) => h("option", { value: one.name, selected: one.name === "steady" }, one.name)),
    );
    put(
      fleet,
      h("option", { value: "" }, "–"),
      upstreams.map((one) => h("option", { value: one.name }, one.name)),
    );
    source.value = texts.get("steady") ?? "";
    const usual = ["round-robin", "least-connections", "p2c"];
    names = balancers
      .map((one) => one.name)
      .sort()
      .map((name) => {
        const id = newId("balancer");
        return { name, box: h("input", { type: "checkbox", id, checked: usual.includes(name) }), id };
      });
    put(
      boxes,
      names.map((one) => h("span", null, one.box, h("label", { for: one.id }, one.name))),
    );
  }

  scenario.addEventListener("change", () => {
    source.value = texts.get(scenario.value) ?? "";
    fleet.value = "";
  });
  fleet.addEventListener("change", () => fleet.value && take(fleet.value));

  /** Writes a scenario from what an upstream does now. @param {string} name */
  function take(name) {
    const once = new AbortController();
    signal.addEventListener("abort", () => once.abort());
    text(progress, `Looking at ${name} …`);
    follow(
      `/upstreams/${encodeURIComponent(name)}/live`,
      (now) => {
        once.abort();
        text(progress, "");
        source.value = scenarioOf(name, now);
      },
      () => {},
      once.signal,
    );
  }

  async function start(event) {
    event.preventDefault();
    problem.hidden = true;
    const chosen = names.filter((one) => one.box.checked).map((one) => one.name);
    if (chosen.length === 0) {
      text(problem, "Choose at least one balancer.");
      problem.hidden = false;
      return;
    }
    const once = new AbortController();
    stop.onclick = () => once.abort();
    signal.addEventListener("abort", () => once.abort());
    run.disabled = true;
    stop.hidden = false;
    const began = performance.now();
    const timer = setInterval(
      () => text(progress, `Simulating for ${Math.round((performance.now() - began) / 1000)} s …`),
      500,
    );
    try {
      const isShipped = source.value === texts.get(scenario.value);
      const json = {
        scenario: scenario.value,
        text: isShipped ? undefined : source.value,
        balancers: chosen,
        seed: Number(seed.value),
      };
      draw(await call("POST", "/pointsman/simulate", { json, signal: once.signal }));
      text(progress, `Simulated in ${((performance.now() - began) / 1000).toFixed(1)} s.`);
    } catch (error) {
      text(progress, once.signal.aborted ? "Stopped." : "");
      if (once.signal.aborted) return;
      const fields =
        error instanceof ApiError
          ? Object.values(error.fields)
              .filter((one) => typeof one === "string")
              .join("; ")
          : "";
      text(
        problem,
        fields || (error instanceof ApiError ? error.message : `The gateway cannot be reached: ${error}`),
      );
      problem.hidden = false;
    } finally {
      clearInterval(timer);
      run.disabled = false;
      stop.hidden = true;
    }
  }

  /** @param {any} answer */
  function draw(answer) {
    const outcomes = answer.outcomes.map((one) => ({
      ...one,
      balancer: one.balancer.replace(/^.*\/([^/]+)\.wasm/, "$1"),
    }));
    const errors = (total) => Object.values(total.errors).reduce((sum, n) => sum + n, 0);
    const columns = [
      "Balancer",
      "Requests",
      "Errors",
      "Mean",
      "p50",
      "p90",
      "p99",
      "p99.9",
      "Peak to mean",
      "Jain's index",
    ];
    const row = (one, index) => {
      const { total } = one;
      const key = h("span", { class: "swatch" });
      key.style.background = colour(index);
      const values = [
        number(total.requests),
        percent(errors(total) / Math.max(1, total.requests)),
        ms(total.mean),
        ms(total.p50),
        ms(total.p90),
        ms(total.p99),
        ms(total["p99.9"]),
        total.peak_to_mean.toFixed(2),
        total.jain.toFixed(3),
      ];
      return h(
        "tr",
        null,
        h("th", { scope: "row" }, key, one.balancer),
        values.map((value) => h("td", { class: "number figure" }, value)),
      );
    };
    put(
      result,
      h("section", { class: "card" }, h("h2", null, "Latency: p50, p90, p99, p99.9"), quantiles(outcomes)),
      h("section", { class: "card" }, h("h2", null, "Requests at the busiest target"), loads(outcomes)),
      h(
        "section",
        { class: "card" },
        h("h2", null, "Figures"),
        h(
          "div",
          { class: "scroll-x" },
          h(
            "table",
            null,
            heads(columns, (_, index) => index > 0),
            h("tbody", null, outcomes.map(row)),
          ),
        ),
      ),
    );
  }

  read().catch((error) => {
    if (signal.aborted) return;
    text(problem, error instanceof ApiError ? error.message : `The gateway cannot be reached: ${error}`);
    problem.hidden = false;
  });
  return h(
    "div",
    { class: "screen" },
    h("h1", null, "Simulate"),
    h(
      "form",
      { class: "card simulate-form", on: { submit: start } },
      h(
        "div",
        { class: "row" },
        h("label", { for: ids[0] }, "Scenario"),
        scenario,
        h("label", { for: ids[3] }, "or the figures of"),
        fleet,
        h("label", { for: ids[2] }, "Seed"),
        seed,
      ),
      h("fieldset", null, h("legend", null, "Balancers"), boxes),
      h(
        "details",
        null,
        h("summary", null, "The scenario, which you may change"),
        h("label", { for: ids[1], class: "hidden" }, "Scenario as TOML"),
        source,
      ),
      h("div", { class: "actions left" }, run, stop, progress),
    ),
    problem,
    result,
  );
}

/** A scenario in TOML with the targets, the weights and the latency of an upstream. @param {string} name @param {any} now */
function scenarioOf(name, now) {
  const lanes = now.lanes.filter((lane) => lane.available && lane.weight > 0 && !lane.failover);
  const known = lanes.filter((lane) => lane.ms !== undefined);
  const mean = known.length > 0 ? known.reduce((sum, lane) => sum + lane.ms, 0) / known.length : 20;
  const cores = 4;
  const busy = lanes.reduce((sum, lane) => sum + (lane.in_flight ?? 0), 0);
  const level = Math.min(0.95, Math.max(0.1, busy / Math.max(1, lanes.length * cores)));
  /** @type {Map<string, number>} targets of the same weight and about the same speed */
  const groups = new Map();
  for (const lane of lanes) {
    const speed = lane.ms ? Math.min(4, Math.max(0.25, Math.round((mean / lane.ms) * 4) / 4)) : 1;
    const key = `${lane.weight} ${speed}`;
    groups.set(key, (groups.get(key) ?? 0) + 1);
  }
  const parts = [...groups].map(([key, count]) => {
    const [weight, speed] = key.split(" ");
    return `[[targets]]\ncount = ${count}\ncores = ${cores}\nweight = ${weight}\nspeed = ${Number(speed).toFixed(2)}\n`;
  });
  return `description = "The upstream ${name.replace(/["\\]/g, "")}, from its figures of one second: check cores and level."\nwarm_up = 5\nload = [{ seconds = 60, level = ${level.toFixed(2)} }]\n\n[requests]\ncost = { distribution = "log-normal", mean = ${Math.max(0.1, mean).toFixed(2)}, deviation = 1.0 }\nkeys = 10_000\n\n${parts.join("\n")}`;
}
