// The AI SDK's `openai`, which uses the Responses API.
import { createOpenAI } from "@ai-sdk/openai";
import { embedMany, generateText, streamText } from "ai";
import { chat, stream, tools } from "./ai_sdk_models.mjs";
import { API_KEY, BASE_URL, collected, QUESTION, report, STORE_KEY, TEXTS, VECTOR_STORE_ID } from "./reporting.mjs";

const openai = createOpenAI({ baseURL: BASE_URL, apiKey: API_KEY });
const stores = createOpenAI({ baseURL: BASE_URL, apiKey: STORE_KEY });
const searched = {
  model: stores("local/chat-model"),
  prompt: QUESTION,
  tools: { file_search: stores.tools.fileSearch({ vectorStoreIds: [VECTOR_STORE_ID] }) },
  providerOptions: { openai: { include: ["file_search_call.results"] } },
  maxRetries: 0,
};

const resultOf = (text, sources, toolResults) => ({
  text,
  sources: sources.map(({ sourceType, filename, providerMetadata }) => ({
    type: sourceType,
    filename,
    file_id: providerMetadata.openai.fileId,
  })),
  found: toolResults.flatMap(({ output }) =>
    output.results.map(({ fileId, filename, text: passage }) => ({ file_id: fileId, filename, text: passage })),
  ),
});

await report("@ai-sdk/openai", {
  chat: () => chat(openai("backend-model")),
  stream: () => stream(openai("backend-model")),
  embeddings: async () => {
    const model = openai.embedding("local/embedding-model");
    return { vectors: (await embedMany({ model, values: TEXTS, maxRetries: 0 })).embeddings };
  },
  tools: () => tools(openai("tools")),
  responses: async () => {
    const { text, sources, toolResults } = await generateText(searched);
    return resultOf(text, sources, toolResults);
  },
  "streamed responses": async () => {
    const failures = [];
    const result = streamText({ ...searched, onError: ({ error }) => failures.push(error) });
    const pieces = await collected(result.textStream);
    if (failures.length > 0) throw failures[0];
    return { ...resultOf(await result.text, await result.sources, await result.toolResults), pieces };
  },
});
