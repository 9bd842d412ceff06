import { PageHeader } from "../../components/page_header";
import type { PageProps } from "..";
import { t } from "../../texts";

export default function DocumentsPage(_: PageProps) {
  return (
    <>
      <PageHeader title={t("nav.documents")} />
      <p>{t("shell.coming")}</p>
    </>
  );
}
