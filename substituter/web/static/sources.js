// Where bytes come from, in the order in which the graph stacks them. The class
// is the colour's name in style.css.

export const sources = [
  { key: "store", label: "Local store" },
  { key: "reuse", label: "Reused parts of other paths" },
  { key: "lan", label: "Local network" },
  { key: "peer", label: "Peers" },
  { key: "upstream", label: "Caches" },
];

export const served = { key: "served", label: "Sent to peers" };

// kindOf is the source that a giver counts as.
export function kindOf(giver) {
  if (giver.kind !== "peer") return giver.kind;
  if (giver.via === "store") return "reuse";
  return giver.via === "lan" ? "lan" : "peer";
}

export const colour = (key) => getComputedStyle(document.documentElement).getPropertyValue(`--${key}`).trim();

export const zero = () => ({ store: 0, reuse: 0, lan: 0, peer: 0, upstream: 0, served: 0 });

export function sum(amounts) {
  const total = zero();
  for (const a of amounts) for (const key of Object.keys(total)) total[key] += a[key] || 0;
  return total;
}
