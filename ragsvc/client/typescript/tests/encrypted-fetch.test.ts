import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";

import { ml_kem768_x25519 as xwing } from "@noble/post-quantum/hybrid.js";
import OpenAI from "openai";

import createRvencClient, {
  ApiError,
  BufferLimitError,
  ConfigurationError,
  createEncryptedFetch,
  EncryptionError,
  fingerprint,
  generateEncryptionKeys,
  isEncrypted,
  RequestTimeoutError,
} from "../src/index.js";
import { type Answer, begin, chunk, RvencServer } from "./support/rvenc-server.js";

const MESSAGES = [{ role: "user" as const, content: "Hi" }];
const CHAT = { model: "m", messages: MESSAGES };

const answerAll: Answer = (response, sealer) => {
  begin(response, sealer);
  response.write(sealer.event("data", chunk("Hel")) + sealer.event("data", chunk("lo", "stop")));
  response.end(sealer.done());
};

function post(stream = true): RequestInit {
  const headers = { Authorization: "Bearer key", "Content-Type": "application/json" };
  return { method: "POST", headers, body: JSON.stringify({ ...CHAT, stream }) };
}

async function failureOf(work: Promise<unknown>): Promise<Error> {
  const outcome = await work.then(
    () => undefined,
    (error: unknown) => error,
  );
  assert.ok(outcome instanceof Error, "it did not fail");
  return outcome;
}

test("the OpenAI SDK chats and streams through RVENC", async (context) => {
  const server = await RvencServer.start(context, answerAll);
  const fetch = createEncryptedFetch({ mode: "rvenc", serverUrl: server.url });
  const client = new OpenAI({ apiKey: "key", baseURL: `${server.url}/v1`, fetch, maxRetries: 0 });
  const whole = await client.chat.completions.create(CHAT);
  assert.equal(whole.choices[0]?.message.content, "Hello");
  assert.equal(whole.object, "chat.completion");
  let said = "";
  for await (const part of await client.chat.completions.create({ ...CHAT, stream: true })) {
    said += part.choices[0]?.delta.content ?? "";
  }
  assert.equal(said, "Hello");
  const chats = ["POST /rvenc/chat/completions", "POST /rvenc/chat/completions"];
  assert.deepEqual(server.seen, ["GET /rvenc/key", ...chats]); // the key is fetched once
  assert.equal(server.headers[0]?.authorization, undefined);
  assert.equal(server.headers[1]?.authorization, "Bearer key");
  assert.equal(server.nonces.size, 2);
});

test("createRvencClient has the options of Prem's SDK", async (context) => {
  const server = await RvencServer.start(context, answerAll);
  const encryptionKeys = await generateEncryptionKeys({ serverUrl: server.url });
  server.seen.length = 0;
  const client = await createRvencClient({
    apiKey: "key",
    serverUrl: server.url,
    encryptionKeys,
    requestTimeoutMs: 60_000,
    maxBufferSize: 20 * 1024 * 1024,
  });
  const answer = await client.chat.completions.create(CHAT);
  assert.equal(answer.choices[0]?.message.content, "Hello");
  let said = "";
  for await (const part of await client.chat.completions.create({ ...CHAT, stream: true })) {
    said += part.choices[0]?.delta.content ?? "";
  }
  assert.equal(said, "Hello");
  assert.ok(!server.seen.includes("GET /rvenc/key")); // the given keys are used
});

test("given keys may be hexadecimal, and their size is checked", async (context) => {
  const server = await RvencServer.start(context, answerAll);
  const { sharedSecret, cipherText } = await generateEncryptionKeys({ serverUrl: server.url });
  const hex = (data: Uint8Array | string) => Buffer.from(data as Uint8Array).toString("hex");
  const encryptionKeys = { sharedSecret: hex(sharedSecret), cipherText: hex(cipherText) };
  const fetch = createEncryptedFetch({ mode: "rvenc", serverUrl: server.url, encryptionKeys });
  assert.equal((await fetch(`${server.url}/v1/chat/completions`, post())).status, 200);
  const short = { ...encryptionKeys, sharedSecret: "ab" };
  assert.throws(
    () => createEncryptedFetch({ mode: "rvenc", serverUrl: server.url, encryptionKeys: short }),
    /sharedSecret must have 32 bytes/,
  );
});

