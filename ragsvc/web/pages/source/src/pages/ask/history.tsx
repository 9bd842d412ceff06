import { useState } from "preact/hooks";
import type { ListedConversation } from "../../api/ask";
import { Button, IconButton } from "../../components/button";
import { Dialog } from "../../components/dialog";
import { Field } from "../../components/field";
import { toastError } from "../../components/toast";
import { href } from "../../api/prefix";
import { formatTime, t } from "../../texts";
import { conversationId, history, historyGoesOn, loadHistory, ratings, removeConversation, renameConversation } from "./state";

export function titleOf(conversation: ListedConversation): string {
  const time = formatTime(conversation.created_at);
  return conversation.metadata.title?.trim() || t("ask.history.untitled", { time });
}

type Doing = { what: "rename" | "delete"; conversation: ListedConversation } | null;

/** The conversations of the key, the last used first. */
export function History({ onOpen }: { onOpen?: () => void }) {
  const [doing, setDoing] = useState<Doing>(null);
  const entries = history.value;
  return (
    <>
      {entries?.length === 0 ? <p class="soft small">{t("ask.history.empty")}</p> : null}
      <ul class="history">
        {(entries ?? []).map((conversation) => {
          const title = titleOf(conversation);
          const current = conversation.id === conversationId.value;
          return (
            <li key={conversation.id} class="history-entry">
              <a
                href={href(`/ask?conversation=${conversation.id}`)}
                aria-current={current ? "page" : undefined}
                onClick={() => onOpen?.()}
              >
                <span class="history-title">{title}</span>
                <span class="soft small">{formatTime(conversation.last_active_at)}</span>
              </a>
              <IconButton
                icon="edit"
                small
                label={t("ask.rename.of", { title })}
                onClick={() => setDoing({ what: "rename", conversation })}
              />
              <IconButton
                icon="trash"
                small
                label={t("ask.delete.of", { title })}
                onClick={() => setDoing({ what: "delete", conversation })}
              />
            </li>
          );
        })}
      </ul>
      {historyGoesOn.value ? (
        <Button kind="quiet" small onClick={() => void loadHistory(true).catch(toastError)}>
          {t("ask.history.more")}
        </Button>
      ) : null}
      {ratings.value.size ? (
        <>
          <a class="small" href={href("/v1/rag/feedback/table")} download>
            {t("ask.rated.table")}
          </a>
          <a class="small" href={href("/v1/rag/feedback/questions?rating=all")} download="questions.jsonl">
            {t("ask.rated.questions")}
          </a>
        </>
      ) : null}
      {doing?.what === "rename" ? <Rename conversation={doing.conversation} onDone={() => setDoing(null)} /> : null}
      {doing?.what === "delete" ? <Delete conversation={doing.conversation} onDone={() => setDoing(null)} /> : null}
    </>
  );
}

interface DoingProps {
  conversation: ListedConversation;
  onDone: () => void;
}

function Rename({ conversation, onDone }: DoingProps) {
  const [title, setTitle] = useState(titleOf(conversation));
  const [busy, setBusy] = useState(false);
  const save = (event?: Event): void => {
    event?.preventDefault();
    if (!title.trim()) return;
    setBusy(true);
    renameConversation(conversation.id, title.trim()).then(onDone, (error: unknown) => {
      setBusy(false);
      toastError(error);
    });
  };
  const actions = (
    <>
      <Button onClick={onDone}>{t("shell.cancel")}</Button>
      <Button kind="primary" busy={busy} disabled={!title.trim()} onClick={() => save()}>
        {t("ask.save")}
      </Button>
    </>
  );
  return (
    <Dialog title={t("ask.rename")} open onClose={onDone} actions={actions}>
      <form onSubmit={save}>
        <Field label={t("ask.title")}>
          <input
            maxLength={200}
            value={title}
            onInput={(event: InputEvent) => setTitle((event.currentTarget as HTMLInputElement).value)}
          />
        </Field>
      </form>
    </Dialog>
  );
}

function Delete({ conversation, onDone }: DoingProps) {
  const [busy, setBusy] = useState(false);
  const remove = (): void => {
    setBusy(true);
    removeConversation(conversation.id).then(onDone, (error: unknown) => {
      setBusy(false);
      toastError(error);
    });
  };
  const actions = (
    <>
      <Button onClick={onDone}>{t("shell.cancel")}</Button>
      <Button kind="danger" busy={busy} onClick={remove}>
        {t("ask.delete")}
      </Button>
    </>
  );
  return (
    <Dialog title={t("ask.delete")} open onClose={onDone} actions={actions}>
      <p>{t("ask.delete.sure", { title: titleOf(conversation) })}</p>
    </Dialog>
  );
}
