import type { ComponentChildren, JSX } from "preact";
import { useId } from "preact/hooks";
import { t } from "../texts";
import "./chart.css";
import { Table, type Column } from "./table";

export interface Series {
  name: string;
  /** A value for each label; null where nothing was measured. */
  values: readonly (number | null)[];
}

interface ChartProps {
  title: string;
  /** The number beside the title, such as the sum. */
  total?: string;
  /** What the chart is drawn over, such as days, in full. */
  labels: readonly string[];
  /** The same in short, for the axis. */
  shortLabels: readonly string[];
  /** The heading of the column of labels in the table. */
  labelTitle: string;
  series: readonly Series[];
  format: (value: number) => string;
  /** As `format`, but short enough for the axis. */
  formatShort: (value: number) => string;
  /** The values are whole numbers, and so are those of the axis. */
  whole?: boolean;
}

const WIDTH = 480;
const HEIGHT = 170;
const LEFT = 52;
const BOTTOM = 22;
const TOP = 8;
const PLOT_HEIGHT = HEIGHT - TOP - BOTTOM;
const COLOURS = 6;

/** A round number that is not below `value`, for the end of an axis; if `whole`, half of it is a whole number, too. */
export function roundUp(value: number, whole = false): number {
  if (value <= 0) return whole ? 2 : 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const steps = whole ? [2, 4, 6, 8, 10] : [1, 2, 2.5, 5, 10];
  const step = steps.find((candidate) => candidate * power >= value) ?? 10;
  return step * power;
}

/** Every n-th label, so that at most `most` are drawn; the last one is always among them. */
function drawnLabels(count: number, most: number): number[] {
  const step = Math.max(1, Math.ceil(count / most));
  return Array.from({ length: count }, (_, index) => index).filter((index) => (count - 1 - index) % step === 0);
}

/** Bars that stack the series; the table below has the same numbers. */
export function BarChart(props: ChartProps) {
  const sums = props.labels.map((_, at) => props.series.reduce((sum, one) => sum + (one.values[at] ?? 0), 0));
  const top = roundUp(Math.max(0, ...sums), props.whole);
  const step = (WIDTH - LEFT) / Math.max(1, props.labels.length);
  const width = Math.min(28, Math.max(1.5, step * 0.72));
  const bars: JSX.Element[] = [];
  props.labels.forEach((label, at) => {
    let base = TOP + PLOT_HEIGHT;
    props.series.forEach((one, index) => {
      const value = one.values[at] ?? 0;
      if (value <= 0) return;
      const height = Math.max(1, (value / top) * PLOT_HEIGHT);
      base -= height;
      bars.push(
        <rect
          key={`${at}-${index}`}
          class={`chart-bar-${(index % COLOURS) + 1}`}
          x={LEFT + step * at + (step - width) / 2}
          y={Math.max(TOP, base)}
          width={width}
          height={height}
        >
          <title>{`${label}${one.name ? `, ${one.name}` : ""}: ${props.format(value)}`}</title>
        </rect>,
      );
    });
  });
  return (
    <Frame {...props} top={top}>
      {bars}
    </Frame>
  );
}

/** A line of the first series, with gaps where nothing was measured. */
export function LineChart(props: ChartProps) {
  const values = props.series[0]?.values ?? [];
  const top = roundUp(Math.max(0, ...values.map((value) => value ?? 0)));
  const step = (WIDTH - LEFT) / Math.max(1, props.labels.length);
  const x = (at: number): number => LEFT + step * (at + 0.5);
  const y = (value: number): number => TOP + PLOT_HEIGHT * (1 - value / top);
  let path = "";
  values.forEach((value, at) => {
    if (value === null) return;
    const before = at > 0 ? values[at - 1] : null;
    path += `${before === null || before === undefined ? "M" : "L"}${x(at).toFixed(1)} ${y(value).toFixed(1)} `;
  });
  return (
    <Frame {...props} top={top}>
      {path ? <path class="chart-line" d={path} /> : null}
      {values.map((value, at) =>
        value === null ? null : (
          <circle key={at} class="chart-bar-1" cx={x(at)} cy={y(value)} r={3}>
            <title>{`${props.labels[at] ?? ""}: ${props.format(value)}`}</title>
          </circle>
        ),
      )}
    </Frame>
  );
}

function Frame(props: ChartProps & { top: number; children: ComponentChildren }) {
  const heading = useId();
  const step = (WIDTH - LEFT) / Math.max(1, props.labels.length);
  const named = props.series.filter((one) => one.name);
  return (
    <figure class="chart" aria-labelledby={heading}>
      <div class="chart-head">
        <h3 id={heading}>{props.title}</h3>
        {props.total ? <span class="chart-total">{props.total}</span> : null}
      </div>
      <svg class="chart-picture" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={t("chart.label", { title: props.title })}>
        {[0, 0.5, 1].map((share) => {
          const y = TOP + PLOT_HEIGHT * (1 - share);
          return (
            <g key={share}>
              <line class="chart-grid" x1={LEFT} x2={WIDTH} y1={y} y2={y} />
              <text class="chart-text" x={LEFT - 6} y={y + 4} text-anchor="end">
                {props.formatShort(props.top * share)}
              </text>
            </g>
          );
        })}
        {drawnLabels(props.labels.length, 6).map((at) => (
          <text key={at} class="chart-text" x={Math.min(WIDTH - 22, LEFT + step * (at + 0.5))} y={HEIGHT - 6} text-anchor="middle">
            {props.shortLabels[at]}
          </text>
        ))}
        {props.children}
      </svg>
      {named.length > 0 ? (
        <ul class="chart-legend">
          {named.map((one, index) => (
            <li key={one.name}>
              <svg width="12" height="12" aria-hidden="true" focusable="false">
                <rect class={`chart-bar-${(index % COLOURS) + 1}`} width="12" height="12" rx="2" />
              </svg>
              {one.name}
            </li>
          ))}
        </ul>
      ) : null}
      <ChartTable {...props} />
    </figure>
  );
}

/** The numbers of a chart, for everyone who cannot see it or wants them exactly. */
function ChartTable({ title, labels, labelTitle, series, format }: ChartProps) {
  const columns: Column<number>[] = [
    { id: "label", title: labelTitle, cell: (at) => labels[at] },
    ...series.map((one, index) => ({
      id: `series-${index}`,
      title: one.name || title,
      number: true,
      cell: (at: number) => {
        const value = one.values[at];
        return value === null || value === undefined ? "–" : format(value);
      },
    })),
  ];
  return (
    <details>
      <summary>{t("chart.table")}</summary>
      <Table caption={title} columns={columns} rows={labels.map((_, at) => at).reverse()} rowKey={(at) => at} />
    </details>
  );
}
