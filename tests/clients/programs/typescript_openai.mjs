// The official OpenAI SDK and our typed client over an encrypted fetch; prints what they return as JSON.
import OpenAI, { toFile } from "openai";
import { citationsOf, createEncryptedFetch, isEncrypted, RagsvcClient } from "ragsvc-client";

const { SERVER_URL: serverUrl, API_KEY: apiKey, MODE: mode, QUESTION: question, TEXT: text } = process.env;
const responses = [];
const encryptedFetch = createEncryptedFetch({ mode, serverUrl });
const fetch = async (input, init) => {
  const response = await encryptedFetch(input, init);
  responses.push([response.status, isEncrypted(response)]);
  return response;
};
const openai = new OpenAI({ apiKey, baseURL: `${serverUrl}/v1`, fetch, maxRetries: 0 });
const ragsvc = new RagsvcClient({ serverUrl, apiKey, fetch });
const chat = { model: "local/chat-model", messages: [{ role: "user", content: question }], use_rag: true };

async function attempt(call) {
  try {
    return await call();
  } catch (error) {
    const { name, status, code, message } = error instanceof OpenAI.APIConnectionError ? error.cause : error;
    return { failed: name, status, code, message };
  }
}

async function streamed(client, citations) {
  let text = "";
  const found = [];
  for await (const chunk of await client.chat.completions.create({ ...chat, stream: true })) {
    text += chunk.choices[0]?.delta.content ?? "";
    found.push(...citations(chunk));
  }
  return { text, quotes: found.map((citation) => citation.quote) };
}

async function whole(client, citations) {
  const answer = await client.chat.completions.create(chat);
  const quotes = citations(answer).map((citation) => citation.quote);
  return { text: answer.choices[0].message.content, quotes, usage: answer.usage?.total_tokens > 0 };
}

const results = {};
results.upload = await attempt(async () => {
  const file = await toFile(Buffer.from(text), "archive.txt", { type: "text/plain" });
  const form = new FormData();
  form.set("file", file);
  const document = await openai.post("/rag/documents", { body: form, query: { wait_s: 60 } });
  return { filename: document.filename, status: document.status, bytes: document.bytes };
});
results.documents = await attempt(async () => {
  const uploaded = await ragsvc.documents.upload(`${text} The keeper is Oda.`, {
    filename: "keeper é.txt",
    mediaType: "text/plain",
    collection: "people",
    metadata: { year: 1906 },
    waitS: 0,
  });
  const ready = await ragsvc.documents.waitUntilReady(uploaded.id, { signal: AbortSignal.timeout(60_000) });
  const got = await ragsvc.documents.get(uploaded.id);
  const listed = await ragsvc.documents.list({
    collection: "people",
    filters: { type: "eq", key: "year", value: 1906 },
  });
  const all = [];
  for await (const document of ragsvc.documents.listAll({ limit: 1 })) all.push(document.filename);
  const content = await (await ragsvc.documents.content(uploaded.id)).text();
  const renamed = await ragsvc.documents.update(uploaded.id, { filename: "keeper.txt" });
  const search = await ragsvc.search({ query: "Who is the keeper?", collection: "people", top_k: 1 });
  const deleted = await ragsvc.documents.delete(uploaded.id);
  const gone = await attempt(() => ragsvc.documents.get(uploaded.id));
  return {
    created: uploaded.created,
    status: ready.status,
    filename: got.filename,
    metadata: got.metadata,
    listed: listed.data.map((document) => document.id === uploaded.id),
    all: all.sort(),
    content: content === `${text} The keeper is Oda.`,
    renamed: renamed.filename,
    found: search.data.map((hit) => hit.filename),
    deleted: deleted.deleted,
    gone,
  };
});
results.whole = await attempt(() => whole(openai, citationsOf));
results.stream = await attempt(() => streamed(openai, citationsOf));
results.ownWhole = await attempt(() => whole(ragsvc, citationsOf));
results.ownStream = await attempt(() => streamed(ragsvc, citationsOf));
results.embeddings = await attempt(async () => {
  const answer = await openai.embeddings.create({ model: "local/embedding-model", input: ["a", "b"] });
  return answer.data.map((item) => item.embedding.length);
});
results.models = await attempt(async () => (await openai.models.list()).data.map((model) => model.id));
results.wrong = await attempt(() => openai.chat.completions.create({ ...chat, temperature: 9 }));
results.responses = responses;
console.log(JSON.stringify(results));
