// The official Node client.
import { createReadStream } from "node:fs";
import OpenAI from "openai";
import {
  API_KEY,
  BASE_URL,
  collected,
  CRANE_QUESTION,
  HELLO,
  QUESTION,
  report,
  STORE_KEY,
  TEXTS,
  UPLOAD,
  VECTOR_STORE_ID,
  WEATHER,
} from "./reporting.mjs";

const client = new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0 });
const storeClient = new OpenAI({ baseURL: BASE_URL, apiKey: STORE_KEY, maxRetries: 0 });
const searched = {
  model: "local/chat-model",
  input: QUESTION,
  tools: [{ type: "file_search", vector_store_ids: [VECTOR_STORE_ID] }],
  include: ["file_search_call.results"],
};
const greeting = { model: "backend-model", messages: [{ role: "user", content: HELLO }] };
const asked = { model: "local/chat-model", messages: [{ role: "user", content: QUESTION }], use_rag: true };
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "get_weather", parameters } }];

const sourceOf = ({ type, url_citation: cited }) => ({
  type,
  url: cited.url,
  title: cited.title,
  quote: cited.content,
  marker: [cited.start_index, cited.end_index],
});

/** The text of a response, its annotations, and what the search found. */
const resultOf = ({ output: [search, message], output_text: text }) => ({
  text,
  sources: message.content[0].annotations.map(({ type, file_id, filename, page }) => ({ type, file_id, filename, page })),
  found: search.results.map(({ file_id, filename, text: passage }) => ({ file_id, filename, text: passage })),
});

await report("openai", {
  chat: async () => ({ text: (await client.chat.completions.create(greeting)).choices[0].message.content }),
  stream: async () => ({
    pieces: await collected(
      await client.chat.completions.create({ ...greeting, stream: true }),
      (chunk) => chunk.choices[0].delta.content,
    ),
  }),
  citations: async () => {
    const { message } = (await client.chat.completions.create(asked)).choices[0];
    return { text: message.content, sources: message.annotations.map(sourceOf) };
  },
  "streamed citations": async () => {
    const { message } = (await client.chat.completions.stream(asked).finalChatCompletion()).choices[0];
    return { text: message.content, sources: message.annotations.map(sourceOf) };
  },
  embeddings: async () => {
    const { data } = await client.embeddings.create({ model: "local/embedding-model", input: TEXTS });
    return { vectors: data.map((item) => item.embedding) };
  },
  tools: async () => {
    const calls = [];
    const run = (argumentsOfCall) => {
      calls.push({ name: "get_weather", arguments: argumentsOfCall });
      return WEATHER;
    };
    const messages = [{ role: "user", content: "What is the weather in Paris?" }];
    const runnable = [{ type: "function", function: { ...tools[0].function, function: run } }];
    const runner = client.chat.completions.runTools({ model: "tools", messages, tools: runnable, stream: true });
    return { text: await runner.finalContent(), calls };
  },
  responses: async () => resultOf(await storeClient.responses.create(searched)),
  "streamed responses": async () => {
    const stream = storeClient.responses.stream(searched);
    const pieces = [];
    stream.on("response.output_text.delta", ({ delta }) => pieces.push(delta));
    return { ...resultOf(await stream.finalResponse()), pieces };
  },
  "vector stores": async () => {
    const stores = storeClient.vectorStores;
    const store = await stores.create({ name: "cranes", metadata: { place: "harbour" } });
    const file = await storeClient.files.create({ file: createReadStream(UPLOAD), purpose: "assistants" });
    const attributes = { kind: "crane" };
    const attached = await stores.files.createAndPoll(store.id, { file_id: file.id, attributes });
    const { file_counts: counts } = await stores.retrieve(store.id);
    const filters = { type: "eq", key: "kind", value: "crane" };
    const { data } = await stores.search(store.id, { query: CRANE_QUESTION, filters });
    return {
      status: attached.status,
      counts,
      found: data.map(({ file_id, filename, content }) => ({ file_id, filename, text: content[0].text })),
      file_id: file.id,
      content: await (await storeClient.files.content(file.id)).text(),
      deleted: [
        (await stores.files.delete(file.id, { vector_store_id: store.id })).deleted,
        (await stores.delete(store.id)).deleted,
        (await storeClient.files.delete(file.id)).deleted,
      ],
    };
  },
});
