// @ts-check
// Balancers: versions, canaries, shadows, uploads, settings.

import { ofJsonSchema, ofKong } from "../forms/fields.js";
import { FieldError, form } from "../forms/form.js";
import { ApiError, all, call, find, get } from "../lib/api.js";
import { confirm, dialog, notice } from "../lib/dialog.js";
import { attr, h, newId, put, rowsOf, text } from "../lib/dom.js";
import { ago, bytes, clock, ms, number, short } from "../lib/format.js";
import { changed } from "../lib/history.js";
import { shadowOf } from "./upstream.js";

/** The fields of a canary, in the words of the Admin API. */
const CANARY = ofKong({
  fields: [
    { share_percent: { type: "number", required: true, default: 5, between: [0, 100], description: "Percent of the picks" } },
    { max_faults: { type: "integer", required: true, default: 0, description: "Faults until it ends" } },
    { max_error_percent: { type: "number", between: [0, 100], description: "Most failed requests, in percent" } },
    { max_error_ratio: { type: "number", description: "The same, in times the rate of the active version" } },
    { max_p99_ms: { type: "number", description: "Highest p99, in milliseconds" } },
    { max_p99_ratio: { type: "number", description: "The same, in times that of the active version" } },
    { min_requests: { type: "integer", required: true, default: 100, description: "Requests of each side before anything but faults is judged" } },
    { duration: { type: "number", description: "Seconds until it has passed" } },
    { promote: { type: "boolean", required: true, default: false, description: "Whether it becomes active once it has passed" } },
  ],
});

/** @param {unknown} error */
function said(error) {
  if (!(error instanceof ApiError)) return `The gateway cannot be reached: ${error}`;
  const fields = Object.entries(error.fields ?? {});
  return fields.length > 0 ? fields.map(([name, one]) => `${name}: ${typeof one === "string" ? one : JSON.stringify(one)}`).join("; ") : error.message;
}

/** Runs an action of a button, and tells of its failure. @param {() => Promise<any>} action */
async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    notice(said(error), { bad: true });
    return undefined;
  }
}

/**
 * A place that takes a component, by drag and drop or from a dialog, with an optional signature.
 * @param {string} label
 * @param {(component: File, signature: File | undefined, report: (lines: [string, string][]) => void) => Promise<void>} send
 */
function dropZone(label, send) {
  const id = newId("file");
  const input = h("input", { type: "file", id, class: "hidden", accept: ".wasm,.minisig", multiple: true });
  const report = h("ol", { class: "report", role: "status" });
  const tell = (lines) => put(report, lines.map(([kind, line]) => h("li", { "data-kind": kind }, h("span", { class: "glyph", "data-kind": kind }), line)));
  const take = async (files) => {
    const list = [...files];
    const component = list.find((file) => !file.name.endsWith(".minisig"));
    if (!component) return tell([["bad", "This is no component: drop a .wasm file."]]);
    tell([["idle", `Checking ${component.name}, ${bytes(component.size)} …`]]);
    try {
      await send(component, list.find((file) => file.name.endsWith(".minisig")), tell);
    } catch (error) {
      tell([["bad", `${component.name} is refused: ${said(error)}`]]);
    }
    input.value = "";
    return undefined;
  };
  input.addEventListener("change", () => take(input.files));
  const zone = h(
    "div",
    {
      class: "drop",
      on: {
        dragover: (event) => (event.preventDefault(), zone.classList.add("over")),
        dragleave: () => zone.classList.remove("over"),
        drop: (event) => {
          event.preventDefault();
          zone.classList.remove("over");
          take(event.dataTransfer.files);
        },
      },
    },
    input,
    h("label", { for: id, class: "button" }, "Choose a component"),
    h("span", { class: "hint" }, ` or drop it here: ${label}`),
    report,
  );
  return zone;
}

/** @param {File} component @param {File | undefined} signature @param {string} [name] */
async function body(component, signature, name) {
  const data = new FormData();
  if (name) data.append("name", name);
  data.append("component", component, component.name);
  if (signature) data.append("signature", await signature.text());
  return data;
}

