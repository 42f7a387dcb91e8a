// @ts-check
// The upstreams, with what each does now.

import { follow } from "../lib/api.js";
import { attr, h, rowsOf, text } from "../lib/dom.js";
import { ms, number } from "../lib/format.js";

/** @param {string[]} _rest @param {import("../app.js").Context} context */
export function upstreams(_rest, { signal, state }) {
  const body = h("tbody");
  const rows = new Map();
  const none = h(
    "p",
    { class: "empty" },
    "There is no upstream. ",
    h("a", { href: "#/entities/upstreams/+" }, "Create one"),
    ".",
  );
  const search = h("input", { type: "search", placeholder: "Search", "aria-label": "Search upstreams" });
  let last = [];
  const list = () => {
    const wanted = search.value.toLowerCase();
    const shown = last.filter((one) => one.name.toLowerCase().includes(wanted)).slice(0, 500);
    rowsOf(body, shown, (one) => one.id, row, rows);
    none.hidden = shown.length > 0;
  };
  search.addEventListener("input", list);
  const row = (first) => {
    const glyph = h("span", { class: "glyph" });
    const cells = [0, 0, 0, 0, 0, 0].map(() => h("td", { class: "number figure" }));
    const balancer = h("td");
    return {
      node: h(
        "tr",
        null,
        h(
          "th",
          { scope: "row" },
          glyph,
          h("a", { href: `#/upstreams/${encodeURIComponent(first.name)}` }, first.name),
        ),
        balancer,
        cells,
      ),
      update(now) {
        attr(glyph, "data-kind", !now.healthy ? "bad" : now.available < now.addresses ? "warn" : "good");
        text(balancer, now.balancer);
        const values = [
          `${now.available} / ${now.addresses}`,
          number(now.in_flight),
          number(now.rate),
          number(now.errors),
          ms(now.p50),
          ms(now.p99),
        ];
        cells.forEach((cell, index) => text(cell, values[index]));
      },
    };
  };
  follow("/pointsman/live", (now) => ((last = now.upstreams), list()), state, signal);
  const columns = ["Available", "In flight", "Requests/s", "Errors/s", "p50", "p99"];
  return h(
    "div",
    { class: "screen" },
    h("div", { class: "title" }, h("h1", null, "Upstreams"), search),
    h(
      "section",
      { class: "card" },
      h(
        "div",
        { class: "scroll-x" },
        h(
          "table",
          null,
          h(
            "thead",
            null,
            h(
              "tr",
              null,
              h("th", { scope: "col" }, "Upstream"),
              h("th", { scope: "col" }, "Balancer"),
              columns.map((name) => h("th", { scope: "col", class: "number" }, name)),
            ),
          ),
          body,
        ),
      ),
      none,
    ),
  );
}
