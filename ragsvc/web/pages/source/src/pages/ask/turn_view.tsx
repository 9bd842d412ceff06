import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { Passage } from "../../api/ask";
import { Button, IconButton } from "../../components/button";
import { copyText } from "../../components/copy_text";
import { Field } from "../../components/field";
import { Icon } from "../../components/icons";
import { Notice } from "../../components/notice";
import { Spinner } from "../../components/spinner";
import { toast, toastError } from "../../components/toast";
import { t } from "../../texts";
import { AnswerText, isShown } from "./answer_text";
import { answerWithSources } from "./export";
import { isBusy, rate, ratings, retry, shownSource } from "./state";
import { citationsOf, isNotInDocuments, pageName, type Source, type Turn } from "./turns";

const EXTRACTIVE = "local/chat-model";
const NEAREST = 3;

/** A question with its answer. */
export function TurnView({ turn, last }: { turn: Turn; last: boolean }) {
  const heading = useId();
  const writing = turn.state === "waiting" || turn.state === "writing";
  return (
    <article class="turn" aria-labelledby={heading} aria-busy={writing}>
      <h2 class="turn-question" id={heading}>
        {turn.question}
      </h2>
      {isNotInDocuments(turn) ? <Absent turn={turn} /> : <Answer turn={turn} writing={writing} />}
      {turn.state === "waiting" ? <Spinner label={t(turn.searched ? "ask.writing" : "ask.searching")} /> : null}
      {turn.state === "stopped" ? <p class="soft small">{t("ask.stopped")}</p> : null}
      {turn.isCut ? <Notice kind="warning">{t("ask.incomplete")}</Notice> : null}
      {turn.state === "failed" ? (
        <Notice kind="error">
          {t("ask.failed")} {turn.error}
        </Notice>
      ) : null}
      {writing ? null : <Actions turn={turn} last={last} />}
    </article>
  );
}

function open(source: Source): void {
  shownSource.value = source;
}

function Answer({ turn, writing }: { turn: Turn; writing: boolean }) {
  const { sources, markers } = citationsOf(turn);
  return (
    <>
      <AnswerText
        text={turn.text}
        markers={markers}
        writing={writing}
        verbatim={turn.model === EXTRACTIVE}
        shown={shownSource.value}
        onOpen={open}
      />
      {sources.length && !writing ? <Sources sources={sources} /> : null}
    </>
  );
}

function Sources({ sources }: { sources: readonly Source[] }) {
  const heading = useId();
  return (
    <section class="sources" aria-labelledby={heading}>
      <h3 class="sources-title" id={heading}>
        {t("ask.sources")}
      </h3>
      <ol>
        {sources.map((source) => (
          <li key={source.number}>
            <SourceButton source={source} text={source.quote} />
          </li>
        ))}
      </ol>
    </section>
  );
}

function SourceButton({ source, text }: { source: Source; text: string }) {
  return (
    <button type="button" class="source" aria-pressed={isShown(shownSource.value, source)} onClick={() => open(source)}>
      <span class="source-place">
        {source.number ? <span class="source-number">{source.number}</span> : <Icon name="page" size={16} />}
        <span class="source-file">{source.filename}</span>
        <span class="soft">{t("ask.page", { page: pageName(source) })}</span>
      </span>
      {text ? <span class="source-quote">{text.replace(/\s+/g, " ")}</span> : null}
    </button>
  );
}

/** The documents do not contain an answer: this looks different from an answer. */
function Absent({ turn }: { turn: Turn }) {
  const passages = (turn.passages ?? []).filter((passage) => passage.document_id && passage.page).slice(0, NEAREST);
  const wrote = turn.model === EXTRACTIVE ? "" : turn.text.trim();
  return (
    <div class="absent">
      <div class="absent-head">
        <Icon name="search" />
        <strong>{t("ask.absent")}</strong>
      </div>
      {wrote ? (
        <>
          <p class="soft">{t("ask.absent.model")}</p>
          <AnswerText text={turn.text} markers={[]} writing={false} verbatim={false} shown={null} onOpen={open} />
        </>
      ) : (
        <p>{t("ask.absent.text")}</p>
      )}
      {passages.length ? (
        <section class="sources">
          <h3 class="sources-title">{t("ask.nearest")}</h3>
          <ul>
            {passages.map((passage) => (
              <li key={passage.chunk_id}>
                <SourceButton source={sourceOf(passage)} text={passage.text} />
              </li>
            ))}
          </ul>
        </section>
      ) : null}
    </div>
  );
}

function sourceOf(passage: Passage): Source {
  return {
    number: 0,
    documentId: passage.document_id ?? "",
    filename: passage.filename,
    page: passage.page ?? 1,
    pageLabel: passage.page_label ?? null,
    quote: "",
    chunkId: passage.chunk_id ?? null,
  };
}

function Actions({ turn, last }: { turn: Turn; last: boolean }) {
  const [noting, setNoting] = useState(false);
  const rated = ratings.value.get(turn.responseId ?? "");
  const onRate = (rating: "up" | "down"): void => {
    const removes = rated?.rating === rating;
    setNoting(!removes);
    rate(turn, rating).then(() => toast(t(removes ? "ask.unrated" : "ask.rated"), { kind: "success" }), toastError);
  };
  const copy = (): void => {
    const copied = (): unknown => toast(t("shell.copied"), { kind: "success" });
    copyText(answerWithSources(turn)).then(copied, toastError);
  };
  return (
    <>
      <div class="turn-actions">
        {turn.text && turn.state !== "failed" ? (
          <IconButton icon="copy" small label={t("ask.copy")} onClick={copy} />
        ) : null}
        {turn.state === "done" && turn.responseId ? (
          <>
            <IconButton
              icon="thumb_up"
              small
              label={t("ask.good")}
              aria-pressed={rated?.rating === "up"}
              onClick={() => onRate("up")}
            />
            <IconButton
              icon="thumb_down"
              small
              label={t("ask.bad")}
              aria-pressed={rated?.rating === "down"}
              onClick={() => onRate("down")}
            />
          </>
        ) : null}
        {last ? (
          <Button kind="quiet" small icon="retry" disabled={isBusy.value} onClick={() => void retry()}>
            {t("ask.retry")}
          </Button>
        ) : null}
      </div>
      {noting && rated ? <Note turn={turn} rating={rated.rating} note={rated.note ?? ""} onDone={() => setNoting(false)} /> : null}
    </>
  );
}

interface NoteProps {
  turn: Turn;
  rating: "up" | "down";
  note: string;
  onDone: () => void;
}

function Note({ turn, rating, note, onDone }: NoteProps) {
  const [text, setText] = useState(note);
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    if (rating === "down") field.current?.focus(); // what is wrong is what the reader says next
  }, [rating]);
  const [busy, setBusy] = useState(false);
  const save = (event: Event): void => {
    event.preventDefault();
    setBusy(true);
    rate(turn, rating, text.trim())
      .then(() => {
        toast(t("ask.rated"), { kind: "success" });
        onDone();
      })
      .catch((error: unknown) => {
        setBusy(false);
        toastError(error);
      });
  };
  return (
    <form class="turn-note" onSubmit={save}>
      <Field label={t(rating === "down" ? "ask.note" : "ask.note.good")}>
        <textarea ref={field} rows={2} maxLength={4000} value={text} onInput={(event) => setText(event.currentTarget.value)} />
      </Field>
      <div class="row">
        <Button type="submit" kind="primary" small busy={busy}>
          {t("ask.note.save")}
        </Button>
        <Button kind="quiet" small onClick={onDone}>
          {t("shell.cancel")}
        </Button>
      </div>
    </form>
  );
}
