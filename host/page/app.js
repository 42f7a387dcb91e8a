// @ts-check
// The frame of the page: navigation, the state of the connection, the token, keys.

import { hasToken, isToken, onUnauthorized, setToken } from "./lib/api.js";
import { dialog } from "./lib/dialog.js";
import { attr, h, newId, put, text } from "./lib/dom.js";
import { balancer } from "./screens/balancer.js";
import { balancers } from "./screens/balancers.js";
import { entities, entity } from "./screens/entities.js";
import { explain } from "./screens/explain.js";
import { overview } from "./screens/overview.js";
import { simulate } from "./screens/simulate.js";
import { upstream } from "./screens/upstream.js";
import { upstreams } from "./screens/upstreams.js";

/**
 * A screen is a function that gets the parts of the address and what it needs of the frame, and
 * returns its content.
 * @typedef {{ signal: AbortSignal, state: (state: string, detail?: string) => void, query: URLSearchParams }} Context
 */

const SCREENS = [
  { key: "1", hash: "", name: "Overview", show: overview },
  { key: "2", hash: "upstreams", name: "Upstreams", show: upstreams, item: upstream },
  { key: "3", hash: "balancers", name: "Balancers", show: balancers, item: balancer },
  { key: "4", hash: "explain", name: "Explain", show: explain },
  { key: "5", hash: "simulate", name: "Simulate", show: simulate },
  { key: "6", hash: "entities", name: "Entities", show: entities, item: entity },
];

const STATES = { live: "Live", lost: "Reconnecting", paused: "Paused", idle: "Idle" };

const main = h("main", { id: "main", tabindex: "-1" });
const light = h("span", { class: "light", "data-state": "idle" });
const state = h(
  "span",
  { class: "state", role: "status", "data-state": "idle" },
  light,
  h("span", null, "Idle"),
);
const links = SCREENS.map((screen) => h("a", { href: `#/${screen.hash}` }, screen.name));
/** @type {AbortController | null} */
let current = null;

/** @param {string} name @param {string} [detail] */
function setState(name, detail) {
  attr(state, "data-state", name);
  attr(light, "data-state", name);
  attr(state, "title", detail ?? "");
  text(state.lastChild, STATES[name] ?? name);
}

/** A part of the address; as it is, if it is not encoded well. @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function show() {
  current?.abort();
  current = new AbortController();
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [first, ...rest] = path.split("/").map(decoded);
  const screen = SCREENS.find((one) => one.hash === first) ?? SCREENS[0];
  SCREENS.forEach((one, index) => attr(links[index], "aria-current", one === screen ? "page" : null));
  setState("idle");
  const context = { signal: current.signal, state: setState, query: new URLSearchParams(query) };
  const make = rest.length > 0 && rest[0] && screen.item ? screen.item : screen.show;
  document.title = `${rest[0] || screen.name} – Pointsman`;
  try {
    put(main, make(rest, context));
  } catch (error) {
    put(main, h("p", { class: "problem", role: "alert" }, String(error)));
  }
  main.scrollTop = 0;
  window.scrollTo(0, 0);
  const title = main.querySelector("h1");
  if (title && shownBefore) {
    title.tabIndex = -1;
    title.focus({ preventScroll: true });
  }
  shownBefore = true;
}
let shownBefore = false;

async function askForToken() {
  await dialog(
    hasToken() ? "This token is not known" : "The Admin API needs a token",
    (close) => {
      const id = newId("token");
      const input = h("input", {
        id,
        type: "password",
        autocomplete: "off",
        required: true,
        spellcheck: "false",
      });
      const submit = (event) => {
        event.preventDefault();
        const token = input.value.trim();
        if (isToken(token)) {
          setToken(token);
          close();
        } else {
          // Such as an invisible space that was copied with it.
          text(wrong, "This has a character that no token has: copy the token again, without what is around it.");
          wrong.hidden = false;
        }
      };
      const wrong = h("p", { class: "problem", role: "alert", hidden: true });
      return h(
        "form",
        { on: { submit } },
        h("label", { for: id }, "Token"),
        input,
        wrong,
        h("p", { class: "hint" }, "Kept in this tab until it is closed. pointsman admin-token makes one."),
        h("div", { class: "actions" }, h("button", { class: "primary" }, "Use")),
      );
    },
    { locked: true },
  );
}

const KEYS = [
  ["1 – 6", "Screens, from Overview to Entities"],
  ["/", "Search in this screen"],
  ["↑ ↓ ← →", "Move in the heat map and in the lanes"],
  ["Esc", "Close a dialog"],
  ["?", "These keys"],
];

function showKeys() {
  const id = newId("keys");
  const box = h("input", { id, type: "checkbox", checked: usesKeys() });
  box.addEventListener("change", () => localStorage.setItem("pointsman-keys", box.checked ? "on" : "off"));
  dialog("Keys", () =>
    h(
      "div",
      null,
      h(
        "dl",
        { class: "keys" },
        KEYS.map(([key, what]) => [h("dt", null, h("kbd", null, key)), h("dd", null, what)]),
      ),
      h("p", null, box, " ", h("label", { for: id }, "Single keys are shortcuts")),
    ),
  );
}

function usesKeys() {
  return localStorage.getItem("pointsman-keys") !== "off";
}

function onKey(event) {
  const target = /** @type {HTMLElement} */ (event.target);
  const isWriting = target.matches("input, textarea, select, [contenteditable]");
  if (event.ctrlKey || event.metaKey || event.altKey || isWriting || !usesKeys()) return;
  if (document.querySelector("dialog[open]")) return;
  const screen = SCREENS.find((one) => one.key === event.key);
  if (screen) location.hash = `#/${screen.hash}`;
  else if (event.key === "?") showKeys();
  else if (event.key === "/") {
    /** @type {HTMLElement | null} */ (main.querySelector("input[type=search]"))?.focus();
    event.preventDefault();
  }
}

onUnauthorized(askForToken);
put(
  document.body,
  h(
    "a",
    { class: "skip", href: "#main", on: { click: (event) => (event.preventDefault(), main.focus()) } },
    "Skip to content",
  ),
  h(
    "header",
    { class: "top" },
    h(
      "a",
      { class: "brand", href: "#/" },
      h("img", { src: "icon.svg", alt: "", width: "20", height: "20" }),
      "Pointsman",
    ),
    h("nav", { "aria-label": "Screens" }, links),
    state,
    h(
      "button",
      { type: "button", class: "icon", "aria-label": "Keys", title: "Keys (?)", on: { click: showKeys } },
      "?",
    ),
  ),
  main,
);
window.addEventListener("hashchange", show);
document.addEventListener("keydown", onKey);
show();
