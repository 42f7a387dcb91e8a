// @ts-check
// The last change, which can be taken back as long as no other client has changed the same.

import { ApiError, call } from "./api.js";
import { notice } from "./dialog.js";

/**
 * Tells of a change, and offers to take it back. What the gateway has changed together with it, as
 * when the plugins of a deleted route were deleted, stays.
 * @param {string} message
 * @param {() => Promise<any>} undo
 * @param {() => void} [then] called once it was taken back
 */
export function changed(message, undo, then) {
  notice(message, {
    undo: async () => {
      try {
        await undo();
        notice("Taken back.");
        then?.();
      } catch (error) {
        notice(`It cannot be taken back: ${reason(error)}`, { bad: true });
      }
    },
  });
}

/** @param {unknown} error */
function reason(error) {
  if (!(error instanceof ApiError)) return String(error);
  return error.status === 412 ? "another client has changed the same since" : error.message;
}

/** Refuses to take back what is no longer as this page has left it. @param {boolean} isUnchanged */
export function must(isUnchanged) {
  if (!isUnchanged) throw new ApiError(412, null);
}

/** The header for a write of the entity with this tag only. @param {string} etag */
export function ifMatch(etag) {
  return etag ? { "If-Match": etag } : undefined;
}

/** Creates a row that was deleted, unless there is one again. @param {string} path @param {any} row */
export function restore(path, row) {
  return call("PUT", path, { json: row, headers: { "If-None-Match": "*" } });
}

/**
 * What a PATCH of settings has to say so that they are `before` again: a PATCH merges objects, and
 * removes what is null.
 * @param {any} before
 * @param {any} now
 */
export function settingsBack(before, now) {
  if (!isObject(before) || !isObject(now)) return before ?? null;
  const names = [...new Set([...Object.keys(before), ...Object.keys(now)])];
  const differing = names.filter((name) => !isSame(before[name], now[name]));
  return Object.fromEntries(differing.map((name) => [name, settingsBack(before[name], now[name])]));
}

/**
 * The fields of an input that differ from those of a row. A PATCH merges records, so of a record it is
 * again only the fields that differ.
 * @param {import("../forms/fields.js").Field[]} fields
 * @param {any} before
 * @param {any} input
 */
export function differing(fields, before, input) {
  const changes = {};
  for (const [name, value] of Object.entries(input)) {
    const old = before[name];
    if (isSame(value, old)) continue;
    const inner = fields.find((field) => field.name === name)?.fields;
    if (!inner || !isObject(value) || !isObject(old)) {
      changes[name] = value;
      continue;
    }
    const within = differing(inner, old, value);
    if (Object.keys(within).length > 0) changes[name] = within;
  }
  return changes;
}

/** Whether two values are the same; no value is the same as null. @param {any} one @param {any} other */
const isSame = (one, other) => JSON.stringify(one ?? null) === JSON.stringify(other ?? null);

/** @param {any} value */
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
