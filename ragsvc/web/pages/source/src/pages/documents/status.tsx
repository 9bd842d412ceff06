import type { DocumentInfo } from "../../api/documents";
import { Icon } from "../../components/icons";
import { t, tn, tryText } from "../../texts";

/** Why a document failed, in the language of the reader where the reason is known. */
export function failureText(error: { code: string; message: string }): string {
  return tryText(`documents.failure.${error.code}`, error.message || error.code);
}

export function needsPassword(error: { code: string } | null): boolean {
  return error?.code === "password_required" || error?.code === "password_wrong";
}

/** Failures of the file itself, which reading it again cannot change. */
const FINAL = new Set(["unsupported_file", "unsupported_media_type", "empty_file", "not_a_pdf", "not_text"]);

export function mayRetry(error: { code: string } | null): boolean {
  return !FINAL.has(error?.code ?? "");
}

export function typeText(mediaType: string): string {
  const plain = mediaType.split(";")[0] ?? mediaType;
  return tryText(`documents.type.${plain}`, plain);
}

/** A bar for a share from 0 to 1. */
export function ProgressBar({ share, label }: { share: number; label: string }) {
  return <progress class="progress" max={1} value={Math.max(0, Math.min(1, share))} aria-label={label} />;
}

/** The state of a document: progress while it is read, the reason of a failure, notes about its pages. */
export function StatusCell({ document }: { document: DocumentInfo }) {
  const searchable = document.status === "processing" && document.stage === "searchable";
  const status = searchable ? t("documents.status.searchable") : t(`documents.status.${document.status}`);
  if (document.status === "failed") {
    return (
      <div class="status status-failed">
        <Icon name="error" size={16} />
        <span>
          {status}
          {document.error ? `: ${failureText(document.error)}` : ""}
        </span>
      </div>
    );
  }
  if (document.status === "ready") {
    return (
      <div class="status status-ready">
        <Icon name="check" size={16} />
        <span>{status}</span>
        {document.problems.length ? (
          <span class="soft">{tn(document.problems.length, "documents.problems.count_one", "documents.problems.count")}</span>
        ) : null}
      </div>
    );
  }
  return (
    <div class="status">
      <span>{status}</span>
      {document.status === "processing" ? (
        <ProgressBar share={document.progress} label={t("documents.progress", { name: document.filename })} />
      ) : null}
      {document.eta_s !== null && document.eta_s >= 2 ? (
        <span class="soft small">{t("documents.eta", { seconds: Math.round(document.eta_s) })}</span>
      ) : null}
    </div>
  );
}
