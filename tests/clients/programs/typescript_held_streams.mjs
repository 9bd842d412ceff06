// Reads streams whose provider pauses in the middle: prints what has arrived, waits for a line, prints the rest.
import { createInterface } from "node:readline/promises";
import OpenAI from "openai";
import { createEncryptedFetch } from "ragsvc-client";

const { SERVER_URL: serverUrl, API_KEY: apiKey } = process.env;
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const chat = { model: "holds", messages: [{ role: "user", content: "Hi" }], stream: true };

const streams = [];
const begun = [];
for (const mode of ["hpke-stream", "rvenc"]) {
  const fetch = createEncryptedFetch({ mode, serverUrl, requestTimeoutMs: 60_000 });
  const client = new OpenAI({ apiKey, baseURL: `${serverUrl}/v1`, fetch, maxRetries: 0 });
  const chunks = (await client.chat.completions.create(chat))[Symbol.asyncIterator]();
  let said = "";
  while (said === "") said += (await chunks.next()).value.choices[0].delta.content ?? "";
  streams.push(chunks);
  begun.push(said);
}
console.log(JSON.stringify(begun));
await lines.next();
const rest = [];
for (const chunks of streams) {
  let said = "";
  for (let next = await chunks.next(); !next.done; next = await chunks.next())
    said += next.value.choices[0].delta.content ?? "";
  rest.push(said);
}
console.log(JSON.stringify(rest));
process.exit(0);
