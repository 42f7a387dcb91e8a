// @ts-check
// Actions that may fail, and what is said then.

import { ApiError } from "./api.js";
import { notice } from "./dialog.js";

/** An error in words. @param {unknown} error */
export function said(error) {
  if (!(error instanceof ApiError)) return `The gateway cannot be reached: ${error}`;
  const fields = Object.entries(error.fields ?? {});
  return fields.length > 0
    ? fields
        .map(([name, one]) => `${name}: ${typeof one === "string" ? one : JSON.stringify(one)}`)
        .join("; ")
    : error.message;
}

/** Runs an action of a button, and tells of its failure. @param {() => Promise<any>} action */
export async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    notice(said(error), { bad: true });
    return undefined;
  }
}
