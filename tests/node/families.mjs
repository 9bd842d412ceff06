// The official Node client over every family; prints one JSON object per line for the test that started it.
import OpenAI, { toFile } from "openai";

const client = new OpenAI({ apiKey: process.env.API_KEY, baseURL: process.env.BASE_URL, maxRetries: 0 });
const tell = (name, value) => console.log(JSON.stringify({ name, value }));
const file = () => toFile(Buffer.alloc(300_000, 7), "ox.png", { type: "image/png" });
const messages = [{ role: "user", content: "Hi" }];

async function collect(stream, pick) {
  const found = [];
  for await (const event of stream) found.push(pick(event));
  return found;
}

async function failure(name, call) {
  try {
    await call();
    tell(name, "no error");
  } catch (error) {
    tell(name, { kind: error.constructor.name, status: error.status, code: error.code, id: error.requestID ?? null });
  }
}

tell("chat", (await client.chat.completions.create({ model: "m", messages })).choices[0].message.content);
tell("chat stream", await collect(await client.chat.completions.create({ model: "m", messages, stream: true }),
  (chunk) => chunk.choices[0].delta.content ?? ""));
tell("completions", (await client.completions.create({ model: "m", prompt: "x" })).choices[0].text);
tell("completions stream", await collect(await client.completions.create({ model: "m", prompt: "x", stream: true }),
  (chunk) => chunk.choices[0]?.text ?? ""));
tell("embeddings", (await client.embeddings.create({ model: "m", input: "x" })).data[0].embedding);
tell("embeddings here",
  (await client.embeddings.create({ model: "local/embedding-model", input: ["a", "b"] })).data.map((one) => one.embedding.length));
tell("responses", (await client.responses.create({ model: "m", input: "x", store: false })).output_text);
tell("responses stream", await collect(await client.responses.create({ model: "m", input: "x", stream: true, store: false }), (e) => e.type));
tell("images", (await client.images.generate({ model: "m", prompt: "x" })).data[0].b64_json.length);
tell("images edit", (await client.images.edit({ model: "m", prompt: "x", image: await file() })).data[0].b64_json);
tell("images variation", (await client.images.createVariation({ model: "m", image: await file() })).data[0].url);
tell("transcription", (await client.audio.transcriptions.create({ file: await file(), model: "m" })).text);
tell("speech", (await (await client.audio.speech.create({ model: "m", voice: "alloy", input: "x" })).arrayBuffer()).byteLength);
tell("moderation", (await client.moderations.create({ model: "m", input: "x" })).results[0].flagged);
tell("rerank", (await client.post("/rerank", { body: { model: "m", query: "x", documents: ["a"] } })).results[0].index);
tell("ocr", (await client.post("/ocr", { body: { model: "m" } })).pages[0].markdown);
tell("video", (await client.post("/videos/generations", { body: { model: "m" } })).status);
await failure("bad request", () => client.embeddings.create({ model: "fail-400", input: "x" }));
await failure("unavailable", () => client.embeddings.create({ model: "fail-500", input: "x" }));
await failure("not found", () => client.embeddings.create({ model: "image-model", input: "x" }));
await failure("denied", () => client.embeddings.create({ model: "rego-denied", input: "x" }));
await failure("batches", () => client.batches.list());
await failure("stream breaks", async () => {
  const stream = await client.completions.create({ model: "breaks", prompt: "x", stream: true });
  for await (const _ of stream);
});
