/** `POST /v1/chat/completions`: answers, streams, and their citations. */

import type { ChatCompletion, ChatCompletionChunk, ChatRequest, Citation } from "./api-types.js";
import { isJsonObject } from "./chunk-aggregation.js";
import { IncompleteStreamError } from "./errors.js";
import { readEvents } from "./event-stream.js";
import { apiError, type HttpClient } from "./http.js";
import { parseJson } from "./server-keys.js";

export interface CallOptions {
  signal?: AbortSignal;
}

/** The chunks of a streamed answer. Leaving the loop early, or `cancel`, ends the request. */
export class ChatStream implements AsyncIterable<ChatCompletionChunk> {
  readonly #response: Response;
  readonly #chunks: AsyncGenerator<ChatCompletionChunk, void, undefined>;

  constructor(response: Response) {
    this.#response = response;
    this.#chunks = readChunks(response);
  }

  [Symbol.asyncIterator](): AsyncIterator<ChatCompletionChunk> {
    return this.#chunks;
  }

  async cancel(): Promise<void> {
    await this.#chunks.return();
    const { body } = this.#response;
    if (body !== null && !body.locked) await body.cancel(); // nothing was read yet
  }
}

async function* readChunks(response: Response): AsyncGenerator<ChatCompletionChunk, void, undefined> {
  if (response.body === null) throw new IncompleteStreamError();
  for await (const event of readEvents(response.body)) {
    if (event.data === "[DONE]") return;
    const document = parseJson(event.data);
    if (!isJsonObject(document)) throw new IncompleteStreamError();
    if (document["error"] !== undefined) throw apiError(event.data);
    yield document as unknown as ChatCompletionChunk;
  }
  throw new IncompleteStreamError();
}

export class ChatCompletions {
  readonly #http: HttpClient;

  constructor(http: HttpClient) {
    this.#http = http;
  }

  create(request: ChatRequest & { stream: true }, options?: CallOptions): Promise<ChatStream>;
  create(request: ChatRequest & { stream?: false }, options?: CallOptions): Promise<ChatCompletion>;
  create(request: ChatRequest, options?: CallOptions): Promise<ChatCompletion | ChatStream>;
  async create(request: ChatRequest, { signal }: CallOptions = {}): Promise<ChatCompletion | ChatStream> {
    const response = await this.#http.send("POST", "/v1/chat/completions", { body: request, signal });
    return request.stream ? new ChatStream(response) : ((await response.json()) as ChatCompletion);
  }
}

/** The citations of an answer or of a chunk of a stream; they come with its last chunk. */
export function citationsOf(answer: ChatCompletion | ChatCompletionChunk): Citation[] {
  return answer.choices.flatMap((choice) => {
    const part = "message" in choice ? choice.message : choice.delta;
    return part.annotations ?? [];
  });
}
