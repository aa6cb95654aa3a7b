// Runs `quickstart` beside Spotlight, and looks at its first trace with Chromium, as a
// person would. Fails where the page does not show the trace that was.
import { deepEqual, equal, match, notEqual } from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const check = process.argv[2] === "--check";
const temporary = mkdtempSync(join(tmpdir(), "spotlight-"));
const png = check ? join(temporary, "trace.png") : resolve(process.argv[2] ?? join(root, "examples/trace.png"));

const METHOD = "/helloworld.Greeter/SayHello";
/** From the client to `front` to `back`; `mark` is that of a call that failed. */
const call = (mark) => [
  `  ${mark}grpc.client ${METHOD}`,
  `    ${mark}grpc.server ${METHOD}`,
  `      ${mark}grpc.client ${METHOD}`,
  `        ${mark}grpc.server ${METHOD}`,
  "          function find_name",
  "            db.query query_store",
];
const TRACE = ["function main", ...call(""), "          template.render render", ...call("!")];

for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => leave(1));

try {
  console.log(`PASS spotlight: ${await main()}`);
  leave(0);
} catch (error) {
  console.error(error);
  console.log("FAIL spotlight");
  leave(1);
}

function leave(code) {
  // After Playwright's listener, which kills Chromium: what that writes cannot be removed
  // before it has ended.
  process.on("exit", () => rmSync(temporary, { recursive: true, force: true, maxRetries: 10 }));
  process.exit(code);
}

async function main() {
  const spotlight = await startSpotlight();
  try {
    runQuickstart(spotlight.url);
    const browser = await startChromium();
    try {
      await look(browser.pages()[0], spotlight.url);
    } catch (error) {
      console.error(await browser.pages()[0].innerText("body").catch(String));
      throw error;
    } finally {
      await browser.close();
    }
  } finally {
    await spotlight.stop();
  }
  const shown = "one trace of three services";
  if (check) return shown;
  execFileSync("pngquant", ["--force", "--speed=1", `--output=${png}`, "128", png], { timeout: 60_000 });
  return `${shown}, ${png}, ${Math.ceil(statSync(png).size / 1_000)} kB`;
}

function runQuickstart(url) {
  const built = process.env.QUICKSTART;
  const [command, ...before] = built
    ? [resolve(built)]
    : ["cargo", "run", "--quiet", "--locked", "--example", "quickstart", "--"];
  const environment = Object.entries(process.env).filter(([name]) => !name.startsWith("SENTRY_"));
  execFileSync(command, [...before, "--spotlight", url], {
    cwd: root,
    env: Object.fromEntries(environment),
    stdio: ["ignore", "ignore", "inherit"],
    // It may be built first.
    timeout: built ? 60_000 : 15 * 60_000,
  });
}

async function startSpotlight() {
  const serve = fileURLToPath(new URL("serve.mjs", import.meta.url));
  // It ends with this process, however that does: only this has the other end of its input.
  const spotlight = spawn(process.execPath, [serve, "--until-stdin-ends", "0"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = once(spotlight, "close");
  const timer = setTimeout(() => spotlight.kill(), 60_000);
  for await (const line of createInterface(spotlight.stdout)) {
    const url = line.match(/^Spotlight is at (.*)/)?.[1];
    if (!url) continue;
    clearTimeout(timer);
    spotlight.stdout.resume();
    const stop = () => {
      spotlight.stdin.end();
      return ended;
    };
    return { url, stop };
  }
  throw new Error("Spotlight did not start");
}

function startChromium() {
  // Playwright talks to it by a pipe: it too ends with this process, however that does.
  return chromium.launchPersistentContext(join(temporary, "profile"), {
    executablePath: process.env.CHROMIUM,
    // What is dragged is as tall as all that is told of a span.
    viewport: { width: 1440, height: 2000 },
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",
    ],
  });
}

async function look(page, url) {
  await page.goto(`${url}/telemetry/traces`);
  const row = page.locator("a", { hasText: "14 spans, 5 txns" });
  await row.click();
  equal(await page.locator('a[href="/telemetry/errors"]').innerText(), "Errors\n8");

  const tree = page.locator("ul.tree").first();
  await tree.waitFor();
  const folded = tree.locator("svg.rotate-0");
  while (await folded.count()) await folded.first().click();
  deepEqual(await tree.locator("a").evaluateAll(describe), TRACE);

  const servers = tree.locator("a", { hasText: "grpc.server" });
  const front = await (await select(page, servers.nth(0))).innerText();
  const details = await select(page, servers.nth(3));
  const back = await details.innerText();
  match(front, /"OK"/);
  match(back, /"NOT_FOUND"/);
  const port = (text) => text.match(/server\.port\s*:\s*(\d+)/)[1];
  notEqual(port(front), port(back));

  // Wide enough for whole names.
  await drag(page, page.locator(".resizer.shrink-0"), 120);
  await drag(page, tree.locator(".span-resizer").last(), 110);
  // The page makes the details as tall as all that they tell, with nothing beside their
  // lower half: as tall as the tree, and scrolled to the attributes, they need less room.
  const above = await row.boundingBox();
  const spans = await tree.boundingBox();
  const end = spans.y + spans.height + 16;
  const scrolled = details.locator(".overflow-y-auto").first();
  const height = end - (await scrolled.boundingBox()).y;
  await scrolled.evaluate((element, height) => {
    element.style.height = `${height}px`;
    element.scrollTop = element.scrollHeight;
  }, height);
  await page.screenshot({ path: png, clip: { x: above.x, y: above.y, width: above.width, height: end - above.y } });
}

/** Selects a span, and gives back where the page tells more of it. */
async function select(page, span) {
  const id = (await span.getAttribute("href")).split("/").at(-1);
  await span.click();
  const told = page.locator(".resizer.shrink-0 + *");
  await told.getByText(id).waitFor();
  // More than ten are folded.
  const folded = told.locator(".node-ellipsis");
  if (await folded.count()) await folded.click();
  return told;
}

async function drag(page, handle, distance) {
  const { x, y, height } = await handle.boundingBox();
  await page.mouse.move(x + 1, y + height - 4);
  await page.mouse.down();
  for (const part of [0.5, 1]) {
    // It looks at the mouse 60 times a second, and where that is on nothing else.
    await page.waitForTimeout(100);
    await page.mouse.move(x + part * distance, page.viewportSize().height - 20);
  }
  await page.waitForTimeout(100);
  await page.mouse.up();
  await page.mouse.move(0, 0);
}

/** The spans as lines, one that is shown as failed with a mark. */
function describe(links) {
  return links.map((link) => {
    let depth = -1;
    for (let list = link.closest("ul.tree"); list; list = list.parentElement.closest("ul.tree")) depth += 1;
    const failed = link.querySelector(".text-red-400") ? "!" : "";
    const operation = link.querySelector(".font-bold.whitespace-nowrap").textContent;
    const name = link.querySelector("[title]").textContent;
    return `${"  ".repeat(depth)}${failed}${operation} ${name}`;
  });
}
