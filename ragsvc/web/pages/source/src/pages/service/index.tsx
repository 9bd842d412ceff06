import { PageHeader } from "../../components/page_header";
import { Tabs } from "../../components/tabs";
import { navigate, query } from "../../shell/router";
import { t } from "../../texts";
import { Findings } from "./findings";
import { ProviderList } from "./providers";
import "./service.css";
import { SettingsList } from "./settings";
import { State } from "./state";

const parts = ["state", "providers", "findings", "settings"] as const;

export default function ServicePage() {
  const part = parts.find((name) => name === query.value.get("part")) ?? "state";
  return (
    <>
      <PageHeader title={t("nav.service")} />
      <Tabs
        label={t("service.parts")}
        tabs={parts.map((name) => ({ id: name, title: t(`service.tab.${name}`) }))}
        selected={part}
        onSelect={(name) => navigate(`/service?part=${name}`)}
      >
        {part === "state" ? <State /> : null}
        {part === "providers" ? <ProviderList /> : null}
        {part === "findings" ? <Findings /> : null}
        {part === "settings" ? <SettingsList /> : null}
      </Tabs>
    </>
  );
}
