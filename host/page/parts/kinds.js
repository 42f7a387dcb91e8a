// @ts-check
// The kinds of entities, and where they are.

import { nameOf } from "../forms/form.js";
import { said } from "../lib/actions.js";
import { call } from "../lib/api.js";
import { confirm, notice } from "../lib/dialog.js";
import { h } from "../lib/dom.js";
import { short } from "../lib/format.js";
import { changed, restore } from "../lib/history.js";

/**
 * The kinds, by the segment of a path that names them. `hashed` is a field that is stored as a hash:
 * what it was before is not known, and what is read must not be written, as it would be hashed again.
 * @type {Record<string, { name: string, one: string, schema: string, columns: string[], nested?: string[], openapi?: string, hashed?: string }>}
 */
export const KINDS = {
  services: {
    name: "Services",
    one: "service",
    schema: "services",
    openapi: "Service",
    columns: ["name", "protocol", "host", "port", "path", "enabled"],
    nested: ["routes", "plugins"],
  },
  routes: {
    name: "Routes",
    one: "route",
    schema: "routes",
    openapi: "Route",
    columns: ["name", "hosts", "paths", "methods", "service"],
    nested: ["plugins"],
  },
  upstreams: {
    name: "Upstreams",
    one: "upstream",
    schema: "upstreams",
    openapi: "Upstream",
    columns: ["name", "algorithm", "hash_on", "tags"],
    nested: ["targets"],
  },
  targets: {
    name: "Targets",
    one: "target",
    schema: "targets",
    openapi: "Target",
    columns: ["target", "weight", "tags"],
  },
  consumers: {
    name: "Consumers",
    one: "consumer",
    schema: "consumers",
    columns: ["username", "custom_id", "tags"],
    nested: ["key-auth", "basic-auth", "jwt", "acls", "plugins"],
  },
  plugins: {
    name: "Plugins",
    one: "plugin",
    schema: "plugins",
    columns: ["name", "enabled", "service", "route", "consumer"],
  },
  certificates: {
    name: "Certificates",
    one: "certificate",
    schema: "certificates",
    columns: ["id", "snis", "tags"],
    nested: ["snis"],
  },
  snis: { name: "SNIs", one: "SNI", schema: "snis", columns: ["name", "certificate"] },
  ca_certificates: {
    name: "CA certificates",
    one: "CA certificate",
    schema: "ca_certificates",
    columns: ["id", "cert_digest", "tags"],
  },
  vaults: { name: "Vaults", one: "vault", schema: "vaults", columns: ["prefix", "name", "description"] },
  "key-sets": {
    name: "Key sets",
    one: "key set",
    schema: "key_sets",
    columns: ["name", "tags"],
    nested: ["keys"],
  },
  keys: { name: "Keys", one: "key", schema: "keys", columns: ["name", "kid", "set"] },
  "key-auths": {
    name: "API keys",
    one: "API key",
    schema: "keyauth_credentials",
    columns: ["key", "consumer", "tags"],
  },
  "basic-auths": {
    name: "Passwords",
    one: "password",
    schema: "basicauth_credentials",
    columns: ["username", "consumer", "tags"],
    hashed: "password",
  },
  jwts: {
    name: "JWT credentials",
    one: "JWT credential",
    schema: "jwt_secrets",
    columns: ["key", "algorithm", "consumer"],
  },
  acls: { name: "Groups", one: "group", schema: "acls", columns: ["group", "consumer", "tags"] },
};
export const NESTED_NAMES = { "key-auth": "key-auths", "basic-auth": "basic-auths", jwt: "jwts" };
export const TOP = Object.keys(KINDS).filter((kind) => kind !== "targets");

/** @param {string} segment */
export const kindOf = (segment) => KINDS[NESTED_NAMES[segment] ?? segment];

/** @param {string[]} segments */
export const hash = (...segments) => `#/entities/${segments.map(encodeURIComponent).join("/")}`;

/** @param {string[]} collection */
export const pathOf = (collection) => `/${collection.map(encodeURIComponent).join("/")}`;

/** The rows above a nested collection. @param {string[]} collection */
export function crumbs(collection) {
  if (collection.length < 2) return null;
  const [first, key] = collection;
  return [
    h("a", { href: hash(first) }, KINDS[first]?.name ?? first),
    " / ",
    h("a", { href: hash(first, key) }, key.length === 36 ? short(key) : key),
    " / ",
  ];
}

/** Deletes a row after a question; returns whether it was. @param {string} path @param {any} kind @param {any} row @param {() => void} then */
export async function removed(path, kind, row, then) {
  const name = nameOf(row);
  const lost = kind.hashed ? " It cannot be taken back: the gateway keeps only a hash." : "";
  if (!(await confirm(`The ${kind.one} ${name} is deleted, and takes effect at once.${lost}`, "Delete")))
    return false;
  const own = `${path}/${encodeURIComponent(row.id)}`;
  try {
    await call("DELETE", own);
    const done = `The ${kind.one} ${name} is deleted.`;
    if (kind.hashed) notice(done);
    else changed(done, () => restore(own, row), then);
    return true;
  } catch (error) {
    notice(said(error), { bad: true });
    return false;
  }
}
