// @ts-check
// Dialogs and notices.

import { h, newId } from "./dom.js";

/**
 * Shows a modal dialog. `body` gets a function that closes it. It belongs to the screen that it is
 * shown over, so going to another one closes it, unless it is locked.
 * @param {string} title
 * @param {(close: () => void) => any} body
 * @param {{ wide?: boolean, locked?: boolean }} [options]
 * @returns {Promise<void>} resolved once it is closed
 */
export function dialog(title, body, options = {}) {
  return new Promise((done) => {
    const id = newId("dialog");
    const close = () => node.close();
    const leave = h(
      "button",
      { type: "button", class: "icon", "aria-label": "Close", on: { click: close } },
      "×",
    );
    const node = h(
      "dialog",
      { class: options.wide ? "wide" : null, "aria-labelledby": id },
      h("header", null, h("h2", { id }, title), options.locked ? null : leave),
      body(close),
    );
    if (options.locked) node.addEventListener("cancel", (event) => event.preventDefault());
    else window.addEventListener("hashchange", close);
    node.addEventListener("close", () => {
      window.removeEventListener("hashchange", close);
      node.remove();
      done();
    });
    document.body.append(node);
    node.showModal();
  });
}

/** Asks before something that cannot be undone. @param {string} question @param {string} action @returns {Promise<boolean>} */
export async function confirm(question, action) {
  let agreed = false;
  await dialog(action, (close) => {
    const agree = () => {
      agreed = true;
      close();
    };
    return h(
      "div",
      null,
      h("p", null, question),
      h(
        "div",
        { class: "actions" },
        h("button", { type: "button", on: { click: close } }, "Cancel"),
        h("button", { type: "button", class: "danger", on: { click: agree } }, action),
      ),
    );
  });
  return agreed;
}

const notices = h("div", { class: "notices", role: "status", "aria-live": "polite" });

/**
 * Tells what has happened; with `undo`, offers to take it back.
 * @param {string} message
 * @param {{ bad?: boolean, undo?: () => void }} [options]
 */
export function notice(message, options = {}) {
  if (!notices.isConnected) document.body.append(notices);
  const leave = () => node.remove();
  const undo = options.undo;
  const node = h(
    "div",
    { class: options.bad ? "notice bad" : "notice" },
    h("span", null, message),
    undo && h("button", { type: "button", on: { click: () => (leave(), undo()) } }, "Undo"),
    h("button", { type: "button", class: "icon", "aria-label": "Dismiss", on: { click: leave } }, "×"),
  );
  notices.append(node);
  while (notices.children.length > 4) notices.firstElementChild?.remove();
  setTimeout(leave, undo ? 20000 : options.bad ? 15000 : 5000);
}
