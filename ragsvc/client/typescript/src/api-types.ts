/** Requests and responses of the service's own routes. The names are those of the API. */

export type DocumentStatus = "queued" | "processing" | "ready" | "failed";

export interface DocumentProblem {
  code: string;
  message: string;
  first_page: number;
  last_page: number;
}

export interface RagDocument {
  id: string;
  object: "document";
  filename: string;
  title: string | null;
  media_type: string;
  bytes: number;
  sha256: string;
  collection: string;
  status: DocumentStatus;
  stage: string;
  /** 0 to 1. */
  progress: number;
  eta_s: number | null;
  pages: number;
  pages_done: number;
  passages: number;
  passages_done: number;
  problems: DocumentProblem[];
  error: { code: string; message: string } | null;
  metadata: Record<string, unknown>;
  timings: Record<string, number>;
  embedding_model: string | null;
  /** Unix seconds, as `updated_at` and `ready_at`. */
  created_at: number;
  updated_at: number;
  ready_at: number | null;
  parent_id: string | null;
}

export interface UploadedDocument extends RagDocument {
  /** `false` if the collection already had a document with these bytes. */
  created: boolean;
  updated: ("filename" | "metadata")[];
}

/** A file to upload. A string is uploaded as UTF-8. */
export type FileContent = Blob | ArrayBuffer | Uint8Array | string;

export interface UploadOptions {
  filename: string;
  /** Default: that of a `Blob`, otherwise recognised by the service. */
  mediaType?: string;
  collection?: string;
  metadata?: Record<string, unknown>;
  /** The password of a protected PDF. */
  password?: string;
  /** Seconds to wait until the document is ready; `0` returns at once. Default: a setting of the service. */
  waitS?: number;
  signal?: AbortSignal;
}

export interface ListOptions {
  limit?: number;
  after?: string;
  before?: string;
  order?: "asc" | "desc";
  status?: DocumentStatus | DocumentStatus[];
  /** Part of the file name. */
  name?: string;
  collection?: string;
  parentId?: string;
  /** A metadata filter, in the form of OpenAI's comparison and compound filters. */
  filters?: Record<string, unknown>;
  signal?: AbortSignal;
}

export interface DocumentPage {
  object: "list";
  data: RagDocument[];
  first_id: string | null;
  last_id: string | null;
  has_more: boolean;
}

export interface DeletedDocument {
  id: string;
  object: "document.deleted";
  deleted: true;
}

export type SearchMode = "hybrid" | "dense" | "lexical";

export interface SearchRequest {
  query: string;
  top_k?: number;
  mode?: SearchMode;
  collection?: string;
  document_ids?: string[];
  filters?: Record<string, unknown>;
  min_score?: number;
  rerank?: boolean;
}

export interface SearchHit {
  chunk_id: string;
  document_id: string;
  filename: string;
  page: number;
  page_label: string | null;
  start: number;
  end: number;
  headings: string[];
  quote: string;
  markdown: string | null;
  score: number;
  scores: { dense: number | null; lexical: number | null };
}

export interface SearchResponse {
  object: "list";
  data: SearchHit[];
  /** 0 to 1: the evidence that the documents contain an answer. */
  answerable: number;
  timings_ms: Record<string, number>;
}

/** A citation of a chat answer: `quote` is an exact part of page `page` of the document `file_id`. */
export interface Citation {
  type: "url_citation";
  url_citation: { url: string; title: string; content: string; start_index: number; end_index: number };
  index: number;
  file_id: string;
  filename: string;
  page: number;
  page_label: string | null;
  start_index: number;
  end_index: number;
  quote: string;
  score: number;
  chunk_id: string;
}

export interface RagOptions {
  collection?: string;
  document_ids?: string[];
  filters?: Record<string, unknown>;
  top_k?: number;
  mode?: SearchMode;
  min_score?: number;
}

export interface ChatMessage {
  role: "system" | "developer" | "user" | "assistant" | "tool";
  content: string | Record<string, unknown>[] | null;
  [field: string]: unknown;
}

/** A chat request (OpenAI: POST /v1/chat/completions), with the fields that ask for an answer from documents. */
export interface ChatRequest {
  model: string;
  messages: ChatMessage[];
  use_rag?: boolean;
  rag?: RagOptions;
  stream?: boolean;
  [field: string]: unknown;
}

export interface TokenUsage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

export interface ToolCall {
  id: string;
  type: string;
  function: { name: string; arguments: string };
}

export interface ChatCompletion {
  id: string;
  object: "chat.completion";
  created: number;
  model: string;
  choices: {
    index: number;
    message: {
      role: "assistant";
      content: string | null;
      refusal?: string | null;
      tool_calls?: ToolCall[] | null;
      annotations?: Citation[] | null;
    };
    finish_reason: string | null;
    logprobs?: Record<string, unknown> | null;
  }[];
  usage?: TokenUsage | null;
}

export interface ChatCompletionChunk {
  id: string;
  object: "chat.completion.chunk";
  created: number;
  model: string;
  choices: {
    index: number;
    delta: {
      role?: "assistant" | null;
      content?: string | null;
      refusal?: string | null;
      tool_calls?: ({ index: number } & Partial<ToolCall>)[] | null;
      annotations?: Citation[] | null;
    };
    finish_reason?: string | null;
    logprobs?: Record<string, unknown> | null;
  }[];
  usage?: TokenUsage | null;
}
