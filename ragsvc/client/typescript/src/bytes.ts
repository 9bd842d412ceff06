/** Bytes and their text forms: hexadecimal, base64, UTF-8. Decoders accept exactly one encoding of each value. */

import { EncryptionError } from "./errors.js";

export type Bytes = Uint8Array<ArrayBuffer>;

export const NO_BYTES: Bytes = new Uint8Array(0);

const encoder = new TextEncoder();

export function utf8(text: string): Bytes {
  return new Uint8Array(encoder.encode(text));
}

/** The bytes of a header value as it travels: one byte for each character (Fetch standard, "isomorphic encode"). */
export function latin1(text: string): Bytes {
  return Uint8Array.from(text, (character) => character.charCodeAt(0) & 0xff);
}

/** Decode UTF-8. Throws `EncryptionError` for other bytes. */
export function decodeUtf8(data: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
  } catch (error) {
    throw new EncryptionError("The decrypted text is not UTF-8.", { cause: error });
  }
}

export function concatBytes(...parts: Uint8Array[]): Bytes {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

export function equalBytes(left: Uint8Array, right: Uint8Array): boolean {
  if (left.length !== right.length) return false;
  let difference = 0;
  for (let i = 0; i < left.length; i++) difference |= (left[i] ?? 0) ^ (right[i] ?? 0);
  return difference === 0;
}

const HEX_OF_BYTE = Array.from({ length: 256 }, (_, value) => value.toString(16).padStart(2, "0"));

export function encodeHex(data: Uint8Array): string {
  let text = "";
  for (const value of data) text += HEX_OF_BYTE[value];
  return text;
}

function digit(code: number): number {
  if (code >= 48 && code <= 57) return code - 48; // 0-9
  if (code >= 97 && code <= 102) return code - 87; // a-f
  throw new EncryptionError("A value is not hexadecimal.");
}

/** Decode lower-case hexadecimal text, of exactly `size` bytes if given. Throws `EncryptionError`. */
export function decodeHex(text: string, size?: number): Bytes {
  if (text.length % 2 !== 0 || (size !== undefined && text.length !== 2 * size)) {
    throw new EncryptionError("A hexadecimal value has the wrong length.");
  }
  const data = new Uint8Array(text.length / 2);
  for (let i = 0; i < data.length; i++) {
    data[i] = (digit(text.charCodeAt(2 * i)) << 4) | digit(text.charCodeAt(2 * i + 1));
  }
  return data;
}

/** Encode as standard base64 with padding. */
export function encodeBase64(data: Uint8Array): string {
  let binary = "";
  for (const value of data) binary += String.fromCharCode(value);
  return btoa(binary);
}

/** Decode standard base64 with padding. Throws `EncryptionError`. */
export function decodeBase64(text: string): Bytes {
  try {
    const data = latin1(atob(text));
    if (encodeBase64(data) === text) return data;
  } catch (error) {
    throw new EncryptionError("A value is not base64.", { cause: error });
  }
  throw new EncryptionError("A value is not base64.");
}

/** Encode a number as `length` bytes, most significant first. */
export function bigEndian(value: number, length: number): Bytes {
  const data = new Uint8Array(length);
  for (let i = length - 1, rest = value; i >= 0 && rest > 0; i--, rest = Math.floor(rest / 256)) data[i] = rest % 256;
  return data;
}
