// @ts-check
// An entity: its form, to create, change and delete it.

import { ofJsonSchema, ofKong } from "../forms/fields.js";
import { FieldError, form, nameOf } from "../forms/form.js";
import { said } from "../lib/actions.js";
import { ApiError, call, callTagged, get, getTagged } from "../lib/api.js";
import { dialog, notice } from "../lib/dialog.js";
import { h, put } from "../lib/dom.js";
import { clock, short } from "../lib/format.js";
import { changed, differing, ifMatch } from "../lib/history.js";
import { crumbs, hash, kindOf, pathOf, removed } from "../parts/kinds.js";

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
export function item(collection, key, kind, signal) {
  const isNew = key === "+";
  const path = pathOf(collection);
  const own = `${path}/${encodeURIComponent(key)}`;
  const title = h(
    "h1",
    null,
    crumbs(collection.length > 1 ? collection : []),
    isNew ? `New ${kind.one}` : key.length === 36 ? short(key) : key,
  );
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
      put(
        content,
        h(
          "p",
          { class: "problem", role: "alert" },
          error instanceof ApiError
            ? error.status === 404
              ? `There is no ${kind.one} ${key}.`
              : error.message
            : String(error),
        ),
      );
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
      // Unless the dialog was closed by leaving this screen.
      if (!signal.aborted) history.back();
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
        await (isNew ? create(input) : update(fields, input));
      } catch (error) {
        if (error instanceof ApiError && error.status === 404) made.fail({}, "It does not exist any more.");
        else if (error instanceof ApiError && error.status === 412) made.fail({}, said(error));
        else if (error instanceof ApiError) made.fail(error.fields, error.message);
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
        !isNew &&
          h(
            "button",
            {
              type: "button",
              on: {
                click: () =>
                  dialog(
                    "As JSON",
                    () => h("pre", { class: "json", tabindex: "0" }, JSON.stringify(before, null, 2)),
                    { wide: true },
                  ),
              },
            },
            "As JSON",
          ),
        !isNew && h("button", { type: "button", class: "danger", on: { click: drop } }, "Delete"),
      ),
    );
    const nested = isNew ? [] : (kind.nested ?? []);
    put(
      content,
      isNew
        ? null
        : h(
            "p",
            { class: "hint" },
            `id ${before.id}; created ${clock(before.created_at)}${before.updated_at ? `; changed ${clock(before.updated_at)}` : ""}`,
          ),
      nested.length > 0 &&
        h(
          "p",
          { class: "beside" },
          nested.map((one) =>
            h("a", { class: "button", href: hash(collection[0], before.id, one) }, kindOf(one).name),
          ),
          collection[0] === "upstreams" &&
            h("a", { class: "button", href: `#/upstreams/${encodeURIComponent(before.name)}` }, "Picture"),
        ),
      node,
    );
  }

  /** @param {any} input */
  async function create(input) {
    const made = await callTagged("POST", path, { json: input });
    const row = made.body;
    changed(
      `The ${kind.one} ${nameOf(row)} is created.`,
      () => call("DELETE", `${path}/${encodeURIComponent(row.id)}`, { headers: ifMatch(made.etag) }),
      () => (location.hash = hash(...collection)),
    );
    location.hash = hash(...collection);
  }

  /** Sends what differs. @param {any[]} fields @param {any} input */
  async function update(fields, input) {
    const changes = differing(fields, before, input);
    if (Object.keys(changes).length === 0) {
      notice("Nothing is changed.");
      return;
    }
    const old = before;
    const written = await callTagged("PATCH", own, { json: changes, headers: ifMatch(etag) });
    before = written.body;
    const done = `The ${kind.one} ${nameOf(before)} is changed.`;
    const headers = ifMatch(written.etag);
    if (kind.hashed && kind.hashed in changes) {
      notice(`${done} It cannot be taken back: the gateway had only a hash of the old ${kind.hashed}.`);
    } else if (kind.hashed) {
      const names = Object.keys(changes);
      const json = Object.fromEntries(names.map((name) => [name, old[name] ?? null]));
      changed(done, () => call("PATCH", own, { json, headers }), read);
    } else {
      // The whole row, since a PATCH merges records. The tag holds, so nothing else has changed.
      changed(done, () => call("PUT", own, { json: old, headers }), read);
    }
    await read();
  }

  async function drop() {
    if (await removed(path, kind, before, () => (location.hash = hash(...collection))))
      location.hash = hash(...collection);
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
    return h(
      "div",
      { class: "names" },
      names.map((name) => h("button", { type: "button", on: { click: () => choose(name) } }, name)),
    );
  });
  return chosen;
}
