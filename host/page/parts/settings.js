// @ts-check
// The settings of a balancer at an upstream.

import { ofJsonSchema } from "../forms/fields.js";
import { FieldError, form } from "../forms/form.js";
import { attempt } from "../lib/actions.js";
import { ApiError, all, callTagged, find, getTagged } from "../lib/api.js";
import { h, newId, put } from "../lib/dom.js";
import { changed, ifMatch, settingsBack } from "../lib/history.js";

/**
 * Shows the settings that an upstream has for a balancer, as a form from the component's schema.
 * @param {any} settings where they are shown
 * @param {string} name of the balancer
 * @param {AbortSignal} signal
 */
export async function showSettings(settings, name, signal) {
  const schema = await find(`/schemas/balancers/${encodeURIComponent(name)}`, signal);
  const fields = ofJsonSchema(schema ?? {});
  const own = (await all("/upstreams", signal)).filter((one) => one.algorithm === name);
  if (fields.length === 0 || own.length === 0) {
    put(
      settings,
      h("h2", null, "Settings"),
      h(
        "p",
        { class: "empty" },
        fields.length === 0 ? "This balancer has no settings." : "No upstream uses this balancer.",
      ),
    );
    return;
  }
  const id = newId("upstream");
  const chosen = h(
    "select",
    { id },
    own.map((one) => h("option", { value: one.name }, one.name)),
  );
  const place = h("div");
  const draw = async () => {
    const upstream = `/upstreams/${encodeURIComponent(chosen.value)}`;
    const configOf = (row) => row.pointsman?.balancer_config ?? null;
    const read = await getTagged(upstream, signal);
    let [before, etag] = [configOf(read.body), read.etag];
    const made = form(fields, before ?? {});
    const set = (config, tag) =>
      callTagged("PATCH", upstream, {
        json: { pointsman: { balancer_config: config } },
        headers: ifMatch(tag),
      });
    const submit = async (event) => {
      event.preventDefault();
      made.fail({});
      try {
        const given = Object.fromEntries(Object.entries(made.read()).filter(([, value]) => value !== null));
        const wanted = Object.keys(given).length > 0 ? settingsBack(given, before) : null;
        const written = await set(wanted, etag);
        const old = settingsBack(before, configOf(written.body));
        [before, etag] = [configOf(written.body), written.etag];
        changed(`The settings of ${chosen.value} are changed.`, () => set(old, written.etag), draw);
      } catch (error) {
        if (error instanceof ApiError)
          made.fail(error.fields?.pointsman?.balancer_config ?? error.fields, error.message);
        else if (!(error instanceof FieldError)) throw error;
      }
    };
    put(
      place,
      h(
        "form",
        { novalidate: true, on: { submit } },
        made.node,
        h("div", { class: "actions left" }, h("button", { class: "primary" }, "Save")),
      ),
    );
  };
  chosen.addEventListener("change", () => attempt(draw));
  put(
    settings,
    h("h2", null, "Settings"),
    h("div", { class: "row" }, h("label", { for: id }, "Upstream"), chosen),
    place,
  );
  await draw();
}
