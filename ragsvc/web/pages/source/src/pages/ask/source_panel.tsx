import { useEffect, useRef, useState } from "preact/hooks";
import type { PageViewer } from "../../components/page_viewer";
import { Spinner } from "../../components/spinner";
import { toastError } from "../../components/toast";
import { t } from "../../texts";
import { shownSource } from "./state";
import type { Source } from "./turns";

type Viewer = typeof PageViewer;

let loaded: Viewer | null = null;

/** Loads the code of the viewer, which the first view of the page does not need. */
export async function loadViewer(): Promise<Viewer> {
  loaded ??= (await import("../../components/page_viewer")).PageViewer;
  return loaded;
}

/** The page of a source beside the answer, with the quote marked. */
export function SourcePanel({ source }: { source: Source }) {
  const [Shown, setShown] = useState<Viewer | null>(() => loaded);
  const opener = useRef<Element | null>(document.activeElement);
  useEffect(() => {
    if (!Shown) loadViewer().then((viewer) => setShown(() => viewer), toastError);
  }, []);
  useEffect(() => {
    const focused = document.activeElement;
    if (focused?.matches(".chip, .source")) opener.current = focused;
  }, [source]);
  const close = (): void => {
    shownSource.value = null;
    if (opener.current instanceof HTMLElement) opener.current.focus();
  };
  return (
    <div class="source-panel">
      {Shown ? (
        <Shown
          documentId={source.documentId}
          title={source.filename}
          page={source.page}
          mark={{ quote: source.quote, chunkId: source.chunkId ?? undefined }}
          onClose={close}
        />
      ) : (
        <Spinner label={t("shell.loading")} />
      )}
    </div>
  );
}
