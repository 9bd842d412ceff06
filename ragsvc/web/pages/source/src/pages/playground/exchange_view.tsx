import { useState } from "preact/hooks";
import type { Exchange } from "../../api/exchange";
import { costOf, type Pricing, type Usage } from "../../api/models";
import { Button } from "../../components/button";
import { copyText } from "../../components/copy_text";
import { Tabs } from "../../components/tabs";
import { toast, toastError } from "../../components/toast";
import { formatBytes, formatNumber, t } from "../../texts";
import { copyAs, targets, type Target } from "./copy_as";

/** The longest text that is shown whole; the copy has all of it. */
const SHOWN_CHARACTERS = 200_000;

interface ExchangeViewProps {
  path: string;
  body: Record<string, unknown>;
  /** The last exchange, if a request was sent. */
  last: Exchange | null;
  usage: Usage | null;
  pricing: Pricing | null;
}

/** The request as it would be sent, the last response as it arrived, and programs that send the same. */
export function ExchangeView({ path, body, last, usage, pricing }: ExchangeViewProps) {
  const [tab, setTab] = useState("request");
  const tabs = [
    { id: "request", title: t("playground.request") },
    { id: "response", title: t("playground.response") },
    ...targets.map((target) => ({ id: target, title: t(`playground.as.${target}`) })),
  ];
  const text =
    tab === "request"
      ? `POST ${path}\n\n${JSON.stringify(body, null, 2)}`
      : tab === "response"
        ? last
          ? responseText(last)
          : ""
        : copyAs(tab as Target, path, body);
  return (
    <section class="exchange" aria-label={t("playground.exchange")}>
      {last ? <Figures last={last} usage={usage} pricing={pricing} /> : null}
      <Tabs label={t("playground.exchange")} tabs={tabs} selected={tab} onSelect={setTab}>
        {text ? (
          <>
            <div class="exchange-copy">
              <Button small icon="copy" onClick={() => copy(text)}>
                {t("shell.copy")}
              </Button>
            </div>
            <pre class="exchange-text" tabIndex={0}>
              {text.slice(0, SHOWN_CHARACTERS)}
            </pre>
          </>
        ) : (
          <p class="soft">{t("playground.no_response")}</p>
        )}
      </Tabs>
    </section>
  );
}

function copy(text: string): void {
  copyText(text).then(() => toast(t("shell.copied"), { kind: "success" }), toastError);
}

function responseText(last: Exchange): string {
  const head = [`HTTP ${last.status}`, ...last.headers.map(([name, value]) => `${name}: ${value}`)].join("\n");
  if (last.blob) return `${head}\n\n${t("playground.binary", { size: formatBytes(last.blob.size) })}`;
  return `${head}\n\n${pretty(last.text)}`;
}

function pretty(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text; // events, or text that is not JSON
  }
}

function Figures({ last, usage, pricing }: { last: Exchange; usage: Usage | null; pricing: Pricing | null }) {
  const cost = usage && pricing ? costOf(usage, pricing) : null;
  const figures: [string, string][] = [[t("playground.status"), String(last.status)]];
  if (last.firstMs !== null) figures.push([t("playground.first"), milliseconds(last.firstMs)]);
  figures.push([t("playground.total"), milliseconds(last.totalMs)]);
  if (usage?.prompt_tokens !== undefined) figures.push([t("playground.tokens_in"), formatNumber(usage.prompt_tokens)]);
  if (usage?.completion_tokens !== undefined) {
    figures.push([t("playground.tokens_out"), formatNumber(usage.completion_tokens)]);
  }
  if (cost !== null) figures.push([t("playground.cost"), formatNumber(cost, { maximumSignificantDigits: 3 })]);
  return (
    <dl class="figures">
      {figures.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function milliseconds(value: number): string {
  return formatNumber(Math.round(value), { style: "unit", unit: "millisecond", unitDisplay: "short" });
}
