import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";

import { sha256 } from "@noble/hashes/sha2.js";

import { concatBytes, decodeHex, encodeBase64, encodeHex, utf8 } from "../src/bytes.js";
import { type AttestationQuote, attested, checkReport, EncryptionError, type ServerKey } from "../src/index.js";

const KEY = sha256(utf8("key"));
const NONCE = sha256(utf8("nonce"));
const KEYS = JSON.stringify({
  keys: [{ expires_at: null, key_id: "1", x25519: encodeHex(KEY), xwing_sha256: encodeHex(sha256(utf8("xwing"))) }],
});

function reportData(keys: string, nonce: Uint8Array): Uint8Array {
  return concatBytes(sha256(concatBytes(utf8("ragsvc-attest-v1\0"), utf8(keys))), nonce);
}

function snpQuote(data: Uint8Array): Uint8Array {
  const quote = new Uint8Array(1184);
  quote.set(data, 0x50);
  return quote;
}

function tdxQuote(data: Uint8Array): Uint8Array {
  const quote = new Uint8Array(1000);
  quote.set(decodeHex("0400020081000000"));
  quote.set(data, 568);
  return quote;
}

function report(provider: string, quote: Uint8Array, keys = KEYS): string {
  return JSON.stringify({ provider, quote: encodeBase64(quote), auxiliary: encodeBase64(utf8("table")), keys });
}

test("a report for the key and the nonce is accepted, of both kinds of hardware", () => {
  const data = reportData(KEYS, NONCE);
  const found = checkReport(report("sev_guest", snpQuote(data)), NONCE, KEY);
  assert.deepEqual([found.provider, new TextDecoder().decode(found.auxiliary)], ["sev_guest", "table"]);
  checkReport(report("tdx_guest", tdxQuote(data)), NONCE, KEY);
  checkReport(report("tdx_guest", tdxQuote(data)), NONCE, utf8("xwing"));
});

test("every other report is refused", () => {
  const quote = snpQuote(reportData(KEYS, NONCE));
  const otherKeys = KEYS.replace("1", "2");
  const wrong: Record<string, [string, Uint8Array]> = {
    "another key": [report("sev_guest", quote), utf8("stranger")],
    "another nonce": [report("sev_guest", snpQuote(reportData(KEYS, sha256(NONCE)))), KEY],
    "other keys than the quote's": [report("sev_guest", quote, otherKeys), KEY],
    "another provider": [report("tdx_guest", quote), KEY],
    "an unknown provider": [report("other", quote), KEY],
    "a short quote": [report("sev_guest", quote.slice(0, 1183)), KEY],
    "no JSON": ["report", KEY],
    "no quote": [JSON.stringify({ provider: "sev_guest", keys: KEYS }), KEY],
    "keys that are no list": [report("sev_guest", snpQuote(reportData("{}", NONCE)), "{}"), KEY],
  };
  for (const [name, [content, key]] of Object.entries(wrong)) {
    assert.throws(() => checkReport(content, NONCE, new Uint8Array(key)), EncryptionError, name);
  }
});

test("attested fetches a report for a fresh nonce and asks the verifier", async (context) => {
  const asked: string[] = [];
  let status = 200;
  const server = createServer((request, response) => {
    asked.push(request.url ?? "");
    const nonce = decodeHex(new URL(request.url ?? "", "http://localhost").searchParams.get("nonce") ?? "");
    response.writeHead(status).end(report("sev_guest", snpQuote(reportData(KEYS, nonce))));
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  context.after(() => server.close());
  const serverUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/team/`;
  const quotes: AttestationQuote[] = [];
  const verify = attested(serverUrl, (quote) => void quotes.push(quote));
  const key: ServerKey = { publicKey: KEY, keyId: "1", expiresAt: null };
  await verify(key);
  await verify(key);
  assert.equal(quotes.length, 2);
  assert.equal(new Set(asked).size, 2);
  assert.ok(asked.every((url) => /^\/team\/v1\/attestation\/report\?nonce=[0-9a-f]{64}$/.test(url)));
  await assert.rejects(async () => verify({ ...key, publicKey: NONCE }), EncryptionError);
  const refusing = attested(serverUrl, () => {
    throw new Error("the measurement is unknown");
  });
  await assert.rejects(async () => refusing(key), /measurement is unknown/);
  status = 503;
  await assert.rejects(async () => verify(key), /no attestation report: status 503/);
});
