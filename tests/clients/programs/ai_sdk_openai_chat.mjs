// The AI SDK's `openai.chat`, and the embeddings of the same provider.
import { createOpenAI } from "@ai-sdk/openai";
import { embedMany } from "ai";
import { chat, citations, stream, streamedCitations, tools, withDocuments } from "./ai_sdk_models.mjs";
import { API_KEY, BASE_URL, report, TEXTS } from "./reporting.mjs";

const openai = createOpenAI({ baseURL: BASE_URL, apiKey: API_KEY });
const cited = createOpenAI({ baseURL: BASE_URL, apiKey: API_KEY, fetch: withDocuments }).chat("local/chat-model");

await report("@ai-sdk/openai", {
  chat: () => chat(openai.chat("backend-model")),
  stream: () => stream(openai.chat("backend-model")),
  citations: () => citations(cited),
  "streamed citations": () => streamedCitations(cited),
  embeddings: async () => {
    const model = openai.embedding("local/embedding-model");
    return { vectors: (await embedMany({ model, values: TEXTS, maxRetries: 0 })).embeddings };
  },
  tools: () => tools(openai.chat("tools")),
});
