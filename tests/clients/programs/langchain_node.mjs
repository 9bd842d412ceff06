// LangChain for JavaScript.
import { HumanMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { z } from "zod";
import {
  API_KEY,
  BASE_URL,
  collected,
  HELLO,
  QUESTION,
  report,
  STORE_KEY,
  TEXTS,
  VECTOR_STORE_ID,
  WEATHER,
} from "./reporting.mjs";

const service = { apiKey: API_KEY, configuration: { baseURL: BASE_URL }, maxRetries: 0 };
const searching = () =>
  new ChatOpenAI({
    ...service,
    model: "local/chat-model",
    apiKey: STORE_KEY,
    useResponsesApi: true,
  }).bindTools([{ type: "file_search", vector_store_ids: [VECTOR_STORE_ID] }], { include: ["file_search_call.results"] });

const resultOf = (message) => {
  const content = message.content.filter(({ type }) => type === "text");
  const [search] = message.additional_kwargs.tool_outputs;
  return {
    text: message.text,
    sources: content
      .flatMap(({ annotations }) => annotations)
      .map(({ type, file_id, filename, page }) => ({ type, file_id, filename, page })),
    found: search.results.map(({ file_id, filename, text }) => ({ file_id, filename, text })),
  };
};

await report("@langchain/openai", {
  chat: async () => ({ text: (await new ChatOpenAI({ model: "backend-model", ...service }).invoke(HELLO)).text }),
  stream: async () => {
    const chunks = await new ChatOpenAI({ model: "backend-model", ...service }).stream(HELLO);
    return { pieces: await collected(chunks, (chunk) => chunk.text) };
  },
  embeddings: async () => {
    const model = new OpenAIEmbeddings({ model: "local/embedding-model", ...service });
    return { vectors: await model.embedDocuments(TEXTS) };
  },
  tools: async () => {
    const schema = z.object({ city: z.string() });
    const getWeather = tool(() => WEATHER, { name: "get_weather", description: "Tells the weather.", schema });
    const model = new ChatOpenAI({ model: "tools", ...service }).bindTools([getWeather]);
    const messages = [new HumanMessage("What is the weather in Paris?")];
    const asked = await model.invoke(messages);
    const results = await Promise.all(asked.tool_calls.map((call) => getWeather.invoke(call)));
    const answer = await model.invoke([...messages, asked, ...results]);
    const calls = asked.tool_calls.map((call) => ({ name: call.name, arguments: JSON.stringify(call.args) }));
    return { text: answer.text, calls };
  },
  responses: async () => resultOf(await searching().invoke(QUESTION)),
  "streamed responses": async () => {
    const chunks = await collected(await searching().stream(QUESTION));
    const whole = chunks.reduce((sum, chunk) => sum.concat(chunk));
    return { ...resultOf(whole), pieces: chunks.map(({ text }) => text).filter(Boolean) };
  },
});
