// Asks a cited question with the AI SDK's `openai.chat`, whole and streamed, and prints what the SDK returned as JSON.
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, streamText } from "ai";

const { BASE_URL: baseURL, API_KEY: apiKey, QUESTION: prompt } = process.env;

/** Adds `use_rag`, which the SDK does not know, to the body of a request. */
const withDocuments = (url, options) =>
  fetch(url, { ...options, body: JSON.stringify({ ...JSON.parse(options.body), use_rag: true }) });

const model = createOpenAI({ baseURL, apiKey, fetch: withDocuments }).chat("local/chat-model");
const failures = [];
const whole = await generateText({ model, prompt, maxRetries: 0 });
const streamed = streamText({ model, prompt, maxRetries: 0, onError: ({ error }) => failures.push(String(error)) });
const answers = {
  whole: { text: whole.text, sources: whole.sources },
  stream: { text: await streamed.text, sources: await streamed.sources },
  failures,
};
console.log(JSON.stringify(answers));
