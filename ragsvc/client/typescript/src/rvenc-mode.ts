/** The RVENC mode: chat completions only, sealed with X-Wing and XChaCha20-Poly1305, answered by encrypted events. */

import { sha256 } from "@noble/hashes/sha2.js";

import { type Bytes, concatBytes, decodeHex, decodeUtf8, encodeHex, NO_BYTES, utf8 } from "./bytes.js";
import { aggregateChunks, isJsonObject, type JsonObject } from "./chunk-aggregation.js";
import {
  bearerOf,
  type BodyOpener,
  carryHeaders,
  type EncryptionMode,
  type PlainRequest,
  requireMediaType,
  type ResponsePlan,
  type SealedExchange,
} from "./encryption-mode.js";
import { BufferLimitError, ConfigurationError, EncryptionError } from "./errors.js";
import {
  CHAT_PATH,
  encapsulate,
  type EncryptedInference,
  type EncryptionKeys,
  EventReader,
  type OpenedEvent,
  PUBLIC_KEY_BYTES,
  type RawKeys,
  rawKeys,
  RESPONSE_NONCE_HEADER,
  ResponseOpener,
  sealInference,
} from "./rvenc.js";
import { parseJson, parseKey, type ServerKey } from "./server-keys.js";

export const DEFAULT_RVENC_KEY_PATH = "/rvenc/key";
export const DEFAULT_MAX_BUFFER_SIZE = 10 * 1024 * 1024;
/** Headers that are sent as fields of the encrypted body, because RVENC neither hides nor authenticates headers. */
const PROVIDER_FIELDS = { "x-provider-key": "provider_key", "x-provider-base-url": "provider_base_url" };
const EVENT_STREAM = "text/event-stream";
const MAX_CACHED_KEYS = 256;
const BAD_GATEWAY = 502;

export class RvencMode implements EncryptionMode {
  readonly keyPath: string;
  readonly #maxBufferSize: number;
  readonly #givenKeys: RawKeys | undefined;
  readonly #cached = new Map<string, RawKeys>();

  constructor(keyPath: string, maxBufferSize: number, encryptionKeys: EncryptionKeys | undefined) {
    this.keyPath = keyPath;
    this.#maxBufferSize = maxBufferSize;
    this.#givenKeys = encryptionKeys && rawKeys(encryptionKeys);
  }

  parseKey(content: string): ServerKey {
    return parseKey(content, (text) => decodeHex(text.toLowerCase()), PUBLIC_KEY_BYTES);
  }

