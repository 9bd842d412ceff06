/**
 * Shows a page of a document with a stretch of its text marked. It fills its container (give that a height); on narrow
 * screens it covers the page if it can be closed.
 *
 *   <PageViewer
 *     documentId="doc_…"
 *     title="report.pdf"                       // file name, for the heading
 *     page={12}                                // page to show, from 1
 *     mark={{ quote, chunkId }}                // optional: a citation of `page` …
 *     mark={{ start: 120, end: 180 }}          // … or characters of the page's text
 *     onClose={() => setCited(null)}           // optional: shows a cross, and Escape calls it
 *     onPage={(page) => …}                     // optional: the reader went to another page
 *     keepFocus                                // optional: do not take the focus when it opens
 *   />
 *
 * New values of `documentId`, `page` or `mark` show that place. `mark` may be a new object with the same values.
 * Keys: left and right arrow for pages (where a page is wider than the viewer, they scroll it), + and - and 0 for the size, Escape to close.
 */
import { useCallback, useEffect, useId, useMemo, useRef, useState } from "preact/hooks";
import { ApiError, isAbort } from "../../api/errors";
import { passwordOf, rememberPassword } from "../../api/passwords";
import { href } from "../../api/prefix";
import {
  getDocument,
  getPageBoxes,
  getPageText,
  getPassage,
  originalPath,
  type PageBoxes,
  type PageText,
  type Stretch,
  type ViewedDocument,
} from "../../api/viewer";
import { t } from "../../texts";
import { Button, IconButton } from "../button";
import { Icon } from "../icons";
import { Notice } from "../notice";
import { Spinner } from "../spinner";
import { errorText } from "../toast";
import { Outline } from "./outline";
import { PagePicture } from "./page_picture";
import { PasswordForm } from "./password_form";
import { MarkedText, type Span } from "./marked_text";
import "./page_viewer.css";

/** Characters `start` to `end` (exclusive) of the page's text, or `quote` and `chunk_id` of a citation. */
export type PageMark = { start: number; end: number } | { quote?: string | undefined; chunkId?: string | undefined };

export interface PageViewerProps {
  documentId: string;
  page: number;
  title: string;
  mark?: PageMark | null | undefined;
  onClose?: (() => void) | undefined;
  onPage?: ((page: number) => void) | undefined;
  keepFocus?: boolean | undefined;
}

const zooms = [0.5, 0.67, 0.8, 1, 1.25, 1.5, 2, 3] as const;

function stretchOf(mark: PageMark | null | undefined): Stretch | null {
  if (!mark) return null;
  if ("start" in mark) return { start: mark.start, end: mark.end };
  if (!mark.quote && !mark.chunkId) return null;
  return { quote: mark.quote || undefined, passage_id: mark.chunkId };
}

/** The characters of a quote in a text, whatever the spaces between its words. */
function findQuote(text: string, quote: string): Span | null {
  const words = quote.split(/\s+/).filter(Boolean);
  if (!words.length) return null;
  const pattern = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("\\s+");
  const found = new RegExp(pattern).exec(text);
  if (!found) return null;
  const start = Array.from(text.slice(0, found.index)).length; // offsets count characters, not UTF-16 units
  return { start, end: start + Array.from(found[0]).length };
}

/** A value that is loaded; a new key loads it again. */
function useLoaded<T>(key: string | null, load: (signal: AbortSignal) => Promise<T>): { value: T | null; error: unknown; again: () => void } {
  const [state, setState] = useState<{ key: string | null; value: T | null; error: unknown }>({ key: null, value: null, error: null });
  const [tries, setTries] = useState(0);
  useEffect(() => {
    if (key === null) return;
    const stop = new AbortController();
    load(stop.signal).then(
      (value) => setState({ key, value, error: null }),
      (error: unknown) => {
        if (!isAbort(error)) setState({ key, value: null, error });
      },
    );
    return () => stop.abort();
  }, [key, tries]);
  const current = state.key === key && key !== null;
  const again = useCallback(() => {
    setState({ key: null, value: null, error: null });
    setTries((count) => count + 1);
  }, []);
  return { value: current ? state.value : null, error: current ? state.error : null, again };
}

function codeOf(error: unknown): string | null {
  return error instanceof ApiError ? error.code : null;
}

