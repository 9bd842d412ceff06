import { request } from "./request";

export interface ServiceState {
  version: string;
  schema: string;
  python: string;
  system: string;
  packages: Record<string, string>;
  not_ready: Record<string, string>;
  ingest: {
    documents: Record<string, number>;
    waiting: number;
    running: number;
    waiting_passages: number;
    documents_last_hour: number;
    pages_last_hour: number;
    failed_last_hour: number;
  };
  embedding: {
    model: string;
    dimension: number;
    runtime: string;
    fingerprint: string;
    change: { model: string; total: number; done: number; running: boolean } | null;
  };
  indexes: {
    memory_bytes: number;
    memory_limit_bytes: number;
    collections: number;
    loaded: { tenant: string; collection: string; kind: string; passages: number; memory_bytes: number }[];
  };
  storage: {
    data_dir: string;
    database_bytes: number;
    disk_free_bytes: number;
    disk_size_bytes: number;
    memory_bytes: number | null;
  };
  encryption: {
    at_rest: boolean;
    request_keys: { key_id: string; expires_at: number | null; accepted_until: number | null }[];
    opened: Record<string, number>;
    refused: Record<string, number>;
    attestation: "available" | "unavailable";
  };
  backups: {
    last: { snapshot: string; at: number; documents: number; size_bytes: number; destination: string } | null;
    upgrade_copies: { name: string; size_bytes: number; created_at: number }[];
  };
}

export type Circuit = "closed" | "half_open" | "open";

export interface Provider {
  name: string;
  source: "config" | "api";
  base_url: string;
  has_api_key: boolean;
  models: { id: string }[];
  families: string[];
  max_concurrency: number;
  circuit: Circuit;
  circuits: Record<string, Circuit>;
}

export interface Providers {
  data: Provider[];
  disabled: { name: string; reason: string }[];
}

export interface ProviderTest {
  ok: boolean;
  latency_ms: number;
  models: string[];
  error: string | null;
}

export interface Finding {
  name: string;
  state: "ok" | "warn" | "fail";
  words: string;
}

export interface Setting {
  name: string;
  value: unknown;
  is_default: boolean;
}

export function serviceState(): Promise<ServiceState> {
  return request("GET", "/v1/service");
}

export async function findings(): Promise<Finding[]> {
  return (await request<{ data: Finding[] }>("GET", "/v1/service/findings")).data;
}

export async function settings(): Promise<Setting[]> {
  return (await request<{ data: Setting[] }>("GET", "/v1/service/settings")).data;
}

export function providers(): Promise<Providers> {
  return request("GET", "/v1/providers");
}

export function testProvider(name: string): Promise<ProviderTest> {
  return request("POST", `/v1/providers/${encodeURIComponent(name)}/test`);
}
