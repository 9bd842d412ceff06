/** The interface between `createEncryptedFetch` and the encryption modes, which do no I/O. */

import type { Bytes } from "./bytes.js";
import { EncryptionError } from "./errors.js";
import type { ServerKey } from "./server-keys.js";

/** A request before it is sealed. */
export interface PlainRequest {
  method: string;
  url: URL;
  /** The part of the path that a proxy removes before the service; without a trailing slash. */
  prefix: string;
  headers: Headers;
  body: Bytes;
}

/** A request to send. */
export interface SealedRequest {
  method: string;
  url: URL;
  headers: Headers;
  body: Bytes | string | null;
}

/** Decrypts a response body slice by slice. */
export interface BodyOpener {
  /** Take the next bytes; return the plaintext that they complete. */
  feed(data: Bytes): Promise<Bytes>;
  /** Return the rest, at the end of the body. Throws `EncryptionError` when the body was cut off. */
  finish(): Promise<Bytes>;
}

/** How to read a response. */
export interface ResponsePlan {
  headers: Headers;
  opener: BodyOpener;
  /** Whether the response is complete before the caller gets it. */
  buffered: boolean;
  /** The status of the plain response; for buffered responses, called at the end of the body. */
  status(): number;
}

/** A sealed request, and the state that opens its response. */
export interface SealedExchange {
  readonly request: SealedRequest;
  /** Check a response's status and headers. Throws `EncryptionError` for a response in plaintext. */
  begin(response: Response): ResponsePlan;
}

export interface EncryptionMode {
  /** The path of the server's key endpoint. */
  readonly keyPath: string;
  /** Parse the key endpoint's response. Throws `EncryptionError`. */
  parseKey(content: string): ServerKey;
  /** Seal a request; `key` is `undefined` if the mode was given its keys. Throws `ConfigurationError`. */
  seal(request: PlainRequest, key: ServerKey | undefined): Promise<SealedExchange>;
}

const REDIRECTS = new Set([301, 302, 303, 307, 308]);

/** Throws `EncryptionError` for a response that is a redirect or has another media type. */
export function requireMediaType(response: Response, expected: string): void {
  const mediaType = (response.headers.get("content-type") ?? "").split(";")[0]?.trim();
  const redirect = response.type === "opaqueredirect" || REDIRECTS.has(response.status);
  if (redirect || mediaType !== expected) {
    const status = response.type === "opaqueredirect" ? "with a redirect" : String(response.status);
    throw new EncryptionError(`The server answered ${status} without encryption.`);
  }
}

/** The API key of a request without its scheme, as the server reads it; empty if the request has none. */
export function bearerOf(headers: Headers): string {
  const value = headers.get("authorization") || headers.get("x-api-key") || headers.get("api-key") || "";
  return value.slice(0, 7).toLowerCase() === "bearer " ? value.slice(7).trim() : value.trim();
}

const OF_THE_BODY = ["content-length", "transfer-encoding", "content-encoding", "content-type"];

/** Copy headers, except those that describe the replaced body and `dropped`. */
export function carryHeaders(headers: Headers, ...dropped: string[]): Headers {
  const carried = new Headers(headers);
  for (const name of [...OF_THE_BODY, ...dropped]) carried.delete(name);
  return carried;
}
