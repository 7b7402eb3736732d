// A stand-in client with a real browser: node host.mjs CHROMIUM COMMAND… (of the server, over a pipe).
// Reads one command a line, as JSON, and answers each with one line.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { build } from "esbuild";
import { chromium } from "playwright-core";

const [browserPath, command, ...args] = process.argv.slice(2);
const extensions = { "io.modelcontextprotocol/ui": { mimeTypes: ["text/html;profile=mcp-app"] } };
const client = new Client(
  { name: "stand-in", version: "1" },
  { versionNegotiation: { mode: "auto" }, capabilities: { extensions } },
);
await client.connect(new StdioClientTransport({ command, args, stderr: "inherit", env: process.env }));

const bundle = await build({
  entryPoints: [new URL("host_page.mjs", import.meta.url).pathname],
  bundle: true,
  write: false,
  format: "iife",
  platform: "browser",
});
const script = bundle.outputFiles[0].text.replaceAll("</script", "<\\/script");
const style = "body { margin: 0 } section { padding: 12px } .dark { background: #262624 }";
const html = `<!doctype html><meta charset="utf-8"><style>${style}</style><body></body><script>${script}</script>`;

async function forward({ method, params }) {
  if (method === "tools/call") return client.callTool(params);
  return client.readResource(params, { cacheMode: "bypass" });
}

const web = createServer(async (request, response) => {
  if (request.url !== "/rpc") {
    response.setHeader("content-type", "text/html");
    return response.end(html);
  }
  let body = "";
  for await (const part of request) body += part;
  try {
    response.end(JSON.stringify({ result: await forward(JSON.parse(body)) }));
  } catch (error) {
    response.end(JSON.stringify({ error: error.message }));
  }
});
await new Promise((resolve) => web.listen(0, "127.0.0.1", resolve));

const browser = await chromium.launch({ executablePath: browserPath, args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 900, height: 3000 } });
const errors = [];
page.on("pageerror", (error) => errors.push(String(error)));
page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
await page.goto(`http://127.0.0.1:${web.address().port}/`);
const frame = (index) => page.frames()[index + 1];

const commands = {
  // toolResult: what the host shows; null: nothing yet; not given: what the tool returns.
  async open({ tool, arguments: toolInput, toolResult, ...options }) {
    if (toolResult === undefined) toolResult = await client.callTool({ name: tool, arguments: toolInput });
    return page.evaluate((all) => window.openApp(all), { ...options, toolInput, toolResult });
  },
  inFrame: ({ app, expression }) => frame(app).evaluate(expression),
  inPage: ({ expression }) => page.evaluate(expression),
  click: ({ app, selector }) => frame(app).click(selector),
  press: ({ app, selector, key }) => frame(app).press(selector, key),
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
await client.close();
process.exit(0);
