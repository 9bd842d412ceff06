import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { isAbort } from "../../api/errors";
import { getPagePicture, type PageBoxes } from "../../api/viewer";
import { t } from "../../texts";
import { Spinner } from "../spinner";

interface PagePictureProps {
  documentId: string;
  page: number;
  pages: number | null;
  /** 0: as wide as the viewer, else a factor of that width. */
  zoom: number;
  password: string | null;
  boxes: PageBoxes | null;
  /** The text of the page, for screen readers. */
  text: string;
  /** Changes when another place is to be shown. */
  place: string;
  onError: (error: unknown) => void;
}

/** Widths in which the service draws pages; asking for these uses what it has drawn before. */
const widths = [640, 1000, 1400, 2000, 2800, 4000];
const mostKept = 6;
const margin = 24;

interface Drawn {
  key: string;
  url: string;
  width: number;
}

/** The pictures that were shown last, as object URLs. */
const kept = new Map<string, string>();

function keep(key: string, blob: Blob): string {
  const url = URL.createObjectURL(blob);
  kept.set(key, url);
  for (const [oldest, old] of kept) {
    if (kept.size <= mostKept) break;
    kept.delete(oldest);
    setTimeout(() => URL.revokeObjectURL(old), 10_000); // it may still be shown
  }
  return url;
}

function widthToDraw(shown: number): number {
  const wanted = Math.ceil(shown * Math.min(window.devicePixelRatio || 1, 2));
  return widths.find((width) => width >= wanted * 0.95) ?? 4000;
}

/** The picture of a page with the marked rectangles, scrolled to the first of them. */
export function PagePicture({ documentId, page, pages, zoom, password, boxes, text, place, onError }: PagePictureProps) {
  const scroller = useRef<HTMLDivElement>(null);
  const sheet = useRef<HTMLDivElement>(null);
  const scrolledTo = useRef("");
  const [room, setRoom] = useState(0);
  const [drawn, setDrawn] = useState<Drawn | null>(null);
  const [shape, setShape] = useState<{ key: string; ratio: number } | null>(null);

  useLayoutEffect(() => {
    const element = scroller.current;
    if (!element) return;
    const measure = (): void => setRoom(element.clientWidth);
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  const shownWidth = Math.max(120, room - margin) * (zoom || 1);
  const pageKey = `${documentId} ${page}`;
  const width = room > 0 ? widthToDraw(shownWidth) : 0;
  useEffect(() => {
    if (!width) return;
    const key = `${pageKey} ${width} ${password ?? ""}`;
    const known = kept.get(key);
    if (known) {
      setDrawn({ key: pageKey, url: known, width });
      return;
    }
    const stop = new AbortController();
    getPagePicture(documentId, page, width, password, stop.signal).then(
      (blob) => setDrawn({ key: pageKey, url: keep(key, blob), width }),
      (error: unknown) => {
        if (!isAbort(error)) onError(error);
      },
    );
    return () => stop.abort();
  }, [pageKey, width, password]);

  const isShown = drawn?.key === pageKey && shape?.key === pageKey;
  useEffect(() => {
    if (!isShown || !width || pages === null || page >= pages) return;
    const key = `${documentId} ${page + 1} ${width} ${password ?? ""}`;
    if (kept.has(key)) return;
    const stop = new AbortController();
    const start = setTimeout(() => {
      getPagePicture(documentId, page + 1, width, password, stop.signal).then(
        (blob) => void keep(key, blob),
        () => undefined, // the reader may never go there
      );
    }, 400);
    return () => {
      clearTimeout(start);
      stop.abort();
    };
  }, [isShown, pageKey, pages, width, password]);

  const points = boxes ? boxes.height / boxes.width : null;
  const ratio = shape?.key === pageKey ? shape.ratio : points;
  useLayoutEffect(() => {
    const element = scroller.current;
    if (!element || !ratio || !room) return;
    const first = boxes?.boxes[0];
    const target = `${place} ${page} ${first ? "mark" : ""}`;
    if (scrolledTo.current === target) return;
    if (first) {
      const height = shownWidth * ratio;
      const top = first.top * height - element.clientHeight * 0.3;
      const left = first.left * shownWidth - element.clientWidth * 0.2;
      element.scrollTo({ top: Math.max(0, top), left: zoom > 1 ? Math.max(0, left) : 0 });
    } else if (!scrolledTo.current.startsWith(`${place} ${page} `)) {
      element.scrollTo({ top: 0, left: 0 });
    }
    scrolledTo.current = target;
  }, [place, page, boxes, ratio, room]);

  return (
    <div ref={scroller} class="page-viewer-scroll" tabIndex={0} role="group" aria-label={t("viewer.picture", { page })}>
      <div
        ref={sheet}
        class="page-viewer-sheet"
        style={{ width: `${shownWidth}px`, ...(ratio ? { height: `${shownWidth * ratio}px` } : { minHeight: "60%" }) }}
      >
        {drawn?.key === pageKey ? (
          <img
            src={drawn.url}
            alt={t("viewer.picture", { page })}
            draggable={false}
            data-width={drawn.width}
            onLoad={(event) => {
              const { naturalWidth, naturalHeight } = event.currentTarget;
              if (naturalWidth) setShape({ key: pageKey, ratio: naturalHeight / naturalWidth });
            }}
          />
        ) : (
          <div class="page-viewer-wait">
            <Spinner label={t("viewer.loading", { page })} />
          </div>
        )}
        {boxes?.boxes.map((box, index) => (
          <div
            key={index}
            class="page-viewer-mark"
            aria-hidden="true"
            style={{
              left: `${box.left * 100}%`,
              top: `${box.top * 100}%`,
              width: `${box.width * 100}%`,
              height: `${box.height * 100}%`,
            }}
          />
        ))}
      </div>
      {text ? (
        <div class="visually-hidden">
          <h3>{t("viewer.text", { page })}</h3>
          <p>{text}</p>
        </div>
      ) : null}
    </div>
  );
}
