// The page of a stand-in client: each app is a sandboxed frame behind the official host bridge.
import { AppBridge, PostMessageTransport } from "@modelcontextprotocol/ext-apps/app-bridge";

const POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'none'";
const DARK = {
  "--color-background-primary": "#262624",
  "--color-background-secondary": "#33322f",
  "--color-text-primary": "#f5f4ef",
  "--color-text-secondary": "#b3b0a6",
  "--color-border-primary": "#4a4945",
};

window.apps = [];

async function ask(method, params) {
  const response = await fetch("/rpc", { method: "POST", body: JSON.stringify({ method, params }) });
  const { result, error } = await response.json();
  if (error) throw new Error(error);
  return result;
}

window.openApp = async ({ theme, width, capabilities, toolInput, toolResult }) => {
  const { contents } = await ask("resources/read", { uri: "ui://backpropagate/run.html" });
  const frame = document.createElement("iframe");
  frame.sandbox = "allow-scripts";
  frame.style.cssText = `width: ${width}px; height: 40px; border: 1px solid #8886; border-radius: 8px`;
  const box = document.createElement("section");
  box.className = theme;
  box.append(frame);
  document.body.append(box);

  const app = { frame, asked: [], told: [] };
  const styles = theme === "dark" ? { variables: DARK } : undefined;
  const bridge = new AppBridge(null, { name: "stand-in", version: "1" }, capabilities, {
    hostContext: { theme, styles, displayMode: "inline" },
  });
  bridge.oncalltool = (params) => {
    app.asked.push(`${params.name} ${JSON.stringify(params.arguments)}`);
    return ask("tools/call", params);
  };
  bridge.onreadresource = (params) => {
    app.asked.push(params.uri);
    return ask("resources/read", params);
  };
  bridge.onupdatemodelcontext = async (params) => {
    app.told.push(params.content[0].text);
    return {};
  };
  bridge.onsizechange = ({ height }) => {
    if (height) frame.style.height = `${height + 2}px`;
  };
  const ready = new Promise((resolve) => {
    bridge.oninitialized = resolve;
  });
  await bridge.connect(new PostMessageTransport(frame.contentWindow, frame.contentWindow));
  frame.srcdoc = contents[0].text.replace(
    "<head>",
    `<head><meta http-equiv="Content-Security-Policy" content="${POLICY}">`,
  );
  await ready;
  app.bridge = bridge;
  window.apps.push(app);
  await bridge.sendToolInput({ arguments: toolInput });
  if (toolResult) await bridge.sendToolResult(toolResult);
  return window.apps.length - 1;
};

window.closeApp = async (index) => {
  await window.apps[index].bridge.teardownResource({});
  window.apps[index].frame.remove();
};
