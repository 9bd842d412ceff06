import assert from "node:assert/strict";
import { test } from "node:test";

import { x25519 } from "@noble/curves/ed25519.js";
import { ml_kem768_x25519 as xwing } from "@noble/post-quantum/hybrid.js";

import { type Bytes, concatBytes, decodeHex, encodeHex, utf8 } from "../src/bytes.js";
import { BufferLimitError, EncryptionError } from "../src/errors.js";
import { SenderContext } from "../src/hpke.js";
import { bindRequest, decodeVarint, StreamOpener } from "../src/hpke-stream.js";
import { encapsulate, EventReader, rawKeys, ResponseOpener, sealInference } from "../src/rvenc.js";
import { type ClientVectors, loadVectors } from "./support/vectors.js";

const { inputs, one_shot, stream, rvenc } = loadVectors<ClientVectors>("client_vectors.json");
const INFO = utf8("oryxen-hpke-e2ee-v1");
const publicKey = new Uint8Array(x25519.getPublicKey(decodeHex(inputs.recipient_secret)));

function newContext(): SenderContext {
  return new SenderContext(publicKey, INFO, decodeHex(inputs.ephemeral_secret));
}

async function sealedContext(): Promise<SenderContext> {
  const context = newContext();
  await context.seal(utf8("request"));
  return context;
}

test("the RFC 9180 vector: encapsulation, first message, exports", async () => {
  interface Rfc {
    info: string;
    skEm: string;
    pkRm: string;
    enc: string;
    encryptions: { aad: string; ct: string; pt: string }[];
    exports: { exporter_context: string; L: number; exported_value: string }[];
  }
  const [vector] = loadVectors<Rfc[]>("rfc9180_x25519_aes256gcm_base.json");
  assert.ok(vector);
  const context = new SenderContext(decodeHex(vector.pkRm), decodeHex(vector.info), decodeHex(vector.skEm));
  assert.equal(encodeHex(context.enc), vector.enc);
  const [first] = vector.encryptions;
  assert.ok(first);
  assert.equal(encodeHex(await context.seal(decodeHex(first.pt), decodeHex(first.aad))), first.ct);
  assert.equal(vector.exports.length, 3);
  for (const { exporter_context, L, exported_value } of vector.exports) {
    assert.equal(encodeHex(context.export(decodeHex(exporter_context), L)), exported_value);
  }
});

test("the one-shot mode seals and opens what the server's code seals and opens", async () => {
  const context = newContext();
  assert.equal(encodeHex(context.enc), one_shot.enc);
  assert.equal(encodeHex(await context.seal(utf8(inputs.request))), one_shot.sealed);
  assert.deepEqual(await context.openResponse(decodeHex(one_shot.response)), utf8(inputs.response));
});

test("a context seals one request and opens one response", async () => {
  const context = await sealedContext();
  await assert.rejects(context.seal(utf8("again")), /seals one request/);
  await context.openResponse(decodeHex(one_shot.response));
  await assert.rejects(context.openResponse(decodeHex(one_shot.response)), /opens one response/);
});

test("a public key of low order is refused", () => {
  assert.throws(() => new SenderContext(new Uint8Array(32), INFO), EncryptionError);
});

test("the stream mode binds a request as the server's code does", async () => {
  const { method, target, content_type: contentType, api_key: apiKey } = inputs.bound;
  const additionalData = bindRequest({ method, target, contentType, apiKey });
  assert.equal(encodeHex(additionalData), stream.aad);
  const headers = new Headers(inputs.steering);
  assert.equal(encodeHex(bindRequest({ method, target, contentType, apiKey, headers })), stream.steered_aad);
  assert.equal(encodeHex(await newContext().seal(utf8(inputs.request), additionalData)), stream.sealed);
});

const BODY = decodeHex(stream.body);
const PLAIN = concatBytes(...inputs.response_parts.map(utf8), utf8("x".repeat(inputs.response_padding)));

async function openInSlices(body: Bytes, size: number): Promise<Bytes> {
  const opener = new StreamOpener(await sealedContext());
  const parts: Bytes[] = [];
  for (let at = 0; at < body.length; at += size) parts.push(await opener.feed(body.slice(at, at + size)));
  return concatBytes(...parts, await opener.finish());
}

for (const size of [1, 7, 31, 4096, 1 << 20]) {
  test(`a stream opens in slices of ${size} bytes`, async () => {
    assert.deepEqual(await openInSlices(BODY, size), PLAIN);
  });
}

test("a stream yields plaintext before it has ended", async () => {
  const opener = new StreamOpener(await sealedContext());
  const opened = await opener.feed(BODY.slice(0, 32 + 1 + inputs.response_parts[0]!.length + 16));
  assert.deepEqual(opened, utf8(inputs.response_parts[0]!));
});

test("a stream that is cut anywhere is refused", async () => {
  for (let length = 0; length < BODY.length; length += length < 120 || length > BODY.length - 60 ? 1 : 997) {
    await assert.rejects(openInSlices(BODY.slice(0, length), 1 << 20), EncryptionError, `cut at ${length}`);
  }
});