/** What a check has found, line by line. @param {any} row @returns {[string, string][]} */
function reportOf(row) {
  const description = row.description ?? {};
  const columns = description.columns ?? [];
  const settings = Object.keys(description.config_schema?.properties ?? {});
  return [
    ["good", `${description.name ?? row.name} ${description.version ?? ""}, ${bytes(row.size)}, digest ${short(row.digest)}`],
    ["good", `exports ${(row.exports ?? []).join(", ")}`],
    ["good", columns.length > 0 ? `reads ${columns.join(", ")} of each endpoint` : "reads no figures of endpoints with each pick"],
    ["good", settings.length > 0 ? `settings: ${settings.join(", ")}` : "has no settings"],
  ];
}

/** @param {string[]} _rest @param {import("../app.js").Context} context */
export function balancers(_rest, { signal, query }) {
  const body_ = h("tbody");
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const nameId = newId("name");
  const name = h("input", { id: nameId, type: "text", autocomplete: "off", placeholder: "name of the balancer" });
  const users = new Map();

  async function read() {
    try {
      const [rows, upstreams] = await Promise.all([all("/balancers", signal), all("/upstreams", signal)]);
      users.clear();
      for (const one of upstreams) users.set(one.algorithm, [...(users.get(one.algorithm) ?? []), one.name]);
      rows.sort((one, other) => one.name.localeCompare(other.name));
      put(
        body_,
        rows.map((row) => {
          const own = users.get(row.name) ?? [];
          const canary = ["running", "passed"].includes(row.canary?.state) ? `canary ${short(row.canary.version)} takes ${row.canary.share_percent} %` : "";
          return h("tr", null, h("th", { scope: "row" }, h("a", { href: `#/balancers/${encodeURIComponent(row.name)}` }, row.name)), h("td", null, row.source), h("td", { class: "mono" }, short(row.digest)), h("td", null, row.description?.version ?? ""), h("td", { class: "number" }, bytes(row.size)), h("td", { title: own.join(", ") }, own.length > 0 ? own.slice(0, 4).join(", ") + (own.length > 4 ? ` and ${own.length - 4} more` : "") : "–"), h("td", null, canary));
        }),
      );
    } catch (error) {
      if (signal.aborted) return;
      text(problem, said(error));
      problem.hidden = false;
    }
  }

  const upload = async (component, signature, tell) => {
    const given = name.value.trim() || component.name.replace(/\.wasm$/, "").replace(/[^A-Za-z0-9._~-]+/g, "-");
    const row = await call("POST", "/balancers", { body: await body(component, signature, given) });
    tell(reportOf(row));
    changed(`The balancer ${row.name} is created.`, () => call("DELETE", `/balancers/${encodeURIComponent(row.id)}`), read);
    await read();
  };
  read();
  const upstream = query.get("upstream");
  return h(
    "div",
    { class: "screen" },
    h("h1", null, "Balancers"),
    problem,
    h("section", { class: "card" }, h("div", { class: "scroll-x" }, h("table", null, h("thead", null, h("tr", null, ["Balancer", "Source", "Active version", "Release", "Size", "Upstreams", ""].map((one) => h("th", { scope: "col", class: one === "Size" ? "number" : null }, one)))), body_))),
    h("section", { class: "card" }, h("h2", null, "New balancer"), h("p", null, h("label", { for: nameId, class: "hidden" }, "Name"), name), dropZone("it is checked and stored; no upstream uses it until its algorithm names it.", upload)),
    h("section", { class: "card" }, h("h2", null, "Shadow"), shadowForm(upstream, signal)),
  );
}

