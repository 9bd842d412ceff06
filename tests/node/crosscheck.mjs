// Independent implementations for the encryption tests: reads one JSON command on stdin, writes one JSON answer.
import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from "@hpke/core";
import { xchacha20poly1305 } from "@noble/ciphers/chacha.js";
import { ml_kem768_x25519 } from "@noble/post-quantum/hybrid.js";
import { openStream, sealRequest } from "./encrypted_chat.mjs";

const bytes = (hex) => Uint8Array.from(Buffer.from(hex, "hex"));
const hex = (data) => Buffer.from(data).toString("hex");
const suite = new CipherSuite({ kem: new DhkemX25519HkdfSha256(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });

const commands = {
  async hpkeSeal({ publicKey, info, aad, messages }) {
    const recipientPublicKey = await suite.kem.deserializePublicKey(bytes(publicKey));
    const sender = await suite.createSenderContext({ recipientPublicKey, info: bytes(info) });
    const sealed = [];
    for (const message of messages) sealed.push(hex(await sender.seal(bytes(message), bytes(aad))));
    return { enc: hex(sender.enc), sealed, exported: hex(await sender.export(bytes("00"), 32)) };
  },
  async hpkeOpen({ privateKey, enc, info, aad, sealed }) {
    const recipientKey = await suite.kem.deserializePrivateKey(bytes(privateKey));
    const recipient = await suite.createRecipientContext({ recipientKey, enc: bytes(enc), info: bytes(info) });
    const messages = [];
    for (const message of sealed) messages.push(hex(await recipient.open(bytes(message), bytes(aad))));
    return { messages, exported: hex(await recipient.export(bytes("00"), 32)) };
  },
  async xwingPublicKey({ seed }) {
    return { publicKey: hex(ml_kem768_x25519.keygen(bytes(seed)).publicKey) };
  },
  async xwingEncapsulate({ publicKey, randomness }) {
    const made = ml_kem768_x25519.encapsulate(bytes(publicKey), randomness ? bytes(randomness) : undefined);
    return { cipherText: hex(made.cipherText), sharedSecret: hex(made.sharedSecret) };
  },
  async xwingDecapsulate({ seed, cipherText }) {
    return { sharedSecret: hex(ml_kem768_x25519.decapsulate(bytes(cipherText), bytes(seed))) };
  },
  async xchachaSeal({ key, nonce, aad, message }) {
    return { sealed: hex(xchacha20poly1305(bytes(key), bytes(nonce), bytes(aad)).encrypt(bytes(message))) };
  },
  async xchachaOpen({ key, nonce, aad, sealed }) {
    return { message: hex(xchacha20poly1305(bytes(key), bytes(nonce), bytes(aad)).decrypt(bytes(sealed))) };
  },
  // A whole exchange: seal here, have the test answer over stdin's second line, open here.
  async streamExchange({ publicKey, request }, nextLine) {
    const { enc, sealed, context } = await sealRequest(bytes(publicKey), request);
    process.stdout.write(JSON.stringify({ enc: hex(enc), sealed: hex(sealed) }) + "\n");
    const { slices } = JSON.parse(await nextLine());
    try {
      const parts = [];
      for await (const part of openStream(context, slices.map(bytes))) parts.push(part);
      return { message: hex(Buffer.concat(parts)) };
    } catch (error) {
      return { refused: String(error.message) };
    }
  },
};

const { createInterface } = await import("node:readline");
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const nextLine = async () => (await lines.next()).value;
const { command, ...parameters } = JSON.parse(await nextLine());
process.stdout.write(JSON.stringify(await commands[command](parameters, nextLine)) + "\n", () => process.exit(0));
