import { PageHeader } from "../../components/page_header";
import type { PageProps } from "..";
import { t } from "../../texts";

export default function AskPage(_: PageProps) {
  return (
    <>
      <PageHeader title={t("nav.ask")} />
      <p>{t("shell.coming")}</p>
    </>
  );
}
