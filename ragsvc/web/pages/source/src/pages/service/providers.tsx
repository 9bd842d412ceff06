import { useState } from "preact/hooks";
import { providers, testProvider, type Circuit, type Provider, type ProviderTest } from "../../api/service";
import { ReadFailure } from "../../components/read_failure";
import { Button } from "../../components/button";
import { Notice } from "../../components/notice";
import { Spinner } from "../../components/spinner";
import { Table, type Column } from "../../components/table";
import { errorText } from "../../components/toast";
import { t } from "../../texts";
import { Mark } from "./facts";
import { useAnswer } from "./use_answer";

const marks = { closed: "good", half_open: "warn", open: "bad" } as const;

export function ProviderList() {
  const { value, error, refresh } = useAnswer(providers);
  const [running, setRunning] = useState<string | null>(null);
  const [results, setResults] = useState<Record<string, ProviderTest>>({});
  if (error) return <ReadFailure error={error} onRetry={refresh} />;
  if (!value) return <Spinner label={t("shell.loading")} />;
  const test = async (name: string): Promise<void> => {
    setRunning(name);
    let result: ProviderTest;
    try {
      result = await testProvider(name);
    } catch (reason) {
      result = { ok: false, latency_ms: 0, models: [], error: errorText(reason) };
    }
    setResults((before) => ({ ...before, [name]: result }));
    setRunning(null);
    refresh();
  };
  const columns: Column<Provider>[] = [
    { id: "name", title: t("service.providers.name"), cell: (row) => row.name },
    { id: "health", title: t("service.providers.health"), cell: (row) => <Health of={row} /> },
    { id: "models", title: t("service.providers.models"), cell: (row) => row.models.map((model) => model.id).join(", ") },
    { id: "address", title: t("service.providers.address"), wideOnly: true, cell: (row) => <span class="service-mono">{row.base_url}</span> },
    { id: "source", title: t("service.providers.source"), wideOnly: true, cell: (row) => t(`service.providers.source.${row.source}`) },
    {
      id: "result",
      title: t("service.providers.result"),
      cell: (row) => (
        <div class="row">
          <Button small busy={running === row.name} aria-label={t("service.providers.try.label", { name: row.name })} onClick={() => test(row.name)}>
            {t("service.providers.try")}
          </Button>
          <span role="status">{results[row.name] ? <Result of={results[row.name]} /> : null}</span>
        </div>
      ),
    },
  ];
  return (
    <div class="stack">
      {value.disabled.map((one) => (
        <Notice key={one.name} kind="error">
          {t("service.providers.disabled", one)}
        </Notice>
      ))}
      <Table
        caption={t("service.providers.list")}
        columns={columns}
        rows={value.data}
        rowKey={(row) => row.name}
        empty={t("service.providers.none")}
      />
    </div>
  );
}

function Health({ of }: { of: Provider }) {
  const troubled = Object.entries(of.circuits).filter(([, circuit]) => circuit !== "closed");
  const circuits: [string, Circuit][] = troubled.length > 0 ? troubled : [["", of.circuit]];
  return (
    <>
      {circuits.map(([family, circuit]) => (
        <Mark key={family} kind={marks[circuit]}>
          {family ? `${family}: ` : ""}
          {t(`service.circuit.${circuit}`)}
        </Mark>
      ))}
    </>
  );
}

function Result({ of }: { of: ProviderTest | undefined }) {
  if (!of) return null;
  return <>{of.ok ? t("service.providers.answered", { ms: Math.round(of.latency_ms), count: of.models.length }) : of.error}</>;
}
