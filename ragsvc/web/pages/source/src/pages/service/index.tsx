import { PageHeader } from "../../components/page_header";
import type { PageProps } from "..";
import { t } from "../../texts";

export default function ServicePage(_: PageProps) {
  return (
    <>
      <PageHeader title={t("nav.service")} />
      <p>{t("shell.coming")}</p>
    </>
  );
}
