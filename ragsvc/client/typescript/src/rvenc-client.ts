/** A chat client over RVENC with the options of Prem's SDK (`createRvencClient`). */

import { ChatCompletions } from "./chat.js";
import { createEncryptedFetch, type RvencOptions } from "./encrypted-fetch.js";
import { HttpClient } from "./http.js";

export interface RvencClientOptions extends Omit<RvencOptions, "mode"> {
  apiKey: string;
}

export interface RvencClient {
  readonly chat: { readonly completions: ChatCompletions };
}

/**
 * Create a client whose chats are encrypted with RVENC.
 *
 * Unlike Prem's SDK, it needs the address of the service (`serverUrl`). Defaults: `requestTimeoutMs` 30,000,
 * `maxBufferSize` 10 MiB, `encryptionKeys` generated at the first request.
 */
export async function createRvencClient({ apiKey, ...options }: RvencClientOptions): Promise<RvencClient> {
  const fetch = createEncryptedFetch({ ...options, mode: "rvenc" });
  const http = new HttpClient({ serverUrl: options.serverUrl, apiKey, fetch });
  return { chat: { completions: new ChatCompletions(http) } };
}