test("the time limit ends a stream that never ends, read or not", async (context) => {
  const server = await RvencServer.start(context, (response, sealer) => {
    begin(response, sealer);
    response.write(sealer.event("data", chunk("Hel")));
    const timer = setInterval(() => response.write(sealer.event("data", chunk("."))), 20);
    response.on("close", () => clearInterval(timer));
  });
  const fetch = createEncryptedFetch({ mode: "rvenc", serverUrl: server.url, requestTimeoutMs: 400 });
  const started = performance.now();
  const unread = await fetch(`${server.url}/v1/chat/completions`, post());
  const response = await fetch(`${server.url}/v1/chat/completions`, post());
  const error = await failureOf(response.text());
  assert.ok(error instanceof RequestTimeoutError);
  assert.match(error.message, /timed out.*requestTimeoutMs \(400 ms\)/);
  assert.ok(performance.now() - started < 5000);
  assert.ok((await failureOf(unread.text())) instanceof RequestTimeoutError);
});

test("the time limit bounds a silent server, a silent key endpoint and an endless key check", async (context) => {
  const silent = createServer(() => undefined);
  await new Promise<void>((listening) => silent.listen(0, "127.0.0.1", listening));
  context.after(() => {
    silent.closeAllConnections();
    silent.close();
  });
  const serverUrl = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
  const keyless = createEncryptedFetch({ mode: "hpke-stream", serverUrl, requestTimeoutMs: 200 });
  assert.ok((await failureOf(keyless(`${serverUrl}/v1/models`))) instanceof RequestTimeoutError);

  const server = await RvencServer.start(context, () => undefined);
  const chats = createEncryptedFetch({ mode: "rvenc", serverUrl: server.url, requestTimeoutMs: 200 });
  const failure = await failureOf(chats(`${server.url}/v1/chat/completions`, post(false)));
  assert.ok(failure instanceof RequestTimeoutError);
  const verifyKey = () => new Promise<void>(() => undefined);
  const checked = createEncryptedFetch({ mode: "rvenc", serverUrl: server.url, requestTimeoutMs: 200, verifyKey });
  const stuck = await failureOf(checked(`${server.url}/v1/chat/completions`, post()));
  assert.ok(stuck instanceof RequestTimeoutError);
});

test("the OpenAI SDK reports the time limit as a timeout", async (context) => {
  const server = await RvencServer.start(context, () => undefined);
  const fetch = createEncryptedFetch({ mode: "rvenc", serverUrl: server.url, requestTimeoutMs: 100 });
  const client = new OpenAI({ apiKey: "key", baseURL: `${server.url}/v1`, fetch, maxRetries: 0 });
  const failure = await failureOf(client.chat.completions.create(CHAT));
  assert.ok(failure instanceof OpenAI.APIConnectionTimeoutError);
});

test("the caller's signal ends a stream and its connection", async (context) => {
  let closed: () => void = () => undefined;
  const ended = new Promise<void>((resolve) => (closed = resolve));
  const server = await RvencServer.start(context, (response, sealer) => {
    begin(response, sealer);
    response.write(sealer.event("data", chunk("Hel")));
    response.on("close", closed);
  });
  const fetch = createEncryptedFetch({ mode: "rvenc", serverUrl: server.url });
  const caller = new AbortController();
  const response = await fetch(`${server.url}/v1/chat/completions`, { ...post(), signal: caller.signal });
  const reader = response.body!.getReader();
  assert.match(new TextDecoder().decode((await reader.read()).value), /Hel/);
  const rest = failureOf(reader.read());
  caller.abort(new Error("enough"));
  assert.equal((await rest).message, "enough");
  await ended;
});

