// @ts-check
// Overview: the gateway as a whole, live.

import { chart, spark } from "../charts/line.js";
import { all, find, follow } from "../lib/api.js";
import { attr, h, rowsOf, text } from "../lib/dom.js";
import { ago, bytes, clock, ms, number, short, statusClass } from "../lib/format.js";

/** Requests that are listed, the newest first. */
const LISTED = 14;

/** A figure with its name. @param {string} name */
function figure(name) {
  const value = h("dd", { class: "figure" }, "–");
  return { node: h("div", null, h("dt", null, name), value), value };
}

/** A table that is updated in place. @param {string} title @param {[string, boolean][]} columns the name, and whether it is a number @param {string} empty @param {string} [name] a class, by which columns are left out on a phone */
function live(title, columns, empty, name = "") {
  const body = h("tbody");
  // Nothing is said of the rows before they are known.
  const none = h("p", { class: "empty pending" }, empty);
  const node = h(
    "section",
    { class: `card ${name}` },
    h("h2", null, title),
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
            columns.map(([name, numeric]) =>
              h("th", { scope: "col", class: numeric ? "number" : null }, name),
            ),
          ),
        ),
        body,
      ),
    ),
    none,
  );
  return { node, body, rows: new Map(), none };
}

/** The cells that all figures of traffic have. */
function trafficCells() {
  const [rate, errors, p50, p99] = [0, 0, 0, 0].map(() => h("td", { class: "number figure" }));
  const line = spark(60, "requests");
  return {
    cells: [rate, errors, p50, p99, h("td", { class: "history" }, line.node)],
    /** @param {any} now */
    update(now) {
      text(rate, number(now.rate));
      text(errors, now.errors ? number(now.errors) : "0");
      attr(errors, "data-kind", now.errors ? "bad" : null);
      text(p50, ms(now.p50));
      text(p99, ms(now.p99));
      line.push(now.rate);
    },
  };
}

