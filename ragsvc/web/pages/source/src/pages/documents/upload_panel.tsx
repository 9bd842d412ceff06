import { useEffect, useRef, useState } from "preact/hooks";
import { documentPage } from "../../api/documents";
import { href } from "../../api/prefix";
import { Button } from "../../components/button";
import { Icon } from "../../components/icons";
import { toastError } from "../../components/toast";
import { t, tn } from "../../texts";
import { PasswordDialog } from "./dialogs";
import { failureText, mayRetry, needsPassword, ProgressBar } from "./status";
import {
  addFiles,
  clearFinished,
  filesOf,
  filesOfInput,
  itemProgress,
  retryUpload,
  stopUploads,
  totalProgress,
  uploads,
  type UploadItem,
} from "./uploads";

const SHOWN = 30;
/** What needs attention comes first, what is done last. */
const ORDER = { failed: 0, refused: 0, sending: 1, processing: 1, paused: 2, waiting: 3, known: 4, ready: 5 } as const;

/** The buttons that open file dialogs, and a hint to the other ways. */
export function AddButtons({ collection }: { collection: string }) {
  const files = useRef<HTMLInputElement>(null);
  const folder = useRef<HTMLInputElement>(null);
  const take = (input: HTMLInputElement): void => {
    addFiles(filesOfInput(input.files), collection);
    input.value = "";
  };
  return (
    <div class="row">
      <Button kind="primary" icon="upload" onClick={() => files.current?.click()}>
        {t("documents.add_files")}
      </Button>
      <Button icon="folder" onClick={() => folder.current?.click()}>
        {t("documents.add_folder")}
      </Button>
      <input
        ref={files}
        type="file"
        multiple
        hidden
        data-testid="files"
        aria-label={t("documents.add_files")}
        onChange={(event) => take(event.currentTarget)}
      />
      <input
        ref={folder}
        type="file"
        multiple
        hidden
        data-testid="folder"
        aria-label={t("documents.add_folder")}
        {...{ webkitdirectory: true }}
        onChange={(event) => take(event.currentTarget)}
      />
    </div>
  );
}

/** Takes files that are dropped or pasted anywhere on the page. */
export function DropTarget({ collection }: { collection: string }) {
  const [over, setOver] = useState(false);
  useEffect(() => {
    const hasFiles = (data: DataTransfer | null): data is DataTransfer => data?.types.includes("Files") ?? false;
    const take = (data: DataTransfer): void => {
      filesOf(data).then((found) => addFiles(found, collection), toastError);
    };
    const onOver = (event: DragEvent): void => {
      if (!hasFiles(event.dataTransfer)) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "copy";
      setOver(true);
    };
    const onLeave = (event: DragEvent): void => {
      if (!event.relatedTarget) setOver(false);
    };
    const onDrop = (event: DragEvent): void => {
      setOver(false);
      if (!hasFiles(event.dataTransfer)) return;
      event.preventDefault();
      take(event.dataTransfer);
    };
    const onPaste = (event: ClipboardEvent): void => {
      if (!hasFiles(event.clipboardData)) return;
      event.preventDefault();
      take(event.clipboardData);
    };
    document.addEventListener("dragover", onOver);
    document.addEventListener("dragleave", onLeave);
    document.addEventListener("drop", onDrop);
    document.addEventListener("paste", onPaste);
    return () => {
      document.removeEventListener("dragover", onOver);
      document.removeEventListener("dragleave", onLeave);
      document.removeEventListener("drop", onDrop);
      document.removeEventListener("paste", onPaste);
    };
  }, [collection]);
  return over ? (
    <div class="drop-target">
      <div class="drop-target-text">
        <Icon name="upload" size={40} />
        {t("documents.drop_here", { collection })}
      </div>
    </div>
  ) : null;
}

/** The uploads of this visit with the progress of each and of all. */
export function UploadPanel() {
  const [asked, setAsked] = useState<UploadItem | null>(null);
  const all = uploads.value;
  if (!all.length) return null;
  const done = all.filter((item) => item.state === "ready" || item.state === "known").length;
  const failed = all.filter((item) => item.state === "failed" || item.state === "refused").length;
  const unsent = all.some((item) => item.state === "waiting" || item.state === "sending" || item.state === "paused");
  const finished = done + failed;
  const sorted = [...all].sort((first, second) => ORDER[first.state] - ORDER[second.state] || first.id - second.id);
  return (
    <section class="card uploads" aria-label={t("documents.uploads")}>
      <div class="uploads-head">
        <h2>{t("documents.uploads")}</h2>
        <span role="status">
          {tn(all.length, "documents.uploads.progress_one", "documents.uploads.progress", { done })}
          {failed ? `, ${t("documents.uploads.failed", { count: failed })}` : ""}
        </span>
        <span class="top-space" />
        {unsent ? (
          <Button small icon="stop" onClick={stopUploads}>
            {t("documents.uploads.stop")}
          </Button>
        ) : null}
        {finished ? (
          <Button small icon="close" onClick={clearFinished}>
            {t("documents.uploads.clear")}
          </Button>
        ) : null}
      </div>
      <ProgressBar share={totalProgress(all)} label={t("documents.uploads.bar")} />
      <ul class="uploads-list">
        {sorted.slice(0, SHOWN).map((item) => (
          <UploadRow key={item.id} item={item} onPassword={() => setAsked(item)} />
        ))}
      </ul>
      {all.length > SHOWN ? (
        <p class="soft small">{tn(all.length - SHOWN, "documents.uploads.more", "documents.uploads.more")}</p>
      ) : null}
      <PasswordDialog
        name={asked?.name ?? null}
        wrong={asked?.error?.code === "password_wrong"}
        onSubmit={async (password) => {
          if (asked) await retryUpload(asked, password);
        }}
        onClose={() => setAsked(null)}
      />
    </section>
  );
}

function UploadRow({ item, onPassword }: { item: UploadItem; onPassword: () => void }) {
  const failed = item.state === "failed" || item.state === "refused";
  const busy = item.state === "sending" || item.state === "processing";
  return (
    <li class="uploads-item" data-state={item.state}>
      <span class="uploads-name">
        {item.document ? <a href={href(documentPage(item.document.id))}>{item.name}</a> : item.name}
      </span>
      <span class={failed ? "status-failed" : "soft"}>
        {t(`documents.upload.${item.state}`)}
        {item.error ? `: ${failureText(item.error)}` : ""}
        {item.sameAs && !failed ? ` – ${t("documents.upload.same", { name: item.sameAs })}` : ""}
      </span>
      {busy ? <ProgressBar share={itemProgress(item)} label={t("documents.progress", { name: item.name })} /> : null}
      {failed && needsPassword(item.error) ? (
        <Button small icon="keys" aria-label={t("documents.password.enter_named", { name: item.name })} onClick={onPassword}>
          {t("documents.password.enter")}
        </Button>
      ) : failed && mayRetry(item.error) ? (
        <Button
          small
          icon="retry"
          aria-label={t("documents.retry_named", { name: item.name })}
          onClick={() => void retryUpload(item).catch(toastError)}
        >
          {t("documents.retry")}
        </Button>
      ) : null}
    </li>
  );
}
