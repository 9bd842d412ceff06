// What all programs share: their input from the environment, and the JSON object that they print.
import { readFileSync } from "node:fs";
import { join } from "node:path";

export const {
  BASE_URL = "",
  API_KEY = "",
  MCP_URL = "",
  QUESTION = "",
  STORE_KEY = "", // of a tenant with the vector store and file
  VECTOR_STORE_ID = "",
  UPLOAD = "", // the path of a file about a crane
  WEATHER = "", // the result of the tool, which differs in every run
} = process.env;

export const HELLO = "Say hello.";
export const CRANE_QUESTION = "What does the harbour crane lift?";
export const TEXTS = ["The lighthouse is tall.", "Ships carry oil."];

/** The items of a stream that are not empty. */
export async function collected(stream, pick = (item) => item) {
  const items = [];
  for await (const item of stream) if (pick(item)) items.push(pick(item));
  return items;
}

/** Run each feature, and print the version of the client and the results; a failure does not end the others. */
export async function report(name, features) {
  const results = {};
  for (const [feature, run] of Object.entries(features)) {
    try {
      results[feature] = await run();
    } catch (error) {
      results[feature] = { failure: `${error.stack ?? error} ${error.responseBody ?? ""}` };
    }
  }
  const file = join(process.cwd(), "node_modules", name, "package.json");
  const { version } = JSON.parse(readFileSync(file, "utf8"));
  console.log(JSON.stringify({ version, features: results }));
}
