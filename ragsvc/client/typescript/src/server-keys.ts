/** The server's public key on the client: parsed, compared with pinned keys, and cached. */

import { sha256 } from "@noble/hashes/sha2.js";

import { type Bytes, encodeHex } from "./bytes.js";
import { isJsonObject } from "./chunk-aggregation.js";
import { EncryptionError } from "./errors.js";

/** A key is fetched again after this time, even if it expires later. */
export const MAX_KEY_AGE_MS = 3_600_000;

export interface ServerKey {
  publicKey: Bytes;
  keyId: string;
  /** Unix seconds; `null` for a key that does not rotate. */
  expiresAt: number | null;
}

/** Checks a fetched key (for example by attestation); throws to refuse the key. */
export type VerifyKey = (key: ServerKey) => void | Promise<void>;

/** SHA-256 of the raw public key in hexadecimal, as in `pinnedKeys`. */
export function fingerprint(publicKey: Uint8Array): string {
  return encodeHex(sha256(publicKey));
}

/** Parse a key endpoint's JSON; `decode` turns `public_key` into `size` bytes. Throws `EncryptionError`. */
export function parseKey(content: string, decode: (text: string) => Bytes, size: number): ServerKey {
  const document = parseJson(content);
  if (!isJsonObject(document) || typeof document["public_key"] !== "string") {
    throw new EncryptionError("The server's key response is malformed.");
  }
  const publicKey = decode(document["public_key"]);
  const expiresAt = document["expires_at"] ?? null;
  if (publicKey.length !== size || (expiresAt !== null && typeof expiresAt !== "number")) {
    throw new EncryptionError("The server's key response is malformed.");
  }
  return { publicKey, keyId: String(document["key_id"] ?? ""), expiresAt };
}

/** Parse JSON; `undefined` for other text. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** Decides which keys are accepted. */
export class KeyTrust {
  readonly #pins: ReadonlySet<string> | undefined;
  readonly #verifyKey: VerifyKey | undefined;

  constructor(pinnedKeys: Iterable<string> | undefined, verifyKey: VerifyKey | undefined) {
    this.#pins = pinnedKeys && new Set([...pinnedKeys].map((pin) => pin.toLowerCase()));
    this.#verifyKey = verifyKey;
  }

  /** Whether keys are checked by more than the TLS connection they were fetched over. */
  get beyondTls(): boolean {
    return this.#pins !== undefined || this.#verifyKey !== undefined;
  }

  /** Throws `EncryptionError` for a key that is not pinned, or what `verifyKey` throws. */
  async check(key: ServerKey): Promise<void> {
    if (this.#pins !== undefined && !this.#pins.has(fingerprint(key.publicKey))) {
      throw new EncryptionError("The server's key is not among the pinned keys.");
    }
    await this.#verifyKey?.(key);
  }
}

/** The server key in use. */
export class KeyCache {
  readonly #clock: () => number;
  #held: { key: ServerKey; due: number } | undefined;

  constructor(clock: () => number) {
    this.#clock = clock;
  }

  /** The cached key; `undefined` if there is none or it must be fetched again. */
  get(): ServerKey | undefined {
    return this.#held !== undefined && this.#clock() < this.#held.due ? this.#held.key : undefined;
  }

  put(key: ServerKey): void {
    const latest = this.#clock() + MAX_KEY_AGE_MS;
    this.#held = { key, due: key.expiresAt === null ? latest : Math.min(latest, key.expiresAt * 1000) };
  }

  /** Discard the key, because the server does not accept it any more. */
  drop(): void {
    this.#held = undefined;
  }
}

/** Whether an error body says that the server could not open the request. */
export function isEncryptionProblem(content: string): boolean {
  const document = parseJson(content);
  const error = isJsonObject(document) ? document["error"] : undefined;
  return isJsonObject(error) && error["code"] === "encryption_error";
}
