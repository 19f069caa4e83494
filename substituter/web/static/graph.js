// The graph of bytes over time, and the sums below it.
import { byId, el, rows } from "./dom.js";
import { bytes, rate } from "./format.js";
import { colour, served, sources, sum, zero } from "./sources.js";

const ranges = {
  seconds: { label: "15 minutes", unit: rate, keep: 900 },
  minutes: { label: "Day", unit: rate, keep: 1440 },
  days: { label: "Year", unit: bytes, keep: 400 },
};

const shown = [...sources, served];
const series = { seconds: null, minutes: null, days: null }; // {start, step, amounts}
let range = "seconds";
let plot = null;
let zoomed = false;

// Days are as far apart as they are, and those of which nothing is known are empty.
function ofDays(days) {
  const day = 86400, at = (d) => Math.round(new Date(`${d}T12:00:00`) / 1000);
  if (!days.length) return { start: 0, step: day, amounts: [] };
  const start = at(days[0].date), amounts = [];
  for (const d of days) {
    const i = Math.round((at(d.date) - start) / day);
    while (amounts.length < i) amounts.push(zero());
    amounts[i] = { ...d };
  }
  return { start, step: day, amounts };
}

export function begin(traffic) {
  series.seconds = traffic.seconds;
  series.minutes = traffic.minutes;
  series.days = ofDays(traffic.days);
  draw();
}

// extend makes the series go on to a step, with nothing in between.
function extend(s, keep, time) {
  const n = Math.floor((time - s.start) / s.step) + 1;
  while (s.amounts.length < n) s.amounts.push(zero());
  while (s.amounts.length > keep) {
    s.amounts.shift();
    s.start += s.step;
  }
}

// add takes seconds, of which the first may be known in part.
export function add(news) {
  if (!series.seconds) return;
  news.amounts.forEach((amount, i) => {
    const time = news.start + i;
    extend(series.seconds, ranges.seconds.keep, time);
    const known = series.seconds.amounts[time - series.seconds.start];
    if (!known) return;
    if (series.days.amounts.length) extend(series.days, ranges.days.keep, time + 43200); // a day's time is its noon
    for (const name of ["minutes", "days"]) {
      const s = series[name];
      if (name === "minutes") extend(s, ranges.minutes.keep, time);
      const last = s.amounts[s.amounts.length - 1];
      for (const key of Object.keys(known)) if (last) last[key] += amount[key] - known[key];
    }
    Object.assign(known, amount);
  });
  draw();
}

// tick lets time go on where nothing comes.
export function tick() {
  if (!series.seconds || document.hidden) return;
  const now = Math.floor(Date.now() / 1000);
  if (now - series.seconds.start - series.seconds.amounts.length > 5 * ranges.seconds.keep) return; // a clock that was set
  extend(series.seconds, ranges.seconds.keep, now);
  extend(series.minutes, ranges.minutes.keep, now);
  if (range !== "days") draw();
}

function data() {
  const s = series[range], perSecond = range === "days" ? 1 : s.step;
  const xs = s.amounts.map((_, i) => s.start + i * s.step);
  const raw = shown.map(({ key }) => s.amounts.map((a) => (a[key] || 0) / perSecond));
  // Each series is the sum of those below it, and the highest is drawn first.
  const stacked = [];
  sources.forEach((_, i) => stacked.push(raw[i].map((v, x) => v + (i ? stacked[i - 1][x] : 0))));
  return { raw, plotted: [xs, ...stacked.reverse(), raw[raw.length - 1]] };
}

function options(width, unit) {
  const current = () => data().raw;
  const value = (i) => (_, __, ___, x) => (x === null ? "–" : unit(current()[i][x]));
  const paths = range === "days" ? uPlot.paths.bars({ size: [0.8, 40] }) : uPlot.paths.stepped({ align: 1 });
  const axis = { stroke: colour("quiet"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line") } };
  return {
    width, height: 260,
    cursor: { drag: { x: true, y: false } },
    scales: { y: { range: (_, __, high) => [0, Math.max(high || 0, 1024) * 1.05] } },
    axes: [{ ...axis }, { ...axis, size: 80, values: (_, ticks) => ticks.map(unit) }],
    series: [
      {},
      ...sources.map((s, i) => ({
        label: s.label, stroke: colour(s.key), fill: colour(s.key), width: 0, paths, points: { show: false }, value: value(i),
      })).reverse(),
      { label: served.label, stroke: colour("served"), width: 2, paths, points: { show: false }, value: value(sources.length) },
    ],
    hooks: { setSelect: [() => { zoomed = true; }] },
  };
}

function make() {
  const box = byId("graph");
  plot?.destroy();
  zoomed = false;
  plot = new uPlot(options(box.clientWidth, ranges[range].unit), data().plotted, box);
  plot.root.addEventListener("dblclick", () => { zoomed = false; });
}

function draw() {
  if (!plot) make();
  else plot.setData(data().plotted, !zoomed);
  if (zoomed) plot.redraw();
  table();
}

function table() {
  const days = series.days.amounts;
  const periods = [["Today", sum(days.slice(-1))], ["7 days", sum(days.slice(-7))], ["30 days", sum(days.slice(-30))], ["Year", sum(days)]];
  const line = (label, key, of) => ({ label, key, cells: periods.map(([, total]) => bytes(of(total))) });
  const lines = shown.map((s) => line(s.label, s.key, (t) => t[s.key]));
  lines.push(line("Saved the caches", "", (t) => t.store + t.reuse + t.lan + t.peer));
  rows(byId("sums"), [
    ["From", (l) => el("span", {}, l.key && el("span", { className: `dot ${l.key}` }), l.label)],
    ...periods.map(([label], i) => [label, (l) => l.cells[i], "number"]),
  ], lines);
}

// zoom makes the time that is seen so many times as long.
function zoom(factor) {
  const { min, max } = plot.scales.x, s = series[range];
  const first = s.start, last = s.start + s.step * (s.amounts.length - 1);
  const middle = (min + max) / 2, half = Math.max(((max - min) / 2) * factor, 2 * s.step);
  zoomed = half * 2 < last - first;
  plot.setScale("x", zoomed ? { min: Math.max(first, middle - half), max: Math.min(last, middle + half) } : { min: first, max: last });
}

export function setUp() {
  for (const [name, r] of Object.entries(ranges)) {
    const choice = el("input", { type: "radio", name: "range", value: name, checked: name === range });
    choice.addEventListener("change", () => { range = name; make(); });
    byId("ranges").append(el("label", {}, choice, ` ${r.label}`));
  }
  byId("zoom-in").addEventListener("click", () => zoom(0.5));
  byId("zoom-out").addEventListener("click", () => zoom(2));
  byId("zoom-all").addEventListener("click", () => zoom(Infinity));
  new ResizeObserver(() => plot?.setSize({ width: byId("graph").clientWidth, height: 260 })).observe(byId("graph"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot && make());
}
