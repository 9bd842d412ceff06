/** The vectors in the folder `fixtures/crypto` of the repository, or in that of `RAGSVC_FIXTURES`. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const REPOSITORY = fileURLToPath(new URL("../../../../../../", import.meta.url));
const FOLDER = process.env["RAGSVC_FIXTURES"] ?? join(REPOSITORY, "fixtures");

export function loadVectors<Vectors>(name: string): Vectors {
  return JSON.parse(readFileSync(join(FOLDER, "crypto", name), "utf-8")) as Vectors;
}

export interface ClientVectors {
  inputs: {
    recipient_secret: string;
    ephemeral_secret: string;
    request: string;
    response: string;
    bound: { method: string; target: string; content_type: string; api_key: string };
    steering: Record<string, string>;
    response_parts: string[];
    response_padding: number;
    xwing_seed: string;
    xwing_cipher_text: string;
    rvenc_nonce: string;
    response_nonce: string;
    rvenc_chunks: string[];
  };
  one_shot: { enc: string; sealed: string; response: string };
  stream: { aad: string; steered_aad: string; sealed: string; body: string };
  rvenc: { public_key: string; shared_secret: string; encrypted_inference: string; body: string };
}