for (const stream of [true, false]) {
  test(`a response beyond maxBufferSize is refused with its name (stream: ${stream})`, async (context) => {
    const server = await RvencServer.start(context, (response, sealer) => {
      begin(response, sealer);
      const pieces = stream ? ["a".repeat(5000)] : Array.from({ length: 10 }, () => "a".repeat(400));
      response.end(pieces.map((piece) => sealer.event("data", chunk(piece))).join("") + sealer.done());
    });
    const fetch = createEncryptedFetch({ mode: "rvenc", serverUrl: server.url, maxBufferSize: 2000 });
    const reading = fetch(`${server.url}/v1/chat/completions`, post(stream)).then((response) => response.text());
    const error = await failureOf(reading);
    assert.ok(error instanceof BufferLimitError);
    assert.match(error.message, /larger than maxBufferSize \(2000 bytes\)/);
  });
}

test("a stream arrives event by event", async (context) => {
  let continueAnswer: () => void = () => undefined;
  const server = await RvencServer.start(context, (response, sealer) => {
    begin(response, sealer);
    response.write(sealer.event("data", chunk("first")));
    continueAnswer = () => response.end(sealer.event("data", chunk("second")) + sealer.done());
  });
  const fetch = createEncryptedFetch({ mode: "rvenc", serverUrl: server.url });
  const reader = (await fetch(`${server.url}/v1/chat/completions`, post())).body!.getReader();
  assert.match(new TextDecoder().decode((await reader.read()).value), /first/);
  continueAnswer();
  assert.match(new TextDecoder().decode((await reader.read()).value), /second/);
});

const BROKEN: Record<string, Answer> = {
  "cut off": (response, sealer) => {
    begin(response, sealer);
    response.end(sealer.event("data", chunk("Hello", "stop")));
  },
  changed: (response, sealer) => {
    begin(response, sealer);
    const last = sealer.event("data", chunk("Hello", "stop"));
    response.end(last.replace(/.(?=\n\n$)/, (digit) => (digit === "0" ? "1" : "0")) + sealer.done());
  },
  "under another nonce": (response, sealer) => {
    response.writeHead(200, { "Content-Type": "text/event-stream", "X-RVENC-Response-Nonce": "00".repeat(32) });
    response.end(sealer.event("data", chunk("Hello", "stop")) + sealer.done());
  },
  plaintext: (response) => {
    response.writeHead(200, { "Content-Type": "application/json" }).end('{"object":"chat.completion","choices":[]}');
  },
  "plaintext events": (response) => {
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.end(`data: ${JSON.stringify(chunk("Hello"))}\n\ndata: [DONE]\n\n`);
  },
  "a redirect": (response) => {
    response.writeHead(307, { Location: "/v1/chat/completions", "Content-Type": "text/event-stream" }).end();
  },
};

for (const [name, answer] of Object.entries(BROKEN)) {
  for (const stream of [true, false]) {
    test(`a response that is ${name} is refused (stream: ${stream})`, async (context) => {
      const server = await RvencServer.start(context, answer);
      const fetch = createEncryptedFetch({ mode: "rvenc", serverUrl: server.url });
      const reading = fetch(`${server.url}/v1/chat/completions`, post(stream)).then((response) => response.text());
      assert.ok((await failureOf(reading)) instanceof EncryptionError);
      assert.ok(!server.seen.includes("POST /v1/chat/completions"));
    });
  }
}

test("a sealed error of a chat that was not streamed has a status of an error", async (context) => {
  const server = await RvencServer.start(context, (response, sealer) => {
    begin(response, sealer);
    response.write(sealer.event("data", chunk("Hel")));
    response.end(sealer.event("error", { error: { message: "The model broke.", code: "upstream_error" } }));
  });
  const client = await createRvencClient({ apiKey: "key", serverUrl: server.url });
  const whole = await failureOf(client.chat.completions.create(CHAT));
  assert.ok(whole instanceof ApiError);
  assert.deepEqual([whole.status, whole.code, whole.message], [502, "upstream_error", "The model broke."]);
  const stream = await client.chat.completions.create({ ...CHAT, stream: true });
  const said: string[] = [];
  const streamed = await failureOf(
    (async () => {
      for await (const part of stream) said.push(part.choices[0]?.delta.content ?? "");
    })(),
  );
  assert.deepEqual(said, ["Hel"]);
  assert.ok(streamed instanceof ApiError);
  assert.equal(streamed.message, "The model broke.");
});

