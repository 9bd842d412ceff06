/** A small RVENC server on 127.0.0.1, whose behaviour each test decides. */

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";

import { xchacha20poly1305 } from "@noble/ciphers/chacha.js";
import { ml_kem768_x25519 as xwing } from "@noble/post-quantum/hybrid.js";

import { bigEndian, type Bytes, concatBytes, decodeHex, encodeHex, utf8 } from "../../src/bytes.js";
import { expand, extract } from "../../src/hpke.js";
import type { EncryptedInference } from "../../src/rvenc.js";

/** Seals the events of one response. */
export class Sealer {
  readonly responseNonce = crypto.getRandomValues(new Uint8Array(32));
  readonly #key: Bytes;
  #index = 0;

  constructor(sharedSecret: Bytes, nonce: Bytes) {
    const salt = concatBytes(nonce, this.responseNonce);
    this.#key = expand(extract(salt, sharedSecret), utf8("ragsvc-rvenc-v1 response"), 32);
  }

  event(name: string, payload: unknown): string {
    const text = typeof payload === "string" ? payload : JSON.stringify(payload);
    const prefix = this.#index === 0 ? encodeHex(this.responseNonce) : "";
    const nonce = bigEndian(this.#index++, 24);
    const aad = utf8(name === "data" ? "" : "final");
    const sealed = xchacha20poly1305(this.#key, nonce, aad).encrypt(utf8(text));
    return `event: ${name}\ndata: ${prefix}${encodeHex(sealed)}\n\n`;
  }

  done(): string {
    return this.event("done", "[DONE]");
  }
}

export type Answer = (response: ServerResponse, sealer: Sealer, request: Record<string, unknown>) => void;

export class RvencServer {
  keys = xwing.keygen();
  /** Method and path of each request. */
  readonly seen: string[] = [];
  readonly headers: IncomingMessage["headers"][] = [];
  readonly nonces = new Set<string>();
  url = "";

  static async start(context: TestContext, answer: Answer): Promise<RvencServer> {
    const made = new RvencServer();
    const server = createServer((request, response) => void made.#handle(request, response, answer));
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    context.after(() => {
      server.closeAllConnections();
      server.close();
    });
    made.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    return made;
  }

  get publicKey(): Bytes {
    return new Uint8Array(this.keys.publicKey);
  }

  async #handle(request: IncomingMessage, response: ServerResponse, answer: Answer): Promise<void> {
    this.seen.push(`${request.method} ${request.url}`);
    this.headers.push(request.headers);
    if (request.url?.endsWith("/rvenc/key")) {
      const body = { public_key: encodeHex(this.publicKey), key_id: "1", expires_at: null };
      response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(body));
      return;
    }
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const { encryptedInference, cipherText, nonce } = JSON.parse(Buffer.concat(parts).toString()) as EncryptedInference;
    const sharedSecret = new Uint8Array(xwing.decapsulate(decodeHex(cipherText), this.keys.secretKey));
    let plain: Uint8Array;
    try {
      plain = xchacha20poly1305(sharedSecret, decodeHex(nonce)).decrypt(decodeHex(encryptedInference));
    } catch {
      const error = { message: "The request cannot be opened.", code: "encryption_error" };
      response.writeHead(400, { "Content-Type": "application/json" }).end(JSON.stringify({ error }));
      return;
    }
    this.nonces.add(nonce);
    const sealer = new Sealer(sharedSecret, decodeHex(nonce));
    answer(response, sealer, JSON.parse(Buffer.from(plain).toString()) as Record<string, unknown>);
  }
}

export function begin(response: ServerResponse, sealer: Sealer, status = 200): void {
  const nonce = { "X-RVENC-Response-Nonce": encodeHex(sealer.responseNonce) };
  response.writeHead(status, { "Content-Type": "text/event-stream", ...nonce });
}

export function chunk(content: string, finishReason: string | null = null) {
  const choices = [{ index: 0, delta: { content }, finish_reason: finishReason }];
  return { id: "c", object: "chat.completion.chunk", created: 1, model: "m", choices };
}
