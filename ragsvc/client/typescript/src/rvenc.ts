/**
 * RVENC: a JSON body sealed with XChaCha20-Poly1305 under an X-Wing secret, answered by encrypted events.
 *
 * As the service does it, the response has a key of its own (HKDF over the secret, salted with both nonces) and a
 * counter for each event; the published rule (the request's secret and nonce for every chunk) is a many-time pad.
 */

import { xchacha20poly1305 } from "@noble/ciphers/chacha.js";
import { ml_kem768_x25519 as xwing } from "@noble/post-quantum/hybrid.js";

import { bigEndian, type Bytes, concatBytes, decodeHex, encodeHex, NO_BYTES, utf8 } from "./bytes.js";
import { BufferLimitError, ConfigurationError, EncryptionError } from "./errors.js";
import { expand, extract } from "./hpke.js";

export const CHAT_PATH = "/rvenc/chat/completions";
export const RESPONSE_NONCE_HEADER = "X-RVENC-Response-Nonce";
export const PUBLIC_KEY_BYTES = 1216;
const CIPHER_TEXT_BYTES = 1120;
const SHARED_SECRET_BYTES = 32;
const NONCE_BYTES = 24;
const RESPONSE_NONCE_BYTES = 32;
const RESPONSE_INFO = utf8("ragsvc-rvenc-v1 response");
const FINAL = utf8("final");
const DONE = "[DONE]";

/** A client's keys: a shared secret and the `cipherText` that encapsulates it. They can be used for many requests. */
export interface EncryptionKeys {
  /** 32 bytes, or their hexadecimal form. */
  sharedSecret: Uint8Array | string;
  /** 1120 bytes, or their hexadecimal form. */
  cipherText: Uint8Array | string;
  /** The server's key (1216 bytes) that the secret was encapsulated for; needed to check pinned keys. */
  publicKey?: Uint8Array;
}

export interface RawKeys {
  sharedSecret: Bytes;
  cipherText: Bytes;
}

/** Encapsulate for the server's X-Wing key. Throws `EncryptionError` when it is not a valid key. */
export function encapsulate(publicKey: Uint8Array): RawKeys & { publicKey: Bytes } {
  try {
    const { cipherText, sharedSecret } = xwing.encapsulate(publicKey);
    const copied = new Uint8Array(publicKey);
    return { sharedSecret: new Uint8Array(sharedSecret), cipherText: new Uint8Array(cipherText), publicKey: copied };
  } catch (error) {
    throw new EncryptionError("The server's public key is not usable.", { cause: error });
  }
}

/** The bytes of given keys. Throws `ConfigurationError`. */
export function rawKeys(keys: EncryptionKeys): RawKeys {
  return {
    sharedSecret: rawKey("sharedSecret", keys.sharedSecret, SHARED_SECRET_BYTES),
    cipherText: rawKey("cipherText", keys.cipherText, CIPHER_TEXT_BYTES),
  };
}

function rawKey(name: string, value: Uint8Array | string, size: number): Bytes {
  let data: Bytes | undefined;
  try {
    data = typeof value === "string" ? decodeHex(value.toLowerCase()) : new Uint8Array(value);
  } catch {
    data = undefined; // reported below
  }
  if (data?.length !== size) throw new ConfigurationError(`encryptionKeys.${name} must have ${size} bytes.`);
  return data;
}

/** The body of `POST /rvenc/chat/completions`; all fields are hexadecimal. */
export interface EncryptedInference {
  encryptedInference: string;
  cipherText: string;
  nonce: string;
}

/** Seal the JSON of a chat request with a fresh nonce; only tests pass `nonce`. */
export function sealInference(keys: RawKeys, payload: Bytes, nonce: Bytes = randomBytes(NONCE_BYTES)) {
  const sealed = xchacha20poly1305(keys.sharedSecret, nonce).encrypt(payload);
  const body: EncryptedInference = {
    encryptedInference: encodeHex(sealed),
    cipherText: encodeHex(keys.cipherText),
    nonce: encodeHex(nonce),
  };
  return { body, nonce };
}

function randomBytes(length: number): Bytes {
  return crypto.getRandomValues(new Uint8Array(length));
}

export interface RvencEvent {
  name: string;
  data: string;
}

/**
 * Splits a stream, fed in slices of any size, into events: an `event` line, a `data` line and a blank line; comments
 * may come in between. Stricter than a browser on purpose: the server writes nothing else.
 */
export class EventReader {
  readonly #maxBufferSize: number;
  #parts: Bytes[] = [];
  #size = 0;
  #endsWithNewline = false;

