// What the AI SDK does with a chat model: used by the programs of its providers.
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { collected, HELLO, QUESTION, WEATHER } from "./reporting.mjs";

/** Adds `use_rag`, which the SDK does not know, to the body of a request. */
export const withDocuments = (url, options) =>
  fetch(url, { ...options, body: JSON.stringify({ ...JSON.parse(options.body), use_rag: true }) });

const sourceOf = ({ sourceType, url, title }) => ({ type: sourceType, url, title });

export async function chat(model) {
  return { text: (await generateText({ model, prompt: HELLO, maxRetries: 0 })).text };
}

/** Wait for what a stream ends with; an error of the stream becomes an error of the call. */
async function streamed(options, finish) {
  const failures = [];
  const result = streamText({ ...options, maxRetries: 0, onError: ({ error }) => failures.push(error) });
  const value = await finish(result);
  if (failures.length > 0) throw failures[0];
  return value;
}

export const stream = (model) =>
  streamed({ model, prompt: HELLO }, async ({ textStream }) => ({ pieces: await collected(textStream) }));

export async function citations(model) {
  const { text, sources } = await generateText({ model, prompt: QUESTION, maxRetries: 0 });
  return { text, sources: sources.map(sourceOf) };
}

export const streamedCitations = (model) =>
  streamed({ model, prompt: QUESTION }, async (result) => ({
    text: await result.text,
    sources: (await result.sources).map(sourceOf),
  }));

export async function tools(model) {
  const inputSchema = z.object({ city: z.string() });
  const getWeather = tool({ description: "Tells the weather of a city.", inputSchema, execute: () => WEATHER });
  const prompt = "What is the weather in Paris?";
  const options = { model, prompt, tools: { get_weather: getWeather }, stopWhen: stepCountIs(3) };
  return streamed(options, async (result) => {
    const calls = (await result.steps).flatMap((step) => step.toolCalls);
    return {
      text: await result.text,
      calls: calls.map((call) => ({ name: call.toolName, arguments: JSON.stringify(call.input) })),
    };
  });
}
