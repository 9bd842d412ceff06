// The OpenAI Agents SDK for JavaScript: agents on chat completions, and tools of the MCP server.
import {
  Agent,
  MCPServerStreamableHttp,
  OpenAIChatCompletionsModel,
  run,
  setTracingDisabled,
  tool,
} from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";
import { API_KEY, BASE_URL, collected, HELLO, MCP_URL, QUESTION, report, WEATHER } from "./reporting.mjs";

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
});
