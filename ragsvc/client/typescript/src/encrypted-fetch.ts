/**
 * A `fetch` that encrypts every request for one server and never falls back to plaintext.
 *
 * A request to another origin, a redirect, a success response without encryption and a key that is not accepted are
 * errors. Only error responses (status 400 and higher) may arrive in plaintext, because a server that cannot open a
 * request cannot encrypt its response; `isEncrypted` tells them apart.
 */

import { type Bytes, concatBytes, equalBytes } from "./bytes.js";
import { Deadline } from "./deadline.js";
import type { BodyOpener, EncryptionMode, PlainRequest, ResponsePlan, SealedRequest } from "./encryption-mode.js";
import { ConfigurationError, EncryptionError } from "./errors.js";
import { DEFAULT_HPKE_KEY_PATH, DEFAULT_ONE_SHOT_BUFFER_SIZE, HpkeOneShotMode, HpkeStreamMode } from "./hpke-modes.js";
import { subtle } from "./hpke.js";
import { encapsulate, type EncryptionKeys, PUBLIC_KEY_BYTES } from "./rvenc.js";
import { DEFAULT_MAX_BUFFER_SIZE, DEFAULT_RVENC_KEY_PATH, RvencMode } from "./rvenc-mode.js";
import { isEncryptionProblem, KeyCache, KeyTrust, type ServerKey, type VerifyKey } from "./server-keys.js";

export type Fetch = typeof globalThis.fetch;

/** The default of `requestTimeoutMs` in the mode `rvenc`, as Prem documents it. */
export const DEFAULT_RVENC_TIMEOUT_MS = 30_000;
/** The largest plaintext body that is read: of key responses and error responses. */
const MAX_PLAIN_BYTES = 64 * 1024;
const FIRST_ERROR_STATUS = 400;
const WITHOUT_BODY = new Set([204, 205, 304]);

export interface ServerOptions {
  /** `https://host[:port][/prefix]`, without `/v1`. A proxy in front of the service removes the prefix. */
  serverUrl: string;
  /** Fingerprints (see `fingerprint`) of the server keys to accept. */
  pinnedKeys?: Iterable<string>;
  /** Checks a fetched server key, for example by `attested`; throws to refuse it. */
  verifyKey?: VerifyKey;
  /** The `fetch` that sends the encrypted requests. */
  fetch?: Fetch;
  /** The path of the server's key endpoint. */
  keyPath?: string;
}

interface CommonOptions extends ServerOptions {
  /**
   * Milliseconds for a whole request: from the fetch of the server's key to the last byte of the response, also while
   * it streams. Default: 30,000 in the mode `rvenc`; otherwise no limit. `Infinity` means no limit.
   */
  requestTimeoutMs?: number;
  /** Milliseconds since 1970, for tests. */
  clock?: () => number;
}

/** Options of the mode `hpke-stream`: every route, streams included; the mode to prefer. */
export interface HpkeStreamOptions extends CommonOptions {
  mode: "hpke-stream";
}

/** Options of the mode `hpke`: every route; the service refuses `stream: true`. */
export interface HpkeOptions extends CommonOptions {
  mode: "hpke";
  /** The largest response in bytes. Default: 128 MiB. */
  maxBufferSize?: number;
}

/** Options of the mode `rvenc`: chat completions only. */
export interface RvencOptions extends CommonOptions {
  mode: "rvenc";
  /** The largest event in bytes, and the largest response that is not streamed. Default: 10 MiB. */
  maxBufferSize?: number;
  /** Keys from `generateEncryptionKeys`. Default: generated at the first request and after each change of key. */
  encryptionKeys?: EncryptionKeys;
}

export type EncryptedFetchOptions = HpkeStreamOptions | HpkeOptions | RvencOptions;

const encrypted = new WeakMap<Response, boolean>();

/** Whether a response of an encrypted fetch was encrypted; `undefined` for other responses. */
export function isEncrypted(response: Response): boolean | undefined {
  return encrypted.get(response);
}

/**
 * Return a `fetch` that encrypts, for `new OpenAI({ fetch })` and any other client that takes a `fetch`.
 *
 * Throws `ConfigurationError` for options that contradict each other, and for a server without TLS whose key is
 * neither pinned nor verified, unless it is on this machine.
 */
