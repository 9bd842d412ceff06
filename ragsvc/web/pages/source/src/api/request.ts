import { ApiError, errorOf, isAbort } from "./errors";
import { href } from "./prefix";
import { csrfToken, loadSession, sessionEnded } from "./session";

export type Query = Record<string, string | number | boolean | null | undefined | readonly string[]>;

export interface RequestOptions {
  /** Sent as JSON; `FormData`, `Blob` and text are sent as they are. */
  body?: unknown;
  query?: Query;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
}

/** `path` with its query; values that are null or undefined are left out. */
export function withQuery(path: string, query: Query = {}): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value === null || value === undefined) continue;
    if (Array.isArray(value)) for (const item of value) parameters.append(name, String(item));
    else parameters.append(name, String(value));
  }
  const text = parameters.toString();
  return text ? `${path}?${text}` : path;
}

function encoded(body: unknown): { body: BodyInit; type?: string } {
  if (body instanceof FormData || body instanceof Blob || typeof body === "string") return { body };
  return { body: JSON.stringify(body), type: "application/json" };
}

async function send(method: string, path: string, options: RequestOptions): Promise<Response> {
  const headers = new Headers(options.headers);
  const init: RequestInit = { method, headers, credentials: "same-origin" };
  if (options.signal) init.signal = options.signal;
  if (options.body !== undefined) {
    const { body, type } = encoded(options.body);
    init.body = body;
    if (type && !headers.has("content-type")) headers.set("content-type", type);
  }
  if (method !== "GET" && method !== "HEAD" && csrfToken()) headers.set("x-csrf-token", csrfToken());
  try {
    return await fetch(href(withQuery(path, options.query)), init);
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError(error instanceof Error ? error.message : String(error), 0);
  }
}

/**
 * Sends a request and returns its response if it was successful; throws `ApiError` otherwise.
 * A session that has ended shows the sign-in page; a session that another tab has replaced is read and used.
 */
export async function fetchResponse(method: string, path: string, options: RequestOptions = {}): Promise<Response> {
  let response = await send(method, path, options);
  if (response.ok) return response;
  let error = await errorOf(response);
  if (error.code === "csrf_failed" && csrfToken()) {
    await loadSession();
    response = await send(method, path, options);
    if (response.ok) return response;
    error = await errorOf(response);
  }
  if (response.status === 401) sessionEnded();
  throw error;
}

/** Sends a request and returns the JSON of its response; `undefined` for an empty one. */
export async function request<T>(method: string, path: string, options: RequestOptions = {}): Promise<T> {
  const response = await fetchResponse(method, path, options);
  const text = await response.text();
  return (text ? JSON.parse(text) : undefined) as T;
}

export interface Upload<T> {
  /** The JSON of the response. */
  readonly result: Promise<T>;
  abort(): void;
}

/** Sends a file or form and reports the share that has been sent (0 to 1), which `fetch` cannot. */
export function upload<T>(
  method: string,
  path: string,
  body: FormData | Blob,
  options: { headers?: Record<string, string>; query?: Query; onProgress?: (share: number) => void } = {},
): Upload<T> {
  const call = new XMLHttpRequest();
  const start = (): void => {
    call.open(method, href(withQuery(path, options.query)));
    for (const [name, value] of Object.entries(options.headers ?? {})) call.setRequestHeader(name, value);
    if (csrfToken()) call.setRequestHeader("x-csrf-token", csrfToken());
    call.send(body);
  };
  let isRepeated = false;
  const result = new Promise<T>((resolve, reject) => {
    const failed = async (error: ApiError): Promise<void> => {
      if (error.code !== "csrf_failed" || !csrfToken() || isRepeated) return reject(error);
      isRepeated = true;
      await loadSession(); // another tab has replaced the session
      start();
    };
    call.upload.onprogress = (event) => {
      if (event.lengthComputable) options.onProgress?.(event.loaded / event.total);
    };
    call.onerror = () => reject(new ApiError("", 0));
    call.onabort = () => reject(new DOMException("The upload was stopped.", "AbortError"));
    call.onload = () => {
      if (call.status >= 200 && call.status < 300) {
        resolve((call.responseText ? JSON.parse(call.responseText) : undefined) as T);
        return;
      }
      if (call.status === 401) sessionEnded();
      const headers = new Headers();
      for (const name of ["x-request-id", "retry-after"]) {
        const value = call.getResponseHeader(name);
        if (value) headers.set(name, value);
      }
      errorOf(new Response(call.responseText, { status: call.status, headers })).then(failed).catch(reject);
    };
    start();
  });
  return { result, abort: () => call.abort() };
}
