// @ts-check
// A form made from fields. Errors of the Admin API stand beside the fields that they are about.

import { all } from "../lib/api.js";
import { attr, h, newId, put, text } from "../lib/dom.js";

/** @typedef {import("./fields.js").Field} Field */
/** @typedef {{ node: any, read: () => any, fail: (error: any) => void }} Control */

/** A wrong text in a field, found before it is sent. */
export class FieldError extends Error {}

/**
 * @param {Field[]} fields
 * @param {any} value
 * @param {boolean} [nested]
 */
export function form(fields, value, nested = false) {
  const shown = fields.filter((field) => !field.automatic);
  const controls = shown.map((field) => ({ field, control: labelled(field, value?.[field.name]) }));
  const rest = h("p", { class: "problem", role: "alert", hidden: true });
  return {
    node: h(
      "div",
      { class: nested ? "fields nested" : "fields" },
      nested ? null : rest,
      controls.map(({ control }) => control.node),
    ),
    /** The value; fields without one are left out. */
    read() {
      const result = {};
      let wrong = null;
      for (const { field, control } of controls) {
        try {
          const own = control.read();
          if (own !== undefined) result[field.name] = own;
        } catch (error) {
          if (!(error instanceof FieldError)) throw error;
          control.fail(error.message);
          wrong ??= error;
        }
      }
      if (wrong) throw wrong;
      return result;
    },
    /** Shows errors, by field. @param {any} errors @param {string} [message] what is shown if no field has an error */
    fail(errors, message) {
      const left = { ...(errors && typeof errors === "object" ? errors : {}) };
      for (const { field, control } of controls) {
        control.fail(left[field.name]);
        delete left[field.name];
      }
      const others = Object.entries(left).map(([name, error]) =>
        name === "@entity" ? words(error) : `${name}: ${words(error)}`,
      );
      const said =
        others.length > 0 ? others.join("; ") : Object.keys(errors ?? {}).length === 0 ? (message ?? "") : "";
      text(rest, said);
      rest.hidden = said === "";
      const first = controls.find(({ field }) => errors?.[field.name]);
      /** @type {HTMLElement | null} */ (
        first?.control.node.querySelector("input, select, textarea")
      )?.focus();
    },
  };
}

/** An error as a sentence. @param {any} error @returns {string} */
function words(error) {
  if (error === null || error === undefined) return "";
  if (typeof error === "string") return error;
  if (Array.isArray(error)) return error.map(words).filter(Boolean).join("; ");
  return Object.entries(error)
    .map(([name, one]) => `${name}: ${words(one)}`)
    .join("; ");
}

/** @param {Field} field @param {any} value @returns {Control} */
function labelled(field, value) {
  if (field.type === "record" && field.fields) return record(field, value);
  const id = newId("field");
  const [hintId, errorId] = [`${id}-hint`, `${id}-error`];
  const { input, read, list } = control(field, value);
  input.id = id;
  attr(input, "name", field.name);
  const about = hint(field);
  const error = h("p", { class: "error", id: errorId, hidden: true });
  attr(input, "aria-describedby", about ? `${hintId} ${errorId}` : errorId);
  if (field.required) attr(input, "aria-required", "true");
  const node = h(
    "div",
    { class: "field" },
    h(
      "label",
      { for: id },
      field.name,
      field.required && field.default === undefined
        ? h("span", { class: "required", title: "required" }, " *")
        : null,
    ),
    h("div", null, input, list, about && h("p", { class: "hint", id: hintId }, about), error),
  );
  return {
    node,
    read,
    fail(wrong) {
      const said = words(wrong);
      text(error, said);
      error.hidden = said === "";
      attr(input, "aria-invalid", said ? "true" : null);
    },
  };
}

/** @param {Field} field */
function hint(field) {
  const parts = [];
  if (field.about) parts.push(field.about);
  if (field.range) parts.push(`${field.range[0]} to ${field.range[1]}`);
  if (field.type === "list")
    parts.push(field.element?.choices ? `of ${field.element.choices.join(", ")}; one a line` : "one a line");
  if (["map", "any"].includes(field.type) || (field.type === "list" && field.element?.type === "record"))
    parts.push("as JSON");
  if (field.default !== undefined && field.default !== null)
    parts.push(
      `default ${typeof field.default === "object" ? JSON.stringify(field.default) : field.default}`,
    );
  return parts.join("; ");
}

/** @param {Field} field @param {any} value @returns {Control} */
function record(field, value) {
  const inner = form(field.fields ?? [], value, true);
  const error = h("p", { class: "error", hidden: true });
  const isSet = value !== undefined && value !== null;
  const node = h(
    "details",
    { class: "record", open: false },
    h("summary", null, field.name, field.about ? h("span", { class: "hint" }, ` ${field.about}`) : null),
    error,
    inner.node,
  );
  return {
    node,
    read() {
      const own = inner.read();
      return Object.keys(own).length > 0 || isSet ? own : undefined;
    },
    fail(wrong) {
      const isNested = wrong && typeof wrong === "object";
      if (wrong) node.open = true;
      inner.fail(isNested ? wrong : {});
      const said = isNested ? "" : words(wrong);
      text(error, said);
      error.hidden = said === "";
    },
  };
}

