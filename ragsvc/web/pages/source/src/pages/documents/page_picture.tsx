import { useEffect, useState } from "preact/hooks";
import { documentPath, type DocumentInfo } from "../../api/documents";
import { href } from "../../api/prefix";
import { withQuery } from "../../api/request";
import { t } from "../../texts";

interface PagePictureProps {
  document: DocumentInfo;
  page: number;
  span: { start: number; end: number } | null;
}

/** The picture of a page, where its format has one. */
export function PagePicture({ document, page }: PagePictureProps) {
  const [failed, setFailed] = useState(false);
  useEffect(() => setFailed(false), [document.id, page]);
  return (
    <section class="card page-picture" aria-label={t("documents.detail.picture")}>
      {failed ? (
        <p class="soft">{t("documents.detail.no_picture")}</p>
      ) : (
        <img
          src={href(withQuery(`${documentPath(document.id)}/pages/${page}/image`, { width: 1000 }))}
          alt={t("documents.detail.page_of", { page, count: document.pages })}
          onError={() => setFailed(true)}
        />
      )}
    </section>
  );
}
