/** Builds a chat completion from its chunks, for callers that did not ask for a stream. */

export type JsonObject = Record<string, unknown>;

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A call with a higher index is ignored: a chunk could otherwise ask for a list of any length. */
const MOST_TOOL_CALLS = 1024;

interface PartialChoice extends JsonObject {
  index: number;
  message: JsonObject;
}

interface PartialCall {
  id: string;
  type: string;
  function: { name: string; arguments: string };
}

/**
 * Join chunks into one `chat.completion`; a single `chat.completion` is returned unchanged.
 *
 * Texts and lists are concatenated, tool calls by their index. Of other fields the last chunk's value is taken
 * (OpenAI: the chat completion chunk object).
 */
export function aggregateChunks(chunks: JsonObject[]): JsonObject {
  const [first] = chunks;
  if (chunks.length === 1 && first?.["object"] === "chat.completion") return first;
  const whole: JsonObject = {};
  const choices = new Map<number, PartialChoice>();
  for (const chunk of chunks) {
    for (const [name, value] of Object.entries(chunk)) {
      if (name === "choices" || value === null || value === undefined) continue;
      whole[name] = Array.isArray(value) ? [...listOf(whole[name]), ...value] : value;
    }
    for (const part of listOf(chunk["choices"]).filter(isJsonObject)) {
      const index = typeof part["index"] === "number" ? part["index"] : 0;
      const choice = choices.get(index) ?? { index, message: { role: "assistant" } };
      choices.set(index, choice);
      addChoice(choice, part);
    }
  }
  const ordered = [...choices.values()].sort((left, right) => left.index - right.index);
  for (const choice of ordered) {
    choice.message["content"] ??= null;
    choice["finish_reason"] ??= null;
  }
  return { ...whole, object: "chat.completion", choices: ordered };
}

function addChoice(choice: PartialChoice, part: JsonObject): void {
  for (const [name, value] of Object.entries(part)) {
    if (value === null || value === undefined || name === "index") continue;
    if (name === "delta") addDelta(choice.message, isJsonObject(value) ? value : {});
    else if (name === "logprobs" && isJsonObject(value)) addLogprobs(choice, value);
    else choice[name] = value;
  }
}

function addDelta(message: JsonObject, delta: JsonObject): void {
  for (const [name, value] of Object.entries(delta)) {
    if (value === null || value === undefined) continue;
    if (name === "tool_calls") {
      const calls = (message["tool_calls"] ??= []) as PartialCall[];
      for (const call of listOf(value).filter(isJsonObject)) addToolCall(calls, call);
    } else if (name === "role") message["role"] = value || message["role"];
    else if (typeof value === "string") message[name] = textOf(message[name]) + value;
    else if (Array.isArray(value)) message[name] = [...listOf(message[name]), ...value];
    else message[name] = value;
  }
}

function addToolCall(calls: PartialCall[], part: JsonObject): void {
  const index = typeof part["index"] === "number" ? part["index"] : calls.length;
  if (!Number.isInteger(index) || index < 0 || index >= MOST_TOOL_CALLS) return;
  while (calls.length <= index) calls.push({ id: "", type: "function", function: { name: "", arguments: "" } });
  const call = calls[index];
  if (call === undefined) return;
  call.id = textOf(part["id"]) || call.id;
  const named = isJsonObject(part["function"]) ? part["function"] : {};
  call.function.name += textOf(named["name"]);
  call.function.arguments += textOf(named["arguments"]);
}

function addLogprobs(choice: PartialChoice, part: JsonObject): void {
  const kept = isJsonObject(choice["logprobs"]) ? choice["logprobs"] : {};
  const joined = Object.entries(part).map(([name, value]) => [name, [...listOf(kept[name]), ...listOf(value)]]);
  choice["logprobs"] = Object.fromEntries(joined);
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}
