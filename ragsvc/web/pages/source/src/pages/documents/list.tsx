import { useEffect, useRef, useState } from "preact/hooks";
import {
  countDocuments,
  documentPage,
  listCollections,
  listDocuments,
  retryDocument,
  type CollectionInfo,
  type DocumentCounts,
  type DocumentInfo,
  type List,
} from "../../api/documents";
import { ApiError, isAbort } from "../../api/errors";
import { href } from "../../api/prefix";
import { Button, IconButton } from "../../components/button";
import { Notice } from "../../components/notice";
import { Spinner } from "../../components/spinner";
import { Table, type Column, type Sorting } from "../../components/table";
import { errorText, toast, toastError } from "../../components/toast";
import { query } from "../../shell/router";
import { formatBytes, formatNumber, formatTime, t, tn } from "../../texts";
import { deleted, deleteWithUndo } from "./deletion";
import { EditDialog, PasswordDialog } from "./dialogs";
import { FilterBar, filterQuery, hasFilters, setFilters, sortQuery } from "./filters";
import { onChange } from "./live";
import { mayRetry, needsPassword, StatusCell } from "./status";

const PAGE = 50;
const RELOAD_AFTER_MS = 600;
/** Reloads at once, and then one in so many milliseconds: a key has 60 requests a minute, also while files are read. */
const RELOADS_AT_ONCE = 6;
const RELOAD_EVERY_MS = 10_000;
const BUSY_S = 5;

/** What the list and the upload buttons know of the collections. */
export function useCollections(): { collections: CollectionInfo[]; reload: () => void } {
  const [collections, setCollections] = useState<CollectionInfo[]>([]);
  const [round, setRound] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    listCollections(stop.signal).then(setCollections, toastError);
    return () => stop.abort();
  }, [round]);
  return { collections, reload: () => setRound((count) => count + 1) };
}

interface Position {
  after: string | null;
  /** Number of documents before this page. */
  offset: number;
}

interface DocumentListProps {
  collections: readonly CollectionInfo[];
  mayWrite: boolean;
  onCollectionsChanged: () => void;
}

