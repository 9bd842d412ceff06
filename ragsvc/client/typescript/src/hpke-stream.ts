/**
 * Streamed responses over HPKE: `response_nonce(32) || (varint(len) || chunk)* || 0x00 || last chunk`.
 *
 * The last chunk is sealed with the additional data `final` and extends to the end of the body, so a truncated
 * response is always an error. A chunk has at most 16 KiB of plaintext.
 */

import { sha256 } from "@noble/hashes/sha2.js";

import { bigEndian, type Bytes, concatBytes, latin1, NO_BYTES, utf8 } from "./bytes.js";
import { EncryptionError } from "./errors.js";
import { Aead, type SenderContext, TAG_BYTES } from "./hpke.js";

const EXPORT_LABEL = utf8("oryxen-hpke-e2ee-v1 stream response");
const REQUEST_LABEL = utf8("oryxen-hpke-e2ee-v1 stream request\0");
/** Headers that choose the provider, its key or the documents of a request; their order is that of the AAD. */
const STEERING_HEADERS = ["x-provider-key", "x-provider-base-url", "x-ragsvc-use-rag", "x-ragsvc-collection"];
const RESPONSE_NONCE_BYTES = 32;
const MAX_SEALED_BYTES = 16 * 1024 + TAG_BYTES;
const FINAL = utf8("final");

export interface BoundRequest {
  method: string;
  /** Path and query as the service sees them. */
  target: string;
  /** The media type of the plaintext; may be empty. */
  contentType: string;
  /** The API key without its scheme; may be empty. */
  apiKey: string;
  /** The request's headers, of which those that steer it are bound. */
  headers?: Headers;
}

/** The request's additional data: the parts that a gateway must not change, above all the account that pays. */
export function bindRequest({ method, target, contentType, apiKey, headers }: BoundRequest): Bytes {
  const steering = STEERING_HEADERS.flatMap((name) => {
    const value = headers?.get(name);
    return value == null ? [] : [name, value];
  });
  const account = sha256(latin1(apiKey));
  return concatBytes(
    REQUEST_LABEL,
    ...withLengths([method.toUpperCase(), target, contentType]),
    account,
    ...withLengths(steering),
  );
}

function withLengths(texts: string[]): Bytes[] {
  const parts = texts.map(latin1);
  if (parts.some((part) => part.length > 0xffff)) {
    throw new EncryptionError("The request's target, media type or a header is longer than 65,535 bytes.");
  }
  return parts.flatMap((part) => [bigEndian(part.length, 2), part]);
}

/** Decode a QUIC varint (RFC 9000 §16) in its shortest form; `undefined` if `buffer` is too short. */
export function decodeVarint(buffer: Uint8Array): { value: number; used: number } | undefined {
  const first = buffer[0];
  if (first === undefined) return undefined;
  const exponent = first >> 6;
  const used = 1 << exponent;
  if (buffer.length < used) return undefined;
  let value = first & 0x3f;
  for (let i = 1; i < used; i++) value = value * 256 + (buffer[i] ?? 0);
  if (exponent > 0 && value < 2 ** (4 * used - 2)) throw new EncryptionError("A length has more bytes than it needs.");
  return { value, used };
}

/** Opens one streamed response from slices of any size; each returned byte is authenticated. */
export class StreamOpener {
  readonly #context: SenderContext;
  #aead: Aead | undefined;
  #buffer: Bytes = NO_BYTES;
  #sequence = 0;
  #final = false;
  #closed = false;

  constructor(context: SenderContext) {
    this.#context = context;
  }

  /** Take the next bytes of the body; return the plaintext of the chunks that they complete. */
  async feed(data: Uint8Array): Promise<Bytes> {
    this.#requireOpen();
    this.#closed = true; // until this call succeeds
    this.#buffer = concatBytes(this.#buffer, data);
    const plaintext = await this.#drain();
    this.#closed = false;
    return plaintext;
  }

  /** Return the plaintext of the last chunk, at the end of the body. Throws `EncryptionError` for a truncated body. */
  async finish(): Promise<Bytes> {
    this.#requireOpen();
    this.#closed = true;
    if (!this.#final || this.#aead === undefined) throw new EncryptionError("The encrypted response was cut off.");
    return this.#aead.open(this.#sequence, this.#buffer, FINAL);
  }

  #requireOpen(): void {
    if (this.#closed) throw new EncryptionError("The encrypted response has ended.");
  }

  async #drain(): Promise<Bytes> {
    if (this.#aead === undefined) {
      if (this.#buffer.length < RESPONSE_NONCE_BYTES) return NO_BYTES;
      const secret = this.#context.export(EXPORT_LABEL, 32);
      this.#aead = Aead.ofResponse(secret, this.#context.enc, this.#take(RESPONSE_NONCE_BYTES));
    }
    const opened: Bytes[] = [];
    for (let sealed = this.#nextFrame(); sealed !== undefined; sealed = this.#nextFrame()) {
      opened.push(await this.#aead.open(this.#sequence++, sealed, NO_BYTES));
    }
    if (this.#final && this.#buffer.length > MAX_SEALED_BYTES) {
      throw new EncryptionError("The last chunk of the encrypted response is too large.");
    }
    return opened.length === 1 ? (opened[0] ?? NO_BYTES) : concatBytes(...opened);
  }

  /** The next complete chunk; `undefined` if it is incomplete or the last chunk has started. */
  #nextFrame(): Bytes | undefined {
    if (this.#final) return undefined;
    const header = decodeVarint(this.#buffer);
    if (header === undefined) return undefined;
    if (header.value === 0) {
      this.#take(header.used);
      this.#final = true;
      return undefined;
    }
    if (header.value <= TAG_BYTES || header.value > MAX_SEALED_BYTES) {
      throw new EncryptionError("A chunk of the encrypted response has an impossible length.");
    }
    if (this.#buffer.length < header.used + header.value) return undefined;
    this.#take(header.used);
    return this.#take(header.value);
  }

  #take(length: number): Bytes {
    const taken = this.#buffer.slice(0, length);
    this.#buffer = this.#buffer.subarray(length);
    return taken;
  }
}
