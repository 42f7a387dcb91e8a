// @ts-check
// Actions that may fail, and what is said then.

import { ApiError } from "./api.js";
import { notice } from "./dialog.js";

/** An error in words. @param {unknown} error */
export function said(error) {
  if (!(error instanceof ApiError)) return `The gateway cannot be reached: ${error}`;
  // The fields are the header and the id that the page has sent: operators have not entered them.
  if (error.status === 412) return "Another client has changed it meanwhile: open it again to see it as it is now.";
  if (error.status === 404) return error.message;
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
