// Chats before and after the server changes its keys, which the test does when it reads a line; prints the answers.
import { createInterface } from "node:readline/promises";
import OpenAI from "openai";
import { createEncryptedFetch } from "ragsvc-client";

const { SERVER_URL: serverUrl, API_KEY: apiKey } = process.env;
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const clients = ["hpke", "hpke-stream", "rvenc"].map((mode) => {
  const fetch = createEncryptedFetch({ mode, serverUrl });
  return new OpenAI({ apiKey, baseURL: `${serverUrl}/v1`, fetch, maxRetries: 0 });
});

for (let round = 0; round < 2; round++) {
  const answers = [];
  for (const client of clients) {
    const messages = [{ role: "user", content: `round ${round}` }];
    answers.push((await client.chat.completions.create({ model: "m", messages })).choices[0].message.content);
  }
  console.log(JSON.stringify(answers));
  await lines.next();
}
process.exit(0);
