// Elements without markup: what peers and caches say never becomes HTML.

export const byId = (id) => document.getElementById(id);

// el makes an element; properties that are no strings of the DOM's are attributes.
export function el(name, properties = {}, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in e) e[key] = value;
    else e.setAttribute(key, value);
  }
  e.append(...children.filter((c) => c !== undefined && c !== null && c !== ""));
  return e;
}

// fill replaces what is in an element.
export function fill(e, ...children) {
  e.replaceChildren(...children);
}

// rows writes a table. A column is [title, cell of a row, class].
export function rows(table, columns, data, empty) {
  fill(table.tHead, el("tr", {}, ...columns.map(([title, , kind]) => el("th", { scope: "col", className: kind || "" }, title))));
  const body = data.map((d) => el("tr", {}, ...columns.map(([, cell, kind], i) =>
    el(i ? "td" : "th", i ? { className: kind || "" } : { scope: "row", className: kind || "" }, cell(d)))));
  if (!data.length) body.push(el("tr", {}, el("td", { colSpan: columns.length, className: "quiet" }, empty)));
  fill(table.tBodies[0], ...body);
}
