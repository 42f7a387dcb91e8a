// @ts-check
// Entities: read, create, change, delete, with forms from the declarations.

import { FieldError, form, nameOf } from "../forms/form.js";
import { ofJsonSchema, ofKong } from "../forms/fields.js";
import { ApiError, all, call, get, getTagged } from "../lib/api.js";
import { confirm, dialog, notice } from "../lib/dialog.js";
import { h, put, text } from "../lib/dom.js";
import { clock, short } from "../lib/format.js";
import { changed, restore } from "../lib/history.js";

/**
 * The kinds, by the segment of a path that names them.
 * @type {Record<string, { name: string, one: string, schema: string, columns: string[], nested?: string[], openapi?: string }>}
 */
const KINDS = {
  services: { name: "Services", one: "service", schema: "services", openapi: "Service", columns: ["name", "protocol", "host", "port", "path", "enabled"], nested: ["routes", "plugins"] },
  routes: { name: "Routes", one: "route", schema: "routes", openapi: "Route", columns: ["name", "hosts", "paths", "methods", "service"], nested: ["plugins"] },
  upstreams: { name: "Upstreams", one: "upstream", schema: "upstreams", openapi: "Upstream", columns: ["name", "algorithm", "hash_on", "tags"], nested: ["targets"] },
  targets: { name: "Targets", one: "target", schema: "targets", openapi: "Target", columns: ["target", "weight", "tags"] },
  consumers: { name: "Consumers", one: "consumer", schema: "consumers", columns: ["username", "custom_id", "tags"], nested: ["key-auth", "basic-auth", "jwt", "acls", "plugins"] },
  plugins: { name: "Plugins", one: "plugin", schema: "plugins", columns: ["name", "enabled", "service", "route", "consumer"] },
  certificates: { name: "Certificates", one: "certificate", schema: "certificates", columns: ["id", "snis", "tags"], nested: ["snis"] },
  snis: { name: "SNIs", one: "SNI", schema: "snis", columns: ["name", "certificate"] },
  ca_certificates: { name: "CA certificates", one: "CA certificate", schema: "ca_certificates", columns: ["id", "cert_digest", "tags"] },
  vaults: { name: "Vaults", one: "vault", schema: "vaults", columns: ["prefix", "name", "description"] },
  "key-sets": { name: "Key sets", one: "key set", schema: "key_sets", columns: ["name", "tags"], nested: ["keys"] },
  keys: { name: "Keys", one: "key", schema: "keys", columns: ["name", "kid", "set"] },
  "key-auths": { name: "API keys", one: "API key", schema: "keyauth_credentials", columns: ["key", "consumer", "tags"] },
  "basic-auths": { name: "Passwords", one: "password", schema: "basicauth_credentials", columns: ["username", "consumer", "tags"] },
  jwts: { name: "JWT credentials", one: "JWT credential", schema: "jwt_secrets", columns: ["key", "algorithm", "consumer"] },
  acls: { name: "Groups", one: "group", schema: "acls", columns: ["group", "consumer", "tags"] },
};
const NESTED_NAMES = { "key-auth": "key-auths", "basic-auth": "basic-auths", jwt: "jwts" };
const TOP = Object.keys(KINDS).filter((kind) => kind !== "targets");

/** @param {string} segment */
const kindOf = (segment) => KINDS[NESTED_NAMES[segment] ?? segment];

/** @param {string[]} segments */
const hash = (...segments) => `#/entities/${segments.map(encodeURIComponent).join("/")}`;

/** @param {any} value @param {Map<string, string>} names */
function shown(value, names) {
  if (value === null || value === undefined) return "";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.map((one) => (typeof one === "object" ? JSON.stringify(one) : one)).join(", ");
  if (typeof value === "object") return value.id ? (names.get(value.id) ?? short(value.id)) : JSON.stringify(value);
  return String(value);
}

/** The kinds, as a list beside the rows. @param {string} current */
function kinds(current) {
  return h("nav", { class: "kinds", "aria-label": "Kinds of entities" }, TOP.map((kind) => h("a", { href: hash(kind), "aria-current": kind === current ? "page" : null }, KINDS[kind].name)));
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
  if (!kind) return h("div", { class: "screen" }, h("h1", null, "Entities"), h("p", { class: "problem" }, `There are no entities of the kind ${collection.join("/")}.`));
  const content = isItem ? item(collection, segments[segments.length - 1], kind, signal) : list(collection, kind, signal);
  return h("div", { class: "screen with-kinds" }, kinds(segments[0]), content);
}