test("a sealed error of a chat that did not start keeps its status, and is one JSON document", async (context) => {
  const server = await RvencServer.start(context, (response, sealer) => {
    begin(response, sealer, 404);
    response.end(sealer.event("error", { error: { message: "No such model.", code: "model_not_found" } }));
  });
  const fetch = createEncryptedFetch({ mode: "rvenc", serverUrl: server.url });
  const response = await fetch(`${server.url}/v1/chat/completions`, post());
  assert.deepEqual([response.status, response.headers.get("content-type")], [404, "application/json"]);
  assert.equal(isEncrypted(response), true);
  assert.deepEqual(await response.json(), { error: { message: "No such model.", code: "model_not_found" } });
});

test("an error in plaintext passes, is marked, and its size is bounded", async (context) => {
  let body = '{"error":{"message":"No key."}}';
  const server = await RvencServer.start(context, (response) => {
    response.writeHead(401, { "Content-Type": "application/json", "Retry-After": "3" }).end(body);
  });
  const fetch = createEncryptedFetch({ mode: "rvenc", serverUrl: server.url });
  const response = await fetch(`${server.url}/v1/chat/completions`, post());
  assert.deepEqual([response.status, response.headers.get("retry-after")], [401, "3"]);
  assert.equal(isEncrypted(response), false);
  assert.equal(await response.text(), body);
  body = "x".repeat(70_000);
  const error = await failureOf(fetch(`${server.url}/v1/chat/completions`, post()));
  assert.ok(error instanceof EncryptionError);
});

test("after a change of the server's key a request is sealed again, once", async (context) => {
  const server = await RvencServer.start(context, answerAll);
  const fetch = createEncryptedFetch({ mode: "rvenc", serverUrl: server.url });
  const send = async () => (await fetch(`${server.url}/v1/chat/completions`, post())).status;
  assert.equal(await send(), 200);
  server.keys = xwing.keygen();
  server.seen.length = 0;
  assert.equal(await send(), 200);
  const chat = "POST /rvenc/chat/completions";
  assert.deepEqual(server.seen, [chat, "GET /rvenc/key", chat]);
});

test("with pinned keys a changed key is refused, and nothing is sent for it", async (context) => {
  const server = await RvencServer.start(context, answerAll);
  const pinnedKeys = [fingerprint(server.publicKey).toUpperCase()];
  const fetch = createEncryptedFetch({ mode: "rvenc", serverUrl: server.url, pinnedKeys });
  assert.equal((await fetch(`${server.url}/v1/chat/completions`, post())).status, 200);
  server.keys = xwing.keygen();
  server.seen.length = 0;
  const error = await failureOf(fetch(`${server.url}/v1/chat/completions`, post()));
  assert.ok(error instanceof EncryptionError);
  assert.match(error.message, /not among the pinned keys/);
  assert.deepEqual(server.seen, ["POST /rvenc/chat/completions", "GET /rvenc/key"]);
});

test("pinned keys hold for given keys too", async (context) => {
  const server = await RvencServer.start(context, answerAll);
  const serverUrl = server.url;
  const encryptionKeys = await generateEncryptionKeys({ serverUrl });
  const wrong = createEncryptedFetch({ mode: "rvenc", serverUrl, encryptionKeys, pinnedKeys: ["00".repeat(32)] });
  assert.ok((await failureOf(wrong(`${serverUrl}/v1/chat/completions`, post()))) instanceof EncryptionError);
  const pinnedKeys = [fingerprint(server.publicKey)];
  const right = createEncryptedFetch({ mode: "rvenc", serverUrl, encryptionKeys, pinnedKeys });
  assert.equal((await right(`${serverUrl}/v1/chat/completions`, post())).status, 200);
  const { sharedSecret, cipherText } = encryptionKeys;
  assert.throws(
    () => createEncryptedFetch({ mode: "rvenc", serverUrl, encryptionKeys: { sharedSecret, cipherText }, pinnedKeys }),
    ConfigurationError,
  );
  const refused = generateEncryptionKeys({ serverUrl, pinnedKeys: ["00".repeat(32)] });
  assert.ok((await failureOf(refused)) instanceof EncryptionError);
});

