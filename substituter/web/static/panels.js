// What the status says: sharing, peers, the network, the caches.
import { byId, el, fill, rows } from "./dom.js";
import { bytes, moment, rate, seconds, short } from "./format.js";

const profiles = { off: "off: no peers", consume: "only fetching", lan: "with the local network", private: "within its network", public: "with the public network" };

export function status(s) {
  const paused = s.sharing.paused, metered = s.metered?.now;
  const served = s.p2p?.served;
  const shares = s.profile !== "off" && s.profile !== "consume" && s.role !== "infrastructure";
  fill(byId("sharing-state"), paused
    ? el("strong", { className: "bad" }, s.sharing.until ? `Paused until ${moment(s.sharing.until)}` : "Paused until it is resumed")
    : shares && metered ? el("strong", {}, "Not sharing: the connection is metered")
    : el("strong", { className: shares ? "good" : "" }, shares ? `Sharing ${s.store.shareable} paths ${profiles[s.profile]}` : `Sharing nothing (${profiles[s.profile] || s.profile})`));
  fill(byId("visible"), s.visible);
  byId("pause-button").textContent = paused ? "Resume sharing" : "Pause sharing";
  byId("pause-button").dataset.paused = paused;
  byId("pause-time").disabled = paused;
  byId("pause").hidden = !shares;
  fill(byId("version"), `nar-p2pd ${s.version}, up since ${moment(s.started)}. For nix.conf: `, el("code", {}, s.substituter));

  const p = s.p2p, list = [["Network", s.network]];
  if (metered) list.push(["Connection", `Metered${s.metered.setting === "auto" ? ", as NetworkManager says" : ""}: only what Nix asks for is fetched; nothing is shared, announced or done in the background.`]);
  const l = s.limits;
  if (l) list.push(["Limits", `upload ${l.upload ? rate(l.upload) : "unlimited"}, download ${l.download ? rate(l.download) : "unlimited"}${l.until ? `, until ${moment(l.until)}` : ""}${l.schedule ? " (by the schedule)" : ""}`]);
  if (p) {
    list.push(["Peer ID", el("span", { className: "mono" }, p.peerId)], ["Reached from outside", p.reach?.why || p.reachability]);
    if (p.reach?.remedy) list.push(["Remedy", p.reach.remedy]);
    if (p.reach?.nat) list.push(["Seen by peers", p.reach.nat === "same port" ? "at the same port by all" : "at another port by each"]);
    list.push(["DHT", p.routing === "none" ? "none" : `${p.routing}, ${p.routingPeers} nodes known`]);
    const a = p.announcing;
    if (a) {
      list.push(["Announced", `${a.keys - a.waiting} of ${a.keys} keys${a.skipped ? `, ${a.skipped} beyond the budget` : ""}, ${bytes(a.sentBytes)} sent`]);
      if (a.keys) list.push(["Last sweep began", moment(a.swept)], ["Next part is due", moment(a.next)]);
    }
    if (served) list.push(["Served", `${bytes(served.bytes)} in ${served.sessions} sessions, ${served.activeSessions} now`]);
  }
  fill(byId("dht-list"), ...list.flatMap(([term, text]) => [el("dt", {}, term), el("dd", {}, text)]));

  rows(byId("upstream-table"), [
    ["Cache", (u) => u.url + (u.private ? " (private)" : "")],
    ["State", (u) => el("span", { className: u.state === "ok" || u.state === "unknown" ? "" : "bad" }, u.state === "open" ? "not reachable" : u.state === "unknown" ? "not asked yet" : u.state)],
    ["Latency", (u) => seconds(u.latencySeconds), "number"],
    ["Rate", (u) => (u.bytesPerSecond ? rate(u.bytesPerSecond) : "–"), "number"],
    ["Last problem", (u) => u.problem || "–"],
  ], s.upstreams, "No cache is configured.");
}

const before = new Map(); // bytes of each peer, and when
let last = { peers: [], time: 0 };

function rates(peers) {
  const now = performance.now();
  for (const p of peers) {
    const old = before.get(p.id);
    const took = old ? (now - old.time) / 1000 : 0;
    p.rate = took ? Math.max(p.received - old.received, 0) / took : 0;
    p.sending = took ? Math.max(p.sent - old.sent, 0) / took : 0;
  }
  last = { peers, time: now };
  before.clear();
  for (const p of peers) before.set(p.id, { time: now, received: p.received, sent: p.sent });
}

// settle ends rates of which nothing was heard for a while: peers are told of when
// something has changed.
export function settle() {
  if (last.peers.some((p) => p.rate || p.sending) && performance.now() - last.time > 2500) peers(last.peers);
}

export function peers(all) {
  rates(all);
  const nar = all.filter((p) => p.exchange), lan = nar.filter((p) => p.lan);
  fill(byId("peers-sum"), `${nar.length} nar-p2p nodes (${lan.length} on the local network), ${all.length - nar.length} others of the DHT`);
  rows(byId("peer-table"), [
    ["Peer", (p) => el("span", { className: "mono", title: `${p.id}\n${p.addresses.join("\n")}` }, short(p.id))],
    ["Software", (p) => (p.agent || "–").slice(0, 40)],
    ["Where", (p) => (p.lan ? "local network" : "afar")],
    ["Connection", (p) => (p.relayed ? "relayed" : "direct")],
    ["Round trip", (p) => seconds(p.latencySeconds), "number"],
    ["Receiving", (p) => (p.rate ? rate(p.rate) : "–"), "number"],
    ["Sending", (p) => (p.sending ? rate(p.sending) : "–"), "number"],
    ["Received", (p) => bytes(p.received), "number"],
    ["Sent", (p) => bytes(p.sent), "number"],
  ], nar.concat(all.filter((p) => !p.exchange).slice(0, 20)), "No peer is connected.");
}
