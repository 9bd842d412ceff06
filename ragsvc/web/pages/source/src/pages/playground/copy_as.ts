import { href } from "../../api/prefix";

export const targets = ["curl", "python", "javascript"] as const;
export type Target = (typeof targets)[number];

type Body = Record<string, unknown>;

/** A method of OpenAI's SDKs, and the fields that it declares; the others are passed as they are. */
interface SdkCall {
  python: string;
  javascript: string;
  fields: ReadonlySet<string>;
}

const CHAT_FIELDS =
  "model messages stream temperature top_p max_tokens max_completion_tokens stop seed presence_penalty frequency_penalty " +
  "response_format tools tool_choice n logprobs top_logprobs user stream_options reasoning_effort";

const sdkCalls: Record<string, SdkCall> = {
  "/v1/chat/completions": call("chat.completions.create", CHAT_FIELDS),
  "/v1/embeddings": call("embeddings.create", "model input dimensions encoding_format user"),
  "/v1/images/generations": call(
    "images.generate",
    "model prompt n size quality style response_format background output_format user",
  ),
};

function call(method: string, fields: string): SdkCall {
  return { python: method, javascript: method, fields: new Set(fields.split(" ")) };
}

/** A program that sends the request, with the key in the variable `RAGSVC_API_KEY`. */
export function copyAs(target: Target, path: string, body: Body): string {
  const base = window.location.origin + href("");
  if (target === "curl") return curl(base + path, body);
  const sdk = sdkCalls[path];
  if (target === "python") return sdk ? pythonSdk(base, sdk, body) : pythonHttp(base + path, body);
  return sdk ? javascriptSdk(base, sdk, body) : javascriptHttp(base + path, body);
}

function curl(url: string, body: Body): string {
  const options = [
    `-H "Authorization: Bearer $RAGSVC_API_KEY"`,
    `-H "Content-Type: application/json"`,
    "-d @- <<'END'", // read from here, because an argument with a picture is longer than systems allow
  ];
  return `${[`curl -N ${url}`, ...options].join(" \\\n  ")}\n${JSON.stringify(body, null, 2)}\nEND`;
}

/** A JSON value as a Python literal; `indent` is that of the line on which it begins. */
export function pythonLiteral(value: unknown, indent = ""): string {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = `${indent}    `;
  const items = Array.isArray(value)
    ? value.map((item) => inner + pythonLiteral(item, inner))
    : Object.entries(value).map(([name, item]) => `${inner}${JSON.stringify(name)}: ${pythonLiteral(item, inner)}`);
  const [open, close] = Array.isArray(value) ? ["[", "]"] : ["{", "}"];
  return items.length ? `${open}\n${items.join(",\n")},\n${indent}${close}` : open + close;
}

function pythonSdk(base: string, sdk: SdkCall, body: Body): string {
  const known = Object.entries(body).filter(([name]) => sdk.fields.has(name));
  const extra = Object.fromEntries(Object.entries(body).filter(([name]) => !sdk.fields.has(name)));
  const options = known.map(([name, value]) => `    ${name}=${pythonLiteral(value, "    ")},`);
  if (Object.keys(extra).length) options.push(`    extra_body=${pythonLiteral(extra, "    ")},`);
  const read = body.stream
    ? ["for chunk in answer:", "    if chunk.choices:", '        print(chunk.choices[0].delta.content or "", end="", flush=True)']
    : ["print(answer.model_dump_json(indent=2))"];
  return [
    "import os",
    "",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(`${base}/v1`)}, api_key=os.environ["RAGSVC_API_KEY"])`,
    `answer = client.${sdk.python}(`,
    ...options,
    ")",
    ...read,
  ].join("\n");
}

function pythonHttp(url: string, body: Body): string {
  return [
    "import os",
    "",
    "import httpx",
    "",
    "answer = httpx.post(",
    `    ${JSON.stringify(url)},`,
    '    headers={"Authorization": f"Bearer {os.environ[\'RAGSVC_API_KEY\']}"},',
    `    json=${pythonLiteral(body, "    ")},`,
    "    timeout=60,",
    ")",
    "answer.raise_for_status()",
    "print(answer.headers[\"content-type\"], len(answer.content))",
  ].join("\n");
}

function javascriptSdk(base: string, sdk: SdkCall, body: Body): string {
  const read = body.stream
    ? ["for await (const chunk of answer) {", '  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");', "}"]
    : ["console.log(JSON.stringify(answer, null, 2));"];
  return [
    'import OpenAI from "openai";',
    "",
    `const client = new OpenAI({ baseURL: ${JSON.stringify(`${base}/v1`)}, apiKey: process.env.RAGSVC_API_KEY });`,
    `const answer = await client.${sdk.javascript}(${JSON.stringify(body, null, 2)});`,
    ...read,
  ].join("\n");
}

function javascriptHttp(url: string, body: Body): string {
  return [
    `const answer = await fetch(${JSON.stringify(url)}, {`,
    '  method: "POST",',
    "  headers: {",
    "    Authorization: `Bearer ${process.env.RAGSVC_API_KEY}`,",
    '    "Content-Type": "application/json",',
    "  },",
    `  body: JSON.stringify(${JSON.stringify(body, null, 2).replaceAll("\n", "\n  ")}),`,
    "});",
    "if (!answer.ok) throw new Error(await answer.text());",
    'console.log(answer.headers.get("content-type"), (await answer.arrayBuffer()).byteLength);',
  ].join("\n");
}