  constructor(maxBufferSize: number) {
    this.#maxBufferSize = maxBufferSize;
  }

  /** Take the next bytes; return the completed events. */
  feed(data: Bytes): RvencEvent[] {
    const events: RvencEvent[] = [];
    let start = 0;
    for (let i = data.indexOf(NEWLINE); i >= 0; i = data.indexOf(NEWLINE, i + 1)) {
      const blank = i > start ? data[i - 1] === NEWLINE : this.#endsWithNewline;
      if (!blank) continue;
      this.#keep(data.subarray(start, i + 1));
      const event = parseEvent(concatBytes(...this.#parts));
      if (event !== undefined) events.push(event);
      this.#parts = [];
      this.#size = 0;
      this.#endsWithNewline = false;
      start = i + 1;
    }
    this.#keep(data.slice(start));
    return events;
  }

  /** Check that the stream ended after an event. Throws `EncryptionError` otherwise. */
  finish(): void {
    if (this.#size > 0) throw new EncryptionError("The encrypted response was cut off.");
  }

  #keep(data: Bytes): void {
    if (data.length === 0) return;
    this.#size += data.length;
    if (this.#size > this.#maxBufferSize) throw new BufferLimitError(this.#maxBufferSize);
    this.#parts.push(data);
    this.#endsWithNewline = data[data.length - 1] === NEWLINE;
  }
}

const NEWLINE = 0x0a;

/** Parse a block that ends with a blank line; `undefined` if all of its lines are comments. */
function parseEvent(block: Bytes): RvencEvent | undefined {
  const lines = new TextDecoder("latin1")
    .decode(block.subarray(0, -2))
    .split("\n")
    .filter((line) => !line.startsWith(":"));
  if (lines.length === 0) return undefined;
  const [first, second] = lines;
  if (lines.length !== 2 || !first?.startsWith("event: ") || !second?.startsWith("data: ")) {
    throw new EncryptionError("The encrypted response contains a malformed event.");
  }
  return { name: first.slice("event: ".length), data: second.slice("data: ".length) };
}

export type OpenedEvent = { name: "data" | "error"; payload: Bytes } | { name: "done" };

/** Opens the events of one response in order. No event may follow `error` or `done`. */
export class ResponseOpener {
  readonly #keys: RawKeys;
  readonly #nonce: Bytes;
  readonly #expectedNonce: string | null;
  #key: Bytes | undefined;
  #index = 0;
  #finished = false;

  /** `expectedNonce` is the header of the response, if it has one. */
  constructor(keys: RawKeys, nonce: Bytes, expectedNonce: string | null) {
    this.#keys = keys;
    this.#nonce = nonce;
    this.#expectedNonce = expectedNonce;
  }

  /** Throws `EncryptionError` when the event was changed, reordered or renamed, or follows the last one. */
  open({ name, data }: RvencEvent): OpenedEvent {
    if (this.#finished || (name !== "data" && name !== "error" && name !== "done")) {
      throw new EncryptionError("The encrypted response contains an unexpected event.");
    }
    const payload = this.#openPayload(data, name === "data" ? NO_BYTES : FINAL);
    const isDone = payload.length === DONE.length && new TextDecoder().decode(payload) === DONE;
    if (isDone !== (name === "done")) throw new EncryptionError("An event of the encrypted response was renamed.");
    this.#finished = name !== "data";
    return name === "done" ? { name } : { name, payload };
  }

  /** Check that the stream has ended with its last event. Throws `EncryptionError` otherwise. */
  finish(): void {
    if (!this.#finished) throw new EncryptionError("The encrypted response was cut off.");
  }

  #openPayload(data: string, additionalData: Bytes): Bytes {
    let sealed = data;
    if (this.#key === undefined) {
      const prefix = data.slice(0, 2 * RESPONSE_NONCE_BYTES);
      sealed = data.slice(2 * RESPONSE_NONCE_BYTES);
      if (this.#expectedNonce !== null && prefix !== this.#expectedNonce) {
        throw new EncryptionError("The nonce of the encrypted response was changed.");
      }
      const salt = concatBytes(this.#nonce, decodeHex(prefix, RESPONSE_NONCE_BYTES));
      this.#key = expand(extract(salt, this.#keys.sharedSecret), RESPONSE_INFO, 32);
    }
    const nonce = bigEndian(this.#index++, NONCE_BYTES);
    const ciphertext = decodeHex(sealed);
    try {
      return new Uint8Array(xchacha20poly1305(this.#key, nonce, additionalData).decrypt(ciphertext));
    } catch (error) {
      throw new EncryptionError("The encrypted response was changed, or it is not for this request.", { cause: error });
    }
  }
}
