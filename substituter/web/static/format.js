// Numbers, times and names for people.

const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(n) {
  let i = 0;
  for (; Math.abs(n) >= 1024 && i < units.length - 1; i++) n /= 1024;
  return `${i && Math.abs(n) < 100 ? n.toFixed(1) : Math.round(n)} ${units[i]}`;
}

export const rate = (n) => `${bytes(n)}/s`;

export function seconds(s) {
  if (!s) return "–";
  if (s < 1) return `${(s * 1000).toPrecision(2) * 1} ms`;
  if (s < 90) return `${s.toPrecision(2) * 1} s`;
  return s < 5400 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`;
}

export const clock = (t) => new Date(t).toLocaleTimeString();

export const moment = (t) => (t ? new Date(t).toLocaleString() : "–");

// name is a store path without what is the same in all.
export const name = (path) => path.replace(/^\/nix\/store\/[0-9a-z]{32}-/, "");

export const short = (id) => (id.length > 16 ? `…${id.slice(-8)}` : id);