/** @param {string[]} collection */
const pathOf = (collection) => `/${collection.map(encodeURIComponent).join("/")}`;

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
            if (index === 0) return h("th", { scope: "row" }, h("a", { href: itemHash(collection, row) }, column === "id" ? short(row.id) : value || short(row.id)));
            return h("td", { title: value }, value);
          }),
          h("td", { class: "number" }, clock(row.updated_at ?? row.created_at)),
          h("td", { class: "number" }, h("button", { type: "button", class: "icon", "aria-label": `Delete ${nameOf(row)}`, title: "Delete", on: { click: () => remove(row) } }, "×")),
        ),
      ),
    );
    text(count, last.length === rows.length ? `${rows.length}` : `${last.length} of ${rows.length}${last.length > 500 ? ", the first 500 shown" : ""}`);
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
    for (const [field, path] of [["service", "/services"], ["route", "/routes"], ["consumer", "/consumers"], ["set", "/key-sets"]]) {
      if (!rows.some((row) => row[field]?.id && !names.has(row[field].id))) continue;
      for (const one of await all(path, signal, 20000)) names.set(one.id, String(nameOf(one)));
    }
  }

  async function remove(row) {
    if (await removed(pathOf(collection), kind, row, read)) await read();
  }

  const none = h("p", { class: "empty", hidden: true }, "None. ", h("a", { href: hash(...collection, "+") }, "Create one"), ".");
  search.addEventListener("input", draw);
  read();
  return h(
    "section",
    { class: "card" },
    h("div", { class: "title" }, h("h1", null, crumbs(collection), kind.name), count, search, h("a", { class: "button primary-link", href: hash(...collection, "+") }, `New ${kind.one}`)),
    problem,
    h("div", { class: "scroll-x" }, h("table", null, h("thead", null, h("tr", null, kind.columns.map((column) => h("th", { scope: "col" }, column)), h("th", { scope: "col", class: "number" }, "changed"), h("th", { class: "number" }, h("span", { class: "hidden" }, "Delete")))), body)),
    none,
  );
}

/** The rows above a nested collection. @param {string[]} collection */
function crumbs(collection) {
  if (collection.length < 2) return null;
  const [first, key] = collection;
  return [h("a", { href: hash(first) }, KINDS[first]?.name ?? first), " / ", h("a", { href: hash(first, key) }, key.length === 36 ? short(key) : key), " / "];
}

/** Deletes a row after a question; returns whether it was. @param {string} path @param {any} kind @param {any} row @param {() => void} then */
async function removed(path, kind, row, then) {
  const name = nameOf(row);
  if (!(await confirm(`The ${kind.one} ${name} is deleted, and takes effect at once.`, "Delete"))) return false;
  const own = `${path}/${encodeURIComponent(row.id)}`;
  try {
    await call("DELETE", own);
    changed(`The ${kind.one} ${name} is deleted.`, () => restore(own, row), then);
    return true;
  } catch (error) {
    notice(error instanceof ApiError ? error.message : String(error), { bad: true });
    return false;
  }
}

/** The fields of a kind: those of Kong's schema, and what is beyond Kong. @param {any} kind @param {any} row @param {AbortSignal} signal */
async function fieldsOf(kind, row, signal) {
  const fields = ofKong(await get(`/schemas/${kind.schema}`, signal));
  if (kind.openapi && !fields.some((field) => field.name === "pointsman")) {
    const document = await get("/openapi.json", signal);
    const extra = document.components?.schemas?.[kind.openapi]?.properties ?? {};
    const beyond = Object.entries(extra).filter(([name]) => !fields.some((field) => field.name === name));
    fields.push(...ofJsonSchema({ properties: Object.fromEntries(beyond) }));
  }
  if ((kind.schema === "plugins" || kind.schema === "vaults") && row?.name) {
    const own = ofKong(await get(`/schemas/${kind.schema}/${encodeURIComponent(row.name)}`, signal));
    const config = own.find((field) => field.name === "config");
    const index = fields.findIndex((field) => field.name === "config");
    if (config && index >= 0) fields[index] = config;
  }
  return fields;
}

