import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import {
  contentUrl,
  documentPage,
  getDocument,
  getPageText,
  listDocuments,
  listPassages,
  retryDocument,
  type DocumentInfo,
  type PageText,
  type PassageInfo,
} from "../../api/documents";
import { ApiError, isAbort } from "../../api/errors";
import { href } from "../../api/prefix";
import { hasScope } from "../../api/session";
import { getOutline, type OutlineEntry } from "../../api/viewer";
import { Button, IconButton } from "../../components/button";
import { Icon } from "../../components/icons";
import { Notice } from "../../components/notice";
import { PageHeader } from "../../components/page_header";
import { PageViewer } from "../../components/page_viewer";
import { Spinner } from "../../components/spinner";
import { Tabs } from "../../components/tabs";
import { errorText, toastError } from "../../components/toast";
import { navigate, query } from "../../shell/router";
import { formatBytes, formatNumber, formatTime, t } from "../../texts";
import { deleteWithUndo } from "./deletion";
import { EditDialog, PasswordDialog } from "./dialogs";
import { onChange } from "./live";
import { PassageSearch } from "./search";
import { mayRetry, needsPassword, StatusCell, typeText } from "./status";

/** One document: its text beside the picture of its pages, its passages, and what the index knows of it. */
export function DocumentDetail({ id }: { id: string }) {
  const [document, setDocument] = useState<DocumentInfo | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [edited, setEdited] = useState(false);
  const [asked, setAsked] = useState(false);
  const mayWrite = hasScope("documents.write");

  useEffect(() => {
    const stop = new AbortController();
    const load = (): void => {
      getDocument(id, stop.signal).then(setDocument, (reason: unknown) => {
        if (!isAbort(reason)) setError(reason);
      });
    };
    setDocument(null);
    setError(null);
    load();
    let isFirst = true;
    const unfollow = onChange((change) => {
      if (change.kind === "document" && change.document.id === id) setDocument(change.document);
      if (change.kind === "reload") {
        if (change.missed && !isFirst) load();
        isFirst = false;
      }
      if (change.kind === "deleted" && change.id === id) setError(new ApiError(t("documents.not_found"), 404));
    });
    return () => {
      stop.abort();
      unfollow();
    };
  }, [id]);

  if (error) {
    const missing = error instanceof ApiError && error.status === 404;
    return (
      <>
        <PageHeader title={t("nav.documents")} />
        <div class="stack">
          <Notice kind="error">{missing ? t("documents.not_found") : errorText(error)}</Notice>
          <a href={href("/documents")}>{t("documents.back")}</a>
        </div>
      </>
    );
  }
  if (!document) {
    return (
      <>
        <PageHeader title={t("nav.documents")} />
        <Spinner label={t("shell.loading")} />
      </>
    );
  }
  const retry = (password?: string): Promise<void> => retryDocument(id, password).then(setDocument);
  return (
    <>
      <a class="back" href={href("/documents")}>
        <Icon name="left" size={16} />
        {t("documents.back")}
      </a>
      <PageHeader title={document.filename}>
        <a class="button" href={contentUrl(id)} download={document.filename}>
          <Icon name="download" size={18} />
          {t("documents.download")}
        </a>
        {mayWrite ? (
          <>
            <Button icon="edit" onClick={() => setEdited(true)}>
              {t("documents.edit")}
            </Button>
            <Button
              kind="danger"
              icon="trash"
              onClick={() => {
                deleteWithUndo([document]);
                navigate("/documents");
              }}
            >
              {t("documents.delete")}
            </Button>
          </>
        ) : null}
      </PageHeader>
      <div class="stack">
        <div class="row">
          <StatusCell document={document} />
          {document.status === "failed" && mayWrite ? (
            needsPassword(document.error) ? (
              <Button small icon="keys" onClick={() => setAsked(true)}>
                {t("documents.password.enter")}
              </Button>
            ) : mayRetry(document.error) ? (
              <Button small icon="retry" onClick={() => void retry().catch(toastError)}>
                {t("documents.retry")}
              </Button>
            ) : null
          ) : null}
        </div>
        <Problems document={document} />
        <Parts key={document.id} document={document} />
      </div>
      <EditDialog
        documents={edited ? [document] : []}
        onSaved={(saved) => saved[0] && setDocument(saved[0])}
        onClose={() => setEdited(false)}
      />
      <PasswordDialog
        name={asked ? document.filename : null}
        wrong={document.error?.code === "password_wrong"}
        onSubmit={retry}
        onClose={() => setAsked(false)}
      />
    </>
  );
}

