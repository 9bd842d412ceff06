import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import {
  documentPage,
  searchPassages,
  type CollectionInfo,
  type SearchAnswer,
  type SearchHit,
  type SearchMode,
} from "../../api/documents";
import { isAbort } from "../../api/errors";
import { href } from "../../api/prefix";
import { Button } from "../../components/button";
import { Field } from "../../components/field";
import { Notice } from "../../components/notice";
import { errorText } from "../../components/toast";
import { formatNumber, t, tn, tryText } from "../../texts";
import { setFilters } from "./filters";
import { query } from "../../shell/router";

const MODES = ["hybrid", "dense", "lexical"] as const;
/** As `answerability.ABSTAIN_BELOW`. */
const ABSTAIN_BELOW = 0.38;
const TOP_K = 10;

function modeOf(text: string | null): SearchMode {
  return MODES.find((mode) => mode === text) ?? "hybrid";
}

/** Searches the text of one collection, or of one document, and says why each passage was found. */
export function PassageSearch({ collections, within }: { collections: readonly CollectionInfo[]; within?: { id: string; collection: string } }) {
  const given = query.value;
  const [text, setText] = useState(given.get("q") ?? "");
  const [mode, setMode] = useState<SearchMode>(modeOf(given.get("mode")));
  const [collection, setCollection] = useState(within?.collection ?? given.get("in") ?? "default");
  const [answer, setAnswer] = useState<SearchAnswer | null>(null);
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const running = useRef<AbortController | null>(null);

  const search = async (question: string, how: SearchMode): Promise<void> => {
    running.current?.abort();
    if (!question.trim()) {
      setAnswer(null);
      setBusy(false);
      return;
    }
    const stop = new AbortController();
    running.current = stop;
    setBusy(true);
    setError("");
    if (!within) setFilters({ view: "search", q: question, mode: how === "hybrid" ? "" : how, in: collection });
    try {
      const document_ids = within ? { document_ids: [within.id] } : {};
      setAnswer(await searchPassages({ query: question, mode: how, collection, top_k: TOP_K, ...document_ids }, stop.signal));
    } catch (reason) {
      if (isAbort(reason)) return;
      setAnswer(null);
      setError(errorText(reason));
    }
    setBusy(false);
  };

  useEffect(() => {
    if (text && !within) void search(text, mode);
    return () => running.current?.abort();
  }, []);

  const names = new Set(["default", ...collections.map((entry) => entry.name), collection]);
  return (
    <div class="stack">
      <form
        class="search-form"
        role="search"
        aria-label={t("documents.tab.search")}
        onSubmit={(event) => {
          event.preventDefault();
          void search(text, mode);
        }}
      >
        <Field label={t("documents.search.query")}>
          <input type="search" value={text} maxLength={4000} onInput={(event) => setText(event.currentTarget.value)} />
        </Field>
        {within ? null : (
          <Field label={t("documents.filter.collection")}>
            <select value={collection} onChange={(event) => setCollection(event.currentTarget.value)}>
              {[...names].map((name) => (
                <option key={name} value={name}>
                  {name}
                </option>
              ))}
            </select>
          </Field>
        )}
        <Field label={t("documents.search.mode")}>
          <select
            value={mode}
            onChange={(event) => {
              const chosen = modeOf(event.currentTarget.value);
              setMode(chosen);
              if (answer) void search(text, chosen);
            }}
          >
            {MODES.map((name) => (
              <option key={name} value={name}>
                {t(`documents.search.${name}`)}
              </option>
            ))}
          </select>
        </Field>
        <Button kind="primary" type="submit" icon="search" busy={busy}>
          {t("documents.search.submit")}
        </Button>
      </form>
      <p class="soft small">{t(`documents.search.${mode}.hint`)}</p>
      {error ? <Notice kind="error">{error}</Notice> : null}
      {answer ? <Hits answer={answer} collection={collection} /> : null}
    </div>
  );
}

