import { session } from "./session";

/**
 * Passwords of protected files that were entered in this tab, so that nobody is asked twice. They are in memory only:
 * they are forgotten when the tab is closed or the session ends.
 */
const entered = new Map<string, string>();

session.subscribe((current) => {
  if (!current) entered.clear();
});

export function rememberPassword(documentId: string, password: string): void {
  entered.set(documentId, password);
}

export function passwordOf(documentId: string): string | null {
  return entered.get(documentId) ?? null;
}