/** @param {string[]} _rest @param {import("../app.js").Context} context */
export function overview(_rest, { signal, state }) {
  const top = ["Requests/s", "Errors/s", "p50", "p99", "Connections", "Memory", "Revision"].map(figure);
  const traffic = chart(
    "Requests/s",
    [
      { name: "requests", label: "all" },
      { name: "bad", label: "errors" },
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
  /** @type {[string, boolean][]} */
  const numbers = [
    ["Requests/s", true],
    ["Errors/s", true],
    ["p50", true],
    ["p99", true],
    ["Last minute", false],
  ];
  const routes = live(
    "Routes",
    [["Route", false], ["Service", false], ...numbers],
    "No request yet since this page was opened.",
    "t-routes",
  );
  const upstreams = live(
    "Upstreams",
    [["Upstream", false], ["Balancer", false], ["Available", true], ["In flight", true], ...numbers],
    "There is no upstream.",
    "t-upstreams",
  );
  const streams = live(
    "Streams",
    [
      ["Route", false],
      ["Ended/s", true],
      ["Failed/s", true],
      ["p50", true],
      ["p99", true],
      ["Last minute", false],
    ],
    "None has ended since this page was opened.",
    "t-streams",
  );
  const openStreams = h("p", { class: "hint figure" });
  streams.node.firstChild?.after(openStreams);
  // A gateway without streams shows nothing of them.
  streams.node.hidden = true;
  const requests = live(
    "Requests and streams, some of them",
    [
      ["", true],
      ["Request", false],
      ["Route", false],
      ["Client", false],
      ["Took", true],
      ["", false],
    ],
    "None in the last seconds.",
    "t-requests",
  );
  const nodes = live(
    "Gateways",
    [
      ["Gateway", false],
      ["Version", false],
      ["Revision", true],
    ],
    "",
  );
  const changes = live(
    "Last changes at this gateway",
    [
      ["When", false],
      ["What", false],
      ["By", false],
    ],
    "None since this gateway was started.",
  );
  /** Known routes, and those that had requests. @type {Map<string, any>} */
  const names = new Map();
  const seen = new Map();
  const seenStreams = new Map();
  const latest = [];
  let counter = 0;
  let asked = 0;

  async function readNames() {
    asked = Date.now();
    const [found, services] = await Promise.all([
      all("/routes", signal, 2000),
      all("/services", signal, 2000),
    ]);
    const service = new Map(services.map((one) => [one.id, one.name ?? one.host]));
    for (const route of found) {
      names.set(route.id, {
        name: route.name ?? (route.paths ?? route.hosts ?? [short(route.id)]).join(", "),
        service: service.get(route.service?.id) ?? "",
      });
    }
  }

  /** @param {string | null} id */
  const nameOf = (id) => (id === null ? "no route" : (names.get(id)?.name ?? short(id)));

  const routeRow = (first) => {
    const [name, service] = [h("a", { href: "#/explain" }), h("td")];
    const cells = trafficCells();
    return {
      node: h(
        "tr",
        null,
        h("th", { scope: "row" }, first.id === null ? "no route" : name),
        service,
        cells.cells,
      ),
      update(now) {
        text(name, nameOf(now.id));
        attr(name, "href", `#/entities/routes/${encodeURIComponent(now.id)}`);
        text(service, names.get(now.id)?.service);
        cells.update(now);
      },
    };
  };

  const streamRow = (first) => {
    const name = h("a", { href: "#/entities/routes" });
    const cells = trafficCells();
    return {
      node: h("tr", null, h("th", { scope: "row" }, first.id === null ? "no route" : name), cells.cells),
      update(now) {
        text(name, nameOf(now.id));
        attr(name, "href", `#/entities/routes/${encodeURIComponent(now.id)}`);
        cells.update(now);
      },
    };
  };

  /** What a stream has passed. @param {any} one */
  const streamText = (one) =>
    `${one.transport.toUpperCase()} to port ${one.port}: ${bytes(one.received)} in, ${bytes(one.sent)} out`;

  const upstreamRow = (first) => {
    const name = h("a", { href: `#/upstreams/${encodeURIComponent(first.name)}` }, first.name);
    const glyph = h("span", { class: "glyph" });
    const [balancer, available, inFlight] = [
      h("td"),
      h("td", { class: "number figure" }),
      h("td", { class: "number figure" }),
    ];
    const cells = trafficCells();
    return {
      node: h("tr", null, h("th", { scope: "row" }, glyph, name), balancer, available, inFlight, cells.cells),
      update(now) {
        const kind = !now.healthy
          ? "bad"
          : now.available < now.addresses || now.quarantine !== null
            ? "warn"
            : "good";
        attr(glyph, "data-kind", kind);
        attr(
          glyph,
          "title",
          {
            good: "healthy",
            warn: "some targets are out, or its balancer is in quarantine",
            bad: "unhealthy",
          }[kind],
        );
        text(balancer, now.quarantine !== null ? `${now.balancer} (quarantine)` : now.balancer);
        text(available, `${now.available} / ${now.addresses}`);
        text(inFlight, number(now.in_flight));
        cells.update(now);
      },
    };
  };

  const requestRow = (first) => {
    const took = ms(first.ms);
    if (first.transport) {
      const node = h(
        "tr",
        null,
        h("td", { class: "number figure", "data-kind": statusClass(first.status) }, first.status),
        h("th", { scope: "row", class: "request" }, streamText(first)),
        h("td", null, nameOf(first.route)),
        h("td", { class: "figure" }, first.client),
        h("td", { class: "number figure" }, took),
        h("td"),
      );
      return { node, update() {} };
    }
    const query = new URLSearchParams({
      method: first.method,
      host: first.host,
      path: first.path,
      client: first.client,
    });
    const node = h(
      "tr",
      null,
      h("td", { class: "number figure", "data-kind": statusClass(first.status) }, first.status),
      h("th", { scope: "row", class: "request" }, `${first.method} ${first.host}${first.path}`),
      h("td", null, nameOf(first.route)),
      h("td", { class: "figure" }, first.client),
      h("td", { class: "number figure" }, took),
      h(
        "td",
        null,
        h(
          "a",
          { href: `#/explain?${query}`, "aria-label": `Explain ${first.method} ${first.path}` },
          "Explain",
        ),
      ),
    );
    return { node, update() {} };
  };

  const nodeRow = () => {
    const [name, version, revision] = [
      h("th", { scope: "row" }),
      h("td"),
      h("td", { class: "number figure" }),
    ];
    return {
      node: h("tr", null, name, version, revision),
      update(now) {
        text(name, `${now.hostname}${now.own ? " (this one)" : ""}`);
        attr(name, "title", now.id);
        text(version, now.version);
        text(revision, now.behind > 0 ? `${now.revision} (${now.behind} behind)` : now.revision);
        attr(revision, "data-kind", now.behind > 0 ? "warn" : null);
      },
    };
  };

  const changeRow = (first) => {
    const when = h("td", { title: clock(first.at) });
    const node = h(
      "tr",
      null,
      when,
      h("th", { scope: "row" }, first.what),
      h("td", null, first.by ?? "no token"),
    );
    return { node, update: () => text(when, ago(first.at)) };
  };

  let others = [];
  async function readNodes() {
    const found = await find("/clustering/data-planes", signal);
    others = found?.data ?? [];
  }

  /** The routes that had requests or streams, by their names. @param {Map<any, number>} seen @param {any[]} present */
  function withIdle(seen, present) {
    for (const route of present) seen.set(route.id, 0);
    const current = new Map(present.map((route) => [route.id, route]));
    const shown = [];
    for (const [id, idle] of seen) {
      // A route without any for two minutes is no longer listed.
      if (idle > 120) seen.delete(id);
      else {
        seen.set(id, current.has(id) ? 0 : idle + 1);
        shown.push(current.get(id) ?? { id, rate: 0, errors: 0, p50: null, p99: null });
      }
    }
    shown.sort((one, other) => nameOf(one.id).localeCompare(nameOf(other.id)));
    const unknown = shown.some((route) => route.id !== null && !names.has(route.id));
    if (unknown && Date.now() - asked > 5000) readNames().catch(() => {});
    return shown;
  }

  /** @param {any} now */
  function figures(now) {
    for (const table of [routes, upstreams, requests, changes, streams]) table.none.classList.remove("pending");
    const { rate, errors, p50, p99 } = now.all;
    const values = [
      number(rate),
      number(errors),
      ms(p50),
      ms(p99),
      number(now.connections),
      bytes(now.memory),
      now.revision,
    ];
    top.forEach((one, index) => text(one.value, values[index]));
    attr(top[1].value, "data-kind", errors > 0 ? "bad" : null);
    text(failure, now.store.failure ? `Changes cannot be stored: ${now.store.failure}` : "");
    failure.hidden = !now.store.failure;
    traffic.push([rate, errors]);
    latency.push([p50, p99]);

    const shown = withIdle(seen, now.routes);
    rowsOf(routes.body, shown.slice(0, 100), (route) => String(route.id), routeRow, routes.rows);
    routes.none.hidden = shown.length > 0;

    const ended = withIdle(seenStreams, now.streams.routes);
    rowsOf(streams.body, ended.slice(0, 100), (route) => String(route.id), streamRow, streams.rows);
    streams.none.hidden = ended.length > 0;
    if (ended.length > 0 || now.streams.active > 0) streams.node.hidden = false;
    text(
      openStreams,
      `${number(now.streams.active)} open; ${bytes(now.streams.received)}/s in, ${bytes(now.streams.sent)}/s out`,
    );

    const busy =
      now.upstreams.length > 100
        ? now.upstreams.filter((one) => one.rate > 0 || !one.healthy).slice(0, 100)
        : now.upstreams;
    rowsOf(upstreams.body, busy, (one) => one.id, upstreamRow, upstreams.rows);
    upstreams.none.hidden = busy.length > 0;

    for (const sample of [...now.samples.slice(-4), ...now.streams.samples.slice(-2)])
      latest.unshift({ ...sample, key: String((counter += 1)) });
    latest.length = Math.min(latest.length, LISTED);
    rowsOf(requests.body, latest, (one) => one.key, requestRow, requests.rows);
    requests.none.hidden = latest.length > 0;

    const own = {
      id: now.node.id,
      hostname: now.node.hostname,
      version: now.node.version,
      revision: now.revision,
      own: true,
    };
    const rest = others
      .filter((one) => one.id !== own.id)
      .map((one) => ({ ...one, revision: one.pointsman?.revision }));
    const most = Math.max(now.revision ?? 0, ...rest.map((one) => one.revision ?? 0));
    rowsOf(
      nodes.body,
      [own, ...rest].map((one) => ({ ...one, behind: most - (one.revision ?? most) })),
      (one) => one.id,
      nodeRow,
      nodes.rows,
    );
    nodes.none.hidden = true;

    const recent = now.changes.slice(-8).reverse();
    rowsOf(changes.body, recent, (one) => `${one.at} ${one.what}`, changeRow, changes.rows);
    changes.none.hidden = recent.length > 0;
  }

  const failure = h("p", { class: "problem", role: "alert", hidden: true });
  readNames().catch(() => {});
  readNodes().catch(() => {});
  const timer = setInterval(() => !document.hidden && readNodes().catch(() => {}), 5000);
  signal.addEventListener("abort", () => clearInterval(timer));
  follow("/pointsman/live", figures, state, signal);
  return h(
    "div",
    { class: "screen" },
    h("h1", null, "Overview"),
    failure,
    h(
      "dl",
      { class: "figures" },
      top.map((one) => one.node),
    ),
    h("div", { class: "charts" }, traffic.node, latency.node),
    upstreams.node,
    routes.node,
    streams.node,
    h("div", { class: "columns" }, requests.node, h("div", null, nodes.node, changes.node)),
  );
}
