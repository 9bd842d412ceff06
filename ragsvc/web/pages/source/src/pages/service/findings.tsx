import { findings, type Finding } from "../../api/service";
import { ReadFailure } from "../../components/read_failure";
import { Button } from "../../components/button";
import { Notice } from "../../components/notice";
import { Spinner } from "../../components/spinner";
import { Table, type Column } from "../../components/table";
import { t } from "../../texts";
import { Mark } from "./facts";
import { useAnswer } from "./use_answer";

const marks = { ok: "good", warn: "warn", fail: "bad" } as const;
const order = { fail: 0, warn: 1, ok: 2 } as const;

export function Findings() {
  const { value, error, refresh } = useAnswer(findings);
  if (error) return <ReadFailure error={error} onRetry={refresh} />;
  if (!value) return <Spinner label={t("shell.loading")} />;
  const columns: Column<Finding>[] = [
    { id: "state", title: t("service.findings.state"), cell: (row) => <Mark kind={marks[row.state]}>{t(`service.findings.${row.state}`)}</Mark> },
    { id: "name", title: t("service.findings.what"), cell: (row) => row.name },
    { id: "words", title: t("service.findings.words"), cell: (row) => row.words },
  ];
  const rows = [...value].sort((one, other) => order[one.state] - order[other.state]);
  return (
    <div class="stack">
      <div>
        <Button icon="retry" onClick={refresh}>
          {t("service.refresh")}
        </Button>
      </div>
      {rows.every((row) => row.state === "ok") ? <Notice kind="success">{t("service.findings.good")}</Notice> : null}
      <Table caption={t("service.findings.list")} columns={columns} rows={rows} rowKey={(row) => `${row.name} ${row.words}`} />
      <p class="small soft">{t("service.findings.hint")}</p>
    </div>
  );
}