/** Starts and ends shadows, and shows their reports. @param {string | null} wanted @param {AbortSignal} signal */
function shadowForm(wanted, signal) {
  const ids = [newId("upstream"), newId("balancer"), newId("sample")];
  const upstream = h("select", { id: ids[0] });
  const balancer = h("select", { id: ids[1] });
  const sample = h("input", { id: ids[2], type: "number", min: 0, max: 100, step: "any", value: 100 });
  const report = h("div", { class: "shadow-report" });
  const end = h("button", { type: "button", class: "danger", hidden: true, on: { click: () => attempt(() => set(null)) } }, "End the shadow");
  const path = () => `/upstreams/${encodeURIComponent(upstream.value)}`;

  async function set(shadow) {
    const row = await get(path(), signal);
    const before = row.pointsman?.shadow ?? null;
    const patch = (value) => call("PATCH", path(), { json: { pointsman: { shadow: value } } });
    await patch(shadow);
    changed(shadow ? `${shadow.balancer} shadows ${upstream.value}.` : `The shadow of ${upstream.value} is ended.`, () => patch(before), read);
    await read();
  }

  async function read() {
    if (!upstream.value || document.hidden) return;
    const found = await find(`${path()}/shadow`, signal);
    end.hidden = !found;
    put(report, found ? shadowOf(found) : h("p", { class: "empty" }, "This upstream has no shadow."));
  }

  const start = (event) => {
    event.preventDefault();
    attempt(() => set({ balancer: balancer.value, sample_percent: Number(sample.value) }));
  };
  Promise.all([all("/upstreams", signal), all("/balancers", signal)])
    .then(([upstreams, rows]) => {
      put(upstream, upstreams.map((one) => h("option", { value: one.name, selected: one.name === wanted }, one.name)));
      put(balancer, rows.map((one) => h("option", { value: one.name }, one.name)));
      return read();
    })
    .catch(() => {});
  upstream.addEventListener("change", () => read().catch(() => {}));
  const timer = setInterval(() => read().catch(() => {}), 2000);
  signal.addEventListener("abort", () => clearInterval(timer));
  return h(
    "form",
    { class: "inline", on: { submit: start } },
    h("p", { class: "hint" }, "A shadow is asked beside the balancer that serves, for the same requests; its picks have no effect."),
    h("div", { class: "row" }, h("label", { for: ids[0] }, "Upstream"), upstream, h("label", { for: ids[1] }, "Balancer"), balancer, h("label", { for: ids[2] }, "Percent of the picks"), sample, h("button", { class: "primary" }, "Start"), end),
    report,
  );
}

