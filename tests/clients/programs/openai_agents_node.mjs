// The OpenAI Agents SDK for JavaScript: agents on chat completions, and tools of the MCP server.
import {
  Agent,
  fileSearchTool,
  MCPServerStreamableHttp,
  OpenAIChatCompletionsModel,
  OpenAIResponsesModel,
  run,
  setTracingDisabled,
  tool,
} from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";
import {
  API_KEY,
  BASE_URL,
  collected,
  HELLO,
  MCP_URL,
  QUESTION,
  report,
  STORE_KEY,
  VECTOR_STORE_ID,
  WEATHER,
} from "./reporting.mjs";

setTracingDisabled(true);
const client = new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0 });
const agentOf = (model, options = {}) =>
  new Agent({ name: "assistant", model: new OpenAIChatCompletionsModel(client, model), ...options });
const cited = () => agentOf("local/chat-model", { modelSettings: { providerData: { use_rag: true } } });

const sourcesOf = (result) =>
  result.rawResponses
    .flatMap((response) => response.output)
    .flatMap((item) => item.content ?? [])
    .flatMap((content) => content.providerData?.annotations ?? content.annotations ?? [])
    .map((annotation) => {
      const source = annotation.url_citation ?? annotation;
      return { type: annotation.type, url: source.url, title: source.title };
    });

const searching = () => {
  const storeClient = new OpenAI({ baseURL: BASE_URL, apiKey: STORE_KEY, maxRetries: 0 });
  const search = fileSearchTool(VECTOR_STORE_ID, { includeSearchResults: true });
  return new Agent({
    name: "assistant",
    model: new OpenAIResponsesModel(storeClient, "local/chat-model"),
    tools: [search],
  });
};

const resultOf = (result) => {
  const items = result.rawResponses.flatMap((response) => response.output);
  const search = items.find(({ type }) => type === "hosted_tool_call");
  const message = items.find(({ type }) => type === "message");
  return {
    text: result.finalOutput,
    sources: message.content
      .flatMap((content) => content.providerData.annotations)
      .map(({ type, file_id, filename, page }) => ({ type, file_id, filename, page })),
    found: search.providerData.results.map(({ file_id, filename, text }) => ({ file_id, filename, text })),
  };
};

await report("@openai/agents", {
  chat: async () => ({ text: (await run(agentOf("backend-model"), HELLO)).finalOutput }),
  stream: async () => {
    const result = await run(agentOf("backend-model"), HELLO, { stream: true });
    return { pieces: await collected(result.toTextStream()) };
  },
  citations: async () => {
    const result = await run(cited(), QUESTION);
    return { text: result.finalOutput, sources: sourcesOf(result) };
  },
  "streamed citations": async () => {
    const result = await run(cited(), QUESTION, { stream: true });
    await result.completed;
    return { text: result.finalOutput, sources: sourcesOf(result) };
  },
  tools: async () => {
    const calls = [];
    const getWeather = tool({
      name: "get_weather",
      description: "Tells the weather of a city.",
      parameters: z.object({ city: z.string() }),
      execute: (input) => {
        calls.push({ name: "get_weather", arguments: JSON.stringify(input) });
        return WEATHER;
      },
    });
    const result = await run(agentOf("tools", { tools: [getWeather] }), "What is the weather in Paris?");
    return { text: result.finalOutput, calls };
  },
  mcp: async () => {
    const headers = { authorization: `Bearer ${API_KEY}` };
    const server = new MCPServerStreamableHttp({ url: MCP_URL, requestInit: { headers } });
    await server.connect();
    try {
      const names = (await server.listTools()).map(({ name }) => name);
      const [found] = await server.callTool("search", { query: QUESTION });
      return { tools: names, results: JSON.parse(found.text).results };
    } finally {
      await server.close();
    }
  },
  responses: async () => resultOf(await run(searching(), QUESTION)),
  "streamed responses": async () => {
    const result = await run(searching(), QUESTION, { stream: true });
    const pieces = await collected(result.toTextStream());
    return { ...resultOf(result), pieces };
  },
});