function Hits({ answer, collection }: { answer: SearchAnswer; collection: string }) {
  const ms = Object.values(answer.timings_ms).reduce((sum, value) => sum + value, 0);
  return (
    <>
      <p role="status" class="soft">
        {answer.data.length
          ? `${tn(answer.data.length, "documents.search.results_one", "documents.search.results")} ${t("documents.search.time", { ms: Math.round(ms) })}`
          : t("documents.search.none", { collection })}
      </p>
      {answer.data.length && answer.answerable < ABSTAIN_BELOW ? (
        <Notice kind="warning">{t("documents.search.unlikely")}</Notice>
      ) : null}
      <ol class="hits">
        {answer.data.map((hit) => (
          <li key={hit.chunk_id} class="card hit">
            <Hit hit={hit} />
          </li>
        ))}
      </ol>
    </>
  );
}

function Hit({ hit }: { hit: SearchHit }) {
  const words = hit.explanation?.words ?? [];
  const percent = formatNumber(Math.round(hit.score * 100));
  return (
    <article class="stack">
      <div class="hit-head">
        <a href={href(documentPage(hit.document_id, { page: hit.page, start: hit.start, end: hit.end }))}>
          {t("documents.search.page", { name: hit.filename, page: hit.page_label ?? String(hit.page) })}
        </a>
        <span class="soft small">{t("documents.search.score", { percent })}</span>
      </div>
      {hit.headings.length ? <div class="soft small">{hit.headings.join(" › ")}</div> : null}
      <p class="hit-quote">{marked(hit.quote, words)}</p>
      {hit.explanation ? <Explanation hit={hit} parts={hit.explanation.parts} words={words} /> : null}
    </article>
  );
}

function Explanation({ hit, parts, words }: { hit: SearchHit; parts: readonly { name: string; value: number; weight: number; points: number }[]; words: readonly string[] }) {
  const percent = (value: number): string => formatNumber(value, { style: "percent", maximumFractionDigits: 1 });
  return (
    <details class="why">
      <summary>{t("documents.search.why")}</summary>
      <table class="table why-table">
        <thead>
          <tr>
            <th scope="col">{t("documents.search.part")}</th>
            <th scope="col" class="table-number">
              {t("documents.search.part.value")}
            </th>
            <th scope="col" class="table-number">
              {t("documents.search.part.weight")}
            </th>
            <th scope="col" class="table-number">
              {t("documents.search.part.points")}
            </th>
          </tr>
        </thead>
        <tbody>
          {parts.map((part) => (
            <tr key={part.name}>
              <th scope="row">{tryText(`documents.part.${part.name}`, part.name)}</th>
              <td class="table-number">{percent(part.value)}</td>
              <td class="table-number">{percent(part.weight)}</td>
              <td class="table-number">{percent(part.points)}</td>
            </tr>
          ))}
        </tbody>
        <tfoot>
          <tr>
            <th scope="row" colSpan={3}>
              {t("documents.search.sum")}
            </th>
            <td class="table-number">{percent(hit.score)}</td>
          </tr>
        </tfoot>
      </table>
      <p class="small">
        {words.length ? t("documents.search.words", { words: words.join(", ") }) : t("documents.search.no_words")}
      </p>
    </details>
  );
}

/** The text with the words that begin like one of the words marked. */
export function marked(text: string, words: readonly string[]): ComponentChildren {
  const starts = words.map((word) => (word.length > 4 ? word.replace(/e?s$/u, "") : word)).filter(Boolean);
  if (!starts.length) return text;
  const pattern = starts.map((start) => start.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|");
  const expression = new RegExp(`(?<![\\p{L}\\p{N}])(?:${pattern})[\\p{L}\\p{N}]*`, "giu");
  const pieces: ComponentChildren[] = [];
  let at = 0;
  for (const match of text.matchAll(expression)) {
    pieces.push(text.slice(at, match.index), <mark key={match.index}>{match[0]}</mark>);
    at = match.index + match[0].length;
  }
  return [...pieces, text.slice(at)];
}
