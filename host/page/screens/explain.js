// @ts-check
// Explain: which route a request takes and why not the others, its policies, and what the balancers
// would pick for it.

import { ApiError, all, call } from "../lib/api.js";
import { h, heads, newId, put, text } from "../lib/dom.js";
import { ms, number, percent } from "../lib/format.js";

/** Picks that are asked of each balancer, to show how they are spread. */
const PICKS = 200;

/** @param {string[]} _rest @param {import("../app.js").Context} context */
export function explain(_rest, { signal, query }) {
  const field = (label, input, wide = false) => {
    const id = newId("explain");
    input.id = id;
    return h("div", { class: wide ? "wide" : null }, h("label", { for: id }, label), input);
  };
  const value = (name, fallback) => query.get(name) ?? fallback;
  const method = h("input", { type: "text", value: value("method", "GET"), size: "7", spellcheck: "false" });
  const host = h("input", {
    type: "text",
    value: value("host", ""),
    placeholder: "example.com",
    spellcheck: "false",
  });
  const path = h("input", { type: "text", value: value("path", "/"), spellcheck: "false" });
  const client = h("input", { type: "text", value: value("client", "127.0.0.1"), spellcheck: "false" });
  const consumer = h("input", { type: "text", placeholder: "none", spellcheck: "false" });
  const headers = h("textarea", { rows: "3", spellcheck: "false", placeholder: "X-User: 7" });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const result = h("div", { class: "explained", "aria-live": "polite" });

  /** The request as the Admin API takes it. */
  function described() {
    const all_ = {};
    if (host.value) all_.Host = host.value;
    for (const line of headers.value.split("\n")) {
      const colon = line.indexOf(":");
      if (colon > 0) all_[line.slice(0, colon).trim()] = line.slice(colon + 1).trim();
    }
    const [where, ...rest] = path.value.split("?");
    return {
      method: method.value || "GET",
      path: where || "/",
      query: rest.join("?") || undefined,
      headers: all_,
      client_ip: client.value || undefined,
      consumer: consumer.value || undefined,
    };
  }

  /** Ends what was asked last. */
  let last = new AbortController();

  async function ask(event) {
    event?.preventDefault();
    problem.hidden = true;
    // An answer that is late must not take the place of a newer one.
    last.abort();
    last = new AbortController();
    const asked = AbortSignal.any([signal, last.signal]);
    try {
      const request = described();
      const answer = await call("POST", "/pointsman/explain", { json: request, signal: asked });
      const picks = h(
        "section",
        { class: "card" },
        h("h2", null, "Pick"),
        h("p", { class: "empty" }, "Asking …"),
      );
      put(result, routeOf(answer), policiesOf(answer), picks);
      if (!answer.upstream?.named) {
        put(
          picks,
          h("h2", null, "Pick"),
          h(
            "p",
            { class: "empty" },
            answer.upstream
              ? `The service has the host ${answer.upstream.name}, which is no upstream.`
              : "No service, so nothing is picked.",
          ),
        );
        return;
      }
      await pickOf(picks, answer.upstream.name, request, asked);
    } catch (error) {
      if (asked.aborted) return;
      const fields =
        error instanceof ApiError
          ? Object.entries(error.fields)
              .map(([name, one]) => `${name}: ${typeof one === "string" ? one : JSON.stringify(one)}`)
              .join("; ")
          : "";
      text(
        problem,
        fields || (error instanceof ApiError ? error.message : `The gateway cannot be reached: ${error}`),
      );
      problem.hidden = false;
    }
  }

  /** @param {any} answer */
  function routeOf(answer) {
    const link = (row) => h("a", { href: `#/entities/routes/${row.id}` }, row.name ?? row.id);
    const why = (one) =>
      one.error
        ? `cannot be used: ${one.error}`
        : one.misses.length === 0
          ? "satisfied as well, but the route above has precedence"
          : `not satisfied: ${one.misses.join(", ")}`;
    return h(
      "section",
      { class: "card" },
      h("h2", null, "Route"),
      answer.route
        ? h(
            "p",
            { class: "chosen" },
            h("span", { class: "glyph", "data-kind": "good" }),
            link(answer.route),
            answer.service && [
              " → service ",
              h("a", { href: `#/entities/services/${answer.service.id}` }, answer.service.name),
            ],
            answer.upstream && [
              " → ",
              answer.upstream.named
                ? h(
                    "a",
                    { href: `#/upstreams/${encodeURIComponent(answer.upstream.name)}` },
                    answer.upstream.name,
                  )
                : answer.upstream.name,
            ],
          )
        : h(
            "p",
            { class: "chosen" },
            h("span", { class: "glyph", "data-kind": "bad" }),
            "No route matches: the gateway answers 404.",
          ),
      answer.others.length > 0 &&
        h(
          "table",
          null,
          h(
            "thead",
            null,
            h("tr", null, h("th", { scope: "col" }, "Other routes"), h("th", { scope: "col" }, "Why not")),
          ),
          h(
            "tbody",
            null,
            answer.others.map((one) =>
              h("tr", null, h("th", { scope: "row" }, link(one)), h("td", null, why(one))),
            ),
          ),
        ),
      answer.routes - 1 > answer.others.length &&
        h(
          "p",
          { class: "hint" },
          `${answer.others.length} of ${answer.routes - 1} other routes, those that miss the fewest criteria.`,
        ),
    );
  }

  /** @param {any} answer */
  function policiesOf(answer) {
    const scope = (one) =>
      Object.entries(one.scope)
        .filter(([, id]) => id)
        .map(([kind]) => kind)
        .join(" and ") || "all requests";
    return h(
      "section",
      { class: "card" },
      h("h2", null, "Policies, in their order"),
      answer.policies.length > 0
        ? h(
            "table",
            { class: "verdicts" },
            heads(["Plugin", "For", "Priority", "Verdict"]),
            h(
              "tbody",
              null,
              answer.policies.map((one) =>
                h(
                  "tr",
                  null,
                  h("th", { scope: "row" }, h("a", { href: `#/entities/plugins/${one.id}` }, one.name)),
                  h("td", null, scope(one)),
                  h("td", { class: "figure" }, one.priority),
                  h("td", null, verdictOf(one)),
                ),
              ),
            ),
          )
        : h("p", { class: "empty" }, "None."),
      h(
        "p",
        { class: "hint" },
        "A policy that would do more than look at the request, such as count it, is not evaluated; the request is taken to pass it. Those of a consumer apply once a policy has authenticated it.",
      ),
    );
  }

  /** What a policy decides. @param {any} one */
  function verdictOf(one) {
    const glyph = (kind) => h("span", { class: "glyph", "data-kind": kind });
    switch (one.verdict) {
      case "passes":
        return [glyph("good"), one.consumer ? `passes, as ${one.consumer}` : "passes"];
      case "answers":
        return [glyph("bad"), `answers ${one.status}${one.message ? `: ${one.message}` : ""}`];
      case "not reached":
        return h("span", { class: "hint" }, "not reached");
      default:
        return h("span", { class: "hint" }, `not evaluated: ${one.reason}`);
    }
  }

  /** What the balancer that serves picks, and what others would. @param {any} card @param {string} upstream @param {any} request @param {AbortSignal} asked */
  async function pickOf(card, upstream, request, asked) {
    const url = `/upstreams/${encodeURIComponent(upstream)}/explain`;
    const own = await call("POST", url, { json: { ...request, count: PICKS }, signal: asked });
    const names = (await all("/balancers", asked))
      .map((one) => one.name)
      .filter((name) => name !== own.balancer.name)
      .sort();
    const others = h("tbody");
    const columns = columnsOf(own.endpoints);
    const table = h(
      "tbody",
      null,
      own.endpoints.map((one) => endpointRow(one, own, columns)),
    );
    const first = own.answers[0] ?? {};
    const chosen =
      first.address ??
      (first.refused ? "refused by the balancer" : (first.fault ?? first.reason ?? "nothing"));
    put(
      card,
      h("h2", null, "Pick"),
      h(
        "p",
        { class: "chosen" },
        h("span", { class: "glyph", "data-kind": first.address ? "good" : "bad" }),
        h("b", null, own.balancer.name),
        ` picks ${chosen}`,
        h(
          "span",
          { class: "hint" },
          `, with the ${own.instance === "restored" ? "memory of the instance that serves" : "memory of a fresh instance"}${own.request.affinity ? `; affinity ${own.request.affinity}` : ""}`,
        ),
      ),
      h("h3", null, `The table that it sees, and its ${own.answers.length} picks for requests like this one`),
      h(
        "div",
        { class: "scroll-x" },
        h(
          "table",
          null,
          heads(
            ["Endpoint", "Labels", ...columns.map(([name]) => name), "Picks", ""],
            (_, index) => index > 1 && index < columns.length + 3,
          ),
          table,
        ),
      ),
      h("h3", null, "What other balancers would pick now"),
      h(
        "table",
        null,
        heads(["Balancer", "First pick", "Spread"]),
        others,
      ),
    );
    for (const name of names) {
      const row = h("tr", null, h("th", { scope: "row" }, name), h("td", { class: "empty" }, "…"), h("td"));
      others.append(row);
      try {
        const answer = await call("POST", url, {
          json: { ...request, balancer: name, entropy: own.answers[0]?.entropy, count: PICKS },
          signal: asked,
        });
        const one = answer.answers[0] ?? {};
        put(
          row,
          h("th", { scope: "row" }, name),
          h("td", null, one.address ?? (one.refused ? "refused" : (one.fault ?? one.reason))),
          h("td", null, spread(answer)),
        );
      } catch (error) {
        if (asked.aborted) return;
        put(
          row,
          h("th", { scope: "row" }, name),
          h(
            "td",
            { class: "hint" },
            error instanceof ApiError ? `cannot be asked: ${error.message}` : String(error),
          ),
          h("td"),
        );
      }
    }
  }

  /** How often each endpoint was picked. @param {any} answer @returns {Map<string, number>} */
  function counts(answer) {
    const found = new Map();
    for (const one of answer.answers)
      if (one.endpoint) found.set(one.endpoint, (found.get(one.endpoint) ?? 0) + 1);
    return found;
  }

  /** @param {any} answer */
  function spread(answer) {
    const found = counts(answer);
    const most = Math.max(1, ...found.values());
    const bars = answer.endpoints.slice(0, 60).map((one) => {
      const bar = h("span");
      bar.style.height = `${Math.round((18 * (found.get(one.id) ?? 0)) / most)}px`;
      attrTitle(bar, `${one.address}: ${percent((found.get(one.id) ?? 0) / answer.answers.length)}`);
      return bar;
    });
    return h(
      "span",
      { class: "spread", role: "img", "aria-label": `${found.size} of ${answer.endpoints.length} endpoints` },
      bars,
    );
  }

  /** @param {any} one @param {any} own @param {Column[]} columns */
  function endpointRow(one, own, columns) {
    const picked = counts(own).get(one.id) ?? 0;
    const bar = h("span", { class: "bar" });
    bar.style.width = `${(100 * picked) / Math.max(1, own.answers.length)}%`;
    const values = [...columns.map(([, shown]) => shown(one)), number(picked)];
    const labels = Object.entries(one.labels).map(([key, value]) => (value ? `${key}:${value}` : key));
    const isFirst = own.answers[0]?.endpoint === one.id;
    return h(
      "tr",
      { class: isFirst ? "picked" : null },
      h("th", { scope: "row" }, one.address),
      h("td", { class: "hint" }, labels.join(", ") || "–"),
      values.map((shown) => h("td", { class: "number figure" }, shown)),
      h("td", null, h("span", { class: "track" }, bar)),
    );
  }

  if (query.has("path")) ask();
  return h(
    "div",
    { class: "screen" },
    h("h1", null, "Explain"),
    h(
      "form",
      { class: "card request-form", on: { submit: ask } },
      field("Method", method),
      field("Host", host),
      field("Path and query", path, true),
      field("Client", client),
      field("Consumer", consumer),
      field("Other headers, one a line", headers, true),
      h("div", { class: "actions" }, h("button", { class: "primary" }, "Explain")),
    ),
    problem,
    result,
  );
}

