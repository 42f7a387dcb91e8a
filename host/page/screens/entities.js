// @ts-check
// Entities of a kind, with search.

import { nameOf } from "../forms/form.js";
import { ApiError, all } from "../lib/api.js";
import { h, put, text } from "../lib/dom.js";
import { clock, short } from "../lib/format.js";
import { KINDS, NESTED_NAMES, TOP, crumbs, hash, kindOf, pathOf, removed } from "../parts/kinds.js";
import { item } from "./entity.js";

/** @param {any} value @param {Map<string, string>} names */
function shown(value, names) {
  if (value === null || value === undefined) return "";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value))
    return value.map((one) => (typeof one === "object" ? JSON.stringify(one) : one)).join(", ");
  if (typeof value === "object")
    return value.id ? (names.get(value.id) ?? short(value.id)) : JSON.stringify(value);
  return String(value);
}

/** The kinds, as a list beside the rows. @param {string} current */
function kinds(current) {
  return h(
    "nav",
    { class: "kinds", "aria-label": "Kinds of entities" },
    TOP.map((kind) =>
      h("a", { href: hash(kind), "aria-current": kind === current ? "page" : null }, KINDS[kind].name),
    ),
  );
}

/** @param {string[]} _rest @param {import("../app.js").Context} context */
export function entities(_rest, context) {
  return entity(["services"], context);
}

/** @param {string[]} rest @param {import("../app.js").Context} context */
export function entity(rest, { signal }) {
  const segments = rest.filter(Boolean);
  const isItem = segments.length % 2 === 0;
  const collection = isItem ? segments.slice(0, -1) : segments;
  const kind = kindOf(collection[collection.length - 1]);
  if (!kind)
    return h(
      "div",
      { class: "screen" },
      h("h1", null, "Entities"),
      h("p", { class: "problem" }, `There are no entities of the kind ${collection.join("/")}.`),
    );
  const content = isItem
    ? item(collection, segments[segments.length - 1], kind, signal)
    : list(collection, kind, signal);
  return h("div", { class: "screen with-kinds" }, kinds(segments[0]), content);
}

/** Where a row is: under its own kind, unless it has no collection of its own. @param {string[]} collection @param {any} row */
function itemHash(collection, row) {
  const last = collection[collection.length - 1];
  const own = NESTED_NAMES[last] ?? last;
  return own === "targets" ? hash(...collection, row.id) : hash(own, row.id);
}

/** @param {string[]} collection @param {any} kind @param {AbortSignal} signal */
function list(collection, kind, signal) {
  const body = h("tbody");
  const count = h("span", { class: "hint", role: "status" });
  const search = h("input", { type: "search", placeholder: "Search", "aria-label": `Search ${kind.name}` });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const names = new Map();
  let rows = [];
  let last = [];

  function draw() {
    const wanted = search.value.toLowerCase();
    last = wanted ? rows.filter((row) => JSON.stringify(row).toLowerCase().includes(wanted)) : rows;
    put(
      body,
      last.slice(0, 500).map((row) =>
        h(
          "tr",
          null,
          kind.columns.map((column, index) => {
            const value = shown(row[column], names);
            if (index === 0)
              return h(
                "th",
                { scope: "row" },
                h(
                  "a",
                  { href: itemHash(collection, row) },
                  column === "id" ? short(row.id) : value || short(row.id),
                ),
              );
            return h("td", { title: value }, value);
          }),
          h("td", { class: "number" }, clock(row.updated_at ?? row.created_at)),
          h(
            "td",
            { class: "number" },
            h(
              "button",
              {
                type: "button",
                class: "icon",
                "aria-label": `Delete ${nameOf(row)}`,
                title: "Delete",
                on: { click: () => remove(row) },
              },
              "×",
            ),
          ),
        ),
      ),
    );
    text(
      count,
      last.length === rows.length
        ? `${rows.length}`
        : `${last.length} of ${rows.length}${last.length > 500 ? ", the first 500 shown" : ""}`,
    );
    none.hidden = last.length > 0;
  }

  async function read() {
    try {
      rows = await all(pathOf(collection), signal, 20000);
      problem.hidden = true;
      draw();
      await readNames();
      draw();
    } catch (error) {
      if (signal.aborted) return;
      text(problem, error instanceof ApiError ? error.message : `The gateway cannot be reached: ${error}`);
      problem.hidden = false;
    }
  }

  async function readNames() {
    for (const [field, path] of [
      ["service", "/services"],
      ["route", "/routes"],
      ["consumer", "/consumers"],
      ["set", "/key-sets"],
    ]) {
      if (!rows.some((row) => row[field]?.id && !names.has(row[field].id))) continue;
      for (const one of await all(path, signal, 20000)) names.set(one.id, String(nameOf(one)));
    }
  }

  async function remove(row) {
    if (await removed(pathOf(collection), kind, row, read)) await read();
  }

  const none = h(
    "p",
    { class: "empty", hidden: true },
    "None. ",
    h("a", { href: hash(...collection, "+") }, "Create one"),
    ".",
  );
  search.addEventListener("input", draw);
  read();
  return h(
    "section",
    { class: "card" },
    h(
      "div",
      { class: "title" },
      h("h1", null, crumbs(collection), kind.name),
      count,
      search,
      h("a", { class: "button primary-link", href: hash(...collection, "+") }, `New ${kind.one}`),
    ),
    problem,
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
            kind.columns.map((column) => h("th", { scope: "col" }, column)),
            h("th", { scope: "col", class: "number" }, "changed"),
            h("th", { class: "number" }, h("span", { class: "hidden" }, "Delete")),
          ),
        ),
        body,
      ),
    ),
    none,
  );
}
