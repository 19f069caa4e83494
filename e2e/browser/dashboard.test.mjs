// What people see of the dashboard, in Chromium. browser_test.go runs it, beside
// daemons of which the environment tells.
import assert from "node:assert/strict";
import { get } from "node:http";
import { mkdirSync } from "node:fs";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

const { DASHBOARD, STORE_PATH, NARINFO, NAR, CHROMIUM } = process.env;
const base = new URL("/", DASHBOARD).href.slice(0, -1);
const name = STORE_PATH.slice("/nix/store/".length + 33);
const shots = new URL("screenshots/", import.meta.url).pathname;

let browser;
const complaints = []; // of the console, of scripts, and requests to elsewhere

before(async () => {
  mkdirSync(shots, { recursive: true });
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--host-resolver-rules=MAP evil.test 127.0.0.1"] });
});
after(() => browser?.close());

async function open(options = {}, url = base) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.on("console", (m) => {
    const ours = m.text().includes("willReadFrequently"); // these tests look at pixels, the page does not
    if (["error", "warning"].includes(m.type()) && !ours) complaints.push(m.text());
  });
  page.on("pageerror", (e) => complaints.push(String(e)));
  page.on("request", (r) => { if (!r.url().startsWith(base)) complaints.push(`request to ${r.url()}`); });
  await page.goto(url);
  await page.getByText("Live", { exact: true }).waitFor();
  return page;
}

const shot = (page, file) => page.screenshot({ path: `${shots}${file}.png`, fullPage: true });

test("it loads and says how things stand", async () => {
  const page = await open();
  assert.equal(await page.title(), "nar-p2p");
  await page.locator("#sharing-state").getByText(/^Sharing 0 paths within its network/).waitFor();
  await page.locator("#version").getByText(base, { exact: true }).waitFor();
  await page.locator("#dht-list").getByText(/server|client/).first().waitFor();
  await page.context().close();
});

test("it has landmarks, names for everything, and works with the keyboard", async () => {
  const page = await open();
  for (const role of ["banner", "main", "contentinfo", "navigation"]) assert.equal(await page.getByRole(role).count(), 1, role);
  const faults = await page.evaluate(() => {
    const found = [], text = (e) => e?.textContent.trim();
    const named = (e) => e.getAttribute("aria-label") || text(document.getElementById(e.getAttribute("aria-labelledby"))) || text(e.labels?.[0]) || (e.tagName !== "SELECT" && text(e)) || text(e.querySelector("caption, legend"));
    for (const e of document.querySelectorAll("section, nav, button, input, select, table, fieldset, [role=img], [role=region], [role=group]")) {
      if (!named(e)) found.push(`${e.outerHTML.slice(0, 80)} has no name`);
    }
    let last = 0;
    for (const h of document.querySelectorAll("h1, h2, h3")) {
      const level = Number(h.tagName[1]);
      if (level > last + 1) found.push(`heading ${text(h)} skips a level`);
      last = level;
    }
    if (document.querySelectorAll("h1").length !== 1) found.push("not one h1");
    if (!document.documentElement.lang) found.push("no language");
    for (const cell of document.querySelectorAll("th")) if (!cell.scope) found.push(`header ${text(cell)} has no scope`);
    const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
    if (new Set(ids).size !== ids.length) found.push("an id stands twice");
    return found.filter((f) => !f.includes("u-legend") && !/header (Time|Caches|Peers|Local|Reused|Sent).* has no scope/.test(f));
  });
  assert.deepEqual(faults, []);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  const reached = new Set();
  for (let i = 0; i < 40; i++) {
    await page.keyboard.press("Tab");
    reached.add(await page.evaluate(() => document.activeElement.id || document.activeElement.name));
  }
  for (const id of ["range", "zoom-in", "explain-target"]) assert.ok(reached.has(id), `${id} cannot be reached with the keyboard`);
  await page.context().close();
});

