import { useEffect, useState } from "preact/hooks";
import { usage, usageTable, type Usage, type UsageQuery, type UsageRow } from "../../api/keys";
import { BarChart, LineChart, type Series } from "../../components/chart";
import { Field } from "../../components/field";
import { Icon } from "../../components/icons";
import { Notice } from "../../components/notice";
import { Spinner } from "../../components/spinner";
import { Table, type Column } from "../../components/table";
import { errorText } from "../../components/toast";
import { isAbort } from "../../api/errors";
import { formatNumber, t, tryText } from "../../texts";
import { daysAgo, daysBetween, formatDay } from "./days";
import { formatMoney, formatShort } from "./limits";

export type Dimension = "none" | "key_id" | "model" | "family" | "tenant";

const SERIES = 5;
const periods = [7, 30, 90, 365] as const;

interface UseProps {
  of: "all" | "own";
  tenant: string | null;
  /** Only of this key. */
  keyId: string | null;
  /** Names of keys by their id. */
  names: ReadonlyMap<string, string>;
  dimensions: readonly Dimension[];
}

interface Answers {
  days: Usage;
  divided: Usage;
  sums: Usage;
  by: Dimension;
}

/** Charts of requests, tokens, money, errors and durations by day, and the same summed. */
export function Use({ of, tenant, keyId, names, dimensions }: UseProps) {
  const [days, setDays] = useState<number>(30);
  const [by, setBy] = useState<Dimension>("none");
  const [answers, setAnswers] = useState<Answers | null>(null);
  const [error, setError] = useState<unknown>(null);
  const base: Omit<UsageQuery, "group_by"> =
    of === "own" ? { since: daysAgo(days - 1) } : { since: daysAgo(days - 1), tenant, key_id: keyId };
  const column = by === "none" ? "" : by;
  useEffect(() => {
    const abort = new AbortController();
    setError(null);
    setAnswers(null); // figures of another key or time must not stand below this choice
    Promise.all([
      usage(of, { ...base, group_by: "day" }, abort.signal),
      usage(of, { ...base, group_by: column ? `day,${column}` : "day" }, abort.signal),
      usage(of, { ...base, group_by: column }, abort.signal),
    ]).then(
      ([byDay, divided, sums]) => setAnswers({ days: byDay, divided, sums, by }),
      (reason: unknown) => {
        if (isAbort(reason)) return;
        setError(reason);
        setAnswers(null); // the figures of another key or period would stand below the new choice
      },
    );
    return () => abort.abort();
  }, [of, tenant, keyId, days, by]);

  const table: UsageQuery = { ...base, group_by: column ? `day,${column}` : "day,model,family" };
  return (
    <>
      <div class="keys-bar">
        <Field label={t("keys.use.period")}>
          <select value={String(days)} onChange={(event) => setDays(Number(event.currentTarget.value))}>
            {periods.map((count) => (
              <option key={count} value={String(count)}>
                {t("keys.use.days", { count })}
              </option>
            ))}
          </select>
        </Field>
        <Field label={t("keys.use.by")}>
          <select value={by} onChange={(event) => setBy(event.currentTarget.value as Dimension)}>
            {dimensions.map((name) => (
              <option key={name} value={name}>
                {t(`keys.use.by.${name}`)}
              </option>
            ))}
          </select>
        </Field>
        <a class="button" href={usageTable(of, table)} download>
          <Icon name="download" size={18} />
          {t("keys.use.download")}
        </a>
      </div>
      {error ? <Notice kind="error">{errorText(error)}</Notice> : null}
      {!answers && !error ? <Spinner label={t("shell.loading")} /> : null}
      {answers ? <Charts answers={answers} names={names} /> : null}
    </>
  );
}

function nameOf(row: UsageRow, by: Dimension, names: ReadonlyMap<string, string>): string {
  switch (by) {
    case "none":
      return "";
    case "key_id":
      return names.get(row.key_id ?? "") ?? row.key_id ?? "";
    case "model":
      return row.model || t("keys.use.no_model");
    case "family":
      return tryText(`keys.family.${row.family ?? ""}`, row.family || t("keys.use.others"));
    case "tenant":
      return row.tenant ?? "";
  }
}

