// @ts-check
// The Admin API, which the page's own origin serves below `api/`.

const KEY = "pointsman-admin";

/** An answer that is no success. */
export class ApiError extends Error {
  /** @param {number} status @param {any} body */
  constructor(status, body) {
    super(body?.message ?? `the gateway answered ${status}`);
    this.status = status;
    /** Messages by field. @type {any} */
    this.fields = body?.fields ?? {};
    this.body = body;
  }
}

/** Called when the Admin API asks for a token; resolves once there is one. */
let ask = async () => {};
/** @type {Promise<void> | null} */
let asking = null;

/** @param {() => Promise<void>} callback */
export function onUnauthorized(callback) {
  ask = callback;
}

/** Whether a text can be a token: a browser sends no header with other characters. @param {string} text */
export function isToken(text) {
  return /^[!-~]+$/.test(text);
}

/** Keeps the token for as long as the tab is open. @param {string} value */
export function setToken(value) {
  if (isToken(value)) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

export function hasToken() {
  return sessionStorage.getItem(KEY) !== null;
}

/** @param {string} path */
export function address(path) {
  // A browser would resolve these, and ask for another path.
  if (path.split(/[/?]/).some((segment) => segment === "." || segment === ".."))
    throw new ApiError(404, { message: "no entity has the name . or .." });
  return new URL(`api/${path.replace(/^\//, "")}`, document.baseURI);
}

/** @param {Record<string, string>} [extra] */
function headers(extra) {
  const token = sessionStorage.getItem(KEY);
  return { ...extra, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
}

async function askOnce() {
  asking ??= ask().finally(() => {
    asking = null;
  });
  await asking;
}

/**
 * Sends a request; asks for a token and repeats it after 401.
 * @param {string} method
 * @param {string} path
 * @param {{ json?: any, body?: any, type?: string, signal?: AbortSignal, headers?: Record<string, string> }} [options]
 * @returns {Promise<Response>}
 */
async function send(method, path, options = {}) {
  for (;;) {
    const type = options.json !== undefined ? "application/json" : options.type;
    const answer = await fetch(address(path), {
      method,
      headers: headers({ ...options.headers, ...(type ? { "Content-Type": type } : {}) }),
      body: options.json !== undefined ? JSON.stringify(options.json) : options.body,
      signal: options.signal,
      cache: "no-store",
      credentials: "omit",
    });
    if (answer.status !== 401) return answer;
    await askOnce();
  }
}

/** @param {Response} answer */
async function read(answer) {
  const content = await answer.text();
  let body = null;
  try {
    body = content ? JSON.parse(content) : null;
  } catch {
    body = { message: content };
  }
  if (!answer.ok) throw new ApiError(answer.status, body);
  return body;
}

/**
 * The body of a successful answer.
 * @param {string} method
 * @param {string} path
 * @param {any} [options]
 */
export async function call(method, path, options) {
  return read(await send(method, path, options));
}

/** The same, with the tag of the entity. @param {string} method @param {string} path @param {any} [options] */
export async function callTagged(method, path, options) {
  const answer = await send(method, path, options);
  return { etag: answer.headers.get("etag") ?? "", body: await read(answer) };
}

/** @param {string} path @param {AbortSignal} [signal] */
export function get(path, signal) {
  return call("GET", path, { signal });
}

/** The same, with the tag of what was read. @param {string} path @param {AbortSignal} [signal] */
export function getTagged(path, signal) {
  return callTagged("GET", path, { signal });
}

/** The same, with null where there is nothing. @param {string} path @param {AbortSignal} [signal] */
export async function find(path, signal) {
  try {
    return await get(path, signal);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

/** All rows of a list, up to a limit. @param {string} path @param {AbortSignal} [signal] @param {number} [limit] @returns {Promise<any[]>} */
export async function all(path, signal, limit = 5000) {
  const rows = [];
  let offset = "";
  do {
    const separator = path.includes("?") ? "&" : "?";
    const page = await get(
      `${path}${separator}size=1000${offset && `&offset=${encodeURIComponent(offset)}`}`,
      signal,
    );
    rows.push(...page.data);
    offset = page.offset ?? "";
  } while (offset && rows.length < limit);
  return rows;
}

/**
 * Follows server-sent events until `signal` is aborted: connects again after a loss, and lets go
 * while the tab is hidden. `fetch` is used because an EventSource cannot send a token.
 * @param {string} path
 * @param {(data: any) => void} figures
 * @param {(state: "live" | "lost" | "paused", detail?: string) => void} state
 * @param {AbortSignal} signal
 */
export async function follow(path, figures, state, signal) {
  let pause = 250;
  while (!signal.aborted) {
    if (document.hidden) {
      state("paused");
      await shown(signal);
      continue;
    }
    const stop = new AbortController();
    const end = () => stop.abort();
    const hide = () => document.hidden && end();
    signal.addEventListener("abort", end);
    document.addEventListener("visibilitychange", hide);
    let why = "the connection ended";
    try {
      const answer = await send("GET", path, { signal: stop.signal });
      if (!answer.ok) await read(answer);
      for await (const data of events(answer)) {
        pause = 250;
        state("live");
        figures(data);
      }
    } catch (error) {
      why = error instanceof ApiError ? error.message : "the gateway cannot be reached";
      // What does not exist may be created, but not soon.
      if (error instanceof ApiError && error.status === 404) pause = 4000;
    } finally {
      signal.removeEventListener("abort", end);
      document.removeEventListener("visibilitychange", hide);
      stop.abort();
    }
    if (signal.aborted || document.hidden) continue;
    state("lost", why);
    await new Promise((done) => setTimeout(done, pause));
    pause = Math.min(pause * 2, 4000);
  }
}

/** @param {AbortSignal} signal @returns {Promise<void>} */
function shown(signal) {
  return new Promise((done) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", look);
      signal.removeEventListener("abort", look);
      done();
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look);
    look();
  });
}

/** @param {Response} answer */
async function* events(answer) {
  if (!answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split("\n\n");
    rest = blocks.pop() ?? "";
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data: "));
      if (data.length > 0) yield JSON.parse(data.map((line) => line.slice(6)).join("\n"));
    }
  }
}
