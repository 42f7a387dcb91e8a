// @ts-check
// A balancer: its versions, its canary, its settings.

import { FieldError, form } from "../forms/form.js";
import { attempt, said } from "../lib/actions.js";
import { ApiError, call, find, get } from "../lib/api.js";
import { confirm, dialog, notice } from "../lib/dialog.js";
import { attr, h, heads, put, rowsOf, text } from "../lib/dom.js";
import { ago, bytes, clock, number, short } from "../lib/format.js";
import { changed, must } from "../lib/history.js";
import { CANARY, showCanary } from "../parts/canary.js";
import { showSettings } from "../parts/settings.js";
import { body, dropZone, reportOf } from "../parts/upload.js";

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
    put(
      facts,
      [
        ["Active version", row.digest],
        ["Source", row.source],
        ["Release", `${row.description?.name} ${row.description?.version}`],
        ["Reads", row.description?.columns?.join(", ") || "no figures with each pick"],
        ["Exports", (row.exports ?? []).join(", ")],
        ["Imports", (row.imports ?? []).join(", ")],
      ].map(([term, value]) => [h("dt", null, term), h("dd", null, value)]),
    );
    rowsOf(versions, list, (one) => one.id, versionRow, rows);
    rowsOf(usage, Object.entries(row.usage ?? {}), ([upstream]) => upstream, usageRow, usageRows);
    upload.hidden = isShipped;
    showCanary(canaryCard, row.canary);
    const lines = await find(`${path}/logs`, signal);
    text(
      logs,
      (lines?.data ?? [])
        .slice(-60)
        .map((line) => `${clock(line.time)}  ${line.level}  ${line.upstream}  ${line.message}`)
        .join("\n") || "No lines.",
    );
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
        const values = [
          one.state,
          one.description?.version ?? "",
          bytes(one.size),
          ago(one.created_at),
          one.reason ?? "",
        ];
        cells.forEach((cell, index) => text(cell, values[index]));
        if (one.state === shownState) return;
        shownState = one.state;
        const button = (label, action, danger) =>
          h(
            "button",
            { type: "button", class: danger ? "danger" : null, on: { click: () => attempt(action) } },
            label,
          );
        const canPromote = ["ready", "retired", "canary"].includes(one.state) && row.source !== "shipped";
        put(
          actions,
          h(
            "div",
            { class: "row" },
            canPromote && button("Promote", () => promote(one)),
            canPromote && one.state !== "canary" && button("Canary", () => begin(one)),
            one.state === "canary" && button("End the canary", () => end(one)),
            canPromote && one.state !== "canary" && button("Delete", () => remove(one), true),
          ),
        );
      },
    };
  }

  /** @param {[any, any]} entry */
  function usageRow([upstream]) {
    const cells = [0, 0, 0, 0, 0].map(() => h("td", { class: "number figure" }));
    return {
      node: h(
        "tr",
        null,
        h("th", { scope: "row" }, h("a", { href: `#/upstreams/${encodeURIComponent(upstream)}` }, upstream)),
        cells,
      ),
      update([, one]) {
        const faults = Object.values(one.faults).reduce((sum, n) => sum + n, 0);
        [
          short(one.version),
          number(one.picks),
          number(one.fallback_picks),
          number(faults),
          bytes(one.memory),
        ].forEach((value, index) => text(cells[index], value));
      },
    };
  }

  /** Promotes a version again, if no other one has been since. @param {string} before @param {string} now */
  async function promoteBack(before, now) {
    must((await get(path)).digest === now);
    await call("POST", `${path}/versions/${before}/promote`);
  }

  async function promote(one) {
    const before = row.digest;
    await call("POST", `${path}/versions/${one.digest}/promote`);
    changed(
      `The version ${short(one.digest)} is active.`,
      () => promoteBack(before, one.digest),
      read,
    );
    await read();
  }

  async function rollback() {
    await attempt(async () => {
      const before = row.digest;
      await call("POST", `${path}/rollback`);
      const now = (await get(path)).digest;
      changed("Rolled back.", () => promoteBack(before, now), read);
      await read();
    });
  }

  async function remove(one) {
    if (
      !(await confirm(
        `The version ${short(one.digest)} is deleted. Its component cannot be restored.`,
        "Delete",
      ))
    )
      return;
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
                await read();
                const begun = row.canary?.created_at;
                changed(
                  "The canary is started.",
                  async () => {
                    must((await get(path)).canary?.created_at === begun);
                    await call("DELETE", `${path}/versions/${one.digest}/canary`);
                  },
                  read,
                );
              } catch (error) {
                if (error instanceof ApiError) made.fail(error.fields, error.message);
                else if (!(error instanceof FieldError)) throw error;
              }
            },
          },
        },
        made.node,
        h(
          "div",
          { class: "actions" },
          h("button", { type: "button", on: { click: close } }, "Cancel"),
          h("button", { class: "primary" }, "Start"),
        ),
      ),
    );
  }

  async function end(one) {
    await call("DELETE", `${path}/versions/${one.digest}/canary`);
    notice("The canary is ended.");
    await read();
  }

  put(
    upload,
    h("h2", null, "New version"),
    dropZone(
      "it is checked, and serves nothing until it is promoted or a canary.",
      async (component, signature, tell) => {
        const version = await call("POST", `${path}/versions`, { body: await body(component, signature) });
        tell(reportOf(version));
        await read();
      },
    ),
  );
  const screen = h(
    "div",
    { class: "screen" },
    h("div", { class: "title" }, h("h1", null, name), back),
    canaryCard,
    h("section", { class: "card" }, facts),
    h(
      "section",
      { class: "card" },
      h("h2", null, "Versions"),
      h(
        "div",
        { class: "scroll-x" },
        h(
          "table",
          null,
          heads(["Version", "State", "Release", "Size", "Uploaded", "", ""]),
          versions,
        ),
      ),
    ),
    upload,
    h(
      "section",
      { class: "card" },
      h("h2", null, "Upstreams"),
      h(
        "div",
        { class: "scroll-x" },
        h(
          "table",
          null,
          heads(["Upstream", "Version", "Picks", "By the gateway", "Faults", "Memory"], (_, index) => index > 0),
          usage,
        ),
      ),
    ),
    settings,
    h("section", { class: "card" }, h("h2", null, "Log lines"), logs),
  );
  read()
    .then(() => showSettings(settings, name, signal))
    .catch((error) => {
      if (!signal.aborted)
        put(
          screen,
          h("h1", null, name),
          h(
            "p",
            { class: "problem", role: "alert" },
            error instanceof ApiError && error.status === 404 ? `There is no balancer ${name}.` : said(error),
          ),
        );
    });
  const timer = setInterval(() => !document.hidden && read().catch(() => {}), 2000);
  signal.addEventListener("abort", () => clearInterval(timer));
  return screen;
}