test("given keys are not replaced after a change of the server's key", async (context) => {
  const server = await RvencServer.start(context, answerAll);
  const encryptionKeys = await keysOf(server);
  const fetch = createEncryptedFetch({ mode: "rvenc", serverUrl: server.url, encryptionKeys });
  server.keys = xwing.keygen();
  server.seen.length = 0;
  const response = await fetch(`${server.url}/v1/chat/completions`, post());
  assert.deepEqual([response.status, isEncrypted(response)], [400, false]);
  assert.match(await response.text(), /encryption_error/);
  assert.deepEqual(server.seen, ["POST /rvenc/chat/completions"]);
});

test("a key is fetched again after an hour, and when it has expired", async (context) => {
  const server = await RvencServer.start(context, answerAll);
  let now = 1_800_000_000_000;
  const fetch = createEncryptedFetch({ mode: "rvenc", serverUrl: server.url, clock: () => now });
  const send = async () => void (await (await fetch(`${server.url}/v1/chat/completions`, post())).text());
  await send();
  now += 3_599_999;
  await send();
  assert.equal(server.seen.filter((seen) => seen === "GET /rvenc/key").length, 1);
  now += 1;
  await send();
  assert.equal(server.seen.filter((seen) => seen === "GET /rvenc/key").length, 2);
});

test("requests to other addresses and of other routes are refused before anything is sent", async (context) => {
  const server = await RvencServer.start(context, answerAll);
  const fetch = createEncryptedFetch({ mode: "rvenc", serverUrl: `${server.url}/team` });
  for (const url of [`${server.url}/v1/chat/completions`, `${server.url}/teams/v1`, "http://127.0.0.1:1/team/v1"]) {
    assert.ok((await failureOf(fetch(url, post()))) instanceof ConfigurationError, url);
  }
  const own = createEncryptedFetch({ mode: "rvenc", serverUrl: server.url, encryptionKeys: await keysOf(server) });
  server.seen.length = 0;
  const routes: [string, RequestInit][] = [
    ["/v1/embeddings", post()],
    ["/v1/chat/completions", { method: "GET" }],
    ["/v1/chat/completions", { method: "POST", body: "no JSON" }],
  ];
  for (const [path, init] of routes) {
    assert.ok((await failureOf(own(server.url + path, init))) instanceof ConfigurationError, path);
  }
  assert.deepEqual(server.seen, []);
});

async function keysOf(server: RvencServer) {
  return generateEncryptionKeys({ serverUrl: server.url });
}

test("a path prefix is kept in the addresses of keys and chats", async (context) => {
  const server = await RvencServer.start(context, answerAll);
  const fetch = createEncryptedFetch({ mode: "rvenc", serverUrl: `${server.url}/team/rag/` });
  const response = await fetch(`${server.url}/team/rag/v1/chat/completions`, post());
  assert.match(await response.text(), /Hel/);
  assert.deepEqual(server.seen, ["GET /team/rag/rvenc/key", "POST /team/rag/rvenc/chat/completions"]);
});

test("a server without TLS needs pinned or verified keys, unless it is on this machine", () => {
  const serverUrl = "http://rag.example.com";
  for (const mode of ["hpke", "hpke-stream", "rvenc"] as const) {
    assert.throws(() => createEncryptedFetch({ mode, serverUrl }), /needs pinned keys/);
    assert.throws(() => createEncryptedFetch({ mode, serverUrl: "http://127.evil.example.com" }), /needs pinned keys/);
    createEncryptedFetch({ mode, serverUrl, pinnedKeys: [] });
    createEncryptedFetch({ mode, serverUrl, verifyKey: () => undefined });
    for (const local of ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:8080"]) {
      createEncryptedFetch({ mode, serverUrl: local });
    }
  }
});

