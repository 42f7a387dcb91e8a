// @ts-check
// Elements. Data becomes text nodes and attributes only, never markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * @typedef {Node | string | number | null | undefined | false | any[]} Child
 * @typedef {{ [name: string]: any }} Props
 */

/**
 * Makes an HTML element.
 * @param {string} tag
 * @param {Props | null} [props] attributes; `on` has listeners, `class` a string
 * @param {...Child} children
 * @returns {any}
 */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/**
 * Makes an SVG element.
 * @param {string} tag
 * @param {Props | null} [props]
 * @param {...Child} children
 * @returns {any}
 */
export function s(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (name === "dataset") {
      Object.assign(node.dataset, value);
    } else if (["value", "checked", "selected", "disabled", "hidden"].includes(name)) {
      node[name] = value;
    } else {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  add(node, children);
  return node;
}

/** @param {any} node @param {Child[]} children */
function add(node, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) add(node, child);
    else node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Replaces the children of a node. @param {any} node @param {...Child} children */
export function put(node, ...children) {
  node.replaceChildren();
  add(node, children);
  return node;
}

/**
 * The head of a table.
 * @param {string[]} names of the columns
 * @param {(name: string, index: number) => boolean} [isNumber] whether a column has numbers
 */
export function heads(names, isNumber = () => false) {
  const kind = (name, index) => (isNumber(name, index) ? "number" : null);
  const cell = (name, index) => h("th", { scope: "col", class: kind(name, index) }, name);
  return h("thead", null, h("tr", null, names.map(cell)));
}

/** Sets a text only if it differs, so that nothing is laid out anew. @param {any} node @param {unknown} value */
export function text(node, value) {
  const wanted = value === null || value === undefined ? "" : String(value);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Sets or removes an attribute, only if it differs. @param {any} node @param {string} name @param {unknown} value */
export function attr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, String(value));
  }
}

let number = 0;
/** A new id for labels. @param {string} prefix */
export function newId(prefix) {
  number += 1;
  return `${prefix}-${number}`;
}

/**
 * Keeps one row for each item: makes, updates, orders and removes them.
 * @template T
 * @param {any} parent
 * @param {T[]} items
 * @param {(item: T) => string} key
 * @param {(item: T) => { node: any, update: (item: T) => void }} make
 * @param {Map<string, { node: any, update: (item: T) => void }>} rows
 */
export function rowsOf(parent, items, key, make, rows) {
  const seen = new Set();
  let next = parent.firstElementChild;
  for (const item of items) {
    const id = key(item);
    if (seen.has(id)) continue;
    seen.add(id);
    let row = rows.get(id);
    if (!row) {
      row = make(item);
      rows.set(id, row);
    }
    row.update(item);
    if (row.node === next) next = next.nextElementSibling;
    else parent.insertBefore(row.node, next);
  }
  for (const [id, row] of rows) {
    if (!seen.has(id)) {
      row.node.remove();
      rows.delete(id);
    }
  }
}
