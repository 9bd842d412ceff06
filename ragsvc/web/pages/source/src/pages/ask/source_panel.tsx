import { useEffect, useRef } from "preact/hooks";
import { IconButton } from "../../components/button";
import { t } from "../../texts";
import { shownSource } from "./state";
import { pageName, type Source } from "./turns";

/** The source of a chip beside the answer. */
export function SourcePanel({ source }: { source: Source }) {
  const panel = useRef<HTMLElement>(null);
  const before = useRef<Element | null>(null);
  const close = (): void => {
    shownSource.value = null;
    if (before.current instanceof HTMLElement) before.current.focus();
  };
  useEffect(() => {
    if (!panel.current?.contains(document.activeElement)) before.current = document.activeElement;
    panel.current?.focus();
  }, [source]);
  return (
    <aside
      class="source-panel"
      aria-label={t("ask.source")}
      tabIndex={-1}
      ref={panel}
      onKeyDown={(event) => {
        if (event.key === "Escape") close();
      }}
    >
      <div class="source-panel-head">
        <h2>
          {source.filename}, {t("ask.page", { page: pageName(source) })}
        </h2>
        <IconButton icon="close" label={t("ask.source.close")} onClick={close} />
      </div>
      <blockquote>{source.quote}</blockquote>
    </aside>
  );
}
