/**
 * The client's attestation check: are the server's keys held in a trusted execution environment?
 *
 * The check covers that the quote's report data matches the key sets and a fresh nonce, and that the fetched key is in
 * one of the key sets. Whether the quote is genuine, and for which software, is decided by the hardware vendor's
 * verifier, which the caller provides. Without it the check proves nothing.
 */

import { sha256 } from "@noble/hashes/sha2.js";

import { type Bytes, concatBytes, decodeBase64, encodeHex, equalBytes, utf8 } from "./bytes.js";
import { isJsonObject } from "./chunk-aggregation.js";
import type { Fetch } from "./encrypted-fetch.js";
import { EncryptionError } from "./errors.js";
import { parseJson, type VerifyKey } from "./server-keys.js";

const REPORT_PATH = "/v1/attestation/report";
const NONCE_BYTES = 32;
const REPORT_DATA_BYTES = 64;
const LABEL = utf8("ragsvc-attest-v1\0");
const SNP_REPORT_BYTES = 1184;
const SNP_REPORT_DATA_AT = 0x50;
const TDX_REPORT_DATA_AT = 568;
const TDX_V4_HEADER = Uint8Array.of(0x04, 0x00);
const TDX_TEE_TYPE = Uint8Array.of(0x81, 0x00, 0x00, 0x00);

/** A quote with the name of its provider (`sev_guest`, `tdx_guest`) and, if there is one, the certificate table. */
export interface AttestationQuote {
  provider: string;
  quote: Bytes;
  auxiliary: Bytes;
}

/** Verifies a quote's signature, certificates and measurements; throws to refuse the quote. */
export type VerifyQuote = (quote: AttestationQuote) => void | Promise<void>;

/**
 * Parse a response of `GET /v1/attestation/report` and compare its report data with `nonce` (32 bytes).
 *
 * Throws `EncryptionError` when the report is malformed, does not match, or does not contain `publicKey`.
 */
export function checkReport(content: string, nonce: Bytes, publicKey: Bytes): AttestationQuote {
  const report = parseJson(content);
  if (!isJsonObject(report)) throw new EncryptionError("The attestation report is malformed.");
  const [keys, provider] = [textField(report, "keys"), textField(report, "provider")];
  const quote = decodeBase64(textField(report, "quote"));
  const auxiliary = decodeBase64(textField(report, "auxiliary"));
  const expected = concatBytes(sha256(concatBytes(LABEL, utf8(keys))), nonce);
  if (nonce.length !== NONCE_BYTES || !equalBytes(readReportData(provider, quote), expected)) {
    throw new EncryptionError("The attestation report is not for the server's keys and this request.");
  }
  const names = keyNames(parseJson(keys));
  if (!names.includes(encodeHex(publicKey)) && !names.includes(encodeHex(sha256(publicKey)))) {
    throw new EncryptionError("The server's key is not in the attestation report.");
  }
  return { provider, quote, auxiliary };
}

function textField(report: Record<string, unknown>, name: string): string {
  const value = report[name];
  if (typeof value !== "string") throw new EncryptionError("The attestation report is malformed.");
  return value;
}

function keyNames(document: unknown): unknown[] {
  const entries = isJsonObject(document) ? document["keys"] : undefined;
  if (!Array.isArray(entries)) throw new EncryptionError("The attestation report is malformed.");
  return entries.filter(isJsonObject).flatMap((entry) => [entry["x25519"], entry["xwing_sha256"]]);
}

/** The 64 bytes of report data in an SNP report (AMD 56860) or a TDX quote of version 4 (Intel, TD Quote Body). */
function readReportData(provider: string, quote: Bytes): Bytes {
  if (provider === "sev_guest" && quote.length >= SNP_REPORT_BYTES) {
    return quote.slice(SNP_REPORT_DATA_AT, SNP_REPORT_DATA_AT + REPORT_DATA_BYTES);
  }
  const tdx =
    provider === "tdx_guest" &&
    quote.length >= TDX_REPORT_DATA_AT + REPORT_DATA_BYTES &&
    equalBytes(quote.subarray(0, 2), TDX_V4_HEADER) &&
    equalBytes(quote.subarray(4, 8), TDX_TEE_TYPE);
  if (tdx) return quote.slice(TDX_REPORT_DATA_AT, TDX_REPORT_DATA_AT + REPORT_DATA_BYTES);
  throw new EncryptionError("The attestation quote is of a type that cannot be read.");
}

/**
 * Return a `verifyKey` that requires a fresh, matching and verified quote for each fetched key.
 *
 * `serverUrl` is that of `createEncryptedFetch`.
 */
export function attested(serverUrl: string, verifyQuote: VerifyQuote, options: { fetch?: Fetch } = {}): VerifyKey {
  const send = options.fetch ?? globalThis.fetch;
  return async (key) => {
    const nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
    const url = `${serverUrl.replace(/\/+$/, "")}${REPORT_PATH}?nonce=${encodeHex(nonce)}`;
    const response = await send(url, { redirect: "error", credentials: "omit" });
    if (!response.ok) {
      await response.body?.cancel();
      throw new EncryptionError(`The server has no attestation report: status ${response.status}.`);
    }
    await verifyQuote(checkReport(await response.text(), nonce, key.publicKey));
  };
}
