// @ts-check
// Shadows: started, ended, and compared with the balancer that serves.

import { attempt } from "../lib/actions.js";
import { all, callTagged, find, getTagged } from "../lib/api.js";
import { h, heads, newId, put } from "../lib/dom.js";
import { ms, ns, number, percent } from "../lib/format.js";
import { changed, ifMatch, settingsBack } from "../lib/history.js";

/** Starts and ends shadows, and shows their reports. @param {string | null} wanted @param {AbortSignal} signal */
export function shadowForm(wanted, signal) {
  const ids = [newId("upstream"), newId("balancer"), newId("sample")];
  const upstream = h("select", { id: ids[0] });
  const balancer = h("select", { id: ids[1] });
  const sample = h("input", { id: ids[2], type: "number", min: 0, max: 100, step: "any", value: 100 });
  const report = h("div", { class: "shadow-report" });
  const end = h(
    "button",
    { type: "button", class: "danger", hidden: true, on: { click: () => attempt(() => set(null)) } },
    "End the shadow",
  );
  const path = () => `/upstreams/${encodeURIComponent(upstream.value)}`;

  async function set(shadow) {
    const own = path();
    const shadowIn = (row) => row.pointsman?.shadow ?? null;
    const found = await getTagged(own, signal);
    const patch = (value, etag) =>
      callTagged("PATCH", own, { json: { pointsman: { shadow: value } }, headers: ifMatch(etag) });
    const written = await patch(shadow, found.etag);
    const before = settingsBack(shadowIn(found.body), shadowIn(written.body));
    changed(
      shadow ? `${shadow.balancer} shadows ${upstream.value}.` : `The shadow of ${upstream.value} is ended.`,
      () => patch(before, written.etag),
      read,
    );
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
      put(
        upstream,
        upstreams.map((one) => h("option", { value: one.name, selected: one.name === wanted }, one.name)),
      );
      put(
        balancer,
        rows.map((one) => h("option", { value: one.name }, one.name)),
      );
      return read();
    })
    .catch(() => {});
  upstream.addEventListener("change", () => read().catch(() => {}));
  const timer = setInterval(() => read().catch(() => {}), 2000);
  signal.addEventListener("abort", () => clearInterval(timer));
  return h(
    "form",
    { class: "inline", on: { submit: start } },
    h(
      "p",
      { class: "hint" },
      "A shadow is asked beside the balancer that serves, for the same requests; its picks have no effect.",
    ),
    h(
      "div",
      { class: "row" },
      h("label", { for: ids[0] }, "Upstream"),
      upstream,
      h("label", { for: ids[1] }, "Balancer"),
      balancer,
      h("label", { for: ids[2] }, "Percent of the picks"),
      sample,
      h("button", { class: "primary" }, "Start"),
      end,
    ),
    report,
  );
}

/** A shadow's report. @param {any} report */
export function shadowOf(report) {
  const side = (name, one) =>
    h(
      "tr",
      null,
      h("th", { scope: "row" }, name),
      [
        number(one.in_flight),
        one.latency_us === null ? "–" : ms(one.latency_us / 1000),
        ns(one.pick_ns),
        number(one.refused),
      ].map((value) => h("td", { class: "number figure" }, value)),
    );
  const shares = [...report.endpoints]
    .sort(
      (one, other) =>
        Math.abs(other.shadow_share - other.first_share) - Math.abs(one.shadow_share - one.first_share),
    )
    .slice(0, 12);
  return h(
    "div",
    null,
    h(
      "p",
      null,
      h("b", null, report.balancer),
      ` chose the same endpoint in ${percent(report.agreement)} of ${number(report.compared)} picks.`,
      report.last_fault ? ` Last fault: ${report.last_fault}` : "",
    ),
    report.lacks.length > 0 &&
      h(
        "p",
        { class: "hint" },
        `It asks for ${report.lacks.join(" and ")}, which a shadow here does not get, and may choose otherwise if it serves.`,
      ),
    h(
      "table",
      null,
      heads(["", "In flight at the choice", "Latency", "Pick", "Refused"], (_, index) => index > 0),
      h("tbody", null, side("Serves", report.first), side("Shadow", report.shadow)),
    ),
    h(
      "table",
      { class: "differences" },
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          h("th", { scope: "col" }, "Target"),
          h("th", { scope: "col", class: "number" }, "Serves"),
          h("th", { scope: "col", class: "number" }, "Shadow"),
          h("th", { scope: "col" }, "Difference"),
        ),
      ),
      h(
        "tbody",
        null,
        shares.map((one) => {
          const difference = one.shadow_share - one.first_share;
          const bar = h("span", { class: "bar", "data-sign": difference < 0 ? "less" : "more" });
          bar.style.width = `${Math.min(50, Math.abs(difference) * 100)}%`;
          return h(
            "tr",
            null,
            h("th", { scope: "row" }, one.address),
            h("td", { class: "number figure" }, percent(one.first_share)),
            h("td", { class: "number figure" }, percent(one.shadow_share)),
            h(
              "td",
              null,
              h("span", { class: "difference" }, bar),
              h(
                "span",
                { class: "figure" },
                `${difference > 0 ? "+" : ""}${(difference * 100).toFixed(1)} points`,
              ),
            ),
          );
        }),
      ),
    ),
  );
}
