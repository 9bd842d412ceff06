import { ApiError } from "./errors";
import { EventParser } from "./events";
import { fetchResponse } from "./request";

/** A request and its response, as they were sent, with their times. */
export interface Exchange {
  method: string;
  path: string;
  body: unknown;
  status: number;
  headers: readonly (readonly [string, string])[];
  /** The text of the response; empty if it is binary. */
  text: string;
  blob: Blob | null;
  /** Milliseconds until the first byte of content, and until the end. */
  firstMs: number | null;
  totalMs: number;
}

const SHOWN_HEADERS = ["content-type", "x-request-id", "retry-after", "x-ragsvc-passages-dropped"];

export interface ExchangeOptions {
  signal?: AbortSignal;
  /** Called with the data of each event of a streamed response. */
  onEvent?: (data: string) => void;
}

function shownHeaders(response: Response): [string, string][] {
  return SHOWN_HEADERS.flatMap((name) => {
    const value = response.headers.get(name);
    return value === null ? [] : [[name, value] as [string, string]];
  });
}

function isText(type: string): boolean {
  return /json|text|event-stream/.test(type);
}

/** Sends a request and returns the exchange. Error answers are returned as well; an abort is thrown. */
export async function exchange(
  method: string,
  path: string,
  body: unknown,
  options: ExchangeOptions = {},
): Promise<Exchange> {
  const begin = performance.now();
  const since = (): number => performance.now() - begin;
  const result = { method, path, body, status: 0, headers: [] as [string, string][], text: "", blob: null as Blob | null };
  let response: Response;
  try {
    response = await fetchResponse(method, path, { body, signal: options.signal });
  } catch (error) {
    if (!(error instanceof ApiError) || error.offline || error.status === 401) throw error;
    const { message, code, param, status, requestId } = error;
    result.headers = requestId ? [["x-request-id", requestId]] : [];
    const text = JSON.stringify({ error: { message, code, param } }, null, 2);
    return { ...result, status, text, firstMs: null, totalMs: since() };
  }
  result.status = response.status;
  result.headers = shownHeaders(response);
  const type = response.headers.get("content-type") ?? "";
  if (!isText(type)) {
    const blob = await response.blob();
    return { ...result, blob, firstMs: null, totalMs: since() };
  }
  if (!type.includes("event-stream") || !response.body) {
    const text = await response.text();
    return { ...result, text, firstMs: null, totalMs: since() };
  }
  const parser = new EventParser();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let firstMs: number | null = null;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      result.text += value;
      for (const event of parser.push(value)) {
        firstMs ??= since();
        options.onEvent?.(event.data);
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
  return { ...result, firstMs, totalMs: since() };
}