export function createEncryptedFetch(options: EncryptedFetchOptions): Fetch {
  const sender = new EncryptingSender(options);
  return (input, init) => sender.fetch(input, init);
}

/**
 * Encapsulate a secret for the server's current RVENC key, for the option `encryptionKeys`.
 *
 * The keys work until the server changes its key: by default for 24 to 25 hours.
 */
export async function generateEncryptionKeys(options: ServerOptions): Promise<EncryptionKeys> {
  const mode = new RvencMode(options.keyPath ?? DEFAULT_RVENC_KEY_PATH, DEFAULT_MAX_BUFFER_SIZE, undefined);
  const server = new Server(options);
  const deadline = new Deadline({}, DEFAULT_RVENC_TIMEOUT_MS);
  try {
    return encapsulate((await server.fetchKey(mode, deadline, {})).publicKey);
  } finally {
    deadline.end();
  }
}

function modeOf(options: EncryptedFetchOptions): EncryptionMode {
  switch (options.mode) {
    case "hpke-stream":
      return new HpkeStreamMode(options.keyPath ?? DEFAULT_HPKE_KEY_PATH);
    case "hpke": {
      const limit = positive("maxBufferSize", options.maxBufferSize ?? DEFAULT_ONE_SHOT_BUFFER_SIZE);
      return new HpkeOneShotMode(options.keyPath ?? DEFAULT_HPKE_KEY_PATH, limit);
    }
    case "rvenc": {
      const limit = positive("maxBufferSize", options.maxBufferSize ?? DEFAULT_MAX_BUFFER_SIZE);
      return new RvencMode(options.keyPath ?? DEFAULT_RVENC_KEY_PATH, limit, options.encryptionKeys);
    }
    default:
      throw new ConfigurationError("The option 'mode' must be 'hpke-stream', 'hpke' or 'rvenc'.");
  }
}

function positive(name: string, value: number): number {
  if (!(value > 0)) throw new ConfigurationError(`The option '${name}' must be greater than 0.`);
  return value;
}

/** The server that requests are encrypted for: its address, and the trust in its keys. */
class Server {
  readonly url: URL;
  readonly prefix: string;
  readonly trust: KeyTrust;
  readonly send: Fetch;

  constructor(options: ServerOptions) {
    this.url = parseUrl(options.serverUrl);
    this.prefix = this.url.pathname.replace(/\/+$/, "");
    this.trust = new KeyTrust(options.pinnedKeys, options.verifyKey);
    this.send = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
    if (this.url.protocol !== "https:" && !this.trust.beyondTls && !isLoopback(this.url.hostname)) {
      throw new ConfigurationError(
        "A server without TLS needs pinned keys: anybody between client and server could replace its key.",
      );
    }
  }

  /** Throws `ConfigurationError` for a request to another origin or path prefix. */
  requireOwn(url: URL): void {
    if (url.origin !== this.url.origin || !url.pathname.startsWith(`${this.prefix}/`)) {
      throw new ConfigurationError(
        `This fetch encrypts for ${this.url.origin}${this.prefix} only, not for ${url.origin}${url.pathname}.`,
      );
    }
  }

  /** Fetch the server's key, without credentials, and check it. */
  async fetchKey(mode: EncryptionMode, deadline: Deadline, extra: RequestInit): Promise<ServerKey> {
    const url = new URL(this.prefix + mode.keyPath, this.url);
    const init: RequestInit = { ...extra, method: "GET", redirect: "manual", credentials: "omit" };
    const response = await deadline.within(this.send(url, { ...init, signal: deadline.signal }));
    const content = await readPlain(response, deadline);
    if (!response.ok) {
      throw new EncryptionError(`The server's key cannot be fetched from ${url.pathname}: status ${response.status}.`);
    }
    const key = mode.parseKey(new TextDecoder().decode(content));
    await deadline.within(this.trust.check(key));
    return key;
  }
}

interface Outcome {
  response: Response;
  /** The body of an error response in plaintext. */
  plainError?: string;
}

class EncryptingSender {
  readonly #server: Server;
  readonly #mode: EncryptionMode;
  readonly #keys: KeyCache;
  readonly #timeoutMs: number | undefined;
  readonly #givenKeys: EncryptionKeys | undefined;
  #givenKeysChecked = false;

