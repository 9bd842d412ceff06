import { signal } from "@preact/signals";
import { ask } from "./ask";
import { languages, type Language } from "./catalogue";
import { documents } from "./documents";
import { keys } from "./keys";
import { playground } from "./playground";
import { reference } from "./reference";
import { service } from "./service";
import { shell } from "./shell";
import { viewer } from "./viewer";

const catalogue = { ...shell, ...ask, ...documents, ...playground, ...reference, ...keys, ...service, ...viewer };

export type TextKey = keyof typeof catalogue;
export { languages, type Language };

/** The language of the pages; components that call `t` are rendered again when it changes. */
export const language = signal<Language>(document.documentElement.lang === "de" ? "de" : "en");

/** The text of a key in the present language; `{name}` is replaced by a value. */
export function t(key: TextKey, values: Record<string, string | number> = {}): string {
  const text: string = catalogue[key][language.value];
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => {
    const value = values[name];
    if (value === undefined) return whole;
    return typeof value === "number" ? formatNumber(value) : value;
  });
}

/** The text for a number of things: `one` for exactly one, `other` for any other number; both may use `{count}`. */
export function tn(count: number, one: TextKey, other: TextKey, values: Record<string, string | number> = {}): string {
  return t(count === 1 ? one : other, { count, ...values });
}

/** A name that a text key is made of, such as a status of the API; the name itself if there is no such key. */
export function tryText(key: string, otherwise: string): string {
  return key in catalogue ? t(key as TextKey) : otherwise;
}

export function formatNumber(value: number, options?: Intl.NumberFormatOptions): string {
  return new Intl.NumberFormat(language.value, options).format(value);
}

/** A time in Unix seconds, in the reader's time zone. */
export function formatTime(unixS: number, style: "date" | "time" | "both" = "both"): string {
  const options: Intl.DateTimeFormatOptions = {};
  if (style !== "time") options.dateStyle = "medium";
  if (style !== "date") options.timeStyle = "short";
  return new Intl.DateTimeFormat(language.value, options).format(unixS * 1000);
}

export function formatBytes(bytes: number): string {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  const step = bytes < 1000 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(bytes) / 3));
  const digits = step === 0 ? 0 : 1;
  return formatNumber(bytes / 1000 ** step, {
    style: "unit",
    unit: units[step] ?? "byte",
    unitDisplay: step === 0 ? "long" : "short",
    maximumFractionDigits: digits,
  });
}
