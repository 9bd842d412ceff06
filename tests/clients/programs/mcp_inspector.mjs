// The command line of the MCP inspector.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { API_KEY, MCP_URL, QUESTION, report } from "./reporting.mjs";

const run = promisify(execFile);

/** The result that the command prints. */
async function inspect(...options) {
  const header = `Authorization: Bearer ${API_KEY}`;
  const command = ["mcp-inspector", "--cli", MCP_URL, "--transport", "http", "--header", header, ...options];
  const { stdout } = await run("npx", ["--no-install", ...command], { timeout: 60_000 });
  return JSON.parse(stdout);
}

await report("@modelcontextprotocol/inspector", {
  mcp: async () => {
    const { tools } = await inspect("--method", "tools/list");
    const call = ["--method", "tools/call", "--tool-name", "search", "--tool-arg", `query=${QUESTION}`];
    return { tools: tools.map(({ name }) => name), results: (await inspect(...call)).structuredContent.results };
  },
  citations: async () => {
    const call = ["--method", "tools/call", "--tool-name", "ask", "--tool-arg", `question=${QUESTION}`];
    const { answer, citations } = (await inspect(...call)).structuredContent;
    return { text: answer, sources: citations.map((citation) => ({ type: "citation", ...citation })) };
  },
  "mcp resources": async () => {
    const { resources } = await inspect("--method", "resources/list");
    return { listed: resources.map(({ name }) => name) };
  },
});
