import { ApiError } from "./errors";
import { rememberPassword } from "./passwords";
import { href } from "./prefix";
import { request, upload, withQuery, type Query, type Upload } from "./request";
import { csrfToken } from "./session";

export type DocumentStatus = "queued" | "processing" | "ready" | "failed";
export type MetadataValue = string | number | boolean;

export interface PageProblem {
  code: string;
  message: string;
  first_page: number;
  last_page: number;
}

/** A document as the API shows it; times are Unix seconds. */
export interface DocumentInfo {
  id: string;
  filename: string;
  title: string | null;
  media_type: string;
  bytes: number;
  sha256: string;
  collection: string;
  status: DocumentStatus;
  stage: string;
  progress: number;
  eta_s: number | null;
  pages: number;
  pages_done: number;
  passages: number;
  passages_done: number;
  problems: PageProblem[];
  error: { code: string; message: string } | null;
  metadata: Record<string, MetadataValue>;
  timings: Record<string, number>;
  embedding_model: string | null;
  created_at: number;
  updated_at: number;
  ready_at: number | null;
  parent_id: string | null;
}

export interface UploadedDocument extends DocumentInfo {
  created: boolean;
  updated: string[];
}

export interface DocumentCounts {
  total: number;
  queued: number;
  processing: number;
  ready: number;
  failed: number;
  media_types: Record<string, number>;
}

export interface DocumentsSnapshot {
  counts: DocumentCounts;
  unfinished: DocumentInfo[];
  has_more: boolean;
  resumed: boolean;
}

export interface List<T> {
  data: T[];
  first_id: string | null;
  last_id: string | null;
  has_more: boolean;
}

export interface CollectionInfo {
  name: string;
  documents: number;
  ready: number;
  passages: number;
  bytes: number;
  created_at: number;
}

export interface PassageInfo {
  id: string;
  document_id: string;
  page: number;
  page_label: string | null;
  start: number;
  end: number;
  headings: string[];
  text: string;
  markdown: string | null;
}

export interface PageText {
  document_id: string;
  page: number;
  page_label: string | null;
  text: string;
}

export interface ScorePart {
  name: string;
  value: number;
  weight: number;
  points: number;
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
  explanation?: { parts: ScorePart[]; words: string[] };
}

export interface SearchAnswer {
  data: SearchHit[];
  answerable: number;
  timings_ms: Record<string, number>;
}

export type SearchMode = "hybrid" | "dense" | "lexical";

const DOCUMENTS = "/v1/rag/documents";

export function documentPath(id: string): string {
  return `${DOCUMENTS}/${encodeURIComponent(id)}`;
}

export function listDocuments(query: Query, signal?: AbortSignal): Promise<List<DocumentInfo>> {
  return request("GET", DOCUMENTS, { query, signal });
}

export function countDocuments(query: Query = {}, signal?: AbortSignal): Promise<DocumentCounts> {
  return request("GET", `${DOCUMENTS}/counts`, { query, signal });
}

export function getDocument(id: string, signal?: AbortSignal): Promise<DocumentInfo> {
  return request("GET", documentPath(id), { signal });
}

export function changeDocument(
  id: string,
  change: { filename?: string; metadata?: Record<string, MetadataValue | null> },
): Promise<DocumentInfo> {
  return request("PATCH", documentPath(id), { body: change });
}

export function retryDocument(id: string, password?: string): Promise<DocumentInfo> {
  if (password) rememberPassword(id, password);
  return request("POST", `${documentPath(id)}/retry`, { body: password ? { password } : {} });
}

/** Deletes a document; `keepalive` also finishes when the page is left. A document that is gone already is no error. */
export async function deleteDocument(id: string, { keepalive = false } = {}): Promise<void> {
  if (keepalive) {
    const headers = { "x-csrf-token": csrfToken() };
    void fetch(href(documentPath(id)), { method: "DELETE", headers, credentials: "same-origin", keepalive: true });
    return;
  }
  try {
    await request("DELETE", documentPath(id));
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 404)) throw error;
  }
}

export function uploadDocument(
  file: File,
  options: { collection: string; onProgress: (share: number) => void },
): Upload<UploadedDocument> {
  const form = new FormData();
  form.append("collection", options.collection);
  form.append("file", file, file.name);
  return upload("POST", DOCUMENTS, form, { query: { wait_s: 0 }, onProgress: options.onProgress });
}

/** The address from which the browser stores the original file. */
export function contentUrl(id: string): string {
  return href(`${documentPath(id)}/content`);
}

export function listPassages(id: string, after: string | null, signal?: AbortSignal): Promise<List<PassageInfo>> {
  return request("GET", `${documentPath(id)}/passages`, { query: { limit: 100, after }, signal });
}

export function getPageText(id: string, page: number, signal?: AbortSignal): Promise<PageText> {
  return request("GET", `${documentPath(id)}/pages/${page}`, { signal });
}

export async function listCollections(signal?: AbortSignal): Promise<CollectionInfo[]> {
  return (await request<{ data: CollectionInfo[] }>("GET", "/v1/rag/collections", { signal })).data;
}

export function createCollection(name: string): Promise<CollectionInfo> {
  return request("POST", "/v1/rag/collections", { body: { name } });
}

export function deleteCollection(name: string): Promise<unknown> {
  return request("DELETE", `/v1/rag/collections/${name.split("/").map(encodeURIComponent).join("/")}`);
}

export interface SearchQuestion {
  query: string;
  mode: SearchMode;
  collection: string;
  top_k?: number;
  document_ids?: string[];
}

/** Searches passages; each hit says what its score consists of. */
export function searchPassages(question: SearchQuestion, signal?: AbortSignal): Promise<SearchAnswer> {
  return request("POST", "/v1/rag/search", { body: { ...question, explain: true }, signal });
}

/** The path of the page that shows a document. */
export function documentPage(id: string, query: Query = {}): string {
  return withQuery(`/documents/${encodeURIComponent(id)}`, query);
}
