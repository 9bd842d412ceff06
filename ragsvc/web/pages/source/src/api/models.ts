import { request } from "./request";

/** Prices in the operator's currency; `input` and `output` are for 1,000 tokens. */
export interface Pricing {
  input: number;
  output: number;
  cached_input?: number;
  request?: number;
}

export interface Model {
  id: string;
  owned_by: string;
  pricing: Pricing;
  available: boolean;
}

/** The models that the signed-in key may use. */
export async function listModels(): Promise<Model[]> {
  return (await request<{ data: Model[] }>("GET", "/v1/models")).data;
}

export interface Usage {
  prompt_tokens?: number;
  completion_tokens?: number;
  total_tokens?: number;
  prompt_tokens_details?: { cached_tokens?: number } | null;
}

/** What a call cost by the prices of its model; null if the model has no prices for tokens. */
export function costOf(usage: Usage, pricing: Pricing): number | null {
  if (!pricing.input && !pricing.output && !pricing.request) return null;
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  const prompt = (usage.prompt_tokens ?? 0) - cached;
  const tokens = prompt * pricing.input + cached * (pricing.cached_input ?? pricing.input);
  return (pricing.request ?? 0) + (tokens + (usage.completion_tokens ?? 0) * pricing.output) / 1000;
}
