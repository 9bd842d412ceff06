// Asks about an attached PDF with the AI SDK's `openai.chat`, whole and streamed; prints what the SDK returned as JSON.
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, streamText } from "ai";

const { BASE_URL: baseURL, API_KEY: apiKey, QUESTION: text, FILE: data } = process.env;

const model = createOpenAI({ baseURL, apiKey }).chat("local/chat-model");
const file = { type: "file", mediaType: "application/pdf", filename: "archive.pdf", data };
const messages = [{ role: "user", content: [file, { type: "text", text }] }];
const failures = [];
const whole = await generateText({ model, messages, maxRetries: 0 });
const streamed = streamText({ model, messages, maxRetries: 0, onError: ({ error }) => failures.push(String(error)) });
const answers = {
  whole: { text: whole.text, sources: whole.sources },
  stream: { text: await streamed.text, sources: await streamed.sources },
  failures,
};
console.log(JSON.stringify(answers));