test("a stream that is changed anywhere is refused", async () => {
  for (let at = 0; at < BODY.length; at += at < 120 || at > BODY.length - 60 ? 1 : 997) {
    const changed = BODY.slice();
    changed[at] = changed[at]! ^ 1;
    await assert.rejects(openInSlices(changed, 1 << 20), EncryptionError, `changed at ${at}`);
  }
});

test("after a failure every call fails", async () => {
  const opener = new StreamOpener(await sealedContext());
  const changed = BODY.slice(0, 60);
  changed[40] = changed[40]! ^ 1;
  await assert.rejects(opener.feed(changed), EncryptionError);
  await assert.rejects(opener.feed(BODY.slice(60)), EncryptionError);
  await assert.rejects(opener.finish(), EncryptionError);
});

test("varints of RFC 9000, in the shortest form only", () => {
  assert.deepEqual(decodeVarint(decodeHex("25")), { value: 37, used: 1 });
  assert.deepEqual(decodeVarint(decodeHex("7bbdff")), { value: 15293, used: 2 });
  assert.deepEqual(decodeVarint(decodeHex("9d7f3e7d")), { value: 494878333, used: 4 });
  assert.equal(decodeVarint(decodeHex("7b")), undefined);
  assert.throws(() => decodeVarint(decodeHex("4025")), EncryptionError);
});

const KEYS = rawKeys({ sharedSecret: rvenc.shared_secret, cipherText: inputs.xwing_cipher_text });

test("RVENC seals what the server's code seals", () => {
  const { body } = sealInference(KEYS, utf8(inputs.request), decodeHex(inputs.rvenc_nonce));
  const { encrypted_inference: encryptedInference } = rvenc;
  assert.deepEqual(body, { encryptedInference, cipherText: inputs.xwing_cipher_text, nonce: inputs.rvenc_nonce });
});

test("RVENC encapsulates for the server's key", () => {
  const { secretKey, publicKey: xwingPublic } = xwing.keygen(decodeHex(inputs.xwing_seed));
  assert.equal(encodeHex(xwingPublic), rvenc.public_key);
  assert.equal(encodeHex(xwing.decapsulate(decodeHex(inputs.xwing_cipher_text), secretKey)), rvenc.shared_secret);
  const { sharedSecret, cipherText } = encapsulate(decodeHex(rvenc.public_key));
  assert.deepEqual(new Uint8Array(xwing.decapsulate(cipherText, secretKey)), sharedSecret);
  assert.throws(() => encapsulate(new Uint8Array(1216).fill(0xff)), EncryptionError); // not reduced (FIPS 203 §7.2)
});

function openEvents(body: string, sliceSize: number): string[] {
  const reader = new EventReader(1 << 20);
  const opener = new ResponseOpener(KEYS, decodeHex(inputs.rvenc_nonce), null);
  const bytes = utf8(body);
  const opened: string[] = [];
  for (let at = 0; at < bytes.length; at += sliceSize) {
    for (const event of reader.feed(bytes.slice(at, at + sliceSize))) {
      const plain = opener.open(event);
      opened.push(plain.name === "done" ? "done" : new TextDecoder().decode(plain.payload));
    }
  }
  reader.finish();
  opener.finish();
  return opened;
}

for (const size of [1, 3, 64, 1 << 20]) {
  test(`RVENC events open in slices of ${size} bytes, with comments in between`, () => {
    const body = `:\n\n${rvenc.body.replace("\n\nevent", "\n\n: keep-alive\n\nevent")}`;
    assert.deepEqual(openEvents(body, size), [...inputs.rvenc_chunks, "done"]);
  });
}

test("RVENC refuses events that are cut, changed, reordered, renamed or repeated", () => {
  const events = rvenc.body.split(/(?<=\n\n)/);
  assert.equal(events.length, 3);
  const [first, second, done] = events as [string, string, string];
  const wrong = {
    cut: first + second,
    "cut in an event": rvenc.body.slice(0, -3),
    reordered: first + done + second,
    repeated: first + first + second + done,
    "left out": first + done,
    renamed: first + second.replace("data\n", "done\n") + done,
    "done as data": first + second + done.replace("done\n", "data\n"),
    "plaintext end": `${first}${second}event: done\ndata: [DONE]\n\n`,
    "another encoding": first + second.replace(/data: .*/, (line) => `data: ${line.slice(6).toUpperCase()}`) + done,
    "after the end": rvenc.body + done,
    malformed: `event: data\n\n${rvenc.body}`,
  };
  for (const [name, body] of Object.entries(wrong)) {
    assert.throws(() => openEvents(body, 1 << 20), EncryptionError, name);
  }
});

test("an event larger than the buffer is an error that names the limit", () => {
  const reader = new EventReader(1000);
  reader.feed(utf8(`event: data\ndata: ${"a".repeat(900)}`));
  assert.throws(
    () => reader.feed(utf8("a".repeat(100))),
    (error) => {
      assert.ok(error instanceof BufferLimitError);
      assert.match(error.message, /maxBufferSize \(1000 bytes\)/);
      return true;
    },
  );
});
