/** A typed client of the service's own routes, over any `fetch`. */

import type { SearchRequest, SearchResponse } from "./api-types.js";
import { ChatCompletions } from "./chat.js";
import { Documents } from "./documents.js";
import { HttpClient, type HttpOptions } from "./http.js";

export class RagsvcClient {
  readonly documents: Documents;
  readonly chat: { readonly completions: ChatCompletions };
  readonly #http: HttpClient;

  constructor(options: HttpOptions) {
    this.#http = new HttpClient(options);
    this.documents = new Documents(this.#http);
    this.chat = { completions: new ChatCompletions(this.#http) };
  }

  /** Find passages by meaning and by words, best first. */
  async search(request: SearchRequest, { signal }: { signal?: AbortSignal } = {}): Promise<SearchResponse> {
    return this.#http.json("POST", "/v1/rag/search", { body: request, signal });
  }
}
