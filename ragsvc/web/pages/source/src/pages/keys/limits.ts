import type { Key, KeyLimits } from "../../api/keys";
import { formatNumber, language, t } from "../../texts";

export type LimitName = keyof KeyLimits;

export const budgets = ["tokens_per_day", "token_balance", "money_per_day", "money_balance"] as const;
export const rates = ["requests_per_minute", "requests_per_hour", "max_parallel_requests"] as const;

export function isMoney(name: LimitName): boolean {
  return name === "money_per_day" || name === "money_balance";
}

export function formatMoney(amount: number): string {
  const digits = amount !== 0 && Math.abs(amount) < 0.01 ? 6 : 2;
  return formatNumber(amount, { minimumFractionDigits: 2, maximumFractionDigits: digits });
}

export function formatLimit(name: LimitName, value: number): string {
  return isMoney(name) ? formatMoney(value) : formatNumber(value);
}

/** Numbers on an axis: 12K instead of 12,000. */
export function formatShort(value: number): string {
  return formatNumber(value, { notation: "compact", maximumFractionDigits: 1 });
}

/** A key's limits in words; empty if it has none. */
export function limitsInWords(key: Key): string[] {
  return [...budgets, ...rates].flatMap((name) => {
    const value = key[name];
    return value === null ? [] : [`${formatLimit(name, value)} ${t(`keys.limit.${name}`)}`];
  });
}

/**
 * The whole number that a person wrote, with or without separators of thousands; null for an empty field, undefined
 * for anything else.
 */
export function parseWhole(text: string): number | null | undefined {
  const plain = text.trim();
  if (!plain) return null;
  const grouped = /^\d{1,3}([.,'’\s\u00a0\u202f]\d{3})+$/.test(plain);
  const digits = grouped ? plain.replace(/\D/g, "") : plain;
  return /^\d{1,15}$/.test(digits) ? Number(digits) : undefined;
}

/** A limit as text for a field, so that `parseAmount` and `parseWhole` read the same number. */
export function limitText(value: number | null | undefined): string {
  if (value === null || value === undefined) return "";
  return language.value === "de" ? String(value).replace(".", ",") : String(value);
}

/**
 * The amount of money that a person wrote, with a decimal point or comma. Where three digits follow a single one, as in
 * `1,000`, the language says which it is.
 */
export function parseAmount(text: string): number | null | undefined {
  const plain = text.trim().replace(/[\s\u00a0\u202f]/g, "");
  if (!plain) return null;
  const separator = language.value === "de" ? /^[1-9]\d{0,2}(\.\d{3})+$/ : /^[1-9]\d{0,2}(,\d{3})+$/;
  if (separator.test(plain)) return Number(plain.replace(/\D/g, ""));
  const point = Math.max(plain.lastIndexOf("."), plain.lastIndexOf(","));
  const fraction = point < 0 ? "" : plain.slice(point + 1);
  const whole = point < 0 ? plain : plain.slice(0, point);
  const groups = whole.split(/[.,'’]/);
  const grouped = groups.length === 1 || groups.slice(1).every((group) => group.length === 3);
  if (!grouped || !/^\d+$/.test(groups.join("")) || !/^\d{0,6}$/.test(fraction)) return undefined;
  return Number(`${groups.join("")}.${fraction || "0"}`);
}
