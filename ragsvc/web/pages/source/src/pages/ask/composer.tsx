import { useEffect, useRef, useState } from "preact/hooks";
import { Button } from "../../components/button";
import { Notice } from "../../components/notice";
import { t, tn } from "../../texts";
import { ScopeDialog } from "./scope_dialog";
import {
  ask,
  chooseModel,
  isBusy,
  model,
  models,
  MOST_COLLECTIONS,
  opening,
  scope,
  searchedCollections,
  stop,
  turns,
  type AskScope,
} from "./state";

/** The field for the question, with the model and the place to look. */
export function Composer({ disabled }: { disabled: boolean }) {
  const [text, setText] = useState("");
  const [choosing, setChoosing] = useState(false);
  const field = useRef<HTMLTextAreaElement>(null);
  const busy = isBusy.value;
  const first = turns.value.length === 0;
  const places = searchedCollections(scope.value).length;
  const send = (): void => {
    if (!text.trim() || busy || disabled || opening.value) return;
    void ask(text);
    setText("");
  };
  useEffect(() => {
    const area = field.current;
    if (!area) return;
    area.style.height = "auto"; // so that it can shrink
    area.style.height = `${Math.min(area.scrollHeight + 2, 200)}px`;
  }, [text]);
  useEffect(() => {
    if (!disabled && window.matchMedia("(min-width: 821px)").matches) field.current?.focus();
  }, [disabled]);
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <label class="visually-hidden" for="ask-question">
        {t("ask.question")}
      </label>
      <textarea
        id="ask-question"
        ref={field}
        rows={1}
        maxLength={20_000}
        disabled={disabled}
        placeholder={t(first ? "ask.placeholder" : "ask.placeholder.more")}
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
          event.preventDefault();
          send();
        }}
      />
      <div class="composer-line">
        <Button kind="quiet" small icon="filter" disabled={disabled} onClick={() => setChoosing(true)} aria-haspopup="dialog">
          <span class="composer-scope">{scopeName(scope.value)}</span>
        </Button>
        <ModelChoice />
        <span class="composer-space" />
        {busy ? (
          <Button icon="stop" onClick={stop}>
            {t("ask.stop")}
          </Button>
        ) : (
          <Button type="submit" kind="primary" icon="send" disabled={disabled || opening.value || !text.trim()}>
            <span class="composer-send">{t("ask.send")}</span>
          </Button>
        )}
      </div>
      {places > MOST_COLLECTIONS ? (
        <Notice kind="warning">{t("ask.scope.too_many", { most: MOST_COLLECTIONS, count: places })}</Notice>
      ) : null}
      <ScopeDialog
        open={choosing}
        onClose={() => setChoosing(false)}
        onDone={() => {
          setChoosing(false);
          requestAnimationFrame(() => field.current?.focus()); // the next step is to write the question
        }}
      />
    </form>
  );
}

function ModelChoice() {
  if (models.value.length < 2) return null;
  return (
    <label class="composer-model">
      <span class="visually-hidden">{t("ask.model")}</span>
      <select value={model.value} onChange={(event) => chooseModel(event.currentTarget.value)}>
        {models.value.map((each) => (
          <option key={each.id} value={each.id} disabled={!each.available}>
            {each.id}
          </option>
        ))}
      </select>
    </label>
  );
}

function scopeName({ collections, documents, conditions }: AskScope): string {
  const parts: string[] = [];
  const [only] = collections;
  if (documents.length === 1 && documents[0]) parts.push(documents[0].filename);
  else if (documents.length) parts.push(tn(documents.length, "ask.scope.documents.one", "ask.scope.documents.other"));
  else if (collections.length === 1 && only) parts.push(only);
  else if (collections.length) parts.push(tn(collections.length, "ask.scope.collections.one", "ask.scope.collections.other"));
  if (conditions.length) parts.push(tn(conditions.length, "ask.scope.conditions.one", "ask.scope.conditions.other"));
  return parts.join(", ") || t("ask.scope.all");
}
