// Transfers: those under way, part by part, and those that have ended.
import { byId, el, fill } from "./dom.js";
import { bytes, clock, name, rate, seconds, short } from "./format.js";
import { colour, kindOf } from "./sources.js";

const maxLanded = 20;
const items = new Map(); // of those under way, by ID
const landed = [];

function giverText(g) {
  if (g.via === "store") return "other paths of the local store";
  if (g.kind === "peer") return `peer ${g.name ? short(g.name) : "unknown"}${g.via === "lan" ? ", local network" : g.via === "relay" ? ", relayed" : ""}`;
  return g.kind === "store" ? "local store" : g.name;
}

// shade makes givers of one colour differ.
const shade = (index) => 1 - 0.18 * (index % 4);

function paint(canvas, f) {
  const width = canvas.clientWidth * devicePixelRatio, height = canvas.clientHeight * devicePixelRatio;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d"), all = Math.max(Math.ceil(f.narSize / f.cellBytes), 1), step = width / all;
  pen.clearRect(0, 0, width, height);
  f.cells.forEach((giver, i) => {
    pen.globalAlpha = giver < 0 ? 0.3 : shade(giver);
    pen.fillStyle = colour(giver < 0 ? "quiet" : kindOf(f.givers[giver]));
    pen.fillRect(i * step, 0, Math.ceil(step) - (step > 3 ? 1 : 0), height);
  });
}

function item(f) {
  const known = items.get(f.id);
  if (known) return known;
  const i = { head: el("div"), canvas: el("canvas", { className: "cells", role: "img" }), givers: el("div", { className: "givers" }) };
  i.li = el("li", { "data-flight": f.id }, i.head, i.canvas, i.givers);
  items.set(f.id, i);
  return i;
}

export function flights(all) {
  const list = byId("flying"), now = new Set(all.map((f) => f.id));
  for (const [id, i] of items) if (!now.has(id)) { i.li.remove(); items.delete(id); }
  if (all.length) list.querySelector(".none")?.remove();
  else fill(list, el("li", { className: "none quiet" }, "Nothing is on its way."));
  for (const f of all) {
    const i = item(f), came = f.done - (f.offset || 0);
    if (!i.li.isConnected) list.append(i.li);
    const percent = Math.floor((100 * f.done) / f.narSize);
    fill(i.head, el("strong", { title: f.storePath }, name(f.storePath)), ` ${percent} % of ${bytes(f.narSize)}, ${rate(came / Math.max(f.seconds, 0.1))}`);
    i.canvas.setAttribute("aria-label", `${percent} % of ${name(f.storePath)} has come`);
    paint(i.canvas, f);
    fill(i.givers, ...f.givers.map((g, n) => {
      const dot = el("span", { className: `dot ${kindOf(g)}` });
      dot.style.opacity = shade(n);
      return el("span", { title: g.name || "" }, dot, `${giverText(g)}: ${bytes(g.bytes)}`);
    }));
  }
}

// ended takes a fetch that is over.
export function ended(fetch, time) {
  landed.unshift({ fetch, time });
  landed.length = Math.min(landed.length, maxLanded);
  showLanded();
}

export function showLanded() {
  if (!landed.length) {
    fill(byId("landed"), el("li", { className: "quiet" }, "Nothing was fetched since this page was opened."));
    return;
  }
  fill(byId("landed"), ...landed.map(({ fetch: f, time }) => {
    const from = f.sources.filter((s) => s.bytes > 0).map((s) => {
      const who = s.kind === "peer" ? `${(s.peers || []).length || "unknown"} peer${(s.peers || []).length === 1 ? "" : "s"}` : s.name || "the local store";
      return `${bytes(s.bytes)} from ${who}`;
    });
    const ok = f.result === "served";
    return el("li", { title: f.storePath }, el("span", { className: "quiet" }, `${clock(time)} `), el("strong", {}, name(f.storePath)),
      ok ? ` ${bytes(f.narSize - (f.offset || 0))} in ${seconds(f.seconds)}: ${from.join(", ")}` : el("span", { className: "bad" }, ` ${f.result}${f.error ? `: ${f.error}` : ""}`));
  }));
}
