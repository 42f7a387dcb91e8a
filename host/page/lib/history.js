// @ts-check
// The last change, which can be taken back.

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
        notice(`It cannot be taken back: ${error instanceof ApiError ? error.message : error}`, {
          bad: true,
        });
      }
    },
  });
}

/** The row as it was before. @param {string} path @param {any} row */
export function restore(path, row) {
  return call("PUT", path, { json: row });
}