/** The list of all documents, 50 at a time, kept up to date by the event stream. */
export function DocumentList({ collections, mayWrite, onCollectionsChanged }: DocumentListProps) {
  const [page, setPage] = useState<List<DocumentInfo> | null>(null);
  const [offset, setOffset] = useState(0);
  const [counts, setCounts] = useState<DocumentCounts | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [round, setRound] = useState(0);
  const [path, setPath] = useState<Position[]>([{ after: null, offset: 0 }]);
  const [selected, setSelected] = useState<ReadonlyMap<string, DocumentInfo>>(new Map());
  const [edited, setEdited] = useState<readonly DocumentInfo[]>([]);
  const [asked, setAsked] = useState<DocumentInfo | null>(null);
  const place = path[path.length - 1] ?? { after: null, offset: 0 };
  const filters = filterQuery();
  const order = sortQuery();
  const wanted = JSON.stringify([filters, order]);
  const current = useRef<List<DocumentInfo> | null>(null);
  current.current = page;

  const firstWanted = useRef(wanted);
  useEffect(() => {
    if (firstWanted.current === wanted) return;
    firstWanted.current = wanted;
    setPath([{ after: null, offset: 0 }]);
    setSelected(new Map());
  }, [wanted]);

  useEffect(() => {
    const stop = new AbortController();
    let again = 0;
    const all = { ...filters, ...order, limit: PAGE, after: place.after };
    Promise.all([listDocuments(all, stop.signal), countDocuments(filters, stop.signal)]).then(
      ([documents, numbers]) => {
        setPage(documents);
        setOffset(place.offset);
        setCounts(numbers);
        setError(null);
      },
      (reason: unknown) => {
        if (isAbort(reason)) return;
        const isGone = reason instanceof ApiError && (reason.status === 400 || reason.status === 404);
        if (reason instanceof ApiError && (reason.status === 429 || reason.status === 503)) {
          again = window.setTimeout(() => setRound((count) => count + 1), (reason.retryAfterS ?? BUSY_S) * 1000);
          if (!current.current) setError(reason);
        } else if (place.after === null || !isGone) setError(reason);
        else setPath([{ after: null, offset: 0 }]); // the document that the page begins after was deleted
      },
    );
    return () => {
      stop.abort();
      window.clearTimeout(again);
    };
  }, [wanted, place.after, round]);

  useEffect(() => {
    let timer = 0;
    let left = RELOADS_AT_ONCE;
    let countedAt = Date.now();
    let hasNew = false;
    const reloadSoon = (): void => {
      if (timer) return;
      left = Math.min(RELOADS_AT_ONCE, left + (Date.now() - countedAt) / RELOAD_EVERY_MS);
      countedAt = Date.now();
      timer = window.setTimeout(
        () => {
          timer = 0;
          left -= 1;
          setRound((count) => count + 1);
          if (hasNew) onCollectionsChanged();
          hasNew = false;
        },
        Math.max(RELOAD_AFTER_MS, (1 - left) * RELOAD_EVERY_MS),
      );
    };
    const stop = onChange((change) => {
      if (change.kind === "document") {
        const { document } = change;
        const known = current.current?.data.find((other) => other.id === document.id);
        if (known) {
          setPage((shown) => shown && { ...shown, data: shown.data.map((row) => (row.id === document.id ? document : row)) });
        }
        if (known?.status !== document.status) reloadSoon();
        if (!known) hasNew = true;
      } else {
        if (change.kind === "deleted") {
          const { id } = change;
          setPage((shown) => shown && { ...shown, data: shown.data.filter((row) => row.id !== id) });
        }
        reloadSoon();
      }
    });
    return () => {
      stop();
      window.clearTimeout(timer);
    };
  }, []);

  const rows = (page?.data ?? []).filter((document) => !deleted.value.has(document.id));
  const chosen = [...selected.values()].filter((document) => !deleted.value.has(document.id));
  const failed = chosen.filter((document) => document.status === "failed" && !needsPassword(document.error) && mayRetry(document.error));

  const toggle = (document: DocumentInfo, on: boolean): void => {
    const changed = new Map(selected);
    if (on) changed.set(document.id, document);
    else changed.delete(document.id);
    setSelected(changed);
  };

  const retry = async (documents: readonly DocumentInfo[]): Promise<void> => {
    try {
      for (const document of documents) replace([await retryDocument(document.id)]);
      if (documents.length > 1) toast(t("documents.retried"));
    } catch (reason) {
      toastError(reason);
    }
  };

  const replace = (changed: readonly DocumentInfo[]): void => {
    const byId = new Map(changed.map((document) => [document.id, document]));
    setPage((shown) => shown && { ...shown, data: shown.data.map((row) => byId.get(row.id) ?? row) });
  };

  const columns: Column<DocumentInfo>[] = [
    ...(mayWrite ? [selectColumn(selected, toggle)] : []),
    {
      id: "name",
      title: t("documents.column.name"),
      sortable: true,
      cell: (document) => (
        <div class="document-name">
          <a href={href(documentPage(document.id))}>{document.filename}</a>
          {document.title && document.title !== document.filename ? (
            <span class="soft small document-title">{document.title}</span>
          ) : null}
        </div>
      ),
    },
    {
      id: "status",
      title: t("documents.column.status"),
      sortable: true,
      cell: (document) => (
        <div class="document-status">
          <StatusCell document={document} />
          {document.status === "failed" && mayWrite ? (
            needsPassword(document.error) ? (
              <Button
                small
                icon="keys"
                aria-label={t("documents.password.enter_named", { name: document.filename })}
                onClick={() => setAsked(document)}
              >
                {t("documents.password.enter")}
              </Button>
            ) : mayRetry(document.error) ? (
              <Button
                small
                icon="retry"
                aria-label={t("documents.retry_named", { name: document.filename })}
                onClick={() => void retry([document])}
              >
                {t("documents.retry")}
              </Button>
            ) : null
          ) : null}
        </div>
      ),
    },
    {
      id: "collection",
      title: t("documents.column.collection"),
      wideOnly: true,
      cell: (document) => document.collection,
    },
    {
      id: "pages",
      title: t("documents.column.pages"),
      number: true,
      sortable: true,
      wideOnly: true,
      cell: (document) => (document.pages ? formatNumber(document.pages) : ""),
    },
    {
      id: "bytes",
      title: t("documents.column.bytes"),
      number: true,
      sortable: true,
      wideOnly: true,
      cell: (document) => <span class="document-fact">{formatBytes(document.bytes)}</span>,
    },
    {
      id: "created",
      title: t("documents.column.created"),
      sortable: true,
      wideOnly: true,
      cell: (document) => <span class="document-fact">{formatTime(document.created_at)}</span>,
    },
    ...(mayWrite ? [actionsColumn((document) => setEdited([document]))] : []),
  ];

  const sorting: Sorting = { column: order.sort, descending: order.order === "desc" };
  const total = Math.max(0, (counts?.total ?? 0) - hiddenOn(page));
  return (
    <div class="stack">
      <FilterBar collections={collections} counts={counts} />
      {chosen.length ? (
        <div class="selection" role="status">
          <span>{tn(chosen.length, "documents.selected_one", "documents.selected")}</span>
          <Button small icon="edit" onClick={() => setEdited(chosen)}>
            {t("documents.edit_selected")}
          </Button>
          {failed.length ? (
            <Button small icon="retry" onClick={() => void retry(failed)}>
              {t("documents.retry_failed")}
            </Button>
          ) : null}
          <Button
            small
            kind="danger"
            icon="trash"
            onClick={() => {
              deleteWithUndo(chosen);
              setSelected(new Map());
            }}
          >
            {t("documents.delete")}
          </Button>
          <Button small icon="close" onClick={() => setSelected(new Map())}>
            {t("documents.selection.clear")}
          </Button>
        </div>
      ) : null}
      {error ? <Notice kind="error">{errorText(error)}</Notice> : null}
      {page ? (
        <>
          {mayWrite && rows.length ? (
            <label class="row small select-all">
              <input
                type="checkbox"
                checked={rows.every((document) => selected.has(document.id))}
                onChange={(event) => {
                  const changed = new Map(selected);
                  for (const document of rows) {
                    if (event.currentTarget.checked) changed.set(document.id, document);
                    else changed.delete(document.id);
                  }
                  setSelected(changed);
                }}
              />
              {t("documents.select_all")}
            </label>
          ) : null}
          <div class="documents-table">
          <Table
            caption={t("documents.list")}
            columns={columns}
            rows={rows}
            rowKey={(document) => document.id}
            sorting={sorting}
            onSort={(next) => setFilters({ sort: `${next.column}:${next.descending ? "desc" : "asc"}` })}
            empty={hasFilters() ? t("documents.none_found") : t("documents.empty")}
          />
          </div>
          <nav class="row paging" aria-label={t("documents.paging")}>
            <Button icon="left" disabled={path.length < 2} onClick={() => setPath(path.slice(0, -1))}>
              {t("documents.previous")}
            </Button>
            <span class="soft">
              {rows.length
                ? t("documents.range", { first: offset + 1, last: offset + rows.length, count: total })
                : ""}
            </span>
            <Button
              icon="right"
              disabled={!page.has_more}
              onClick={() => setPath([...path, { after: page.last_id, offset: offset + page.data.length }])}
            >
              {t("documents.next")}
            </Button>
          </nav>
        </>
      ) : error ? null : (
        <Spinner label={t("shell.loading")} />
      )}
      <EditDialog
        documents={edited}
        onSaved={(saved) => {
          replace(saved);
          setSelected(new Map());
        }}
        onClose={() => setEdited([])}
      />
      <PasswordDialog
        name={asked?.filename ?? null}
        wrong={asked?.error?.code === "password_wrong"}
        onSubmit={async (password) => {
          if (asked) replace([await retryDocument(asked.id, password)]);
        }}
        onClose={() => setAsked(null)}
      />
    </div>
  );
}