/** The notes about pages that could not be read well; each leads to its page. */
function Problems({ document }: { document: DocumentInfo }) {
  if (!document.problems.length) return null;
  return (
    <details class="card problems">
      <summary>
        {t("documents.problems")} ({formatNumber(document.problems.length)})
      </summary>
      <ul>
        {document.problems.map((problem) => {
          const { first_page: first, last_page: last } = problem;
          const pages = first === last ? t("documents.problem.page", { first }) : t("documents.problem.pages", { first, last });
          return (
            <li key={`${problem.code} ${first}`}>
              {document.pages > 0 ? <a href={href(documentPage(document.id, { page: first }))}>{pages}</a> : pages}: {problem.message}
            </li>
          );
        })}
      </ul>
    </details>
  );
}

interface Span {
  page: number;
  start: number;
  end: number;
}

/** The page and the characters that the address asks for. */
function askedSpan(): Span {
  const number = (name: string, otherwise: number): number => {
    const value = Number(query.value.get(name));
    return Number.isInteger(value) && value > 0 ? value : otherwise;
  };
  return { page: number("page", 1), start: number("start", 0), end: number("end", 0) };
}

type Part = "pages" | "passages" | "outline" | "search" | "about";

function Parts({ document }: { document: DocumentInfo }) {
  const [part, setPart] = useState<Part>("pages");
  const known = usePassages(document);
  const span = askedSpan();
  const show = (page: number, start = 0, end = 0): void => {
    const place = end > start ? { page, start, end } : { page };
    navigate(documentPage(document.id, place), { replace: true });
    setPart("pages");
  };
  const tabs = [
    { id: "pages", title: t("documents.detail.pages") },
    { id: "passages", title: t("documents.detail.passages") },
    { id: "outline", title: t("documents.detail.outline") },
    { id: "search", title: t("documents.search.submit") },
    { id: "about", title: t("documents.detail.about") },
  ];
  return (
    <Tabs label={t("documents.detail.tabs")} tabs={tabs} selected={part} onSelect={(id) => setPart(id as Part)}>
      {part === "pages" ? <PageBesidePicture document={document} span={span} onShow={show} /> : null}
      {part === "passages" ? <Passages known={known} onShow={show} /> : null}
      {part === "outline" ? <Outline id={document.id} known={known} onShow={show} /> : null}
      {part === "search" ? <PassageSearch collections={[]} within={document} /> : null}
      {part === "about" ? <About document={document} known={known} /> : null}
    </Tabs>
  );
}

interface PageProps {
  document: DocumentInfo;
  span: Span;
  onShow: (page: number) => void;
}

function PageBesidePicture({ document, span, onShow }: PageProps) {
  const [text, setText] = useState<PageText | null>(null);
  const [error, setError] = useState("");
  const page = Math.min(span.page, Math.max(1, document.pages));
  const pictured = hasPictures(document);
  useEffect(() => {
    if (document.status !== "ready" || !document.pages) return;
    const stop = new AbortController();
    setText(null);
    setError("");
    getPageText(document.id, page, stop.signal).then(setText, (reason: unknown) => {
      if (!isAbort(reason)) setError(errorText(reason));
    });
    return () => stop.abort();
  }, [document.id, document.status, page]);

  if (document.status !== "ready") return <p class="soft">{t("documents.detail.not_ready")}</p>;
  return (
    <div class="stack">
      <PageChoice page={page} count={document.pages} onShow={onShow} hidden={pictured} />
      <div class={pictured ? "page-and-picture" : "stack"}>
        <section class="card page-text" aria-label={t("documents.detail.pages")}>
          <h2>
            {t("documents.detail.page_of", { page, count: document.pages })}
            {text?.page_label && text.page_label !== String(page) ? (
              <span class="soft"> ({t("documents.detail.page_label", { label: text.page_label })})</span>
            ) : null}
          </h2>
          {error ? <Notice kind="error">{error}</Notice> : null}
          {text ? <Text text={text.text} span={text.page === span.page ? span : null} /> : error ? null : <Spinner label={t("shell.loading")} />}
        </section>
        {pictured ? (
          <div class="card page-picture">
            <PageViewer
              documentId={document.id}
              title={document.filename}
              page={page}
              mark={span.page === page && span.end > span.start ? { start: span.start, end: span.end } : null}
              onPage={onShow}
              keepFocus
            />
          </div>
        ) : null}
      </div>
    </div>
  );
}

/** Whether pages of this format have pictures: those of a PDF, and pictures themselves. */
function hasPictures(document: DocumentInfo): boolean {
  return document.media_type === "application/pdf" || document.media_type.startsWith("image/");
}