/** The rows of each day as series; beyond the largest, the rest is one series. */
function seriesOf({ divided, by }: Answers, days: readonly string[], names: ReadonlyMap<string, string>, read: (row: UsageRow) => number): Series[] {
  const rows = new Map<string, Map<string, number>>();
  const sums = new Map<string, number>();
  for (const row of divided.data) {
    const name = nameOf(row, by, names);
    const byDay = rows.get(name) ?? new Map<string, number>();
    byDay.set(row.date ?? "", (byDay.get(row.date ?? "") ?? 0) + read(row));
    rows.set(name, byDay);
    sums.set(name, (sums.get(name) ?? 0) + read(row));
  }
  const order = [...sums].sort((one, other) => other[1] - one[1]).map(([name]) => name);
  const series = order.slice(0, SERIES).map((name) => ({ name, values: days.map((day) => rows.get(name)?.get(day) ?? 0) }));
  const rest = order.slice(SERIES);
  if (rest.length > 0) {
    const values = days.map((day) => rest.reduce((sum, name) => sum + (rows.get(name)?.get(day) ?? 0), 0));
    series.push({ name: t("keys.use.others"), values });
  }
  return series;
}

function formatDuration(ms: number): string {
  if (ms < 1000) return t("keys.use.milliseconds", { value: formatNumber(ms, { maximumFractionDigits: 0 }) });
  return t("keys.use.seconds", { value: formatNumber(ms / 1000, { maximumFractionDigits: 1 }) });
}

const costOf = (row: UsageRow): number => row.cost;
const tokensOf = (row: UsageRow): number => row.prompt_tokens + row.completion_tokens;

function Charts({ answers, names }: { answers: Answers; names: ReadonlyMap<string, string> }) {
  const { days: byDay, sums, by } = answers;
  if (byDay.data.length === 0) return <p class="table-empty">{t("keys.use.none")}</p>;
  const days = daysBetween(byDay.since, byDay.until);
  const shared = {
    labels: days.map((day) => formatDay(day, { dateStyle: "medium" })),
    shortLabels: days.map((day) => formatDay(day, { day: "numeric", month: "short" })),
    labelTitle: t("keys.use.day"),
    formatShort,
  };
  const sum = (read: (row: UsageRow) => number): number => byDay.data.reduce((total, row) => total + read(row), 0);
  const bars = (title: string, read: (row: UsageRow) => number, format: (value: number) => string) => (
    <section class="card">
      <BarChart {...shared} title={title} total={format(sum(read))} series={seriesOf(answers, days, names, read)} format={format} whole={read !== costOf} />
    </section>
  );
  const latencies = new Map(byDay.data.map((row) => [row.date, row.latency_ms]));
  const plain = (value: number): string => formatNumber(value);
  const rowKey = (row: UsageRow): string => [row.tenant, row.key_id, row.model, row.family].join(" ");
  const table = <Table caption={t("keys.use.table")} columns={columnsOf(by, names)} rows={sums.data} rowKey={rowKey} />;
  return (
    <>
      {by === "none" ? null : table}
      <h2 class="visually-hidden">{t("keys.use.by_day")}</h2>
      <div class="keys-charts">
        {bars(t("keys.use.requests"), (row) => row.requests, plain)}
        {bars(t("keys.use.tokens"), tokensOf, plain)}
        {bars(t("keys.use.money"), costOf, formatMoney)}
        {bars(t("keys.use.errors"), (row) => row.errors, plain)}
        <section class="card">
          <LineChart
            {...shared}
            title={t("keys.use.latency")}
            series={[{ name: "", values: days.map((day) => latencies.get(day) ?? null) }]}
            format={formatDuration}
            formatShort={formatDuration}
          />
        </section>
      </div>
      {by === "none" ? table : null}
      <p class="small soft">
        {t("keys.use.money.hint")} {t("keys.use.errors.hint")}
      </p>
    </>
  );
}

function columnsOf(by: Dimension, names: ReadonlyMap<string, string>): Column<UsageRow>[] {
  const title = t(`keys.use.by.${by}`);
  const named: Column<UsageRow> = { id: "name", title: title.charAt(0).toUpperCase() + title.slice(1), cell: (row) => nameOf(row, by, names) };
  const numbers: [string, string, (row: UsageRow) => string][] = [
    ["requests", t("keys.use.requests"), (row) => formatNumber(row.requests)],
    ["errors", t("keys.use.errors"), (row) => formatNumber(row.errors)],
    ["prompt", t("keys.use.prompt"), (row) => formatNumber(row.prompt_tokens)],
    ["completion", t("keys.use.completion"), (row) => formatNumber(row.completion_tokens)],
    ["money", t("keys.use.money"), (row) => formatMoney(row.cost)],
    ["latency", t("keys.use.latency"), (row) => (row.latency_ms === null ? "–" : formatDuration(row.latency_ms))],
  ];
  return [
    ...(by === "none" ? [] : [named]),
    ...numbers.map(([id, title, cell]): Column<UsageRow> => ({ id, title, cell, number: true })),
  ];
}