/** How many documents of the page are hidden because their deletion can still be undone. */
function hiddenOn(page: List<DocumentInfo> | null): number {
  return (page?.data ?? []).filter((document) => deleted.value.has(document.id)).length;
}

function selectColumn(
  selected: ReadonlyMap<string, DocumentInfo>,
  toggle: (document: DocumentInfo, on: boolean) => void,
): Column<DocumentInfo> {
  return {
    id: "select",
    title: t("documents.column.select"),
    hideTitle: true,
    cell: (document) => (
      <input
        type="checkbox"
        checked={selected.has(document.id)}
        aria-label={t("documents.select", { name: document.filename })}
        onChange={(event) => toggle(document, event.currentTarget.checked)}
      />
    ),
  };
}

function actionsColumn(onEdit: (document: DocumentInfo) => void): Column<DocumentInfo> {
  return {
    id: "actions",
    title: t("documents.column.actions"),
    cell: (document) => (
      <div class="document-actions">
        <IconButton
          icon="edit"
          small
          label={t("documents.edit_named", { name: document.filename })}
          onClick={() => onEdit(document)}
        />
        <IconButton
          icon="trash"
          small
          label={t("documents.delete_named", { name: document.filename })}
          onClick={() => deleteWithUndo([document])}
        />
      </div>
    ),
  };
}

/** Whether the address asks for the search instead of the list. */
export function showsSearch(): boolean {
  return query.value.get("view") === "search";
}