interface PageChoiceProps {
  page: number;
  count: number;
  /** The viewer beside the text has these buttons as well. */
  hidden: boolean;
  onShow: (page: number) => void;
}

function PageChoice({ page, count, hidden, onShow }: PageChoiceProps) {
  if (hidden || count < 2) return null;
  return (
    <div class="row">
      <IconButton icon="left" label={t("documents.detail.previous_page")} disabled={page <= 1} onClick={() => onShow(page - 1)} />
      <span>{t("documents.detail.page_of", { page, count })}</span>
      <IconButton icon="right" label={t("documents.detail.next_page")} disabled={page >= count} onClick={() => onShow(page + 1)} />
    </div>
  );
}

function Text({ text, span }: { text: string; span: Span | null }) {
  if (!text.trim()) return <p class="soft">{t("documents.detail.no_text")}</p>;
  const points = [...text]; // offsets of the API count characters, not UTF-16 units
  const marks = span && span.end > span.start;
  const content: ComponentChildren = marks
    ? [
        points.slice(0, span.start).join(""),
        <mark key="mark" ref={scrollTo}>
          {points.slice(span.start, span.end).join("")}
        </mark>,
        points.slice(span.end).join(""),
      ]
    : text;
  return (
    <>
      <p class="soft small">
        {t("documents.detail.words", { words: text.split(/\s+/u).filter(Boolean).length, characters: points.length })}
      </p>
      <div class="page-lines">{content}</div>
    </>
  );
}

function scrollTo(element: HTMLElement | null): void {
  element?.scrollIntoView({ block: "nearest" });
}

interface KnownPassages {
  passages: readonly PassageInfo[];
  hasMore: boolean;
  busy: boolean;
  more: () => void;
}

/** The passages of a document, a hundred at a time. */
function usePassages(document: DocumentInfo): KnownPassages {
  const [passages, setPassages] = useState<readonly PassageInfo[]>([]);
  const [next, setNext] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const load = (after: string | null, before: readonly PassageInfo[], signal?: AbortSignal): void => {
    setBusy(true);
    listPassages(document.id, after, signal)
      .then((list) => {
        setPassages([...before, ...list.data]);
        setNext(list.has_more ? list.last_id : null);
      }, toastError)
      .finally(() => setBusy(false));
  };
  useEffect(() => {
    if (document.status !== "ready") return;
    const stop = new AbortController();
    load(null, [], stop.signal);
    return () => stop.abort();
  }, [document.id, document.status]);
  return { passages, hasMore: next !== null, busy, more: () => load(next, passages) };
}

type Show = (page: number, start?: number, end?: number) => void;

function MoreButton({ known }: { known: KnownPassages }) {
  return known.hasMore ? (
    <div>
      <Button icon="down" busy={known.busy} onClick={known.more}>
        {t("documents.detail.more_passages")}
      </Button>
    </div>
  ) : null;
}

function Passages({ known, onShow }: { known: KnownPassages; onShow: Show }) {
  if (!known.passages.length) {
    return known.busy ? <Spinner label={t("shell.loading")} /> : <p class="soft">{t("documents.detail.no_passages")}</p>;
  }
  return (
    <div class="stack">
      <ol class="hits">
        {known.passages.map((passage) => (
          <li key={passage.id} class="card stack">
            <div class="hit-head">
              <span class="soft small">
                {t("documents.detail.passage_at", { page: passage.page_label ?? String(passage.page) })}
                {passage.headings.length ? ` · ${passage.headings.join(" › ")}` : ""}
                {passage.markdown ? ` · ${t("documents.detail.table")}` : ""}
              </span>
              <Button small icon="page" onClick={() => onShow(passage.page, passage.start, passage.end)}>
                {t("documents.detail.show_passage", { page: passage.page })}
              </Button>
            </div>
            <p class="hit-quote">{passage.text}</p>
          </li>
        ))}
      </ol>
      <MoreButton known={known} />
    </div>
  );
}

interface Heading {
  key: string;
  title: string;
  level: number;
  page: number;
  start: number;
  end: number;
}

/** The headings above the passages, each at its first passage. */
export function headingsOf(passages: readonly PassageInfo[]): Heading[] {
  const found = new Map<string, Heading>();
  for (const { headings, page, start, end } of passages) {
    for (const [level, title] of headings.entries()) {
      const key = headings.slice(0, level + 1).join("\n");
      if (!found.has(key)) found.set(key, { key, title, level, page, start, end });
    }
  }
  return [...found.values()];
}