  constructor(options: EncryptedFetchOptions) {
    this.#server = new Server(options);
    this.#mode = modeOf(options);
    if (options.mode !== "rvenc") subtle();
    this.#keys = new KeyCache(options.clock ?? Date.now);
    const timeoutMs = options.requestTimeoutMs ?? (options.mode === "rvenc" ? DEFAULT_RVENC_TIMEOUT_MS : Infinity);
    this.#timeoutMs = positive("requestTimeoutMs", timeoutMs) === Infinity ? undefined : timeoutMs;
    this.#givenKeys = options.mode === "rvenc" ? options.encryptionKeys : undefined;
    if (this.#givenKeys !== undefined && this.#givenKeys.publicKey === undefined && this.#server.trust.beyondTls) {
      throw new ConfigurationError(
        "Pre-generated encryptionKeys need their publicKey where keys are pinned or verified; " +
          "generateEncryptionKeys returns it.",
      );
    }
  }

  async fetch(input: RequestInfo | URL, init: RequestInit = {}): Promise<Response> {
    const request = new Request(input, { ...init, signal: null });
    const url = new URL(request.url);
    this.#server.requireOwn(url);
    const caller = init.signal === undefined && input instanceof Request ? input : init;
    const deadline = new Deadline(caller, this.#timeoutMs);
    try {
      const body = new Uint8Array(await deadline.within(request.arrayBuffer()));
      const { headers, credentials } = request;
      const plain = { method: request.method.toUpperCase(), url, prefix: this.#server.prefix, headers, body };
      const outcome = await this.#run(plain, deadline, { ...platformOptions(init), credentials });
      if (outcome.plainError !== undefined) deadline.end();
      return outcome.response;
    } catch (error) {
      deadline.end();
      throw error;
    }
  }

  /** Seal and send a request; once more if the server could not open it and has changed its key. */
  async #run(request: PlainRequest, deadline: Deadline, extra: RequestInit): Promise<Outcome> {
    if (this.#givenKeys !== undefined) {
      await this.#checkGivenKeys(this.#givenKeys, deadline);
      return this.#exchange(request, undefined, deadline, extra);
    }
    const key = this.#keys.get() ?? (await this.#fetchKey(deadline, extra));
    let outcome = await this.#exchange(request, key, deadline, extra);
    if (outcome.plainError !== undefined && isEncryptionProblem(outcome.plainError)) {
      this.#keys.drop();
      const current = await this.#fetchKey(deadline, extra);
      if (!equalBytes(current.publicKey, key.publicKey)) {
        outcome = await this.#exchange(request, current, deadline, extra);
      }
    }
    return outcome;
  }

  async #fetchKey(deadline: Deadline, extra: RequestInit): Promise<ServerKey> {
    const key = await this.#server.fetchKey(this.#mode, deadline, extra);
    this.#keys.put(key);
    return key;
  }

