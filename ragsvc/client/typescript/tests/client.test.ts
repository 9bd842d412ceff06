import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";

import {
  ApiError,
  BufferLimitError,
  ConfigurationError,
  createEncryptedFetch,
  DocumentFailedError,
  IncompleteStreamError,
  RagsvcClient,
} from "../src/index.js";
import { aggregateChunks } from "../src/chunk-aggregation.js";
import { readEvents } from "../src/event-stream.js";
import { chunk } from "./support/rvenc-server.js";

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

async function clientOf(context: TestContext, handler: Handler): Promise<RagsvcClient> {
  const server = createServer(handler);
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  context.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const serverUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/team/`;
  return new RagsvcClient({ serverUrl, apiKey: "key" });
}

const CHAT = { model: "m", messages: [{ role: "user" as const, content: "Hi" }] };

test("an error has the fields of the service's error", async (context) => {
  const client = await clientOf(context, (request, response) => {
    assert.deepEqual([request.method, request.url], ["GET", "/team/v1/rag/documents/doc%2F1"]);
    assert.equal(request.headers.authorization, "Bearer key");
    const error = { message: "Slow down.", type: "rate_limit", param: "x", code: "rate_limited", request_id: "r1" };
    response.writeHead(429, { "Retry-After": "7" }).end(JSON.stringify({ error }));
  });
  await assert.rejects(client.documents.get("doc/1"), (error) => {
    assert.ok(error instanceof ApiError);
    const { message, status, type, code, param, requestId, retryAfterS } = error;
    const fields = [message, status, type, code, param, requestId, retryAfterS];
    assert.deepEqual(fields, ["Slow down.", 429, "rate_limit", "rate_limited", "x", "r1", 7]);
    return true;
  });
});

test("an error that is no JSON has its status", async (context) => {
  const client = await clientOf(context, (_, response) => response.writeHead(502).end("<html>bad gateway</html>"));
  await assert.rejects(client.search({ query: "x" }), { name: "ApiError", status: 502, message: /status 502/ });
});

test("the lists of a client have their parameters, and all pages are read", async (context) => {
  const asked: string[] = [];
  const client = await clientOf(context, (request, response) => {
    asked.push(request.url ?? "");
    const second = request.url?.includes("after=doc_1");
    const data = [{ id: second ? "doc_2" : "doc_1" }];
    response.end(JSON.stringify({ object: "list", data, last_id: data[0]?.id, has_more: !second }));
  });
  const found: string[] = [];
  const options = { status: ["ready" as const, "failed" as const], parentId: "doc_0", filters: { key: "a" } };
  for await (const document of client.documents.listAll(options)) found.push(document.id);
  assert.deepEqual(found, ["doc_1", "doc_2"]);
  const query = new URL(asked[1] ?? "", "http://localhost").searchParams;
  const sent = { limit: "100", status: "ready,failed", parent_id: "doc_0", filters: '{"key":"a"}', after: "doc_1" };
  assert.deepEqual(Object.fromEntries(query), sent);
});

function events(...lines: [string, unknown][]): Handler {
  return (_, response) => {
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.end(
      lines.map(([name, data]) => `: working\n\nevent: ${name}\ndata: ${JSON.stringify(data)}\n\n`).join(""),
    );
  };
}

test("waiting for a document ends when it is ready, failed, deleted or the events break off", async (context) => {
  const ready = await clientOf(context, events(["progress", { status: "processing" }], ["ready", { status: "ready" }]));
  assert.equal((await ready.documents.waitUntilReady("doc_1")).status, "ready");
  const error = { code: "encrypted", message: "The file needs a password." };
  const failed = await clientOf(context, events(["failed", { status: "failed", error }]));
  await assert.rejects(failed.documents.waitUntilReady("doc_1"), (reason) => {
    assert.ok(reason instanceof DocumentFailedError);
    assert.deepEqual([reason.documentId, reason.code, reason.message], ["doc_1", error.code, error.message]);
    return true;
  });
  const deleted = await clientOf(context, events(["deleted", { id: "doc_1" }]));
  await assert.rejects(deleted.documents.waitUntilReady("doc_1"), { code: "deleted" });
  const broken = await clientOf(context, events(["progress", { status: "processing" }]));
  await assert.rejects(broken.documents.waitUntilReady("doc_1"), IncompleteStreamError);
});

test("waiting asks again where events are refused, until the signal is aborted", async (context) => {
  let left = 2;
  const client = await clientOf(context, (request, response) => {
    if (request.url?.endsWith("/events")) response.writeHead(400).end("{}");
    else response.end(JSON.stringify({ status: left-- > 0 ? "processing" : "ready" }));
  });
  assert.equal((await client.documents.waitUntilReady("doc_1")).status, "ready");
  left = Number.POSITIVE_INFINITY;
  const waiting = client.documents.waitUntilReady("doc_1", { signal: AbortSignal.timeout(250) });
  await assert.rejects(waiting, { name: "TimeoutError" });
});

test("a streamed chat without its end, or with an error, is an error", async (context) => {
  for (const [rest, expected] of [
    ["", IncompleteStreamError],
    ["data: no JSON\n\n", IncompleteStreamError],
    ['data: {"error": {"message": "The model broke."}}\n\n', ApiError],
  ] as const) {
    const client = await clientOf(context, (_, response) =>
      response.end(`data: ${JSON.stringify(chunk("a"))}\n\n${rest}`),
    );
    const stream = await client.chat.completions.create({ ...CHAT, stream: true });
    const said: unknown[] = [];
    await assert.rejects(async () => {
      for await (const part of stream) said.push(part.choices[0]?.delta.content);
    }, expected);
    assert.deepEqual(said, ["a"]);
  }
});

for (const begun of [true, false]) {
  test(`cancelling a chat ends its connection (begun: ${begun})`, async (context) => {
    let closed: () => void = () => undefined;
    const ended = new Promise<void>((resolve) => (closed = resolve));
    const client = await clientOf(context, (_, response) => {
      response.on("close", closed);
      response.write(`data: ${JSON.stringify(chunk("a"))}\n\n`);
    });
    const stream = await client.chat.completions.create({ ...CHAT, stream: true });
    if (begun) await stream[Symbol.asyncIterator]().next();
    await stream.cancel();
    await ended;
  });
}

test("an API key is required", () => {
  const make = () => new RagsvcClient({ serverUrl: "https://rag.example.com", apiKey: "" });
  assert.throws(make, ConfigurationError);
});

test("events are read in slices of any size, with several lines of data", async () => {
  const text = "event: a\ndata: é1\ndata:2\n\n:   \n\ndata: {}\n\ndata: incomplete";
  const bytes = new TextEncoder().encode(text);
  for (const size of [1, 2, 5, 100]) {
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
        controller.close();
      },
    });
    const found = [];
    for await (const event of readEvents(body)) found.push(event);
    assert.deepEqual(found, [
      { name: "a", data: "é1\n2" },
      { name: "message", data: "{}" },
    ]);
  }
});

test("a one-shot response beyond maxBufferSize is refused before it is opened", async () => {
  const key = JSON.stringify({ public_key: Buffer.alloc(32, 9).toString("base64") });
  const headers = { "Content-Type": "application/vnd.oryxen.hpke" };
  const fake: typeof fetch = async (input) =>
    String(input).endsWith("/v1/hpke/key") ? new Response(key) : new Response("x".repeat(1001), { headers });
  const serverUrl = "https://rag.example.com";
  const encrypted = createEncryptedFetch({ mode: "hpke", serverUrl, fetch: fake, maxBufferSize: 1000 });
  await assert.rejects(encrypted(`${serverUrl}/v1/models`), BufferLimitError);
  await assert.rejects(encrypted(`${serverUrl}/v1/models`, { method: "HEAD" }), ConfigurationError);
});

test("chunks join into one completion: texts, tool calls, annotations, log probabilities, usage", () => {
  const call = (index: number, part: object) => ({
    choices: [{ index: 0, delta: { tool_calls: [{ index, ...part }] } }],
  });
  const whole = aggregateChunks([
    { id: "c", object: "chat.completion.chunk", choices: [{ index: 0, delta: { role: "assistant", content: "Por" } }] },
    { id: "c", choices: [{ index: 0, delta: { content: "to" }, logprobs: { content: [1] } }], usage: null },
    { id: "c", choices: [{ index: 1, delta: { content: "x" }, finish_reason: "length" }] },
    call(0, { id: "t1", function: { name: "get", arguments: '{"a"' } }),
    call(0, { function: { arguments: ":1}" } }),
    call(1, { id: "t2", function: { name: "set", arguments: "{}" } }),
    { choices: [{ index: 0, delta: { annotations: [{ index: 1 }] }, logprobs: { content: [2] } }] },
    { choices: [{ index: 0, delta: {}, finish_reason: "stop" }], usage: { total_tokens: 3 } },
  ]);
  assert.deepEqual(whole, {
    id: "c",
    object: "chat.completion",
    usage: { total_tokens: 3 },
    choices: [
      {
        index: 0,
        message: {
          role: "assistant",
          content: "Porto",
          tool_calls: [
            { id: "t1", type: "function", function: { name: "get", arguments: '{"a":1}' } },
            { id: "t2", type: "function", function: { name: "set", arguments: "{}" } },
          ],
          annotations: [{ index: 1 }],
        },
        logprobs: { content: [1, 2] },
        finish_reason: "stop",
      },
      { index: 1, message: { role: "assistant", content: "x" }, finish_reason: "length" },
    ],
  });
  const single = { object: "chat.completion", choices: [] };
  assert.equal(aggregateChunks([single]), single);
});