test("colours can be read, in light and dark", async () => {
  const seen = [];
  for (const colorScheme of ["light", "dark"]) {
    const page = await open({ colorScheme });
    const { back, contrasts } = await page.evaluate(() => {
      const numbers = (c) => c.match(/[\d.]+/g).map(Number);
      const light = (c) => numbers(c).slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const behind = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (numbers(c)[3] !== 0) return c; } return "rgb(255, 255, 255)"; };
      const contrasts = [...document.querySelectorAll("h1, h2, h3, p, a:not(.skip), button:enabled, th, dt, dd, li")].filter((e) => e.offsetParent && e.textContent.trim())
        .map((e) => { const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x); return [(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 40)]; });
      return { back: getComputedStyle(document.body).backgroundColor, contrasts };
    });
    for (const [ratio, text] of contrasts) assert.ok(ratio >= 4.5, `${colorScheme}: contrast of ${text} is ${ratio.toFixed(1)}`);
    seen.push(back);
    await shot(page, colorScheme);
    await page.context().close();
  }
  assert.notEqual(seen[0], seen[1]);
});

// fetchNAR does as Nix does.
async function fetchNAR() {
  assert.equal((await fetch(base + NARINFO)).status, 200);
  const response = await fetch(base + NAR);
  assert.equal(response.status, 200);
  return (await response.arrayBuffer()).byteLength;
}

test("a transfer is seen while it runs, source by source, and in the sums after it", async () => {
  const page = await open();
  const comes = fetchNAR();
  const flight = page.locator("[data-flight]").filter({ hasText: name });
  await flight.waitFor();
  const percent = async () => Number((await flight.locator("canvas").getAttribute("aria-label")).match(/^(\d+) %/)[1]);
  const first = await percent();
  await page.waitForFunction((than) => {
    const canvas = document.querySelector("[data-flight] canvas");
    return canvas && Number(canvas.getAttribute("aria-label").match(/^(\d+)/)[1]) > than;
  }, first);
  await flight.locator(".givers > span").nth(1).waitFor(); // both providers
  const givers = await flight.locator(".givers").innerText();
  assert.match(givers, /peer …\w{8}, local network: [\d.]+ [KM]iB/);
  const painted = await flight.locator("canvas").evaluate((c) => {
    const pixels = c.getContext("2d").getImageData(0, 0, c.width, 1).data;
    return pixels.filter((v, i) => i % 4 === 3 && v > 0).length / c.width;
  });
  assert.ok(painted > 0 && painted < 1, `${painted} of the bar is painted`);
  await shot(page, "transfer");
  assert.ok(await comes > 20 << 20);
  await flight.waitFor({ state: "detached" });
  await page.locator("#landed").getByText(/20\.\d MiB from 2 peers/).waitFor();
  await page.locator("#sums tr", { hasText: "Local network" }).getByText(/^20\.\d MiB$/).first().waitFor();
  await page.locator("#events").getByText(`nar of ${name}: served`).waitFor();
  assert.equal(await page.locator("#peer-table tbody tr", { hasText: "nar-p2p/" }).count(), 3);
  await page.locator("#peer-table tbody tr", { hasText: /20\.\d MiB|1\d\.\d MiB|[5-9]\.\d MiB/ }).first().waitFor();
  await page.locator("#upstream-table").getByText("ok", { exact: true }).waitFor();
  await page.context().close();
});

test("the graph shows the transfer and can be zoomed", async () => {
  const page = await open();
  await page.getByLabel("15 minutes").check();
  const graph = page.locator("#graph canvas");
  const coloured = () => graph.evaluate((c) => {
    const pixels = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
    let n = 0;
    for (let i = 0; i < pixels.length; i += 4) if (pixels[i] === 0x11 && pixels[i + 1] === 0x77 && pixels[i + 2] === 0x33) n++;
    return n; // in the colour of the local network
  });
  const whole = await coloured();
  assert.ok(whole > 0, "nothing of the transfer is drawn");
  const box = await graph.boundingBox();
  // The transfer was just now: at the right.
  await page.mouse.move(box.x + box.width * 0.85, box.y + 100);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width - 25, box.y + 100, { steps: 4 });
  await page.mouse.up();
  await page.waitForTimeout(1500); // over which it must not be lost
  const near = await coloured();
  assert.ok(near > 2 * whole, `zoomed ${near} pixels, before ${whole}`);
  await shot(page, "zoomed");
  await page.getByRole("button", { name: "All" }).click();
  await page.waitForTimeout(100);
  const again = await coloured();
  assert.ok(again < near / 2, `${again} pixels after zooming out`);
  await page.getByLabel("Year").check();
  assert.ok(await coloured() > 0, "the year is empty");
  await page.context().close();
});

