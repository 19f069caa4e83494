// The dashboard: one stream of events from the daemon, and a few forms.
import { byId, el, fill } from "./dom.js";
import { clock, name, short } from "./format.js";
import * as graph from "./graph.js";
import { ended, flights, showLanded } from "./flights.js";
import { peers, settle, status } from "./panels.js";

const maxEvents = 200, maxProblems = 20;

// The token comes behind the '#' of the address, which is never sent, and stays
// with this tab.
function token() {
  const given = location.hash.match(/^#token=([\w-]{20,100})$/);
  if (given) {
    sessionStorage.setItem("token", given[1]);
    history.replaceState(null, "", "/");
  }
  return sessionStorage.getItem("token");
}

const live = (text, bad) => fill(byId("live"), el("span", { className: bad ? "bad" : "good" }, text));

let known = []; // problems, the latest first

function problem(e) {
  known.unshift(e);
  known.length = Math.min(known.length, maxProblems);
  showProblems();
}

function showProblems() {
  const list = byId("problem-list");
  if (!known.length) fill(list, el("li", { className: "quiet" }, "Nothing since the daemon was started."));
  else fill(list, ...known.map((e) => el("li", { className: e.problem.severity === "error" ? "bad" : "" }, el("span", { className: "quiet" }, `${clock(e.time)} `), e.problem.text)));
}

// sentence says in words what happened.
function sentence(e) {
  switch (e.kind) {
    case "request": return `${e.request.what} of ${name(e.request.storePath || e.request.hashPart)}: ${e.request.result}`;
    case "fetch": return `fetch of ${name(e.fetch.storePath)}: ${e.fetch.result}`;
    case "peer": return `peer ${short(e.peer.id)} ${e.peer.connected ? "met" : "gone"}${e.peer.lan ? " on the local network" : ""}`;
    case "announce": return `announced ${e.announce.keys - e.announce.waiting} of ${e.announce.keys} keys`;
    case "sharing": return e.sharing.paused ? "sharing is paused" : e.sharing.metered ? "nothing is shared while the connection is metered" : "sharing goes on";
    case "problem": return e.problem.text;
    case "lost": return `${e.lost} more, too many to show`;
    default: return e.kind;
  }
}

function happened(all) {
  for (const e of all) {
    if (e.kind === "problem") problem(e);
    if (e.kind === "fetch" && e.fetch.result !== "running") ended(e.fetch, e.time);
  }
  const list = byId("events");
  list.prepend(...all.filter((e) => e.kind !== "peer" || e.peer.exchange).reverse()
    .map((e) => el("li", {}, el("span", { className: "quiet" }, `${clock(e.time)} `), sentence(e))));
  while (list.children.length > maxEvents) list.lastChild.remove();
}

function listen() {
  const stream = new EventSource("/dashboard/stream");
  const on = (kind, f) => stream.addEventListener(kind, (e) => f(JSON.parse(e.data)));
  stream.addEventListener("open", () => live("Live"));
  stream.addEventListener("error", () => {
    live("nar-p2pd does not answer. Trying again …", true);
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 5000); // it was turned away
  });
  on("traffic", graph.begin);
  on("seconds", graph.add);
  on("flights", flights);
  on("status", status);
  on("peers", (all) => peers(all || []));
  on("events", happened);
  on("problems", (all) => { known = (all || []).reverse().slice(0, maxProblems); showProblems(); });
}

async function answer(response) {
  const told = await response.json();
  if (!response.ok) throw new Error(told.hint ? `${told.error} (${told.hint})` : told.error);
  return told;
}

async function togglePause(e) {
  e.preventDefault();
  const paused = byId("pause-button").dataset.paused === "true";
  const body = paused ? {} : { seconds: Number(byId("pause-time").value) };
  try {
    await answer(await fetch(paused ? "/dashboard/resume" : "/dashboard/pause", {
      method: "POST", body: JSON.stringify(body), headers: { Authorization: `Bearer ${token()}`, "Content-Type": "application/json" },
    }));
    byId("pause-hint").hidden = true;
  } catch (error) {
    byId("pause-hint").hidden = false;
    fill(byId("pause-hint"), el("span", { className: "bad" }, String(error.message)));
  }
}

async function explain(e) {
  e.preventDefault();
  const out = byId("explanation");
  fill(out, el("p", { className: "quiet" }, "Asking caches and peers …"));
  try {
    const told = await answer(await fetch(`/dashboard/explain?target=${encodeURIComponent(byId("explain-target").value.trim())}`));
    fill(out, el("p", {}, el("strong", {}, told.verdict)), ...(told.notes || []).map((n) => el("p", {}, n)),
      el("details", {}, el("summary", {}, "All that is known"), el("pre", { className: "mono" }, JSON.stringify(told, null, 2))));
  } catch (error) {
    fill(out, el("p", { className: "bad" }, String(error.message)));
  }
}

graph.setUp();
flights([]);
showLanded();
if (token()) {
  byId("pause-button").disabled = false;
  byId("pause-hint").hidden = true;
}
addEventListener("hashchange", () => token() && location.reload());
byId("pause").addEventListener("submit", togglePause);
byId("explain-form").addEventListener("submit", explain);
setInterval(() => {
  graph.tick();
  settle();
}, 1000);
listen();
