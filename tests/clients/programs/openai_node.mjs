// The official Node client.
import OpenAI from "openai";
import { API_KEY, BASE_URL, collected, HELLO, QUESTION, report, TEXTS, WEATHER } from "./reporting.mjs";

const client = new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0 });
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
});
