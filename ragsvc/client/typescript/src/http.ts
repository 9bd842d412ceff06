/** Sends requests to the service, and turns error responses into `ApiError`. */

import { isJsonObject } from "./chunk-aggregation.js";
import type { Fetch } from "./encrypted-fetch.js";
import { ApiError, ConfigurationError } from "./errors.js";
import { parseJson } from "./server-keys.js";

export interface HttpOptions {
  /** `https://host[:port][/prefix]`, without `/v1`. */
  serverUrl: string;
  apiKey: string;
  /** Default: the platform's `fetch`, which does not encrypt. */
  fetch?: Fetch;
}

export type QueryValue = string | number | undefined;

export interface RequestParts {
  query?: Record<string, QueryValue>;
  /** Sent as JSON, a `FormData` as a form. */
  body?: unknown;
  signal?: AbortSignal | undefined;
}

export class HttpClient {
  readonly #base: string;
  readonly #apiKey: string;
  readonly #fetch: Fetch;

  constructor({ serverUrl, apiKey, fetch }: HttpOptions) {
    if (!apiKey) throw new ConfigurationError("The option 'apiKey' is missing.");
    this.#base = new URL(serverUrl).href.replace(/\/+$/, "");
    this.#apiKey = apiKey;
    this.#fetch = fetch ?? ((input, init) => globalThis.fetch(input, init));
  }

  /** Send a request. Throws `ApiError` for an error response. */
  async send(method: string, path: string, { query = {}, body, signal }: RequestParts = {}): Promise<Response> {
    const url = new URL(this.#base + path);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    const headers = new Headers({ Authorization: `Bearer ${this.#apiKey}`, Accept: "*/*" });
    const init: RequestInit = { method, headers };
    if (signal !== undefined) init.signal = signal;
    if (body instanceof FormData) init.body = body;
    else if (body !== undefined) {
      headers.set("Content-Type", "application/json");
      init.body = JSON.stringify(body);
    }
    const response = await this.#fetch(url, init);
    if (!response.ok) throw apiError(await response.text(), response);
    return response;
  }

  async json<Result>(method: string, path: string, parts?: RequestParts): Promise<Result> {
    return (await (await this.send(method, path, parts)).json()) as Result;
  }
}

/** The error of an error body (OpenAI: `{"error": {message, type, param, code}}`). */
export function apiError(content: string, response?: Response): ApiError {
  const document = parseJson(content);
  const error = isJsonObject(document) && isJsonObject(document["error"]) ? document["error"] : {};
  const text = (name: string) => (typeof error[name] === "string" ? error[name] : undefined);
  const retryAfter = Number.parseFloat(response?.headers.get("retry-after") ?? "");
  return new ApiError(text("message") ?? `The service answered with status ${response?.status ?? "unknown"}.`, {
    status: response?.status,
    type: text("type"),
    code: text("code"),
    param: text("param"),
    requestId: text("request_id") ?? response?.headers.get("x-request-id") ?? undefined,
    retryAfterS: Number.isNaN(retryAfter) ? undefined : retryAfter,
  });
}
