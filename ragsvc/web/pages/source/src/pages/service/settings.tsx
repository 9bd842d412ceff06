import { useState } from "preact/hooks";
import { settings, type Setting } from "../../api/service";
import { ReadFailure } from "../../components/read_failure";
import { Field } from "../../components/field";
import { Spinner } from "../../components/spinner";
import { Table, type Column } from "../../components/table";
import { t } from "../../texts";
import { useAnswer } from "./use_answer";

export function SettingsList() {
  const { value, error, refresh } = useAnswer(settings);
  const [changed, setChanged] = useState(false);
  const [find, setFind] = useState("");
  if (error) return <ReadFailure error={error} onRetry={refresh} />;
  if (!value) return <Spinner label={t("shell.loading")} />;
  const wanted = find.trim().toLowerCase();
  const rows = value.filter((row) => (!changed || !row.is_default) && row.name.includes(wanted));
  const columns: Column<Setting>[] = [
    { id: "name", title: t("service.settings.name"), cell: (row) => <span class="service-mono">{row.name}</span> },
    { id: "value", title: t("service.settings.value"), cell: (row) => <span class="service-mono">{shown(row.value)}</span> },
  ];
  return (
    <>
      <p>{t("service.settings.text")}</p>
      <div class="service-bar">
        <Field label={t("service.settings.find")}>
          <input type="search" value={find} onInput={(event) => setFind(event.currentTarget.value)} />
        </Field>
        <label class="service-check">
          <input type="checkbox" checked={changed} onChange={(event) => setChanged(event.currentTarget.checked)} />
          {t("service.settings.changed")}
        </label>
      </div>
      <Table caption={t("service.settings.list")} columns={columns} rows={rows} rowKey={(row) => row.name} empty={t("service.settings.none")} />
    </>
  );
}

function shown(value: unknown): string {
  if (value === null || value === "") return "–";
  return typeof value === "string" ? value : JSON.stringify(value);
}