/** @param {Field} field @param {any} value @returns {{ input: any, list?: any, read: () => any }} */
function control(field, value) {
  const had = value !== undefined && value !== null;
  /** What an empty field means: to be cleared if it had a value. */
  const none = () => (had ? null : undefined);
  switch (field.type) {
    case "boolean":
      return choice(
        [true, false],
        value ?? field.default,
        !field.required && field.default === undefined,
        none,
        (one) => one === "true",
      );
    case "string":
      if (field.choices)
        return choice(field.choices, value ?? field.default, !field.required, none, (one) => one);
      return line(field, value, none);
    case "integer":
    case "number": {
      const input = h("input", {
        type: "number",
        step: field.type === "integer" ? "1" : "any",
        min: field.range?.[0],
        max: field.range?.[1],
        placeholder: field.default ?? "",
        value: had ? value : "",
      });
      return {
        input,
        read() {
          if (input.validity.badInput) throw new FieldError("expected a number");
          return input.value === "" ? none() : Number(input.value);
        },
      };
    }
    case "foreign":
      return foreign(field, value, none);
    case "list":
      if (field.element?.type !== "record" && field.element?.type !== "any") return lines(field, value, none);
      return json(value, none);
    default:
      return json(value, none);
  }
}

/** @param {Field} field @param {any} value @param {() => any} none */
function line(field, value, none) {
  const isLong =
    /^(cert|key|cert_alt|key_alt|expression|jwk|public_key|rsa_public_key|body)$/.test(field.name) ||
    String(value ?? "").includes("\n");
  const input = isLong
    ? h("textarea", { spellcheck: "false", value: value ?? "" })
    : h("input", {
        type: "text",
        autocomplete: "off",
        spellcheck: "false",
        placeholder: field.default ?? "",
        value: value ?? "",
      });
  return { input, read: () => (input.value === "" ? none() : input.value) };
}

/** @param {any[]} choices @param {any} value @param {boolean} optional @param {() => any} none @param {(text: string) => any} parse */
function choice(choices, value, optional, none, parse) {
  const input = h(
    "select",
    null,
    optional ? h("option", { value: "" }, "–") : null,
    choices.map((one) => h("option", { value: String(one), selected: one === value }, String(one))),
  );
  return { input, read: () => (input.value === "" ? none() : parse(input.value)) };
}

/** @param {Field} field @param {any} value @param {() => any} none */
function lines(field, value, none) {
  const given = value ?? [];
  const input = h("textarea", {
    spellcheck: "false",
    rows: Math.min(8, Math.max(2, given.length + 1)),
    value: given.join("\n"),
    placeholder: field.default ? field.default.join("\n") : "",
  });
  const isNumber = ["integer", "number"].includes(field.element?.type ?? "");
  return {
    input,
    read() {
      const parts = input.value
        .split("\n")
        .map((one) => one.trim())
        .filter(Boolean);
      if (parts.length === 0) return none();
      if (!isNumber) return parts;
      const numbers = parts.map(Number);
      if (numbers.some(Number.isNaN)) throw new FieldError("expected numbers, one a line");
      return numbers;
    },
  };
}

/** @param {any} value @param {() => any} none */
function json(value, none) {
  const given = value === undefined || value === null ? "" : JSON.stringify(value, null, 2);
  const input = h("textarea", {
    spellcheck: "false",
    rows: Math.min(12, Math.max(2, given.split("\n").length)),
    value: given,
  });
  return {
    input,
    read() {
      if (input.value.trim() === "") return none();
      try {
        return JSON.parse(input.value);
      } catch (error) {
        throw new FieldError(`expected JSON: ${error instanceof Error ? error.message : error}`);
      }
    },
  };
}

/** How rows are named where they are referred to. @param {any} row */
export function nameOf(row) {
  return (
    row.name ??
    row.username ??
    row.custom_id ??
    row.target ??
    row.prefix ??
    row.kid ??
    row.group ??
    row.key ??
    row.id
  );
}

/** @param {Field} field @param {any} value @param {() => any} none */
function foreign(field, value, none) {
  const listId = newId("list");
  const list = h("datalist", { id: listId });
  const box = h("input", {
    type: "text",
    list: listId,
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "name or id",
    value: value?.id ?? "",
  });
  const ids = new Map();
  const path =
    { certificates: "/certificates", key_sets: "/key-sets" }[field.reference ?? ""] ?? `/${field.reference}`;
  all(path, undefined, 1000)
    .then((rows) => {
      put(
        list,
        rows.map((row) => h("option", { value: String(nameOf(row)) }, row.id)),
      );
      for (const row of rows) ids.set(String(nameOf(row)), row.id);
      const own = rows.find((row) => row.id === box.value);
      if (own) box.value = String(nameOf(own));
    })
    .catch(() => {});
  return {
    input: box,
    list,
    read: () => (box.value === "" ? none() : { id: ids.get(box.value) ?? box.value }),
  };
}
