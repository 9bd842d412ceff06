import { signal } from "@preact/signals";
import { deleteDocument } from "../../api/documents";
import { onSignOut } from "../../api/session";
import { toast, toastError } from "../../components/toast";
import { t, tn } from "../../texts";

/** Seconds in which a deletion can be undone. */
export const UNDO_S = 10;
const AT_ONCE = 4;

/** Documents that the reader deleted and that are still stored: pages do not show them. */
export const deleted = signal<ReadonlySet<string>>(new Set());

const pending = new Map<number, string[]>();
let next = 1;

/** Hides documents, and deletes them unless that is undone in time. Leaving the page deletes them at once. */
export function deleteWithUndo(documents: readonly { id: string; filename: string }[]): void {
  const ids = documents.map((document) => document.id);
  const number = next++;
  pending.set(number, ids);
  deleted.value = new Set([...deleted.value, ...ids]);
  const timer = setTimeout(() => void finish(number), UNDO_S * 1000);
  const first = documents[0];
  const text =
    documents.length === 1 && first
      ? t("documents.deleted_one", { name: first.filename, seconds: UNDO_S })
      : tn(documents.length, "documents.deleted_count_one", "documents.deleted_count", { seconds: UNDO_S });
  toast(text, {
    seconds: UNDO_S,
    action: {
      label: t("documents.undo"),
      run: () => {
        if (!pending.delete(number)) return;
        clearTimeout(timer);
        reveal(ids);
      },
    },
  });
}

function reveal(ids: readonly string[]): void {
  const shown = new Set(deleted.value);
  for (const id of ids) shown.delete(id);
  deleted.value = shown;
}

async function finish(number: number): Promise<void> {
  const ids = pending.get(number);
  if (!ids) return;
  pending.delete(number);
  const left = [...ids];
  const worker = async (): Promise<void> => {
    for (let id = left.pop(); id !== undefined; id = left.pop()) {
      try {
        await deleteDocument(id);
      } catch (error) {
        reveal([id]);
        toastError(error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, ids.length) }, worker));
}

/** Deletes now what can still be undone, because the page is left. */
function finishAll(): void {
  for (const ids of pending.values()) for (const id of ids) void deleteDocument(id, { keepalive: true });
  pending.clear();
}

window.addEventListener("pagehide", finishAll);
onSignOut(async () => {
  await Promise.all([...pending.keys()].map(finish));
});
