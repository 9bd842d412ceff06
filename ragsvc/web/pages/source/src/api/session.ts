import { signal } from "@preact/signals";
import { ApiError, errorOf } from "./errors";
import { href } from "./prefix";

export type Scope =
  | "chat"
  | "chat.plain"
  | "embeddings"
  | "documents.read"
  | "documents.write"
  | "search"
  | "proxy"
  | "tenant.admin"
  | "admin";

/** The key that is signed in, without its secret. */
export interface SessionKey {
  id: string;
  label: string;
  tenant: string;
  scopes: Scope[];
  allowed_models: string[];
  allowed_collections: string[];
  /** Unix seconds; null if the key does not expire. */
  expires_at: number | null;
}

export interface Session {
  key: SessionKey;
  csrf_token: string;
  /** Unix seconds. */
  expires_at: number;
}

interface SessionAnswer {
  key: SessionKey | null;
  csrf_token: string | null;
  expires_at: number | null;
}

/** The present session; null if nobody is signed in, undefined until that is known. */
export const session = signal<Session | null | undefined>(undefined);
/** Why the session is not there, for the sign-in page. */
export const ended = signal<"" | "expired" | "signed-out">("");

export function csrfToken(): string {
  return session.value?.csrf_token ?? "";
}

/** Whether the signed-in key has a scope; `chat` includes `chat.plain`, and `admin` includes `tenant.admin`. */
export function hasScope(scope: Scope): boolean {
  const scopes = session.value?.key.scopes ?? [];
  if (scopes.includes(scope)) return true;
  return (scope === "chat.plain" && scopes.includes("chat")) || (scope === "tenant.admin" && scopes.includes("admin"));
}

/** The key with which these pages were first signed in: they keep in memory what it may see. */
let owner = "";
const beforeSignOut = new Set<() => Promise<void>>();

/** Has a function finish its work before the reader is signed out, while requests still act as the key. */
export function onSignOut(run: () => Promise<void>): void {
  beforeSignOut.add(run);
}

/** Takes over the session; one of another key begins with empty pages. */
function take(answer: SessionAnswer): void {
  const { key, csrf_token, expires_at } = answer;
  if (key && owner && key.id !== owner) {
    session.value = undefined;
    window.onbeforeunload = null; // what was not sent would be sent as the other key
    window.location.reload();
    throw new ApiError("Another key is signed in now.", 0, "key_changed");
  }
  if (key) owner = key.id;
  session.value = key && csrf_token && expires_at ? { key, csrf_token, expires_at } : null;
}

async function call(method: string, body?: object): Promise<Response> {
  const headers: Record<string, string> = {};
  if (body) headers["content-type"] = "application/json";
  if (method !== "GET" && csrfToken()) headers["x-csrf-token"] = csrfToken();
  try {
    const init: RequestInit = { method, headers, credentials: "same-origin" };
    if (body) init.body = JSON.stringify(body);
    return await fetch(href("/v1/session"), init);
  } catch (error) {
    throw new ApiError(error instanceof Error ? error.message : String(error), 0);
  }
}

/** Reads who is signed in. */
export async function loadSession(): Promise<void> {
  const response = await call("GET");
  if (!response.ok) throw await errorOf(response);
  take((await response.json()) as SessionAnswer);
}

/** Signs in with a key, or with the code of a link. */
export async function signIn(by: { key: string } | { code: string }): Promise<void> {
  const response = await call("POST", by);
  if (!response.ok) throw await errorOf(response);
  ended.value = "";
  take((await response.json()) as SessionAnswer);
}

export async function signOut(): Promise<void> {
  await Promise.all([...beforeSignOut].map((run) => run()));
  let response = await call("DELETE");
  if (response.status === 403) {
    await loadSession(); // another tab has signed in again: that session ends as well
    response = await call("DELETE");
  }
  if (!response.ok && response.status !== 401) throw await errorOf(response);
  ended.value = "signed-out";
  session.value = null;
}

/** The service no longer knows the session. */
export function sessionEnded(): void {
  if (session.value) ended.value = "expired";
  session.value = null;
}
