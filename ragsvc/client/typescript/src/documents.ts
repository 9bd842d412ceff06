/** `/v1/rag/documents`: upload, list, follow, delete. */

import type {
  DeletedDocument,
  DocumentPage,
  FileContent,
  ListOptions,
  RagDocument,
  UploadedDocument,
  UploadOptions,
} from "./api-types.js";
import { ApiError, DocumentFailedError, IncompleteStreamError } from "./errors.js";
import { readEvents } from "./event-stream.js";
import type { HttpClient } from "./http.js";

const PATH = "/v1/rag/documents";
const FIRST_DELAY_MS = 100;
const LONGEST_DELAY_MS = 5000;

function pathOf(documentId: string): string {
  return `${PATH}/${encodeURIComponent(documentId)}`;
}

export class Documents {
  readonly #http: HttpClient;

  constructor(http: HttpClient) {
    this.#http = http;
  }

  /**
   * Upload a file. It is sent as a form, so that an encrypted fetch hides its name too.
   *
   * Throws `ApiError` with the code `document_unreadable` for a file that turned out to be unreadable while waiting.
   */
  async upload(content: FileContent, options: UploadOptions): Promise<UploadedDocument> {
    const form = new FormData();
    for (const name of ["collection", "password"] as const) {
      if (options[name] !== undefined) form.set(name, options[name]);
    }
    if (options.metadata !== undefined) form.set("metadata", JSON.stringify(options.metadata));
    form.set("file", blobOf(content, options.mediaType), options.filename);
    return this.#http.json("POST", PATH, { body: form, query: { wait_s: options.waitS }, signal: options.signal });
  }

  /** One page of the list, newest first. */
  async list({ parentId, status, filters, signal, ...rest }: ListOptions = {}): Promise<DocumentPage> {
    const query = {
      ...rest,
      parent_id: parentId,
      status: Array.isArray(status) ? status.join(",") : status,
      filters: filters && JSON.stringify(filters),
    };
    return this.#http.json("GET", PATH, { query, signal });
  }

  /** All documents, page by page. */
  async *listAll(options: Omit<ListOptions, "after" | "before"> = {}): AsyncGenerator<RagDocument, void, undefined> {
    let after: string | null = null;
    for (;;) {
      const page: DocumentPage = await this.list({ limit: 100, ...options, ...(after === null ? {} : { after }) });
      yield* page.data;
      after = page.last_id;
      if (!page.has_more || after === null) return;
    }
  }

  async get(documentId: string, options: { signal?: AbortSignal } = {}): Promise<RagDocument> {
    return this.#http.json("GET", pathOf(documentId), options);
  }

  /** The stored file. */
  async content(documentId: string, options: { signal?: AbortSignal } = {}): Promise<Blob> {
    return (await this.#http.send("GET", `${pathOf(documentId)}/content`, options)).blob();
  }

  /** Change the file name or the metadata, which is merged; `null` removes a key. */
  async update(
    documentId: string,
    changes: { filename?: string; metadata?: Record<string, unknown> },
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<RagDocument> {
    return this.#http.json("PATCH", pathOf(documentId), { body: changes, signal });
  }

  /** Process a failed document again. */
  async retry(documentId: string, options: { password?: string; signal?: AbortSignal } = {}): Promise<RagDocument> {
    const { password, signal } = options;
    return this.#http.json("POST", `${pathOf(documentId)}/retry`, { body: password ? { password } : {}, signal });
  }

  async delete(documentId: string, options: { signal?: AbortSignal } = {}): Promise<DeletedDocument> {
    return this.#http.json("DELETE", pathOf(documentId), options);
  }

  /** Follow a document: yields it after each change, until it is ready or failed. */
  async *follow(documentId: string, options: { signal?: AbortSignal } = {}): AsyncGenerator<RagDocument, void> {
    const response = await this.#http.send("GET", `${pathOf(documentId)}/events`, options);
    if (response.body === null) throw new IncompleteStreamError();
    for await (const { name, data } of readEvents(response.body)) {
      if (name === "deleted") throw new DocumentFailedError(documentId, "deleted", "The document was deleted.");
      yield JSON.parse(data) as RagDocument;
      if (name === "ready" || name === "failed") return;
    }
    throw new IncompleteStreamError();
  }

  /**
   * Wait until a document is ready. Asks again and again where events cannot be streamed, as in the mode `hpke`.
   *
   * Throws `DocumentFailedError` when it failed or was deleted. Pass `AbortSignal.timeout(…)` to bound the wait.
   */
  async waitUntilReady(documentId: string, options: { signal?: AbortSignal } = {}): Promise<RagDocument> {
    let last: RagDocument | undefined;
    try {
      for await (const document of this.follow(documentId, options)) last = document;
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 400)) throw error;
      last = await this.#poll(documentId, options);
    }
    if (last?.status === "ready") return last;
    const { code, message } = last?.error ?? { code: "unknown", message: "The document failed." };
    throw new DocumentFailedError(documentId, code, message);
  }

  /** The document when it is ready or failed. */
  async #poll(documentId: string, options: { signal?: AbortSignal }): Promise<RagDocument> {
    for (let delayMs = FIRST_DELAY_MS; ; delayMs = Math.min(2 * delayMs, LONGEST_DELAY_MS)) {
      const document = await this.get(documentId, options);
      if (document.status === "ready" || document.status === "failed") return document;
      await delay(delayMs, options.signal);
    }
  }
}

/** Wait; throws the signal's reason when it is aborted meanwhile. */
function delay(delayMs: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, delayMs);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

function blobOf(content: FileContent, mediaType: string | undefined): Blob {
  if (content instanceof Blob && mediaType === undefined) return content;
  return new Blob([content as BlobPart], mediaType === undefined ? {} : { type: mediaType });
}
