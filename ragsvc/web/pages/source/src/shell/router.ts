import { computed, signal } from "@preact/signals";
import { href, prefix } from "../api/prefix";

function here(): URL {
  return new URL(window.location.href);
}

const location = signal<URL>(here());

/** The path of the page below the prefix, such as `/documents/doc_1`. */
export const path = computed(() => {
  const full = location.value.pathname;
  const own = full.startsWith(`${prefix}/`) ? full.slice(prefix.length) : full;
  return own.length > 1 ? own.replace(/\/+$/, "") : own;
});
/** The query of the page's address. */
export const query = computed(() => location.value.searchParams);
/** The fragment of the page's address, without `#`. */
export const fragment = computed(() => location.value.hash.slice(1));

/** Goes to a path of the pages, such as `/documents?status=failed`. */
export function navigate(to: string, { replace = false }: { replace?: boolean } = {}): void {
  const url = new URL(href(to), window.location.origin);
  if (url.href === window.location.href) return;
  const samePage = url.pathname === window.location.pathname;
  if (replace) window.history.replaceState(null, "", url);
  else window.history.pushState(null, "", url);
  location.value = here();
  if (!samePage) window.scrollTo(0, 0);
}

/** The path as an array of the parts that `:name` stands for; null if the path does not match. */
export function matchPath(pattern: string, actual: string): Record<string, string> | null {
  const wanted = pattern.split("/");
  const parts = actual.split("/");
  if (wanted.length !== parts.length) return null;
  const values: Record<string, string> = {};
  for (const [index, part] of wanted.entries()) {
    const value = parts[index] ?? "";
    if (part.startsWith(":")) {
      if (!value) return null;
      try {
        values[part.slice(1)] = decodeURIComponent(value);
      } catch {
        return null; // a percent sign that encodes nothing
      }
    } else if (part !== value) return null;
  }
  return values;
}

/** Follows links to the pages without loading the document again. Returns a function that stops it. */
export function startRouter(isPage: (path: string) => boolean): () => void {
  const onPop = (): void => {
    location.value = here();
  };
  const onClick = (event: MouseEvent): void => {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const anchor = event.target instanceof Element ? event.target.closest("a") : null;
    if (!anchor?.href || (anchor.target && anchor.target !== "_self") || anchor.hasAttribute("download")) return;
    const url = new URL(anchor.href);
    if (url.origin !== window.location.origin || !url.pathname.startsWith(`${prefix}/`)) return;
    const to = url.pathname.slice(prefix.length);
    if (!isPage(to) || (url.hash && url.pathname === window.location.pathname)) return;
    event.preventDefault();
    navigate(to + url.search + url.hash);
  };
  window.addEventListener("popstate", onPop);
  window.addEventListener("hashchange", onPop);
  document.addEventListener("click", onClick);
  return () => {
    window.removeEventListener("popstate", onPop);
    window.removeEventListener("hashchange", onPop);
    document.removeEventListener("click", onClick);
  };
}
