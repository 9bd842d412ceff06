import { PageHeader } from "../../components/page_header";
import type { PageProps } from "..";
import { t } from "../../texts";

export default function ReferencePage(_: PageProps) {
  return (
    <>
      <PageHeader title={t("nav.reference")} />
      <p>{t("shell.coming")}</p>
    </>
  );
}