/** @param {string[]} collection @param {string} key @param {any} kind @param {AbortSignal} signal */
function item(collection, key, kind, signal) {
  const isNew = key === "+";
  const path = pathOf(collection);
  const own = `${path}/${encodeURIComponent(key)}`;
  const title = h("h1", null, crumbs(collection.length > 1 ? collection : []), isNew ? `New ${kind.one}` : key.length === 36 ? short(key) : key);
  const content = h("div", null, h("p", { class: "empty" }, "Reading …"));
  let before = null;
  let etag = "";

  async function read() {
    try {
      before = isNew ? await prefilled() : await readRow();
      if (before === null) return;
      const fields = await fieldsOf(kind, before, signal);
      draw(fields);
    } catch (error) {
      if (signal.aborted) return;
      put(content, h("p", { class: "problem", role: "alert" }, error instanceof ApiError ? (error.status === 404 ? `There is no ${kind.one} ${key}.` : error.message) : String(error)));
    }
  }

  /** The row with its tag, so that the change of another client is not undone. */
  async function readRow() {
    const found = await getTagged(own, signal);
    etag = found.etag;
    return found.body;
  }

  /** A plugin's fields depend on its name, so that is asked first. */
  async function prefilled() {
    if (kind.schema !== "plugins") return {};
    const enabled = (await get("/plugins/enabled", signal)).enabled_plugins;
    const chosen = await chooseName([...enabled].sort());
    if (!chosen) {
      history.back();
      return null;
    }
    return { name: chosen };
  }

  /** @param {any[]} fields */
  function draw(fields) {
    if (!isNew) {
      const name = String(nameOf(before));
      put(title, crumbs(collection.length > 1 ? collection : []), name.length === 36 ? short(name) : name);
    }
    const made = form(fields, before);
    const save = h("button", { class: "primary" }, isNew ? "Create" : "Save");
    const submit = async (event) => {
      event.preventDefault();
      made.fail({});
      try {
        const input = made.read();
        save.disabled = true;
        await (isNew ? create(input) : update(input));
      } catch (error) {
        if (error instanceof ApiError) made.fail(error.fields, error.message);
        else if (!(error instanceof FieldError)) made.fail({}, `The gateway cannot be reached: ${error}`);
      } finally {
        save.disabled = false;
      }
    };
    const node = h(
      "form",
      { novalidate: true, on: { submit } },
      made.node,
      h(
        "div",
        { class: "actions left" },
        save,
        h("a", { class: "button", href: hash(...collection) }, "Cancel"),
        !isNew && h("button", { type: "button", on: { click: () => dialog("As JSON", () => h("pre", { class: "json", tabindex: "0" }, JSON.stringify(before, null, 2)), { wide: true }) } }, "As JSON"),
        !isNew && h("button", { type: "button", class: "danger", on: { click: drop } }, "Delete"),
      ),
    );
    const nested = isNew ? [] : (kind.nested ?? []);
    put(
      content,
      isNew ? null : h("p", { class: "hint" }, `id ${before.id}; created ${clock(before.created_at)}${before.updated_at ? `; changed ${clock(before.updated_at)}` : ""}`),
      nested.length > 0 && h("p", { class: "beside" }, nested.map((one) => h("a", { class: "button", href: hash(collection[0], before.id, one) }, kindOf(one).name)), collection[0] === "upstreams" && h("a", { class: "button", href: `#/upstreams/${encodeURIComponent(before.name)}` }, "Picture")),
      node,
    );
  }

  /** @param {any} input */
  async function create(input) {
    const row = await call("POST", path, { json: input });
    changed(`The ${kind.one} ${nameOf(row)} is created.`, () => call("DELETE", `${path}/${encodeURIComponent(row.id)}`), () => (location.hash = hash(...collection)));
    location.hash = hash(...collection);
  }

  /** Sends what differs. @param {any} input */
  async function update(input) {
    const changes = Object.fromEntries(Object.entries(input).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(before[name] ?? null) && !(value === null && before[name] === undefined)));
    if (Object.keys(changes).length === 0) {
      notice("Nothing is changed.");
      return;
    }
    const old = before;
    before = await call("PATCH", own, { json: changes, headers: etag ? { "If-Match": etag } : undefined });
    changed(`The ${kind.one} ${nameOf(before)} is changed.`, () => restore(own, old), read);
    await read();
  }

  async function drop() {
    if (await removed(path, kind, before, () => (location.hash = hash(...collection)))) location.hash = hash(...collection);
  }

  read();
  return h("section", { class: "card" }, h("div", { class: "title" }, title), content);
}

/** @param {string[]} names @returns {Promise<string>} */
async function chooseName(names) {
  let chosen = "";
  await dialog("New plugin", (close) => {
    const choose = (name) => {
      chosen = name;
      close();
    };
    return h("div", { class: "names" }, names.map((name) => h("button", { type: "button", on: { click: () => choose(name) } }, name)));
  });
  return chosen;
}
