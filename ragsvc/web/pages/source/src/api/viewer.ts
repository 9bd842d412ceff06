import { fetchResponse, request } from "./request";

/** What the viewer needs to know of a document. */
export interface ViewedDocument {
  id: string;
  filename: string;
  title: string | null;
  media_type: string;
  pages: number | null;
}

export interface PageText {
  page: number;
  page_label: string | null;
  text: string;
}

/** A rectangle in fractions of the page as its picture shows it, from the top left. */
export interface PageBox {
  left: number;
  top: number;
  width: number;
  height: number;
}

export interface PageBoxes {
  start: number;
  end: number;
  /** Points. */
  width: number;
  height: number;
  /** Whether the positions come from text recognition. */
  recognised: boolean;
  boxes: PageBox[];
}

export interface OutlineEntry {
  title: string;
  /** 1 is the outermost. */
  level: number;
  page: number;
}

interface Passage {
  id: string;
  page: number;
  start: number;
  end: number;
}

/** Which stretch of a page is meant: characters of its text, or a passage or quote as in a citation. */
export interface Stretch {
  start?: number | undefined;
  end?: number | undefined;
  passage_id?: string | undefined;
  quote?: string | undefined;
}

function documentPath(id: string): string {
  return `/v1/rag/documents/${encodeURIComponent(id)}`;
}

function headersOf(password: string | null): Record<string, string> {
  return password ? { "x-document-password": password } : {};
}

export function getDocument(id: string, signal?: AbortSignal): Promise<ViewedDocument> {
  return request<ViewedDocument>("GET", documentPath(id), { signal });
}

export function getPageText(id: string, page: number, signal?: AbortSignal): Promise<PageText> {
  return request<PageText>("GET", `${documentPath(id)}/pages/${page}`, { signal });
}

export async function getPagePicture(
  id: string,
  page: number,
  width: number,
  password: string | null,
  signal?: AbortSignal,
): Promise<Blob> {
  const options = { query: { width }, headers: headersOf(password), signal };
  return (await fetchResponse("GET", `${documentPath(id)}/pages/${page}/image`, options)).blob();
}

export function getPageBoxes(
  id: string,
  page: number,
  stretch: Stretch,
  password: string | null,
  signal?: AbortSignal,
): Promise<PageBoxes> {
  const { start, end, passage_id, quote } = stretch;
  const options = { query: { start, end, passage_id, quote }, headers: headersOf(password), signal };
  return request<PageBoxes>("GET", `${documentPath(id)}/pages/${page}/boxes`, options);
}

export async function getOutline(id: string, password: string | null, signal?: AbortSignal): Promise<OutlineEntry[]> {
  const options = { headers: headersOf(password), signal };
  return (await request<{ data: OutlineEntry[] }>("GET", `${documentPath(id)}/outline`, options)).data;
}

/** Where a passage is on its page; null if there is no such passage. */
export async function getPassage(id: string, passageId: string, signal?: AbortSignal): Promise<Passage | null> {
  const found = /^(chunk_[0-9a-f]+_)(\d+)$/.exec(passageId);
  if (!found) return null;
  const ordinal = Number(found[2]);
  const after = ordinal > 0 ? `${found[1]}${ordinal - 1}` : undefined;
  const list = await request<{ data: Passage[] }>("GET", `${documentPath(id)}/passages`, { query: { limit: 1, after }, signal });
  const passage = list.data[0];
  return passage?.id === passageId ? passage : null;
}

/** The path of the stored file, opened at a page. */
export function originalPath(id: string, page: number): string {
  return `${documentPath(id)}/content?inline=true#page=${page}`;
}
