import { PageHeader } from "../../components/page_header";
import type { PageProps } from "..";
import { t } from "../../texts";

export default function PlaygroundPage(_: PageProps) {
  return (
    <>
      <PageHeader title={t("nav.playground")} />
      <p>{t("shell.coming")}</p>
    </>
  );
}
