// The host of this frame: JSON-RPC by postMessage, as MCP Apps (2026-01-26) has it.
const bridge = {
  capabilities: {},
  onToolInput: () => {},
  onToolResult: () => {},
  onToolCancelled: () => {},
  onContext: () => {},
  onTeardown: () => {},
};
const unanswered = new Map();
let lastId = 0;

function send(message) {
  window.parent.postMessage({ jsonrpc: "2.0", ...message }, "*");
}

function request(method, params = {}) {
  const id = ++lastId;
  return new Promise((resolve, reject) => {
    unanswered.set(id, { resolve, reject });
    send({ id, method, params });
  });
}

function notify(method, params = {}) {
  send({ method, params });
}

function settle({ id, result, error }) {
  const waiting = unanswered.get(id);
  unanswered.delete(id);
  if (waiting && error) waiting.reject(Object.assign(new Error(error.message), { code: error.code }));
  else if (waiting) waiting.resolve(result);
}

function serve({ id, method, params = {} }) {
  switch (method) {
    case "ui/notifications/tool-input":
      return bridge.onToolInput(params.arguments ?? {});
    case "ui/notifications/tool-result":
      return bridge.onToolResult(params);
    case "ui/notifications/tool-cancelled":
      return bridge.onToolCancelled();
    case "ui/notifications/host-context-changed":
      return bridge.onContext(params);
    case "ui/resource-teardown":
      bridge.onTeardown();
      return send({ id, result: {} });
    case "ping":
      return send({ id, result: {} });
    default:
      if (id !== undefined) send({ id, error: { code: -32601, message: "Method not found" } });
  }
}

window.addEventListener("message", ({ source, data }) => {
  if (source !== window.parent || data?.jsonrpc !== "2.0") return;
  if (data.method) serve(data);
  else settle(data);
});

async function connect() {
  const answer = await request("ui/initialize", {
    protocolVersion: "2026-01-26",
    appInfo: { name: "backpropagate", version: "1" },
    appCapabilities: { availableDisplayModes: ["inline", "fullscreen"] },
  });
  bridge.capabilities = answer.hostCapabilities ?? {};
  bridge.onContext(answer.hostContext ?? {});
  notify("ui/notifications/initialized");
}

async function readJson(uri) {
  const { contents } = await request("resources/read", { uri });
  return JSON.parse(contents[0].text);
}

async function callTool(name, args) {
  const result = await request("tools/call", { name, arguments: args });
  if (result.isError) throw new Error(textOf(result) || "the call failed");
  return result.structuredContent ?? {};
}

function textOf(result) {
  return (result.content ?? []).filter(({ type }) => type === "text").map(({ text }) => text).join("\n");
}
