import { PageHeader } from "../../components/page_header";
import type { PageProps } from "..";
import { t } from "../../texts";

export default function KeysPage(_: PageProps) {
  return (
    <>
      <PageHeader title={t("nav.keys")} />
      <p>{t("shell.coming")}</p>
    </>
  );
}
