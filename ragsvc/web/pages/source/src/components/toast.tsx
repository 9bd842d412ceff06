import { signal } from "@preact/signals";
import { ApiError, isAbort } from "../api/errors";
import { t } from "../texts";
import { IconButton } from "./button";
import { Icon } from "./icons";
import "./toast.css";

interface Notice {
  id: number;
  text: string;
  detail: string;
  kind: "info" | "success" | "error";
  action: { label: string; run: () => void } | null;
}

const notices = signal<readonly Notice[]>([]);
let next = 1;

interface ToastOptions {
  kind?: Notice["kind"];
  detail?: string;
  /** Seconds until it goes; errors and notices with an action stay longer. */
  seconds?: number;
  action?: { label: string; run: () => void };
}

/** Shows a notice at the edge of the screen; returns a function that removes it. */
export function toast(text: string, options: ToastOptions = {}): () => void {
  const id = next++;
  const kind = options.kind ?? "info";
  const notice = { id, text, detail: options.detail ?? "", kind, action: options.action ?? null };
  notices.value = [...notices.value.slice(-3), notice];
  const remove = (): void => {
    notices.value = notices.value.filter((other) => other.id !== id);
  };
  setTimeout(remove, (options.seconds ?? (kind === "error" || options.action ? 12 : 5)) * 1000);
  return remove;
}

/** What went wrong, in a sentence for people. */
export function errorText(error: unknown): string {
  if (error instanceof ApiError) return error.offline ? t("error.offline") : error.message;
  return error instanceof Error && error.message ? error.message : t("error.unknown");
}

/** Shows an error as a notice; what was stopped on purpose and an ended session are not shown. */
export function toastError(error: unknown): void {
  if (isAbort(error) || (error instanceof ApiError && error.status === 401)) return;
  const id = error instanceof ApiError ? error.requestId : null;
  toast(errorText(error), { kind: "error", detail: id ? t("error.request", { id }) : "" });
}

const symbols = { info: "info", success: "check", error: "error" } as const;

/** Takes the focus if it is lost, as it is when the row of a deleted document disappears: the keys reach the action. */
function takeLostFocus(button: HTMLButtonElement | null): void {
  if (!button) return;
  requestAnimationFrame(() => {
    if (document.activeElement === document.body) button.focus();
  });
}

/** The place where notices appear; once in the shell. */
export function Toasts() {
  return (
    <div class="toasts" role="region" aria-label={t("shell.notices")} aria-live="polite">
      {notices.value.map((notice) => (
        <div key={notice.id} class={`toast toast-${notice.kind}`}>
          <Icon name={symbols[notice.kind]} />
          <div class="toast-text">
            <div>{notice.text}</div>
            {notice.detail ? <div class="toast-detail">{notice.detail}</div> : null}
          </div>
          {notice.action ? (
            <button
              ref={takeLostFocus}
              type="button"
              class="button button-small"
              onClick={() => {
                notice.action?.run();
                notices.value = notices.value.filter((other) => other.id !== notice.id);
              }}
            >
              {notice.action.label}
            </button>
          ) : null}
          <IconButton
            icon="close"
            small
            label={t("shell.close")}
            onClick={() => {
              notices.value = notices.value.filter((other) => other.id !== notice.id);
            }}
          />
        </div>
      ))}
    </div>
  );
}
