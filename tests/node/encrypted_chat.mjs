// An encrypted, streamed chat from JavaScript with @hpke/core, as a library of two functions and a command:
//   node encrypted_chat.mjs https://host ragsvc-key "What does the report say?"
import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from "@hpke/core";

const suite = new CipherSuite({ kem: new DhkemX25519HkdfSha256(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });
const utf8 = new TextEncoder();
const INFO = utf8.encode("oryxen-hpke-e2ee-v1");
const NONE = new Uint8Array(0);

function concat(...parts) {
  const joined = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}

async function bindRequest({ method, target, contentType, apiKey }) {
  const parts = [method, target, contentType].flatMap((text) => {
    const part = utf8.encode(text);
    return [Uint8Array.of(part.length >> 8, part.length & 0xff), part];
  });
  const key = new Uint8Array(await crypto.subtle.digest("SHA-256", utf8.encode(apiKey)));
  return concat(utf8.encode("oryxen-hpke-e2ee-v1 stream request\0"), ...parts, key);
}

/** Seal a request {method, target, contentType, apiKey, body} for the server's 32-byte public key. */
export async function sealRequest(publicKey, request) {
  const recipientPublicKey = await suite.kem.deserializePublicKey(publicKey);
  const sender = await suite.createSenderContext({ recipientPublicKey, info: INFO });
  const sealed = await sender.seal(utf8.encode(request.body), await bindRequest(request));
  return { enc: new Uint8Array(sender.enc), sealed: new Uint8Array(sealed), context: sender };
}

async function answerKeys(context, responseNonce) {
  const secret = await context.export(utf8.encode("oryxen-hpke-e2ee-v1 stream response"), 32);
  const input = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"]);
  const salt = concat(new Uint8Array(context.enc), responseNonce);
  const derive = (info, bits) =>
    crypto.subtle.deriveBits({ name: "HKDF", hash: "SHA-256", salt, info: utf8.encode(info) }, input, bits);
  const key = await crypto.subtle.importKey("raw", await derive("key", 256), "AES-GCM", false, ["decrypt"]);
  const nonce = new Uint8Array(await derive("nonce", 96));
  let sequence = 0;
  return async (sealed, additionalData) => {
    const iv = nonce.slice();
    for (let i = 0, rest = sequence++; rest > 0; i++, rest = Math.floor(rest / 256)) iv[11 - i] ^= rest % 256;
    return new Uint8Array(await crypto.subtle.decrypt({ name: "AES-GCM", iv, additionalData }, key, sealed));
  };
}

/** Yield the plaintext of an answer; throws when the stream was changed or cut off. */
export async function* openStream(context, body) {
  let buffer = NONE;
  let open;
  let final = false;
  for await (const slice of body) {
    buffer = concat(buffer, slice);
    if (!open) {
      if (buffer.length < 32) continue;
      open = await answerKeys(context, buffer.slice(0, 32));
      buffer = buffer.slice(32);
    }
    while (!final && buffer.length > 0) {
      const used = 1 << (buffer[0] >> 6);
      if (buffer.length < used) break;
      let length = buffer[0] & 0x3f;
      for (let i = 1; i < used; i++) length = length * 256 + buffer[i];
      if (length === 0) {
        final = true;
        buffer = buffer.slice(used);
      } else if (buffer.length < used + length) {
        break;
      } else {
        yield await open(buffer.slice(used, used + length), NONE);
        buffer = buffer.slice(used + length);
      }
    }
  }
  if (!final) throw new Error("the answer was cut off");
  yield await open(buffer, utf8.encode("final"));
}

async function main(origin, apiKey, question) {
  const key = await (await fetch(`${origin}/v1/hpke/key`)).json();
  const target = "/v1/chat/completions";
  const contentType = "application/json";
  const messages = [{ role: "user", content: question }];
  const body = JSON.stringify({ model: "local/chat-model", messages, use_rag: true, stream: true });
  const publicKey = Uint8Array.from(Buffer.from(key.public_key, "base64"));
  const { enc, sealed, context } = await sealRequest(publicKey, { method: "POST", target, contentType, apiKey, body });
  const response = await fetch(origin + target, {
    method: "POST",
    headers: {
      Authorization: `Bearer ${apiKey}`,
      Accept: "application/vnd.oryxen.hpke-stream",
      "Content-Type": "application/vnd.oryxen.hpke",
      "X-HPKE-Content-Type": contentType,
      "X-HPKE-Enc": Buffer.from(enc).toString("base64"),
    },
    body: sealed,
  });
  if (response.headers.get("content-type") !== "application/vnd.oryxen.hpke-stream") {
    throw new Error(`the server answered ${response.status} without encryption`);
  }
  const decoder = new TextDecoder();
  for await (const part of openStream(context, response.body)) process.stdout.write(decoder.decode(part, { stream: true }));
}

if (process.argv[1] === new URL(import.meta.url).pathname) await main(...process.argv.slice(2));
