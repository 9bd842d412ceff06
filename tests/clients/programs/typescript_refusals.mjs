// Keys and responses that an encrypted fetch must refuse; prints how the OpenAI SDK reports each.
import OpenAI from "openai";
import { createEncryptedFetch } from "ragsvc-client";

const { SERVER_URL: serverUrl, TAMPERING_URL: tamperingUrl, API_KEY: apiKey, PINNED: pinned } = process.env;
const messages = [{ role: "user", content: "Which city hosts the archive?" }];

async function ask(options, stream) {
  const fetch = createEncryptedFetch(options);
  const client = new OpenAI({ apiKey, baseURL: `${options.serverUrl}/v1`, fetch, maxRetries: 0 });
  let said = "";
  try {
    const answer = await client.chat.completions.create({ model: "local/chat-model", messages, use_rag: true, stream });
    if (!stream) return { said: answer.choices[0].message.content };
    for await (const chunk of answer) said += chunk.choices[0]?.delta.content ?? "";
    return { said };
  } catch (error) {
    const { name, message } = error instanceof OpenAI.APIConnectionError ? error.cause : error;
    return { said, failed: name, message };
  }
}

const results = {};
for (const mode of ["hpke", "hpke-stream", "rvenc"]) {
  const streams = mode === "hpke" ? [false] : [false, true];
  for (const stream of streams) {
    const pinnedKeys = [JSON.parse(pinned)[mode]];
    results[`${mode} ${stream ? "stream" : "whole"}`] = {
      pinned: await ask({ mode, serverUrl, pinnedKeys }, stream),
      "wrong pin": await ask({ mode, serverUrl, pinnedKeys: ["00".repeat(32)] }, stream),
      changed: await ask({ mode, serverUrl: `${tamperingUrl}/changed`, pinnedKeys }, stream),
      cut: await ask({ mode, serverUrl: `${tamperingUrl}/cut`, pinnedKeys }, stream),
      untouched: await ask({ mode, serverUrl: `${tamperingUrl}/untouched`, pinnedKeys }, stream),
    };
  }
}
console.log(JSON.stringify(results));
