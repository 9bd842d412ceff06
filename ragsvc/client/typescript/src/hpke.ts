/**
 * HPKE base mode (RFC 9180) for one suite: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM; the client's side.
 *
 * In the Oryxen format the server seals its response with the request's key at sequence number 1. No HPKE library lets
 * a sender open, so the key schedule is here. X25519 and HKDF are those of @noble, AES-GCM is that of WebCrypto.
 */

import { x25519 } from "@noble/curves/ed25519.js";
import { expand as hkdfExpand, extract as hkdfExtract } from "@noble/hashes/hkdf.js";
import { sha256 } from "@noble/hashes/sha2.js";

import { bigEndian, type Bytes, concatBytes, NO_BYTES, utf8 } from "./bytes.js";
import { ConfigurationError, EncryptionError } from "./errors.js";

export const ENC_BYTES = 32;
export const TAG_BYTES = 16;
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const RESPONSE_SEQUENCE = 1;

const KEM_SUITE = concatBytes(utf8("KEM"), bigEndian(0x0020, 2));
const HPKE_SUITE = concatBytes(utf8("HPKE"), bigEndian(0x0020, 2), bigEndian(0x0001, 2), bigEndian(0x0002, 2));
const VERSION = utf8("HPKE-v1");
const MODE_BASE = Uint8Array.of(0);

/** HKDF-Extract with SHA-256, 32 bytes (RFC 5869 §2.2). */
export function extract(salt: Bytes, ikm: Bytes): Bytes {
  return new Uint8Array(hkdfExtract(sha256, ikm, salt));
}

/** HKDF-Expand with SHA-256 (RFC 5869 §2.3). */
export function expand(prk: Bytes, info: Bytes, length: number): Bytes {
  return new Uint8Array(hkdfExpand(sha256, prk, info, length));
}

function labeledExtract(suite: Bytes, salt: Bytes, label: string, ikm: Bytes): Bytes {
  return extract(salt, concatBytes(VERSION, suite, utf8(label), ikm));
}

function labeledExpand(suite: Bytes, prk: Bytes, label: string, info: Bytes, length: number): Bytes {
  return expand(prk, concatBytes(bigEndian(length, 2), VERSION, suite, utf8(label), info), length);
}

/** `base_nonce XOR I2OSP(sequence, 12)` (RFC 9180 §5.2). */
function nonceAt(baseNonce: Bytes, sequence: number): Bytes {
  const counter = bigEndian(sequence, NONCE_BYTES);
  return baseNonce.map((value, i) => value ^ (counter[i] ?? 0));
}

/** An AES-256-GCM key with a nonce sequence. */
export class Aead {
  readonly #key: Promise<CryptoKey>;
  readonly #baseNonce: Bytes;

  constructor(key: Bytes, baseNonce: Bytes) {
    this.#key = subtle().importKey("raw", key, "AES-GCM", false, ["encrypt", "decrypt"]);
    this.#baseNonce = baseNonce;
  }

  async seal(sequence: number, plaintext: Bytes, additionalData: Bytes): Promise<Bytes> {
    const algorithm = { name: "AES-GCM", iv: nonceAt(this.#baseNonce, sequence), additionalData };
    return new Uint8Array(await subtle().encrypt(algorithm, await this.#key, plaintext));
  }

  /** Throws `EncryptionError`, the same for every cause. */
  async open(sequence: number, ciphertext: Bytes, additionalData: Bytes): Promise<Bytes> {
    const algorithm = { name: "AES-GCM", iv: nonceAt(this.#baseNonce, sequence), additionalData };
    const key = await this.#key;
    try {
      return new Uint8Array(await subtle().decrypt(algorithm, key, ciphertext));
    } catch (error) {
      throw new EncryptionError("The encrypted response was changed, or it is not for this request.", { cause: error });
    }
  }

  /** The key and nonce of a streamed response (the construction of chunked OHTTP, RFC 9458 §4.4). */
  static ofResponse(secret: Bytes, enc: Bytes, responseNonce: Bytes): Aead {
    const prk = extract(concatBytes(enc, responseNonce), secret);
    return new Aead(expand(prk, utf8("key"), KEY_BYTES), expand(prk, utf8("nonce"), NONCE_BYTES));
  }
}

/** The client's side of one encapsulation: one request and its response. */
export class SenderContext {
  readonly enc: Bytes;
  readonly #aead: Aead;
  readonly #exporterSecret: Bytes;
  #sealed = false;
  #opened = false;

  /**
   * SetupBaseS of RFC 9180 §5.1.1. `ephemeral` (a secret key) is for test vectors only.
   *
   * Throws `EncryptionError` when `recipientPublic` is not a usable key.
   */
  constructor(recipientPublic: Bytes, info: Bytes, ephemeral: Bytes = x25519.utils.randomSecretKey() as Bytes) {
    this.enc = new Uint8Array(x25519.getPublicKey(ephemeral));
    const prk = labeledExtract(KEM_SUITE, NO_BYTES, "eae_prk", diffieHellman(ephemeral, recipientPublic));
    const kemContext = concatBytes(this.enc, recipientPublic);
    const sharedSecret = labeledExpand(KEM_SUITE, prk, "shared_secret", kemContext, 32);
    const context = concatBytes(
      MODE_BASE,
      labeledExtract(HPKE_SUITE, NO_BYTES, "psk_id_hash", NO_BYTES),
      labeledExtract(HPKE_SUITE, NO_BYTES, "info_hash", info),
    );
    const secret = labeledExtract(HPKE_SUITE, sharedSecret, "secret", NO_BYTES);
    const key = labeledExpand(HPKE_SUITE, secret, "key", context, KEY_BYTES);
    this.#aead = new Aead(key, labeledExpand(HPKE_SUITE, secret, "base_nonce", context, NONCE_BYTES));
    this.#exporterSecret = labeledExpand(HPKE_SUITE, secret, "exp", context, 32);
  }

  /** Seal the only request of this context, at sequence number 0. */
  async seal(plaintext: Bytes, additionalData: Bytes = NO_BYTES): Promise<Bytes> {
    if (this.#sealed) throw new Error("A context seals one request: a second request would reuse key and nonce.");
    this.#sealed = true;
    return this.#aead.seal(0, plaintext, additionalData);
  }

  /** Open the server's only response (sequence number 1, empty additional data). Throws `EncryptionError`. */
  async openResponse(ciphertext: Bytes): Promise<Bytes> {
    if (!this.#sealed || this.#opened) throw new Error("A context opens one response, after its request.");
    this.#opened = true;
    return this.#aead.open(RESPONSE_SEQUENCE, ciphertext, NO_BYTES);
  }

  /** RFC 9180 §5.3, Context.Export. */
  export(exporterContext: Bytes, length: number): Bytes {
    return labeledExpand(HPKE_SUITE, this.#exporterSecret, "sec", exporterContext, length);
  }
}

/** WebCrypto; browsers have it on secure pages only. Throws `ConfigurationError` without it. */
export function subtle(): SubtleCrypto {
  const found = globalThis.crypto?.subtle as SubtleCrypto | undefined;
  if (found === undefined) {
    throw new ConfigurationError("WebCrypto is missing: browsers offer it on pages with HTTPS and on localhost only.");
  }
  return found;
}

function diffieHellman(secretKey: Bytes, publicKey: Bytes): Bytes {
  try {
    return new Uint8Array(x25519.getSharedSecret(secretKey, publicKey));
  } catch (error) {
    throw new EncryptionError("The server's public key is not usable.", { cause: error }); // a point of low order
  }
}
