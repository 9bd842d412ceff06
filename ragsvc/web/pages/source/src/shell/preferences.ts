import { signal } from "@preact/signals";
import { language, type Language } from "../texts";

export type Theme = "system" | "light" | "dark";

function read(name: string): string | null {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // storage is switched off
  }
}

function write(name: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
  } catch {
    // the choice holds until the page is closed
  }
}

const stored = read("ragsvc.theme");
export const theme = signal<Theme>(stored === "light" || stored === "dark" ? stored : "system");

export function setTheme(next: Theme): void {
  theme.value = next;
  const root = document.documentElement;
  if (next === "system") delete root.dataset["theme"];
  else root.dataset["theme"] = next;
  write("ragsvc.theme", next === "system" ? null : next);
}

export function setLanguage(next: Language): void {
  language.value = next;
  document.documentElement.lang = next;
  write("ragsvc.language", next);
}
