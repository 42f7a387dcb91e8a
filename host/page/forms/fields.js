// @ts-check
// One form of fields for the two kinds of declarations: Kong's schemas, and JSON Schema.

/**
 * @typedef {object} Field
 * @property {string} name
 * @property {string} type string, integer, number, boolean, list, map, record, foreign or any
 * @property {boolean} [required]
 * @property {any} [default]
 * @property {any[]} [choices]
 * @property {[number, number]} [range]
 * @property {Field} [element] of a list
 * @property {Field[]} [fields] of a record
 * @property {string} [reference] the entity that a foreign key refers to
 * @property {string} [about]
 * @property {boolean} [secret]
 * @property {boolean} [automatic] set by the gateway
 */

/** The fields of one of Kong's schemas. @param {any} schema @returns {Field[]} */
export function ofKong(schema) {
  return (schema.fields ?? []).map((entry) => {
    const [[name, declared]] = Object.entries(entry);
    return kongField(name, /** @type {any} */ (declared));
  });
}

/** @param {string} name @param {any} declared @returns {Field} */
function kongField(name, declared) {
  const type = { set: "list", array: "list", function: "any", json: "any" }[declared.type] ?? declared.type;
  return {
    name,
    type,
    required: declared.required === true && type !== "record",
    default: declared.default,
    choices: declared.one_of,
    range: declared.between,
    element: declared.elements && kongField("", declared.elements),
    fields: declared.fields && ofKong(declared),
    reference: declared.reference,
    about: declared.description,
    secret: declared.encrypted === true,
    automatic: declared.auto === true || declared.timestamp === true,
  };
}

/** The fields of an object of JSON Schema. @param {any} schema @returns {Field[]} */
export function ofJsonSchema(schema) {
  const required = schema?.required ?? [];
  return Object.entries(schema?.properties ?? {}).map(([name, declared]) => ({
    ...jsonField(name, declared),
    required: required.includes(name),
  }));
}

/** @param {string} name @param {any} declared @returns {Field} */
function jsonField(name, declared) {
  const types = [declared.type].flat().filter((type) => type && type !== "null");
  const base = { name, default: declared.default, about: declared.description };
  const range =
    declared.minimum !== undefined && declared.maximum !== undefined
      ? /** @type {[number, number]} */ ([declared.minimum, declared.maximum])
      : undefined;
  if (declared.enum) return { ...base, type: "string", choices: declared.enum.filter((one) => one !== null) };
  if (types.length !== 1) return { ...base, type: "any" };
  switch (types[0]) {
    case "object":
      return declared.properties
        ? { ...base, type: "record", fields: ofJsonSchema(declared) }
        : { ...base, type: "map" };
    case "array":
      return { ...base, type: "list", element: jsonField("", declared.items ?? {}) };
    default:
      return { ...base, type: types[0], range };
  }
}