  async #checkGivenKeys({ publicKey }: EncryptionKeys, deadline: Deadline): Promise<void> {
    if (this.#givenKeysChecked || publicKey === undefined) return;
    if (publicKey.length !== PUBLIC_KEY_BYTES) {
      throw new ConfigurationError(`encryptionKeys.publicKey must have ${PUBLIC_KEY_BYTES} bytes.`);
    }
    const key = { publicKey: new Uint8Array(publicKey), keyId: "", expiresAt: null };
    await deadline.within(this.#server.trust.check(key));
    this.#givenKeysChecked = true;
  }

  async #exchange(
    request: PlainRequest,
    key: ServerKey | undefined,
    deadline: Deadline,
    extra: RequestInit,
  ): Promise<Outcome> {
    const exchange = await this.#mode.seal(request, key);
    const response = await deadline.within(this.#server.send(...sendable(exchange.request, extra, deadline)));
    let plan: ResponsePlan;
    try {
      plan = exchange.begin(response);
    } catch (error) {
      if (!(error instanceof EncryptionError) || response.status < FIRST_ERROR_STATUS) {
        await response.body?.cancel().catch(() => undefined);
        throw error;
      }
      const content = await readPlain(response, deadline);
      return { response: plainErrorResponse(response, content), plainError: new TextDecoder().decode(content) };
    }
    return { response: await openResponse(response, plan, deadline) };
  }
}

function sendable(request: SealedRequest, extra: RequestInit, deadline: Deadline): [string, RequestInit] {
  const { method, headers, body } = request;
  return [request.url.href, { ...extra, method, headers, body, redirect: "manual", signal: deadline.signal }];
}

/** Options of the runtime (such as undici's `dispatcher`) that pass on to the inner fetch. */
function platformOptions(init: RequestInit): RequestInit {
  const extra: Record<string, unknown> = { ...init };
  for (const name of ["method", "headers", "body", "signal", "redirect", "duplex", "integrity"]) delete extra[name];
  return extra as RequestInit;
}

async function openResponse(response: Response, plan: ResponsePlan, deadline: Deadline): Promise<Response> {
  let body: ReadableStream<Bytes> | Bytes | null = openedStream(response, plan.opener, deadline);
  if (plan.buffered || WITHOUT_BODY.has(response.status)) body = await readAll(body);
  const status = plan.status();
  if (WITHOUT_BODY.has(status)) body = null;
  const opened = new Response(body, { status, statusText: response.statusText, headers: plan.headers });
  return marked(opened, response, true);
}

function plainErrorResponse(response: Response, content: Bytes): Response {
  const headers = new Headers(response.headers);
  for (const name of ["content-length", "content-encoding", "transfer-encoding"]) headers.delete(name);
  const { status, statusText } = response;
  return marked(new Response(content, { status, statusText, headers }), response, false);
}

function marked(made: Response, original: Response, wasEncrypted: boolean): Response {
  Object.defineProperty(made, "url", { value: original.url });
  encrypted.set(made, wasEncrypted);
  return made;
}

/** The plaintext of a response, opened while it is read. It fails at the deadline, whether or not somebody reads. */
function openedStream(response: Response, opener: BodyOpener, deadline: Deadline): ReadableStream<Bytes> {
  const reader = bodyOf(response).getReader();
  const { signal } = deadline;
  const release = (reason?: unknown) => {
    deadline.end();
    return reader.cancel(reason).catch(() => undefined);
  };
  return new ReadableStream<Bytes>(
    {
      start(controller) {
        const stop = () => {
          controller.error(signal.reason);
          void release(signal.reason);
        };
        if (signal.aborted) stop();
        else signal.addEventListener("abort", stop, { once: true });
      },
      async pull(controller) {
        try {
          for (;;) {
            const { done, value } = await reader.read();
            const plain = done ? await opener.finish() : await opener.feed(value as Bytes);
            if (signal.aborted) return; // the stream has failed already
            if (plain.length > 0) controller.enqueue(plain);
            if (done) {
              deadline.end();
              controller.close();
            }
            if (done || plain.length > 0) return;
          }
        } catch (error) {
          controller.error(signal.aborted ? signal.reason : error);
          void release(error);
        }
      },
      async cancel(reason) {
        await release(reason);
      },
    },
    { highWaterMark: 0 },
  );
}

function bodyOf(response: Response): ReadableStream<Uint8Array> {
  return response.body ?? new ReadableStream({ start: (controller) => controller.close() });
}

async function readAll(body: ReadableStream<Bytes>): Promise<Bytes> {
  const reader = body.getReader();
  const parts: Bytes[] = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return concatBytes(...parts);
    parts.push(value);
  }
}

/** Read a body in plaintext, of at most 64 KiB. */
async function readPlain(response: Response, deadline: Deadline): Promise<Bytes> {
  const reader = bodyOf(response).getReader();
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await deadline.within(reader.read());
      if (done) return concatBytes(...parts);
      size += value.length;
      if (size > MAX_PLAIN_BYTES) {
        throw new EncryptionError(`The server answered ${response.status} without encryption, with a large body.`);
      }
      parts.push(value);
    }
  } catch (error) {
    void reader.cancel(error).catch(() => undefined);
    throw error;
  }
}

function parseUrl(text: string): URL {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new ConfigurationError(
      "The option 'serverUrl' must be a URL such as 'https://host' or 'https://host/prefix'.",
    );
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    throw new ConfigurationError("The option 'serverUrl' must begin with 'https://' or 'http://'.");
  }
  return url;
}

function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(hostname);
}