/** A column of endpoints: its name, and its value of an endpoint as text. @typedef {[string, (one: any) => string]} Column */

/** The columns of a table of endpoints: those that every balancer sees, and of the others those that have a
 * value. @param {any[]} endpoints @returns {Column[]} */
function columnsOf(endpoints) {
  /** @type {(field: string) => (one: any) => string} */
  const count = (field) => (one) => number(one[field]);
  /** @type {(field: string) => (one: any) => string} */
  const time = (field) => (one) => (one[field] ? ms(one[field] / 1000) : "–");
  /** @type {[string, string, (field: string) => (one: any) => string][]} */
  const others = [
    ["Cost in flight", "in_flight_cost", count],
    ["Unanswered", "unanswered", count],
    ["Unanswered cost", "unanswered_cost", count],
    ["First byte", "first_byte_us", time],
    ["Between parts", "chunk_gap_us", time],
    ["Reported load, ‰", "reported_load", count],
    ["Reported queue", "reported_queue", count],
  ];
  const known = others.filter(([, field]) => endpoints.some((one) => one[field]));
  const names = [...new Set(endpoints.flatMap((one) => Object.keys(one.reported)))].sort();
  return [
    ["Weight", count("weight")],
    ["In flight", count("in_flight")],
    ["Latency", time("latency_us")],
    ["Latency at this load", time("latency_at_load_us")],
    ...known.map(([name, field, shown]) => /** @type {Column} */ ([name, shown(field)])),
    ...names.map((name) => /** @type {Column} */ ([name, (one) => number(one.reported[name] ?? null)])),
  ];
}

/** @param {any} node @param {string} title */
function attrTitle(node, title) {
  node.setAttribute("title", title);
}
