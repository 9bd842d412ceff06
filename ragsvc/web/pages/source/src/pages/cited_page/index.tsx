import { useEffect, useState } from "preact/hooks";
import { isAbort } from "../../api/errors";
import { getDocument } from "../../api/viewer";
import { PageViewer, type PageMark } from "../../components/page_viewer";
import { navigate, query } from "../../shell/router";
import { t } from "../../texts";
import type { PageProps } from "..";
import "./cited_page.css";

function markOf(parameters: URLSearchParams): PageMark | null {
  const start = Number.parseInt(parameters.get("start") ?? "", 10);
  const end = Number.parseInt(parameters.get("end") ?? "", 10);
  if (end > start) return { start, end };
  const quote = parameters.get("quote") ?? undefined;
  const chunkId = parameters.get("passage_id") ?? undefined;
  return quote || chunkId ? { quote, chunkId } : null;
}

/** A page of a document by its address: `/documents/{id}/pages/{page}?quote=…`, `?start=…&end=…` or `?passage_id=…`. */
export default function CitedPage({ params }: PageProps) {
  const id = params["id"] ?? "";
  const page = Math.max(1, Number.parseInt(params["page"] ?? "1", 10) || 1);
  const [title, setTitle] = useState("");
  useEffect(() => {
    const stop = new AbortController();
    getDocument(id, stop.signal).then(
      (document) => setTitle(document.filename),
      (error: unknown) => {
        if (!isAbort(error)) setTitle(id);
      },
    );
    return () => stop.abort();
  }, [id]);
  useEffect(() => {
    window.document.title = `${t("documents.search.page", { name: title || id, page: String(page) })} – ragsvc`;
  }, [title, id, page]);
  return (
    <div class="cited-page">
      <h1 class="visually-hidden">{title || id}</h1>
      <PageViewer
        documentId={id}
        page={page}
        title={title}
        mark={markOf(query.value)}
        onClose={() => navigate(`/documents/${encodeURIComponent(id)}`)}
      />
    </div>
  );
}
