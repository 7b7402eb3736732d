// A browser that a test drives: node browser.mjs CHROMIUM. Reads one command a line, as JSON, and answers each
// with one line.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const axe = readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const browser = await chromium.launch({ executablePath: process.argv[2], args: ["--no-sandbox"] });
let page;
let errors = [];

const commands = {
  async newPage({ width = 1200, height = 900, colorScheme = "light", javaScriptEnabled = true }) {
    await page?.context().close();
    const context = await browser.newContext({ viewport: { width, height }, colorScheme, javaScriptEnabled });
    page = await context.newPage();
    errors = [];
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("dialog", (dialog) => {
      errors.push(`dialog: ${dialog.message()}`);
      dialog.dismiss();
    });
    page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  },
  goto: ({ url }) => page.goto(url).then((response) => response.status()),
  run: ({ expression }) => page.evaluate(expression),
  click: ({ selector }) => page.click(selector),
  fill: ({ selector, text }) => page.fill(selector, text),
  press: ({ selector, key }) => page.press(selector, key),
  upload: ({ selector, path }) => page.setInputFiles(selector, path),
  // The page's policy permits no eval, which Playwright's own waiting needs.
  async waitFor({ expression, timeout }) {
    const end = Date.now() + timeout;
    for (;;) {
      const found = await page.evaluate(expression).catch(() => false); // while another page is loaded
      if (found) return true;
      if (Date.now() > end) throw new Error(`waited in vain for ${expression}`);
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  },
  // In a world of its own: the page's policy permits no script of others.
  async violations() {
    const session = await page.context().newCDPSession(page);
    const { frameTree } = await session.send("Page.getFrameTree");
    const { executionContextId: contextId } = await session.send("Page.createIsolatedWorld", { frameId: frameTree.frame.id });
    await session.send("Runtime.evaluate", { contextId, expression: axe });
    const expression = "axe.run().then(({ violations }) => JSON.stringify(violations.map(({ id, nodes }) => [id, nodes.map(({ html, failureSummary }) => [html, failureSummary])])))";
    const { result, exceptionDetails } = await session.send("Runtime.evaluate", { contextId, expression, awaitPromise: true });
    await session.detach();
    if (exceptionDetails) throw new Error(exceptionDetails.text);
    return JSON.parse(result.value);
  },
  async heapMb() {
    const session = await page.context().newCDPSession(page);
    await session.send("HeapProfiler.collectGarbage");
    const { usedSize } = await session.send("Runtime.getHeapUsage");
    await session.detach();
    return usedSize / 1e6;
  },
  offline: ({ offline }) => page.context().setOffline(offline),
  url: () => page.url(),
  screenshot: ({ path }) => page.screenshot({ path, fullPage: true }).then(() => path),
  errors: () => errors,
};

console.log(JSON.stringify({ result: "ready" }));
for await (const line of createInterface({ input: process.stdin })) {
  const { command: name, ...given } = JSON.parse(line);
  try {
    console.log(JSON.stringify({ result: (await commands[name](given)) ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}
await browser.close();
process.exit(0);