test("explain answers in words", async () => {
  const page = await open();
  await page.getByLabel("Store path, or its hash part").fill(STORE_PATH);
  await page.keyboard.press("Enter");
  await page.locator("#explanation strong").getByText(/Would be served/).waitFor();
  await page.getByText("All that is known").click();
  await page.locator("#explanation pre").getByText(/"narHash": "sha256:/).waitFor();
  await page.getByLabel("Store path, or its hash part").fill("<img src=x onerror=alert(1)>");
  const before = complaints.length;
  await page.getByRole("button", { name: "Explain" }).click();
  await page.locator("#explanation .bad").getByText(/is no store path/).waitFor();
  // The browser's console tells of every answer that is an error.
  assert.match(complaints.splice(before).join(), /^Failed to load resource: .* 400 \(Bad Request\)$/);
  await page.context().close();
});

test("sharing is paused and resumed with the token alone", async () => {
  const reader = await open();
  assert.ok(await reader.getByRole("button", { name: "Pause sharing" }).isDisabled());
  for (const authorization of ["", "Bearer wrong"]) {
    const response = await fetch(`${base}/dashboard/pause`, { method: "POST", body: "{}", headers: { authorization } });
    assert.equal(response.status, 401);
  }
  const page = await open({}, DASHBOARD);
  assert.ok(!page.url().includes("token"), "the token stays in the address");
  await page.getByLabel("Pause for").selectOption({ label: "an hour" });
  await page.getByRole("button", { name: "Pause sharing" }).click();
  for (const p of [page, reader]) await p.locator("#sharing-state").getByText(/^Paused until /).waitFor();
  await shot(page, "paused");
  await page.getByRole("button", { name: "Resume sharing" }).click();
  for (const p of [page, reader]) await p.locator("#sharing-state").getByText(/^Sharing /).waitFor();
  await reader.context().close();
  await page.context().close();
});

test("nothing is wider than a phone", async () => {
  for (const width of [320, 390]) {
    const page = await open({ viewport: { width, height: 740 }, hasTouch: true, isMobile: true });
    await page.locator("#peer-table").getByText("nar-p2p/").first().waitFor();
    await page.getByLabel("Store path, or its hash part").fill(STORE_PATH);
    await page.getByRole("button", { name: "Explain" }).click();
    await page.getByText("All that is known").click();
    const [page_, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
    assert.ok(page_ <= screen, `the page is ${page_} wide on a screen of ${screen}`);
    await shot(page, `phone-${width}`);
    await page.context().close();
  }
});

test("other sites and other names get nothing", async () => {
  const port = new URL(base).port;
  const context = await browser.newContext();
  const page = await context.newPage();
  const response = await page.goto(`http://evil.test:${port}/`);
  assert.equal(response.status(), 421);
  const tries = await page.evaluate(async (base) => {
    const what = [];
    for (const path of ["/", "/dashboard/stream", "/metrics", "/dashboard/explain?target=x"]) {
      const text = await fetch(base + path).then((r) => r.text()).catch(() => "refused");
      const opaque = await fetch(base + path, { mode: "no-cors" }).then((r) => r.type).catch(() => "refused");
      what.push(`${text} ${opaque}`);
    }
    return what;
  }, base);
  for (const got of tries) assert.equal(got, "refused refused");
  await context.close();
  const status = await new Promise((resolve) => get(`${base}/metrics`, { agent: false, headers: { Host: "evil.test" } }, (r) => {
    r.resume();
    resolve(r.statusCode);
  }));
  assert.equal(status, 421);
});

test("what the page loads and asks for is the daemon's, and nothing complains", () => assert.deepEqual(complaints, []));
