import { useEffect, useState } from "preact/hooks";
import { isAbort } from "../../api/errors";
import { getOutline, type OutlineEntry } from "../../api/viewer";
import { t } from "../../texts";
import { IconButton } from "../button";
import { Notice } from "../notice";
import { Spinner } from "../spinner";
import { errorText } from "../toast";

interface OutlineProps {
  documentId: string;
  page: number;
  password: string | null;
  onGo: (page: number) => void;
  onClose: () => void;
}

/** The bookmarks of a document; the last one up to the present page is highlighted. */
export function Outline({ documentId, page, password, onGo, onClose }: OutlineProps) {
  const [entries, setEntries] = useState<OutlineEntry[] | null>(null);
  const [error, setError] = useState<unknown>(null);
  useEffect(() => {
    const stop = new AbortController();
    setEntries(null);
    setError(null);
    getOutline(documentId, password, stop.signal).then(setEntries, (reason: unknown) => {
      if (!isAbort(reason)) setError(reason);
    });
    return () => stop.abort();
  }, [documentId, password]);
  const present = entries?.reduce((last, entry, index) => (entry.page <= page ? index : last), -1) ?? -1;
  return (
    <nav class="page-viewer-outline" aria-label={t("viewer.outline")}>
      <div class="page-viewer-outline-head">
        <h3>{t("viewer.outline")}</h3>
        <IconButton small icon="close" label={t("shell.close")} onClick={onClose} />
      </div>
      {error ? (
        <Notice kind="error">{errorText(error)}</Notice>
      ) : entries === null ? (
        <Spinner label={t("shell.loading")} />
      ) : entries.length === 0 ? (
        <p class="soft small">{t("viewer.outline.empty")}</p>
      ) : (
        <ul>
          {entries.map((entry, index) => (
            <li key={index} style={{ paddingLeft: `${Math.min(entry.level - 1, 5) * 12}px` }}>
              <button type="button" aria-current={index === present ? "location" : undefined} onClick={() => onGo(entry.page)}>
                <span>{entry.title}</span>
                <span class="soft">
                  <span class="visually-hidden">{t("viewer.outline.page", { page: entry.page })}</span>
                  <span aria-hidden="true">{entry.page}</span>
                </span>
              </button>
            </li>
          ))}
        </ul>
      )}
    </nav>
  );
}
