// @ts-check
// The balancers, a place for a new one, and shadows.

import { said } from "../lib/actions.js";
import { all, call, get } from "../lib/api.js";
import { h, heads, newId, put, text } from "../lib/dom.js";
import { bytes, short } from "../lib/format.js";
import { changed, must } from "../lib/history.js";
import { shadowForm } from "../parts/shadow.js";
import { body, dropZone, reportOf } from "../parts/upload.js";

/** @param {string[]} _rest @param {import("../app.js").Context} context */
export function balancers(_rest, { signal, query }) {
  const body_ = h("tbody");
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const nameId = newId("name");
  const name = h("input", {
    id: nameId,
    type: "text",
    autocomplete: "off",
    placeholder: "name of the balancer",
  });
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
          const canary = ["running", "passed"].includes(row.canary?.state)
            ? `canary ${short(row.canary.version)} takes ${row.canary.share_percent} %`
            : "";
          return h(
            "tr",
            null,
            h(
              "th",
              { scope: "row" },
              h("a", { href: `#/balancers/${encodeURIComponent(row.name)}` }, row.name),
            ),
            h("td", null, row.source),
            h("td", { class: "mono" }, short(row.digest)),
            h("td", null, row.description?.version ?? ""),
            h("td", { class: "number" }, bytes(row.size)),
            h(
              "td",
              { title: own.join(", ") },
              own.length > 0
                ? own.slice(0, 4).join(", ") + (own.length > 4 ? ` and ${own.length - 4} more` : "")
                : "–",
            ),
            h("td", null, canary),
          );
        }),
      );
    } catch (error) {
      if (signal.aborted) return;
      text(problem, said(error));
      problem.hidden = false;
    }
  }

  const upload = async (component, signature, tell) => {
    const given =
      name.value.trim() || component.name.replace(/\.wasm$/, "").replace(/[^A-Za-z0-9._~-]+/g, "-");
    const row = await call("POST", "/balancers", { body: await body(component, signature, given) });
    tell(reportOf(row));
    changed(
      `The balancer ${row.name} is created.`,
      async () => {
        const own = `/balancers/${encodeURIComponent(row.id)}`;
        must((await get(own)).digest === row.digest);
        await call("DELETE", own);
      },
      read,
    );
    await read();
  };
  read();
  const upstream = query.get("upstream");
  return h(
    "div",
    { class: "screen" },
    h("h1", null, "Balancers"),
    problem,
    h(
      "section",
      { class: "card" },
      h(
        "div",
        { class: "scroll-x" },
        h(
          "table",
          null,
          heads(
            ["Balancer", "Source", "Active version", "Release", "Size", "Upstreams", ""],
            (one) => one === "Size",
          ),
          body_,
        ),
      ),
    ),
    h(
      "section",
      { class: "card" },
      h("h2", null, "New balancer"),
      h("p", null, h("label", { for: nameId, class: "hidden" }, "Name"), name),
      dropZone("it is checked and stored; no upstream uses it until its algorithm names it.", upload),
    ),
    h("section", { class: "card" }, h("h2", null, "Shadow"), shadowForm(upstream, signal)),
  );
}
