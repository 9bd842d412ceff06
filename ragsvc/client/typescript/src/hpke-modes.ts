/**
 * The two HPKE modes, for every route.
 *
 * The one-shot mode is the Oryxen document's: the response is a single sealed message, and the service refuses
 * `stream: true`. The stream mode authenticates method, target, media type and API key too, and streams.
 */

import { type Bytes, concatBytes, decodeBase64, encodeBase64, NO_BYTES, utf8 } from "./bytes.js";
import {
  bearerOf,
  type BodyOpener,
  carryHeaders,
  type EncryptionMode,
  type PlainRequest,
  requireMediaType,
  type ResponsePlan,
  type SealedExchange,
  type SealedRequest,
} from "./encryption-mode.js";
import { BufferLimitError, ConfigurationError } from "./errors.js";
import { ENC_BYTES, SenderContext } from "./hpke.js";
import { bindRequest, StreamOpener } from "./hpke-stream.js";
import { parseKey, type ServerKey } from "./server-keys.js";

export const DEFAULT_HPKE_KEY_PATH = "/v1/hpke/key";
/** The largest one-shot response; the service takes documents of 50 MB. */
export const DEFAULT_ONE_SHOT_BUFFER_SIZE = 128 * 1024 * 1024;

const INFO = utf8("oryxen-hpke-e2ee-v1");
const ENC_HEADER = "X-HPKE-Enc";
const CONTENT_TYPE_HEADER = "X-HPKE-Content-Type";
const SEALED_BODY_HEADER = "X-HPKE-Body";
const ONE_SHOT_MEDIA_TYPE = "application/vnd.oryxen.hpke";
const STREAM_MEDIA_TYPE = "application/vnd.oryxen.hpke-stream";
const BODILESS = new Set(["GET", "DELETE", "OPTIONS"]);

abstract class HpkeMode implements EncryptionMode {
  constructor(readonly keyPath: string) {}

  parseKey(content: string): ServerKey {
    return parseKey(content, decodeBase64, ENC_BYTES);
  }

  async seal(request: PlainRequest, key: ServerKey | undefined): Promise<SealedExchange> {
    if (request.method === "HEAD") {
      throw new ConfigurationError("HEAD cannot be encrypted: its response has no body that could be authenticated.");
    }
    if (key === undefined) throw new Error("HPKE needs a server key.");
    const context = new SenderContext(key.publicKey, INFO);
    const sealed = await context.seal(request.body, this.additionalData(request));
    return {
      request: this.#sealedRequest(request, context, sealed),
      begin: (response) => this.plan(response, context),
    };
  }

  /** The media type to accept; `undefined` for the mode that needs no such header. */
  protected abstract readonly accept: string | undefined;
  protected abstract additionalData(request: PlainRequest): Bytes;
  protected abstract plan(response: Response, context: SenderContext): ResponsePlan;

  #sealedRequest(request: PlainRequest, context: SenderContext, sealed: Bytes): SealedRequest {
    const headers = carryHeaders(request.headers, "accept", "accept-encoding");
    headers.set("Accept", this.accept ?? "*/*");
    headers.set("Accept-Encoding", "identity"); // browsers ignore it and decode what arrives
    headers.set(ENC_HEADER, encodeBase64(context.enc));
    const contentType = request.headers.get("content-type");
    if (contentType) headers.set(CONTENT_TYPE_HEADER, contentType);
    if (BODILESS.has(request.method) && request.body.length === 0) {
      headers.set(SEALED_BODY_HEADER, encodeBase64(sealed));
      return { method: request.method, url: request.url, headers, body: null };
    }
    headers.set("Content-Type", ONE_SHOT_MEDIA_TYPE);
    return { method: request.method, url: request.url, headers, body: sealed };
  }
}

function openedHeaders(response: Response): Headers {
  const headers = carryHeaders(response.headers, CONTENT_TYPE_HEADER);
  headers.set("Content-Type", response.headers.get(CONTENT_TYPE_HEADER) ?? "application/json");
  return headers;
}

export class HpkeStreamMode extends HpkeMode {
  protected override readonly accept = STREAM_MEDIA_TYPE;

  protected override additionalData({ method, url, prefix, headers }: PlainRequest): Bytes {
    return bindRequest({
      method,
      target: url.pathname.slice(prefix.length) + url.search,
      contentType: headers.get("content-type") ?? "",
      apiKey: bearerOf(headers),
      headers,
    });
  }

  protected override plan(response: Response, context: SenderContext): ResponsePlan {
    requireMediaType(response, STREAM_MEDIA_TYPE);
    const opener = new StreamOpener(context);
    return { headers: openedHeaders(response), opener, buffered: false, status: () => response.status };
  }
}

export class HpkeOneShotMode extends HpkeMode {
  protected override readonly accept = undefined;
  readonly #maxBufferSize: number;

  constructor(keyPath: string, maxBufferSize: number) {
    super(keyPath);
    this.#maxBufferSize = maxBufferSize;
  }

  protected override additionalData(): Bytes {
    return NO_BYTES;
  }

  protected override plan(response: Response, context: SenderContext): ResponsePlan {
    requireMediaType(response, ONE_SHOT_MEDIA_TYPE);
    const opener = new OneShotOpener(context, this.#maxBufferSize);
    return { headers: openedHeaders(response), opener, buffered: true, status: () => response.status };
  }
}

class OneShotOpener implements BodyOpener {
  readonly #context: SenderContext;
  readonly #maxBufferSize: number;
  readonly #parts: Bytes[] = [];
  #size = 0;

  constructor(context: SenderContext, maxBufferSize: number) {
    this.#context = context;
    this.#maxBufferSize = maxBufferSize;
  }

  async feed(data: Bytes): Promise<Bytes> {
    this.#size += data.length;
    if (this.#size > this.#maxBufferSize) throw new BufferLimitError(this.#maxBufferSize);
    this.#parts.push(data);
    return NO_BYTES;
  }

  async finish(): Promise<Bytes> {
    return this.#context.openResponse(concatBytes(...this.#parts));
  }
}
