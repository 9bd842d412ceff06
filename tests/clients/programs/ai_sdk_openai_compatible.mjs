// The AI SDK's `openai-compatible` provider, which has no sources.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText } from "ai";
import { chat, stream, tools } from "./ai_sdk_models.mjs";
import { API_KEY, BASE_URL, QUESTION, report, TEXTS } from "./reporting.mjs";

const service = createOpenAICompatible({ name: "ragsvc", baseURL: BASE_URL, apiKey: API_KEY });

await report("@ai-sdk/openai-compatible", {
  chat: () => chat(service("backend-model")),
  stream: () => stream(service("backend-model")),
  "cited text": async () => ({
    text: (await generateText({ model: service("local/chat-model+docs"), prompt: QUESTION, maxRetries: 0 })).text,
  }),
  embeddings: async () => {
    const model = service.embeddingModel("local/embedding-model");
    return { vectors: (await embedMany({ model, values: TEXTS, maxRetries: 0 })).embeddings };
  },
  tools: () => tools(service("tools")),
});