/** @param {string[]} rest @param {import("../app.js").Context} context */
export function balancer([name], { signal }) {
  const path = `/balancers/${encodeURIComponent(name)}`;
  const facts = h("dl", { class: "facts" });
  const versions = h("tbody");
  const rows = new Map();
  const usage = h("tbody");
  const usageRows = new Map();
  const canaryCard = h("section", { class: "card", hidden: true });
  const settings = h("section", { class: "card" });
  const logs = h("pre", { class: "logs", tabindex: "0", "aria-label": "Log lines" });
  const back = h("button", { type: "button", on: { click: rollback } }, "Roll back");
  const upload = h("section", { class: "card" });
  let row = null;

  async function read() {
    row = await get(path, signal);
    const list = (await get(`${path}/versions?size=100`, signal)).data;
    const isShipped = row.source === "shipped";
    back.hidden = isShipped || !row.previous_digest;
    put(facts, [["Active version", row.digest], ["Source", row.source], ["Release", `${row.description?.name} ${row.description?.version}`], ["Reads", row.description?.columns?.join(", ") || "no figures with each pick"], ["Exports", (row.exports ?? []).join(", ")]].map(([term, value]) => [h("dt", null, term), h("dd", null, value)]));
    rowsOf(versions, list, (one) => one.id, versionRow, rows);
    rowsOf(usage, Object.entries(row.usage ?? {}), ([upstream]) => upstream, usageRow, usageRows);
    upload.hidden = isShipped;
    drawCanary(row.canary);
    const lines = await find(`${path}/logs`, signal);
    text(logs, (lines?.data ?? []).slice(-60).map((line) => `${clock(line.time)}  ${line.level}  ${line.upstream}  ${line.message}`).join("\n") || "No lines.");
  }

  function versionRow() {
    const cells = [0, 0, 0, 0, 0].map(() => h("td"));
    const glyph = h("span", { class: "glyph" });
    const digest = h("span", { class: "mono" });
    const actions = h("td", { class: "number" });
    let shownState = "";
    return {
      node: h("tr", null, h("th", { scope: "row" }, glyph, digest), cells, actions),
      update(one) {
        text(digest, short(one.digest));
        attr(digest, "title", one.digest);
        attr(glyph, "data-kind", { active: "good", canary: "warn", failed: "bad" }[one.state] ?? "idle");
        const values = [one.state, one.description?.version ?? "", bytes(one.size), ago(one.created_at), one.reason ?? ""];
        cells.forEach((cell, index) => text(cell, values[index]));
        if (one.state === shownState) return;
        shownState = one.state;
        const button = (label, action, danger) => h("button", { type: "button", class: danger ? "danger" : null, on: { click: () => attempt(action) } }, label);
        const canPromote = ["ready", "retired", "canary"].includes(one.state) && row.source !== "shipped";
        put(actions, h("div", { class: "row" }, canPromote && button("Promote", () => promote(one)), canPromote && one.state !== "canary" && button("Canary", () => begin(one)), one.state === "canary" && button("End the canary", () => end(one)), canPromote && one.state !== "canary" && button("Delete", () => remove(one), true)));
      },
    };
  }

  function usageRow([upstream]) {
    const cells = [0, 0, 0, 0, 0].map(() => h("td", { class: "number figure" }));
    return {
      node: h("tr", null, h("th", { scope: "row" }, h("a", { href: `#/upstreams/${encodeURIComponent(upstream)}` }, upstream)), cells),
      update([, one]) {
        const faults = Object.values(one.faults).reduce((sum, n) => sum + n, 0);
        [short(one.version), number(one.picks), number(one.fallback_picks), number(faults), bytes(one.memory)].forEach((value, index) => text(cells[index], value));
      },
    };
  }

  async function promote(one) {
    const before = row.digest;
    await call("POST", `${path}/versions/${one.digest}/promote`);
    changed(`The version ${short(one.digest)} is active.`, () => call("POST", `${path}/versions/${before}/promote`), read);
    await read();
  }

  async function rollback() {
    await attempt(async () => {
      const before = row.digest;
      await call("POST", `${path}/rollback`);
      changed("Rolled back.", () => call("POST", `${path}/versions/${before}/promote`), read);
      await read();
    });
  }

  async function remove(one) {
    if (!(await confirm(`The version ${short(one.digest)} is deleted. Its component cannot be restored.`, "Delete"))) return;
    await call("DELETE", `${path}/versions/${one.digest}`);
    notice(`The version ${short(one.digest)} is deleted.`);
    await read();
  }

  /** Asks for the bounds of a canary. @param {any} one */
  async function begin(one) {
    const made = form(CANARY, {});
    await dialog(`Canary of the version ${short(one.digest)}`, (close) =>
      h(
        "form",
        {
          novalidate: true,
          on: {
            submit: async (event) => {
              event.preventDefault();
              made.fail({});
              try {
                await call("POST", `${path}/versions/${one.digest}/canary`, { json: made.read() });
                close();
                changed("The canary is started.", () => call("DELETE", `${path}/versions/${one.digest}/canary`), read);
                await read();
              } catch (error) {
                if (error instanceof ApiError) made.fail(error.fields, error.message);
                else if (!(error instanceof FieldError)) throw error;
              }
            },
          },
        },
        made.node,
        h("div", { class: "actions" }, h("button", { type: "button", on: { click: close } }, "Cancel"), h("button", { class: "primary" }, "Start")),
      ),
    );
  }

  async function end(one) {
    await call("DELETE", `${path}/versions/${one.digest}/canary`);
    notice("The canary is ended.");
    await read();
  }

  /** A canary with its bounds: how much of each is used up. @param {any} canary */
  function drawCanary(canary) {
    canaryCard.hidden = !canary;
    if (!canary) return;
    const [stable, own] = [canary.figures?.stable, canary.figures?.canary];
    const part = (side, count) => (side && side.requests > 0 ? (100 * side[count]) / side.requests : null);
    const p99 = (side) => side?.recent?.p99_ms ?? null;
    const ratio = (one, other) => (one !== null && other ? one / other : null);
    const bounds = [
      ["Faults", own?.faults, canary.max_faults, number],
      ["Errors", part(own, "errors"), canary.max_error_percent, (value) => `${number(value)} %`],
      ["Errors, in times the active version", ratio(part(own, "errors"), part(stable, "errors")), canary.max_error_ratio, number],
      ["p99", p99(own), canary.max_p99_ms, ms],
      ["p99, in times the active version", ratio(p99(own), p99(stable)), canary.max_p99_ratio, number],
      ["Requests until it is judged", own?.requests, canary.min_requests, number],
    ].filter(([, , bound]) => bound !== null && bound !== undefined);
    const meter = ([label, value, bound, unit]) => {
      const bar = h("span", { class: "bar" });
      const used = bound > 0 ? (value ?? 0) / bound : (value ?? 0) > 0 ? 1 : 0;
      bar.style.width = `${Math.min(100, 100 * used)}%`;
      attr(bar, "data-over", label.startsWith("Requests") ? null : used >= 0.8 ? "yes" : null);
      return [h("dt", null, label), h("dd", null, h("span", { class: "track wide" }, bar), h("span", { class: "figure" }, `${unit(value)} of ${unit(bound)}`))];
    };
    const side = (label, one) => h("tr", null, h("th", { scope: "row" }, label), [number(one?.picks), number(one?.requests), number(one?.errors), number(one?.faults), ms(p99(one))].map((value) => h("td", { class: "number figure" }, value)));
    put(
      canaryCard,
      h("h2", null, `Canary ${short(canary.version)}: ${canary.state}`),
      h("p", null, `${canary.share_percent} % of the picks, since ${clock(canary.created_at)}${canary.duration ? `, for ${canary.duration} s` : ""}${canary.promote ? ", then active" : ""}.`, canary.reason ? ` ${canary.reason}.` : ""),
      h("dl", { class: "facts" }, bounds.map(meter)),
      h("table", null, h("thead", null, h("tr", null, ["", "Picks", "Requests", "Errors", "Faults", "p99"].map((one, index) => h("th", { scope: "col", class: index ? "number" : null }, one)))), h("tbody", null, side("Active version", stable), side("Canary", own))),
    );
  }

  /** The settings of each upstream for this balancer, as a form from the component's schema. */
  async function drawSettings() {
    const schema = await find(`/schemas${path}`, signal);
    const fields = ofJsonSchema(schema ?? {});
    const own = (await all("/upstreams", signal)).filter((one) => one.algorithm === name);
    if (fields.length === 0 || own.length === 0) {
      put(settings, h("h2", null, "Settings"), h("p", { class: "empty" }, fields.length === 0 ? "This balancer has no settings." : "No upstream uses this balancer."));
      return;
    }
    const id = newId("upstream");
    const chosen = h("select", { id }, own.map((one) => h("option", { value: one.name }, one.name)));
    const place = h("div");
    const draw = async () => {
      const upstream = `/upstreams/${encodeURIComponent(chosen.value)}`;
      const before = (await get(upstream, signal)).pointsman?.balancer_config ?? null;
      const made = form(fields, before ?? {});
      const set = (config) => call("PATCH", upstream, { json: { pointsman: { balancer_config: config } } });
      const submit = async (event) => {
        event.preventDefault();
        made.fail({});
        try {
          const given = Object.fromEntries(Object.entries(made.read()).filter(([, value]) => value !== null));
          await set(Object.keys(given).length > 0 ? given : null);
          changed(`The settings of ${chosen.value} are changed.`, () => set(before), draw);
        } catch (error) {
          if (error instanceof ApiError) made.fail(error.fields?.pointsman?.balancer_config ?? error.fields, error.message);
          else if (!(error instanceof FieldError)) throw error;
        }
      };
      put(place, h("form", { novalidate: true, on: { submit } }, made.node, h("div", { class: "actions left" }, h("button", { class: "primary" }, "Save"))));
    };
    chosen.addEventListener("change", () => attempt(draw));
    put(settings, h("h2", null, "Settings"), h("div", { class: "row" }, h("label", { for: id }, "Upstream"), chosen), place);
    await draw();
  }

  put(
    upload,
    h("h2", null, "New version"),
    dropZone("it is checked, and serves nothing until it is promoted or a canary.", async (component, signature, tell) => {
      const version = await call("POST", `${path}/versions`, { body: await body(component, signature) });
      tell(reportOf(version));
      await read();
    }),
  );
  const screen = h(
    "div",
    { class: "screen" },
    h("div", { class: "title" }, h("h1", null, name), back),
    canaryCard,
    h("section", { class: "card" }, facts),
    h("section", { class: "card" }, h("h2", null, "Versions"), h("div", { class: "scroll-x" }, h("table", null, h("thead", null, h("tr", null, ["Version", "State", "Release", "Size", "Uploaded", "", ""].map((one) => h("th", { scope: "col" }, one)))), versions))),
    upload,
    h("section", { class: "card" }, h("h2", null, "Upstreams"), h("table", null, h("thead", null, h("tr", null, ["Upstream", "Version", "Picks", "By the gateway", "Faults", "Memory"].map((one, index) => h("th", { scope: "col", class: index ? "number" : null }, one)))), usage)),
    settings,
    h("section", { class: "card" }, h("h2", null, "Log lines"), logs),
  );
  read()
    .then(drawSettings)
    .catch((error) => {
      if (!signal.aborted) put(screen, h("h1", null, name), h("p", { class: "problem", role: "alert" }, error instanceof ApiError && error.status === 404 ? `There is no balancer ${name}.` : said(error)));
    });
  const timer = setInterval(() => !document.hidden && read().catch(() => {}), 2000);
  signal.addEventListener("abort", () => clearInterval(timer));
  return screen;
}
