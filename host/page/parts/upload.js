// @ts-check
// Uploads of components.

import { said } from "../lib/actions.js";
import { h, newId, put } from "../lib/dom.js";
import { bytes, short } from "../lib/format.js";

/**
 * A place that takes a component, by drag and drop or from a dialog, with an optional signature.
 * @param {string} label
 * @param {(component: File, signature: File | undefined, report: (lines: [string, string][]) => void) => Promise<void>} send
 */
export function dropZone(label, send) {
  const id = newId("file");
  const input = h("input", { type: "file", id, class: "hidden", accept: ".wasm,.minisig", multiple: true });
  const report = h("ol", { class: "report", role: "status" });
  const tell = (lines) =>
    put(
      report,
      lines.map(([kind, line]) =>
        h("li", { "data-kind": kind }, h("span", { class: "glyph", "data-kind": kind }), line),
      ),
    );
  const take = async (files) => {
    const list = [...files];
    const component = list.find((file) => !file.name.endsWith(".minisig"));
    if (!component) return tell([["bad", "This is no component: drop a .wasm file."]]);
    tell([["idle", `Checking ${component.name}, ${bytes(component.size)} …`]]);
    try {
      await send(
        component,
        list.find((file) => file.name.endsWith(".minisig")),
        tell,
      );
    } catch (error) {
      tell([["bad", `${component.name} is refused: ${said(error)}`]]);
    }
    input.value = "";
    return undefined;
  };
  input.addEventListener("change", () => take(input.files));
  const zone = h(
    "div",
    {
      class: "drop",
      on: {
        dragover: (event) => (event.preventDefault(), zone.classList.add("over")),
        dragleave: () => zone.classList.remove("over"),
        drop: (event) => {
          event.preventDefault();
          zone.classList.remove("over");
          take(event.dataTransfer.files);
        },
      },
    },
    input,
    h("label", { for: id, class: "button" }, "Choose a component"),
    h("span", { class: "hint" }, ` or drop it here: ${label}`),
    report,
  );
  return zone;
}

/** @param {File} component @param {File | undefined} signature @param {string} [name] */
export async function body(component, signature, name) {
  const data = new FormData();
  if (name) data.append("name", name);
  data.append("component", component, component.name);
  if (signature) data.append("signature", await signature.text());
  return data;
}

/** What a check has found, line by line. @param {any} row @returns {[string, string][]} */
export function reportOf(row) {
  const description = row.description ?? {};
  const columns = description.columns ?? [];
  const settings = Object.keys(description.config_schema?.properties ?? {});
  return [
    [
      "good",
      `${description.name ?? row.name} ${description.version ?? ""}, ${bytes(row.size)}, digest ${short(row.digest)}`,
    ],
    ["good", `exports ${(row.exports ?? []).join(", ")}`],
    [
      "good",
      columns.length > 0
        ? `reads ${columns.join(", ")} of each endpoint`
        : "reads no figures of endpoints with each pick",
    ],
    ["good", settings.length > 0 ? `settings: ${settings.join(", ")}` : "has no settings"],
  ];
}