export function PageViewer({ documentId, page: wantedPage, title, mark, onClose, onPage, keepFocus }: PageViewerProps) {
  const [page, setPage] = useState(wantedPage);
  const [zoom, setZoom] = useState(0); // 0: as wide as the viewer
  const [showsText, setShowsText] = useState(false);
  const [showsOutline, setShowsOutline] = useState(false);
  const [password, setPassword] = useState(() => passwordOf(documentId));
  const [pictureError, setPictureError] = useState<unknown>(null);
  const [tries, setTries] = useState(0);
  const root = useRef<HTMLElement>(null);
  const heading = useId();

  const stretch = stretchOf(mark);
  const place = JSON.stringify([documentId, wantedPage, stretch]);
  useEffect(() => {
    setPage(wantedPage);
    setPictureError(null);
  }, [place]);
  useEffect(() => setPassword(passwordOf(documentId)), [documentId]);
  useEffect(() => {
    if (!keepFocus) root.current?.focus({ preventScroll: true });
  }, [place]);

  const document = useLoaded<ViewedDocument>(documentId, (signal) => getDocument(documentId, signal));
  const text = useLoaded<PageText>(`${documentId} ${page}`, (signal) => getPageText(documentId, page, signal));
  const pages = document.value?.pages || null;
  const marked = stretch !== null && page === wantedPage;
  const pictureCode = codeOf(pictureError);
  const noPicture = pictureCode === "page_has_no_picture";
  const locked = pictureCode === "password_required" || pictureCode === "password_wrong";
  const asText = showsText || noPicture;

  const boxesKey = marked && !noPicture && !locked ? `${place} ${password ?? ""} ${tries}` : null;
  const boxes = useLoaded<PageBoxes>(boxesKey, (signal) => getPageBoxes(documentId, page, stretch ?? {}, password, signal));
  const passageId = marked && stretch?.passage_id && !stretch.quote ? stretch.passage_id : null;
  const passage = useLoaded(passageId, (signal) => getPassage(documentId, passageId ?? "", signal));

  const span = useMemo<Span | null>(() => {
    if (!marked || !stretch || !text.value) return null;
    if (boxes.value) return boxes.value;
    if (stretch.start !== undefined && stretch.end !== undefined) return { start: stretch.start, end: stretch.end };
    if (stretch.quote) return findQuote(text.value.text, stretch.quote);
    return passage.value;
  }, [place, page, text.value, boxes.value, passage.value]);

  const go = useCallback(
    (to: number) => {
      const next = Math.min(Math.max(1, to), pages ?? Math.max(1, to));
      if (next === page) return;
      setPage(next);
      setPictureError((error: unknown) => (codeOf(error) === "page_has_no_picture" || codeOf(error)?.startsWith("password") ? error : null));
      onPage?.(next);
    },
    [page, pages, onPage],
  );
  const zoomBy = (step: 1 | -1): void => {
    const present = zoom || 1;
    const next = step > 0 ? zooms.find((value) => value > present) : [...zooms].reverse().find((value) => value < present);
    if (next) setZoom(next);
  };

  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && onClose) {
      event.preventDefault();
      event.stopPropagation();
      onClose();
      return;
    }
    if (event.target instanceof HTMLInputElement) return;
    const sideways = event.key === "ArrowLeft" || event.key === "ArrowRight";
    if (sideways && event.target instanceof Element && event.target.scrollWidth > event.target.clientWidth + 1) return; // it scrolls
    const actions: Record<string, () => void> = {
      ArrowLeft: () => go(page - 1),
      ArrowRight: () => go(page + 1),
      "+": () => zoomBy(1),
      "=": () => zoomBy(1),
      "-": () => zoomBy(-1),
      "0": () => setZoom(0),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  };

  const gone = codeOf(document.error) === "document_not_found";
  const found = marked && boxes.value !== null && boxes.value.boxes.length > 0;
  const lost = marked && !asText && ((boxes.value !== null && boxes.value.boxes.length === 0) || boxes.error !== null);
  const status = [
    pages ? t("viewer.shown", { page, count: pages }) : "",
    found || (asText && span) ? t("viewer.marked") : "",
  ].filter(Boolean).join(". ");

  return (
    <section
      ref={root}
      class={onClose ? "page-viewer page-viewer-closable" : "page-viewer"}
      aria-labelledby={heading}
      tabIndex={-1}
      onKeyDown={onKeyDown}
    >
      <header class="page-viewer-head">
        <h2 id={heading} title={title}>
          <span class="visually-hidden">{t("viewer.label", { title: "" })}</span>
          {title}
        </h2>
        {onClose ? <IconButton icon="close" label={t("viewer.close")} onClick={onClose} /> : null}
      </header>
      <div class="page-viewer-tools" role="group" aria-label={t("viewer.toolbar")}>
        <div class="page-viewer-pages">
          <IconButton small icon="left" label={t("viewer.previous")} disabled={page <= 1} onClick={() => go(page - 1)} />
          <PageNumber page={page} pages={pages} label={text.value?.page_label ?? null} onGo={go} />
          <IconButton
            small
            icon="right"
            label={t("viewer.next")}
            disabled={pages !== null && page >= pages}
            onClick={() => go(page + 1)}
          />
        </div>
        {asText ? null : (
          <div class="page-viewer-zoom">
            <IconButton small icon="zoom_out" label={t("viewer.zoom_out")} disabled={zoom === zooms[0]} onClick={() => zoomBy(-1)} />
            <Button small kind="quiet" aria-pressed={zoom === 0} title={t("viewer.fit")} onClick={() => setZoom(0)}>
              {zoom === 0 ? t("viewer.fit") : t("viewer.zoom", { percent: Math.round(zoom * 100) })}
            </Button>
            <IconButton small icon="zoom_in" label={t("viewer.zoom_in")} disabled={zoom === zooms[zooms.length - 1]} onClick={() => zoomBy(1)} />
          </div>
        )}
        <div class="page-viewer-more">
          <IconButton
            small
            icon="outline"
            label={t("viewer.outline")}
            aria-expanded={showsOutline}
            onClick={() => setShowsOutline(!showsOutline)}
          />
          {noPicture ? null : (
            <IconButton
              small
              icon={asText ? "page" : "documents"}
              label={asText ? t("viewer.show_picture") : t("viewer.show_text")}
              aria-pressed={asText}
              onClick={() => setShowsText(!showsText)}
            />
          )}
          <a
            class="button button-quiet button-icon button-small"
            href={href(originalPath(documentId, page))}
            target="_blank"
            rel="noopener"
            title={t("viewer.original")}
            aria-label={t("viewer.original")}
          >
            <Icon name="external" size={16} />
          </a>
        </div>
      </div>
      <p class="visually-hidden" role="status">
        {status}
      </p>
      {stretch !== null && page !== wantedPage ? (
        <div class="page-viewer-line">
          <Button small icon="left" onClick={() => go(wantedPage)}>
            {t("viewer.back", { page: wantedPage })}
          </Button>
        </div>
      ) : null}
      {marked && !asText && !locked && boxes.value === null && boxes.error === null ? (
        <div class="page-viewer-line">
          <Spinner small label={t("viewer.finding")} />
        </div>
      ) : null}
      {lost && !locked ? (
        <div class="page-viewer-line">
          <Notice kind="warning">
            {t("viewer.not_marked")}{" "}
            <Button small onClick={() => setShowsText(true)}>
              {t("viewer.show_text")}
            </Button>
          </Notice>
        </div>
      ) : null}
      <div class="page-viewer-body">
        {showsOutline ? (
          <Outline documentId={documentId} page={page} password={password} onGo={go} onClose={() => setShowsOutline(false)} />
        ) : null}
        {gone ? (
          <div class="page-viewer-notice">
            <Notice kind="error">{t("viewer.gone")}</Notice>
          </div>
        ) : locked ? (
          <PasswordForm
            wrong={pictureCode === "password_wrong"}
            onPassword={(entered) => {
              rememberPassword(documentId, entered);
              setPassword(entered);
              setPictureError(null);
            }}
          />
        ) : asText ? (
          <MarkedText
            key={`${documentId} ${page}`}
            page={page}
            text={text.value?.text ?? null}
            error={text.error}
            onRetry={text.again}
            span={span}
            note={noPicture ? t("viewer.no_picture") : null}
          />
        ) : pictureError ? (
          <div class="page-viewer-notice">
            <Notice kind="error">
              <p>{errorText(pictureError)}</p>
              <div class="row">
                <Button
                  small
                  icon="retry"
                  onClick={() => {
                    setPictureError(null);
                    setTries(tries + 1);
                  }}
                >
                  {t("shell.retry")}
                </Button>
                <Button small onClick={() => setShowsText(true)}>
                  {t("viewer.show_text")}
                </Button>
              </div>
            </Notice>
          </div>
        ) : (
          <PagePicture
            documentId={documentId}
            page={page}
            pages={pages}
            zoom={zoom}
            password={password}
            boxes={marked ? boxes.value : null}
            text={text.value?.text ?? ""}
            place={place}
            onError={setPictureError}
          />
        )}
      </div>
    </section>
  );
}

function PageNumber({ page, pages, label, onGo }: { page: number; pages: number | null; label: string | null; onGo: (page: number) => void }) {
  const [entered, setEntered] = useState<string | null>(null);
  const go = (): void => {
    const wanted = Number.parseInt(entered ?? "", 10);
    setEntered(null);
    if (Number.isFinite(wanted)) onGo(wanted);
  };
  const printed = label !== null && label !== String(page) ? t("viewer.label_of_page", { label }) : undefined;
  return (
    <form
      class="page-viewer-number"
      onSubmit={(event) => {
        event.preventDefault();
        go();
      }}
    >
      <input
        type="text"
        inputMode="numeric"
        size={4}
        aria-label={t("viewer.page")}
        title={printed}
        value={entered ?? String(page)}
        onInput={(event) => setEntered(event.currentTarget.value)}
        onFocus={(event) => event.currentTarget.select()}
        onBlur={go}
      />
      {pages ? <span>{t("viewer.of", { count: pages })}</span> : null}
    </form>
  );
}
