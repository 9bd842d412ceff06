import { Component, type ComponentChildren, type ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { hasScope } from "../api/session";
import { PageHeader } from "../components/page_header";
import { ReadFailure } from "../components/read_failure";
import { Spinner } from "../components/spinner";
import { pages, type PageEntry, type PageProps } from "../pages";
import { t } from "../texts";
import { matchPath, path } from "./router";

/** The path of the first page that the key may open. */
export function homePath(): string {
  return pages.find((entry) => !entry.unlisted && mayOpen(entry))?.paths[0] ?? "/ask";
}

/** The page that a path shows, and what the path says to it. */
export function findPage(path: string): { entry: PageEntry; params: Record<string, string> } | null {
  const actual = path === "/" || path === "/sign-in" ? homePath() : path;
  for (const entry of pages) {
    for (const pattern of entry.paths) {
      const params = matchPath(pattern, actual);
      if (params) return { entry, params };
    }
  }
  return null;
}

export function mayOpen(entry: PageEntry): boolean {
  return !entry.scopes || entry.scopes.some(hasScope);
}

const loaded = new Map<PageEntry, ComponentType<PageProps>>();

/** Loads the code of a page when it is first shown. */
function LazyPage({ entry, params }: { entry: PageEntry; params: Record<string, string> }) {
  const [, setReady] = useState(0);
  const [error, setError] = useState<unknown>(null);
  useEffect(() => {
    if (loaded.has(entry)) return;
    let current = true;
    setError(null);
    entry.load().then(
      (module) => {
        loaded.set(entry, module.default);
        if (current) setReady((count) => count + 1);
      },
      (reason: unknown) => {
        if (current) setError(reason);
      },
    );
    return () => {
      current = false;
    };
  }, [entry]);
  const Page = loaded.get(entry);
  if (Page) return <Page params={params} />;
  // the whole document is loaded again: after an upgrade the files have other names
  if (error) return <Failure error={error} onRetry={() => window.location.reload()} />;
  return <Spinner label={t("shell.loading")} />;
}

function Failure({ error, onRetry }: { error: unknown; onRetry: () => void }) {
  return (
    <>
      <PageHeader title={t("shell.page_failed")} />
      <ReadFailure error={error} onRetry={onRetry} />
    </>
  );
}

/** Shows a failure of a page instead of nothing. */
class FailureBoundary extends Component<{ children: ComponentChildren }, { error: unknown }> {
  override state = { error: null as unknown };

  override componentDidCatch(error: unknown): void {
    console.error(error);
    this.setState({ error });
  }

  override render() {
    if (this.state.error !== null) {
      return <Failure error={this.state.error} onRetry={() => this.setState({ error: null })} />;
    }
    return this.props.children;
  }
}

/** The page of the present path, if the key may open it. */
export function PageView() {
  const found = findPage(path.value);
  if (!found) {
    return (
      <>
        <PageHeader title={t("shell.not_found")} />
        <p>{t("shell.not_found.text")}</p>
      </>
    );
  }
  const { entry, params } = found;
  if (!mayOpen(entry)) {
    return (
      <>
        <PageHeader title={t("shell.no_scope")} />
        <p>{t("shell.no_scope.text", { scope: entry.scopes?.[0] ?? "" })}</p>
      </>
    );
  }
  return (
    <FailureBoundary key={entry.paths[0]}>
      <LazyPage entry={entry} params={params} />
    </FailureBoundary>
  );
}
