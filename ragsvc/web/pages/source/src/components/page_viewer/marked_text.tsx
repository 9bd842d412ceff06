import { useLayoutEffect, useRef } from "preact/hooks";
import { t } from "../../texts";
import { Button } from "../button";
import { Notice } from "../notice";
import { Spinner } from "../spinner";
import { errorText } from "../toast";

/** Characters `start` to `end` (exclusive). */
export interface Span {
  start: number;
  end: number;
}

interface MarkedTextProps {
  page: number;
  /** null while it is loaded. */
  text: string | null;
  error: unknown;
  onRetry: () => void;
  span: Span | null;
  note: string | null;
}

/** The text of a page with a stretch of it marked and scrolled to. */
export function MarkedText({ page, text, error, onRetry, span, note }: MarkedTextProps) {
  const scroller = useRef<HTMLDivElement>(null);
  const marked = useRef<HTMLElement>(null);
  useLayoutEffect(() => {
    const element = scroller.current;
    const mark = marked.current;
    if (!element || !mark) return;
    element.scrollTop += mark.getBoundingClientRect().top - element.getBoundingClientRect().top - element.clientHeight * 0.3;
  }, [text, span?.start, span?.end]);
  if (error) {
    return (
      <div class="page-viewer-notice">
        <Notice kind="error">
          <p>{errorText(error)}</p>
          <Button small icon="retry" onClick={onRetry}>
            {t("shell.retry")}
          </Button>
        </Notice>
      </div>
    );
  }
  // offsets count characters; JavaScript counts UTF-16 units
  const characters = text === null ? [] : Array.from(text);
  const [before, inside, after] = span
    ? [characters.slice(0, span.start), characters.slice(span.start, span.end), characters.slice(span.end)]
    : [characters, [], []];
  return (
    <div ref={scroller} class="page-viewer-scroll page-viewer-text" tabIndex={0} role="group" aria-label={t("viewer.text", { page })}>
      {note ? <p class="soft small">{note}</p> : null}
      {text === null ? (
        <Spinner label={t("viewer.loading", { page })} />
      ) : text.trim() === "" ? (
        <p class="soft">{t("viewer.text.empty")}</p>
      ) : (
        <div class="page-viewer-words">
          {before.join("")}
          {inside.length ? <mark ref={marked}>{inside.join("")}</mark> : null}
          {after.join("")}
        </div>
      )}
    </div>
  );
}
