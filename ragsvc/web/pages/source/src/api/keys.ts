import { href } from "./prefix";
import { request, withQuery } from "./request";
import type { Scope } from "./session";

export type KeyState = "active" | "inactive" | "revoked" | "expired";

export interface KeyLimits {
  requests_per_minute: number | null;
  requests_per_hour: number | null;
  tokens_per_day: number | null;
  token_balance: number | null;
  money_per_day: number | null;
  money_balance: number | null;
  max_parallel_requests: number | null;
}

export interface Key extends KeyLimits {
  id: string;
  tenant: string;
  label: string;
  state: KeyState;
  scopes: Scope[];
  /** Names and globs; empty allows all. */
  allowed_models: string[];
  allowed_collections: string[];
  /** Times are Unix seconds. */
  expires_at: number | null;
  previous_expires_at: number | null;
  created_at: number;
  updated_at: number;
}

export interface IssuedKey extends Key {
  /** The secret, which no other answer has. */
  key: string | null;
}

export interface OwnKey extends Key {
  tokens_granted: number | null;
  tokens_used_today: number;
  tokens_remaining: number | null;
  money_granted: number | null;
  money_used_today: number;
  money_remaining: number | null;
  requests_remaining: number | null;
}

/** Fields of a key to create or to change; those that are left out keep their value or get the default. */
export type KeyFields = Partial<
  KeyLimits & {
    label: string;
    tenant: string;
    state: "active" | "inactive";
    scopes: Scope[];
    allowed_models: string[];
    allowed_collections: string[];
    expires_at: number | null;
  }
>;

export interface Page<Row> {
  data: Row[];
  has_more: boolean;
}

export interface UsageRow {
  tenant: string | null;
  key_id: string | null;
  model: string | null;
  family: string | null;
  date: string | null;
  prompt_tokens: number;
  completion_tokens: number;
  requests: number;
  errors: number;
  cost: number;
  latency_ms: number | null;
}

export interface Usage {
  since: string;
  until: string;
  data: UsageRow[];
}

export interface UsageQuery {
  since: string;
  tenant?: string | null;
  key_id?: string | null;
  group_by: string;
}

export interface Change {
  id: number;
  at: number;
  tenant: string;
  key_id: string;
  actor: string;
  action: string;
  changes: Record<string, unknown>;
}

export interface TenantView {
  name: string;
  keys: number;
  collections: number;
  documents: number;
  files: number;
  bytes: number;
  limits: {
    max_collections: number | null;
    max_documents: number | null;
    max_bytes: number | null;
    money_per_day: number | null;
    money_balance: number | null;
  };
}

export interface ProviderKey {
  provider: string;
  tenant: string;
  updated_at: number | null;
  usable: boolean;
}

const pathOf = (id: string, rest = ""): string => `/v1/keys/${encodeURIComponent(id)}${rest}`;
const providerPath = (name: string): string => `/v1/providers/${encodeURIComponent(name)}/key`;

export function listKeys(tenant: string | null, after: string | null): Promise<Page<Key> & { last_id: string | null }> {
  return request("GET", "/v1/keys", { query: { tenant, after, limit: 100 } });
}

export function createKey(fields: KeyFields): Promise<IssuedKey> {
  return request("POST", "/v1/keys", { body: fields, headers: { "idempotency-key": crypto.randomUUID?.() ?? `${Math.random()}` } });
}

export function updateKey(id: string, fields: KeyFields): Promise<Key> {
  return request("PATCH", pathOf(id), { body: fields });
}

export function rotateKey(id: string, overlapS: number): Promise<IssuedKey> {
  return request("POST", pathOf(id, "/rotate"), { body: { overlap_s: overlapS } });
}

export function revokeKey(id: string): Promise<Key> {
  return request("POST", pathOf(id, "/revoke"));
}

export function deleteKey(id: string): Promise<unknown> {
  return request("DELETE", pathOf(id));
}

export function ownKey(): Promise<OwnKey> {
  return request("GET", "/v1/key");
}

/** Usage of the keys that the caller administers, or of its own key. */
export function usage(of: "all" | "own", query: UsageQuery, signal?: AbortSignal): Promise<Usage> {
  return request("GET", of === "own" ? "/v1/key/usage" : "/v1/usage", { query: { ...query }, signal });
}

/** The address of the same usage as a table for spreadsheets. */
export function usageTable(of: "all" | "own", query: UsageQuery): string {
  return href(withQuery(of === "own" ? "/v1/key/usage" : "/v1/usage", { ...query, format: "csv" }));
}

export function listChanges(query: { tenant: string | null; key_id: string | null; before: number | null }): Promise<Page<Change>> {
  return request("GET", "/v1/audit", { query: { ...query, limit: 50 } });
}

export async function listTenants(): Promise<TenantView[]> {
  return (await request<Page<TenantView>>("GET", "/v1/tenants")).data;
}

export function getTenant(name: string): Promise<TenantView> {
  return request("GET", `/v1/tenants/${encodeURIComponent(name)}`);
}

export async function listModels(): Promise<string[]> {
  return (await request<{ data: { id: string }[] }>("GET", "/v1/models")).data.map((model) => model.id);
}

export async function listProviderKeys(tenant: string | null): Promise<ProviderKey[]> {
  return (await request<Page<ProviderKey>>("GET", "/v1/provider_keys", { query: { tenant } })).data;
}

export function setProviderKey(provider: string, tenant: string, apiKey: string): Promise<unknown> {
  return request("PUT", providerPath(provider), { body: { api_key: apiKey, tenant } });
}

export function deleteProviderKey(provider: string, tenant: string): Promise<unknown> {
  return request("DELETE", providerPath(provider), { query: { tenant } });
}
