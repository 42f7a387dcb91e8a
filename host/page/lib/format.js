// @ts-check
// Numbers and times as they are shown: short, and of even width where they change.

const DASH = "–";

/** A rate or a count: 0, 0.4, 12, 1.2 k. @param {number | null | undefined} value */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return DASH;
  const size = Math.abs(value);
  if (size >= 1e9) return `${(value / 1e9).toFixed(1)} G`;
  if (size >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  if (size >= 1e4) return `${(value / 1e3).toFixed(1)} k`;
  if (size >= 10 || Number.isInteger(value)) return String(Math.round(value));
  return value.toFixed(1);
}

/** Milliseconds. @param {number | null | undefined} value */
export function ms(value) {
  if (value === null || value === undefined) return DASH;
  if (value >= 10000) return `${(value / 1000).toFixed(1)} s`;
  if (value >= 100) return `${Math.round(value)} ms`;
  if (value >= 10) return `${value.toFixed(1)} ms`;
  return `${value.toFixed(2)} ms`;
}

/** Nanoseconds. @param {number | null | undefined} value */
export function ns(value) {
  if (value === null || value === undefined) return DASH;
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} ms`;
  if (value >= 1e3) return `${(value / 1e3).toFixed(1)} µs`;
  return `${Math.round(value)} ns`;
}

/** A part of one. @param {number | null | undefined} value */
export function percent(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return DASH;
  const shown = value * 100;
  return `${shown >= 10 || shown === 0 ? Math.round(shown) : shown.toFixed(1)} %`;
}

/** @param {number | null | undefined} value */
export function bytes(value) {
  if (value === null || value === undefined) return DASH;
  if (value >= 1 << 30) return `${(value / (1 << 30)).toFixed(1)} GiB`;
  if (value >= 1 << 20) return `${Math.round(value / (1 << 20))} MiB`;
  if (value >= 1024) return `${Math.round(value / 1024)} KiB`;
  return `${value} B`;
}

/** Seconds. @param {number | null | undefined} value */
export function seconds(value) {
  if (value === null || value === undefined) return DASH;
  if (value >= 5400) return `${(value / 3600).toFixed(1)} h`;
  if (value >= 90) return `${Math.round(value / 60)} min`;
  if (value >= 10) return `${Math.round(value)} s`;
  return `${value.toFixed(1)} s`;
}

/** How long ago a time in seconds since 1970 was. @param {number | null | undefined} time */
export function ago(time) {
  if (!time) return DASH;
  const passed = Date.now() / 1000 - time;
  if (passed < 2) return "just now";
  if (passed < 90) return `${Math.round(passed)} s ago`;
  if (passed < 5400) return `${Math.round(passed / 60)} min ago`;
  if (passed < 129600) return `${Math.round(passed / 3600)} h ago`;
  return `${Math.round(passed / 86400)} days ago`;
}

/** A time in seconds since 1970, of the clock on the wall. @param {number | null | undefined} time */
export function clock(time) {
  if (!time) return DASH;
  const date = new Date(time * 1000);
  const day = date.toDateString() === new Date().toDateString() ? "" : `${date.toISOString().slice(0, 10)} `;
  return day + date.toTimeString().slice(0, 8);
}

/** The first digits of a digest or an id. @param {string | null | undefined} id */
export function short(id) {
  return id ? id.slice(0, 8) : DASH;
}

/** The class of a status, for colours. @param {number} status */
export function statusClass(status) {
  if (status === 0 || status >= 500) return "bad";
  if (status >= 400) return "warn";
  return "good";
}
