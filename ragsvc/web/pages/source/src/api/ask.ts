import { jsonEvents } from "./events";
import { request, type Query } from "./request";

export interface Page<T> {
  data: T[];
  last_id: string | null;
  has_more: boolean;
}

export interface Collection {
  name: string;
  documents: number;
  ready: number;
}

export interface Store {
  id: string;
  collection: string;
}

export interface DocumentEntry {
  id: string;
  filename: string;
  title: string | null;
  collection: string;
  pages: number;
  metadata: Record<string, unknown>;
}

export interface Model {
  id: string;
  available: boolean;
}

export interface Conversation {
  id: string;
  created_at: number;
  metadata: Record<string, string>;
}

export interface ListedConversation extends Conversation {
  last_active_at: number;
}

/** A citation in the text of an answer. `start_index` and `end_index` count code points. */
export interface Annotation {
  type: string;
  filename?: string;
  document_id?: string;
  page?: number;
  page_label?: string | null;
  quote?: string;
  chunk_id?: string;
  start_index?: number;
  end_index?: number;
}

export interface Passage {
  filename: string;
  document_id?: string;
  page?: number;
  page_label?: string | null;
  chunk_id?: string;
  text: string;
  score: number;
}

interface Part {
  type: string;
  text?: string;
  refusal?: string;
  annotations?: Annotation[];
}

export interface Item {
  id: string;
  type: string;
  role?: string;
  status?: string;
  content?: Part[];
  results?: Passage[] | null;
}

export interface ResponseBody {
  id: string;
  status: string;
  error: { code: string; message: string } | null;
  incomplete_details: { reason: string } | null;
  output: Item[];
}

export interface ResponseEvent {
  type: string;
  response?: ResponseBody;
  item?: Item;
  delta?: string;
  annotation?: Annotation;
  message?: string;
}

export type Comparison = "eq" | "ne" | "gt" | "gte" | "lt" | "lte" | "contains" | "prefix";

export interface Condition {
  key: string;
  type: Comparison;
  value: string;
}

export interface Place {
  document_id: string;
  page: number | null;
  quote: string | null;
  filename: string | null;
  chunk_id: string | null;
}

export interface NewFeedback {
  question: string;
  answer: string;
  rating: "up" | "down";
  note: string | null;
  citations: Place[];
  not_in_documents: boolean;
  model: string | null;
  collections: string[];
  answer_id: string | null;
  conversation_id: string | null;
}

export interface Feedback extends NewFeedback {
  id: string;
}

const id = encodeURIComponent;

export async function listCollections(): Promise<Collection[]> {
  return (await request<{ data: Collection[] }>("GET", "/v1/rag/collections")).data;
}

export function listStores(): Promise<Store[]> {
  return listAll("/v1/vector_stores");
}

/** All rows of a list, which is read a hundred rows at a time. */
async function listAll<T>(path: string, query: Query = {}): Promise<T[]> {
  const rows: T[] = [];
  let after: string | null = null;
  for (;;) {
    const page: Page<T> = await request("GET", path, { query: { ...query, limit: 100, after } });
    rows.push(...page.data);
    if (!page.has_more || page.last_id === null) return rows;
    after = page.last_id;
  }
}

export async function findDocuments(name: string, collection: string | null): Promise<DocumentEntry[]> {
  const query = { name: name || null, collection, status: "ready", limit: 30 };
  return (await request<Page<DocumentEntry>>("GET", "/v1/rag/documents", { query })).data;
}

export function showDocument(documentId: string): Promise<DocumentEntry> {
  return request("GET", `/v1/rag/documents/${id(documentId)}`);
}

export async function listModels(): Promise<Model[]> {
  return (await request<{ data: Model[] }>("GET", "/v1/models")).data;
}

export function listConversations(after: string | null): Promise<Page<ListedConversation>> {
  return request("GET", "/v1/conversations", { query: { limit: 30, after } });
}

export function createConversation(metadata: Record<string, string>): Promise<Conversation> {
  return request("POST", "/v1/conversations", { body: { metadata } });
}

export function showConversation(conversationId: string): Promise<Conversation> {
  return request("GET", `/v1/conversations/${id(conversationId)}`);
}

export function changeConversation(conversationId: string, metadata: Record<string, string>): Promise<Conversation> {
  return request("POST", `/v1/conversations/${id(conversationId)}`, { body: { metadata } });
}

export async function deleteConversation(conversationId: string): Promise<void> {
  await request("DELETE", `/v1/conversations/${id(conversationId)}`);
}

/** All items of a conversation, oldest first. */
export function conversationItems(conversationId: string): Promise<Item[]> {
  return listAll(`/v1/conversations/${id(conversationId)}/items`, { order: "asc" });
}

export async function latestItems(conversationId: string): Promise<Item[]> {
  const query = { limit: 20 };
  return (await request<Page<Item>>("GET", `/v1/conversations/${id(conversationId)}/items`, { query })).data;
}

export async function addItems(conversationId: string, items: object[]): Promise<void> {
  await request("POST", `/v1/conversations/${id(conversationId)}/items`, { body: { items } });
}

export async function deleteItem(conversationId: string, itemId: string): Promise<void> {
  await request("DELETE", `/v1/conversations/${id(conversationId)}/items/${id(itemId)}`);
}

/** A stored response with the passages that its search found. */
export function showResponse(responseId: string): Promise<ResponseBody> {
  return request("GET", `/v1/responses/${id(responseId)}`, { query: { include: "file_search_call.results" } });
}

export function streamResponse(body: object, signal: AbortSignal): AsyncGenerator<ResponseEvent> {
  return jsonEvents<ResponseEvent>("POST", "/v1/responses", { body, signal });
}

export function sendFeedback(feedback: NewFeedback): Promise<Feedback> {
  return request("POST", "/v1/rag/feedback", { body: feedback });
}

export async function deleteFeedback(feedbackId: string): Promise<void> {
  await request("DELETE", `/v1/rag/feedback/${id(feedbackId)}`);
}

const MOST_FEEDBACK = 500;

/** The newest feedback of the key; a page of long answers has few entries. */
export async function listFeedback(): Promise<Feedback[]> {
  const found: Feedback[] = [];
  let after: string | null = null;
  while (found.length < MOST_FEEDBACK) {
    const page: Page<Feedback> = await request("GET", "/v1/rag/feedback", { query: { limit: 100, after } });
    found.push(...page.data);
    if (!page.has_more) break;
    after = page.last_id;
  }
  return found;
}
