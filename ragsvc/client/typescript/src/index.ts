/** End-to-end encryption for clients that take a `fetch`, and a typed client of ragsvc's own routes. */

export type * from "./api-types.js";
export { attested, type AttestationQuote, checkReport, type VerifyQuote } from "./attestation.js";
export { type CallOptions, type ChatCompletions, ChatStream, citationsOf } from "./chat.js";
export { RagsvcClient } from "./client.js";
export type { Documents } from "./documents.js";
export {
  createEncryptedFetch,
  type EncryptedFetchOptions,
  type Fetch,
  generateEncryptionKeys,
  type HpkeOptions,
  type HpkeStreamOptions,
  isEncrypted,
  type RvencOptions,
  type ServerOptions,
} from "./encrypted-fetch.js";
export {
  ApiError,
  BufferLimitError,
  ConfigurationError,
  DocumentFailedError,
  EncryptionError,
  IncompleteStreamError,
  RagsvcClientError,
  RequestTimeoutError,
} from "./errors.js";
export type { HttpOptions } from "./http.js";
export type { EncryptionKeys } from "./rvenc.js";
export {
  createRvencClient,
  createRvencClient as default,
  type RvencClient,
  type RvencClientOptions,
} from "./rvenc-client.js";
export { fingerprint, type ServerKey, type VerifyKey } from "./server-keys.js";