test("options without a meaning are refused", () => {
  const serverUrl = "https://rag.example.com";
  const wrong: (() => unknown)[] = [
    () => createEncryptedFetch({ mode: "tls" as "rvenc", serverUrl }),
    () => createEncryptedFetch({ mode: "rvenc", serverUrl, requestTimeoutMs: 0 }),
    () => createEncryptedFetch({ mode: "rvenc", serverUrl, maxBufferSize: Number.NaN }),
    () => createEncryptedFetch({ mode: "rvenc", serverUrl: "rag.example.com" }),
    () => createEncryptedFetch({ mode: "rvenc", serverUrl: "ftp://rag.example.com" }),
  ];
  for (const make of wrong) assert.throws(make, ConfigurationError);
});

function keyServer(context: TestContext, status: number, body: string): Promise<string> {
  const server = createServer((_, response) => response.writeHead(status).end(body));
  context.after(() => server.close());
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => resolve(`http://127.0.0.1:${(server.address() as AddressInfo).port}`));
  });
}

for (const [status, body] of [
  [404, "not here"],
  [200, "no JSON"],
  [200, "{}"],
  [200, '{"public_key": "AAAA"}'],
  [200, '{"public_key": "!"}'],
  [200, `{"public_key": "${Buffer.alloc(32).toString("base64")}"}`],
  [200, `{"public_key": "${Buffer.alloc(32, 9).toString("base64")}", "expires_at": "soon"}`],
] as const) {
  test(`a key response is refused: ${status} ${body.slice(0, 30)}`, async (context) => {
    const serverUrl = await keyServer(context, status, body);
    for (const mode of ["hpke", "hpke-stream", "rvenc"] as const) {
      const fetch = createEncryptedFetch({ mode, serverUrl });
      assert.ok((await failureOf(fetch(`${serverUrl}/v1/chat/completions`, post()))) instanceof EncryptionError);
    }
  });
}

test("RVENC sends the provider's key and address inside of the encrypted body", async (context) => {
  let asked: Record<string, unknown> = {};
  const server = await RvencServer.start(context, (response, sealer, request) => {
    asked = request;
    begin(response, sealer);
    response.end(sealer.event("data", chunk("Yes.", "stop")) + sealer.done());
  });
  const fetch = createEncryptedFetch({ mode: "rvenc", serverUrl: server.url });
  const headers = { "X-Provider-Key": "sk-mine", "X-Provider-Base-URL": "https://provider.example/v1" };
  const body = JSON.stringify({ model: "m", messages: [] });
  const response = await fetch(`${server.url}/v1/chat/completions`, { method: "POST", headers, body });
  assert.equal(response.status, 200);
  const given = { provider_key: "sk-mine", provider_base_url: "https://provider.example/v1" };
  assert.deepEqual(asked, { model: "m", messages: [], ...given });
  const sent = server.headers.at(-1) ?? {};
  assert.equal(sent["x-provider-key"] ?? sent["x-provider-base-url"], undefined);
});

test("a tool call with an impossible index takes no memory", async (context) => {
  const delta = { tool_calls: [-1, 1e12, 0.5].map((index) => ({ index, id: "c", function: { name: "f" } })) };
  const server = await RvencServer.start(context, (response, sealer) => {
    begin(response, sealer);
    response.end(sealer.event("data", { choices: [{ index: 0, delta, finish_reason: "stop" }] }) + sealer.done());
  });
  const fetch = createEncryptedFetch({ mode: "rvenc", serverUrl: server.url });
  const response = await fetch(`${server.url}/v1/chat/completions`, { method: "POST", body: "{}" });
  const answer = (await response.json()) as { choices: { message: { tool_calls: unknown[] } }[] };
  assert.deepEqual(answer.choices[0]?.message.tool_calls, []);
});