  async seal(request: PlainRequest, key: ServerKey | undefined): Promise<SealedExchange> {
    if (request.method !== "POST" || !request.url.pathname.endsWith("/chat/completions")) {
      throw new ConfigurationError(
        `RVENC encrypts chat completions only: ${request.method} ${request.url.pathname} would be plaintext. ` +
          "The modes hpke and hpke-stream encrypt every route.",
      );
    }
    const document = parseChat(request.body);
    const stream = isJsonObject(document) && document["stream"] === true;
    const keys = this.#givenKeys ?? this.#keysFor(bearerOf(request.headers), key);
    const { body, nonce } = sealInference(keys, withProviderFields(document, request));
    return {
      request: sealedRequest(request, body),
      begin: (response) => plan(response, { keys, nonce, stream, maxBufferSize: this.#maxBufferSize }),
    };
  }

  /** The keys for an API key. Two API keys never share a `cipherText`, which would link them to one client. */
  #keysFor(apiKey: string, key: ServerKey | undefined): RawKeys {
    if (key === undefined) throw new Error("RVENC without given keys needs a server key.");
    const name = encodeHex(sha256(concatBytes(utf8(`${apiKey}\0`), key.publicKey)));
    const keys = this.#cached.get(name) ?? encapsulate(key.publicKey);
    this.#cached.delete(name); // inserted again as the latest
    this.#cached.set(name, keys);
    for (const oldest of this.#cached.keys()) {
      if (this.#cached.size <= MAX_CACHED_KEYS) break;
      this.#cached.delete(oldest);
    }
    return keys;
  }
}

function sealedRequest(request: PlainRequest, body: EncryptedInference) {
  const headers = carryHeaders(request.headers, "accept", "accept-encoding", ...Object.keys(PROVIDER_FIELDS));
  headers.set("Accept", EVENT_STREAM);
  headers.set("Accept-Encoding", "identity"); // browsers ignore it and decode what arrives
  headers.set("Content-Type", "application/json");
  const url = new URL(request.prefix + CHAT_PATH, request.url);
  return { method: "POST", url, headers, body: JSON.stringify(body) };
}

function parseChat(body: Bytes): unknown {
  const document = parseJson(new TextDecoder().decode(body));
  if (document === undefined) {
    throw new ConfigurationError("RVENC encrypts JSON requests only: the body of the request is not valid JSON.");
  }
  return document;
}

/** The chat with the provider's key and base URL of the request's headers. */
function withProviderFields(document: unknown, { headers, body }: PlainRequest): Bytes {
  const given = Object.entries(PROVIDER_FIELDS).flatMap(([name, field]) => {
    const value = headers.get(name);
    return value ? [[field, value]] : [];
  });
  if (given.length === 0 || !isJsonObject(document)) return body;
  return utf8(JSON.stringify({ ...document, ...Object.fromEntries(given) }));
}

interface RvencExchange {
  keys: RawKeys;
  nonce: Bytes;
  stream: boolean;
  maxBufferSize: number;
}

function plan(response: Response, { keys, nonce, stream, maxBufferSize }: RvencExchange): ResponsePlan {
  requireMediaType(response, EVENT_STREAM);
  const streamed = stream && response.ok; // the error of a chat that did not start is a single event
  const events = new ResponseOpener(keys, nonce, response.headers.get(RESPONSE_NONCE_HEADER));
  const opener = new RvencBody(events, streamed, maxBufferSize);
  const headers = carryHeaders(response.headers, RESPONSE_NONCE_HEADER);
  headers.set("Content-Type", streamed ? EVENT_STREAM : "application/json");
  const status = () => (response.ok && opener.error !== undefined ? BAD_GATEWAY : response.status);
  return { headers, opener, buffered: !streamed, status };
}

/** Opens RVENC events into what an OpenAI client expects: plain events, or one JSON document. */
class RvencBody implements BodyOpener {
  readonly #opener: ResponseOpener;
  readonly #reader: EventReader;
  readonly #stream: boolean;
  readonly #maxBufferSize: number;
  readonly #chunks: JsonObject[] = [];
  #kept = 0;
  error: JsonObject | undefined;

  constructor(opener: ResponseOpener, stream: boolean, maxBufferSize: number) {
    this.#opener = opener;
    this.#reader = new EventReader(maxBufferSize);
    this.#stream = stream;
    this.#maxBufferSize = maxBufferSize;
  }

  async feed(data: Bytes): Promise<Bytes> {
    const plain = this.#reader.feed(data).map((event) => this.#take(this.#opener.open(event)));
    return this.#stream ? utf8(plain.join("")) : NO_BYTES;
  }

  async finish(): Promise<Bytes> {
    this.#reader.finish();
    this.#opener.finish();
    return this.#stream ? NO_BYTES : utf8(JSON.stringify(this.error ?? aggregateChunks(this.#chunks)));
  }

  #take(event: OpenedEvent): string {
    if (event.name === "done") return "data: [DONE]\n\n";
    const document = parseJson(decodeUtf8(event.payload));
    if (!isJsonObject(document)) throw new EncryptionError("An event of the encrypted response is not a JSON object.");
    if (event.name === "error") this.error = document;
    else if (!this.#stream) {
      this.#kept += event.payload.length;
      if (this.#kept > this.#maxBufferSize) throw new BufferLimitError(this.#maxBufferSize);
      this.#chunks.push(document);
    }
    return `data: ${JSON.stringify(document)}\n\n`;
  }
}