/** The bookmarks of the file; where it has none, the headings above its passages. */
function Outline({ id, known, onShow }: { id: string; known: KnownPassages; onShow: Show }) {
  const [bookmarks, setBookmarks] = useState<readonly OutlineEntry[] | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    getOutline(id, null, stop.signal).then(setBookmarks, (reason: unknown) => {
      if (!isAbort(reason)) setBookmarks([]); // a protected file, for example, still has its headings
    });
    return () => stop.abort();
  }, [id]);
  if (bookmarks?.length) {
    return (
      <ul class="outline">
        {bookmarks.map((entry, at) => (
          <OutlineLine key={at} level={entry.level - 1} title={entry.title} page={entry.page} onShow={() => onShow(entry.page)} />
        ))}
      </ul>
    );
  }
  const headings = headingsOf(known.passages);
  if (!headings.length) {
    return known.busy || bookmarks === null ? <Spinner label={t("shell.loading")} /> : <p class="soft">{t("documents.detail.no_outline")}</p>;
  }
  return (
    <div class="stack">
      <ul class="outline">
        {headings.map((heading) => (
          <OutlineLine
            key={heading.key}
            level={heading.level}
            title={heading.title}
            page={heading.page}
            onShow={() => onShow(heading.page, heading.start, heading.end)}
          />
        ))}
      </ul>
      <MoreButton known={known} />
    </div>
  );
}

function OutlineLine({ level, title, page, onShow }: { level: number; title: string; page: number; onShow: () => void }) {
  return (
    <li style={{ paddingInlineStart: `${Math.min(level, 6) * 16}px` }}>
      <button type="button" class="link-button" onClick={onShow}>
        {title}
      </button>
      <span class="soft small">{t("documents.detail.passage_at", { page })}</span>
    </li>
  );
}

function About({ document, known }: { document: DocumentInfo; known: KnownPassages }) {
  const [attached, setAttached] = useState<readonly DocumentInfo[]>([]);
  useEffect(() => {
    const stop = new AbortController();
    listDocuments({ parent_id: document.id, limit: 100 }, stop.signal).then((list) => setAttached(list.data), toastError);
    return () => stop.abort();
  }, [document.id]);
  const words = known.passages.reduce((sum, passage) => sum + passage.text.split(/\s+/u).filter(Boolean).length, 0);
  const seconds = (document.timings["parse_s"] ?? 0) + (document.timings["embed_s"] ?? 0); // the others are parts of parsing
  const properties = Object.entries(document.metadata);
  const facts: [string, ComponentChildren][] = [
    [t("documents.about.title"), document.title],
    [t("documents.about.type"), typeText(document.media_type)],
    [t("documents.about.size"), formatBytes(document.bytes)],
    [t("documents.about.collection"), document.collection],
    [t("documents.about.pages"), formatNumber(document.pages)],
    [t("documents.about.passages"), formatNumber(document.passages)],
    [t("documents.about.words"), known.passages.length ? formatNumber(words) : null],
    [t("documents.about.tables"), formatNumber(known.passages.filter((passage) => passage.markdown).length)],
    [t("documents.about.headings"), formatNumber(headingsOf(known.passages).length)],
    [t("documents.about.created"), formatTime(document.created_at)],
    [t("documents.about.ready"), document.ready_at === null ? null : formatTime(document.ready_at)],
    [t("documents.about.updated"), formatTime(document.updated_at)],
    [t("documents.about.took"), seconds ? t("documents.about.seconds", { seconds: Math.round(seconds * 10) / 10 }) : null],
    [t("documents.about.model"), document.embedding_model],
    [
      t("documents.about.parent"),
      document.parent_id ? <a href={href(documentPage(document.parent_id))}>{document.parent_id}</a> : null,
    ],
    [
      t("documents.about.attachments"),
      attached.length ? (
        <ul class="plain-list">
          {attached.map((entry) => (
            <li key={entry.id}>
              <a href={href(documentPage(entry.id))}>{entry.filename}</a>
            </li>
          ))}
        </ul>
      ) : null,
    ],
    [
      t("documents.about.properties"),
      properties.length ? (
        <ul class="plain-list">
          {properties.map(([name, value]) => (
            <li key={name}>
              {name}: {typeof value === "boolean" ? t(value ? "documents.edit.yes" : "documents.edit.no") : String(value)}
            </li>
          ))}
        </ul>
      ) : (
        t("documents.about.no_properties")
      ),
    ],
    [t("documents.about.id"), <code key="id">{document.id}</code>],
    [t("documents.about.sha256"), <code key="sha">{document.sha256}</code>],
  ];
  return (
    <dl class="facts">
      {facts.map(([name, value]) =>
        value === null || value === "" ? null : (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ),
      )}
    </dl>
  );
}

