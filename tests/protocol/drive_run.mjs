// The official TypeScript client through the whole life of a run: inspect, train, progress, get_run, abort, cancel.
//
//     node drive_run.mjs legacy|auto|2026-07-28 INPUTS [URL TOKEN]        without URL over a pipe
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';

const [mode, inputs, url, token] = process.argv.slice(2);
const data = { dataset: `${inputs}/data.jsonl`, model: `${inputs}/model` };

function transport() {
  if (url) {
    return new StreamableHTTPClientTransport(new URL(url), {
      requestInit: { headers: { Authorization: `Bearer ${token}` } },
    });
  }
  const args = ['-P', '-m', 'backpropagate', 'serve', '--root', inputs];
  return new StdioClientTransport({ command: 'python', args, env: process.env, stderr: 'ignore' });
}

const eras = mode === '2026-07-28' ? { pin: mode } : mode;
const client = new Client({ name: 'drive-run', version: '0' }, { versionNegotiation: { mode: eras } });
await client.connect(transport());

const call = (name, args, options = {}) =>
  client.callTool({ name, arguments: args }, { timeout: 120_000, ...options });

async function good(name, args, options) {
  const result = await call(name, args, options);
  assert(!result.isError, JSON.stringify(result));
  return result.structuredContent;
}

async function statusUntil(run_id, holds) {
  for (;;) {
    const status = await good('get_run', { run_id });
    if (holds(status)) return status;
    await pause(200);
  }
}

const { tools } = await client.listTools();
assert(tools.some((tool) => tool.name === 'train'));
assert((await good('inspect_dataset', data)).rows > 0);

const heard = [];
const short = { ...data, steps: 5, batch_size: 2, lora_r: 4, seed: process.pid, new_run: true, wait_s: 100 };
const trained = await good('train', short, { onprogress: (progress) => heard.push(progress.progress) });
assert.equal(trained.status, 'completed');
assert(heard.length > 1 && heard.every((value, index) => !index || value > heard[index - 1]), String(heard));

const long = await good('train', { ...short, steps: 100_000, wait_s: 1 });
assert(['queued', 'running'].includes(long.status), long.status);
const { run_id } = long;
await statusUntil(run_id, (status) => status.step > 1);

const abort = new AbortController();
setTimeout(() => abort.abort(), 300);
await assert.rejects(call('get_run', { run_id, wait_s: 60 }, { signal: abort.signal }));
await assert.rejects(call('get_run', { run_id, wait_s: 60 }, { timeout: 500 }));
assert.equal((await good('get_run', { run_id })).status, 'running', 'a run survives the end of a call');

await good('cancel_run', { run_id });
const cancelled = await statusUntil(run_id, (status) => status.status !== 'running');
assert.equal(cancelled.status, 'cancelled');
assert(cancelled.adapter_path);

const wrong = await call('train', { datset: 'x' });
assert(wrong.isError && wrong.content[0].text.includes('dataset'));
assert((await good('list_runs', {})).runs.length >= 2);
console.log(`${url ? 'HTTP' : 'pipe'} ${mode}, protocol ${client.getNegotiatedProtocolVersion()}: good`);
await client.close();
process.exit(0); // a stream that still waits would keep the process
